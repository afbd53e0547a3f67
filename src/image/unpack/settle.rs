//! What an unpacked layer needs from the layers below it: attributes for directories that the
//! archive has no entry for, and the files that its hard links name.

use std::sync::atomic::AtomicBool;

use super::job::check;
use super::layer::Layer;
use super::target::Stamp;
use super::tree::{Dir, Tree};
use super::under::{Led, Under};
use crate::attr::{Kind, Time};
use crate::bug;
use crate::errno::{Context, Result};
use crate::image::tar::shown;
use crate::union::below::Object;

/// A directory without an entry in a layer where nothing lies below it: as umoci makes it, less
/// the time of the day.
const BARE: Stamp = Stamp { perm: 0o755, uid: 0, gid: 0, mtime: Time { sec: 0, nsec: 0 } };

/// The directories without an entry that lie over one below, and that one.
pub(super) type Over = Vec<(Dir, Option<Object>)>;

/// Makes the layer complete; `false` if it was unpacked on a wrong assumption about what is below.
pub(super) fn settle(layer: &mut Layer, under: &Under, stop: &AtomicBool) -> Result<bool> {
    let Some(mut over) = compare(layer, under)? else { return Ok(false) };
    if !super::links::make_links(layer, under, &mut over, stop)? {
        return Ok(false);
    }
    for (dir, object) in over {
        if layer.tree.get(dir)?.gone {
            continue;
        }
        take_over(layer, dir, object.as_ref()).context(|| at(&layer.tree, dir))?;
    }
    let dirs: Vec<Dir> = layer.tree.all().map(|(dir, _)| dir).collect();
    for dir in dirs {
        check(stop)?;
        let Layer { target, tree, .. } = layer;
        target.complete(tree, dir).context(|| at(tree, dir))?;
    }
    layer.target.rest();
    Ok(true)
}

fn at(tree: &Tree, dir: Dir) -> String {
    format!("directory '{}' of the layer", shown(&tree.path(dir).unwrap_or_default()))
}

/// Gives a directory the attributes of the one below.
fn take_over(layer: &mut Layer, dir: Dir, object: Option<&Object>) -> Result<()> {
    let Layer { target, tree, .. } = layer;
    match object {
        Some(object) => {
            let xattrs = object.xattrs()?;
            target.set_dir(tree, dir, false, &Stamp::of(&object.attr), &xattrs)
        }
        None => target.set_dir(tree, dir, false, &BARE, &[]),
    }
}

/// Which directories have one without an entry among those in them, or are one.
fn interesting(tree: &Tree) -> Result<Vec<bool>> {
    let mut marked = vec![false; tree.len()];
    for (dir, node) in tree.all() {
        if node.explicit && !node.assumed {
            continue;
        }
        let mut up = dir;
        while let Some(mark) = marked.get_mut(up.index()).filter(|mark| !**mark) {
            *mark = true;
            up = tree.get(up)?.parent;
        }
    }
    Ok(marked)
}

/// Looks below for every directory that the archive only implied. `None` if one of them is
/// something else there, so that the paths through it led elsewhere.
fn compare(layer: &mut Layer, under: &Under) -> Result<Option<Over>> {
    for path in &layer.passed {
        match under.follow(path)? {
            Led::ByLink => return Ok(None),
            Led::To(object) if object.attr.kind == Kind::Symlink => return Ok(None),
            Led::To(_) | Led::Nowhere => {}
        }
    }
    let marked = interesting(&layer.tree)?;
    let mut over = Over::new();
    let mut todo = vec![(Dir::ROOT, under.root()?)];
    while let Some((dir, below)) = todo.pop() {
        if !marked.get(dir.index()).copied().unwrap_or(false) {
            continue;
        }
        let node = layer.tree.get(dir)?;
        let below = below.filter(|_| !node.fresh);
        match below.as_ref().map(|object| object.attr.kind) {
            Some(Kind::Dir) => {}
            None if node.real => {}
            Some(Kind::Symlink) if node.assumed => return Ok(None),
            Some(_) if node.assumed && node.real => return Ok(None),
            Some(_) if node.explicit => {}
            Some(_) if node.real => return Err(bug!("a directory over what is none")),
            // It was made only to hide what is in it, and nothing is.
            _ => {
                drop_dir(layer, dir)?;
                continue;
            }
        }
        let below = below.filter(|object| object.attr.kind == Kind::Dir);
        for child in layer.tree.children(dir) {
            if !marked.get(child.index()).copied().unwrap_or(false) {
                continue;
            }
            let shows = below.as_ref().filter(|_| !node.hides);
            let name = &layer.tree.get(child)?.name;
            todo.push((child, shows.map(|object| object.lookup(name)).transpose()?.flatten()));
        }
        if !node.explicit {
            over.push((dir, below));
        }
    }
    Ok(Some(over))
}

/// Removes a directory that turned out to stand for nothing.
fn drop_dir(layer: &mut Layer, dir: Dir) -> Result<()> {
    let node = layer.tree.get(dir)?;
    let (parent, name, fresh) = (node.parent, node.name.clone(), node.fresh);
    layer.remove_dir(dir)?;
    if fresh {
        layer.target.make_whiteout(&mut layer.tree, parent, &name)?;
    }
    Ok(())
}
