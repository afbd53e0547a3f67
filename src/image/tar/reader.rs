//! Entries out of a stream of hostile bytes.
//!
//! The reader neither seeks nor looks ahead, holds no more than [`Limits`] say, and accounts for
//! every byte: what is data of a file comes out of [`Reader::data`], everything else (headers,
//! maps, padding, the end, what comes after the end, data that nobody asked for) goes to the tape.
//! A call of `data` puts nothing on the tape, so that the two, in the order in which they came, are
//! the stream again.
//!
//! What is ambiguous is decided as Go's `archive/tar` decides it, since that is what other tools
//! for images read with: a GNU long name outranks a PAX path, and the name of a PAX sparse file
//! both; links, directories and devices have no data, whatever size they claim; an archive may end
//! without end blocks, at the end of an entry.

use std::fmt;
use std::io::{ErrorKind, Read};

use super::header::{self, BLOCK, Block, Field, Format, Header};
use super::pax::{self, Pax};
use super::sparse::{self, Map, Piece};
use super::{Entry, What, broken, refuse};
use crate::attr::Time;
use crate::errno::{Context, Result};

/// What an archive may ask of the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest path, and the longest target of a link, in bytes.
    pub path: usize,
    /// The longest extended header or GNU long name, in bytes.
    pub extension: u64,
    /// The most extended attributes of one entry.
    pub xattrs: usize,
    /// The most pieces of data of one sparse file.
    pub pieces: usize,
    /// The most entries.
    pub entries: u64,
}

impl Default for Limits {
    /// No image in the wild comes near them; 1 MiB of extended header and 2^20 pieces of a sparse
    /// file (16 MiB of memory) are Go's limits too.
    fn default() -> Self {
        Self { path: 4096, extension: 1 << 20, xattrs: 4096, pieces: 1 << 20, entries: 20_000_000 }
    }
}

/// Takes the bytes of an archive that are no data of a file.
pub type Tape = Box<dyn FnMut(&[u8]) -> Result<()> + Send>;

/// How much is read at once of what nobody wants.
const CHUNK: usize = 64 << 10;

/// Reads a tar archive.
pub struct Reader<R: Read> {
    inner: R,
    limits: Limits,
    tape: Option<Tape>,
    /// How many bytes of the archive were read.
    at: u64,
    entries: u64,
    /// The end blocks (or the end of the stream) were met.
    done: bool,
    /// The path of the present entry, for errors.
    path: Vec<u8>,
    /// The piece of its data that is being read, and those that follow.
    piece: Piece,
    more: std::vec::IntoIter<Piece>,
    /// How much of its data the stream still holds.
    left: u64,
    /// How much padding follows those.
    pad: usize,
    scratch: Vec<u8>,
}

impl<R: Read> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("at", &self.at)
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

/// The headers before an entry that say something of it.
#[derive(Default)]
struct Extensions {
    pax: Option<Pax>,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Extensions {
    fn some(&self) -> bool {
        self.pax.is_some() || self.path.is_some() || self.link.is_some()
    }
}

impl<R: Read> Reader<R> {
    /// Of `inner`, which should be buffered: headers are read one by one.
    pub fn new(inner: R, limits: Limits) -> Self {
        Self {
            inner,
            limits,
            tape: None,
            at: 0,
            entries: 0,
            done: false,
            path: Vec::new(),
            piece: Piece::default(),
            more: Vec::new().into_iter(),
            left: 0,
            pad: 0,
            scratch: Vec::new(),
        }
    }

    /// Makes `tape` get every byte from here on that [`data`](Self::data) does not return, in the
    /// order of the archive. Its errors end the reading.
    pub fn set_tape(&mut self, tape: Tape) {
        self.tape = Some(tape);
    }

    /// The next entry; skips what is left of the data of the one before. `None` at the end blocks,
    /// or where the stream ends after an entry.
    ///
    /// # Errors
    /// `EINVAL` for what is no valid archive, naming the entry; those of the stream and the tape.
    #[allow(clippy::should_implement_trait, reason = "an error ends it, so it is no iterator")]
    pub fn next(&mut self) -> Result<Option<Entry>> {
        self.skip()?;
        let mut extensions = Extensions::default();
        while !self.done {
            let Some(block) = self.header_block()? else {
                self.done = true;
                break;
            };
            let header = Header::parse(&block, self.at - BLOCK as u64)?;
            match header.flag {
                // Says something of all entries that follow, to which nobody listens. Go reports
                // it as an entry, so what came before it is spent.
                b'g' => {
                    self.path.clone_from(&header.path);
                    self.hold(&header.path, stored(&header, None)?);
                    self.skip()?;
                    extensions = Extensions::default();
                }
                b'x' => {
                    let records = self.extension(&header)?;
                    extensions.pax = Some(pax::parse(&records, &header.path, &self.limits)?);
                }
                b'L' => extensions.path = self.long_name(&header)?,
                b'K' => extensions.link = self.long_name(&header)?,
                _ => return self.entry(&header, &block, extensions).map(Some),
            }
        }
        if extensions.some() {
            return Err(refuse(&self.path, "an extended header without an entry"));
        }
        Ok(None)
    }

