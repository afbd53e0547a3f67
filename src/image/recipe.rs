//! What gives back a layer's tar bit for bit.
//!
//! An unpacked layer holds the contents of the archive's files; everything else of the archive
//! (headers, padding, its end) is kept in order beside it, in one file that is a zstd stream:
//!
//! ```text
//!     "plyfs recipe 1\n"
//!     1 LENGTH BYTES          bytes of the archive
//!     2 LENGTH PATH           the file that the pieces that follow are of, in root/
//!     3 OFFSET LENGTH         bytes of the archive that are this piece of that file
//!     4 LENGTH PATH NUMBER    what was at PATH until now is kept/NUMBER by the end
//!     0 LENGTH                the end, and the length of the archive
//! ```
//!
//! Numbers are LEB128. What is missing or too short when the archive is to be made again is an
//! error that names the file; that the bytes are right is for the digest to say.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::tar::shown;
use crate::errno::{Context, Errno, Error, Result};

const MAGIC: &[u8] = b"plyfs recipe 1\n";
/// The file's name in the directory of the layer.
pub const RECIPE: &str = "recipe";
/// The directory of contents that the tree does not show, in the directory of the layer.
pub const KEPT: &str = "kept";
/// The directory of the tree, in the directory of the layer.
pub const ROOT: &str = "root";

/// The longest path in a recipe, in bytes.
pub const PATH_MOST: usize = 64 << 10;
/// The most bytes of one record.
const INLINE_MOST: usize = 64 << 10;
/// Compression: recipes are mostly zeros and numbers.
const LEVEL: i32 = 1;

const END: u8 = 0;
const INLINE: u8 = 1;
const FILE: u8 = 2;
const PIECE: u8 = 3;
const MOVED: u8 = 4;

/// Writes a recipe while the archive is read.
pub(super) struct Writer {
    out: zstd::stream::write::Encoder<'static, File>,
    /// Bytes not yet written as a record.
    inline: Vec<u8>,
    /// A piece not yet written: offset, length.
    piece: (u64, u64),
    total: u64,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("total", &self.total).finish_non_exhaustive()
    }
}

impl Writer {
    /// Makes the file in `dir`.
    pub(super) fn create(dir: BorrowedFd<'_>) -> Result<Self> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, RECIPE, flags, Mode::from_raw_mode(0o600))
            .context(|| RECIPE)?;
        let mut out = zstd::stream::write::Encoder::new(File::from(file), LEVEL)?;
        out.include_checksum(true)?;
        out.write_all(MAGIC)?;
        Ok(Self { out, inline: Vec::with_capacity(INLINE_MOST), piece: (0, 0), total: 0 })
    }

    /// Bytes of the archive that are in no file.
    pub(super) fn inline(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.flush_piece()?;
        self.total += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.inline.len() == INLINE_MOST {
                self.flush_inline()?;
            }
            let room = INLINE_MOST - self.inline.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.inline.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// The pieces that follow are of the file at `path`.
    pub(super) fn file(&mut self, path: &[u8]) -> Result<()> {
        self.flush()?;
        self.record(FILE, &[path.len() as u64])?;
        Ok(self.out.write_all(path)?)
    }

    /// The next bytes of the archive are these of the file.
    pub(super) fn piece(&mut self, offset: u64, len: u64) -> Result<()> {
        self.flush_inline()?;
        if self.piece.0 + self.piece.1 != offset {
            self.flush_piece()?;
        }
        if self.piece.1 == 0 {
            self.piece.0 = offset;
        }
        self.piece.1 += len;
        self.total += len;
        Ok(())
    }

    /// What was at `path` is kept under `number` from now on.
    pub(super) fn moved(&mut self, path: &[u8], number: u64) -> Result<()> {
        self.flush()?;
        self.record(MOVED, &[path.len() as u64])?;
        self.out.write_all(path)?;
        self.numbers(&[number])
    }

    /// Writes the end.
    pub(super) fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.record(END, &[self.total])?;
        self.out.finish().context(|| RECIPE)?;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.flush_inline()?;
        self.flush_piece()
    }

    fn flush_inline(&mut self) -> Result<()> {
        if !self.inline.is_empty() {
            self.record(INLINE, &[self.inline.len() as u64])?;
            self.out.write_all(&self.inline).context(|| RECIPE)?;
            self.inline.clear();
        }
        Ok(())
    }

    fn flush_piece(&mut self) -> Result<()> {
        let (offset, len) = std::mem::take(&mut self.piece);
        if len > 0 {
            self.record(PIECE, &[offset, len])?;
        }
        Ok(())
    }

