//! Merged listings. No state per open directory: a cookie is made from the name (its hash, and a
//! slot for names with the same one), so it stays valid while entries come and go, and listing goes
//! on from it in whatever listing is at hand.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;

use crate::attr::Kind;
use crate::errno::{Errno, Error, Result};
use crate::layer::{Id, Layer};
use crate::name::Name;

use super::lookup::Listed;
use super::node::{Lower, Node};
use super::{DirEntry, Found, NodeId, Union};

const DOT: u64 = 1;
const DOT_DOT: u64 = 2;
/// Bits of a cookie that tell names of the same hash apart.
const SLOT_BITS: u32 = 16;
/// Listings kept at most, and entries in all of them together beyond which the oldest go (the
/// newest stays whatever its size). They serve whoever is in the middle of listing; the kernel
/// keeps what was listed.
const MAX_LISTINGS: usize = 32;
const MAX_ENTRIES: usize = 20_000;

/// A merged directory, sorted by cookie.
#[derive(Debug)]
pub(super) struct Listing {
    version: u32,
    names: Vec<u8>,
    items: Vec<Item>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    cookie: u64,
    ino: u64,
    start: u32,
    len: u8,
    kind: Kind,
    /// [`RESOLVE`] and [`ALONE`]; a listing may have a million items.
    flags: u8,
    /// The topmost layer that holds it, as in [`Listed`]; `u8::MAX` if it is so far down.
    top: u8,
}

/// The number shown may be another than the object's own: look it up.
const RESOLVE: u8 = 1;
/// No layer below the topmost one holds the name.
const ALONE: u8 = 2;

impl Item {
    fn seen(&self) -> Listed {
        if self.top == u8::MAX {
            return Listed::default();
        }
        Listed { top: usize::from(self.top), alone: self.flags & ALONE != 0 }
    }
}

/// What one layer says of one name, before merging.
struct Raw {
    hash: u64,
    start: u32,
    len: u8,
    /// 0 for the upper, then the lowers from the top.
    layer: u32,
    kind: Option<Kind>,
    ino: u64,
}

/// The most recent listings.
#[derive(Debug)]
pub(super) struct Listings(LruCache<NodeId, Arc<Listing>>);

impl Default for Listings {
    fn default() -> Self {
        Self(LruCache::new(NonZeroUsize::new(MAX_LISTINGS).unwrap_or(NonZeroUsize::MIN)))
    }
}

impl Listings {
    fn put(&mut self, node: NodeId, listing: &Arc<Listing>) {
        self.0.put(node, Arc::clone(listing));
        let mut total: usize = self.0.iter().map(|(_, listing)| listing.items.len()).sum();
        while total > MAX_ENTRIES && self.0.len() > 1 {
            let Some((_, oldest)) = self.0.pop_lru() else { break };
            total -= oldest.items.len();
        }
    }
}

