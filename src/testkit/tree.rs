//! Trees to begin with, and trees as they are seen.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use super::op::{DEPTH, NAMES};
use super::place::Place;
use crate::attr::{Kind, SetAttr, SetTime, Time};
use crate::layer::mem::MemLayer;
use crate::layer::{Id, Layer, Lookup, Mark, New, Upper, What};
use crate::name::Name;

/// The time of modification of everything that a [`TreeSpec`] builds. A time within 1000 seconds
/// after it is one that a test set; any other is "now".
pub const BASE_TIME: i64 = 100_000_000;

/// One object as it is seen through a mount, a union, or the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where.
    pub place: Place,
    /// Type.
    pub kind: Kind,
    /// Permission bits.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names; not compared for directories.
    pub nlink: u32,
    /// Device number.
    pub rdev: u64,
    /// Content of a file, target of a link.
    pub content: Vec<u8>,
    /// What a user sees.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Seconds past [`BASE_TIME`] if a test set it, `None` for "now".
    pub mtime: Option<i64>,
    /// Inode number; shown as the first path with the same.
    pub ino: u64,
}

/// A time as [`Seen::mtime`] has it.
pub fn shown_time(sec: i64) -> Option<i64> {
    (BASE_TIME..BASE_TIME + 1000).contains(&sec).then(|| sec - BASE_TIME)
}

/// The tree as text, one object a line, sorted by path: equal texts, equal trees.
pub fn render(tree: &[Seen]) -> String {
    let mut sorted: Vec<&Seen> = tree.iter().collect();
    sorted.sort_by(|a, b| a.place.cmp(&b.place));
    let mut first: HashMap<u64, &Place> = HashMap::new();
    let mut out = String::new();
    for seen in sorted {
        let Seen { place, kind, perm, uid, gid, .. } = seen;
        let kind_name = format!("{kind:?}").to_lowercase();
        write!(out, "{place} {kind_name} {perm:04o} {uid}:{gid}").unwrap();
        match kind {
            Kind::File => write!(out, " {}", shown(&seen.content)).unwrap(),
            Kind::Symlink => write!(out, " -> {}", seen.content.escape_ascii()).unwrap(),
            Kind::Char | Kind::Block => write!(out, " rdev={:#x}", seen.rdev).unwrap(),
            Kind::Dir | Kind::Fifo | Kind::Socket => {}
        }
        if *kind != Kind::Dir {
            write!(out, " nlink={}", seen.nlink).unwrap();
            let first = *first.entry(seen.ino).or_insert(place);
            if first != place {
                write!(out, " same as {first}").unwrap();
            }
        }
        for (name, value) in &seen.xattrs {
            write!(out, " {}={}", name.escape_ascii(), shown(value)).unwrap();
        }
        if place.depth() > 0
            && let Some(sec) = seen.mtime
        {
            write!(out, " mtime=+{sec}").unwrap();
        }
        out.push('\n');
    }
    out
}

/// Bytes as text, runs of one byte shortened.
pub fn shown(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for run in bytes.chunk_by(|a, b| a == b) {
        let byte = [run[0]].escape_ascii().to_string();
        match run.len() {
            1..=3 => out.push_str(&byte.repeat(run.len())),
            n => write!(out, "{byte}*{n} ").unwrap(),
        }
    }
    out + "\""
}

/// What a layer holds at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    /// A directory.
    Dir,
    /// A file with this content.
    File(Vec<u8>),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A FIFO or device.
    Node(Kind, u64),
    /// Another name of the file at this path.
    Hardlink(Place),
    /// A whiteout entry.
    Whiteout,
}

/// One entry of a [`TreeSpec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub what: Thing,
    /// Permission bits.
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// An opaque directory.
    pub opaque: bool,
    /// Where the lower part of a directory lies.
    pub redirect: Option<Vec<u8>>,
}

/// A raw layer, described: entries by path, and whiteouts `.wh.NAME` beside names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeSpec {
    /// The entries; a directory sorts before what is in it.
    pub items: BTreeMap<Place, Item>,
    /// Whiteouts beside the name they hide.
    pub beside: Vec<Place>,
    last: Place,
}

