//! The JSON that describes images: indexes, and manifests. Read strictly where it decides what is
//! taken, and without complaint about what it says beyond that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::platform::{Platform, Words};
use crate::errno::{Context as _, Errno, Error, Result};

/// An index or a manifest has no more bytes than this (what registries accept, too).
pub const MAX_MANIFEST: u64 = 4 << 20;
/// An image has no more layers than this.
pub const MAX_LAYERS: usize = 1000;

/// The types that are written: the image specification's.
pub(super) mod media {
    pub(in crate::image) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub(in crate::image) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub(in crate::image) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub(in crate::image) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub(super) const DOCKER_INDEX: &str =
        "application/vnd.docker.distribution.manifest.list.v2+json";
    pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub(super) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
}

/// A reference to a blob.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob claims to be.
    #[serde(default)]
    pub media_type: String,
    /// The blob's digest as written; [`Descriptor::digest`] reads it.
    pub digest: String,
    /// The blob's size in bytes.
    pub size: u64,
    /// Where else it might be fetched from.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub urls: Vec<String>,
    /// What is said about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<Words>,
}

impl Descriptor {
    /// A plain one.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        let (media_type, digest) = (media_type.into(), digest.to_string());
        let (urls, annotations) = (Vec::new(), BTreeMap::new());
        Self { media_type, digest, size, urls, annotations, platform: None }
    }

    /// The same, for this platform.
    #[must_use]
    pub fn on(mut self, platform: &Platform) -> Self {
        self.platform = Some(Words::from(platform));
        self
    }

    /// The digest of the blob.
    ///
    /// # Errors
    /// `EINVAL` for one that is malformed or by another algorithm than SHA-256.
    pub fn digest(&self) -> Result<Digest> {
        self.digest.parse()
    }

    /// The platform that the blob is said to be for.
    pub fn platform(&self) -> Option<Platform> {
        self.platform.as_ref().map(Platform::from)
    }

    /// Whether the blob is said to be an index (or else a manifest); `None` if that is not known.
    pub(super) fn is_index(&self) -> Option<bool> {
        match self.media_type.as_str() {
            media::INDEX | media::DOCKER_INDEX => Some(true),
            media::MANIFEST | media::DOCKER_MANIFEST => Some(false),
            _ => None,
        }
    }

    /// Whether it is about another blob rather than an image of its own: BuildKit's attestations.
    pub fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
            || self.platform().is_some_and(|platform| platform.is_unknown())
    }
}

/// Several images under one name, or all that a layout holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    schema_version: u32,
    media_type: String,
    /// What it lists.
    pub manifests: Vec<Descriptor>,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u32,
    /// What it says to be; the image specification's manifest if it does not say.
    pub media_type: String,
    /// The image's config.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What is said about it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a descriptor of an index leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// A further index.
    Index(Index),
    /// An image.
    Manifest(Manifest),
}

/// Either of them as it stands in JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
    // Docker's first schema, which is told apart to say so.
    #[serde(default, rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Index {
    /// One that lists these.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: media::INDEX.to_owned(), manifests }
    }

    /// Reads the index of a layout.
    ///
    /// # Errors
    /// `EINVAL` for what is no index.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        match Document::parse(bytes)? {
            Document::Index(index) => Ok(index),
            Document::Manifest(_) => Err(wrong("a manifest where an index has to be")),
        }
    }
}

impl Manifest {
    /// An image of this config and these layers.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        let media_type = media::MANIFEST.to_owned();
        Self { schema_version: 2, media_type, config, layers, annotations: BTreeMap::new() }
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// `EINVAL` for what is no manifest of a container image, and for more than [`MAX_LAYERS`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        match Document::parse(bytes)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(wrong("an index where a manifest has to be")),
        }
    }

    /// Refuses what is no container image: charts, signatures.
    ///
    /// # Errors
    /// `EINVAL`, naming the type.
    pub fn config_is_image(&self) -> Result<()> {
        match self.config.media_type.as_str() {
            "" | media::CONFIG | media::DOCKER_CONFIG => Ok(()),
            kind => {
                let kind = kind.escape_debug();
                Err(wrong(format!("no container image: its config is of type '{kind}'")))
            }
        }
    }

    /// Refuses layers that cannot be tar archives.
    ///
    /// # Errors
    /// `EINVAL`, naming the layer and its type.
    pub fn check_layers(&self) -> Result<()> {
        for (number, layer) in self.layers.iter().enumerate() {
            let digest = layer.digest.escape_debug();
            check_layer_type(&layer.media_type).context(|| format!("layer {number} ({digest})"))?;
        }
        Ok(())
    }
}

impl Document {
    /// Tells an index from a manifest by what it holds, and reads it.
    ///
    /// # Errors
    /// `EINVAL` for what is neither, or could be taken for both (so that two readers of it see
    /// two images: CVE-2021-41190).
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let raw: Raw = from_json(bytes)?;
        if raw.schema_version == Some(1) || raw.fs_layers.is_some() {
            return Err(wrong("Docker's image manifests of schema 1 are not supported"));
        }
        if let Some(version) = raw.schema_version.filter(|version| *version != 2) {
            return Err(wrong(format!("schema version {version} is not supported")));
        }
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) => Ok(Self::Index(Index::new(manifests))),
            (None, Some(config), layers) => {
                let layers = layers.unwrap_or_default();
                if layers.len() > MAX_LAYERS {
                    let n = layers.len();
                    return Err(wrong(format!("{n} layers, more than {MAX_LAYERS}")));
                }
                let new = Manifest::new(config, layers);
                let media_type = raw.media_type.unwrap_or(new.media_type);
                let annotations = raw.annotations;
                Ok(Self::Manifest(Manifest { media_type, annotations, ..new }))
            }
            (Some(_), _, _) => Err(wrong("an index and a manifest at once")),
            _ => Err(wrong("neither an index nor a manifest")),
        }
    }
}

/// The JSON of a document that we write.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::new(Errno::EIO, format!("writing JSON: {e}")))
}

/// Any of our JSON types, from bytes whose number was bounded before.
pub(super) fn from_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        // What serde says may quote the input.
        let said: String = error.to_string().chars().take(200).collect();
        wrong(format!("not the JSON expected: {}", said.escape_debug()))
    })
}

/// `null` as nothing: what Go writes for lists and maps without content.
pub(super) fn or_default<'de, D, T>(json: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(json)?.unwrap_or_default())
}

fn wrong(why: impl Into<String>) -> Error {
    Error::new(Errno::EINVAL, why)
}

/// How a layer is compressed is found out from its bytes; here counts only whether it can be a
/// tar archive.
fn check_layer_type(kind: &str) -> Result<()> {
    if kind.ends_with("+encrypted") {
        return Err(wrong("it is encrypted"));
    }
    // `application/vnd.oci.image.layer.v1.tar+gzip`, and docker's `....diff.tar.gzip`.
    let name = kind.strip_prefix("application/").unwrap_or_default();
    let name = name.split('+').next().unwrap_or_default();
    let mut words = name.rsplit('.');
    let last = match words.next() {
        Some("gzip" | "gz" | "zstd" | "zst") => words.next(),
        last => last,
    };
    if kind.is_empty() || matches!(last, Some("tar" | "x-tar")) {
        return Ok(());
    }
    Err(wrong(format!("its type '{}' is no tar archive", kind.escape_debug())))
}

#[cfg(test)]
mod tests;
