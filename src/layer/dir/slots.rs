//! What the ids of a layer on disk stand for: a parent and a name, found again at each use.
//!
//! An id is a slot's number and its generation, so that one used after its last forget is `ESTALE`
//! instead of somebody else. A slot holds a reference on its parent's slot; a rename changes one
//! slot, and what lies below follows. The lock is never held over a system call, and is taken
//! before that of the descriptors where both are.

use parking_lot::Mutex;

use crate::attr::Kind;
use crate::errno::{Errno, Result};
use crate::layer::Id;
use crate::name::NameBuf;

/// The number of ids that always exist: they stand for directories that are held open.
pub(super) const ANCHORS: u32 = 3;

/// What is known of an object, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(u8);

impl Flags {
    /// The directory may hold whiteouts in attributes (`opaque=x`).
    pub(super) const XATTR_WHITEOUTS: Self = Self(1);
    /// The directory may hold files that stand for devices 0:0.
    pub(super) const ESCAPES: Self = Self(1 << 1);
    /// The directory holds no `.wh.` entry that is a whiteout.
    pub(super) const NO_DOT_WH: Self = Self(1 << 2);
    /// The directory hands nothing down to what is made in it: no setgid bit, no default ACL.
    pub(super) const PLAIN: Self = Self(1 << 3);
    /// The object is a file that stands for a device 0:0.
    pub(super) const CHAR_ZERO: Self = Self(1 << 4);
    /// The union has been told of the object's marks.
    pub(super) const MARKS_KNOWN: Self = Self(1 << 5);
    /// One of several names of its inode may have been given to it in the work directory.
    pub(super) const LINKED: Self = Self(1 << 6);
    /// The object shows other permission bits than it has (`plyfs.perm`).
    pub(super) const PERM: Self = Self(1 << 7);

    pub(super) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 == flag.0
    }

    #[must_use]
    pub(super) fn with(self, flag: Self, on: bool) -> Self {
        if on { Self(self.0 | flag.0) } else { Self(self.0 & !flag.0) }
    }
}

/// What an id stands for.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    /// The directory it is in; an anchor is its own.
    pub(super) parent: Id,
    /// Its name there, as stored; none for an anchor.
    pub(super) name: Option<NameBuf>,
    pub(super) kind: Kind,
    /// Its inode number; 0 if that is not known.
    pub(super) ino: u64,
    pub(super) flags: Flags,
}

#[derive(Debug)]
struct Slot {
    name: Option<NameBuf>,
    ino: u64,
    parent: u32,
    refs: u32,
    generation: u32,
    kind: Kind,
    flags: Flags,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// The slots of one layer.
#[derive(Debug)]
pub(super) struct Slots(Mutex<Table>);

fn number(id: Id) -> u32 {
    u32::try_from(id.0 & u64::from(u32::MAX)).unwrap_or(0)
}

fn id_of(number: u32, generation: u32) -> Id {
    Id(u64::from(generation) << 32 | u64::from(number))
}

impl Table {
    fn get(&self, id: Id) -> Result<&Slot> {
        match self.slots.get(number(id) as usize) {
            Some(slot) if slot.refs > 0 && u64::from(slot.generation) == id.0 >> 32 => Ok(slot),
            _ => Err(Errno::ESTALE.into()),
        }
    }

    fn get_mut(&mut self, id: Id) -> Result<&mut Slot> {
        match self.slots.get_mut(number(id) as usize) {
            Some(slot) if slot.refs > 0 && u64::from(slot.generation) == id.0 >> 32 => Ok(slot),
            _ => Err(Errno::ESTALE.into()),
        }
    }

    fn id_at(&self, number: u32) -> Id {
        id_of(number, self.slots.get(number as usize).map_or(0, |slot| slot.generation))
    }

    fn hold(&mut self, number: u32) {
        if number >= ANCHORS
            && let Some(slot) = self.slots.get_mut(number as usize)
        {
            slot.refs += 1;
        }
    }

    /// Gives back one reference; `freed` gets the ids that are no more.
    fn release(&mut self, mut number: u32, freed: &mut Vec<Id>) {
        while number >= ANCHORS {
            let Some(slot) = self.slots.get_mut(number as usize) else { return };
            slot.refs = slot.refs.saturating_sub(1);
            if slot.refs > 0 {
                return;
            }
            freed.push(id_of(number, slot.generation));
            slot.generation = slot.generation.wrapping_add(1);
            slot.name = None;
            self.free.push(number);
            number = slot.parent;
        }
    }
}

impl Slots {
    /// Only the anchors.
    pub(super) fn new() -> Self {
        let anchor = |number| Slot {
            name: None,
            ino: 0,
            parent: number,
            refs: 1,
            generation: 0,
            kind: Kind::Dir,
            flags: Flags::default(),
        };
        let slots = (0..ANCHORS).map(anchor).collect();
        Self(Mutex::new(Table { slots, free: Vec::new() }))
    }

