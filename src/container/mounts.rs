//! What is mounted in a container before its first process starts. All of it happens in the mount
//! namespace of this thread; sources and targets are descriptors, the targets found inside the
//! root only.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::MountAttrFlags;

use super::root::{Root, shown};
use super::{Bind, Spec};
use crate::errno::{Context, Errno, Error, Result};
use crate::sys::mount_tree::{self, Change};
use crate::sys::{namespace, terminal};

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The devices that a container gets: the host's, by their names in /dev.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links in /dev, and where they lead.
const LINKS: [(&str, &str); 6] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// The group `tty`, whose members may write to the terminals of others.
const TTY: &CStr = c"5";

/// Nothing can be started from it, or be a device.
const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Something of the host that will be attached in the container.
struct Source {
    mount: OwnedFd,
    is_directory: bool,
}

/// Gives this thread namespaces of its own and makes the root its root directory, with everything
/// but /proc in it. Returns where /proc is to be mounted.
pub(super) fn enter(spec: &Spec, directory: &Path) -> Result<OwnedFd> {
    let console = terminal::path();
    namespace::unshare().context(|| "namespaces of its own (unshare)")?;
    mount_tree::turn_away_from_host().context(|| "a mount namespace of its own")?;
    rustix::system::sethostname(spec.hostname.as_bytes()).context(|| "hostname")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // All sources first: with the root in place, paths of the host might lead into it.
    let binds: Vec<_> = spec.binds.iter().map(bind_source).collect::<Result<_>>()?;
    let resolv_conf = if spec.resolv_conf { resolv_conf()? } else { None };
    let console = console.as_deref().map(device).transpose()?;
    let devices = DEVICES.iter().map(|name| device(&Path::new("/dev").join(name)));
    let devices: Vec<_> = devices.collect::<Result<_>>()?;
    let sys = sysfs().context(|| "mounting /sys")?;

    let root = root(&spec.root).context(|| format!("mounting {}", shown(&spec.root)))?;
    let proc = root.top_directory("proc")?;
    let at_sys = root.top_directory("sys")?;
    mount_tree::attach(sys.as_fd(), at_sys.as_fd()).context(|| "mounting /sys")?;
    hide_firmware(sys.as_fd()).context(|| "hiding /sys/firmware")?;
    let at_dev = root.top_directory("dev")?;
    dev(&at_dev, &devices, console.as_ref()).context(|| "mounting /dev")?;
    if let Some(source) = resolv_conf {
        let at = root.file(Path::new(RESOLV_CONF))?;
        mount_tree::attach(source.as_fd(), at.as_fd())
            .context(|| format!("mounting the host's {RESOLV_CONF}"))?;
    }
    for (bind, source) in spec.binds.iter().zip(binds) {
        attach_bind(&root, bind, &source)?;
    }
    root.directory(directory).context(|| "working directory")?;
    mount_tree::enter(root.as_fd()).context(|| "entering the root (pivot_root)")?;
    Ok(proc)
}

/// Clones the mount of the root, without devices, and mounts the clone where the root is: the
/// host's own mount keeps its attributes.
fn root(path: &Path) -> Result<Root> {
    let below = Root::open(path)?;
    let mount = mount_tree::cloned(below.as_fd(), c"", true)?;
    let change =
        Change { private: true, recursive: true, ..Change::set(MountAttrFlags::MOUNT_ATTR_NODEV) };
    mount_tree::change(mount.as_fd(), change)?;
    mount_tree::attach(mount.as_fd(), below.as_fd())?;
    Ok(Root::new(mount))
}

/// What is to be bound, as a mount of its own. Directories bring no devices with them; a device
/// that is named itself is meant.
fn bind_source(bind: &Bind) -> Result<Source> {
    let open = || -> Result<Source> {
        let mount = mount_tree::cloned(CWD, &bind.host, true)?;
        let stat = rustix::fs::fstat(&mount)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let mut set = MountAttrFlags::empty();
        set.set(MountAttrFlags::MOUNT_ATTR_RDONLY, bind.read_only);
        set.set(MountAttrFlags::MOUNT_ATTR_NODEV, is_directory);
        let change = Change { private: true, recursive: true, ..Change::set(set) };
        mount_tree::change(mount.as_fd(), change)?;
        Ok(Source { mount, is_directory })
    };
    open().context(|| format!("binding {}", shown(&bind.host)))
}

