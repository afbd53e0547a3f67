//! Images back into files that other tools read: OCI layouts, archives of them, and what
//! `docker load` takes.
//!
//! What is written is complete or not there: it comes about under another name beside its place,
//! is synced, and then renamed. What exists is never touched, a layout neither: several images go
//! into one layout by one call. The same images give the same bytes.

mod ahead;
mod output;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use self::ahead::{Ahead, Job};
use self::output::Output;
use super::compression::Compression;
use super::config::Config;
use super::digest::{DiffId, Digest};
use super::docker;
use super::layout::{FULL_NAME, MARKER, REF_NAME, blob_name};
use super::manifest::{Descriptor, Index, Manifest, media, to_json};
use super::reference::Reference;
use crate::errno::{Context as _, Errno, Error, Result};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An OCI layout: a directory.
    OciLayout,
    /// A tar archive of an OCI layout.
    OciArchive,
    /// What `docker save` writes since version 25: an archive of an OCI layout that has docker's
    /// own list as well. Its layers are never compressed.
    DockerArchive,
}

/// An image to be written.
#[derive(Clone, Debug)]
pub struct ExportImage {
    /// Its names, if it has any.
    pub names: Vec<Reference>,
    /// The manifest that it came with, if it did. It is written again, verbatim, if the layers'
    /// blobs come out as it lists them; else a new one takes its annotations over.
    pub manifest: Option<Vec<u8>>,
    /// Its config, which is written verbatim and lists the layers.
    pub config: Vec<u8>,
}

/// An image that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The digest of its manifest.
    pub manifest: Digest,
    /// Whether that is the manifest that it came with.
    pub original: bool,
}

/// Writes the tar archive of a layer: of the image with this index, the layer with this index,
/// lowest first. It is called once for layers that several images have, by several threads at once.
pub type LayerWriter<'a> = dyn Fn(usize, usize, &mut dyn Write) -> Result<()> + Sync + 'a;

