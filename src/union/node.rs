//! The state of one node, and the locks around it. Read this file first.
//!
//! # Locks, in the order in which they may be taken
//! 1. [`Node::latch`], held over system calls. For a directory: shared by lookups and listings,
//!    exclusive for whoever adds, removes or renames an entry. For everything: exclusive for a
//!    copy-up and for whoever changes the node's place. One thread that needs several latches takes
//!    them by [`lock_all`], which waits for one while it holds no other; so there is no order among
//!    latches that could be violated, and nobody waits for a file while holding its directory.
//! 2. A shard of the node table, a cell of the cache of recent lookups: for a few instructions,
//!    never over a system call.
//! 3. [`Node::state`], innermost but for a layer's own locks: never held over a system call, never
//!    while waiting for a latch, never two at once.
//!
//! A copy-up latches only its own node for as long as it copies, and its parent, too, for the
//! moment of the publish. It may wait for that one: whoever holds a directory's latch waits for no
//! other. It bumps [`Node::version`] so that what was seen before is looked at again.
//!
//! A panic while a latch or state is held poisons it: that node answers `EIO` from then on, the
//! mount lives.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::Duration;

use crate::attr::Kind;
use crate::errno::{Errno, Error, Result};
use crate::layer::{Data, Held, Id, Layer, Staged, Upper};
use crate::name::{Name, NameBuf};

use super::{NodeId, interrupt};

/// One object of the merged tree, from the first lookup until the kernel forgets it.
#[derive(Debug)]
pub(super) struct Node {
    /// How the driver names it.
    pub(super) id: NodeId,
    /// The inode number that the mount shows.
    pub(super) ino: u64,
    /// The type; never changes.
    pub(super) kind: Kind,
    /// Bumped at every change among a directory's entries, copy-ups of children included.
    version: AtomicU32,
    /// Lookups that were not forgotten, plus live children. Changed under the table's shard lock,
    /// or raised by somebody who holds a reference.
    pub(super) refs: AtomicU64,
    latch: RwLock<()>,
    state: Mutex<State>,
}

/// What can change about a node.
#[derive(Debug)]
pub(super) struct State {
    /// Where it is in the merged tree: one of its names. `None` for the root, and when the last
    /// name that was known is gone.
    pub(super) place: Option<Place>,
    /// Its object in the upper layer. Once set it is never taken away.
    pub(super) upper: Option<UpperRef>,
    /// Its objects in the lower layers, topmost first. Of a directory: all that are merged. Of
    /// anything else: where metadata come from (unless there is an upper) and, last, the data.
    pub(super) lowers: Option<Arc<[Lower]>>,
    /// The open file, while any handle is open.
    pub(super) open: Option<Box<Open>>,
    /// What few nodes have.
    pub(super) ext: Option<Box<Ext>>,
    /// Its last name is gone.
    pub(super) dead: bool,
    /// Counted in [`super::room::Leaving`].
    pub(super) leaving: bool,
    /// The data are in the last lower although there is an upper.
    pub(super) metacopy: bool,
    /// The upper directory carries the impure mark.
    pub(super) impure: bool,
    /// The directory is opaque in the upper.
    pub(super) opaque: bool,
    /// The directory has a default ACL.
    pub(super) default_acl: bool,
}

/// A name in a directory.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) parent: Arc<Node>,
    pub(super) name: NameBuf,
}

impl Place {
    pub(super) fn is(&self, parent: &Node, name: Name<'_>) -> bool {
        self.parent.id == parent.id && self.name.as_name() == name
    }
}

/// An object in the upper layer, with the inode number it has there.
#[derive(Clone, Debug)]
pub(super) struct UpperRef {
    pub(super) held: Arc<Held>,
    pub(super) real_ino: u64,
}

impl UpperRef {
    pub(super) fn id(&self) -> Id {
        self.held.id()
    }
}

/// An object in a lower layer.
#[derive(Debug)]
pub(super) struct Lower {
    /// Which of the stack's lower layers, 0 the topmost.
    pub(super) layer: usize,
    pub(super) held: Held,
}

impl Lower {
    pub(super) fn id(&self) -> Id {
        self.held.id()
    }

    pub(super) fn layer(&self) -> &Arc<dyn Layer> {
        self.held.layer()
    }
}

/// An open file: the descriptor belongs to the node, so that a copy-up can swap it and earlier
/// readers see later writes.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) handles: u32,
    /// How many of them processes are running from.
    pub(super) executed: u32,
    pub(super) file: Arc<dyn Data>,
    pub(super) writable: bool,
    /// The file is no longer the node's: to be opened anew before its next use.
    pub(super) stale: bool,
}

/// What few nodes have.
#[derive(Debug, Default)]
pub(super) struct Ext {
    /// `overlay.redirect` of the upper directory.
    pub(super) redirect: Option<Box<[u8]>>,
    /// For a copied-up hard link.
    pub(super) links: Option<Links>,
    /// What has no name: a copy that was made after the last one had gone, or a new file that has
    /// none yet. It lies in the work directory.
    pub(super) orphan: Option<Orphan>,
}

/// A copied-up hard link: its entry in the index, and how many names the mount shows.
#[derive(Clone, Debug)]
pub(super) struct Links {
    pub(super) key: Option<NameBuf>,
    pub(super) count: u32,
}

/// Something staged that is discarded when the node goes.
#[derive(Debug)]
pub(super) struct Orphan {
    upper: Arc<dyn Upper>,
    staged: Option<Staged>,
    may_get_name: bool,
}

