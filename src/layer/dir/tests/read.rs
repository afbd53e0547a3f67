//! Every encoding that a layer may be in.

use super::*;
use crate::errno::Errno;

#[test]
fn a_device_zero_is_a_whiteout() {
    let place = Place::new();
    char_zero(&place.lower("gone"));
    mknod(&place.lower("null"), FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    let layer = place.open_lower();
    assert_eq!(word(&*layer, ROOT, "gone"), "whiteout");
    assert_eq!(entry(&*layer, "null").attr.rdev, rustix::fs::makedev(1, 3));
    assert_eq!(list(&*layer, ROOT), ["-gone", "null"]);
}

#[test]
fn an_empty_file_with_the_attribute_is_a_whiteout_where_the_directory_says_so() {
    for prefix in ["trusted.overlay", "user.overlay"] {
        let place = Place::new();
        for dir in ["x", "plain"] {
            std::fs::create_dir(place.lower(dir)).unwrap();
            for (file, content) in [("gone", ""), ("full", "data"), ("empty", "")] {
                std::fs::write(place.lower(dir).join(file), content).unwrap();
            }
            for file in ["gone", "full"] {
                set_xattr(&place.lower(dir).join(file), &format!("{prefix}.whiteout"), b"y");
            }
        }
        set_xattr(&place.lower("x"), &format!("{prefix}.opaque"), b"x");
        let layer = place.open_lower();
        let (x, plain) = (entry(&*layer, "x"), entry(&*layer, "plain"));
        assert!(!x.marks.opaque);
        assert_eq!(list(&*layer, x.id), ["-gone", "empty", "full"]);
        assert_eq!(list(&*layer, plain.id), ["empty", "full", "gone"]);
        for (dir, gone) in [(x.id, "whiteout"), (plain.id, "found")] {
            assert_eq!(word(&*layer, dir, "gone"), gone);
            assert_eq!(word(&*layer, dir, "full"), "found");
            assert_eq!(word(&*layer, dir, "empty"), "found");
        }
    }
}

#[test]
fn whiteouts_in_the_root_by_attribute_are_read_too() {
    let place = Place::new();
    std::fs::write(place.lower("gone"), "").unwrap();
    set_xattr(&place.lower("gone"), "user.overlay.whiteout", b"");
    set_xattr(&place.lower(""), "user.overlay.opaque", b"x");
    assert_eq!(word(&*place.open_lower(), ROOT, "gone"), "whiteout");
}

#[test]
fn a_sibling_whites_a_name_out() {
    let place = Place::new();
    std::fs::write(place.lower(".wh.gone"), "").unwrap();
    std::fs::create_dir(place.lower("both")).unwrap();
    std::fs::write(place.lower(".wh.both"), "").unwrap();
    std::fs::write(place.lower(".wh."), "").unwrap();
    let layer = place.open_lower();
    assert_eq!(word(&*layer, ROOT, "gone"), "sibling");
    assert_eq!(word(&*layer, ROOT, ".wh.gone"), "absent");
    assert_eq!(word(&*layer, ROOT, "both"), "opaque");
    assert!(layer.marks(entry(&*layer, "both").id).unwrap().opaque);
    assert_eq!(word(&*layer, ROOT, "other"), "absent");
    assert_eq!(list(&*layer, ROOT), ["-both", "-gone", "both"]);
    // What the listing taught must not hide them.
    assert_eq!(word(&*layer, ROOT, "gone"), "sibling");
}

#[test]
fn a_listing_without_siblings_saves_the_search_for_them() {
    let place = Place::new();
    std::fs::write(place.lower("a"), "").unwrap();
    let layer = place.open_lower();
    assert_eq!(list(&*layer, ROOT), ["a"]);
    assert!(layer.tree.slots.get(ROOT).unwrap().flags.has(slots::Flags::NO_DOT_WH));
    assert_eq!(word(&*layer, ROOT, "b"), "absent");
}

#[test]
fn opaque_directories_in_every_encoding() {
    let place = Place::new();
    let names = ["trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque"];
    for attribute in names {
        std::fs::create_dir(place.lower(attribute)).unwrap();
        set_xattr(&place.lower(attribute), attribute, b"y");
    }
    std::fs::create_dir(place.lower("entry")).unwrap();
    std::fs::write(place.lower("entry/.wh..wh..opq"), "").unwrap();
    std::fs::create_dir(place.lower("escaped")).unwrap();
    set_xattr(&place.lower("escaped"), "trusted.overlay.overlay.opaque", b"y");
    let layer = place.open_lower();
    for dir in names.into_iter().chain(["entry"]) {
        assert_eq!(word(&*layer, ROOT, dir), "opaque", "{dir}");
        assert!(layer.marks(entry(&*layer, dir).id).unwrap().opaque, "{dir}");
        assert_eq!(list(&*layer, entry(&*layer, dir).id), Vec::<String>::new());
    }
    assert_eq!(word(&*layer, ROOT, "escaped"), "found");
}

#[test]
fn a_literal_name_is_no_whiteout() {
    let place = Place::new();
    std::fs::write(place.lower(".wh.real"), "").unwrap();
    set_xattr(&place.lower(".wh.real"), "user.overlay.plyfs.literal", b"y");
    char_zero(&place.lower(".wh.kernel"));
    let layer = place.open_lower();
    assert_eq!(word(&*layer, ROOT, ".wh.real"), "found");
    assert_eq!(word(&*layer, ROOT, "real"), "absent");
    assert_eq!(word(&*layer, ROOT, ".wh.kernel"), "whiteout");
    assert_eq!(word(&*layer, ROOT, "kernel"), "absent");
    assert_eq!(list(&*layer, ROOT), ["-.wh.kernel", ".wh.real"]);
}

#[test]
fn a_literal_opaque_entry_makes_nothing_opaque() {
    let place = Place::new();
    for dir in ["literal", "whiteout", "attribute"] {
        std::fs::create_dir(place.lower(dir)).unwrap();
        std::fs::write(place.lower(dir).join("seen"), "").unwrap();
    }
    let entry_in = |dir: &str| place.lower(dir).join(".wh..wh..opq");
    std::fs::write(entry_in("literal"), "").unwrap();
    set_xattr(&entry_in("literal"), "user.overlay.plyfs.literal", b"y");
    char_zero(&entry_in("whiteout"));
    std::fs::write(entry_in("attribute"), "").unwrap();
    set_xattr(&entry_in("attribute"), "user.overlay.whiteout", b"y");
    set_xattr(&place.lower("attribute"), "user.overlay.opaque", b"x");
    let layer = place.open_lower();
    for (dir, listed) in [
        ("literal", [".wh..wh..opq", "seen"]),
        ("whiteout", ["-.wh..wh..opq", "seen"]),
        ("attribute", ["-.wh..wh..opq", "seen"]),
    ] {
        let found = entry(&*layer, dir);
        assert!(!found.marks.opaque && !layer.marks(found.id).unwrap().opaque, "{dir}");
        assert_eq!(list(&*layer, found.id), listed, "{dir}");
    }
}

#[test]
fn a_whiteout_of_a_literal_name_hides_that_name_alone() {
    let place = Place::new();
    std::fs::write(place.lower(".wh.f"), "").unwrap();
    set_xattr(&place.lower(".wh.f"), "user.overlay.whiteout", b"y");
    set_xattr(&place.lower(""), "user.overlay.opaque", b"x");
    let layer = place.open_lower();
    assert_eq!(word(&*layer, ROOT, ".wh.f"), "whiteout");
    assert_eq!(word(&*layer, ROOT, "f"), "absent");
    assert_eq!(list(&*layer, ROOT), ["-.wh.f"]);
}

#[test]
fn metacopy_is_told_or_refused_but_never_read_as_zeros() {
    let place = Place::new();
    std::fs::write(place.lower("sparse"), "").unwrap();
    std::fs::File::options()
        .write(true)
        .open(place.lower("sparse"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    std::fs::write(place.lower("dense"), "content").unwrap();
    for file in ["sparse", "dense"] {
        set_xattr(&place.lower(file), "trusted.overlay.metacopy", b"");
        set_xattr(&place.lower(file), "trusted.overlay.redirect", b"/elsewhere");
    }
    let layer = place.open_lower();
    let sparse = entry(&*layer, "sparse");
    assert!(sparse.marks.metacopy);
    assert_eq!(sparse.marks.redirect.unwrap().as_ref(), b"/elsewhere");
    layer.open(sparse.id).unwrap();
    let dense = entry(&*layer, "dense");
    let refused = layer.open(dense.id).unwrap_err();
    assert_eq!(refused.errno(), Errno::EIO);
    assert!(refused.to_string().contains("overlay.metacopy"));
    assert!(layer.marks(dense.id).unwrap().metacopy);
    layer.open(dense.id).unwrap();
}

#[test]
fn devices_and_fifos_are_never_opened() {
    let place = Place::new();
    mknod(&place.lower("fifo"), FileType::Fifo, 0);
    mknod(&place.lower("null"), FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    mknod(&place.lower("socket"), FileType::Socket, 0);
    std::os::unix::fs::symlink("/etc/passwd", place.lower("link")).unwrap();
    std::fs::create_dir(place.lower("dir")).unwrap();
    let layer = place.open_lower();
    for at in ["fifo", "null", "socket", "link", "dir"] {
        let error = layer.open(entry(&*layer, at).id).unwrap_err();
        assert_eq!(error.errno(), Errno::EINVAL, "{at}");
    }
    assert_eq!(layer.readlink(entry(&*layer, "link").id).unwrap(), b"/etc/passwd");
}

#[test]
fn a_handle_is_stable_and_has_the_form_of_the_kernel() {
    let place = Place::new();
    for at in ["a", "b"] {
        std::fs::write(place.lower(at), "").unwrap();
    }
    let handle = |at| {
        let layer = place.open_lower();
        layer.handle(entry(&*layer, at).id).unwrap()
    };
    let a = handle("a").expect("ext4, XFS, Btrfs and tmpfs have handles");
    assert_eq!(handle("a").unwrap(), a);
    assert_ne!(handle("b").unwrap(), a);
    assert_eq!(a[..2], [0, 0xfb]);
    assert_eq!(usize::from(a[2]), a.len());
}

#[test]
fn nothing_can_be_written_through_a_private_clone() {
    let place = Place::new();
    std::fs::write(place.lower("f"), "old").unwrap();
    let layer = place.open_lower();
    assert_eq!(layer.is_private_clone(), crate::sys::process::has_sys_admin());
    if layer.is_private_clone() {
        let root = layer.tree.dir_fd(ROOT).unwrap();
        let flags = OFlags::WRONLY;
        let error = rustix::fs::openat(&*root, "f", flags, Mode::empty()).unwrap_err();
        assert_eq!(error, rustix::io::Errno::ROFS);
    }
    assert_eq!(read(&*layer, entry(&*layer, "f").id), b"old");
}

#[test]
fn a_lower_layer_that_is_no_directory_is_named() {
    let place = Place::new();
    std::fs::write(place.lower("f"), "").unwrap();
    for (path, errno) in [("f", Errno::ENOTDIR), ("missing", Errno::ENOENT)] {
        let error = DirLayer::open(&place.lower(path)).unwrap_err();
        assert_eq!(error.errno(), errno);
        assert!(error.to_string().contains(path), "{error}");
    }
}
