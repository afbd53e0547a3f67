//! A request as plain values: pure functions over the bytes that came.

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::wire::{self, fattr, opcode};
use crate::attr::{SetAttr, SetTime, Time};
use crate::errno::{Errno, Result};
use crate::fuse::handlers;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// What the answer is known by.
    pub unique: u64,
    /// The node it is about; 1 is the root.
    pub node: u64,
    /// Filesystem user id of who asks; all ones where the kernel does not tell.
    pub uid: u32,
    /// Filesystem group id of who asks; likewise.
    pub gid: u32,
    /// The thread that asks, in the pid namespace of the mount; 0 if it is not in there.
    pub pid: u32,
    /// What is asked.
    pub op: Op<'a>,
}

/// What is asked. Names are as they come: unchecked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the arguments of the system calls of the same names")]
pub enum Op<'a> {
    Lookup {
        name: &'a [u8],
    },
    Forget {
        count: u64,
    },
    BatchForget(Forgets<'a>),
    GetAttr,
    SetAttr(SetAttr),
    ReadLink,
    Symlink {
        name: &'a [u8],
        target: &'a [u8],
    },
    MkNod {
        name: &'a [u8],
        mode: u32,
        umask: u32,
        rdev: u32,
    },
    MkDir {
        name: &'a [u8],
        mode: u32,
        umask: u32,
    },
    Unlink {
        name: &'a [u8],
    },
    RmDir {
        name: &'a [u8],
    },
    Rename {
        name: &'a [u8],
        to: u64,
        new_name: &'a [u8],
        flags: u32,
    },
    Link {
        node: u64,
        name: &'a [u8],
    },
    Open {
        flags: i32,
        kill_set_id: bool,
    },
    Read {
        handle: u64,
        offset: u64,
        size: u32,
    },
    Write {
        handle: u64,
        offset: u64,
        data: &'a [u8],
        kill_set_id: bool,
    },
    StatFs,
    Release {
        handle: u64,
    },
    FSync {
        data_only: bool,
    },
    SetXattr {
        name: &'a [u8],
        value: &'a [u8],
        flags: i32,
        kill_set_gid: bool,
    },
    GetXattr {
        name: &'a [u8],
        size: u32,
    },
    ListXattr {
        size: u32,
    },
    RemoveXattr {
        name: &'a [u8],
    },
    Flush,
    Init(Offer),
    OpenDir,
    ReadDir {
        offset: u64,
        size: u32,
    },
    ReadDirPlus {
        offset: u64,
        size: u32,
    },
    ReleaseDir,
    FSyncDir {
        data_only: bool,
    },
    Access {
        mask: u32,
    },
    Create {
        name: &'a [u8],
        mode: u32,
        umask: u32,
        flags: i32,
    },
    TmpFile {
        mode: u32,
        umask: u32,
        flags: i32,
    },
    Interrupt {
        unique: u64,
    },
    Destroy,
    IoCtl,
    FAllocate {
        handle: u64,
        offset: u64,
        length: u64,
        mode: i32,
    },
    LSeek {
        handle: u64,
        offset: i64,
        whence: i32,
    },
    CopyFileRange {
        from: u64,
        to: (u64, u64, u64),
        offset: u64,
        len: u64,
        wide: bool,
    },
    SyncFs,
    StatX,
    /// Anything else, by its number.
    Unknown(u32),
}

/// What a kernel offers at the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Version of its ABI.
    pub version: (u32, u32),
    /// Bytes that it reads ahead.
    pub max_readahead: u32,
    /// What it can do.
    pub flags: u64,
}

/// Nodes to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgets<'a>(&'a [u8]);

impl Iterator for Forgets<'_> {
    /// The node and how often it was looked up.
    type Item = (u64, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let (one, rest) = wire::ForgetOne::read_from_prefix(self.0).ok()?;
        self.0 = rest;
        Some((one.nodeid, one.nlookup))
    }
}

/// How a request is laid out, as far as that was agreed upon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// `FUSE_SETXATTR_EXT`
    pub setxattr_ext: bool,
}

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What the answer would be known by, if that much is there.
    pub unique: Option<u64>,
}

