//! An open file whose capabilities are kept where the filesystem below does not know them, and
//! which therefore does not drop them when the file is written to.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::attr::Attr;
use crate::errno::Result;
use crate::layer::pass_on::{pass_on, pass_on_data};
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
    pass_on_data! { read_at sync seek attr removexattr fd }
    pass_on_data! { after revoke; write_at set_len allocate copy_from reflink_from }
}
