//! Entries into an archive: the same entries always give the same bytes.
//!
//! A header of the ustar form where that can say it all, else one after an extended header with
//! what does not fit: paths that are long or not ASCII (their bytes as they are), big numbers,
//! times outside of 1970 to 2242 or finer than a second, extended attributes, sparse files (PAX
//! 1.0, which GNU tar, libarchive, python and Go read). No user or group names, access or change
//! times: they would say something of the machine.

use std::collections::BTreeMap;
use std::io::Write;

use super::header::{
    BLOCK, Block, CHECKSUM, FLAG, Field, GID, LINK, MAGIC, MAJOR, MINOR, MODE, MTIME, NAME, PREFIX,
    SIZE, UID, checksums,
};
use super::{Entry, Piece, What, refuse};
use crate::attr::Time;
use crate::errno::{Error, Result};

/// The most that readers take of extended headers and sparse maps (Go's limit, and ours).
const EXTENSION: usize = 1 << 20;

/// Writes a tar archive.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    /// The path of the present entry, for errors.
    path: Vec<u8>,
    /// How much of its data has not come yet, and how much padding follows those.
    left: u64,
    pad: usize,
}

impl<W: Write> Writer<W> {
    /// To `out`, which should be buffered.
    pub fn new(out: W) -> Self {
        Self { out, path: Vec::new(), left: 0, pad: 0 }
    }

    /// Begins an entry. The path of a directory is written with a slash at its end. The data of a
    /// file follow by [`data`](Self::data): all of them, or (with `pieces`) only those. Pieces are
    /// in order, and multiples of 512 bytes long unless they end with the file.
    ///
    /// # Errors
    /// `EINVAL` for an entry that no archive can hold, or if data of the one before are missing;
    /// those of what is written to.
    pub fn start(&mut self, entry: &Entry, pieces: Option<&[Piece]>) -> Result<()> {
        self.close()?;
        self.path.clone_from(&entry.path);
        let mut path = entry.path.clone();
        if entry.what == What::Dir && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let mut fields = Fields::default();
        let map = match (&entry.what, pieces) {
            (What::File(size), Some(pieces)) => {
                fields.record("GNU.sparse.major", "1");
                fields.record("GNU.sparse.minor", "0");
                fields.record("GNU.sparse.name", path.as_slice());
                fields.record("GNU.sparse.realsize", size.to_string());
                // Whoever does not know sparse files makes one with another name. It gets no
                // record of its own: to python that would outrank the one above.
                path = plain(&sparse_name(&path));
                map(*size, pieces).ok_or_else(|| self.bad("its pieces of data are not in order"))?
            }
            _ => Vec::new(),
        };
        let stored = match (&entry.what, pieces) {
            (What::File(_), Some(pieces)) => pieces.iter().map(|piece| piece.len).sum(),
            (What::File(size), None) => *size,
            _ => 0,
        };
        if map.len() > EXTENSION {
            return Err(self.bad("its sparse map is longer than readers take"));
        }
        fields.path(&path);
        fields.numbers(entry, stored + map.len() as u64);
        self.what(&mut fields, &entry.what)?;
        for (name, value) in &entry.xattrs {
            if name.is_empty() || name.contains(&b'=') || name.contains(&0) {
                let why = "cannot be in an archive";
                return Err(self.bad(format!("its attribute '{}' {why}", super::shown(name))));
            }
            fields.record([b"SCHILY.xattr.", name.as_slice()].concat(), value.as_slice());
        }
        self.extended(&fields.records)?;
        self.out.write_all(&fields.sealed())?;
        self.out.write_all(&map)?;
        self.left = stored;
        self.pad = padding(stored);
        Ok(())
    }

