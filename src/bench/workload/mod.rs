//! What is done to a tree, and how long it took. A workload checks its effect outside of the time
//! that it measures: what did not happen took no time, and is an error.

mod appending;
mod attributes;
mod changing;
mod copy_up;
mod creating;
mod mounting;
mod pass;
mod programs;
mod reading;
mod streaming;
mod walking;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fixture::Lower;
use super::site::{Bare, Site};
use crate::errno::Result;

/// What a workload is about; also the order in which reports have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Names, attributes, directories.
    Metadata,
    /// Contents of files.
    Data,
    /// The first change of what a layer has.
    CopyOnWrite,
    /// Mounting, many mounts, many layers.
    Containers,
    /// What people run.
    Jobs,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metadata => "metadata",
            Self::Data => "data",
            Self::CopyOnWrite => "copy-on-write",
            Self::Containers => "containers",
            Self::Jobs => "jobs",
        })
    }
}

/// What is in the caches when the measuring begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Caches {
    /// The same was done before in the same mount.
    Warm,
    /// The mount is fresh; the layers lie in the page cache.
    Fresh,
    /// The mount is fresh, and all of the kernel's caches were dropped: layers come from the disk.
    Dropped,
}

impl fmt::Display for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warm => "warm",
            Self::Fresh => "fresh mount",
            Self::Dropped => "caches dropped",
        })
    }
}

/// What a value counts. Less is better, whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Time.
    Seconds,
    /// Memory, disk.
    Bytes,
    /// So many for one.
    Times,
}

/// One of the things that a workload measures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// What it is called; empty where there is only one.
    pub name: String,
    /// What its values count.
    pub unit: Unit,
    /// What one value is for: a file, a call, the whole.
    pub per: String,
}

/// Where a workload lies on a curve: the same thing done with more and more of something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The curve's name.
    pub curve: String,
    /// What there is more and more of.
    pub of: String,
    /// How much here.
    pub x: f64,
}

/// How a workload leaves the layers' files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// As they were: one plain directory serves all such workloads.
    Alone,
    /// With bytes that the next round replaces: a plain directory serves this workload again.
    Fit,
    /// Changed: a plain directory has to be made anew for each round.
    Spent,
}

/// A value for each metric.
pub type Measured = Result<Vec<f64>>;

/// What a workload does. It gives a value for each metric.
pub enum Act {
    /// In a mounted tree.
    In(Box<dyn for<'a> Fn(&Site<'a>) -> Measured>),
    /// With a stack that it mounts itself.
    With(Box<dyn for<'a> Fn(&Bare<'a>) -> Measured>),
}

impl fmt::Debug for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::In(_)) { "In" } else { "With" })
    }
}

/// Something that is done to a tree.
#[derive(Debug)]
pub struct Workload {
    /// What it is called: a word.
    pub name: String,
    /// What it is about.
    pub group: Group,
    /// What it does, in a sentence.
    pub what: String,
    /// It is measured without being asked for.
    pub quick: bool,
    /// What the caches hold.
    pub caches: Caches,
    /// The layers.
    pub lower: Lower,
    /// How it leaves them.
    pub leaves: Leaves,
    /// What it measures.
    pub metrics: Vec<Metric>,
    /// Where it lies on a curve.
    pub point: Option<Point>,
    /// The programs it runs.
    pub programs: &'static [&'static str],
    /// Bytes that a round may write, besides copies of the layers.
    pub writes: u64,
    /// What it does.
    pub act: Act,
}

impl Workload {
    fn new(
        group: Group,
        name: impl Into<String>,
        what: impl Into<String>,
        act: impl Fn(&Site<'_>) -> Measured + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            group,
            what: what.into(),
            quick: false,
            caches: Caches::Fresh,
            lower: Lower::Empty,
            leaves: Leaves::Spent,
            metrics: Vec::new(),
            point: None,
            programs: &[],
            writes: 16 << 20,
            act: Act::In(Box::new(act)),
        }
        .measures("", Unit::Seconds, "whole")
    }

    /// It is in the quick set.
    fn quick(self) -> Self {
        Self { quick: true, ..self }
    }

    /// Over these layers.
    fn over(self, lower: Lower) -> Self {
        Self { lower, ..self }
    }

    fn leaves(self, leaves: Leaves) -> Self {
        Self { leaves, ..self }
    }

    /// One value is for one of these.
    fn per(self, per: &str) -> Self {
        Self { metrics: Vec::new(), ..self }.measures("", Unit::Seconds, per)
    }

    /// One more metric.
    fn measures(mut self, name: &str, unit: Unit, per: &str) -> Self {
        self.metrics.push(Metric { name: name.to_owned(), unit, per: per.to_owned() });
        self
    }

    fn runs(self, programs: &'static [&'static str]) -> Self {
        Self { programs, ..self }
    }

    fn writes(self, writes: u64) -> Self {
        Self { writes, ..self }
    }

    fn on_curve(self, curve: &str, of: &str, x: impl Into<f64>) -> Self {
        let (curve, of, x) = (curve.to_owned(), of.to_owned(), x.into());
        Self { point: Some(Point { curve, of, x }), ..self }
    }
}

/// How large everything is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// As it is measured.
    Usual,
    /// As small as it can be and still be itself: for tests, figures mean nothing.
    Tiny,
}

impl Scale {
    /// So many of something.
    fn count(self, usual: u32) -> u32 {
        if self == Self::Tiny { usual.min(6) } else { usual }
    }

    /// So many layers.
    fn layers(self, usual: u32) -> u32 {
        if self == Self::Tiny { usual.min(20) } else { usual }
    }

    /// So many bytes.
    fn bytes(self, usual: u64) -> u64 {
        if self == Self::Tiny { usual.min(256 << 10) } else { usual }
    }

    /// The tree that is read.
    fn tree(self) -> Lower {
        if self == Self::Tiny {
            Lower::Tree { dirs: 2, files: 12 }
        } else {
            Lower::Tree { dirs: 40, files: 50 }
        }
    }

    /// The tree that is changed.
    fn little(self) -> Lower {
        if self == Self::Tiny {
            Lower::Tree { dirs: 2, files: 11 }
        } else {
            Lower::Tree { dirs: 10, files: 30 }
        }
    }
}

/// All of them.
pub fn all(scale: Scale) -> Vec<Workload> {
    [
        walking::workloads,
        reading::workloads,
        creating::workloads,
        attributes::workloads,
        changing::workloads,
        streaming::workloads,
        appending::workloads,
        copy_up::workloads,
        mounting::workloads,
        programs::workloads,
    ]
    .iter()
    .flat_map(|family| family(scale))
    .collect()
}

/// Whether a name is one that a pattern means: `*` stands for anything, `?` for one character.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.as_bytes(), name.as_bytes());
    // Where the last star was, and the name from which on it has not matched yet.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), name.split_first()) {
            (Some((b'*', rest)), _) => {
                star = Some((rest, name));
                pattern = rest;
            }
            (Some((p, patterns)), Some((n, names))) if *p == b'?' || p == n => {
                (pattern, name) = (patterns, names);
            }
            (None, None) => return true,
            _ => match star.and_then(|(rest, from)| Some((rest, from.split_first()?.1))) {
                Some((rest, from)) => {
                    star = Some((rest, from));
                    (pattern, name) = (rest, from);
                }
                None => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests;
