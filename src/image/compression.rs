//! How layers and archives are compressed, told apart by their first bytes and never by what a
//! manifest or a file name says.
//!
//! A gzip stream may have many members and a zstd stream many frames, skippable ones anywhere. What
//! follows the last member or frame has to be another one: anything else is an error, as it is to
//! Go's readers. A stream that ends too early is an error, too.

use std::fmt;
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read, Write};

use flate2::GzBuilder;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::errno::{Context, Result};

/// A form of compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// None: the bytes as they are.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Compression {
    /// What a media type has after its `+`; empty for none.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// What the first bytes of a stream (four are enough) say.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// What is read at once from the compressed stream.
const BUFFER: usize = 128 << 10;

/// The largest window of a zstd frame, as a power of two: 128 MiB, zstd's own limit. It bounds the
/// memory that a stream can ask for.
const WINDOW_LOG_MAX: u32 = 27;

/// Finds out how `inner` is compressed, and decompresses it. What comes out is buffered.
///
/// # Errors
/// Those of `inner`. What is wrong with the compressed data is an error of reading them.
pub fn decoder(mut inner: Box<dyn Read + Send>) -> Result<(Compression, Box<dyn Read + Send>)> {
    let mut start = Vec::with_capacity(4);
    inner.by_ref().take(4).read_to_end(&mut start)?;
    let compression = Compression::of(&start);
    let all = BufReader::with_capacity(BUFFER, Cursor::new(start).chain(inner));
    let decoder: Box<dyn Read + Send> = match compression {
        Compression::None => Box::new(all),
        Compression::Gzip => buffered(compression, MultiGzDecoder::new(all)),
        Compression::Zstd => buffered(compression, zstd_decoder(all)?),
    };
    Ok((compression, decoder))
}

fn zstd_decoder<R: BufRead>(inner: R) -> Result<zstd::Decoder<'static, R>> {
    let mut decoder = zstd::Decoder::with_buffer(inner).context(|| "zstd")?;
    decoder.window_log_max(WINDOW_LOG_MAX).context(|| "zstd")?;
    Ok(decoder)
}

fn buffered(compression: Compression, inner: impl Read + Send + 'static) -> Box<dyn Read + Send> {
    Box::new(BufReader::with_capacity(BUFFER, Named { compression, inner }))
}

/// Says of errors in what data they were found.
struct Named<R> {
    compression: Compression,
    inner: R,
}

impl<R: Read> Read for Named<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).map_err(|error| {
            // What a system call said, or somebody further up who wants to be asked again.
            if error.raw_os_error().is_some() || error.kind() == ErrorKind::Interrupted {
                return error;
            }
            let compression = self.compression;
            let why = match error.kind() {
                ErrorKind::UnexpectedEof => "ends too early".to_owned(),
                _ => error.to_string(),
            };
            io::Error::new(error.kind(), format!("{compression} data: {why}"))
        })
    }
}

/// Compresses, always to the same bytes by the same version of plyfs: gzip at level 6 without a
/// name or time, zstd at level 3 with a checksum.
pub struct Encoder<W: Write>(Inner<W>);

enum Inner<W: Write> {
    None(W),
    Gzip(GzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compression = match self.0 {
            Inner::None(_) => Compression::None,
            Inner::Gzip(_) => Compression::Gzip,
            Inner::Zstd(_) => Compression::Zstd,
        };
        f.debug_tuple("Encoder").field(&compression).finish()
    }
}

/// The operating system of a gzip header: unknown.
const OS_UNKNOWN: u8 = 255;

impl<W: Write> Encoder<W> {
    /// To `inner`.
    pub fn new(compression: Compression, inner: W) -> Result<Self> {
        Ok(Self(match compression {
            Compression::None => Inner::None(inner),
            Compression::Gzip => {
                let header = GzBuilder::new().mtime(0).operating_system(OS_UNKNOWN);
                Inner::Gzip(header.write(inner, flate2::Compression::new(6)))
            }
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(inner, 3).context(|| "zstd")?;
                encoder.include_checksum(true).context(|| "zstd")?;
                Inner::Zstd(encoder)
            }
        }))
    }

    /// Writes what is still held back, and the end; without it the stream is incomplete.
    ///
    /// # Errors
    /// Those of what is written to.
    pub fn finish(self) -> Result<W> {
        Ok(match self.0 {
            Inner::None(inner) => inner,
            Inner::Gzip(inner) => inner.finish()?,
            Inner::Zstd(inner) => inner.finish()?,
        })
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::None(inner) => inner.write(buf),
            Inner::Gzip(inner) => inner.write(buf),
            Inner::Zstd(inner) => inner.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Inner::None(inner) => inner.flush(),
            Inner::Gzip(inner) => inner.flush(),
            Inner::Zstd(inner) => inner.flush(),
        }
    }
}

#[cfg(test)]
mod tests;
