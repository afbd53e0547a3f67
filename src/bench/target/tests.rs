use std::fs;
use std::path::Path;

use super::{FORMS, FURTHER, Stack, USUAL, named};

const PLYFS: &str = "/usr/bin/plyfs";

#[test]
fn every_form_of_a_target_is_understood() {
    for name in USUAL.into_iter().chain(FURTHER) {
        assert_eq!(named(name, Path::new(PLYFS)).unwrap().name(), name);
        assert!(FORMS.contains(name));
    }
    let name = |said| named(said, Path::new(PLYFS)).map(|target| target.name().to_owned());
    assert_eq!(name("/opt/bin/fuse-overlayfs-1.13").unwrap(), "fuse-overlayfs-1.13");
    assert_eq!(name("old=/opt/bin/fuse-overlayfs").unwrap(), "old");
    assert_eq!(name("cmd:/opt/my-overlay -o {opts} {mnt}").unwrap(), "my-overlay");
    assert_eq!(name("mine=cmd:my --lower {lower} --rw {upper} {mnt}").unwrap(), "mine");
    for wrong in
        ["aufs", "", "cmd:", "cmd:my-overlay {mnt}", "cmd:x -o {opts}", "a b=/x", "x=plain"]
    {
        assert!(name(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_command_line_says_of_itself_what_it_is() {
    let target = named("x=cmd:/nowhere/x -o {opts} {mnt}", Path::new(PLYFS)).unwrap();
    assert_eq!(target.about(), "/nowhere/x: /nowhere/x -o {opts} {mnt}");
}

/// A copy is what the layers are together: the topmost file counts, directories merge, whiteouts
/// hide, holes stay.
#[test]
fn a_copy_merges_the_layers() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    for dir in ["top/d", "bottom/d", "upper", "work", "mnt", "kept"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    fs::write(at("bottom/d/below"), "below").unwrap();
    fs::write(at("bottom/d/both"), "old").unwrap();
    fs::write(at("top/d/both"), "new").unwrap();
    std::os::unix::fs::symlink("both", at("top/d/link")).unwrap();
    fs::File::create(at("bottom/holes")).unwrap().set_len(1 << 20).unwrap();
    let lowers = [at("top"), at("bottom")];
    let (upper, work, mnt, kept) = (at("upper"), at("work"), at("mnt"), at("kept"));
    let stack = Stack { lowers: &lowers, upper: &upper, work: &work, mnt: &mnt, kept: None };
    let target = named("plain", Path::new(PLYFS)).unwrap();
    let mounted = target.mount(&stack).unwrap();
    let read = |name: &str| fs::read_to_string(mounted.root().join(name)).unwrap();
    assert_eq!((read("d/below"), read("d/both"), read("d/link")), text("below", "new", "new"));
    let holes = fs::metadata(mounted.root().join("holes")).unwrap();
    assert_eq!(holes.len(), 1 << 20);
    assert!(std::os::unix::fs::MetadataExt::blocks(&holes) < 64);
    // A copy that is kept is made once.
    let stack = Stack { kept: Some(&kept), ..stack };
    let first = target.mount(&stack).unwrap().root().to_owned();
    fs::write(first.join("mark"), "").unwrap();
    assert!(target.mount(&stack).unwrap().root().join("mark").exists());
}

fn text(a: &str, b: &str, c: &str) -> (String, String, String) {
    (a.to_owned(), b.to_owned(), c.to_owned())
}
