//! The driver on the crate fuser: each operation decoded, handled, answered.
//!
//! fuser's replies make the inode number that `stat` shows the node id on the wire, so a node id
//! from the kernel is looked up as an inode number, except 1, which is always the root.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::convert::{caller, dir_attr, errno, file_attr, file_type, set_time};
use super::reply::{GENERATION, Reply, TTL, answer, answer_bytes};
use crate::attr::SetAttr;
use crate::errno::{Errno, Result};
use crate::fuse::guard::{Op, silent};
use crate::fuse::handlers;
use crate::fuse::lane::Lane;
use crate::union::{Handle, NodeId, Union};

/// Serves one union.
#[derive(Clone, Debug)]
pub(super) struct Driver {
    union: Arc<Union>,
    lane: Arc<Lane>,
}

impl Driver {
    /// A driver for `union` with so many threads.
    pub(super) fn new(union: Arc<Union>, threads: usize) -> Self {
        Self { union, lane: Lane::new(threads) }
    }

    /// Answers an operation that may take long: one that may copy a file up, or sync it.
    fn long<T, R: Reply<T> + Send + 'static>(
        &self,
        name: &'static str,
        (ino, entry): (INodeNo, &[u8]),
        reply: R,
        handler: impl FnOnce(&Self, &[u8]) -> Result<T> + Send + 'static,
    ) {
        let (driver, entry) = (self.clone(), entry.to_vec());
        self.lane.run(move || {
            let op = Op { name, node: ino.0, entry: &entry };
            answer(op, reply, |_| handler(&driver, &entry));
        });
    }

    /// The node behind a node id from the wire.
    fn node(&self, id: INodeNo) -> Result<NodeId> {
        if id == INodeNo::ROOT {
            return Ok(self.union.root());
        }
        self.union.by_ino(id.0).ok_or(Errno::ESTALE.into())
    }
}

/// For operations on a node rather than on a name.
const NO_NAME: &[u8] = b"";

