//! Random operations on a mounted plyfs, on a plain directory with the same content, and on the
//! kernel's overlayfs. plyfs must do what the plain directory does, operation by operation; where
//! overlayfs does something else is counted and printed. At the end overlayfs mounts the upper that
//! plyfs wrote and must show the same tree. Also by several processes at once (`crowd`), and on
//! uppers that others wrote (`peers`). On the filesystem of $TMPDIR and on XFS in a file.
//!
//! Needs root, /dev/fuse and fuse-overlayfs. `PLYFS_SECONDS` (15) is the length of each test,
//! `PLYFS_SEED` repeats one case. `PLYFS_FUSE_OVERLAYFS` names programs (fuse-overlayfs) that write
//! uppers, separated by colons.

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

mod crowd;
mod peers;
mod rootless;
mod stand;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plyfs::attr::Kind;
use plyfs::testkit::run::{difference, run};
use plyfs::testkit::system::SystemTarget;
use plyfs::testkit::tree::render;
use plyfs::testkit::{Model, Op, Target, TreeSpec, op};

use peers::{KERNELS, Peer};
use stand::{Case, Mounted, sh, text};

/// How often overlayfs did something else than a plain directory, by operation.
type Differences = BTreeMap<String, u32>;

/// Layers and operations from a seed.
fn random(seed: u64) -> (Vec<TreeSpec>, Vec<Op>) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = |n: usize| -> Vec<u8> {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32).to_le_bytes()[0]
        };
        (0..n).map(|_| next()).collect()
    };
    let layers = usize::from(bytes(1)[0] % 4);
    let specs = (0..layers).map(|_| TreeSpec::from_bytes(&bytes(60))).collect();
    (specs, op::from_bytes(&bytes(6 * 30)))
}

fn one_case(seed: u64, base: &Path, ext4: bool, differences: &mut Differences) {
    let (specs, ops) = random(seed);
    let tmp = tempfile::tempdir_in(base).unwrap();
    let case = Case::new(tmp.path(), &specs);
    let raw = |n: usize| {
        let mut layer = SystemTarget::new("layer", &case.path(&format!("lower{n}")), || {});
        render(&layer.tree())
    };
    let before: Vec<String> = (0..case.lowers).map(raw).collect();

    let mounted = case.mount_plyfs();
    sh("cp", &["-a", &format!("{}/.", text(&mounted.0)), text(&case.path("plain"))]).unwrap();
    let remount = {
        let (options, at) = (case.options("upper", "work"), case.path("mnt"));
        move || {
            sh(env!("CARGO_BIN_EXE_plyfs"), &["umount", text(&at)]).unwrap();
            sh(env!("CARGO_BIN_EXE_plyfs"), &["mount", "-o", &options, text(&at)]).unwrap();
        }
    };
    let mut union = SystemTarget::new("plyfs", &mounted.0, remount);
    if !ext4 {
        union = union.changing_dir_times();
    }
    let plain = SystemTarget::new("plain directory", &case.path("plain"), || {});
    let mut plain = plain.on_ext4();
    let mut model = Model::merged(&specs);
    // A copy counts only the names that it was given; a layer's file also those that are hidden.
    if ext4 && render(&plain.tree()) == render(&model.tree()) {
        run(&ops, &mut model, &mut [&mut plain, &mut union]);
    } else {
        run(&ops, &mut model, &mut [&mut union]);
    }
    union.close();
    sh(env!("CARGO_BIN_EXE_plyfs"), &["umount", text(&mounted.0)]).unwrap();
    std::mem::forget(mounted);

    let after: Vec<String> = (0..case.lowers).map(raw).collect();
    assert_eq!(before, after, "seed {seed}: a lower layer was changed");
    let Ok(kernel) = case.mount_overlay("kupper", "kwork") else { return };
    let same_start = {
        let mut target = SystemTarget::new("overlayfs", &kernel.0, || {});
        let expected = render(&Model::merged(&specs).tree());
        target.try_tree().is_ok_and(|tree| render(&tree) == expected)
    };
    if same_start {
        kernel_leg(&specs, &ops, &kernel.0, differences);
        drop(kernel);
        shows_the_same(&case, &model, ext4, seed);
    }
}

