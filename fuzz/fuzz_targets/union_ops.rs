//! Any bytes are a sequence of operations: on a union in memory and on the model they have the same
//! results and leave the same tree, and the lower layers stay as they were.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| plyfs::testkit::fuzz::union_ops(bytes));
