//! All live nodes, by id and by inode number.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::NodeId;
use super::node::Node;
use super::room::Leaving;

const SHARDS: usize = 16;

/// The live nodes. Sharded by inode number; a shard's lock is held for a few instructions and never
/// over a system call.
#[derive(Debug, Default)]
pub(super) struct Table {
    shards: [Mutex<Shard>; SHARDS],
    count: AtomicUsize,
    pub(super) leaving: Leaving,
}

#[derive(Debug, Default)]
struct Shard {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_ino: HashMap<u64, u32>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Raised when the slot is used again, so that an id of an earlier node is not mistaken.
    generation: u32,
    node: Option<Arc<Node>>,
}

/// What [`Table::intern`] did.
pub(super) enum Interned {
    /// A node of that inode number was there, and is the same object; it has one reference more.
    Known(Arc<Node>),
    /// The node was made, with one reference.
    Made(Arc<Node>),
    /// A node of that inode number is there, and is another object.
    Conflict,
    /// The directory changed since the caller looked.
    Stale,
}

/// The generations that an id has bits for.
const GENERATIONS: u32 = 0x0fff_ffff;

fn shard_of(ino: u64) -> usize {
    // Inode numbers of one directory are often neighbours: any low bits do.
    usize::try_from(ino % SHARDS as u64).unwrap_or_default()
}

fn id_of(shard: usize, index: u32, generation: u32) -> NodeId {
    NodeId((u64::from(generation) << 36) | (u64::from(index) << 4) | shard as u64)
}

fn parts_of(id: NodeId) -> (usize, usize, u32) {
    let shard = usize::try_from(id.0 % SHARDS as u64).unwrap_or_default();
    let index = usize::try_from((id.0 >> 4) & 0xffff_ffff).unwrap_or(usize::MAX);
    (shard, index, u32::try_from(id.0 >> 36).unwrap_or(u32::MAX))
}

impl Table {
    fn shard(&self, index: usize) -> &Mutex<Shard> {
        self.shards.get(index).unwrap_or(&self.shards[0])
    }

    /// The node of that id, if it is live.
    pub(super) fn get(&self, id: NodeId) -> Option<Arc<Node>> {
        let (shard, index, generation) = parts_of(id);
        let shard = self.shard(shard).lock();
        let slot = shard.slots.get(index)?;
        if slot.generation != generation {
            return None;
        }
        slot.node.clone()
    }

    /// The node of that id with one reference more, if it is live.
    pub(super) fn get_retained(&self, id: NodeId) -> Option<Arc<Node>> {
        let (shard, index, generation) = parts_of(id);
        let shard = self.shard(shard).lock();
        let slot = shard.slots.get(index)?;
        if slot.generation != generation {
            return None;
        }
        let node = slot.node.clone()?;
        node.refs.fetch_add(1, Ordering::Relaxed);
        Some(node)
    }

    /// The node that shows this inode number.
    pub(super) fn by_ino(&self, ino: u64) -> Option<NodeId> {
        let shard = self.shard(shard_of(ino)).lock();
        let index = *shard.by_ino.get(&ino)?;
        shard.slots.get(index as usize)?.node.as_ref().map(|node| node.id)
    }

    /// Number of live nodes.
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The node that shows `ino`, with one reference more; made by `make` if there is none.
    /// `same` says whether a node that is there is the object that the caller found; `valid`
    /// whether what the caller found still holds. Both run under the shard's lock.
    pub(super) fn intern(
        &self,
        ino: u64,
        valid: impl FnOnce() -> bool,
        same: impl FnOnce(&Node) -> bool,
        make: impl FnOnce(NodeId) -> Node,
    ) -> Interned {
        let number = shard_of(ino);
        let mut shard = self.shard(number).lock();
        let shard = &mut *shard;
        if !valid() {
            return Interned::Stale;
        }
        let vacant = match shard.by_ino.entry(ino) {
            MapEntry::Occupied(entry) => {
                let known = shard.slots.get(*entry.get() as usize).and_then(|s| s.node.clone());
                return match known {
                    Some(node) if same(&node) => {
                        node.refs.fetch_add(1, Ordering::Relaxed);
                        Interned::Known(node)
                    }
                    _ => Interned::Conflict,
                };
            }
            MapEntry::Vacant(vacant) => vacant,
        };
        let index = shard.free.pop().unwrap_or_else(|| {
            shard.slots.push(Slot::default());
            u32::try_from(shard.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let Some(slot) = shard.slots.get_mut(index as usize) else { return Interned::Conflict };
        // Never 0: an id of generation 0 may be 0 or 1, which on the wire are "no such name" and
        // the root.
        slot.generation = slot.generation % GENERATIONS + 1;
        let node = Arc::new(make(id_of(number, index, slot.generation)));
        slot.node = Some(Arc::clone(&node));
        vacant.insert(index);
        self.count.fetch_add(1, Ordering::Relaxed);
        Interned::Made(node)
    }

    /// Gives back `n` references. A node without any leaves the table, and gives back the one it
    /// holds on its parent.
    pub(super) fn release(&self, node: Arc<Node>, n: u64) {
        let mut next = self.release_one(&node, n);
        // Not after what follows: what the node holds is to be free when it is said to be.
        drop(node);
        while let Some(gone) = next {
            let (parent, leaving) = match gone.state() {
                Ok(mut state) => (state.place.take().map(|place| place.parent), state.leaving),
                // Poisoned: its parent stays alive, which costs memory and nothing else.
                Err(_) => (None, false),
            };
            drop(gone);
            if leaving {
                self.leaving.gone();
            }
            next = parent.and_then(|parent| self.release_one(&parent, 1));
        }
    }

    /// Gives back references on one node and returns it if it has left the table.
    fn release_one(&self, node: &Arc<Node>, n: u64) -> Option<Arc<Node>> {
        let (number, index, _) = parts_of(node.id);
        let mut shard = self.shard(number).lock();
        let lower = |refs: u64| Some(refs.saturating_sub(n));
        // Not a plain store: whoever holds a reference may raise the count without this lock.
        let before = node.refs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lower);
        if before.is_ok_and(|refs| refs > n) {
            return None;
        }
        let slot = shard.slots.get_mut(index)?;
        if !slot.node.as_ref().is_some_and(|there| Arc::ptr_eq(there, node)) {
            return None;
        }
        let gone = slot.node.take();
        shard.free.push(u32::try_from(index).unwrap_or(u32::MAX));
        shard.by_ino.remove(&node.ino);
        self.count.fetch_sub(1, Ordering::Relaxed);
        gone
    }
}

#[cfg(test)]
mod tests;