/// Runs the operations on overlayfs until it does something else than a plain directory.
fn kernel_leg(specs: &[TreeSpec], ops: &[Op], at: &Path, differences: &mut Differences) {
    let mut model = Model::merged(specs);
    let mut kernel = SystemTarget::new("overlayfs", at, || {});
    for op in ops {
        let op = op.resolve(&model.dirs());
        let expected = model.apply(&op);
        let same_outcome = kernel.apply(&op) == expected;
        let tree = render(&model.tree());
        if !same_outcome || !kernel.try_tree().is_ok_and(|kernel| render(&kernel) == tree) {
            let name = op.to_string();
            let verb = name.split([' ', '(']).next().unwrap_or_default().to_owned();
            *differences.entry(verb).or_default() += 1;
            break;
        }
    }
    kernel.close();
}

/// overlayfs shows the upper that plyfs wrote as plyfs does. Devices 0:0 that a user made are
/// whiteouts to it whatever one does: a tree that holds one is not compared.
fn shows_the_same(case: &Case, model: &Model, ext4: bool, seed: u64) {
    let mut tree = model.tree();
    if tree.iter().any(|seen| seen.kind == Kind::Char && seen.rdev == 0) {
        return;
    }
    let kernel = case.mount_overlay("upper", "work").expect("overlayfs takes our upper");
    let mut target = SystemTarget::new("overlayfs on the upper", &kernel.0, || {});
    let mut got = target.tree();
    if !ext4 {
        got.iter_mut()
            .chain(&mut tree)
            .filter(|s| s.kind == Kind::Dir)
            .for_each(|s| s.mtime = None);
    }
    let (expected, got) = (render(&tree), render(&got));
    target.close();
    assert!(
        expected == got,
        "seed {seed}: overlayfs shows another tree on our upper\n{}",
        difference(&expected, &got)
    );
}