impl TreeSpec {
    /// An empty layer.
    pub fn new() -> Self {
        Self::default()
    }

    fn add(mut self, path: Place, what: Thing, perm: u16) -> Self {
        let (dir, _) = path.split().expect("the root is always there");
        if dir.depth() > 0 && !self.items.contains_key(&dir) {
            self = self.add(dir, Thing::Dir, 0o755);
        }
        self.last = path.clone();
        let (uid, gid) = (0, 0);
        let item = Item { what, perm, uid, gid, xattrs: vec![], opaque: false, redirect: None };
        self.items.insert(path, item);
        self
    }

    fn last(&mut self) -> &mut Item {
        self.items.get_mut(&self.last).expect("something was added before")
    }

    /// A directory, `0755`.
    #[must_use]
    pub fn dir(self, path: &str) -> Self {
        self.add(path.into(), Thing::Dir, 0o755)
    }

    /// A file, `0644`.
    #[must_use]
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.add(path.into(), Thing::File(content.as_ref().to_vec()), 0o644)
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.add(path.into(), Thing::Symlink(target.into()), 0o777)
    }

    /// A FIFO, `0644`.
    #[must_use]
    pub fn fifo(self, path: &str) -> Self {
        self.add(path.into(), Thing::Node(Kind::Fifo, 0), 0o644)
    }

    /// A character device, `0644`.
    #[must_use]
    pub fn char(self, path: &str, rdev: u64) -> Self {
        self.add(path.into(), Thing::Node(Kind::Char, rdev), 0o644)
    }

    /// Another name, `path`, for the file at `of`.
    #[must_use]
    pub fn hardlink(self, of: &str, path: &str) -> Self {
        self.add(path.into(), Thing::Hardlink(of.into()), 0)
    }

    /// A whiteout entry.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        self.add(path.into(), Thing::Whiteout, 0)
    }

    /// A whiteout `.wh.NAME` beside the name, whether something is there or not.
    #[must_use]
    pub fn whiteout_beside(mut self, path: &str) -> Self {
        self.beside.push(path.into());
        self
    }

    /// An opaque directory.
    #[must_use]
    pub fn opaque(self, path: &str) -> Self {
        let mut this = self.add(path.into(), Thing::Dir, 0o755);
        this.last().opaque = true;
        this
    }

    /// A directory whose lower part lies at `to`.
    #[must_use]
    pub fn redirect(self, path: &str, to: &str) -> Self {
        let mut this = self.add(path.into(), Thing::Dir, 0o755);
        this.last().redirect = Some(to.into());
        this
    }

    /// The permission bits of what was added last.
    #[must_use]
    pub fn perm(mut self, perm: u16) -> Self {
        self.last().perm = perm;
        self
    }

    /// The owner of what was added last.
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        let last = self.last();
        (last.uid, last.gid) = (uid, gid);
        self
    }

    /// An extended attribute on what was added last.
    #[must_use]
    pub fn xattr(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.last().xattrs.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// The layer that random bytes stand for: with whiteouts, opaque directories, links, and the
    /// names that [`NAMES`] has. What does not fit what is there already is left out.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut spec = Self::new();
        for chunk in bytes.as_chunks::<5>().0 {
            spec = spec.add_random(*chunk);
        }
        spec
    }

    fn add_random(self, [verb, a, b, c, depth]: [u8; 5]) -> Self {
        let parts = [a, b, c].map(|n| NAMES[usize::from(n) % 3].to_vec());
        let path = Place(parts[..=usize::from(depth) % DEPTH].to_vec());
        let fits = (1..path.depth()).all(|n| {
            let dir = self.items.get(&Place(path.0[..n].to_vec()));
            dir.is_none_or(|item| item.what == Thing::Dir)
        });
        if !fits || self.items.contains_key(&path) {
            return self;
        }
        let content = [verb, a, b, c].map(|n| b'a' + n % 26);
        let (xattrs, owner) = (verb & 0x10 != 0, u32::from(verb >> 6));
        let mut this = match verb % 14 {
            0..=3 => self.add(path, Thing::File(content.to_vec()), 0o644),
            4..=6 => self.add(path, Thing::Dir, 0o755),
            7 => self.add(path, Thing::Dir, 0o2775),
            8 => {
                let mut this = self.add(path, Thing::Dir, 0o700);
                this.last().opaque = true;
                return this;
            }
            9 | 10 => return self.add(path, Thing::Whiteout, 0),
            11 => {
                let files = self.items.iter().filter(|(_, i)| matches!(i.what, Thing::File(_)));
                let files: Vec<Place> = files.map(|(place, _)| place.clone()).collect();
                let Some(of) = files.get(usize::from(c) % files.len().max(1)) else { return self };
                return self.add(path, Thing::Hardlink(of.clone()), 0);
            }
            12 => self.add(path, Thing::Symlink(b"target0".to_vec()), 0o777),
            _ => self.add(path, Thing::Node(Kind::Fifo, 0), 0o600),
        };
        let last = this.last();
        (last.uid, last.gid) = (owner, owner);
        if xattrs && matches!(last.what, Thing::File(_) | Thing::Dir) {
            last.xattrs.push((b"user.x".to_vec(), b"below".to_vec()));
        }
        this
    }

    /// Builds the layer in memory.
    pub fn mem(&self, fs: u64) -> Arc<MemLayer> {
        let mem = MemLayer::new(fs);
        self.build(&mem);
        mem
    }

    /// Builds into an empty layer in memory.
    pub fn build(&self, mem: &MemLayer) {
        let mut ids: BTreeMap<Place, Id> = BTreeMap::from([(Place::root(), mem.root())]);
        let place = |path: &Place| {
            let (dir, name) = path.split().unwrap();
            (dir, name.to_vec())
        };
        for (path, item) in &self.items {
            let (dir, name) = place(path);
            let (dir, name) = (ids[&dir], Name::new(&name).unwrap());
            if let Some(id) = item.build_mem(mem, dir, name) {
                ids.insert(path.clone(), id);
            }
        }
        for (path, item) in &self.items {
            let (dir, name) = place(path);
            if let Thing::Hardlink(of) = &item.what {
                mem.link(ids[of], ids[&dir], Name::new(&name).unwrap(), true).unwrap();
            }
        }
        for path in &self.beside {
            let (dir, name) = place(path);
            mem.sibling_whiteout(ids[&dir], Name::new(&name).unwrap()).unwrap();
        }
        let time = Some(SetTime::At(Time { sec: BASE_TIME, nsec: 0 }));
        for id in ids.into_values() {
            mem.setattr(id, &SetAttr { mtime: time, ..SetAttr::default() }).unwrap();
        }
    }
}

