//! Mounting a FUSE filesystem: by the mount API where we may, by `fusermount3` where we may not.

use std::ffi::OsStr;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, StatxFlags};
use rustix::io::Errno as Raw;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};

use crate::errno::{Context, Errno, Error, Result};

/// The device that FUSE servers talk to the kernel through.
pub const DEVICE: &str = "/dev/fuse";

/// The program that mounts for those who may not.
pub const HELPER: &str = "fusermount3";

/// `STATX_MNT_ID_UNIQUE`
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// What is to be mounted, in the kernel's terms.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "mount flags, each on its own")]
pub struct FuseMount<'a> {
    /// Shown as the source in /proc/mounts.
    pub source: &'a str,
    /// Shown after `fuse.` as the type; no comma.
    pub subtype: &'a str,
    /// All users may enter, not only the one who mounts.
    pub allow_other: bool,
    /// `ro`
    pub read_only: bool,
    /// `nosuid`
    pub nosuid: bool,
    /// `nodev`
    pub nodev: bool,
    /// `noexec`
    pub noexec: bool,
    /// `noatime`
    pub noatime: bool,
    /// `sync`: after each write the kernel asks for the file to be synced.
    pub sync: bool,
    /// Security contexts, `context` and the like, by name.
    pub contexts: &'a [(String, String)],
}

/// Mounts at `target` (absolute, resolved) and returns the connection. The kernel checks
/// permissions (`default_permissions`).
///
/// # Errors
/// `ENODEV` without a FUSE device, `EPERM` where neither we nor the helper may mount, `EINVAL` for
/// a context that the kernel does not take (without SELinux, any).
pub fn mount(target: &Path, mount: &FuseMount<'_>) -> Result<OwnedFd> {
    let device = match open_device() {
        Ok(device) => device,
        Err(Raw::NOENT | Raw::NODEV | Raw::NXIO) => {
            return Err(Error::new(Errno::ENODEV, format!("there is no {DEVICE}")));
        }
        // The helper opens it as this user, too: there is no way around.
        Err(errno) => return Err(errno).context(|| format!("cannot open {DEVICE}")),
    };
    match mount_by_api(&device, target, mount) {
        Ok(()) => Ok(device),
        Err(Raw::PERM) => mount_by_helper(target, mount),
        Err(Raw::INVAL) if let Some((name, _)) = mount.contexts.first() => {
            let why = format!("the kernel does not take '{name}' (is SELinux enabled?)");
            Err(Error::new(Errno::EINVAL, why))
        }
        Err(errno) => Err(errno).context(|| "mounting"),
    }
}

/// Mounts by descriptors: made where nobody sees it, and attached when it is complete.
fn mount_by_api(
    device: &OwnedFd,
    target: &Path,
    mount: &FuseMount<'_>,
) -> std::result::Result<(), Raw> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let at = rustix::fs::open(target, flags, Mode::empty())?;
    let context = rustix::mount::fsopen(c"fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    for (key, value) in [
        ("source", mount.source),
        ("subtype", mount.subtype),
        ("fd", &device.as_raw_fd().to_string()),
        ("rootmode", "40755"),
        ("user_id", &uid.as_raw().to_string()),
        ("group_id", &gid.as_raw().to_string()),
    ] {
        rustix::mount::fsconfig_set_string(&context, key, value)?;
    }
    for (on, key) in [
        (true, "default_permissions"),
        (mount.allow_other, "allow_other"),
        (mount.read_only, "ro"),
        (mount.sync, "sync"),
    ] {
        if on {
            rustix::mount::fsconfig_set_flag(&context, key)?;
        }
    }
    for (name, value) in mount.contexts {
        rustix::mount::fsconfig_set_string(&context, name.as_str(), value.as_str())?;
    }
    rustix::mount::fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::empty();
    for (on, attribute) in [
        (mount.read_only, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (mount.nosuid, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (mount.nodev, MountAttrFlags::MOUNT_ATTR_NODEV),
        (mount.noexec, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (mount.noatime, MountAttrFlags::MOUNT_ATTR_NOATIME),
    ] {
        attributes.set(attribute, on);
    }
    let made = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let how = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(&made, c"", &at, c"", how)
}

/// Opens [`DEVICE`] for a new connection.
pub fn open_device() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Lets the helper mount, which sends the connection over a socket.
fn mount_by_helper(target: &Path, mount: &FuseMount<'_>) -> Result<OwnedFd> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let output = Command::new(HELPER)
        .arg("-o")
        .arg(helper_options(mount))
        .arg("--")
        .arg(target)
        // The helper sends on the descriptor it is told; standard input needs no inheriting.
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| {
            Error::new(Errno::EPERM, format!("only root may mount without {HELPER}: {error}"))
        })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(Errno::EPERM, text.trim().to_owned()));
    }
    receive_fd(&ours)
}

