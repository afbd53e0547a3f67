//! Who is measured when: all targets take turns at a workload, the order turns from round to round,
//! and everything is gone through once, without being counted, before the first round. So neither a
//! slow minute of the machine nor what ran before favours one of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::fixture::{Fixture, Lower};
use super::machine::{Machine, Ticks};
use super::place::{Place, Round};
use super::results::{Done, Gap, Results, Tried};
use super::site::{Bare, Site};
use super::target::{self, Stack, Target};
use super::workload::{self, Act, Caches, Leaves, Scale, Workload};
use super::{failed, site};
use crate::errno::{Context, Errno, Error, Result};
use crate::sys::{fuse_mount, usage};

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// All workloads, and all targets that are named by name; else the usual ones.
    pub full: bool,
    /// The targets, as [`target::named`] has them; the usual ones if there are none.
    pub targets: Vec<String>,
    /// Patterns of workloads; the usual ones if there are none.
    pub workloads: Vec<String>,
    /// How many rounds.
    pub rounds: u32,
    /// Where.
    pub dir: PathBuf,
    /// This process and all servers are to run on one CPU.
    pub pin: bool,
    /// How large everything is.
    pub scale: Scale,
    /// The plyfs to measure.
    pub plyfs: PathBuf,
    /// The command line, to be told in the results.
    pub command: String,
}

/// Who wants to know how far it is, and may have enough of it.
pub trait Watcher {
    /// So many of all measurements are done; this one is next.
    fn at(&self, done: usize, all: usize, what: &str);

    /// Whether to stop.
    fn stop(&self) -> bool;

    /// Where it happens: to be cleaned when we cannot do that any more.
    fn place(&self, base: &Path);
}

/// How much room there has to be besides what is written, bytes.
const SPARE: u64 = 512 << 20;

/// A file that sets what the kernel caches of filesystems.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// Chooses workloads: by name, or the usual ones.
///
/// # Errors
/// A pattern that no workload has.
pub fn chosen(scale: Scale, patterns: &[String], full: bool) -> Result<Vec<Workload>> {
    let mut all = workload::all(scale);
    for pattern in patterns {
        if !all.iter().any(|workload| workload::matches(pattern, &workload.name)) {
            let hint = "'plyfs bench list' has their names";
            return Err(failed(format!("no workload is called '{pattern}': {hint}")));
        }
    }
    all.retain(|workload| {
        let named = patterns.iter().any(|pattern| workload::matches(pattern, &workload.name));
        if patterns.is_empty() { full || workload.quick } else { named }
    });
    Ok(all)
}

impl Plan {
    /// Measures. What could be measured is in the results even if others could not.
    ///
    /// # Errors
    /// Where nothing can be measured: no room, no such workload, no target that runs here.
    pub fn run(&self, watcher: &dyn Watcher) -> Result<Results> {
        let workloads = chosen(self.scale, &self.workloads, self.full)?;
        let targets = self.targets()?;
        let machine = Machine::here(&self.dir);
        let place = Place::make(&self.dir)?;
        watcher.place(place.path());
        let needed = room(&workloads, &targets);
        let room = place.room()?;
        if room < needed {
            let why = format!("{} MiB are free; the workloads need {}", room >> 20, needed >> 20);
            return Err(failed(format!("{}: {why}", self.dir.display())));
        }
        let cpus = usage::cpus()?;
        if self.pin {
            usage::pin_thread(cpus.get(..1).unwrap_or_default())?;
        }
        let results = Results::new(self.command.clone(), self.rounds, self.pin, machine);
        let fixtures = HashMap::new();
        let mut run = Run { plan: self, place, needed, fixtures, results };
        let measured = run.all(&workloads, &targets, watcher);
        usage::pin_thread(&cpus)?;
        measured?;
        Ok(run.results)
    }

    fn targets(&self) -> Result<Vec<Box<dyn Target>>> {
        let usual = target::USUAL.iter().chain(target::FURTHER.iter().filter(|_| self.full));
        let mut names: Vec<String> = self.targets.clone();
        if names.is_empty() {
            names = usual.map(ToString::to_string).collect();
        }
        let mut targets: Vec<Box<dyn Target>> = Vec::new();
        for name in &names {
            let target = target::named(name, &self.plyfs)?;
            if targets.iter().any(|other| other.name() == target.name()) {
                let name = target.name();
                let hint = "give one of them another name: NAME=...";
                return Err(failed(format!("two targets are called '{name}'; {hint}")));
            }
            targets.push(target);
        }
        Ok(targets)
    }
}

