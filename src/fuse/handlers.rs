//! One function an operation: what FUSE asks, in plain types, answered by the union.
//!
//! Here live the rules of the protocol that do not depend on who speaks it: names are checked,
//! flags decoded, sizes limited, the size protocol of extended attributes kept. Every function
//! returns the errno that the program shall see.

use crate::attr::{Kind, SetAttr};
use crate::errno::{Errno, Result};
use crate::layer::Seek;
use crate::name::Name;
use crate::sys::process;
use crate::union::{Caller, DirEntry, Found, Handle, Mode, NodeId, RenameFlag, Union};

/// The longest value of an extended attribute that the kernel hands on (`XATTR_SIZE_MAX`).
const XATTR_SIZE_MAX: usize = 65536;

/// The largest length that the 32-bit answer to a copy can tell, in whole pages.
const COPY_MAX: u64 = 0xffff_f000;

/// Looks a name up. `None` is the answer "no such name", which the kernel may keep.
pub fn lookup(union: &Union, parent: NodeId, name: &[u8]) -> Result<Option<Found>> {
    union.lookup(parent, Name::new(name)?)
}

/// Makes a file, FIFO, socket or device; `mode` is a whole `st_mode`.
///
/// # Errors
/// `EINVAL` for a type that mknod(2) does not make.
pub fn mknod(
    union: &Union,
    parent: NodeId,
    name: &[u8],
    (mode, umask): (u32, u32),
    rdev: u64,
    caller: &Caller,
) -> Result<Found> {
    let name = Name::new(name)?;
    let kind = match Kind::from_mode(mode) {
        Some(Kind::Dir | Kind::Symlink) => return Err(Errno::EINVAL.into()),
        Some(kind) => kind,
        // A format of 0 means a regular file, as for mknod(2).
        None if mode & libc::S_IFMT == 0 => Kind::File,
        None => return Err(Errno::EINVAL.into()),
    };
    let rdev = if matches!(kind, Kind::Char | Kind::Block) { rdev } else { 0 };
    union.mknod(parent, name, (kind, rdev), new_mode(mode, umask), caller)
}

/// Makes a directory.
pub fn mkdir(
    union: &Union,
    parent: NodeId,
    name: &[u8],
    (mode, umask): (u32, u32),
    caller: &Caller,
) -> Result<Found> {
    union.mkdir(parent, Name::new(name)?, new_mode(mode, umask), caller)
}

/// Makes a symbolic link.
pub fn symlink(
    union: &Union,
    parent: NodeId,
    name: &[u8],
    target: &[u8],
    caller: &Caller,
) -> Result<Found> {
    union.symlink(parent, Name::new(name)?, target, caller)
}

/// Gives a non-directory another name.
pub fn link(union: &Union, node: NodeId, parent: NodeId, name: &[u8]) -> Result<Found> {
    union.link(node, parent, Name::new(name)?)
}

/// Removes a name of a non-directory.
pub fn unlink(union: &Union, parent: NodeId, name: &[u8]) -> Result<()> {
    union.unlink(parent, Name::new(name)?)
}

/// Removes an empty directory.
pub fn rmdir(union: &Union, parent: NodeId, name: &[u8]) -> Result<()> {
    union.rmdir(parent, Name::new(name)?)
}

const WHITEOUT_NO_REPLACE: u32 = libc::RENAME_WHITEOUT | libc::RENAME_NOREPLACE;

/// Renames; `flags` as in renameat2(2).
///
/// # Errors
/// `EINVAL` for unknown flags and flags that exclude each other.
pub fn rename(
    union: &Union,
    (parent, name): (NodeId, &[u8]),
    (new_parent, new_name): (NodeId, &[u8]),
    flags: u32,
    caller: &Caller,
) -> Result<()> {
    let whiteout = |replace| RenameFlag::Whiteout { replace, by: *caller };
    let flag = match flags {
        0 => RenameFlag::None,
        libc::RENAME_NOREPLACE => RenameFlag::NoReplace,
        libc::RENAME_EXCHANGE => RenameFlag::Exchange,
        libc::RENAME_WHITEOUT => whiteout(true),
        WHITEOUT_NO_REPLACE => whiteout(false),
        _ => return Err(Errno::EINVAL.into()),
    };
    union.rename((parent, Name::new(name)?), (new_parent, Name::new(new_name)?), flag)
}

/// Makes and opens a regular file; `flags` as in open(2).
pub fn create(
    union: &Union,
    parent: NodeId,
    name: &[u8],
    (mode, umask): (u32, u32),
    flags: i32,
    caller: &Caller,
) -> Result<(Found, Handle)> {
    union.create(parent, Name::new(name)?, new_mode(mode, umask), flags, caller)
}

/// Makes and opens a regular file without a name; `flags` as in open(2).
pub fn tmpfile(
    union: &Union,
    parent: NodeId,
    (mode, umask): (u32, u32),
    flags: i32,
    caller: &Caller,
) -> Result<(Found, Handle)> {
    union.tmpfile(parent, new_mode(mode, umask), flags, caller)
}

