//! Whatever goes wrong in the middle of an operation, the tree is the old one or the new one.
//!
//! Every operation on every state an object can be in (the product of the two tables below, so
//! that no cell is empty), and for each the first, second, ... last change of the upper layer: the
//! machine stops there, or that change alone fails for want of space.

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

use std::collections::BTreeSet;
use std::sync::Arc;

use plyfs::attr::Kind;
use plyfs::errno::Errno;
use plyfs::layer::fault::{Fault, FaultLayer};
use plyfs::layer::mem::MemLayer;
use plyfs::layer::{Layer, Upper};
use plyfs::testkit::run::difference;
use plyfs::testkit::tree::render;
use plyfs::testkit::union_target::UnionTarget;
use plyfs::testkit::{Model, Op, Outcome, Place, Target, TreeSpec};
use plyfs::union::{Caller, DirEntry, Found, NodeId, RenameFlag, Stack, Union};

/// A stack in which `d/x` and `d/z` are files, `d/s` is an empty directory, `d/t` one that holds
/// `f`, and `d/n` is nothing; and what is done before the operation under test.
struct State {
    name: &'static str,
    upper: TreeSpec,
    lowers: Vec<TreeSpec>,
    before: Vec<Op<Place>>,
}

/// The objects that all states have, in one layer, below `d`.
fn objects(spec: TreeSpec, d: &str) -> TreeSpec {
    spec.file(&format!("{d}/x"), "content of x")
        .xattr("user.x", "value")
        .perm(0o4711)
        .owner(3, 3)
        .file(&format!("{d}/z"), "z")
        .dir(&format!("{d}/s"))
        .perm(0o700)
        .dir(&format!("{d}/t"))
        .file(&format!("{d}/t/f"), "f")
}

fn states() -> Vec<State> {
    let new = TreeSpec::new;
    let state = |name, upper, lowers| State { name, upper, lowers, before: vec![] };
    let hard_linked = || vec![objects(new(), "d").hardlink("d/x", "d/y").hardlink("d/x", "w")];
    vec![
        state("upper", objects(new().dir("d"), "d"), vec![new().dir("d")]),
        state("lower", new(), vec![objects(new().dir("d"), "d")]),
        state(
            "merged",
            objects(new().dir("d"), "d").whiteout("d/s/c").file("d/t/g", "new"),
            vec![objects(new().dir("d"), "d").file("d/s/c", "hidden").file("d/x", "old")],
        ),
        state(
            "whiteout",
            objects(new().dir("d"), "d").whiteout("d/n"),
            vec![
                new().whiteout("d/x").whiteout("d/s").whiteout("d/t"),
                objects(new(), "d").file("d/n/deep", "hidden").file("d/s/c", "hidden"),
            ],
        ),
        state(
            "opaque",
            objects(new().opaque("d"), "d"),
            vec![objects(new(), "d").file("d/n", "hidden").file("d/s/c", "hidden")],
        ),
        State {
            name: "redirected",
            upper: new(),
            lowers: vec![new(), objects(new().dir("old"), "old")],
            before: vec![Op::Rename("old".into(), "d".into(), RenameFlag::None)],
        },
        state("hard-linked", new(), hard_linked()),
        State {
            name: "hard-linked, renamed",
            upper: new(),
            lowers: hard_linked(),
            before: vec![
                Op::Truncate("d/y".into(), 3),
                Op::Rename("w".into(), "v".into(), RenameFlag::None),
            ],
        },
        state(
            "beside",
            objects(new().dir("d"), "d")
                .whiteout_beside("d/s")
                .whiteout_beside("d/t")
                .whiteout_beside("d/x")
                .whiteout_beside("d/n"),
            vec![
                objects(new(), "d")
                    .file("d/n/deep", "hidden")
                    .file("d/s/c", "hidden")
                    .file("d/t/hidden", "hidden"),
            ],
        ),
        State {
            name: "hard-linked, copied up",
            upper: new(),
            lowers: hard_linked(),
            before: vec![Op::Chmod("d/y".into(), 0o640)],
        },
    ]
}

