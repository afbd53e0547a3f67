//! Whether the directories of a mount can be told apart: none inside another, none given twice.
//!
//! Two directories are compared by what they are (device and inode number), walking up by `..`, so
//! that symbolic links do not hide that one holds the other; and, where one of them is written to,
//! by where they lie in their filesystem, so that bind mounts do not.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::output::{Failure, escape};
use crate::errno::{Context, Errno, Result};
use crate::sys::mountinfo::{self, Mount};

/// What names a directory: device and inode number.
type Identity = (u64, u64);

/// A directory of the mount to be.
#[derive(Debug)]
pub(super) struct Place {
    /// What it is for, in the user's words.
    pub role: Role,
    /// Its absolute path without symbolic links.
    pub path: PathBuf,
    /// Itself first, then every directory above it.
    chain: Vec<Identity>,
}

/// What a directory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A read-only layer.
    Lower,
    /// The writable layer.
    Upper,
    /// The work directory.
    Work,
    /// Where it is mounted.
    Mountpoint,
}

impl Role {
    /// The word for it.
    fn word(self) -> &'static str {
        match self {
            Self::Lower => "lowerdir",
            Self::Upper => "upperdir",
            Self::Work => "workdir",
            Self::Mountpoint => "mount point",
        }
    }
}

impl Place {
    /// Finds the directory at `path`.
    pub(super) fn find(role: Role, path: &Path) -> std::result::Result<Self, Failure> {
        let found = path.canonicalize().context(|| "").and_then(|absolute| {
            let chain = chain(&absolute)?;
            Ok(Self { role, path: absolute, chain })
        });
        found.map_err(|error| {
            let what = format!("{} {}", role.word(), shown(path));
            let hint = match error.errno() {
                Errno::ENOENT => "make the directory first, or correct the path".to_owned(),
                Errno::ENOTDIR => "give a directory".to_owned(),
                errno if errno.raw() == libc::ENOTCONN => {
                    format!("a mount whose server died is there: plyfs umount {}", shown(path))
                }
                _ => "see whether the directory can be entered".to_owned(),
            };
            Failure::new(what, error.errno(), hint)
        })
    }

    /// Itself.
    fn identity(&self) -> Option<Identity> {
        self.chain.first().copied()
    }

    /// Whether `other` is this directory or lies in it.
    fn holds(&self, other: &Self) -> bool {
        self.identity().is_some_and(|identity| other.chain.contains(&identity))
    }
}

/// The identities of a directory and of all above it.
fn chain(path: &Path) -> Result<Vec<Identity>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut dir = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    let mut chain = Vec::new();
    loop {
        let stat = rustix::fs::fstat(&dir)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(Errno::ENOTDIR.into());
        }
        let identity = (stat.st_dev, stat.st_ino);
        // Only the root directory is its own parent.
        if chain.last() == Some(&identity) {
            return Ok(chain);
        }
        chain.push(identity);
        dir = rustix::fs::openat(&dir, "..", flags, Mode::empty())?;
    }
}

/// Where a directory lies in its filesystem, whatever is mounted where.
type Within = (MountedDevice, PathBuf);
/// The device of a mount, (major, minor).
type MountedDevice = (u32, u32);

/// Finds where a directory lies in its filesystem.
fn within(mounts: &[Mount], path: &Path) -> Option<Within> {
    let mount = mountinfo::containing(mounts, path)?;
    let rest = path.strip_prefix(&mount.point).ok()?;
    Some((mount.dev, mount.root.join(rest)))
}

/// Refuses directories that overlap.
pub(super) fn check(places: &[Place]) -> std::result::Result<(), Failure> {
    // Without /proc what is left is the directories' own word.
    let mounts = mountinfo::read().unwrap_or_default();
    check_among(places, &mounts)
}

/// Refuses directories of which one that is written to and another one overlap by way of `mounts`:
/// a bind mount has a parent of its own, which does not lead to the directory it stands for.
fn check_bound(one: &Place, other: &Place, mounts: &[Mount]) -> std::result::Result<(), Failure> {
    let writes = |place: &Place| matches!(place.role, Role::Upper | Role::Work);
    if [one, other].iter().any(|place| place.role == Role::Mountpoint)
        || !(writes(one) || writes(other))
    {
        return Ok(());
    }
    let (Some(first), Some(second)) = (within(mounts, &one.path), within(mounts, &other.path))
    else {
        return Ok(());
    };
    match (first.0 == second.0, &first.1, &second.1) {
        (true, outer, inner) if inner.starts_with(outer) => Err(refusal(other, &inside(one))),
        (true, inner, outer) if inner.starts_with(outer) => Err(refusal(one, &inside(other))),
        _ => Ok(()),
    }
}

fn check_among(places: &[Place], mounts: &[Mount]) -> std::result::Result<(), Failure> {
    for (at, one) in places.iter().enumerate() {
        for other in places.iter().skip(at + 1) {
            if one.identity() == other.identity() {
                let why = format!("is also the {}", other.role.word());
                return Err(refusal(one, &why));
            }
            if one.holds(other) {
                return Err(refusal(other, &inside(one)));
            }
            if other.holds(one) {
                return Err(refusal(one, &inside(other)));
            }
            check_bound(one, other, mounts)?;
        }
    }
    Ok(())
}

/// "is inside the upperdir /c/up"
fn inside(outer: &Place) -> String {
    format!("is inside the {} {}", outer.role.word(), shown(&outer.path))
}

/// Refuses a directory.
fn refusal(place: &Place, why: &str) -> Failure {
    let what = format!("{} {}", place.role.word(), shown(&place.path));
    Failure::new(what, why, "layers, work directory and mount point must lie beside each other")
}

/// A path for a message.
pub(super) fn shown(path: &Path) -> String {
    escape(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
}

#[cfg(test)]
mod tests;
