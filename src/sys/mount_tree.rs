//! Mounts as descriptors: made and cloned where nobody sees them, given their attributes, and only
//! then attached, at a place that is a descriptor, too. No path is looked up twice.
//!
//! Nothing here allocates as long as nothing fails and strings come as `CStr`: the first process
//! of a container calls it between fork and exec.

use std::ffi::CStr;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};
use rustix::path::Arg;

use super::cvt;
use crate::errno::Result;

/// What is to change about a mount.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Attributes to switch on.
    pub set: MountAttrFlags,
    /// Attributes to switch off.
    pub clear: MountAttrFlags,
    /// Mounts made elsewhere do not show up here, nor the other way round.
    pub private: bool,
    /// The mounts below change, too.
    pub recursive: bool,
}

impl Change {
    /// Switches these attributes on, of this mount only.
    pub fn set(set: MountAttrFlags) -> Self {
        Self { set, clear: MountAttrFlags::empty(), private: false, recursive: false }
    }
}

/// A new filesystem of the type `kind`, mounted nowhere yet.
pub fn new_filesystem(
    kind: &CStr,
    options: &[(&CStr, &CStr)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Shown as its source, where df(1) looks.
    rustix::mount::fsconfig_set_string(&context, c"source", kind)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&context, *key)?;
        } else {
            rustix::mount::fsconfig_set_string(&context, *key, *value)?;
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A clone of the mount that `path` (from `dir`) lies on, with `path` as its root, mounted nowhere
/// yet; with the mounts below it if `recursive`. Follows symbolic links.
///
/// # Errors
/// `EINVAL` if it lies in another mount namespace than this thread.
pub fn cloned(dir: BorrowedFd<'_>, path: impl Arg, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    flags |= OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(dir, path, flags)?)
}

/// Changes the attributes of the mount whose root `mount` is.
pub fn change(mount: BorrowedFd<'_>, change: Change) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: change.set.bits().into(),
        attr_clr: change.clear.bits().into(),
        propagation: if change.private { libc::MS_PRIVATE } else { 0 },
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if change.recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a terminated string, and the structure is of the size that is passed.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(&attr),
            size_of::<libc::mount_attr>(),
        )
    };
    cvt(returned).map(drop)
}

/// Mounts what [`new_filesystem`] or [`cloned`] made on the object that `target` has open.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", target, c"", flags)?)
}

/// Keeps what this mount namespace does from the one it was copied from.
pub fn turn_away_from_host() -> Result<()> {
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change(c"/", flags)?)
}

/// Makes the root of an attached mount the root directory of this thread's mount namespace. All
/// that was mounted there before is still there, out of the way of any path, until
/// [`leave_old_root`].
pub fn enter(root: BorrowedFd<'_>) -> Result<()> {
    rustix::process::fchdir(root)?;
    // The old root ends up on top of the new one, where "." finds it.
    rustix::process::pivot_root(c".", c".")?;
    Ok(rustix::process::chdir(c"/")?)
}

/// Lets go of all that was mounted before [`enter`]. In a user namespace, /proc can be mounted only
/// before that: where no other shows all of it, the kernel takes it for hidden (`EPERM`).
pub fn leave_old_root() -> Result<()> {
    rustix::process::chdir(c"/")?;
    Ok(rustix::mount::unmount(c".", UnmountFlags::DETACH)?)
}
