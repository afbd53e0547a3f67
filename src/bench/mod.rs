//! Copy-on-write, measured: what reading, changing and mounting cost on plyfs, on the kernel's
//! overlayfs, on fuse-overlayfs and on a plain directory, on this machine.
//!
//! A [`workload`] does something to a tree, checks afterwards that it has happened, and says how
//! long it took; a [`target`] is a way to have such a tree. The [`plan`] lets all targets do a
//! workload in turn, each on fresh directories, round after round, and [`results`] holds every
//! single value. [`report`] and [`compare`] say what follows from them; what can be said at all is
//! in [`stats`].

pub mod compare;
pub mod fixture;
pub mod machine;
pub mod place;
pub mod plan;
pub mod report;
pub mod results;
pub mod site;
pub mod stats;
pub mod target;
pub mod workload;

use std::fs::{File, OpenOptions};
use std::path::Path;

use crate::errno::{Errno, Error, Result};

/// What went wrong, where no system call has said it.
fn failed(why: impl Into<String>) -> Error {
    Error::new(Errno::EIO, why)
}

/// What a workload cannot do here, which is no fault of what it is done to.
fn cannot(why: impl Into<String>) -> Error {
    Error::new(Errno::EOPNOTSUPP, why)
}

/// Fails unless what a workload did is what is seen afterwards.
fn check(seen: bool, what: impl FnOnce() -> String) -> Result<()> {
    if seen { Ok(()) } else { Err(failed(format!("wrong result: {}", what()))) }
}

/// Opens a file for reading, by its path: that is what a program would do.
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).open(path)
}
