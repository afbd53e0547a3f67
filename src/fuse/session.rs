//! One mount from its INIT to its end: what is negotiated with the kernel, the threads that serve,
//! its end.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{InitFlags, KernelConfig, SessionACL};

use super::driver::Driver;
use crate::errno::{Context, Errno, Result};
use crate::sys::fuse_mount::{self, FuseMount};
use crate::sys::mountinfo;
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

/// How to mount.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "mount flags, each on its own")]
pub struct MountConfig {
    /// Threads that serve requests; at least one.
    pub threads: usize,
    /// All users may enter, not only the one who mounts.
    pub allow_other: bool,
    /// The kernel refuses changes with `EROFS`.
    pub read_only: bool,
    /// Set-id bits and file capabilities have no effect.
    pub nosuid: bool,
    /// Devices cannot be opened.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
    /// Access times stay.
    pub noatime: bool,
    /// Shown as the source in /proc/mounts.
    pub source: String,
}

impl Default for MountConfig {
    fn default() -> Self {
        Self {
            threads: 4,
            allow_other: false,
            read_only: false,
            nosuid: false,
            nodev: false,
            noexec: false,
            noatime: false,
            source: "plyfs".to_owned(),
        }
    }
}

/// A live mount that nobody serves yet: requests wait until [`Session::run`]. Dropping it
/// unmounts.
#[derive(Debug)]
pub struct Session {
    // In the order in which they go: the layers must be free again when the claim is given up.
    fuse: Option<fuser::Session<Driver>>,
    union: Arc<Union>,
    place: Place,
    /// A shared lock on the directory under the mount, held while this session lives: who has
    /// unmounted can wait for it.
    claim: Option<OwnedFd>,
}

/// Where our mount is, and which one it is: another may have come to the same place.
#[derive(Clone, Debug)]
struct Place {
    path: PathBuf,
    id: u64,
    /// As `id`, and never used again; where the kernel has it.
    unique: Option<u64>,
}

impl Place {
    /// Unmounts if our mount is still on top of its place.
    fn unmount(&self, lazy: bool) -> Result<()> {
        if self.is_at(&self.path) {
            return fuse_mount::unmount(&self.path, lazy);
        }
        // A directory above it may have got another name since. The number alone may by now be
        // that of somebody else's mount.
        if self.unique.is_none() {
            return Ok(());
        }
        let mounts = mountinfo::read()?;
        match mounts.iter().find(|mount| mount.id == self.id) {
            Some(mount) if self.is_at(&mount.point) => fuse_mount::unmount(&mount.point, lazy),
            // Somebody else has unmounted it, or covered it.
            _ => Ok(()),
        }
    }

    /// Whether our mount is the one on top at `path`.
    fn is_at(&self, path: &Path) -> bool {
        match self.unique {
            Some(_) => fuse_mount::unique_mount_id(path) == self.unique,
            // The number may by now be that of a mount that came to the same place after ours.
            None => fuse_mount::mount_id(path).is_ok_and(|id| id == self.id),
        }
    }
}

/// Ends a session from another thread.
#[derive(Clone, Debug)]
pub struct Ender(Place);

impl Ender {
    /// Unmounts, which ends [`Session::run`]; where the mount is in use it vanishes from its
    /// place, and is served to its last user.
    pub fn end(&self) -> Result<()> {
        self.0.unmount(false).or_else(|_| self.0.unmount(true))
    }
}

/// Mounts `union` at `mountpoint` and agrees with the kernel on how to talk.
///
/// # Errors
/// As [`fuse_mount::mount`]; nothing stays mounted on an error.
pub fn mount(union: Arc<Union>, mountpoint: &Path, config: &MountConfig) -> Result<Session> {
    let path = mountpoint.canonicalize().context(|| mountpoint.display())?;
    let wire = FuseMount {
        source: &config.source,
        subtype: "plyfs",
        allow_other: config.allow_other,
        read_only: config.read_only,
        nosuid: config.nosuid,
        nodev: config.nodev,
        noexec: config.noexec,
        noatime: config.noatime,
    };
    let claim = fuse_mount::claim(&path);
    let connection = fuse_mount::mount(&path, &wire)?;
    let id = fuse_mount::mount_id(&path)?;
    let unique = fuse_mount::unique_mount_id(&path);
    let place = Place { path, id, unique };
    let mut fuse = fuser::Config::default();
    fuse.n_threads = Some(config.threads.max(1));
    // A descriptor a thread keeps the threads from waking each other; it needs the device itself.
    fuse.clone_fd = fuse_mount::open_device().is_ok();
    // The kernel enforces who may enter; fuser need not do it again.
    let driver = Driver::new(union.clone(), config.threads.max(1));
    let session = fuser::Session::from_fd(driver, connection, SessionACL::All, fuse);
    match session {
        Ok(session) => Ok(Session { fuse: Some(session), union, place, claim }),
        Err(error) => {
            place.unmount(true)?;
            Err(error).context(|| "the kernel and plyfs do not agree on a FUSE protocol")
        }
    }
}

impl Session {
    /// What ends this session.
    pub fn ender(&self) -> Ender {
        Ender(self.place.clone())
    }

    /// What tells the number of live nodes while the session runs.
    pub fn node_counter(&self) -> impl Fn() -> usize + Send + use<> {
        // Weak: whoever may still ask must not keep the layers, and their locks, from going.
        let union = Arc::downgrade(&self.union);
        move || union.upgrade().map_or(0, |union| union.node_count())
    }

    /// The lock on the directory under the mount, for who has more to end than this session before
    /// those may go on who wait for it.
    pub fn take_claim(&mut self) -> Option<OwnedFd> {
        self.claim.take()
    }

    /// Serves until the mount is gone, unmounted from outside or by an [`Ender`], and its last
    /// user, too. Makes the upper layer durable before it returns.
    pub fn run(mut self) -> Result<()> {
        let fuse = self.fuse.take().ok_or(Errno::EINVAL)?;
        let served = fuse.run().context(|| "serving ended with an error");
        let unmounted = self.place.unmount(true).context(|| "unmounting");
        self.union.sync().context(|| "making the upper layer durable")?;
        served.and(unmounted)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.fuse.is_some()
            && let Err(error) = self.place.unmount(true)
        {
            tracing::error!("cannot unmount {}: {error}", self.place.path.display());
        }
    }
}

/// Chooses what to use of what the kernel offers.
pub(super) fn negotiate(config: &mut KernelConfig) {
    for flag in WANTED {
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
