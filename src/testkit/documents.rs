//! Any bytes as the documents of an image: the body of the fuzz target of manifests.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::errno::Error;
use crate::image::config::Config;
use crate::image::digest::Digest;
use crate::image::manifest::{Document, Index, Manifest};
use crate::image::platform::Platform;
use crate::image::source;

/// What the only layer consists of.
const LAYER: &[u8] = b"a layer";
/// Between the documents.
const CUT: u8 = b'\n';

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A directory, removed on drop.
struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("plyfs-documents-{}-{number}", std::process::id());
        let home = Self(std::env::temp_dir().join(name));
        std::fs::create_dir_all(home.0.join("blobs/sha256")).unwrap();
        std::fs::write(home.0.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        home
    }

    fn blob(&self, bytes: &[u8]) {
        let name = Digest::of(bytes).to_string().replace(':', "/");
        std::fs::write(self.0.join("blobs").join(name), bytes).unwrap();
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A refusal is a sentence that no terminal stumbles over.
fn check_refusal(error: &Error) {
    let text = error.to_string();
    assert!(text.len() < 1000 && !text.contains(char::is_control), "{text:?}");
}

/// What is believed of a document is the same when it is written and read again.
fn check_document(bytes: &[u8]) {
    fn again<T: Serialize>(value: &T) -> Vec<u8> {
        serde_json::to_vec(value).unwrap()
    }
    match Document::parse(bytes) {
        Ok(Document::Index(index)) => {
            for descriptor in &index.manifests {
                let refused = descriptor.digest().err();
                refused.iter().for_each(check_refusal);
                descriptor.is_attestation();
            }
            assert_eq!(Index::parse(&again(&index)).unwrap(), index);
        }
        Ok(Document::Manifest(manifest)) => {
            let refused = [manifest.config_is_image().err(), manifest.check_layers().err()];
            refused.iter().flatten().for_each(check_refusal);
            assert_eq!(Manifest::parse(&again(&manifest)).unwrap(), manifest);
        }
        Err(error) => check_refusal(&error),
    }
}

/// Lines, each a document: an index, a manifest, a config. `@m`, `@c` and `@l` in them become the
/// digests of the manifest, the config and the only layer, `@M`, `@C` and `@L` their sizes: nobody
/// guesses those.
///
/// * Each is read, or refused in one line.
/// * What was read is the same once written and read again.
/// * An image of them has as many layers as its config says, each of which can be read to its end
///   if it is the one that is there.
///
/// Returns how many images there were.
pub fn check(bytes: &[u8]) -> usize {
    let mut parts = bytes.splitn(3, |&byte| byte == CUT);
    let mut part = || parts.next().unwrap_or_default().to_vec();
    let (mut index, mut manifest, mut config) = (part(), part(), part());
    config = filled(&config, b'l', LAYER);
    manifest = filled(&filled(&manifest, b'l', LAYER), b'c', &config);
    index = filled(&index, b'm', &manifest);
    check_document(&index);
    check_document(&manifest);
    let read = Config::parse(&config);
    read.as_ref().err().into_iter().for_each(check_refusal);

    let home = Home::new();
    std::fs::write(home.0.join("index.json"), &index).unwrap();
    home.blob(&manifest);
    home.blob(&config);
    home.blob(LAYER);
    let source = source::open(&home.0, &home.0).unwrap();
    match source.images(&Platform::host()) {
        Ok(images) => {
            for image in &images {
                assert_eq!(image.diff_ids.len(), image.layers.len());
                assert_eq!(image.config_digest, Digest::of(&image.config));
                for layer in &image.layers {
                    let is_there = layer.digest == Some(Digest::of(LAYER));
                    let mut found = Vec::new();
                    let end = source.layer(layer).map(|mut r| std::io::copy(&mut r, &mut found));
                    if is_there && layer.size == LAYER.len() as u64 {
                        assert_eq!(end.unwrap().unwrap(), layer.size);
                        assert_eq!(found, LAYER);
                    }
                }
            }
            images.len()
        }
        Err(error) => {
            check_refusal(&error);
            0
        }
    }
}

/// The text with the digest of a blob in the place of `@x`, and its size in that of `@X`.
fn filled(text: &[u8], mark: u8, blob: &[u8]) -> Vec<u8> {
    let mut filled = Vec::with_capacity(text.len() + 64);
    let mut left = text;
    while let Some((&first, rest)) = left.split_first() {
        left = rest;
        match rest.split_first() {
            Some((&next, after)) if first == b'@' && next == mark => {
                filled.extend_from_slice(Digest::of(blob).to_string().as_bytes());
                left = after;
            }
            Some((&next, after)) if first == b'@' && next == mark.to_ascii_uppercase() => {
                filled.extend_from_slice(blob.len().to_string().as_bytes());
                left = after;
            }
            _ => filled.push(first),
        }
    }
    filled
}
