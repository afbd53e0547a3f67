//! What processes use of the machine, and on which CPUs they run; for measuring.

use std::path::PathBuf;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::errno::{Context, Errno, Error, Result};

/// A file of /proc about a process, this one without a number.
fn proc(process: Option<Pid>, file: &str) -> PathBuf {
    match process {
        Some(pid) => format!("/proc/{}/{file}", pid.as_raw_nonzero()).into(),
        None => format!("/proc/self/{file}").into(),
    }
}

/// The number after `key` in a file of /proc.
fn number(process: Option<Pid>, file: &str, key: &str) -> Result<u64> {
    let path = proc(process, file);
    let text = std::fs::read_to_string(&path).context(|| path.display().to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let word = line.and_then(|line| line.split_ascii_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .ok_or_else(|| Error::new(Errno::EIO, format!("{}: no {key}", path.display())))
}

/// How many bytes a process has caused to be written to disks, this one without a number: pages
/// count when they become dirty.
///
/// # Errors
/// `EACCES` for a process that is not ours to look at; `ENOENT` for one that has ended.
pub fn written(process: Option<Pid>) -> Result<u64> {
    number(process, "io", "write_bytes:")
}

/// A process's share of memory, bytes: a page that n processes or maps have counts as 1/n.
///
/// # Errors
/// As [`written`].
pub fn share_of_memory(process: Option<Pid>) -> Result<u64> {
    Ok(number(process, "smaps_rollup", "Pss:")? * 1024)
}

/// The CPUs that this thread may run on.
pub fn cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// Has this thread, and those that it starts from now on, run on these CPUs only.
pub fn pin_thread(cpus: &[usize]) -> Result<()> {
    Ok(sched_setaffinity(None, &set_of(cpus))?)
}

/// Has each thread that a process has now run on one CPU only.
pub fn pin(process: Pid, cpu: usize) -> Result<()> {
    let set = set_of(&[cpu]);
    for thread in std::fs::read_dir(proc(Some(process), "task"))? {
        let number = thread?.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(thread) = number.and_then(Pid::from_raw) {
            sched_setaffinity(Some(thread), &set)?;
        }
    }
    Ok(())
}

fn set_of(cpus: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu);
    }
    set
}

#[cfg(test)]
mod tests;
