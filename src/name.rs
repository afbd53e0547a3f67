//! One component of a path. Inside the union there are no paths: an entry is (directory, name).

use std::fmt;
use std::sync::Arc;

use crate::errno::{Errno, Result};

/// The longest name, in bytes (`NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// A borrowed name: not empty, no `/`, no NUL, not `.` or `..`, at most [`NAME_MAX`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// Checks `bytes`.
    ///
    /// # Errors
    /// `ENAMETOOLONG` over 255 bytes, `EINVAL` for what can never name an entry.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG.into());
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." {
            return Err(Errno::EINVAL.into());
        }
        if bytes.iter().any(|&b| b == b'/' || b == 0) {
            return Err(Errno::EINVAL.into());
        }
        Ok(Self(bytes))
    }

    /// The name's bytes; any but NUL and `/`, not necessarily UTF-8.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// An owned copy.
    pub fn to_buf(self) -> NameBuf {
        NameBuf(Arc::from(self.0))
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(self.0))
    }
}

/// An owned name; cloning it shares the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameBuf(Arc<[u8]>);

impl NameBuf {
    /// Borrows the name.
    pub fn as_name(&self) -> Name<'_> {
        Name(&self.0)
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for NameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_name().fmt(f)
    }
}
