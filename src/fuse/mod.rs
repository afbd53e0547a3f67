//! The union, served to the kernel over FUSE.
//!
//! ```text
//!     kernel -- /dev/fuse -- driver (decode) -- handlers (one function an operation) -- union
//!                               |
//!                            guard (panics, errnos, the log)   lane (a thread stays free)
//! ```
//!
//! [`handlers`] knows no crate and no wire format: plain types in, plain types out, so that several
//! drivers can call the same functions. `fuser` is the first, on the crate of that name.

mod fuser;
mod guard;
pub mod handlers;
mod lane;
mod session;

pub use session::{Ender, MountConfig, Session, mount};
