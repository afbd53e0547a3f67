//! A tree in memory, as a layer: for tests, fuzzing, and as the shortest description of what a
//! layer does.
//!
//! It behaves as a local filesystem does where that matters to the union: a directory has two links
//! and one more for each directory in it, `rename` onto another name of the same file does nothing,
//! a change of owner clears set-id bits, an object whose last name is gone is out of reach
//! ([`ESTALE`](Errno::ESTALE)) unless it was pinned. Marks are kept decoded beside the extended
//! attributes, whiteouts are a kind of node, and the work directory and the index lie outside the
//! tree. Time is a counter: each change is one second later than the one before.

mod data;
mod dump;
mod tree;
mod upper;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, MutexGuard};

use self::data::MemData;
use self::tree::{Body, Tree};
use super::{Data, DirItem, Entry, Id, Layer, Lookup, Mark, Marks, New, Upper, What, WhiteoutForm};
use crate::attr::{Attr, StatFs};
use crate::errno::{Errno, Result};
use crate::name::Name;

/// A tree in memory. Outlives the union it is given to: handing it to a new one is a remount.
pub struct MemLayer {
    fs: u64,
    inos: Arc<AtomicU64>,
    tree: Arc<Mutex<Tree>>,
}

impl fmt::Debug for MemLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemLayer").field("fs", &self.fs).finish_non_exhaustive()
    }
}

impl MemLayer {
    /// An empty tree (its root `0755`, owned by 0:0) on a filesystem of its own, `fs`.
    pub fn new(fs: u64) -> Arc<Self> {
        Self::with_inos(fs, Arc::new(AtomicU64::new(1)))
    }

    /// An empty tree on the same filesystem: their inode numbers never coincide.
    pub fn beside(&self) -> Arc<Self> {
        Self::with_inos(self.fs, Arc::clone(&self.inos))
    }

    fn with_inos(fs: u64, inos: Arc<AtomicU64>) -> Arc<Self> {
        let tree = Arc::new(Mutex::new(Tree::new(Arc::clone(&inos))));
        Arc::new(Self { fs, inos, tree })
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock()
    }

    /// The number of references that were handed out and not given back.
    pub fn live_refs(&self) -> u64 {
        self.tree().live_refs()
    }

    /// The number of open files.
    pub fn live_opens(&self) -> u64 {
        self.tree().live_opens()
    }

    /// How many names the work directory holds.
    pub fn staged_count(&self) -> usize {
        self.tree().work.len()
    }

    /// The number of objects that take up memory, whether they have a name or not.
    pub fn object_count(&self) -> usize {
        self.tree().nodes.len()
    }

    /// Empties the work directory, as a mount does.
    pub fn sweep(&self) {
        self.tree().sweep();
    }

    /// The raw layer as text, one line an object, sorted by path: kind, permissions, owner,
    /// content, extended attributes, marks, whiteouts, hard links, and what work and index hold.
    pub fn dump(&self) -> String {
        dump::dump(&self.tree(), false)
    }

    /// As [`dump`](Self::dump), with inode numbers and times: equal only if nothing has been done.
    pub fn dump_exact(&self) -> String {
        dump::dump(&self.tree(), true)
    }

    /// Puts a whiteout in the form `.wh.NAME` beside `name`, as other tools write it.
    pub fn sibling_whiteout(&self, dir: Id, name: Name<'_>) -> Result<()> {
        let mut tree = self.tree();
        tree.dir_mut(dir.0)?.siblings.insert(name.as_bytes().to_vec());
        Ok(())
    }

    /// Sets marks that no [`Mark`] writes: metacopy, an unknown one, a redirect in a lower layer.
    pub fn put_marks(&self, id: Id, marks: Marks) -> Result<()> {
        self.tree().live_mut(id.0)?.marks = marks;
        Ok(())
    }

    /// Puts an object at a name and returns it without a reference: for building trees.
    pub fn put(&self, dir: Id, name: Name<'_>, new: &New<'_>) -> Result<Id> {
        let entry = self.create(dir, name, new)?;
        self.forget(entry.id);
        Ok(entry.id)
    }

