//! From options to an open stack of layers.

use std::path::Path;
use std::sync::Arc;

use super::options::MountOptions;
use super::output::Failure;
use super::overlap::shown;
use crate::errno::{Errno, Error};
use crate::layer::dir::{DirLayer, DirUpper, UpperOptions};
use crate::layer::{Layer, Upper};
use crate::union::Stack;

/// Opens the layers of `options`, whose paths are absolute and do not overlap.
pub(super) fn open(options: &MountOptions) -> Result<Stack, Failure> {
    let lowers = options.lowers.iter().map(|path| lower(path)).collect::<Result<_, _>>()?;
    let upper = match (&options.upper, &options.work) {
        (Some(upper), Some(work)) => {
            let how = UpperOptions { volatile: options.volatile };
            let opened = DirUpper::open(upper, work, how)
                .map_err(|error| layer_failure("upperdir", upper, &error))?;
            Some(opened as Arc<dyn Upper>)
        }
        _ => None,
    };
    Ok(Stack { upper, lowers })
}

/// Opens a read-only layer.
pub(super) fn lower(path: &Path) -> Result<Arc<dyn Layer>, Failure> {
    match DirLayer::open(path) {
        Ok(layer) => Ok(layer),
        Err(error) => Err(layer_failure("lowerdir", path, &error)),
    }
}

/// Why a layer cannot be used.
pub(super) fn layer_failure(role: &str, path: &Path, error: &Error) -> Failure {
    let hint = match error.errno() {
        Errno::EBUSY => "unmount the other mount of it, or wait until it has ended",
        Errno::EXDEV => "upperdir and workdir must be on one filesystem",
        Errno::ENOENT => "make the directory first, or correct the path",
        Errno::EACCES | Errno::EPERM => "run as root, or as the owner of the directory",
        Errno::EROFS => "choose an upperdir on a filesystem that can be written to",
        _ => "'plyfs check' with the same options tells more",
    };
    Failure::new(format!("{role} {}", shown(path)), error, hint)
}
