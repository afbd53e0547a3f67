//! What is agreed upon at the beginning: a pure function of what the kernel offers.

use super::request::{Layout, Offer};
use super::wire::{self, init};
use crate::errno::{Errno, Error, Result};

/// The largest write that the kernel sends as one request, and the largest read.
pub(super) const MAX_WRITE: u32 = 1 << 20;

/// How many requests (read-ahead, mostly) may be under way without a program waiting for them.
const MAX_BACKGROUND: u16 = 64;

/// What is asked for, each where the kernel offers it. Not POSIX_LOCKS or FLOCK_LOCKS: the kernel
/// keeps locks by itself, and keeps them over a copy-up since the node stays. Not AUTO_INVAL_DATA:
/// nothing changes behind the kernel's back.
const WANTED: [(u64, &str); 21] = [
    (init::ASYNC_READ, "ASYNC_READ"),
    (init::ATOMIC_O_TRUNC, "ATOMIC_O_TRUNC"),
    (init::BIG_WRITES, "BIG_WRITES"),
    (init::DONT_MASK, "DONT_MASK"),
    (init::DO_READDIRPLUS, "DO_READDIRPLUS"),
    (init::READDIRPLUS_AUTO, "READDIRPLUS_AUTO"),
    (init::ASYNC_DIO, "ASYNC_DIO"),
    (init::PARALLEL_DIROPS, "PARALLEL_DIROPS"),
    (init::POSIX_ACL, "POSIX_ACL"),
    (init::ABORT_ERROR, "ABORT_ERROR"),
    (init::MAX_PAGES, "MAX_PAGES"),
    (init::CACHE_SYMLINKS, "CACHE_SYMLINKS"),
    (init::NO_OPENDIR_SUPPORT, "NO_OPENDIR_SUPPORT"),
    (init::EXPLICIT_INVAL_DATA, "EXPLICIT_INVAL_DATA"),
    (init::HANDLE_KILLPRIV_V2, "HANDLE_KILLPRIV_V2"),
    (init::SETXATTR_EXT, "SETXATTR_EXT"),
    (init::INIT_EXT, "INIT_EXT"),
    (init::HAS_EXPIRE_ONLY, "HAS_EXPIRE_ONLY"),
    (init::NO_EXPORT_SUPPORT, "NO_EXPORT_SUPPORT"),
    (init::HAS_RESEND, "HAS_RESEND"),
    (init::ALLOW_IDMAP, "ALLOW_IDMAP"),
];

/// What was agreed upon: with the connection itself, all that who takes it over has to know of how
/// it talks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// Minor version of the ABI.
    pub minor: u32,
    /// Flags of INIT that both sides have.
    pub flags: u64,
    /// The largest write, bytes.
    pub max_write: u32,
}

impl Agreed {
    /// How requests are laid out.
    pub(super) fn layout(&self) -> Layout {
        Layout { setxattr_ext: self.flags & init::SETXATTR_EXT != 0 }
    }
}

/// The answer to a newer major version: the kernel asks again with ours.
pub(super) fn our_version() -> wire::InitOut {
    wire::InitOut { major: wire::MAJOR, minor: wire::MINOR, ..wire::InitOut::default() }
}

/// Chooses from what the kernel offers, less the flags in `withheld`.
///
/// # Errors
/// `EIO` for an ABI older than Linux 5.18's.
pub(super) fn negotiate(offer: &Offer, withheld: u64) -> Result<(Agreed, wire::InitOut)> {
    let (major, minor) = offer.version;
    if major < wire::MAJOR || minor < wire::OLDEST_MINOR {
        let why = format!(
            "this kernel speaks version {major}.{minor} of FUSE; Linux 5.18 and later speak {}.{}",
            wire::MAJOR,
            wire::OLDEST_MINOR,
        );
        return Err(Error::new(Errno::EIO, why));
    }
    let offered = offer.flags & !withheld;
    let mut flags = 0;
    for (flag, name) in WANTED {
        if offered & flag == 0 {
            tracing::info!("this kernel's FUSE lacks {name}");
        }
        flags |= offered & flag;
    }
    let minor = minor.min(wire::MINOR);
    let low = u32::try_from(flags & u64::from(u32::MAX)).unwrap_or(0);
    let high = u32::try_from(flags >> 32).unwrap_or(0);
    let out = wire::InitOut {
        major: wire::MAJOR,
        minor,
        max_readahead: offer.max_readahead,
        flags: low,
        flags2: high,
        max_background: MAX_BACKGROUND,
        congestion_threshold: MAX_BACKGROUND / 4 * 3,
        max_write: MAX_WRITE,
        time_gran: 1,
        max_pages: max_pages(rustix::param::page_size()),
        ..wire::InitOut::default()
    };
    Ok((Agreed { minor, flags, max_write: MAX_WRITE }, out))
}

/// As many pages as make up [`MAX_WRITE`]. It bounds reads, too: one that asks for more than there
/// is room to answer would be taken for the end of the file.
fn max_pages(page_size: usize) -> u16 {
    let largest = usize::try_from(MAX_WRITE).unwrap_or(usize::MAX);
    u16::try_from(largest / page_size.max(1)).unwrap_or(u16::MAX).max(1)
}

#[cfg(test)]
mod tests;