impl Item {
    fn build_mem(&self, mem: &MemLayer, dir: Id, name: Name<'_>) -> Option<Id> {
        let mut marks = Vec::new();
        if self.opaque {
            marks.push(Mark::Opaque);
        }
        if let Some(to) = &self.redirect {
            marks.push(Mark::Redirect(to));
        }
        let what = match &self.what {
            Thing::Dir => What::Dir,
            Thing::File(_) => What::File,
            Thing::Symlink(target) => What::Symlink(target),
            Thing::Node(kind, rdev) => What::Node(*kind, *rdev),
            Thing::Hardlink(_) => return None,
            Thing::Whiteout => {
                mem.whiteout(dir, name, false).unwrap();
                return None;
            }
        };
        let Self { perm, uid, gid, xattrs, .. } = self;
        let new = New { what, perm: *perm, uid: *uid, gid: *gid, xattrs, marks: &marks };
        Some(match &self.what {
            Thing::File(content) => mem.put_file(dir, name, content, &new).unwrap(),
            _ => mem.put(dir, name, &new).unwrap(),
        })
    }
}

/// The object at a path of one raw layer, for tests that look at what was written. No reference.
pub fn raw(layer: &dyn Layer, path: &str) -> Option<Id> {
    let mut id = layer.root();
    for part in Place::from(path).0 {
        match layer.lookup(id, Name::new(&part).unwrap()).unwrap() {
            Lookup::Found(entry) => {
                layer.forget(entry.id);
                id = entry.id;
            }
            Lookup::Absent | Lookup::Whiteout(_) => return None,
        }
    }
    Some(id)
}
