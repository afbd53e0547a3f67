//! Two runs of the same workloads: what has become slower or faster, and what cannot be told.

use super::results::{Done, Results};
use super::stats::{Ratio, Summary};
use super::workload::Metric;

/// What has become of one thing.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// The workload, as the new run has it.
    pub workload: &'a Done,
    /// What of it.
    pub metric: &'a Metric,
    /// The target.
    pub target: &'a str,
    /// Then.
    pub old: Summary,
    /// Now.
    pub new: Summary,
    /// Now to then.
    pub ratio: Ratio,
    /// The same, of what each was to its own run's reference: what the machine did to both is
    /// taken out of it. `None` where the runs have no reference in common, and for that itself.
    pub relative: Option<Ratio>,
}

impl Change<'_> {
    /// What to go by: the relative change, where there is one.
    pub fn telling(&self) -> Ratio {
        self.relative.unwrap_or(self.ratio)
    }
}

/// Two runs.
#[derive(Clone, Debug)]
pub struct Comparison<'a> {
    /// All that both have, the one that has become slower most first.
    pub changes: Vec<Change<'a>>,
    /// What makes it doubtful whether they can be compared.
    pub doubts: Vec<String>,
    /// What the relative changes are relative to.
    pub reference: Option<&'a str>,
}

/// Compares two runs.
pub fn compare<'a>(old: &'a Results, new: &'a Results) -> Comparison<'a> {
    let reference = new.reference().filter(|_| new.reference() == old.reference());
    let mut changes = Vec::new();
    for workload in &new.workloads {
        for metric in &workload.metrics {
            for target in &new.targets {
                let values =
                    |of: &'a Results, name: &str| of.values(&workload.name, &metric.name, name);
                let (then, now) = (values(old, &target.name), values(new, &target.name));
                let parts = (Summary::of(then), Summary::of(now), Ratio::unpaired(now, then));
                let (Some(before), Some(after), Some(ratio)) = parts else { continue };
                let relative = reference.filter(|name| *name != target.name).and_then(|name| {
                    Ratio::of_ratios((now, values(new, name)), (then, values(old, name)))
                });
                changes.push(Change {
                    workload,
                    metric,
                    target: &target.name,
                    old: before,
                    new: after,
                    ratio,
                    relative,
                });
            }
        }
    }
    changes.sort_by(|a, b| b.telling().value.total_cmp(&a.telling().value));
    Comparison { changes, doubts: doubts(old, new), reference }
}

/// In what else the runs differ.
fn doubts(old: &Results, new: &Results) -> Vec<String> {
    let mut found = Vec::new();
    let mut differs = |what: &str, then: &str, now: &str| {
        if then != now {
            found.push(format!("{what} differs: {then}, then {now}"));
        }
    };
    let (then, now) = (&old.machine, &new.machine);
    differs("the processor", &then.cpu, &now.cpu);
    differs("the number of CPUs", &then.cpus.to_string(), &now.cpus.to_string());
    differs("the kernel", &then.kernel, &now.kernel);
    differs("the filesystem", &then.filesystem, &now.filesystem);
    let pinned = |results: &Results| if results.pinned { "one CPU" } else { "all CPUs" };
    differs("what it ran on", pinned(old), pinned(new));
    for target in &new.targets {
        let known = old.targets.iter().find(|known| known.name == target.name);
        if let Some(known) = known {
            differs(&target.name, &known.about, &target.about);
        }
    }
    for (when, results) in [("old", old), ("new", new)] {
        let warnings = results.warnings.iter().map(|warning| format!("the {when} run: {warning}"));
        found.extend(warnings);
    }
    found
}

#[cfg(test)]
mod tests;
