//! What the server may cost, as counts: system calls an operation, memory a node, descriptors,
//! and that nothing waits for a copy-up. Counts do not depend on how fast the machine is.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and says what it measured; its numbers are small"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const FILES: usize = 30_000;
const DIRS: usize = 300;
/// How often an operation is repeated for its average.
const REPEAT: usize = 200;

/// Held by each test: caches are dropped here, and that concerns every mount.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a mount is possible; says so otherwise.
fn can_mount() -> bool {
    let able = rustix::process::getuid().is_root() && Path::new("/dev/fuse").exists();
    if !able {
        eprintln!("skipped: needs root and /dev/fuse");
    }
    able
}

/// Waits until `done`, at most `seconds`.
fn wait_until(seconds: u64, done: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !done() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// A directory on disk (not on a tmpfs) for layers.
fn scratch() -> TempDir {
    TempDir::with_prefix_in("ceilings-", env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A lower layer of [`FILES`] small files in [`DIRS`] directories, made once and kept.
fn forest() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let forest = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("forest-{FILES}"));
        if !forest.exists() {
            let part = scratch();
            for dir in 0..DIRS {
                let dir = part.path().join(format!("directory-{dir:03}"));
                fs::create_dir(&dir).unwrap();
                for file in 0..FILES / DIRS {
                    fs::write(dir.join(format!("file-{file:03}")), b"content\n").unwrap();
                }
            }
            fs::rename(part.keep(), &forest).unwrap();
        }
        forest
    })
}

/// Stats every file and directory below `dir`; returns how many there are.
fn walk(dir: &Path, read: bool) -> usize {
    let mut found = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        found += 1;
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            found += walk(&path, read);
        } else if read {
            assert_eq!(fs::read(&path).unwrap(), b"content\n");
        }
    }
    found
}

/// A mounted plyfs whose server is our child.
struct Mount {
    server: Child,
    dir: TempDir,
}

