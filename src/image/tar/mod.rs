//! Tar archives as image layers use them.
//!
//! ```text
//!     reader     entries and their data, and everything else, from a stream
//!       header   the block that every entry has
//!       pax      the records that may come before it
//!       sparse   where the data of a file with holes belong
//!     writer     entries into a stream, the same ones always as the same bytes
//! ```

mod header;
mod pax;
mod reader;
#[cfg(test)]
mod samples;
mod sparse;
mod writer;

pub use reader::{Limits, Reader, Tape};
pub use sparse::Piece;
pub use writer::Writer;

use crate::attr::Time;
use crate::errno::{Errno, Error};

/// One entry of an archive, its PAX and GNU extensions applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path as the archive has it: any bytes but NUL, not yet judged.
    pub path: Vec<u8>,
    /// What it is.
    pub what: What,
    /// Permission bits with setuid, setgid and sticky.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of the content.
    pub mtime: Time,
    /// Extended attributes, in the order of the archive; of two with one name the later counts.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The type of an entry, with what only that type has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A regular file of this size (for a sparse one: holes included).
    File(u64),
    /// A directory.
    Dir,
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// One more name of the entry with this path (as the archive has it).
    HardLink(Vec<u8>),
    /// A character device (`dev_t` as glibc encodes it).
    Char(u64),
    /// A block device.
    Block(u64),
    /// A FIFO.
    Fifo,
}

/// A path or another piece of an archive, for people: escaped, and not too long.
pub fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 300;
    match bytes.get(..MOST) {
        Some(start) if bytes.len() > MOST => format!("{}...", start.escape_ascii()),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// The error for an entry that cannot be taken.
fn refuse(path: &[u8], why: impl std::fmt::Display) -> Error {
    Error::new(Errno::EINVAL, format!("tar entry '{}': {why}", shown(path)))
}

/// The error for bytes that belong to no entry.
fn broken(at: u64, why: &str) -> Error {
    Error::new(Errno::EINVAL, format!("tar archive, byte {at}: {why}"))
}
