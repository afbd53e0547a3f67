//! Directories inside each other.

use std::fs::create_dir_all;

use super::Role::{Lower, Mountpoint, Upper, Work};
use super::*;

fn refused(root: &Path, places: &[(Role, &str)]) -> Option<String> {
    let mut finder = Finder::default();
    let find = |(role, path): &(Role, &str)| finder.find(*role, &root.join(path)).unwrap();
    let places: Vec<_> = places.iter().map(find).collect();
    check(&places, &mountinfo::read().unwrap()).err().map(|failure| failure.to_string())
}

#[test]
fn what_overlaps_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    for dir in ["l/in", "k", "u/in", "w", "m"] {
        create_dir_all(root.join(dir)).unwrap();
    }
    std::os::unix::fs::symlink("l", root.join("link")).unwrap();
    let fine = [(Lower, "l"), (Lower, "k"), (Upper, "u"), (Work, "w"), (Mountpoint, "m")];
    assert_eq!(refused(root, &fine), None);
    for (pair, word) in [
        ([(Lower, "l"), (Lower, "l")], "is also the lowerdir"),
        ([(Lower, "l"), (Lower, "link")], "is also the lowerdir"),
        ([(Lower, "l"), (Upper, "l/in")], "inside the lowerdir"),
        ([(Lower, "u/in"), (Upper, "u")], "inside the upperdir"),
        ([(Upper, "u"), (Work, "u")], "is also the workdir"),
        ([(Upper, "u"), (Work, "u/in")], "inside the upperdir"),
        ([(Lower, "l"), (Mountpoint, "l/in")], "inside the lowerdir"),
        ([(Lower, "link/in"), (Mountpoint, "l")], "inside the mount point"),
        ([(Lower, "l"), (Mountpoint, ".")], "inside the mount point"),
    ] {
        let text = refused(root, &pair).unwrap_or_default();
        assert!(text.contains(word), "{pair:?}: {text}");
    }
}

#[test]
fn what_is_no_directory_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let mut finder = Finder::default();
    let missing = finder.find(Role::Upper, &temp.path().join("no")).unwrap_err();
    assert!(missing.what.starts_with("upperdir /"), "{missing}");
    assert!(missing.why.contains("No such file"), "{missing}");
    std::fs::write(temp.path().join("f"), "").unwrap();
    let file = finder.find(Role::Lower, &temp.path().join("f")).unwrap_err();
    assert_eq!(file.why, "Not a directory");
}
