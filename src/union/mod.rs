//! The layers, seen as one. Knows no FUSE and no paths: an entry is (parent node, name).

use std::sync::Arc;

use crate::attr::{Attr, Kind, SetAttr, StatFs};
use crate::errno::{Errno, Result};
use crate::layer::{Layer, Seek, Upper};
use crate::name::Name;

/// A node of the union, as the driver names it: valid from the lookup that returned it until it is
/// forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// What is unioned.
#[derive(Debug)]
pub struct Stack {
    /// The writable layer; without it the union is read-only (`EROFS`).
    pub upper: Option<Arc<dyn Upper>>,
    /// The read-only layers, topmost first. At least one, unless there is an upper.
    pub lowers: Vec<Arc<dyn Layer>>,
}

/// When copied-up data must be durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Data are synced before a copy-up becomes visible; fsync means fsync.
    #[default]
    Strict,
    /// Nothing is ever synced; after a crash the upper layer must be thrown away.
    Volatile,
}

/// Every switch of a union, with its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// When copied-up data must be durable.
    pub durability: Durability,
}

/// Who asks: for the owner of new objects and for set-id rules. Permission to do it has been
/// checked before (the kernel does, with `default_permissions`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Filesystem user id.
    pub uid: u32,
    /// Filesystem group id.
    pub gid: u32,
}

/// A node as a lookup or a creation returns it. Its lookup count has been raised by one.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The node.
    pub node: NodeId,
    /// Its attributes; `ino` is the number that the mount shows.
    pub attr: Attr,
}

/// An open file: which access it was opened with. It can be made anew from (node, flags).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(pub u64);

/// How rename treats the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RenameFlag {
    /// Replace it.
    #[default]
    None,
    /// `RENAME_NOREPLACE`
    NoReplace,
    /// `RENAME_EXCHANGE`
    Exchange,
}

/// One entry of a merged listing.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// The entry's name; `.` and `..` are passed as such.
    pub name: &'a [u8],
    /// Its type.
    pub kind: Kind,
    /// The inode number that `stat` shows for it.
    pub ino: u64,
    /// Pass this as `offset` to go on after this entry. Positive as an `i64`.
    pub cookie: u64,
}

/// The union of a stack of layers.
///
/// All methods may be called by several threads at once. A method given a node that the caller has
/// already forgotten returns `ESTALE`.
#[derive(Debug)]
pub struct Union {}

