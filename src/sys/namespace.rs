//! Namespaces of one's own.

use rustix::thread::UnshareFlags;

use crate::errno::Result;

/// Gives this thread, and no other of this process, mount, uts and ipc namespaces, a current
/// directory and a umask of its own; the next process it makes is the first of a new pid
/// namespace. It must not start threads any more.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn unshare() -> Result<()> {
    let flags = UnshareFlags::FS
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWPID;
    // SAFETY: descriptors stay shared; nothing in this process depends on what is given up.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}
