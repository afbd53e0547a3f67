//! `plyfs mount`: from the command line to a live mount with a server behind it.

use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;

use super::args::{MountArgs, NamedDriver};
use super::log::{self, Sink};
use super::options::{self, MountOptions};
use super::output::{Exit, Failure, Outcome};
use super::overlap::{self, Finder, Place, Role, shown};
use super::{output, stack, stored};
use crate::errno::{Context, Errno, Error};
use crate::fuse::{self, Driver, MountConfig, Session, Syncing};
use crate::layer::dir::DirUpper;
use crate::store::{Lock, Signature};
use crate::sys::daemon::{self, Forked, Ready, Watched};
use crate::sys::mountinfo::{self, Mount};
use crate::sys::{fuse_mount, limits, process, signal};
use crate::union::ids::Ids;
use crate::union::{Durability, Metacopy, Options, Redirects, Stack, Union, Xattrs};

/// What is to be mounted where, and by whom it is served.
#[derive(Debug)]
pub(super) struct Request {
    /// The layers, and how they are mounted.
    pub options: MountOptions,
    /// Where.
    pub mountpoint: PathBuf,
    /// Who serves.
    pub serving: Serving,
    /// Shown as the source in /proc/mounts.
    pub source: String,
    /// The lock of the container, held as long as the mount is served.
    pub held: Option<Lock>,
    /// It is unmounted when the process that asked for it ends, however that ends.
    pub with_parent: bool,
}

/// Who serves a mount.
#[derive(Clone, Copy, Debug)]
pub(super) struct Serving {
    /// Threads.
    pub threads: u16,
    /// What speaks the protocol.
    pub driver: Driver,
}

impl Serving {
    /// What `--threads` and `--driver` say, or `$PLYFS_DRIVER` if there is no `--driver`.
    fn of(args: &MountArgs) -> Result<Self, Failure> {
        let driver = args.driver.map_or_else(driver_of_environment, |named| Ok(named.into()))?;
        Ok(Self { threads: args.threads, driver })
    }

    /// For a mount of which nobody said it.
    pub(super) fn usual() -> Result<Self, Failure> {
        Ok(Self { threads: THREADS, driver: driver_of_environment()? })
    }
}

/// How many threads serve, unless it is said.
pub(super) const THREADS: u16 = 4;

/// What `$PLYFS_DRIVER` says.
fn driver_of_environment() -> Result<Driver, Failure> {
    let Some(said) = std::env::var_os("PLYFS_DRIVER") else { return Ok(Driver::default()) };
    let named = said.to_str().and_then(|said| NamedDriver::from_str(said, false).ok());
    named.map(Driver::from).ok_or_else(|| {
        let what = format!("PLYFS_DRIVER={}", said.as_bytes().escape_ascii());
        Failure::usage(what, "there is no such driver", "it may be 'native' or 'fuser'")
    })
}

impl From<NamedDriver> for Driver {
    fn from(named: NamedDriver) -> Self {
        match named {
            NamedDriver::Native => Self::Native,
            NamedDriver::Fuser => Self::Fuser,
        }
    }
}

/// Mounts.
pub(super) fn run(args: &MountArgs, root: Option<&Path>) -> Outcome {
    let request = match args.what.as_slice() {
        [mountpoint] if !args.options.is_empty() => {
            let options = parse(&args.options)?;
            Request {
                mountpoint: mountpoint.clone(),
                serving: Serving::of(args)?,
                source: options.manner.source.clone().unwrap_or_else(|| "plyfs".to_owned()),
                options,
                held: None,
                with_parent: false,
            }
        }
        [container, mountpoint] => {
            let serving = Serving::of(args)?;
            stored::mount_request(root, container, mountpoint, &args.options, serving)?
        }
        _ => {
            let hint = "give a container before it, or layers: -o lowerdir=A:B (see 'plyfs help \
                        mount')";
            return Err(Failure::usage("mount", "it is not said what to mount", hint));
        }
    };
    let debug = args.debug || request.options.manner.debug;
    if args.foreground || debug {
        let mut plan = plan(request)?;
        log::to_stderr(if debug { "plyfs=trace" } else { log::DEFAULT });
        process::spare_when_memory_ends();
        let mounted = plan.mount_watched()?;
        plan.sign();
        return serve(mounted, &mut plan, Hangup::Ends);
    }
    start(request).map(|()| Exit::Ok)
}

