//! Operations as programs do them, and how random bytes become them.
//!
//! An operation is drawn with operands relative to what exists ([`At`]: which directory, which of a
//! few names), so that a shrunk sequence is as valid as the whole one; [`Op::resolve`] turns them
//! into paths by the model's directories.

use std::fmt;

use proptest::prelude::{Strategy, any};

use super::place::Place;
use crate::union::{Caller, RenameFlag};

/// The names that entries get. Few, so that collisions are the rule; `.wh.a` is what a nested
/// container's union makes.
pub const NAMES: [&[u8]; 4] = [b"a", b"b", b"c", b".wh.a"];

/// How deep directories are made.
pub const DEPTH: usize = 3;

/// How many files are held open at most.
pub const SLOTS: u8 = 3;

/// Extended attributes that operations use: a user's, an administrator's, one that looks like a
/// mark of ours, one that the kernel drops by itself.
pub const XATTRS: [&[u8]; 4] =
    [b"user.x", b"trusted.t", b"trusted.overlay.opaque", b"security.capability"];

/// A capability set as the kernel stores it (version 2, `CAP_NET_RAW` effective).
pub const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An operand before it is resolved: one of the directories that exist, and one of [`NAMES`] in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// Which directory, modulo how many there are.
    pub dir: u8,
    /// Which name, modulo how many there are.
    pub name: u8,
}

impl fmt::Debug for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.dir, NAMES[usize::from(self.name) % NAMES.len()].escape_ascii())
    }
}

/// One operation. No operand is ever followed through a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op<P = At> {
    /// lstat(2)
    Lookup(P),
    /// `open(O_CREAT | O_EXCL)` with these permissions, `close`
    Create(P, u16),
    /// `mkdir` with these permissions
    Mkdir(P, u16),
    /// unlink(2)
    Unlink(P),
    /// rmdir(2)
    Rmdir(P),
    /// `open(O_WRONLY)`, `pwrite` of so many bytes of this value at an offset, `close`
    Write(P, u64, u16, u8),
    /// `open(O_WRONLY | O_APPEND)`, `write`, `close`
    Append(P, u16, u8),
    /// `truncate`; nothing at all if the file has that size already
    Truncate(P, u64),
    /// `open(O_WRONLY | O_TRUNC)`, `close`
    OpenTrunc(P),
    /// The whole content
    Read(P),
    /// The names and types in a directory
    Readdir(P),
    /// renameat2(2)
    Rename(P, P, RenameFlag),
    /// link(2): a new name (second) for a file (first)
    Link(P, P),
    /// symlink(2) to `target` and this number
    Symlink(P, u8),
    /// readlink(2)
    Readlink(P),
    /// A FIFO with these permissions
    Fifo(P, u16),
    /// A character device `0:minor`, as root
    Char(P, u8),
    /// chmod(2)
    Chmod(P, u16),
    /// lchown(2)
    Chown(P, u32, u32),
    /// The time of modification, this many seconds after [`BASE_TIME`](super::tree::BASE_TIME)
    Utimens(P, u8),
    /// setxattr(2): which of [`XATTRS`], the value's byte, flags
    SetXattr(P, u8, u8, i32),
    /// removexattr(2)
    RemoveXattr(P, u8),
    /// getxattr(2)
    GetXattr(P, u8),
    /// `open` for reading, or for both; kept under this number
    Hold(P, u8, bool),
    /// `pwrite` on a file that is held
    HeldWrite(u8, u64, u16, u8),
    /// `pread` of everything on a file that is held
    HeldRead(u8),
    /// `ftruncate` on a file that is held; nothing if it has that size already
    HeldTruncate(u8, u64),
    /// `fchmod` on a file that is held
    HeldChmod(u8, u16),
    /// `fstat` on a file that is held
    HeldStat(u8),
    /// `close`
    Drop(u8),
    /// Closes all files, unmounts, mounts again
    Remount,
}

