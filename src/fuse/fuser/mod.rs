//! The driver on the crate fuser, which is named in this room only: conservative, portable, and
//! unable to say some of what the protocol has (docs/SEMANTICS.md names the lines it misses).

mod convert;
mod driver;
mod reply;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuser::{InitFlags, KernelConfig, SessionACL};

use crate::errno::{Context, Result};
use crate::sys::fuse_mount;
use crate::union::Union;

/// The largest write that the kernel sends as one request.
const MAX_WRITE: u32 = 1 << 20;

/// How many requests (read-ahead, mostly) may be under way without a program waiting for them.
const MAX_BACKGROUND: u16 = 64;

/// What we ask of the kernel; each is asked for only where the kernel offers it.
const WANTED: [InitFlags; 14] = [
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_MAX_PAGES,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_NO_EXPORT_SUPPORT,
    InitFlags::FUSE_BIG_WRITES,
];

/// A connection that is agreed upon, and served by [`Server::run`].
#[derive(Debug)]
pub(super) struct Server(fuser::Session<driver::Driver>);

impl Server {
    /// Agrees with the kernel on how to talk.
    ///
    /// # Errors
    /// `EIO` where that is impossible.
    pub(super) fn start(union: Arc<Union>, connection: OwnedFd, threads: usize) -> Result<Self> {
        let mut config = fuser::Config::default();
        config.n_threads = Some(threads);
        // A descriptor a thread keeps the threads from waking each other; it needs the device.
        config.clone_fd = fuse_mount::open_device().is_ok();
        let driver = driver::Driver::new(union, threads);
        // The kernel enforces who may enter; fuser need not do it again.
        let session = fuser::Session::from_fd(driver, connection, SessionACL::All, config);
        Ok(Self(session.context(|| "the kernel and plyfs do not agree on a FUSE protocol")?))
    }

    /// Serves until the mount and its last user have gone.
    pub(super) fn run(self) -> Result<()> {
        self.0.run().context(|| "serving ended with an error")
    }
}

/// Chooses what to use of what the kernel offers.
fn negotiate(config: &mut KernelConfig, acls: bool) {
    for flag in WANTED {
        if flag == InitFlags::FUSE_POSIX_ACL && !acls {
            continue;
        }
        if config.add_capabilities(flag).is_err() {
            tracing::info!("this kernel's FUSE lacks {flag:?}");
        }
    }
    if config.set_max_write(MAX_WRITE).is_err()
        || config.set_max_background(MAX_BACKGROUND).is_err()
    {
        tracing::warn!("fuser refused our sizes; its own are used");
    }
}
