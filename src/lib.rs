//! plyfs: a container image's read-only layers, unioned under one writable directory, from user
//! space.
//!
//! Rooms, and who may use whom (downwards only; `tests/tidy.rs` enforces it):
//!
//! ```text
//!     main -> cli
//!     cli -> fuse, union, layer, sys       commands; printing lives here only
//!     fuse -> union -> layer               protocol | layers seen as one | one tree
//!     layer -> sys                         directory, memory, fault-injecting
//!     sys                                  the only unsafe; fd-relative system calls
//!     errno, name, attr                    vocabulary types
//! ```

pub mod attr;
pub mod cli;
pub mod errno;
pub mod fuse;
pub mod layer;
pub mod name;
pub mod sys;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod union;