/// An operation on a node.
fn on(name: &'static str, node: INodeNo) -> Op<'static> {
    Op { name, node: node.0, entry: b"" }
}

/// An operation on a name.
fn at<'a>(name: &'static str, node: INodeNo, entry: &'a OsStr) -> Op<'a> {
    Op { name, node: node.0, entry: entry.as_bytes() }
}

impl Filesystem for Driver {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        super::negotiate(config, self.union.has_acls());
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer(at("lookup", parent, name), reply, |_| {
            handlers::lookup(&self.union, self.node(parent)?, name.as_bytes())
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, nlookup: u64) {
        silent(on("forget", ino), || {
            if ino != INodeNo::ROOT {
                self.union.forget(self.node(ino)?, nlookup);
            }
            Ok(())
        });
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer(on("getattr", ino), reply, |_| self.union.getattr(self.node(ino)?));
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let perm = mode.map(|mode| handlers::bits(mode, 0o7777));
        let (atime, mtime) = (atime.map(set_time), mtime.map(set_time));
        let mut set = SetAttr { perm, uid, gid, size, atime, mtime, kill_set_id: false };
        // The kernel asks for this by a flag that fuser does not pass. What is left of a request
        // that has nothing else is empty. The superuser is taken to have CAP_FSETID.
        let nothing = set == SetAttr::default();
        set.kill_set_id = request.uid() != 0 && (nothing || (size.is_some() && mode.is_none()));
        self.long("setattr", (ino, NO_NAME), reply, move |this, _| {
            this.union.setattr(this.node(ino)?, &set)
        });
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        answer(on("readlink", ino), reply, |_| self.union.readlink(self.node(ino)?));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        answer(at("mknod", parent, name), reply, |_| {
            let (mode, rdev, name) = ((mode, umask), u64::from(rdev), name.as_bytes());
            let dir = self.node(parent)?;
            handlers::mknod(&self.union, dir, name, mode, rdev, &caller(request))
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        answer(at("mkdir", parent, name), reply, |_| {
            let (dir, name) = (self.node(parent)?, name.as_bytes());
            handlers::mkdir(&self.union, dir, name, (mode, umask), &caller(request))
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        // May wait for a copy-up of what it removes.
        self.long("unlink", (parent, name.as_bytes()), reply, move |this, name| {
            handlers::unlink(&this.union, this.node(parent)?, name)
        });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        // May wait for a copy-up of what it removes.
        self.long("rmdir", (parent, name.as_bytes()), reply, move |this, name| {
            handlers::rmdir(&this.union, this.node(parent)?, name)
        });
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        answer(at("symlink", parent, name), reply, |_| {
            let target = target.as_os_str().as_bytes();
            let (dir, name) = (self.node(parent)?, name.as_bytes());
            handlers::symlink(&self.union, dir, name, target, &caller(request))
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (newname, caller) = (newname.as_bytes().to_vec(), caller(request));
        self.long("rename", (parent, name.as_bytes()), reply, move |this, name| {
            let (from, to) = (this.node(parent)?, this.node(newparent)?);
            handlers::rename(&this.union, (from, name), (to, &newname), flags.bits(), &caller)
        });
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        self.long("link", (newparent, newname.as_bytes()), reply, move |this, name| {
            let (node, dir) = (this.node(ino)?, this.node(newparent)?);
            handlers::link(&this.union, node, dir, name)
        });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        // As for setattr.
        let kill_set_id = request.uid() != 0;
        self.long("open", (ino, NO_NAME), reply, move |this, _| {
            this.union.open(this.node(ino)?, flags.0, kill_set_id)
        });
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer_bytes(on("read", ino), reply, size, |buf| {
            self.union.read(self.node(ino)?, Handle(fh.0), buf, offset)
        });
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer(on("write", ino), reply, |_| {
            let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
            let n = self.union.write(self.node(ino)?, Handle(fh.0), data, offset, kill)?;
            Ok(u64::try_from(n).unwrap_or(u64::MAX))
        });
    }

    fn flush(&self, _: &Request, ino: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        answer(on("flush", ino), reply, |_| Ok(()));
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        answer(on("release", ino), reply, |_| self.union.release(self.node(ino)?, Handle(fh.0)));
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.long("fsync", (ino, NO_NAME), reply, move |this, _| {
            this.union.fsync(this.node(ino)?, datasync)
        });
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // The kernel asks once, and from then on opens directories by itself and keeps listings.
        reply.error(errno(Errno::ENOSYS));
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        answer(on("readdir", ino), reply, |reply| {
            handlers::readdir(&self.union, self.node(ino)?, offset, &mut |e| {
                let name = OsStr::from_bytes(e.name);
                !reply.add(INodeNo(e.ino), e.cookie, file_type(e.kind), name)
            })
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        answer(on("readdirplus", ino), reply, |reply| {
            handlers::readdirplus(&self.union, self.node(ino)?, offset, &mut |e, found| {
                let attr =
                    found.map_or_else(|| dir_attr(e.ino, e.kind), |found| file_attr(&found.attr));
                let name = OsStr::from_bytes(e.name);
                !reply.add(attr.ino, e.cookie, name, &TTL, &attr, GENERATION)
            })
        });
    }

    fn fsyncdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        self.long("fsyncdir", (ino, NO_NAME), reply, move |this, _| {
            this.union.fsync(this.node(ino)?, datasync)
        });
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        answer(on("statfs", ino), reply, |_| self.union.statfs());
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let value = value.to_vec();
        self.long("setxattr", (ino, name.as_bytes()), reply, move |this, name| {
            this.union.setxattr(this.node(ino)?, name, &value, flags)
        });
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        answer(at("getxattr", ino, name), reply, |_| {
            handlers::getxattr(&self.union, self.node(ino)?, name.as_bytes(), size)
        });
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        answer(on("listxattr", ino), reply, |_| {
            handlers::listxattr(&self.union, self.node(ino)?, size)
        });
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.long("removexattr", (ino, name.as_bytes()), reply, move |this, name| {
            this.union.removexattr(this.node(ino)?, name)
        });
    }

    fn access(&self, request: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        answer(on("access", ino), reply, |_| {
            let mask = u32::try_from(mask.bits()).unwrap_or(0);
            self.union.access(self.node(ino)?, mask, &caller(request))
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        answer(at("create", parent, name), reply, |_| {
            let (dir, name) = (self.node(parent)?, name.as_bytes());
            handlers::create(&self.union, dir, name, (mode, umask), flags, &caller(request))
        });
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(errno(Errno::ENOTTY));
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let thread = request.pid();
        self.long("fallocate", (ino, NO_NAME), reply, move |this, _| {
            handlers::before_change(&this.union, this.node(ino)?, thread)?;
            this.union.fallocate(this.node(ino)?, Handle(fh.0), mode, offset, length)
        });
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        answer(on("lseek", ino), reply, |_| {
            handlers::lseek(&self.union, self.node(ino)?, Handle(fh.0), offset, whence)
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let thread = request.pid();
        self.long("copy_file_range", (ino_out, NO_NAME), reply, move |this, _| {
            handlers::before_change(&this.union, this.node(ino_out)?, thread)?;
            let from = (this.node(ino_in)?, Handle(fh_in.0), offset_in);
            let to = (this.node(ino_out)?, Handle(fh_out.0), offset_out);
            handlers::copy_file_range(&this.union, from, to, len)
        });
    }
}
