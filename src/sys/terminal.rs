//! The terminal that plyfs was started from, lent to what runs in a container.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

use rustix::process::Pid;

use crate::errno::Result;

/// The controlling terminal, whose foreground the container's command has taken.
#[derive(Debug)]
pub struct Terminal {
    /// This process's group.
    own: Pid,
    /// The group in the container that had the foreground when it was last taken back.
    lent: Option<Pid>,
    /// Whether the container has the foreground.
    away: bool,
}

impl Terminal {
    /// The controlling terminal, if standard input and output are both it and we are in its
    /// foreground. Then what runs in a container may take the foreground: it is no part of a
    /// pipeline whose other parts would lose it.
    pub fn ours() -> Option<Self> {
        let (own, session) = (own_group()?, own_session()?);
        let is_ours = |fd: BorrowedFd<'_>| {
            rustix::termios::isatty(fd)
                && session_of(fd) == Some(session)
                && rustix::termios::tcgetpgrp(fd).ok() == Some(own)
        };
        let ours = is_ours(rustix::stdio::stdin()) && is_ours(rustix::stdio::stdout());
        ours.then_some(Self { own, lent: None, away: true })
    }

    /// Takes the foreground, noting who in the container had it; nothing if the shell has it. The
    /// thread must have `SIGTTOU` blocked.
    pub fn take_back(&mut self) -> Result<()> {
        if !self.away {
            return Ok(());
        }
        // An error tells that the group that had it is no more.
        if let Ok(holder) = rustix::termios::tcgetpgrp(rustix::stdio::stdin()) {
            self.lent = Some(holder).filter(|holder| *holder != self.own).or(self.lent);
        }
        self.away = false;
        Ok(rustix::termios::tcsetpgrp(rustix::stdio::stdin(), self.own)?)
    }

    /// Gives the foreground to whom it was taken from, if it is ours to give: not while the shell
    /// runs us in the background.
    pub fn lend_again(&mut self) -> Result<()> {
        let input = rustix::stdio::stdin();
        if let Some(group) = self.lent
            && !self.away
            && rustix::termios::tcgetpgrp(input).ok() == Some(self.own)
        {
            rustix::termios::tcsetpgrp(input, group)?;
            self.away = true;
        }
        Ok(())
    }
}

/// The group of this process; `None` if it was made outside of this pid namespace, where it has no
/// number. The calls of rustix take it for granted that there is one.
fn own_group() -> Option<Pid> {
    // SAFETY: no memory is involved.
    number(unsafe { libc::getpgrp() })
}

/// The session of this process; `None` as for the group.
fn own_session() -> Option<Pid> {
    // SAFETY: no memory is involved.
    number(unsafe { libc::getsid(0) })
}

/// The session whose terminal `fd` is; `None` if it is nobody's, or as for the group.
fn session_of(fd: BorrowedFd<'_>) -> Option<Pid> {
    // SAFETY: no memory is involved.
    number(unsafe { libc::tcgetsid(fd.as_raw_fd()) })
}

/// What a call returned, if it is the number of anything.
fn number(returned: libc::pid_t) -> Option<Pid> {
    if returned > 0 { Pid::from_raw(returned) } else { None }
}

/// The path of the terminal that standard input, output or error is open on, as the host has it.
pub fn path() -> Option<PathBuf> {
    [0, 1, 2]
        .iter()
        .zip([rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()])
        .find(|(_, fd)| rustix::termios::isatty(fd))
        .and_then(|(number, _)| std::fs::read_link(format!("/proc/self/fd/{number}")).ok())
        .filter(|path| path.starts_with("/dev"))
}
