//! The walk through the layers: which of them hold a name, and where the walk stops.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::attr::{Attr, Kind};
use crate::errno::Result;
use crate::layer::{Entry, Id, Lookup, Marks, NlinkBase, WhiteoutForm};
use crate::name::Name;

use super::attr::blocks_below;
use super::descend::{Below, Start, dangling, refuse_unknown, starts};
use super::node::{Links, Lower, Node, Place, State, UpperRef};
use super::table::Interned;
use super::{Found, NodeId, Union};

/// What the upper layer physically holds at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Nothing; or there is no upper directory.
    Free,
    /// A whiteout that occupies the name.
    Whiteout,
    /// The name is free, and a sibling says that it is whited out.
    Sibling,
    /// The object itself.
    Object,
}

impl Slot {
    /// The upper layer hides what lies below, though it holds no object.
    pub(super) fn is_whiteout(self) -> bool {
        matches!(self, Self::Whiteout | Self::Sibling)
    }
}

/// Where a listing saw a name of the directory that it lists; true for as long as the directory has
/// the version that was listed. By default the name may be in any layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    /// The topmost layer that holds it: 0 is the upper, then come the lowers from the top.
    pub(super) top: usize,
    /// No layer below that one does.
    pub(super) alone: bool,
}

/// An object as the walk found it, before it is known whether a node exists for it.
pub(super) struct Candidate {
    kind: Kind,
    ino: u64,
    attr: Attr,
    upper: Option<UpperRef>,
    lowers: Vec<Lower>,
    marks: Marks,
    links: Option<Links>,
    /// Of a hard link: [`Union::links_version`] before the walk. Its other names are in other
    /// directories, whose versions say what happens there.
    links_version: Option<u64>,
}

/// Where the walk got.
pub(super) struct Walk {
    pub(super) slot: Slot,
    pub(super) found: Option<Candidate>,
}

/// A node that an operation works on: a reference that is given back on drop.
pub(super) struct Ref<'a> {
    union: &'a Union,
    node: Arc<Node>,
}

impl std::ops::Deref for Ref<'_> {
    type Target = Arc<Node>;
    fn deref(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Drop for Ref<'_> {
    fn drop(&mut self) {
        self.union.live.table.release(Arc::clone(&self.node), 1);
    }
}

/// A name of a directory as an operation finds it.
pub(super) struct Spot<'a> {
    pub(super) slot: Slot,
    pub(super) node: Option<Ref<'a>>,
    /// The directory's version that this is true of.
    pub(super) version: u32,
}

/// The last answers, so that the CREATE that follows the kernel's LOOKUP need not walk again.
#[derive(Debug)]
pub(super) struct Recent([Mutex<Option<Answer>>; 64]);

#[derive(Debug)]
struct Answer {
    parent: NodeId,
    version: u32,
    /// Keyed by a secret of this mount; 64 bits among 64 answers do not collide.
    name_hash: u64,
    slot: Slot,
    node: Option<NodeId>,
}

impl Default for Recent {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(None)))
    }
}

impl Union {
    /// Looks a name up; raises the node's lookup count. `None` if there is no such name.
    pub fn lookup(&self, parent: NodeId, name: Name<'_>) -> Result<Option<Found>> {
        self.lookup_seen(&self.dir(parent)?, name, None)
    }

    /// As [`lookup`](Self::lookup), of a name that was seen when the directory had that version.
    pub(super) fn lookup_seen(
        &self,
        parent: &Arc<Node>,
        name: Name<'_>,
        seen: Option<(u32, Listed)>,
    ) -> Result<Option<Found>> {
        loop {
            let version = parent.version();
            let _latch = parent.latch_read()?;
            let seen = seen.filter(|(then, _)| *then == version).map(|(_, seen)| seen);
            let walk = self.walk(parent, name, seen.unwrap_or_default())?;
            let Some(candidate) = walk.found else {
                self.remember(parent, version, name, walk.slot, None);
                return Ok(None);
            };
            let mut attr = candidate.attr;
            let from_upper = candidate.upper.is_some();
            let Some(node) = self.intern(parent, name, Some(version), candidate)? else { continue };
            self.remember(parent, version, name, walk.slot, Some(node.id));
            if !from_upper && node.upper()?.is_some() {
                // Copied up under another of its names since the walk passed there.
                attr = match self.attr_of(&node) {
                    Ok(now) => now,
                    Err(error) => {
                        self.live.table.release(node, 1);
                        return Err(error);
                    }
                };
            }
            attr.ino = node.ino;
            return Ok(Some(Found { node: node.id, attr }));
        }
    }

