//! Runs operations on several targets at once and compares them after each.

use std::collections::HashMap;
use std::fmt;

use super::model::Model;
use super::op::{At, Op};
use super::place::Place;
use super::tree::{Seen, render, shown};
use crate::attr::{Attr, Kind};
use crate::errno::Errno;

/// What an operation gives.
#[derive(Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It worked.
    Done,
    /// It failed.
    Failed(Errno),
    /// Content, a link's target, an attribute's value.
    Bytes(Vec<u8>),
    /// How many bytes were written.
    Count(usize),
    /// The names and types in a directory, sorted.
    Names(Vec<(Vec<u8>, Kind)>),
    /// What stat tells: type, permissions, links (0 for directories), size of a file.
    Stat(Kind, u16, u32, u64),
    /// Not tried: it means nothing there (`open` of a FIFO would wait), by the rule of all targets.
    Skipped,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Failed(errno) => write!(f, "{errno:?}"),
            Self::Bytes(bytes) => f.write_str(&shown(bytes)),
            Self::Count(n) => write!(f, "{n} bytes"),
            Self::Names(names) => {
                f.write_str("[")?;
                for (name, kind) in names {
                    write!(f, " {}:{kind:?}", name.escape_ascii())?;
                }
                f.write_str(" ]")
            }
            Self::Stat(kind, perm, nlink, size) => {
                write!(f, "{kind:?} {perm:04o} nlink={nlink} size={size}")
            }
            Self::Skipped => f.write_str("skipped"),
        }
    }
}

/// The outcome of a stat.
pub fn stat(attr: &Attr) -> Outcome {
    let nlink = if attr.kind == Kind::Dir { 0 } else { attr.nlink };
    let size = if attr.kind == Kind::File { attr.size } else { 0 };
    Outcome::Stat(attr.kind, attr.perm, nlink, size)
}

/// The rule of all targets for operations that need a regular file: what they give for an object
/// of another type, without being tried.
pub fn not_a_file(kind: Kind, write: bool) -> Option<Outcome> {
    match kind {
        Kind::File => None,
        Kind::Dir if write => Some(Outcome::Failed(Errno::EISDIR)),
        _ => Some(Outcome::Skipped),
    }
}

/// Whether an extended attribute may be on an object of this type; the kernel's own rule for
/// `user.`, ours for capabilities, which mean something on files only.
pub fn xattr_rule(kind: Kind, name: &[u8], set: bool) -> Option<Outcome> {
    let plain = matches!(kind, Kind::File | Kind::Dir);
    if name.starts_with(b"user.") && !plain {
        return Some(Outcome::Failed(if set { Errno::EPERM } else { Errno::ENODATA }));
    }
    (name.starts_with(b"security.") && kind != Kind::File).then_some(Outcome::Skipped)
}

/// A filesystem that operations can be done on.
pub trait Target {
    /// What it is, for messages.
    fn name(&self) -> String;

    /// Does one operation.
    fn apply(&mut self, op: &Op<Place>) -> Outcome;

    /// The whole tree as it is seen.
    fn tree(&mut self) -> Vec<Seen>;

    /// Whether a directory's time of change stays when it moves to another parent (XFS counts the
    /// new `..` as a change of its content).
    fn keeps_dir_times(&self) -> bool {
        true
    }

    /// Whether inode numbers shall stay what they are through copy-up and remount.
    fn keeps_inos(&self) -> bool {
        true
    }
}

/// Which inode number of a target belongs to which of the model.
#[derive(Default)]
struct Inos(HashMap<u64, u64>);

impl Inos {
    /// Why the numbers are not those of the model, if they are not.
    fn check(&mut self, model: &[Seen], target: &[Seen]) -> Option<String> {
        let mine: HashMap<&Place, u64> = target.iter().map(|s| (&s.place, s.ino)).collect();
        let mut now = HashMap::new();
        let mut owner: HashMap<u64, (u64, &Place)> = HashMap::new();
        for seen in model {
            let ino = *mine.get(&seen.place)?;
            if let Some(before) = self.0.get(&seen.ino)
                && *before != ino
            {
                return Some(format!("{}: inode number {before} became {ino}", seen.place));
            }
            now.insert(seen.ino, ino);
            let (other, place) = *owner.entry(ino).or_insert((seen.ino, &seen.place));
            if other != seen.ino {
                return Some(format!("{place} and {} share inode number {ino}", seen.place));
            }
        }
        self.0 = now;
        None
    }
}

/// Runs random operations: resolves each against the model, does it on the model and on every
/// target, and compares outcome, tree and inode numbers.
///
/// # Panics
/// At the first difference, with all that was done before.
pub fn run(ops: &[Op<At>], model: &mut Model, targets: &mut [&mut dyn Target]) {
    let mut script = Script::start(model, targets);
    for op in ops {
        let op = op.resolve(&script.model.dirs());
        script.step(&op);
    }
}

/// As [`run`], with paths.
pub fn run_paths(ops: &[Op<Place>], model: &mut Model, targets: &mut [&mut dyn Target]) {
    let mut script = Script::start(model, targets);
    for op in ops {
        script.step(op);
    }
}

struct Script<'a, 't, 'm> {
    model: &'m mut Model,
    targets: &'a mut [&'t mut dyn Target],
    inos: Vec<Inos>,
    transcript: String,
}

impl<'a, 't, 'm> Script<'a, 't, 'm> {
    fn start(model: &'m mut Model, targets: &'a mut [&'t mut dyn Target]) -> Self {
        let inos = targets.iter().map(|_| Inos::default()).collect();
        let transcript = format!("{}----\n", render(&model.tree()));
        let mut script = Self { model, targets, inos, transcript };
        script.compare();
        script
    }

    fn step(&mut self, op: &Op<Place>) {
        let expected = self.model.apply(op);
        self.transcript += &format!("{op}: {expected:?}\n");
        for target in self.targets.iter_mut() {
            let got = target.apply(op);
            assert!(
                got == expected,
                "{}: {op}: {got:?}, but a plain directory says {expected:?}\n{}",
                target.name(),
                self.transcript
            );
        }
        self.compare();
    }

    fn compare(&mut self) {
        let expected = self.model.tree();
        for (target, inos) in self.targets.iter_mut().zip(&mut self.inos) {
            let tree = target.tree();
            let with_times = target.keeps_dir_times();
            let (text, got) = (shown_tree(&expected, with_times), shown_tree(&tree, with_times));
            assert!(
                got == text,
                "{}: the tree is not what a plain directory holds\n{}\n{}",
                target.name(),
                difference(&text, &got),
                self.transcript
            );
            if target.keeps_inos()
                && let Some(why) = inos.check(&expected, &tree)
            {
                panic!("{}: {why}\n{}", target.name(), self.transcript);
            }
        }
    }
}

fn shown_tree(tree: &[Seen], dir_times: bool) -> String {
    let timeless = |seen: &Seen| Seen { mtime: None, ..seen.clone() };
    let of = |seen: &Seen| match seen.kind {
        Kind::Dir if !dir_times => timeless(seen),
        _ => seen.clone(),
    };
    render(&tree.iter().map(of).collect::<Vec<_>>())
}

/// The lines that only one of two texts has.
pub fn difference(expected: &str, got: &str) -> String {
    let missing = expected.lines().filter(|line| !got.lines().any(|other| other == *line));
    let extra = got.lines().filter(|line| !expected.lines().any(|other| other == *line));
    let missing = missing.map(|line| format!("- {line}\n"));
    missing.chain(extra.map(|line| format!("+ {line}\n"))).collect()
}
