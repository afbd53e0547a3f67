use super::*;
use crate::image::layout::{FULL_NAME, blob_name};
use crate::image::platform::Platform;
use crate::image::tests::{Sample, Tape, config, open, read};

const HOST: &str = "linux/amd64";
const BOTTOM: &[u8] = b"the lower layer";
const TOP: &[u8] = b"the upper layer";

fn hex(bytes: &[u8]) -> String {
    Digest::of(bytes).hex()
}

/// What docker before version 25 saved of two images, the second of which has the layer of the
/// first, which lies there once and is a link elsewhere.
fn old() -> Tape {
    let (one, two) = (config(HOST, &[BOTTOM]), config(HOST, &[BOTTOM, TOP]));
    let list = format!(
        r#"[{{"Config":"{}.json","RepoTags":["one:1"],"Layers":["1/layer.tar"]}},
            {{"Config":"{}.json","RepoTags":null,"Layers":["2/layer.tar","3/layer.tar"],
              "Parent":"sha256:x","LayerSources":{{}}}}]"#,
        hex(one.as_bytes()),
        hex(two.as_bytes())
    );
    Tape::new()
        .file("1/VERSION", b"1.0")
        .file("1/json", b"{}")
        .file("1/layer.tar", BOTTOM)
        .symlink("2/layer.tar", "../1/layer.tar")
        .file("3/layer.tar", TOP)
        .file(&format!("{}.json", hex(one.as_bytes())), one.as_bytes())
        .file(&format!("{}.json", hex(two.as_bytes())), two.as_bytes())
        .file(LIST, list.as_bytes())
        .file("repositories", b"{}")
}

#[track_caller]
fn refused(tape: Tape) -> String {
    let file = tape.done();
    let opened = open(file.path()).and_then(|source| source.images(&Platform::host()));
    opened.unwrap_err().to_string()
}

#[test]
fn the_old_form_is_read() {
    let file = old().done();
    let source = open(file.path()).unwrap();
    let images = source.images(&"linux/arm64".parse().unwrap()).unwrap();
    assert_eq!(images.len(), 2);
    assert_eq!(
        (images[0].names.as_slice(), &images[0].manifest),
        (&["one:1".to_owned()][..], &None)
    );
    assert!(images[1].names.is_empty());
    assert_eq!(images[1].config_digest, Digest::of(config(HOST, &[BOTTOM, TOP]).as_bytes()));
    assert_eq!(images[1].diff_ids, [Digest::of(BOTTOM), Digest::of(TOP)]);
    for (layer, bytes) in images[1].layers.iter().zip([BOTTOM, TOP]) {
        assert_eq!((layer.digest, layer.size), (None, bytes.len() as u64));
        assert_eq!(read(source.as_ref(), layer).unwrap(), bytes);
    }
}

#[test]
fn an_unpacked_one_is_read_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let file = old().done();
    tar::Archive::new(crate::image::tests::file(file.path())).unpack(dir.path()).unwrap();
    let source = open(dir.path()).unwrap();
    let images = source.images(&Platform::host()).unwrap();
    assert_eq!(read(source.as_ref(), &images[1].layers[0]).unwrap(), BOTTOM);
}

