//! A command in a container's root filesystem: namespaces, pivot_root, the pseudo-filesystems, and
//! what the image's config says about environment, user and directory. No container runtime: no
//! cgroups, no seccomp, no network of its own.
//!
//! ```text
//!     config         from an image's config and a user's wishes to a command and its environment
//!     user           an image's User, looked up in the image
//!     root           paths inside the root, whatever links the image has
//!     mounts         what is mounted in the container before it starts
//!     supervise      from its start to its end: signals, terminal, status
//! ```
//!
//! The processes: plyfs, in a thread of its own for the container; process 1, a fork of plyfs
//! that does what an init does (see [`crate::sys::pid1`]); the command. The thread, not the
//! process, changes namespaces: a caller may have other threads, and they notice nothing.
//!
//! What is changed in the root: the directories /proc, /sys and /dev, the working directory, and
//! places for binds and for /etc/resolv.conf are made where they are missing, and stay.
//!
//! What the container can do to the host, other than by its network: nothing by devices (all is
//! mounted `nodev` except eight harmless ones and those bound by the user, so that even a node
//! made by mknod cannot be opened), nothing by mounts (no `CAP_SYS_ADMIN`), nothing through
//! process 1 (not dumpable). With a terminal it shares that terminal.

pub mod config;
mod mounts;
mod root;
mod supervise;
pub mod user;

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::errno::{Context, Errno, Error, Result};
use root::{Root, shown};

/// The longest hostname, bytes: `HOST_NAME_MAX`.
const MAX_HOSTNAME: usize = 64;

/// What is to run, where, and as whom.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The root filesystem: a directory, mounted or not. Not `/`.
    pub root: PathBuf,
    /// The command and its arguments; see [`config::command`]. Without a slash in its name it is
    /// looked for in the `PATH` of `env`, in the root.
    pub args: Vec<OsString>,
    /// `NAME=VALUE` each; see [`config::environment`]. `HOME` is added if it is missing.
    pub env: Vec<OsString>,
    /// Where it starts; made if it is missing. Empty: `/`.
    pub cwd: PathBuf,
    /// The image's `User`; see [`user::lookup`]. `None`: root.
    pub user: Option<String>,
    /// What the container calls itself, at most 64 bytes.
    pub hostname: String,
    /// Files and directories of the host, mounted in this order.
    pub binds: Vec<Bind>,
    /// Whether the container sees the host's /etc/resolv.conf, read-only, over its own.
    pub resolv_conf: bool,
}

/// A file or directory of the host to be seen in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Its path on the host; relative paths are from the current directory.
    pub host: PathBuf,
    /// Its path in the container, where it is made if it is missing.
    pub container: PathBuf,
    /// Whether the container may not change it.
    pub read_only: bool,
}

/// How a container ended.
#[derive(Debug)]
pub enum Status {
    /// The command ended by itself, with this exit code.
    Exited(u8),
    /// This signal ended it.
    Signaled(u8),
    /// The command could not be started.
    NotStarted(Error),
}

impl Status {
    /// The exit code that shells give it: 128 and the signal's number, 127 for a command that is
    /// not there, 126 for one that is and cannot be executed.
    pub fn code(&self) -> u8 {
        match self {
            Self::Exited(code) => *code,
            Self::Signaled(signal) => signal.saturating_add(128),
            Self::NotStarted(error) if error.errno() == Errno::ENOENT => 127,
            Self::NotStarted(_) => 126,
        }
    }
}

/// Runs a command to its end. Signals that this process gets meanwhile and that ask for something
/// (HUP, INT, QUIT, TERM, USR1, USR2, TSTP, CONT, WINCH) go to the command instead; of several
/// containers that one process runs at once, to that of the first. A process that takes signals by
/// [`crate::sys::signal`] cannot do this, too.
///
/// # Errors
/// What kept the container from starting; `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` for a `spec`
/// that makes no sense.
pub fn run(spec: &Spec) -> Result<Status> {
    let prepared = Prepared::new(spec)?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("plyfs-container".to_owned());
        let thread = thread.spawn_scoped(scope, || supervise::run(spec, &prepared));
        let thread = thread.context(|| "starting a thread")?;
        thread.join().unwrap_or_else(|_| Err(crate::bug!("the container's thread panicked")))
    })
}

/// What can be known before anything is done.
#[derive(Debug)]
struct Prepared {
    identity: user::Identity,
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    directory: PathBuf,
}

impl Prepared {
    fn new(spec: &Spec) -> Result<Self> {
        let invalid = |why: &str| Err(Error::new(Errno::EINVAL, why));
        if !(1..=MAX_HOSTNAME).contains(&spec.hostname.len()) || spec.hostname.contains('\0') {
            return invalid("hostname: has to have 1 to 64 bytes");
        }
        let root = Root::open(&spec.root)?;
        if root.is(Root::open(Path::new("/"))?.as_fd())? {
            return invalid("the root of a container cannot be the host's");
        }
        if let Some(bind) = spec.binds.iter().find(|bind| config::is_reserved(&bind.container)) {
            return invalid(&format!("{}: that place is taken", shown(&bind.container)));
        }
        let identity = user::resolve(&root, spec.user.as_deref().unwrap_or_default())?;
        let mut environment = spec.env.clone();
        if config::value(&environment, "HOME").is_none() {
            let home = [b"HOME=", identity.home.as_slice()].concat();
            environment.push(OsString::from_vec(home));
        }
        let name = spec.args.first().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Error::new(Errno::EINVAL, "there is no command to run"))?;
        Ok(Self {
            candidates: candidates(name, config::value(&environment, "PATH"))?,
            arguments: terminated(&spec.args)?,
            environment: terminated(&environment)?,
            directory: Path::new("/").join(&spec.cwd),
            identity,
        })
    }
}

/// The files that a command may be: itself if it has a slash, else one in each directory of `PATH`.
fn candidates(name: &OsStr, path: Option<&OsStr>) -> Result<Vec<CString>> {
    if name.as_bytes().contains(&b'/') {
        return terminated(&[name.to_owned()]);
    }
    let path = path.unwrap_or(OsStr::new(config::DEFAULT_PATH));
    let directories = path.as_bytes().split(|&byte| byte == b':').filter(|dir| !dir.is_empty());
    let joined = |dir| Path::new(OsStr::from_bytes(dir)).join(name).into_os_string();
    terminated(&directories.map(joined).collect::<Vec<_>>())
}

/// Strings as the kernel takes them.
fn terminated(strings: &[OsString]) -> Result<Vec<CString>> {
    let terminated = |string: &OsString| {
        CString::new(string.as_bytes()).map_err(|_| {
            let why = format!("{}: has a NUL in it", string.as_bytes().escape_ascii());
            Error::new(Errno::EINVAL, why)
        })
    };
    strings.iter().map(terminated).collect()
}
