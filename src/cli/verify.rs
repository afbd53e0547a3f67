//! What `plyfs check` verifies of the layers: that every mark means something, and what it says.
//!
//! Nothing is changed. A layer is compared with the union of those below it.

use std::collections::HashMap;
use std::sync::Arc;

use super::output::escape;
use crate::attr::Kind;
use crate::errno::{Errno, Result};
use crate::layer::walk::{Seen, Visit, walk};
use crate::layer::{Entry, Layer};
use crate::union::below::{Below, Object};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Harmless, and as other tools leave it.
    Note,
    /// Left behind, or odd; what the mount shows is right.
    Warning,
    /// The mount does not show what was written, or refuses to.
    Error,
}

impl Severity {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something to be said of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which layer, counted from the top of the stack, the upper included; `None` for the work
    /// directory.
    pub layer: Option<usize>,
    /// The path in it, without a leading `/`.
    pub path: Vec<u8>,
    /// What is wrong.
    pub what: String,
}

/// Verifies every layer of a stack, topmost first, and calls `report` for each finding.
///
/// # Errors
/// Only those of `report` and of what cannot be compared at all; an unreadable part of a layer is
/// a finding.
pub fn layers(
    stack: &[Arc<dyn Layer>],
    report: &mut dyn FnMut(Finding) -> Result<()>,
) -> Result<()> {
    for (at, layer) in stack.iter().enumerate() {
        let mut report = |severity, path: &[u8], what: String| {
            report(Finding { severity, layer: Some(at), path: path.to_vec(), what })
        };
        let marks = match layer.root_entry() {
            Ok((_, marks)) => marks,
            Err(error) => {
                report(Severity::Error, b"", format!("cannot be read: {error}"))?;
                continue;
            }
        };
        if let Some(unknown) = &marks.unknown {
            report(Severity::Error, b"", not_followed(unknown))?;
        }
        let rest = stack.get(at + 1..).unwrap_or_default();
        let below = if marks.opaque { None } else { Below::new(rest)? };
        let root = Under(below.as_ref().map(Below::root).transpose()?);
        let mut inos = HashMap::new();
        walk(layer, root, &mut |dir, visit| {
            match_up(below.as_ref(), dir, visit, &mut inos, &mut report)
        })?;
    }
    Ok(())
}

/// What the layers below show at a directory of a layer, if anything.
struct Under(Option<Object>);

/// How a finding is reported: severity, path, what.
type Report<'a> = dyn FnMut(Severity, &[u8], String) -> Result<()> + 'a;

/// Verifies one name; returns what lies below its own entries.
fn match_up(
    below: Option<&Below>,
    dir: &Under,
    visit: &Visit<'_>,
    inos: &mut HashMap<u64, u64>,
    report: &mut Report<'_>,
) -> Result<Option<Under>> {
    let dir = dir.0.as_ref();
    let name = visit.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let entry = match &visit.seen {
        Seen::Failed(error) => {
            report(Severity::Error, visit.path, format!("cannot be read: {error}"))?;
            return Ok(None);
        }
        Seen::Whiteout(_) => {
            if dir.map(|dir| dir.lookup(name)).transpose()?.flatten().is_none() {
                let what = "a whiteout of nothing: no layer below has the name".to_owned();
                report(Severity::Note, visit.path, what)?;
            }
            return Ok(None);
        }
        Seen::Object(entry) => *entry,
    };
    let marks = &entry.marks;
    if let Some(unknown) = &marks.unknown {
        report(Severity::Error, visit.path, not_followed(unknown))?;
    }
    if let Some(ino) = marks.ino {
        let first = *inos.entry(ino).or_insert(entry.attr.ino);
        if first != entry.attr.ino {
            let what = format!("carries inode number {ino}, as does another object");
            report(Severity::Error, visit.path, what)?;
        }
    }
    let under = match below.map(|below| below.under(dir, name, marks)).transpose() {
        Ok(under) => under.flatten(),
        Err(error) if matches!(error.errno(), Errno::EINVAL | Errno::ENAMETOOLONG) => {
            let what = format!("its redirect is no path inside the layers: {}", redirect(entry));
            report(Severity::Error, visit.path, what)?;
            return Ok(Some(Under(None)));
        }
        Err(error) => {
            let what = format!("the layers below cannot be read there: {error}");
            report(Severity::Error, visit.path, what)?;
            return Ok(Some(Under(None)));
        }
    };
    findings(entry, under.as_ref(), visit.path, report)?;
    let merges = under.filter(|below| below.attr.kind == Kind::Dir && !marks.opaque);
    Ok(Some(Under(merges)))
}

/// What is to be said of an object and of what it lies over.
fn findings(
    entry: &Entry,
    under: Option<&Object>,
    path: &[u8],
    report: &mut Report<'_>,
) -> Result<()> {
    let marks = &entry.marks;
    let is_dir = entry.attr.kind == Kind::Dir;
    if marks.metacopy {
        let data = under.is_some_and(|below| below.attr.kind == Kind::File);
        if !data {
            let what = "only its metadata were copied, and its data are nowhere below";
            report(Severity::Error, path, what.to_owned())?;
        } else if under.is_some_and(|below| below.attr.size != entry.attr.size) {
            let what = "only its metadata were copied, and the file below has another size";
            report(Severity::Error, path, what.to_owned())?;
        }
    }
    if is_dir && marks.redirect.is_some() && !marks.opaque {
        let found = under.is_some_and(|below| below.attr.kind == Kind::Dir);
        if !found {
            let what = format!("its redirect leads to no directory below: {}", redirect(entry));
            report(Severity::Error, path, what)?;
        }
    }
    if is_dir && marks.opaque && under.is_none() {
        let what = "opaque, with nothing below to hide".to_owned();
        report(Severity::Note, path, what)?;
    }
    Ok(())
}

/// A redirect for a message.
fn redirect(entry: &Entry) -> String {
    escape(entry.marks.redirect.as_deref().unwrap_or_default())
}

/// A mark that this version refuses.
fn not_followed(mark: &str) -> String {
    format!("carries the mark '{mark}', which this version does not follow")
}

#[cfg(test)]
mod tests;