    /// Puts a regular file with this content at a name, for building trees.
    pub fn put_file(&self, dir: Id, name: Name<'_>, content: &[u8], new: &New<'_>) -> Result<Id> {
        if new.what != What::File {
            return Err(Errno::EINVAL.into());
        }
        let id = self.put(dir, name, new)?;
        if let Body::File(bytes) = &mut self.tree().live_mut(id.0)?.body {
            content.clone_into(bytes);
        }
        Ok(id)
    }
}

impl Layer for MemLayer {
    fn root(&self) -> Id {
        Id(self.tree().root)
    }

    fn root_entry(&self) -> Result<(Attr, Marks)> {
        let tree = self.tree();
        Ok((tree.attr(tree.root)?, tree.live(tree.root)?.decoded()))
    }

    fn lookup(&self, dir: Id, name: Name<'_>) -> Result<Lookup> {
        let mut tree = self.tree();
        let at = tree.dir(dir.0)?;
        let sibling = at.siblings.contains(name.as_bytes());
        let Some(&ino) = at.entries.get(name.as_bytes()) else {
            return Ok(if sibling {
                Lookup::Whiteout(WhiteoutForm::Sibling)
            } else {
                Lookup::Absent
            });
        };
        if matches!(tree.live(ino)?.body, Body::Whiteout) {
            return Ok(Lookup::Whiteout(WhiteoutForm::Entry));
        }
        let mut entry = tree.entry(ino)?;
        entry.marks.opaque |= sibling;
        Ok(Lookup::Found(entry))
    }

    fn forget(&self, id: Id) {
        self.tree().forget(id.0);
    }

    fn readdir(&self, dir: Id, each: &mut dyn FnMut(DirItem<'_>) -> Result<()>) -> Result<()> {
        let items = {
            let tree = self.tree();
            let at = tree.dir(dir.0)?;
            let mut items = Vec::with_capacity(at.entries.len() + at.siblings.len());
            for (name, &ino) in &at.entries {
                match tree.live(ino)?.kind() {
                    Some(kind) => items.push((name.clone(), Some(kind), ino)),
                    None => items.push((name.clone(), None, 0)),
                }
            }
            items.extend(at.siblings.iter().map(|name| (name.clone(), None, 0)));
            items
        };
        for (name, kind, ino) in items {
            each(DirItem { name: Name::new(&name)?, kind, ino })?;
        }
        Ok(())
    }

    fn attr(&self, id: Id) -> Result<Attr> {
        self.tree().attr(id.0)
    }

    fn marks(&self, id: Id) -> Result<Marks> {
        let tree = self.tree();
        let mut marks = tree.live(id.0)?.decoded();
        marks.opaque |= tree.beside_own_whiteout(id.0);
        Ok(marks)
    }

    fn readlink(&self, id: Id) -> Result<Vec<u8>> {
        match &self.tree().live(id.0)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    fn getxattr(&self, id: Id, name: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.tree().live(id.0)?.xattrs.get(name).cloned())
    }

    fn listxattr(&self, id: Id) -> Result<Vec<Vec<u8>>> {
        Ok(self.tree().live(id.0)?.xattrs.keys().cloned().collect())
    }

    fn open(&self, id: Id) -> Result<Arc<dyn Data>> {
        Ok(Arc::new(MemData::open(&self.tree, id.0, false)?))
    }

    fn fs(&self) -> u64 {
        self.fs
    }

    fn handle(&self, id: Id) -> Result<Option<Vec<u8>>> {
        let ino = self.tree().live(id.0)?.ino;
        // version, magic, length, flags, type: the head of struct ovl_fb.
        let mut bytes = vec![0, 0xfb, 29, 0, 0x81];
        bytes.extend_from_slice(&self.fs.to_le_bytes());
        bytes.extend_from_slice(&self.fs.to_be_bytes());
        bytes.extend_from_slice(&ino.to_le_bytes());
        Ok(Some(bytes))
    }

    fn ino_of(&self, _handle: &[u8]) -> Result<Option<u64>> {
        Ok(None)
    }

    fn statfs(&self) -> Result<StatFs> {
        let files = self.tree().nodes.len() as u64;
        Ok(StatFs {
            blocks: 1 << 20,
            bfree: 1 << 19,
            bavail: 1 << 19,
            files: files + 1000,
            ffree: 1000,
            bsize: 4096,
            frsize: 4096,
            namelen: 255,
        })
    }
}