/// Mounts a bind at its place.
fn attach_bind(root: &Root, bind: &Bind, source: &Source) -> Result<()> {
    let attach = || -> Result<()> {
        let at = if source.is_directory {
            root.directory(&bind.container)?
        } else {
            root.file(&bind.container)?
        };
        if root.is(at.as_fd())? {
            return Err(Error::new(Errno::EINVAL, "leads to the root itself"));
        }
        mount_tree::attach(source.mount.as_fd(), at.as_fd())
    };
    attach().context(|| format!("binding {} at {}", shown(&bind.host), shown(&bind.container)))
}

/// The host's resolv.conf; `None` if it has none.
fn resolv_conf() -> Result<Option<OwnedFd>> {
    match read_only(Path::new(RESOLV_CONF), INERT, MountAttrFlags::empty()) {
        Err(error) if error.errno() == Errno::ENOENT => Ok(None),
        result => result.map(Some),
    }
}

/// A device of the host. Read-only, which keeps nobody from writing to the device, but from
/// changing the mode and the owner of the host's node.
fn device(path: &Path) -> Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    read_only(path, attributes, MountAttrFlags::MOUNT_ATTR_NODEV)
}

/// A read-only mount of a file of the host.
fn read_only(path: &Path, set: MountAttrFlags, clear: MountAttrFlags) -> Result<OwnedFd> {
    let clone = || -> Result<OwnedFd> {
        let mount = mount_tree::cloned(CWD, path, false)?;
        let set = set | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let change = Change { set, clear, private: true, recursive: false };
        mount_tree::change(mount.as_fd(), change)?;
        Ok(mount)
    };
    clone().context(|| shown(path))
}

/// A fresh sysfs, read-only; where that may not be mounted, the host's.
fn sysfs() -> Result<OwnedFd> {
    let attributes = INERT | MountAttrFlags::MOUNT_ATTR_RDONLY;
    mount_tree::new_filesystem(c"sysfs", &[], attributes).or_else(|_| {
        let mount = mount_tree::cloned(CWD, c"/sys", true)?;
        let change = Change { private: true, recursive: true, ..Change::set(attributes) };
        mount_tree::change(mount.as_fd(), change)?;
        Ok(mount)
    })
}

/// Covers /sys/firmware with nothing.
fn hide_firmware(sys: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Ok(firmware) = rustix::fs::openat(sys, c"firmware", flags, Mode::empty()) {
        let attributes = INERT | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let empty = mount_tree::new_filesystem(c"tmpfs", &[], attributes)?;
        mount_tree::attach(empty.as_fd(), firmware.as_fd())?;
    }
    Ok(())
}

/// Fills a filesystem in memory with what belongs into /dev, and mounts it.
fn dev(at: &OwnedFd, devices: &[OwnedFd], console: Option<&OwnedFd>) -> Result<()> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let options = [(c"mode", c"755"), (c"size", c"1m")];
    let dev = mount_tree::new_filesystem(c"tmpfs", &options, attributes)?;
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &dev, name)?;
    }
    mount_tree::attach(dev.as_fd(), at.as_fd())?;
    let console = console.map(|mount| ("console", mount));
    for (name, mount) in DEVICES.into_iter().zip(devices).chain(console) {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        drop(rustix::fs::openat(&dev, name, flags, Mode::empty())?);
        mount_tree::attach(mount.as_fd(), path_only(&dev, name)?.as_fd())?;
    }
    let no_exec = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts = [(c"newinstance", c""), (c"ptmxmode", c"0666"), (c"mode", c"0620"), (c"gid", TTY)];
    match submount(&dev, "pts", c"devpts", &pts, no_exec) {
        // In a user namespace without such a group, terminals belong to that of who opens them.
        Err(error) if error.errno() == Errno::EINVAL => {
            let [all @ .., _] = pts;
            submount(&dev, "pts", c"devpts", &all, no_exec)?;
        }
        result => result?,
    }
    submount(&dev, "shm", c"tmpfs", &[(c"mode", c"1777")], INERT)?;
    match submount(&dev, "mqueue", c"mqueue", &[], INERT) {
        // Not every kernel has message queues.
        Err(error) if error.errno() == Errno::ENODEV => Ok(()),
        result => result,
    }
}

/// Mounts a new filesystem on a new directory of /dev.
fn submount(
    dev: &OwnedFd,
    name: &str,
    kind: &CStr,
    options: &[(&CStr, &CStr)],
    attributes: MountAttrFlags,
) -> Result<()> {
    let mount = || -> Result<()> {
        let mount = mount_tree::new_filesystem(kind, options, attributes)?;
        rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755))?;
        mount_tree::attach(mount.as_fd(), path_only(dev, name)?.as_fd())
    };
    mount().context(|| name)
}

/// A descriptor that only names an entry.
fn path_only(directory: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
}
