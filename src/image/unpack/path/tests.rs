//! Paths as names.

use super::{clean, steps};

#[test]
fn paths_stay_inside() {
    let cases: [(&str, &str); 10] = [
        ("", ""),
        ("./", ""),
        ("/", ""),
        ("a/b", "a|b"),
        ("/a//b/./c/", "a|b|c"),
        ("a/../b", "b"),
        ("../../etc/passwd", "etc|passwd"),
        ("a/../../b/..", ""),
        ("...", "..."),
        ("a/..b", "a|..b"),
    ];
    for (path, names) in cases {
        assert_eq!(clean(path.as_bytes()).join(&b'|'), names.as_bytes(), "{path}");
    }
}

#[test]
fn targets_keep_their_steps_up() {
    let steps: Vec<_> = steps(b"/a/./../b//c").collect();
    assert_eq!(steps, [b"c".as_slice(), b"b", b"..", b"a"].map(Box::from));
}
