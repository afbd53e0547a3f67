//! The content of a file in memory. An open file goes on working when its last name is gone.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use parking_lot::Mutex;

use super::tree::{Body, Node, Tree};
use super::upper::CAPABILITY;
use crate::attr::Attr;
use crate::errno::{Errno, Result};
use crate::layer::{Data, Seek};

/// The largest file, so that no test takes all memory: `EFBIG` beyond.
const LEN_MAX: u64 = 1 << 28;

/// Bytes copied at a time.
const CHUNK: usize = 1 << 16;

pub(super) struct MemData {
    tree: Arc<Mutex<Tree>>,
    ino: u64,
    write: bool,
}

impl fmt::Debug for MemData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemData").field("ino", &self.ino).finish_non_exhaustive()
    }
}

impl Drop for MemData {
    fn drop(&mut self) {
        self.tree.lock().closed(self.ino);
    }
}

impl MemData {
    pub(super) fn open(tree: &Arc<Mutex<Tree>>, ino: u64, write: bool) -> Result<Self> {
        tree.lock().opened(ino)?;
        Ok(Self { tree: Arc::clone(tree), ino, write })
    }

    fn writable(&self) -> Result<()> {
        if self.write { Ok(()) } else { Err(Errno::EBADF.into()) }
    }
}

fn index(offset: u64) -> Result<usize> {
    if offset > LEN_MAX {
        return Err(Errno::EFBIG.into());
    }
    usize::try_from(offset).map_err(|_| Errno::EFBIG.into())
}

impl Tree {
    fn content(&mut self, ino: u64) -> Result<&mut Vec<u8>> {
        match self.nodes.get_mut(&ino) {
            Some(Node { body: Body::File(bytes), .. }) => Ok(bytes),
            _ => Err(Errno::ESTALE.into()),
        }
    }

    /// A change of content: times move, capabilities go.
    fn modified(&mut self, ino: u64) {
        let now = self.tick();
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.mtime = now;
            node.ctime = now;
            node.xattrs.remove(CAPABILITY);
        }
    }

    pub(super) fn resize(&mut self, ino: u64, size: u64) -> Result<()> {
        let size = index(size)?;
        self.content(ino)?.resize(size, 0);
        self.modified(ino);
        Ok(())
    }

    fn write(&mut self, ino: u64, buf: &[u8], offset: u64) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let start = index(offset)?;
        let end = index(offset.saturating_add(buf.len() as u64))?;
        let bytes = self.content(ino)?;
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(range) = bytes.get_mut(start..end) {
            range.copy_from_slice(buf);
        }
        self.modified(ino);
        Ok(())
    }

    fn allocate(&mut self, ino: u64, mode: i32, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Err(Errno::EINVAL.into());
        }
        let keep = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let zeroed = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => false,
            libc::FALLOC_FL_PUNCH_HOLE if keep => true,
            libc::FALLOC_FL_ZERO_RANGE => true,
            _ => return Err(Errno::EOPNOTSUPP.into()),
        };
        let (start, end) = (index(offset)?, index(offset.saturating_add(len))?);
        let bytes = self.content(ino)?;
        if zeroed {
            let stop = end.min(bytes.len());
            if let Some(range) = bytes.get_mut(start.min(stop)..stop) {
                range.fill(0);
            }
        }
        if !keep && bytes.len() < end {
            bytes.resize(end, 0);
        }
        self.modified(ino);
        Ok(())
    }
}

impl Data for MemData {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut tree = self.tree.lock();
        let bytes = tree.content(self.ino)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let rest = bytes.get(start..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(n)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        self.writable()?;
        self.tree.lock().write(self.ino, buf, offset)?;
        Ok(buf.len())
    }

    fn set_len(&self, size: u64) -> Result<()> {
        self.writable()?;
        self.tree.lock().resize(self.ino, size)
    }

    fn sync(&self, _data_only: bool) -> Result<()> {
        Ok(())
    }

    fn allocate(&self, mode: i32, offset: u64, len: u64) -> Result<()> {
        self.writable()?;
        self.tree.lock().allocate(self.ino, mode, offset, len)
    }

    fn seek(&self, offset: u64, what: Seek) -> Result<u64> {
        let mut tree = self.tree.lock();
        let len = tree.content(self.ino)?.len() as u64;
        match what {
            _ if offset >= len => Err(Errno::ENXIO.into()),
            Seek::Data => Ok(offset),
            Seek::Hole => Ok(len),
        }
    }

    fn attr(&self) -> Result<Attr> {
        self.tree.lock().attr_unchecked(self.ino)
    }

    fn copy_from(
        &self,
        source: &dyn Data,
        source_offset: u64,
        offset: u64,
        len: u64,
    ) -> Result<u64> {
        self.writable()?;
        let mut buf = vec![0; usize::try_from(len).unwrap_or(CHUNK).min(CHUNK)];
        let mut done = 0;
        while done < len {
            let want = usize::try_from(len - done).unwrap_or(CHUNK).min(CHUNK);
            let Some(part) = buf.get_mut(..want) else { break };
            let n = source.read_at(part, source_offset.saturating_add(done))?;
            if n == 0 {
                break;
            }
            self.write_at(part.get(..n).unwrap_or_default(), offset.saturating_add(done))?;
            done += n as u64;
        }
        Ok(done)
    }

    fn reflink_from(&self, _source: &dyn Data) -> Result<()> {
        Err(Errno::EOPNOTSUPP.into())
    }

    fn removexattr(&self, name: &[u8]) -> Result<()> {
        self.writable()?;
        self.tree.lock().remove_xattr(self.ino, name)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
