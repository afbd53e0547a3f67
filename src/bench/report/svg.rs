//! Plots as SVG that is part of a page: colours and fonts are the page's business, so that they
//! follow it into the dark.

use super::rows::Row;
use super::words::value;
use crate::bench::workload::Unit;

/// How wide a plot is that takes the whole width, in the units of its view box.
const WIDTH: f64 = 960.0;
/// Room for the names at its left.
const NAMES: f64 = 190.0;
/// From one target's line to the next, and from one workload to the next.
const LINE: f64 = 9.0;
const GAP: f64 = 12.0;

/// An axis on which equal factors are equally far apart.
#[derive(Clone, Copy, Debug)]
struct Axis {
    /// The logarithms of what lies at its ends.
    low: f64,
    high: f64,
    /// Where its ends lie.
    from: f64,
    to: f64,
}

impl Axis {
    /// From the least to the most of these values; those that have no logarithm do not count.
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let logs = values.filter(|value| *value > 0.0 && value.is_finite()).map(f64::log10);
        let (low, high) = logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), log| {
            (low.min(log), high.max(log))
        });
        if low > high {
            return None;
        }
        // One point alone lies in the middle of something.
        let margin = ((high - low) * 0.04).max(0.05);
        Some(Self { low: low - margin, high: high + margin, from, to })
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.log10() - self.low) / (self.high - self.low);
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Where to say how much that is: 1, 2, 5 of each decade if there are few of those.
    fn ticks(&self) -> Vec<f64> {
        let factors: &[f64] = match self.high - self.low {
            span if span > 4.0 => &[1.0],
            span if span > 2.0 => &[1.0, 3.0],
            span if span > 0.6 => &[1.0, 2.0, 5.0],
            _ => &[1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
        };
        let mut ticks = Vec::new();
        let mut decade = self.low.floor();
        while decade <= self.high {
            ticks.extend(factors.iter().map(|factor| factor * 10_f64.powf(decade)));
            decade += 1.0;
        }
        ticks.retain(|tick| (self.low..=self.high).contains(&tick.log10()));
        ticks
    }
}

/// What would be markup is not.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Ratios as dots with their intervals, a line for each target, below each other; `None` where no
/// ratio is known.
pub(super) fn ratios(rows: &[&Row<'_>]) -> Option<String> {
    let known = |row: &&&Row<'_>| row.cells.iter().any(|cell| cell.ratio.is_some());
    let rows: Vec<_> = rows.iter().filter(known).collect();
    let all = rows.iter().flat_map(|row| row.cells.iter().filter_map(|cell| cell.ratio));
    let ends = all.flat_map(|ratio| [ratio.low, ratio.high, ratio.value]).chain([1.0]);
    let axis = Axis::over(ends, NAMES, WIDTH - 20.0)?;
    let lines = rows.first()?.cells.len();
    #[allow(clippy::cast_precision_loss, reason = "a few lines")]
    let (row_height, count) = (lines as f64 * LINE + GAP, rows.len() as f64);
    let (top, height) = (24.0, 24.0 + count * row_height + 8.0);
    let mut parts = vec![format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"ratios\">"
    )];
    for tick in axis.ticks() {
        let (x, one) = (axis.at(tick), if tick.log10().abs() < 1e-9 { "one" } else { "grid" });
        parts.push(format!(
            "<line class=\"{one}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{height:.0}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"16\" text-anchor=\"middle\">{}</text>",
            plain(tick)
        ));
    }
    let mut y = top;
    for row in rows {
        let (middle, name) = (y + row_height / 2.0, escape(&row.name()));
        parts.push(format!(
            "<text class=\"name\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
            NAMES - 12.0,
            middle + 4.0
        ));
        parts.extend(dots(row, &axis, y + GAP / 2.0 + LINE / 2.0));
        y += row_height;
        parts.push(format!(
            "<line class=\"rule\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
        ));
    }
    parts.push("</svg>".to_owned());
    Some(parts.concat())
}

/// A tick in as few digits as it has.
fn plain(tick: f64) -> String {
    let text = format!("{tick:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn dots(row: &Row<'_>, axis: &Axis, mut y: f64) -> Vec<String> {
    let mut parts = Vec::new();
    for (number, cell) in row.cells.iter().enumerate() {
        if let Some(ratio) = cell.ratio {
            let said = escape(&format!(
                "{} on {}: {}",
                row.name(),
                cell.target,
                super::words::interval(&ratio)
            ));
            let (low, high, x) = (axis.at(ratio.low), axis.at(ratio.high), axis.at(ratio.value));
            parts.push(format!(
                "<g class=\"t{}\"><title>{said}</title><line class=\"span\" \
                 x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\"/></g>",
                number % super::COLOURS
            ));
        }
        y += LINE;
    }
    parts
}

/// One line of a curve: which target, and where it has which value.
pub(super) type Line = (usize, Vec<(f64, f64)>);

/// Values over how much there is of something; `None` where fewer than two points are known.
pub(super) fn curve(of: &str, unit: Unit, lines: &[Line]) -> Option<String> {
    let (width, height, left, bottom) = (470.0, 300.0, 72.0, 44.0);
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    if lines.iter().all(|(_, points)| points.len() < 2) {
        return None;
    }
    let across = Axis::over(points().map(|(x, _)| x), left, width - 12.0)?;
    let up = Axis::over(points().map(|(_, y)| y), height - bottom, 12.0)?;
    let mut parts =
        vec![format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"curve\">")];
    for tick in up.ticks() {
        let y = up.at(tick);
        parts.push(format!(
            "<line class=\"grid\" x1=\"{left}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            width - 12.0,
            left - 6.0,
            y + 4.0,
            value(tick, unit)
        ));
    }
    let mut steps: Vec<f64> = points().map(|(x, _)| x).collect();
    steps.sort_by(f64::total_cmp);
    steps.dedup();
    for step in steps {
        parts.push(format!(
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            across.at(step),
            height - bottom + 18.0,
            amount(step)
        ));
    }
    parts.push(format!(
        "<text class=\"tick\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
        f64::midpoint(left, width),
        height - 6.0,
        escape(of)
    ));
    for (number, points) in lines {
        let at = |&(x, y): &(f64, f64)| (across.at(x), up.at(y));
        let places: Vec<_> = points.iter().map(at).collect();
        let path: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let circle =
            |(x, y): &(f64, f64)| format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\"/>");
        let circles: Vec<_> = places.iter().map(circle).collect();
        parts.push(format!(
            "<g class=\"t{}\"><polyline points=\"{}\"/>{}</g>",
            number % super::COLOURS,
            path.join(" "),
            circles.concat()
        ));
    }
    parts.push("</svg>".to_owned());
    Some(parts.concat())
}

/// A count, or a size in bytes where it is a power of two that is large enough to be one.
fn amount(number: f64) -> String {
    const KIB: f64 = 1024.0;
    let units = [(KIB * KIB * KIB, "G"), (KIB * KIB, "M"), (KIB, "K")];
    for (unit, name) in units {
        if number >= 4.0 * KIB && number % unit == 0.0 {
            return format!("{}{name}", plain(number / unit));
        }
    }
    plain(number)
}

#[cfg(test)]
mod tests;
