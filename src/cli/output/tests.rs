//! What is safe to show.

use super::*;

#[test]
fn paths_cannot_steer_the_terminal() {
    for (bytes, shown) in [
        (&b"plain/path"[..], "plain/path"),
        ("gr\u{fc}n/\u{65e5}".as_bytes(), "gr\u{fc}n/\u{65e5}"),
        (b"a\nb\x1b[2Jc", "a\\u{a}b\\u{1b}[2Jc"),
        (b"a\\b", "a\\\\b"),
        (b"\xff\xc3", "\\xff\\xc3"),
        ("x\u{202e}y\u{200b}".as_bytes(), "x\\u{202e}y\\u{200b}"),
    ] {
        assert_eq!(escape(bytes), shown);
    }
}

#[test]
fn a_path_in_json_keeps_its_bytes() {
    let text = |bytes| serde_json::to_string(&JsonPath::new(bytes)).unwrap();
    assert_eq!(text(b"a\"b"), r#"{"path":"a\"b"}"#);
    assert_eq!(text(b"a\xfe"), "{\"path\":\"a\u{fffd}\",\"path_hex\":\"61fe\"}");
}

#[test]
fn a_failure_has_two_lines() {
    let failure = Failure::new("lowerdir /x", "No such file or directory", "make it");
    let text = "plyfs: lowerdir /x: No such file or directory\nplyfs: make it";
    assert_eq!(failure.to_string(), text);
    assert_eq!(Failure::usage("a", "b", "").to_string(), "plyfs: a: b");
}
