//! Whether the directories of a mount can be told apart: none inside another, none given twice.
//!
//! Two directories are compared by what they are (device and inode number), walking up by `..`, so
//! that symbolic links do not hide that one holds the other; and, where one of them is written to,
//! by where they lie in their filesystem, so that bind mounts do not.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags};

use super::output::{Failure, escape};
use crate::errno::{Context, Errno, Result};
use crate::sys::mountinfo::{self, Mount};

/// What names a directory: device (major, minor) and inode number.
type Identity = (u32, u32, u64);

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

/// Finds directories. Layers mostly lie side by side: what is above them is walked once.
#[derive(Debug, Default)]
pub(super) struct Finder {
    /// A directory of a mount (by the mount's number): itself, and all above it.
    above: HashMap<(u64, Identity), Vec<Identity>>,
}

impl Finder {
    /// Finds the directory at `path`.
    pub(super) fn find(&mut self, role: Role, path: &Path) -> std::result::Result<Place, Failure> {
        let found = path.canonicalize().context(|| "").and_then(|absolute| {
            let chain = self.chain(&absolute)?;
            Ok(Place { role, path: absolute, chain })
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

    /// The identities of a directory and of all above it.
    fn chain(&mut self, path: &Path) -> Result<Vec<Identity>> {
        let mut dir = open_dir(CWD, path)?;
        let mut chain: Vec<Identity> = Vec::new();
        let mut parent = None;
        loop {
            let (mount, identity) = identify(&dir)?;
            // Only the root directory is its own parent.
            if chain.last() == Some(&identity) {
                break;
            }
            let key = mount.map(|mount| (mount, identity));
            if let Some(known) = key.and_then(|key| self.above.get(&key)) {
                chain.extend(known);
                break;
            }
            if chain.len() == 1 {
                parent = key;
            }
            chain.push(identity);
            dir = open_dir(&dir, "..")?;
        }
        if let (Some(parent), Some(above)) = (parent, chain.get(1..)) {
            self.above.insert(parent, above.to_vec());
        }
        Ok(chain)
    }
}

impl Place {
    /// Itself.
    fn identity(&self) -> Option<Identity> {
        self.chain.first().copied()
    }

    /// Whether it is written to.
    fn is_written(&self) -> bool {
        matches!(self.role, Role::Upper | Role::Work)
    }
}

fn open_dir(at: impl std::os::fd::AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(at, path, flags, Mode::empty())?)
}

/// What a directory is, and the number of the mount that it was reached through, if that is told:
/// what lies above a directory depends on it.
fn identify(dir: &OwnedFd) -> Result<(Option<u64>, Identity)> {
    let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(dir, "", AtFlags::EMPTY_PATH, wanted)?;
    if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::Directory {
        return Err(Errno::ENOTDIR.into());
    }
    let told = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID);
    let identity = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
    Ok((told.then_some(stat.stx_mnt_id), identity))
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

/// Refuses directories that overlap; `mounts` are all there are, as far as that is known.
pub(super) fn check(places: &[Place], mounts: &[Mount]) -> std::result::Result<(), Failure> {
    let mut first: HashMap<Identity, &Place> = HashMap::new();
    for place in places {
        let Some(identity) = place.identity() else { continue };
        if let Some(one) = first.insert(identity, place) {
            return Err(refusal(one, &format!("is also the {}", place.role.word())));
        }
    }
    for place in places {
        let outer = place.chain.iter().skip(1).find_map(|above| first.get(above));
        if let Some(outer) = outer {
            return Err(refusal(place, &inside(outer)));
        }
    }
    check_bound(places, mounts)
}

/// Refuses directories of which one that is written to and another one overlap by way of `mounts`:
/// a bind mount has a parent of its own, which does not lead to the directory it stands for.
fn check_bound(places: &[Place], mounts: &[Mount]) -> std::result::Result<(), Failure> {
    if !places.iter().any(Place::is_written) {
        return Ok(());
    }
    let layers = places.iter().filter(|place| place.role != Role::Mountpoint);
    let found = layers.filter_map(|place| Some((place, within(mounts, &place.path)?)));
    let found: Vec<(&Place, Within)> = found.collect();
    for (at, (one, first)) in found.iter().enumerate() {
        for (other, second) in found.iter().skip(at + 1) {
            if first.0 != second.0 || !(one.is_written() || other.is_written()) {
                continue;
            }
            if second.1.starts_with(&first.1) {
                return Err(refusal(other, &inside(one)));
            }
            if first.1.starts_with(&second.1) {
                return Err(refusal(one, &inside(other)));
            }
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
