//! What a check finds, and what brings it back.

use std::fs;
use std::process::Command;

use plyfs::errno::Errno;
use plyfs::store::{NewContainer, Remedy, Store};

use crate::samples::{assert_clean, check, create, import, layout, names, small_layers, tags};

/// A store with the small image, and the directory of its topmost layer.
fn stand(dir: &std::path::Path) -> (Store, std::path::PathBuf, std::path::PathBuf) {
    let source = layout(&dir.join("oci"), "small:1", &small_layers());
    let store = Store::open(Some(&dir.join("store"))).unwrap();
    import(&store, &source).unwrap();
    let top = store.lowers(&store.resolve("small:1").unwrap())[0].clone();
    (store, source, top)
}

#[test]
fn a_changed_file_is_found_and_an_import_heals_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, source, top) = stand(dir.path());
    // As a disk does it: nobody notices by the attributes.
    let before = rustix::fs::stat(top.join("usr/f")).unwrap();
    fs::write(top.join("usr/f"), "NEW").unwrap();
    let time = rustix::fs::Timespec {
        tv_sec: before.st_mtime,
        tv_nsec: i64::try_from(before.st_mtime_nsec).unwrap(),
    };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    let flags = rustix::fs::AtFlags::empty();
    rustix::fs::utimensat(rustix::fs::CWD, top.join("usr/f"), &times, flags).unwrap();
    let report = check(&store, false);
    assert!(!report.is_sound());
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert!(report.findings[0].why.contains("digest"), "{report:?}");
    // Without a repair nothing has changed.
    assert_eq!(tags(&store), ["small:1"]);

    let report = check(&store, true);
    assert!(report.is_sound(), "{report:?}");
    assert!(tags(&store).is_empty());
    assert_eq!(names(&store, "trees").len(), 0, "no image has them any more");
    assert_eq!(import(&store, &source).unwrap()[0].unpacked, 3);
    assert_clean(&store);
}

/// What is done to a layer, in a word and in deed.
type Change = (&'static str, fn(&std::path::Path));

#[test]
fn what_is_no_content_is_looked_at_too() {
    let dir = tempfile::tempdir().unwrap();
    let (store, source, top) = stand(dir.path());
    let changes: &[Change] = &[
        ("a mode", |top| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
            fs::set_permissions(top.join("usr/f"), mode).unwrap();
        }),
        ("a whiteout", |top| fs::remove_file(top.join("../../").join(second(top))).unwrap()),
    ];
    for (what, change) in changes {
        assert_clean(&store);
        change(&top);
        let report = check(&store, true);
        assert!(!report.findings.is_empty(), "{what}");
        import(&store, &source).unwrap();
    }
    assert_clean(&store);
}

/// The whiteout of the small image's second layer, from the directory of trees.
fn second(top: &std::path::Path) -> std::path::PathBuf {
    let trees = top.join("../..");
    let mut found = fs::read_dir(trees).unwrap().map(|tree| tree.unwrap().file_name());
    let is_second = |tree: &std::ffi::OsString| {
        let entry = top.join("../..").join(tree).join("root/etc/a");
        fs::metadata(entry).is_ok_and(|entry| !entry.is_file())
    };
    std::path::Path::new(&found.find(is_second).unwrap()).join("root/etc/a")
}

#[test]
fn under_a_container_a_damaged_layer_is_replaced_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (store, source, top) = stand(dir.path());
    let container = create(&store, "small:1", "box");
    fs::write(container.upper().join("kept"), "mine").unwrap();
    fs::remove_file(top.join("usr/g")).unwrap();
    let report = check(&store, true);
    assert!(!report.is_sound(), "{report:?}");
    let by_hand = |found: &&plyfs::store::Finding| matches!(found.remedy, Remedy::ByHand(_));
    assert_eq!(report.findings.iter().filter(by_hand).count(), 2, "{report:?}");
    // Nobody builds on it.
    let error = store.create_container("small:1", NewContainer::Kept("no")).unwrap_err();
    assert_eq!(error.errno(), Errno::EIO);

    assert_eq!(import(&store, &source).unwrap()[0].unpacked, 1);
    assert_clean(&store);
    assert_eq!(fs::read(top.join("usr/g")).unwrap(), b"g");
    assert_eq!(fs::read(container.upper().join("kept")).unwrap(), b"mine");
    create(&store, "small:1", "yes");
}

#[test]
fn a_lost_tree_comes_back_with_an_import() {
    let dir = tempfile::tempdir().unwrap();
    let (store, source, top) = stand(dir.path());
    fs::remove_dir_all(top.parent().unwrap()).unwrap();
    assert!(!check(&store, false).is_sound());
    assert_eq!(import(&store, &source).unwrap()[0].unpacked, 1);
    assert_clean(&store);
}

#[test]
fn what_a_crash_leaves_is_named_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, _) = stand(dir.path());
    let strays = ["trees/0123", "snapshots/77", "incoming/abcd", "trash/x"];
    for stray in strays {
        fs::create_dir_all(store.root().join(stray).join("deep/er")).unwrap();
    }
    let report = check(&store, false);
    assert!(report.is_sound(), "{report:?}");
    for stray in strays {
        let named = report.findings.iter().any(|found| found.what.contains(stray));
        assert!(named, "{stray}: {report:?}");
        assert!(store.root().join(stray).exists(), "a check that only looks");
    }
    assert!(check(&store, true).is_sound());
    assert_clean(&store);
    assert_eq!(tags(&store), ["small:1"]);
}

#[test]
fn a_tree_of_any_depth_and_mode_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, _) = stand(dir.path());
    let container = create(&store, "small:1", "box");
    // Deeper than any path may be long, in steps of names that no path of it could hold.
    let name = "d".repeat(200);
    let mut at = rustix::fs::open(
        container.upper(),
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&at, &name, rustix::fs::Mode::from_raw_mode(0o700)).unwrap();
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
        at = rustix::fs::openat(&at, &name, flags, rustix::fs::Mode::empty()).unwrap();
    }
    store.remove_container("box").unwrap();
    assert_clean(&store);
}

#[test]
fn what_this_process_may_not_have_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ..) = stand(dir.path());
    let mut refused = 0;
    for open_files in 5..24 {
        let script = format!("ulimit -n {open_files} && exec \"$0\" --root \"$1\" check --repair");
        let output = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_plyfs")])
            .arg(store.root())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        refused += usize::from(said.contains("Too many open files"));
        assert_eq!(tags(&store), ["small:1"], "with {open_files} open files: {said}");
    }
    assert!(refused > 0, "they were enough every time");
    assert_clean(&store);
}

#[test]
fn a_lost_database_takes_no_container_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, source, _) = stand(dir.path());
    let upper = create(&store, "small:1", "box").upper();
    fs::write(upper.join("precious"), "").unwrap();
    let root = store.root().to_owned();
    drop(store);
    let saved = dir.path().join("saved");
    for new in [None, Some("")] {
        fs::rename(root.join("plyfs.db"), &saved).unwrap();
        if let Some(content) = new {
            fs::write(root.join("plyfs.db"), content).unwrap();
        }
        for _ in 0..2 {
            let error = Store::open(Some(&root)).unwrap_err();
            assert_eq!(error.errno(), Errno::EIO, "{error}");
            assert!(error.to_string().contains("plyfs.db is lost"), "{error}");
        }
        assert!(upper.join("precious").exists());
        fs::rename(&saved, root.join("plyfs.db")).unwrap();
    }
    let store = Store::open(Some(&root)).unwrap();
    import(&store, &source).unwrap();
    assert!(upper.join("precious").exists());
    assert_clean(&store);
}
