//! Signals that ask a process to end, taken by a thread of their own.

use std::mem::MaybeUninit;

use crate::errno::{Errno, Error, Result};

/// The signals that ask to end.
const TERMINATION: [i32; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

/// The signal that says that the terminal has gone.
pub const HANGUP: i32 = libc::SIGHUP;

/// The signal that asks how things are.
pub const STATISTICS: i32 = libc::SIGUSR1;

/// Whether a signal asks to end.
pub fn ends(signal: i32) -> bool {
    TERMINATION.contains(&signal)
}

/// The set of [`TERMINATION`] and [`STATISTICS`].
fn termination_set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for a sigset_t, which the call initializes.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialized by sigemptyset, which cannot fail on a valid pointer.
    let mut set = unsafe { set.assume_init() };
    for signal in TERMINATION.into_iter().chain([STATISTICS]) {
        // SAFETY: the set is initialized and the signal number a valid one.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

/// The set of signals that no thread is to take: [`termination_set`], and the one that the kernel
/// sends who writes past `RLIMIT_FSIZE`, which would end the mount instead of the write.
fn blocked_set() -> libc::sigset_t {
    let mut set = termination_set();
    // SAFETY: the set is initialized and the signal number a valid one.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGXFSZ) };
    set
}

/// Holds the termination signals back in this thread and those it starts from now on, until
/// [`on_termination`] takes them.
pub fn block_termination() -> Result<()> {
    let set = blocked_set();
    // SAFETY: the set is initialized; a null old set is allowed.
    let error =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if error == 0 { Ok(()) } else { Err(Errno::from_raw(error).into()) }
}

/// Calls `handler` with the signal's number for each termination signal from now on, and for
/// [`STATISTICS`], in a thread of its own. Threads started before must have been so after
/// [`block_termination`].
pub fn on_termination(mut handler: impl FnMut(i32) + Send + 'static) -> Result<()> {
    block_termination()?;
    std::thread::Builder::new()
        .name("plyfs-signals".to_owned())
        .spawn(move || {
            let set = termination_set();
            loop {
                let mut signal = 0;
                // SAFETY: both point to initialized values that outlive the call.
                if unsafe { libc::sigwait(&raw const set, &raw mut signal) } == 0 {
                    handler(signal);
                }
            }
        })
        .map(drop)
        .map_err(Error::from)
}
