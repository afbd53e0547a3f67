//! Results on a terminal.

use std::fmt::Write as _;

use super::rows::{Row, outliers, rows, targets};
use super::words::{duration, interval, value};
use super::{Fact, facts, machine_line};
use crate::bench::compare::Comparison;
use crate::bench::results::Results;

/// How many outliers are named here; the other reports name all.
const NAMED: usize = 6;

/// The whole report as text.
pub fn terminal(results: &Results) -> String {
    let rows = rows(results);
    let mut text = String::new();
    let reference = results.reference().unwrap_or("nothing");
    let (rounds, time) = (super::rounds(results), duration(results.seconds));
    // Writing to a string cannot fail.
    writeln!(
        text,
        "Times (or bytes) as multiples of those on {reference}, medians of rounds, and what they\n\
         may be. Less is better; ~ may as well be 1. The worst first; {rounds}, {time}.\n"
    )
    .unwrap_or_default();
    text += &table(results, &rows);
    text.push('\n');
    for Fact { what, said } in facts(results) {
        writeln!(text, "{what}: {said}").unwrap_or_default();
    }
    writeln!(text, "On {}", machine_line(results)).unwrap_or_default();
    text += &doubts(results, &rows);
    text
}

/// Gaps, outliers, warnings.
fn doubts(results: &Results, rows: &[Row<'_>]) -> String {
    let mut text = String::new();
    for gap in &results.gaps {
        let kind = if gap.wrong { "WRONG" } else { "not measured" };
        writeln!(text, "{kind}: {} on {}: {}", gap.workload, gap.target, gap.why)
            .unwrap_or_default();
    }
    let far = outliers(rows);
    for outlier in far.iter().take(NAMED) {
        writeln!(text, "outlier: {outlier}").unwrap_or_default();
    }
    if far.len() > NAMED {
        writeln!(text, "outlier: and {} more (--json, --out)", far.len() - NAMED)
            .unwrap_or_default();
    }
    for warning in &results.warnings {
        writeln!(text, "warning: {warning}: {}", warning.advice()).unwrap_or_default();
    }
    text
}

/// The rows, so that columns line up.
fn table(results: &Results, rows: &[Row<'_>]) -> String {
    let headings = std::iter::once("workload").chain(targets(results));
    let mut lines = vec![headings.map(str::to_owned).collect::<Vec<_>>()];
    for row in rows {
        let mut line = vec![row.name()];
        for cell in &row.cells {
            line.push(match (&cell.summary, &cell.ratio, cell.gap) {
                (_, _, Some(gap)) if gap.wrong => "WRONG".to_owned(),
                (_, Some(ratio), _) => interval(ratio),
                (Some(summary), None, _) => {
                    let (median, per) = (value(summary.median, row.metric.unit), &row.metric.per);
                    if per == "whole" { median } else { format!("{median}/{per}") }
                }
                (None, ..) => "-".to_owned(),
            });
        }
        lines.push(line);
    }
    aligned(&lines)
}

/// Lines of cells as text in which the cells of a column begin below each other.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// How two runs differ, as text: what can be told, the worst first, and how much cannot.
pub fn changes(comparison: &Comparison<'_>) -> String {
    let mut text = String::new();
    for doubt in &comparison.doubts {
        writeln!(text, "doubt: {doubt}").unwrap_or_default();
    }
    if comparison.changes.is_empty() {
        text += "the two runs have nothing in common that could be compared\n";
        return text;
    }
    let (told, same): (Vec<_>, Vec<_>) =
        comparison.changes.iter().partition(|change| change.telling().tells());
    let slower = told.iter().filter(|change| change.telling().value > 1.0).count();
    writeln!(
        text,
        "{slower} slower, {} faster, {} that cannot be told apart from no change",
        told.len() - slower,
        same.len()
    )
    .unwrap_or_default();
    if told.is_empty() {
        return text;
    }
    let relative = comparison
        .reference
        .map_or_else(|| "relative".to_owned(), |reference| format!("relative to {reference}"));
    let headings = ["workload", "target", "old", "new", "new to old", &relative];
    let mut lines = vec![headings.map(str::to_owned).to_vec()];
    for change in told {
        let (metric, unit) = (change.metric, change.metric.unit);
        let name = [change.workload.name.as_str(), metric.name.as_str()].join(" ");
        lines.push(vec![
            name.trim_end().to_owned(),
            change.target.to_owned(),
            value(change.old.median, unit),
            value(change.new.median, unit),
            interval(&change.ratio),
            change.relative.as_ref().map_or_else(String::new, interval),
        ]);
    }
    text.push('\n');
    text += &aligned(&lines);
    text
}
