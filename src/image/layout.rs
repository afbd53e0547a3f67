//! OCI image layouts: from index.json, through nested indexes, to the images of a platform.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use serde::Deserialize;

use super::config::{Config, MAX_CONFIG};
use super::digest::Digest;
use super::manifest::{Descriptor, Document, Index, MAX_MANIFEST, Manifest, from_json};
use super::platform::Platform;
use super::source::{Blob, Files, SourceImage, SourceLayer, check_size};
use crate::errno::{Context as _, Errno, Error, Result};

/// How deep indexes may be nested, index.json included.
const MAX_DEPTH: u32 = 4;
/// How many images may stand under one name.
const MAX_LEAVES: usize = 10_000;
/// How much of indexes, manifests and configs is read in all. It bounds time as well: an index
/// may name another twice, and that a third.
const MAX_READ: u64 = 256 << 20;

/// The file that makes a directory a layout.
pub(super) const MARKER: &str = "oci-layout";

/// The annotations that name an image: containerd's with the whole name comes first, since beside
/// it the specification's holds only the tag.
pub(super) const FULL_NAME: &str = "io.containerd.image.name";
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A layout that is a directory. Symbolic links in it are followed as long as they stay in it.
#[derive(Debug)]
pub(super) struct Directory(OwnedFd);

impl Directory {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Files for Directory {
    fn open(&self, name: &str) -> Result<Option<Blob>> {
        // Nonblocking, since it may turn out to be a FIFO.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        let fd = loop {
            match rustix::fs::openat2(&self.0, name, flags, Mode::empty(), resolve) {
                Ok(fd) => break fd,
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
                // Somebody renamed something in the meantime.
                Err(rustix::io::Errno::AGAIN) if tries < 100 => tries += 1,
                Err(rustix::io::Errno::XDEV) => {
                    let why = format!("{}: leads out of the layout", name.escape_debug());
                    return Err(Error::new(Errno::EINVAL, why));
                }
                Err(error) => return Err(error).context(|| name.escape_debug().to_string()),
            }
        };
        let stat = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            let why = format!("{}: not a regular file", name.escape_debug());
            return Err(Error::new(Errno::EINVAL, why));
        }
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        Ok(Some(Blob { file: Arc::new(File::from(fd)), at: 0, size }))
    }
}

/// The images of a layout for this platform.
pub(super) fn images(files: &dyn Files, platform: &Platform) -> Result<Vec<SourceImage>> {
    Walk { files, platform, left: Cell::new(MAX_READ) }.images()
}

/// The entries of an index with all their names: several names are several entries of one digest.
fn named(entries: Vec<Descriptor>) -> Vec<(Descriptor, Vec<String>)> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut found: Vec<(Descriptor, Vec<String>)> = Vec::new();
    for entry in entries {
        let name = [FULL_NAME, REF_NAME].iter().find_map(|key| entry.annotations.get(*key));
        let name = name.filter(|name| !name.is_empty()).cloned();
        let place = *places.entry(entry.digest.clone()).or_insert(found.len());
        match found.get_mut(place) {
            Some((_, names)) => names.extend(name.filter(|name| !names.contains(name))),
            None => found.push((entry, name.into_iter().collect())),
        }
    }
    found
}

/// What a walk has come upon.
#[derive(Default)]
struct Outcome {
    images: Vec<SourceImage>,
    /// Platforms that images were for, when none was for the one asked for.
    others: Vec<Platform>,
    /// Why an entry is no image.
    no_image: Option<Error>,
}

impl Outcome {
    fn other(&mut self, platform: Option<Platform>) {
        let new = platform.filter(|p| !p.is_unknown() && !self.others.contains(p));
        self.others.extend(new.filter(|_| self.others.len() < 20));
    }

