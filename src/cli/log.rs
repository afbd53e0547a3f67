//! Where the log goes.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags};
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// What is logged unless `$PLYFS_LOG` says otherwise: what is wrong, and what was asked for.
pub(super) const DEFAULT: &str = "warn,plyfs::statistics=info";

/// Where system loggers listen.
const DEV_LOG: &str = "/dev/log";

/// syslog(3)'s number for daemons.
const LOG_DAEMON: u8 = 3 << 3;

/// The system's logger, once a process in the background logs to it.
static SYSTEM: OnceLock<System> = OnceLock::new();

/// How the system's logger is reached, also when it was started anew and has made another socket
/// of that name. The directory is held: its path may lead into our own mount by then, where a
/// lookup would wait for the thread that logs.
#[derive(Debug)]
struct System {
    socket: UnixDatagram,
    dir: OwnedFd,
    name: OsString,
}

impl System {
    fn find(path: &Path) -> std::io::Result<Self> {
        let path = path.canonicalize()?;
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(std::io::ErrorKind::NotFound.into());
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, dir, flags, Mode::empty())?;
        let socket = UnixDatagram::unbound()?;
        // A logger that is behind must not keep a program from its files.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, dir, name: name.to_owned() })
    }

    fn send(&self, line: &[u8]) -> std::io::Result<usize> {
        let dir = format!("/proc/self/fd/{}", self.dir.as_raw_fd());
        self.socket.send_to(line, Path::new(&dir).join(&self.name))
    }
}

/// Where a process in the background logs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sink {
    /// Nowhere.
    Nowhere,
    /// The system's logger.
    System,
    /// The same, if it answers.
    SystemIfAny,
    /// The end of a file, which is made if it is missing.
    File(PathBuf),
}

impl Sink {
    /// What the mount option `log` says, else `$PLYFS_LOG_FILE`; else the system's logger, if there
    /// is one.
    pub(super) fn of(option: Option<&OsStr>) -> Self {
        let variable = std::env::var_os("PLYFS_LOG_FILE").filter(|path| !path.is_empty());
        match option.or(variable.as_deref()).map(|said| (said, said.to_str())) {
            Some((_, Some("none"))) => Self::Nowhere,
            Some((_, Some("syslog"))) => Self::System,
            Some((path, _)) => Self::File(PathBuf::from(path)),
            None if Path::new(DEV_LOG).exists() => Self::SystemIfAny,
            None => Self::Nowhere,
        }
    }

    /// The file, if it is one.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            _ => None,
        }
    }

    /// The system's logger, if that is what this is. To be looked for before anything is mounted:
    /// its path may lead into the mount, which nobody serves yet.
    pub(super) fn find(&self) -> std::io::Result<Logger> {
        let found = match self {
            Self::System => Some(connect()?),
            // Nobody asked for it, so nobody is told that it is not there.
            Self::SystemIfAny => connect().ok(),
            Self::Nowhere | Self::File(_) => None,
        };
        Ok(Logger(found))
    }
}

/// What a process in the background will log to.
#[derive(Debug)]
pub(super) struct Logger(Option<System>);

impl Logger {
    /// From now on the log goes there.
    pub(super) fn begin(self) {
        if let Some(system) = self.0 {
            // The first one is as good.
            SYSTEM.set(system).unwrap_or_default();
        }
    }
}

/// The system's logger.
fn connect() -> std::io::Result<System> {
    // Somebody has to listen.
    UnixDatagram::unbound()?.connect(DEV_LOG)?;
    System::find(Path::new(DEV_LOG))
}

/// Logs to standard error what `$PLYFS_LOG` asks for, else `default`.
pub(super) fn to_stderr(default: &str) {
    let filter = EnvFilter::try_from_env("PLYFS_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Output);
    // Only a second call can fail, and the first one's log is as good.
    subscriber.try_init().unwrap_or_default();
}

/// Standard error or, once it is open, the system's logger.
#[derive(Debug)]
struct Output;

impl<'a> MakeWriter<'a> for Output {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Level::INFO)
    }

    fn make_writer_for(&'a self, what: &Metadata<'_>) -> Line {
        Line(*what.level())
    }
}

/// One line of the log.
#[derive(Debug)]
struct Line(Level);

impl Write for Line {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        let Some(system) = SYSTEM.get() else { return std::io::stderr().write(text) };
        // It may be lost: whoever logs has better things to do than to wait.
        system.send(&datagram(self.0, std::process::id(), text)).unwrap_or_default();
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// A line as syslog(3) sends it.
fn datagram(level: Level, pid: u32, text: &[u8]) -> Vec<u8> {
    let severity = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    };
    let mut line = format!("<{}>plyfs[{pid}]: ", LOG_DAEMON | severity).into_bytes();
    line.extend_from_slice(text.trim_ascii_end());
    line
}

#[cfg(test)]
mod tests;
