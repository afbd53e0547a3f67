//! A whole layer, name by name.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use super::{Entry, Held, Layer, Lookup, WhiteoutForm};
use crate::errno::{Error, Result};
use crate::name::NameBuf;

/// What a walk meets at a name.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A whiteout.
    Whiteout(WhiteoutForm),
    /// An object. The walk gives its reference back.
    Object(&'a Entry),
    /// What is there cannot be told; or, for a directory that was told before, its names cannot.
    Failed(&'a Error),
}

/// One name of the layer.
#[derive(Debug)]
pub struct Visit<'a> {
    /// Its path from the layer's root, without a leading `/`; empty for the root itself, which is
    /// visited only if it cannot be listed.
    pub path: &'a [u8],
    /// What is there.
    pub seen: Seen<'a>,
}

/// A name still to be visited.
struct Pending<C> {
    dir: Rc<Held>,
    context: Rc<C>,
    /// The directory's path.
    parent: Rc<[u8]>,
    name: NameBuf,
}

/// Visits every name in `layer`, directories before what they hold, names in the order of their
/// bytes. `each` gets what it returned for the directory (`root` for the root), and returns what
/// its own entries shall get, or `None` not to be shown them.
///
/// # Errors
/// Those of `each`, which end the walk. What the layer fails at is visited as [`Seen::Failed`].
pub fn walk<C>(
    layer: &Arc<dyn Layer>,
    root: C,
    each: &mut dyn FnMut(&C, &Visit<'_>) -> Result<Option<C>>,
) -> Result<()> {
    let mut pending = Vec::new();
    let top = Rc::new(Held::new(layer.clone(), layer.root()));
    list(&top, &Rc::new(root), &Rc::from(&b""[..]), &mut pending, each)?;
    while let Some(Pending { dir, context, parent, name }) = pending.pop() {
        let mut path = parent.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        let entry = match layer.lookup(dir.id(), name.as_name()) {
            Ok(Lookup::Found(entry)) => entry,
            Ok(Lookup::Whiteout(form)) => {
                each(&context, &Visit { path: &path, seen: Seen::Whiteout(form) })?;
                continue;
            }
            // Gone since it was listed.
            Ok(Lookup::Absent) => continue,
            Err(error) => {
                each(&context, &Visit { path: &path, seen: Seen::Failed(&error) })?;
                continue;
            }
        };
        let held = Rc::new(Held::new(layer.clone(), entry.id));
        let inner = each(&context, &Visit { path: &path, seen: Seen::Object(&entry) })?;
        if let (crate::attr::Kind::Dir, Some(inner)) = (entry.attr.kind, inner) {
            list(&held, &Rc::new(inner), &Rc::from(path), &mut pending, each)?;
        }
    }
    Ok(())
}

/// Adds the names of a directory, so that the first one is met first.
fn list<C>(
    dir: &Rc<Held>,
    context: &Rc<C>,
    path: &Rc<[u8]>,
    pending: &mut Vec<Pending<C>>,
    each: &mut dyn FnMut(&C, &Visit<'_>) -> Result<Option<C>>,
) -> Result<()> {
    let mut names = BTreeSet::new();
    let listed = dir.layer().readdir(dir.id(), &mut |item| {
        names.insert(item.name.to_buf());
        Ok(())
    });
    if let Err(error) = listed {
        each(context, &Visit { path, seen: Seen::Failed(&error) })?;
    }
    pending.extend(names.into_iter().rev().map(|name| Pending {
        dir: dir.clone(),
        context: context.clone(),
        parent: path.clone(),
        name,
    }));
    Ok(())
}
