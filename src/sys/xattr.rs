//! Extended attributes of an object without opening it: `getxattrat` and its kin where the kernel
//! has them (Linux 6.13), a path through `/proc/self/fd` before that.

use std::ffi::{CStr, CString};
use std::mem::size_of;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::cvt;
use super::object::{Object, proc_path};
use crate::errno::{Errno, Result};

/// Numbers of the calls, which are the same everywhere.
const SYS_SETXATTRAT: libc::c_long = 463;
const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;
const SYS_REMOVEXATTRAT: libc::c_long = 466;

/// The most that the kernel gives for one value or one list.
const MAX: usize = 65_536;

/// Set once the kernel has said that it lacks the calls above.
static OLD_KERNEL: AtomicBool = AtomicBool::new(false);

/// `struct xattr_args`
#[repr(C)]
struct Args {
    value: u64,
    size: u32,
    flags: u32,
}

/// Where an object is, as both families of calls need it.
struct Target {
    dir: RawFd,
    path: CString,
    flags: libc::c_int,
}

impl Target {
    fn new(object: Object<'_>) -> Result<Self> {
        let (dir, path, flags) = match object {
            Object::Entry(dir, name) => (dir.as_raw_fd(), name.to_vec(), libc::AT_SYMLINK_NOFOLLOW),
            Object::Dir(fd) => (fd.as_raw_fd(), b".".to_vec(), libc::AT_SYMLINK_NOFOLLOW),
            Object::Itself(fd) => (libc::AT_FDCWD, proc_path(fd).into_bytes(), 0),
        };
        let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
        Ok(Self { dir, path, flags })
    }

    /// The same target as a path; whether a link at its end may be followed stays `flags`' matter.
    fn old(&self) -> Result<CString> {
        if self.dir == libc::AT_FDCWD {
            return Ok(self.path.clone());
        }
        let mut path = format!("/proc/self/fd/{}/", self.dir).into_bytes();
        path.extend_from_slice(self.path.as_bytes());
        Ok(CString::new(path).map_err(|_| Errno::EINVAL)?)
    }

    /// Whether the object is at the end of the path itself, not behind a link there.
    fn nofollow(&self) -> bool {
        self.flags != 0
    }
}

/// Makes a call on an object; on a directory that may not be searched, by the way that does not.
fn reaching<T>(object: Object<'_>, mut call: impl FnMut(&Target) -> Result<T>) -> Result<T> {
    match (call(&Target::new(object)?), object) {
        (Err(error), Object::Dir(fd)) if error.errno() == Errno::EACCES => {
            call(&Target::new(Object::Itself(fd))?)
        }
        (result, _) => result,
    }
}

/// Makes the new call, and the old one if the kernel does not know the new.
fn either<B: ?Sized>(
    buf: &mut B,
    new: impl FnOnce(&mut B) -> Result<usize>,
    old: impl FnOnce(&mut B) -> Result<usize>,
) -> Result<usize> {
    if !OLD_KERNEL.load(Ordering::Relaxed) {
        match new(buf) {
            Err(error) if error.errno() == Errno::ENOSYS => {
                OLD_KERNEL.store(true, Ordering::Relaxed);
            }
            result => return result,
        }
    }
    old(buf)
}

/// The value of an attribute; `None` if there is none of that name, or the filesystem has none.
pub fn get(object: Object<'_>, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let value = reaching(object, |target| {
        read_all(256, |buf| {
            either(buf, |buf| get_new(target, &name, buf), |buf| get_old(target, &name, buf))
        })
    });
    match value {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error.errno() {
            Errno::ENODATA | Errno::EOPNOTSUPP => Ok(None),
            _ => Err(error),
        },
    }
}

