//! The bytes of a reply, encoded into a buffer that a thread keeps.

use std::time::Duration;

use zerocopy::{Immutable, IntoBytes};

use super::wire;
use crate::attr::{self, Kind};
use crate::errno::{Errno, Result};
use crate::union::{DirEntry, Found, Handle, NodeId};

/// How long the kernel may keep what it was told: for good. All changes go through the kernel,
/// which applies them to what it keeps.
pub(super) const FOR_GOOD: Duration = Duration::from_secs(u32::MAX as u64);

/// Bytes of the header.
const HEADER: usize = size_of::<wire::OutHeader>();

/// Room for the answers that are neither data nor listings.
pub(super) const SMALL: usize = 1024;

/// A reply in the making.
#[derive(Debug)]
pub(super) struct Reply {
    buffer: Box<[u8]>,
    end: usize,
    /// How long the kernel may keep names and attributes.
    ttl: Duration,
}

impl Reply {
    /// An empty one, with room for so many bytes besides its header.
    pub(super) fn with_room(room: usize) -> Self {
        Self { buffer: vec![0; HEADER + room].into(), end: HEADER, ttl: FOR_GOOD }
    }

    /// The same, with names and attributes that the kernel may keep for so long.
    pub(super) fn kept_for(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        self.end = HEADER;
    }

    /// Bytes that still fit.
    fn room(&self) -> usize {
        self.buffer.len().saturating_sub(self.end)
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// `EIO` if they do not fit: nobody asks for so much.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.end + bytes.len();
        let room = self.buffer.get_mut(self.end..end).ok_or(Errno::EIO)?;
        room.copy_from_slice(bytes);
        self.end = end;
        Ok(())
    }

    /// Adds a structure.
    pub(super) fn put<T: IntoBytes + Immutable>(&mut self, value: &T) -> Result<()> {
        self.bytes(value.as_bytes())
    }

    /// Adds what `fill` puts into a room of at most `size` bytes, of which it returns how many.
    pub(super) fn fill(
        &mut self,
        size: u32,
        fill: impl FnOnce(&mut [u8]) -> Result<usize>,
    ) -> Result<()> {
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(self.room());
        let end = self.end + size;
        let filled = fill(self.buffer.get_mut(self.end..end).ok_or(Errno::EIO)?)?;
        self.end += filled.min(size);
        Ok(())
    }

    /// The whole reply to the request `unique`.
    pub(super) fn finish(&mut self, unique: u64) -> &[u8] {
        self.finish_with(unique, 0)
    }

    /// The reply that refuses the request `unique`; what was added before is dropped.
    pub(super) fn refuse(&mut self, unique: u64, errno: Errno) -> &[u8] {
        self.clear();
        self.finish_with(unique, -errno.raw())
    }

    /// A notification: no reply, but laid out as one.
    pub(super) fn notification(&mut self, code: i32) -> &[u8] {
        self.finish_with(0, code)
    }

    fn finish_with(&mut self, unique: u64, error: i32) -> &[u8] {
        let len = u32::try_from(self.end).unwrap_or(u32::MAX);
        let header = wire::OutHeader { len, error, unique };
        if let Some(room) = self.buffer.get_mut(..HEADER) {
            room.copy_from_slice(header.as_bytes());
        }
        self.buffer.get(..self.end).unwrap_or_default()
    }

    /// Adds a node that was looked up.
    pub(super) fn entry(&mut self, found: &Found) -> Result<()> {
        let name = self.known_name();
        self.put(&wire::EntryOut {
            nodeid: wire_id(found.node),
            // A node id is not used again while the kernel knows it.
            generation: 0,
            attr_valid: name.entry_valid,
            attr_valid_nsec: name.entry_valid_nsec,
            attr: wire_attr(&found.attr),
            ..name
        })
    }

    /// Adds the answer that a name does not exist, which the kernel may keep.
    pub(super) fn no_entry(&mut self) -> Result<()> {
        self.put(&self.known_name())
    }

    /// What is said of a name that has no node.
    fn known_name(&self) -> wire::EntryOut {
        wire::EntryOut {
            entry_valid: self.ttl.as_secs(),
            entry_valid_nsec: self.ttl.subsec_nanos(),
            ..wire::EntryOut::default()
        }
    }

