//! The first process of a container, and the command that it starts.
//!
//! The command is not process 1 itself: the kernel withholds from that one every signal it has no
//! handler for, so that a plain `sleep` could not be interrupted. Process 1 is a fork of plyfs
//! that mounts what only the new pid namespace can mount (/proc), lets go of the host's root, gives
//! up its privileges, starts the command, passes signals on to it, reaps whatever processes end,
//! and ends with the command, and everything else in the container with it.
//!
//! The caller may have threads: between fork and exec there are only system calls, on memory that
//! was laid out before. Nothing there allocates, locks or panics; errors travel as numbers.
//!
//! One socket joins both sides. Process 1 hears from it which signals to pass on, and ends when
//! the other end is closed, which is when plyfs has died; the kernel kills it then, too
//! (`PR_SET_PDEATHSIG`), but would forget to if plyfs had died before that was asked for.

mod command;
mod first;
mod procfs;

use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Gid;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, WaitOptions};

use super::cvt;
use crate::errno::{Context, Errno, Error, Result};

/// What is to run, and as whom.
#[derive(Debug)]
pub struct Plan {
    /// The files that may be the command, in the order they are tried.
    pub candidates: Vec<CString>,
    /// Its arguments, its name first.
    pub arguments: Vec<CString>,
    /// Its environment, each `NAME=value`.
    pub environment: Vec<CString>,
    /// The directory it starts in.
    pub directory: CString,
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// All groups; `None` where nobody may change them.
    pub groups: Option<Vec<Gid>>,
    /// Where /proc is to be mounted.
    pub proc: OwnedFd,
    /// Whether the command takes the foreground of the terminal that standard input is.
    pub foreground: bool,
}

/// What process 1 tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something before the command failed: what, and why.
    Failed(Step, Errno),
    /// No candidate could be started. `found` if there is such a file all the same: then it is
    /// its interpreter or its loader that is missing.
    NotStarted {
        /// Why.
        errno: Errno,
        /// Whether there was a file of that name.
        found: bool,
    },
    /// The command ended by itself.
    Exited(u8),
    /// A signal ended it.
    Signaled(u8),
    /// A signal stopped it.
    Stopped(u8),
    /// Process 1 is no more.
    Gone,
}

