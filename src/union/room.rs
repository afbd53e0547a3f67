//! Waits, on a disk that is nearly full, for what was just deleted.
//!
//! An object whose last name is gone takes room until the kernel forgets its node, since somebody
//! may still use it. The kernel says so on its own, right after unlink(2) has returned, and another
//! thread hears of it than the one that is asked next: who deletes to make room could find none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::Union;
use super::node::State;
use crate::attr::StatFs;
use crate::errno::{Errno, Result};
use crate::layer::Upper;

/// Objects of the upper layer without a name that nobody has open: they are about to go.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    count: AtomicUsize,
    /// So many were waited for in vain: somebody keeps them (`O_PATH`, a working directory).
    kept: AtomicUsize,
}

impl Leaving {
    /// Counts the node of this state, once, if it is one of those.
    pub(super) fn note(&self, state: &mut State) {
        let leaves = state.dead && state.upper.is_some() && state.open.is_none();
        if leaves && !std::mem::replace(&mut state.leaving, true) {
            self.count.fetch_add(1, Ordering::Release);
        }
    }

    /// One that was counted has gone, and what it took is free.
    pub(super) fn gone(&self) {
        let left = self.count.fetch_sub(1, Ordering::Release).saturating_sub(1);
        self.kept.fetch_min(left, Ordering::Relaxed);
    }

    fn waits(&self) -> bool {
        self.count.load(Ordering::Acquire) > self.kept.load(Ordering::Relaxed)
    }

    /// Returns when all have gone, or it has been waited for long enough.
    fn wait(&self) {
        for _ in 0..STEPS {
            std::thread::sleep(STEP);
            if !self.waits() {
                return;
            }
        }
        self.kept.store(self.count.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// How long to wait at most, in steps.
const STEPS: u32 = 100;
const STEP: Duration = Duration::from_micros(200);

/// Whether little is left: who writes now may be told that there is no space.
fn is_nearly_full(stat: &StatFs) -> bool {
    const BYTES: u64 = 16 << 20;
    const FILES: u64 = 64;
    // Where they are not counted there are none at all.
    let few = |left: u64, of: u64, least: u64| of != 0 && left < least;
    let size = u64::from(stat.frsize).max(1);
    few(stat.bavail, stat.blocks, BYTES.div_ceil(size)) || few(stat.ffree, stat.files, FILES)
}

impl Union {
    /// The upper layer, for whoever wants to put something there. Not to be called with a latch
    /// held.
    pub(super) fn roomy(&self) -> Result<&std::sync::Arc<dyn Upper>> {
        let upper = self.writable()?;
        let leaving = &self.live.table.leaving;
        if leaving.waits() && is_nearly_full(&upper.statfs()?) {
            leaving.wait();
        }
        Ok(upper)
    }

    /// Does what is all or nothing, and again if there was no room for it before what was just
    /// deleted had gone. Not to be called with a latch held.
    pub(super) fn with_room<T>(&self, act: impl Fn() -> Result<T>) -> Result<T> {
        let leaving = &self.live.table.leaving;
        match act() {
            Err(error)
                if matches!(error.errno(), Errno::ENOSPC | Errno::EDQUOT) && leaving.waits() =>
            {
                leaving.wait();
                act()
            }
            result => result,
        }
    }
}
