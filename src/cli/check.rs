//! `plyfs check`: the invariants of a stack of layers, verified without changing anything.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::CheckArgs;
use super::options::MountOptions;
use super::output::{self, Exit, Failure, JsonPath, Outcome, escape};
use super::overlap::{self, shown};
use super::verify::{self, Finding, Severity};
use super::{mount, stack};
use crate::errno::{Context, Errno, Error, Result};
use crate::sys::fuse_mount;

/// Checks.
pub(super) fn run(args: &CheckArgs) -> Outcome {
    let mut options = mount::parse(&args.options)?;
    let places = mount::places(&mut options, None)?;
    overlap::check(&places)?;
    let roots: Vec<PathBuf> = options.upper.iter().chain(&options.lowers).cloned().collect();
    let layers = roots.iter().map(|root| stack::lower(root)).collect::<std::result::Result<_, _>>();
    let layers: Vec<_> = layers?;
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
    for name in names(&work.join("index"))? {
        let hex = name.as_bytes();
        let is_handle = hex.len() % 2 == 0 && hex.iter().all(u8::is_ascii_hexdigit);
        if !is_handle {
            let path = format!("index/{}", escape(hex));
            let what = "an index entry whose name is no file handle".to_owned();
            say(Severity::Warning, &path, what)?;
        }
    }
    Ok(())
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
