//! What the tests of this room share: trees made by plain system calls, layers over them.

mod beside;
mod bits;
mod change;
mod leave;
mod open;
mod reach;
mod read;
mod times;
mod vanish;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;

use super::*;
use crate::attr::Kind;
use crate::layer::{Entry, Mark, New, Upper, What, WhiteoutForm};

/// A directory with a lower layer, an upper and a work directory in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for dir in ["lower", "upper", "work"] {
            std::fs::create_dir(temp.path().join(dir)).unwrap();
        }
        Self(temp)
    }

    fn lower(&self, path: &str) -> PathBuf {
        self.0.path().join("lower").join(path)
    }

    fn upper(&self, path: &str) -> PathBuf {
        self.0.path().join("upper").join(path)
    }

    fn work(&self, path: &str) -> PathBuf {
        self.0.path().join("work").join(path)
    }

    fn open_lower(&self) -> Arc<DirLayer> {
        DirLayer::open(&self.lower("")).unwrap()
    }

    fn try_upper(&self) -> Result<Arc<DirUpper>> {
        DirUpper::open(&self.upper(""), &self.work(""), UpperOptions::default())
    }

    fn open_upper(&self) -> Arc<DirUpper> {
        crate::sys::process::set_umask_zero();
        self.try_upper().unwrap()
    }

    /// With whiteouts as attributes, in `user.*`.
    fn open_upper_xattr(&self) -> Arc<DirUpper> {
        self.open_upper_as(|encoding| {
            encoding.namespace = Some(crate::layer::marks::Namespace::User);
            (encoding.char_whiteouts, encoding.rename_whiteout) = (false, false);
        })
    }

    /// Written in another way than this filesystem and our privileges would allow.
    fn open_upper_as(&self, change: impl FnOnce(&mut upper::Encoding)) -> Arc<DirUpper> {
        let mut upper = self.open_upper();
        change(&mut Arc::get_mut(&mut upper).unwrap().encoding);
        upper
    }

    /// What staging left behind.
    fn leftovers(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.work("work")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with("#whiteout")).collect()
    }
}

fn name(name: &str) -> Name<'_> {
    Name::new(name.as_bytes()).unwrap()
}

fn set_xattr(path: &Path, attribute: &str, value: &[u8]) {
    let dir = open_dir(path.parent().unwrap()).unwrap();
    let file = path.file_name().unwrap().as_encoded_bytes();
    let object = crate::sys::object::Object::Entry(dir.as_fd(), file);
    xattr::set(object, attribute.as_bytes(), value, 0).unwrap();
}

fn has_xattr(path: &Path, attribute: &str) -> bool {
    let dir = open_dir(path.parent().unwrap()).unwrap();
    let file = path.file_name().unwrap().as_encoded_bytes();
    let object = crate::sys::object::Object::Entry(dir.as_fd(), file);
    xattr::get(object, attribute.as_bytes()).unwrap().is_some()
}

fn mknod(path: &Path, kind: FileType, device: u64) {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o644), device).unwrap();
}

fn char_zero(path: &Path) {
    mknod(path, FileType::CharacterDevice, 0);
}

/// The entry at a path of names; what leads there stays held.
fn entry(layer: &dyn Layer, path: &str) -> Entry {
    let mut at = layer.root();
    let mut found = None;
    for part in path.split('/') {
        match layer.lookup(at, name(part)).unwrap() {
            Lookup::Found(entry) => {
                at = entry.id;
                found = Some(entry);
            }
            other => panic!("{path}: {other:?} at {part}"),
        }
    }
    found.unwrap()
}

/// What a lookup in a directory says, in a word.
fn word(layer: &dyn Layer, dir: Id, at: &str) -> &'static str {
    match layer.lookup(dir, name(at)).unwrap() {
        Lookup::Absent => "absent",
        Lookup::Whiteout(WhiteoutForm::Entry) => "whiteout",
        Lookup::Whiteout(WhiteoutForm::Sibling) => "sibling",
        Lookup::Found(entry) if entry.marks.opaque => "opaque",
        Lookup::Found(_) => "found",
    }
}

/// A listing, sorted; whiteouts begin with a hyphen.
fn list(layer: &dyn Layer, dir: Id) -> Vec<String> {
    let mut names = Vec::new();
    layer
        .readdir(dir, &mut |item| {
            let sign = if item.kind.is_none() { "-" } else { "" };
            names.push(format!("{sign}{}", item.name));
            Ok(())
        })
        .unwrap();
    names.sort();
    names
}

/// A new object that belongs to root.
fn new(what: What<'_>, perm: u16) -> New<'_> {
    New { what, perm, uid: 0, gid: 0, xattrs: &[], marks: &[] }
}

fn file(upper: &DirUpper, at: &str, content: &[u8]) -> Entry {
    let (entry, data) = upper.create_open(upper.root(), name(at), &new(What::File, 0o644)).unwrap();
    assert_eq!(data.write_at(content, 0).unwrap(), content.len());
    entry
}

fn dir(upper: &DirUpper, parent: Id, at: &str) -> Entry {
    upper.create(parent, name(at), &new(What::Dir, 0o755)).unwrap()
}

fn read(layer: &dyn Layer, id: Id) -> Vec<u8> {
    let data = layer.open(id).unwrap();
    let mut buf = vec![0; 4096];
    let len = data.read_at(&mut buf, 0).unwrap();
    buf.truncate(len);
    buf
}
