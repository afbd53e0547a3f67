//! Without privileges, stopped before each system call that changes something: what the next mount
//! finds is the old tree or the new one, and nothing else lies about.
//!
//! `tests/crash.rs` stops between the steps of an upper layer. Here a step may be several calls: a
//! mark that an object cannot carry is written beside it, permission bits are a mark and bits. A
//! process of its own, this same program, does an operation as a user without privileges; strace
//! kills it. As root alone, since a user's process is to be started.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is test code: a surprise must stop the test, and layers are seen from outside"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use plyfs::attr::Kind;
use plyfs::layer::dir::{DirLayer, DirUpper, UpperOptions};
use plyfs::layer::{Layer, Upper};
use plyfs::testkit::run::difference;
use plyfs::testkit::tree::render;
use plyfs::testkit::union_target::UnionTarget;
use plyfs::testkit::{Op, Outcome, Place, Target, TreeSpec};
use plyfs::union::{Caller, RenameFlag, Stack};

/// Tells the child what to do: the directory, the number of the case, and up to where.
const TASK: &str = "PLYFS_STOPPED_TASK";
/// Who that is.
const USER: u32 = 1000;
/// A name that is removed before the operation, though it never was there: to be found in traces.
const MARKER: &str = "/plyfs-the-operation-begins";
/// Calls that change something, by names that strace knows. Data and times are not what this is
/// about.
const CHANGES: &str = "mkdirat,mknodat,symlinkat,linkat,renameat,renameat2,unlinkat,fchmodat,\
                       fchownat,setxattr,lsetxattr,removexattr,lremovexattr";

fn lower() -> TreeSpec {
    TreeSpec::new()
        .dir("d")
        .file("d/f", "F")
        .symlink("l", "target")
        .symlink("h", "target")
        .hardlink("h", "d/h")
        .fifo("p")
        .file("big", "content")
        .dir("full")
        .file("full/x", "x")
}

struct Case {
    before: Vec<Op<Place>>,
    op: Op<Place>,
}

fn cases() -> Vec<Case> {
    let case = |before: &[Op<Place>], op| Case { before: before.to_vec(), op };
    let rename = |from: &str, to: &str| Op::Rename(from.into(), to.into(), RenameFlag::None);
    let touch = |at: &str| Op::Utimens(at.into(), 7);
    vec![
        // A record is made with the object, or changed, or follows it.
        case(&[], rename("l", ".wh.l")),
        case(&[], Op::Link("h".into(), "n".into())),
        case(&[], rename("p", "d/.wh.p")),
        case(&[touch("l")], rename("l", "full/.wh.l")),
        // It goes with the last name.
        case(&[touch("l")], Op::Unlink("l".into())),
        case(&[touch("h")], Op::Unlink("d/h".into())),
        case(&[touch("l"), Op::Create("c".into(), 0o644)], rename("c", "l")),
        // Bits and marks.
        case(&[], Op::Chmod("big".into(), 0o200)),
        case(&[Op::Create("c".into(), 0o644)], Op::Chmod("c".into(), 0)),
        case(&[Op::Mkdir("m".into(), 0)], Op::Chmod("m".into(), 0o755)),
        case(&[], Op::Create("c".into(), 0o444)),
        // Marks that decide what shows.
        case(&[], rename("d", "e")),
        case(
            &[Op::Unlink("full/x".into()), Op::Rmdir("full".into())],
            Op::Mkdir("full".into(), 0o755),
        ),
    ]
}

fn stack(dir: &Path) -> Stack {
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    let upper = DirUpper::open(&upper, &work, UpperOptions::default()).expect("opens");
    let lower: Arc<dyn Layer> = DirLayer::open(&dir.join("lower")).expect("opens");
    Stack { upper: Some(upper as Arc<dyn Upper>), lowers: vec![lower] }
}

