//! From the second fork to the command. Only system calls here: see above.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{Access, AtFlags, CWD, Gid, Uid};

use super::super::{cvt, last_errno};
use super::first::{At, Failed, end, fail};
use super::{NOT_STARTED, Plan, Pointers, Step, encode, set_mask, tell};
use crate::errno::{Errno, Result};

/// The exit code of a command that could not be started; nobody looks at it.
const NO_COMMAND: libc::c_int = 127;

/// Becomes the command.
pub(super) fn run(
    plan: &Plan,
    arguments: &Pointers<'_>,
    environment: &Pointers<'_>,
    socket: BorrowedFd<'_>,
) {
    if let Err(failed) = prepare(plan) {
        fail(failed, socket);
    }
    let (errno, found) = execute(&plan.candidates, arguments, environment);
    tell(socket, encode(NOT_STARTED, found.into(), errno.raw()));
    end(NO_COMMAND);
}

fn prepare(plan: &Plan) -> std::result::Result<(), Failed> {
    rustix::process::setpgid(None, None).at(Step::Session)?;
    if plan.foreground {
        let own = rustix::process::getpid();
        rustix::termios::tcsetpgrp(rustix::stdio::stdin(), own).at(Step::Foreground)?;
    }
    // Before the change of user: the image decides where its command starts.
    rustix::process::chdir(plan.directory.as_c_str()).at(Step::Directory)?;
    if let Some(groups) = &plan.groups {
        rustix::thread::set_thread_groups(groups).at(Step::Groups)?;
    }
    let gid = Gid::from_raw(plan.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).at(Step::Group)?;
    let uid = Uid::from_raw(plan.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).at(Step::User)?;
    // All but the standard streams close with the exec.
    let flag = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: marks descriptors; none is closed while somebody uses it.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, flag) };
    cvt(marked).at(Step::Descriptors)?;
    default_signals().at(Step::Signals)
}

/// Lets the command have signals as a shell would leave them to it. What was ignored stays so,
/// SIGPIPE excepted, which is ignored in every Rust program.
fn default_signals() -> Result<()> {
    // SAFETY: the default disposition is no code of ours.
    if unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) } == libc::SIG_ERR {
        return Err(last_errno().into());
    }
    // SAFETY: all zeroes are the empty set.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    set_mask(&none)
}

/// Tries one candidate after the other, as execvp(3) does. Why none did, and whether one exists.
fn execute(
    candidates: &[std::ffi::CString],
    arguments: &Pointers<'_>,
    environment: &Pointers<'_>,
) -> (Errno, bool) {
    let (mut worst, mut found) = (Errno::ENOENT, false);
    for candidate in candidates {
        let path = candidate.as_ptr();
        // SAFETY: a terminated string and two lists of such, each ended by a null pointer.
        unsafe { libc::execve(path, arguments.as_ptr(), environment.as_ptr()) };
        match last_errno() {
            Errno::ENOENT | Errno::ENOTDIR => {
                // The file that is missing may be the interpreter that this one names.
                if exists(candidate) {
                    return (Errno::ENOENT, true);
                }
            }
            // Another directory may have one that may be executed.
            Errno::EACCES => (worst, found) = (Errno::EACCES, true),
            errno => return (errno, true),
        }
    }
    (worst, found)
}

fn exists(path: &CStr) -> bool {
    rustix::fs::accessat(CWD, path, Access::EXISTS, AtFlags::EACCESS).is_ok()
}
