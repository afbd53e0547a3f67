//! A private, read-only view of a directory: a clone of its mount that is mounted nowhere. Nothing
//! that happens through its descriptor can change what lies there.

use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;

use super::cvt;
use crate::errno::Result;

/// Clones the mount that `path` lies on and returns a descriptor of `path` in the clone, which is
/// read-only. Without privileges over the mount namespace: `EPERM`.
pub fn read_only(path: &Path) -> Result<OwnedFd> {
    // Mounts below the directory are left out where they may be; in a user namespace some are
    // locked to it, and only the whole tree can be had.
    match cloned(path, OpenTreeFlags::empty()) {
        Ok(fd) => Ok(fd),
        Err(_) => cloned(path, OpenTreeFlags::AT_RECURSIVE),
    }
}

fn cloned(path: &Path, recursive: OpenTreeFlags) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive;
    let fd = rustix::mount::open_tree(CWD, path, flags)?;
    let recursive = !recursive.is_empty();
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
