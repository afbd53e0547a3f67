//! Several threads on one union: no deadlock, no two copies of one file, nobody waits for a copy-up
//! of somebody else's file, and what is left is what a remount shows.

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

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plyfs::attr::SetAttr;
use plyfs::errno::Errno;
use plyfs::layer::Layer;
use plyfs::layer::mem::MemLayer;
use plyfs::name::Name;
use plyfs::testkit::TreeSpec;
use plyfs::testkit::hook::{Call, HookLayer};
use plyfs::union::{Caller, Mode, NodeId, Options, RenameFlag, Stack, Union};

const ROOT: Caller = Caller { uid: 0, gid: 0 };
const MODE: Mode = Mode { perm: 0o755, umask: 0 };
/// Far beyond what any of this takes: whoever is not done by then waits for ever.
const LONG: Duration = Duration::from_mins(2);

fn name(bytes: &str) -> Name<'_> {
    Name::new(bytes.as_bytes()).unwrap()
}

fn union(upper: &Arc<MemLayer>, lower: Arc<dyn Layer>) -> Arc<Union> {
    let stack = Stack { upper: Some(upper.clone()), lowers: vec![lower] };
    Arc::new(Union::new(stack, Options::default()).unwrap())
}

/// Runs `work` on `threads` threads and fails if they do not end.
fn in_parallel(threads: u64, work: impl Fn(u64) + Send + Sync + 'static) {
    let (done, all_done) = channel();
    let work = Arc::new(work);
    let handles: Vec<_> = (0..threads)
        .map(|thread| {
            let (work, done) = (Arc::clone(&work), done.clone());
            std::thread::spawn(move || {
                work(thread);
                done.send(()).unwrap();
            })
        })
        .collect();
    for _ in 0..threads {
        if all_done.recv_timeout(LONG).is_err() {
            let panicked = handles.iter().filter(|h| h.is_finished()).count();
            panic!("deadlock, or a thread panicked ({panicked} have ended)");
        }
    }
}

/// xorshift: the same sequence for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// What is at `path` of names, looked up from the root; forgotten by the caller.
fn walk(union: &Union, path: &[&str]) -> Option<Vec<NodeId>> {
    let mut nodes = vec![union.root()];
    for part in path {
        let Ok(Some(found)) = union.lookup(*nodes.last().unwrap(), name(part)) else {
            release(union, &nodes);
            return None;
        };
        nodes.push(found.node);
    }
    Some(nodes)
}

fn release(union: &Union, nodes: &[NodeId]) {
    for node in nodes.iter().skip(1).rev() {
        union.forget(*node, 1);
    }
}

/// Gives what is at `of` in the root's directory `from` a name more.
fn link(union: &Union, from: &str, of: &str, to: (NodeId, &str)) -> plyfs::errno::Result<()> {
    let Some(nodes) = walk(union, &[from]) else { return Ok(()) };
    let outcome = match union.lookup(*nodes.last().unwrap(), name(of)) {
        Ok(Some(found)) => {
            let linked = union.link(found.node, to.0, name(to.1));
            union.forget(found.node, 1);
            linked.map(|made| union.forget(made.node, 1))
        }
        other => other.map(drop),
    };
    release(union, &nodes);
    outcome
}