impl<'a> Request<'a> {
    /// Reads one request, which is all of `bytes`.
    pub fn parse(bytes: &'a [u8], layout: Layout) -> std::result::Result<Self, Malformed> {
        let nothing = Malformed { unique: None };
        let (header, body) = wire::InHeader::read_from_prefix(bytes).map_err(|_| nothing)?;
        let malformed = Malformed { unique: Some(header.unique) };
        let extensions = usize::from(header.extensions) * 8;
        let end = body.len().checked_sub(extensions).ok_or(malformed)?;
        if usize::try_from(header.len) != Ok(bytes.len()) {
            return Err(malformed);
        }
        let mut body = Body(body.get(..end).ok_or(malformed)?);
        let op = op(header.opcode, &mut body, layout).map_err(|_| malformed)?;
        let wire::InHeader { unique, nodeid: node, uid, gid, pid, .. } = header;
        Ok(Self { unique, node, uid, gid, pid, op })
    }
}

/// What follows the header, as far as it has not been read.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take<T: FromBytes + Immutable + KnownLayout>(&mut self) -> Result<T> {
        let (value, rest) = T::read_from_prefix(self.0).map_err(|_| Errno::EINVAL)?;
        self.0 = rest;
        Ok(value)
    }

    /// Bytes up to a NUL.
    fn name(&mut self) -> Result<&'a [u8]> {
        let end = self.0.iter().position(|&byte| byte == 0).ok_or(Errno::EINVAL)?;
        let (name, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        Ok(name)
    }

    /// So many bytes.
    fn bytes(&mut self, len: u32) -> Result<&'a [u8]> {
        let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(bytes)
    }
}

fn op<'a>(code: u32, body: &mut Body<'a>, layout: Layout) -> Result<Op<'a>> {
    Ok(match code {
        opcode::LOOKUP => Op::Lookup { name: body.name()? },
        opcode::FORGET => Op::Forget { count: body.take::<wire::ForgetIn>()?.nlookup },
        opcode::BATCH_FORGET => {
            let count = body.take::<wire::BatchForgetIn>()?.count;
            let size = u32::try_from(size_of::<wire::ForgetOne>()).unwrap_or(u32::MAX);
            Op::BatchForget(Forgets(body.bytes(count.checked_mul(size).ok_or(Errno::EINVAL)?)?))
        }
        opcode::GETATTR => Op::GetAttr,
        opcode::SETATTR => Op::SetAttr(set_attr(&body.take()?)),
        opcode::READLINK => Op::ReadLink,
        opcode::STATFS => Op::StatFs,
        opcode::OPEN => {
            let wire::OpenIn { flags, open_flags } = body.take()?;
            let kill_set_id = open_flags & wire::OPEN_KILL_SUIDGID != 0;
            Op::Open { flags: flags.cast_signed(), kill_set_id }
        }
        opcode::READ => {
            let wire::ReadIn { fh, offset, size, .. } = body.take()?;
            Op::Read { handle: fh, offset, size }
        }
        opcode::WRITE => {
            let wire::WriteIn { fh, offset, size, write_flags, .. } = body.take()?;
            let kill_set_id = write_flags & wire::WRITE_KILL_SUIDGID != 0;
            Op::Write { handle: fh, offset, data: body.bytes(size)?, kill_set_id }
        }
        opcode::RELEASE => Op::Release { handle: body.take::<wire::ReleaseIn>()?.fh },
        opcode::FLUSH => Op::Flush,
        opcode::FSYNC | opcode::FSYNCDIR => {
            let flags = body.take::<wire::FSyncIn>()?.fsync_flags;
            let data_only = flags & wire::FSYNC_DATA_ONLY != 0;
            let is_dir = code == opcode::FSYNCDIR;
            if is_dir { Op::FSyncDir { data_only } } else { Op::FSync { data_only } }
        }
        opcode::INIT => Op::Init(offer(body)?),
        opcode::DESTROY => Op::Destroy,
        opcode::INTERRUPT => Op::Interrupt { unique: body.take::<wire::InterruptIn>()?.unique },
        opcode::OPENDIR => Op::OpenDir,
        opcode::RELEASEDIR => Op::ReleaseDir,
        opcode::READDIR | opcode::READDIRPLUS => {
            let wire::ReadIn { offset, size, .. } = body.take()?;
            let plus = code == opcode::READDIRPLUS;
            if plus { Op::ReadDirPlus { offset, size } } else { Op::ReadDir { offset, size } }
        }
        opcode::ACCESS => Op::Access { mask: body.take::<wire::AccessIn>()?.mask },
        opcode::IOCTL => Op::IoCtl,
        opcode::FALLOCATE => {
            let wire::FAllocateIn { fh, offset, length, mode, .. } = body.take()?;
            Op::FAllocate { handle: fh, offset, length, mode: mode.cast_signed() }
        }
        opcode::LSEEK => {
            let wire::LSeekIn { fh, offset, whence, .. } = body.take()?;
            let (offset, whence) = (offset.cast_signed(), whence.cast_signed());
            Op::LSeek { handle: fh, offset, whence }
        }
        opcode::COPY_FILE_RANGE | opcode::COPY_FILE_RANGE_64 => {
            let wide = code == opcode::COPY_FILE_RANGE_64;
            let wire::CopyFileRangeIn { fh_in, off_in, nodeid_out, fh_out, off_out, len, .. } =
                body.take()?;
            let to = (nodeid_out, fh_out, off_out);
            Op::CopyFileRange { from: fh_in, to, offset: off_in, len, wide }
        }
        opcode::SYNCFS => Op::SyncFs,
        opcode::STATX => Op::StatX,
        _ => return names(code, body, layout),
    })
}

