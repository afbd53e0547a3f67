//! Names for objects that survive remounts: file handles and the filesystem's UUID.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::cvt;
use super::object::Object;
use crate::errno::{Errno, Result};

/// The longest handle (`MAX_HANDLE_SZ`).
const MAX: u32 = 128;

/// A file handle, as `name_to_handle_at` gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHandle {
    /// How the filesystem encodes it.
    pub kind: i32,
    /// The encoded bytes.
    pub bytes: Vec<u8>,
}

/// The kernel's `struct file_handle` with room for the longest one.
#[repr(C)]
struct Raw {
    size: libc::c_uint,
    kind: libc::c_int,
    bytes: [u8; MAX as usize],
}

/// The answer of `FS_IOC_GETFSUUID`: `struct fsuuid2`.
#[repr(C)]
struct FsUuid {
    len: u8,
    uuid: [u8; 16],
}

/// `_IOR(0x15, 0, struct fsuuid2)`
const FS_IOC_GETFSUUID: libc::c_ulong = 0x8011_1500;

/// The handle of an object; `None` where the filesystem gives none.
pub fn of(object: Object<'_>) -> Result<Option<FileHandle>> {
    let (dir, path, flags) = match object {
        Object::Entry(dir, name) => (dir, name, 0),
        Object::Dir(fd) | Object::Itself(fd) => (fd, b"".as_slice(), libc::AT_EMPTY_PATH),
    };
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    let mut raw = Raw { size: MAX, kind: 0, bytes: [0; MAX as usize] };
    let mut mount = 0;
    // SAFETY: the structure has the layout of file_handle with the room that `size` says; the
    // other pointers are valid for the call.
    let returned = unsafe {
        libc::name_to_handle_at(
            dir.as_raw_fd(),
            path.as_ptr(),
            (&raw mut raw).cast(),
            &raw mut mount,
            flags,
        )
    };
    match cvt(returned.into()) {
        Ok(_) => {
            let bytes = raw.bytes.get(..raw.size as usize).ok_or(Errno::EOVERFLOW)?.to_vec();
            Ok(Some(FileHandle { kind: raw.kind, bytes }))
        }
        Err(error) => match error.errno() {
            Errno::EOPNOTSUPP | Errno::EOVERFLOW | Errno::ENOSYS | Errno::EPERM => Ok(None),
            _ => Err(error),
        },
    }
}

/// Opens (`O_PATH`) what `handle` names on the filesystem that `on` (not `O_PATH`) lies on.
///
/// # Errors
/// `EPERM` without `CAP_DAC_READ_SEARCH` over the filesystem, `ESTALE` if the object is gone.
pub fn open(on: &impl AsFd, handle: &FileHandle) -> Result<OwnedFd> {
    let mut raw = Raw { size: MAX, kind: handle.kind, bytes: [0; MAX as usize] };
    let room = raw.bytes.get_mut(..handle.bytes.len()).ok_or(Errno::EOVERFLOW)?;
    room.copy_from_slice(&handle.bytes);
    raw.size = u32::try_from(handle.bytes.len()).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the structure has the layout of file_handle, with as many bytes as `size` says; the
    // call only reads it.
    let returned = unsafe {
        libc::open_by_handle_at(
            on.as_fd().as_raw_fd(),
            (&raw mut raw).cast(),
            libc::O_PATH | libc::O_CLOEXEC,
        )
    };
    let fd = i32::try_from(cvt(returned.into())?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the call has just returned this descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The UUID of the filesystem that `fd` (not `O_PATH`) lies on; zeros where the kernel (before
/// 6.9) or the filesystem gives none.
pub fn fs_uuid(fd: &impl AsFd) -> [u8; 16] {
    let mut answer = FsUuid { len: 0, uuid: [0; 16] };
    // SAFETY: the request writes a structure of exactly this layout.
    let returned =
        unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), FS_IOC_GETFSUUID, &raw mut answer) };
    if cvt(returned.into()).is_ok() && answer.len == 16 { answer.uuid } else { [0; 16] }
}