impl<P: fmt::Display> fmt::Display for Op<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Op::{
            Append, Char, Chmod, Chown, Create, Drop, Fifo, GetXattr, HeldChmod, HeldRead,
            HeldStat, HeldTruncate, HeldWrite, Hold, Link, Lookup, Mkdir, OpenTrunc, Read, Readdir,
            Readlink, Remount, RemoveXattr, Rename, Rmdir, SetXattr, Symlink, Truncate, Unlink,
            Utimens, Write,
        };
        let xattr = |n: &u8| XATTRS[usize::from(*n) % XATTRS.len()].escape_ascii().to_string();
        match self {
            Lookup(p) => write!(f, "lookup {p}"),
            Create(p, perm) => write!(f, "create {p} {perm:04o}"),
            Mkdir(p, perm) => write!(f, "mkdir {p} {perm:04o}"),
            Unlink(p) => write!(f, "unlink {p}"),
            Rmdir(p) => write!(f, "rmdir {p}"),
            Write(p, at, len, byte) => write!(f, "write {p} at {at}, {len} of {byte}"),
            Append(p, len, byte) => write!(f, "append {p} {len} of {byte}"),
            Truncate(p, len) => write!(f, "truncate {p} {len}"),
            OpenTrunc(p) => write!(f, "open O_TRUNC {p}"),
            Read(p) => write!(f, "read {p}"),
            Readdir(p) => write!(f, "readdir {p}"),
            Rename(p, q, flag) => write!(f, "rename {p} {q} {flag:?}"),
            Link(p, q) => write!(f, "link {p} {q}"),
            Symlink(p, n) => write!(f, "symlink {p} -> target{n}"),
            Readlink(p) => write!(f, "readlink {p}"),
            Fifo(p, perm) => write!(f, "mkfifo {p} {perm:04o}"),
            Char(p, minor) => write!(f, "mknod {p} c 0 {minor}"),
            Chmod(p, perm) => write!(f, "chmod {p} {perm:04o}"),
            Chown(p, uid, gid) => write!(f, "chown {p} {uid}:{gid}"),
            Utimens(p, sec) => write!(f, "utimens {p} +{sec}"),
            SetXattr(p, n, v, flags) => write!(f, "setxattr {p} {} {v} {flags}", xattr(n)),
            RemoveXattr(p, n) => write!(f, "removexattr {p} {}", xattr(n)),
            GetXattr(p, n) => write!(f, "getxattr {p} {}", xattr(n)),
            Hold(p, slot, true) => write!(f, "hold[{slot}] = open O_RDWR {p}"),
            Hold(p, slot, false) => write!(f, "hold[{slot}] = open O_RDONLY {p}"),
            HeldWrite(slot, at, len, byte) => {
                write!(f, "hold[{slot}] write at {at}, {len} of {byte}")
            }
            HeldRead(slot) => write!(f, "hold[{slot}] read"),
            HeldTruncate(slot, len) => write!(f, "hold[{slot}] truncate {len}"),
            HeldChmod(slot, perm) => write!(f, "hold[{slot}] chmod {perm:04o}"),
            HeldStat(slot) => write!(f, "hold[{slot}] stat"),
            Drop(slot) => write!(f, "hold[{slot}] close"),
            Remount => write!(f, "remount"),
        }
    }
}

impl<P> Op<P> {
    /// The same operation with its operands turned into others.
    pub fn map<Q>(&self, mut to: impl FnMut(&P) -> Q) -> Op<Q> {
        match self {
            Self::Lookup(p) => Op::Lookup(to(p)),
            Self::Create(p, perm) => Op::Create(to(p), *perm),
            Self::Mkdir(p, perm) => Op::Mkdir(to(p), *perm),
            Self::Unlink(p) => Op::Unlink(to(p)),
            Self::Rmdir(p) => Op::Rmdir(to(p)),
            Self::Write(p, at, len, byte) => Op::Write(to(p), *at, *len, *byte),
            Self::Append(p, len, byte) => Op::Append(to(p), *len, *byte),
            Self::Truncate(p, len) => Op::Truncate(to(p), *len),
            Self::OpenTrunc(p) => Op::OpenTrunc(to(p)),
            Self::Read(p) => Op::Read(to(p)),
            Self::Readdir(p) => Op::Readdir(to(p)),
            Self::Rename(p, q, flag) => Op::Rename(to(p), to(q), *flag),
            Self::Link(p, q) => Op::Link(to(p), to(q)),
            Self::Symlink(p, n) => Op::Symlink(to(p), *n),
            Self::Readlink(p) => Op::Readlink(to(p)),
            Self::Fifo(p, perm) => Op::Fifo(to(p), *perm),
            Self::Char(p, minor) => Op::Char(to(p), *minor),
            Self::Chmod(p, perm) => Op::Chmod(to(p), *perm),
            Self::Chown(p, uid, gid) => Op::Chown(to(p), *uid, *gid),
            Self::Utimens(p, sec) => Op::Utimens(to(p), *sec),
            Self::SetXattr(p, n, value, flags) => Op::SetXattr(to(p), *n, *value, *flags),
            Self::RemoveXattr(p, n) => Op::RemoveXattr(to(p), *n),
            Self::GetXattr(p, n) => Op::GetXattr(to(p), *n),
            Self::Hold(p, slot, write) => Op::Hold(to(p), *slot, *write),
            Self::HeldWrite(slot, at, len, byte) => Op::HeldWrite(*slot, *at, *len, *byte),
            Self::HeldRead(slot) => Op::HeldRead(*slot),
            Self::HeldTruncate(slot, len) => Op::HeldTruncate(*slot, *len),
            Self::HeldChmod(slot, perm) => Op::HeldChmod(*slot, *perm),
            Self::HeldStat(slot) => Op::HeldStat(*slot),
            Self::Drop(slot) => Op::Drop(*slot),
            Self::Remount => Op::Remount,
        }
    }
}

