//! `plyfs check` without layers: the store, verified, and repaired if asked.

use std::path::Path;

use serde::Serialize;

use super::args::CheckArgs;
use super::output::{self, Exit, Outcome, Progress};
use super::stored;
use crate::errno::Errno;
use crate::store::{CheckOptions, Finding, Remedy};
use crate::sys::limits;

/// A finding as JSON.
#[derive(Serialize)]
struct JsonFinding<'a> {
    what: &'a str,
    why: &'a str,
    leftover: bool,
    repaired: bool,
    remedy: String,
}

/// Checks.
pub(super) fn run(args: &CheckArgs, root: Option<&Path>) -> Outcome {
    let store = stored::open(root)?;
    let failed = |error: crate::errno::Error| {
        let hint = match error.errno() {
            Errno::EINTR => "what is wrong was not looked for to the end",
            _ => "is all of the store readable?",
        };
        stored::failure("check", error, hint)
    };
    // It holds every image.
    limits::raise_open_files();
    let stop = stored::stop_on_interrupt().map_err(failed)?;
    let progress = Progress::pieces("layers");
    let hear = |done: usize, all: usize| progress.at(done as u64, all as u64);
    let options =
        CheckOptions { repair: args.repair, contents: !args.quick, progress: &hear, stop: &stop };
    let report = store.check(&options).map_err(failed);
    progress.finish();
    let report = report?;
    for finding in &report.findings {
        say(finding, args.json)?;
    }
    if !args.json {
        output::line(format_args!(
            "{} images, {} layers, {} containers; {} compared; {}",
            report.images,
            report.layers,
            report.containers,
            output::size(report.compared),
            match report.findings.len() {
                0 => "nothing found".to_owned(),
                1 => "1 finding".to_owned(),
                several => format!("{several} findings"),
            }
        ))?;
    }
    Ok(if report.is_sound() { Exit::Ok } else { Exit::Failed })
}

/// Prints one finding.
fn say(finding: &Finding, json: bool) -> Result<(), output::Failure> {
    let remedy = match &finding.remedy {
        Remedy::Repaired => "repaired".to_owned(),
        Remedy::Repair(how) => format!("--repair {how}"),
        Remedy::ByHand(how) => how.clone(),
    };
    if json {
        return output::json(&JsonFinding {
            what: &finding.what,
            why: &finding.why,
            leftover: finding.leftover,
            repaired: finding.remedy == Remedy::Repaired,
            remedy,
        });
    }
    let severity = if finding.leftover { "note" } else { "error" };
    output::line(format_args!("{severity}: {}: {} ({remedy})", finding.what, finding.why))
}