/// Everything that a mount would show, and how much lies beside it.
fn told(dir: &Path) -> String {
    let from = dir.to_owned();
    let mut union = UnionTarget::new(move || stack(&from), Vec::new);
    let mut tree = union.tree();
    // That a copy-up is no change of its directory's is put right after the step.
    tree.iter_mut().filter(|seen| seen.kind == Kind::Dir).for_each(|seen| seen.mtime = None);
    let lowers = ["d", "d/f", "l", "h", "p", "big", "full"].map(|name| {
        let ino = fs::symlink_metadata(dir.join("lower").join(name)).unwrap().ino();
        let at: Vec<_> = tree.iter().filter(|seen| seen.ino == ino).collect();
        let at = at.iter().map(|seen| seen.place.to_string()).collect::<Vec<_>>();
        format!("{name} is {}\n", at.join(" "))
    });
    let records = fs::read_dir(dir.join("work/plyfs/marks")).map_or(0, Iterator::count);
    let mut objects = BTreeSet::new();
    let all = dir.join("work/plyfs/all").exists();
    let mut left = vec![dir.join("upper"), dir.join("work/index")];
    while let Some(path) = left.pop() {
        let seen = fs::symlink_metadata(&path).unwrap();
        if all || !(seen.is_file() || seen.is_dir()) {
            objects.insert(seen.ino());
        }
        if seen.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    let beside = format!("{} records too many\n", records.saturating_sub(objects.len()));
    let left = fs::read_dir(dir.join("work/work")).unwrap().map(|entry| entry.unwrap().file_name());
    let left = left.filter(|name| name != "incompat").collect::<Vec<_>>();
    format!("{}{}{beside}left in work: {left:?}\n", render(&tree), lowers.concat())
}

/// What the other tests start, as a user without privileges; nothing by itself.
#[test]
fn child() {
    let Some(task) = std::env::var_os(TASK) else { return };
    let task = task.into_string().unwrap();
    let [dir, number, until] = task.split(':').collect::<Vec<_>>()[..] else { panic!("{task}") };
    let dir = PathBuf::from(dir);
    if until == "tell" {
        return fs::write(dir.join("told"), told(&dir)).unwrap();
    }
    let case = &cases()[number.parse::<usize>().unwrap()];
    let from = dir.clone();
    let mut union = UnionTarget::new(move || stack(&from), Vec::new);
    union.act_as(Caller { uid: USER, gid: USER });
    for op in &case.before {
        assert_eq!(union.apply(op), Outcome::Done, "{op}");
    }
    let marked = rustix::fs::unlinkat(rustix::fs::CWD, MARKER, rustix::fs::AtFlags::empty());
    assert_eq!(marked, Err(rustix::io::Errno::NOENT));
    if until == "after" {
        assert_eq!(union.apply(&case.op), Outcome::Done, "{}", case.op);
    }
}

struct Stage {
    dir: tempfile::TempDir,
    filter: &'static str,
}

impl Stage {
    fn new(filter: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let stage = Self { dir, filter };
        fs::create_dir(stage.path("lower")).unwrap();
        lower().system(&stage.path("lower")).unwrap();
        stage.own("lower");
        // The program may lie where others cannot go.
        let (built, here) = (std::env::current_exe().unwrap(), stage.path("program"));
        fs::hard_link(&built, &here).or_else(|_| fs::copy(&built, &here).map(drop)).unwrap();
        let filter = include_str!("mounted/programs/filtered.py");
        fs::write(stage.path("filtered"), filter).unwrap();
        fs::create_dir(stage.path("out")).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn own(&self, name: &str) {
        let chown = Command::new("chown")
            .arg("-R")
            .arg(format!("{USER}:{USER}"))
            .arg(self.path(name))
            .status();
        assert!(chown.unwrap().success());
    }

    /// An empty upper layer.
    fn clear(&self) {
        for name in ["upper", "work"] {
            if self.path(name).exists() {
                fs::remove_dir_all(self.path(name)).unwrap();
            }
            fs::create_dir(self.path(name)).unwrap();
            self.own(name);
        }
        fs::write(self.path("told"), "").unwrap();
        self.own("told");
    }

    /// Runs the child under strace with these arguments; whether it ended well.
    fn child(&self, number: usize, until: &str, strace: &[&str]) -> bool {
        let mut command = Command::new("python3");
        command.arg(self.path("filtered")).arg(self.filter);
        if !strace.is_empty() {
            command.args(["strace", "-f", "-qq"]).args(strace);
        }
        let (user, group) = (format!("--reuid={USER}"), format!("--regid={USER}"));
        command.args(["setpriv", &user, &group, "--clear-groups"]);
        command.arg(self.path("program")).args(["--exact", "child", "--test-threads=1"]);
        command.env(TASK, format!("{}:{number}:{until}", self.dir.path().display()));
        command.current_dir("/").output().unwrap().status.success()
    }

    fn told(&self) -> String {
        assert!(self.child(0, "tell", &[]), "the tree cannot be told");
        fs::read_to_string(self.path("told")).unwrap()
    }

    /// The changes that the operation makes: each as the n-th call of that name, which is how
    /// strace counts.
    fn changes(&self, number: usize) -> Vec<(String, usize)> {
        let trace = self.path("trace").display().to_string();
        let which = format!("trace={CHANGES}");
        assert!(self.child(number, "after", &["-o", &trace, "-e", &which]), "case {number}");
        let trace = fs::read_to_string(trace).unwrap();
        let begins = trace.lines().find(|line| line.contains(MARKER)).unwrap();
        let thread = begins.split_whitespace().next().unwrap();
        let mut counts = BTreeMap::new();
        let own = trace.lines().filter(|line| line.starts_with(thread)).map(|line| {
            let call = line.split_whitespace().nth(1).unwrap().split('(').next().unwrap();
            let count = counts.entry(call).or_insert(0);
            *count += 1;
            (line, call.to_owned(), *count)
        });
        let own: Vec<_> = own.collect();
        let operation = own.into_iter().skip_while(|(line, ..)| *line != begins).skip(1);
        // Numbers that strace has no names for are those that the filter refuses.
        let named = operation.filter(|(_, call, _)| CHANGES.split(',').any(|name| name == call));
        named.map(|(_, call, count)| (call, count)).collect()
    }

    /// Plays one case through; returns how often it was stopped.
    fn play(&self, number: usize) -> usize {
        let [old, new] = ["before", "after"].map(|until| {
            self.clear();
            assert!(self.child(number, until, &[]), "case {number}");
            self.told()
        });
        assert_ne!(old, new, "case {number} changes nothing");
        self.clear();
        let changes = self.changes(number);
        assert!(!changes.is_empty(), "case {number}: nothing is changed");
        for (call, count) in &changes {
            self.clear();
            let inject = format!("inject={call}:signal=SIGKILL:when={count}");
            let out = self.path("out/trace").display().to_string();
            let which = format!("trace={CHANGES}");
            let strace = ["-o", &out, "-e", &which, "-e", &inject];
            assert!(!self.child(number, "after", &strace), "{call} {count}: not stopped");
            let told = self.told();
            assert!(
                told == old || told == new,
                "{} stopped before {call} {count}\n{}\n{}\n{}",
                cases()[number].op,
                difference(&old, &told),
                difference(&new, &told),
                fs::read_to_string(out).unwrap(),
            );
        }
        changes.len()
    }
}

/// Plays these cases, or with `PLYFS_STOPS=all` all of them.
fn play_all(filter: &'static str, numbers: &[usize]) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let stage = Stage::new(filter);
    let all: Vec<_> = (0..cases().len()).collect();
    let is_all = std::env::var_os("PLYFS_STOPS").is_some_and(|said| said == "all");
    let numbers = if is_all { &all } else { numbers };
    let stops: usize = numbers.iter().map(|number| stage.play(*number)).sum();
    println!("{stops} stops");
}

#[test]
fn without_privileges_each_change_is_made_or_not() {
    play_all("old", &[0, 5, 6, 8, 9, 11]);
}

#[test]
fn without_attributes_each_change_is_made_or_not() {
    play_all("bare", &[1, 12]);
}
