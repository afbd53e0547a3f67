//! One mount from its beginning to its end.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::fuser;
use super::native::{self, Notifier};
use crate::errno::{Context, Errno, Error, Result};
use crate::sys::fuse_mount::{self, FuseMount};
use crate::sys::mountinfo;
use crate::union::Union;

/// What speaks the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// Our own loop over the device.
    #[default]
    Native,
    /// The crate fuser: it cannot say all that the protocol has.
    Fuser,
}

/// What is made durable before a change is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Syncing {
    /// What is asked for.
    #[default]
    Asked,
    /// New names, and those that change or go (`dirsync`).
    Names,
    /// Everything (`sync`).
    All,
}

/// How to mount.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "mount flags, each on its own")]
pub struct MountConfig {
    /// What speaks the protocol.
    pub driver: Driver,
    /// Flags of INIT to do without though the kernel offers them, as on an older one; the native
    /// driver only.
    pub withheld: u64,
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
    /// How long the kernel may keep names and attributes; `None` for good. The native driver only:
    /// `EOPNOTSUPP`.
    pub timeout: Option<Duration>,
    /// What is durable before a change is answered. The native driver only: `EOPNOTSUPP`.
    pub sync: Syncing,
    /// Security contexts for the kernel (`context`, `fscontext`, ...), by name.
    pub contexts: Vec<(String, String)>,
    /// Shown as the source in /proc/mounts.
    pub source: String,
}

impl Default for MountConfig {
    fn default() -> Self {
        Self {
            driver: Driver::default(),
            withheld: 0,
            threads: 4,
            allow_other: false,
            read_only: false,
            nosuid: false,
            nodev: false,
            noexec: false,
            noatime: false,
            timeout: None,
            sync: Syncing::default(),
            contexts: Vec::new(),
            source: "plyfs".to_owned(),
        }
    }
}

/// A live mount that nobody serves yet: requests wait until [`Session::run`]. Dropping it
/// unmounts.
#[derive(Debug)]
pub struct Session {
    // In the order in which they go: the layers must be free again when the claim is given up.
    server: Option<Server>,
    union: Arc<Union>,
    place: Place,
    /// A shared lock on the directory under the mount, held while this session lives: who has
    /// unmounted can wait for it.
    claim: Option<OwnedFd>,
}

/// A driver with its connection.
#[derive(Debug)]
enum Server {
    Native(native::Server),
    Fuser(fuser::Server),
}

impl Server {
    fn start(union: Arc<Union>, connection: OwnedFd, config: &MountConfig) -> Result<Self> {
        Ok(match config.driver {
            Driver::Native => Self::Native(native::Server::start(union, connection, config)?),
            Driver::Fuser => {
                if config.timeout.is_some() {
                    let why = "the driver fuser cannot have another timeout than its own";
                    return Err(Error::new(Errno::EOPNOTSUPP, why));
                }
                if config.sync != Syncing::Asked {
                    let why = "the driver fuser can neither 'sync' nor 'dirsync'";
                    return Err(Error::new(Errno::EOPNOTSUPP, why));
                }
                let threads = config.threads.max(1);
                Self::Fuser(fuser::Server::start(union, connection, threads)?)
            }
        })
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Native(server) => server.run(),
            Self::Fuser(server) => server.run(),
        }
    }
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

/// How far the kernel is to read ahead, in KiB: each request for data costs a round trip. With
/// more, reading a large file gains little, and what is read for nothing when a mapped file is
/// looked at here and there grows.
const READ_AHEAD: u32 = 256;

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
        sync: config.sync == Syncing::All,
        contexts: &config.contexts,
    };
    let claim = fuse_mount::claim(&path);
    let connection = fuse_mount::mount(&path, &wire)?;
    let id = match fuse_mount::mount_id(&path) {
        Ok(id) => id,
        Err(error) => {
            fuse_mount::unmount(&path, true)?;
            return Err(error);
        }
    };
    let unique = fuse_mount::unique_mount_id(&path);
    let place = Place { path, id, unique };
    match Server::start(union.clone(), connection, config) {
        Ok(server) => {
            if let Err(error) = fuse_mount::read_ahead(&place.path, READ_AHEAD) {
                // A user's mount, or a /sys that cannot be written to: slower, and as right.
                tracing::debug!(%error, "the kernel reads ahead as far as it likes");
            }
            Ok(Session { server: Some(server), union, place, claim })
        }
        Err(error) => {
            place.unmount(true)?;
            Err(error)
        }
    }
}

impl Session {
    /// What ends this session.
    pub fn ender(&self) -> Ender {
        Ender(self.place.clone())
    }

    /// What tells the kernel that something it keeps is no longer so; `None` with a driver that
    /// cannot.
    pub fn notifier(&self) -> Option<Notifier> {
        match &self.server {
            Some(Server::Native(server)) => Some(server.notifier()),
            _ => None,
        }
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
    pub fn run(self) -> Result<()> {
        self.run_and(|| ())
    }

    /// As [`run`](Self::run); calls `gone` when the mount and its users are, before anything is
    /// made durable.
    pub fn run_and(mut self, gone: impl FnOnce()) -> Result<()> {
        let server = self.server.take().ok_or(Errno::EINVAL)?;
        let served = server.run();
        let unmounted = self.place.unmount(true).context(|| "unmounting");
        gone();
        self.union.sync().context(|| "making the upper layer durable")?;
        served.and(unmounted)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.server.is_some()
            && let Err(error) = self.place.unmount(true)
        {
            tracing::error!("cannot unmount {}: {error}", self.place.path.display());
        }
    }
}
