//! Where the measuring happens: a directory of our own on the filesystem to be measured, with room
//! in it, and gone afterwards.
//!
//! Little is deleted in between: for minutes after many files have been deleted, ext4 looks longer
//! for a free inode than everything else that is measured takes, whoever asks next.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use super::failed;
use crate::errno::{Context, Result};
use crate::sys::{fuse_mount, mountinfo};

/// What the directory's name begins with; its end is the number of the process.
const PREFIX: &str = "plyfs-bench.";

/// A file of at least this size is removed after its round: one inode, and much room.
const LARGE: u64 = 1 << 20;

/// The directory. Unmounts what is in it and removes it when it is dropped.
#[derive(Debug)]
pub struct Place {
    base: PathBuf,
    /// Locked as long as this process lives, and the filesystem's root to sync it by.
    dir: OwnedFd,
    rounds: AtomicU64,
}

/// The directories of one round.
#[derive(Debug)]
pub struct Round {
    top: PathBuf,
    /// Where changes go.
    pub upper: PathBuf,
    /// The work directory.
    pub work: PathBuf,
    /// Where to mount.
    pub mnt: PathBuf,
}

impl Place {
    /// Makes it in `dir`, and removes what processes that were killed left there.
    ///
    /// # Errors
    /// `EINVAL` where the path cannot be said in mount options.
    pub fn make(dir: &Path) -> Result<Self> {
        let dir = dir.canonicalize().context(|| dir.display().to_string())?;
        if dir.as_os_str().as_bytes().iter().any(|byte| b":,\\\n ".contains(byte)) {
            let why = "a colon, comma, backslash or space in its path is no good in mount options";
            return Err(failed(format!("{}: {why}", dir.display())));
        }
        sweep(&dir);
        let pid = std::process::id();
        let names = (0..100).map(|n| match n {
            0 => format!("{PREFIX}{pid}"),
            n => format!("{PREFIX}{pid}-{n}"),
        });
        // Tests have several in one process.
        let base = names.map(|name| dir.join(name)).find(|base| fs::create_dir(base).is_ok());
        let base = base
            .ok_or_else(|| failed(format!("{}: cannot make a directory there", dir.display())))?;
        let fd = locked(&base).context(|| base.display().to_string())?;
        Ok(Self { base, dir: fd, rounds: AtomicU64::new(0) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.base
    }

    /// Fresh directories.
    pub fn round(&self) -> Result<Round> {
        let number = self.rounds.fetch_add(1, Ordering::Relaxed);
        let top = self.base.join(format!("round/{number}"));
        let (upper, work, mnt) = (top.join("upper"), top.join("work"), top.join("mnt"));
        for dir in [&upper, &work, &mnt] {
            fs::create_dir_all(dir)?;
        }
        Ok(Round { top, upper, work, mnt })
    }

    /// What is dirty is written; so that nobody pays for what was done before.
    pub fn settle(&self) -> Result<()> {
        Ok(rustix::fs::syncfs(&self.dir)?)
    }

    /// How much can be written there: bytes.
    pub fn room(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.base)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// After a round: its large files go, and all of it goes if there is less room than `needed`.
    pub fn leave(&self, round: &Round, needed: u64) -> Result<()> {
        thin(&round.top)?;
        if self.room()? < needed {
            for round in fs::read_dir(self.base.join("round"))? {
                fs::remove_dir_all(round?.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = clean(&self.base) {
            tracing::warn!("{}: {error}", self.base.display());
        }
    }
}

/// Unmounts all that is mounted below a directory, used or not, and removes it.
pub fn clean(base: &Path) -> Result<()> {
    let mounts = mountinfo::read()?;
    for mount in mounts.iter().rev().filter(|mount| mount.point.starts_with(base)) {
        fuse_mount::unmount(&mount.point, true)?;
    }
    fs::remove_dir_all(base)?;
    Ok(())
}

/// Removes what others left behind that are no more.
fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let path = entry.path();
        // Who lives holds the lock; who just began has made the directory in this moment.
        let Ok(lock) = locked(&path) else { continue };
        let made = entry.metadata().and_then(|stat| stat.modified());
        let old = made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age.as_secs() > 5));
        if old && let Err(error) = clean(&path) {
            tracing::warn!("{}: {error}", path.display());
        }
        drop(lock);
    }
}

/// A directory, opened and locked.
fn locked(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
    Ok(fd)
}

/// Removes the large files below a directory.
fn thin(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let stat = entry.metadata()?;
        if stat.is_dir() {
            thin(&entry.path())?;
        } else if stat.is_file() && (stat.len() >= LARGE || stat.blocks() * 512 >= LARGE) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
