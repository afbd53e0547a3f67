//! Errors as the kernel counts them.
//!
//! An error is born with its errno where a system call (or a rule of the union) fails, travels as
//! [`Error`], and dies in the driver's reply. There is one table from other error types to errnos,
//! and it is here. The hot path's errors (a name that does not exist) allocate nothing; an error
//! that a person will read carries a sentence of context.

use std::fmt;

/// A Linux error number, always positive.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($name:ident),* $(,)?) => {
        impl Errno {
            $(#[doc = concat!("`", stringify!($name), "`, see errno(3).")]
            pub const $name: Self = Self(libc::$name);)*

            /// The symbolic name, or `None` for a number this table does not hold.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $(libc::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos!(
    E2BIG,
    EACCES,
    EAGAIN,
    EBADF,
    EBUSY,
    EDQUOT,
    EEXIST,
    EFBIG,
    EINTR,
    EINVAL,
    EIO,
    EISDIR,
    ELOOP,
    EMFILE,
    EMLINK,
    ENAMETOOLONG,
    ENFILE,
    ENODATA,
    ENODEV,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    ENOTDIR,
    ENOTEMPTY,
    ENOTTY,
    ENXIO,
    EOPNOTSUPP,
    EOVERFLOW,
    EPERM,
    ERANGE,
    EROFS,
    ESTALE,
    ETXTBSY,
    EXDEV,
);

impl Errno {
    /// From a raw number; anything that is not a positive errno becomes `EIO`.
    pub fn from_raw(raw: i32) -> Self {
        if raw > 0 && raw < 4096 { Self(raw) } else { Self::EIO }
    }

    /// Whether it speaks of what this process may have just now (memory, descriptors, time), not of
    /// what it was about to look at.
    pub fn is_of_the_moment(self) -> bool {
        matches!(self, Self::EAGAIN | Self::EINTR | Self::EMFILE | Self::ENFILE | Self::ENOMEM)
    }

    /// The number as libc has it.
    pub fn raw(self) -> i32 {
        self.0
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}

/// A failed operation: the errno a program gets, and, where a person will read it, why.
#[derive(Debug)]
pub struct Error {
    errno: Errno,
    context: Option<Box<str>>,
}

/// What fallible operations of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that a person will read: `context` says what was attempted and why it failed.
    pub fn new(errno: Errno, context: impl Into<String>) -> Self {
        Self { errno, context: Some(context.into().into_boxed_str()) }
    }

    /// The errno that the calling program gets.
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// The sentence of context, if one was given.
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// The same error with `what` put before its context.
    #[must_use]
    pub fn context_of(self, what: impl fmt::Display) -> Self {
        let context = match self.context {
            Some(inner) => format!("{what}: {inner}"),
            None => format!("{what}: {}", self.errno),
        };
        Self::new(self.errno, context)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.context {
            Some(context) => f.write_str(context),
            None => fmt::Display::fmt(&self.errno, f),
        }
    }
}

impl std::error::Error for Error {}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self { errno, context: None }
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        Errno::from_raw(errno.raw_os_error()).into()
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(raw) => Errno::from_raw(raw).into(),
            None => Self::new(Errno::EIO, error.to_string()),
        }
    }
}

/// Adds a sentence to the error of a result.
pub trait Context<T> {
    /// Puts `what()` before the error's own words; not called on success.
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| e.into().context_of(what()))
    }
}

/// An invariant that did not hold while serving: `EIO` for this request and a loud log line in
/// production, a panic under test, where it must be found.
#[macro_export]
macro_rules! bug {
    ($($arg:tt)*) => {{
        let text = format!($($arg)*);
        tracing::error!("BUG: {text}");
        debug_assert!(!cfg!(any(test, feature = "testkit")), "BUG: {text}");
        $crate::errno::Error::new($crate::errno::Errno::EIO, text)
    }};
}
