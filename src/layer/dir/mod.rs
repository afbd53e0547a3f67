//! A directory in overlay format, as a layer.
//!
//! ```text
//!     DirLayer, DirUpper      what the union sees
//!       reader                lookups, listings, every encoding of a whiteout
//!       upper, stage, work    changes, made in the work directory and then published
//!       mark, perm            marks on objects, and permission bits that would keep us out
//!         sidecar, record     marks of objects that cannot carry them
//!       whiteout, probe       the encoding that is written, and what the filesystem can do
//!       leave                 renames that leave a device 0:0 behind
//!       tree                  ids to objects: never outside of the layer
//!         slots               an id is a parent and a name
//!         descriptors         a few open directories
//!       data                  an open file
//! ```

mod data;
mod descriptors;
mod leave;
mod mark;
mod perm;
pub mod probe;
mod reader;
mod record;
mod sidecar;
mod slots;
mod stage;
mod tree;
mod upper;
mod whiteout;
mod work;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};

use self::sidecar::Sidecar;
use self::tree::{ROOT, Tree};
pub use self::upper::{DirUpper, UpperOptions};
pub use self::work::{names_in, refuse_unclean, remove_tree};
use super::{Data, DirItem, Id, Layer, Lookup, Marks};
use crate::attr::{Attr, StatFs};
use crate::errno::{Context, Result};
use crate::name::Name;
use crate::sys::{clone, xattr};

/// A read-only layer on disk.
#[derive(Debug)]
pub struct DirLayer {
    tree: Tree,
    private: bool,
}

impl DirLayer {
    /// Opens the directory at `path`: as a private read-only clone of its mount where the kernel
    /// allows, which nothing of ours can write through.
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        let what = || format!("lower layer {}", path.display());
        // Told apart first: the errors of cloning are about mounts, not about the path.
        let plain = open_dir(path).context(what)?;
        let (root, private) = match clone::read_only(path) {
            Ok(clone) => (clone, true),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "no private clone of the mount");
                (plain, false)
            }
        };
        let layer = Self { tree: Tree::new(root, false).context(what)?, private };
        layer.tree.root_entry().context(what)?;
        Ok(Arc::new(layer))
    }

    /// Opens an upper directory that nobody has mounted, to read it: with what lies in its work
    /// directory `work`.
    pub fn open_upper(upper: &Path, work: &Path) -> Result<Arc<Self>> {
        let mut layer = Self::open(upper)?;
        let what = || format!("workdir {}", work.display());
        let sidecar = Sidecar::open_read_only(&open_dir(work).context(what)?).context(what)?;
        if let (Some(sidecar), Some(layer)) = (sidecar, Arc::get_mut(&mut layer)) {
            if sidecar.was_copied().context(what)? && sidecar.has_all() {
                return Err(sidecar::copied(upper));
            }
            layer.tree.sidecar.get_or_init(|| sidecar);
        }
        Ok(layer)
    }

    fn find(&self, dir: Id, name: Name<'_>) -> Result<Lookup> {
        self.tree.lookup(dir, name)
    }

    /// Whether the layer is held through a read-only clone of its mount.
    pub fn is_private_clone(&self) -> bool {
        self.private
    }
}

/// A descriptor (`O_PATH`) of the directory at `path`.
fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// The reading half, which both kinds of layers have from their tree.
macro_rules! layer_by_tree {
    ($type:ty, $lookup:ident) => {
        impl Layer for $type {
            fn root(&self) -> Id {
                ROOT
            }

            fn root_entry(&self) -> Result<(Attr, Marks)> {
                self.tree.root_entry()
            }

            fn lookup(&self, dir: Id, name: Name<'_>) -> Result<Lookup> {
                self.$lookup(dir, name)
            }

            fn forget(&self, id: Id) {
                self.tree.forget(id);
            }

            fn readdir(
                &self,
                dir: Id,
                each: &mut dyn FnMut(DirItem<'_>) -> Result<()>,
            ) -> Result<()> {
                self.tree.readdir(dir, each)
            }

            fn attr(&self, id: Id) -> Result<Attr> {
                self.tree.attr(id)
            }

            fn marks(&self, id: Id) -> Result<Marks> {
                self.tree.marks(id)
            }

            fn readlink(&self, id: Id) -> Result<Vec<u8>> {
                self.tree.on(id, |object, _| object.readlink())
            }

            fn getxattr(&self, id: Id, name: &[u8]) -> Result<Option<Vec<u8>>> {
                self.tree.getxattr(id, name)
            }

            fn listxattr(&self, id: Id) -> Result<Vec<Vec<u8>>> {
                self.tree.on(id, |object, _| xattr::list(object))
            }

            fn open(&self, id: Id) -> Result<Arc<dyn Data>> {
                Ok(Arc::new(self.tree.open(id, false)?))
            }

            fn fs(&self) -> u64 {
                self.tree.fs
            }

            fn handle(&self, id: Id) -> Result<Option<Vec<u8>>> {
                self.tree.handle(id)
            }

            fn ino_of(&self, handle: &[u8]) -> Result<Option<u64>> {
                self.tree.ino_of(handle)
            }

            fn statfs(&self) -> Result<StatFs> {
                self.tree.statfs()
            }
        }
    };
}

layer_by_tree!(DirLayer, find);
layer_by_tree!(DirUpper, find_settled);

#[cfg(test)]
mod tests;
