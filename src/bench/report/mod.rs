//! Results as people read them: on a terminal, in Markdown, as a page. All of them say the same:
//! ratios first, worst first, and whatever speaks against them.

mod html;
mod markdown;
mod rows;
mod svg;
mod terminal;
mod words;

pub use html::html;
pub use markdown::markdown;
pub use rows::{Cell, Row, rows};
pub use terminal::{changes, terminal};
pub use words::{duration, ratio, value};

#[cfg(test)]
pub(super) use rows::tests::sample;

use super::results::Results;
use super::workload::Unit;

/// How many colours there are for targets.
const COLOURS: usize = 8;

/// How it was measured, for whoever reads nothing else.
const METHOD: [&str; 3] = [
    "All targets took turns at each workload, the order turned from round to round, and all of it \
     was gone through once before the first round without being counted. Each measurement had \
     directories of its own, over layers that were made once, and began when everything written \
     before had reached the disk.",
    "Each workload checked outside of the time measured that what it did had happened. Where a \
     target is a program, the time is what its client waits for.",
    "An interval is where the ratio of the medians lies in 95 of 100 draws of as many rounds from \
     those that were measured, a round being drawn for both at once.",
];

/// Something to be known about a run.
#[derive(Debug)]
struct Fact {
    what: String,
    said: String,
}

/// What was measured.
fn facts(results: &Results) -> Vec<Fact> {
    let of = |target: &super::results::Tried| Fact {
        what: target.name.clone(),
        said: target
            .cannot
            .as_ref()
            .map_or_else(|| target.about.clone(), |why| format!("cannot be measured here: {why}")),
    };
    results.targets.iter().map(of).collect()
}

/// How many rounds there are.
fn rounds(results: &Results) -> String {
    let count = results.rounds;
    if results.interrupted {
        format!("interrupted before its {count} rounds were done")
    } else {
        format!("{count} rounds")
    }
}

/// Where it was measured, when, how often.
fn machine_line(results: &Results) -> String {
    let machine = &results.machine;
    #[allow(clippy::cast_precision_loss, reason = "a size of memory")]
    let memory = value(machine.memory as f64, Unit::Bytes);
    let kind = if machine.virtualized { ", virtual" } else { "" };
    let pinned = if results.pinned { ", client and server on one CPU" } else { "" };
    let rounds = rounds(results);
    format!(
        "Linux {}, {} x {}{kind}, {memory} of memory, {}; load {:.1} at the beginning{pinned}; \
         {rounds}, {}.",
        machine.kernel,
        machine.cpus,
        machine.cpu,
        machine.filesystem,
        machine.load,
        date(results.began)
    )
}

/// A day as `2026-11-21`, from seconds since 1970 (Hinnant's days from civil, backwards).
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests;