/// Writes `images` to `dest`, which must not exist. No failure leaves anything behind; a kill may
/// leave a file or directory `.NAME.plyfs-*` beside `dest`.
///
/// # Errors
/// `EEXIST` if there is something at `dest`, `EIO` if `layer` writes another layer than the config
/// lists, `EINVAL` for no images or configs that are none; those of writing, and of `layer`.
pub fn export(
    images: &[ExportImage],
    layer: &LayerWriter<'_>,
    compression: Compression,
    format: Format,
    dest: &Path,
) -> Result<Vec<Exported>> {
    if images.is_empty() {
        return Err(Error::new(Errno::EINVAL, "no image to export"));
    }
    let shown = || dest.display();
    let configs = images.iter().map(|image| Config::parse(&image.config));
    let configs = configs.collect::<Result<Vec<_>>>()?;
    let output = Output::create(format != Format::OciLayout, dest).context(shown)?;
    let compression = if format == Format::DockerArchive { Compression::None } else { compression };
    let mut export = Export { output, compression, layers: BTreeMap::new() };
    export.write_layers(&configs, layer).context(shown)?;
    let mut written = Vec::new();
    for (image, config) in images.iter().zip(&configs) {
        let layers = config.diff_ids.iter().filter_map(|id| export.layers.get(id)).cloned();
        let layers = layers.collect();
        written.push(export.image(image, layers).context(shown)?);
    }
    let entries = images.iter().zip(&configs).zip(&written);
    let index = entries.flat_map(|((image, config), written)| {
        let platform = &config.platform;
        index_entries(&image.names, &written.descriptor.clone().on(platform))
    });
    let index = to_json(&Index::new(index.collect()))?;
    if format == Format::DockerArchive {
        let items = images.iter().zip(&configs).map(|(image, config)| Item::new(image, config));
        let list = to_json(&items.collect::<Vec<_>>())?;
        export.output.file(docker::LIST, &list).context(shown)?;
    }
    export.output.file("index.json", &index).context(shown)?;
    export.output.file(MARKER, br#"{"imageLayoutVersion":"1.0.0"}"#).context(shown)?;
    export.output.finish().context(shown)?;
    Ok(written.into_iter().map(|image| image.exported).collect())
}

/// An export in progress.
struct Export {
    output: Output,
    compression: Compression,
    /// What was written for each layer.
    layers: BTreeMap<DiffId, Descriptor>,
}

/// An image that was written.
struct Written {
    descriptor: Descriptor,
    exported: Exported,
}

impl Export {
    /// Writes the layers that the configs list, each once.
    fn write_layers(&mut self, configs: &[Config], layer: &LayerWriter<'_>) -> Result<()> {
        let mut seen = BTreeSet::new();
        let jobs = configs.iter().enumerate().flat_map(|(image, config)| {
            let ids = config.diff_ids.iter().enumerate();
            ids.map(move |(layer, &id)| Job { image, layer, id })
        });
        let jobs: Vec<Job> = jobs.filter(|job| seen.insert(job.id)).collect();
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| {
            let mut ahead = Ahead::start(scope, &jobs, layer, self.compression, threads)?;
            jobs.iter().try_for_each(|job| self.layer(job.id, &mut ahead))
        })
    }

    /// Writes the next layer.
    fn layer(&mut self, id: DiffId, ahead: &mut Ahead) -> Result<()> {
        let (digest, size) = self.output.blob(&mut |out| ahead.next(out))?;
        let kind = match self.compression {
            Compression::None => media::LAYER.to_owned(),
            compression => format!("{}+{}", media::LAYER, compression.suffix()),
        };
        self.layers.insert(id, Descriptor::new(kind, digest, size));
        Ok(())
    }

    /// Writes the config and the manifest of an image.
    fn image(&mut self, image: &ExportImage, layers: Vec<Descriptor>) -> Result<Written> {
        let config_digest = Digest::of(&image.config);
        self.output.known(config_digest, &image.config)?;
        let original = image.manifest.as_deref().and_then(|bytes| {
            // One that cannot be read is one that does not fit.
            Manifest::parse(bytes).ok().map(|manifest| (bytes, manifest))
        });
        let config = Descriptor::new(media::CONFIG, config_digest, image.config.len() as u64);
        let mut new = Manifest::new(config, layers);
        if let Some((bytes, manifest)) = original {
            if fits(&manifest, &new) {
                return self.manifest(bytes, manifest.media_type, true);
            }
            new.annotations = manifest.annotations;
        }
        let bytes = to_json(&new)?;
        self.manifest(&bytes, new.media_type, false)
    }

    fn manifest(&mut self, bytes: &[u8], kind: String, original: bool) -> Result<Written> {
        let manifest = Digest::of(bytes);
        self.output.known(manifest, bytes)?;
        let descriptor = Descriptor::new(kind, manifest, bytes.len() as u64);
        Ok(Written { descriptor, exported: Exported { manifest, original } })
    }
}

/// Whether a manifest is about the blobs that another is about.
fn fits(one: &Manifest, other: &Manifest) -> bool {
    let blobs = |manifest: &Manifest| {
        let all = [std::slice::from_ref(&manifest.config), manifest.layers.as_slice()].concat();
        all.into_iter().map(|blob| (blob.digest, blob.size)).collect::<Vec<_>>()
    };
    blobs(one) == blobs(other)
}

/// One entry of index.json for each name. The specification's annotation has the name as plyfs
/// shows it, tag included, so that it is the only one of its kind in the layout; containerd's has
/// the whole name.
fn index_entries(names: &[Reference], image: &Descriptor) -> Vec<Descriptor> {
    if names.is_empty() {
        return vec![image.clone()];
    }
    let entry = |name: &Reference| {
        let mut entry = image.clone();
        entry.annotations.insert(REF_NAME.to_owned(), name.to_string());
        entry.annotations.insert(FULL_NAME.to_owned(), name.full());
        entry
    };
    names.iter().map(entry).collect()
}

/// An image in docker's list.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Item {
    fn new(image: &ExportImage, config: &Config) -> Self {
        let tagged = image.names.iter().filter(|n| n.tag().is_some() && n.digest().is_none());
        Self {
            config: blob_name(Digest::of(&image.config)),
            repo_tags: tagged.map(ToString::to_string).collect(),
            // Uncompressed, a layer's blob is the archive that its identity is the digest of.
            layers: config.diff_ids.iter().copied().map(blob_name).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
