//! Hard links to files of the layers below: the file is copied into this layer, under all the
//! names that it has in the image, so that they stay links of one another.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;

use super::job::check;
use super::layer::{Layer, Pending, write_all};
use super::settle::Over;
use super::target::{Make, Stamp, refuse};
use super::tree::Dir;
use super::under::{Led, Under};
use crate::attr::Kind;
use crate::errno::{Context, Errno, Error, Result};
use crate::image::tar::shown;
use crate::layer::Seek;
use crate::sys::object::Object as Entry;
use crate::union::below::Object;

/// A name in a directory of the layer.
type Place = (Dir, Box<[u8]>);

/// A file below that the layer names.
struct Group {
    object: Object,
    /// The entries that name it.
    entries: Vec<(Place, Pending)>,
    /// Its names below.
    names: Vec<Vec<u8>>,
}

/// Makes all hard links that wait; `false` if the path to a target leads through a link below.
pub(super) fn make_links(
    layer: &mut Layer,
    under: &Under,
    over: &mut Over,
    stop: &AtomicBool,
) -> Result<bool> {
    if layer.pending.is_empty() {
        return Ok(true);
    }
    let Some(mut groups) = groups(layer, under)? else { return Ok(false) };
    find_names(&mut groups, under, stop)?;
    // Which names are this layer's own must be known before any is made.
    for group in &mut groups {
        let mut names = std::mem::take(&mut group.names);
        names.sort();
        for name in names {
            if shows(layer, &name)? {
                group.names.push(name);
            }
        }
    }
    layer.pending.clear();
    for group in &groups {
        check(stop)?;
        make_group(layer, under, over, group, stop)?;
    }
    Ok(true)
}

/// What the links name, each file once.
fn groups(layer: &Layer, under: &Under) -> Result<Option<Vec<Group>>> {
    let mut all: Vec<_> = layer.pending.clone().into_iter().collect();
    all.sort_by_key(|(_, pending)| pending.number);
    let mut groups: Vec<Group> = Vec::new();
    let mut by_ino = HashMap::new();
    for (place, pending) in all {
        let what = |why: &str| {
            refuse(&pending.path, format!("hard link to '{}': {why}", shown(&pending.target)))
        };
        let object = match under.follow(&pending.target)? {
            Led::ByLink if !layer.over => return Ok(None),
            // What is in the place of that link does not have it.
            Led::ByLink | Led::Nowhere => {
                return Err(what("neither this layer nor those below have it"));
            }
            Led::To(object) => object,
        };
        if object.attr.kind == Kind::Dir {
            return Err(what("it is a directory"));
        }
        let next = groups.len();
        let index = *by_ino.entry(object.attr.ino).or_insert(next);
        if let Some(group) = groups.get_mut(index) {
            group.entries.push((place, pending));
        } else {
            let names = vec![object.path.clone()];
            groups.push(Group { object, entries: vec![(place, pending)], names });
        }
    }
    Ok(Some(groups))
}

/// Finds the other names of those files that have more than one.
fn find_names(groups: &mut [Group], under: &Under, stop: &AtomicBool) -> Result<()> {
    let mut wanted: HashMap<u64, &mut Group> = groups
        .iter_mut()
        .filter(|group| group.object.attr.nlink > 1)
        .map(|group| (group.object.attr.ino, group))
        .collect();
    let Some(root) = under.root()?.filter(|_| !wanted.is_empty()) else { return Ok(()) };
    let mut dirs = vec![root];
    while let Some(dir) = dirs.pop() {
        check(stop)?;
        let mut found = HashSet::new();
        dir.each(&mut |name, kind, ino| {
            if kind == Kind::Dir || wanted.contains_key(&ino) {
                found.insert(name.to_vec());
            }
        })?;
        for name in found {
            let Some(object) = dir.lookup(&name)? else { continue };
            if object.attr.kind == Kind::Dir {
                dirs.push(object);
            } else if let Some(group) = wanted.get_mut(&object.attr.ino)
                && !group.names.contains(&object.path)
            {
                group.names.push(object.path.clone());
            }
        }
    }
    Ok(())
}