impl Mount {
    /// Mounts `lower` under a fresh upper, with at most `descriptors` open files in the server.
    fn new(lower: &Path, descriptors: u64) -> Self {
        let dir = scratch();
        for name in ["upper", "work", "mnt"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let at = |name: &str| dir.path().join(name).display().to_string();
        let (upper, work, mnt) = (at("upper"), at("work"), at("mnt"));
        let stack = format!("lowerdir={},upperdir={upper},workdir={work}", lower.display());
        let log = OpenOptions::new().create(true).append(true).open(at("log")).unwrap();
        let server = Command::new("prlimit")
            .arg(format!("--nofile={descriptors}:{descriptors}"))
            .args([env!("CARGO_BIN_EXE_plyfs"), "mount", "-f", "-o", &stack, &mnt])
            .env("PLYFS_LOG", "plyfs=info")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mount = Self { server, dir };
        let before = fs::metadata(mount.dir.path()).unwrap().dev();
        let live = wait_until(20, || fs::metadata(mount.root()).is_ok_and(|m| m.dev() != before));
        assert!(live, "not mounted after 20 s; the server said:\n{}", mount.log());
        mount
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.server), signal).unwrap();
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.server.id()))
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// Resident memory in bytes, without what is mapped from files.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// How many nodes the server holds: it writes `nodes=N` to its log on SIGUSR1.
    fn nodes(&self) -> usize {
        let said = || self.log().matches("nodes=").count();
        let before = said();
        self.signal(Signal::USR1);
        assert!(wait_until(10, || said() > before), "no answer to SIGUSR1:\n{}", self.log());
        let log = self.log();
        let digits = log.rsplit("nodes=").next().unwrap();
        digits.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    }

    /// Runs `operation` for 0..[`REPEAT`] and asserts how many system calls each took on average.
    fn costs(&self, what: &str, ceiling: f64, operation: impl Fn(usize)) {
        let counts = self.trace(|| (0..REPEAT).for_each(&operation));
        let each = counts.values().sum::<usize>() as f64 / REPEAT as f64;
        let mut list = String::new();
        for (call, count) in &counts {
            write!(list, " {call} {:.2}", *count as f64 / REPEAT as f64).unwrap();
        }
        println!("{what}: {each:.2} system calls (ceiling {ceiling}):{list}");
        // Half a call is for what is done once, for the first of them.
        assert!(each <= ceiling + 0.5, "{what}: {each:.2} system calls, not {ceiling}:{list}");
    }

    /// The server's system calls during `operations`, by name. What carries the requests (reads
    /// and writes of /dev/fuse, waiting for other threads) does not count.
    fn trace(&self, operations: impl FnOnce()) -> BTreeMap<String, usize> {
        let out = self.dir.path().join("strace");
        let mut strace = Command::new("strace")
            .args(["-f", "-y", "-qq", "-s", "0", "-o"])
            .arg(&out)
            .args(["-p", &self.server.id().to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        assert!(wait_until(10, || self.traced()), "strace did not attach");
        operations();
        kill_process(Pid::from_child(&strace), Signal::INT).unwrap();
        strace.wait().unwrap();
        let mut counts = BTreeMap::new();
        for line in fs::read_to_string(&out).unwrap().lines() {
            let Some((name, first)) =
                line.split_once(' ').and_then(|(_, c)| c.trim().split_once('('))
            else {
                continue; // "<... resumed>", signals, exits
            };
            let first = first.split(',').next().unwrap();
            let carries = first.contains("</dev/fuse>") || first.contains("</dev/fuse<");
            let waits = ["futex", "restart_syscall", "sched_yield"].contains(&name);
            // Rust's standard library looks at each descriptor that it closes in debug builds.
            let debugs = cfg!(debug_assertions) && name == "fcntl";
            let is_call = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if is_call && !carries && !waits && !debugs {
                *counts.entry(name.to_owned()).or_default() += 1;
            }
        }
        fs::remove_file(&out).unwrap();
        counts
    }

    /// Whether every thread of the server has a tracer.
    fn traced(&self) -> bool {
        fs::read_dir(self.proc("task")).unwrap().all(|task| {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            !status.contains("TracerPid:\t0\n")
        })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.root()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("unmounting failed; the server said:\n{}", self.log());
            self.server.kill().unwrap();
            Command::new("umount").arg("--lazy").arg(self.root()).status().unwrap();
        }
        let end = Instant::now() + Duration::from_secs(10);
        while self.server.try_wait().unwrap().is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.server.try_wait().unwrap().is_none() {
            eprintln!("the server outlived its mount; it said:\n{}", self.log());
            self.server.kill().unwrap();
            self.server.wait().unwrap();
        }
    }
}

/// A lower layer with [`REPEAT`] files `lower-N` in a directory `d`, and a few beside it.
fn small_lower() -> TempDir {
    let lower = scratch();
    let dir = lower.path().join("d");
    fs::create_dir(&dir).unwrap();
    for n in 0..REPEAT {
        fs::write(dir.join(format!("lower-{n}")), b"content\n").unwrap();
    }
    lower
}

/// Mounts that layer, its directory already copied up, and looks its files up if `warm`.
fn small_mount(lower: &TempDir, warm: bool) -> (Mount, PathBuf) {
    let mount = Mount::new(lower.path(), 4096);
    let dir = mount.root().join("d");
    fs::write(dir.join("first"), b"").unwrap();
    if warm {
        walk(&dir, false);
    }
    (mount, dir)
}

#[test]
fn a_cold_lookup_takes_three_calls() {
    if !can_mount() {
        return;
    }
    let (_alone, lower) = (alone(), small_lower());
    let mount = Mount::new(lower.path(), 4096);
    let dir = mount.root().join("d");
    fs::metadata(&dir).unwrap();
    mount.costs("cold lookup", 3.0, |n| {
        fs::metadata(dir.join(format!("lower-{n}"))).unwrap();
    });
}