/// Mounts, and returns when the mount is live; a process of its own serves it. This process must
/// have no other threads.
pub(super) fn start(request: Request) -> Result<(), Failure> {
    let mut plan = plan(request)?;
    let held: Vec<_> = plan.request.held.iter().flat_map(Lock::descriptors).collect();
    match daemon::fork(&held).map_err(|error| plan.failure(&error, ""))? {
        Forked::Parent(waiter) => match waiter.wait().map_err(|error| plan.failure(&error, ""))? {
            Ok(()) => Ok(()),
            Err(said) if said.is_empty() => {
                let why = "the process that was to serve it died without a word";
                Err(plan.failure(&why, "run it with -f to see more"))
            }
            Err(said) => Err(plan.relayed(&String::from_utf8_lossy(&said))),
        },
        Forked::Child(ready) => {
            let exit = serve_in_background(&mut plan, ready).unwrap_or_else(|failure| {
                output::failure(&failure);
                failure.exit
            });
            std::process::exit(i32::from(exit.code()));
        }
    }
}

/// The serving process.
fn serve_in_background(plan: &mut Plan, ready: Ready) -> Outcome {
    log::to_stderr(log::DEFAULT);
    process::spare_when_memory_ends();
    let sink = Sink::of(plan.request.options.manner.log.as_deref());
    if plan.request.with_parent {
        ready.end_with_parent().map_err(|error| plan.failure(&error, ""))?;
    }
    let logger = sink.find().context(|| "the system's log");
    let logger = logger.map_err(|error| plan.failure(&error, ""));
    let begun = logger.and_then(|logger| {
        plan.refuse_own_log(&sink)?;
        Ok((plan.mount_watched()?, logger))
    });
    match begun {
        Ok((mounted, logger)) => {
            plan.sign();
            logger.begin();
            if let Err(error) = ready.ready(sink.file()) {
                drop(mounted.session);
                close_unused(mounted.upper.as_deref());
                return Err(plan.failure(&error, ""));
            }
            serve(mounted, plan, Hangup::Ignored)
        }
        Err(failure) => {
            let said = format!("{}\n{}\n{}", failure.what, failure.why, failure.hint);
            // The parent says it; if the parent is gone nobody asks any more.
            ready.failed(said.as_bytes()).unwrap_or_default();
            Ok(Exit::Failed)
        }
    }
}

/// Parses `-o` arguments.
pub(super) fn parse(arguments: &[std::ffi::OsString]) -> Result<MountOptions, Failure> {
    options::parse(arguments.iter().map(|argument| argument.as_bytes()))
        .map_err(|error| Failure::usage("options", &error, error.hint()))
}

/// A mount that nothing speaks against, so far.
#[derive(Debug)]
struct Plan {
    request: Request,
    /// The mount point, absolute.
    mountpoint: PathBuf,
}

/// Looks at everything that can be looked at without changing anything.
fn plan(mut request: Request) -> Result<Plan, Failure> {
    let options = &mut request.options;
    for ignored in &options.ignored {
        tracing::debug!("option without effect: {}", ignored.escape_ascii());
    }
    device()?;
    let places = places(options, Some(&request.mountpoint))?;
    let mounts =
        mountinfo::read().map_err(|error| Failure::new("mount", error, "is /proc mounted?"))?;
    overlap::check(&places, &mounts)?;
    let mountpoint =
        places.iter().find(|place| place.role == Role::Mountpoint).map(|place| place.path.clone());
    let mountpoint = mountpoint.unwrap_or_default();
    free(&mountpoint, &mounts)?;
    if let Some(upper) = &options.upper {
        unused(upper, &mounts)?;
    }
    Ok(Plan { request, mountpoint })
}

