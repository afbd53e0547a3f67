//! The attribute that says who owns a file, and what it is: its names, its value, and how other
//! attributes are stored beside it. Pure functions over bytes.
//!
//! The value is that of containers/storage: `UID:GID:MODE:TYPE`, where MODE is octal and TYPE one
//! of `file`, `dir`, `symlink`, `pipe`, `socket`, `block-MAJOR-MINOR`, `char-MAJOR-MINOR`. Older
//! programs leave TYPE out.

use crate::attr::{Attr, Kind};

/// Which attribute a layer keeps owners in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `security.fuseoverlayfs.override_stat`, which root alone writes (`xattr_permissions=1`).
    Privileged,
    /// `user.containers.override_stat` (`xattr_permissions=2`).
    Containers,
    /// `user.fuseoverlayfs.override_stat`, which early versions of fuse-overlayfs wrote.
    Legacy,
}

/// What the names of other attributes begin with that a user could not write.
const SHELTER: &[u8] = b"user.containers.override_";
/// What a change of owner or content drops.
pub(super) const CAPABILITY: &[u8] = b"security.capability";
const SECURITY: &[u8] = b"security.";
const ACL: &[u8] = b"system.posix_acl_";

impl Form {
    /// In the order in which they are looked for.
    pub const ALL: [Self; 3] = [Self::Privileged, Self::Containers, Self::Legacy];

    /// The attribute's name.
    pub fn name(self) -> &'static [u8] {
        match self {
            Self::Privileged => b"security.fuseoverlayfs.override_stat",
            Self::Containers => b"user.containers.override_stat",
            Self::Legacy => b"user.fuseoverlayfs.override_stat",
        }
    }

    /// Where an attribute that is called `name` is stored; `None` where there can be none: ACLs
    /// belong to owners that the filesystem below does not know.
    pub fn stored(self, name: &[u8]) -> Option<Vec<u8>> {
        if name.starts_with(ACL) {
            return None;
        }
        Some(if self.shelters(name) { [SHELTER, name].concat() } else { name.to_vec() })
    }

    /// Where a file's capabilities are stored.
    pub(super) fn stored_capability(self) -> Vec<u8> {
        if self.shelters(CAPABILITY) { [SHELTER, CAPABILITY].concat() } else { CAPABILITY.to_vec() }
    }

    /// What the stored attribute `stored` is called; `None` for one that is not shown.
    pub fn shown(self, stored: &[u8]) -> Option<&[u8]> {
        match stored.strip_prefix(SHELTER) {
            Some(name) if self.shelters(name) => Some(name),
            _ if stored.starts_with(ACL) || self.shelters(stored) => None,
            _ => Some(stored),
        }
    }

    /// Whether an attribute of that name is stored under another one.
    fn shelters(self, name: &[u8]) -> bool {
        name == self.name()
            || (self != Self::Privileged
                && (name.starts_with(SECURITY) || name.starts_with(SHELTER)))
    }
}

/// What the attribute says of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, `0o7777`.
    pub perm: u16,
    /// Type and device number; `None` means that it is what it seems.
    pub what: Option<(Kind, u64)>,
}

impl Override {
    /// What `attr` says.
    pub fn of(attr: &Attr) -> Self {
        let what = Some((attr.kind, attr.rdev));
        Self { uid: attr.uid, gid: attr.gid, perm: attr.perm, what }
    }

    /// From the attribute's value; `None` if it is of no known form.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let mut parts = text.splitn(4, ':');
        let (uid, gid, mode) = (parts.next()?, parts.next()?, parts.next()?);
        let perm = u32::from_str_radix(mode, 8).ok()? & 0o7777;
        Some(Self {
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            perm: u16::try_from(perm).ok()?,
            what: parts.next().map(parse_type).transpose().ok()?,
        })
    }

    /// The attribute's value.
    pub fn format(&self) -> String {
        let owner = format!("{}:{}:{:04o}", self.uid, self.gid, self.perm);
        let Some((kind, rdev)) = self.what else { return owner };
        let device = || {
            let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
            format!("-{major}-{minor}")
        };
        match kind {
            Kind::File => format!("{owner}:file"),
            Kind::Dir => format!("{owner}:dir"),
            Kind::Symlink => format!("{owner}:symlink"),
            Kind::Fifo => format!("{owner}:pipe"),
            Kind::Socket => format!("{owner}:socket"),
            Kind::Block => format!("{owner}:block{}", device()),
            Kind::Char => format!("{owner}:char{}", device()),
        }
    }

    /// Puts what it says into `attr`. A regular file may stand for anything but a directory;
    /// what else is there is what it is.
    pub fn apply(&self, attr: &mut Attr) {
        (attr.uid, attr.gid, attr.perm) = (self.uid, self.gid, self.perm);
        let Some((kind, rdev)) = self.what else { return };
        if attr.kind != Kind::File || matches!(kind, Kind::File | Kind::Dir) {
            return;
        }
        attr.kind = kind;
        if kind != Kind::Symlink {
            (attr.rdev, attr.size, attr.blocks) = (rdev, 0, 0);
        }
    }
}

/// A type, and what follows it: versions to come may add to it.
fn parse_type(text: &str) -> Result<(Kind, u64), ()> {
    let plain = [
        ("file", Kind::File),
        ("dir", Kind::Dir),
        ("symlink", Kind::Symlink),
        ("pipe", Kind::Fifo),
        ("socket", Kind::Socket),
    ];
    if let Some((_, kind)) = plain.iter().find(|(name, _)| text.starts_with(name)) {
        return Ok((*kind, 0));
    }
    for (name, kind) in [("block", Kind::Block), ("char", Kind::Char)] {
        if let Some(numbers) = text.strip_prefix(name) {
            // fuse-overlayfs has `block8:0`, too.
            let numbers = numbers.strip_prefix('-').unwrap_or(numbers);
            let mut numbers = numbers.split(['-', ':']);
            let mut next = || numbers.next().and_then(|number| number.parse().ok()).ok_or(());
            return Ok((kind, rustix::fs::makedev(next()?, next()?)));
        }
    }
    Err(())
}

#[cfg(test)]
mod tests;