#[allow(unused_variables, reason = "signatures first; the bodies follow")]
impl Union {
    /// Builds the union. Sweeps nothing: the upper layer does that when it is opened.
    pub fn new(stack: Stack, options: Options) -> Result<Self> {
        Err(Errno::ENOSYS.into())
    }
    /// The root directory's node. Never forgotten.
    pub fn root(&self) -> NodeId {
        NodeId(0)
    }
    /// The node that shows this inode number, if it is live. For drivers whose node ids are inode numbers.
    pub fn by_ino(&self, ino: u64) -> Option<NodeId> {
        None
    }
    /// Number of live nodes, the root included.
    pub fn node_count(&self) -> usize {
        0
    }
    /// Looks a name up; raises the node's lookup count. `None` if there is no such name.
    pub fn lookup(&self, parent: NodeId, name: Name<'_>) -> Result<Option<Found>> {
        Err(Errno::ENOSYS.into())
    }
    /// Lowers the lookup count by `n`; at zero the node is gone.
    pub fn forget(&self, node: NodeId, n: u64) {}
    /// The attributes.
    pub fn getattr(&self, node: NodeId) -> Result<Attr> {
        Err(Errno::ENOSYS.into())
    }
    /// Changes attributes and returns the new ones. A change of owner or size clears set-id bits and
    /// capabilities as Linux does.
    pub fn setattr(&self, node: NodeId, set: &SetAttr, caller: &Caller) -> Result<Attr> {
        Err(Errno::ENOSYS.into())
    }
    /// The target of a symbolic link.
    pub fn readlink(&self, node: NodeId) -> Result<Vec<u8>> {
        Err(Errno::ENOSYS.into())
    }
    /// Makes a file, FIFO, socket or device. `perm` before the umask; `umask` applies unless the
    /// parent has a default ACL.
    pub fn mknod(
        &self,
        parent: NodeId,
        name: Name<'_>,
        node: (Kind, u64),
        mode: Mode,
        caller: &Caller,
    ) -> Result<Found> {
        Err(Errno::ENOSYS.into())
    }
    /// Makes a directory.
    pub fn mkdir(
        &self,
        parent: NodeId,
        name: Name<'_>,
        mode: Mode,
        caller: &Caller,
    ) -> Result<Found> {
        Err(Errno::ENOSYS.into())
    }
    /// Makes a symbolic link.
    pub fn symlink(
        &self,
        parent: NodeId,
        name: Name<'_>,
        target: &[u8],
        caller: &Caller,
    ) -> Result<Found> {
        Err(Errno::ENOSYS.into())
    }
    /// Gives a non-directory another name.
    pub fn link(&self, node: NodeId, parent: NodeId, name: Name<'_>) -> Result<Found> {
        Err(Errno::ENOSYS.into())
    }
    /// Removes a name of a non-directory.
    pub fn unlink(&self, parent: NodeId, name: Name<'_>) -> Result<()> {
        Err(Errno::ENOSYS.into())
    }
    /// Removes an empty directory.
    pub fn rmdir(&self, parent: NodeId, name: Name<'_>) -> Result<()> {
        Err(Errno::ENOSYS.into())
    }
    /// Renames.
    pub fn rename(
        &self,
        from: (NodeId, Name<'_>),
        to: (NodeId, Name<'_>),
        flag: RenameFlag,
    ) -> Result<()> {
        Err(Errno::ENOSYS.into())
    }
    /// Makes and opens a regular file; `EEXIST` if the name exists. `flags` as in open(2).
    pub fn create(
        &self,
        parent: NodeId,
        name: Name<'_>,
        mode: Mode,
        flags: i32,
        caller: &Caller,
    ) -> Result<(Found, Handle)> {
        Err(Errno::ENOSYS.into())
    }
    /// Opens a regular file; opening for writing copies it up, `O_TRUNC` without its data.
    pub fn open(&self, node: NodeId, flags: i32, caller: &Caller) -> Result<Handle> {
        Err(Errno::ENOSYS.into())
    }
    /// Reads; short only at the end of the file.
    pub fn read(&self, node: NodeId, handle: Handle, buf: &mut [u8], offset: u64) -> Result<usize> {
        Err(Errno::ENOSYS.into())
    }
    /// Writes; with `kill_set_id` clears setuid and setgid as a write without CAP_FSETID does.
    pub fn write(
        &self,
        node: NodeId,
        handle: Handle,
        data: &[u8],
        offset: u64,
        kill_set_id: bool,
    ) -> Result<usize> {
        Err(Errno::ENOSYS.into())
    }
    /// Ends one open.
    pub fn release(&self, node: NodeId, handle: Handle) -> Result<()> {
        Err(Errno::ENOSYS.into())
    }
    /// Makes a file or directory durable.
    pub fn fsync(&self, node: NodeId, data_only: bool) -> Result<()> {
        Err(Errno::ENOSYS.into())
    }
    /// fallocate(2) on an open file.
    pub fn fallocate(
        &self,
        node: NodeId,
        handle: Handle,
        mode: i32,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        Err(Errno::ENOSYS.into())
    }
    /// `SEEK_DATA` and `SEEK_HOLE`.
    pub fn lseek(&self, node: NodeId, handle: Handle, offset: u64, what: Seek) -> Result<u64> {
        Err(Errno::ENOSYS.into())
    }
    /// copy_file_range(2) between two open files; shares blocks where the filesystem can.
    pub fn copy_file_range(
        &self,
        from: (NodeId, Handle, u64),
        to: (NodeId, Handle, u64),
        len: u64,
    ) -> Result<u64> {
        Err(Errno::ENOSYS.into())
    }
    /// Lists `dir` from the entry after cookie `offset` (0: from the start) until `each` returns
    /// false. Needs no open: cookies come from names.
    pub fn readdir(
        &self,
        dir: NodeId,
        offset: u64,
        each: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<()> {
        Err(Errno::ENOSYS.into())
    }
    /// As [`readdir`](Self::readdir), with a lookup of each entry (none for `.` and `..`, whose
    /// `Found` is `None`). An entry for which `each` returns false has not been looked up.
    pub fn readdirplus(
        &self,
        dir: NodeId,
        offset: u64,
        each: &mut dyn FnMut(&DirEntry<'_>, Option<&Found>) -> bool,
    ) -> Result<()> {
        Err(Errno::ENOSYS.into())
    }
    /// An extended attribute as a user sees it; `ENODATA` if there is none.
    pub fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        Err(Errno::ENOSYS.into())
    }
    /// The names of the extended attributes that a user sees.
    pub fn listxattr(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        Err(Errno::ENOSYS.into())
    }
    /// Sets an extended attribute; `flags` as in setxattr(2).
    pub fn setxattr(&self, node: NodeId, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        Err(Errno::ENOSYS.into())
    }
    /// Removes an extended attribute; `ENODATA` without a copy-up if there is none.
    pub fn removexattr(&self, node: NodeId, name: &[u8]) -> Result<()> {
        Err(Errno::ENOSYS.into())
    }
    /// Whether `caller` may access the node (`mask` of R_OK, W_OK, X_OK) by its mode bits; the
    /// kernel asks only when it was told not to check by itself.
    pub fn access(&self, node: NodeId, mask: u32, caller: &Caller) -> Result<()> {
        Err(Errno::ENOSYS.into())
    }
    /// The upper's figures, the topmost layer's when read-only; names to 255 bytes.
    pub fn statfs(&self) -> Result<StatFs> {
        Err(Errno::ENOSYS.into())
    }
    /// Makes the upper durable (unless volatile), at unmount.
    pub fn sync(&self) -> Result<()> {
        Err(Errno::ENOSYS.into())
    }
}

/// The mode of a new object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Permission bits as the program gave them, `0o7777`.
    pub perm: u16,
    /// The program's umask.
    pub umask: u16,
}