fn one_random_operation(union: &Union, random: &mut Random) {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let depth = random.below(3);
    let path: Vec<&str> = (0..depth).map(|_| NAMES[random.below(4) as usize]).collect();
    let Some(nodes) = walk(union, &path) else { return };
    let dir = *nodes.last().unwrap();
    let (entry, other) = (NAMES[random.below(4) as usize], NAMES[random.below(4) as usize]);
    let outcome = match random.below(11) {
        0 => union.mkdir(dir, name(entry), MODE, &ROOT).map(|made| union.forget(made.node, 1)),
        1 => union.create(dir, name(entry), MODE, libc::O_RDWR, &ROOT).map(|(made, handle)| {
            union.write(made.node, handle, b"new", 0, false).unwrap();
            union.release(made.node, handle).unwrap();
            union.forget(made.node, 1);
        }),
        2 => union.unlink(dir, name(entry)),
        3 => union.rmdir(dir, name(entry)),
        4 => union.rename((dir, name(entry)), (dir, name(other)), RenameFlag::None),
        5 => match walk(union, &[other]) {
            Some(to) => {
                let flag = [RenameFlag::None, RenameFlag::Exchange][random.below(2) as usize];
                let target = (*to.last().unwrap(), name(entry));
                let outcome = union.rename((dir, name(entry)), target, flag);
                release(union, &to);
                outcome
            }
            None => Ok(()),
        },
        6 => match union.lookup(dir, name(entry)) {
            Ok(Some(found)) => {
                let set = SetAttr { perm: Some(0o700), ..SetAttr::default() };
                let outcome = union.setattr(found.node, &set).map(drop);
                union.forget(found.node, 1);
                outcome
            }
            other => other.map(drop),
        },
        7 => match union.lookup(dir, name(entry)) {
            Ok(Some(found)) => {
                let outcome = union.open(found.node, libc::O_RDWR, false).map(|handle| {
                    union.write(found.node, handle, b"!", 1, false).unwrap();
                    union.release(found.node, handle).unwrap();
                });
                union.forget(found.node, 1);
                outcome
            }
            other => other.map(drop),
        },
        8 | 9 => link(union, other, NAMES[random.below(4) as usize], (dir, entry)),
        _ => union.readdirplus(dir, 0, &mut |_, found| {
            found.inspect(|found| union.forget(found.node, 1));
            true
        }),
    };
    release(union, &nodes);
    if let Err(error) = outcome {
        let allowed = [
            Errno::ENOENT,
            Errno::EEXIST,
            Errno::ENOTDIR,
            Errno::EISDIR,
            Errno::ENOTEMPTY,
            Errno::EINVAL,
            Errno::ESTALE,
            Errno::ENXIO,
            // link of a directory
            Errno::EPERM,
        ];
        assert!(allowed.contains(&error.errno()), "{error}");
    }
}

fn listing(union: &Union, dir: NodeId, at: &str, out: &mut Vec<String>) {
    let mut entries = Vec::new();
    union
        .readdirplus(dir, 0, &mut |entry, found| {
            if let Some(found) = found {
                entries.push((String::from_utf8_lossy(entry.name).into_owned(), *found));
            }
            true
        })
        .unwrap();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    for (entry, found) in entries {
        let path = format!("{at}/{entry}");
        let attr = found.attr;
        let (kind, nlink) = (attr.kind, attr.nlink);
        out.push(format!("{path} {kind:?} {:o} {} {nlink} {}", attr.perm, attr.size, attr.ino));
        if attr.kind == plyfs::attr::Kind::Dir {
            listing(union, found.node, &path, out);
        }
        union.forget(found.node, 1);
    }
}

