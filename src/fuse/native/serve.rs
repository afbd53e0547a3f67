//! What is asked, answered by the handlers.

use std::os::fd::OwnedFd;

use super::reply::Reply;
use super::request::{Op, Request};
use super::{Service, send, wire};
use crate::errno::{Errno, Result};
use crate::fuse::Syncing;
use crate::fuse::guard::{self, guarded, silent};
use crate::fuse::handlers::{self, Answer};
use crate::union::{Caller, Found, Handle, NodeId, interrupt};

impl Service {
    /// Answers a request.
    pub(super) fn answer(
        &self,
        device: &OwnedFd,
        request: &Request<'_>,
        reply: &mut Reply,
    ) -> Result<()> {
        let op = named(request);
        reply.clear();
        match guarded(op, || self.serve(request, reply)) {
            Ok(()) => send(device, reply.finish(request.unique)),
            Err(errno) => send(device, reply.refuse(request.unique, errno)),
        }
    }

    /// Whether answering may take long here.
    pub(super) fn may_take_long(&self, op: &Op<'_>) -> bool {
        op.may_take_long() || self.settles(op)
    }

    /// Whether what the operation changes is made durable before it is answered. Writes are not
    /// among it: the kernel asks for a sync after each.
    fn settles(&self, op: &Op<'_>) -> bool {
        match op {
            Op::Symlink { .. }
            | Op::MkNod { .. }
            | Op::MkDir { .. }
            | Op::Create { .. }
            | Op::Link { .. }
            | Op::Unlink { .. }
            | Op::RmDir { .. }
            | Op::Rename { .. } => self.sync != Syncing::Asked,
            Op::Open { flags, .. } => self.sync == Syncing::All && flags & libc::O_TRUNC != 0,
            Op::SetAttr(_)
            | Op::SetXattr { .. }
            | Op::RemoveXattr { .. }
            | Op::FAllocate { .. }
            | Op::CopyFileRange { .. } => self.sync == Syncing::All,
            _ => false,
        }
    }

    /// Makes durable what an operation has changed, if it [`Self::settles`]; if that fails, gives
    /// back with `undo` what the answer would have told the kernel of.
    fn settle(&self, op: &Op<'_>, undo: impl FnOnce() -> Result<()>) -> Result<()> {
        if !self.settles(op) {
            return Ok(());
        }
        self.union.sync().inspect_err(|_| {
            if let Err(error) = undo() {
                tracing::warn!(%error, "{} was not synced, and is not undone", op.name());
            }
        })
    }

    /// Answers a request that ends early if whoever asked is killed.
    pub(super) fn answer_long(
        &self,
        device: &OwnedFd,
        request: &Request<'_>,
        reply: &mut Reply,
    ) -> Result<()> {
        let running = self.interrupts.register(request.unique, request.pid);
        interrupt::under(running.question(), || self.answer(device, request, reply))
    }

    /// Forgets nodes, which takes no answer.
    pub(super) fn forget(&self, request: &Request<'_>) {
        silent(named(request), || {
            match request.op {
                Op::Forget { count } => self.union.forget(self.node(request.node), count),
                Op::BatchForget(ref nodes) => {
                    for (node, count) in nodes.clone() {
                        self.union.forget(self.node(node), count);
                    }
                }
                _ => {}
            }
            Ok(())
        });
    }

    /// The node behind a node id from the wire.
    fn node(&self, id: u64) -> NodeId {
        if id == wire::ROOT_ID { self.union.root() } else { NodeId(id) }
    }

    /// Calls the handler and encodes what comes of it.
    fn serve(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        match request.op {
            Op::Symlink { .. }
            | Op::MkNod { .. }
            | Op::MkDir { .. }
            | Op::Link { .. }
            | Op::Create { .. }
            | Op::TmpFile { .. } => self.make(request, reply),
            Op::Open { flags, kill_set_id } => {
                let (union, node) = (&*self.union, self.node(request.node));
                let handle = union.open(node, flags, kill_set_id)?;
                self.settle(&request.op, || union.release(node, handle))?;
                reply.opened(handle)
            }
            Op::Read { .. }
            | Op::Write { .. }
            | Op::Release { .. }
            | Op::FAllocate { .. }
            | Op::LSeek { .. }
            | Op::CopyFileRange { .. } => {
                self.file(request, reply)?;
                self.settle(&request.op, || Ok(()))
            }
            _ => {
                self.name(request, reply)?;
                self.settle(&request.op, || Ok(()))
            }
        }
    }

