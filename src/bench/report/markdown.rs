//! Results as Markdown, to be put into a document.

use super::rows::{Row, outliers, rows, targets};
use super::words::{interval, value};
use super::{Fact, facts};
use crate::bench::results::Results;

/// The whole report.
pub fn markdown(results: &Results) -> String {
    let rows = rows(results);
    let reference = results.reference().unwrap_or("nothing");
    let mut lines = vec![
        "# What copy-on-write costs here".to_owned(),
        String::new(),
        format!("`{}`: {}", results.command, super::machine_line(results)),
        String::new(),
    ];
    for warning in &results.warnings {
        lines.push(format!("* **Warning:** {warning}: {}.", warning.advice()));
    }
    lines.push(format!(
        "\nMultiples of what {reference} takes: ratios of medians, and the interval that each lies \
         in\nwith 95 % certainty. Less is better; `~` may as well be 1. The worst for plyfs \
         first.\n"
    ));
    lines.extend(ratios(results, &rows));
    lines.push("\n## Every measurement\n\nMedians (least to most).\n".to_owned());
    lines.extend(values(results, &rows));
    lines.push("\n## What was measured, and how\n".to_owned());
    for Fact { what, said } in facts(results) {
        lines.push(format!("* {what}: {}", cell(&said)));
    }
    lines.push(String::new());
    lines.extend(super::METHOD.iter().map(ToString::to_string));
    section(&mut lines, "What could not be measured, or was wrong", &gaps(results));
    section(&mut lines, "Values that lie far from the others of their kind", &outliers(&rows));
    lines.push(String::new());
    lines.join("\n")
}

fn gaps(results: &Results) -> Vec<String> {
    let said = |gap: &crate::bench::results::Gap| {
        let kind = if gap.wrong { "wrong" } else { "not measured" };
        format!("{kind}: {} on {}: {}", gap.workload, gap.target, gap.why)
    };
    results.gaps.iter().map(said).collect()
}

fn section(lines: &mut Vec<String>, title: &str, items: &[String]) {
    if !items.is_empty() {
        lines.push(format!("\n## {title}\n"));
        lines.extend(items.iter().map(|item| format!("* {}", cell(item))));
    }
}

/// What can stand in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ").replace('<', "&lt;")
}

fn head(results: &Results) -> [String; 2] {
    let targets = targets(results);
    [
        format!("| workload | {} |", targets.join(" | ")),
        format!("|---{}|", "|---".repeat(targets.len())),
    ]
}

fn ratios(results: &Results, rows: &[Row<'_>]) -> Vec<String> {
    let mut lines = head(results).to_vec();
    for row in rows {
        let cells = row.cells.iter().map(|cell| match (&cell.summary, &cell.ratio, cell.gap) {
            (_, _, Some(gap)) if gap.wrong => "wrong".to_owned(),
            (_, Some(ratio), _) => interval(ratio),
            (Some(summary), None, _) => {
                let (median, per) = (value(summary.median, row.metric.unit), &row.metric.per);
                if per == "whole" { median } else { format!("{median}/{per}") }
            }
            (None, None, _) => String::new(),
        });
        let cells: Vec<_> = cells.collect();
        lines.push(format!("| {} | {} |", row.name(), cells.join(" | ")));
    }
    lines
}

fn values(results: &Results, rows: &[Row<'_>]) -> Vec<String> {
    let mut lines = head(results).to_vec();
    let mut sorted: Vec<_> = rows.iter().collect();
    sorted.sort_by_key(|row| (row.workload.group, row.name()));
    for row in sorted {
        let unit = row.metric.unit;
        let cells = row.cells.iter().map(|cell| {
            cell.summary.map_or(String::new(), |summary| {
                let (least, most) = (value(summary.least, unit), value(summary.most, unit));
                format!("{} ({least} to {most})", value(summary.median, unit))
            })
        });
        let cells: Vec<_> = cells.collect();
        let (name, what) = (row.name(), cell(&row.workload.what));
        let (per, caches) = (&row.metric.per, row.workload.caches);
        let said = format!("**{name}**: {what}; per {per}, {caches}");
        lines.push(format!("| {said} | {} |", cells.join(" | ")));
    }
    lines
}

#[cfg(test)]
mod tests;
