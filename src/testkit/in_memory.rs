//! The union over layers in memory against the model: what random tests and the fuzzer do.

use std::sync::Arc;

use super::op::Op;
use super::run::run;
use super::union_target::UnionTarget;
use super::{Model, TreeSpec};
use crate::layer::mem::MemLayer;
use crate::layer::override_stat::{Form, OverriddenUpper};
use crate::layer::{Layer, Upper};
use crate::union::Stack;

/// Runs operations on a union of these layers, topmost first, and the model; then looks at what
/// is left.
///
/// # Panics
/// At the first difference, and when a lower layer changed or something is still held.
pub fn check(layers: &[TreeSpec], ops: &[Op], one_fs: bool) {
    check_wrapped(layers, ops, one_fs, false, |upper| upper);
}

/// As [`check`], by a container whose ids are shifted.
///
/// # Panics
/// As [`check`].
pub fn check_shifted(layers: &[TreeSpec], ops: &[Op], one_fs: bool) {
    check_wrapped(layers, ops, one_fs, true, |upper| upper);
}

/// As [`check`], with an upper that keeps owners in attributes.
///
/// # Panics
/// As [`check`].
pub fn check_overridden(layers: &[TreeSpec], ops: &[Op], one_fs: bool) {
    check_wrapped(layers, ops, one_fs, false, |upper| {
        OverriddenUpper::new(upper, Form::Containers, (1000, 1000)).expect("takes attributes")
    });
}

fn check_wrapped(
    layers: &[TreeSpec],
    ops: &[Op],
    one_fs: bool,
    shifted: bool,
    wrap: impl Fn(Arc<dyn Upper>) -> Arc<dyn Upper> + 'static,
) {
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
            Stack { upper: Some(wrap(Arc::clone(&upper) as Arc<dyn Upper>)), lowers }
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
    let mut union =
        if shifted { UnionTarget::shifted(stack, leaks) } else { UnionTarget::new(stack, leaks) };
    let mut model = Model::merged(layers);
    let mut ops = ops.to_vec();
    ops.push(Op::Remount);
    run(&ops, &mut model, &mut [&mut union]);
    union.unmount();
    for (mem, before) in lowers.iter().zip(before) {
        assert_eq!(mem.dump_exact(), before, "a lower layer was changed");
    }
}

/// What a fuzzer's bytes stand for: how many bytes each of up to three layers is made of, those
/// bytes, and operations.
///
/// # Panics
/// As [`check`].
pub fn check_bytes(bytes: &[u8]) {
    let Some((&[shape, one_fs], mut rest)) = bytes.split_first_chunk::<2>() else { return };
    let layers: Vec<TreeSpec> = (0..shape % 4)
        .map(|_| {
            let (length, tail) = rest.split_first().map_or((0, rest), |(n, tail)| (*n, tail));
            let (entries, tail) = tail.split_at(tail.len().min(usize::from(length % 61)));
            rest = tail;
            TreeSpec::from_bytes(entries)
        })
        .collect();
    let mut ops = super::op::from_bytes(rest);
    ops.truncate(100);
    check(&layers, &ops, one_fs % 2 == 0);
}
