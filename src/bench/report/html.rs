//! Results as a page: one file that needs no network, with plots, on light or dark ground.

use super::rows::{Row, outliers, rows, targets};
use super::svg::{self, escape};
use super::words::{duration, ratio, value};
use super::{Fact, facts};
use crate::bench::results::Results;
use crate::bench::stats::Ratio;
use crate::bench::workload::{Group, Unit};

/// How the page looks.
const STYLE: &str = include_str!("page.css");

/// The whole page.
pub fn html(results: &Results) -> String {
    let rows = rows(results);
    let targets = targets(results);
    let reference = escape(results.reference().unwrap_or("nothing"));
    let mut parts = vec![
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\n".to_owned(),
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n".to_owned(),
        format!("<title>plyfs bench</title><style>\n{STYLE}</style></head><body>\n"),
        "<h1>What copy-on-write costs here</h1>\n".to_owned(),
        format!("<p class=\"faint\">{}</p>\n", escape(&super::machine_line(results))),
    ];
    parts.extend(warnings(results));
    parts.push(format!(
        "<p>Each figure is a multiple of what <b>{reference}</b> takes: the ratio of medians, \
         below it the interval that it lies in with 95 % certainty. Less is better; where the \
         interval holds 1 there may be no difference, and the field has no colour. The worst for \
         plyfs comes first.</p>\n"
    ));
    parts.push(format!("<div class=\"sheet\">{}</div>\n", overview(&rows, &targets)));
    for group in groups(&rows) {
        let of: Vec<_> = rows.iter().filter(|row| row.workload.group == group).collect();
        if let Some(plot) = svg::ratios(&of) {
            parts.push(format!(
                "<h2>{}</h2><div class=\"sheet\">{}{plot}</div>\n",
                title(group),
                key(&targets)
            ));
        }
    }
    parts.extend(curves(results, &targets));
    parts.push("<h2>Every measurement</h2>\n".to_owned());
    parts.push(format!("<div class=\"sheet\">{}</div>\n", details(&rows, &targets)));
    parts.extend(about(results, &rows));
    parts.push("</body></html>\n".to_owned());
    parts.concat()
}

/// What speaks against believing it.
fn warnings(results: &Results) -> Option<String> {
    let said = |warning: &crate::bench::results::Warning| {
        format!("<li>{}.</li>", escape(&format!("{warning}: {}", warning.advice())))
    };
    let items: Vec<_> = results.warnings.iter().map(said).collect();
    let items = items.concat();
    (!items.is_empty()).then(|| {
        format!("<div class=\"warn\"><b>Take these figures with care</b><ul>{items}</ul></div>\n")
    })
}

/// The groups that something is known of, in their order.
fn groups(rows: &[Row<'_>]) -> Vec<Group> {
    let mut groups: Vec<_> = rows.iter().map(|row| row.workload.group).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn title(group: Group) -> &'static str {
    match group {
        Group::Metadata => "Names, attributes, directories",
        Group::Data => "Contents of files",
        Group::CopyOnWrite => "The first change of what a layer has",
        Group::Containers => "Mounting, and many layers",
        Group::Jobs => "What people run",
    }
}

/// Which colour is whose.
fn key(targets: &[&str]) -> String {
    let item = |(number, target): (usize, &&str)| {
        let note = if number == 0 { " (the line at 1)" } else { "" };
        let colour = number % super::COLOURS;
        format!("<span><i class=\"t{colour}\"></i>{}{note}</span>", escape(target))
    };
    let items: Vec<_> = targets.iter().enumerate().map(item).collect();
    format!("<div class=\"key\">{}</div>", items.concat())
}

/// A field's colour: how much worse or better it is, if that is certain.
fn shade(ratio: &Ratio) -> &'static str {
    match ratio.value {
        _ if !ratio.tells() => "",
        r if r > 10.0 => "b4",
        r if r > 3.0 => "b3",
        r if r > 1.5 => "b2",
        r if r > 1.05 => "b1",
        r if r < 0.33 => "g3",
        r if r < 0.67 => "g2",
        r if r < 0.95 => "g1",
        _ => "",
    }
}

fn head(first: &str, targets: &[&str]) -> String {
    let cells: Vec<_> =
        targets.iter().map(|target| format!("<th>{}</th>", escape(target))).collect();
    format!("<table><thead><tr><th>{first}</th>{}</tr></thead><tbody>\n", cells.concat())
}

