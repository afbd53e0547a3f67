//! Where images come from: one view of layouts and archives, whoever wrote them.
//!
//! ```text
//!     open       a path -> Source
//!     Source     images, chosen by platform -> manifest, config, layers -> the bytes of a layer
//!     Files      what lies behind it: named files in a directory or in an archive
//! ```
//!
//! Manifests and configs are verified (size, then digest, then structure) before they are
//! believed; layers while they are read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::archive::Archive;
use super::digest::{DiffId, Digest, Hashing};
use super::platform::Platform;
use super::reference::Reference;
use super::{docker, layout};
use crate::errno::{Context as _, Errno, Error, Result};

/// Something that holds images.
pub trait Source: Send + Sync + fmt::Debug {
    /// The images in it, for this platform where there is a choice: of each name that stands for
    /// several, the one that fits. An image that does not say what it is for, or is the only one
    /// under its name and said to be for nothing else, is taken as it is.
    ///
    /// # Errors
    /// `ENOENT` if all images here are for other platforms (the sentence lists them), `EIO` for a
    /// blob that is missing or is not what its digest says, `EINVAL` for what cannot be an image.
    fn images(&self, platform: &Platform) -> Result<Vec<SourceImage>>;

    /// The bytes of a layer's blob as they are stored (compressed or not). The reader fails
    /// instead of ending if they are not those that the digest is of: only who has read to the
    /// end may believe them. Any number may be read at once.
    ///
    /// # Errors
    /// `EIO` for a blob that is missing or has another size.
    fn layer(&self, layer: &SourceLayer) -> Result<Box<dyn Read + Send>>;
}

/// An image of a [`Source`].
#[derive(Clone, Debug)]
pub struct SourceImage {
    /// What the source calls it, unjudged; perhaps nothing, perhaps only a tag
    /// ([`super::reference::Reference::from_source`]).
    pub names: Vec<String>,
    /// The manifest, verbatim. `None` where there is none: `docker save` before version 25.
    pub manifest: Option<Vec<u8>>,
    /// The config, verbatim.
    pub config: Vec<u8>,
    /// The config's digest: the image's id.
    pub config_digest: Digest,
    /// The identities of the layers, lowest first.
    pub diff_ids: Vec<DiffId>,
    /// The layers, one for each of `diff_ids`.
    pub layers: Vec<SourceLayer>,
}

/// A layer of a [`SourceImage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLayer {
    /// The blob's digest, where the source has one.
    pub digest: Option<Digest>,
    /// The blob's size in bytes.
    pub size: u64,
    /// The blob's type as the manifest says; empty if nothing does. How it is compressed is found
    /// out from its bytes.
    pub media_type: String,
    /// Where it lies in the source.
    pub(super) member: String,
    /// Whether it is said to be fetched from elsewhere.
    pub(super) foreign: bool,
}

/// Opens what holds images: an OCI layout (a directory or an archive of one, as such or compressed
/// by gzip or zstd), or what `docker save` wrote. What has to be decompressed or comes from a pipe
/// is kept in a nameless file in the directory `scratch`.
///
/// # Errors
/// Those of opening and reading, `EINVAL` for what is none of these, `EFBIG` for an archive that
/// decompresses to absurdly much.
pub fn open(path: &Path, scratch: &Path) -> Result<Box<dyn Source>> {
    let shown = path.display().to_string();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).context(|| &shown)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd).context(|| &shown)?.st_mode);
    let files: Box<dyn Files> = if kind == FileType::Directory {
        Box::new(layout::Directory::new(fd))
    } else {
        Box::new(Archive::open(fd, scratch).context(|| &shown)?)
    };
    let has = |name| files.open(name).map(|found| found.is_some()).context(|| &shown);
    let (oci, docker) = (has(layout::MARKER)?, has(docker::LIST)?);
    if !oci && !docker {
        let why = "neither an OCI layout (no oci-layout) nor docker save's (no manifest.json)";
        return Err(Error::new(Errno::EINVAL, format!("{shown}: {why}")));
    }
    Ok(Box::new(Opened { shown, files, oci, docker }))
}

/// The files of a layout, by name: the part that differs between a directory and an archive.
pub(super) trait Files: Send + Sync + fmt::Debug {
    /// A regular file; `None` if there is none of this name. No name leads out of the layout.
    fn open(&self, name: &str) -> Result<Option<Blob>>;
}

/// A run of bytes in a file.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) file: Arc<File>,
    pub(super) at: u64,
    pub(super) size: u64,
}

