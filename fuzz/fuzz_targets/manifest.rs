//! An index, a manifest and a config are JSON from anybody: each is read, or refused in one line,
//! and an image is what they say together or none.
//!
//! Needs room in `TMPDIR`, best in memory.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    plyfs::testkit::documents::check(bytes);
});
