//! Signals that this process hears for another: written by a handler into a pipe, read from there
//! and passed on. A handler is the one way that works whatever threads the process has and
//! whichever of them blocks what.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::pipe::PipeFlags;

use super::cvt;
use crate::errno::Result;

/// The signals that are passed on.
const PASSED_ON: [i32; 9] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGTSTP,
    libc::SIGWINCH,
];

/// The signal that lets a stopped process go on.
pub const CONTINUE: u8 = libc::SIGCONT.to_le_bytes()[0];

/// The end of the pipe that the handler writes to; -1 before there is one. The pipe is made once
/// and never closed: a handler may be about to write to it at any time.
static SINK: AtomicI32 = AtomicI32::new(-1);
static PIPE: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();
/// There is one relay at a time.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// A signal that this process got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its number.
    pub signal: u8,
    /// Whether it was the terminal that sent it, to all of the foreground, rather than a process.
    pub from_terminal: bool,
}

/// Hears signals until it is dropped.
#[derive(Debug)]
pub struct Relay {
    source: BorrowedFd<'static>,
    previous: Vec<(i32, libc::sigaction)>,
}

/// Runs in whichever thread the signal hit, between any two of its instructions.
extern "C" fn on_signal(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid siginfo_t to a handler installed with SA_SIGINFO.
    let code = unsafe { (*info).si_code };
    let message = [u8::try_from(signal).unwrap_or(0), u8::from(code == libc::SI_KERNEL)];
    let sink = SINK.load(Ordering::Relaxed);
    if sink >= 0 {
        // SAFETY: the pipe is never closed.
        let sink = unsafe { BorrowedFd::borrow_raw(sink) };
        // A full pipe holds thousands of signals that nobody took: one more makes no difference.
        // The call is a bare system call, which leaves the thread's errno alone.
        rustix::io::write(sink, &message).unwrap_or_default();
    }
}

impl Relay {
    /// Hears the signals from now on, in the place of what the process did about them; those that
    /// it ignores, as under nohup(1), stay ignored. `None` if another relay hears them.
    pub fn install() -> Result<Option<Self>> {
        let (source, sink) = pipe()?;
        if TAKEN.swap(true, Ordering::AcqRel) {
            return Ok(None);
        }
        SINK.store(sink.as_raw_fd(), Ordering::Relaxed);
        let mut relay = Self { source: source.as_fd(), previous: Vec::new() };
        while relay.next().is_some() {}
        for signal in PASSED_ON {
            let previous = disposition(signal)?;
            if previous.sa_sigaction != libc::SIG_IGN {
                hear(signal)?;
                relay.previous.push((signal, previous));
            }
        }
        Ok(Some(relay))
    }

    /// The next signal that was heard, if there is one.
    pub fn next(&self) -> Option<Heard> {
        let mut message = [0_u8; 2];
        match rustix::io::read(self.source, &mut message) {
            Ok(2) => Some(Heard { signal: message[0], from_terminal: message[1] != 0 }),
            _ => None,
        }
    }

    /// Stops this process (all of its group if `group`) as the terminal would have, had it no
    /// relay. Returns when something lets it go on, or at once where stopping has no effect since
    /// no shell controls this job.
    pub fn stop_ourselves(&self, group: bool) -> Result<()> {
        let signal = libc::SIGTSTP;
        let Some((_, previous)) = self.previous.iter().find(|(number, _)| *number == signal) else {
            return Ok(());
        };
        if group {
            // The others first, and only them: which of our threads would take it, and when,
            // nobody could tell.
            set_disposition(signal, &libc::sigaction { sa_sigaction: libc::SIG_IGN, ..*previous })?;
            // SAFETY: sends a signal; no memory is involved.
            cvt(unsafe { libc::kill(0, signal) }.into())?;
        }
        set_disposition(signal, previous)?;
        // SAFETY: sends a signal to this thread, which stops the process before it returns.
        cvt(unsafe { libc::raise(signal) }.into())?;
        hear(signal)
    }
}

impl AsFd for Relay {
    /// Readable when there is a signal to take.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        for (signal, previous) in &self.previous {
            // Cannot fail: the same call with the same number has succeeded.
            set_disposition(*signal, previous).unwrap_or_default();
        }
        TAKEN.store(false, Ordering::Release);
    }
}

/// Lets the handler have a signal.
fn hear(signal: i32) -> Result<()> {
    let mut action = disposition(signal)?;
    action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    set_disposition(signal, &action)
}

/// The one pipe: where to read, where to write.
fn pipe() -> Result<&'static (OwnedFd, OwnedFd)> {
    if PIPE.get().is_none() {
        let ends = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Somebody else's may be there by now; then this one is closed again.
        drop(PIPE.set(ends));
    }
    PIPE.get().ok_or_else(|| crate::errno::Errno::EIO.into())
}

/// What the process does about a signal.
fn disposition(signal: i32) -> Result<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action is allowed, and the old one is written to valid memory.
    let returned = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    cvt(returned.into())?;
    // SAFETY: all zeroes are a valid sigaction, and the call wrote one over them.
    Ok(unsafe { action.assume_init() })
}

/// Sets what the process does about a signal.
fn set_disposition(signal: i32, action: &libc::sigaction) -> Result<()> {
    // SAFETY: the action is initialized; its handler, if it is ours, does nothing but write(2).
    let returned = unsafe { libc::sigaction(signal, action, std::ptr::null_mut()) };
    cvt(returned.into()).map(drop)
}
