//! `/proc/self/mountinfo`, parsed: what is mounted where.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::errno::{Context, Result};

/// One mount, as a line of mountinfo tells it; see `proc_pid_mountinfo(5)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The mount's own number.
    pub id: u64,
    /// The number of the mount it is on.
    pub parent: u64,
    /// The device of what is mounted, (major, minor).
    pub dev: (u32, u32),
    /// Which directory of that filesystem is the root of the mount.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Options of the mount, such as `rw,nosuid`.
    pub options: OsString,
    /// Type of the filesystem, such as `fuse.plyfs`.
    pub fs_type: OsString,
    /// What it was mounted from.
    pub source: OsString,
    /// Options of the filesystem.
    pub super_options: OsString,
}

/// All mounts that this process sees, in the order they were mounted.
pub fn read() -> Result<Vec<Mount>> {
    let file = "/proc/self/mountinfo";
    Ok(parse(&std::fs::read(file).context(|| format!("cannot read {file}"))?))
}

/// Parses the text of a mountinfo file. A line that makes no sense is left out.
pub fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// The topmost mount whose mount point is exactly `path` (absolute, resolved).
pub fn at<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    // As bytes: both are resolved, and comparing components takes ten times as long.
    mounts.iter().rev().find(|mount| mount.point.as_os_str() == path.as_os_str())
}

/// The mount that `path` (absolute, resolved) lies on.
pub fn containing<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    path.ancestors().find_map(|ancestor| at(mounts, ancestor))
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ').filter(|field| !field.is_empty());
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let dev = fields.next()?;
    let colon = dev.iter().position(|&byte| byte == b':')?;
    let (major, minor) = dev.split_at_checked(colon)?;
    let dev = (number(major)?, number(minor.get(1..)?)?);
    let root = PathBuf::from(unescape(fields.next()?));
    let point = PathBuf::from(unescape(fields.next()?));
    let options = unescape(fields.next()?);
    // Optional fields, as many as the kernel likes, up to a hyphen.
    fields.find(|field| *field == b"-")?;
    let fs_type = unescape(fields.next()?);
    let source = unescape(fields.next().unwrap_or_default());
    let super_options = unescape(fields.next().unwrap_or_default());
    Some(Mount { id, parent, dev, root, point, options, fs_type, source, super_options })
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Undoes the kernel's `\ooo` for space, tab, newline, backslash and hash.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        if let (b'\\', Some((octal, after))) = (first, tail.split_at_checked(3))
            && let Some(byte) = octal_byte(octal)
        {
            out.push(byte);
            rest = after;
        } else {
            out.push(first);
            rest = tail;
        }
    }
    OsString::from_vec(out)
}

fn octal_byte(digits: &[u8]) -> Option<u8> {
    if !digits.iter().all(|digit| matches!(digit, b'0'..=b'7')) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests;
