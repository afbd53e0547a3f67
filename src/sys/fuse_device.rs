//! The descriptors that a FUSE connection is served through.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{cvt, fuse_mount, object};
use rustix::fs::{Mode, OFlags};

use crate::errno::Result;

/// `FUSE_DEV_IOC_CLONE`: `_IOR(229, 0, uint32_t)`.
const CLONE: libc::c_ulong = 0x8004_e500;

/// One more descriptor of a connection, with a queue of its own for what it has read and not yet
/// answered: an answer goes where its request was read.
pub fn cloned(connection: BorrowedFd<'_>) -> Result<OwnedFd> {
    // The device by what we hold, not by its path: that may lead into the mount by now.
    let held = object::proc_path(connection);
    let device = rustix::fs::open(held, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let device = device.or_else(|_| fuse_mount::open_device())?;
    let number = connection.as_raw_fd().cast_unsigned();
    // SAFETY: the argument points to the number of an open descriptor, which the kernel reads.
    let returned = unsafe { libc::ioctl(device.as_raw_fd(), CLONE, std::ptr::from_ref(&number)) };
    cvt(returned.into())?;
    Ok(device)
}