    /// More data of the present entry.
    ///
    /// # Errors
    /// `EINVAL` for more than it has.
    pub fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| self.bad("more data than it has bytes: did it grow meanwhile?"))?;
        Ok(self.out.write_all(bytes)?)
    }

    /// Writes the end, and gives back what was written to.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub fn finish(mut self) -> Result<W> {
        self.close()?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    /// Ends the present entry.
    fn close(&mut self) -> Result<()> {
        if self.left > 0 {
            let left = self.left;
            return Err(self.bad(format!("{left} bytes of its data are missing")));
        }
        let pad = std::mem::take(&mut self.pad);
        Ok(self.out.write_all([0; BLOCK].get(..pad).unwrap_or_default())?)
    }

    fn bad(&self, why: impl std::fmt::Display) -> Error {
        refuse(&self.path, why)
    }

    /// The type, and what only that type has.
    fn what(&self, fields: &mut Fields, what: &What) -> Result<()> {
        let device = |fields: &mut Fields, rdev: u64| {
            let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
            let fits = major <= 0o777_7777 && minor <= 0o777_7777;
            fields.octal(MAJOR, major.into());
            fields.octal(MINOR, minor.into());
            fits.then_some(()).ok_or_else(|| self.bad("its device number is too big"))
        };
        let flag = match what {
            What::File(_) => b'0',
            What::HardLink(target) => {
                fields.link(target);
                b'1'
            }
            What::Symlink(target) => {
                fields.link(target);
                b'2'
            }
            What::Char(rdev) => {
                device(fields, *rdev)?;
                b'3'
            }
            What::Block(rdev) => {
                device(fields, *rdev)?;
                b'4'
            }
            What::Dir => b'5',
            What::Fifo => b'6',
        };
        fields.put(FLAG, &[flag]);
        Ok(())
    }

    /// Writes an extended header, if there is anything to say.
    fn extended(&mut self, records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut all = Vec::new();
        for (key, value) in records {
            all.extend_from_slice(&record(key, value));
        }
        if all.len() > EXTENSION {
            return Err(self.bad("its names and attributes are longer than readers take"));
        }
        let mut fields = Fields::default();
        fields.put(NAME, b"PaxHeaders/next");
        fields.put(FLAG, b"x");
        fields.octal(MODE, 0o644);
        fields.octal(SIZE, all.len() as u64);
        for number in [UID, GID, MTIME] {
            fields.octal(number, 0);
        }
        self.out.write_all(&fields.sealed())?;
        self.out.write_all(&all)?;
        let pad = padding(all.len() as u64);
        Ok(self.out.write_all([0; BLOCK].get(..pad).unwrap_or_default())?)
    }
}

/// A record: its length, its own digits included.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    // A space, an equals sign and a newline.
    let body = key.len() + value.len() + 3;
    let digits = |number: usize| number.to_string().len();
    // One more digit may need one more digit.
    let length = body + digits(body + digits(body));
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// The map of a sparse file, padded to whole blocks; `None` for pieces that are not in order.
fn map(size: u64, pieces: &[Piece]) -> Option<Vec<u8>> {
    let mut end = 0;
    let mut lines = Vec::new();
    for piece in pieces {
        if piece.offset < end || piece.len == 0 {
            return None;
        }
        end = piece.offset.checked_add(piece.len)?;
        // GNU tar takes every piece from a block of its own.
        if !piece.len.is_multiple_of(BLOCK as u64) && end != size {
            return None;
        }
        lines.extend([piece.offset, piece.len]);
    }
    if end > size {
        return None;
    }
    // An empty piece says how long the file is to those who look at the map alone.
    if end < size {
        lines.extend([size, 0]);
    }
    let mut map = format!("{}\n", lines.len() / 2).into_bytes();
    for line in lines {
        map.extend_from_slice(format!("{line}\n").as_bytes());
    }
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    Some(map)
}

/// The name in the header of a sparse file.
fn sparse_name(path: &[u8]) -> Vec<u8> {
    let at = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let (dir, base) = path.split_at_checked(at).unwrap_or_default();
    [dir, b"GNUSparseFile.0/", base].concat()
}

/// How many bytes follow `size` bytes of data up to the next block.
fn padding(size: u64) -> usize {
    usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0)
}

