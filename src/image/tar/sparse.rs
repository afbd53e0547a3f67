//! Sparse files: where the data that an archive holds belong in the file, in the four forms that
//! GNU tar has written (old GNU, PAX 0.0, 0.1 and 1.0). Everything else of such a file is holes.

use super::header::{BLOCK, Block, field, number};
use super::pax::{GnuSparse, decimal};
use super::refuse;
use crate::errno::Result;

/// Data of a file: where they begin, and how many bytes they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// The first byte of them in the file.
    pub offset: u64,
    /// How many they are.
    pub len: u64,
}

/// Collects the pieces of a map, checking each against those before it.
#[derive(Debug)]
pub(super) struct Map<'a> {
    path: &'a [u8],
    limit: usize,
    size: u64,
    end: u64,
    data: u64,
    pieces: Vec<Piece>,
}

impl<'a> Map<'a> {
    /// For a file of `size` bytes; `path` is for errors.
    pub(super) fn new(path: &'a [u8], size: u64, limit: usize) -> Self {
        Self { path, limit, size, end: 0, data: 0, pieces: Vec::new() }
    }

    /// The next piece.
    ///
    /// # Errors
    /// `EINVAL` if it is out of order, overlaps, or leaves the file.
    pub(super) fn add(&mut self, offset: i64, len: i64) -> Result<()> {
        let bad = || refuse(self.path, "its sparse map is out of order or leaves the file");
        let offset = u64::try_from(offset).map_err(|_| bad())?;
        let len = u64::try_from(len).map_err(|_| bad())?;
        let end = offset.checked_add(len).ok_or_else(bad)?;
        if offset < self.end || end > self.size {
            return Err(bad());
        }
        self.end = end;
        self.data += len;
        // An empty piece only says how long the file is.
        if len == 0 {
            return Ok(());
        }
        if self.pieces.len() >= self.limit {
            let most = self.limit;
            return Err(refuse(self.path, format!("its sparse map has more than {most} pieces")));
        }
        self.pieces.push(Piece { offset, len });
        Ok(())
    }

    /// The pieces, if they need just the `stored` bytes that the archive holds.
    pub(super) fn finish(self, stored: u64) -> Result<Vec<Piece>> {
        if self.data != stored {
            let why = format!(
                "its sparse map is for {} bytes of data, but the archive holds {stored}",
                self.data
            );
            return Err(refuse(self.path, why));
        }
        Ok(self.pieces)
    }
}

/// Where the entries of the old GNU form lie in a header block and in the blocks that continue it,
/// how many there are, and the byte that says whether another block follows.
pub(super) const IN_HEADER: (usize, usize, usize) = (386, 4, 482);
pub(super) const IN_EXTENSION: (usize, usize, usize) = (0, 21, 504);

/// Adds the entries of one block of the old GNU form; says whether another block follows.
pub(super) fn old_gnu(
    map: &mut Map<'_>,
    block: &Block,
    (start, count, more): (usize, usize, usize),
) -> Result<bool> {
    for entry in (start..).step_by(24).take(count) {
        let (offset, len) = (field(block, (entry, 12)), field(block, (entry + 12, 12)));
        // GNU and BSD tar end the list here too.
        if offset.first().is_none_or(|&byte| byte == 0) {
            break;
        }
        let (Some(offset), Some(len)) = (number(offset), number(len)) else {
            return Err(refuse(map.path, "its sparse map holds what is no number"));
        };
        map.add(offset, len)?;
    }
    Ok(field(block, (more, 1)) != [0])
}

/// Which PAX form the records of an entry are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// The map is in the records.
    Zero,
    /// The map lies before the data.
    One,
}

/// The form, if the file is sparse.
pub(super) fn version(sparse: &GnuSparse) -> Option<Version> {
    let of = |part: &Option<Vec<u8>>| part.clone().unwrap_or_default();
    match (of(&sparse.major).as_slice(), of(&sparse.minor).as_slice()) {
        (b"0", b"0" | b"1") => Some(Version::Zero),
        (b"1", b"0") => Some(Version::One),
        (b"", b"") if !sparse.map.is_empty() => Some(Version::Zero),
        _ => None,
    }
}

/// Adds the entries of forms 0.0 and 0.1.
pub(super) fn records(map: &mut Map<'_>, sparse: &GnuSparse) -> Result<()> {
    let blocks = sparse.blocks.and_then(|blocks| usize::try_from(blocks).ok());
    if blocks != Some(sparse.map.len() / 2) {
        return Err(refuse(map.path, "its sparse map has not as many pieces as it says"));
    }
    for pair in sparse.map.chunks_exact(2) {
        if let [offset, len] = pair {
            map.add(*offset, *len)?;
        }
    }
    Ok(())
}

/// Reads the map of form 1.0, block by block: a count and the pairs, each number a line of its own.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The digits of a number of which more may come.
    digits: Vec<u8>,
    /// How many numbers are still to come; `None` before the count.
    left: Option<u64>,
    offset: Option<i64>,
}

impl Lines {
    /// Takes the next block; says whether another one follows.
    pub(super) fn feed(&mut self, map: &mut Map<'_>, block: &[u8; BLOCK]) -> Result<bool> {
        for &byte in block {
            if self.left == Some(0) {
                break;
            }
            if byte != b'\n' {
                self.digits.push(byte);
                if self.digits.len() > 20 {
                    return Err(refuse(map.path, "its sparse map holds what is no number"));
                }
                continue;
            }
            let number = decimal(&self.digits).filter(|&number| number >= 0);
            let number =
                number.ok_or_else(|| refuse(map.path, "its sparse map holds what is no number"))?;
            self.digits.clear();
            self.take(map, number)?;
        }
        Ok(self.left != Some(0))
    }

    fn take(&mut self, map: &mut Map<'_>, number: i64) -> Result<()> {
        let Some(left) = self.left else {
            self.left = Some(number.unsigned_abs().saturating_mul(2));
            return Ok(());
        };
        self.left = Some(left.saturating_sub(1));
        match self.offset.take() {
            None => self.offset = Some(number),
            Some(offset) => map.add(offset, number)?,
        }
        Ok(())
    }
}
