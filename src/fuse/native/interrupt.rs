//! Requests that may take long and whose askers may be killed meanwhile.
//!
//! The kernel sends INTERRUPT at any signal, once; only a fatal one counts, as in the kernel's own
//! filesystems: a timer must not keep a program from ever opening a large file. So the request
//! says nothing but "look whether it dies".

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::sys::process;

/// How many interrupts are remembered that came before their request was known here.
const EARLY: usize = 64;

/// The interruptible requests under way.
#[derive(Debug, Default)]
pub(super) struct Interrupts {
    table: Mutex<Table>,
    /// Nobody waits for any answer any more.
    ended: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Table {
    running: HashMap<u64, Arc<AtomicBool>>,
    /// A thread has read the request but not registered it yet, or it has ended.
    early: VecDeque<u64>,
}

/// A request that can be interrupted, until it is dropped.
#[derive(Debug)]
pub(super) struct Running<'a> {
    interrupts: &'a Interrupts,
    unique: u64,
    interrupted: Arc<AtomicBool>,
    pid: u32,
}

impl Interrupts {
    /// From now on the request can be interrupted.
    pub(super) fn register(&self, unique: u64, pid: u32) -> Running<'_> {
        let mut table = self.table.lock();
        let early = table.early.iter().position(|seen| *seen == unique);
        if let Some(at) = early {
            table.early.remove(at);
        }
        let interrupted = Arc::new(AtomicBool::new(early.is_some()));
        table.running.insert(unique, interrupted.clone());
        Running { interrupts: self, unique, interrupted, pid }
    }

    /// The request is interrupted, if it is under way.
    pub(super) fn interrupt(&self, unique: u64) {
        let mut table = self.table.lock();
        if let Some(interrupted) = table.running.get(&unique) {
            return interrupted.store(true, Ordering::Release);
        }
        if table.early.len() >= EARLY {
            table.early.pop_front();
        }
        table.early.push_back(unique);
    }

    /// The connection has ended: all requests are to end early.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }
}

impl Running<'_> {
    /// What says whether whoever asked is being killed.
    pub(super) fn question(&self) -> Arc<dyn Fn() -> bool + Send + Sync> {
        let (interrupted, pid) = (self.interrupted.clone(), self.pid);
        let ended = self.interrupts.ended.clone();
        let killed = move || interrupted.load(Ordering::Acquire) && process::is_being_killed(pid);
        Arc::new(move || ended.load(Ordering::Acquire) || killed())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.interrupts.table.lock().running.remove(&self.unique);
    }
}

#[cfg(test)]
mod tests;
