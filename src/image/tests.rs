//! Layouts made by hand, to be broken by hand.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::digest::Digest;
use super::manifest::{Descriptor, Index, Manifest, media, to_json};
use super::platform::Platform;
use super::source::{self, Source, SourceImage};
use crate::errno::Result;

/// A layout in a temporary directory.
pub(super) struct Sample {
    pub(super) dir: tempfile::TempDir,
}

impl Sample {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { dir }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn blob_path(&self, digest: &str) -> std::path::PathBuf {
        self.path().join("blobs").join(digest.replace(':', "/"))
    }

    pub(super) fn blob(&self, kind: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        fs::write(self.blob_path(&digest.to_string()), bytes).unwrap();
        Descriptor::new(kind, digest, bytes.len() as u64)
    }

    /// A manifest of these (uncompressed) layers and a config that fits.
    pub(super) fn manifest(&self, platform: &str, layers: &[&[u8]]) -> Manifest {
        let config = self.blob(media::CONFIG, config(platform, layers).as_bytes());
        let layers = layers.iter().map(|bytes| self.blob(media::LAYER, bytes)).collect();
        Manifest::new(config, layers)
    }

    pub(super) fn add(&self, manifest: &Manifest) -> Descriptor {
        self.blob(media::MANIFEST, &to_json(manifest).unwrap())
    }

    pub(super) fn image(&self, platform: &str, layers: &[&[u8]]) -> Descriptor {
        self.add(&self.manifest(platform, layers))
    }

    pub(super) fn nested(&self, entries: Vec<Descriptor>) -> Descriptor {
        self.blob(media::INDEX, &to_json(&Index::new(entries)).unwrap())
    }

    /// Writes index.json.
    pub(super) fn index(&self, entries: Vec<Descriptor>) {
        fs::write(self.path().join("index.json"), to_json(&Index::new(entries)).unwrap()).unwrap();
    }

    pub(super) fn open(&self) -> Result<Box<dyn Source>> {
        source::open(self.path(), &std::env::temp_dir())
    }

    pub(super) fn images(&self, platform: &str) -> Result<Vec<SourceImage>> {
        self.open()?.images(&platform.parse().unwrap())
    }

    /// What one refuses to take from it.
    #[track_caller]
    pub(super) fn refused(&self) -> String {
        self.images("linux/amd64").unwrap_err().to_string()
    }
}

/// A descriptor with a name.
pub(super) fn named(mut descriptor: Descriptor, name: &str) -> Descriptor {
    descriptor.annotations.insert(super::layout::REF_NAME.to_owned(), name.to_owned());
    descriptor
}

/// A descriptor with a platform.
pub(super) fn on(descriptor: Descriptor, platform: &str) -> Descriptor {
    descriptor.on(&platform.parse::<Platform>().unwrap())
}

/// The config of an image of these layers.
pub(super) fn config(platform: &str, layers: &[&[u8]]) -> String {
    let platform: Platform = platform.parse().unwrap();
    let mut ids = String::new();
    for layer in layers {
        let comma = if ids.is_empty() { "" } else { "," };
        write!(ids, "{comma}\"{}\"", Digest::of(layer)).unwrap();
    }
    let (os, architecture, variant) = (platform.os(), platform.architecture(), platform.variant());
    format!(
        r#"{{"os":"{os}","architecture":"{architecture}","variant":"{variant}",
            "config":{{"Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":[{ids}]}}}}"#
    )
}

/// An archive in a file, member by member.
pub(super) struct Tape(tar::Builder<tempfile::NamedTempFile>);

impl Tape {
    pub(super) fn new() -> Self {
        Self(tar::Builder::new(tempfile::NamedTempFile::new().unwrap()))
    }

    /// One of all that is in the layout.
    pub(super) fn of(sample: &Sample) -> Self {
        let mut tape = Self::new();
        tape.0.append_dir_all("", sample.path()).unwrap();
        tape
    }

    pub(super) fn file(mut self, name: &str, bytes: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // The name as it is: the crate refuses those that hostile archives have.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        self.0.append(&header, bytes).unwrap();
        self
    }

    pub(super) fn link(mut self, kind: tar::EntryType, name: &str, target: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        self.0.append(&header, &[][..]).unwrap();
        self
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.link(tar::EntryType::Symlink, name, target)
    }

    pub(super) fn done(self) -> tempfile::NamedTempFile {
        self.0.into_inner().unwrap()
    }
}

/// Opens the source at `path`.
pub(super) fn open(path: impl AsRef<Path>) -> Result<Box<dyn Source>> {
    source::open(path.as_ref(), &std::env::temp_dir())
}

/// All of a layer.
pub(super) fn read(source: &dyn Source, layer: &source::SourceLayer) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.layer(layer)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The file at `path`, for reading.
pub(super) fn file(path: impl AsRef<Path>) -> fs::File {
    fs::File::options().read(true).open(path).unwrap()
}
