//! The state behind the lock: nodes by inode number, and the moves between names.
//!
//! A node lives while something names it (the tree, the work directory, the index), while an id is
//! referenced, or while it is open. Without a name it answers only if it was pinned.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Entry, Id, Mark, Marks, New, What};
use crate::attr::{Attr, Kind, Time};
use crate::bug;
use crate::errno::{Errno, Result};

pub(super) struct Tree {
    pub(super) nodes: HashMap<u64, Node>,
    pub(super) root: u64,
    pub(super) index: Option<u64>,
    pub(super) work: BTreeMap<Vec<u8>, u64>,
    inos: Arc<AtomicU64>,
    temps: u64,
    clock: i64,
}

pub(super) struct Node {
    pub(super) ino: u64,
    pub(super) body: Body,
    pub(super) perm: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) marks: Marks,
    pub(super) atime: Time,
    pub(super) mtime: Time,
    pub(super) ctime: Time,
    /// The directory that holds it; means something for directories in the tree only.
    parent: u64,
    pub(super) names: u32,
    pub(super) refs: u64,
    pub(super) opens: u64,
    pub(super) pinned: bool,
}

pub(super) enum Body {
    File(Vec<u8>),
    Dir(Dir),
    Symlink(Vec<u8>),
    Special(Kind, u64),
    Whiteout,
}

#[derive(Default)]
pub(super) struct Dir {
    pub(super) entries: BTreeMap<Vec<u8>, u64>,
    /// Names whited out by an entry `.wh.NAME` beside them.
    pub(super) siblings: BTreeSet<Vec<u8>>,
}

/// Where a name is.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    Tree(u64, &'a [u8]),
    Work(&'a [u8]),
}

impl Node {
    /// The type, or `None` for a whiteout.
    pub(super) fn kind(&self) -> Option<Kind> {
        Some(match self.body {
            Body::File(_) => Kind::File,
            Body::Dir(_) => Kind::Dir,
            Body::Symlink(_) => Kind::Symlink,
            Body::Special(kind, _) => kind,
            Body::Whiteout => return None,
        })
    }

    pub(super) fn is_dir(&self) -> bool {
        matches!(self.body, Body::Dir(_))
    }

    /// The marks, with those that follow from extended attributes.
    pub(super) fn decoded(&self) -> Marks {
        let default_acl = self.xattrs.contains_key(&b"system.posix_acl_default"[..]);
        let mut marks = Marks { default_acl, ..self.marks.clone() };
        // As on disk: the origin is read only where the link count is there.
        marks.origin = marks.origin.filter(|_| marks.nlink.is_some());
        marks
    }

    pub(super) fn apply_mark(&mut self, mark: &Mark<'_>) {
        match mark {
            Mark::Opaque => self.marks.opaque = true,
            Mark::Redirect(to) => self.marks.redirect = Some((*to).into()),
            Mark::Impure => self.marks.impure = true,
            Mark::Ino(ino) => self.marks.ino = Some(*ino),
            Mark::LowerNlink(nlink) => self.marks.lower_nlink = Some(*nlink),
            Mark::Nlink(nlink) => self.marks.nlink = Some(*nlink),
            Mark::Origin(handle) => self.marks.origin = Some((*handle).into()),
            Mark::Metacopy => self.marks.metacopy = true,
        }
    }
}

impl Tree {
    pub(super) fn new(inos: Arc<AtomicU64>) -> Self {
        let mut tree = Self {
            nodes: HashMap::new(),
            root: 0,
            index: None,
            work: BTreeMap::new(),
            inos,
            temps: 0,
            clock: 0,
        };
        tree.root = tree.bare_dir();
        tree
    }