    /// The next bytes of the present entry's data, as many as come at once, and where in the file
    /// they belong: offsets grow, and jump where a sparse file has holes. `None` at the end.
    ///
    /// # Errors
    /// `EINVAL` where the stream ends too early; those of the stream.
    pub fn data(&mut self, buf: &mut [u8]) -> Result<Option<(u64, usize)>> {
        while self.piece.len == 0 {
            match self.more.next() {
                Some(piece) => self.piece = piece,
                None => return Ok(None),
            }
        }
        let want = usize::try_from(self.piece.len).unwrap_or(usize::MAX).min(buf.len());
        let room = buf.get_mut(..want).unwrap_or_default();
        let got = read(&mut self.inner, room).context(|| self.where_it_is())?;
        if got == 0 && want > 0 {
            return Err(refuse(&self.path, "the archive ends in the middle of its data"));
        }
        let offset = self.piece.offset;
        let passed = got as u64;
        self.at += passed;
        self.left -= passed;
        self.piece = Piece { offset: offset + passed, len: self.piece.len - passed };
        Ok(Some((offset, got)))
    }

    /// Reads to the end of the stream, and gives it back. What is left of the archive goes to the
    /// tape without being looked at.
    ///
    /// # Errors
    /// Those of the stream and the tape.
    pub fn finish(mut self) -> Result<R> {
        loop {
            self.scratch.resize(CHUNK, 0);
            let got = read(&mut self.inner, &mut self.scratch).context(|| self.where_it_is())?;
            if got == 0 {
                return Ok(self.inner);
            }
            self.at += got as u64;
            tape(&mut self.tape, self.scratch.get(..got).unwrap_or_default())?;
        }
    }

    fn where_it_is(&self) -> String {
        format!("tar archive, after byte {}", self.at)
    }

    /// Says that `stored` bytes of data of `path` follow.
    fn hold(&mut self, path: &[u8], stored: u64) {
        self.path = path.to_vec();
        self.left = stored;
        self.pad = padding(stored);
        self.piece = Piece { offset: 0, len: stored };
        self.more = Vec::new().into_iter();
    }

    /// Passes over what is left of the present entry.
    fn skip(&mut self) -> Result<()> {
        self.piece = Piece::default();
        self.more = Vec::new().into_iter();
        while self.left > 0 {
            let want = usize::try_from(self.left).unwrap_or(CHUNK).min(CHUNK);
            let got = self.tape_some(want)?;
            if got == 0 {
                return Err(refuse(&self.path, "the archive ends in the middle of its data"));
            }
            self.left -= got as u64;
        }
        while self.pad > 0 {
            let got = self.tape_some(self.pad)?;
            if got == 0 {
                // As good as an end without end blocks.
                self.done = true;
                break;
            }
            self.pad -= got;
        }
        self.pad = 0;
        Ok(())
    }

    /// Moves up to `want` bytes to the tape; 0 at the end of the stream.
    fn tape_some(&mut self, want: usize) -> Result<usize> {
        if self.scratch.len() < want {
            self.scratch.resize(want, 0);
        }
        let room = self.scratch.get_mut(..want).unwrap_or_default();
        let got = read(&mut self.inner, room).context(|| self.where_it_is())?;
        self.at += got as u64;
        tape(&mut self.tape, self.scratch.get(..got).unwrap_or_default())?;
        Ok(got)
    }

    /// Fills `buf` and puts it on the tape; `false` if the stream ended before its first byte.
    fn fill(&mut self, buf: &mut [u8]) -> Result<bool> {
        let mut filled = 0;
        while let Some(room) = buf.get_mut(filled..).filter(|room| !room.is_empty()) {
            let got = read(&mut self.inner, room).context(|| self.where_it_is())?;
            if got == 0 && filled == 0 {
                return Ok(false);
            }
            if got == 0 {
                return Err(broken(self.at, "the archive ends in the middle of a block"));
            }
            filled += got;
            self.at += got as u64;
        }
        tape(&mut self.tape, buf)?;
        Ok(true)
    }

