//! Keeps one thread free for what is answered at once.
//!
//! A driver has few threads, and some operations take long (copying up a file of a gigabyte,
//! syncing it). If all threads were in such operations, a mere `stat` of something else would
//! wait. So the last free thread does not do long work itself but has a new thread do it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many long operations may have threads of their own. More than that, and the threads that
/// read requests do them: the kernel then holds back who asks.
const MOST: usize = 256;

/// Counts the long operations under way.
#[derive(Debug)]
pub(super) struct Lane {
    /// Threads that read requests.
    threads: AtomicUsize,
    /// How many of them are in a long operation.
    here: AtomicUsize,
    /// Long operations that have threads of their own.
    elsewhere: AtomicUsize,
}

impl Lane {
    /// For a driver with so many threads.
    pub(super) fn new(threads: usize) -> Arc<Self> {
        let threads = AtomicUsize::new(threads);
        Arc::new(Self { threads, here: AtomicUsize::new(0), elsewhere: AtomicUsize::new(0) })
    }

    /// One thread fewer reads requests.
    pub(super) fn lose_thread(&self) {
        self.threads.fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits for the long operations that have threads of their own.
    pub(super) fn wait(&self) {
        const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);
        while self.elsewhere.load(Ordering::Acquire) > 0 {
            std::thread::sleep(PAUSE);
        }
    }

    /// Where to do the next long operation, counted as done there until what is returned is
    /// dropped.
    pub(super) fn place(self: &Arc<Self>) -> Place {
        let here = Counted::new(self.clone(), |lane| &lane.here);
        if here.before + 1 < self.threads.load(Ordering::Relaxed) {
            return Place::Here(here);
        }
        let elsewhere = Counted::new(self.clone(), |lane| &lane.elsewhere);
        if elsewhere.before >= MOST { Place::Here(here) } else { Place::Elsewhere(elsewhere) }
    }

    /// Runs `job` in this thread, or, if this is the last one that is free, in a new one.
    pub(super) fn run(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) {
        let elsewhere = match self.place() {
            Place::Here(_here) => return job(),
            Place::Elsewhere(elsewhere) => elsewhere,
        };
        let started = std::thread::Builder::new().name("plyfs-long".to_owned()).spawn(move || {
            job();
            drop(elsewhere);
        });
        if let Err(error) = started {
            // The job is gone with the thread that was not; its reply, dropped, was answered EIO.
            tracing::error!("no thread for a long operation: {error}");
        }
    }
}

/// Where a long operation is to be done.
#[derive(Debug)]
pub(super) enum Place {
    /// In this thread.
    Here(Counted),
    /// In a new one: this is the last that is free.
    Elsewhere(Counted),
}

/// One more in a count of a lane, until it is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    lane: Arc<Lane>,
    count: fn(&Lane) -> &AtomicUsize,
    before: usize,
}

impl Counted {
    fn new(lane: Arc<Lane>, count: fn(&Lane) -> &AtomicUsize) -> Self {
        let before = count(&lane).fetch_add(1, Ordering::Relaxed);
        Self { lane, count, before }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.count)(&self.lane).fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
