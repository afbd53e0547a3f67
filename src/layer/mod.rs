//! One directory tree, seen alone: the seam of the project.
//!
//! The union knows layers only through two traits. [`Layer`] reads a tree, [`Upper`] also changes
//! one. Both speak opaque ids: never a path, never a descriptor kept per node.
//!
//! ```text
//!     union --> trait Layer --+-- DirLayer     a directory in overlay format
//!               trait Upper   +-- MemLayer     a tree in memory: tests, fuzzing, documentation
//!                             +-- FaultLayer   fails or stops at the n-th change (testkit)
//! ```
//!
//! # Ids
//! An [`Id`] names an object inside one layer. [`Layer::lookup`] and the calls that make objects
//! return an id that carries one reference; [`Layer::forget`] gives one reference back. An id stays
//! valid while it is referenced, through renames of the object and of its parents; after the
//! object's last name is gone it stays valid if it was [pinned](Upper::pin) before.
//! [`Layer::root`] needs no reference. [`Held`] does the counting.
//!
//! # Marks
//! How a layer writes "this name is deleted" or "this directory hides what is below" (character
//! devices 0:0, `trusted.overlay.*`, `.wh.` names, ...) is the layer's business: lookups and
//! listings come back decoded, as [`Lookup`], [`DirItem`] and [`Marks`].
//!
//! # Changes
//! Every method of [`Upper`] that changes the tree is one step that a crash leaves done or undone,
//! except on what is staged: that lies in the work directory where nobody looks. An operation on
//! the union is built from such steps so that after each of them the merged tree is the old one or
//! the new one. [`FaultLayer`](fault::FaultLayer) counts exactly these steps.

pub mod dir;
#[cfg(any(test, feature = "testkit"))]
pub mod fault;
pub mod marks;
pub mod mem;
pub mod override_stat;
pub(crate) mod pass_on;
pub mod walk;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::attr::{Attr, Kind, SetAttr, StatFs};
use crate::errno::Result;
use crate::name::{Name, NameBuf};

/// Names an object inside one layer; means nothing outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub u64);

/// What a layer holds at a name.
#[derive(Debug)]
pub enum Lookup {
    /// Nothing: the layers below decide.
    Absent,
    /// A whiteout: the name does not exist, whatever lies below.
    Whiteout(WhiteoutForm),
    /// An object. The id carries a reference that the caller must forget.
    Found(Entry),
}

/// Whether a whiteout occupies the very name it hides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhiteoutForm {
    /// An entry of that name (character device 0:0, or an empty file with an xattr): whatever is
    /// put at the name has to replace it.
    Entry,
    /// An entry `.wh.NAME` beside the name: the name itself is free.
    Sibling,
}

/// An object as a lookup finds it.
#[derive(Debug)]
pub struct Entry {
    /// The object; carries one reference.
    pub id: Id,
    /// Its attributes; `ino` is the layer's own number.
    pub attr: Attr,
    /// What its overlay marks say.
    pub marks: Marks,
}

/// The marks on one object, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Nothing of the layers below shows: an opaque directory, or any object beside its own
    /// `.wh.` whiteout.
    pub opaque: bool,
    /// Where the lower part of a renamed directory (or the data of a metacopy file) lies: absolute
    /// from the root of the layers below, or a single name beside this one.
    pub redirect: Option<Box<[u8]>>,
    /// Only metadata were copied up; the data are in a lower layer.
    pub metacopy: bool,
    /// A directory that holds copied-up children, whose `d_ino` is not their own.
    pub impure: bool,
    /// The inode number this object shows in the mount (ours, `overlay.plyfs.ino`).
    pub ino: Option<u64>,
    /// The number of names in the mount, for a copied-up hard link.
    pub nlink: Option<Nlink>,
    /// The number of names of the lower file that a copied-up hard link is a copy of (ours,
    /// `overlay.plyfs.nlink`): what [`NlinkBase::Lower`] is about.
    pub lower_nlink: Option<u32>,
    /// `overlay.origin`, read only where `nlink` is there: it names the entry in the index.
    pub origin: Option<Box<[u8]>>,
    /// A default ACL is set on this directory: what is created in it inherits from that.
    pub default_acl: bool,
    /// A mark that this version does not follow (data-only layers, fs-verity of metacopy, ...):
    /// its name, for the refusal.
    pub unknown: Option<Box<str>>,
}

/// The link count of a copied-up hard link, relative to a number that the next change moves along
/// with it (or leaves alone with it), so that a crash between the two leaves it right. The same
/// trick and encoding (`U+1`, `L-2`) as `overlay.nlink` of the kernel's overlayfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nlink {
    /// What `delta` is added to.
    pub base: NlinkBase,
    /// Names in the mount minus the base.
    pub delta: i32,
}

