//! Extended headers: records `LENGTH KEY=VALUE\n`, taken apart by their lengths, so that a value
//! may hold any bytes.
//!
//! As Go's `archive/tar` has it: of two records with one key the later counts; an empty value
//! leaves what the header block says; a second extended header before an entry replaces the first;
//! `hdrcharset`, `uname` and `gname`, access and change times are not looked at. Attributes are
//! those of `SCHILY.xattr.`: what libarchive writes as `LIBARCHIVE.xattr.` it writes in that form
//! too. Global headers are skipped, as containerd skips them.

use std::collections::HashMap;

use super::{Limits, refuse};
use crate::attr::Time;
use crate::errno::{Error, Result};

const XATTR: &[u8] = b"SCHILY.xattr.";

/// The longest name and value of an attribute that Linux has (`XATTR_NAME_MAX`, `XATTR_SIZE_MAX`).
const XATTR_NAME: usize = 255;
const XATTR_VALUE: usize = 65536;

/// What the records before one entry say of it.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<i64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: GnuSparse,
}

/// The `GNU.sparse.` records.
#[derive(Debug, Default)]
pub(super) struct GnuSparse {
    pub(super) major: Option<Vec<u8>>,
    pub(super) minor: Option<Vec<u8>>,
    pub(super) name: Option<Vec<u8>>,
    /// `size`, of 0.0 and 0.1.
    pub(super) size: Option<i64>,
    /// `realsize`, of 1.0.
    pub(super) real_size: Option<i64>,
    pub(super) blocks: Option<i64>,
    /// Offsets and lengths in turn: from `map` (0.1), or from `offset` and `numbytes` (0.0).
    pub(super) map: Vec<i64>,
}

/// Takes `records` apart; `path` is for errors.
///
/// # Errors
/// `EINVAL` for anything that is no list of records, and for values that are not what their key
/// asks for.
pub(super) fn parse(mut records: &[u8], path: &[u8], limits: &Limits) -> Result<Pax> {
    let mut all = Records { path, limits, pax: Pax::default(), known: HashMap::new() };
    while !records.is_empty() {
        let (key, value, rest) =
            record(records).ok_or_else(|| refuse(path, "its extended header is malformed"))?;
        all.take(key, value)?;
        records = rest;
    }
    let pairs = &all.pax.sparse.map;
    if !pairs.len().is_multiple_of(2) {
        return Err(refuse(path, "its sparse map ends in the middle of a pair"));
    }
    Ok(all.pax)
}

/// The key and value of the first record, and what follows it.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let digits = records.iter().position(|&byte| byte == b' ')?;
    let length: usize = decimal(records.get(..digits)?)?.try_into().ok()?;
    let (own, rest) = records.split_at_checked(length)?;
    let body = own.get(digits + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=').filter(|&at| at > 0)?;
    Some((body.get(..equals)?, body.get(equals + 1..)?, rest))
}

/// A number in decimal digits, with a sign or without.
pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with any number of decimal places; what is finer than a nanosecond is cut off.
fn time(text: &[u8]) -> Option<Time> {
    let (whole, places) = match text.iter().position(|&byte| byte == b'.') {
        Some(dot) => (text.get(..dot)?, text.get(dot + 1..)?),
        None => (text, &b""[..]),
    };
    let sec = decimal(whole)?;
    if !places.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nsec = (0..9).fold(0, |value, place| {
        value * 10 + u32::from(places.get(place).copied().unwrap_or(b'0') - b'0')
    });
    // -1.25 is a quarter of a second before -1: -2 and 750,000,000 ns.
    if whole.starts_with(b"-") && nsec != 0 {
        return Some(Time { sec: sec.checked_sub(1)?, nsec: 1_000_000_000 - nsec });
    }
    Some(Time { sec, nsec })
}

struct Records<'a> {
    path: &'a [u8],
    limits: &'a Limits,
    pax: Pax,
    /// Where in the list each attribute is.
    known: HashMap<Vec<u8>, usize>,
}

impl Records<'_> {
    fn bad(&self, key: &[u8], why: &str) -> Error {
        refuse(self.path, format!("extended header '{}' {why}", super::shown(key)))
    }

    /// A value whose absence an empty one means.
    fn some<T>(
        &self,
        key: &[u8],
        value: &[u8],
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>> {
        if value.is_empty() {
            return Ok(None);
        }
        parse(value).map(Some).ok_or_else(|| self.bad(key, "has a value that it cannot have"))
    }

    /// A path.
    fn path(&self, key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>> {
        if value.contains(&0) {
            return Err(self.bad(key, "holds a NUL"));
        }
        self.some(key, value, |value| Some(value.to_vec()))
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if key.contains(&0) {
            return Err(self.bad(key, "holds a NUL"));
        }
        match key {
            b"path" => self.pax.path = self.path(key, value)?,
            b"linkpath" => self.pax.link = self.path(key, value)?,
            b"size" => self.pax.size = self.some(key, value, decimal)?,
            b"uid" => self.pax.uid = self.some(key, value, decimal)?,
            b"gid" => self.pax.gid = self.some(key, value, decimal)?,
            b"mtime" => self.pax.mtime = self.some(key, value, time)?,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    return self.xattr(name, value);
                }
                if let Some(field) = key.strip_prefix(b"GNU.sparse.") {
                    return self.sparse(key, field, value);
                }
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        if name.is_empty() || name.len() > XATTR_NAME {
            return Err(self.bad(name, "names an attribute that cannot be"));
        }
        if value.len() > XATTR_VALUE {
            return Err(self.bad(name, "holds more than an attribute can"));
        }
        if let Some(known) = self.known.get(name).and_then(|&at| self.pax.xattrs.get_mut(at)) {
            known.1 = value.to_vec();
            return Ok(());
        }
        if self.pax.xattrs.len() >= self.limits.xattrs {
            let most = self.limits.xattrs;
            return Err(refuse(self.path, format!("more than {most} extended attributes")));
        }
        self.known.insert(name.to_vec(), self.pax.xattrs.len());
        self.pax.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }

    fn sparse(&mut self, key: &[u8], field: &[u8], value: &[u8]) -> Result<()> {
        match field {
            b"major" => self.pax.sparse.major = Some(value.to_vec()),
            b"minor" => self.pax.sparse.minor = Some(value.to_vec()),
            b"name" => self.pax.sparse.name = self.path(key, value)?,
            b"size" => self.pax.sparse.size = self.some(key, value, decimal)?,
            b"realsize" => self.pax.sparse.real_size = self.some(key, value, decimal)?,
            b"numblocks" => self.pax.sparse.blocks = self.some(key, value, decimal)?,
            b"map" => {
                let map = self.some(key, value, |value| {
                    value.split(|&byte| byte == b',').map(decimal).collect()
                })?;
                self.pax.sparse.map = map.unwrap_or_default();
            }
            b"offset" | b"numbytes" => {
                let odd = self.pax.sparse.map.len() % 2 == 1;
                match decimal(value) {
                    Some(number) if odd == (field == b"numbytes") => {
                        self.pax.sparse.map.push(number);
                    }
                    _ => return Err(self.bad(key, "is out of order, or no number")),
                }
            }
            _ => {}
        }
        Ok(())
    }
}
