//! Numbers in words: as many digits as mean something.

use crate::bench::stats::Ratio;
use crate::bench::workload::Unit;

/// A number with three digits that count.
pub(super) fn three(number: f64) -> String {
    match number.abs() {
        n if n >= 1000.0 => {
            let digits = format!("{number:.0}");
            let mut text = String::new();
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && (digits.len() - place).is_multiple_of(3) {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        n if n >= 99.95 => format!("{number:.0}"),
        n if n >= 9.995 => format!("{number:.1}"),
        n if n >= 0.0995 || n == 0.0 => format!("{number:.2}"),
        n if n >= 0.000_995 => format!("{number:.4}").trim_end_matches('0').to_owned(),
        _ => format!("{number:.0e}"),
    }
}

/// A time in seconds.
pub fn duration(seconds: f64) -> String {
    match seconds.abs() {
        s if s >= 100.0 => format!("{:.0} min {:02.0} s", (seconds / 60.0).floor(), seconds % 60.0),
        s if s >= 1.0 => format!("{} s", three(seconds)),
        s if s >= 1e-3 => format!("{} ms", three(seconds * 1e3)),
        s if s >= 1e-6 => format!("{} us", three(seconds * 1e6)),
        _ => format!("{} ns", three(seconds * 1e9)),
    }
}

const MIB: f64 = 1024.0 * 1024.0;
const GIB: f64 = 1024.0 * MIB;

/// A value of this unit.
pub fn value(number: f64, unit: Unit) -> String {
    match unit {
        Unit::Seconds => duration(number),
        Unit::Times => format!("{} x", three(number)),
        Unit::Bytes if number >= GIB => format!("{} GiB", three(number / GIB)),
        Unit::Bytes if number >= MIB => format!("{} MiB", three(number / MIB)),
        Unit::Bytes => format!("{} KiB", three(number / 1024.0)),
    }
}

/// A ratio by itself; `~` before one that may as well be 1.
pub fn ratio(ratio: &Ratio) -> String {
    let sign = if ratio.tells() { "" } else { "~" };
    format!("{sign}{}", three(ratio.value))
}

/// A ratio with its interval.
pub(super) fn interval(ratio: &Ratio) -> String {
    format!("{} ({}..{})", self::ratio(ratio), three(ratio.low), three(ratio.high))
}

#[cfg(test)]
mod tests;
