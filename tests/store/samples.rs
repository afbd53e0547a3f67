//! Images made by hand, and the store opened on a directory of the test's own.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use plyfs::errno::Result;
use plyfs::image::compression::Compression;
use plyfs::image::digest::Digest;
use plyfs::image::platform::Platform;
use plyfs::image::source::{self, Source};
use plyfs::store::{
    CheckOptions, CommitOptions, Container, ImportOptions, Imported, NewContainer, Report, Store,
};

/// An entry of a layer: path and content; `None` for a directory.
pub(crate) type Entry<'a> = (&'a str, Option<&'a [u8]>);

/// A layer's tar.
pub(crate) fn layer(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        let is_plain = content.is_some() && !path.starts_with("bin/");
        header.set_mode(if is_plain { 0o644 } else { 0o755 });
        let kind =
            if content.is_some() { tar::EntryType::Regular } else { tar::EntryType::Directory };
        header.set_entry_type(kind);
        let content = content.unwrap_or_default();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, path, content).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A layer of `files` files of `size` bytes that do not compress, in the directory `dir`.
pub(crate) fn bulk(dir: &str, files: usize, size: usize) -> Vec<u8> {
    let mut state = Digest::of(dir.as_bytes());
    let contents: Vec<(String, Vec<u8>)> = (0..files)
        .map(|number| {
            let mut content = Vec::with_capacity(size + 64);
            while content.len() < size {
                state = Digest::of(state.hex().as_bytes());
                content.extend_from_slice(state.hex().as_bytes());
            }
            content.truncate(size);
            (format!("{dir}/{number}"), content)
        })
        .collect();
    let files = contents.iter().map(|(path, content)| (path.as_str(), Some(content.as_slice())));
    layer(&[(dir, None)].into_iter().chain(files).collect::<Vec<_>>())
}

/// Writes an OCI layout with one image into a new directory `dir`.
pub(crate) fn layout(dir: &Path, name: &str, layers: &[Vec<u8>]) -> PathBuf {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        digest
    };
    let diff_ids: Vec<String> = layers.iter().map(|tar| Digest::of(tar).to_string()).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = config.to_string().into_bytes();
    let described: Vec<_> = layers
        .iter()
        .map(|tar| {
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gz.write_all(tar).unwrap();
            let blob = gz.finish().unwrap();
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": put(&blob).to_string(), "size": blob.len(),
            })
        })
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": put(&config).to_string(), "size": config.len(),
        },
        "layers": described,
    });
    let manifest = manifest.to_string().into_bytes();
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": put(&manifest).to_string(), "size": manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": name},
        }],
    });
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    dir.to_owned()
}

/// Three layers: files, one deleted, one replaced.
pub(crate) fn small_layers() -> Vec<Vec<u8>> {
    vec![
        layer(&[("etc", None), ("etc/a", Some(b"a")), ("etc/b", Some(b"b")), ("usr", None)]),
        layer(&[("etc/.wh.a", Some(b"")), ("usr/f", Some(b"old"))]),
        layer(&[("usr/f", Some(b"new")), ("usr/g", Some(b"g"))]),
    ]
}

pub(crate) fn open_source(path: &Path) -> Box<dyn Source> {
    source::open(path, &std::env::temp_dir()).unwrap()
}

/// Imports all that is in a layout.
pub(crate) fn import(store: &Store, layout: &Path) -> Result<Vec<Imported>> {
    import_source(store, &*open_source(layout))
}

/// Imports all that is in a source.
pub(crate) fn import_source(store: &Store, source: &dyn Source) -> Result<Vec<Imported>> {
    import_keeping(store, source, ImportOptions::KEEP_EACH)
}

/// As [`import_source`], with finished layers made safe this often.
pub(crate) fn import_keeping(
    store: &Store,
    source: &dyn Source,
    keep_each: Duration,
) -> Result<Vec<Imported>> {
    let stop = AtomicBool::new(false);
    store.import(
        source,
        &ImportOptions {
            name: None,
            stem: "",
            platform: &Platform::new("linux", "amd64", ""),
            threads: Some(3),
            progress: &|_| {},
            keep_each,
            stop: &stop,
        },
    )
}

/// Commits with nothing said that is not asked.
pub(crate) fn commit(store: &Store, container: &Container, name: &str) -> Result<Digest> {
    let stop = AtomicBool::new(false);
    let name = name.parse().unwrap();
    let options = CommitOptions {
        name: Some(&name),
        compression: Compression::Gzip,
        author: None,
        message: None,
        changes: &[],
        created: Some(1_000_000_000),
        stop: &stop,
    };
    Ok(store.commit(container, &options)?.id)
}

pub(crate) fn create(store: &Store, image: &str, name: &str) -> Container {
    store.create_container(image, NewContainer::Kept(name)).unwrap().0
}

pub(crate) fn check(store: &Store, repair: bool) -> Report {
    let stop = AtomicBool::new(false);
    let progress = |_, _| {};
    let options = CheckOptions { repair, contents: true, progress: &progress, stop: &stop };
    store.check(&options).unwrap()
}

/// Nothing is wrong, and nothing is left over.
#[track_caller]
pub(crate) fn assert_clean(store: &Store) {
    assert_eq!(check(store, false).findings, []);
}

/// The names in a directory of the store.
pub(crate) fn names(store: &Store, dir: &str) -> Vec<String> {
    let entries = fs::read_dir(store.root().join(dir)).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The names that images have.
pub(crate) fn tags(store: &Store) -> Vec<String> {
    let mut tags: Vec<_> =
        store.images().unwrap().into_iter().flat_map(|image| image.names).collect();
    tags.sort();
    tags
}
