//! The kernel, asked by system calls: the only room with `unsafe` in it, and the only one that
//! reads `errno`.
#![allow(unsafe_code, reason = "this is the room for it")]

pub mod daemon;
pub mod fuse_mount;
pub mod limits;
pub mod mountinfo;
pub mod process;
pub mod signal;
