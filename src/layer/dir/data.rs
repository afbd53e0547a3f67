//! The content of a regular file on disk.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno as Raw;

use crate::attr::Attr;
use crate::errno::{Errno, Result};
use crate::layer::{Data, Seek};
use crate::sys::object::Object;
use crate::sys::xattr;

/// The size of the pieces in which data are copied where the kernel does not do it, in bytes.
const PIECE: usize = 128 * 1024;

/// An open regular file.
#[derive(Debug)]
pub(super) struct FileData(OwnedFd);

impl FileData {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// What stat tells of the file.
    pub(super) fn stat(&self) -> Result<Attr> {
        Ok(Object::Itself(self.0.as_fd()).stat()?.attr)
    }

    /// Copies by reading and writing, one piece at most.
    fn copy_piece(&self, source: &dyn Data, from: u64, to: u64, len: u64) -> Result<u64> {
        let len = usize::try_from(len).unwrap_or(PIECE).min(PIECE);
        let mut buf = vec![0; len];
        let read = source.read_at(&mut buf, from)?;
        let written = self.write_at(buf.get(..read).unwrap_or_default(), to)?;
        Ok(written as u64)
    }
}

impl AsFd for FileData {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Data for FileData {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(&self.0, rest, offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Raw::INTR) => {}
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(done)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pwrite(&self.0, rest, offset + done as u64) {
                Ok(0) => break,
                Ok(written) => done += written,
                Err(Raw::INTR) => {}
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(done)
    }

    fn set_len(&self, size: u64) -> Result<()> {
        Ok(rustix::fs::ftruncate(&self.0, size)?)
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        Ok(if data_only { rustix::fs::fdatasync(&self.0) } else { rustix::fs::fsync(&self.0) }?)
    }

    fn allocate(&self, mode: i32, offset: u64, len: u64) -> Result<()> {
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        Ok(rustix::fs::fallocate(&self.0, mode, offset, len)?)
    }

    fn seek(&self, offset: u64, what: Seek) -> Result<u64> {
        let from = match what {
            Seek::Data => SeekFrom::Data(offset),
            Seek::Hole => SeekFrom::Hole(offset),
        };
        match rustix::fs::seek(&self.0, from) {
            // A filesystem that knows no holes has only data.
            Err(Raw::INVAL | Raw::OPNOTSUPP) => match (self.stat()?.size, what) {
                (size, _) if offset >= size => Err(Errno::ENXIO.into()),
                (_, Seek::Data) => Ok(offset),
                (size, Seek::Hole) => Ok(size),
            },
            result => Ok(result?),
        }
    }

    fn attr(&self) -> Result<Attr> {
        self.stat()
    }

    fn copy_from(
        &self,
        source: &dyn Data,
        source_offset: u64,
        offset: u64,
        len: u64,
    ) -> Result<u64> {
        let Some(fd) = source.fd() else {
            return self.copy_piece(source, source_offset, offset, len);
        };
        let count = usize::try_from(len).unwrap_or(usize::MAX).min(1 << 30);
        let (mut from, mut to) = (source_offset, offset);
        match rustix::fs::copy_file_range(fd, Some(&mut from), &self.0, Some(&mut to), count) {
            // Some filesystems say so in the middle of a file (and of a virtual one): the reader
            // finds out whether that is its end.
            Ok(0) if len > 0 => self.copy_piece(source, source_offset, offset, len),
            Ok(copied) => Ok(copied as u64),
            Err(Raw::XDEV | Raw::INVAL | Raw::OPNOTSUPP | Raw::NOSYS | Raw::PERM | Raw::BADF) => {
                self.copy_piece(source, source_offset, offset, len)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn reflink_from(&self, source: &dyn Data) -> Result<()> {
        let Some(fd) = source.fd() else { return Err(Errno::EOPNOTSUPP.into()) };
        match rustix::fs::ioctl_ficlone(&self.0, fd) {
            // What the filesystem knows nothing of.
            Err(Raw::NOTTY | Raw::NOSYS) => Err(Errno::EOPNOTSUPP.into()),
            result => Ok(result?),
        }
    }

    fn removexattr(&self, name: &[u8]) -> Result<()> {
        match xattr::remove(Object::Itself(self.0.as_fd()), name) {
            Err(error) if error.errno() == Errno::ENODATA => Ok(()),
            removed => removed,
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}