    fn record(&mut self, tag: u8, numbers: &[u64]) -> Result<()> {
        self.out.write_all(&[tag]).context(|| RECIPE)?;
        self.numbers(numbers)
    }

    fn numbers(&mut self, numbers: &[u64]) -> Result<()> {
        for number in numbers {
            let (mut left, mut more) = (*number, true);
            while more {
                let low = u8::try_from(left & 0x7f).unwrap_or(0);
                left >>= 7;
                more = left != 0;
                self.out.write_all(&[low | u8::from(more) << 7]).context(|| RECIPE)?;
            }
        }
        Ok(())
    }
}

/// One record, its bytes and paths in the reader's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    Inline,
    File,
    Piece { offset: u64, len: u64 },
    Moved(u64),
    End(u64),
}

/// Reads records.
struct Records<R> {
    inner: R,
    bytes: Vec<u8>,
}

impl Records<BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>> {
    fn open(dir: BorrowedFd<'_>) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(dir, RECIPE, flags, Mode::empty()).context(|| RECIPE)?;
        let inner = zstd::stream::read::Decoder::new(File::from(file)).context(|| RECIPE)?;
        Self::new(BufReader::with_capacity(128 << 10, inner))
    }
}

impl<R: BufRead> Records<R> {
    fn new(inner: R) -> Result<Self> {
        let mut this = Self { inner, bytes: Vec::new() };
        this.take(MAGIC.len() as u64, MAGIC.len())?;
        if this.bytes != MAGIC {
            return Err(bad("it is not of a version that this program knows"));
        }
        Ok(this)
    }

    fn next(&mut self) -> Result<Record> {
        let tag = self.byte()?;
        Ok(match tag {
            END => {
                let len = self.number()?;
                // To the end of the stream, where its checksum is.
                if !self.inner.fill_buf().context(|| RECIPE)?.is_empty() {
                    return Err(bad("something follows its end"));
                }
                Record::End(len)
            }
            INLINE => {
                let len = self.number()?;
                self.take(len, INLINE_MOST)?;
                Record::Inline
            }
            FILE | MOVED => {
                let len = self.number()?;
                self.take(len, PATH_MOST)?;
                if tag == FILE { Record::File } else { Record::Moved(self.number()?) }
            }
            PIECE => Record::Piece { offset: self.number()?, len: self.number()? },
            _ => return Err(bad("a record of no known kind")),
        })
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = 0;
        self.inner.read_exact(std::slice::from_mut(&mut byte)).context(|| RECIPE)?;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let low = u64::from(byte & 0x7f);
            if low << shift >> shift != low {
                break;
            }
            number |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(bad("a number too large"))
    }

    fn take(&mut self, len: u64, most: usize) -> Result<()> {
        let len = usize::try_from(len).ok().filter(|&len| len <= most);
        let len = len.ok_or_else(|| bad("a record too long"))?;
        self.bytes.resize(len, 0);
        self.inner.read_exact(&mut self.bytes).context(|| RECIPE)
    }
}

fn bad(why: &str) -> Error {
    Error::new(Errno::EIO, format!("{RECIPE}: {why}"))
}

/// Where contents that were replaced have gone: by path, how many files the recipe had named
/// before, and the number under which it is kept.
type Moves = HashMap<Vec<u8>, Vec<(u64, u64)>>;

/// The moves that a recipe tells of.
fn moves(dir: BorrowedFd<'_>) -> Result<Moves> {
    let mut moves = Moves::new();
    if let Err(rustix::io::Errno::NOENT) =
        rustix::fs::statat(dir, KEPT, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
    {
        return Ok(moves);
    }
    let mut records = Records::open(dir)?;
    let mut files = 0;
    loop {
        match records.next()? {
            Record::File => files += 1,
            Record::Moved(number) => {
                moves.entry(records.bytes.clone()).or_default().push((files, number));
            }
            Record::End(_) => return Ok(moves),
            Record::Inline | Record::Piece { .. } => {}
        }
    }
}

/// Writes the archive that the layer in `dir` was unpacked from.
///
/// # Errors
/// `EIO` for a file that is missing, too short or no file, naming it, and for a recipe that is
/// broken; those of `out`.
pub fn rebuild(dir: &Path, out: &mut dyn Write) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, dir, flags, Mode::empty()).context(|| dir.display())?;
    rebuild_in(fd.as_fd(), out).context(|| dir.display())
}