/// Finds the directories of a mount and makes the options' paths absolute.
pub(super) fn places(
    options: &mut MountOptions,
    mountpoint: Option<&Path>,
) -> Result<Vec<Place>, Failure> {
    let mut places = Vec::new();
    let mut finder = Finder::default();
    let lowers = options.lowers.iter_mut().map(|path| (Role::Lower, path));
    let upper = options.upper.iter_mut().map(|path| (Role::Upper, path));
    let work = options.work.iter_mut().map(|path| (Role::Work, path));
    for (role, path) in lowers.chain(upper).chain(work) {
        let place = finder.find(role, path)?;
        path.clone_from(&place.path);
        places.push(place);
    }
    if let Some(mountpoint) = mountpoint {
        places.push(finder.find(Role::Mountpoint, mountpoint)?);
    }
    Ok(places)
}

/// Whether there is a way to mount at all.
fn device() -> Result<(), Failure> {
    let hint = match fuse_mount::open_device() {
        Ok(_) => None,
        Err(errno @ (rustix::io::Errno::ACCESS | rustix::io::Errno::PERM)) => {
            Some((errno, "run as root, or let users open it: chmod 666 /dev/fuse"))
        }
        Err(errno) => Some((
            errno,
            "load the kernel's FUSE module: modprobe fuse (in a container: --device /dev/fuse)",
        )),
    };
    if let Some((errno, hint)) = hint {
        return Err(Failure::new(fuse_mount::DEVICE, Error::from(errno), hint));
    }
    if process::has_sys_admin() || fuse_mount::find_program(fuse_mount::HELPER).is_some() {
        return Ok(());
    }
    let why = format!("only root may mount without {}", fuse_mount::HELPER);
    Err(Failure::new("mount", why, "install fuse3, or run as root"))
}

/// Whether the mount point is free: no plyfs there yet, and no dead mount.
fn free(mountpoint: &Path, mounts: &[Mount]) -> Result<(), Failure> {
    let what = || format!("mount point {}", shown(mountpoint));
    let unmount = || format!("unmount it first: plyfs umount {}", shown(mountpoint));
    match mountinfo::at(mounts, mountpoint) {
        Some(mount) if mount.fs_type == "fuse.plyfs" => {
            let dead = rustix::fs::statfs(mountpoint).is_err();
            let why = if dead { "a dead plyfs mount is there" } else { "plyfs is mounted there" };
            Err(Failure::new(what(), why, unmount()))
        }
        Some(_) => match rustix::fs::statfs(mountpoint) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Failure::new(what(), Error::from(errno), unmount())),
        },
        None => Ok(()),
    }
}

/// Whether the kernel's overlayfs has this upper directory mounted. (Another plyfs holds a lock,
/// which is met when the layer is opened.)
fn unused(upper: &Path, mounts: &[Mount]) -> Result<(), Failure> {
    for mount in mounts.iter().filter(|mount| mount.fs_type == "overlay") {
        let prefix = b"upperdir=".as_slice();
        let mut options = mount.super_options.as_bytes().split(|&byte| byte == b',');
        if options.any(|option| option.strip_prefix(prefix) == Some(upper.as_os_str().as_bytes())) {
            return Err(Failure::new(
                format!("upperdir {}", shown(upper)),
                format!("overlayfs has it mounted at {}", shown(&mount.point)),
                "unmount that first: two writers would destroy it",
            ));
        }
    }
    Ok(())
}

/// A live mount and what has to be ended with it.
#[derive(Debug)]
struct Mounted {
    session: Session,
    upper: Option<Arc<DirUpper>>,
    /// Who unmounts if this process does not.
    watched: Option<Watched>,
}

impl Plan {
    /// Refuses a log that would lie in the mount itself: it is opened before anybody serves that.
    fn refuse_own_log(&self, sink: &Sink) -> Result<(), Failure> {
        let dir = sink.file().and_then(Path::parent).and_then(|dir| dir.canonicalize().ok());
        if dir.is_some_and(|dir| dir.starts_with(&self.mountpoint)) {
            let why = "the log would lie in the mount that it is of";
            return Err(self.failure(&why, "give a file elsewhere"));
        }
        Ok(())
    }