    /// A directory that no entry names and that is never freed: the root, the index.
    fn bare_dir(&mut self) -> u64 {
        let new = New { what: What::Dir, perm: 0o755, uid: 0, gid: 0, xattrs: &[], marks: &[] };
        let ino = self.make(&new);
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.names = 1;
        }
        ino
    }

    pub(super) fn index(&mut self) -> u64 {
        if let Some(ino) = self.index {
            return ino;
        }
        let ino = self.bare_dir();
        self.index = Some(ino);
        ino
    }

    /// Makes a node without a name.
    pub(super) fn make(&mut self, new: &New<'_>) -> u64 {
        let ino = self.inos.fetch_add(1, Ordering::Relaxed);
        let now = self.tick();
        let body = match new.what {
            What::Dir => Body::Dir(Dir::default()),
            What::Symlink(target) => Body::Symlink(target.to_vec()),
            What::File | What::Node(Kind::File, _) => Body::File(Vec::new()),
            What::Node(kind, rdev) => Body::Special(kind, rdev),
        };
        let mut node = Node {
            ino,
            body,
            perm: new.perm & 0o7777,
            uid: new.uid,
            gid: new.gid,
            xattrs: new.xattrs.iter().cloned().collect(),
            marks: Marks::default(),
            atime: now,
            mtime: now,
            ctime: now,
            parent: 0,
            names: 0,
            refs: 0,
            opens: 0,
            pinned: false,
        };
        if matches!(node.body, Body::Symlink(_)) {
            node.perm = 0o777;
        }
        for mark in new.marks {
            node.apply_mark(mark);
        }
        self.nodes.insert(ino, node);
        ino
    }

    pub(super) fn make_whiteout(&mut self) -> u64 {
        let what = What::Node(Kind::Char, 0);
        let new = New { what, perm: 0, uid: 0, gid: 0, xattrs: &[], marks: &[] };
        let ino = self.make(&new);
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.body = Body::Whiteout;
        }
        ino
    }

    pub(super) fn tick(&mut self) -> Time {
        self.clock += 1;
        Time { sec: self.clock, nsec: 0 }
    }

    /// The node, if it can be reached: `ESTALE` once its last name is gone, unless it was pinned.
    pub(super) fn live(&self, ino: u64) -> Result<&Node> {
        match self.nodes.get(&ino) {
            Some(node) if node.names > 0 || node.pinned => Ok(node),
            _ => Err(Errno::ESTALE.into()),
        }
    }

    pub(super) fn live_mut(&mut self, ino: u64) -> Result<&mut Node> {
        match self.nodes.get_mut(&ino) {
            Some(node) if node.names > 0 || node.pinned => Ok(node),
            _ => Err(Errno::ESTALE.into()),
        }
    }

    pub(super) fn dir(&self, ino: u64) -> Result<&Dir> {
        match &self.live(ino)?.body {
            Body::Dir(dir) => Ok(dir),
            _ => Err(Errno::ENOTDIR.into()),
        }
    }

    pub(super) fn dir_mut(&mut self, ino: u64) -> Result<&mut Dir> {
        match &mut self.live_mut(ino)?.body {
            Body::Dir(dir) => Ok(dir),
            _ => Err(Errno::ENOTDIR.into()),
        }
    }

    pub(super) fn attr(&self, ino: u64) -> Result<Attr> {
        self.live(ino)?;
        self.attr_unchecked(ino)
    }

    /// Removes an attribute of an open file, whether it still has a name or not.
    pub(super) fn remove_xattr(&mut self, ino: u64, name: &[u8]) -> Result<()> {
        self.nodes.get_mut(&ino).ok_or(Errno::ESTALE)?.xattrs.remove(name);
        Ok(())
    }

    /// The attributes of a node that may have no name any more (it is open).
    pub(super) fn attr_unchecked(&self, ino: u64) -> Result<Attr> {
        let node = self.nodes.get(&ino).ok_or(Errno::ESTALE)?;
        let is_dir = |ino: &&u64| self.nodes.get(ino).is_some_and(Node::is_dir);
        let (size, nlink, rdev) = match &node.body {
            Body::File(bytes) => (bytes.len() as u64, node.names, 0),
            Body::Dir(_) if node.names == 0 => (0, 0, 0),
            Body::Dir(dir) => {
                let subdirs = dir.entries.values().filter(is_dir).count();
                (4096, u32::try_from(subdirs + 2).unwrap_or(1), 0)
            }
            Body::Symlink(target) => (target.len() as u64, node.names, 0),
            Body::Special(_, rdev) => (0, node.names, *rdev),
            Body::Whiteout => (0, node.names, 0),
        };
        Ok(Attr {
            ino,
            kind: node.kind().unwrap_or(Kind::Char),
            perm: node.perm,
            nlink,
            uid: node.uid,
            gid: node.gid,
            rdev,
            size,
            blocks: if node.is_dir() { 8 } else { size.div_ceil(4096) * 8 },
            blksize: 4096,
            atime: node.atime,
            mtime: node.mtime,
            ctime: node.ctime,
        })
    }

    /// An entry that carries a new reference.
    pub(super) fn entry(&mut self, ino: u64) -> Result<Entry> {
        let attr = self.attr(ino)?;
        let node = self.live_mut(ino)?;
        node.refs += 1;
        Ok(Entry { id: Id(ino), attr, marks: node.decoded() })
    }

    pub(super) fn beside_own_whiteout(&self, ino: u64) -> bool {
        self.nodes.values().any(|node| match &node.body {
            Body::Dir(dir) if !dir.siblings.is_empty() => {
                dir.siblings.iter().any(|name| dir.entries.get(name) == Some(&ino))
            }
            _ => false,
        })
    }

    pub(super) fn forget(&mut self, ino: u64) {
        if ino == self.root || Some(ino) == self.index {
            return;
        }
        match self.nodes.get_mut(&ino) {
            Some(node) if node.refs > 0 => {
                node.refs -= 1;
                if node.refs == 0 {
                    node.pinned = false;
                }
                self.reap(ino);
            }
            _ => drop(bug!("forget of {ino}, which is not referenced")),
        }
    }

    pub(super) fn live_refs(&self) -> u64 {
        self.nodes.values().map(|node| node.refs).sum()
    }

    pub(super) fn live_opens(&self) -> u64 {
        self.nodes.values().map(|node| node.opens).sum()
    }

    pub(super) fn opened(&mut self, ino: u64) -> Result<()> {
        match &mut *self.live_mut(ino)? {
            Node { body: Body::File(_), opens, .. } => *opens += 1,
            Node { body: Body::Dir(_), .. } => return Err(Errno::EISDIR.into()),
            _ => return Err(Errno::EINVAL.into()),
        }
        Ok(())
    }

    pub(super) fn closed(&mut self, ino: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.opens = node.opens.saturating_sub(1);
        }
        self.reap(ino);
    }

    fn reap(&mut self, ino: u64) {
        if self.nodes.get(&ino).is_some_and(|n| n.names == 0 && n.refs == 0 && n.opens == 0) {
            self.nodes.remove(&ino);
        }
    }

    /// Counts one more name.
    pub(super) fn named(&mut self, ino: u64) {
        let now = self.tick();
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.names += 1;
            node.ctime = now;
        }
    }

    /// Counts one name less; at zero a directory takes what it holds with it.
    pub(super) fn unnamed(&mut self, ino: u64) {
        let now = self.tick();
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.names = node.names.saturating_sub(1);
        node.ctime = now;
        let inside = match &mut node.body {
            Body::Dir(dir) if node.names == 0 => std::mem::take(&mut dir.entries),
            _ => BTreeMap::new(),
        };
        for child in inside.into_values() {
            self.unnamed(child);
        }
        self.reap(ino);
    }

    /// What is at a place. `ENOENT` for a directory that was removed while it was pinned.
    pub(super) fn at(&self, place: Place<'_>) -> Result<Option<u64>> {
        match place {
            Place::Work(name) => Ok(self.work.get(name).copied()),
            Place::Tree(dir, name) => {
                let found = self.dir(dir)?.entries.get(name).copied();
                if self.live(dir)?.names == 0 {
                    return Err(Errno::ENOENT.into());
                }
                Ok(found)
            }
        }
    }

    /// Puts a node at a place, whatever was there. Name counts are the caller's.
    pub(super) fn put(&mut self, place: Place<'_>, ino: u64) -> Result<()> {
        match place {
            Place::Work(name) => {
                self.work.insert(name.to_vec(), ino);
            }
            Place::Tree(dir, name) => {
                self.dir_mut(dir)?.entries.insert(name.to_vec(), ino);
                if let Some(node) = self.nodes.get_mut(&ino) {
                    node.parent = dir;
                }
            }
        }
        Ok(())
    }

    /// Takes away what is at a place. Name counts are the caller's.
    pub(super) fn take(&mut self, place: Place<'_>) -> Result<Option<u64>> {
        Ok(match place {
            Place::Work(name) => self.work.remove(name),
            Place::Tree(dir, name) => self.dir_mut(dir)?.entries.remove(name),
        })
    }

    /// A change to the entries of a directory: its times move.
    pub(super) fn touch(&mut self, place: Place<'_>) {
        let Place::Tree(dir, _) = place else { return };
        let now = self.tick();
        if let Some(node) = self.nodes.get_mut(&dir) {
            node.mtime = now;
            node.ctime = now;
        }
    }

    pub(super) fn touch_ctime(&mut self, ino: u64) {
        let now = self.tick();
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.ctime = now;
        }
    }

    /// A name in the work directory that was never used before.
    pub(super) fn temp(&mut self) -> Vec<u8> {
        self.temps += 1;
        format!("#{:x}", self.temps).into_bytes()
    }

    pub(super) fn sweep(&mut self) {
        for ino in std::mem::take(&mut self.work).into_values() {
            self.unnamed(ino);
        }
    }

    /// Whether `new` may take the place of `old`.
    pub(super) fn may_replace(&self, new_is_dir: bool, old: u64) -> Result<()> {
        match (&self.live(old)?.body, new_is_dir) {
            (Body::Dir(_), false) => Err(Errno::EISDIR.into()),
            (Body::Dir(dir), true) => dir.may_vanish(),
            (_, true) => Err(Errno::ENOTDIR.into()),
            (_, false) => Ok(()),
        }
    }

    /// `EINVAL` if `place` lies in `ino` or below it.
    pub(super) fn not_inside(&self, ino: u64, place: Place<'_>) -> Result<()> {
        let Place::Tree(mut dir, _) = place else { return Ok(()) };
        loop {
            if dir == ino {
                return Err(Errno::EINVAL.into());
            }
            match self.nodes.get(&dir) {
                Some(node) if node.parent != 0 => dir = node.parent,
                _ => return Ok(()),
            }
        }
    }
}

impl Dir {
    /// `ENOTEMPTY` unless nothing is in it, not even a whiteout.
    pub(super) fn may_vanish(&self) -> Result<()> {
        if self.entries.is_empty() && self.siblings.is_empty() {
            Ok(())
        } else {
            Err(Errno::ENOTEMPTY.into())
        }
    }
}
