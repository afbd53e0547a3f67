//! plyfs: a container image's read-only layers, unioned under one writable directory, from user
//! space.
//!
//! Rooms, and who may use whom (downwards only; `tests/tidy.rs` enforces it):
//!
//! ```text
//!     main -> cli
//!     cli -> bench, fuse, store, container commands; printing lives here only
//!     bench -> sys                         copy-on-write measured
//!     store -> image -> union              what is on our disk | OCI bytes to values and back
//!     container -> sys                     a command in namespaces of its own
//!     fuse -> union -> layer               protocol | layers seen as one | one tree
//!     layer -> sys                         directory, memory, fault-injecting
//!     sys                                  the only unsafe; fd-relative system calls
//!     errno, name, attr                    vocabulary types
//! ```

pub mod attr;
pub mod bench;
pub mod cli;
pub mod container;
pub mod errno;
pub mod fuse;
pub mod image;
pub mod layer;
pub mod name;
pub mod store;
pub mod sys;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod union;