impl Orphan {
    pub(super) fn new(upper: Arc<dyn Upper>, staged: Staged, may_get_name: bool) -> Self {
        Self { upper, staged: Some(staged), may_get_name }
    }

    /// Whether link(2) may give it a name.
    pub(super) fn may_get_name(&self) -> bool {
        self.may_get_name
    }

    /// What lies in the work directory.
    pub(super) fn staged(&mut self) -> Option<&mut Staged> {
        self.staged.as_mut()
    }

    /// It has left the work directory: nothing is to be discarded.
    pub(super) fn published(mut self) {
        self.staged = None;
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        if let Some(staged) = self.staged.take() {
            self.upper.discard(staged);
        }
    }
}

impl State {
    pub(super) fn new(place: Option<Place>) -> Self {
        Self {
            place,
            upper: None,
            lowers: None,
            open: None,
            ext: None,
            dead: false,
            leaving: false,
            metacopy: false,
            impure: false,
            opaque: false,
            default_acl: false,
        }
    }

    /// The lower objects, none for a purely upper one.
    pub(super) fn lowers(&self) -> &[Lower] {
        self.lowers.as_deref().unwrap_or_default()
    }

    pub(super) fn links(&self) -> Option<&Links> {
        self.ext.as_ref()?.links.as_ref()
    }

    pub(super) fn ext(&mut self) -> &mut Ext {
        self.ext.get_or_insert_default()
    }
}

impl Node {
    pub(super) fn new(id: NodeId, ino: u64, kind: Kind, state: State) -> Self {
        Self {
            id,
            ino,
            kind,
            version: AtomicU32::new(0),
            refs: AtomicU64::new(1),
            latch: RwLock::new(()),
            state: Mutex::new(state),
        }
    }

    /// The state, for a few instructions.
    ///
    /// # Errors
    /// `EIO` if a panic left it in an unknown condition.
    pub(super) fn state(&self) -> Result<MutexGuard<'_, State>> {
        self.state.lock().map_err(|_| poisoned())
    }

    /// The latch, shared.
    pub(super) fn latch_read(&self) -> Result<RwLockReadGuard<'_, ()>> {
        self.latch.read().map_err(|_| poisoned())
    }

    /// The latch, exclusive. Wait for no other latch while holding it, but a copy-up for its
    /// parent's; see [`lock_all`].
    pub(super) fn latch_write(&self) -> Result<RwLockWriteGuard<'_, ()>> {
        self.latch.write().map_err(|_| poisoned())
    }

    /// As [`latch_write`](Self::latch_write), for a copy-up: gives up with `EINTR` when whoever
    /// waits is to stop.
    pub(super) fn latch_write_or_stop(&self) -> Result<RwLockWriteGuard<'_, ()>> {
        if !interrupt::is_possible() {
            return self.latch_write();
        }
        let mut pause = Duration::from_micros(50);
        loop {
            match self.latch.try_write() {
                Ok(latch) => return Ok(latch),
                Err(TryLockError::Poisoned(_)) => return Err(poisoned()),
                Err(TryLockError::WouldBlock) => interrupt::check()?,
            }
            // Another copy-up has it, mostly: of a small file for a moment, of a large one for
            // long.
            std::thread::sleep(pause);
            pause = (pause * 2).min(interrupt::PAUSE);
        }
    }

    pub(super) fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    /// Says that something among the directory's entries changed, or may have: what fails may have
    /// done a part. To be said before the latch is given back.
    pub(super) fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn upper(&self) -> Result<Option<UpperRef>> {
        Ok(self.state()?.upper.clone())
    }

    pub(super) fn place(&self) -> Result<Option<Place>> {
        Ok(self.state()?.place.clone())
    }

    pub(super) fn is_dir(&self) -> bool {
        self.kind == Kind::Dir
    }
}

fn poisoned() -> Error {
    Error::new(Errno::EIO, "an earlier request on this file failed by a panic")
}

/// Latches of several nodes, held together.
pub(super) type Latches<'a> = Vec<RwLockWriteGuard<'a, ()>>;

/// Takes the latches of all `nodes` (which may repeat), waiting for one only while holding none.
pub(super) fn lock_all<'a>(nodes: &[&'a Node]) -> Result<Latches<'a>> {
    let mut distinct: Vec<&'a Node> = Vec::with_capacity(nodes.len());
    for node in nodes {
        if !distinct.iter().any(|seen| seen.id == node.id) {
            distinct.push(node);
        }
    }
    loop {
        match try_rest(&distinct)? {
            Ok(latches) => return Ok(latches),
            // The busy one first, next time: waiting for it costs nobody else anything.
            Err(busy) => distinct.swap(0, busy),
        }
    }
}

/// Waits for the first latch, tries the others; `Err` with the index of the one that is busy.
fn try_rest<'a>(nodes: &[&'a Node]) -> Result<std::result::Result<Latches<'a>, usize>> {
    let mut latches = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        if index == 0 {
            latches.push(node.latch_write()?);
            continue;
        }
        match node.latch.try_write() {
            Ok(latch) => latches.push(latch),
            Err(TryLockError::WouldBlock) => return Ok(Err(index)),
            Err(TryLockError::Poisoned(_)) => return Err(poisoned()),
        }
    }
    Ok(Ok(latches))
}

#[cfg(test)]
mod tests;
