//! `plyfs check`: the invariants of a stack of layers, verified without changing anything.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::CheckArgs;
use super::options::MountOptions;
use super::output::{self, Exit, Failure, JsonPath, Outcome, escape};
use super::overlap::{self, shown};
use super::verify::{self, Finding, Severity};
use super::{check_store, mount, stack};
use crate::attr::Attr;
use crate::errno::{Context, Errno, Error, Result};
use crate::layer::dir::DirLayer;
use crate::layer::{Layer, Lookup, Marks, NlinkBase, marks};
use crate::sys::{fuse_mount, mountinfo};

/// Checks.
pub(super) fn run(args: &CheckArgs, root: Option<&Path>) -> Outcome {
    if args.options.is_empty() {
        return check_store::run(args, root);
    }
    let mut options = mount::parse(&args.options)?;
    let places = mount::places(&mut options, None)?;
    // Without /proc what is left is the directories' own word.
    overlap::check(&places, &mountinfo::read().unwrap_or_default())?;
    let roots: Vec<PathBuf> = options.upper.iter().chain(&options.lowers).cloned().collect();
    let upper = options.upper.as_deref();
    let upper = upper.map(|upper| stack::unmounted_upper(upper, options.work.as_deref()));
    let lowers = options.lowers.iter().map(|root| stack::lower(root));
    let layers: Vec<_> = upper.into_iter().chain(lowers).collect::<std::result::Result<_, _>>()?;
    let mut worst = None;
    let mut printer = Printer { roots: &roots, options: &options, json: args.json };
    let mut report = |finding: Finding| {
        worst = worst.max(Some(finding.severity));
        printer.print(&finding)
    };
    let verified = match &options.work {
        Some(work) => work_dir(work, &mut report),
        None => Ok(()),
    };
    verified.and_then(|()| verify::layers(&layers, &mut report)).map_err(|error| {
        Failure::new("check", error, "what was found so far is above; the rest was not looked at")
    })?;
    if worst == Some(Severity::Error) {
        return Ok(Exit::Failed);
    }
    if !args.json && worst.is_none() {
        output::line(format_args!("{} layers, nothing found", roots.len()))?;
    }
    Ok(Exit::Ok)
}

/// Verifies the work directory.
fn work_dir(work: &Path, report: &mut dyn FnMut(Finding) -> Result<()>) -> Result<()> {
    let mut say = |severity, path: &str, what: String| {
        report(Finding { severity, layer: None, path: path.as_bytes().to_vec(), what })
    };
    // A mount holds the directory's lock.
    if fuse_mount::claim(work).is_none() {
        let what = "in use by a mount right now: what is found may be half of a change";
        return say(Severity::Note, "", what.to_owned());
    }
    if work.join("work/incompat/volatile").exists() {
        let what = "the last mount was volatile and was not unmounted: the upperdir may be \
                    incomplete, and will not be mounted";
        say(Severity::Error, "work/incompat/volatile", what.to_owned())?;
    }
    let left = names(&work.join("work"))?.into_iter().filter(|name| name != "incompat").count();
    if left > 0 {
        let what = format!("{left} unfinished things (the next mount removes them)");
        say(Severity::Note, "work", what)?;
    }
    index(work, report)
}

/// Verifies the copies of hard links: each is named by its origin, and says how many names it has.
fn index(work: &Path, report: &mut dyn FnMut(Finding) -> Result<()>) -> Result<()> {
    let dir = &work.join("index");
    if !dir.exists() {
        return Ok(());
    }
    let layer = DirLayer::open_upper(dir, work).context(|| shown(dir))?;
    let mut entries = Vec::new();
    layer.readdir(layer.root(), &mut |item| {
        entries.push(item.name.to_buf());
        Ok(())
    })?;
    entries.sort();
    for name in entries {
        let Lookup::Found(entry) = layer.lookup(layer.root(), name.as_name())? else { continue };
        // A lower layer's lookup looks for marks only where they change what is shown.
        let marks = layer.marks(entry.id);
        layer.forget(entry.id);
        if let Some((severity, what)) = wrong_in_index(name.as_bytes(), &entry.attr, &marks?) {
            let path = [b"index/", name.as_bytes()].concat();
            report(Finding { severity, layer: None, path, what: what.to_owned() })?;
        }
    }
    Ok(())
}

/// What is wrong with an entry of the index, if anything.
fn wrong_in_index(name: &[u8], attr: &Attr, marks: &Marks) -> Option<(Severity, &'static str)> {
    let Some(nlink) = marks.nlink else {
        let what = "a copied-up hard link without a count of its names (overlay.nlink)";
        return Some((Severity::Warning, what));
    };
    let origin = marks.origin.as_deref().unwrap_or_default();
    if marks::index_name(origin) != name && origin != name {
        let what = "an index entry that is named by another origin than its own: a lower name \
                    would show this file's content";
        return Some((Severity::Error, what));
    }
    let count = i64::from(attr.nlink) + i64::from(nlink.delta);
    match (nlink.base, attr.nlink) {
        (NlinkBase::Upper, 1) if count <= 0 => {
            Some((Severity::Note, "the copy of a hard link that has no name any more"))
        }
        (NlinkBase::Upper, _) if count < i64::from(attr.nlink) - 1 => {
            Some((Severity::Warning, "more names in the upper than its count says"))
        }
        _ => None,
    }
}

/// The names in a directory; none if it does not exist.
fn names(dir: &Path) -> Result<Vec<std::ffi::OsString>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(|| shown(dir)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.context(|| shown(dir))?.file_name());
    }
    names.sort();
    Ok(names)
}

/// Prints findings.
struct Printer<'a> {
    roots: &'a [PathBuf],
    options: &'a MountOptions,
    json: bool,
}

/// A finding as JSON.
#[derive(Serialize)]
struct JsonFinding<'a> {
    severity: &'a str,
    layer: String,
    #[serde(flatten)]
    path: JsonPath,
    what: &'a str,
}

impl Printer<'_> {
    /// Prints one.
    fn print(&mut self, finding: &Finding) -> Result<()> {
        let root = match finding.layer {
            Some(at) => self.roots.get(at),
            None => self.options.work.as_ref(),
        };
        let root = root.cloned().unwrap_or_default();
        let severity = finding.severity.word();
        let printed = if self.json {
            output::json(&JsonFinding {
                severity,
                layer: shown(&root),
                path: JsonPath::new(&finding.path),
                what: &finding.what,
            })
        } else {
            let path = escape(&finding.path);
            output::line(format_args!("{severity}: {}/{path}: {}", shown(&root), finding.what))
        };
        printed.map_err(|failure| Error::new(Errno::EIO, failure.to_string()))
    }
}

#[cfg(test)]
mod tests;
