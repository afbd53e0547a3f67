//! What is in use: `flock` locks, which die with their process, whatever ends it.
//!
//! A lock belongs to the open file, so a child that inherits the descriptor by fork holds it too;
//! nobody inherits it by exec.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno as Raw;

use crate::errno::{Context, Result};

/// What a container is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is looked at or prepared: it must not go meanwhile. Any number at once.
    Read,
    /// It is mounted: one at a time.
    Mount,
}

/// Something is in use for as long as this (or a copy of it in a child process) lives.
#[derive(Debug)]
#[must_use = "a lock that is dropped is released"]
pub struct Lock {
    /// Held, nothing more.
    held: OwnedFd,
    /// The second file of a mounted container, which says who holds it.
    note: Option<std::fs::File>,
}

impl Lock {
    /// With nothing to say about the holder.
    pub(super) fn new(held: OwnedFd) -> Self {
        Self { held, note: None }
    }

    /// With a file that says who the holder is: nobody as yet, and no longer who it was last.
    pub(super) fn with_note(held: OwnedFd, note: OwnedFd) -> Result<Self> {
        let note = std::fs::File::from(note);
        note.set_len(0).context(|| "cannot say who uses the container")?;
        Ok(Self { held, note: Some(note) })
    }

    /// What a child has to keep open for the lock to live on in it.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        [self.held.as_fd()].into_iter().chain(self.note.as_ref().map(AsFd::as_fd)).collect()
    }

    /// Says who holds it, for those who are refused or want to end it. Without effect on a lock
    /// that is no mount's.
    pub fn sign(&mut self, by: &Signature) -> Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let Some(note) = &mut self.note else { return Ok(()) };
        let device = by.device.map(|(major, minor)| format!(" {major}:{minor}"));
        let first = format!("{}{}\n", by.pid, device.unwrap_or_default());
        let text = [first.as_bytes(), by.mountpoint.as_os_str().as_bytes()].concat();
        note.seek(SeekFrom::Start(0)).context(|| "cannot say who uses the container")?;
        note.set_len(0)?;
        Ok(note.write_all(&text)?)
    }
}

/// Who has a container mounted, and where, as far as they said it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// The process that serves the mount; 0 if it has not said so yet.
    pub pid: u32,
    /// Where it is mounted; empty if that was not said.
    pub mountpoint: PathBuf,
    /// The number that the mount's files have as their device, (major, minor). It is another
    /// mount that has another, whatever is mounted there by now. Known once it is mounted.
    pub device: Option<(u32, u32)>,
}

/// Takes a lock on the file or directory at `path`; `None` if others hold one that excludes it.
pub(super) fn try_lock(path: &Path, exclusive: bool, make: bool) -> Result<Option<OwnedFd>> {
    let fd = open(path, make)?;
    let how = if exclusive {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    match rustix::fs::flock(&fd, how) {
        Ok(()) => Ok(Some(fd)),
        Err(Raw::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno).context(|| format!("cannot lock {}", path.display())),
    }
}

/// Waits for a lock on the file or directory at `path`.
pub(super) fn wait_lock(path: &Path, exclusive: bool) -> Result<OwnedFd> {
    let fd = open(path, false)?;
    let how = if exclusive { FlockOperation::LockExclusive } else { FlockOperation::LockShared };
    rustix::fs::flock(&fd, how).context(|| format!("cannot lock {}", path.display()))?;
    Ok(fd)
}

fn open(path: &Path, make: bool) -> Result<OwnedFd> {
    let flags = if make { OFlags::RDWR | OFlags::CREATE } else { OFlags::RDONLY };
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(CWD, path, flags, Mode::from_raw_mode(0o600))
        .context(|| format!("cannot open {}", path.display()))
}

/// What [`Lock::sign`] wrote.
pub(super) fn signature(path: &Path) -> Option<Signature> {
    use std::os::unix::ffi::OsStringExt;
    let mut text = Vec::new();
    let file = std::fs::File::from(open(path, false).ok()?);
    file.take(8192).read_to_end(&mut text).ok()?;
    let end = text.iter().position(|&byte| byte == b'\n')?;
    let mountpoint = text.split_off(end + 1);
    let mut first = std::str::from_utf8(text.get(..end)?).ok()?.split(' ');
    let pid = first.next()?.parse().ok()?;
    let device = first.next().and_then(|device| device.split_once(':'));
    let device = device.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    Some(Signature { pid, mountpoint: std::ffi::OsString::from_vec(mountpoint).into(), device })
}
