//! Container images: from the bytes that other tools write to values and directories, and back.
//!
//! ```text
//!     changes        what an upper layer changes, as a tar
//!     compression    gzip, zstd or none, told by the first bytes
//!     digest         sha256, diffIDs, chainIDs
//!     tar            archives: entries out of hostile bytes, and the deterministic writer
//!     unpack         a layer's archive as a directory in overlay format
//!     recipe         and that directory as the same archive again
//! ```
//!
//! Everything that comes from an archive is hostile until its digest was verified, and its
//! structure still is then. Nothing here decides where on our disk something lies: that is
//! `store`'s.

pub mod changes;
pub mod compression;
pub mod digest;
pub mod recipe;
pub mod tar;
pub mod unpack;
