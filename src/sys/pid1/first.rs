//! Process 1: from the fork to the end of the container. Only system calls here: see above.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::net::RecvFlags;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::super::cvt;
use super::{
    EXITED, FAILED, Plan, Pointers, SIGNALED, STOPPED, Step, all_signals, command, encode, procfs,
    tell,
};
use crate::errno::{Errno, Result};
use crate::sys::mount_tree;

/// What root in a container may do: what docker grants. No inheritable ones, so that a program
/// with file capabilities gets none that its user has not.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// `KEYCTL_JOIN_SESSION_KEYRING`
const JOIN_SESSION_KEYRING: libc::c_int = 1;

/// A step that failed.
pub(super) type Failed = (Step, Errno);

/// Names the step in an error.
pub(super) trait At<T> {
    fn at(self, step: Step) -> std::result::Result<T, Failed>;
}

impl<T, E: Into<crate::errno::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, step: Step) -> std::result::Result<T, Failed> {
        self.map_err(|error| (step, error.into().errno()))
    }
}

/// Everything after the fork.
pub(super) fn run(
    plan: &Plan,
    arguments: &Pointers<'_>,
    environment: &Pointers<'_>,
    socket: BorrowedFd<'_>,
) -> ! {
    let prepared = prepare(plan, socket).and_then(|signals| {
        let command = fork(|| command::run(plan, arguments, environment, socket));
        command.at(Step::Fork).map(|command| (signals, command))
    });
    match prepared {
        Ok((signals, command)) => supervise(&signals, command, socket),
        Err(failed) => fail(failed, socket),
    }
}

/// Tells which step failed, and ends.
pub(super) fn fail((step, errno): Failed, socket: BorrowedFd<'_>) -> ! {
    tell(socket, encode(FAILED, step as u8, errno.raw()));
    end(1)
}

/// Ends this process without any of what a program does at its end.
pub(super) fn end(code: libc::c_int) -> ! {
    // SAFETY: never returns, and runs nothing of ours.
    unsafe { libc::_exit(code) }
}

/// Forks; `child` must keep to system calls.
fn fork(child: impl FnOnce()) -> Result<Pid> {
    // SAFETY: this process has one thread, and parent and child keep to system calls.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        child();
        end(1);
    }
    cvt(pid.into())?;
    Pid::from_raw(pid).ok_or_else(|| Errno::EIO.into())
}

/// All that has to be in place before the command starts. Returns the descriptor by which signals
/// are read.
fn prepare(plan: &Plan, socket: BorrowedFd<'_>) -> std::result::Result<OwnedFd, Failed> {
    let step = Step::Session;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).at(step)?;
    rustix::thread::set_name(c"plyfs-init").at(step)?;
    close_all_but(socket, plan.proc.as_fd()).at(Step::Descriptors)?;
    if plan.foreground {
        // The terminal belongs to the session; the foreground will be the command's alone.
        rustix::process::setpgid(None, None).at(step)?;
    } else {
        rustix::process::setsid().at(step)?;
    }
    leave_keyring().at(step)?;
    procfs::mount(plan.proc.as_fd())?;
    mount_tree::leave_old_root().at(Step::OldRoot)?;
    // Whoever is root in the container may not look into this process, nor reach the file of the
    // program that it runs.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(step)?;
    let signals = signals().at(Step::Signals)?;
    drop_capabilities().at(Step::Capabilities)?;
    Ok(signals)
}

/// Closes everything but the standard streams and these two.
fn close_all_but(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<()> {
    let (one, other) = (one.as_raw_fd().cast_unsigned(), other.as_raw_fd().cast_unsigned());
    let (low, high) = (one.min(other), one.max(other));
    let gaps = [
        (3, low.saturating_sub(1)),
        (low.saturating_add(1), high.saturating_sub(1)),
        (high.saturating_add(1), u32::MAX),
    ];
    for (first, last) in gaps {
        if first <= last {
            // SAFETY: nothing in this process uses the descriptors in the range any more.
            cvt(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) })?;
        }
    }
    Ok(())
}

