//! `plyfs diff`: what an upper directory changes.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::result::Result as StdResult;
use std::sync::Arc;

use serde::Serialize;

use super::args::DiffArgs;
use super::output::{self, Exit, Failure, JsonPath, Outcome, escape};
use super::overlap::shown;
use super::{options, stack, stored};
use crate::attr::{Attr, Kind};
use crate::errno::{Error, Result};
use crate::layer::walk::{Seen, Visit, walk};
use crate::layer::{Entry, Layer};
use crate::store::Use;
use crate::union::below::{Below, Object};

/// One thing that an upper layer changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is different.
    pub how: How,
    /// The path in the mount, without a leading `/`.
    pub path: Vec<u8>,
    /// Whether a directory is there now.
    pub dir: bool,
}

/// How something differs from the layers below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// Nothing of that name is below.
    Added,
    /// Something of that name is below.
    Changed,
    /// Added or changed: without the layers below nobody can tell.
    Upper,
    /// It is below, and does not show.
    Deleted,
    /// A directory that hides the one below.
    Replaced,
    /// A directory that is at this path in the layers below.
    Renamed(Vec<u8>),
}

impl How {
    /// The letter that stands for it.
    fn letter(&self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Upper => 'U',
            Self::Deleted => 'D',
            Self::Replaced => 'O',
            Self::Renamed(_) => 'R',
        }
    }

    /// The word that stands for it in JSON.
    fn word(&self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Upper => "upper",
            Self::Deleted => "deleted",
            Self::Replaced => "replaced",
            Self::Renamed(_) => "renamed",
        }
    }
}

/// What the layers below show at a directory of the upper layer.
enum Under {
    /// No layers were given.
    Unknown,
    /// Nothing.
    Nothing,
    /// This.
    Known(Object),
}

impl Under {
    /// What is under an entry of the directory that this is under.
    fn entry(&self, below: Option<&Below>, name: &[u8], entry: Option<&Entry>) -> Result<Self> {
        let dir = match self {
            Self::Unknown => return Ok(Self::Unknown),
            Self::Nothing => None,
            Self::Known(dir) => Some(dir),
        };
        let found = match (below, entry) {
            (Some(below), Some(entry)) => below.under(dir, name, &entry.marks)?,
            _ => dir.map(|dir| dir.lookup(name)).transpose()?.flatten(),
        };
        Ok(found.map_or(Self::Nothing, Self::Known))
    }
}

/// Calls `each` for what `upper` changes, in the order of paths. With `lowers` empty, changes and
/// additions are not told apart.
///
/// # Errors
/// What a layer fails at ends the list.
pub fn changes(
    upper: &Arc<dyn Layer>,
    lowers: &[Arc<dyn Layer>],
    each: &mut dyn FnMut(Change) -> Result<()>,
) -> Result<()> {
    let (_, marks) = upper.root_entry()?;
    let below = Below::new(lowers)?;
    let root = match &below {
        None => Under::Unknown,
        Some(_) if marks.opaque => Under::Nothing,
        Some(below) => Under::Known(below.root()?),
    };
    walk(upper, root, &mut |dir, visit| {
        let (change, under) = judge(upper, below.as_ref(), dir, visit)?;
        if let Some(how) = change {
            let dir = matches!(visit.seen, Seen::Object(entry) if entry.attr.kind == Kind::Dir);
            each(Change { how, path: visit.path.to_vec(), dir })?;
        }
        Ok(under)
    })
}

/// What is to be said of one name, and what its own entries are compared with.
fn judge(
    upper: &Arc<dyn Layer>,
    below: Option<&Below>,
    dir: &Under,
    visit: &Visit<'_>,
) -> Result<(Option<How>, Option<Under>)> {
    let name = visit.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let entry = match &visit.seen {
        Seen::Failed(error) => {
            return Err(Error::new(error.errno(), format!("{}: {error}", escape(visit.path))));
        }
        Seen::Whiteout(_) => {
            let deletes = !matches!(dir.entry(below, name, None)?, Under::Nothing);
            return Ok((deletes.then_some(How::Deleted), None));
        }
        Seen::Object(entry) => *entry,
    };
    let is_dir = entry.attr.kind == Kind::Dir;
    let under = dir.entry(below, name, Some(entry))?;
    if is_dir
        && !entry.marks.opaque
        && let Some(redirect) = &entry.marks.redirect
    {
        let from = match &under {
            Under::Known(object) => object.path.clone(),
            _ => redirect.strip_prefix(b"/").unwrap_or(redirect).to_vec(),
        };
        return Ok((Some(How::Renamed(from)), Some(under)));
    }
    let how = match &under {
        Under::Unknown if is_dir && entry.marks.opaque => Some(How::Replaced),
        Under::Unknown => Some(How::Upper),
        Under::Nothing => Some(How::Added),
        Under::Known(below) if is_dir && below.attr.kind == Kind::Dir => {
            if entry.marks.opaque {
                Some(How::Replaced)
            } else {
                differs(upper, entry, below)?.then_some(How::Changed)
            }
        }
        Under::Known(_) => Some(How::Changed),
    };
    let hides = match &under {
        Under::Known(below) => entry.marks.opaque || below.attr.kind != Kind::Dir,
        Under::Unknown | Under::Nothing => false,
    };
    Ok((how, Some(if hides { Under::Nothing } else { under })))
}

