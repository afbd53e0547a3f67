//! The union of layers in memory does what one plain directory does: random operations on random
//! layers, compared with the model after each.
//!
//! `PLYFS_CASES` says how many cases (256).

use std::sync::Arc;

use plyfs::layer::mem::MemLayer;
use plyfs::layer::{Layer, Upper};
use plyfs::testkit::run::run;
use plyfs::testkit::union_target::UnionTarget;
use plyfs::testkit::{Model, Op, TreeSpec, op};
use plyfs::union::Stack;
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

/// Runs operations on a union of these layers, topmost first, and the model; then looks at what
/// is left.
fn check(layers: &[TreeSpec], ops: &[Op], one_fs: bool) {
    let upper = MemLayer::new(1);
    let lowers: Vec<Arc<MemLayer>> = layers
        .iter()
        .zip(2..)
        .map(|(spec, fs)| {
            let mem = if one_fs { upper.beside() } else { MemLayer::new(fs) };
            spec.build(&mem);
            mem
        })
        .collect();
    let before: Vec<String> = lowers.iter().map(|mem| mem.dump_exact()).collect();
    let stack = {
        let (upper, lowers) = (Arc::clone(&upper), lowers.clone());
        move || {
            upper.sweep();
            let lowers = lowers.iter().map(|mem| Arc::clone(mem) as Arc<dyn Layer>).collect();
            Stack { upper: Some(Arc::clone(&upper) as Arc<dyn Upper>), lowers }
        }
    };
    let all: Vec<Arc<MemLayer>> = std::iter::once(upper).chain(lowers.iter().cloned()).collect();
    let leaks = move || {
        let mut leaks = Vec::new();
        for (n, mem) in all.iter().enumerate() {
            let left = (mem.live_refs(), mem.live_opens(), mem.staged_count());
            if left != (0, 0, 0) {
                leaks.push(format!("layer {n}: references, open files, staged: {left:?}"));
            }
        }
        leaks
    };
    let mut union = UnionTarget::new(stack, leaks);
    let mut model = Model::merged(layers);
    let mut ops = ops.to_vec();
    ops.push(Op::Remount);
    run(&ops, &mut model, &mut [&mut union]);
    union.unmount();
    for (mem, before) in lowers.iter().zip(before) {
        assert_eq!(mem.dump_exact(), before, "a lower layer was changed");
    }
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
}