    /// Refuses a mount over the device where the driver opens that once more by its path.
    fn refuse_own_device(&self) -> Result<(), Failure> {
        let covered = Path::new(fuse_mount::DEVICE).starts_with(&self.mountpoint);
        if covered && self.request.serving.driver == Driver::Fuser {
            let why = "--driver=fuser needs the device that the mount would hide";
            return Err(self.failure(&why, "mount elsewhere, or with --driver=native"));
        }
        Ok(())
    }

    /// Opens the layers and mounts their union.
    fn mount(&self) -> Result<Mounted, Failure> {
        self.refuse_own_device()?;
        // Modes are the callers' business, who come with a umask of their own.
        process::set_umask_zero();
        limits::raise_open_files();
        limits::lift_file_size();
        signal::block_termination().map_err(|error| self.failure(&error, ""))?;
        let (stack, upper) = stack::open(&self.request.options)?;
        match self.mount_stack(stack) {
            Ok(session) => Ok(Mounted { session, upper, watched: None }),
            Err(failure) => {
                close_unused(upper.as_deref());
                Err(failure)
            }
        }
    }

    /// Mounts the union of `stack`.
    fn mount_stack(&self, stack: Stack) -> Result<Session, Failure> {
        let options = &self.request.options;
        let read_only = options.read_only || stack.upper.is_none();
        let ids = options.owners.ids((!process::may_give_away()).then(process::fs_ids));
        let union = Union::new(stack, union_options(options, ids))
            .map_err(|error| self.failure(&error, "'plyfs check' tells more"))?;
        let root = rustix::process::geteuid().is_root();
        let config = MountConfig {
            driver: self.request.serving.driver,
            withheld: 0,
            threads: usize::from(self.request.serving.threads),
            allow_other: root || options.allow_other,
            read_only,
            nosuid: options.nosuid,
            nodev: options.nodev,
            noexec: options.noexec,
            noatime: options.noatime,
            timeout: options.manner.timeout,
            sync: match (options.manner.sync, options.manner.dirsync) {
                (true, _) => Syncing::All,
                (false, true) => Syncing::Names,
                (false, false) => Syncing::Asked,
            },
            contexts: options.manner.contexts.clone(),
            source: self.request.source.clone(),
        };
        let mounted = fuse::mount(Arc::new(union), &self.mountpoint, &config);
        mounted.map_err(|error| {
            let hint = match error.errno() {
                Errno::EPERM if process::has_sys_admin() => {
                    "this mount namespace is not yours: try 'unshare --map-root-user --mount'"
                }
                Errno::EPERM | Errno::EACCES => "run as root, or see 'plyfs doctor'",
                Errno::EOPNOTSUPP | Errno::EINVAL => "leave the option out",
                _ => "'plyfs doctor' tells what this system allows",
            };
            self.failure(&error, hint)
        })
    }

    /// Mounts, and has the mount end when this process does, however it ends, where that is wanted.
    /// This process must have no other threads yet.
    fn mount_watched(&mut self) -> Result<Mounted, Failure> {
        let mut mounted = self.mount()?;
        if self.request.options.manner.auto_unmount {
            let ender = mounted.session.ender();
            match daemon::when_ended(move || ender.end()) {
                Ok(watched) => mounted.watched = Some(watched),
                Err(error) => {
                    drop(mounted.session);
                    close_unused(mounted.upper.as_deref());
                    return Err(self.failure(&error, "leave auto_unmount out"));
                }
            }
        }
        Ok(mounted)
    }

    /// Says in the container's lock, if there is one, who serves it, and what is mounted.
    fn sign(&mut self) {
        let Some(held) = &mut self.request.held else { return };
        // Who runs a command in a container is who has it.
        let parent = rustix::process::getppid().filter(|_| self.request.with_parent);
        let pid = parent.unwrap_or_else(rustix::process::getpid).as_raw_nonzero().get();
        let device = fuse_mount::device(&self.mountpoint).ok();
        let mountpoint = self.mountpoint.clone();
        stored::note(held, &Signature { pid: pid.cast_unsigned(), mountpoint, device });
    }

