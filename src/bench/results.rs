//! Everything that was measured, each value, and all that has to be known to judge it: what
//! `results.json` holds. What follows from it is computed when it is shown.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::failed;
use super::machine::Machine;
use super::stats::Ratio;
use super::workload::{Caches, Group, Metric, Point, Workload};
use crate::errno::Result;

/// What the file says of itself.
const FORMAT: &str = "plyfs-bench";

/// The version of the format: another one is refused.
pub const VERSION: u32 = 1;

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Always the same.
    pub format: String,
    /// Of the format.
    pub version: u32,
    /// When it began: seconds since 1970.
    pub began: u64,
    /// How long it took.
    pub seconds: f64,
    /// The command line.
    pub command: String,
    /// How many rounds were asked for.
    pub rounds: u32,
    /// Clients and servers were kept on one CPU.
    pub pinned: bool,
    /// It was ended before all rounds were done.
    pub interrupted: bool,
    /// Where.
    pub machine: Machine,
    /// What was measured.
    pub targets: Vec<Tried>,
    /// By what.
    pub workloads: Vec<Done>,
    /// The values.
    pub series: Vec<Series>,
    /// What could not be measured, or gave a wrong result.
    pub gaps: Vec<Gap>,
    /// What speaks against believing it.
    pub warnings: Vec<Warning>,
}

/// A target of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// Why it could not be had here at all.
    pub cannot: Option<String>,
}

/// A workload of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub group: Group,
    /// What it does.
    pub what: String,
    /// What the caches held.
    pub caches: Caches,
    /// What it measured.
    pub metrics: Vec<Metric>,
    /// Where it lies on a curve.
    pub point: Option<Point>,
}

impl Done {
    /// What is to be known of a workload.
    pub fn of(workload: &Workload) -> Self {
        Self {
            name: workload.name.clone(),
            group: workload.group,
            what: workload.what.clone(),
            caches: workload.caches,
            metrics: workload.metrics.clone(),
            point: workload.point.clone(),
        }
    }
}

/// The values of one metric of a workload on a target, in the order of the rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The workload's name.
    pub workload: String,
    /// The metric's name.
    pub metric: String,
    /// The target's name.
    pub target: String,
    /// One a round.
    pub values: Vec<f64>,
}

/// A target that a workload has no values of, or no more from some round on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// The workload's name.
    pub workload: String,
    /// The target's name.
    pub target: String,
    /// Why.
    pub why: String,
    /// The target did something else than it should: not only is there nothing to measure.
    pub wrong: bool,
}

/// What speaks against believing figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Warning {
    /// Something else was running when it began.
    Busy {
        /// The load.
        load: f64,
        /// CPUs.
        cpus: usize,
    },
    /// The host took time for other machines.
    Stolen {
        /// The part of the time.
        share: f64,
    },
    /// Many ratios are too uncertain to say much.
    Vague {
        /// So many.
        ratios: usize,
        /// Of so many.
        of: usize,
    },
    /// There are too few rounds for an interval to mean much.
    FewRounds {
        /// So many.
        rounds: u32,
    },
    /// The filesystem is no disk's.
    NoDisk {
        /// Its type.
        filesystem: String,
    },
    /// This plyfs was built for debugging.
    DebugBuild,
    /// The CPUs may run at any speed.
    Governor {
        /// How they are governed.
        governor: String,
    },
}

impl Warning {
    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "end what else runs, and measure again",
            Self::Stolen { .. } => "measure on a machine that is not shared, or at a quiet hour",
            Self::Vague { .. } => "more --rounds, --pin, and nothing else running make it surer",
            Self::FewRounds { .. } => "--rounds 5 is the least that says anything",
            Self::NoDisk { .. } => "--dir gives a directory on the disk that is to be measured",
            Self::DebugBuild => "cargo build --release",
            Self::Governor { .. } => "cpupower frequency-set -g performance, for the time being",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { load, cpus } => {
                write!(f, "the machine was busy already: a load of {load:.1} on {cpus} CPUs")
            }
            Self::Stolen { share } => {
                write!(f, "the host took {:.0} % of the CPUs' time for others", share * 100.0)
            }
            Self::Vague { ratios, of } => {
                write!(
                    f,
                    "the ends of {ratios} of {of} intervals lie further apart than a factor of 2"
                )
            }
            Self::FewRounds { rounds } => {
                write!(f, "with {rounds} rounds an interval means little")
            }
            Self::NoDisk { filesystem } => {
                write!(f, "on {filesystem} nothing here waits for a disk")
            }
            Self::DebugBuild => f.write_str("this plyfs is a debug build: several times slower"),
            Self::Governor { governor } => {
                write!(f, "the CPUs change their speed (governor '{governor}')")
            }
        }
    }
}

