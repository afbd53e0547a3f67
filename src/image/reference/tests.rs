use super::*;

fn parse(text: &str) -> Result<Reference> {
    text.parse()
}

#[track_caller]
fn reads_as(text: &str, shown: &str, full: &str) {
    let name = parse(text).unwrap();
    assert_eq!(name.to_string(), shown);
    assert_eq!(name.full(), full);
    // One spelling per meaning.
    assert_eq!(parse(shown).unwrap(), name);
    assert_eq!(parse(full).unwrap(), name);
}

#[test]
fn names_are_read_and_shown() {
    reads_as("debian", "debian:latest", "docker.io/library/debian:latest");
    reads_as("debian:12", "debian:12", "docker.io/library/debian:12");
    reads_as("library/debian:12", "debian:12", "docker.io/library/debian:12");
    reads_as("docker.io/library/debian", "debian:latest", "docker.io/library/debian:latest");
    reads_as("index.docker.io/me/x:V1.0_a-b", "me/x:V1.0_a-b", "docker.io/me/x:V1.0_a-b");
    reads_as("localhost/x", "localhost/x:latest", "localhost/x:latest");
    reads_as("localhost:5000", "localhost:5000", "docker.io/library/localhost:5000");
    reads_as("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest");
    reads_as("h.example:1/a/b/c:t", "h.example:1/a/b/c:t", "h.example:1/a/b/c:t");
    reads_as("[::1]:5000/a:t", "[::1]:5000/a:t", "[::1]:5000/a:t");
    reads_as("Host/a", "Host/a:latest", "Host/a:latest");
    reads_as("a__b.c---d_e", "a__b.c---d_e:latest", "docker.io/library/a__b.c---d_e:latest");
    let digest = Digest::of(b"x");
    reads_as(
        &format!("a@{digest}"),
        &format!("a@{digest}"),
        &format!("docker.io/library/a@{digest}"),
    );
    reads_as(
        &format!("r.example/a:t@{digest}"),
        &format!("r.example/a:t@{digest}"),
        &format!("r.example/a:t@{digest}"),
    );
}

#[test]
fn parts_are_told_apart() {
    let digest = Digest::of(b"x");
    let name = parse(&format!("h:1/a/b:t@{digest}")).unwrap();
    assert_eq!(name.registry(), Some("h:1"));
    assert_eq!((name.path(), name.tag(), name.digest()), ("a/b", Some("t"), Some(digest)));
    assert_eq!(parse("a").unwrap().tag(), Some(DEFAULT_TAG));
    assert_eq!(parse(&format!("a@{digest}")).unwrap().tag(), None);
}

#[test]
fn what_is_no_name_is_refused_with_the_reason() {
    let bad = [
        ("", "empty"),
        (":x", "empty"),
        ("a//b", "component is empty"),
        ("/a", "component is empty"),
        ("a/", "component is empty"),
        ("../a", "no host"),
        ("a/../b", "starts and ends"),
        ("./a", "no host"),
        ("-a", "starts and ends"),
        ("a-", "starts and ends"),
        ("a..b", "two separators"),
        ("a___b", "two separators"),
        ("a.-b", "two separators"),
        ("Debian", "upper case"),
        ("a b", "only a-z"),
        ("a\0b", "only a-z"),
        ("a\nb", "only a-z"),
        ("d\u{e9}bian", "only a-z"),
        ("a:", "tag is empty"),
        ("a:.b", "tag has characters"),
        ("a:b c", "tag has characters"),
        ("a@sha256:12", "no SHA-256"),
        ("a@md5:12", "no digest"),
        ("h:x/a", "port"),
        ("h:/a", "port"),
        ("[::1/a", "no host"),
        ("[::1]x/a", "port"),
        ("-h.example/a", "no host"),
    ];
    for (text, why) in bad {
        let error = parse(text).unwrap_err();
        assert_eq!(error.errno(), Errno::EINVAL, "{text:?}");
        assert!(error.to_string().contains(why), "{text:?}: {error}");
    }
    assert!(parse(&"a".repeat(256)).unwrap_err().to_string().contains("longer"));
    assert!(parse(&"a".repeat(255)).is_ok());
    assert!(parse(&format!("a:{}", "t".repeat(129))).unwrap_err().to_string().contains("longer"));
    assert!(parse(&"a1".repeat(32)).unwrap_err().to_string().contains("id"));
}

#[test]
fn a_source_may_say_a_tag_only() {
    let read = |said, stem| Reference::from_source(said, stem).unwrap().to_string();
    assert_eq!(read("12", "debian"), "debian:12");
    assert_eq!(read("V1", "debian"), "debian:V1");
    assert_eq!(read("debian:12", "x"), "debian:12");
    assert_eq!(read("docker.io/library/debian:12", "x"), "debian:12");
    assert_eq!(read("12", ""), "12:latest");
    assert!(Reference::from_source("12", "Not a name").is_err());
}

#[test]
fn a_file_has_a_stem() {
    let long = "x-".repeat(300);
    for (path, name) in [
        ("debian.oci.tar", "debian"),
        ("/a/b/Debian_12..slim.tar.gz", "debian-12-slim"),
        ("./layout/", "layout"),
        ("x.tgz", "x"),
        (".oci.tar", ""),
        ("/", ""),
        ("..", ""),
        ("-", ""),
        ("/dev/stdin", "stdin"),
        ("caf\u{e9} (1).tar", "caf-1"),
    ] {
        assert_eq!(stem(Path::new(path)), name, "{path}");
    }
    for path in ["debian.oci.tar", "Debian_12..slim.tar.gz", long.as_str()] {
        assert!(Reference::from_source("latest", &stem(Path::new(path))).is_ok(), "{path}");
    }
}

proptest::proptest! {
    #[test]
    fn what_is_taken_has_one_spelling_and_safe_characters(
        host in "(h\\.x(:[0-9]{1,2})?/|docker.io/|localhost/)?",
        rest in "[a-z0-9._/:-]{1,12}(@sha256:[0-9a-f]{64})?",
    ) {
        if let Ok(name) = parse(&(host + &rest)) {
            let shown = name.to_string();
            proptest::prop_assert_eq!(&parse(&shown).unwrap(), &name);
            proptest::prop_assert_eq!(&parse(&name.full()).unwrap(), &name);
            let safe = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@[]".contains(&b);
            // A tag may hold two dots (`a:0..`), no part of a name may be them.
            let parent = shown.split(['/', ':', '@']).any(|part| part == "..");
            proptest::prop_assert!(shown.bytes().all(safe) && !parent);
            proptest::prop_assert!(!shown.starts_with(['.', '-', '/']));
        }
    }

    #[test]
    fn any_file_has_a_stem_that_is_a_name(text in "\\PC{0,40}") {
        let stem = stem(Path::new(&text));
        proptest::prop_assert!(stem.is_empty() || parse(&stem).is_ok(), "{}", stem);
    }
}