fn seconds() -> Duration {
    let given = std::env::var("PLYFS_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(given.unwrap_or(15))
}

/// Cases with seeds of their own for as long as they shall be run, or the one that is asked for.
fn many_cases(what: &str, mut one: impl FnMut(u64)) {
    // One at a time: a program being started holds, between fork and exec, what the other test has
    // open on its mount, which then is busy.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock();
    if let Some(seed) = std::env::var("PLYFS_SEED").ok().and_then(|s| s.parse().ok()) {
        return one(seed);
    }
    let start = Instant::now();
    let first = u64::from(std::process::id()) << 20;
    let mut seed = first;
    while start.elapsed() < seconds() {
        println!("PLYFS_SEED={seed}");
        one(seed);
        seed += 1;
    }
    println!("{what}: {} cases", seed - first);
}

/// XFS in a file, where files can share blocks.
fn xfs(dir: &Path) -> Mounted {
    small(dir, "xfs")
}

/// A filesystem in a file.
fn small(dir: &Path, kind: &str) -> Mounted {
    let (image, at) = (dir.join(format!("{kind}-image")), dir.join(kind));
    fs::create_dir(&at).unwrap();
    sh("truncate", &["--size=400M", text(&image)]).unwrap();
    sh(&format!("mkfs.{kind}"), &["-q", text(&image)]).unwrap();
    sh("mount", &["-o", "loop", text(&image), text(&at)]).unwrap();
    Mounted(at)
}

#[test]
fn plyfs_is_a_plain_directory() {
    let base = tempfile::tempdir().unwrap();
    let mut differences = Differences::new();
    many_cases("on ext4", |seed| one_case(seed, base.path(), true, &mut differences));
    println!("overlayfs differed from a plain directory: {differences:?}");
}

#[test]
fn plyfs_is_a_plain_directory_on_xfs() {
    let tmp = tempfile::tempdir_in("/dev/shm").unwrap();
    let base = xfs(tmp.path());
    let mut differences = Differences::new();
    // XFS says EEXIST where the model, and ext4, say ENOTEMPTY; and see keeps_dir_times.
    many_cases("on XFS", |seed| one_case(seed, &base.0, false, &mut differences));
    println!("overlayfs differed from a plain directory: {differences:?}");
}

#[test]
fn several_processes_see_and_leave_what_they_do_in_a_plain_directory() {
    // In memory, since what they sync would wait for a disk.
    let tmp = tempfile::tempdir_in("/dev/shm").unwrap();
    let bases = ["ext4", "xfs"].map(|kind| small(tmp.path(), kind));
    many_cases("several processes", |seed| {
        crowd::one_case(seed, &bases[seed as usize % 2].0);
    });
}

fn uppers_of(what: &str, peers: &[Peer]) {
    let base = tempfile::tempdir().unwrap();
    let (mut differences, mut read) = (Differences::new(), 0);
    many_cases(what, |seed| {
        let (specs, ops) = random(seed);
        let peer = &peers[seed as usize % peers.len()];
        let cases = (&*specs, &*ops);
        read += u32::from(peers::one_case(peer, seed, cases, base.path(), &mut differences));
    });
    println!("{what}: {read} uppers were read; what their writers do differently:");
    for (what, times) in &differences {
        println!("  {what}: {times}");
    }
    let one = std::env::var_os("PLYFS_SEED").is_some();
    assert!(read > 0 || one, "no upper was fit to be read");
}

#[test]
fn uppers_of_the_kernel_are_read_and_gone_on_with() {
    uppers_of("uppers of the kernel", &KERNELS.map(Peer::Kernel));
}

/// Programs of the family of fuse-overlayfs.
fn fuse_overlayfs() -> Vec<PathBuf> {
    let programs = std::env::var("PLYFS_FUSE_OVERLAYFS");
    let programs = programs.unwrap_or_else(|_| "fuse-overlayfs".to_owned());
    programs.split(':').map(PathBuf::from).collect()
}

#[test]
fn uppers_written_without_privileges_are_read_and_gone_on_with() {
    let tmp = tempfile::tempdir_in("/dev/shm").unwrap();
    sh("chmod", &["755", text(tmp.path())]).unwrap();
    let base = small(tmp.path(), "ext4");
    let mut peers = vec![rootless::Peer::Kernel];
    peers.extend(fuse_overlayfs().into_iter().map(rootless::Peer::FuseOverlayfs));
    let (mut differences, mut read) = (Differences::new(), 0);
    many_cases("uppers without privileges", |seed| {
        let peer = &peers[seed as usize % peers.len()];
        read += u32::from(rootless::one_case(peer, seed, &base.0, &mut differences));
    });
    println!("{read} uppers were read; what their writers do differently:");
    for (what, times) in &differences {
        println!("  {what}: {times}");
    }
    let one = std::env::var_os("PLYFS_SEED").is_some();
    assert!(read > 0 || one, "no upper was fit to be read");
}

#[test]
fn uppers_of_fuse_overlayfs_are_read_and_gone_on_with() {
    let peers: Vec<_> = fuse_overlayfs().into_iter().map(Peer::FuseOverlayfs).collect();
    uppers_of("uppers of fuse-overlayfs", &peers);
}

#[test]
fn overlayfs_on_an_upper_in_a_mount_does_what_it_does_elsewhere() {
    let base = tempfile::tempdir().unwrap();
    let (mut differences, mut done) = (Differences::new(), 0);
    many_cases("overlayfs on plyfs", |seed| {
        let (specs, ops) = random(seed);
        let case = (&*specs, &*ops);
        done += u32::from(peers::stacked_case(seed, case, base.path(), &mut differences));
    });
    println!("overlayfs differed from a plain directory, in memory too: {differences:?}");
    assert!(done > 0, "nothing was compared");
}
