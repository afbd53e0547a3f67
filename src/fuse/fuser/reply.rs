//! Where a result becomes an answer.

use std::cell::RefCell;
use std::time::Duration;

use fuser::{
    FileHandle, FopenFlags, Generation, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr,
};

use super::convert;
use crate::attr::{Attr, StatFs};
use crate::errno::{Errno, Result};
use crate::fuse::guard::{Op, guarded};
use crate::fuse::handlers::Answer;
use crate::union::{Found, Handle};

/// How long the kernel may keep what it was told: for good. All changes go through the kernel,
/// which applies them to what it keeps.
pub(super) const TTL: Duration = Duration::from_secs(u32::MAX as u64);

/// All nodes are of this generation: a node id is not used again while the kernel knows it.
pub(super) const GENERATION: Generation = Generation(0);

/// How files are opened: what the kernel has cached of them stays good, and close needs no answer.
const OPEN_FLAGS: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE.union(FopenFlags::FOPEN_NOFLUSH);

/// A kind of reply that can carry a `T`, or an error.
pub(super) trait Reply<T> {
    /// Sends the answer.
    fn send(self, value: T);
    /// Sends an error.
    fn refuse(self, errno: fuser::Errno);
}

/// Runs `handler` and sends what comes of it; the handler may fill the reply (a listing).
pub(super) fn answer<T, R: Reply<T>>(
    op: Op<'_>,
    mut reply: R,
    handler: impl FnOnce(&mut R) -> Result<T>,
) {
    match guarded(op, || handler(&mut reply)) {
        Ok(value) => reply.send(value),
        Err(errno) => reply.refuse(convert::errno(errno)),
    }
}

/// Sends what `read` puts into a buffer of `size` bytes, of which it returns how many.
pub(super) fn answer_bytes(
    op: Op<'_>,
    reply: ReplyData,
    size: u32,
    read: impl FnOnce(&mut [u8]) -> Result<usize>,
) {
    thread_local! {
        // A buffer a thread, as large as the largest read: a fresh one would be cleared each time.
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let size = usize::try_from(size).unwrap_or(0);
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < size {
            buffer.resize(size, 0);
        }
        let result = guarded(op, || {
            let room = buffer.get_mut(..size).ok_or(Errno::EIO)?;
            let n = read(room)?;
            buffer.get(..n.min(size)).ok_or(Errno::EIO.into())
        });
        match result {
            Ok(bytes) => reply.data(bytes),
            Err(errno) => reply.error(convert::errno(errno)),
        }
    });
}

/// Implements [`Reply`] for one kind of fuser's replies.
macro_rules! replies {
    ($($reply:ty => $value:ty, |$r:ident, $v:pat_param| $send:expr;)*) => {$(
        impl Reply<$value> for $reply {
            fn send(self, value: $value) {
                let ($r, $v) = (self, value);
                $send;
            }
            fn refuse(self, errno: fuser::Errno) {
                self.error(errno);
            }
        }
    )*};
}

replies! {
    ReplyEmpty => (), |reply, ()| reply.ok();
    ReplyDirectory => (), |reply, ()| reply.ok();
    ReplyDirectoryPlus => (), |reply, ()| reply.ok();
    ReplyAttr => Attr, |reply, attr| reply.attr(&TTL, &convert::file_attr(&attr));
    ReplyData => Vec<u8>, |reply, bytes| reply.data(&bytes);
    ReplyOpen => Handle, |reply, handle| reply.opened(FileHandle(handle.0), OPEN_FLAGS);
    ReplyEntry => Found, |reply, found|
        reply.entry(&TTL, &convert::file_attr(&found.attr), GENERATION);
    ReplyEntry => Option<Found>, |reply, found| {
        let attr = found.map_or_else(convert::no_entry, |found| convert::file_attr(&found.attr));
        reply.entry(&TTL, &attr, GENERATION);
    };
    ReplyCreate => (Found, Handle), |reply, (found, handle)| {
        let attr = convert::file_attr(&found.attr);
        reply.created(&TTL, &attr, GENERATION, FileHandle(handle.0), OPEN_FLAGS);
    };
    ReplyWrite => u64, |reply, n| reply.written(u32::try_from(n).unwrap_or(u32::MAX));
    ReplyLseek => u64, |reply, offset| match i64::try_from(offset) {
        Ok(offset) => reply.offset(offset),
        Err(_) => reply.error(convert::errno(Errno::EOVERFLOW)),
    };
    ReplyXattr => Answer, |reply, answer| match answer {
        Answer::Length(length) => reply.size(length),
        Answer::Bytes(bytes) => reply.data(&bytes),
    };
    ReplyStatfs => StatFs, |reply, s| reply.statfs(
        s.blocks, s.bfree, s.bavail, s.files, s.ffree, s.bsize, s.namelen, s.frsize,
    );
}
