//! `plyfs bench`: what is to be measured, and what came of it.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;

use super::args::{BenchArgs, BenchCommand};
use super::output::{self, Exit, Failure, Outcome, Progress, Table};
use crate::bench::plan::{self, Plan, Watcher};
use crate::bench::results::Results;
use crate::bench::workload::{Caches, Group, Scale};
use crate::bench::{compare, place, report};
use crate::errno::Error;
use crate::sys::relay::{CONTINUE, Relay};
use crate::sys::signal;

/// Measures, or does what else was asked.
pub(super) fn run(args: &BenchArgs) -> Outcome {
    match &args.command {
        None => measure(args),
        Some(BenchCommand::Compare { old, new }) => compare(old, new),
        Some(BenchCommand::List { json }) => list(*json),
    }
}

fn failure(error: &Error) -> Failure {
    Failure::new("bench", error, "")
}

fn measure(args: &BenchArgs) -> Outcome {
    let dir = args.dir.clone().or_else(|| std::env::var_os("TMPDIR").map(PathBuf::from));
    let plyfs = std::env::current_exe().map_err(|error| failure(&error.into()))?;
    let plan = Plan {
        full: args.full,
        targets: args.targets.clone(),
        workloads: args.workloads.clone(),
        rounds: args.rounds,
        dir: dir.unwrap_or_else(|| PathBuf::from("/var/tmp")),
        pin: args.pin,
        scale: Scale::Usual,
        plyfs,
        command: command_line(),
    };
    if let Some(out) = &args.out {
        // Before an hour has passed.
        let hint = "give a directory that you may write";
        std::fs::create_dir_all(out)
            .map_err(|error| Failure::new(out.display(), Error::from(error), hint))?;
    }
    let watch = Watch::begin().map_err(|error| failure(&error))?;
    let results = plan.run(&watch);
    watch.progress.finish();
    let results = results.map_err(|error| failure(&error))?;
    if let Some(out) = &args.out {
        write_reports(out, &results)?;
    }
    if args.json {
        output::bytes(results.to_json().map_err(|error| failure(&error))?.as_bytes())?;
        output::line("")?;
    } else {
        output::bytes(report::terminal(&results).as_bytes())?;
    }
    if results.interrupted {
        return Ok(Exit::Command(INTERRUPTED));
    }
    Ok(if results.is_wrong() { Exit::Failed } else { Exit::Ok })
}

/// Writes what was measured, and what follows from it, to a directory.
fn write_reports(out: &Path, results: &Results) -> Result<(), Failure> {
    let files = [
        ("results.json", results.to_json().map_err(|error| failure(&error))?),
        ("report.md", report::markdown(results)),
        ("report.html", report::html(results)),
    ];
    for (name, text) in files {
        let path = out.join(name);
        std::fs::write(&path, text).map_err(|error| {
            let hint = "the results are lost, but for what is printed";
            output::bytes(report::terminal(results).as_bytes()).unwrap_or_default();
            Failure::new(path.display(), Error::from(error), hint)
        })?;
    }
    Ok(())
}

/// Compares what two runs have written.
fn compare(old: &Path, new: &Path) -> Outcome {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path).map_err(Error::from);
        let results = text.and_then(|text| Results::from_json(&text));
        let hint = "give two files results.json that 'plyfs bench --out DIR' has written";
        results.map_err(|error| Failure::new(path.display(), error, hint))
    };
    let (old, new) = (read(old)?, read(new)?);
    output::bytes(report::changes(&compare::compare(&old, &new)).as_bytes())?;
    Ok(Exit::Ok)
}

/// How a shell shows that Ctrl-C ended a command.
const INTERRUPTED: u8 = 130;

/// The command line as it was given, near enough to repeat it.
fn command_line() -> String {
    let quoted = |word: std::ffi::OsString| {
        let word = word.to_string_lossy().into_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,".contains(c);
        if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{word}'") }
    };
    let words = std::env::args_os().skip(1).map(quoted);
    std::iter::once("plyfs".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// Shows how far it is, and hears whoever wants it to end.
#[derive(Debug)]
struct Watch {
    progress: Progress,
    asked: Arc<AtomicU32>,
    base: Arc<Mutex<Option<PathBuf>>>,
}

impl Watch {
    fn begin() -> crate::errno::Result<Self> {
        let asked = Arc::new(AtomicU32::new(0));
        let base = Arc::new(Mutex::new(None));
        if let Some(relay) = Relay::install()? {
            let (asked, base) = (Arc::clone(&asked), Arc::clone(&base));
            std::thread::Builder::new()
                .name("plyfs-signals".to_owned())
                .spawn(move || hear(&relay, &asked, &base))?;
        }
        Ok(Self { progress: Progress::pieces("measuring"), asked, base })
    }
}

impl Watcher for Watch {
    fn at(&self, done: usize, all: usize, what: &str) {
        self.progress.say(what);
        self.progress.at(done as u64, all as u64);
    }

    fn stop(&self) -> bool {
        self.asked.load(Ordering::Acquire) > 0
    }

    fn place(&self, base: &Path) {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = Some(base.to_owned());
    }
}

/// The first signal ends it after what is being measured now; the second at once.
fn hear(relay: &Relay, asked: &AtomicU32, base: &Mutex<Option<PathBuf>>) {
    loop {
        while let Some(heard) = relay.next() {
            if heard.signal == CONTINUE || !signal::ends(heard.signal.into()) {
                continue;
            }
            if asked.fetch_add(1, Ordering::AcqRel) == 0 {
                output::note("ending after what is being measured now; once more: at once");
                continue;
            }
            let base = base.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(Err(error)) = base.map(|base| place::clean(&base)) {
                output::failure(&failure(&error));
            }
            std::process::exit(i32::from(INTERRUPTED));
        }
        match poll(&mut [PollFd::new(&relay.as_fd(), PollFlags::IN)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// A workload, as it is listed.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    group: Group,
    quick: bool,
    caches: Caches,
    what: String,
}

fn list(json: bool) -> Outcome {
    let all = plan::chosen(Scale::Usual, &[], true).map_err(|error| failure(&error))?;
    let listed = all.into_iter().map(|workload| Listed {
        name: workload.name,
        group: workload.group,
        quick: workload.quick,
        caches: workload.caches,
        what: workload.what,
    });
    if json {
        listed.into_iter().try_for_each(|workload| output::json(&workload))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["WORKLOAD", "SET", "GROUP", "WHAT"]);
    for workload in listed {
        let set = if workload.quick { "quick" } else { "full" };
        let what = match workload.caches {
            Caches::Warm => format!("{}, the second time", workload.what),
            Caches::Fresh => workload.what,
            Caches::Dropped => format!("{}, from the disk", workload.what),
        };
        table.row([workload.name, set.to_owned(), workload.group.to_string(), what]);
    }
    table.print()?;
    Ok(Exit::Ok)
}
