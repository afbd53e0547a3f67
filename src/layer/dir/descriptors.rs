//! The directories a layer has open: few, however many ids there are; and what was pinned.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lru::LruCache;
use parking_lot::Mutex;

use crate::layer::Id;
use crate::sys::handle::FileHandle;
use crate::sys::process;

/// The most directories that one layer keeps open.
const MOST: usize = 256;

/// How many the layers of this process keep open together.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Descriptors by id, all of them `O_PATH`.
#[derive(Debug)]
pub(super) struct Descriptors {
    table: Mutex<Table>,
    /// The most that all layers together may keep: a quarter of what the process may have open.
    budget: usize,
}

#[derive(Debug)]
struct Table {
    cached: LruCache<Id, Arc<OwnedFd>>,
    pinned: HashMap<Id, Arc<OwnedFd>>,
    /// Objects that have a name, though not the one that is known: found without a descriptor.
    handles: HashMap<Id, FileHandle>,
}

impl Descriptors {
    pub(super) fn new() -> Self {
        let limit = usize::try_from(process::nofile_limit()).unwrap_or(usize::MAX);
        let table = Table {
            cached: LruCache::unbounded(),
            pinned: HashMap::new(),
            handles: HashMap::new(),
        };
        Self { table: Mutex::new(table), budget: limit / 4 }
    }

    /// A descriptor of the object, if there is one.
    pub(super) fn get(&self, id: Id) -> Option<Arc<OwnedFd>> {
        let mut table = self.table.lock();
        if let Some(fd) = table.pinned.get(&id) {
            return Some(Arc::clone(fd));
        }
        table.cached.get(&id).cloned()
    }

    /// Keeps a directory open while there is room.
    pub(super) fn insert(&self, id: Id, fd: Arc<OwnedFd>) {
        let mut table = self.table.lock();
        let full = |len: usize| len >= MOST || OPEN.load(Ordering::Relaxed) >= self.budget;
        // One is kept however many other layers keep: a walk needs the directory it is in.
        while !table.cached.is_empty() && full(table.cached.len()) {
            table.cached.pop_lru();
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
        if table.cached.put(id, fd).is_none() {
            OPEN.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the object is pinned.
    pub(super) fn is_pinned(&self, id: Id) -> bool {
        self.table.lock().pinned.contains_key(&id)
    }

    /// Keeps the object open until [`remove`](Self::remove).
    pub(super) fn pin(&self, id: Id, fd: Arc<OwnedFd>) {
        let mut table = self.table.lock();
        table.handles.remove(&id);
        table.pinned.insert(id, fd);
    }

    /// The object is found by name again.
    pub(super) fn unpin(&self, id: Id) {
        let mut table = self.table.lock();
        table.handles.remove(&id);
        table.pinned.remove(&id);
    }

    /// The object is found by its handle.
    pub(super) fn pin_by_handle(&self, id: Id, handle: FileHandle) {
        let mut table = self.table.lock();
        table.pinned.remove(&id);
        table.handles.insert(id, handle);
    }

    /// By what the object is found, if not by name.
    pub(super) fn handle(&self, id: Id) -> Option<FileHandle> {
        self.table.lock().handles.get(&id).cloned()
    }

    /// The ids are no more.
    pub(super) fn remove(&self, ids: &[Id]) {
        if ids.is_empty() {
            return;
        }
        let mut table = self.table.lock();
        for id in ids {
            table.pinned.remove(id);
            table.handles.remove(id);
            if table.cached.pop(id).is_some() {
                OPEN.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// How many directories are kept open.
    #[cfg(test)]
    pub(super) fn cached(&self) -> usize {
        self.table.lock().cached.len()
    }

    /// Closes all that is not pinned.
    #[cfg(test)]
    pub(super) fn close(&self) {
        let mut table = self.table.lock();
        while table.cached.pop_lru().is_some() {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// With a budget of its own, for a test.
    #[cfg(test)]
    pub(super) fn limit(&mut self, budget: usize) {
        self.budget = budget;
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        OPEN.fetch_sub(self.table.get_mut().cached.len(), Ordering::Relaxed);
    }
}