/// The names of all attributes; none if the filesystem has none.
pub fn list(object: Object<'_>) -> Result<Vec<Vec<u8>>> {
    let packed = reaching(object, |target| {
        read_all(1024, |buf| either(buf, |buf| list_new(target, buf), |buf| list_old(target, buf)))
    });
    match packed {
        Ok(packed) => Ok(split(&packed)),
        Err(error) if error.errno() == Errno::EOPNOTSUPP => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The names of all attributes of what `fd` has open.
pub fn list_open(fd: &impl std::os::fd::AsFd) -> Result<Vec<Vec<u8>>> {
    let fd = fd.as_fd().as_raw_fd();
    let packed = read_all(1024, |buf| {
        let len = buf.len();
        // SAFETY: the buffer is valid for as many bytes as are said.
        let returned = unsafe { libc::flistxattr(fd, buf.as_mut_ptr().cast(), len) };
        cvt(returned as libc::c_long)
    });
    match packed {
        Ok(packed) => Ok(split(&packed)),
        Err(error) if error.errno() == Errno::EOPNOTSUPP => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn split(packed: &[u8]) -> Vec<Vec<u8>> {
    packed.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
}

/// Sets an attribute; `flags` as in setxattr(2).
pub fn set(object: Object<'_>, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    if value.len() > MAX {
        return Err(Errno::E2BIG.into());
    }
    reaching(object, |target| {
        let new = |(): &mut ()| set_new(target, &name, value, flags);
        either(&mut (), new, |()| set_old(target, &name, value, flags)).map(drop)
    })
}

/// Removes an attribute; `ENODATA` if there is none.
pub fn remove(object: Object<'_>, name: &[u8]) -> Result<()> {
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    reaching(object, |target| {
        either(&mut (), |()| remove_new(target, &name), |()| remove_old(target, &name)).map(drop)
    })
}

/// Calls `read` with a buffer of `first` bytes, and of the most there can be if that is too small.
fn read_all(first: usize, mut read: impl FnMut(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut buf = vec![0; first];
    let len = match read(&mut buf) {
        Err(error) if error.errno() == Errno::ERANGE => {
            buf.resize(MAX, 0);
            read(&mut buf)?
        }
        result => result?,
    };
    buf.truncate(len);
    buf.shrink_to_fit();
    Ok(buf)
}

fn get_new(target: &Target, name: &CStr, buf: &mut [u8]) -> Result<usize> {
    let size = u32::try_from(buf.len()).unwrap_or(u32::MAX);
    let args = Args { value: buf.as_mut_ptr() as u64, size, flags: 0 };
    // SAFETY: strings are terminated; the arguments name a buffer valid for as many bytes as are
    // said, and all outlive the call.
    let returned = unsafe {
        libc::syscall(
            SYS_GETXATTRAT,
            target.dir,
            target.path.as_ptr(),
            target.flags,
            name.as_ptr(),
            &raw const args,
            size_of::<Args>(),
        )
    };
    cvt(returned)
}

fn get_old(target: &Target, name: &CStr, buf: &mut [u8]) -> Result<usize> {
    let path = target.old()?;
    let call = if target.nofollow() { libc::lgetxattr } else { libc::getxattr };
    let len = buf.len();
    // SAFETY: strings are terminated; the buffer is valid for as many bytes as are said.
    let returned = unsafe { call(path.as_ptr(), name.as_ptr(), buf.as_mut_ptr().cast(), len) };
    cvt(returned as libc::c_long)
}

fn list_new(target: &Target, buf: &mut [u8]) -> Result<usize> {
    let len = buf.len();
    // SAFETY: the path is terminated; the buffer is valid for as many bytes as are said.
    let returned = unsafe {
        libc::syscall(
            SYS_LISTXATTRAT,
            target.dir,
            target.path.as_ptr(),
            target.flags,
            buf.as_mut_ptr(),
            len,
        )
    };
    cvt(returned)
}

fn list_old(target: &Target, buf: &mut [u8]) -> Result<usize> {
    let path = target.old()?;
    let call = if target.nofollow() { libc::llistxattr } else { libc::listxattr };
    let len = buf.len();
    // SAFETY: the path is terminated; the buffer is valid for as many bytes as are said.
    let returned = unsafe { call(path.as_ptr(), buf.as_mut_ptr().cast(), len) };
    cvt(returned as libc::c_long)
}

fn set_new(target: &Target, name: &CStr, value: &[u8], flags: i32) -> Result<usize> {
    let size = u32::try_from(value.len()).map_err(|_| Errno::E2BIG)?;
    let args = Args { value: value.as_ptr() as u64, size, flags: flags.cast_unsigned() };
    // SAFETY: strings are terminated; the arguments name a value valid for as many bytes as are
    // said, which the kernel only reads.
    let returned = unsafe {
        libc::syscall(
            SYS_SETXATTRAT,
            target.dir,
            target.path.as_ptr(),
            target.flags,
            name.as_ptr(),
            &raw const args,
            size_of::<Args>(),
        )
    };
    cvt(returned)
}

fn set_old(target: &Target, name: &CStr, value: &[u8], flags: i32) -> Result<usize> {
    let path = target.old()?;
    let call = if target.nofollow() { libc::lsetxattr } else { libc::setxattr };
    let len = value.len();
    // SAFETY: strings are terminated; the value is valid for as many bytes as are said.
    let returned = unsafe { call(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), len, flags) };
    cvt(returned.into())
}

fn remove_new(target: &Target, name: &CStr) -> Result<usize> {
    // SAFETY: strings are terminated and outlive the call.
    let returned = unsafe {
        libc::syscall(
            SYS_REMOVEXATTRAT,
            target.dir,
            target.path.as_ptr(),
            target.flags,
            name.as_ptr(),
        )
    };
    cvt(returned)
}

fn remove_old(target: &Target, name: &CStr) -> Result<usize> {
    let path = target.old()?;
    let call = if target.nofollow() { libc::lremovexattr } else { libc::removexattr };
    // SAFETY: strings are terminated and outlive the call.
    let returned = unsafe { call(path.as_ptr(), name.as_ptr()) };
    cvt(returned.into())
}

#[cfg(test)]
mod tests;