    fn finish(self, platform: &Platform) -> Result<Vec<SourceImage>> {
        if !self.images.is_empty() {
            return Ok(self.images);
        }
        if !self.others.is_empty() {
            let list: Vec<_> = self.others.iter().map(ToString::to_string).collect();
            let why = format!("no image for {platform} in it, only for {}", list.join(", "));
            return Err(Error::new(Errno::ENOENT, why));
        }
        let none = || Error::new(Errno::EINVAL, "no image in it");
        Err(self.no_image.unwrap_or_else(none))
    }
}

/// An image that an index leads to.
struct Leaf {
    descriptor: Descriptor,
    platform: Option<Platform>,
}

/// One reading of a layout.
struct Walk<'a> {
    files: &'a dyn Files,
    platform: &'a Platform,
    left: Cell<u64>,
}

impl Walk<'_> {
    fn images(&self) -> Result<Vec<SourceImage>> {
        self.check_version()?;
        let index = self.file("index.json", MAX_MANIFEST)?;
        let index = Index::parse(&index).context(|| "index.json")?;
        let mut outcome = Outcome::default();
        for (descriptor, names) in named(index.manifests) {
            self.entry(&descriptor, names, &mut outcome)?;
        }
        outcome.finish(self.platform)
    }

    fn check_version(&self) -> Result<()> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Marker {
            image_layout_version: String,
        }
        let marker: Marker = from_json(&self.file(MARKER, 4096)?).context(|| MARKER)?;
        if marker.image_layout_version.starts_with("1.") {
            return Ok(());
        }
        let version = marker.image_layout_version.escape_debug().to_string();
        Err(Error::new(Errno::EINVAL, format!("layout version {version} is not supported")))
    }

    /// Takes what is to be read off what may be read.
    fn spend(&self, bytes: u64, what: &str) -> Result<()> {
        let left = self.left.get().checked_sub(bytes).ok_or_else(|| {
            let why = format!("{what}: too many bytes of indexes and manifests");
            Error::new(Errno::EINVAL, why)
        })?;
        self.left.set(left);
        Ok(())
    }

    /// A file that has no digest.
    fn file(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let missing = || Error::new(Errno::EINVAL, format!("no OCI layout: it has no {name}"));
        let blob = self.files.open(name)?.ok_or_else(missing)?;
        self.spend(blob.size.min(limit), name)?;
        blob.read(limit, None, name)
    }

    /// A document by its descriptor, verified.
    fn document(&self, descriptor: &Descriptor, limit: u64, kind: &str) -> Result<Vec<u8>> {
        let digest = descriptor.digest()?;
        let what = format!("{kind} {digest}");
        let missing = || Error::new(Errno::EIO, format!("{what}: missing"));
        let blob = self.files.open(&blob_name(digest))?.ok_or_else(missing)?;
        check_size(&blob, descriptor.size, &what)?;
        self.spend(blob.size.min(limit), &what)?;
        blob.read(limit, Some(digest), &what)
    }

    /// What one entry of index.json stands for: one image, or none for this platform.
    fn entry(&self, entry: &Descriptor, names: Vec<String>, outcome: &mut Outcome) -> Result<()> {
        let mut leaves = Vec::new();
        self.leaves(entry, 1, &mut leaves, outcome)?;
        let alone = leaves.len() == 1;
        let mut best: Option<(u32, Leaf)> = None;
        for leaf in leaves {
            let platform = match &leaf.platform {
                None if alone => None,
                None => Some(self.platform_inside(&leaf.descriptor)?),
                Some(platform) => Some(platform.clone()),
            };
            let Some(rank) = platform.as_ref().map_or(Some(0), |p| self.platform.rank(p)) else {
                outcome.other(platform);
                continue;
            };
            if best.as_ref().is_none_or(|(other, _)| rank > *other) {
                best = Some((rank, leaf));
            }
        }
        if let Some((_, leaf)) = best {
            self.image(&leaf.descriptor, names, outcome)?;
        }
        Ok(())
    }

    /// The images that an entry leads to, attestations left out.
    fn leaves(
        &self,
        entry: &Descriptor,
        depth: u32,
        found: &mut Vec<Leaf>,
        outcome: &mut Outcome,
    ) -> Result<()> {
        if entry.is_attestation() {
            return Ok(());
        }
        let nested = match entry.is_index() {
            Some(nested) => nested,
            None if entry.media_type.is_empty() => {
                let bytes = self.document(entry, MAX_MANIFEST, "manifest")?;
                matches!(Document::parse(&bytes), Ok(Document::Index(_)))
            }
            // The specification wants unknown types left alone.
            None => {
                let kind = entry.media_type.escape_debug();
                let why = format!("no image in it, but something of type '{kind}'");
                outcome.no_image.get_or_insert(Error::new(Errno::EINVAL, why));
                return Ok(());
            }
        };
        if !nested {
            if found.len() >= MAX_LEAVES {
                let why = format!("more than {MAX_LEAVES} images under one name");
                return Err(Error::new(Errno::EINVAL, why));
            }
            found.push(Leaf { descriptor: entry.clone(), platform: entry.platform() });
            return Ok(());
        }
        let what = || format!("index {}", entry.digest.escape_debug());
        if depth >= MAX_DEPTH {
            let why = format!("nested deeper than {MAX_DEPTH} indexes");
            return Err(Error::new(Errno::EINVAL, why)).context(what);
        }
        let index = self.document(entry, MAX_MANIFEST, "index")?;
        let index = Index::parse(&index).context(what)?;
        index.manifests.iter().try_for_each(|inner| self.leaves(inner, depth + 1, found, outcome))
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<(Vec<u8>, Manifest)> {
        let bytes = self.document(descriptor, MAX_MANIFEST, "manifest")?;
        let what = || format!("manifest {}", descriptor.digest);
        let manifest = Manifest::parse(&bytes).context(what)?;
        Ok((bytes, manifest))
    }

    /// The platform that an image's config has, where no index says it.
    fn platform_inside(&self, descriptor: &Descriptor) -> Result<Platform> {
        let (_, manifest) = self.manifest(descriptor)?;
        if manifest.config_is_image().is_err() {
            return Ok(Platform::new("unknown", "unknown", ""));
        }
        let config = self.document(&manifest.config, MAX_CONFIG, "config")?;
        Ok(Config::parse(&config)?.platform)
    }

    /// Reads an image: its manifest and its config, and how its layers are found.
    fn image(
        &self,
        descriptor: &Descriptor,
        names: Vec<String>,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let (bytes, manifest) = self.manifest(descriptor)?;
        let what = || format!("manifest {}", descriptor.digest);
        if let Err(error) = manifest.config_is_image() {
            outcome.no_image.get_or_insert(error);
            return Ok(());
        }
        manifest.check_layers().context(what)?;
        let config_digest = manifest.config.digest().context(what)?;
        let config = self.document(&manifest.config, MAX_CONFIG, "config")?;
        let diff_ids = Config::parse(&config).context(what)?.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            let (said, has) = (diff_ids.len(), manifest.layers.len());
            let why = format!("{has} layers, but the config lists {said}");
            return Err(Error::new(Errno::EINVAL, why)).context(what);
        }
        let layers = manifest.layers.iter().map(layer).collect::<Result<_>>().context(what)?;
        let manifest = Some(bytes);
        let image = SourceImage { names, manifest, config, config_digest, diff_ids, layers };
        outcome.images.push(image);
        Ok(())
    }
}

/// The file of a blob.
pub(super) fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn layer(descriptor: &Descriptor) -> Result<SourceLayer> {
    let digest = descriptor.digest()?;
    Ok(SourceLayer {
        digest: Some(digest),
        size: descriptor.size,
        media_type: descriptor.media_type.clone(),
        member: blob_name(digest),
        foreign: !descriptor.urls.is_empty(),
    })
}

#[cfg(test)]
mod tests;