const LEAVING: RenameFlag = RenameFlag::Whiteout { replace: true, by: Caller { uid: 0, gid: 0 } };

fn operations() -> Vec<Op<Place>> {
    let p = |path: &str| Place::from(path);
    let rename = |a, b, flag| Op::Rename(p(a), p(b), flag);
    vec![
        Op::Create(p("d/n"), 0o644),
        Op::Create(p("d/t/n"), 0o644),
        Op::Mkdir(p("d/n"), 0o755),
        Op::Symlink(p("d/n"), 1),
        Op::Fifo(p("d/n"), 0o644),
        Op::Char(p("d/n"), 0),
        Op::Link(p("d/x"), p("d/n")),
        Op::Unlink(p("d/x")),
        Op::Unlink(p("d/t/f")),
        Op::Rmdir(p("d/s")),
        rename("d/x", "d/n", RenameFlag::None),
        rename("d/x", "d/z", RenameFlag::None),
        rename("d/x", "d/n", RenameFlag::NoReplace),
        rename("d/x", "d/z", RenameFlag::Exchange),
        rename("d/x", "d/t", RenameFlag::Exchange),
        rename("d/t", "d/n", RenameFlag::None),
        rename("d/t", "d/s", RenameFlag::None),
        rename("d/t", "d/s", RenameFlag::Exchange),
        rename("d/z", "top", RenameFlag::None),
        rename("d/t", "top", RenameFlag::None),
        rename("d", "top", RenameFlag::None),
        rename("d/x", "d/n", LEAVING),
        rename("d/x", "d/z", LEAVING),
        rename("d/t", "d/n", LEAVING),
        rename("d/t", "d/s", LEAVING),
        rename("d", "top", LEAVING),
        Op::Write(p("d/x"), 3, 5, b'w'),
        Op::Append(p("d/x"), 5, b'w'),
        Op::Truncate(p("d/x"), 4),
        Op::OpenTrunc(p("d/x")),
        Op::Chmod(p("d/x"), 0o600),
        Op::Chmod(p("d/t"), 0o700),
        Op::Chown(p("d/x"), 7, 7),
        Op::Utimens(p("d/x"), 9),
        Op::SetXattr(p("d/x"), 1, 3, 0),
        Op::RemoveXattr(p("d/x"), 0),
    ]
}

/// A mounted state: the layers, the fault, the union.
struct Bench {
    upper: Arc<MemLayer>,
    lowers: Vec<Arc<MemLayer>>,
    fault: Arc<FaultLayer>,
    union: UnionTarget,
}

fn mount(upper: Arc<dyn Upper>, all: Vec<Arc<MemLayer>>) -> UnionTarget {
    let lowers = all[1..].to_vec();
    let stack = move || {
        let lowers = lowers.iter().map(|mem| Arc::clone(mem) as Arc<dyn Layer>).collect();
        Stack { upper: Some(Arc::clone(&upper)), lowers }
    };
    let leaks = move || {
        let counts = all.iter().map(|mem| (mem.live_refs(), mem.live_opens()));
        counts.filter(|n| *n != (0, 0)).map(|n| format!("references and opens: {n:?}")).collect()
    };
    UnionTarget::new(stack, leaks)
}

impl Bench {
    fn new(state: &State) -> Self {
        let upper = state.upper.mem(1);
        let lowers: Vec<_> = state.lowers.iter().zip(2..).map(|(spec, fs)| spec.mem(fs)).collect();
        let fault = FaultLayer::new(Arc::clone(&upper) as Arc<dyn Upper>);
        let all = std::iter::once(&upper).chain(&lowers).cloned().collect();
        let mut union = mount(Arc::clone(&fault) as Arc<dyn Upper>, all);
        for op in &state.before {
            assert_eq!(union.apply(op), Outcome::Done, "{}: {op}", state.name);
        }
        Self { upper, lowers, fault, union }
    }

    fn text(&mut self) -> String {
        render(&self.union.tree())
    }

