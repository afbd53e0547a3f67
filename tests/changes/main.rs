//! The layer of an upper directory, applied to the image below it, gives what the union shows.
//! Needs root (whiteouts are devices, marks are `trusted.*`).
//!
//! `PLYFS_CASES` says how many random cases (64).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "this is test code: a surprise must stop the test, and layers are seen from outside"
)]

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use plyfs::attr::{Kind, Time};
use plyfs::errno::{Errno, Result};
use plyfs::image::changes::{Stats, layer_tar};
use plyfs::image::tar::{Entry, Limits, Reader, What};
use plyfs::layer::Layer;
use plyfs::layer::dir::{DirLayer, DirUpper, UpperOptions};
use plyfs::testkit::op::{self, At};
use plyfs::testkit::run::run;
use plyfs::testkit::system::SystemTarget;
use plyfs::testkit::tree::{BASE_TIME, render};
use plyfs::testkit::union_target::UnionTarget;
use plyfs::testkit::{Model, Op, Place, Seen, Target, TreeSpec};
use plyfs::union::Stack;
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

mod by_hand;

/// A stack of directories, and its union while the layer is made from under it.
struct Stand {
    temp: tempfile::TempDir,
    lowers: usize,
}

impl Stand {
    fn new(specs: &[TreeSpec]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let stand = Self { temp, lowers: specs.len() };
        stand.make("upper");
        stand.make("work");
        for (n, spec) in specs.iter().enumerate() {
            spec.system(&stand.make(&format!("lower{n}"))).unwrap();
        }
        stand
    }

