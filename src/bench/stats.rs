//! What can be said about a handful of measurements: medians, what lies far from them, and how sure
//! a ratio of two medians is.
//!
//! Times on a computer are not distributed normally (something only ever takes longer), and there
//! are few of them: so nothing here speaks of means or of standard deviations.

use serde::{Deserialize, Serialize};

/// What a sample is like.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many values.
    pub n: usize,
    /// The one in the middle.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
    /// The median distance from the median.
    pub mad: f64,
    /// How many values lie far from the others; see [`is_outlier`](Self::is_outlier).
    pub outliers: usize,
}

/// A value this many times further from the median than the middling one (1.4826 of which are a
/// standard deviation, where there is one) is an outlier: Iglewicz and Hoaglin's rule.
const FAR: f64 = 3.5 * 1.4826;

/// A value within this part of the median is none, however close the others lie together.
const NEAR: f64 = 0.05;

impl Summary {
    /// Of these values; `None` of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mid = median(values)?;
        let distances: Vec<f64> = values.iter().map(|value| (value - mid).abs()).collect();
        let mut summary = Self {
            n: values.len(),
            median: mid,
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            most: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            mad: median(&distances)?,
            outliers: 0,
        };
        summary.outliers = values.iter().filter(|&&value| summary.is_outlier(value)).count();
        Some(summary)
    }

    /// Whether a value lies far from the others: something else happened while it was measured.
    pub fn is_outlier(&self, value: f64) -> bool {
        let distance = (value - self.median).abs();
        self.n > 2 && distance > FAR * self.mad && distance > NEAR * self.median.abs()
    }

    /// How far the values in the middle lie apart, as a part of the median.
    pub fn spread(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { 2.0 * self.mad / self.median.abs() }
    }
}

/// The value in the middle, or halfway between the two there; `None` of none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    middle(&sorted)
}

/// As [`median`], of values in order.
fn middle(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get((sorted.len() / 2).checked_sub(1)?)?;
    Some(f64::midpoint(lower, upper))
}

/// The value that the part `share` (0 to 1) of the values does not exceed; `None` of none.
pub fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a position in a list"
    )]
    let rank = (share.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1).checked_sub(1)?).copied()
}

/// How much one thing takes of what another does, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The ratio of the medians.
    pub value: f64,
    /// The least that it may be.
    pub low: f64,
    /// The most.
    pub high: f64,
}

/// How often a sample is drawn anew from itself.
const DRAWS: usize = 2000;

/// What lies in the interval: 95 of 100 draws. Of five rounds that is the span from the least to
/// the most, which holds the true median 94 times of 100.
const TAIL: f64 = 0.025;

impl Ratio {
    /// Of the medians of two samples of which the n-th values were measured in the same round: a
    /// round is drawn for both at once, so that a slow one counts for neither. Values that the
    /// other sample has no round for are left out; `None` where nothing is left or the other's
    /// median is 0.
    pub fn paired(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let rounds = ours.len().min(theirs.len());
        let (ours, theirs) = (ours.get(..rounds)?, theirs.get(..rounds)?);
        let mut dice = Dice::new();
        Self::drawn(ours, theirs, || {
            let picks: Vec<usize> = (0..rounds).map(|_| dice.below(rounds)).collect();
            (picked(ours, &picks), picked(theirs, &picks))
        })
    }

    /// Of the medians of two samples that have nothing to do with each other.
    pub fn unpaired(ours: &[f64], theirs: &[f64]) -> Option<Self> {
        let mut dice = Dice::new();
        let mut draw = |values: &[f64]| -> Vec<f64> {
            let picks: Vec<usize> = values.iter().map(|_| dice.below(values.len())).collect();
            picked(values, &picks)
        };
        Self::drawn(ours, theirs, || (draw(ours), draw(theirs)))
    }

    /// What has become of a ratio: of the medians of ours to those of theirs in one run, each run
    /// given as (ours, theirs) of which the n-th values were measured in the same round, to what it
    /// was in another run.
    pub fn of_ratios(now: (&[f64], &[f64]), then: (&[f64], &[f64])) -> Option<Self> {
        let mut dice = Dice::new();
        let mut draw = |(ours, theirs): (&[f64], &[f64])| {
            let rounds = ours.len().min(theirs.len());
            let picks: Vec<usize> = (0..rounds).map(|_| dice.below(rounds)).collect();
            quotient(&picked(ours, &picks), &picked(theirs, &picks))
        };
        let value = quotient(now.0, now.1)? / quotient(then.0, then.1)?;
        let draws = (0..DRAWS).filter_map(|_| Some(draw(now)? / draw(then)?));
        let draws: Vec<f64> = draws.filter(|draw| draw.is_finite()).collect();
        Self::about(value, &draws)
    }

    fn drawn(
        ours: &[f64],
        theirs: &[f64],
        mut draw: impl FnMut() -> (Vec<f64>, Vec<f64>),
    ) -> Option<Self> {
        let value = quotient(ours, theirs)?;
        let draws = (0..DRAWS).filter_map(|_| {
            let (ours, theirs) = draw();
            quotient(&ours, &theirs)
        });
        Self::about(value, &draws.collect::<Vec<_>>())
    }

    /// A value with the interval that its draws lie in.
    fn about(value: f64, draws: &[f64]) -> Option<Self> {
        let low = percentile(draws, TAIL)?.min(value);
        let high = percentile(draws, 1.0 - TAIL)?.max(value);
        value.is_finite().then_some(Self { value, low, high })
    }

    /// Whether it says that there is a difference at all.
    pub fn tells(&self) -> bool {
        self.low > 1.0 || self.high < 1.0
    }

    /// Whether it is too uncertain to say much: the ends are further apart than a factor of two.
    pub fn is_vague(&self) -> bool {
        self.high > 2.0 * self.low
    }
}

/// The ratio of the medians, unless that is no number.
fn quotient(ours: &[f64], theirs: &[f64]) -> Option<f64> {
    let ratio = median(ours)? / median(theirs)?;
    ratio.is_finite().then_some(ratio)
}

/// The values at these positions.
fn picked(values: &[f64], picks: &[usize]) -> Vec<f64> {
    picks.iter().filter_map(|&pick| values.get(pick).copied()).collect()
}

/// Numbers that look random and are the same each time (Steele's splitmix64), so that a report is
/// the same whenever it is made from the same measurements, and all targets get the same work.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From the beginning.
    pub fn new() -> Self {
        Self(0x706c_7966_7362_656e)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 below 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u128::try_from(end).unwrap_or(0);
        usize::try_from((u128::from(self.roll()) * end) >> 64).unwrap_or(0)
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
