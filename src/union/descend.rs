//! The walk down the lower layers: what belongs to one object, and where a redirect leads.

use std::sync::Arc;

use crate::attr::{Attr, Kind};
use crate::errno::{Errno, Error, Result};
use crate::layer::{Held, Id, Lookup, Marks};
use crate::name::Name;

use super::Union;
use super::node::Lower;

/// One lower directory to look in.
#[derive(Clone, Copy)]
pub(super) struct Start {
    pub(super) layer: usize,
    pub(super) dir: Id,
}

/// The directories of `lowers`, to look in.
pub(super) fn starts(lowers: &[Lower]) -> Vec<Start> {
    lowers.iter().map(|lower| Start { layer: lower.layer, dir: lower.id() }).collect()
}

/// What an object found higher up wants of the layers below it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Below {
    /// Nothing was found yet.
    Nothing,
    /// Directories to merge with.
    Dir,
    /// A metacopy file's data.
    Data,
}

impl Union {
    /// Walks the lower directories `start` for `name` and appends what belongs to one object.
    /// Returns the attributes and marks of the topmost one that was appended here.
    pub(super) fn descend(
        &self,
        start: &[Start],
        name: Name<'_>,
        want: Below,
        out: &mut Vec<Lower>,
    ) -> Result<Option<(Attr, Marks)>> {
        self.descend_seen(start, name, want, false, out)
    }

    /// As [`descend`](Self::descend); `alone` says that only the first directory holds the name.
    pub(super) fn descend_seen(
        &self,
        start: &[Start],
        name: Name<'_>,
        mut want: Below,
        alone: bool,
        out: &mut Vec<Lower>,
    ) -> Result<Option<(Attr, Marks)>> {
        let mut first = None;
        let mut pending = None;
        for (position, at) in start.iter().enumerate() {
            let Some(layer) = self.lowers.get(at.layer) else { continue };
            let entry = match layer.lookup(at.dir, name)? {
                Lookup::Absent => continue,
                Lookup::Whiteout(_) => break,
                Lookup::Found(entry) => entry,
            };
            let held = Held::new(Arc::clone(layer), entry.id);
            refuse_unknown(&entry.marks, name.as_bytes())?;
            let kind = entry.attr.kind;
            match want {
                Below::Dir if kind != Kind::Dir => break,
                Below::Data if kind != Kind::File => break,
                _ => {}
            }
            out.push(Lower { layer: at.layer, held });
            let marks = entry.marks.clone();
            if first.is_none() {
                first = Some((entry.attr, entry.marks));
            }
            pending = (kind == Kind::File && marks.metacopy).then(|| marks.clone());
            want = match kind {
                Kind::Dir if !marks.opaque => Below::Dir,
                Kind::File if marks.metacopy => Below::Data,
                _ => break,
            };
            if let Some(to) = &marks.redirect {
                let rest = start.get(position + 1..).unwrap_or_default();
                let roots = self.roots_below(at.layer + 1)?;
                let before = out.len();
                self.redirected(to, rest, &roots, want, out)?;
                if out.len() == before {
                    return Err(dangling(name, &marks));
                }
                return Ok(first);
            }
            if alone {
                break;
            }
        }
        match pending {
            Some(marks) => Err(dangling(name, &marks)),
            None => Ok(first),
        }
    }

    /// Follows a redirect: a name beside the present one (in the directories `beside`), or a path
    /// from the roots of the layers below. Always goes down, so no cycle is possible.
    pub(super) fn redirected(
        &self,
        to: &[u8],
        beside: &[Start],
        roots: &[Start],
        want: Below,
        out: &mut Vec<Lower>,
    ) -> Result<Option<(Attr, Marks)>> {
        let component = |bytes| {
            Name::new(bytes).map_err(|_| {
                let shown = to.escape_ascii();
                Error::new(Errno::EIO, format!("redirect '{shown}' leaves the layer; refused"))
            })
        };
        let Some(path) = to.strip_prefix(b"/") else {
            return self.descend(beside, component(to)?, want, out);
        };
        let mut at = roots.to_vec();
        let mut keep = Vec::new();
        let mut parts = path.split(|&b| b == b'/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            let name = component(part)?;
            if parts.peek().is_none() {
                return self.descend(&at, name, want, out);
            }
            let mut dirs = Vec::new();
            match self.descend(&at, name, Below::Nothing, &mut dirs)? {
                Some((attr, _)) if attr.kind == Kind::Dir => {}
                _ => return Ok(None),
            }
            at = starts(&dirs);
            // The ids in `at` live as long as these.
            keep.push(dirs);
        }
        Ok(None)
    }

    /// The roots of the lower layers from `layer` down, as far as they are merged: not those below
    /// an opaque root.
    pub(super) fn roots_below(&self, layer: usize) -> Result<Vec<Start>> {
        let lowers = self.root.state()?.lowers.clone();
        let merged = starts(lowers.as_deref().unwrap_or_default());
        Ok(merged.into_iter().filter(|root| root.layer >= layer).collect())
    }
}

/// A layer with marks that this version does not follow is never shown as if they were not there.
pub(super) fn refuse_unknown(marks: &Marks, name: &[u8]) -> Result<()> {
    match &marks.unknown {
        None => Ok(()),
        Some(mark) => {
            let name = name.escape_ascii();
            let text = format!("'{name}' carries {mark}, which this version cannot follow");
            Err(Error::new(Errno::EIO, text))
        }
    }
}

pub(super) fn dangling(name: Name<'_>, marks: &Marks) -> Error {
    let what = if marks.metacopy { "metacopy file" } else { "redirected directory" };
    let to = marks.redirect.as_deref().unwrap_or(name.as_bytes()).escape_ascii();
    let text = format!("{what} {name:?}: no lower layer has '{to}'; is a layer missing?");
    Error::new(Errno::EIO, text)
}
