//! The kernel, asked by system calls: the only room with `unsafe` in it, and the only one that
//! reads `errno`.
#![allow(unsafe_code, reason = "this is the room for it")]

pub mod clone;
pub mod daemon;
pub mod fuse_device;
pub mod fuse_mount;
pub mod handle;
pub mod limits;
pub mod mapping;
pub mod mount_tree;
pub mod mountinfo;
pub mod namespace;
pub mod object;
pub mod pid1;
pub mod process;
pub mod program;
pub mod relay;
pub mod signal;
pub mod terminal;
pub mod usage;
pub mod xattr;

use crate::errno::{Errno, Result};

/// What a raw system call returned: its value, or the error it left in `errno`.
fn cvt(returned: libc::c_long) -> Result<usize> {
    usize::try_from(returned).map_err(|_| last_errno().into())
}

/// The error of the system call that this thread made last.
#[allow(clippy::disallowed_methods, reason = "this is where errno is read")]
fn last_errno() -> Errno {
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
