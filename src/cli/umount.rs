//! `plyfs umount`: the end of a mount, and of the process behind it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::UmountArgs;
use super::output::{Exit, Failure, Outcome};
use super::overlap::shown;
use super::stored;
use crate::errno::{Errno, Error};
use crate::store::Container;
use crate::sys::mountinfo::Mount;
use crate::sys::{fuse_mount, mountinfo};

/// What a mount of ours is in mountinfo.
const FS_TYPE: &str = "fuse.plyfs";

/// How long the server of a mount that is gone may take to end: it syncs the upper layer.
const SERVER_ENDS: Duration = Duration::from_mins(1);

/// Unmounts.
pub(super) fn run(args: &UmountArgs, root: Option<&Path>) -> Outcome {
    let point = match stored::container_or_path(root, args.mountpoint.as_os_str())? {
        None => absolute(&args.mountpoint)?,
        Some((_, container)) => mountpoint(&container)?,
    };
    unmount(&point, args.lazy)
}

/// Where a container is mounted. That was said when it was mounted; by now something else may be
/// there.
fn mountpoint(container: &Container) -> Result<PathBuf, Failure> {
    let Some(by) = container.mounted().filter(|by| by.mountpoint.is_absolute()) else {
        let hint = "'plyfs ls' says what is mounted where";
        return Err(Failure::new(&container.name, "it is not mounted", hint));
    };
    let at = shown(&by.mountpoint);
    let mounts = mountinfo::read()
        .map_err(|error| Failure::new(&container.name, error, "is /proc mounted?"))?;
    let mount = mountinfo::at(&mounts, &by.mountpoint);
    let same = |mount: &Mount| {
        mount.fs_type == FS_TYPE
            && mount.source == *stored::source(container)
            && by.device.is_none_or(|device| device == mount.dev)
    };
    let why = match mount {
        Some(mount) if same(mount) => return Ok(by.mountpoint),
        Some(mount) => {
            let (kind, source) = (mount.fs_type.display(), mount.source.display());
            format!("it was mounted at {at}, but {source} ({kind}) is there now")
        }
        None => format!("it was mounted at {at}, but nothing is there now"),
    };
    let hint = format!(
        "unmount what covers it; or another mount namespace has it: end process {}",
        by.pid
    );
    Err(Failure::new(&container.name, why, hint))
}

/// Unmounts what is at `point`, an absolute path; unless `lazy`, waits until its server has gone.
pub(super) fn unmount(point: &Path, lazy: bool) -> Outcome {
    let what = shown(point);
    let mounts =
        mountinfo::read().map_err(|error| Failure::new(&what, error, "is /proc mounted?"))?;
    let mount = mountinfo::at(&mounts, point).ok_or_else(|| {
        Failure::new(&what, "nothing is mounted there", "'findmnt -t fuse.plyfs' lists mounts")
    })?;
    if mount.fs_type != FS_TYPE {
        let why = format!("a mount of type {} is there, not plyfs", mount.fs_type.display());
        return Err(Failure::new(&what, why, "use umount(8) if you mean that one"));
    }
    fuse_mount::unmount(point, lazy).map_err(|error| {
        let hint = match error.errno() {
            Errno::EBUSY => format!("end who uses it (fuser -vm {what}), or detach it with -l"),
            _ => "only root, or who mounted it, may unmount it".to_owned(),
        };
        Failure::new(&what, &error, hint)
    })?;
    if !lazy {
        let gone = fuse_mount::wait_unclaimed(point, SERVER_ENDS).map_err(|error| {
            let why = format!("unmounted, but cannot wait for its server: {error}");
            Failure::new(&what, why, "give it a moment before you use the upperdir")
        })?;
        if !gone {
            let seconds = SERVER_ENDS.as_secs();
            let why = format!("unmounted, but {seconds} seconds later its server still runs");
            let hint = format!(
                "it writes to a slow disk, or another mount namespace has the mount, too: see \
                 'grep {what} /proc/[0-9]*/mountinfo'"
            );
            return Err(Failure::new(&what, why, hint));
        }
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