    /// What is done with names and attributes.
    fn name(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (union, node) = (&*self.union, self.node(request.node));
        match request.op {
            Op::Lookup { name } => match handlers::lookup(union, node, name)? {
                Some(found) => reply.entry(&found),
                None => reply.no_entry(),
            },
            Op::GetAttr => reply.attr(&union.getattr(node)?),
            Op::SetAttr(set) => reply.attr(&union.setattr(node, &set)?),
            Op::ReadLink => reply.bytes(&union.readlink(node)?),
            Op::Unlink { name } => handlers::unlink(union, node, name),
            Op::RmDir { name } => handlers::rmdir(union, node, name),
            Op::Rename { name, to, new_name, flags } => {
                let (to, caller) = ((self.node(to), new_name), caller(request));
                handlers::rename(union, (node, name), to, flags, &caller)
            }
            Op::StatFs => self.stat_fs(reply),
            Op::Access { mask } => union.access(node, mask, &caller(request)),
            Op::ReadDir { offset, size } => {
                handlers::readdir(union, node, offset, &mut |entry| reply.listed(entry, size))
            }
            Op::ReadDirPlus { offset, size } => {
                handlers::readdirplus(union, node, offset, &mut |entry, found| {
                    reply.listed_plus(entry, found, size)
                })
            }
            Op::SetXattr { name, value, flags, kill_set_gid } => {
                handlers::setxattr(union, node, (name, value), flags, kill_set_gid)
            }
            Op::GetXattr { name, size } => {
                sized(&handlers::getxattr(union, node, name, size)?, reply)
            }
            Op::ListXattr { size } => sized(&handlers::listxattr(union, node, size)?, reply),
            Op::RemoveXattr { name } => union.removexattr(node, name),
            Op::FSyncDir { data_only } | Op::FSync { data_only } => union.fsync(node, data_only),
            Op::SyncFs => union.sync(),
            Op::Flush | Op::ReleaseDir => Ok(()),
            Op::IoCtl => Err(Errno::ENOTTY.into()),
            _ => Err(crate::bug!("{} has gone another way", request.op.name())),
        }
    }

    /// What makes a new object, or a new name of one.
    fn make(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (union, dir, caller) = (&*self.union, self.node(request.node), caller(request));
        let named = |found: Found| (found, None);
        let opened = |(found, handle)| (found, Some(handle));
        let (found, handle) = match request.op {
            Op::Symlink { name, target } => {
                handlers::symlink(union, dir, name, target, &caller).map(named)
            }
            Op::MkNod { name, mode, umask, rdev } => {
                handlers::mknod(union, dir, name, (mode, umask), rdev.into(), &caller).map(named)
            }
            Op::MkDir { name, mode, umask } => {
                handlers::mkdir(union, dir, name, (mode, umask), &caller).map(named)
            }
            Op::Link { node, name } => handlers::link(union, self.node(node), dir, name).map(named),
            Op::Create { name, mode, umask, flags } => {
                handlers::create(union, dir, name, (mode, umask), flags, &caller).map(opened)
            }
            Op::TmpFile { mode, umask, flags } => {
                handlers::tmpfile(union, dir, (mode, umask), flags, &caller).map(opened)
            }
            _ => Err(crate::bug!("{} makes nothing", request.op.name())),
        }?;
        self.settle(&request.op, || {
            let closed = handle.map_or(Ok(()), |handle| union.release(found.node, handle));
            union.forget(found.node, 1);
            closed
        })?;
        reply.entry(&found)?;
        handle.map_or(Ok(()), |handle| reply.opened(handle))
    }

    /// What is done with an open file.
    fn file(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (union, node) = (&*self.union, self.node(request.node));
        match request.op {
            Op::Read { handle, offset, size } => {
                reply.fill(size, |room| union.read(node, Handle(handle), room, offset))
            }
            Op::Write { handle, offset, data, kill_set_id } => {
                let n = union.write(node, Handle(handle), data, offset, kill_set_id)?;
                reply.put(&wire::WriteOut { size: u32::try_from(n).unwrap_or(0), padding: 0 })
            }
            Op::Release { handle } => union.release(node, Handle(handle)),
            Op::FAllocate { handle, offset, length, mode } => {
                handlers::before_change(union, node, request.pid)?;
                union.fallocate(node, Handle(handle), mode, offset, length)
            }
            Op::LSeek { handle, offset, whence } => {
                let value = handlers::lseek(union, node, Handle(handle), offset, whence)?;
                reply.put(&wire::LongOut { value })
            }
            Op::CopyFileRange { from, to: (to, handle, at), offset, len, wide } => {
                handlers::before_change(union, self.node(to), request.pid)?;
                let from = (node, Handle(from), offset);
                let to = (self.node(to), Handle(handle), at);
                if wide {
                    let value = union.copy_file_range(from, to, len)?;
                    return reply.put(&wire::LongOut { value });
                }
                let n = handlers::copy_file_range(union, from, to, len)?;
                reply.put(&wire::WriteOut { size: u32::try_from(n).unwrap_or(0), padding: 0 })
            }
            _ => Err(crate::bug!("{} is not of files", request.op.name())),
        }
    }

    fn stat_fs(&self, reply: &mut Reply) -> Result<()> {
        let stat = self.union.statfs()?;
        reply.put(&wire::StatFsOut {
            blocks: stat.blocks,
            bfree: stat.bfree,
            bavail: stat.bavail,
            files: stat.files,
            ffree: stat.ffree,
            bsize: stat.bsize,
            namelen: stat.namelen,
            frsize: stat.frsize,
            ..wire::StatFsOut::default()
        })
    }
}

/// What is asked, for the log.
fn named<'a>(request: &'a Request<'_>) -> guard::Op<'a> {
    guard::Op { name: request.op.name(), node: request.node, entry: request.op.entry() }
}

/// Who asks. The kernel tells it of all requests, or, where mounts may be mapped to other ids, of
/// those only that make something, by the ids of the mount.
fn caller(request: &Request<'_>) -> Caller {
    Caller { uid: request.uid, gid: request.gid }
}

fn sized(answer: &Answer, reply: &mut Reply) -> Result<()> {
    match answer {
        Answer::Length(size) => reply.put(&wire::GetXattrOut { size: *size, padding: 0 }),
        Answer::Bytes(bytes) => reply.bytes(bytes),
    }
}
