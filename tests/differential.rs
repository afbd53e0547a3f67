//! Random operations on a mounted plyfs, on a plain directory with the same content, and on the
//! kernel's overlayfs. plyfs must do what the plain directory does, operation by operation; where
//! overlayfs does something else is counted and printed. At the end overlayfs mounts the upper that
//! plyfs wrote and must show the same tree. On the filesystem of $TMPDIR and on XFS in a file.
//!
//! Needs root and /dev/fuse. `PLYFS_SECONDS` (20) is the length, `PLYFS_SEED` repeats one case.

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

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use plyfs::attr::Kind;
use plyfs::testkit::run::{difference, run};
use plyfs::testkit::system::SystemTarget;
use plyfs::testkit::tree::render;
use plyfs::testkit::{Model, Op, Target, TreeSpec, op};

/// How often overlayfs did something else than a plain directory, by operation.
type Differences = BTreeMap<String, u32>;

fn sh(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().expect(program);
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// Unmounts what is there when it goes.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        if rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).is_err() {
            eprintln!("{} was not mounted any more", self.0.display());
        }
    }
}

/// One case's directories.
struct Case {
    dir: PathBuf,
    lowers: usize,
}

impl Case {
    fn new(dir: &Path, specs: &[TreeSpec]) -> Self {
        for name in ["upper", "work", "mnt", "plain", "kupper", "kwork", "kmnt"] {
            make_dir(&dir.join(name));
        }
        for (n, spec) in specs.iter().enumerate() {
            let path = dir.join(format!("lower{n}"));
            make_dir(&path);
            spec.system(&path).unwrap();
        }
        if specs.is_empty() {
            // overlayfs wants at least one.
            make_dir(&dir.join("lower0"));
        }
        Self { dir: dir.to_owned(), lowers: specs.len().max(1) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn options(&self, upper: &str, work: &str) -> String {
        let lowers: Vec<_> =
            (0..self.lowers).map(|n| text(&self.path(&format!("lower{n}"))).to_owned()).collect();
        let (upper, work) = (self.path(upper), self.path(work));
        format!("lowerdir={},upperdir={},workdir={}", lowers.join(":"), text(&upper), text(&work))
    }

    fn mount_plyfs(&self) -> Mounted {
        let (options, at) = (self.options("upper", "work"), self.path("mnt"));
        sh(env!("CARGO_BIN_EXE_plyfs"), &["mount", "-o", &options, text(&at)]).unwrap();
        Mounted(at)
    }

    fn mount_overlay(&self, upper: &str, work: &str) -> Result<Mounted, String> {
        let options = self.options(upper, work) + ",redirect_dir=on,index=on,metacopy=on,xino=off";
        let at = self.path("kmnt");
        sh("mount", &["-t", "overlay", "overlay", "-o", &options, text(&at)])?;
        Ok(Mounted(at))
    }
}

fn make_dir(path: &Path) {
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

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
    let mut plain = SystemTarget::new("plain directory", &case.path("plain"), || {});
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
    Duration::from_secs(given.unwrap_or(20))
}

fn many_cases(base: &Path, ext4: bool) {
    // One at a time: a program being started holds, between fork and exec, what the other test has
    // open on its mount, which then is busy.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock();
    let mut differences = Differences::new();
    if let Some(seed) = std::env::var("PLYFS_SEED").ok().and_then(|s| s.parse().ok()) {
        one_case(seed, base, ext4, &mut differences);
        return;
    }
    let start = Instant::now();
    let first = u64::from(std::process::id()) << 20;
    let mut seed = first;
    while start.elapsed() < seconds() {
        println!("PLYFS_SEED={seed}");
        one_case(seed, base, ext4, &mut differences);
        seed += 1;
    }
    println!("{} cases on {}", seed - first, base.display());
    println!("overlayfs differed from a plain directory: {differences:?}");
}

#[test]
fn plyfs_is_a_plain_directory() {
    let base = tempfile::tempdir().unwrap();
    many_cases(base.path(), true);
}

/// Where files can share blocks.
#[test]
fn plyfs_is_a_plain_directory_on_xfs() {
    let tmp = tempfile::tempdir().unwrap();
    let (image, at) = (tmp.path().join("image"), tmp.path().join("xfs"));
    fs::create_dir(&at).unwrap();
    sh("truncate", &["--size=400M", text(&image)]).unwrap();
    sh("mkfs.xfs", &["-q", "-m", "reflink=1", text(&image)]).unwrap();
    sh("mount", &["-o", "loop", text(&image), text(&at)]).unwrap();
    let mounted = Mounted(at);
    // XFS says EEXIST where the model, and ext4, say ENOTEMPTY; and see keeps_dir_times.
    many_cases(&mounted.0, false);
}
