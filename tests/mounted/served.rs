//! Served by this process, so that a test can choose what the layers do and what is agreed upon
//! with the kernel.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use plyfs::errno::{Errno, Result};
use plyfs::fuse::native::Notifier;
use plyfs::fuse::native::wire::init;
use plyfs::fuse::{self, Ender, MountConfig};
use plyfs::layer::dir::{DirLayer, DirUpper, UpperOptions};
use plyfs::layer::fault::{Fault, FaultLayer};
use plyfs::layer::{Layer, Upper};
use plyfs::name::Name;
use plyfs::testkit::hook::{Call, HookLayer};
use plyfs::union::{NodeId, Options, Stack, Union};
use tempfile::TempDir;

use super::alike::{assert_alike, fill, program};
use super::stand::{errno, names};

/// Directories for one lower layer, an upper and a mount point.
struct Dirs(TempDir);

impl Dirs {
    fn new(setup: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("plyfs-test-").tempdir().unwrap();
        for name in ["lower", "upper", "work", "mnt"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fill(&dir.path().join("lower"), setup);
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn lower(&self) -> Arc<dyn Layer> {
        DirLayer::open(&self.path("lower")).unwrap()
    }

    fn upper(&self) -> Arc<dyn Upper> {
        let options = UpperOptions { volatile: false };
        DirUpper::open(&self.path("upper"), &self.path("work"), options).unwrap()
    }

    /// What is staged in the work directory.
    fn staged(&self) -> Vec<String> {
        let mut staged = names(&self.path("work/work"));
        staged.retain(|name| !name.starts_with("#whiteout-"));
        staged
    }
}

/// A mount, and the thread that serves it.
struct Served {
    dirs: Dirs,
    union: Arc<Union>,
    notifier: Notifier,
    ender: Ender,
    server: Option<JoinHandle<Result<()>>>,
}

impl Served {
    fn new(dirs: Dirs, upper: Arc<dyn Upper>, lower: Arc<dyn Layer>, withheld: u64) -> Self {
        Self::with(dirs, upper, lower, &MountConfig { withheld, ..MountConfig::default() })
    }

    fn with(
        dirs: Dirs,
        upper: Arc<dyn Upper>,
        lower: Arc<dyn Layer>,
        config: &MountConfig,
    ) -> Self {
        let stack = Stack { upper: Some(upper), lowers: vec![lower] };
        let union = Arc::new(Union::new(stack, Options::default()).unwrap());
        let config = MountConfig { allow_other: true, ..config.clone() };
        let session = fuse::mount(union.clone(), &dirs.path("mnt"), &config).unwrap();
        let notifier = session.notifier().unwrap();
        let ender = session.ender();
        let server = Some(std::thread::spawn(move || session.run()));
        Self { dirs, union, notifier, ender, server }
    }

    fn plain(setup: &str, withheld: u64) -> Self {
        let dirs = Dirs::new(setup);
        let (upper, lower) = (dirs.upper(), dirs.lower());
        Self::new(dirs, upper, lower, withheld)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dirs.path("mnt").join(name)
    }

    fn lower(&self, name: &str) -> PathBuf {
        self.dirs.path("lower").join(name)
    }

    fn node(&self, name: &str) -> NodeId {
        let name = Name::new(name.as_bytes()).unwrap();
        let found = self.union.lookup(self.union.root(), name).unwrap().unwrap();
        self.union.forget(found.node, 1);
        found.node
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Err(error) = self.ender.end() {
            eprintln!("could not unmount: {error}");
        }
        if let Some(Err(error)) = self.server.take().map(|server| server.join().unwrap()) {
            eprintln!("serving ended with {error}");
        }
    }
}

const WALK: &str = include_str!("programs/walk.py");
const WALKED: &str = "mkdir d; touch d/a d/b; echo file > f; echo gg > g; ln -s to l";

/// Linux 5.18 offers less; what it offers must do.
#[test]
fn an_old_kernel_is_served_all_the_same() {
    for withheld in [0, init::AFTER_5_18] {
        let served = Served::plain(WALKED, withheld);
        let plain = served.dirs.path("plain");
        fs::create_dir(&plain).unwrap();
        fill(&plain, WALKED);
        assert_alike(&program(&served.dirs.path("mnt"), WALK), &program(&plain, WALK));
        let name = Name::new(b"name").unwrap();
        let expired = served.notifier.expire(served.union.root(), name);
        assert_eq!(expired.is_ok(), withheld == 0, "the flags were not withheld");
    }
}

/// Somebody changes an image below a mount, and says so.
#[test]
fn a_file_changed_below_the_union_shows_once_it_is_invalidated() {
    let served = Served::plain("printf old > f; printf old > other", 0);
    let held = fs::File::open(served.at("f")).unwrap();
    assert_eq!(fs::read_to_string(served.at("f")).unwrap(), "old");
    assert_eq!(served.at("other").metadata().unwrap().len(), 3);
    for name in ["f", "other"] {
        fs::write(served.lower(name), "changed behind its back").unwrap();
    }
    fs::set_permissions(served.lower("f"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(served.at("other").metadata().unwrap().len(), 3, "the kernel keeps what it knows");
    let mut bytes = [0; 64];
    held.read_at(&mut bytes, 0).unwrap();
    assert!(bytes.starts_with(b"old"), "and what it has read");
    served.notifier.invalidate(served.node("f")).unwrap();
    let n = held.read_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes[..n], b"changed behind its back", "by an earlier reader");
    assert_eq!(fs::read_to_string(served.at("f")).unwrap(), "changed behind its back");
    let meta = served.at("f").metadata().unwrap();
    assert_eq!((meta.len(), meta.mode() & 0o7777), (23, 0o640));
    assert_eq!(served.at("other").metadata().unwrap().len(), 3, "nothing else is asked for");
    served.notifier.invalidate(served.union.root()).unwrap();
    assert_eq!(names(&served.dirs.path("mnt")), ["f", "other"]);
}

/// The same for names: of one, and of all.
#[test]
fn a_name_that_expired_is_looked_up_again() {
    let served = Served::plain("printf 1 > f", 0);
    let held = fs::File::open(served.at("f")).unwrap();
    let seen = || ["one", "other", "third"].map(|name| served.at(name).exists());
    assert_eq!(seen(), [false; 3]);
    for name in ["one", "other", "third"] {
        fs::write(served.lower(name), name).unwrap();
    }
    assert_eq!(seen(), [false; 3], "the kernel keeps what it knows");
    let root = served.union.root();
    served.notifier.expire(root, Name::new(b"one").unwrap()).unwrap();
    served.notifier.expire(root, Name::new(b"f").unwrap()).unwrap();
    served.notifier.expire(root, Name::new(b"none").unwrap()).unwrap();
    assert_eq!(seen(), [true, false, false]);
    served.notifier.expire_all().unwrap();
    assert_eq!(seen(), [true; 3]);
    assert_eq!(fs::read_to_string(served.at("other")).unwrap(), "other");
    assert_eq!(held.metadata().unwrap().len(), 1, "who uses a file goes on");
}

/// When nobody serves the mount any more, who wants to tell it something hears so.
#[test]
fn a_notifier_outlives_its_mount() {
    let served = Served::plain("printf 1 > f", 0);
    let (notifier, node) = (served.notifier.clone(), served.node("f"));
    drop(served);
    assert_eq!(notifier.invalidate(node).unwrap_err().errno(), Errno::ENODEV);
}

/// What is done to a file while each of its steps fails once.
type Change = fn(&Path) -> std::io::Result<()>;
const TRIED: [(&str, Change); 6] = [
    ("write", |path| fs::OpenOptions::new().write(true).open(path)?.write_all_at(b"NEW", 0)),
    ("cut", |path| fs::OpenOptions::new().write(true).open(path)?.set_len(1)),
    ("chmod", |path| fs::set_permissions(path, fs::Permissions::from_mode(0o600))),
    ("unlink", |path| fs::remove_file(path)),
    ("rename", |path| fs::rename(path, path.with_extension("moved"))),
    ("replace", |path| fs::rename(path.with_extension("own"), path)),
];

/// Disk full, quota reached, or a bad block, at each step.
#[test]
fn line_49_an_error_at_any_step_is_the_callers_and_changes_nothing() {
    const STEPS: u64 = 24;
    let mut setup = String::new();
    for (what, _) in TRIED {
        writeln!(setup, "for n in $(seq {STEPS}); do echo content > {what}-$n; done").unwrap();
    }
    let dirs = Dirs::new(&setup);
    let (fault, lower) = (FaultLayer::new(dirs.upper()), dirs.lower());
    let served = Served::new(dirs, fault.clone(), lower, 0);
    for (what, change) in TRIED {
        let mut failures = 0;
        for n in 1..=STEPS {
            let (path, told) = (served.at(&format!("{what}-{n}")), format!("{what}, step {n}"));
            if what == "replace" {
                fs::write(path.with_extension("own"), "own").unwrap();
            }
            let injected = [Errno::EIO, Errno::EDQUOT, Errno::ENOSPC][n as usize % 3];
            fault.arm(Fault::Fail(n, injected));
            let result = change(&path);
            let (hit, litter) = (fault.count() >= n, fault.discard_failed());
            fault.arm(Fault::None);
            if result.is_err() {
                failures += 1;
                assert_eq!(errno(result), injected.raw(), "{told}");
                assert_eq!(fs::read_to_string(&path).unwrap(), "content\n", "{told}");
                assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o644, "{told}");
                assert!(!path.with_extension("moved").exists(), "{told}");
            }
            if !litter {
                assert_eq!(served.dirs.staged(), [""; 0], "{told}");
            }
            if !hit {
                break;
            }
        }
        assert!(failures > 0, "{what}: nothing failed");
    }
}

/// A gate that copy-ups wait at.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicU32,
}

impl Gate {
    fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let open = self.open.lock().unwrap();
        let limit = Duration::from_mins(1);
        drop(self.opened.wait_timeout_while(open, limit, |open| !*open).unwrap());
    }
}

