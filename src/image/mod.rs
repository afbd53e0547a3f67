//! Container images: from the bytes that other tools write to values and directories, and back.
//!
//! ```text
//!     digest         sha256, diffIDs, chainIDs
//!     tar            archives: entries out of hostile bytes, and the deterministic writer
//!     unpack         a layer's archive as a directory in overlay format
//!     recipe         and that directory as the same archive again
//! ```
//!
//! Everything that comes from an archive is hostile until its digest was verified, and its
//! structure still is then. Nothing here decides where on our disk something lies: that is
//! `store`'s.

pub mod digest;
pub mod recipe;
pub mod tar;
pub mod unpack;
