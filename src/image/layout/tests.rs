use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;

use super::*;
use crate::image::manifest::{media, to_json};
use crate::image::tests::{Sample, config, named, on};

const BOTTOM: &[u8] = b"the lower layer";
const TOP: &[u8] = b"the upper layer";
const HOST: &str = "linux/amd64";

#[test]
fn an_image_comes_with_all_that_it_is() {
    let sample = Sample::new();
    let image = sample.image(HOST, &[BOTTOM, TOP]);
    sample.index(vec![named(image.clone(), "a:1"), named(image.clone(), "latest")]);
    let source = sample.open().unwrap();
    let images = source.images(&Platform::host()).unwrap();
    assert_eq!(images.len(), 1, "two names of one image");
    let found = &images[0];
    assert_eq!(found.names, ["a:1", "latest"]);
    assert_eq!(Digest::of(found.manifest.as_ref().unwrap()), image.digest().unwrap());
    assert_eq!(found.config, config(HOST, &[BOTTOM, TOP]).as_bytes());
    assert_eq!(found.config_digest, Digest::of(&found.config));
    assert_eq!(found.diff_ids, [Digest::of(BOTTOM), Digest::of(TOP)]);
    for (layer, bytes) in found.layers.iter().zip([BOTTOM, TOP]) {
        let mut read = Vec::new();
        source.layer(layer).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
        assert_eq!(layer.size, bytes.len() as u64);
        assert_eq!(layer.digest, Some(Digest::of(bytes)));
    }
}

#[test]
fn containerds_name_stands_before_the_tag() {
    let sample = Sample::new();
    let mut image = named(sample.image(HOST, &[TOP]), "12");
    image.annotations.insert(FULL_NAME.to_owned(), "docker.io/library/debian:12".to_owned());
    sample.index(vec![image]);
    assert_eq!(sample.images(HOST).unwrap()[0].names, ["docker.io/library/debian:12"]);
}

#[test]
fn the_platform_chooses() {
    let sample = Sample::new();
    let image = |platform, layer| on(sample.image(platform, &[layer]), platform);
    let mut attestation = on(sample.image("unknown/unknown", &[b"x"]), "unknown/unknown");
    attestation.annotations.insert("vnd.docker.reference.type".into(), "attestation".into());
    let inner = sample.nested(vec![image("linux/arm/v7", b"v7"), image("linux/arm/v6", b"v6")]);
    let all = sample.nested(vec![attestation, image(HOST, b"amd64"), inner]);
    sample.index(vec![named(all, "multi")]);
    let layer = |platform: &str| {
        let images = sample.images(platform)?;
        assert_eq!(
            (images.len(), images[0].names.as_slice()),
            (1, ["multi".to_owned()].as_slice())
        );
        Ok::<_, Error>(images[0].diff_ids.clone())
    };
    assert_eq!(layer(HOST).unwrap(), [Digest::of(b"amd64")]);
    assert_eq!(layer("linux/arm/v7").unwrap(), [Digest::of(b"v7")]);
    assert_eq!(layer("linux/arm/v6").unwrap(), [Digest::of(b"v6")]);
    assert_eq!(layer("linux/arm/v8").unwrap(), [Digest::of(b"v7")], "the nearest below");
    let error = layer("linux/s390x").unwrap_err();
    assert_eq!(error.errno(), Errno::ENOENT);
    let text = error.to_string();
    assert!(text.contains("no image for linux/s390x"), "{text}");
    assert!(text.contains("linux/amd64, linux/arm/v7, linux/arm/v6"), "{text}");
}

#[test]
fn a_lone_image_needs_no_platform_and_several_have_it_in_their_configs() {
    let sample = Sample::new();
    let arm = sample.image("linux/arm64", &[b"arm"]);
    sample.index(vec![arm.clone()]);
    assert_eq!(sample.images(HOST).unwrap().len(), 1);
    sample.index(vec![sample.nested(vec![arm.clone()])]);
    assert_eq!(sample.images(HOST).unwrap().len(), 1);
    sample.index(vec![sample.nested(vec![arm.clone(), sample.image(HOST, &[b"amd"])])]);
    assert_eq!(sample.images(HOST).unwrap()[0].diff_ids, [Digest::of(b"amd")]);
    sample.index(vec![on(arm, "linux/arm64")]);
    assert!(sample.refused().contains("no image for linux/amd64"), "it says that it is another's");
}

