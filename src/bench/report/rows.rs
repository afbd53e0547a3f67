//! The table behind every report: a row for each thing measured, a cell for each target.

use crate::bench::results::{Done, Gap, Results};
use crate::bench::stats::{Ratio, Summary};
use crate::bench::workload::Metric;

/// A metric of a workload.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// The workload.
    pub workload: &'a Done,
    /// The metric.
    pub metric: &'a Metric,
    /// What came of it on each target that runs here, in the order in which they were named, the
    /// one that the others are compared with first.
    pub cells: Vec<Cell<'a>>,
}

/// What came of it on one target.
#[derive(Clone, Debug)]
pub struct Cell<'a> {
    /// The target's name.
    pub target: &'a str,
    /// The values.
    pub values: &'a [f64],
    /// What those are like.
    pub summary: Option<Summary>,
    /// What they are of those of the reference; not for the reference itself.
    pub ratio: Option<Ratio>,
    /// Why there are none, or no more.
    pub gap: Option<&'a Gap>,
}

impl Row<'_> {
    /// The workload's name, with the metric's where there are several.
    pub fn name(&self) -> String {
        let (workload, metric) = (&self.workload.name, &self.metric.name);
        if metric.is_empty() { workload.clone() } else { format!("{workload} {metric}") }
    }

    /// By which rows are sorted: what the first target but the reference takes, of plyfs if it is
    /// there.
    fn badness(&self) -> f64 {
        let ratio = |cell: &Cell<'_>| cell.ratio.map(|ratio| ratio.value);
        let ours = self.cells.iter().find(|cell| cell.target.starts_with("plyfs"));
        let any = || self.cells.iter().skip(1).find_map(ratio);
        ours.and_then(ratio).or_else(any).unwrap_or(-1.0)
    }
}

/// The targets that run here, the reference first.
pub(super) fn targets(results: &Results) -> Vec<&str> {
    let reference = results.reference();
    let here = results.targets.iter().filter(|target| target.cannot.is_none());
    let names = here.map(|target| target.name.as_str());
    let mut names: Vec<_> = names.filter(|name| Some(*name) != reference).collect();
    if let Some(reference) = reference {
        names.insert(0, reference);
    }
    names
}

/// All rows of which something is known, the worst first.
pub fn rows(results: &Results) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let targets = targets(results);
    let reference = results.reference();
    for workload in &results.workloads {
        for metric in &workload.metrics {
            let cell = |&target: &&str| {
                let cell = Cell {
                    target: "",
                    values: results.values(&workload.name, &metric.name, target),
                    summary: None,
                    ratio: None,
                    gap: results.gap(&workload.name, target),
                };
                let ratio = results
                    .ratio(&workload.name, &metric.name, target)
                    .filter(|_| Some(target) != reference);
                let known = results.targets.iter().find(|known| known.name == *target);
                let target = known.map_or("", |known| known.name.as_str());
                Cell { target, summary: Summary::of(cell.values), ratio, ..cell }
            };
            rows.push(Row { workload, metric, cells: targets.iter().map(cell).collect() });
        }
    }
    rows.retain(|row: &Row<'_>| {
        row.cells.iter().any(|cell| cell.summary.is_some() || cell.gap.is_some())
    });
    rows.sort_by(|a, b| b.badness().total_cmp(&a.badness()));
    rows
}

/// The values that lie far from the others of their series: what they are of, and how they differ.
pub(super) fn outliers(rows: &[Row<'_>]) -> Vec<String> {
    let mut found = Vec::new();
    for row in rows {
        for cell in &row.cells {
            let Some(summary) = cell.summary else { continue };
            for (round, &value) in (1..).zip(cell.values) {
                if summary.is_outlier(value) {
                    let (name, unit) = (row.name(), row.metric.unit);
                    let (far, mid) =
                        (super::value(value, unit), super::value(summary.median, unit));
                    let target = cell.target;
                    found.push(format!("{name} on {target}, round {round}: {far}, median {mid}"));
                }
            }
        }
    }
    found
}

#[cfg(test)]
pub(super) mod tests;