fn rebuild_in(dir: BorrowedFd<'_>, out: &mut dyn Write) -> Result<()> {
    let moves = moves(dir)?;
    let mut records = Records::open(dir)?;
    let mut source = Source { dir, parent: None, file: None, buf: vec![0; 256 << 10] };
    let (mut files, mut total) = (0, 0);
    loop {
        match records.next()? {
            Record::Inline => {
                out.write_all(&records.bytes)?;
                total += records.bytes.len() as u64;
            }
            Record::File => {
                let path = &records.bytes;
                let moved = moves.get(path).into_iter().flatten().find(|(until, _)| *until > files);
                files += 1;
                source.open(path, moved.map(|(_, number)| *number))?;
            }
            Record::Piece { offset, len } => {
                source.copy(offset, len, out)?;
                total += len;
            }
            Record::Moved(_) => {}
            Record::End(len) if len == total => return Ok(()),
            Record::End(_) => return Err(bad("its pieces are not the whole archive")),
        }
    }
}

/// Where pieces come from.
struct Source<'a> {
    dir: BorrowedFd<'a>,
    /// The directory that was opened last, and its path.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// The file that pieces are of, and its path in the layer's directory.
    file: Option<(Vec<u8>, OwnedFd)>,
    buf: Vec<u8>,
}

impl Source<'_> {
    fn open(&mut self, path: &[u8], kept: Option<u64>) -> Result<()> {
        let path = match kept {
            Some(number) => format!("{KEPT}/{number}").into_bytes(),
            None => [ROOT.as_bytes(), b"/", path].concat(),
        };
        let file = self.open_at(&path);
        self.file = Some((path.clone(), file.map_err(|error| broken_file(&path, &error))?));
        Ok(())
    }

    fn open_at(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let cut = path.iter().rposition(|&byte| byte == b'/').ok_or(Errno::EINVAL)?;
        let (parent, name) = path.split_at(cut);
        let name = name.strip_prefix(b"/").unwrap_or(name);
        if !matches!(&self.parent, Some((known, _)) if known == parent) {
            self.parent = Some((parent.to_vec(), open_dir(self.dir, parent)?));
        }
        let (_, parent) = self.parent.as_ref().ok_or(Errno::EIO)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = beneath(parent.as_fd(), name, flags)?;
        if rustix::fs::fstat(&file)?.st_mode & libc::S_IFMT != libc::S_IFREG {
            return Err(Error::new(Errno::EIO, "not a regular file"));
        }
        Ok(file)
    }

    fn copy(&mut self, mut offset: u64, mut len: u64, out: &mut dyn Write) -> Result<()> {
        let (path, file) = self.file.as_ref().ok_or_else(|| bad("a piece of no file"))?;
        while len > 0 {
            let want = usize::try_from(len).unwrap_or(usize::MAX).min(self.buf.len());
            let room = self.buf.get_mut(..want).unwrap_or_default();
            let got = rustix::io::pread(file, &mut *room, offset)
                .map_err(|errno| broken_file(path, &errno.into()))?;
            if got == 0 {
                let short = Error::new(Errno::EIO, format!("it ends before byte {}", offset + len));
                return Err(broken_file(path, &short));
            }
            out.write_all(room.get(..got).unwrap_or_default())?;
            offset += got as u64;
            len -= got as u64;
        }
        Ok(())
    }
}

fn broken_file(path: &[u8], error: &Error) -> Error {
    let errno = Some(error.errno()).filter(|errno| errno.is_of_the_moment());
    Error::new(errno.unwrap_or(Errno::EIO), format!("file '{}' of the layer: {error}", shown(path)))
}

/// Opens what lies below `dir`, through no link.
fn beneath(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve)?)
}

/// Opens a directory whose path may be longer than a system call takes.
fn open_dir(dir: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    const AT_ONCE: usize = 4000;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at: Option<OwnedFd> = None;
    let mut rest = path;
    while rest.len() > AT_ONCE {
        let start = rest.get(..AT_ONCE).unwrap_or(rest);
        let cut = start.iter().rposition(|&byte| byte == b'/').ok_or(Errno::ENAMETOOLONG)?;
        let (now, later) = rest.split_at(cut);
        let from = at.as_ref().map_or(dir, AsFd::as_fd);
        at = Some(beneath(from, now, flags)?);
        rest = later.strip_prefix(b"/").unwrap_or(later);
    }
    beneath(at.as_ref().map_or(dir, AsFd::as_fd), rest, flags)
}

#[cfg(test)]
mod tests;
