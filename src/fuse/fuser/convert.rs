//! Between fuser's types and ours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, Request, TimeOrNow};

use crate::attr::{Attr, Kind, SetTime, Time};
use crate::errno::Errno;
use crate::union::Caller;

/// Our error number as fuser's.
pub(super) fn errno(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw())
}

/// Who asks.
pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid() }
}

/// A type as fuser has it.
pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::Char => FileType::CharDevice,
        Kind::Block => FileType::BlockDevice,
    }
}

/// Attributes as fuser has them.
pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: wire_rdev(attr.rdev),
        blksize: attr.blksize,
        flags: 0,
    }
}

/// Attributes of nothing: node id 0 in an entry reply says "no such name", for as long as the
/// reply's time to live.
pub(super) fn no_entry() -> FileAttr {
    dir_attr(0, Kind::File)
}

/// Attributes of `.` and `..` in a listing, of which the kernel uses the number and the type.
pub(super) fn dir_attr(ino: u64, kind: Kind) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: file_type(kind),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// A device number as FUSE sends it: glibc's encoding, whose low 32 bits hold all of a major below
/// 4096 and a minor below 2^20, which is as much as Linux has.
fn wire_rdev(rdev: u64) -> u32 {
    u32::try_from(rdev & u64::from(u32::MAX)).unwrap_or(0)
}

/// A time as the standard library has it; the nearest one where it has none.
pub(super) fn system_time(time: Time) -> SystemTime {
    let whole = Duration::from_secs(time.sec.unsigned_abs());
    let second =
        if time.sec < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second
        .and_then(|second| second.checked_add(Duration::from_nanos(u64::from(time.nsec))))
        .unwrap_or(UNIX_EPOCH)
}

/// A time that fuser decoded from a SETATTR.
///
/// fuser 0.18 takes (-2 s, 800,000,000 ns), which is -1.2 s, for the point 2.8 s before the epoch:
/// it applies the sign to both parts. Before the epoch, then, the distance's two parts are the two
/// words that came over the wire, the first one negated.
pub(super) fn wire_time(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Time {
            sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nsec: after.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            Time {
                sec: 0_i64.checked_sub_unsigned(before.as_secs()).unwrap_or(i64::MIN),
                nsec: before.subsec_nanos(),
            }
        }
    }
}

/// A time to set.
pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(wire_time(time)),
    }
}

#[cfg(test)]
mod tests;
