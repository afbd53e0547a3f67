//! The kernel's own union, as it mounts by default, and with all that container engines turn on.

use std::ffi::CString;

use rustix::fs::CWD;
use rustix::io::Errno as Raw;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount, move_mount,
};

use super::{Mounted, Stack, Target};
use crate::errno::{Context, Errno, Error, Result};

/// The longest value that the kernel takes for an option by itself.
const LONGEST: usize = 255;

/// The kernel's overlayfs with some options.
#[derive(Debug)]
pub(super) struct Overlay {
    name: &'static str,
    options: &'static [(&'static str, &'static str)],
}

impl Overlay {
    /// As it mounts by default.
    pub(super) fn usual() -> Self {
        Self { name: "overlay", options: &[] }
    }

    /// With directories of layers renamed, metadata copied without data, and hard links kept.
    pub(super) fn full() -> Self {
        let options = &[("redirect_dir", "on"), ("metacopy", "on"), ("index", "on")];
        Self { name: "overlay-full", options }
    }

    fn said(&self) -> String {
        let said: Vec<_> =
            self.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
        said.join(",")
    }
}

impl Target for Overlay {
    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> String {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let options = if self.options.is_empty() { "default options".into() } else { self.said() };
        format!("overlayfs of Linux {release}, {options}")
    }

    fn mount(&self, stack: &Stack<'_>) -> Result<Mounted> {
        match layer_by_layer(stack, self.options) {
            // Before Linux 6.8 there is no option for one more layer.
            Err(Raw::INVAL | Raw::NOSYS) => {
                let text = [stack.options(), self.said()].join(",");
                let text = CString::new(text.trim_end_matches(',')).map_err(|_| Errno::EINVAL)?;
                let flags = MountFlags::empty();
                mount(c"overlay", stack.mnt, c"overlay", flags, Some(text.as_c_str()))
            }
            result => result,
        }
        .map_err(Error::from)
        .context(|| "the kernel refuses it")?;
        Ok(Mounted::kernel(stack))
    }
}

/// Mounts with an option for each layer: a list of hundreds is longer than a page.
fn layer_by_layer(stack: &Stack<'_>, options: &[(&str, &str)]) -> rustix::io::Result<()> {
    let context = fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let paths = stack.lowers.iter().map(|lower| ("lowerdir+", lower.as_path()));
    let paths = paths.chain([("upperdir", stack.upper), ("workdir", stack.work)]);
    for (key, path) in paths {
        if path.as_os_str().len() > LONGEST {
            return Err(Raw::INVAL);
        }
        fsconfig_set_string(&context, key, path)?;
    }
    for &(key, value) in options {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let made = fsmount(&context, flags, MountAttrFlags::empty())?;
    move_mount(&made, c"", CWD, stack.mnt, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}