/// How many bytes will lie on the disk at most, about.
fn room(workloads: &[Workload], targets: &[Box<dyn Target>]) -> u64 {
    // The layers, once for all, and the copies that a plain directory keeps.
    let copied = targets.iter().any(|target| target.name() == "plain");
    let mut lowers: Vec<(&Lower, Option<&str>)> = Vec::new();
    for workload in workloads {
        let kept = match workload.leaves {
            Leaves::Alone => Some(""),
            Leaves::Fit => Some(workload.name.as_str()),
            Leaves::Spent => None,
        };
        for of in [None, kept.filter(|_| copied)] {
            if !lowers.contains(&(&workload.lower, of)) {
                lowers.push((&workload.lower, of));
            }
        }
    }
    let layers: u64 = lowers.iter().map(|(lower, _)| lower.bytes()).sum();
    let written = workloads.iter().map(|workload| workload.writes + workload.lower.bytes()).max();
    layers + written.unwrap_or(0) + SPARE
}

/// A run that is under way.
struct Run<'a> {
    plan: &'a Plan,
    place: Place,
    needed: u64,
    fixtures: HashMap<Lower, Fixture>,
    results: Results,
}

/// Why one measurement gave no value.
#[derive(Debug)]
enum Miss {
    /// It could not be mounted, or not be tried.
    Cannot(Error),
    /// It did something else than it should.
    Wrong(Error),
}

impl Miss {
    /// What came of doing something in a mounted tree.
    fn of(error: Error) -> Self {
        match error.errno() {
            Errno::EOPNOTSUPP | Errno::ENOSPC | Errno::EDQUOT => Self::Cannot(error),
            _ => Self::Wrong(error),
        }
    }
}

