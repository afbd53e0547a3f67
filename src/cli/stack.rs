//! From options to an open stack of layers.

use std::path::Path;
use std::sync::Arc;

use super::options::MountOptions;
use super::output::Failure;
use super::overlap::shown;
use crate::errno::Errno;
use crate::layer::dir::{DirLayer, DirUpper, UpperOptions};
use crate::layer::{Layer, Upper};
use crate::union::Stack;

/// Opens the layers of `options`, whose paths are absolute and do not overlap. The upper layer
/// comes a second time, to be closed at the end.
pub(super) fn open(options: &MountOptions) -> Result<(Stack, Option<Arc<DirUpper>>), Failure> {
    let lowers = options.lowers.iter().map(|path| lower(path)).collect::<Result<_, _>>()?;
    let upper = match (&options.upper, &options.work) {
        (Some(upper), Some(work)) => {
            let how = UpperOptions { volatile: options.volatile };
            let opened = DirUpper::open(upper, work, how);
            // Its errors name the directory and say what to do.
            Some(opened.map_err(|error| Failure::new("mount", &error, ""))?)
        }
        _ => None,
    };
    let stack = Stack { upper: upper.clone().map(|upper| upper as Arc<dyn Upper>), lowers };
    Ok((stack, upper))
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