    /// What is at a name, for an operation that goes on to change it.
    pub(super) fn locate(&self, parent: &Arc<Node>, name: Name<'_>) -> Result<Spot<'_>> {
        loop {
            let version = parent.version();
            if let Some((slot, id)) = self.recall(parent, version, name) {
                let node = id.map(|id| self.live.table.get_retained(id));
                match node {
                    None => return Ok(Spot { slot, node: None, version }),
                    Some(Some(node)) => {
                        return Ok(Spot { slot, node: Some(Ref { union: self, node }), version });
                    }
                    Some(None) => {}
                }
            }
            let _latch = parent.latch_read()?;
            let walk = self.walk(parent, name, Listed::default())?;
            let Some(candidate) = walk.found else {
                return Ok(Spot { slot: walk.slot, node: None, version });
            };
            if let Some(node) = self.intern(parent, name, Some(version), candidate)? {
                let node = Some(Ref { union: self, node });
                return Ok(Spot { slot: walk.slot, node, version });
            }
        }
    }

    fn recall(
        &self,
        parent: &Node,
        version: u32,
        name: Name<'_>,
    ) -> Option<(Slot, Option<NodeId>)> {
        let name_hash = self.live.hash(name.as_bytes());
        let answer = self.recent_cell(parent, name_hash).lock();
        let answer = answer.as_ref()?;
        let same = answer.parent == parent.id && answer.version == version;
        (same && answer.name_hash == name_hash).then_some((answer.slot, answer.node))
    }

    fn remember(
        &self,
        parent: &Node,
        version: u32,
        name: Name<'_>,
        slot: Slot,
        node: Option<NodeId>,
    ) {
        let name_hash = self.live.hash(name.as_bytes());
        let mut cell = self.recent_cell(parent, name_hash).lock();
        *cell = Some(Answer { parent: parent.id, version, name_hash, slot, node });
    }

    fn recent_cell(&self, parent: &Node, name_hash: u64) -> &Mutex<Option<Answer>> {
        let hash = name_hash ^ parent.id.0;
        let index = usize::try_from(hash % 64).unwrap_or_default();
        self.recent.0.get(index).unwrap_or(&self.recent.0[0])
    }

    /// The whole walk for one name. The caller holds the parent's latch, shared at least.
    pub(super) fn walk(&self, parent: &Arc<Node>, name: Name<'_>, seen: Listed) -> Result<Walk> {
        let (upper_dir, lowers, dead) = {
            let state = parent.state()?;
            (state.upper.clone(), state.lowers.clone(), state.dead)
        };
        if dead {
            return Ok(Walk { slot: Slot::Free, found: None });
        }
        let version = self.links_version();
        let start = starts(lowers.as_deref().unwrap_or_default());
        let mut slot = Slot::Free;
        if let (Some(upper), Some(dir), 0) = (&self.upper, upper_dir, seen.top) {
            slot = match upper.lookup(dir.id(), name)? {
                Lookup::Absent => Slot::Free,
                Lookup::Whiteout(WhiteoutForm::Entry) => Slot::Whiteout,
                Lookup::Whiteout(WhiteoutForm::Sibling) => Slot::Sibling,
                Lookup::Found(entry) => {
                    let found = self.found_in_upper(entry, name, (&start, seen.alone), version)?;
                    return Ok(Walk { slot: Slot::Object, found: Some(found) });
                }
            };
            if slot != Slot::Free {
                return Ok(Walk { slot, found: None });
            }
        }
        let mut found = Vec::new();
        let start = start.get(seen.top.saturating_sub(1)..).unwrap_or_default();
        let alone = seen.alone && seen.top > 0;
        let top = self.descend_seen(start, name, Below::Nothing, alone, &mut found)?;
        let Some((attr, marks)) = top else {
            return Ok(Walk { slot, found: None });
        };
        Ok(Walk { slot, found: Some(self.found_below(attr, marks, found, version)?) })
    }

    fn found_in_upper(
        &self,
        entry: Entry,
        name: Name<'_>,
        (below, alone): (&[Start], bool),
        version: u64,
    ) -> Result<Candidate> {
        let upper = self.writable()?;
        let Entry { id, attr, marks } = entry;
        let reference = Self::upper_ref(upper, id, attr.ino);
        refuse_unknown(&marks, name.as_bytes())?;
        let mut lowers = Vec::new();
        let want = match attr.kind {
            Kind::Dir => Some(Below::Dir),
            Kind::File if marks.metacopy => Some(Below::Data),
            _ => None,
        };
        if let Some(want) = want.filter(|_| !marks.opaque || marks.metacopy) {
            match &marks.redirect {
                None if alone && want == Below::Dir => {}
                None => drop(self.descend(below, name, want, &mut lowers)?),
                Some(to) => {
                    let roots = self.roots_below(0)?;
                    drop(self.redirected(to, below, &roots, want, &mut lowers)?);
                }
            }
            if lowers.is_empty() && (marks.redirect.is_some() || want == Below::Data) {
                return Err(dangling(name, &marks));
            }
        }
        let links = marks.nlink.map(|_| self.links_of(id, &attr, &marks, name, below));
        let links = links.transpose()?;
        let ino = match (marks.ino, lowers.first()) {
            (Some(ino), _) => ino,
            (None, Some(lower)) if attr.kind == Kind::Dir => {
                let real = lower.layer().attr(lower.id())?.ino;
                self.live.inos.map(lower.layer().fs(), real)
            }
            _ => match self.origin_ino(&marks)? {
                Some(ino) => ino,
                None => self.live.inos.map(upper.fs(), attr.ino),
            },
        };
        let mut attr = self.shown(attr, ino, 1 + lowers.len(), links.as_ref());
        if marks.metacopy {
            attr.blocks = blocks_below(&lowers)?;
        }
        let upper = Some(reference);
        let links_version = links.as_ref().map(|_| version);
        let kind = attr.kind;
        Ok(Candidate { kind, ino, attr, upper, lowers, marks, links, links_version })
    }

    /// The inode number of the file that a hard link was copied from by somebody who writes no
    /// `plyfs.ino`: its names that only a lower layer has show that.
    fn origin_ino(&self, marks: &Marks) -> Result<Option<u64>> {
        let Some(origin) = &marks.origin else { return Ok(None) };
        for layer in &self.lowers {
            if let Some(ino) = layer.ino_of(origin)? {
                return Ok(Some(self.live.inos.map(layer.fs(), ino)));
            }
        }
        Ok(None)
    }

    /// How many names a copied-up hard link has in the mount.
    fn links_of(
        &self,
        id: Id,
        attr: &Attr,
        marks: &Marks,
        name: Name<'_>,
        below: &[Start],
    ) -> Result<Links> {
        let key = self.index_key_of_copy(id)?;
        let Some(nlink) = marks.nlink else { return Ok(Links { key, count: attr.nlink }) };
        let base = match nlink.base {
            NlinkBase::Upper => attr.nlink,
            NlinkBase::Lower => match marks.lower_nlink {
                Some(lower) => lower,
                None => self.lower_nlink(attr, name, below)?,
            },
        };
        Ok(Links { key, count: base.saturating_add_signed(nlink.delta).max(1) })
    }

    /// The link count of the lower file that a copy without a `plyfs.nlink` is a copy of. Where the
    /// lower layers do not have this name of it, a number that is rather too large: one that is too
    /// small would lose the index entry while a lower name still needs it.
    fn lower_nlink(&self, copy: &Attr, name: Name<'_>, below: &[Start]) -> Result<u32> {
        let mut lowers = Vec::new();
        let lower = self.descend(below, name, Below::Nothing, &mut lowers)?;
        let lower = lower.map(|(lower, _)| lower.nlink).filter(|nlink| *nlink > 1);
        Ok(lower.unwrap_or(copy.nlink))
    }

    fn found_below(
        &self,
        attr: Attr,
        marks: Marks,
        lowers: Vec<Lower>,
        version: u64,
    ) -> Result<Candidate> {
        let Some(top) = lowers.first() else { return Err(crate::bug!("found in no layer")) };
        let ino = self.live.inos.map(top.layer().fs(), attr.ino);
        let kind = attr.kind;
        let linked = kind != Kind::Dir && attr.nlink > 1;
        let links_version = linked.then_some(version);
        if linked {
            // Another of its names may have been copied up: then this is that copy.
            if let Some((upper, copy, links, marks)) = self.copy_in_index(top)? {
                let attr = self.shown(copy, ino, 1, Some(&links));
                let (upper, links) = (Some(upper), Some(links));
                return Ok(Candidate {
                    kind,
                    ino,
                    attr,
                    upper,
                    lowers,
                    marks,
                    links,
                    links_version,
                });
            }
        }
        let attr = self.shown(attr, ino, lowers.len(), None);
        let upper = None;
        Ok(Candidate { kind, ino, attr, upper, lowers, marks, links: None, links_version })
    }

    /// Whether the lower layers show anything at `name`, whatever the upper holds there.
    pub(super) fn lower_shows(&self, parent: &Node, name: Name<'_>) -> Result<bool> {
        let lowers = parent.state()?.lowers.clone();
        let start = starts(lowers.as_deref().unwrap_or_default());
        let mut found = Vec::new();
        Ok(self.descend(&start, name, Below::Nothing, &mut found)?.is_some())
    }

    /// The node for what the walk found, with one reference more. `None`: the directory changed
    /// meanwhile, walk again. Without a `version` the caller knows that the name is what it is:
    /// it holds the latch, and copy-ups beside it do not matter.
    fn intern(
        &self,
        parent: &Arc<Node>,
        name: Name<'_>,
        version: Option<u32>,
        candidate: Candidate,
    ) -> Result<Option<Arc<Node>>> {
        let mut candidate = candidate;
        loop {
            let ino = candidate.ino;
            let kind = candidate.kind;
            let seen = candidate.seen();
            let links = candidate.links_version;
            let valid = || {
                version.is_none_or(|version| parent.version() == version)
                    && links.is_none_or(|version| self.links_version() == version)
            };
            let same = |node: &Node| seen.is(node, parent, name);
            let mut left = Some(candidate);
            let make = |id| match left.take() {
                Some(candidate) => candidate.into_node(id, parent, name),
                None => Node::new(id, ino, kind, State::new(None)),
            };
            match self.live.table.intern(ino, valid, same, make) {
                Interned::Made(node) => {
                    return Ok(Some(node));
                }
                Interned::Known(node) => {
                    if let Some(candidate) = left {
                        self.known_again(&node, &candidate)?;
                    }
                    return Ok(Some(node));
                }
                Interned::Stale => return Ok(None),
                Interned::Conflict => match left {
                    Some(mut again) => {
                        tracing::warn!(name = %name, ino, "two objects claim one inode number");
                        again.ino = self.live.inos.fresh();
                        candidate = again;
                    }
                    None => return Err(crate::bug!("a conflict after the node was made")),
                },
            }
        }
    }

    /// A node was found again, perhaps under another name: the upper layer may reach it there.
    fn known_again(&self, node: &Arc<Node>, candidate: &Candidate) -> Result<()> {
        let (Some(upper), Some(seen)) = (&self.upper, &candidate.upper) else { return Ok(()) };
        let known = node.upper()?;
        if let Some(known) = known.filter(|known| known.real_ino == seen.real_ino) {
            upper.rebind(known.id(), seen.id());
        }
        Ok(())
    }

    /// A node for an object that an operation just made in `parent`, whose latch it holds.
    pub(super) fn intern_made(
        &self,
        parent: &Arc<Node>,
        name: Name<'_>,
        upper: UpperRef,
        attr: Attr,
        marks: Marks,
    ) -> Result<(Arc<Node>, Attr)> {
        let device = self.writable()?.fs();
        let ino = self.live.inos.map(device, attr.ino);
        let mut attr = self.shown(attr, ino, 1, None);
        let (kind, upper) = (attr.kind, Some(upper));
        let candidate = Candidate {
            kind,
            ino,
            attr,
            upper,
            lowers: Vec::new(),
            marks,
            links: None,
            links_version: None,
        };
        match self.intern(parent, name, None, candidate)? {
            Some(node) => {
                attr.ino = node.ino;
                Ok((node, attr))
            }
            None => Err(crate::bug!("a directory changed under its latch")),
        }
    }
}

/// What identifies a candidate when a node with its inode number is there already.
struct Seen {
    kind: Kind,
    real: Option<u64>,
    nlink: u32,
}

impl Seen {
    fn is(&self, node: &Node, parent: &Node, name: Name<'_>) -> bool {
        if node.kind != self.kind {
            return false;
        }
        let Ok(state) = node.state() else { return true };
        let here = || state.place.as_ref().is_some_and(|place| place.is(parent, name));
        match (state.upper.as_ref().map(|upper| upper.real_ino), self.real) {
            (Some(known), Some(seen)) => known == seen,
            // Both lower: the number comes from the object itself.
            (None, None) => true,
            // One was found before a copy-up and the other after it; or a mark lies.
            _ => here() || self.nlink > 1 || state.links().is_some(),
        }
    }
}

impl Candidate {
    /// The inode number to show.
    pub(super) fn ino(&self) -> u64 {
        self.ino
    }

