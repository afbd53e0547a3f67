//! What a live mount knows that its layers do not: all of it, in one place.
//!
//! The kernel holds numbers that we gave it: of nodes, with a count of lookups for each; of open
//! files, which are access modes of nodes; positions in listings; inode numbers. Whoever takes a
//! live connection over has to go on with the same ones, so it needs what is here, what the driver
//! agreed upon with the kernel, and the descriptor of the connection. Everything else about a
//! union is its layers, its options, or a cache.

use std::hash::{BuildHasher, Hasher, RandomState};

use siphasher::sip::SipHasher13;

use super::ino::InoMap;
use super::table::Table;

/// What a live mount knows that its layers do not.
#[derive(Debug)]
pub(super) struct Live {
    /// The nodes: each with its number, its lookups, its place, its open handles, and, if it has no
    /// name, what lies in the work directory for it.
    pub(super) table: Table,
    /// The inode numbers that were made up.
    pub(super) inos: InoMap,
    /// What positions in listings are made with.
    key: (u64, u64),
}

impl Live {
    /// Of a new mount of layers on the filesystems of `inos`.
    pub(super) fn new(inos: InoMap) -> Self {
        // std has no other source of random numbers: two hashers, keyed by the system's.
        let random = || RandomState::new().build_hasher().finish();
        Self { table: Table::default(), inos, key: (random(), random()) }
    }

    /// A hash that differs from mount to mount, so that nobody can prepare collisions.
    pub(super) fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write(bytes);
        hasher.finish()
    }
}