#[test]
fn broken_ones_are_refused() {
    let one = config(HOST, &[BOTTOM]);
    let name = format!("{}.json", hex(one.as_bytes()));
    let bad = [b"x", one.as_bytes()].concat();
    assert!(refused(old().file(&name, &bad)).contains("corrupt"));
    let list = |json: &str| old().file(LIST, json.as_bytes());
    for (json, why) in [
        ("{}".to_owned(), "manifest.json: not the JSON"),
        ("[]".to_owned(), "no image in manifest.json"),
        ("[{}]".to_owned(), "Config"),
        (r#"[{"Config":"x.json","Layers":[]}]"#.to_owned(), "x.json: missing"),
        (r#"[{"Config":"../../etc/passwd","Layers":[]}]"#.to_owned(), "missing"),
        (r#"[{"Config":"\u001b","Layers":[]}]"#.to_owned(), r"\x1b: missing"),
        (format!(r#"[{{"Config":"{name}","Layers":[]}}]"#), "0 layers in manifest.json, but 1"),
        (format!(r#"[{{"Config":"{name}","Layers":["4/layer.tar"]}}]"#), "4/layer.tar: missing"),
        (format!(r#"[{{"Config":"{name}","Layers":[""]}}]"#), "missing"),
        (format!(r#"[{{"Config":"{name}","Layers":["/etc/passwd"]}}]"#), "missing"),
    ] {
        let text = refused(list(&json));
        assert!(text.contains(why), "{json}: {text}");
    }
    let out = list(&format!(r#"[{{"Config":"{name}","Layers":["o"]}}]"#)).symlink("o", "../../x");
    assert!(refused(out).contains("o: not a regular file"));
}

#[test]
fn nothing_outside_of_an_unpacked_one_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(HOST, &[BOTTOM]);
    std::fs::write(dir.path().join("c.json"), config).unwrap();
    for (layer, why) in [
        ("/etc/passwd", "leads out of the layout"),
        ("../../../../etc/passwd", "leads out of the layout"),
        ("x/../../etc/passwd", "missing"),
        ("a\\u0000b", "a"),
        (".", "not a regular file"),
    ] {
        let list = format!(r#"[{{"Config":"c.json","Layers":["{layer}"]}}]"#);
        std::fs::write(dir.path().join(LIST), list).unwrap();
        let source = open(dir.path()).unwrap();
        let text = source.images(&Platform::host()).unwrap_err().to_string();
        assert!(text.contains(why), "{layer}: {text}");
    }
}

/// What docker 25 and later save: a layout and docker's list in one.
fn new(sample: &Sample, tags: &str) -> Tape {
    let config = config(HOST, &[BOTTOM]);
    let list = format!(
        r#"[{{"Config":"{}","RepoTags":[{tags}],"Layers":["{}"]}}]"#,
        blob_name(Digest::of(config.as_bytes())),
        blob_name(Digest::of(BOTTOM))
    );
    Tape::of(sample).file(LIST, list.as_bytes())
}

#[test]
fn the_new_form_is_a_layout_with_more_names() {
    let sample = Sample::new();
    let mut image = sample.image(HOST, &[BOTTOM]);
    image.annotations.insert(FULL_NAME.to_owned(), "docker.io/library/one:1".to_owned());
    sample.index(vec![image.clone()]);
    let file = new(&sample, r#""one:1","two:2","No Name""#).done();
    let source = open(file.path()).unwrap();
    let images = source.images(&Platform::host()).unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].names, ["docker.io/library/one:1", "two:2"]);
    assert_eq!(Digest::of(images[0].manifest.as_ref().unwrap()), image.digest().unwrap());
}

#[test]
fn a_layout_without_layers_gives_way_to_dockers_list() {
    // As candidates of version 25 wrote it.
    let sample = Sample::new();
    let mut manifest = sample.manifest(HOST, &[BOTTOM]);
    manifest.layers.clear();
    sample.index(vec![sample.add(&manifest)]);
    let without = sample.manifest(HOST, &[BOTTOM]); // The blob of the layer.
    let file = new(&sample, r#""one:1""#).done();
    let source = open(file.path()).unwrap();
    let images = source.images(&Platform::host()).unwrap();
    assert_eq!(
        (images[0].names.as_slice(), &images[0].manifest),
        (&["one:1".to_owned()][..], &None)
    );
    assert_eq!(images[0].layers[0].digest, Some(without.layers[0].digest().unwrap()));
    assert_eq!(read(source.as_ref(), &images[0].layers[0]).unwrap(), BOTTOM);
}

#[test]
fn corruption_does_not_give_way() {
    let sample = Sample::new();
    let image = sample.image(HOST, &[BOTTOM]);
    sample.index(vec![image.clone()]);
    std::fs::write(sample.blob_path(&image.digest), b"x").unwrap();
    let text = refused(new(&sample, r#""one:1""#));
    assert!(text.contains("bytes instead of"), "{text}");
}
