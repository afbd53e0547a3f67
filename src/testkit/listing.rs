//! Trees as text, to the nanosecond: what must be equal where two tools unpack the same image.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};

use crate::attr::{Attr, Kind};
use crate::layer::Layer;
use crate::sys::object::Object;
use crate::sys::xattr;
use crate::union::below::{self, Below};

/// An object on its way to a line.
struct Seen {
    attr: Attr,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    content: Vec<u8>,
}

/// The lines of a tree: by path, with the first path of the same inode.
fn render(tree: &BTreeMap<Vec<u8>, Seen>) -> String {
    let mut firsts = BTreeMap::new();
    let mut lines = String::new();
    for (path, seen) in tree {
        let Attr { kind, perm, uid, gid, mtime, rdev, nlink, .. } = seen.attr;
        let first = &*firsts.entry(seen.attr.ino).or_insert(path).escape_ascii().to_string();
        let perm = if kind == Kind::Symlink { 0o777 } else { perm };
        let mut line = format!(
            "/{} {kind:?} {perm:04o} {uid}:{gid} {}.{:09}",
            path.escape_ascii(),
            mtime.sec,
            mtime.nsec
        );
        if kind != Kind::Dir {
            line += &format!(" x{nlink} ={first} {rdev:x} ");
            line += &format!("{} {:016x}", seen.content.len(), hash(&seen.content));
        }
        for (name, value) in &seen.xattrs {
            line += &format!(" {}={}", name.escape_ascii(), value.escape_ascii());
        }
        lines += &line;
        lines.push('\n');
    }
    lines
}

/// FNV-1a: equal contents, equal text.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The tree that layers show, topmost first.
pub fn of_layers(lowers: &[Arc<dyn Layer>]) -> String {
    let below = Below::new(lowers).unwrap().unwrap();
    let mut tree = BTreeMap::new();
    let mut todo = vec![below.root().unwrap()];
    while let Some(object) = todo.pop() {
        let content = match object.attr.kind {
            Kind::File => content_of(&object),
            Kind::Symlink => object.readlink().unwrap(),
            _ => Vec::new(),
        };
        if object.attr.kind == Kind::Dir {
            let mut names = Vec::new();
            object.each(&mut |name, _, _| names.push(name.to_vec())).unwrap();
            todo.extend(names.iter().map(|name| object.lookup(name).unwrap().unwrap()));
        }
        let xattrs = object.xattrs().unwrap();
        tree.insert(object.path.clone(), Seen { attr: object.attr, xattrs, content });
    }
    render(&tree)
}

fn content_of(object: &below::Object) -> Vec<u8> {
    let mut content = vec![0; object.attr.size as usize];
    let source = object.open().unwrap();
    let mut at = 0;
    while at < content.len() {
        let got = source.read_at(&mut content[at..], at as u64).unwrap();
        assert_ne!(got, 0, "a file shorter than it says");
        at += got;
    }
    content
}

/// The tree at a path.
pub fn of_dir(path: &Path) -> String {
    let mut tree = BTreeMap::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let root = rustix::fs::openat(CWD, path, flags, Mode::empty()).unwrap();
    let mut todo = vec![(Vec::new(), Arc::new(root), b".".to_vec())];
    while let Some((path, dir, name)) = todo.pop() {
        let object = Object::Entry(dir.as_fd(), &name);
        let attr = object.stat().unwrap().attr;
        let content = match attr.kind {
            Kind::File => read(&object.open(OFlags::RDONLY).unwrap(), attr.size),
            Kind::Symlink => object.readlink().unwrap(),
            _ => Vec::new(),
        };
        let mut xattrs: Vec<_> = xattr::list(object).unwrap().into_iter().collect();
        xattrs.sort();
        let value = |name: Vec<u8>| {
            let value = xattr::get(object, &name).unwrap().unwrap();
            (name, value)
        };
        let xattrs = xattrs.into_iter().map(value).collect();
        if attr.kind == Kind::Dir {
            let dir = Arc::new(object.open(flags).unwrap());
            for entry in rustix::fs::Dir::read_from(&*dir).unwrap() {
                let name = entry.unwrap().file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    let mut inner = path.clone();
                    if !inner.is_empty() {
                        inner.push(b'/');
                    }
                    inner.extend_from_slice(&name);
                    todo.push((inner, Arc::clone(&dir), name));
                }
            }
        }
        tree.insert(path, Seen { attr, xattrs, content });
    }
    render(&tree)
}

fn read(file: &OwnedFd, size: u64) -> Vec<u8> {
    let mut content = vec![0; size as usize];
    let mut at = 0;
    while at < content.len() {
        let got = rustix::io::pread(file, &mut content[at..], at as u64).unwrap();
        assert_ne!(got, 0);
        at += got;
    }
    content
}