/// The operations on names.
fn names<'a>(code: u32, body: &mut Body<'a>, layout: Layout) -> Result<Op<'a>> {
    Ok(match code {
        opcode::SYMLINK => Op::Symlink { name: body.name()?, target: body.name()? },
        opcode::MKNOD => {
            let wire::MkNodIn { mode, rdev, umask, .. } = body.take()?;
            Op::MkNod { name: body.name()?, mode, umask, rdev }
        }
        opcode::MKDIR => {
            let wire::MkDirIn { mode, umask } = body.take()?;
            Op::MkDir { name: body.name()?, mode, umask }
        }
        opcode::UNLINK => Op::Unlink { name: body.name()? },
        opcode::RMDIR => Op::RmDir { name: body.name()? },
        opcode::RENAME => {
            let to = body.take::<wire::RenameIn>()?.newdir;
            Op::Rename { name: body.name()?, to, new_name: body.name()?, flags: 0 }
        }
        opcode::RENAME2 => {
            let wire::Rename2In { newdir: to, flags, .. } = body.take()?;
            Op::Rename { name: body.name()?, to, new_name: body.name()?, flags }
        }
        opcode::LINK => {
            let node = body.take::<wire::LinkIn>()?.oldnodeid;
            Op::Link { node, name: body.name()? }
        }
        opcode::SETXATTR => {
            let wire::SetXattrIn { size, flags } = body.take()?;
            let more =
                if layout.setxattr_ext { body.take()? } else { wire::SetXattrExt::default() };
            let kill_set_gid = more.setxattr_flags & wire::SETXATTR_ACL_KILL_SGID != 0;
            let (name, flags) = (body.name()?, flags.cast_signed());
            Op::SetXattr { name, value: body.bytes(size)?, flags, kill_set_gid }
        }
        opcode::GETXATTR => {
            let size = body.take::<wire::GetXattrIn>()?.size;
            Op::GetXattr { name: body.name()?, size }
        }
        opcode::LISTXATTR => Op::ListXattr { size: body.take::<wire::GetXattrIn>()?.size },
        opcode::REMOVEXATTR => Op::RemoveXattr { name: body.name()? },
        opcode::CREATE | opcode::TMPFILE => {
            let wire::CreateIn { flags, mode, umask, .. } = body.take()?;
            let flags = flags.cast_signed();
            if code == opcode::TMPFILE {
                return Ok(Op::TmpFile { mode, umask, flags });
            }
            Op::Create { name: body.name()?, mode, umask, flags }
        }
        other => Op::Unknown(other),
    })
}

fn offer(body: &mut Body<'_>) -> Result<Offer> {
    let wire::InitIn { major, minor, max_readahead, flags } = body.take()?;
    let mut flags = u64::from(flags);
    if flags & wire::init::INIT_EXT != 0 {
        flags |= u64::from(body.take::<wire::InitExt>()?.flags2) << 32;
    }
    Ok(Offer { version: (major, minor), max_readahead, flags })
}

