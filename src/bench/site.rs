//! What a workload gets to work on: a mounted tree, and what is known about it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::Pid;

use super::fixture::{Fixture, fill};
use super::target::{Mounted, Stack, Target};
use super::workload::Caches;
use super::{check, failed, open};
use crate::errno::{Context, Result};

/// A mounted tree.
#[derive(Debug)]
pub struct Site<'a> {
    /// Its root.
    pub root: &'a Path,
    /// Where changes come to lie; of a plain directory, the root.
    pub upper: &'a Path,
    /// The layers it is made of.
    pub fixture: &'a Fixture,
    /// Who serves it.
    pub servers: &'a [Pid],
    /// Which round this is; what is written differs from round to round.
    pub round: u32,
    /// What is in the caches when the measuring begins.
    pub caches: Caches,
}

/// A stack that is not mounted yet, for workloads that mount.
#[derive(Debug)]
pub struct Bare<'a> {
    /// What mounts it.
    pub target: &'a dyn Target,
    /// The directories.
    pub stack: Stack<'a>,
    /// The layers among them.
    pub fixture: &'a Fixture,
}

impl Site<'_> {
    /// A path of the tree.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// All files of the layers, as paths in the tree.
    pub fn files(&self) -> Vec<PathBuf> {
        self.fixture.files.iter().map(|leaf| self.at(&leaf.path)).collect()
    }

    /// All directories of the layers, as paths in the tree.
    pub fn dirs(&self) -> Vec<PathBuf> {
        self.fixture.dirs.iter().map(|dir| self.at(dir)).collect()
    }

    /// How many bytes all files of the layers have.
    pub fn bytes(&self) -> u64 {
        self.fixture.files.iter().map(|leaf| leaf.size).sum()
    }

    /// The bytes that this round writes at this position: those of no other round, nor of a layer.
    pub fn pattern(&self, length: usize, position: u64) -> Vec<u8> {
        let mut bytes = vec![0; length];
        fill(&mut bytes, position + 1 + u64::from(self.round));
        bytes
    }
}

impl Bare<'_> {
    /// Mounts it at a directory.
    pub fn mount(&self, upper: &Path, work: &Path, mnt: &Path) -> Result<Mounted> {
        self.target.mount(&Stack { upper, work, mnt, ..self.stack })
    }
}

/// How long something takes: seconds, and what it gave.
pub fn time<T>(act: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let from = Instant::now();
    let given = act()?;
    Ok((from.elapsed().as_secs_f64(), given))
}

/// Seconds, each of so many.
#[allow(clippy::cast_precision_loss, reason = "counts of a few millions")]
pub fn each(seconds: f64, count: usize) -> f64 {
    seconds / count.max(1) as f64
}

/// Runs a program to its end; its output if that is wanted.
///
/// # Errors
/// What it said, when it does not end with 0.
pub fn run(program: &str, arguments: &[&str], dir: &Path) -> Result<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(dir).stdin(Stdio::null()).stderr(Stdio::piped());
    let output = command.output().context(|| format!("cannot start {program}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(300).collect();
    Err(failed(format!("{program}: {}: {said}", output.status)))
}

/// A path as an argument.
pub fn word(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| failed(format!("{}: not UTF-8", path.display())))
}

/// Fails unless the file at `path` has these bytes at this position.
pub fn check_bytes(path: &Path, position: u64, expected: &[u8]) -> Result<()> {
    let file: File = open(path)?;
    let mut found = vec![0; expected.len()];
    file.read_exact_at(&mut found, position).context(|| path.display().to_string())?;
    check(found == expected, || format!("{}: other bytes at {position}", path.display()))
}

/// Fails unless the file at `path` has what the layers gave it at this position.
pub fn check_lower(path: &Path, position: u64, length: usize) -> Result<()> {
    let mut expected = vec![0; length];
    fill(&mut expected, position);
    check_bytes(path, position, &expected)
}