/// What the helper is told.
fn helper_options(mount: &FuseMount<'_>) -> String {
    let source = mount.source.replace('\\', "\\\\").replace(',', "\\,");
    let mut options = format!("fsname={source},subtype={}", mount.subtype);
    options.push_str(",default_permissions");
    for (on, option) in [
        (mount.allow_other, ",allow_other"),
        (mount.read_only, ",ro"),
        (mount.noexec, ",noexec"),
        (mount.noatime, ",noatime"),
        (mount.sync, ",sync"),
    ] {
        options.push_str(if on { option } else { "" });
    }
    for (name, value) in mount.contexts {
        options.push_str(&[",", name, "=\"", value, "\""].concat());
    }
    options
}

/// Receives one descriptor.
fn receive_fd(socket: &OwnedFd) -> Result<OwnedFd> {
    let mut byte = [0_u8; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .ok_or_else(|| Error::new(Errno::EIO, format!("{HELPER} sent no connection")))
}

/// Names the mount that is on top at `path`, without asking its filesystem anything.
pub fn mount_id(path: &Path) -> Result<u64> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    Ok(rustix::fs::statx(CWD, path, flags, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// The device number, (major, minor), of what is mounted at `path`, as its files have it and
/// mountinfo shows it; without asking its filesystem anything.
pub fn device(path: &Path) -> Result<(u32, u32)> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let stat = rustix::fs::statx(CWD, path, flags, StatxFlags::MNT_ID)?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor))
}

/// Has the kernel read so many KiB ahead in files of what is mounted at `path`; FUSE itself asks
/// for 128 and takes no more. Only the administrator may say it.
pub fn read_ahead(path: &Path, kib: u32) -> Result<()> {
    let (major, minor) = device(path)?;
    let file = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    std::fs::write(&file, kib.to_string()).context(|| file)
}

/// As [`mount_id`], by a number that no later mount gets. `None` before Linux 6.8.
pub fn unique_mount_id(path: &Path) -> Option<u64> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let wanted = StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
    let stat = rustix::fs::statx(CWD, path, flags, wanted).ok()?;
    (stat.stx_mask & STATX_MNT_ID_UNIQUE != 0).then_some(stat.stx_mnt_id)
}

/// A mount is busy for the moment in which anybody looks at it (df, another command of ours that
/// reads the mounts of the machine): how often to try again, and after how long.
const GLANCES: u32 = 10;
const GLANCE: std::time::Duration = std::time::Duration::from_millis(20);

/// Unmounts what is on top at `target`; with `lazy` even while it is in use.
///
/// # Errors
/// `EBUSY` while it is in use and not `lazy`; `EPERM` where neither we nor the helper may.
pub fn unmount(target: &Path, lazy: bool) -> Result<()> {
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, lazy);
    let mut tries = GLANCES;
    loop {
        match rustix::mount::unmount(target, flags) {
            Err(Raw::PERM) => break,
            Err(Raw::BUSY) if tries > 0 => {
                tries -= 1;
                std::thread::sleep(GLANCE);
            }
            result => return Ok(result?),
        }
    }
    let mut helper = Command::new(HELPER);
    helper.arg(if lazy { "-uz" } else { "-u" }).arg("--").arg(target).stdin(Stdio::null());
    let output = helper.output().map_err(|error| {
        Error::new(Errno::EPERM, format!("only root may unmount without {HELPER}: {error}"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let errno = if text.contains("busy") { Errno::EBUSY } else { Errno::EPERM };
    Err(Error::new(errno, text.trim().to_owned()))
}

/// Locks the directory at `path`, which is about to be covered by a mount, in shared mode, for as
/// long as the descriptor is open. `None` where that is impossible; then nobody can wait for us.
pub fn claim(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    rustix::fs::flock(&dir, FlockOperation::NonBlockingLockShared).ok()?;
    Some(dir)
}

/// Waits until nobody claims the directory at `path`: until those who served a mount there have
/// ended. At most for `limit`; returns whether they have. A mount that was copied into another
/// mount namespace is served on there.
pub fn wait_unclaimed(path: &Path, limit: Duration) -> Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty())?;
    let begin = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Raw::WOULDBLOCK | Raw::INTR) if begin.elapsed() < limit => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Err(Raw::WOULDBLOCK | Raw::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether `program` is in one of the directories of `$PATH`.
pub fn find_program(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    path.as_bytes()
        .split(|&byte| byte == b':')
        .map(|dir| Path::new(OsStr::from_bytes(dir)).join(program))
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok())
}