/// Looks for data or a hole; `whence` as in lseek(2).
///
/// # Errors
/// `ENXIO` before the start of the file, as past its end; `EINVAL` for another `whence`: the
/// kernel answers those by itself.
pub fn lseek(union: &Union, node: NodeId, handle: Handle, offset: i64, whence: i32) -> Result<u64> {
    let what = match whence {
        libc::SEEK_DATA => Seek::Data,
        libc::SEEK_HOLE => Seek::Hole,
        _ => return Err(Errno::EINVAL.into()),
    };
    let offset = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
    union.lseek(node, handle, offset, what)
}

/// What fallocate(2) and copy_file_range(2) do first: they take setuid and setgid away unless
/// `thread` may keep them. FUSE says so of writes only.
pub fn before_change(union: &Union, node: NodeId, thread: u32) -> Result<()> {
    union.clear_set_id_unless(node, || process::keeps_set_id(thread))
}

/// Copies between two open files, as much of `len` as the answer can tell.
pub fn copy_file_range(
    union: &Union,
    from: (NodeId, Handle, u64),
    to: (NodeId, Handle, u64),
    len: u64,
) -> Result<u64> {
    union.copy_file_range(from, to, len.min(COPY_MAX))
}

/// Lists a directory until `each` returns false.
///
/// An error after the first entry is not reported: what was listed counts, and the next call meets
/// the error again.
pub fn readdir(
    union: &Union,
    dir: NodeId,
    offset: u64,
    each: &mut dyn FnMut(&DirEntry<'_>) -> bool,
) -> Result<()> {
    let mut listed = false;
    let result = union.readdir(dir, offset, &mut |entry| {
        let taken = each(entry);
        listed |= taken;
        taken
    });
    if listed { Ok(()) } else { result }
}

/// Lists a directory with a lookup of each entry, until `each` returns false. Errors as
/// [`readdir`]: entries that were looked up must reach the kernel, which will forget them.
pub fn readdirplus(
    union: &Union,
    dir: NodeId,
    offset: u64,
    each: &mut dyn FnMut(&DirEntry<'_>, Option<&Found>) -> bool,
) -> Result<()> {
    let mut listed = false;
    let result = union.readdirplus(dir, offset, &mut |entry, found| {
        let taken = each(entry, found);
        listed |= taken;
        taken
    });
    if listed { Ok(()) } else { result }
}

/// The answer to a request that may only ask how long the answer would be.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Asked with size 0: the length in bytes.
    Length(u32),
    /// The bytes.
    Bytes(Vec<u8>),
}

/// An extended attribute; `size` is the room the program gave, 0 to ask for the length.
///
/// # Errors
/// `ERANGE` if the value is longer than `size`.
pub fn getxattr(union: &Union, node: NodeId, name: &[u8], size: u32) -> Result<Answer> {
    sized(union.getxattr(node, name)?, size, Errno::ERANGE)
}

/// Sets an extended attribute; `flags` as in setxattr(2). With `kill_set_gid` the file loses its
/// setgid bit: whoever sets its ACL is not of its group.
pub fn setxattr(
    union: &Union,
    node: NodeId,
    (name, value): (&[u8], &[u8]),
    flags: i32,
    kill_set_gid: bool,
) -> Result<()> {
    const SET_GID: u16 = 0o2000;
    union.setxattr(node, name, value, flags)?;
    if kill_set_gid {
        let perm = union.getattr(node)?.perm;
        if perm & SET_GID != 0 {
            let set = SetAttr { perm: Some(perm & !SET_GID), ..SetAttr::default() };
            union.setattr(node, &set)?;
        }
    }
    Ok(())
}

/// The names of the extended attributes, each ended by NUL; `size` as in [`getxattr`].
///
/// # Errors
/// `ERANGE` if the list is longer than `size`, `E2BIG` if it is longer than Linux allows.
pub fn listxattr(union: &Union, node: NodeId, size: u32) -> Result<Answer> {
    let mut list = Vec::new();
    for name in union.listxattr(node)? {
        list.extend_from_slice(&name);
        list.push(0);
    }
    if list.len() > XATTR_SIZE_MAX {
        return Err(Errno::E2BIG.into());
    }
    sized(list, size, Errno::ERANGE)
}

/// Answers `bytes` by the size protocol of getxattr(2).
fn sized(bytes: Vec<u8>, size: u32, too_small: Errno) -> Result<Answer> {
    let len = u32::try_from(bytes.len()).map_err(|_| Errno::E2BIG)?;
    match size {
        0 => Ok(Answer::Length(len)),
        room if len > room => Err(too_small.into()),
        _ => Ok(Answer::Bytes(bytes)),
    }
}

/// The mode of a new object from the words on the wire.
fn new_mode(mode: u32, umask: u32) -> Mode {
    Mode { perm: bits(mode, 0o7777), umask: bits(umask, 0o777) }
}

/// Those bits of `mode` that `mask` (at most 16 bits) lets through.
pub fn bits(mode: u32, mask: u16) -> u16 {
    u16::try_from(mode & u32::from(mask)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