    /// The machine comes back: work is swept, the union is built anew over the same layers.
    fn reopen(mut self) -> (UnionTarget, Arc<MemLayer>) {
        self.fault.arm(Fault::None);
        self.union.unmount();
        self.upper.sweep();
        let all = std::iter::once(&self.upper).chain(&self.lowers).cloned().collect();
        (mount(Arc::clone(&self.upper) as Arc<dyn Upper>, all), self.upper)
    }
}

/// What an operation does when nothing goes wrong.
struct Expected {
    before: String,
    after: String,
    outcome: Outcome,
    changes: u64,
}

fn undisturbed(state: &State, op: &Op<Place>) -> Expected {
    let what = format!("{}: {op}", state.name);
    let specs: Vec<_> = std::iter::once(&state.upper).chain(&state.lowers).cloned().collect();
    let mut model = Model::merged(&specs);
    for op in &state.before {
        model.apply(op);
    }
    let mut bench = Bench::new(state);
    let before = bench.text();
    assert_eq!(difference(&render(&model.tree()), &before), "", "{what}: to begin with");
    bench.fault.arm(Fault::None);
    let outcome = bench.union.apply(op);
    let changes = bench.fault.count();
    assert_eq!(outcome, model.apply(op), "{what}");
    assert!(matches!(outcome, Outcome::Done | Outcome::Count(_)), "{what}: {outcome:?}");
    let after = bench.text();
    assert_eq!(difference(&render(&model.tree()), &after), "", "{what}");
    assert_ne!(before, after, "{what}: a change that nobody sees proves nothing");
    assert_eq!(bench.upper.staged_count(), 0, "{what}: something stays in work");
    let (mut again, _) = bench.reopen();
    assert_eq!(difference(&after, &render(&again.tree())), "", "{what}: after a remount");
    again.unmount();
    Expected { before, after, outcome, changes }
}

