//! The union, served to the kernel over FUSE.
//!
//! ```text
//!     kernel -- /dev/fuse -- driver (decode) -- handlers (one function an operation) -- union
//!                               |
//!                            guard (panics, errnos, the log)   lane (a thread stays free)
//! ```
//!
//! [`handlers`] knows no crate and no wire format: plain types in, plain types out. Two drivers
//! call the same functions: `native`, our own loop over the device, and `fuser`, on the crate of
//! that name.

mod fuser;
mod guard;
pub mod handlers;
mod lane;
pub mod native;
mod session;

pub use session::{Driver, Ender, MountConfig, Session, Syncing, mount};
