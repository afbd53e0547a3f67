//! Any bytes are entries of a layer, with right headers, among a few names: as `unpack_tar`, but
//! past the checksums.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| plyfs::testkit::unpacking::check_entries(bytes));
