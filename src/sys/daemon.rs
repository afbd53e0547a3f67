//! Serving on in the background: the process that was started returns when the one that serves is
//! ready, or says why it is not.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

use super::cvt;
use crate::errno::{Context, Errno, Error, Result};

/// Who one is after [`fork`].
#[derive(Debug)]
pub enum Forked {
    /// The process that was started.
    Parent(Waiter),
    /// The one that serves.
    Child(Ready),
}

/// The parent's end: waits for the child to be ready.
#[derive(Debug)]
pub struct Waiter(OwnedFd);

/// The child's end: tells the parent.
#[derive(Debug)]
pub struct Ready {
    pipe: OwnedFd,
    parent: rustix::process::Pid,
    /// Open from the beginning: its path may lead into the mount when that is ready.
    null: OwnedFd,
}

/// What the child writes first when it is ready, and when it failed.
const READY: u8 = b'+';
const FAILED: u8 = b'-';

/// Makes a child in a session of its own, in which only `keep` and the standard streams are open.
/// There must be no other threads yet.
#[allow(clippy::disallowed_methods, reason = "the errno of the call right before")]
pub fn fork(keep: &[BorrowedFd<'_>]) -> Result<Forked> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let parent = rustix::process::getpid();
    // SAFETY: this process has one thread, so the child's copy of every lock is free and its
    // allocator usable; both go on as ordinary processes.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(Error::from(std::io::Error::last_os_error())).context(|| "fork"),
        0 => {
            drop(reader);
            rustix::process::setsid()?;
            close_inherited(writer.as_fd(), keep)?;
            let null = null()?;
            Ok(Forked::Child(Ready { pipe: writer, parent, null }))
        }
        _ => {
            drop(writer);
            Ok(Forked::Parent(Waiter(reader)))
        }
    }
}

/// A child that waits for the end of this process; it is told how that was.
#[derive(Debug)]
#[must_use = "dropped, it means that this process has failed"]
pub struct Watched(OwnedFd);

impl Watched {
    /// All is well, and nothing is left to be done when this process ends.
    pub fn dismiss(self) {
        // A child that has gone needs no telling.
        rustix::io::write(&self.0, b".").unwrap_or_default();
    }
}

/// Makes a child that calls `then` when this process has ended, however it ended, or has dropped
/// what this returns, unless it was dismissed before. In the child nothing that was open can be
/// used. There must be no other threads yet.
#[allow(clippy::disallowed_methods, reason = "the errno of the call right before")]
pub fn when_ended(then: impl FnOnce() -> Result<()>) -> Result<Watched> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: as in `fork`; the child ends in here, so that nothing of its parent's is dropped.
    match unsafe { libc::fork() } {
        -1 => Err(Error::from(std::io::Error::last_os_error())).context(|| "fork"),
        0 => std::process::exit(match wait_and(writer, reader, then) {
            Ok(()) => 0,
            Err(_) => 1,
        }),
        _ => Ok(Watched(writer)),
    }
}

/// What the child of [`when_ended`] does.
fn wait_and(writer: OwnedFd, reader: OwnedFd, then: impl FnOnce() -> Result<()>) -> Result<()> {
    rustix::process::setsid()?;
    close_inherited(reader.as_fd(), &[])?;
    // It has just been closed.
    std::mem::forget(writer);
    take_nothing(&null()?)?;
    rustix::process::chdir("/")?;
    let mut told = Vec::new();
    std::fs::File::from(reader).read_to_end(&mut told)?;
    if told.is_empty() { then() } else { Ok(()) }
}

/// Reads nothing from standard input, and writes standard output and error nowhere.
fn take_nothing(null: &OwnedFd) -> Result<()> {
    rustix::stdio::dup2_stdin(null)?;
    rustix::stdio::dup2_stdout(null)?;
    Ok(rustix::stdio::dup2_stderr(null)?)
}

fn null() -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, Mode::empty()).context(|| "/dev/null")
}

/// Closes what the caller had open besides the standard streams: a lock or the end of a pipe, held
/// by a process that stays, would make somebody wait for as long as the mount lives. Nothing else
/// that this process has opened may be used afterwards.
fn close_inherited(one: BorrowedFd<'_>, others: &[BorrowedFd<'_>]) -> Result<()> {
    let all = [one].into_iter().chain(others.iter().copied());
    let mut keep: Vec<_> = all.map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    keep.sort_unstable();
    let mut first = 3;
    for kept in keep.into_iter().map(Some).chain([None]) {
        let last = kept.map_or(u32::MAX, |kept| kept.saturating_sub(1));
        if first <= last {
            // SAFETY: whoever owns a descriptor in the range does not use it any more, says the
            // contract; it is not closed a second time, since the child never drops its owner.
            let returned = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) };
            match cvt(returned) {
                // Linux before 5.9.
                Err(error) if error.errno() == Errno::ENOSYS => return Ok(()),
                result => result.map(drop)?,
            }
        }
        first = kept.map_or(u32::MAX, |kept| kept.saturating_add(1)).max(first);
    }
    Ok(())
}

impl Waiter {
    /// Waits until the child is ready. The inner error is what the child said of its failure,
    /// empty if it died without a word.
    pub fn wait(self) -> Result<std::result::Result<(), Vec<u8>>> {
        let mut message = Vec::new();
        std::fs::File::from(self.0).read_to_end(&mut message)?;
        Ok(match message.split_first() {
            Some((&READY, _)) => Ok(()),
            Some((_, text)) => Err(text.to_vec()),
            None => Err(Vec::new()),
        })
    }
}

impl Ready {
    /// Asks for `SIGTERM` when the process that made this one ends, however it ends; `EINTR` if it
    /// has ended already.
    pub fn end_with_parent(&self) -> Result<()> {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
        if rustix::process::getppid() == Some(self.parent) {
            return Ok(());
        }
        Err(Error::new(Errno::EINTR, "the process that started it has ended"))
    }

    /// Lets go of the terminal and of the current directory, then tells the parent that all is
    /// well. Standard error goes to `log` if there is one.
    pub fn ready(self, log: Option<&Path>) -> Result<()> {
        let file = match log {
            Some(log) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(0o600);
                Some(rustix::fs::open(log, flags, mode).context(|| log.display())?)
            }
            None => None,
        };
        take_nothing(&self.null)?;
        if let Some(file) = file {
            rustix::stdio::dup2_stderr(file.as_fd())?;
        }
        rustix::process::chdir("/")?;
        self.tell(&[READY])
    }

    /// Tells the parent why there is nothing to wait for.
    pub fn failed(self, why: &[u8]) -> Result<()> {
        let mut message = vec![FAILED];
        message.extend_from_slice(why);
        self.tell(&message)
    }

    fn tell(self, message: &[u8]) -> Result<()> {
        std::fs::File::from(self.pipe).write_all(message).map_err(|_| Errno::EIO.into())
    }
}
