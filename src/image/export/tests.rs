use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;

use super::*;
use crate::image::platform::Platform;
use crate::image::source::SourceImage;
use crate::image::tests::{Sample, config, open, read};
use crate::image::{compression, manifest::Document};

const HOST: &str = "linux/amd64";
const LAYERS: [&[u8]; 3] = [b"the lowest layer", b"the second layer", b"the topmost layer"];
const FORMATS: [Format; 3] = [Format::OciLayout, Format::OciArchive, Format::DockerArchive];
const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

/// An image of the first `n` layers.
fn image(n: usize, names: &[&str]) -> ExportImage {
    let names = names.iter().map(|name| name.parse().unwrap()).collect();
    let config = config(HOST, &LAYERS[..n]).into_bytes();
    ExportImage { names, manifest: None, config }
}

fn layer(_: usize, which: usize, out: &mut dyn Write) -> Result<()> {
    Ok(out.write_all(LAYERS[which])?)
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn dest(&self) -> std::path::PathBuf {
        self.0.path().join("image")
    }

    fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn export(&self, images: &[ExportImage], how: Compression, format: Format) -> Vec<Exported> {
        export(images, &layer, how, format, &self.dest()).unwrap()
    }

    fn images(&self) -> Vec<SourceImage> {
        open(self.dest()).unwrap().images(&Platform::host()).unwrap()
    }
}

#[test]
fn what_is_exported_is_read_again() {
    for format in FORMATS {
        for how in COMPRESSIONS {
            let place = Place::new();
            let all = [image(3, &["a:1", "r.example/b:2"]), image(2, &[])];
            let written = place.export(&all, how, format);
            let source = open(place.dest()).unwrap();
            let found = source.images(&Platform::host()).unwrap();
            assert_eq!(found.len(), 2);
            assert_eq!(found[0].names, ["docker.io/library/a:1", "r.example/b:2"]);
            assert!(found[1].names.is_empty());
            for ((found, image), written) in found.iter().zip(&all).zip(&written) {
                assert_eq!(found.config, image.config);
                let manifest = found.manifest.as_ref().unwrap();
                assert_eq!((Digest::of(manifest), written.original), (written.manifest, false));
                for (layer, bytes) in found.layers.iter().zip(LAYERS) {
                    let stored = read(source.as_ref(), layer).unwrap();
                    let (is, mut plain) =
                        compression::decoder(Box::new(std::io::Cursor::new(stored))).unwrap();
                    let mut all = Vec::new();
                    plain.read_to_end(&mut all).unwrap();
                    assert_eq!(all, bytes);
                    let docker = format == Format::DockerArchive;
                    assert_eq!(is, if docker { Compression::None } else { how });
                    assert_eq!(layer.media_type.ends_with("tar"), is == Compression::None);
                }
            }
        }
    }
}

#[test]
fn the_same_images_give_the_same_bytes() {
    let all = [image(3, &["a:1"]), image(2, &["b:2"])];
    for format in [Format::OciArchive, Format::DockerArchive] {
        let bytes = || {
            let place = Place::new();
            place.export(&all, Compression::Gzip, format);
            fs::read(place.dest()).unwrap()
        };
        assert_eq!(bytes(), bytes());
    }
}

#[test]
fn a_layer_of_several_images_is_written_once() {
    let calls = Mutex::new(Vec::new());
    let count = |image: usize, which: usize, out: &mut dyn Write| {
        calls.lock().unwrap().push((image, which));
        layer(image, which, out)
    };
    let place = Place::new();
    let all = [image(2, &["a"]), image(3, &["b"]), image(2, &["c"])];
    export(&all, &count, Compression::None, Format::OciArchive, &place.dest()).unwrap();
    let mut calls = calls.into_inner().unwrap();
    calls.sort_unstable();
    assert_eq!(calls, [(0, 0), (0, 1), (1, 2)]);
    let mut archive = tar::Archive::new(crate::image::tests::file(place.dest()));
    let entries = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 0);
        entry.path().unwrap().to_str().unwrap().to_owned()
    });
    let mut names: Vec<_> = entries.collect();
    // Two directories, three layers, two configs and manifests, two files.
    assert_eq!(names.len(), 2 + 3 + 2 * 2 + 2);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 11, "each once");
    assert_eq!(place.images().len(), 2, "two of the three are one, by two names");
    assert_eq!(
        place.images()[0].names,
        ["docker.io/library/a:latest", "docker.io/library/c:latest"]
    );
}

