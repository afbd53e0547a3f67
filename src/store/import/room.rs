//! Whether there is room for what comes out of an archive. A few kilobytes can unpack to more than
//! any disk holds: the import ends before the filesystem is full, for the others who use it.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::errno::{Errno, Error};

/// How often the filesystem is asked: once in so many bytes; more often where it is nearly full.
const EACH: u64 = 8 << 20;
/// What is left to others: a hundredth of the filesystem, but no less and no more than this, in
/// bytes. The least is more than what threads have taken and not written.
const LEFT_PART: u64 = 100;
const LEFT: std::ops::RangeInclusive<u64> = 1 << 20..=256 << 20;

/// The room on the store's filesystem, for all threads of an import.
#[derive(Debug)]
pub(super) struct Room<'a> {
    at: &'a Path,
    /// Bytes that came out of archives.
    taken: AtomicU64,
    /// When so many were taken, the filesystem is asked again.
    again: AtomicU64,
    /// What was found to be too little, in bytes; 0 if nothing was.
    left: AtomicU64,
}

impl<'a> Room<'a> {
    /// On the filesystem that `at` lies on.
    pub(super) fn new(at: &'a Path) -> Self {
        Self { at, taken: AtomicU64::new(0), again: AtomicU64::new(0), left: AtomicU64::new(0) }
    }

    /// Accounts for bytes that are about to be written.
    ///
    /// # Errors
    /// `ECANCELED` when there is too little room left; [`refusal`](Self::refusal) has the words.
    pub(super) fn take(&self, bytes: u64) -> io::Result<()> {
        let taken = self.taken.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if taken < self.again.load(Ordering::Relaxed) {
            return Ok(());
        }
        // What cannot be asked says so when it is written to.
        let Ok(stat) = rustix::fs::statvfs(self.at) else { return Ok(()) };
        let part = stat.f_blocks.saturating_mul(stat.f_frsize) / LEFT_PART;
        let left = part.clamp(*LEFT.start(), *LEFT.end());
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if let Some(spare) = free.checked_sub(left) {
            self.again.store(taken.saturating_add(EACH.min(spare / 8)), Ordering::Relaxed);
            return Ok(());
        }
        self.left.store(left.max(1), Ordering::Relaxed);
        Err(io::Error::from_raw_os_error(libc::ECANCELED))
    }

    /// Why the import was refused, if it was.
    pub(super) fn refusal(&self) -> Option<Error> {
        let left = self.left.load(Ordering::Relaxed);
        let taken = self.taken.load(Ordering::Relaxed) >> 20;
        let text = format!(
            "{}: after {taken} MiB of layers, less than {} KiB are free on the store's filesystem",
            Errno::ENOSPC,
            left >> 10
        );
        (left > 0).then(|| Error::new(Errno::ENOSPC, text))
    }
}
