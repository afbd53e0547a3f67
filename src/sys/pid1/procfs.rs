//! /proc of a container: its own processes, and nothing by which the machine could be changed.
//! Only system calls here: see above.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::MountAttrFlags;

use super::Step;
use super::first::{At, Failed};
use crate::errno::Result;
use crate::sys::mount_tree::{self, Change};

/// Memory and keys of the machine, and other things that are nobody's business.
const HIDDEN_FILES: [&CStr; 6] =
    [c"kcore", c"keys", c"latency_stats", c"timer_list", c"timer_stats", c"sched_debug"];
const HIDDEN_DIRECTORIES: [&CStr; 3] = [c"acpi", c"asound", c"scsi"];
/// Where writing changes the machine.
const READ_ONLY: [&CStr; 5] = [c"bus", c"fs", c"irq", c"sys", c"sysrq-trigger"];

/// Mounts /proc at `target`. The root directory must be the container's, with its /dev.
pub(super) fn mount(target: BorrowedFd<'_>) -> std::result::Result<(), Failed> {
    let inert = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let hidden = inert | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let proc = mount_tree::new_filesystem(c"proc", &[], inert).at(Step::Proc)?;
    mount_tree::attach(proc.as_fd(), target).at(Step::Proc)?;
    for name in HIDDEN_FILES {
        if let Some(file) = entry(&proc, name) {
            let null = mount_tree::cloned(CWD, c"/dev/null", false).at(Step::ProcHidden)?;
            mount_tree::attach(null.as_fd(), file.as_fd()).at(Step::ProcHidden)?;
        }
    }
    for name in HIDDEN_DIRECTORIES {
        if let Some(directory) = entry(&proc, name) {
            let empty = mount_tree::new_filesystem(c"tmpfs", &[], hidden).at(Step::ProcHidden)?;
            mount_tree::attach(empty.as_fd(), directory.as_fd()).at(Step::ProcHidden)?;
        }
    }
    for name in READ_ONLY {
        if let Some(object) = entry(&proc, name) {
            read_only(object.as_fd()).at(Step::ProcReadOnly)?;
        }
    }
    Ok(())
}

/// An entry of /proc, which holds no symbolic links but its own; not every kernel has all.
fn entry(proc: &OwnedFd, name: &CStr) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(proc, name, flags, Mode::empty()).ok()
}

/// Covers an object with a read-only view of itself.
fn read_only(object: BorrowedFd<'_>) -> Result<()> {
    let clone = mount_tree::cloned(object, c"", true)?;
    let change = Change { recursive: true, ..Change::set(MountAttrFlags::MOUNT_ATTR_RDONLY) };
    mount_tree::change(clone.as_fd(), change)?;
    mount_tree::attach(clone.as_fd(), object)
}
