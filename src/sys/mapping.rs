//! Files mapped into memory, to be looked at page by page; for measuring.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use super::last_errno;
use crate::errno::{Errno, Result};

/// At most this far apart is one look at each page of memory: what all machines have at least.
pub const PAGE: usize = 4096;

/// A file's bytes in memory, as long as it lives; shared with whoever has the file.
#[derive(Debug)]
struct Map {
    at: NonNull<u8>,
    length: usize,
}

impl Map {
    /// Of the first `length` bytes of a file, which must be there as long as the map is used.
    fn of(file: &File, length: u64, write: bool) -> Result<Self> {
        let length = usize::try_from(length).map_err(|_| Errno::EOVERFLOW)?;
        if length == 0 || file.metadata()?.len() < length as u64 {
            return Err(Errno::EINVAL.into());
        }
        let protection = if write { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let (flags, fd) = (libc::MAP_SHARED, file.as_raw_fd());
        // SAFETY: the kernel chooses an address where nothing is; the file is open.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, 0) };
        match NonNull::new(at.cast::<u8>()) {
            Some(start) if at != libc::MAP_FAILED => Ok(Self { at: start, length }),
            _ => Err(last_errno().into()),
        }
    }

    /// The sum of the first bytes of all pages.
    fn sum(&self) -> u64 {
        let places = (0..self.length).step_by(PAGE);
        let byte = |at: usize| {
            // SAFETY: each place lies within the map.
            let place = unsafe { self.at.add(at) };
            // SAFETY: the map is readable, and any byte is a u8.
            u64::from(unsafe { place.read_volatile() })
        };
        places.map(byte).sum()
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by us, with this length, and nobody has kept a reference into it.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.length) };
    }
}

/// The sum of each 4096th byte of the first `length` ones of a file, read through a map.
///
/// # Errors
/// `EINVAL` where the file is shorter, or nothing is asked for.
pub fn sum_of_pages(file: &File, length: u64) -> Result<u64> {
    Ok(Map::of(file, length, false)?.sum())
}

/// Writes one byte all over the first `length` bytes of a file, through a map.
///
/// # Errors
/// `EINVAL` where the file is shorter, or nothing is asked for.
pub fn fill(file: &File, length: u64, byte: u8) -> Result<()> {
    let map = Map::of(file, length, true)?;
    // SAFETY: the map is writable, that long, and nobody else has a reference into it.
    unsafe { map.at.as_ptr().write_bytes(byte, map.length) };
    Ok(())
}

/// A file of which each page is mapped and present, as long as it lives.
#[derive(Debug)]
pub struct Touched {
    _map: Map,
}

impl Touched {
    /// The first `length` bytes of a file.
    pub fn of(file: &File, length: u64) -> Result<Self> {
        let map = Map::of(file, length, false)?;
        map.sum();
        Ok(Self { _map: map })
    }
}

#[cfg(test)]
mod tests;
