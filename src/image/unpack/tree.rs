//! The directories of a layer that is being unpacked, in memory: which there are, what is known of
//! each, and what is still to be done to it. Of everything else the filesystem is the record.

use std::collections::HashMap;

use crate::attr::Time;
use crate::bug;
use crate::errno::{Errno, Error, Result};

/// The most directories of a layer, those that are gone again included: about 1 GiB of memory. One
/// entry can imply two thousand.
const DIRS_MOST: usize = if cfg!(test) { 50_000 } else { 1 << 21 };

/// A directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Dir(u32);

impl Dir {
    /// The layer's root.
    pub(super) const ROOT: Self = Self(0);

    /// Its number, from 0 up.
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is known of a directory.
#[derive(Debug)]
pub(super) struct Node {
    /// The directory it is in; of the root, itself.
    pub(super) parent: Dir,
    /// Its name; empty for the root, and for a directory that is gone.
    pub(super) name: Box<[u8]>,
    children: HashMap<Box<[u8]>, Dir>,
    /// The length of its path in bytes.
    pub(super) path_len: usize,
    /// It was replaced by something else.
    pub(super) gone: bool,
    /// An entry gave it attributes; else those of the directory below are to be taken over.
    pub(super) explicit: bool,
    /// A path led through it while nobody knew whether it is a directory below.
    pub(super) assumed: bool,
    /// It is an entry, or something that is no whiteout lies in it.
    pub(super) real: bool,
    /// Nothing of the directory below shows in it.
    pub(super) hides: bool,
    /// It has nothing to do with what lies below: that was deleted or replaced before.
    pub(super) fresh: bool,
    /// It holds devices 0:0 in disguise.
    pub(super) escapes: bool,
    /// It holds whiteouts that are files with an attribute.
    pub(super) xattr_whiteouts: bool,
    /// Extended attributes were set on it.
    pub(super) has_xattrs: bool,
    /// What is to be set when nothing more is made in it.
    pub(super) late: Late,
}

/// Attributes of a directory that must wait until everything in it was made.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// The whole mode, if it holds a bit that passes on to what is made inside.
    pub(super) perm: Option<u16>,
    /// The time of the last change.
    pub(super) mtime: Option<Time>,
    /// The default ACL, which passes on too.
    pub(super) default_acl: Option<Box<[u8]>>,
}

/// All directories.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

fn node(parent: Dir, name: &[u8], path_len: usize) -> Node {
    Node {
        parent,
        name: name.into(),
        children: HashMap::new(),
        path_len,
        gone: false,
        explicit: false,
        assumed: false,
        real: false,
        hides: false,
        fresh: false,
        escapes: false,
        xattr_whiteouts: false,
        has_xattrs: false,
        late: Late::default(),
    }
}

impl Tree {
    /// A root without an entry.
    pub(super) fn new() -> Self {
        let mut root = node(Dir::ROOT, b"", 0);
        root.real = true;
        Self { nodes: vec![root] }
    }

    /// What is known of a directory.
    pub(super) fn get(&self, dir: Dir) -> Result<&Node> {
        self.nodes.get(dir.index()).ok_or_else(|| bug!("no directory {dir:?}"))
    }

    /// The same, to change it.
    pub(super) fn get_mut(&mut self, dir: Dir) -> Result<&mut Node> {
        self.nodes.get_mut(dir.index()).ok_or_else(|| bug!("no directory {dir:?}"))
    }

    /// The directory of that name in another.
    pub(super) fn child(&self, dir: Dir, name: &[u8]) -> Option<Dir> {
        self.nodes.get(dir.index())?.children.get(name).copied()
    }

    /// The directories in another, in no order.
    pub(super) fn children(&self, dir: Dir) -> Vec<Dir> {
        let node = self.nodes.get(dir.index());
        node.map(|node| node.children.values().copied().collect()).unwrap_or_default()
    }

    /// All directories that are not gone; each after the one it is in.
    pub(super) fn all(&self) -> impl Iterator<Item = (Dir, &Node)> {
        let numbered = (0_u32..).map(Dir).zip(&self.nodes);
        numbered.filter(|(_, node)| !node.gone)
    }

    /// How many numbers were given to directories.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Notes a directory that was made.
    pub(super) fn add(&mut self, parent: Dir, name: &[u8]) -> Result<Dir> {
        if self.nodes.len() >= DIRS_MOST {
            let why = format!("the archive makes more than {DIRS_MOST} directories");
            return Err(Error::new(Errno::EINVAL, why));
        }
        let dir = Dir(u32::try_from(self.nodes.len()).map_err(|_| Errno::ENOMEM)?);
        let above = self.get_mut(parent)?;
        above.children.insert(name.into(), dir);
        let path_len = above.path_len + name.len() + 1;
        self.nodes.push(node(parent, name, path_len));
        Ok(dir)
    }

    /// A directory and all below it, each after the one it is in.
    pub(super) fn below(&self, dir: Dir) -> Vec<Dir> {
        let mut all = vec![dir];
        let mut next = 0;
        while let Some(&dir) = all.get(next) {
            all.extend(self.children(dir));
            next += 1;
        }
        all
    }

    /// Notes that a directory is gone, with all that are in it; returns these.
    pub(super) fn remove(&mut self, dir: Dir) -> Result<Vec<Dir>> {
        let all = self.below(dir);
        let (parent, name) = {
            let node = self.get_mut(dir)?;
            (node.parent, std::mem::take(&mut node.name))
        };
        self.get_mut(parent)?.children.remove(&name);
        for &gone in &all {
            let node = self.get_mut(gone)?;
            node.gone = true;
            node.children = HashMap::new();
        }
        Ok(all)
    }

    /// Notes that something that is no whiteout lies in `dir`.
    pub(super) fn mark_real(&mut self, mut dir: Dir) -> Result<()> {
        loop {
            let node = self.get_mut(dir)?;
            if std::mem::replace(&mut node.real, true) {
                return Ok(());
            }
            dir = node.parent;
        }
    }

    /// The path of a directory; empty for the root.
    pub(super) fn path(&self, mut dir: Dir) -> Result<Vec<u8>> {
        let mut names = Vec::new();
        while dir != Dir::ROOT {
            let node = self.get(dir)?;
            names.push(&*node.name);
            dir = node.parent;
        }
        names.reverse();
        Ok(names.join(&b'/'))
    }

    /// The path of a name in a directory.
    pub(super) fn path_of(&self, dir: Dir, name: &[u8]) -> Result<Vec<u8>> {
        let mut path = self.path(dir)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Ok(path)
    }
}
