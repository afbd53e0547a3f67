//! A private, read-only view of a directory: a clone of its mount that is mounted nowhere. Nothing
//! that happens through its descriptor can change what lies there.

use std::ffi::CString;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;

use super::cvt;
use crate::errno::{Errno, Result};

/// Clones the mount that `path` lies on and returns a descriptor of `path` in the clone, which is
/// read-only. Without privileges over the mount namespace: `EPERM`.
pub fn read_only(path: &Path) -> Result<OwnedFd> {
    read_only_by(path, cloned)
}

/// As [`read_only`], but where the mount shifts ids (an id-mapped one), the clone does not: owners
/// are those that the filesystem has.
///
/// # Errors
/// `ENOSYS` before Linux 6.15.
pub fn read_only_unshifted(path: &Path) -> Result<OwnedFd> {
    read_only_by(path, cloned_unshifted)
}

fn read_only_by(
    path: &Path,
    clone: impl Fn(&Path, OpenTreeFlags) -> Result<OwnedFd>,
) -> Result<OwnedFd> {
    // Mounts below the directory are left out where they may be; in a user namespace some are
    // locked to it, and only the whole tree can be had.
    for recursive in [OpenTreeFlags::empty(), OpenTreeFlags::AT_RECURSIVE] {
        let made = clone(path, recursive).and_then(|fd| protected(fd, !recursive.is_empty()));
        if made.is_ok() || !recursive.is_empty() {
            return made;
        }
    }
    Err(crate::bug!("the last attempt is returned"))
}

fn cloned(path: &Path, recursive: OpenTreeFlags) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive;
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

/// As [`cloned`], without an id map.
fn cloned_unshifted(path: &Path, recursive: OpenTreeFlags) -> Result<OwnedFd> {
    /// `open_tree_attr`, the same number everywhere.
    const OPEN_TREE_ATTR: libc::c_long = 467;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive;
    let attr = libc::mount_attr {
        attr_set: 0,
        attr_clr: libc::MOUNT_ATTR_IDMAP,
        propagation: 0,
        userns_fd: 0,
    };
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the path is a terminated string, and the structure is of the size that is passed.
    let returned = unsafe {
        libc::syscall(
            OPEN_TREE_ATTR,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags.bits(),
            std::ptr::from_ref(&attr),
            size_of::<libc::mount_attr>(),
        )
    };
    let fd = i32::try_from(cvt(returned)?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the call has just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a clone read-only.
fn protected(fd: OwnedFd, recursive: bool) -> Result<OwnedFd> {
    let mut attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOATIME,
        attr_clr: libc::MOUNT_ATTR__ATIME,
        propagation: 0,
        userns_fd: 0,
    };
    if set(&fd, &attr, recursive).is_err() {
        // How access times are kept may be locked by the owner of the mount.
        attr.attr_set = libc::MOUNT_ATTR_RDONLY;
        attr.attr_clr = 0;
        set(&fd, &attr, recursive)?;
    }
    Ok(fd)
}

fn set(fd: &OwnedFd, attr: &libc::mount_attr, recursive: bool) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a terminated string, and the structure is of the size that is passed.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    cvt(returned).map(drop)
}