    /// Fills `buf` from what belongs to `path`.
    fn fill_of(&mut self, path: &[u8], buf: &mut [u8]) -> Result<()> {
        if self.fill(buf)? || buf.is_empty() {
            return Ok(());
        }
        Err(refuse(path, "the archive ends in the middle of its headers"))
    }

    /// The next header block; `None` at the end. Two blocks of zeros are the end, and so is one
    /// where the stream ends.
    fn header_block(&mut self) -> Result<Option<Block>> {
        let mut block = [0; BLOCK];
        if !self.fill(&mut block)? {
            return Ok(None);
        }
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        if self.fill(&mut block)? && block != [0; BLOCK] {
            return Err(broken(self.at, "a lone block of zeros among the entries"));
        }
        Ok(None)
    }

    /// The data of an extension header.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = stored(header, None)?;
        if size > self.limits.extension {
            let most = self.limits.extension;
            let why = format!("an extended header of {size} bytes (at most {most})");
            return Err(refuse(&header.path, why));
        }
        // What is there may be less than what it claims: memory follows the stream.
        let mut all = Vec::new();
        let mut chunk = [0; 8 << 10];
        let mut left = usize::try_from(size).unwrap_or(usize::MAX);
        while left > 0 {
            let part = chunk.get_mut(..left.min(8 << 10)).unwrap_or_default();
            self.fill_of(&header.path, part)?;
            all.extend_from_slice(part);
            left -= part.len();
        }
        self.pad = padding(size);
        self.path.clone_from(&header.path);
        self.skip()?;
        Ok(all)
    }

    /// The name that a GNU header holds: up to its first NUL. An empty one says nothing.
    fn long_name(&mut self, header: &Header) -> Result<Option<Vec<u8>>> {
        let name = header::text(&self.extension(header)?).to_vec();
        Ok(Some(name).filter(|name| !name.is_empty()))
    }

    /// Puts together what all headers say of an entry, and makes ready for its data.
    fn entry(&mut self, header: &Header, block: &Block, ext: Extensions) -> Result<Entry> {
        let pax = ext.pax.unwrap_or_default();
        let path = ext.path.or_else(|| pax.path.clone()).unwrap_or_else(|| header.path.clone());
        self.entries += 1;
        if self.entries > self.limits.entries {
            let most = self.limits.entries;
            return Err(refuse(&path, format!("the archive has more than {most} entries")));
        }
        let link = ext.link.or_else(|| pax.link.clone()).unwrap_or_else(|| header.link.clone());
        let flag = match header.flag {
            0 if path.ends_with(b"/") => b'5',
            // Contiguous files are files.
            0 | b'7' => b'0',
            flag => flag,
        };
        if has_data(flag) {
            self.hold(&path, stored(header, pax.size)?);
        } else {
            self.hold(&path, 0);
        }
        let what = match flag {
            b'S' => self.old_gnu(header, block)?,
            b'0' => self.file(&pax)?,
            b'1' => What::HardLink(self.target(link)?),
            b'2' => What::Symlink(self.target(link)?),
            b'3' => What::Char(device(header, block, &path)?),
            b'4' => What::Block(device(header, block, &path)?),
            b'5' => What::Dir,
            b'6' => What::Fifo,
            other => {
                let why = format!("its type '{}' is not supported", other.escape_ascii());
                return Err(refuse(&path, why));
            }
        };
        // A sparse file has its name in a record of its own.
        let path = std::mem::take(&mut self.path);
        if path.len() > self.limits.path {
            let why = format!("its path has {} bytes (at most {})", path.len(), self.limits.path);
            return Err(refuse(&path, why));
        }
        self.path.clone_from(&path);
        Ok(Entry {
            what,
            perm: u16::try_from(header.mode & 0o7777).unwrap_or(0),
            uid: id("owner", pax.uid.unwrap_or(header.uid), &path)?,
            gid: id("group", pax.gid.unwrap_or(header.gid), &path)?,
            mtime: pax.mtime.unwrap_or(Time { sec: header.mtime, nsec: 0 }),
            xattrs: pax.xattrs,
            path,
        })
    }

