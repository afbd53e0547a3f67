use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::census;

/// A tree of one of each.
fn make(root: &Path) {
    fs::create_dir_all(root.join("d/e")).unwrap();
    fs::write(root.join("d/f"), "content").unwrap();
    fs::write(root.join("d/g"), "content").unwrap();
    fs::hard_link(root.join("d/f"), root.join("h")).unwrap();
    symlink("target", root.join("s")).unwrap();
    for path in ["d/f", "d/g", "d/e", "d", ""] {
        let file = rustix::fs::open(
            root.join(path),
            rustix::fs::OFlags::RDONLY,
            rustix::fs::Mode::empty(),
        );
        let time = rustix::fs::Timespec { tv_sec: 1_000_000, tv_nsec: 5 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(file.unwrap(), &times).unwrap();
    }
    let time = rustix::fs::Timespec { tv_sec: 7, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, root.join("s"), &times, flags).unwrap();
}

fn again(root: &Path) -> std::path::PathBuf {
    fs::remove_dir_all(root).unwrap();
    make(root);
    root.to_owned()
}

/// What is done to a tree, in a word and in deed.
type Change = (&'static str, fn(&Path));

#[test]
fn the_same_tree_has_the_same_census_and_another_has_not() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    make(&root);
    let first = census(&root).unwrap();
    assert_eq!(census(&again(&root)).unwrap(), first);
    let changes: &[Change] = &[
        ("mode", |root| {
            fs::set_permissions(root.join("d/e"), fs::Permissions::from_mode(0o700)).unwrap();
        }),
        ("name", |root| fs::rename(root.join("h"), root.join("i")).unwrap()),
        ("symlink gone", |root| fs::remove_file(root.join("s")).unwrap()),
        ("time", |root| fs::write(root.join("d/g"), "CONTENT").unwrap()),
        ("link parted", |root| {
            fs::remove_file(root.join("h")).unwrap();
            fs::hard_link(root.join("d/g"), root.join("h")).unwrap();
        }),
        ("attribute", |root| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(root.join("d/f"), "user.x", b"", flags).unwrap();
        }),
    ];
    for (what, change) in changes {
        change(&again(&root));
        assert_ne!(census(&root).unwrap(), first, "{what}");
    }
}
