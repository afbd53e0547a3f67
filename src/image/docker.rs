//! What `docker save` writes: a list of images, each with a config and the files of its layers.

use serde::Deserialize;

use super::config::{Config, MAX_CONFIG};
use super::digest::Digest;
use super::manifest::{MAX_LAYERS, MAX_MANIFEST, from_json, or_default};
use super::source::{Files, SourceImage, SourceLayer};
use super::tar::shown;
use crate::errno::{Context as _, Errno, Error, Result};

/// The list of images.
pub(super) const LIST: &str = "manifest.json";

/// How much of configs is read in all.
const MAX_READ: u64 = 256 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default, deserialize_with = "or_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    layers: Vec<String>,
}

/// All images of the list, whatever platform they are for: it holds what somebody chose.
pub(super) fn images(files: &dyn Files) -> Result<Vec<SourceImage>> {
    let missing = || Error::new(Errno::EINVAL, format!("it has no {LIST}"));
    let list = files.open(LIST)?.ok_or_else(missing)?.read(MAX_MANIFEST, None, LIST)?;
    let items: Vec<Item> = from_json(&list).context(|| LIST)?;
    let mut left = MAX_READ;
    let mut found = Vec::new();
    for item in items {
        found.push(image(files, item, &mut left)?);
    }
    if found.is_empty() {
        return Err(Error::new(Errno::EINVAL, format!("no image in {LIST}")));
    }
    Ok(found)
}

fn image(files: &dyn Files, item: Item, left: &mut u64) -> Result<SourceImage> {
    let what = shown(item.config.as_bytes());
    let missing = || Error::new(Errno::EIO, format!("{what}: missing"));
    let blob = files.open(&item.config)?.ok_or_else(missing)?;
    let spent = left.checked_sub(blob.size.min(MAX_CONFIG));
    let too_much = || Error::new(Errno::EINVAL, format!("{what}: too many bytes of configs"));
    *left = spent.ok_or_else(too_much)?;
    let config = blob.read(MAX_CONFIG, digest_in(&item.config), &what)?;
    let diff_ids = Config::parse(&config).context(|| &what)?.diff_ids;
    if item.layers.len() != diff_ids.len() || item.layers.len() > MAX_LAYERS {
        let (has, said) = (item.layers.len(), diff_ids.len());
        let why = format!("{what}: {has} layers in {LIST}, but {said} in the config");
        return Err(Error::new(Errno::EINVAL, why));
    }
    let layers = item.layers.into_iter().map(|name| layer(files, name)).collect::<Result<_>>()?;
    Ok(SourceImage {
        names: item.repo_tags,
        manifest: None,
        config_digest: Digest::of(&config),
        config,
        diff_ids,
        layers,
    })
}

fn layer(files: &dyn Files, member: String) -> Result<SourceLayer> {
    let missing = || {
        let why = format!("layer {}: missing", shown(member.as_bytes()));
        Error::new(Errno::EIO, why)
    };
    let size = files.open(&member)?.ok_or_else(missing)?.size;
    let digest = member.starts_with("blobs/").then(|| digest_in(&member)).flatten();
    Ok(SourceLayer { digest, size, media_type: String::new(), member, foreign: false })
}

/// The digest that a file is named by: `HEX.json`, `blobs/sha256/HEX`, `sha256:HEX`.
fn digest_in(name: &str) -> Option<Digest> {
    let name = name.rsplit('/').next().unwrap_or(name);
    let name = name.strip_suffix(".json").unwrap_or(name);
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    format!("sha256:{hex}").parse().ok()
}

#[cfg(test)]
mod tests;
