//! What can be done again and again since it changes nothing: measured when it was done before in
//! the same mount (the plain name), in a fresh mount (`-first`), and from the disk (`-cold`).

use std::path::PathBuf;

use super::{Caches, Group, Leaves, Measured, Scale, Workload};
use crate::bench::check;
use crate::bench::fixture::Lower;
use crate::bench::site::{Site, each, time};
use crate::errno::Result;

/// A pass over a tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    /// What it is about.
    pub group: Group,
    /// The name of its workloads, before the suffix.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// What a value is for.
    pub per: &'static str,
    /// The layers.
    pub lower: fn(Scale) -> Lower,
    /// What it looks at: outside of the time.
    pub paths: fn(&Site<'_>) -> Vec<PathBuf>,
    /// Looks at them; what it found, as a number.
    pub run: fn(&Site<'_>, &[PathBuf]) -> Result<u64>,
    /// The number that it has to find, and how many of `per` there are.
    pub expected: fn(&Site<'_>) -> (u64, usize),
    /// The programs it runs.
    pub programs: &'static [&'static str],
}

impl Pass {
    /// Its workloads; those of the quick set are named.
    pub(super) fn workloads(self, scale: Scale, quick: &[Caches]) -> Vec<Workload> {
        let all = [(Caches::Warm, ""), (Caches::Fresh, "-first"), (Caches::Dropped, "-cold")];
        let each = |(caches, suffix): (Caches, &str)| Workload {
            quick: quick.contains(&caches),
            caches,
            ..Workload::new(self.group, format!("{}{suffix}", self.name), self.what, move |site| {
                self.measure(site)
            })
            .per(self.per)
            .over((self.lower)(scale))
            .leaves(Leaves::Alone)
            .runs(self.programs)
        };
        all.into_iter().map(each).collect()
    }

    fn measure(self, site: &Site<'_>) -> Measured {
        let paths = (self.paths)(site);
        let (expected, count) = (self.expected)(site);
        if site.caches == Caches::Warm {
            (self.run)(site, &paths)?;
        }
        let (seconds, found) = time(|| (self.run)(site, &paths))?;
        check(found == expected, || format!("{}: {found}, not {expected}", self.name))?;
        Ok(vec![each(seconds, count)])
    }
}
