//! The file of the running program, kept from those who run what is not trusted.
//!
//! Whatever a container executes first is executed by a process of this program, in which
//! `/proc/self/exe` is the program's own file, on the host. A container that names that (as a
//! command, or behind `#!`) runs it, and as root could open the file by that link and change it:
//! CVE-2019-5736 of runc. So the program that starts containers runs from a view of its file that
//! nobody can write through: a clone of the file's mount, read-only and mounted nowhere, or where
//! that may not be had a sealed copy in memory. Both end with the last process that runs from them.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{CWD, MemfdFlags, OFlags, SealFlags, StatVfsMountFlags};
use rustix::mount::MountAttrFlags;

use super::last_errno;
use super::mount_tree::{self, Change};
use crate::errno::{Context, Errno, Error, Result};

/// The file of the program that this process runs.
const OWN: &str = "/proc/self/exe";
/// What this process is called, which the kernel would make of the descriptor's number.
const NAME: &std::ffi::CStr = c"plyfs";
/// What keeps a memfd as it is.
const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);
/// Lets a memfd be executed where that is not the rule (Linux 6.3; unknown before).
const MFD_EXEC: u32 = 0x10;

/// Returns in a process whose program nobody can change by way of this process: this one, if that
/// is so, else the program begins anew with the same arguments. To be called before anything was
/// done, and while there is only one thread.
///
/// # Errors
/// What keeps it from being so: the program must not go on to what is not trusted.
pub fn shield() -> Result<()> {
    let what = || "keeping the program's own file from the container";
    let own = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty())
        .context(what)?;
    if is_shielded(&own)? {
        return Ok(rustix::thread::set_name(NAME)?);
    }
    let view = read_only().or_else(|error| {
        tracing::debug!(%error, "no read-only view of the program; copying it");
        sealed_copy(&own)
    });
    let view = view.context(what)?;
    // Else it would begin anew for ever.
    if !is_shielded(&view)? {
        return Err(Error::new(Errno::EPERM, "a read-only view of it is writable")).context(what);
    }
    Err(execute(&view)).context(what)
}

/// Whether nothing can be changed through `program`, whoever opens it again.
fn is_shielded(program: &OwnedFd) -> Result<bool> {
    // What is no memfd has no seals.
    if rustix::fs::fcntl_get_seals(program).is_ok_and(|seals| seals.contains(SEALS)) {
        return Ok(true);
    }
    Ok(rustix::fs::fstatvfs(program)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// A clone of the mount of the program's file, read-only.
fn read_only() -> Result<OwnedFd> {
    let mount = mount_tree::cloned(CWD, OWN, false)?;
    let change = Change { private: true, ..Change::set(MountAttrFlags::MOUNT_ATTR_RDONLY) };
    mount_tree::change(mount.as_fd(), change)?;
    Ok(mount)
}

/// A copy of the program in memory that nobody can change.
fn sealed_copy(own: &OwnedFd) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let executable = flags | MemfdFlags::from_bits_retain(MFD_EXEC);
    let copy = rustix::fs::memfd_create(NAME, executable)
        .or_else(|_| rustix::fs::memfd_create(NAME, flags))?;
    let size = u64::try_from(rustix::fs::fstat(own)?.st_size).unwrap_or(0);
    let mut left = size;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        match rustix::fs::sendfile(&copy, own, None, most) {
            Ok(0) => return Err(Error::new(Errno::EIO, "the program's file has become shorter")),
            Ok(done) => left -= done as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    rustix::fs::fcntl_add_seals(&copy, SEALS)?;
    Ok(copy)
}

/// Executes a program with this process's arguments and environment; why it could not be.
fn execute(program: &OwnedFd) -> Error {
    let terminated = |word: OsString| CString::new(word.as_bytes()).map_err(|_| Errno::EINVAL);
    let Ok(words) = std::env::args_os().map(terminated).collect::<std::result::Result<Vec<_>, _>>()
    else {
        return Errno::EINVAL.into();
    };
    let ends = std::iter::once(std::ptr::null());
    let arguments: Vec<_> = words.iter().map(|word| word.as_ptr()).chain(ends).collect();
    let settings = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        terminated(name)
    });
    let Ok(settings) = settings.collect::<std::result::Result<Vec<_>, _>>() else {
        return Errno::EINVAL.into();
    };
    let ends = std::iter::once(std::ptr::null());
    let environment: Vec<_> = settings.iter().map(|word| word.as_ptr()).chain(ends).collect();
    // SAFETY: a terminated path, and two lists of terminated strings that end with a null pointer.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last_errno().into()
}

#[cfg(test)]
mod tests;