/// A listing has seen which layers hold a name: the others are not asked for it again.
#[test]
fn a_listed_name_takes_one_stat_however_many_layers_there_are() {
    const LAYERS: usize = 10;
    if !can_mount() {
        return;
    }
    let (_alone, base) = (alone(), scratch());
    let layers: Vec<_> = (0..LAYERS).map(|n| base.path().join(n.to_string())).collect();
    for (number, layer) in layers.iter().enumerate() {
        fs::create_dir_all(layer.join("d/merged")).unwrap();
        for n in 0..REPEAT / LAYERS {
            fs::write(layer.join(format!("d/{number}-{n}")), b"").unwrap();
        }
    }
    let paths: Vec<_> = layers.iter().map(|layer| layer.to_str().unwrap()).collect();
    let mount = Mount::new(Path::new(&paths.join(":")), 4096);
    let dir = mount.root().join("d");
    fs::metadata(&dir).unwrap();
    let counts = mount.trace(|| {
        let listed = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
        assert_eq!(listed.count(), REPEAT + 1);
    });
    let stats = counts["statx"];
    println!("listing {REPEAT} files of {LAYERS} layers: {stats} statx of {counts:?}");
    // What one directory that is in all layers takes, and listing them, does not grow.
    assert!(stats <= REPEAT + 5 * LAYERS, "{stats} statx: {counts:?}");
}

#[test]
fn open_read_close_takes_five_calls() {
    if !can_mount() {
        return;
    }
    let (_alone, lower) = (alone(), small_lower());
    let (mount, dir) = small_mount(&lower, true);
    mount.costs("open, read, close", 5.0, |n| {
        let path = dir.join(format!("lower-{n}"));
        let mut buf = [0; 4096];
        let got = OpenOptions::new().read(true).open(path).unwrap().read(&mut buf).unwrap();
        assert_eq!(&buf[..got], b"content\n");
    });
}

#[test]
fn create_write_close_takes_ten_calls() {
    if !can_mount() {
        return;
    }
    let (_alone, lower) = (alone(), small_lower());
    let (mount, dir) = small_mount(&lower, false);
    mount.costs("create, write, close", 10.0, |n| {
        let path = dir.join(format!("new-{n}"));
        let mut file = OpenOptions::new().write(true).create_new(true).open(path).unwrap();
        file.write_all(b"content\n").unwrap();
    });
}

#[test]
fn unlink_of_a_lower_file_takes_six_calls() {
    if !can_mount() {
        return;
    }
    let (_alone, lower) = (alone(), small_lower());
    let (mount, dir) = small_mount(&lower, true);
    mount.costs("unlink of a lower file", 6.0, |n| {
        fs::remove_file(dir.join(format!("lower-{n}"))).unwrap();
    });
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
}

#[test]
fn mkdir_takes_eight_calls() {
    if !can_mount() {
        return;
    }
    let (_alone, lower) = (alone(), small_lower());
    let (mount, dir) = small_mount(&lower, false);
    mount.costs("mkdir", 8.0, |n| fs::create_dir(dir.join(format!("new-{n}"))).unwrap());
}

#[test]
fn rename_takes_ten_calls() {
    if !can_mount() {
        return;
    }
    let (_alone, lower) = (alone(), small_lower());
    let (mount, dir) = small_mount(&lower, false);
    (0..REPEAT).for_each(|n| fs::write(dir.join(format!("old-{n}")), b"content\n").unwrap());
    mount.costs("rename", 10.0, |n| {
        fs::rename(dir.join(format!("old-{n}")), dir.join(format!("new-{n}"))).unwrap();
    });
}

#[test]
fn a_walk_of_30000_files_needs_few_descriptors() {
    if !can_mount() {
        return;
    }
    let _alone = alone();
    let mount = Mount::new(forest(), 1024);
    assert_eq!(walk(&mount.root(), true), FILES + DIRS);
    let open = mount.descriptors();
    println!("{open} descriptors after reading {FILES} files, 1024 allowed");
    assert!(open < 1024);
    // Some to spare is left: new files can still be made.
    fs::write(mount.root().join("new"), b"content\n").unwrap();
}