/// The table of ratios.
fn overview(rows: &[Row<'_>], targets: &[&str]) -> String {
    let mut parts = vec![head("workload", targets)];
    for row in rows {
        let what = escape(&format!("{} ({})", row.workload.what, row.workload.caches));
        parts.push(format!("<tr><td title=\"{what}\">{}</td>", escape(&row.name())));
        for cell in &row.cells {
            parts.push(match (&cell.summary, &cell.ratio, cell.gap) {
                (_, _, Some(gap)) if gap.wrong => {
                    format!("<td class=\"wrong\" title=\"{}\">wrong</td>", escape(&gap.why))
                }
                (_, Some(of), _) => {
                    let (low, high) = (super::words::three(of.low), super::words::three(of.high));
                    let (class, said) = (shade(of), ratio(of));
                    format!("<td class=\"{class}\">{said}<br><small>{low} to {high}</small></td>")
                }
                (Some(summary), None, _) => {
                    let (said, per) = (value(summary.median, row.metric.unit), &row.metric.per);
                    let per = if per == "whole" { "" } else { per.as_str() };
                    let each = if per.is_empty() { "" } else { "per " };
                    format!("<td>{said}<br><small>{each}{}</small></td>", escape(per))
                }
                (None, None, gap) => {
                    let why = gap.map_or("", |gap| gap.why.as_str());
                    format!("<td class=\"faint\" title=\"{}\">none</td>", escape(why))
                }
            });
        }
        parts.push("</tr>\n".to_owned());
    }
    parts.push("</tbody></table>".to_owned());
    parts.concat()
}

/// The table of values.
fn details(rows: &[Row<'_>], targets: &[&str]) -> String {
    let mut parts = vec![head("workload", targets)];
    let mut sorted: Vec<_> = rows.iter().collect();
    sorted.sort_by_key(|row| (row.workload.group, row.name()));
    for row in sorted {
        let unit = row.metric.unit;
        let what = escape(&row.workload.what);
        parts.push(format!("<tr><td class=\"left\">{}<br>", escape(&row.name())));
        parts.push(format!("<small>{what}<br>{}</small></td>", row.workload.caches));
        for cell in &row.cells {
            parts.push(cell.summary.map_or("<td></td>".to_owned(), |summary| {
                let (least, most) = (value(summary.least, unit), value(summary.most, unit));
                let median = value(summary.median, unit);
                format!("<td>{median}<br><small>{least} to {most}</small></td>")
            }));
        }
        parts.push("</tr>\n".to_owned());
    }
    parts.push("</tbody></table>".to_owned());
    // A description may be as long as it likes.
    parts
        .concat()
        .replace("<td class=\"left\">", "<td class=\"left\" style=\"white-space:normal\">")
}

/// How costs grow with layers, entries, bytes.
fn curves(results: &Results, targets: &[&str]) -> Vec<String> {
    let points = results.workloads.iter().filter_map(|workload| workload.point.as_ref());
    let mut names: Vec<_> = points.map(|point| (&point.curve, &point.of)).collect();
    names.dedup();
    let mut plots = Vec::new();
    for (curve, of) in names {
        let on_it = |workload: &&crate::bench::results::Done| {
            workload.point.as_ref().is_some_and(|point| &point.curve == curve)
        };
        let workloads: Vec<_> = results.workloads.iter().filter(on_it).collect();
        let Some(metric) = workloads.first().and_then(|workload| workload.metrics.first()) else {
            continue;
        };
        let line = |(number, target): (usize, &&str)| {
            let at = |workload: &&crate::bench::results::Done| {
                let values = results.values(&workload.name, &metric.name, target);
                Some((workload.point.as_ref()?.x, crate::bench::stats::median(values)?))
            };
            (number, workloads.iter().filter_map(at).collect::<Vec<_>>())
        };
        let lines: Vec<_> = targets.iter().enumerate().map(line).collect();
        let unit = workloads.first().map_or(Unit::Seconds, |_| metric.unit);
        if let Some(plot) = svg::curve(of, unit, &lines) {
            let (name, per) = (escape(curve), escape(&metric.per));
            let heading = format!("{name}: per {per}, by {}", escape(of));
            plots.push(format!("<div class=\"sheet\"><h3>{heading}</h3>{plot}</div>\n"));
        }
    }
    if plots.is_empty() {
        return plots;
    }
    let heading = format!("<h2>How costs grow</h2>{}<div class=\"pair\">\n", key(targets));
    std::iter::once(heading).chain(plots).chain(["</div>\n".to_owned()]).collect()
}

/// What was measured, how, and what could not be.
fn about(results: &Results, rows: &[Row<'_>]) -> Vec<String> {
    let mut parts =
        vec!["<h2>What was measured, and how</h2><div class=\"sheet\"><table>\n".into()];
    for Fact { what, said } in facts(results) {
        let (what, said) = (escape(&what), escape(&said));
        parts.push(format!("<tr><td>{what}</td><td class=\"left\">{said}</td></tr>\n"));
    }
    let command = escape(&results.command);
    let time = duration(results.seconds);
    parts.push(format!(
        "<tr><td>command</td><td class=\"left\"><code>{command}</code> ({time})</td></tr>\n"
    ));
    parts.push("</table></div>\n".to_owned());
    parts.extend(super::METHOD.iter().map(|said| format!("<p>{}</p>\n", escape(said))));
    let wrong = |wrong: bool| if wrong { "wrong" } else { "not measured" };
    let gaps = results.gaps.iter().map(|gap| {
        format!("{}: {} on {}: {}", wrong(gap.wrong), gap.workload, gap.target, gap.why)
    });
    parts.extend(list("What could not be measured, or was wrong", &gaps.collect::<Vec<_>>()));
    parts.extend(list("Values that lie far from the others of their kind", &outliers(rows)));
    parts
}

fn list(title: &str, items: &[String]) -> Option<String> {
    if items.is_empty() {
        return None;
    }
    let count = items.len();
    let items: Vec<_> = items.iter().map(|item| format!("<li>{}</li>", escape(item))).collect();
    let items = items.concat();
    Some(format!("<details><summary>{title}: {count}</summary><ul>{items}</ul></details>\n"))
}

#[cfg(test)]
mod tests;
