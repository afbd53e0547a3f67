use super::*;

const D: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn refused(json: &str) -> String {
    let error = Document::parse(json.as_bytes()).unwrap_err();
    assert_eq!(error.errno(), Errno::EINVAL);
    error.to_string()
}

fn manifest(layers: &str) -> String {
    format!(r#"{{"schemaVersion":2,"config":{{"digest":"{D}","size":2}},"layers":{layers}}}"#)
}

#[test]
fn what_tools_write_is_read() {
    let json = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","size":7023,
            "digest":"{D}"}},"layers":[{{"mediaType":"{}","size":32654,"digest":"{D}",
            "urls":null,"annotations":null,"future":[1,2,{{}}]}}],"annotations":{{"a":"b"}},
            "subject":{{"digest":"x","size":1}}}}"#,
        media::MANIFEST,
        media::CONFIG,
        media::LAYER
    );
    let manifest = Manifest::parse(json.as_bytes()).unwrap();
    assert_eq!((manifest.layers.len(), manifest.layers[0].size), (1, 32654));
    assert_eq!(manifest.annotations["a"], "b");
    manifest.config_is_image().unwrap();
    manifest.check_layers().unwrap();
    // What was read is written again, and is the same.
    assert_eq!(Manifest::parse(&to_json(&manifest).unwrap()).unwrap(), manifest);
    let index = Index::new(vec![Descriptor::new("t", Digest::of(b""), 0).on(&Platform::host())]);
    assert_eq!(Index::parse(&to_json(&index).unwrap()).unwrap(), index);
}

#[test]
fn ambiguous_and_foreign_documents_are_refused() {
    let cases = [
        (r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#, "at once"),
        (r#"{"schemaVersion":1,"name":"x","fsLayers":[],"history":[]}"#, "schema 1"),
        (r#"{"schemaVersion":3,"manifests":[]}"#, "version 3"),
        (r#"{"schemaVersion":2}"#, "neither"),
        (r#"{"layers":[]}"#, "neither"),
        (r#"{"manifests":[],"manifests":[]}"#, "duplicate field"),
        (r#"{"manifests":{}}"#, "not the JSON"),
        (r#"{"manifests":[{"digest":"x"}]}"#, "size"),
        (r#"{"manifests":[{"digest":"x","size":-1}]}"#, "not the JSON"),
        (r#"{"manifests":[{"digest":"x","size":1e3}]}"#, "not the JSON"),
        (r#"{"manifests":[{"digest":"x","size":99999999999999999999}]}"#, "not the JSON"),
        (r#"{"manifests":[]} x"#, "trailing"),
        ("", "not the JSON"),
        ("null", "not the JSON"),
        ("\u{feff}{}", "not the JSON"),
    ];
    for (json, why) in cases {
        assert!(refused(json).contains(why), "{json}: {}", refused(json));
    }
    let both = manifest("[]").replace("\"config\"", "\"manifests\":[],\"config\"");
    assert!(refused(&both).contains("at once"));
    assert!(Document::parse(b"{\"manifests\":[{\"digest\":\"\xff\",\"size\":1}]}").is_err());
}

#[test]
fn depth_and_number_are_bounded() {
    // What nobody listens to is passed over without recursion, what is read has no depth.
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    let ignored = format!(r#"{{"manifests":[],"x":{open}{close}}}"#);
    assert!(Document::parse(ignored.as_bytes()).is_ok());
    assert!(refused(&format!(r#"{{"manifests":{open}{close}}}"#)).contains("not the JSON"));
    let layer = format!(r#"{{"digest":"{D}","size":1}}"#);
    let layers = |n| format!("[{}]", vec![layer.as_str(); n].join(","));
    assert!(Document::parse(manifest(&layers(MAX_LAYERS)).as_bytes()).is_ok());
    assert!(refused(&manifest(&layers(MAX_LAYERS + 1))).contains("1001 layers"));
    assert_eq!(Manifest::parse(manifest("null").as_bytes()).unwrap().layers, []);
}

#[test]
fn what_the_input_says_is_escaped_and_cut() {
    let text = refused(&format!(r#"{{"manifests":"{}\u001b[31m"}}"#, "x".repeat(10_000)));
    assert!(text.len() < 300 && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn layers_are_known_by_type() {
    for kind in [
        "",
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        assert!(check_layer_type(kind).is_ok(), "{kind}");
    }
    for kind in
        ["application/vnd.oci.empty.v1+json", "text/tar", "application/vnd.x.tart", "\u{1b}"]
    {
        let text = check_layer_type(kind).unwrap_err().to_string();
        assert!(text.contains("no tar archive") && text.is_ascii(), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn hostile_json_is_read_or_refused_with_a_short_sentence(
        pieces in proptest::collection::vec(0..PIECES.len(), 0..24),
    ) {
        let json: String = pieces.iter().map(|n| PIECES[*n]).collect();
        let refused = [
            Document::parse(json.as_bytes()).err(),
            crate::image::config::Config::parse(json.as_bytes()).err(),
        ];
        for error in refused.into_iter().flatten() {
            let text = error.to_string();
            let clean = text.len() < 500 && !text.contains(char::is_control);
            proptest::prop_assert!(clean, "{}", text);
        }
    }
}

const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "-1",
    "1e400",
    "2",
    "\"\"",
    "\"\\u001b\"",
    "\"\\ud800\"",
    "\"schemaVersion\":",
    "\"manifests\":",
    "\"layers\":",
    "\"config\":",
    "\"rootfs\":",
    "\"type\":\"layers\"",
    "\"diff_ids\":",
    "\"digest\":",
    "\"size\":",
    "\"platform\":",
    "\"Env\":",
    "\u{7f}",
    "\u{0}",
];
