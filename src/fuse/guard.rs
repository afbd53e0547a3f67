//! Where a handler's result becomes an errno: the one place that catches panics, logs and traces.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::errno::{Errno, Error, Result};

/// What is asked, for the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Op<'a> {
    /// The operation.
    pub name: &'static str,
    /// The node id on the wire.
    pub node: u64,
    /// The name in the directory `node`, or an attribute's name, or empty.
    pub entry: &'a [u8],
}

/// Runs a handler: its error, or `EIO` if it panics, comes back as the errno to send.
pub(super) fn guarded<T>(
    op: Op<'_>,
    handler: impl FnOnce() -> Result<T>,
) -> std::result::Result<T, Errno> {
    let start = tracing::enabled!(tracing::Level::TRACE).then(Instant::now);
    // A panic that leaves a node half changed poisons its latch: that node answers EIO from then
    // on. What all nodes share is behind locks that no panic poisons.
    let result = catch_unwind(AssertUnwindSafe(handler)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        tracing::error!(op = op.name, node = op.node, "panic, answered with EIO: {text}");
        Err(Errno::EIO.into())
    });
    if let Some(start) = start {
        let errno = result.as_ref().err().map_or(0, |error| error.errno().raw());
        let us = start.elapsed().as_micros();
        let name = op.entry.escape_ascii();
        tracing::trace!(op = op.name, node = op.node, %name, errno, us);
    }
    result.map_err(|error| refusal(op, &error))
}

/// Runs a handler that has no reply to send.
pub(super) fn silent(op: Op<'_>, handler: impl FnOnce() -> Result<()>) {
    // The errno is in the log; the kernel takes no answer.
    guarded(op, handler).unwrap_or_default();
}

/// What the kernel takes from a server as it is meant.
fn sendable(errno: Errno) -> Errno {
    /// A reply with a larger number is refused, and whoever asked waits forever
    /// (`fuse_dev_do_write` in `fs/fuse/dev.c`); filesystems below us let their own out (524,
    /// `ENOTSUPP`).
    const LARGEST: i32 = 511;
    match errno {
        // From a server it means "never ask for this again": after one such answer every fsync(2)
        // would succeed without us, and every open.
        Errno::ENOSYS => Errno::EOPNOTSUPP,
        errno if errno.raw() > LARGEST => Errno::EIO,
        errno => errno,
    }
}

/// The errno to send, with a line in the log if the error has something to say.
fn refusal(op: Op<'_>, error: &Error) -> Errno {
    let name = op.entry.escape_ascii();
    match error.context() {
        Some(_) if error.errno() == Errno::EIO => {
            tracing::error!(op = op.name, node = op.node, %name, "{error}");
        }
        Some(_) => tracing::debug!(op = op.name, node = op.node, %name, "{error}"),
        None => {}
    }
    sendable(error.errno())
}
