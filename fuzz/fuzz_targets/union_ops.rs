//! Any bytes are layers and operations on their union.
//!
//! * Each operation gives on the union (in memory) what it gives on the model, a plain tree.
//! * After each, both show the same tree, and inode numbers stay what they were.
//! * In the end the lower layers are what they were, and nothing is held any more.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| plyfs::testkit::in_memory::check_bytes(bytes));
