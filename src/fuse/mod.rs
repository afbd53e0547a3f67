//! The union, served to the kernel over FUSE.
//!
//! ```text
//!     kernel -- /dev/fuse -- driver (decode) -- handlers (one function an operation) -- union
//!                               |
//!                            convert (their types, ours)   reply (a result becomes an answer)
//! ```
//!
//! [`handlers`] knows no crate and no wire format: plain types in, plain types out, so that another
//! driver can call the same functions. `driver`, `convert` and `reply` are the first driver, on the
//! crate `fuser`, which is named in this room only.

mod convert;
mod driver;
pub mod handlers;
mod lane;
mod reply;
mod session;

pub use session::{Ender, MountConfig, Session, mount};
