//! The config and the manifest of a new image, from those of the one below it.
//!
//! The config is changed as JSON, so that what is not known here stays in it. Its keys come out
//! sorted: the same image again gives the same bytes.

mod change;

use serde_json::{Map, Value, json};

use super::CommitOptions;
use crate::errno::{Errno, Error, Result};
use crate::image::compression::Compression;
use crate::image::digest::{DiffId, Digest};
use crate::image::manifest::{Descriptor, Manifest};
use crate::store::{Image, now};

/// What is known of the new layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blob {
    /// The digest of its tar.
    pub(super) diff: DiffId,
    /// The bytes of its tar.
    pub(super) tar_size: u64,
    /// The digest of its blob.
    pub(super) digest: Digest,
    /// The bytes of its blob.
    pub(super) size: u64,
}

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The new config and manifest. There is a manifest only if the image below has one: the blobs of
/// its layers are known by nothing else. Without a layer, only whether it can be done.
///
/// # Errors
/// `EINVAL` for a change that makes no sense; `EIO` for a config in the store that does not.
pub(super) fn describe(
    base: &Image,
    options: &CommitOptions<'_>,
    layer: Option<&Blob>,
) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
    let bad = || Error::new(Errno::EIO, format!("the config of image {} is broken", base.label()));
    let mut config: Value = serde_json::from_slice(&base.config).map_err(|_| bad())?;
    let top = config.as_object_mut().ok_or_else(bad)?;
    let created = rfc3339(options.created.unwrap_or_else(now));
    top.insert("created".to_owned(), json!(created));
    if let Some(author) = options.author {
        top.insert("author".to_owned(), json!(author));
    }
    // What containers/image and Docker keep of the container that an image came from.
    for stale in ["container", "container_config", "id", "parent"] {
        top.remove(stale);
    }
    history(top, base.layers.len(), &created, options);
    let run = top.entry("config").or_insert_with(|| json!({}));
    if run.is_null() {
        *run = json!({});
    }
    let run = run.as_object_mut().ok_or_else(bad)?;
    for change in options.changes {
        change::apply(run, change)?;
    }
    let Some(layer) = layer else { return Ok((Vec::new(), None)) };
    let ids = top.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids"));
    match ids {
        Some(Value::Array(ids)) => ids.push(json!(layer.diff.to_string())),
        Some(ids @ Value::Null) => *ids = json!([layer.diff.to_string()]),
        _ => return Err(bad()),
    }
    let write = |value: &Value| serde_json::to_vec(value).map_err(|_| bad());
    let config = write(&config)?;
    let manifest = match &base.manifest {
        Some(manifest) => Some(new_manifest(manifest, &config, layer, options.compression)?),
        None => None,
    };
    Ok((config, manifest))
}

/// Adds a step to the history. Readers match its entries with the layers one by one, so layers that
/// have none get empty ones.
fn history(config: &mut Map<String, Value>, layers: usize, created: &str, how: &CommitOptions<'_>) {
    let old = config.get("history").and_then(Value::as_array).cloned().unwrap_or_default();
    let makes_layer = |step: &&Value| step.get("empty_layer") != Some(&Value::Bool(true));
    let told = old.iter().filter(makes_layer).count();
    let mut steps = vec![json!({}); layers.saturating_sub(told)];
    steps.extend(old);
    let mut step = json!({ "created": created, "created_by": "plyfs commit" });
    for (key, value) in [("author", how.author), ("comment", how.message)] {
        if let (Some(value), Some(step)) = (value, step.as_object_mut()) {
            step.insert(key.to_owned(), json!(value));
        }
    }
    steps.push(step);
    config.insert("history".to_owned(), Value::Array(steps));
}

fn new_manifest(
    base: &[u8],
    config: &[u8],
    layer: &Blob,
    compression: Compression,
) -> Result<Vec<u8>> {
    let mut layers = Manifest::parse(base)?.layers;
    for old in &mut layers {
        let compression = [Compression::Gzip, Compression::Zstd]
            .into_iter()
            .find(|known| old.media_type.contains(known.suffix()));
        old.media_type = layer_type(compression.unwrap_or(Compression::None));
    }
    layers.push(Descriptor::new(layer_type(compression), layer.digest, layer.size));
    let size = config.len() as u64;
    let manifest = Manifest::new(Descriptor::new(CONFIG, Digest::of(config), size), layers);
    serde_json::to_vec(&manifest)
        .map_err(|error| Error::new(Errno::EIO, format!("cannot write a manifest: {error}")))
}

fn layer_type(compression: Compression) -> String {
    match compression {
        Compression::None => LAYER.to_owned(),
        _ => format!("{LAYER}+{}", compression.suffix()),
    }
}

/// A point in time as RFC 3339 has it, in UTC. Years past 9999 it cannot say: the last second then.
pub(super) fn rfc3339(seconds: i64) -> String {
    const DAY: i64 = 24 * 60 * 60;
    let seconds = seconds.clamp(-62_135_596_800, 253_402_300_799);
    let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (mut year, mut day) = (1970, days);
    loop {
        let leap = i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
        if day < 0 {
            year -= 1;
            let leap = i64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
            day += 365 + leap;
        } else if day >= 365 + leap {
            day -= 365 + leap;
            year += 1;
        } else {
            let months = [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let mut month = 1;
            for length in months {
                if day < length {
                    break;
                }
                day -= length;
                month += 1;
            }
            let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
            let date = format!("{year:04}-{month:02}-{:02}", day + 1);
            return format!("{date}T{hour:02}:{minute:02}:{second:02}Z");
        }
    }
}

#[cfg(test)]
mod tests;