#[test]
fn the_original_manifest_is_kept_where_it_fits() {
    let sample = Sample::new();
    let mut manifest = sample.manifest(HOST, &LAYERS);
    manifest.annotations.insert("made.by".to_owned(), "hand".to_owned());
    manifest.media_type = "application/vnd.docker.distribution.manifest.v2+json".to_owned();
    // Some bytes of its own.
    let original = [to_json(&manifest).unwrap().as_slice(), b"\n\n"].concat();
    let all = [ExportImage { manifest: Some(original.clone()), ..image(3, &["a"]) }];
    let place = Place::new();
    let written = place.export(&all, Compression::None, Format::OciLayout);
    assert_eq!(written, [Exported { manifest: Digest::of(&original), original: true }]);
    assert_eq!(place.images()[0].manifest.as_ref(), Some(&original));
    let index = fs::read(place.dest().join("index.json")).unwrap();
    let Document::Index(index) = Document::parse(&index).unwrap() else { panic!("no index") };
    assert_eq!(index.manifests[0].media_type, manifest.media_type);
    let place = Place::new();
    let written = place.export(&all, Compression::Gzip, Format::OciLayout);
    assert!(!written[0].original);
    let new = Manifest::parse(place.images()[0].manifest.as_ref().unwrap()).unwrap();
    assert_eq!(new.annotations, manifest.annotations);
    assert_eq!(new.media_type, media::MANIFEST);
    // A manifest that is none is no reason to keep the image back.
    let all = [ExportImage { manifest: Some(b"{".to_vec()), ..image(3, &["a"]) }];
    assert!(!Place::new().export(&all, Compression::None, Format::OciLayout)[0].original);
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let wrong = |image: usize, which: usize, out: &mut dyn Write| {
        layer(image, if which == 1 { 0 } else { which }, out)
    };
    let failing = |_: usize, which: usize, out: &mut dyn Write| {
        out.write_all(b"half a layer")?;
        Err(Error::new(Errno::ENOSPC, format!("the {which}th")))
    };
    for format in FORMATS {
        let place = Place::new();
        let export = |layer: &LayerWriter<'_>| {
            export(&[image(2, &[])], layer, Compression::Gzip, format, &place.dest()).unwrap_err()
        };
        let error = export(&wrong);
        assert_eq!(error.errno(), Errno::EIO);
        let id = Digest::of(LAYERS[1]);
        assert!(error.to_string().contains(&format!("layer {id}: what was stored")), "{error}");
        let error = export(&failing);
        assert_eq!(error.errno(), Errno::ENOSPC);
        assert!(error.to_string().contains("the 0th"), "{error}");
        assert!(place.entries().is_empty(), "{:?}", place.entries());
    }
}

#[test]
fn what_exists_is_not_touched() {
    for format in FORMATS {
        let place = Place::new();
        let error = |images: &[ExportImage]| {
            export(images, &layer, Compression::None, format, &place.dest()).unwrap_err()
        };
        fs::write(place.dest(), b"mine").unwrap();
        assert_eq!(error(&[image(1, &[])]).errno(), Errno::EEXIST);
        assert_eq!(fs::read(place.dest()).unwrap(), b"mine");
        fs::remove_file(place.dest()).unwrap();
        std::os::unix::fs::symlink("nowhere", place.dest()).unwrap();
        assert_eq!(error(&[image(1, &[])]).errno(), Errno::EEXIST);
        fs::remove_file(place.dest()).unwrap();
        fs::create_dir(place.dest()).unwrap();
        assert_eq!(error(&[image(1, &[])]).errno(), Errno::EEXIST);
        assert_eq!(error(&[]).errno(), Errno::EINVAL);
        assert_eq!(place.entries(), ["image"]);
    }
}

#[test]
fn somebody_else_may_be_faster() {
    for format in FORMATS {
        let place = Place::new();
        let racing = |image: usize, which: usize, out: &mut dyn Write| {
            fs::write(place.dest(), b"theirs").unwrap();
            layer(image, which, out)
        };
        let made = export(&[image(1, &[])], &racing, Compression::None, format, &place.dest());
        assert_eq!(made.unwrap_err().errno(), Errno::EEXIST);
        assert_eq!(fs::read(place.dest()).unwrap(), b"theirs");
        assert_eq!(place.entries(), ["image"]);
    }
}

#[test]
fn a_layout_can_be_read_by_all() {
    let place = Place::new();
    place.export(&[image(1, &[])], Compression::None, Format::OciLayout);
    let dir = fs::metadata(place.dest()).unwrap().permissions().mode();
    assert_eq!(dir & 0o700, 0o700);
    let blobs = fs::read_dir(place.dest().join("blobs/sha256")).unwrap();
    for blob in blobs {
        let blob = blob.unwrap();
        let digest = Digest::of(&fs::read(blob.path()).unwrap());
        assert_eq!(digest.hex(), blob.file_name().into_string().unwrap());
    }
}

#[test]
fn dockers_list_names_what_is_there() {
    let digest = Digest::of(b"");
    let place = Place::new();
    let all = [image(2, &["a:1", &format!("a@{digest}"), "r.example/b"]), image(1, &[])];
    place.export(&all, Compression::Zstd, Format::DockerArchive);
    let unpacked = tempfile::tempdir().unwrap();
    let mut archive = tar::Archive::new(crate::image::tests::file(place.dest()));
    archive.unpack(unpacked.path()).unwrap();
    let list = fs::read(unpacked.path().join(docker::LIST)).unwrap();
    let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
    assert_eq!(list[0]["RepoTags"], serde_json::json!(["a:1", "r.example/b:latest"]));
    assert_eq!(list[1]["RepoTags"], serde_json::json!([]));
    for item in list.as_array().unwrap() {
        let layers = item["Layers"].as_array().unwrap();
        for (layer, bytes) in layers.iter().zip(LAYERS) {
            assert_eq!(fs::read(unpacked.path().join(layer.as_str().unwrap())).unwrap(), bytes);
        }
        let config = unpacked.path().join(item["Config"].as_str().unwrap());
        assert!(all.iter().any(|image| fs::read(&config).unwrap() == image.config));
    }
    // Without the layout it is read by its list.
    fs::remove_file(unpacked.path().join(MARKER)).unwrap();
    let images = open(unpacked.path()).unwrap().images(&Platform::host()).unwrap();
    assert_eq!(images[0].names, ["a:1", "r.example/b:latest"]);
}
