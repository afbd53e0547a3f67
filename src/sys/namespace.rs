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

/// Calls `work` in a thread that has a table of descriptors of its own. Whoever closes any
/// descriptor of a file lets go of all record locks (fcntl(2)) that are held by the same table on
/// that file, through whichever descriptor: what others in this process hold stays theirs.
///
/// # Errors
/// Those of `work`, and of unshare(2).
pub fn with_own_descriptors<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let apart = || {
        // SAFETY: descriptors that other threads open or close from now on mean nothing here, and
        // `work` uses none that it has not opened itself.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES) }?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(apart).join())
        .unwrap_or_else(|_| Err(crate::bug!("a thread has panicked")))
}
