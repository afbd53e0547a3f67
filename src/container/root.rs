//! A path inside a container's root, resolved by plyfs itself: component by component, symbolic
//! links read and followed with `/` and `..` ending at the root. Whatever an image's links say,
//! nothing outside the root is reached, whoever changes them at the same time.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use crate::errno::{Context, Errno, Error, Result};
use crate::sys::object::Object;

/// How many links a path may lead over, as many as the kernel allows.
const MAX_LINKS: usize = 40;

/// What is to be made where the path ends, if there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// Nothing: `ENOENT`.
    Fail,
    /// A directory, mode 755; and those above it.
    Directory,
    /// An empty file, mode 644; and the directories above it.
    File,
}

/// A root directory.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    /// The directory that `fd` has open.
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The directory at `path` on the host.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty()).context(|| shown(path))?))
    }

    /// A directory to mount something at; made, with those above it, if it is missing.
    pub(super) fn directory(&self, path: &Path) -> Result<OwnedFd> {
        let (fd, kind) = self.resolve(path, Missing::Directory).context(|| shown(path))?;
        match kind {
            FileType::Directory => Ok(fd),
            _ => Err(Error::from(Errno::ENOTDIR)).context(|| shown(path)),
        }
    }

    /// Anything but a directory, to mount a file at; an empty file is made if it is missing.
    pub(super) fn file(&self, path: &Path) -> Result<OwnedFd> {
        let (fd, kind) = self.resolve(path, Missing::File).context(|| shown(path))?;
        match kind {
            FileType::Directory => Err(Error::from(Errno::EISDIR)).context(|| shown(path)),
            _ => Ok(fd),
        }
    }

    /// A directory that lies in the root itself, under no link: made if it is missing.
    pub(super) fn top_directory(&self, name: &str) -> Result<OwnedFd> {
        let shown = || format!("/{name}");
        match rustix::fs::mkdirat(self, name, Mode::from_raw_mode(0o755)) {
            Err(rustix::io::Errno::EXIST) => {}
            result => result.context(shown)?,
        }
        let fd = Object::Entry(self.as_fd(), name.as_bytes()).pin().context(shown)?;
        match kind_of(&fd).context(shown)? {
            FileType::Directory => Ok(fd),
            FileType::Symlink => {
                let why = "is a symbolic link in the image, where a directory has to be";
                Err(Error::new(Errno::ELOOP, why)).context(shown)
            }
            _ => Err(Error::from(Errno::ENOTDIR)).context(shown),
        }
    }

    /// The content of a regular file; `None` if there is no such file.
    pub(super) fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        let (fd, kind) = match self.resolve(path, Missing::Fail) {
            Err(error) if error.errno() == Errno::ENOENT => return Ok(None),
            result => result.context(|| shown(path))?,
        };
        if kind != FileType::RegularFile {
            return Err(Error::new(Errno::EINVAL, "not a regular file")).context(|| shown(path));
        }
        let file = Object::Itself(fd.as_fd()).open(OFlags::RDONLY).context(|| shown(path))?;
        let mut content = Vec::new();
        let read = std::fs::File::from(file).take(limit + 1).read_to_end(&mut content);
        if read.context(|| shown(path))? as u64 > limit {
            let why = format!("larger than {limit} bytes");
            return Err(Error::new(Errno::EFBIG, why)).context(|| shown(path));
        }
        Ok(Some(content))
    }

    /// Whether `fd` is the root directory itself.
    pub(super) fn is(&self, fd: BorrowedFd<'_>) -> Result<bool> {
        let [own, other] = [rustix::fs::fstat(&self.0)?, rustix::fs::fstat(fd)?];
        Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
    }

    /// Finds, or makes, what `path` leads to.
    fn resolve(&self, path: &Path, missing: Missing) -> Result<(OwnedFd, FileType)> {
        // The directories from below the root to where we are.
        let mut above: Vec<OwnedFd> = Vec::new();
        let mut left: VecDeque<Vec<u8>> = components(path.as_os_str()).collect();
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            if name == b".." {
                above.pop();
                continue;
            }
            let directory = above.last().map_or(self.0.as_fd(), AsFd::as_fd);
            let object = Object::Entry(directory, &name);
            let fd = match object.pin() {
                Err(error) if error.errno() == Errno::ENOENT => {
                    let last = !left.iter().any(|name| name != b"..");
                    make(directory, &name, missing, last)?;
                    object.pin()?
                }
                result => result?,
            };
            match kind_of(&fd)? {
                FileType::Directory => above.push(fd),
                FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::ELOOP.into());
                    }
                    let target = Object::Itself(fd.as_fd()).readlink()?;
                    if target.starts_with(b"/") {
                        above.clear();
                    }
                    for name in components(OsStr::from_bytes(&target)).rev() {
                        left.push_front(name);
                    }
                }
                kind if left.is_empty() => return Ok((fd, kind)),
                _ => return Err(Errno::ENOTDIR.into()),
            }
        }
        let fd = above.pop().map_or_else(|| self.0.try_clone(), Ok)?;
        Ok((fd, FileType::Directory))
    }
}

/// The names in a path, `..` among them; slashes and `.` say nothing.
fn components(path: &OsStr) -> impl DoubleEndedIterator<Item = Vec<u8>> + '_ {
    let names = path.as_bytes().split(|&byte| byte == b'/');
    names.filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec)
}

/// Makes what is missing.
fn make(directory: BorrowedFd<'_>, name: &[u8], missing: Missing, last: bool) -> Result<()> {
    let made = match missing {
        Missing::Fail => Err(rustix::io::Errno::NOENT),
        Missing::File if last => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
        Missing::File | Missing::Directory => {
            rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755))
        }
    };
    match made {
        // Somebody else makes it, too.
        Err(rustix::io::Errno::EXIST) => Ok(()),
        result => Ok(result?),
    }
}

fn kind_of(fd: &OwnedFd) -> Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

/// A path in a message.
pub(super) fn shown(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string()
}
