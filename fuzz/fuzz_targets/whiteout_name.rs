//! Names of an archive are bytes from anybody: each is a name, a whiteout of a name, an opaque
//! mark, to be ignored, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| plyfs::testkit::unpacking::check_name(bytes));
