//! The machine that was measured on, and whether it had time for that.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sys::mountinfo;

/// What has to be known of a machine to judge figures from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// What the processor calls itself.
    pub cpu: String,
    /// How many CPUs there are.
    pub cpus: usize,
    /// Memory, bytes.
    pub memory: u64,
    /// It says of itself that it is a virtual one.
    pub virtualized: bool,
    /// The filesystem measured: its type, and how it is mounted.
    pub filesystem: String,
    /// How many processes were running or waiting for a disk on average in the minute before.
    pub load: f64,
    /// How the CPUs' speed is governed, where that can be seen.
    pub governor: Option<String>,
}

impl Machine {
    /// This one, as it is now; figures are of the filesystem of `dir`.
    pub fn here(dir: &Path) -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        let governor = governor.trim();
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cpu: field("model name").or_else(|| field("CPU part")).unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory(&read("/proc/meminfo")),
            virtualized: field("flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            filesystem: filesystem(dir),
            load: read("/proc/loadavg").split(' ').next().map_or(0.0, parsed),
            governor: (!governor.is_empty()).then(|| governor.to_owned()),
        }
    }
}

/// How the time of all CPUs was spent up to now, in ticks of the kernel's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticks {
    /// All of it.
    pub all: u64,
    /// By nobody, or waiting for a disk.
    pub idle: u64,
    /// Taken by the host for others.
    pub stolen: u64,
}

impl Ticks {
    /// Up to now.
    pub fn now() -> Self {
        Self::of(&read("/proc/stat"))
    }

    fn of(stat: &str) -> Self {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
        let fields: Vec<u64> =
            line.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
        let field = |number: usize| fields.get(number).copied().unwrap_or(0);
        // What guests of this machine used, the last two, is in the first two as well.
        Self { all: fields.iter().take(8).sum(), idle: field(3) + field(4), stolen: field(7) }
    }

    /// The part of the time since `before` that the host took, 0 to 1.
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    pub fn stolen_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 / all as f64
    }
}

/// A file's text, empty where there is none.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn parsed(word: &str) -> f64 {
    word.parse().unwrap_or(0.0)
}

/// All of the memory, bytes, from the text of /proc/meminfo.
fn memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next());
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// The type and options of the filesystem that a directory lies on.
fn filesystem(dir: &Path) -> String {
    let mounts = mountinfo::read().unwrap_or_default();
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    match mountinfo::containing(&mounts, &dir) {
        Some(mount) => {
            let (kind, options) = (mount.fs_type.display(), mount.super_options.display());
            format!("{kind} ({options})")
        }
        None => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests;
