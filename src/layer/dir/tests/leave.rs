//! Devices 0:0 that renames leave behind, and what a crash leaves of that.

use super::*;
use crate::errno::Errno;
use crate::layer::RenameHow;
use crate::layer::dir::tree::ROOT;

const MARK: &str = "trusted.overlay.plyfs.escapes";
const HOW: RenameHow = RenameHow::Device { uid: 5, gid: 6 };

fn new(what: What<'_>) -> New<'_> {
    New { what, perm: 0o700, uid: 0, gid: 0, xattrs: &[], marks: &[] }
}

/// The device is there for whoever looks, and is not a whiteout on disk.
fn assert_left(layer: &dyn Layer, path: &str) {
    let left = entry(layer, path).attr;
    assert!(left.is_char_zero(), "{path}: {left:?}");
    assert_eq!((left.perm, left.uid, left.gid), (0, 5, 6), "{path}");
}

fn listed(layer: &dyn Layer, dir: Id) -> Vec<(String, Option<Kind>)> {
    let mut listed = Vec::new();
    let mut each = |item: DirItem<'_>| {
        listed.push((item.name.to_string(), item.kind));
        Ok(())
    };
    layer.readdir(dir, &mut each).unwrap();
    listed.sort();
    listed
}

#[test]
fn a_rename_leaves_a_device_of_its_user() {
    let place = Place::new();
    let upper = place.open_upper();
    let make = |at, what| upper.create(ROOT, name(at), &new(what)).unwrap().id;
    let (file, dir) = (make("file", What::File), make("dir", What::Dir));
    make("old", What::File);
    upper.whiteout(ROOT, name("gone"), false).unwrap();
    upper.rename((ROOT, name("file")), file, (ROOT, name("old")), None, HOW).unwrap();
    upper.rename((ROOT, name("dir")), dir, (ROOT, name("gone")), None, HOW).unwrap();
    let inner = upper.create(dir, name(".wh.x"), &new(What::File)).unwrap().id;
    upper.rename((dir, name(".wh.x")), inner, (dir, name("y")), None, HOW).unwrap();
    let kinds =
        [("dir", Kind::Char), ("file", Kind::Char), ("gone", Kind::Dir), ("old", Kind::File)];
    let kinds = kinds.map(|(name, kind)| (name.to_owned(), Some(kind)));
    let check = |layer: &dyn Layer| {
        for path in ["file", "dir", "gone/.wh.x"] {
            assert_left(layer, path);
        }
        assert_eq!(listed(layer, layer.root()), kinds);
    };
    check(&*upper);
    for path in ["file", "dir", "gone/.wh.x"] {
        assert!(std::fs::metadata(place.upper(path)).unwrap().is_file(), "{path}");
    }
    assert_eq!(place.leftovers(), Vec::<String>::new());
    upper.close().unwrap();
    drop(upper);
    check(&*place.open_upper());
    check(&*DirLayer::open(&place.upper("")).unwrap());
}

#[test]
fn a_rename_that_fails_leaves_nothing() {
    let place = Place::new();
    let upper = place.open_upper();
    let file = upper.create(ROOT, name("f"), &new(What::File)).unwrap().id;
    upper.create(ROOT, name("d"), &new(What::Dir)).unwrap();
    let error = upper.rename((ROOT, name("f")), file, (ROOT, name("d")), None, HOW).unwrap_err();
    assert_eq!(error.errno(), Errno::EISDIR);
    upper.unlink(ROOT, name("f")).unwrap();
    upper.whiteout(ROOT, name("f"), false).unwrap();
    assert_eq!(word(&*upper, ROOT, "f"), "whiteout");
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

/// The machine stopped after the rename, before the device had its final form.
#[test]
fn a_device_that_was_being_left_is_one_for_readers_and_is_finished_by_writers() {
    let place = Place::new();
    drop(place.open_upper());
    for dir in ["", "sub/"] {
        std::fs::create_dir_all(place.upper(dir)).unwrap();
        char_zero(&place.upper(&format!("{dir}left")));
        char_zero(&place.upper(&format!("{dir}gone")));
        let owner = (Some(rustix::fs::Uid::from_raw(5)), Some(rustix::fs::Gid::from_raw(6)));
        rustix::fs::chown(place.upper(&format!("{dir}left")), owner.0, owner.1).unwrap();
        let mode = Mode::empty();
        rustix::fs::chmod(place.upper(&format!("{dir}left")), mode).unwrap();
        let on = if dir.is_empty() { place.upper(".") } else { place.upper("sub/.") };
        set_xattr(&on, MARK, b"c0:0 5 6 left");
    }
    let check = |layer: &dyn Layer| {
        for (dir, of) in [(layer.root(), ""), (entry(layer, "sub").id, "sub/")] {
            assert_left(layer, &format!("{of}left"));
            assert_eq!(word(layer, dir, "gone"), "whiteout");
            let all = listed(layer, dir);
            assert!(all.contains(&("left".to_owned(), Some(Kind::Char))), "{all:?}");
            assert!(all.contains(&("gone".to_owned(), None)), "{all:?}");
        }
    };
    check(&*DirLayer::open(&place.upper("")).unwrap());
    check(&*place.open_upper());
    for path in ["left", "sub/left"] {
        assert!(std::fs::metadata(place.upper(path)).unwrap().is_file(), "{path}");
    }
    check(&*place.open_upper());
}

/// The machine stopped before the rename.
#[test]
fn a_rename_that_did_not_happen_makes_no_device_of_a_later_whiteout() {
    let place = Place::new();
    drop(place.open_upper());
    std::fs::create_dir(place.upper("sub")).unwrap();
    for path in ["f", "sub/f"] {
        std::fs::write(place.upper(path), "content").unwrap();
    }
    for dir in [".", "sub/."] {
        set_xattr(&place.upper(dir), MARK, b"c0:0 5 6 f");
    }
    let upper = place.open_upper();
    for dir in [ROOT, entry(&*upper, "sub").id] {
        assert_eq!(word(&*upper, dir, "f"), "found");
        upper.whiteout(dir, name("f"), true).unwrap();
        assert_eq!(word(&*upper, dir, "f"), "whiteout");
    }
    drop(upper);
    let layer = DirLayer::open(&place.upper("")).unwrap();
    assert_eq!(word(&*layer, entry(&*layer, "sub").id, "f"), "whiteout");
}
