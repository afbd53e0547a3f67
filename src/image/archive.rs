//! Tar archives of layouts: an index of where each file lies, made in one pass over the headers,
//! so that several blobs are read at once later.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use super::compression::{self, Compression};
use super::source::{Blob, Files};
use super::tar::{Limits, Reader, What, shown};
use crate::errno::{Context as _, Errno, Error, Result};

/// What an archive may ask of us: nobody saves more blobs than this, nor names as long.
const LIMITS: Limits =
    Limits { path: 4096, extension: 256 << 10, xattrs: 256, pieces: 4096, entries: 200_000 };
/// Longer names are not remembered: no layout has them.
const MAX_NAME: usize = 256;
/// How many links are followed for one name.
const MAX_HOPS: u32 = 8;

/// A compressed archive decompresses to no more than so many times its size, or the floor if that
/// is more: images hold compressed layers, or files of all sorts.
const MAX_RATIO: u64 = 200;
const RATIO_FLOOR: u64 = 1 << 30;

/// An archive whose files are known by name.
#[derive(Debug)]
pub(super) struct Archive {
    file: Arc<File>,
    members: HashMap<String, Member>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Member {
    /// A file's data: their offset in the archive, and their number.
    File(u64, u64),
    /// A link, to this name.
    Link(String),
    /// A file in pieces.
    Sparse,
    /// Anything else, or a link that leads nowhere in the archive.
    Other,
}

impl Archive {
    /// Reads the headers of the archive behind `fd`. If it is compressed or cannot be read at any
    /// place, it is first copied into a nameless file in `scratch`.
    pub(super) fn open(fd: OwnedFd, scratch: &Path) -> Result<Self> {
        let regular = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
        let regular = regular == FileType::RegularFile;
        let file = File::from(fd);
        let mut start = [0; 4];
        let plain = regular && {
            let n = file.read_at(&mut start, 0)?;
            Compression::of(start.get(..n).unwrap_or_default()) == Compression::None
        };
        let file = if plain { file } else { spool(file, scratch, RATIO_FLOOR)? };
        Self::index(Arc::new(file))
    }

    fn index(file: Arc<File>) -> Result<Self> {
        let length = file.metadata()?.len();
        let hurry = Arc::new(AtomicU64::new(0));
        let input = Headers { file: Arc::clone(&file), at: 0, length, hurry: Arc::clone(&hurry) };
        let mut reader = Reader::new(input, LIMITS);
        let mut members = HashMap::new();
        while let Some(entry) = reader.next()? {
            let member = match (&entry.what, reader.span()) {
                (What::File(_), Some((at, size))) => {
                    if at.checked_add(size).is_none_or(|end| end > length) {
                        let path = shown(&entry.path);
                        let why = format!("tar entry '{path}': the archive ends before its data");
                        return Err(Error::new(Errno::EINVAL, why));
                    }
                    hurry.store(at + size, Ordering::Relaxed);
                    Member::File(at, size)
                }
                (What::File(_), None) => Member::Sparse,
                (What::Symlink(target), _) => link(&beside(&entry.path, target)),
                (What::HardLink(target), _) => link(target),
                (What::Dir, _) => continue,
                _ => Member::Other,
            };
            // Of two files with one name the later counts, as it does unpacked.
            if let Some(name) = normal(&entry.path) {
                members.insert(name, member);
            }
        }
        Ok(Self { file, members })
    }
}

impl Files for Archive {
    fn open(&self, name: &str) -> Result<Option<Blob>> {
        let wrong = |why: &str| {
            Err(Error::new(Errno::EINVAL, format!("{}: {why}", shown(name.as_bytes()))))
        };
        let Some(mut name) = normal(name.as_bytes()) else { return Ok(None) };
        for _ in 0..MAX_HOPS {
            match self.members.get(&name) {
                None => return Ok(None),
                Some(Member::File(at, size)) => {
                    let file = Arc::clone(&self.file);
                    return Ok(Some(Blob { file, at: *at, size: *size }));
                }
                Some(Member::Link(target)) => name.clone_from(target),
                Some(Member::Sparse) => return wrong("a sparse file, which no layout may have"),
                Some(Member::Other) => return wrong("not a regular file"),
            }
        }
        wrong("too many links")
    }
}

/// A path in its one spelling: no empty and no `.` components, and none that leads upwards. `None`
/// if it leads out of the archive or is none that a layout has.
fn normal(path: &[u8]) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in std::str::from_utf8(path).ok()?.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    let name = parts.join("/");
    (!name.is_empty() && name.len() <= MAX_NAME).then_some(name)
}

/// Where a symbolic link at `path` leads.
fn beside(path: &[u8], target: &[u8]) -> Vec<u8> {
    let dir = path.iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1);
    let dir = if target.starts_with(b"/") { 0 } else { dir };
    [path.get(..dir).unwrap_or_default(), target].concat()
}

fn link(target: &[u8]) -> Member {
    normal(target).map_or(Member::Other, Member::Link)
}

/// The archive for one who is after its headers: of the data before `hurry` nothing is read, and
/// nothing is put into the buffer.
#[derive(Debug)]
struct Headers {
    file: Arc<File>,
    at: u64,
    length: u64,
    hurry: Arc<AtomicU64>,
}

impl Read for Headers {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let unread = self.hurry.load(Ordering::Relaxed).min(self.length).saturating_sub(self.at);
        let n = match usize::try_from(unread) {
            Ok(0) => self.file.read_at(buf, self.at)?,
            Ok(unread) => unread.min(buf.len()),
            Err(_) => buf.len(),
        };
        self.at += n as u64;
        Ok(n)
    }
}

/// Counts what is read.
struct Counted(File, Arc<AtomicU64>);

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buf)?;
        self.1.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The decompressed contents in a file without a name; up to `floor` bytes are always taken.
fn spool(file: File, scratch: &Path, floor: u64) -> Result<File> {
    let read = Arc::new(AtomicU64::new(0));
    let input = Counted(file, Arc::clone(&read));
    let (compression, mut decoder) = compression::decoder(Box::new(input))?;
    let here = || scratch.display();
    let file = nameless(scratch).context(here)?;
    let mut output = BufWriter::with_capacity(256 << 10, &file);
    let mut buffer = vec![0; 128 << 10];
    let mut written: u64 = 0;
    loop {
        let n = match decoder.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        written += n as u64;
        let most = read.load(Ordering::Relaxed).saturating_mul(MAX_RATIO).max(floor);
        if compression != Compression::None && written > most {
            let why = format!("decompresses to more than {MAX_RATIO} times its size");
            return Err(Error::new(Errno::EFBIG, why));
        }
        output.write_all(buffer.get(..n).unwrap_or_default()).context(here)?;
    }
    output.flush().context(here)?;
    drop(output);
    Ok(file)
}

/// A file in `dir` that vanishes with its descriptor.
fn nameless(dir: &Path) -> Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, dir, flags | OFlags::TMPFILE, mode) {
        Ok(fd) => return Ok(File::from(fd)),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    for number in 0..1000 {
        let name = dir.join(format!(".plyfs-{}-{number}", std::process::id()));
        match rustix::fs::openat(CWD, &name, flags | OFlags::CREATE | OFlags::EXCL, mode) {
            Ok(fd) => {
                rustix::fs::unlinkat(CWD, &name, AtFlags::empty())?;
                return Ok(File::from(fd));
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::EEXIST.into())
}

#[cfg(test)]
mod tests;