impl Blob {
    /// Its bytes, with an error instead of an end if `digest` is not theirs.
    pub(super) fn reader(self, digest: Option<Digest>, what: String) -> Verified {
        let span = Span { file: self.file, at: self.at, left: self.size };
        Verified { state: State::Reading(Box::new(Hashing::new(span))), digest, what }
    }

    /// All of it, if that is no more than `limit` bytes.
    pub(super) fn read(self, limit: u64, digest: Option<Digest>, what: &str) -> Result<Vec<u8>> {
        if self.size > limit {
            let why = format!("{what}: {} bytes, more than {limit}", self.size);
            return Err(Error::new(Errno::EINVAL, why));
        }
        let mut bytes = Vec::new();
        self.reader(digest, what.to_owned()).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A source that is open.
#[derive(Debug)]
struct Opened {
    shown: String,
    files: Box<dyn Files>,
    /// Whether it is a layout, and whether it is docker save's: since version 25 it is both.
    oci: bool,
    docker: bool,
}

impl Opened {
    /// The images as the layout has them, or, of a docker that wrote one without layers into it
    /// (25.0's candidates), as its own list has them. Docker's list may know more names.
    fn both(&self, platform: &Platform) -> Result<Vec<SourceImage>> {
        let files = self.files.as_ref();
        let mut images = match layout::images(files, platform) {
            Ok(images) => images,
            Err(error) if error.errno() == Errno::EINVAL => {
                return docker::images(files).map_err(|_| error);
            }
            Err(error) => return Err(error),
        };
        // In a layout docker's list is an extra, which need not be one.
        for other in docker::images(files).unwrap_or_default() {
            for image in images.iter_mut().filter(|i| i.config_digest == other.config_digest) {
                let known: Vec<Option<Reference>> =
                    image.names.iter().map(|name| name.parse().ok()).collect();
                let new = other.names.iter().filter(|name| {
                    let name = name.parse().ok();
                    name.is_some() && !known.contains(&name)
                });
                image.names.extend(new.cloned());
            }
        }
        Ok(images)
    }
}

impl Source for Opened {
    fn images(&self, platform: &Platform) -> Result<Vec<SourceImage>> {
        let found = match (self.oci, self.docker) {
            (true, true) => self.both(platform),
            (true, false) => layout::images(self.files.as_ref(), platform),
            (false, _) => docker::images(self.files.as_ref()),
        };
        found.context(|| &self.shown)
    }

    fn layer(&self, layer: &SourceLayer) -> Result<Box<dyn Read + Send>> {
        let what = match layer.digest {
            Some(digest) => format!("{}: layer {digest}", self.shown),
            None => format!("{}: layer {}", self.shown, layer.member.escape_debug()),
        };
        let Some(blob) = self.files.open(&layer.member).context(|| &what)? else {
            let why = if layer.foreign { "not included, only addressed" } else { "missing" };
            return Err(Error::new(Errno::EIO, format!("{what}: {why}")));
        };
        check_size(&blob, layer.size, &what)?;
        Ok(Box::new(blob.reader(layer.digest, what)))
    }
}

/// Refuses a blob that has another size than its descriptor says.
pub(super) fn check_size(blob: &Blob, size: u64, what: &str) -> Result<()> {
    if blob.size == size {
        return Ok(());
    }
    Err(Error::new(Errno::EIO, format!("{what}: {} bytes instead of {size}", blob.size)))
}

/// Reads a run of bytes at its own position.
#[derive(Debug)]
struct Span {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Span {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let n = self.file.read_at(buf.get_mut(..most).unwrap_or_default(), self.at)?;
        if n == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is cut short"));
        }
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// A reader that ends only after bytes of the right digest.
#[derive(Debug)]
pub(super) struct Verified {
    state: State,
    digest: Option<Digest>,
    what: String,
}

#[derive(Debug)]
enum State {
    Reading(Box<Hashing<Span>>),
    Good,
    Bad,
}

impl Read for Verified {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let inner = match &mut self.state {
            State::Reading(inner) => inner,
            State::Good => return Ok(0),
            State::Bad => return Err(io::Error::other(format!("{}: corrupt", self.what))),
        };
        let n = inner.read(buf)?;
        if n > 0 || buf.is_empty() {
            return Ok(n);
        }
        let State::Reading(inner) = std::mem::replace(&mut self.state, State::Bad) else {
            return Ok(0);
        };
        let (_, found, _) = inner.finish();
        match self.digest {
            Some(digest) if digest != found => {
                let why = format!("{}: corrupt, its digest is {found}", self.what);
                Err(io::Error::other(why))
            }
            _ => {
                self.state = State::Good;
                Ok(0)
            }
        }
    }
}

#[cfg(test)]
mod tests;