/// The tree without the times of directories: taking the whiteouts out of an empty one, before it
/// is removed, moves its time, and a user who sees only that has lost nothing.
fn untimed(text: &str) -> String {
    let lines = text.lines().map(|line| match line.rsplit_once(" mtime=") {
        Some((line, _)) if line.contains(" dir ") => format!("{line}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// Checks that `got` is the old tree or the new one; says whether it is the new one.
fn old_or_new(expected: &Expected, got: &str, what: &str) -> bool {
    let (before, after) = (&untimed(&expected.before), &untimed(&expected.after));
    let got = &untimed(got);
    assert!(
        got == before || got == after,
        "{what}: neither the old tree nor the new one\nfrom the old:\n{}from the new:\n{}",
        difference(before, got),
        difference(after, got)
    );
    got == after
}

fn stop_at(state: &State, op: &Op<Place>, n: u64, expected: &Expected) {
    let what = format!("{}: {op}: stopped at change {n} of {}", state.name, expected.changes);
    let mut bench = Bench::new(state);
    bench.fault.arm(Fault::Stop(n));
    bench.union.apply(op);
    let (mut again, upper) = bench.reopen();
    let is_new = old_or_new(expected, &render(&again.tree()), &what);
    if !is_new {
        assert_eq!(again.apply(op), expected.outcome, "{what}: done again");
        let got = render(&again.tree());
        let left = difference(&untimed(&expected.after), &untimed(&got));
        assert_eq!(left, "", "{what}: done again");
    }
    again.unmount();
    assert_eq!(upper.staged_count(), 0, "{what}: something stays in work");
}

/// Looks everything up below `dir` and keeps it, as the kernel does.
fn hold_all(union: &Union, dir: NodeId, held: &mut Vec<NodeId>) {
    let from = held.len();
    let keep = |_: &DirEntry<'_>, found: Option<&Found>| {
        held.extend(found.map(|found| found.node));
        true
    };
    union.readdirplus(dir, 0, &mut { keep }).unwrap();
    for at in from..held.len() {
        let node = held[at];
        if union.getattr(node).unwrap().kind == Kind::Dir {
            hold_all(union, node, held);
        }
    }
}

fn fail_at(state: &State, op: &Op<Place>, n: u64, expected: &Expected, hold: bool) {
    let held = if hold { ", everything held" } else { "" };
    let what = format!("{}: {op}: change {n} of {} failed{held}", state.name, expected.changes);
    let mut bench = Bench::new(state);
    let mut held = Vec::new();
    if hold {
        let union = bench.union.union();
        hold_all(union, union.root(), &mut held);
    }
    bench.fault.arm(Fault::Fail(n, Errno::ENOSPC));
    let outcome = bench.union.apply(op);
    let is_new = old_or_new(expected, &bench.text(), &what);
    if outcome == expected.outcome {
        assert!(is_new, "{what}: it says that it is done, but the tree is the old one");
    } else {
        assert_eq!(outcome, Outcome::Failed(Errno::ENOSPC), "{what}");
        // A truncation publishes a copy that is cut short, and then cuts it as any file: if only
        // the second fails, the caller hears of it although the first has done all there was.
        let cuts = matches!(op, Op::Truncate(..) | Op::OpenTrunc(_));
        assert!(!is_new || cuts, "{what}: it says that it failed, but the tree is the new one");
    }
    let excused = usize::from(bench.fault.discard_failed());
    assert!(bench.upper.staged_count() <= excused, "{what}: something stays in work");
    if !is_new {
        bench.fault.arm(Fault::None);
        assert_eq!(bench.union.apply(op), expected.outcome, "{what}: done again");
        let left = difference(&untimed(&expected.after), &untimed(&bench.text()));
        assert_eq!(left, "", "{what}: done again");
    }
    for node in held {
        bench.union.union().forget(node, 1);
    }
    let (mut again, _) = bench.reopen();
    let got = render(&again.tree());
    let left = difference(&untimed(&expected.after), &untimed(&got));
    assert_eq!(left, "", "{what}: after a remount");
    again.unmount();
}

/// Runs `check` in every cell, collects what fails instead of stopping at the first.
fn every_cell(check: impl Fn(&State, &Op<Place>, &Expected)) {
    let (states, operations) = (states(), operations());
    let mut covered = BTreeSet::new();
    let mut failures = Vec::new();
    for state in &states {
        for op in &operations {
            let cell = std::panic::AssertUnwindSafe(|| check(state, op, &undisturbed(state, op)));
            match std::panic::catch_unwind(cell) {
                Ok(()) => assert!(covered.insert((state.name, op.to_string()))),
                Err(_) => failures.push(format!("{}: {op}", state.name)),
            }
        }
    }
    assert!(failures.is_empty(), "{} cells failed: {failures:#?}", failures.len());
    // The matrix has no empty cell, and no operation of the enum is missing from it.
    assert_eq!(covered.len(), states.len() * operations.len());
    let verbs: BTreeSet<String> = operations.iter().map(verb).collect();
    assert_eq!(verbs.len(), 18, "every operation that changes a tree: {verbs:?}");
}

fn verb(op: &Op<Place>) -> String {
    let text = format!("{op:?}");
    text.split('(').next().unwrap_or_default().to_owned()
}

#[test]
fn every_operation_in_every_state_is_what_a_plain_directory_does() {
    every_cell(|_, _, expected| assert!(expected.changes > 0));
}

#[test]
fn a_machine_that_stops_at_any_change_comes_back_with_the_old_tree_or_the_new() {
    every_cell(|state, op, expected| {
        (1..=expected.changes).for_each(|n| stop_at(state, op, n, expected));
    });
}

#[test]
fn a_change_that_fails_fails_the_operation_and_leaves_nothing_behind() {
    every_cell(|state, op, expected| {
        (1..=expected.changes).for_each(|n| fail_at(state, op, n, expected, false));
    });
}

/// What the kernel has looked up stays as it is in memory until it is forgotten.
#[test]
fn a_change_that_fails_leaves_the_nodes_that_are_held_as_good_as_new_ones() {
    every_cell(|state, op, expected| {
        (1..=expected.changes).for_each(|n| fail_at(state, op, n, expected, true));
    });
}
