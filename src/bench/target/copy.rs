//! The floor: a plain directory that holds what the layers together do. Making it costs what a
//! driver costs that copies (`vfs`); using it costs what the filesystem does.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use rustix::io::Errno as Raw;

use super::{Mounted, Stack, Target};
use crate::bench::{failed, open};
use crate::errno::{Context, Error, Result};

/// A copy of the layers.
#[derive(Debug)]
pub(super) struct Copy {
    name: &'static str,
    about: &'static str,
    /// Blocks are shared with the layers.
    shares: bool,
}

impl Copy {
    /// All bytes copied.
    pub(super) fn plain() -> Self {
        Self { name: "plain", about: "a plain directory: a copy of the layers", shares: false }
    }

    /// Blocks shared.
    pub(super) fn reflink() -> Self {
        let about = "a copy of the layers by reflink (FICLONE), as cp --reflink=always makes it";
        Self { name: "reflink", about, shares: true }
    }

    fn merge(&self, stack: &Stack<'_>, dest: &Path) -> Result<()> {
        stack.lowers.iter().rev().try_for_each(|lower| self.over(lower, dest))
    }

    /// Puts a layer over what there is.
    fn over(&self, layer: &Path, dest: &Path) -> Result<()> {
        for entry in fs::read_dir(layer)? {
            let entry = entry?;
            let (from, to) = (entry.path(), dest.join(entry.file_name()));
            let stat = entry.metadata()?;
            let kind = stat.file_type();
            if kind.is_dir() {
                if !to.is_dir() {
                    fs::create_dir(&to)?;
                    fs::set_permissions(&to, fs::Permissions::from_mode(stat.mode() & 0o7777))?;
                }
                self.over(&from, &to)?;
                continue;
            }
            remove(&to)?;
            if kind.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(&from)?, &to)?;
            } else if kind.is_file() {
                self.file(&from, &to).context(|| from.display().to_string())?;
            } else if !(kind.is_char_device() && stat.rdev() == 0) {
                return Err(failed(format!("{}: of a kind no workload has", from.display())));
            }
        }
        Ok(())
    }

    /// Copies a file.
    fn file(&self, from: &Path, to: &Path) -> Result<()> {
        let source = open(from)?;
        let mode = source.metadata()?.permissions();
        let mut copy = fs::File::create(to)?;
        if self.shares {
            rustix::fs::ioctl_ficlone(&copy, &source)
                .map_err(Error::from)
                .context(|| "this filesystem has no reflinks (XFS and btrfs do)")?;
        } else {
            copy_data(source, &mut copy)?;
        }
        Ok(copy.set_permissions(mode)?)
    }
}

impl Target for Copy {
    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> String {
        self.about.to_owned()
    }

    fn mount(&self, stack: &Stack<'_>) -> Result<Mounted> {
        let Some(kept) = stack.kept else {
            self.merge(stack, stack.upper)?;
            return Ok(Mounted::plain(stack.upper));
        };
        let dest = kept.join(self.name);
        if !dest.is_dir() {
            // Complete, or not there: a round may be cut short.
            let half: PathBuf = kept.join(format!("{}.half", self.name));
            fs::create_dir_all(&half)?;
            self.merge(stack, &half)?;
            fs::rename(&half, &dest)?;
        }
        Ok(Mounted::plain(&dest))
    }
}

/// Removes whatever a layer above replaces or hides.
fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(stat) if stat.is_dir() => Ok(fs::remove_dir_all(path)?),
        Ok(_) => Ok(fs::remove_file(path)?),
        Err(_) => Ok(()),
    }
}

/// Copies bytes, and leaves holes out; never by a call that the filesystem might answer by sharing
/// blocks.
fn copy_data(mut source: fs::File, copy: &mut fs::File) -> Result<()> {
    let size = source.metadata()?.len();
    copy.set_len(size)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        let begin = match rustix::fs::seek(source.as_fd(), SeekFrom::Data(at)) {
            Ok(begin) => begin,
            Err(Raw::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(source.as_fd(), SeekFrom::Hole(begin))?;
        rustix::fs::seek(source.as_fd(), SeekFrom::Start(begin))?;
        rustix::fs::seek(copy.as_fd(), SeekFrom::Start(begin))?;
        let mut left = end - begin;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let read = source.read(buffer.get_mut(..most).unwrap_or_default())?;
            if read == 0 {
                break;
            }
            copy.write_all(buffer.get(..read).unwrap_or_default())?;
            left -= read as u64;
        }
        at = end;
    }
    Ok(())
}
