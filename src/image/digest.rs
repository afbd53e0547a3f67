//! Digests of bytes, and the identities that image formats derive from them.

use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::errno::{Errno, Error, Result};

/// A SHA-256 digest; `sha256:` and 64 hexadecimal digits as text.
///
/// Other algorithms that the image specification allows are refused by name: no image in the wild
/// uses them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// The digest of a layer's uncompressed tar (image-spec, config.md).
pub type DiffId = Digest;

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 hexadecimal digits alone.
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            // Writing to a string does not fail.
            write!(text, "{byte:02x}").unwrap_or_default();
        }
        text
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    /// # Errors
    /// `EINVAL` for anything but `sha256:` and 64 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self> {
        let shown = || text.chars().take(80).collect::<String>().escape_debug().to_string();
        let Some(hex) = text.strip_prefix("sha256:") else {
            let why = match text.split_once(':') {
                Some((algorithm @ ("sha512" | "sha384" | "blake3"), _)) => {
                    format!("digests by {algorithm} are not supported, only sha256")
                }
                _ => format!("'{}' is no digest (sha256:HEX)", shown()),
            };
            return Err(Error::new(Errno::EINVAL, why));
        };
        let bad = || Error::new(Errno::EINVAL, format!("'{}' is no SHA-256 digest", shown()));
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut digest = [0; 32];
        if hex.len() != 64 {
            return Err(bad());
        }
        for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let [high, low] = pair else { return Err(bad()) };
            *byte = digit(*high).ok_or_else(bad)? << 4 | digit(*low).ok_or_else(bad)?;
        }
        Ok(Self(digest))
    }
}

/// The identity of a stack of layers: layers are unpacked once per chain, since what a layer means
/// depends on what lies below it (image-spec, config.md, "Layer ChainID").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(pub Digest);

impl ChainId {
    /// The chain of one layer.
    pub fn base(layer: DiffId) -> Self {
        Self(layer)
    }

    /// The chain with one more layer on top.
    #[must_use]
    pub fn over(self, layer: DiffId) -> Self {
        Self(Digest::of(format!("{} {layer}", self.0).as_bytes()))
    }

    /// The chains of a list of layers, lowest first: one for each layer.
    pub fn all(layers: &[DiffId]) -> Vec<Self> {
        let mut below: Option<Self> = None;
        let mut next = |layer: &DiffId| {
            let chain = below.map_or(Self::base(*layer), |below| below.over(*layer));
            below = Some(chain);
            chain
        };
        layers.iter().map(&mut next).collect()
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Counts and digests what passes through it, reading or writing.
pub struct Hashing<T> {
    inner: T,
    hash: Sha256,
    count: u64,
}

impl<T> fmt::Debug for Hashing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hashing").field("count", &self.count).finish_non_exhaustive()
    }
}

impl<T> Hashing<T> {
    /// Around `inner`, from nothing.
    pub fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), count: 0 }
    }

    /// How many bytes have passed.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What is inside, the digest of what has passed, and how many bytes that was.
    pub fn finish(self) -> (T, Digest, u64) {
        (self.inner, Digest(self.hash.finalize().into()), self.count)
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.count += bytes.len() as u64;
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.pass(buf.get(..n).unwrap_or_default());
        Ok(n)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.pass(buf.get(..n).unwrap_or_default());
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