/// Leaves the caller's session keyring, and the secrets in it, behind.
fn leave_keyring() -> Result<()> {
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name makes a new keyring without a name.
    let joined = cvt(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, none) });
    match joined {
        // A kernel without keys, or a sandbox that forbids them: then there is nothing to leave.
        Err(error) if [Errno::ENOSYS, Errno::EPERM].contains(&error.errno()) => Ok(()),
        result => result.map(drop),
    }
}

/// Gives up what root in a container must not be able to do, for good.
fn drop_capabilities() -> Result<()> {
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::capability_is_in_bounding_set(one) {
            // Beyond the last there is.
            Err(_) => break,
            Ok(true) if !KEPT.contains(one) => {
                rustix::thread::remove_capability_from_bounding_set(one)?;
            }
            Ok(_) => {}
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    let kept = rustix::thread::capabilities(None)?.permitted & KEPT;
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// A descriptor to read signals from. All are blocked since before the fork.
fn signals() -> Result<OwnedFd> {
    let all = all_signals();
    // SAFETY: the set is initialized; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC) };
    cvt(fd.into())?;
    // SAFETY: the descriptor is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Passes signals on and reaps, until the command ends or plyfs is gone.
fn supervise(signals: &OwnedFd, command: Pid, socket: BorrowedFd<'_>) -> ! {
    // It does so itself, too; whoever is second changes nothing.
    rustix::process::setpgid(Some(command), Some(command)).unwrap_or_default();
    loop {
        let mut ready =
            [PollFd::new(signals, PollFlags::IN), PollFd::from_borrowed_fd(socket, PollFlags::IN)];
        if rustix::event::poll(&mut ready, None).is_err() {
            continue;
        }
        let [from_signals, from_socket] = ready.map(|fd| !fd.revents().is_empty());
        if from_signals {
            match read_signal(signals) {
                Some((libc::SIGCHLD, _)) => reap(command, socket),
                Some((signal, code)) => pass_on(signal, code == libc::SI_KERNEL, command),
                None => {}
            }
        }
        if from_socket {
            let mut message = [0_u8; 2];
            match rustix::net::recv(socket, &mut message, RecvFlags::empty()) {
                Ok((_, 2)) => pass_on(message[0].into(), message[1] != 0, command),
                Err(rustix::io::Errno::INTR) => {}
                _ => end(1),
            }
        }
    }
}

/// The next signal and where it came from (`si_code`).
fn read_signal(signals: &OwnedFd) -> Option<(i32, i32)> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer is valid for so many bytes.
    let read = unsafe { libc::read(signals.as_raw_fd(), info.as_mut_ptr().cast(), size) };
    // SAFETY: a structure of numbers, all zeroes before the call.
    let info = unsafe { info.assume_init() };
    (usize::try_from(read) == Ok(size)).then_some((info.ssi_signo.cast_signed(), info.ssi_code))
}

/// Sends a signal to the command, or to all of its process group.
fn pass_on(signal: i32, group: bool, command: Pid) {
    let command = command.as_raw_nonzero().get();
    // SAFETY: sends a signal; no memory is involved.
    if !group || unsafe { libc::kill(-command, signal) } != 0 {
        // SAFETY: as above.
        unsafe { libc::kill(command, signal) };
    }
}

/// Takes the statuses of all processes that have one to give.
fn reap(command: Pid, socket: BorrowedFd<'_>) {
    while let Ok(Some((pid, status))) =
        rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED)
    {
        if pid == command {
            report(status, socket);
        }
    }
}

/// Tells what became of the command, and ends if it has ended.
fn report(status: WaitStatus, socket: BorrowedFd<'_>) {
    let ended = [(EXITED, status.exit_status()), (SIGNALED, status.terminating_signal())];
    for (kind, number) in ended {
        if let Some(number) = number {
            tell(socket, encode(kind, 0, number));
            end(0);
        }
    }
    if let Some(signal) = status.stopping_signal() {
        tell(socket, encode(STOPPED, 0, signal));
    }
}
