//! An open file whose capabilities are kept where the filesystem below does not know them, and
//! which therefore does not drop them when the file is written to.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::attr::Attr;
use crate::errno::Result;
use crate::layer::{Data, Seek};

/// An open file that loses its capabilities when it is written to.
#[derive(Debug)]
pub(super) struct Guarded {
    inner: Arc<dyn Data>,
    stored: Vec<u8>,
    /// Raised whenever some file may have got capabilities.
    granted: Arc<AtomicU64>,
    /// As `granted` was when this file's were dropped last.
    dropped: AtomicU64,
}

impl Guarded {
    pub(super) fn new(inner: Arc<dyn Data>, stored: Vec<u8>, granted: Arc<AtomicU64>) -> Self {
        Self { inner, stored, granted, dropped: AtomicU64::new(0) }
    }

    /// Before the content changes.
    fn revoke(&self) -> Result<()> {
        let granted = self.granted.load(Ordering::Acquire);
        if self.dropped.load(Ordering::Acquire) != granted {
            self.inner.removexattr(&self.stored)?;
            self.dropped.store(granted, Ordering::Release);
        }
        Ok(())
    }
}

impl Data for Guarded {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        self.revoke()?;
        self.inner.write_at(buf, offset)
    }

    fn set_len(&self, size: u64) -> Result<()> {
        self.revoke()?;
        self.inner.set_len(size)
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        self.inner.sync(data_only)
    }

    fn allocate(&self, mode: i32, offset: u64, len: u64) -> Result<()> {
        self.revoke()?;
        self.inner.allocate(mode, offset, len)
    }

    fn seek(&self, offset: u64, what: Seek) -> Result<u64> {
        self.inner.seek(offset, what)
    }

    fn attr(&self) -> Result<Attr> {
        self.inner.attr()
    }

    fn copy_from(
        &self,
        source: &dyn Data,
        source_offset: u64,
        offset: u64,
        len: u64,
    ) -> Result<u64> {
        self.revoke()?;
        self.inner.copy_from(source, source_offset, offset, len)
    }

    fn reflink_from(&self, source: &dyn Data) -> Result<()> {
        self.revoke()?;
        self.inner.reflink_from(source)
    }

    fn removexattr(&self, name: &[u8]) -> Result<()> {
        self.inner.removexattr(name)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.fd()
    }
}