    fn at(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    fn make(&self, name: &str) -> PathBuf {
        let path = self.at(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn lowers(dir: &Path, count: usize) -> Vec<Arc<dyn Layer>> {
        let open = |n: usize| -> Arc<dyn Layer> {
            DirLayer::open(&dir.join(format!("lower{n}"))).unwrap()
        };
        (0..count).map(open).collect()
    }

    fn mount(&self) -> UnionTarget {
        let (dir, count) = (self.temp.path().to_owned(), self.lowers);
        let stack = move || {
            let options = UpperOptions { volatile: false };
            let upper = DirUpper::open(&dir.join("upper"), &dir.join("work"), options).unwrap();
            Stack { upper: Some(upper), lowers: Self::lowers(&dir, count) }
        };
        UnionTarget::new(stack, Vec::new)
    }

    /// What the layers below show.
    fn below(&self) -> Vec<Seen> {
        let (dir, count) = (self.temp.path().to_owned(), self.lowers);
        if count == 0 {
            return Vec::new();
        }
        let stack = move || Stack { upper: None, lowers: Self::lowers(&dir, count) };
        let mut union = UnionTarget::new(stack, Vec::new);
        let tree = union.tree();
        union.unmount();
        tree
    }

    fn layer(&self) -> Result<(Vec<u8>, Stats)> {
        let upper: Arc<dyn Layer> = DirLayer::open(&self.at("upper")).unwrap();
        let index = self.at("work/index");
        let index = index.exists().then(|| -> Arc<dyn Layer> { DirLayer::open(&index).unwrap() });
        let lowers = Self::lowers(self.temp.path(), self.lowers);
        let mut out = Vec::new();
        let stats = layer_tar(&upper, index.as_ref(), &lowers, &mut out)?;
        let mut again = Vec::new();
        assert_eq!(layer_tar(&upper, index.as_ref(), &lowers, &mut again)?, stats);
        assert!(out == again, "the same bytes for the same layers");
        Ok((out, stats))
    }

    /// The image below with the layer applied to it.
    fn applied(&self, layer: &[u8]) -> Vec<Seen> {
        let flat = self.make("flat");
        build(&flat, &self.below());
        apply(&flat, layer);
        SystemTarget::new("flat", &flat, || {}).tree()
    }

    /// That the layer, applied, gives what the union shows; returns it.
    fn check(&self, union: &mut UnionTarget) -> (Vec<u8>, Stats) {
        let (layer, stats) = self.layer().unwrap();
        let (expected, got) = (text(&union.tree()), text(&self.applied(&layer)));
        let difference = || plyfs::testkit::run::difference(&expected, &got);
        assert!(expected == got, "{}\nlayer: {}", difference(), listing(&layer));
        (layer, stats)
    }
}

/// The tree as text, with the link counts that a tree of its own has: those of lower layers count
/// names that do not show.
fn text(tree: &[Seen]) -> String {
    let mut counts: HashMap<u64, u32> = HashMap::new();
    for seen in tree {
        *counts.entry(seen.ino).or_default() += 1;
    }
    let mut tree = tree.to_vec();
    for seen in &mut tree {
        seen.nlink = counts[&seen.ino];
    }
    render(&tree)
}

fn path_of(place: &Place) -> PathBuf {
    place.0.iter().map(|part| OsStr::from_bytes(part)).collect()
}

/// An object of any type with all its attributes. Directories may be there already.
fn put(path: &Path, what: &What, content: &[u8]) {
    let node = |kind, rdev| {
        rustix::fs::mknodat(CWD, path, kind, Mode::from(0o600), rdev).unwrap();
    };
    match what {
        What::File(_) => fs::write(path, content).unwrap(),
        What::Dir if path.is_dir() => {}
        What::Dir => fs::create_dir(path).unwrap(),
        What::Symlink(to) => symlink(OsStr::from_bytes(to), path).unwrap(),
        What::Fifo => node(FileType::Fifo, 0),
        What::Char(rdev) => node(FileType::CharacterDevice, *rdev),
        What::Block(rdev) => node(FileType::BlockDevice, *rdev),
        What::HardLink(_) => unreachable!("made by its caller"),
    }
}

fn dress(path: &Path, entry: &Entry) {
    let id = |id| Some((rustix::fs::Uid::from_raw(id), rustix::fs::Gid::from_raw(entry.gid)));
    let (uid, gid) = id(entry.uid).unzip();
    rustix::fs::chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    if !matches!(entry.what, What::Symlink(_)) {
        fs::set_permissions(path, fs::Permissions::from_mode(entry.perm.into())).unwrap();
    }
    let mut buf = [0; 4096];
    let n = rustix::fs::llistxattr(path, &mut buf).unwrap();
    for name in buf[..n].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        rustix::fs::lremovexattr(path, name).unwrap();
    }
    for (name, value) in &entry.xattrs {
        rustix::fs::lsetxattr(path, name.as_slice(), value, XattrFlags::empty()).unwrap();
    }
    set_time(path, entry.mtime);
}

fn set_time(path: &Path, Time { sec, nsec }: Time) {
    let time = Timespec { tv_sec: sec, tv_nsec: nsec.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Makes a tree as it was seen.
fn build(root: &Path, tree: &[Seen]) {
    let mut first: HashMap<u64, PathBuf> = HashMap::new();
    let mut dirs = Vec::new();
    for seen in tree {
        let path = root.join(path_of(&seen.place));
        if let Some(first) = first.get(&seen.ino) {
            fs::hard_link(first, &path).unwrap();
            continue;
        }
        let what = match seen.kind {
            Kind::File => What::File(0),
            Kind::Dir => What::Dir,
            Kind::Symlink => What::Symlink(seen.content.clone()),
            Kind::Fifo => What::Fifo,
            Kind::Char => What::Char(seen.rdev),
            Kind::Block => What::Block(seen.rdev),
            Kind::Socket => panic!("a socket in a tree of this suite"),
        };
        if what != What::Dir {
            first.insert(seen.ino, path.clone());
        }
        put(&path, &what, &seen.content);
        let now = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs().cast_signed();
        let sec = seen.mtime.map_or_else(now, |sec| BASE_TIME + sec);
        let entry = Entry {
            path: Vec::new(),
            what,
            perm: seen.perm,
            uid: seen.uid,
            gid: seen.gid,
            mtime: Time { sec, nsec: 0 },
            xattrs: seen.xattrs.clone().into_iter().collect(),
        };
        dress(&path, &entry);
        if entry.what == What::Dir {
            dirs.push((path, entry.mtime));
        }
    }
    for (path, time) in dirs.iter().rev() {
        set_time(path, *time);
    }
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// The entries of an archive with their contents; holes are zeros.
fn entries(layer: &[u8]) -> Vec<(Entry, Vec<u8>)> {
    let mut reader = Reader::new(layer, Limits::default());
    let mut all = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        let size = if let What::File(size) = entry.what { size } else { 0 };
        let (mut content, mut buf) = (vec![0; size as usize], vec![0; 65536]);
        while let Some((at, n)) = reader.data(&mut buf).unwrap() {
            content[at as usize..at as usize + n].copy_from_slice(&buf[..n]);
        }
        all.push((entry, content));
    }
    all
}

fn is_whiteout(path: &[u8]) -> bool {
    path.rsplit(|&byte| byte == b'/').next().unwrap().starts_with(b".wh.")
}

/// The paths and types in an archive, one a line.
fn listing(layer: &[u8]) -> String {
    let line = |(entry, _): &(Entry, Vec<u8>)| {
        let what = match &entry.what {
            What::HardLink(to) => format!(" = {}", to.escape_ascii()),
            What::Symlink(to) => format!(" -> {}", to.escape_ascii()),
            What::File(_) if is_whiteout(&entry.path) => String::new(),
            What::File(size) => format!(" {size}"),
            What::Char(rdev) => format!(" c{rdev:#x}"),
            What::Block(_) => " block".to_owned(),
            What::Fifo => " fifo".to_owned(),
            What::Dir => String::new(),
        };
        format!("{}{what}\n", entry.path.escape_ascii())
    };
    entries(layer).iter().map(line).collect::<Vec<_>>().concat()
}

/// Applies a layer as a strict applier does: parents must be there, links inside the layer, and no
/// name is both an entry and a whiteout.
fn apply(root: &Path, layer: &[u8]) {
    let mut seen: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
    let mut dirs = Vec::new();
    for (entry, content) in entries(layer) {
        let bytes = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
        let path = root.join(OsStr::from_bytes(bytes));
        let parent = path.parent().unwrap();
        let name = bytes.rsplit(|&byte| byte == b'/').next().unwrap();
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            let hidden = parent.join(OsStr::from_bytes(hidden));
            assert!(
                hidden.symlink_metadata().is_ok(),
                "a whiteout of nothing: {}",
                hidden.display()
            );
            remove(&hidden);
            assert_eq!(seen.insert(hidden.as_os_str().as_bytes().to_vec(), true), None);
            continue;
        }
        assert_eq!(seen.insert(path.as_os_str().as_bytes().to_vec(), false), None);
        let parent_told = seen.contains_key(parent.as_os_str().as_bytes());
        assert!(
            bytes == b"." || parent == root || parent_told,
            "no entry for {}",
            parent.display()
        );
        if entry.what != What::Dir || !fs::symlink_metadata(&path).is_ok_and(|at| at.is_dir()) {
            remove(&path);
        }
        if let What::HardLink(to) = &entry.what {
            let to = root.join(OsStr::from_bytes(to));
            assert!(seen.contains_key(to.as_os_str().as_bytes()), "a link out of the layer");
            fs::hard_link(to, &path).unwrap();
            continue;
        }
        put(&path, &entry.what, &content);
        dress(&path, &entry);
        if entry.what == What::Dir {
            dirs.push((path, entry.mtime));
        }
    }
    for (path, time) in dirs.iter().rev() {
        set_time(path, *time);
    }
}

fn layers() -> impl Strategy<Value = Vec<TreeSpec>> {
    let layer = proptest::collection::vec(any::<[u8; 5]>(), 0..14)
        .prop_map(|entries| TreeSpec::from_bytes(&entries.concat()));
    proptest::collection::vec(layer, 0..=3)
}

/// Names that a layer can hold, mostly.
fn tame(op: &Op) -> Op {
    op.map(|at: &At| At { name: if at.name == 255 { 3 } else { at.name % 3 }, ..*at })
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("PLYFS_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64);
    let failure_persistence = None;
    ProptestConfig { cases, max_shrink_iters: 3_000, failure_persistence, ..Default::default() }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_layer_of_any_changes_gives_the_merged_tree(
        specs in layers(),
        ops in op::ops(40),
    ) {
        if !is_root() {
            return Ok(());
        }
        let stand = Stand::new(&specs);
        let mut union = stand.mount();
        let ops: Vec<Op> = ops.iter().map(tame).collect();
        run(&ops, &mut Model::merged(&specs), &mut [&mut union]);
        let reserved = |seen: &Seen| seen.place.0.iter().any(|name| name.starts_with(b".wh."));
        match stand.layer() {
            Ok(_) => drop(stand.check(&mut union)),
            Err(error) => {
                prop_assert_eq!(error.errno(), Errno::EINVAL, "{}", error);
                prop_assert!(union.tree().iter().any(reserved), "{}", error);
            }
        }
        union.unmount();
    }
}
