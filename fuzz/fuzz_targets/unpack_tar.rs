//! Any bytes are a layer's archive.
//!
//! * Unpacking it, alone or over another layer, never panics.
//! * Nothing outside of the layer's directory is touched, and no layer below.
//! * What was unpacked gives back the same bytes.
//!
//! Needs root (devices, owners), and room in `TMPDIR`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| plyfs::testkit::unpacking::check_tar(bytes));