    /// A link's target.
    fn target(&self, link: Vec<u8>) -> Result<Vec<u8>> {
        if link.is_empty() {
            return Err(refuse(&self.path, "a link without a target"));
        }
        if link.len() > self.limits.path {
            let (long, most) = (link.len(), self.limits.path);
            let why = format!("the target of the link has {long} bytes (at most {most})");
            return Err(refuse(&self.path, why));
        }
        Ok(link)
    }

    /// A file, sparse by its PAX records or not.
    fn file(&mut self, pax: &Pax) -> Result<What> {
        let sparse = &pax.sparse;
        let Some(version) = sparse::version(sparse) else { return Ok(What::File(self.left)) };
        if let Some(name) = &sparse.name {
            self.path.clone_from(name);
        }
        let path = self.path.clone();
        let size = match sparse.size.or(sparse.real_size) {
            Some(size) => u64::try_from(size).map_err(|_| refuse(&path, "its size is negative"))?,
            None => self.left,
        };
        let mut map = Map::new(&path, size, self.limits.pieces);
        match version {
            sparse::Version::Zero => sparse::records(&mut map, sparse)?,
            sparse::Version::One => {
                let mut lines = sparse::Lines::default();
                let mut block = [0; BLOCK];
                loop {
                    if self.left < BLOCK as u64 {
                        return Err(refuse(&path, "its data end in the middle of a sparse map"));
                    }
                    self.fill_of(&path, &mut block)?;
                    self.left -= BLOCK as u64;
                    if !lines.feed(&mut map, &block)? {
                        break;
                    }
                }
            }
        }
        self.scatter(map)?;
        Ok(What::File(size))
    }

    /// A sparse file in the old GNU form.
    fn old_gnu(&mut self, header: &Header, block: &Block) -> Result<What> {
        let path = self.path.clone();
        if header.format != Format::Gnu {
            return Err(refuse(&path, "a sparse file of no known form"));
        }
        let size = header::number(header::field(block, header::GNU_REAL_SIZE))
            .and_then(|size| u64::try_from(size).ok())
            .ok_or_else(|| refuse(&path, "its real size is no number"))?;
        let mut map = Map::new(&path, size, self.limits.pieces);
        let mut more = sparse::old_gnu(&mut map, block, sparse::IN_HEADER)?;
        let mut next = [0; BLOCK];
        while more {
            self.fill_of(&path, &mut next)?;
            more = sparse::old_gnu(&mut map, &next, sparse::IN_EXTENSION)?;
        }
        self.scatter(map)?;
        Ok(What::File(size))
    }

    /// Makes the data that follow belong where `map` says.
    fn scatter(&mut self, map: Map<'_>) -> Result<()> {
        self.more = map.finish(self.left)?.into_iter();
        self.piece = Piece::default();
        Ok(())
    }
}

/// Reads once, whatever signals come.
fn read(inner: &mut impl Read, buf: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match inner.read(buf) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn tape(tape: &mut Option<Tape>, bytes: &[u8]) -> Result<()> {
    match tape {
        Some(tape) if !bytes.is_empty() => tape(bytes),
        _ => Ok(()),
    }
}

/// How many bytes follow `size` bytes of data up to the next block.
fn padding(size: u64) -> usize {
    usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0)
}

/// How many bytes of data follow a header.
fn stored(header: &Header, pax: Option<i64>) -> Result<u64> {
    let size = pax.unwrap_or(header.size);
    u64::try_from(size).map_err(|_| refuse(&header.path, "its size is negative"))
}

/// Whether data follow an entry of this type. What others claim as their size means nothing.
fn has_data(flag: u8) -> bool {
    !matches!(flag, b'1'..=b'6')
}

/// An owner or a group. The last number means nobody to the system calls.
fn id(what: &str, id: i64, path: &[u8]) -> Result<u32> {
    let bad = || refuse(path, format!("its {what} {id} is none that Linux has"));
    u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or_else(bad)
}

/// A device number; Linux has 12 bits for the major part and 20 for the minor.
fn device(header: &Header, block: &Block, path: &[u8]) -> Result<u64> {
    let part = |at: Field, most: u32| {
        let number = header::number(header::field(block, at));
        number.and_then(|number| u32::try_from(number).ok()).filter(|&part| part <= most)
    };
    if header.format == Format::V7 {
        return Err(refuse(path, "a device without a number"));
    }
    match (part(header::MAJOR, 0xfff), part(header::MINOR, 0xf_ffff)) {
        (Some(major), Some(minor)) => Ok(rustix::fs::makedev(major, minor)),
        _ => Err(refuse(path, "its device number is none that Linux has")),
    }
}

#[cfg(test)]
mod tests;