/// `PLYFS_CASES` says how many rounds (20).
fn seeds() -> u64 {
    std::env::var("PLYFS_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}

#[test]
fn random_operations_of_many_threads_leave_one_truth() {
    for seed in 1..=seeds() {
        let lower = TreeSpec::new()
            .dir("a")
            .file("a/a", "aa")
            .dir("a/b")
            .file("a/b/c", "abc")
            .file("b", "b")
            .dir("c")
            .file("c/d", "cd")
            .hardlink("c/d", "c/a")
            .hardlink("c/d", "a/d")
            .hardlink("c/d", "a/b/a")
            .mem(1);
        let before = lower.dump_exact();
        let upper = MemLayer::new(2);
        let mounted = union(&upper, lower.clone());
        let workers = Arc::clone(&mounted);
        in_parallel(4, move |thread| {
            let mut random = Random(seed * 1000 + thread + 1);
            for _ in 0..300 {
                one_random_operation(&workers, &mut random);
            }
        });
        let mut seen = Vec::new();
        listing(&mounted, mounted.root(), "", &mut seen);
        assert_eq!(mounted.node_count(), 1, "seed {seed}: nodes stay behind");
        drop(mounted);
        assert_eq!(upper.staged_count(), 0, "seed {seed}: something stays in the work directory");
        assert_eq!(upper.live_refs() + lower.live_refs(), 0, "seed {seed}: references leak");
        let again = union(&upper, lower.clone());
        let mut after = Vec::new();
        listing(&again, again.root(), "", &mut after);
        assert_eq!(seen, after, "seed {seed}: a remount shows something else");
        assert_eq!(before, lower.dump_exact(), "seed {seed}: the lower layer changed");
    }
}

#[test]
fn line_51_two_copy_ups_of_one_file_coalesce() {
    for _ in 0..50 {
        let lower = TreeSpec::new().file("f", "content").mem(1);
        let upper = MemLayer::new(2);
        let mounted = union(&upper, lower);
        let workers = Arc::clone(&mounted);
        in_parallel(4, move |thread| {
            let found = workers.lookup(workers.root(), name("f")).unwrap().unwrap();
            let handle = workers.open(found.node, libc::O_RDWR, false).unwrap();
            let mark = [b'0' + u8::try_from(thread).unwrap()];
            workers.write(found.node, handle, &mark, thread, false).unwrap();
            workers.release(found.node, handle).unwrap();
            workers.forget(found.node, 1);
        });
        let found = mounted.lookup(mounted.root(), name("f")).unwrap().unwrap();
        let handle = mounted.open(found.node, libc::O_RDONLY, false).unwrap();
        let mut content = [0; 7];
        mounted.read(found.node, handle, &mut content, 0).unwrap();
        assert_eq!(&content, b"0123ent", "a write of one thread went into another copy");
        mounted.release(found.node, handle).unwrap();
        mounted.forget(found.node, 1);
    }
}

/// fuse-overlayfs 1.x and 2.0 stop everybody while they copy (0.2 to 1.2 s for half a gigabyte).
#[test]
fn line_51_a_copy_up_in_flight_blocks_nobody_else() {
    let inner = TreeSpec::new().dir("d").file("d/big", "big content").file("d/small", "s").mem(1);
    let (waiting, arrived) = channel();
    let (let_through, open) = channel::<()>();
    let gate = Mutex::new((waiting, open));
    let gate = HookLayer::new(inner, move |call| {
        if let Call::Open = call {
            let gate = gate.lock().unwrap();
            gate.0.send(()).unwrap();
            gate.1.recv_timeout(LONG).map_err(|_| Errno::EIO)?;
        }
        Ok(())
    });
    let upper = MemLayer::new(2);
    let mounted = union(&upper, gate);
    let nodes = walk(&mounted, &["d", "big"]).unwrap();
    let (dir, big) = (nodes[1], nodes[2]);
    let copier = Arc::clone(&mounted);
    let copying = std::thread::spawn(move || copier.open(big, libc::O_RDWR, false));
    arrived.recv_timeout(LONG).unwrap();

    let (done, others) = channel();
    let busy = Arc::clone(&mounted);
    std::thread::spawn(move || {
        assert_eq!(busy.getattr(big).unwrap().size, 11, "the file itself answers stat, too");
        assert!(busy.lookup(dir, name("big")).unwrap().is_some());
        assert!(busy.lookup(dir, name("none")).unwrap().is_none());
        busy.mkdir(dir, name("new"), MODE, &ROOT).unwrap();
        busy.unlink(dir, name("small")).unwrap();
        busy.rename((dir, name("new")), (busy.root(), name("moved")), RenameFlag::None).unwrap();
        let mut names = 0;
        busy.readdir(dir, 0, &mut |_| {
            names += 1;
            true
        })
        .unwrap();
        assert_eq!(names, 3, "., .. and big");
        // The directory above the file that is being copied may move meanwhile.
        busy.rename((busy.root(), name("d")), (busy.root(), name("e")), RenameFlag::None).unwrap();
        done.send(()).unwrap();
    });
    others.recv_timeout(Duration::from_secs(20)).expect("somebody waits for the copy-up");
    assert!(!copying.is_finished(), "the copy-up did not wait for the gate");
    let_through.send(()).unwrap();
    let handle = copying.join().unwrap().unwrap();
    mounted.release(big, handle).unwrap();
    let moved = walk(&mounted, &["e", "big"]).expect("the copy went with its directory");
    assert_eq!(*moved.last().unwrap(), big);
}