impl Union {
    /// Lists `dir` from the entry after cookie `offset` (0: from the start) until `each` returns
    /// false. Needs no open: cookies come from names.
    pub fn readdir(
        &self,
        dir: NodeId,
        offset: u64,
        each: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<()> {
        let dir = self.dir(dir)?;
        if !self.dots(&dir, offset, each)? {
            return Ok(());
        }
        let listing = self.listing(&dir, offset)?;
        self.done_at_end(&dir, &listing, offset);
        for item in listing.after(offset) {
            let name = listing.name(item)?;
            let resolve = item.flags & RESOLVE != 0;
            let ino = if resolve { self.shown_ino(&dir, name, item.ino)? } else { item.ino };
            let (kind, cookie) = (item.kind, item.cookie);
            if !each(&DirEntry { name: name.as_bytes(), kind, ino, cookie }) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// As [`readdir`](Self::readdir), with a lookup of each entry (none for `.` and `..`, whose
    /// `Found` is `None`). An entry for which `each` returns false has not been looked up.
    pub fn readdirplus(
        &self,
        dir: NodeId,
        offset: u64,
        each: &mut dyn FnMut(&DirEntry<'_>, Option<&Found>) -> bool,
    ) -> Result<()> {
        let dir = self.dir(dir)?;
        if !self.dots(&dir, offset, &mut |entry| each(entry, None))? {
            return Ok(());
        }
        let listing = self.listing(&dir, offset)?;
        self.done_at_end(&dir, &listing, offset);
        for item in listing.after(offset) {
            let name = listing.name(item)?;
            // Gone since the listing was made: skipped, as readdir(3) allows.
            let seen = Some((listing.version, item.seen()));
            let Some(found) = self.lookup_seen(&dir, name, seen)? else { continue };
            let (kind, ino, cookie) = (found.attr.kind, found.attr.ino, item.cookie);
            let entry = DirEntry { name: name.as_bytes(), kind, ino, cookie };
            if !each(&entry, Some(&found)) {
                self.forget(found.node, 1);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Lets go of a listing that its reader has come to the end of.
    fn done_at_end(&self, dir: &Node, listing: &Listing, offset: u64) {
        if listing.items.last().is_none_or(|last| last.cookie <= offset) {
            self.listings.lock().0.pop(&dir.id);
        }
    }

    /// `.` and `..`; false once `each` has had enough.
    fn dots(
        &self,
        dir: &Arc<Node>,
        offset: u64,
        each: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<bool> {
        let kind = Kind::Dir;
        if offset < DOT && !each(&DirEntry { name: b".", kind, ino: dir.ino, cookie: DOT }) {
            return Ok(false);
        }
        if offset < DOT_DOT {
            let ino = dir.place()?.map_or(dir.ino, |place| place.parent.ino);
            return Ok(each(&DirEntry { name: b"..", kind, ino, cookie: DOT_DOT }));
        }
        Ok(true)
    }

    /// The listing to go on with at `offset`. From the start it is up to date; later an older one
    /// serves as well (an entry removed since may still be listed), so that listing a directory
    /// while deleting from it does not merge it again and again.
    fn listing(&self, dir: &Arc<Node>, offset: u64) -> Result<Arc<Listing>> {
        let known = self.listings.lock().0.get(&dir.id).cloned();
        if let Some(known) = known
            && (offset > DOT_DOT || known.version == dir.version())
        {
            return Ok(known);
        }
        let listing = {
            let _latch = dir.latch_read()?;
            Arc::new(self.merge(dir)?)
        };
        self.listings.lock().put(dir.id, &listing);
        Ok(listing)
    }

    fn merge(&self, dir: &Arc<Node>) -> Result<Listing> {
        let (upper, lowers, dead) = {
            let state = dir.state()?;
            (state.upper.clone(), state.lowers.clone(), state.dead)
        };
        let version = dir.version();
        let mut names = Vec::new();
        let mut raw = Vec::new();
        let lowers = lowers.as_deref().unwrap_or_default();
        if !dead {
            if let Some(upper) = &upper {
                self.collect(&**upper.held.layer(), upper.id(), 0, &mut names, &mut raw)?;
            }
            for (index, lower) in lowers.iter().enumerate() {
                let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
                self.collect(&**lower.layer(), lower.id(), number, &mut names, &mut raw)?;
            }
        }
        // After the names: a copy-up writes the mark before its name.
        let impure = dir.state()?.impure;
        let name = |raw: &Raw| slice(&names, raw.start, raw.len);
        // Of one layer's two entries of a name, the object before the whiteout.
        let order = |a: &Raw, b: &Raw| {
            let whiteout = |raw: &Raw| raw.kind.is_none();
            (a.hash.cmp(&b.hash))
                .then_with(|| name(a).cmp(name(b)))
                .then_with(|| a.layer.cmp(&b.layer))
                .then_with(|| whiteout(a).cmp(&whiteout(b)))
        };
        raw.sort_unstable_by(order);
        let mut items: Vec<Item> = Vec::with_capacity(raw.len());
        let (mut last_hash, mut slot) = (u64::MAX, 0);
        let mut at = 0;
        while let Some(first) = raw.get(at) {
            let run = raw.get(at..).unwrap_or_default();
            let same = run.iter().take_while(|r| r.hash == first.hash && name(r) == name(first));
            let run = run.get(..same.count()).unwrap_or_default();
            at += run.len().max(1);
            if first.hash != last_hash {
                (last_hash, slot) = (first.hash, 0);
            }
            let Some(kind) = first.kind else { continue };
            let (ino, resolve) = self.listed_ino(run, first, impure, lowers);
            let cookie = (first.hash << SLOT_BITS) | slot;
            slot += 1;
            let alone = run.iter().all(|raw| raw.layer == first.layer);
            let flags = if resolve { RESOLVE } else { 0 } | if alone { ALONE } else { 0 };
            let top = u8::try_from(first.layer).unwrap_or(u8::MAX);
            items.push(Item { cookie, ino, start: first.start, len: first.len, kind, flags, top });
        }
        Ok(Listing { version, names, items })
    }

    /// The number shown for an entry, and whether only a lookup can tell for sure.
    fn listed_ino(&self, run: &[Raw], first: &Raw, impure: bool, lowers: &[Lower]) -> (u64, bool) {
        if first.layer == 0 {
            let device = self.upper.as_ref().map_or(0, |upper| upper.fs());
            let merged = first.kind == Some(Kind::Dir) && run.len() > 1;
            return (self.live.inos.map(device, first.ino), impure || merged);
        }
        let index = usize::try_from(first.layer - 1).unwrap_or_default();
        let device = lowers.get(index).map_or(0, |lower| lower.layer().fs());
        (self.live.inos.map(device, first.ino), false)
    }

    fn collect(
        &self,
        layer: &dyn Layer,
        dir: Id,
        number: u32,
        names: &mut Vec<u8>,
        raw: &mut Vec<Raw>,
    ) -> Result<()> {
        layer.readdir(dir, &mut |item| {
            let bytes = item.name.as_bytes();
            let start = u32::try_from(names.len()).map_err(|_| {
                Error::new(Errno::EOVERFLOW, "more than 4 GiB of names in one directory")
            })?;
            names.extend_from_slice(bytes);
            // Never 0, which is "from the start"; 47 bits, so that a cookie is a positive off_t.
            let hash = (self.live.hash(bytes) >> 17).max(1);
            let len = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
            let (kind, ino) = (item.kind, item.ino);
            raw.push(Raw { hash, start, len, layer: number, kind, ino });
            Ok(())
        })
    }

    /// The inode number that a lookup of the entry would show.
    fn shown_ino(&self, dir: &Arc<Node>, name: Name<'_>, fallback: u64) -> Result<u64> {
        let _latch = dir.latch_read()?;
        let walk = self.walk(dir, name, Listed::default())?;
        Ok(walk.found.map_or(fallback, |found| found.ino()))
    }

    /// Whether a merged directory shows nothing.
    pub(super) fn is_empty(&self, dir: &Arc<Node>) -> Result<bool> {
        let _latch = dir.latch_read()?;
        self.is_empty_latched(dir)
    }

    /// As [`is_empty`](Self::is_empty), for whoever holds the latch.
    pub(super) fn is_empty_latched(&self, dir: &Arc<Node>) -> Result<bool> {
        let (upper, lowers) = self.objects(dir)?;
        let lowers = lowers.as_deref().unwrap_or_default();
        let mut hidden: std::collections::HashSet<Vec<u8>> = std::collections::HashSet::new();
        let upper = upper.iter().map(|upper| (upper.held.layer(), upper.id()));
        let layers = upper.chain(lowers.iter().map(|lower| (lower.layer(), lower.id())));
        for (layer, id) in layers {
            let mut here = Vec::new();
            let mut visible = false;
            layer.readdir(id, &mut |item| {
                let bytes = item.name.as_bytes();
                match item.kind {
                    None => here.push(bytes.to_vec()),
                    Some(_) => visible |= !hidden.contains(bytes),
                }
                Ok(())
            })?;
            if visible {
                return Ok(false);
            }
            hidden.extend(here);
        }
        Ok(true)
    }
}

impl Listing {
    fn after(&self, offset: u64) -> impl Iterator<Item = &Item> {
        let first = self.items.partition_point(|item| item.cookie <= offset);
        self.items.get(first..).unwrap_or_default().iter()
    }

    fn name(&self, item: &Item) -> Result<Name<'_>> {
        Name::new(slice(&self.names, item.start, item.len))
    }
}

fn slice(names: &[u8], start: u32, len: u8) -> &[u8] {
    let start = start as usize;
    names.get(start..start + len as usize).unwrap_or_default()
}