    /// A failure of the mount as a whole.
    fn failure(&self, why: &dyn Display, hint: &str) -> Failure {
        Failure::new(format!("cannot mount at {}", shown(&self.mountpoint)), why, hint)
    }

    /// A failure that the serving process told: what, why and hint, a line each.
    fn relayed(&self, said: &str) -> Failure {
        let mut lines = said.splitn(3, '\n');
        match (lines.next(), lines.next()) {
            (Some(what), Some(why)) => Failure::new(what, why, lines.next().unwrap_or_default()),
            _ => self.failure(&said, ""),
        }
    }
}

/// What the options mean to the union.
fn union_options(options: &MountOptions, ids: Ids) -> Options {
    let manner = &options.manner;
    // A file that was renamed without its data says where they are by a redirect, too.
    let whole = options.no_metacopy || manner.no_redirects;
    Options {
        durability: match (options.volatile, manner.no_fsync) {
            (true, _) => Durability::Volatile,
            (false, true) => Durability::Unasked,
            (false, false) => Durability::Strict,
        },
        metacopy: if whole { Metacopy::Off } else { Metacopy::On },
        redirects: if manner.no_redirects { Redirects::Off } else { Redirects::On },
        xattrs: match (manner.no_xattrs, manner.no_acl) {
            (true, _) => Xattrs::None,
            (false, true) => Xattrs::NoAcl,
            (false, false) => Xattrs::All,
        },
        static_nlink: manner.static_nlink,
        ids,
    }
}

/// What `SIGHUP` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hangup {
    /// The terminal has gone, and the mount with it.
    Ends,
    /// In the background no terminal is of any interest.
    Ignored,
}

/// Lets go of an upper layer that nothing was written to: one that is volatile must not be taken
/// for one whose mount has died.
fn close_unused(upper: Option<&DirUpper>) {
    if let Some(Err(error)) = upper.map(DirUpper::close) {
        tracing::warn!("the upper layer was not closed in order: {error}");
    }
}

/// Serves until the mount has ended.
fn serve(mounted: Mounted, plan: &mut Plan, hangup: Hangup) -> Outcome {
    let Mounted { mut session, upper, watched } = mounted;
    let ender = session.ender();
    let nodes = session.node_counter();
    let mut asked = false;
    let began = std::time::Instant::now();
    let what = shown(&plan.mountpoint);
    signal::on_termination(move |signal| {
        if signal == signal::STATISTICS {
            tracing::info!(
                target: "plyfs::statistics",
                mountpoint = what,
                seconds = began.elapsed().as_secs(),
                nodes = nodes(),
                resident_kib = process::resident_kib(),
                descriptors = process::open_descriptors(),
            );
            return;
        }
        if signal == signal::HANGUP && hangup == Hangup::Ignored {
            return;
        }
        tracing::info!(signal, "asked to end");
        if std::mem::replace(&mut asked, true) {
            // The first time the mount was detached, but somebody keeps it in use.
            std::process::exit(i32::from(Exit::Failed.code()));
        }
        if let Err(error) = ender.end() {
            tracing::error!("cannot unmount: {error}");
        }
    })
    .map_err(|error| plan.failure(&error, ""))?;
    // Who waits for our end may use the layers again, so they are let go of first.
    let claim = session.take_claim();
    let served = session.run_and(|| {
        if let Some(watched) = watched {
            watched.dismiss();
        }
        if let Some(upper) = &upper {
            upper.ending();
        }
    });
    let keeps = |_: &&Arc<DirUpper>| !plan.request.options.disposable;
    let closed = upper.as_ref().filter(keeps).map_or(Ok(()), |upper| upper.close());
    drop(upper);
    drop(plan.request.held.take());
    drop(claim);
    match served.and(closed) {
        Ok(()) => Ok(Exit::Ok),
        Err(error) => {
            tracing::error!("{error}");
            Err(plan.failure(&error, "what was written may not be complete on disk"))
        }
    }
}