    fn seen(&self) -> Seen {
        let real = self.upper.as_ref().map(|upper| upper.real_ino);
        Seen { kind: self.kind, real, nlink: self.attr.nlink }
    }

    fn into_node(self, id: NodeId, parent: &Arc<Node>, name: Name<'_>) -> Node {
        // The caller holds a reference on the parent, so raising the count needs no lock.
        parent.refs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let place = Place { parent: Arc::clone(parent), name: name.to_buf() };
        let mut state = State::new(Some(place));
        state.metacopy = self.marks.metacopy && self.upper.is_some();
        state.impure = self.marks.impure;
        state.opaque = self.marks.opaque;
        state.default_acl = self.marks.default_acl;
        if self.upper.is_some() && self.kind == Kind::Dir && self.marks.redirect.is_some() {
            state.ext().redirect = self.marks.redirect;
        }
        if self.links.is_some() {
            state.ext().links = self.links;
        }
        state.upper = self.upper;
        let needed = state.upper.is_none() || state.metacopy || self.kind == Kind::Dir;
        if needed && !self.lowers.is_empty() {
            state.lowers = Some(self.lowers.into());
        }
        Node::new(id, self.ino, self.kind, state)
    }
}

impl Union {
    /// Attributes as the mount shows them. `layers`: how many directories are merged.
    pub(super) fn shown(
        &self,
        mut attr: Attr,
        ino: u64,
        layers: usize,
        links: Option<&Links>,
    ) -> Attr {
        attr.ino = ino;
        attr.uid = self.options.ids.users.shown(attr.uid);
        attr.gid = self.options.ids.groups.shown(attr.gid);
        if attr.kind == Kind::Dir && (layers > 1 || self.options.static_nlink) {
            // The count of a merged directory's subdirectories would need a listing. 1 is what
            // filesystems that do not count show (btrfs, the kernel's overlayfs), and find(1) knows
            // it.
            attr.nlink = 1;
        }
        if let Some(links) = links {
            attr.nlink = links.count;
        }
        attr
    }
}
