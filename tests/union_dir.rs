//! The union of directories on disk does what one plain directory does. Needs root (whiteouts are
//! devices, marks are `trusted.*`).
//!
//! `PLYFS_CASES` says how many cases (64).

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

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use plyfs::layer::dir::{DirLayer, DirUpper, UpperOptions};
use plyfs::layer::{Layer, Upper};
use plyfs::testkit::run::run;
use plyfs::testkit::system::SystemTarget;
use plyfs::testkit::tree::render;
use plyfs::testkit::union_target::UnionTarget;
use plyfs::testkit::{Model, Op, Target, TreeSpec, op};
use plyfs::union::{RenameFlag, Stack};
use proptest::prelude::*;

fn cases() -> ProptestConfig {
    let cases = std::env::var("PLYFS_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64);
    let failure_persistence = None;
    ProptestConfig { cases, max_shrink_iters: 5_000, failure_persistence, ..Default::default() }
}

fn layers() -> impl Strategy<Value = Vec<TreeSpec>> {
    let layer = proptest::collection::vec(any::<[u8; 5]>(), 0..12)
        .prop_map(|entries| TreeSpec::from_bytes(&entries.concat()));
    proptest::collection::vec(layer, 0..=3)
}

/// A raw layer as it lies on disk, marks and inode numbers included.
fn raw(path: &Path) -> String {
    let mut target = SystemTarget::new("layer", path, || {});
    let tree = target.tree();
    let inos: Vec<String> =
        tree.iter().map(|seen| format!("{} {}", seen.place, seen.ino)).collect();
    render(&tree) + &inos.join("\n")
}

fn stack(dir: &Path, lowers: usize, devices: bool) -> Stack {
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    let options = UpperOptions { volatile: false };
    let mut upper = DirUpper::open(&upper, &work, options).expect("opens");
    if !devices {
        upper = upper.without_devices().expect("nobody else has it");
    }
    let upper: Arc<dyn Upper> = upper;
    let lowers = (0..lowers).map(|n| {
        let layer: Arc<dyn Layer> = DirLayer::open(&dir.join(format!("lower{n}"))).expect("opens");
        layer
    });
    Stack { upper: Some(upper), lowers: lowers.collect() }
}

/// A directory `0755`, whatever the umask is.
fn make_dir(path: &Path) {
    std::fs::create_dir(path).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// Which mounts of the upper can make devices.
#[derive(Clone, Copy, Debug)]
enum Devices {
    Always,
    Never,
    /// The first cannot, the second can, and so on.
    InTurn,
}

fn check(specs: &[TreeSpec], ops: &[Op], devices: Devices) {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().to_owned();
    make_dir(&dir.join("upper"));
    make_dir(&dir.join("work"));
    let mut before = Vec::new();
    for (n, spec) in specs.iter().enumerate() {
        let path = dir.join(format!("lower{n}"));
        make_dir(&path);
        spec.system(&path).unwrap();
        before.push(raw(&path));
    }
    let count = specs.len();
    let from = dir.clone();
    let mounts = std::cell::Cell::new(0);
    let mounted = move || {
        let nth = mounts.replace(mounts.get() + 1);
        let devices = match devices {
            Devices::Always => true,
            Devices::Never => false,
            Devices::InTurn => nth % 2 == 1,
        };
        stack(&from, count, devices)
    };
    let mut union = UnionTarget::new(mounted, Vec::new);
    let mut model = Model::merged(specs);
    let mut ops = ops.to_vec();
    ops.push(Op::Remount);
    run(&ops, &mut model, &mut [&mut union]);
    union.unmount();
    for (n, before) in before.iter().enumerate() {
        let after = raw(&dir.join(format!("lower{n}")));
        assert_eq!(&after, before, "lower layer {n} was changed");
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_union_of_directories_is_a_plain_directory(layers in layers(), ops in op::ops(24)) {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return Ok(());
        }
        check(&layers, &ops, Devices::Always);
    }

    #[test]
    fn where_no_device_can_be_made_too(
        layers in layers(),
        ops in op::ops(24),
        devices in prop_oneof![Just(Devices::Never), Just(Devices::InTurn)],
    ) {
        // Which leaves a device.
        let leaves = |op: &Op| matches!(op, Op::Rename(_, _, RenameFlag::Whiteout { .. }));
        let ops: Vec<Op> = ops.into_iter().filter(|op| !leaves(op)).collect();
        check(&layers, &ops, devices);
    }
}