#[test]
fn a_node_takes_at_most_400_bytes() {
    if !can_mount() {
        return;
    }
    let _alone = alone();
    let mount = Mount::new(forest(), 4096);
    // What is taken once, by each thread and its buffers, is not a node's.
    let warm = mount.root().join("directory-000");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| walk(&warm, true));
        }
    });
    let (nodes, memory) = (mount.nodes(), mount.memory());
    walk(&mount.root(), false);
    let (nodes, memory) = (mount.nodes() - nodes, mount.memory().saturating_sub(memory));
    assert!(nodes >= FILES - FILES / DIRS, "only {nodes} nodes: the kernel forgot some");
    let each = memory as f64 / nodes as f64;
    println!("{each:.0} bytes a node: {memory} bytes for {nodes} nodes");
    // The allocator takes memory by arenas, one a thread.
    let arenas = 1 << 20;
    assert!(memory <= 400 * nodes as u64 + arenas, "{each:.0} bytes a node");
}

#[test]
fn forgotten_nodes_are_gone() {
    if !can_mount() {
        return;
    }
    let _alone = alone();
    let mount = Mount::new(forest(), 4096);
    let start = mount.nodes();
    walk(&mount.root(), false);
    let most = mount.nodes();
    assert!(most >= start + FILES, "a walk made {most} nodes of {start}");
    let drop_caches = || {
        rustix::fs::sync();
        fs::write("/proc/sys/vm/drop_caches", b"2").unwrap();
    };
    drop_caches();
    let back = wait_until(20, || {
        let back = mount.nodes() <= start;
        if !back {
            drop_caches();
        }
        back
    });
    println!("{start} nodes, {most} after a walk, {} after dropping caches", mount.nodes());
    assert!(back, "{} nodes are left of {most}, {start} at the start", mount.nodes());
}

#[test]
fn a_stat_answers_while_eight_files_are_copied_up() {
    if !can_mount() {
        return;
    }
    let _alone = alone();
    // A gigabyte each in scripts/suites.sh.
    let mib = std::env::var("PLYFS_COPY_UP_MIB").map_or(128, |mib| mib.parse().unwrap());
    let lower = small_lower();
    let block = vec![b'x'; 1 << 20];
    for n in 0..8 {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(lower.path().join(format!("big-{n}")))
            .unwrap();
        (0..mib).for_each(|_| file.write_all(&block).unwrap());
    }
    rustix::fs::sync();
    let (mount, dir) = small_mount(&lower, false);
    let (barrier, finished) = (Barrier::new(9), AtomicUsize::new(0));
    let answered = std::thread::scope(|scope| {
        for n in 0..8 {
            let path = mount.root().join(format!("big-{n}"));
            let (barrier, finished) = (&barrier, &finished);
            scope.spawn(move || {
                barrier.wait();
                let mut file = OpenOptions::new().write(true).open(path).unwrap();
                file.write_all(b"y").unwrap();
                finished.fetch_add(1, Ordering::SeqCst);
            });
        }
        barrier.wait();
        std::thread::sleep(Duration::from_millis(20)); // all eight are on their way
        let mut answered = 0;
        while answered < REPEAT && finished.load(Ordering::SeqCst) == 0 {
            fs::metadata(dir.join(format!("lower-{answered}"))).unwrap();
            answered += usize::from(finished.load(Ordering::SeqCst) == 0);
        }
        answered
    });
    println!("{answered} cold lookups answered before the first copy-up of {mib} MiB was done");
    assert!(answered >= 20, "{answered} lookups answered while eight files were copied up");
    for n in 0..8 {
        let path = mount.root().join(format!("big-{n}"));
        assert_eq!(fs::metadata(&path).unwrap().len(), mib << 20);
        let mut start = [0; 2];
        OpenOptions::new().read(true).open(path).unwrap().read_exact(&mut start).unwrap();
        assert_eq!(&start, b"yx");
    }
}