/// fuse-overlayfs 1.x stalls everybody, and 2.0 as well, for as long as a large file is copied.
#[test]
fn line_51_copy_ups_of_one_file_coalesce_and_block_nobody_else() {
    let dirs = Dirs::new("printf 0123456789 > big; printf s > small; mkdir d; printf f > d/f");
    let gate = Arc::new(Gate::default());
    let at_gate = gate.clone();
    let lower = HookLayer::new(dirs.lower(), move |call| {
        if matches!(call, Call::Open) {
            at_gate.pass();
        }
        Ok(())
    });
    let upper = dirs.upper();
    let served = Served::new(dirs, upper, lower, 0);
    let writers: Vec<_> = [0_u64, 5]
        .map(|at| {
            let path = served.at("big");
            std::thread::spawn(move || {
                let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                file.write_all_at(b"W", at).unwrap();
            })
        })
        .into();
    while gate.waiting.load(Ordering::SeqCst) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    // The copy-up is under way and does not end. Meanwhile:
    assert_eq!(served.at("small").metadata().unwrap().len(), 1);
    assert_eq!(served.at("big").metadata().unwrap().len(), 10);
    assert_eq!(names(&served.dirs.path("mnt")), ["big", "d", "small"]);
    fs::write(served.at("new"), "new").unwrap();
    fs::set_permissions(served.at("d"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_file(served.at("d/f")).unwrap();
    assert!(writers.iter().all(|writer| !writer.is_finished()));
    *gate.open.lock().unwrap() = true;
    gate.opened.notify_all();
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(fs::read_to_string(served.at("big")).unwrap(), "W1234W6789");
    assert_eq!(gate.waiting.load(Ordering::SeqCst), 1, "it was copied twice");
}

/// A filesystem below may answer with numbers that mean something else between a server and the
/// kernel: ENOSYS is "never ask again", and after a number that only the kernel itself uses,
/// whoever asked would wait forever.
#[test]
fn a_strange_error_from_below_ends_one_request_and_nothing_else() {
    const ENOTSUPP: i32 = 524;
    let dirs = Dirs::new("printf 1 > f; setfattr -n user.key -v value f");
    let fails = Arc::new(AtomicI32::new(0));
    let asked = fails.clone();
    let lower = HookLayer::new(dirs.lower(), move |_| match asked.load(Ordering::SeqCst) {
        0 => Ok(()),
        raw => Err(Errno::from_raw(raw).into()),
    });
    let upper = dirs.upper();
    let served = Served::new(dirs, upper, lower, 0);
    let path = served.at("f");
    let ask = move || {
        let (sender, answered) = std::sync::mpsc::channel();
        let path = path.clone();
        std::thread::spawn(move || {
            let mut value = [0; 16];
            let result = rustix::fs::getxattr(path, "user.key", &mut value);
            sender.send(result.map_err(rustix::io::Errno::raw_os_error)).unwrap();
        });
        answered.recv_timeout(Duration::from_secs(30)).expect("the asker waits forever")
    };
    assert_eq!(ask(), Ok(5));
    for (raw, shown) in [(libc::ENOSYS, libc::EOPNOTSUPP), (ENOTSUPP, libc::EIO)] {
        fails.store(raw, Ordering::SeqCst);
        assert_eq!(ask(), Err(shown), "errno {raw}");
        fails.store(0, Ordering::SeqCst);
        assert_eq!(ask(), Ok(5), "after errno {raw}");
    }
}

/// A copy-up outlives the connection that asked for it (`umount -f`): serving ends after it, so
/// that whoever waits for the end finds the layers free.
#[test]
fn serving_ends_when_the_last_operation_has() {
    let dirs = Dirs::new("printf 0123456789 > big");
    let gate = Arc::new(Gate::default());
    let at_gate = gate.clone();
    let lower = HookLayer::new(dirs.lower(), move |call| {
        if matches!(call, Call::Open) {
            at_gate.pass();
        }
        Ok(())
    });
    let upper = dirs.upper();
    // The only thread that reads requests does nothing that takes long.
    let config = MountConfig { threads: 1, ..MountConfig::default() };
    let mut served = Served::with(dirs, upper, lower, &config);
    let path = served.at("big");
    let writer =
        std::thread::spawn(move || fs::OpenOptions::new().write(true).open(path).map(drop));
    let patience = Duration::from_millis(300);
    while gate.waiting.load(Ordering::SeqCst) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    // Busy, which does not keep the connection from being cut.
    rustix::mount::unmount(served.dirs.path("mnt"), rustix::mount::UnmountFlags::FORCE).ok();
    assert!(writer.join().unwrap().is_err(), "the connection was cut");
    std::thread::sleep(patience);
    let server = served.server.take().unwrap();
    assert!(!server.is_finished(), "a copy is under way");
    *gate.open.lock().unwrap() = true;
    gate.opened.notify_all();
    server.join().unwrap().unwrap();
    assert_eq!(served.dirs.staged(), [""; 0]);
    assert_eq!(Arc::strong_count(&served.union), 1, "something holds on to the layers");
}
