//! One object of a filesystem, reached without ever following a symbolic link.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, Timespec};
use rustix::fs::{Timestamps, UTIME_NOW, UTIME_OMIT, Uid};
use rustix::io::Errno as Raw;

use super::cvt;
use crate::attr::{Attr, Kind, SetTime, Time};
use crate::errno::{Errno, Error, Result};

/// How an object is reached.
#[derive(Clone, Copy, Debug)]
pub enum Object<'a> {
    /// As the entry of a directory.
    Entry(BorrowedFd<'a>, &'a [u8]),
    /// A directory by a descriptor of its own, `O_PATH` perhaps.
    Dir(BorrowedFd<'a>),
    /// Anything else by a descriptor of its own, `O_PATH` perhaps.
    Itself(BorrowedFd<'a>),
}

/// What statx(2) tells of an object.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// The attributes.
    pub attr: Attr,
    /// The filesystem, `st_dev`.
    pub dev: u64,
    /// The mount.
    pub mount: u64,
    /// When the object was made, where the filesystem tells.
    pub born: Option<Time>,
}

/// Set once the kernel has said that it has no fchmodat2 (Linux before 6.6).
static NO_FCHMODAT2: AtomicBool = AtomicBool::new(false);
/// Its number, which is one and the same everywhere.
const SYS_FCHMODAT2: libc::c_long = 452;

/// The path by which this process reaches what a descriptor has open.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl<'a> Object<'a> {
    /// The directory that `fd` has open, as an object.
    pub fn dir(fd: &'a impl AsFd) -> Self {
        Self::Dir(fd.as_fd())
    }

    /// Directory, path and flags for the calls that take all three.
    fn at(self) -> (BorrowedFd<'a>, &'a [u8], AtFlags) {
        match self {
            Self::Entry(dir, name) => (dir, name, AtFlags::SYMLINK_NOFOLLOW),
            // Not ".": who owns a directory may look at it even if he may not search it.
            Self::Dir(fd) | Self::Itself(fd) => (fd, b"", AtFlags::EMPTY_PATH),
        }
    }

    /// statx(2).
    pub fn stat(self) -> Result<Stat> {
        let (dir, path, flags) = self.at();
        let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID | StatxFlags::BTIME;
        stat_of(&rustix::fs::statx(dir, path, flags | AtFlags::NO_AUTOMOUNT, mask)?)
    }

    /// Opens the object. Never for a FIFO or a device: opening does things to those.
    pub fn open(self, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(match self {
            Self::Entry(dir, name) => {
                rustix::fs::openat(dir, name, flags | OFlags::NOFOLLOW, Mode::empty())?
            }
            Self::Dir(fd) => match rustix::fs::openat(fd, ".", flags, Mode::empty()) {
                // To read it is another thing than to search it.
                Err(Raw::ACCESS) => rustix::fs::openat(CWD, proc_path(fd), flags, Mode::empty())?,
                result => result?,
            },
            Self::Itself(fd) => rustix::fs::openat(CWD, proc_path(fd), flags, Mode::empty())?,
        })
    }

    /// A descriptor that only names the object (`O_PATH`).
    pub fn pin(self) -> Result<OwnedFd> {
        Ok(match self {
            Self::Entry(dir, name) => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(dir, name, flags, Mode::empty())?
            }
            Self::Dir(fd) | Self::Itself(fd) => fd.try_clone_to_owned()?,
        })
    }

    /// The target of a symbolic link.
    pub fn readlink(self) -> Result<Vec<u8>> {
        let (dir, path, _) = self.at();
        Ok(rustix::fs::readlinkat(dir, path, Vec::new())?.into_bytes())
    }

    /// Sets owner and group; clears set-id bits and capabilities as a side effect.
    pub fn chown(self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let (dir, path, flags) = self.at();
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        Ok(rustix::fs::chownat(dir, path, uid, gid, flags)?)
    }

    /// Sets the permission bits; `EOPNOTSUPP` on a symbolic link.
    pub fn chmod(self, perm: u16) -> Result<()> {
        if !NO_FCHMODAT2.load(Ordering::Relaxed) {
            match self.fchmodat2(perm) {
                Err(error) if error.errno() == Errno::ENOSYS => {
                    NO_FCHMODAT2.store(true, Ordering::Relaxed);
                }
                result => return result,
            }
        }
        let fd = self.pin()?;
        let mode = Mode::from_raw_mode(perm.into());
        Ok(rustix::fs::chmodat(CWD, proc_path(fd.as_fd()), mode, AtFlags::empty())?)
    }

    fn fchmodat2(self, perm: u16) -> Result<()> {
        let (dir, path, flags) = self.at();
        let path = std::ffi::CString::new(path).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the path is a terminated string that outlives the call.
        let returned = unsafe {
            libc::syscall(
                SYS_FCHMODAT2,
                dir.as_raw_fd(),
                path.as_ptr(),
                libc::c_uint::from(perm),
                flags.bits(),
            )
        };
        cvt(returned).map(drop)
    }

    /// Sets access and modification time; what is `None` stays.
    pub fn set_times(self, atime: Option<SetTime>, mtime: Option<SetTime>) -> Result<()> {
        let (dir, path, flags) = self.at();
        let times = Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) };
        Ok(rustix::fs::utimensat(dir, path, &times, flags)?)
    }

    /// Sets the size of a regular file.
    pub fn truncate(self, size: u64) -> Result<()> {
        Ok(rustix::fs::ftruncate(self.open(OFlags::WRONLY)?, size)?)
    }

    /// Gives the object another name.
    pub fn link(self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        match self {
            Self::Entry(from, old) => {
                rustix::fs::linkat(from, old, dir, name, AtFlags::empty())?;
            }
            Self::Dir(_) => return Err(Errno::EPERM.into()),
            Self::Itself(fd) => {
                rustix::fs::linkat(CWD, proc_path(fd), dir, name, AtFlags::SYMLINK_FOLLOW)?;
            }
        }
        Ok(())
    }
}

fn timespec(time: Option<SetTime>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(SetTime::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(SetTime::At(time)) => Timespec { tv_sec: time.sec, tv_nsec: time.nsec.into() },
    }
}

fn stat_of(stat: &Statx) -> Result<Stat> {
    let mode = u32::from(stat.stx_mode);
    let kind = Kind::from_mode(mode)
        .ok_or_else(|| Error::new(Errno::EIO, format!("no such file type: mode {mode:o}")))?;
    let time = |at: StatxTimestamp| Time { sec: at.tv_sec, nsec: at.tv_nsec };
    let attr = Attr {
        ino: stat.stx_ino,
        kind,
        perm: stat.stx_mode & 0o7777,
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        rdev: rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        blksize: stat.stx_blksize,
        atime: time(stat.stx_atime),
        mtime: time(stat.stx_mtime),
        ctime: time(stat.stx_ctime),
    };
    let dev = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
    let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    let born = has_birth.then(|| time(stat.stx_btime));
    Ok(Stat { attr, dev, mount: stat.stx_mnt_id, born })
}
