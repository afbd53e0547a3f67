//! What goes is renamed into trash/ first, and deleted when nothing waits for it.

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno as Raw;

use super::layout::Layout;
use super::{fresh_name, lock};
use crate::errno::{Context, Result};
use crate::layer::dir::{names_in, remove_tree};

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
pub(super) fn empty(layout: &Layout) -> Result<usize> {
    let path = layout.trash();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(CWD, &path, flags, Mode::empty());
    let dir = open().context(|| format!("cannot open {}", path.display()))?;
    if names_in(&dir)?.is_empty() {
        return Ok(0);
    }
    let _alone = lock::wait_lock(&path, true)?;
    let names = names_in(&dir)?;
    for name in &names {
        remove_tree(&dir, name)
            .context(|| format!("cannot delete {}/{}", path.display(), name.escape_ascii()))?;
    }
    Ok(names.len())
}
