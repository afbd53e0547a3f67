//! What a word on the command line means in the store.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::mount::{Request, Serving};
use super::options::{self, MountOptions};
use super::output::Failure;
use super::overlap::shown;
use crate::errno::{Errno, Error};
use crate::store::{Container, Lock, Signature, Store, Use};
use crate::sys::signal;

/// Opens the store at `root`, or at `$PLYFS_ROOT`, or the default one.
pub(super) fn open(root: Option<&Path>) -> Result<Store, Failure> {
    let named = std::env::var_os("PLYFS_ROOT").filter(|root| !root.is_empty()).map(PathBuf::from);
    Store::open(root.or(named.as_deref())).map_err(|error| {
        let hint = match error.errno() {
            Errno::EACCES | Errno::EPERM | Errno::EROFS => {
                "run as root, or keep a store elsewhere: --root DIR"
            }
            _ => "another place for the store: --root DIR, or PLYFS_ROOT",
        };
        failure("the store cannot be opened", error, hint)
    })
}

/// A failure of the store's.
pub(super) fn failure(what: impl std::fmt::Display, error: Error, hint: &str) -> Failure {
    let hint = match error.errno() {
        Errno::ENOSPC | Errno::EDQUOT => {
            "make room on the store's filesystem ('plyfs gc' may help)"
        }
        Errno::EMFILE | Errno::ENFILE => "allow more open files (ulimit -n)",
        _ => hint,
    };
    Failure::new(what, error, hint)
}

/// The container called so.
pub(super) fn container(store: &Store, name: &str) -> Result<Container, Failure> {
    store
        .container(name)
        .map_err(|error| failure(format!("container {name}"), error, "'plyfs ls' lists them"))
}

/// The container that a word means which may also mean a directory; `None` for a directory. A bare
/// name is a container's first.
pub(super) fn container_or_path(
    root: Option<&Path>,
    word: &OsStr,
) -> Result<Option<(Store, Container)>, Failure> {
    let Some(name) = word.to_str().filter(|name| !name.contains('/') && !name.starts_with('.'))
    else {
        return Ok(None);
    };
    // A dead mount does exist: it answers with another error.
    let absent = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    if !Path::new(name).symlink_metadata().is_err_and(absent) {
        // Without a store, or with one that cannot be opened, it is the directory.
        let Ok(store) = open(root) else { return Ok(None) };
        return match store.container(name) {
            Ok(_) => {
                let why = "there is a container of this name, and a directory";
                let hint = format!("write ./{name} for the directory, or leave for the container");
                Err(Failure::usage(name, why, hint))
            }
            Err(_) => Ok(None),
        };
    }
    let store = open(root)?;
    let container = container(&store, name)?;
    Ok(Some((store, container)))
}

/// A container, ready to be mounted, and the lock that says so.
pub(super) fn layers(
    store: &Store,
    container: &Container,
) -> Result<(MountOptions, Lock), Failure> {
    let what = || format!("container {}", container.name);
    let lock = container
        .lock(Use::Mount)
        .map_err(|error| failure(what(), error, "one mount at a time: 'plyfs umount' ends it"))?;
    let stack =
        store.stack(container).map_err(|error| failure(what(), error, "try plyfs check"))?;
    let options = MountOptions {
        lowers: stack.lowers,
        upper: Some(stack.upper),
        work: Some(stack.work),
        // Nothing is left of it after a crash.
        volatile: container.ephemeral,
        disposable: container.ephemeral,
        ..MountOptions::default()
    };
    Ok((options, lock))
}

/// The mount of the container `name` at `mountpoint`.
pub(super) fn mount_request(
    root: Option<&Path>,
    name: &Path,
    mountpoint: &Path,
    flags: &[OsString],
    serving: Serving,
) -> Result<Request, Failure> {
    let store = open(root)?;
    let container = container(&store, &name.to_string_lossy())?;
    let (layers, mut lock) = layers(&store, &container)?;
    let options = options::parse_flags(layers, flags.iter().map(|flag| flag.as_bytes()))
        .map_err(|error| Failure::usage("options", &error, error.hint()))?;
    if options.owners.kept.is_some() {
        let hint = "mount its layers with -o lowerdir=..,upperdir=.. instead";
        return Err(Failure::usage(
            "xattr_permissions",
            "a container could not be committed",
            hint,
        ));
    }
    sign(&mut lock, mountpoint);
    Ok(Request {
        options,
        mountpoint: mountpoint.to_owned(),
        serving,
        source: source(&container),
        held: Some(lock),
        with_parent: false,
    })
}

/// How a container's mount is called in /proc/mounts.
pub(super) fn source(container: &Container) -> String {
    format!("plyfs:{}", container.name)
}

/// Says that a container is to be mounted by this process.
pub(super) fn sign(lock: &mut Lock, mountpoint: &Path) {
    let at = mountpoint.canonicalize().unwrap_or_else(|_| mountpoint.to_owned());
    let pid = std::process::id();
    note(lock, &Signature { pid, mountpoint: at, device: None });
}

/// Writes a note into a lock. Only messages, and 'umount NAME', miss it.
pub(super) fn note(lock: &mut Lock, by: &Signature) {
    if let Err(error) = lock.sign(by) {
        tracing::warn!("{}: {error}", shown(&by.mountpoint));
    }
}

/// A flag that an interrupt sets; the second one ends the process at once. This process has another
/// thread afterwards, and blocks the signals that ask it to end: it may not fork.
pub(super) fn stop_on_interrupt() -> crate::errno::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    signal::block_termination()?;
    signal::on_termination(move |signal| {
        // Whoever asks a second time does not want to wait for the end of a file.
        if signal != signal::STATISTICS && flag.swap(true, Ordering::Relaxed) {
            std::process::exit(128 + signal);
        }
    })?;
    Ok(stop)
}
