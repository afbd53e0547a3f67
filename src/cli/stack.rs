//! From options to an open stack of layers.

use std::path::Path;
use std::sync::Arc;

use super::options::MountOptions;
use super::output::Failure;
use super::overlap::shown;
use crate::errno::Errno;
use crate::layer::dir::{DirLayer, DirUpper, UpperOptions};
use crate::layer::override_stat::{self, Overridden, OverriddenUpper};
use crate::layer::{Layer, Upper};
use crate::sys::process;
use crate::union::Stack;

/// Opens the layers of `options`, whose paths are absolute and do not overlap. The upper layer
/// comes a second time, to be closed at the end.
pub(super) fn open(options: &MountOptions) -> Result<(Stack, Option<Arc<DirUpper>>), Failure> {
    let lowers =
        options.lowers.iter().map(|path| owned_lower(path, options)).collect::<Result<_, _>>()?;
    let upper = match (&options.upper, &options.work) {
        (Some(upper), Some(work)) => {
            let how = UpperOptions { volatile: options.volatile };
            let opened = DirUpper::open(upper, work, how);
            // Its errors name the directory and say what to do.
            Some(opened.map_err(|error| Failure::new("mount", &error, ""))?)
        }
        _ => None,
    };
    let writable = upper.clone().map(|upper| owned_upper(upper, options)).transpose()?;
    Ok((Stack { upper: writable, lowers }, upper))
}

/// A read-only layer, its owners as its root says that they are kept, if any are.
fn owned_lower(path: &Path, options: &MountOptions) -> Result<Arc<dyn Layer>, Failure> {
    // podman 4 hands over layers under mounts that shift ids already, and the maps as well.
    let layer = if options.owners.shifts() {
        opened(DirLayer::open_unshifted(path), path)?
    } else {
        lower(path)?
    };
    if options.owners.kept.is_none() {
        // To whom nobody said so, the attribute is one that some user has set.
        return Ok(layer);
    }
    let form = override_stat::form_of(&*layer)
        .map_err(|error| Failure::new(format!("layer {}", shown(path)), &error, ""))?;
    Ok(match form {
        Some(form) => Overridden::new(layer, form),
        None => layer,
    })
}

/// The upper layer; with `xattr_permissions`, its owners kept as its root says, or as the option
/// does where nothing lies in it yet.
fn owned_upper(upper: Arc<DirUpper>, options: &MountOptions) -> Result<Arc<dyn Upper>, Failure> {
    let failure = |error: crate::errno::Error| {
        let path = options.upper.as_deref().unwrap_or_else(|| Path::new(""));
        let hint = "leave out xattr_permissions, or put the upperdir on a filesystem with \
                    extended attributes";
        Failure::new(format!("upperdir {}", shown(path)), &error, hint)
    };
    let Some(kept) = options.owners.kept else { return Ok(upper) };
    let form = match override_stat::form_of(&*upper).map_err(failure)? {
        Some(form) => form,
        None if override_stat::is_empty(&*upper).map_err(failure)? => kept,
        // What users set as a mere attribute must not become owners and set-id bits.
        None => {
            let path = options.upper.as_deref().unwrap_or_else(|| Path::new(""));
            return Err(Failure::new(
                format!("upperdir {}", shown(path)),
                "what lies in it was written without xattr_permissions",
                "leave the option out, or begin with an empty upperdir",
            ));
        }
    };
    Ok(OverriddenUpper::new(upper, form, process::fs_ids()).map_err(failure)?)
}

/// Opens a read-only layer.
pub(super) fn lower(path: &Path) -> Result<Arc<dyn Layer>, Failure> {
    opened(DirLayer::open(path), path)
}

/// Opens an upper layer that nobody has mounted, to read it; `work` is its work directory, if that
/// is known.
pub(super) fn unmounted_upper(path: &Path, work: Option<&Path>) -> Result<Arc<dyn Layer>, Failure> {
    match work {
        Some(work) => opened(DirLayer::open_upper(path, work), path),
        None => lower(path),
    }
}

fn opened(
    layer: crate::errno::Result<Arc<DirLayer>>,
    path: &Path,
) -> Result<Arc<dyn Layer>, Failure> {
    match layer {
        Ok(layer) => Ok(layer),
        Err(error) => {
            let hint = match error.errno() {
                Errno::ENOENT => "make the directory first, or correct the path",
                Errno::ENOTDIR => "give a directory",
                Errno::EACCES | Errno::EPERM => "run as root, or as the owner of the directory",
                _ => "is it a directory that can be read?",
            };
            Err(Failure::new(format!("layer {}", shown(path)), error.errno(), hint))
        }
    }
}