/// A header block in the making, and what does not fit into it.
struct Fields {
    block: Block,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Default for Fields {
    fn default() -> Self {
        let mut fields = Self { block: [0; BLOCK], records: BTreeMap::new() };
        fields.put(MAGIC, b"ustar\x0000");
        fields.octal(MAJOR, 0);
        fields.octal(MINOR, 0);
        fields
    }
}

impl Fields {
    /// Adds a record, and replaces the one of that key.
    fn record(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.records.insert(key.into(), value.into());
    }

    /// Puts `bytes`, or as many as fit, into a field.
    fn put(&mut self, (start, len): Field, bytes: &[u8]) {
        let len = len.min(bytes.len());
        if let (Some(room), Some(bytes)) =
            (self.block.get_mut(start..start + len), bytes.get(..len))
        {
            room.copy_from_slice(bytes);
        }
    }

    /// Puts a number into a field: octal digits and a NUL. `false` if it does not fit.
    fn octal(&mut self, field: Field, number: u64) -> bool {
        let width = field.1 - 1;
        let digits = format!("{number:0width$o}");
        let fits = digits.len() <= width;
        if fits {
            self.put(field, digits.as_bytes());
        }
        fits
    }

    /// A number that is in a record if it does not fit.
    fn number(&mut self, field: Field, key: &str, number: u64) {
        if !self.octal(field, number) {
            self.octal(field, 0);
            self.record(key, number.to_string());
        }
    }

    /// The path: in one field, in two, or in a record.
    fn path(&mut self, path: &[u8]) {
        if path.is_ascii() {
            if path.len() <= NAME.1 {
                return self.put(NAME, path);
            }
            if let Some((prefix, name)) = split(path) {
                self.put(PREFIX, prefix);
                return self.put(NAME, name);
            }
        }
        self.put(NAME, &plain(path));
        self.record("path", path);
    }

    /// The target of a link.
    fn link(&mut self, target: &[u8]) {
        self.put(LINK, &plain(target));
        if !target.is_ascii() || target.len() > LINK.1 {
            self.record("linkpath", target);
        }
    }

    fn numbers(&mut self, entry: &Entry, size: u64) {
        self.octal(MODE, entry.perm.into());
        self.number(UID, "uid", entry.uid.into());
        self.number(GID, "gid", entry.gid.into());
        self.number(SIZE, "size", size);
        let Time { sec, nsec } = entry.mtime;
        let fits = u64::try_from(sec).is_ok_and(|sec| self.octal(MTIME, sec));
        if !fits {
            self.octal(MTIME, 0);
        }
        if !fits || nsec != 0 {
            self.record("mtime", time(entry.mtime));
        }
    }

    /// The block with its checksum.
    fn sealed(mut self) -> Block {
        let (sum, _) = checksums(&self.block);
        self.put(CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
        self.block
    }
}

/// A path for those who do not read records: ASCII, and what fits.
fn plain(path: &[u8]) -> Vec<u8> {
    path.iter().take(NAME.1).map(|&byte| if byte.is_ascii() { byte } else { b'_' }).collect()
}

/// A path in the two fields of ustar; the slash between them is in neither.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    // The last slash whose rest is not empty and whose start fits.
    let most = path.len().checked_sub(2)?.min(PREFIX.1);
    let slash = path.get(..=most)?.iter().rposition(|&byte| byte == b'/')?;
    let (prefix, name) = (path.get(..slash)?, path.get(slash + 1..)?);
    (!prefix.is_empty() && name.len() <= NAME.1).then_some((prefix, name))
}

/// Seconds with as many decimal places as they need.
fn time(Time { sec, nsec }: Time) -> String {
    if nsec == 0 {
        return sec.to_string();
    }
    let (sign, whole, part) = if sec < 0 {
        ("-", (sec + 1).unsigned_abs(), 1_000_000_000_u32.saturating_sub(nsec))
    } else {
        ("", sec.unsigned_abs(), nsec)
    };
    format!("{sign}{whole}.{part:09}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests;