    /// A new id with one reference.
    pub(super) fn insert(&self, spot: Spot) -> Result<Id> {
        let mut table = self.0.lock();
        table.get(spot.parent)?;
        let parent = number(spot.parent);
        table.hold(parent);
        let Spot { name, kind, ino, flags, .. } = spot;
        if let Some(number) = table.free.pop()
            && let Some(slot) = table.slots.get_mut(number as usize)
        {
            let generation = slot.generation;
            *slot = Slot { name, ino, parent, refs: 1, generation, kind, flags };
            return Ok(id_of(number, generation));
        }
        let number = u32::try_from(table.slots.len()).map_err(|_| Errno::ENOMEM)?;
        table.slots.push(Slot { name, ino, parent, refs: 1, generation: 0, kind, flags });
        Ok(id_of(number, 0))
    }

    /// Gives back one reference; returns the ids that are no more.
    pub(super) fn forget(&self, id: Id) -> Vec<Id> {
        let mut freed = Vec::new();
        let mut table = self.0.lock();
        if table.get(id).is_ok() {
            table.release(number(id), &mut freed);
        }
        freed
    }

    /// What `id` stands for; `ESTALE` if it is no more.
    pub(super) fn get(&self, id: Id) -> Result<Spot> {
        let table = self.0.lock();
        let slot = table.get(id)?;
        Ok(Spot {
            parent: table.id_at(slot.parent),
            name: slot.name.clone(),
            kind: slot.kind,
            ino: slot.ino,
            flags: slot.flags,
        })
    }

    /// The names that lead to `id` from the nearest directory above it (or itself) for which
    /// `open` has something, with that. Anchors have to be found open.
    pub(super) fn path<T>(
        &self,
        id: Id,
        mut open: impl FnMut(Id) -> Option<T>,
    ) -> Result<(T, Vec<NameBuf>)> {
        let table = self.0.lock();
        let mut names = Vec::new();
        let mut at = id;
        loop {
            let slot = table.get(at)?;
            if slot.kind != Kind::Dir {
                return Err(Errno::ENOTDIR.into());
            }
            if let Some(found) = open(at) {
                names.reverse();
                return Ok((found, names));
            }
            let Some(name) = &slot.name else { return Err(Errno::ESTALE.into()) };
            names.push(name.clone());
            at = table.id_at(slot.parent);
        }
    }

    /// Turns a flag of `id` on or off.
    pub(super) fn set_flag(&self, id: Id, flag: Flags, on: bool) {
        if let Ok(slot) = self.0.lock().get_mut(id) {
            slot.flags = slot.flags.with(flag, on);
        }
    }

    /// Turns a flag off everywhere.
    pub(super) fn clear_flag(&self, flag: Flags) {
        for slot in &mut self.0.lock().slots {
            slot.flags = slot.flags.with(flag, false);
        }
    }

    /// `id` has moved. Returns the ids that are no more.
    pub(super) fn relocate(&self, id: Id, parent: Id, name: NameBuf) -> Result<Vec<Id>> {
        let mut freed = Vec::new();
        let mut table = self.0.lock();
        table.get(parent)?;
        table.get(id)?;
        let new = number(parent);
        table.hold(new);
        let slot = table.get_mut(id)?;
        let old = std::mem::replace(&mut slot.parent, new);
        slot.name = Some(name);
        table.release(old, &mut freed);
        Ok(freed)
    }

    /// From now on `id` is found where `other` is. Returns the ids that are no more.
    pub(super) fn rebind(&self, id: Id, other: Id) -> Result<Vec<Id>> {
        let spot = self.get(other)?;
        let Some(name) = spot.name else { return Ok(Vec::new()) };
        let freed = self.relocate(id, spot.parent, name)?;
        let mut table = self.0.lock();
        let slot = table.get_mut(id)?;
        slot.ino = spot.ino;
        // What somebody has just noted of the object, whoever looked it up before does not know.
        let mut flags = spot.flags;
        for flag in [Flags::PERM, Flags::ESCAPES, Flags::XATTR_WHITEOUTS] {
            flags = flags.with(flag, slot.flags.has(flag));
        }
        slot.flags = flags;
        Ok(freed)
    }

    /// The number of ids, anchors included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let table = self.0.lock();
        table.slots.len() - table.free.len()
    }
}

#[cfg(test)]
mod tests;