/// What an [`Nlink`] is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NlinkBase {
    /// The number of names the inode has in the upper layer.
    Upper,
    /// The number of names the origin has in its lower layer.
    Lower,
}

/// A mark to write on an object of the upper layer; each encodes as one extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark<'a> {
    /// `overlay.opaque=y`
    Opaque,
    /// `overlay.redirect`
    Redirect(&'a [u8]),
    /// `overlay.impure=y`
    Impure,
    /// `overlay.plyfs.ino`: the inode number shown in the mount
    Ino(u64),
    /// `overlay.nlink`
    Nlink(Nlink),
    /// `overlay.plyfs.nlink`: how many names the lower file has that this is a copy of
    LowerNlink(u32),
    /// `overlay.origin`: the lower object this is a copy of, as [`Layer::handle`] gives it
    Origin(&'a [u8]),
    /// `overlay.metacopy`, empty: the file holds metadata only, its data are in the layers below
    Metacopy,
}

/// One name of a directory of one layer.
#[derive(Clone, Copy, Debug)]
pub struct DirItem<'a> {
    /// The name, with `.wh.` taken off where that made it a whiteout.
    pub name: Name<'a>,
    /// The object's type, or `None` for a whiteout.
    pub kind: Option<Kind>,
    /// The layer's own inode number (0 for a whiteout).
    pub ino: u64,
}

/// Reads one directory tree.
///
/// Implementations are used by several threads at once.
pub trait Layer: Send + Sync + fmt::Debug {
    /// The root directory. It needs no reference.
    fn root(&self) -> Id;

    /// The root's attributes and marks (an upper root may be opaque, or carry an inode number).
    fn root_entry(&self) -> Result<(Attr, Marks)>;

    /// What is at `name` in the directory `dir`.
    ///
    /// # Errors
    /// `ENOTDIR` if `dir` is none; what the filesystem below says. A name that does not exist is
    /// not an error.
    fn lookup(&self, dir: Id, name: Name<'_>) -> Result<Lookup>;

    /// Gives back one reference on `id`.
    fn forget(&self, id: Id);

    /// Calls `each` for every name in `dir` (without `.` and `..`), in the layer's own order, until
    /// it returns an error. A name may come twice if the layer holds both the object and its
    /// whiteout; in that case the object counts and is opaque. Holds no lock while it calls.
    fn readdir(&self, dir: Id, each: &mut dyn FnMut(DirItem<'_>) -> Result<()>) -> Result<()>;

    /// The object's attributes.
    fn attr(&self, id: Id) -> Result<Attr>;

    /// The object's marks.
    fn marks(&self, id: Id) -> Result<Marks>;

    /// The target of a symbolic link.
    fn readlink(&self, id: Id) -> Result<Vec<u8>>;

    /// The value of an extended attribute as it is stored, `None` if there is none of that name
    /// (or the filesystem below has none at all).
    fn getxattr(&self, id: Id, name: &[u8]) -> Result<Option<Vec<u8>>>;

    /// The names of all extended attributes as they are stored, marks included.
    fn listxattr(&self, id: Id) -> Result<Vec<Vec<u8>>>;

    /// Opens a regular file for reading. Never touches a device, FIFO or socket: `EINVAL`.
    fn open(&self, id: Id) -> Result<Arc<dyn Data>>;

    /// The filesystem (`st_dev`) the layer lies on: inode numbers are unique within one.
    fn fs(&self) -> u64;

    /// A name for the object that survives remounts, in the binary form that the kernel's overlayfs
    /// keeps in `overlay.origin` (struct `ovl_fb`); `None` where the filesystem gives none.
    fn handle(&self, id: Id) -> Result<Option<Vec<u8>>>;

    /// The layer's own inode number of the object that a [handle](Self::handle) names; `None` if it
    /// is not on the layer's filesystem, or cannot be found out.
    fn ino_of(&self, handle: &[u8]) -> Result<Option<u64>>;

    /// What statfs(2) says of the layer.
    fn statfs(&self) -> Result<StatFs>;
}

/// A new object.
#[derive(Clone, Debug)]
pub struct New<'a> {
    /// What it is.
    pub what: What<'a>,
    /// Permission bits, exactly as they shall be: no umask applies.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes as they are to be stored: (name, value).
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
    /// Marks.
    pub marks: &'a [Mark<'a>],
}

/// The type of a new object, with what only that type has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// An empty regular file.
    File,
    /// An empty directory.
    Dir,
    /// A symbolic link to this target.
    Symlink(&'a [u8]),
    /// A FIFO, socket or device with its device number. A character device 0:0 made here is a
    /// device that a user sees, not a whiteout: the layer stores it escaped.
    Node(Kind, u64),
}

/// An object in the work directory, not yet part of the tree, or (after an exchange) not any more.
#[derive(Debug)]
pub struct Staged {
    /// The object; carries one reference, which passes on when it is published.
    pub id: Id,
    /// Its name in the work directory; `None` once nothing lies there any more.
    pub temp: Option<NameBuf>,
}

/// How a publish treats what is at the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// `EEXIST` if anything is there, a whiteout entry included.
    NoReplace,
    /// Replaces a non-directory (or an empty directory by a directory).
    Replace,
    /// Changes places: what was there lies in the work directory afterwards.
    Exchange,
}