/// Whether a directory is itself different from the one below, not only in what it holds.
fn differs(upper: &Arc<dyn Layer>, entry: &Entry, below: &Object) -> Result<bool> {
    let owned = |attr: &Attr| (attr.perm, attr.uid, attr.gid);
    if owned(&entry.attr) != owned(&below.attr) {
        return Ok(true);
    }
    let mut xattrs = Vec::new();
    for name in upper.listxattr(entry.id)? {
        if !is_mark(&name)
            && let Some(value) = upper.getxattr(entry.id, &name)?
        {
            xattrs.push((name, value));
        }
    }
    xattrs.sort();
    Ok(xattrs != below.xattrs()?)
}

/// Whether an extended attribute is for the layer's own bookkeeping.
fn is_mark(name: &[u8]) -> bool {
    [&b"trusted.overlay."[..], b"user.overlay.", b"user.fuseoverlayfs."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// A change as JSON.
#[derive(Serialize)]
struct JsonChange {
    change: &'static str,
    #[serde(flatten)]
    path: JsonPath,
    dir: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<JsonPath>,
}

/// Lists the changes.
pub(super) fn run(args: &DiffArgs, root: Option<&Path>) -> Outcome {
    let mut lowers = Vec::new();
    let (mut path, mut work) = (args.upper.clone(), None);
    // So that it is not removed meanwhile.
    let mut _lock = None;
    if let Some((store, container)) = stored::container_or_path(root, args.upper.as_os_str())? {
        let failed = |error| stored::failure(&container.name, error, "try plyfs check");
        _lock = Some(container.lock(Use::Read).map_err(failed)?);
        let stack = store.stack(&container).map_err(failed)?;
        if args.lower.is_empty() {
            lowers =
                stack.lowers.iter().map(|path| stack::lower(path)).collect::<StdResult<_, _>>()?;
        }
        (path, work) = (stack.upper, Some(stack.work));
    }
    let upper = stack::unmounted_upper(&path, work.as_deref());
    let upper = upper.map_err(|failure| Failure { what: shown(&args.upper), ..failure })?;
    for list in &args.lower {
        let paths = options::parse_lowers(list.as_bytes())
            .map_err(|error| Failure::usage("--lower", &error, error.hint()))?;
        for path in paths {
            lowers.push(stack::lower(&path)?);
        }
    }
    let mut unprinted = None;
    let listed = changes(&upper, &lowers, &mut |change| {
        print(&change, args.json).map_err(|failure| {
            let error = Error::new(crate::errno::Errno::EIO, failure.why.clone());
            unprinted = Some(failure);
            error
        })
    });
    match (listed, unprinted) {
        (_, Some(failure)) => Err(failure),
        (Ok(()), None) => Ok(Exit::Ok),
        (Err(error), None) => {
            let hint = "the list ends here; is it a layer, and may you read all of it?";
            Err(Failure::new(shown(&args.upper), error, hint))
        }
    }
}

/// Prints one change.
fn print(change: &Change, json: bool) -> StdResult<(), Failure> {
    let from = match &change.how {
        How::Renamed(from) => Some(from.as_slice()),
        _ => None,
    };
    if json {
        return output::json(&JsonChange {
            change: change.how.word(),
            path: JsonPath::new(&change.path),
            dir: change.dir,
            from: from.map(JsonPath::new),
        });
    }
    let slash = if change.dir { "/" } else { "" };
    let from = from.map(|from| format!("{}/ -> ", escape(from))).unwrap_or_default();
    output::line(format_args!("{} {from}{}{slash}", change.how.letter(), escape(&change.path)))
}

#[cfg(test)]
mod tests;