fn set_attr(set: &wire::SetAttrIn) -> SetAttr {
    let has = |flag| set.valid & flag != 0;
    let time = |at, now, sec: u64, nsec| match (has(now), has(at)) {
        (true, _) => Some(SetTime::Now),
        (false, true) => Some(SetTime::At(Time { sec: sec.cast_signed(), nsec })),
        (false, false) => None,
    };
    SetAttr {
        perm: has(fattr::MODE).then(|| handlers::bits(set.mode, 0o7777)),
        uid: has(fattr::UID).then_some(set.uid),
        gid: has(fattr::GID).then_some(set.gid),
        size: has(fattr::SIZE).then_some(set.size),
        atime: time(fattr::ATIME, fattr::ATIME_NOW, set.atime, set.atimensec),
        mtime: time(fattr::MTIME, fattr::MTIME_NOW, set.mtime, set.mtimensec),
        kill_set_id: has(fattr::KILL_SUIDGID),
    }
}

impl Op<'_> {
    /// Its name, for the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lookup { .. } => "lookup",
            Self::Forget { .. } | Self::BatchForget(_) => "forget",
            Self::GetAttr => "getattr",
            Self::SetAttr(_) => "setattr",
            Self::ReadLink => "readlink",
            Self::Symlink { .. } => "symlink",
            Self::MkNod { .. } => "mknod",
            Self::MkDir { .. } => "mkdir",
            Self::Unlink { .. } => "unlink",
            Self::RmDir { .. } => "rmdir",
            Self::Rename { .. } => "rename",
            Self::Link { .. } => "link",
            Self::Open { .. } => "open",
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::StatFs => "statfs",
            Self::Release { .. } => "release",
            Self::FSync { .. } => "fsync",
            Self::SetXattr { .. } => "setxattr",
            Self::GetXattr { .. } => "getxattr",
            Self::ListXattr { .. } => "listxattr",
            Self::RemoveXattr { .. } => "removexattr",
            Self::Flush => "flush",
            Self::Init(_) => "init",
            Self::OpenDir => "opendir",
            Self::ReadDir { .. } => "readdir",
            Self::ReadDirPlus { .. } => "readdirplus",
            Self::ReleaseDir => "releasedir",
            Self::FSyncDir { .. } => "fsyncdir",
            Self::Access { .. } => "access",
            Self::Create { .. } => "create",
            Self::TmpFile { .. } => "tmpfile",
            Self::Interrupt { .. } => "interrupt",
            Self::Destroy => "destroy",
            Self::IoCtl => "ioctl",
            Self::FAllocate { .. } => "fallocate",
            Self::LSeek { .. } => "lseek",
            Self::CopyFileRange { .. } => "copy_file_range",
            Self::SyncFs => "syncfs",
            Self::StatX => "statx",
            Self::Unknown(_) => "unknown",
        }
    }

    /// The name that it is about, or nothing.
    pub fn entry(&self) -> &[u8] {
        match self {
            Self::Lookup { name }
            | Self::Symlink { name, .. }
            | Self::MkNod { name, .. }
            | Self::MkDir { name, .. }
            | Self::Unlink { name }
            | Self::RmDir { name }
            | Self::Rename { name, .. }
            | Self::Link { name, .. }
            | Self::SetXattr { name, .. }
            | Self::GetXattr { name, .. }
            | Self::RemoveXattr { name }
            | Self::Create { name, .. } => name,
            _ => b"",
        }
    }

    /// Whether answering may take long: it may copy a file up, wait for who does, or sync.
    pub fn may_take_long(&self) -> bool {
        if let Self::Open { flags, .. } = self {
            // Opening for reading copies nothing.
            return flags & (libc::O_ACCMODE | libc::O_TRUNC) != libc::O_RDONLY;
        }
        matches!(
            self,
            Self::SetAttr(_)
                | Self::Unlink { .. }
                | Self::RmDir { .. }
                | Self::Rename { .. }
                | Self::Link { .. }
                | Self::FSync { .. }
                | Self::FSyncDir { .. }
                | Self::SetXattr { .. }
                | Self::RemoveXattr { .. }
                | Self::FAllocate { .. }
                | Self::CopyFileRange { .. }
                | Self::SyncFs
        )
    }
}

#[cfg(test)]
mod tests;
