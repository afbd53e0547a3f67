//! Lists for people: columns that line up, sizes and ages in round figures.

use super::{Failure, escape, line};
use crate::image::digest::Digest;

/// Rows under a heading, printed together so that the columns line up.
#[derive(Debug)]
pub struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// With these headings.
    pub fn new(headings: &[&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned)] }
    }

    /// Adds a row.
    pub fn row(&mut self, row: [String; N]) {
        self.rows.push(row.map(|cell| escape(cell.as_bytes())));
    }

    /// Prints the headings and the rows.
    pub fn print(&self) -> Result<(), Failure> {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &self.rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// The first twelve digits of an id, as image tools show it.
pub fn short(id: &Digest) -> String {
    id.hex().chars().take(12).collect()
}

/// A number of bytes in round figures (units of 1024).
pub fn size(bytes: u64) -> String {
    let mut unit = 1;
    for name in ["B", "KiB", "MiB", "GiB"] {
        if bytes / unit < 1024 {
            let tenths = bytes % unit * 10 / unit;
            return match unit {
                1 => format!("{bytes} B"),
                _ if bytes / unit < 10 => format!("{}.{tenths} {name}", bytes / unit),
                _ => format!("{} {name}", bytes / unit),
            };
        }
        unit *= 1024;
    }
    format!("{} TiB", bytes / unit)
}

/// How long ago that was (seconds since 1970), in round figures.
pub fn age(then: i64) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let seconds = now.saturating_sub(then).max(0);
    let (count, unit) = match seconds {
        0..120 => (seconds, "seconds"),
        120..7200 => (seconds / 60, "minutes"),
        7200..172_800 => (seconds / 3600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit} ago")
}

#[cfg(test)]
mod tests;
