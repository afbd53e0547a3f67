//! Container images: from the bytes that other tools write to values and directories, and back.
//!
//! ```text
//!     changes        what an upper layer changes, as a tar
//!     compression    gzip, zstd or none, told by the first bytes
//!     digest         sha256, diffIDs, chainIDs
//!     reference      the names of images
//!     platform       what an image runs on
//!     manifest       indexes and manifests; config: what to run
//!     source         where images come from, and the bytes of their layers
//!       layout       OCI: from index.json to the images of a platform
//!       docker       what docker save writes
//!       archive      either of them in a tar archive
//!     export         images back into layouts and archives
//!     tar            archives: entries out of hostile bytes, and the deterministic writer
//!     unpack         a layer's archive as a directory in overlay format
//!     recipe         and that directory as the same archive again
//! ```
//!
//! Everything that comes from an archive is hostile until its digest was verified, and its
//! structure still is then. Nothing here decides where on our disk something lies: that is
//! `store`'s.

mod archive;
pub mod changes;
pub mod compression;
pub mod config;
pub mod digest;
mod docker;
pub mod export;
mod layout;
pub mod manifest;
pub mod platform;
pub mod recipe;
pub mod reference;
pub mod source;
pub mod tar;
pub mod unpack;

#[cfg(test)]
mod tests;
