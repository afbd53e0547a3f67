//! /proc/self/mountinfo, read.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::errno::{Context, Result};

/// One mount of this mount namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is, absolute.
    pub point: PathBuf,
    /// The filesystem's type, such as `fuse.plyfs`.
    pub fstype: Vec<u8>,
    /// What it says it is mounted from.
    pub source: Vec<u8>,
    /// The filesystem's own options, separated by commas, as it prints them.
    pub options: Vec<u8>,
}

/// All mounts; a later one at the same place covers an earlier one.
pub fn mounts() -> Result<Vec<Mount>> {
    let path = "/proc/self/mountinfo";
    let text = std::fs::read(path).context(|| path)?;
    Ok(text.split(|&byte| byte == b'\n').filter_map(parse).collect())
}

/// The mount that is on top at `point` (absolute, without symbolic links).
pub fn at(point: &Path) -> Result<Option<Mount>> {
    Ok(mounts()?.into_iter().rfind(|mount| mount.point == point))
}

/// One line; `None` for what is none.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let point = fields.nth(4)?;
    fields.find(|field| field == b"-")?;
    let (fstype, source, options) = (fields.next()?, fields.next()?, fields.next()?);
    Some(Mount {
        point: PathBuf::from(OsString::from_vec(unescape(point))),
        fstype: unescape(fstype),
        source: unescape(source),
        options: unescape(options),
    })
}

/// The kernel writes space, tab, newline, `\` and `#` as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let octal = (byte == b'\\').then(|| after.get(..3)).flatten().and_then(|digits| {
            digits.iter().try_fold(0_u8, |value, digit| match digit {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
                _ => None,
            })
        });
        match octal {
            Some(value) => {
                plain.push(value);
                rest = after.get(3..).unwrap_or_default();
            }
            None => plain.push(byte),
        }
    }
    plain
}

#[cfg(test)]
mod tests;
