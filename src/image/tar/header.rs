//! The 512-byte header block: which of the five formats it is in, and what its fields say.
//!
//! The rules where formats contradict each other are those of Go's `archive/tar`, which is what
//! made and what reads nearly every image there is.

use super::refuse;
use crate::errno::Result;

/// The unit of a tar archive.
pub(super) const BLOCK: usize = 512;

/// One block.
pub(super) type Block = [u8; BLOCK];

/// Where a field lies: its first byte and its length.
pub(super) type Field = (usize, usize);

pub(super) const NAME: Field = (0, 100);
pub(super) const MODE: Field = (100, 8);
pub(super) const UID: Field = (108, 8);
pub(super) const GID: Field = (116, 8);
pub(super) const SIZE: Field = (124, 12);
pub(super) const MTIME: Field = (136, 12);
pub(super) const CHECKSUM: Field = (148, 8);
pub(super) const FLAG: Field = (156, 1);
pub(super) const LINK: Field = (157, 100);
pub(super) const MAGIC: Field = (257, 8);
pub(super) const MAJOR: Field = (329, 8);
pub(super) const MINOR: Field = (337, 8);
pub(super) const PREFIX: Field = (345, 155);
const STAR_PREFIX: Field = (345, 131);
const STAR_TRAILER: Field = (508, 4);
const GNU_ATIME: Field = (345, 12);
const GNU_CTIME: Field = (357, 12);
/// The real size of a sparse file in the old GNU form.
pub(super) const GNU_REAL_SIZE: Field = (483, 12);

/// The dialects of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Before any standard: no prefix, no device numbers.
    V7,
    /// POSIX, also with PAX headers before it.
    Ustar,
    /// Schilling's: a shorter prefix.
    Star,
    /// GNU's old one: other fields where the prefix would be.
    Gnu,
}

/// What the header block of one entry says, nothing applied to it yet.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) format: Format,
    pub(super) flag: u8,
    /// The name with its prefix.
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    /// How much data follows, unless an extension says otherwise.
    pub(super) size: i64,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) mtime: i64,
}

/// The bytes of a field.
pub(super) fn field(block: &[u8], (start, len): Field) -> &[u8] {
    block.get(start..start.saturating_add(len)).unwrap_or_default()
}

/// Up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A number: octal digits between spaces and NULs, or (first bit set) two's complement in 256ths.
/// `None` for anything else, and for what 64 bits cannot hold. An empty field is 0.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.split_first() {
        Some((&first, rest)) if first & 0x80 != 0 => base_256(first, rest),
        _ => octal(field),
    }
}

fn base_256(first: u8, rest: &[u8]) -> Option<i64> {
    // The bit after the marker is the sign.
    let top = i64::from(first & 0x3f) - if first & 0x40 == 0 { 0 } else { 0x40 };
    rest.iter().try_fold(top, |value, &byte| {
        value.checked_mul(256).and_then(|value| value.checked_add(i64::from(byte)))
    })
}

fn octal(field: &[u8]) -> Option<i64> {
    let pad = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !pad(byte)).unwrap_or(field.len());
    let end = field.iter().rposition(|byte| !pad(byte)).map_or(start, |last| last + 1);
    text(field.get(start..end).unwrap_or_default()).iter().try_fold(0_i64, |value, &byte| {
        let digit = (b'0'..=b'7').contains(&byte).then(|| i64::from(byte - b'0'))?;
        value.checked_mul(8)?.checked_add(digit)
    })
}

/// The sum of all bytes with the checksum's own field read as spaces: taken as unsigned bytes, as
/// it should be, and as signed ones, as some systems did.
pub(super) fn checksums(block: &Block) -> (i64, i64) {
    let own = CHECKSUM.0..CHECKSUM.0 + CHECKSUM.1;
    block.iter().enumerate().fold((0, 0), |(unsigned, signed), (at, &byte)| {
        let byte = if own.contains(&at) { b' ' } else { byte };
        (unsigned + i64::from(byte), signed + i64::from(byte.cast_signed()))
    })
}

fn format_of(block: &Block) -> Format {
    let magic = field(block, MAGIC);
    if magic.starts_with(b"ustar\0") {
        if field(block, STAR_TRAILER) == b"tar\0" { Format::Star } else { Format::Ustar }
    } else if magic == b"ustar  \0" {
        Format::Gnu
    } else {
        Format::V7
    }
}

/// The part of the name that lies in a field of its own.
fn prefix(block: &Block, format: Format) -> &[u8] {
    let plain = text(field(block, PREFIX));
    match format {
        Format::V7 => b"",
        Format::Ustar => plain,
        Format::Star => text(field(block, STAR_PREFIX)),
        // GNU has times here. Archives by Go before 1.8 can have a prefix all the same; it is told
        // by not being numbers.
        Format::Gnu => {
            let time = |at| {
                let bytes = field(block, at);
                bytes.first() == Some(&0) || number(bytes).is_some()
            };
            if time(GNU_ATIME) && time(GNU_CTIME) || !plain.is_ascii() { b"" } else { plain }
        }
    }
}

impl Header {
    /// Reads a block that starts at byte `at` of the archive.
    ///
    /// # Errors
    /// `EINVAL` for a wrong checksum or a field that is no number.
    pub(super) fn parse(block: &Block, at: u64) -> Result<Self> {
        let (unsigned, signed) = checksums(block);
        match number(field(block, CHECKSUM)) {
            Some(sum) if sum == unsigned || sum == signed => {}
            _ => return Err(super::broken(at, "is no tar header: its checksum is wrong")),
        }
        let format = format_of(block);
        let mut path = prefix(block, format).to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(text(field(block, NAME)));
        let read = |what: &str, at: Field| {
            number(field(block, at)).ok_or_else(|| {
                let shown = field(block, at).escape_ascii();
                refuse(&path, format!("its {what} '{shown}' is no number"))
            })
        };
        let (size, mode) = (read("size", SIZE)?, read("mode", MODE)?);
        let (uid, gid) = (read("owner", UID)?, read("group", GID)?);
        let mtime = read("time", MTIME)?;
        let flag = field(block, FLAG).first().copied().unwrap_or(0);
        let link = text(field(block, LINK)).to_vec();
        Ok(Self { format, flag, path, link, size, mode, uid, gid, mtime })
    }
}