impl Results {
    /// Of a run that begins.
    pub fn new(command: String, rounds: u32, pinned: bool, machine: Machine) -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            began: since.map_or(0, |since| since.as_secs()),
            seconds: 0.0,
            command,
            rounds,
            pinned,
            interrupted: false,
            machine,
            targets: Vec::new(),
            workloads: Vec::new(),
            series: Vec::new(),
            gaps: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// As text.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|error| failed(error.to_string()))
    }

    /// From text.
    ///
    /// # Errors
    /// For what is no result of ours, or one of another version of the format.
    pub fn from_json(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let head: Head = serde_json::from_str(text)
            .map_err(|error| failed(format!("not a results.json of 'plyfs bench': {error}")))?;
        if head.format != FORMAT {
            return Err(failed(format!("its format is '{}', not '{FORMAT}'", head.format)));
        }
        if head.version != VERSION {
            let version = head.version;
            return Err(failed(format!("its version is {version}; this plyfs reads {VERSION}")));
        }
        serde_json::from_str(text).map_err(|error| failed(error.to_string()))
    }

    /// The values of one metric of a workload on a target; none where there are none.
    pub fn values(&self, workload: &str, metric: &str, target: &str) -> &[f64] {
        let series = self.series.iter().find(|series| {
            series.workload == workload && series.metric == metric && series.target == target
        });
        series.map_or(&[], |series| &series.values)
    }

    /// Adds the values of a round: one for each of the workload's metrics.
    pub fn add(&mut self, workload: &Workload, target: &str, values: &[f64]) {
        for (metric, &value) in workload.metrics.iter().zip(values) {
            let found = self.series.iter_mut().find(|series| {
                series.workload == workload.name
                    && series.metric == metric.name
                    && series.target == target
            });
            match found {
                Some(series) => series.values.push(value),
                None => self.series.push(Series {
                    workload: workload.name.clone(),
                    metric: metric.name.clone(),
                    target: target.to_owned(),
                    values: vec![value],
                }),
            }
        }
    }

    /// What the others are compared with: the kernel's overlayfs; without it the plain directory,
    /// else whichever was measured first.
    pub fn reference(&self) -> Option<&str> {
        let measured = |name: &&str| self.series.iter().any(|series| series.target == *name);
        let first = self.series.first().map(|series| series.target.as_str());
        ["overlay", "plain"].into_iter().find(measured).or(first)
    }

    /// What a target takes of what the reference takes.
    pub fn ratio(&self, workload: &str, metric: &str, target: &str) -> Option<Ratio> {
        let theirs = self.values(workload, metric, self.reference()?);
        Ratio::paired(self.values(workload, metric, target), theirs)
    }

    /// Why there is nothing of a target; `None` where nothing is said.
    pub fn gap(&self, workload: &str, target: &str) -> Option<&Gap> {
        self.gaps.iter().find(|gap| gap.workload == workload && gap.target == target)
    }

    /// Whether some target did something else than it should.
    pub fn is_wrong(&self) -> bool {
        self.gaps.iter().any(|gap| gap.wrong)
    }

    /// Finds what speaks against believing it; `stolen` is the part of the time that the host took.
    pub fn judge(&mut self, stolen: f64, ours: bool) {
        let machine = &self.machine;
        let mut warnings = Vec::new();
        #[allow(clippy::cast_precision_loss, reason = "a few CPUs")]
        if machine.load > 0.4 * machine.cpus as f64 {
            warnings.push(Warning::Busy { load: machine.load, cpus: machine.cpus });
        }
        if stolen > 0.02 {
            warnings.push(Warning::Stolen { share: stolen });
        }
        if let Some(governor) = &machine.governor
            && governor != "performance"
        {
            warnings.push(Warning::Governor { governor: governor.clone() });
        }
        if ["tmpfs", "ramfs"].iter().any(|kind| machine.filesystem.starts_with(kind)) {
            warnings.push(Warning::NoDisk { filesystem: machine.filesystem.clone() });
        }
        if ours && cfg!(debug_assertions) {
            warnings.push(Warning::DebugBuild);
        }
        if self.rounds < 5 {
            warnings.push(Warning::FewRounds { rounds: self.rounds });
        }
        let all: Vec<_> = self
            .series
            .iter()
            .filter(|series| Some(series.target.as_str()) != self.reference())
            .filter_map(|series| self.ratio(&series.workload, &series.metric, &series.target))
            .collect();
        let ratios = all.iter().filter(|ratio| ratio.is_vague()).count();
        if ratios * 5 > all.len() {
            warnings.push(Warning::Vague { ratios, of: all.len() });
        }
        self.warnings = warnings;
    }
}

#[cfg(test)]
mod tests;
