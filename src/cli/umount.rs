//! `plyfs umount`: the end of a mount, and of the process behind it.

use std::path::{Path, PathBuf};

use super::args::UmountArgs;
use super::output::{Exit, Failure, Outcome};
use super::overlap::shown;
use crate::errno::{Errno, Error};
use crate::sys::{fuse_mount, mountinfo};

/// Unmounts.
pub(super) fn run(args: &UmountArgs) -> Outcome {
    let point = absolute(&args.mountpoint)?;
    let what = shown(&point);
    let mounts =
        mountinfo::read().map_err(|error| Failure::new(&what, error, "is /proc mounted?"))?;
    let mount = mountinfo::at(&mounts, &point).ok_or_else(|| {
        Failure::new(&what, "nothing is mounted there", "'findmnt -t fuse.plyfs' lists mounts")
    })?;
    if mount.fs_type != "fuse.plyfs" {
        let why = format!("a mount of type {} is there, not plyfs", mount.fs_type.display());
        return Err(Failure::new(&what, why, "use umount(8) if you mean that one"));
    }
    fuse_mount::unmount(&point, args.lazy).map_err(|error| {
        let hint = match error.errno() {
            Errno::EBUSY => format!("end who uses it (fuser -vm {what}), or detach it with -l"),
            _ => "only root, or who mounted it, may unmount it".to_owned(),
        };
        Failure::new(&what, &error, hint)
    })?;
    if !args.lazy {
        fuse_mount::wait_unclaimed(&point).map_err(|error| {
            let why = format!("unmounted, but cannot wait for its server: {error}");
            Failure::new(&what, why, "give it a moment before you use the upperdir")
        })?;
    }
    Ok(Exit::Ok)
}

/// The absolute path of a mount point, which is not itself touched: a dead mount answers nothing.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let failure = |error: std::io::Error| {
        let hint = "give the directory that it is mounted at";
        Failure::new(shown(path), Error::from(error), hint)
    };
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            let point = parent.canonicalize().map_err(failure)?.join(name);
            // A symbolic link to a mount point stands for it; whatever else answers is one.
            if point.is_symlink() { point.canonicalize().map_err(failure) } else { Ok(point) }
        }
        _ => path.canonicalize().map_err(failure),
    }
}