impl Run<'_> {
    fn all(
        &mut self,
        workloads: &[Workload],
        targets: &[Box<dyn Target>],
        watcher: &dyn Watcher,
    ) -> Result<()> {
        let from = Instant::now();
        let ticks = Ticks::now();
        self.results.workloads = workloads.iter().map(Done::of).collect();
        let targets = self.that_run(targets)?;
        let all = (self.plan.rounds as usize + 1) * workloads.len() * targets.len();
        let mut done = 0;
        'rounds: for number in 0..=self.plan.rounds {
            for workload in workloads {
                let mut order: Vec<_> = targets.clone();
                let turn = number as usize % order.len().max(1);
                order.rotate_left(turn);
                for target in order {
                    let (name, what) = (target.name(), &workload.name);
                    watcher.at(done, all, &format!("{what} on {name}"));
                    done += 1;
                    if self.results.gap(what, name).is_some() {
                        continue;
                    }
                    if watcher.stop() {
                        self.results.interrupted = true;
                        break 'rounds;
                    }
                    self.one(workload, target, number, watcher);
                }
            }
        }
        self.results.seconds = from.elapsed().as_secs_f64();
        let ours = targets.iter().any(|target| target.name().starts_with("plyfs"));
        self.results.judge(Ticks::now().stolen_since(ticks), ours);
        Ok(())
    }

    /// Tries each target on the least that there is; those that can be had here.
    fn that_run<'t>(&mut self, targets: &'t [Box<dyn Target>]) -> Result<Vec<&'t dyn Target>> {
        let mut runnable = Vec::new();
        for target in targets {
            let tried = self.tried(target.as_ref());
            let cannot = tried.err().map(|error| error.to_string());
            if cannot.is_none() {
                runnable.push(target.as_ref());
            }
            let (name, about) = (target.name().to_owned(), target.about());
            self.results.targets.push(Tried { name, about, cannot });
        }
        if runnable.is_empty() {
            let why = |tried: &Tried| {
                format!("{}: {}", tried.name, tried.cannot.as_deref().unwrap_or_default())
            };
            let why: Vec<_> = self.results.targets.iter().map(why).collect();
            return Err(failed(format!("no target can be had here; {}", why.join("; "))));
        }
        Ok(runnable)
    }

    fn tried(&mut self, target: &dyn Target) -> Result<()> {
        let round = self.place.round()?;
        let fixture = fixture(&self.place, &mut self.fixtures, &Lower::Empty)?;
        let mounted = target.mount(&stack(fixture, &round, None))?;
        let path = mounted.root().join("here");
        site::check_lower(&path, 0, 8).context(|| "it does not show the layers")?;
        std::fs::write(&path, "changed").context(|| "it cannot be written to")?;
        mounted.unmount()
    }

    /// One measurement; what comes of it goes into the results, but for the round before the first.
    fn one(
        &mut self,
        workload: &Workload,
        target: &dyn Target,
        number: u32,
        watcher: &dyn Watcher,
    ) {
        let measured = self.measured(workload, target, number);
        // Whoever ended us may have ended what we ran, too.
        if watcher.stop() {
            return;
        }
        let (error, wrong) = match measured {
            Ok(values) if number > 0 => {
                return self.results.add(workload, target.name(), &values);
            }
            Ok(_) => return,
            Err(Miss::Cannot(error)) => (error, false),
            Err(Miss::Wrong(error)) => (error, true),
        };
        self.results.gaps.push(Gap {
            workload: workload.name.clone(),
            target: target.name().to_owned(),
            why: error.to_string(),
            wrong,
        });
    }

    fn measured(
        &mut self,
        workload: &Workload,
        target: &dyn Target,
        number: u32,
    ) -> std::result::Result<Vec<f64>, Miss> {
        for program in workload.programs {
            if fuse_mount::find_program(program).is_none() {
                let why = format!("there is no program '{program}' in $PATH");
                return Err(Miss::Cannot(failed(why)));
            }
        }
        let round = self.place.round().map_err(Miss::Cannot)?;
        let fixture = fixture(&self.place, &mut self.fixtures, &workload.lower);
        let fixture = fixture.context(|| "making the layers").map_err(Miss::Cannot)?;
        let kept = match workload.leaves {
            Leaves::Alone => Some(fixture.kept.join("by all")),
            Leaves::Fit => Some(fixture.kept.join(&workload.name)),
            Leaves::Spent => None,
        };
        let stack = stack(fixture, &round, kept.as_deref());
        // A test measures nothing, and all of the machine would pay for these.
        let tiny = self.plan.scale == Scale::Tiny;
        let settle = || if tiny { Ok(()) } else { self.place.settle() };
        let values = match &workload.act {
            Act::With(act) => {
                settle().map_err(Miss::Cannot)?;
                act(&Bare { target, stack, fixture }).map_err(Miss::Cannot)?
            }
            Act::In(act) => {
                let mut mounted = target.mount(&stack).map_err(Miss::Cannot)?;
                settle().map_err(Miss::Cannot)?;
                if workload.caches == Caches::Dropped && !tiny {
                    std::fs::write(DROP_CACHES, "3")
                        .context(|| "dropping caches")
                        .map_err(Miss::Cannot)?;
                }
                let servers = mounted.servers().to_vec();
                let site = Site {
                    root: mounted.root(),
                    upper: mounted.upper(),
                    fixture,
                    servers: &servers,
                    round: number,
                    caches: workload.caches,
                };
                let values = act(&site).map_err(Miss::of)?;
                mounted.unmount().map_err(Miss::Wrong)?;
                values
            }
        };
        self.place.leave(&round, self.needed.min(SPARE)).map_err(Miss::Cannot)?;
        if values.len() != workload.metrics.len() {
            return Err(Miss::Wrong(failed("it does not measure what it says")));
        }
        Ok(values)
    }
}

/// The layers, made when they are first asked for.
fn fixture<'f>(
    place: &Place,
    made: &'f mut HashMap<Lower, Fixture>,
    lower: &Lower,
) -> Result<&'f Fixture> {
    match made.entry(lower.clone()) {
        Entry::Occupied(entry) => Ok(entry.into_mut()),
        Entry::Vacant(entry) => {
            let at = place.path().join("layers").join(lower.name());
            if at.exists() {
                // Half of it: the attempt before failed.
                std::fs::remove_dir_all(&at)?;
            }
            Ok(entry.insert(lower.make(&at)?))
        }
    }
}

fn stack<'a>(fixture: &'a Fixture, round: &'a Round, kept: Option<&'a Path>) -> Stack<'a> {
    let (upper, work, mnt) = (&round.upper, &round.work, &round.mnt);
    Stack { lowers: &fixture.lowers, upper, work, mnt, kept }
}
