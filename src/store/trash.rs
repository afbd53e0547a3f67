//! What goes is renamed into trash/ first, and deleted when nothing waits for it.

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno as Raw;

use super::layout::Layout;
use super::{fresh_name, lock};
use crate::errno::{Context, Result};
use crate::layer::dir::{names_in, remove_tree};
use crate::sys::{fuse_mount, mountinfo};

/// Moves what is at `path` (in the store, on the filesystem of trash/) to the trash. What is not
/// there is no error.
pub(super) fn discard(layout: &Layout, path: &Path) -> Result<()> {
    let to = layout.trash().join(fresh_name());
    match rustix::fs::renameat_with(CWD, path, CWD, &to, RenameFlags::NOREPLACE) {
        Ok(()) | Err(Raw::NOENT) => Ok(()),
        Err(errno) => Err(errno).context(|| format!("cannot throw away {}", path.display())),
    }
}

/// Deletes all that is in the trash; waits for others who do so. Returns how many entries went.
/// What cannot be deleted keeps nothing else from going.
pub(super) fn empty(layout: &Layout) -> Result<usize> {
    let path = layout.trash();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(CWD, &path, flags, Mode::empty());
    let dir = open().context(|| format!("cannot open {}", path.display()))?;
    if names_in(&dir)?.is_empty() {
        return Ok(0);
    }
    let _alone = lock::wait_lock(&path, true)?;
    detach_dead(&path);
    let names = names_in(&dir)?;
    let mut failed = Ok(names.len());
    for name in &names {
        let removed = remove_tree(&dir, name)
            .context(|| format!("cannot delete {}/{}", path.display(), name.escape_ascii()));
        if let (Err(error), Ok(_)) = (removed, &failed) {
            failed = Err(error);
        }
    }
    failed
}

/// Whether a mount is at `path` whose server is gone.
pub(super) fn is_dead(path: &Path) -> bool {
    rustix::fs::statfs(path).is_err_and(|errno| errno == Raw::NOTCONN)
}

/// Detaches the mounts at `path` and below it whose server has been killed: nobody else will, and
/// no directory can go that one lies on. For who knows that nobody mounts there at this moment.
pub(super) fn detach_dead(path: &Path) {
    // The end of the path is not touched: it may be such a mount itself.
    let Some((parent, name)) = path.parent().zip(path.file_name()) else { return };
    let (Ok(parent), Ok(mounts)) = (parent.canonicalize(), mountinfo::read()) else { return };
    let path = parent.join(name);
    // The last one mounted lies on top.
    for mount in mounts.iter().rev().filter(|mount| mount.point.starts_with(&path)) {
        if mount.fs_type == "fuse.plyfs"
            && is_dead(&mount.point)
            && let Err(error) = fuse_mount::unmount(&mount.point, true)
        {
            tracing::warn!(%error, "cannot unmount the dead {}", mount.point.display());
        }
    }
}