/// Whether the name that the layers below have still shows through this layer.
fn shows(layer: &mut Layer, path: &[u8]) -> Result<bool> {
    let mut at = Dir::ROOT;
    let mut names = path.split(|&byte| byte == b'/').peekable();
    while let Some(name) = names.next() {
        if layer.tree.get(at)?.hides {
            return Ok(false);
        }
        match layer.tree.child(at, name) {
            Some(child) if names.peek().is_some() && !layer.tree.get(child)?.fresh => at = child,
            Some(_) => return Ok(false),
            None => {
                return Ok(layer.pending_at(at, name).is_none()
                    && layer.target.stat(&layer.tree, at, name)?.is_none());
            }
        }
    }
    Ok(false)
}

fn make_group(
    layer: &mut Layer,
    under: &Under,
    over: &mut Over,
    group: &Group,
    stop: &AtomicBool,
) -> Result<()> {
    let mut first: Option<Place> = None;
    let mut place = |layer: &mut Layer, dir: Dir, name: &[u8]| -> Result<()> {
        layer.tree.mark_real(dir)?;
        let Some((from, old)) = &first else {
            copy(layer, dir, name, &group.object, stop)?;
            first = Some((dir, name.into()));
            return Ok(());
        };
        let Layer { target, tree, .. } = layer;
        let (from, to) = (target.fd(tree, *from)?, target.fd(tree, dir)?);
        Entry::Entry(from.as_fd(), old).link(to.as_fd(), name)?;
        let disguised = group.object.attr.is_char_zero();
        tree.get_mut(dir)?.escapes |= disguised;
        Ok(())
    };
    for ((dir, name), pending) in &group.entries {
        place(layer, *dir, name).context(|| {
            let (path, target) = (shown(&pending.path), shown(&pending.target));
            format!("tar entry '{path}': hard link to '{target}'")
        })?;
    }
    for path in &group.names {
        let cut = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (parents, name) = path.split_at(cut);
        let dir = make_parents(layer, under, over, parents)?;
        place(layer, dir, name).context(|| format!("hard link '{}'", shown(path)))?;
    }
    Ok(())
}

/// The directory of this layer at a path that is one below.
fn make_parents(layer: &mut Layer, under: &Under, over: &mut Over, path: &[u8]) -> Result<Dir> {
    let mut at = Dir::ROOT;
    let mut below = under.root()?;
    for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
        let object = below.as_ref().map(|object| object.lookup(name)).transpose()?.flatten();
        at = if let Some(child) = layer.tree.child(at, name) {
            child
        } else {
            let dir = layer.target.make_dir(&mut layer.tree, at, name, 0o755)?;
            let again = object.as_ref().map(|object| under.again(object)).transpose()?;
            over.push((dir, again.flatten()));
            dir
        };
        below = object;
    }
    Ok(at)
}

/// Copies a non-directory from below to where nothing is.
fn copy(
    layer: &mut Layer,
    dir: Dir,
    name: &[u8],
    object: &Object,
    stop: &AtomicBool,
) -> Result<()> {
    let Layer { target, tree, .. } = layer;
    let (attr, xattrs) = (&object.attr, object.xattrs()?);
    let stamp = Stamp::of(attr);
    let link;
    let what = match attr.kind {
        Kind::File => {
            let file = target.make_file(tree, dir, name, &stamp)?;
            copy_data(object, &file, stop)?;
            let fd = target.fd(tree, dir)?;
            return target.finish_file(&file, (fd.as_fd(), name), &stamp, &xattrs);
        }
        Kind::Symlink => {
            link = object.readlink()?;
            Make::Symlink(&link)
        }
        Kind::Dir => return Err(Errno::EISDIR.into()),
        kind => Make::Node(kind, attr.rdev),
    };
    target.make(tree, dir, name, what, &stamp, &xattrs)
}

/// Copies the content of a regular file, holes and all.
fn copy_data(object: &Object, file: &std::os::fd::OwnedFd, stop: &AtomicBool) -> Result<()> {
    let size = object.attr.size;
    let source = object.open()?;
    let mut buf = vec![0; 256 << 10];
    let mut at = 0;
    while at < size {
        at = match source.seek(at, Seek::Data) {
            Err(error) if error.errno() == Errno::ENXIO => break,
            found => found?,
        };
        let end = source.seek(at, Seek::Hole)?;
        while at < end {
            check(stop)?;
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buf.len());
            let got = source.read_at(buf.get_mut(..want).unwrap_or_default(), at)?;
            if got == 0 {
                return Err(Error::new(Errno::EIO, "the file below is shorter than it says"));
            }
            write_all(file, buf.get(..got).unwrap_or_default(), at)?;
            at += got as u64;
        }
    }
    Ok(rustix::fs::ftruncate(file, size)?)
}