    /// Adds attributes.
    pub(super) fn attr(&mut self, attr: &attr::Attr) -> Result<()> {
        let attr = wire_attr(attr);
        self.put(&wire::AttrOut {
            attr_valid: self.ttl.as_secs(),
            attr_valid_nsec: self.ttl.subsec_nanos(),
            attr,
            ..wire::AttrOut::default()
        })
    }

    /// Adds an open file: what the kernel has cached of it stays good, and close needs no answer.
    pub(super) fn opened(&mut self, handle: Handle) -> Result<()> {
        let open_flags = wire::FOPEN_KEEP_CACHE | wire::FOPEN_NOFLUSH;
        self.put(&wire::OpenOut { fh: handle.0, open_flags, backing_id: 0 })
    }

    /// Adds an entry of a listing that is to take at most `limit` bytes in all. Whether it fit.
    pub(super) fn listed(&mut self, entry: &DirEntry<'_>, limit: u32) -> bool {
        self.record(limit, size_of::<wire::DirEnt>() + entry.name.len(), |reply| {
            reply.put(&dirent(entry))?;
            reply.bytes(entry.name)
        })
    }

    /// As [`listed`](Self::listed), with the node of the entry where it was looked up.
    pub(super) fn listed_plus(
        &mut self,
        listed: &DirEntry<'_>,
        found: Option<&Found>,
        limit: u32,
    ) -> bool {
        let size = size_of::<wire::EntryOut>() + size_of::<wire::DirEnt>() + listed.name.len();
        self.record(limit, size, |reply| {
            match found {
                Some(found) => reply.entry(found)?,
                // No node: the kernel makes no use of the rest, and looks the name up if need be.
                None => reply.put(&wire::EntryOut::default())?,
            }
            reply.put(&dirent(listed))?;
            reply.bytes(listed.name)
        })
    }

    /// Adds a record of `size` bytes, padded to whole words, if it fits.
    fn record(
        &mut self,
        limit: u32,
        size: usize,
        add: impl FnOnce(&mut Self) -> Result<()>,
    ) -> bool {
        const WORD: usize = 8;
        let limit = HEADER + usize::try_from(limit).unwrap_or(usize::MAX - HEADER);
        let padded = size.next_multiple_of(WORD);
        if self.end + padded > limit || padded > self.room() {
            return false;
        }
        let from = self.end;
        let padding = padded - size;
        let added = add(self).and_then(|()| self.bytes([0; WORD].get(..padding).unwrap_or(&[])));
        if added.is_err() {
            self.end = from;
        }
        added.is_ok()
    }
}

fn dirent(entry: &DirEntry<'_>) -> wire::DirEnt {
    wire::DirEnt {
        ino: entry.ino,
        off: entry.cookie,
        namelen: u32::try_from(entry.name.len()).unwrap_or(u32::MAX),
        // DT_* are the format bits of a mode, shifted.
        kind: entry.kind.mode() >> 12,
    }
}

/// The node id on the wire of a node that is not the root.
pub(super) fn wire_id(node: NodeId) -> u64 {
    node.0
}

fn wire_attr(attr: &attr::Attr) -> wire::Attr {
    wire::Attr {
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.sec.cast_unsigned(),
        mtime: attr.mtime.sec.cast_unsigned(),
        ctime: attr.ctime.sec.cast_unsigned(),
        atimensec: attr.atime.nsec,
        mtimensec: attr.mtime.nsec,
        ctimensec: attr.ctime.nsec,
        mode: attr.kind.mode() | u32::from(attr.perm),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: match attr.kind {
            Kind::Char | Kind::Block => wire_rdev(attr.rdev),
            _ => 0,
        },
        blksize: attr.blksize,
        flags: 0,
    }
}

/// A device number as FUSE sends it: glibc's encoding, whose low 32 bits hold all of a major below
/// 4096 and a minor below 2^20, which is as much as Linux has.
fn wire_rdev(rdev: u64) -> u32 {
    u32::try_from(rdev & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
