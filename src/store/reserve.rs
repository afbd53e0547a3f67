//! Space kept back, so that on a full disk things can still be removed: the database has to write
//! before anything can go.

use rustix::fs::{CWD, FallocateFlags, Mode, OFlags};

use super::layout::Layout;
use crate::errno::{Errno, Error, Result};

/// How much is kept back, in bytes: more than the largest removal's transaction writes.
const SIZE: u64 = 512 << 10;
/// What a transaction may need: with less than this, an error of the disk is want of space.
const NEED: u64 = 256 << 10;

/// Does `work`; if it fails for want of space, once more with what is kept back given away. Where
/// there is next to none, it is given away at once: what SQLite maps into memory does not fail for
/// want of space, but ends the process (`SIGBUS`).
pub(super) fn with<T>(layout: &Layout, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    if is_short(layout) {
        // It may have been given away before.
        std::fs::remove_file(layout.reserve()).unwrap_or_default();
    }
    match work() {
        Err(error) if is_full(layout, &error) => {
            match std::fs::remove_file(layout.reserve()) {
                Ok(()) => {}
                // It was given away before.
                Err(_) => return Err(error),
            }
            tracing::debug!(%error, "using the space that was kept back");
            work()
        }
        result => result,
    }
}

/// Keeps space back, if there is any.
pub(super) fn keep(layout: &Layout) {
    let path = layout.reserve();
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let kept = rustix::fs::openat(CWD, &path, flags, Mode::from_raw_mode(0o600)).and_then(|fd| {
        let there = u64::try_from(rustix::fs::fstat(&fd)?.st_size).unwrap_or(0);
        if there == SIZE {
            return Ok(());
        }
        rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, SIZE)
    });
    if let Err(error) = kept {
        tracing::debug!(%error, "cannot keep space back");
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::debug!(%error, "cannot remove {}", path.display());
        }
    }
}

/// Whether an error is want of space. SQLite calls it an I/O error where it maps memory.
fn is_full(layout: &Layout, error: &Error) -> bool {
    match error.errno() {
        Errno::ENOSPC | Errno::EDQUOT => true,
        Errno::EIO => is_short(layout),
        _ => false,
    }
}

/// Whether there is less space than a transaction may need.
fn is_short(layout: &Layout) -> bool {
    rustix::fs::statvfs(layout.root())
        .is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) < NEED)
}