macro_rules! steps {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// What happens between fork and exec, in the words of an error message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the text beside each name says it")]
        pub enum Step { $($name),* }

        impl Step {
            const ALL: &[Self] = &[$(Self::$name),*];

            /// What was being done.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

steps!(
    Descriptors = "closing what the container must not have",
    Session = "a session for the container",
    Proc = "mounting /proc",
    ProcHidden = "hiding parts of /proc",
    ProcReadOnly = "making parts of /proc read-only",
    OldRoot = "letting go of the host's root directory",
    Signals = "taking signals",
    Capabilities = "giving up capabilities",
    Fork = "fork",
    Foreground = "handing over the terminal",
    Directory = "entering the working directory",
    Groups = "taking the user's groups",
    Group = "taking the user's group",
    User = "taking the user",
);

/// How a message begins.
const FAILED: u8 = b'F';
const NOT_STARTED: u8 = b'N';
const EXITED: u8 = b'E';
const SIGNALED: u8 = b'S';
const STOPPED: u8 = b'T';
/// Its length: what it is, a detail, and a number.
const MESSAGE: usize = 6;

/// A running container, seen from outside.
#[derive(Debug)]
pub struct Pid1 {
    pid: Pid,
    socket: OwnedFd,
}

impl Pid1 {
    /// Forks process 1 into the pid namespace that this thread has unshared. The thread has to
    /// live as long as the container: the kernel takes its end for that of its process.
    pub fn start(plan: &Plan) -> Result<Self> {
        let (socket, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let arguments = Pointers::new(&plan.arguments);
        let environment = Pointers::new(&plan.environment);
        let before = block_all()?;
        // SAFETY: the child is kept to system calls on memory laid out before: see above.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            first::run(plan, &arguments, &environment, theirs.as_fd());
        }
        let forked = cvt(pid.into());
        set_mask(&before)?;
        forked.context(|| "fork")?;
        let pid = Pid::from_raw(pid).ok_or(Errno::EIO)?;
        Ok(Self { pid, socket })
    }

    /// Passes a signal on to the command, or to all of its process group. No error if it is gone.
    pub fn signal(&self, signal: u8, group: bool) {
        let message = [signal, u8::from(group)];
        // Who is gone needs no signals; what it said last is still to be read.
        rustix::net::send(&self.socket, &message, SendFlags::NOSIGNAL).unwrap_or_default();
    }

    /// Waits for the next event. After the command has ended there comes nothing but
    /// [`Event::Gone`].
    pub fn event(&self) -> Result<Event> {
        let mut message = [0_u8; MESSAGE];
        let (_, length) = loop {
            match rustix::net::recv(&self.socket, &mut message, RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                // Reset: it died before it had read all that was sent.
                Err(rustix::io::Errno::CONNRESET) => return Ok(Event::Gone),
                result => break result?,
            }
        };
        if length == 0 { Ok(Event::Gone) } else { decode(message) }
    }

    /// Waits until process 1, and with it all of the container, has ended. The signal that ended
    /// it, if it was one.
    pub fn wait(self) -> Result<Option<u8>> {
        drop(self.socket);
        loop {
            match rustix::process::waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                // A process that ignores SIGCHLD is told nothing of its children.
                Err(rustix::io::Errno::CHILD) => return Ok(None),
                result => {
                    let signal = result?.and_then(|(_, status)| status.terminating_signal());
                    return Ok(signal.and_then(|signal| u8::try_from(signal).ok()));
                }
            }
        }
    }
}

impl AsFd for Pid1 {
    /// Readable when there is an event.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn encode(kind: u8, detail: u8, number: i32) -> [u8; MESSAGE] {
    let [a, b, c, d] = number.to_le_bytes();
    [kind, detail, a, b, c, d]
}

fn decode([kind, detail, a, b, c, d]: [u8; MESSAGE]) -> Result<Event> {
    let number = i32::from_le_bytes([a, b, c, d]);
    let small = u8::try_from(number).unwrap_or(u8::MAX);
    Ok(match (kind, Step::ALL.get(usize::from(detail))) {
        (FAILED, Some(&step)) => Event::Failed(step, Errno::from_raw(number)),
        (NOT_STARTED, _) => {
            Event::NotStarted { errno: Errno::from_raw(number), found: detail != 0 }
        }
        (EXITED, _) => Event::Exited(small),
        (SIGNALED, _) => Event::Signaled(small),
        (STOPPED, _) => Event::Stopped(small),
        _ => return Err(Error::new(Errno::EIO, "process 1 of the container said nonsense")),
    })
}

/// Says something to the other side; it may be gone, and then there is nobody to tell.
fn tell(socket: BorrowedFd<'_>, message: [u8; MESSAGE]) {
    rustix::net::send(socket, &message, SendFlags::NOSIGNAL).unwrap_or_default();
}

/// A list of strings as execve(2) takes it.
struct Pointers<'a> {
    pointers: Vec<*const c_char>,
    strings: std::marker::PhantomData<&'a [CString]>,
}

impl<'a> Pointers<'a> {
    fn new(strings: &'a [CString]) -> Self {
        let ends = std::iter::once(std::ptr::null());
        let pointers = strings.iter().map(|string| string.as_ptr()).chain(ends).collect();
        Self { pointers, strings: std::marker::PhantomData }
    }

    fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// All signals there are.
fn all_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for a sigset_t, which the call initializes.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: initialized by sigfillset, which cannot fail on a valid pointer.
    unsafe { set.assume_init() }
}

/// Holds all signals back in this thread; the mask it had before.
fn block_all() -> Result<libc::sigset_t> {
    let all = all_signals();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: one set is initialized, the other is valid memory that the call writes.
    let error =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, before.as_mut_ptr()) };
    if error != 0 {
        return Err(Errno::from_raw(error).into());
    }
    // SAFETY: written by the call, which has succeeded.
    Ok(unsafe { before.assume_init() })
}

/// Sets which signals this thread holds back.
fn set_mask(mask: &libc::sigset_t) -> Result<()> {
    // SAFETY: the set is initialized; a null old set is allowed.
    let error = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
    if error == 0 { Ok(()) } else { Err(Errno::from_raw(error).into()) }
}

/// Lets this thread take all signals but `SIGTTOU`, which would stop a process that hands on a
/// terminal from the background.
pub fn hear_all_but_terminal_output() -> Result<()> {
    let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for a sigset_t, which the call initializes.
    unsafe { libc::sigemptyset(mask.as_mut_ptr()) };
    // SAFETY: the set is initialized, and the signal's number a valid one.
    unsafe { libc::sigaddset(mask.as_mut_ptr(), libc::SIGTTOU) };
    // SAFETY: initialized by sigemptyset, which cannot fail on a valid pointer.
    set_mask(&unsafe { mask.assume_init() })
}