impl Op<At> {
    /// The operation on paths, by the directories that exist.
    pub fn resolve(&self, dirs: &[Place]) -> Op<Place> {
        self.map(|at| {
            let dir = &dirs[usize::from(at.dir) % dirs.len()];
            let name = NAMES[usize::from(at.name) % NAMES.len()];
            dir.join(name)
        })
    }

    /// The operation that six bytes stand for. All zero is the most harmless one.
    pub fn decode(bytes: [u8; 6]) -> Self {
        const PERMS: [u16; 5] = [0o644, 0o755, 0o600, 0o2755, 0o4711];
        const LENS: [u64; 6] = [0, 1, 5, 40, 4096, 5000];
        let [verb, d, n, x, y, z] = bytes;
        let p = At { dir: d, name: n };
        let q = At { dir: x, name: y };
        let perm = PERMS[usize::from(x) % PERMS.len()];
        let len = LENS[usize::from(x) % LENS.len()];
        let count = LENS[usize::from(y) % LENS.len()] as u16;
        let slot = d % SLOTS;
        let flag = match z % 8 {
            0..=3 => RenameFlag::None,
            4 => RenameFlag::NoReplace,
            5 | 6 => RenameFlag::Exchange,
            _ => RenameFlag::Whiteout { replace: true, by: Caller::default() },
        };
        match verb % 40 {
            0 => Op::Lookup(p),
            1 | 2 => Op::Create(p, perm),
            3..=5 => Op::Mkdir(p, perm),
            6 | 7 => Op::Unlink(p),
            8 | 9 => Op::Rmdir(p),
            10 | 11 => Op::Write(p, len, count, z),
            12 => Op::Append(p, count, z),
            13 => Op::Truncate(p, len),
            14 => Op::OpenTrunc(p),
            15 => Op::Read(p),
            16 => Op::Readdir(p),
            17..=21 => Op::Rename(p, q, flag),
            22 | 23 => Op::Link(p, q),
            24 => Op::Symlink(p, x % 3),
            25 => Op::Readlink(p),
            26 => Op::Fifo(p, perm & 0o777),
            27 => Op::Char(p, x % 2),
            28 => Op::Chmod(p, perm),
            29 => Op::Chown(p, u32::from(x % 3), u32::from(y % 3)),
            30 => Op::Utimens(p, x),
            31 => Op::SetXattr(p, x % 4, y % 4, i32::from(z % 3)),
            32 => Op::RemoveXattr(p, x % 4),
            33 => Op::GetXattr(p, x % 4),
            34 => Op::Hold(p, x % SLOTS, y % 2 == 1),
            35 => Op::HeldWrite(slot, len, count, z),
            36 => [Op::HeldRead(slot), Op::HeldStat(slot)][usize::from(x) % 2].clone(),
            37 => {
                [Op::HeldTruncate(slot, len), Op::HeldChmod(slot, perm)][usize::from(y) % 2].clone()
            }
            38 => [Op::Drop(slot), Op::HeldStat(slot)][usize::from(x) % 2].clone(),
            _ => Op::Remount,
        }
    }
}

/// The operations that a fuzzer's bytes stand for.
pub fn from_bytes(bytes: &[u8]) -> Vec<Op> {
    bytes.as_chunks::<6>().0.iter().map(|chunk| Op::decode(*chunk)).collect()
}

/// A random operation.
pub fn op() -> impl Strategy<Value = Op> {
    any::<[u8; 6]>().prop_map(Op::decode)
}

/// Up to `max` random operations.
pub fn ops(max: usize) -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(op(), 1..=max)
}

/// The value that an operation sets for one of [`XATTRS`].
pub fn xattr_value(n: u8, value: u8) -> Vec<u8> {
    match XATTRS[usize::from(n) % XATTRS.len()] {
        b"security.capability" => CAPABILITY.to_vec(),
        _ => vec![b'y'; usize::from(value)],
    }
}

/// The name of one of [`XATTRS`].
pub fn xattr_name(n: u8) -> &'static [u8] {
    XATTRS[usize::from(n) % XATTRS.len()]
}
