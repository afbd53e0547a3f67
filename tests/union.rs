//! The union of layers in memory does what one plain directory does: random operations on random
//! layers, compared with the model after each.
//!
//! `PLYFS_CASES` says how many cases (256).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::needless_pass_by_value,
    reason = "this is test code: a surprise must stop the test, and layers are seen from outside"
)]

use plyfs::testkit::in_memory::{check, check_bytes, check_overridden, check_shifted};
use plyfs::testkit::{TreeSpec, op};
use proptest::prelude::*;

fn cases() -> ProptestConfig {
    let cases = std::env::var("PLYFS_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(256);
    ProptestConfig {
        cases,
        max_shrink_iters: 20_000,
        // A failure that was found becomes a named test, not a line in a file of seeds.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Up to three layers of up to twelve entries each.
fn layers() -> impl Strategy<Value = Vec<TreeSpec>> {
    let entry = any::<[u8; 5]>();
    let layer = proptest::collection::vec(entry, 0..12)
        .prop_map(|entries| TreeSpec::from_bytes(&entries.concat()));
    proptest::collection::vec(layer, 0..=3)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_union_is_a_plain_directory(
        layers in layers(),
        ops in op::ops(24),
        one_fs in any::<bool>(),
    ) {
        check(&layers, &ops, one_fs);
    }

    #[test]
    fn an_upper_alone_is_a_plain_directory(ops in op::ops(48)) {
        check(&[], &ops, true);
    }

    #[test]
    fn one_layer_and_many_operations(
        entries in proptest::collection::vec(any::<[u8; 5]>(), 8..20),
        ops in op::ops(60),
    ) {
        check(&[TreeSpec::from_bytes(&entries.concat())], &ops, false);
    }

    #[test]
    fn an_upper_with_owners_in_attributes_is_a_plain_directory(
        layers in layers(),
        ops in op::ops(32),
        one_fs in any::<bool>(),
    ) {
        check_overridden(&layers, &ops, one_fs);
    }

    #[test]
    fn shifted_ids_are_those_of_a_plain_directory(
        layers in layers(),
        ops in op::ops(32),
        one_fs in any::<bool>(),
    ) {
        check_shifted(&layers, &ops, one_fs);
    }

    /// The body of the fuzz target `union_ops`, on bytes that no fuzzer chose.
    #[test]
    fn any_bytes_are_operations(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_bytes(&bytes);
    }
}