#[test]
fn every_name_has_its_own_image() {
    let sample = Sample::new();
    let entry = |name: &str, layer: &[u8]| named(sample.image(HOST, &[layer]), name);
    let other = on(named(sample.image("linux/arm64", &[b"c"]), "c"), "linux/arm64");
    sample.index(vec![entry("a", b"a"), other, entry("b", b"b")]);
    let names: Vec<_> =
        sample.images(HOST).unwrap().iter().map(|image| image.names[0].clone()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn blobs_that_are_not_what_they_should_be_are_refused() {
    let sample = Sample::new();
    let manifest = sample.manifest(HOST, &[BOTTOM, TOP]);
    let image = sample.add(&manifest);
    sample.index(vec![image.clone()]);
    let kept = |digest: &str| (sample.blob_path(digest), fs::read(sample.blob_path(digest)));
    for (kind, digest) in [("manifest", &image.digest), ("config", &manifest.config.digest)] {
        let (path, bytes) = kept(digest);
        let mut bytes = bytes.unwrap();
        let digest = digest.as_str();
        bytes[0] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let text = sample.refused();
        assert!(text.contains(&format!("{kind} {digest}: corrupt")), "{text}");
        bytes[0] ^= 1;
        fs::write(&path, [&bytes[..], b" "].concat()).unwrap();
        assert!(sample.refused().contains("bytes instead of"), "{kind}");
        fs::remove_file(&path).unwrap();
        assert!(sample.refused().contains(&format!("{kind} {digest}: missing")), "{kind}");
        fs::write(&path, &bytes).unwrap();
    }
    let source = sample.open().unwrap();
    let layers = source.images(&Platform::host()).unwrap().remove(0).layers;
    let (path, _) = kept(&manifest.layers[0].digest);
    let read = || source.layer(&layers[0]).map(|mut r| r.read_to_end(&mut Vec::new()));
    fs::write(&path, b"THE lower layer").unwrap();
    let text = read().unwrap().unwrap_err().to_string();
    assert!(text.contains("layer sha256:") && text.contains("corrupt"), "{text}");
    fs::write(&path, b"short").unwrap();
    assert!(read().unwrap_err().to_string().contains("5 bytes instead of 15"));
    fs::remove_file(&path).unwrap();
    let error = read().unwrap_err();
    assert_eq!(error.errno(), Errno::EIO);
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn a_corrupt_layer_fails_again_and_again() {
    let sample = Sample::new();
    sample.index(vec![sample.image(HOST, &[TOP])]);
    let source = sample.open().unwrap();
    let layer = source.images(&Platform::host()).unwrap().remove(0).layers.remove(0);
    let path = sample.blob_path(&layer.digest.unwrap().to_string());
    fs::write(&path, b"THE upper layer").unwrap();
    let mut reader = source.layer(&layer).unwrap();
    let mut bytes = [0; 64];
    assert_eq!(reader.read(&mut bytes).unwrap(), 15);
    for _ in 0..3 {
        reader.read(&mut bytes).unwrap_err();
    }
    let mut reader = source.layer(&layer).unwrap();
    fs::write(&path, b"cut").unwrap();
    let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("cut short"), "{error}");
}

#[test]
fn nothing_outside_of_the_layout_is_read() {
    let sample = Sample::new();
    let image = sample.image(HOST, &[TOP]);
    sample.index(vec![image.clone()]);
    let path = sample.blob_path(&image.digest);
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::copy(&path, outside.path()).unwrap();
    fs::remove_file(&path).unwrap();
    symlink(outside.path(), &path).unwrap();
    let text = sample.refused();
    assert!(text.contains("leads out of the layout"), "{text}");
    // Links within are followed: build systems make layouts of them.
    fs::remove_file(&path).unwrap();
    fs::copy(outside.path(), sample.path().join("inside")).unwrap();
    symlink("../../inside", &path).unwrap();
    assert_eq!(sample.images(HOST).unwrap().len(), 1);
    fs::remove_file(&path).unwrap();
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, mode, 0).unwrap();
    assert!(sample.refused().contains("not a regular file"));
}

#[test]
fn a_config_of_other_layers_is_refused() {
    let sample = Sample::new();
    let mut manifest = sample.manifest(HOST, &[BOTTOM, TOP]);
    manifest.layers.pop();
    sample.index(vec![sample.add(&manifest)]);
    assert!(sample.refused().contains("1 layers, but the config lists 2"), "{}", sample.refused());
}

#[test]
fn other_layers_than_tar_archives_are_refused() {
    let sample = Sample::new();
    for (kind, why) in [
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted"),
        ("application/vnd.erofs.layer.v1", "no tar archive"),
    ] {
        let mut manifest = sample.manifest(HOST, &[BOTTOM, TOP]);
        kind.clone_into(&mut manifest.layers[1].media_type);
        sample.index(vec![sample.add(&manifest)]);
        let text = sample.refused();
        assert!(text.contains("layer 1 (sha256:") && text.contains(why), "{text}");
    }
}

#[test]
fn what_is_no_image_is_passed_over() {
    let sample = Sample::new();
    let mut chart = sample.manifest(HOST, &[TOP]);
    chart.config.media_type = "application/vnd.cncf.helm.config.v1+json".to_owned();
    let mut artifact = sample.blob("application/vnd.oci.artifact.manifest.v1+json", b"{}");
    artifact.annotations.clear();
    let others = vec![sample.add(&chart), artifact];
    sample.index(others.clone());
    assert!(sample.refused().contains("vnd.cncf.helm"), "{}", sample.refused());
    sample.index([others, vec![sample.image(HOST, &[TOP])]].concat());
    assert_eq!(sample.images(HOST).unwrap().len(), 1);
    sample.index(vec![]);
    assert!(sample.refused().contains("no image in it"));
}

#[test]
fn nesting_and_repetition_are_bounded() {
    let sample = Sample::new();
    let mut entry = sample.image(HOST, &[TOP]);
    for _ in 1..MAX_DEPTH {
        entry = sample.nested(vec![entry]);
        sample.index(vec![entry.clone()]);
        assert_eq!(sample.images(HOST).unwrap().len(), 1);
    }
    sample.index(vec![sample.nested(vec![entry])]);
    assert!(sample.refused().contains("nested deeper than 4"), "{}", sample.refused());
    // A thousand times a thousand of one manifest: not a million readings of it.
    let one = sample.image(HOST, &[TOP]);
    let thousand = sample.nested(vec![one; 1000]);
    sample.index(vec![sample.nested(vec![thousand; 1000])]);
    assert!(sample.refused().contains("more than 10000 images"), "{}", sample.refused());
}

#[test]
fn much_reading_is_refused() {
    let sample = Sample::new();
    // Each of the names leads to another reading of one manifest.
    let mut big = sample.manifest(HOST, &[TOP]);
    big.annotations.insert("x".to_owned(), "x".repeat(10_000));
    let inner = sample.add(&big);
    let entry = |n: usize| {
        let unlike = sample.image("linux/arm64", &[format!("{n}").as_bytes()]);
        sample.nested(vec![on(unlike, "linux/arm64"), on(inner.clone(), HOST)])
    };
    sample.index((0..10).map(entry).collect());
    let files = Directory::new(crate::image::tests::file(sample.path()).into());
    let walk =
        |left| Walk { files: &files, platform: &Platform::host(), left: Cell::new(left) }.images();
    assert_eq!(walk(MAX_READ).unwrap().len(), 10);
    let text = walk(100_000).unwrap_err().to_string();
    assert!(text.contains("too many bytes of indexes and manifests"), "{text}");
}

#[test]
fn big_documents_are_not_read() {
    let sample = Sample::new();
    let mut image = sample.image(HOST, &[TOP]);
    let file = fs::File::options().write(true).open(sample.blob_path(&image.digest)).unwrap();
    file.set_len(MAX_MANIFEST + 1).unwrap();
    image.size = MAX_MANIFEST + 1;
    sample.index(vec![image]);
    assert!(sample.refused().contains("4194305 bytes, more than 4194304"), "{}", sample.refused());
    fs::File::options()
        .write(true)
        .open(sample.path().join("index.json"))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    assert!(sample.refused().contains("index.json: 1099511627776 bytes, more than"));
}

#[test]
fn hostile_descriptors_are_refused() {
    let sample = Sample::new();
    let good = sample.image(HOST, &[TOP]);
    for (digest, why) in [
        ("sha256:../../../../etc/passwd", "no SHA-256"),
        ("sha512:00", "not supported"),
        ("../../etc/passwd", "no digest"),
        ("", "no digest"),
    ] {
        let mut bad = good.clone();
        digest.clone_into(&mut bad.digest);
        sample.index(vec![bad.clone()]);
        assert!(sample.refused().contains(why), "{digest}: {}", sample.refused());
        let mut manifest = sample.manifest(HOST, &[TOP]);
        digest.clone_into(&mut manifest.layers[0].digest);
        sample.index(vec![sample.add(&manifest)]);
        assert!(sample.refused().contains(why), "{digest}: {}", sample.refused());
    }
    let mut index = good.clone();
    index.media_type = media::INDEX.to_owned();
    sample.index(vec![index]);
    assert!(sample.refused().contains("a manifest where an index has to be"));
    let mut manifest = sample.nested(vec![good]);
    manifest.media_type = media::MANIFEST.to_owned();
    sample.index(vec![manifest]);
    assert!(sample.refused().contains("an index where a manifest has to be"));
}

#[test]
fn what_is_no_layout_is_refused() {
    let sample = Sample::new();
    let text = sample.refused();
    assert!(text.contains("it has no index.json"), "{text}");
    let version = |json: &str| fs::write(sample.path().join(MARKER), json).unwrap();
    sample.index(vec![sample.image(HOST, &[TOP])]);
    version(r#"{"imageLayoutVersion":"2.0.0"}"#);
    assert!(sample.refused().contains("layout version 2.0.0 is not supported"));
    version("[");
    assert!(sample.refused().contains("oci-layout: not the JSON expected"));
    fs::remove_file(sample.path().join(MARKER)).unwrap();
    assert!(sample.refused().contains("neither an OCI layout"), "{}", sample.refused());
}

#[test]
fn an_index_without_types_is_read_by_its_contents() {
    let sample = Sample::new();
    let bare = |mut entry: Descriptor| {
        entry.media_type = String::new();
        entry
    };
    let image = bare(sample.image(HOST, &[TOP]));
    let list = sample.blob("", &to_json(&Index::new(vec![image.clone()])).unwrap());
    sample.index(vec![image, list]);
    assert_eq!(sample.images(HOST).unwrap().len(), 2);
}

/// The body of the fuzz target `manifest`, on seeds: pieces of a sound image in any order.
#[cfg(feature = "testkit")]
#[test]
fn any_documents_make_an_image_or_are_refused() {
    use crate::testkit::documents::check;
    const CONFIG: &str =
        r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["@l"]}}"#;
    let manifest = r#"{"schemaVersion":2,"config":{"digest":"@c","size":@C},"layers":[LAYERS]}"#;
    let layer = r#"{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"@l","size":@L}"#;
    let index = r#"{"schemaVersion":2,"manifests":[{"digest":"@m","size":@M}]}"#;
    let documents = [index, &manifest.replace("LAYERS", layer), CONFIG].join("\n");
    assert_eq!(check(documents.as_bytes()), 1);
    assert_eq!(check(documents.replace("@l", "@c").as_bytes()), 0);
    for end in (0..documents.len()).step_by(7) {
        check(&documents.as_bytes()[..end]);
        check(&[&documents.as_bytes()[..end], b"[null]", &documents.as_bytes()[end..]].concat());
    }
}
