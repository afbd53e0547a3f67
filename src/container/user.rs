//! Who a command runs as: an image's `User`, looked up in the image's own passwd and group files.
//! The answers are docker's.

use std::path::Path;

use super::root::Root;
use crate::errno::{Context, Errno, Error, Result};

/// How large a passwd or group file may be, bytes.
const MAX_FILE: u64 = 16 << 20;

/// Who a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// All groups, `gid` first.
    pub groups: Vec<u32>,
    /// The home directory; `/` for a user without one.
    pub home: Vec<u8>,
}

impl Identity {
    /// Why nobody can be this one here.
    pub(super) fn unmapped(&self) -> Error {
        let Self { uid, groups, .. } = self;
        let why = format!("user {uid} or one of groups {groups:?} is not in this user namespace");
        Error::new(Errno::EINVAL, why)
    }
}

/// A line of passwd(5).
struct User<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

/// A line of group(5).
struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

/// Looks `user` up in the files of a root.
pub(super) fn resolve(root: &Root, user: &str) -> Result<Identity> {
    let file = |path: &str| Ok(root.read(Path::new(path), MAX_FILE)?.unwrap_or_default());
    let looked_up = file("/etc/passwd").and_then(|passwd| {
        let group = file("/etc/group")?;
        lookup(user, &passwd, &group)
    });
    looked_up.context(|| format!("user '{}'", user.escape_debug()))
}

/// Looks up `user`: `""` (root), `uid`, `name`, each perhaps with `:gid` or `:group`. A number
/// needs no line in the files. The groups that list the user as a member are theirs, too, unless
/// a group is named.
///
/// # Errors
/// `EINVAL` for a name that the files do not have, and for a number that is no id.
pub fn lookup(user: &str, passwd: &[u8], group: &[u8]) -> Result<Identity> {
    let (user, wanted) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let uid = if user.is_empty() { Some(0) } else { id(user)? };
    let found = users(passwd).find(|line| match uid {
        Some(uid) => line.uid == uid,
        None => line.name == user.as_bytes(),
    });
    let (uid, gid, home) = match (&found, uid) {
        (Some(line), _) => (line.uid, line.gid, line.home),
        (None, Some(uid)) => (uid, 0, b"".as_slice()),
        (None, None) => return Err(no_such("user", "/etc/passwd")),
    };
    let (gid, others) = match (wanted, &found) {
        (Some(wanted), _) => (named_group(wanted, group)?, Vec::new()),
        (None, Some(line)) => {
            let theirs = groups(group).filter(|group| group.has_member(line.name));
            (gid, theirs.map(|group| group.gid).collect())
        }
        (None, None) => (gid, Vec::new()),
    };
    let mut all = vec![gid];
    for other in others {
        if !all.contains(&other) {
            all.push(other);
        }
    }
    let home = if home.is_empty() { b"/" } else { home }.to_vec();
    Ok(Identity { uid, gid, groups: all, home })
}

/// The number of a group given by name or number.
fn named_group(wanted: &str, group: &[u8]) -> Result<u32> {
    if let Some(gid) = id(wanted)? {
        return Ok(gid);
    }
    let found = groups(group).find(|line| line.name == wanted.as_bytes());
    found.map(|line| line.gid).ok_or_else(|| no_such("group", "/etc/group"))
}

/// The id that a word of digits is; `None` for any other word.
fn id(word: &str) -> Result<Option<u32>> {
    if !word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match word.parse::<u32>() {
        Ok(id) if id <= i32::MAX.cast_unsigned() => Ok(Some(id)),
        _ => Err(Error::new(Errno::EINVAL, format!("{word} is no id: ids end at {}", i32::MAX))),
    }
}

fn no_such(what: &str, file: &str) -> Error {
    Error::new(Errno::EINVAL, format!("no such {what} in the image's {file}"))
}

impl Group<'_> {
    fn has_member(&self, name: &[u8]) -> bool {
        self.members.split(|&byte| byte == b',').any(|member| member == name)
    }
}

/// The lines of a passwd file that make sense.
fn users(passwd: &[u8]) -> impl Iterator<Item = User<'_>> {
    lines(passwd).filter_map(|mut fields| {
        let (name, _) = (fields.next()?, fields.next()?);
        let (uid, gid) = (number(fields.next()?)?, number(fields.next()?)?);
        let home = fields.nth(1).unwrap_or_default();
        Some(User { name, uid, gid, home })
    })
}

/// The lines of a group file that make sense.
fn groups(group: &[u8]) -> impl Iterator<Item = Group<'_>> {
    lines(group).filter_map(|mut fields| {
        let (name, _) = (fields.next()?, fields.next()?);
        let gid = number(fields.next()?)?;
        Some(Group { name, gid, members: fields.next().unwrap_or_default() })
    })
}

/// The fields of each line that has a name.
fn lines(file: &[u8]) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
    file.split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#") && !line.starts_with(b":"))
        .map(|line| line.split(|&byte| byte == b':'))
}

fn number(digits: &[u8]) -> Option<u32> {
    id(std::str::from_utf8(digits).ok().filter(|text| !text.is_empty())?).ok()?
}

#[cfg(test)]
mod tests;