/// How a rename inside the upper layer treats what is at the target, and what it leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameHow {
    /// Replaces what is there; nothing stays at the old name.
    Replace,
    /// Replaces what is there and leaves a whiteout at the old name, in one step.
    Whiteout,
    /// Changes places. If a whiteout comes to the old name, it stays there only if that hides
    /// anything, or does no harm.
    Exchange,
    /// Replaces what is there, be it a whiteout, and leaves a device 0:0 of this owner at the old
    /// name, in one step: one that users see, as [`Upper::create`] makes it.
    Device {
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// Changes one directory tree, the upper layer.
///
/// `name` arguments are names as users see them; where the layer's encoding gives a name a meaning
/// of its own (`.wh.x`) the layer escapes it.
pub trait Upper: Layer {
    /// This layer as a plain one.
    fn as_layer(self: Arc<Self>) -> Arc<dyn Layer>;

    /// Makes a new object at a name where the upper layer holds nothing, in one step.
    ///
    /// # Errors
    /// `EEXIST` if anything is there, a whiteout entry included.
    fn create(&self, dir: Id, name: Name<'_>, new: &New<'_>) -> Result<Entry>;

    /// Makes a regular file as [`create`](Self::create) does, and opens it for reading and writing.
    fn create_open(&self, dir: Id, name: Name<'_>, new: &New<'_>)
    -> Result<(Entry, Arc<dyn Data>)>;

    /// Makes the entries of a directory durable.
    fn sync_dir(&self, id: Id) -> Result<()>;

    /// Makes those marks durable that the layer keeps apart from their objects. No change.
    fn sync_marks(&self) -> Result<()>;

    /// Makes a new object in the work directory.
    fn stage(&self, new: &New<'_>) -> Result<Staged>;

    /// Gives an existing object (not a directory) a name in the work directory.
    fn stage_link(&self, id: Id) -> Result<Staged>;

    /// Moves what is staged to its place, in one step. After [`How::Exchange`] `staged.temp` names
    /// what was there before; otherwise it is `None`. On an error nothing has changed. With
    /// `quiet` the directory's times stay as they were (a copy-up is no change that a user made).
    fn publish(
        &self,
        staged: &mut Staged,
        dir: Id,
        name: Name<'_>,
        how: How,
        quiet: bool,
    ) -> Result<()>;

    /// Removes from the work directory what is there under `staged.temp` (a directory with all it
    /// holds) and gives back the reference. Failing is logged, not reported: the next mount sweeps.
    fn discard(&self, staged: Staged);

    /// Removes what lies in the work directory under `temp` (a directory with all it holds): what
    /// an exchange brought there. Failing is logged, not reported.
    fn discard_temp(&self, temp: Name<'_>);

    /// Puts a whiteout at `name`, in one step; with `replace`, in the place of the non-directory or
    /// the empty directory that is there.
    fn whiteout(&self, dir: Id, name: Name<'_>, replace: bool) -> Result<()>;

    /// Removes the whiteout of `name`, in one step: the one beside the name if there is one, else
    /// the one that occupies it.
    fn clear_whiteout(&self, dir: Id, name: Name<'_>) -> Result<()>;

    /// Renames `moved`, which is at `from`, to `to`, in one step. With [`RenameHow::Exchange`],
    /// `other` is the object at `to` and is at `from` afterwards.
    ///
    /// # Errors
    /// `EINVAL` for [`RenameHow::Device`] where the filesystem below cannot leave anything behind.
    fn rename(
        &self,
        from: (Id, Name<'_>),
        moved: Id,
        to: (Id, Name<'_>),
        other: Option<Id>,
        how: RenameHow,
    ) -> Result<()>;

    /// Takes out of an opaque directory what makes it so without being seen in listings, if that is
    /// how it is opaque: then nothing but the mark on the directory itself. Changes nothing that is
    /// visible.
    fn clear_opaque_entry(&self, dir: Id) -> Result<()>;

    /// Gives `id` another name, in one step; `EEXIST` if anything is there.
    fn link(&self, id: Id, dir: Id, name: Name<'_>, quiet: bool) -> Result<()>;

    /// Removes a name of a non-directory (a whiteout entry included), in one step.
    fn unlink(&self, dir: Id, name: Name<'_>) -> Result<()>;

    /// Removes an empty directory, in one step.
    fn rmdir(&self, dir: Id, name: Name<'_>) -> Result<()>;

    /// Takes an entry out of the tree into the work directory, in one step.
    fn withdraw(&self, dir: Id, name: Name<'_>) -> Result<Staged>;

    /// Makes `id` reachable whatever becomes of its names, until it is forgotten. No change.
    fn pin(&self, id: Id) -> Result<()>;

    /// Says that `id`, which was [pinned](Self::pin), has a name yet: a layer whose pins are dear
    /// may reach it by that again. Its last name must not go unless it is pinned anew. No change.
    fn unpin(&self, id: Id);

    /// Says that `id` is (also) what `other` found; later calls may reach it there. No change.
    fn rebind(&self, id: Id, other: Id);

    /// Changes attributes; returns the new ones. Follows no link.
    fn setattr(&self, id: Id, set: &SetAttr) -> Result<Attr>;

    /// Sets an extended attribute as it is to be stored. `flags` as in setxattr(2).
    fn setxattr(&self, id: Id, name: &[u8], value: &[u8], flags: i32) -> Result<()>;

    /// Removes an extended attribute; `ENODATA` if there is none.
    fn removexattr(&self, id: Id, name: &[u8]) -> Result<()>;

    /// Writes a mark.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for [`Mark::Opaque`] on a directory with whiteouts that would not be whiteouts
    /// then.
    fn set_mark(&self, id: Id, mark: &Mark<'_>) -> Result<()>;

    /// Takes the metacopy and redirect marks off a file whose data have been filled in.
    fn clear_metacopy(&self, id: Id) -> Result<()>;

    /// Opens a regular file for reading and writing.
    fn open_write(&self, id: Id) -> Result<Arc<dyn Data>>;

    /// The directory of copied-up hard links, named by the hexadecimal form of their origin's
    /// handle; made if it is missing. Not part of the tree. It needs no reference.
    fn index(&self) -> Result<Id>;

    /// Makes what was written to the whole filesystem durable.
    fn sync(&self) -> Result<()>;
}

/// The content of an open regular file.
pub trait Data: Send + Sync + fmt::Debug {
    /// Reads at `offset`; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;

    /// Writes all of `buf` at `offset`, or returns how much was written before an error.
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize>;

    /// Sets the size.
    fn set_len(&self, size: u64) -> Result<()>;

    /// Makes the content durable, and with `data_only == false` the attributes too.
    fn sync(&self, data_only: bool) -> Result<()>;

    /// fallocate(2).
    fn allocate(&self, mode: i32, offset: u64, len: u64) -> Result<()>;

    /// The next data (or hole) at or after `offset`; `ENXIO` past the end.
    fn seek(&self, offset: u64, what: Seek) -> Result<u64>;

    /// The file's attributes.
    fn attr(&self) -> Result<Attr>;

    /// Copies up to `len` bytes from `source` at `source_offset` to `offset` here, sharing blocks
    /// where the filesystem can; returns how many, 0 at the end of the source.
    fn copy_from(
        &self,
        source: &dyn Data,
        source_offset: u64,
        offset: u64,
        len: u64,
    ) -> Result<u64>;

    /// Makes the whole content that of `source` by sharing its blocks (FICLONE).
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `EXDEV` or `EINVAL` where that is impossible; nothing has changed then.
    fn reflink_from(&self, source: &dyn Data) -> Result<()>;

    /// Removes an extended attribute as it is stored, if the file has it.
    ///
    /// # Errors
    /// `EBADF` for a file that was not opened for writing.
    fn removexattr(&self, name: &[u8]) -> Result<()>;

    /// The descriptor, where there is one.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
}

/// What [`Data::seek`] looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// `SEEK_DATA`
    Data,
    /// `SEEK_HOLE`
    Hole,
}

/// An [`Id`] together with its layer and one reference, given back on drop.
#[derive(Debug)]
pub struct Held {
    layer: Arc<dyn Layer>,
    id: Id,
    owned: bool,
}

impl Held {
    /// Takes over the reference that `id` carries.
    pub fn new(layer: Arc<dyn Layer>, id: Id) -> Self {
        Self { layer, id, owned: true }
    }

    /// Names an object whose reference somebody else holds, and holds for longer.
    pub fn borrowed(layer: Arc<dyn Layer>, id: Id) -> Self {
        Self { layer, id, owned: false }
    }

    /// The object.
    pub fn id(&self) -> Id {
        self.id
    }

    /// The layer it is in.
    pub fn layer(&self) -> &Arc<dyn Layer> {
        &self.layer
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.owned && self.id != self.layer.root() {
            self.layer.forget(self.id);
        }
    }
}
