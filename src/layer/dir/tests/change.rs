//! Making and moving objects.

use super::*;
use crate::attr::SetAttr;
use crate::errno::Errno;
use crate::layer::{How, RenameHow};

fn all_kinds() -> Vec<(&'static str, What<'static>)> {
    vec![
        ("file", What::File),
        ("dir", What::Dir),
        ("link", What::Symlink(b"/target")),
        ("fifo", What::Node(Kind::Fifo, 0)),
        ("socket", What::Node(Kind::Socket, 0)),
        ("char", What::Node(Kind::Char, rustix::fs::makedev(1, 3))),
        ("block", What::Node(Kind::Block, rustix::fs::makedev(7, 200))),
        ("zero", What::Node(Kind::Char, 0)),
    ]
}

/// Makes every kind of object in `parent` in every way, and checks that it is as it was asked for.
fn create_all(upper: &DirUpper, parent: Id) {
    let xattrs = [(b"trusted.x".to_vec(), b"v".to_vec())];
    for (uid, gid) in [(0, 0), (1000, 0), (0, 2000), (1000, 2000)] {
        for perm in [0o640, 0o000, 0o777, 0o1755, 0o4711, 0o2771, 0o6777] {
            for attributes in [&[][..], &xattrs] {
                for (at, what) in all_kinds() {
                    let kind = stage::kind_of(&what);
                    let perm = if kind == Kind::Symlink { 0o777 } else { perm };
                    let new = New { what, perm, uid, gid, xattrs: attributes, marks: &[] };
                    let made = upper.create(parent, name(at), &new).unwrap();
                    let text = format!("{new:?}: {made:?}");
                    assert_eq!((made.attr.uid, made.attr.gid), (uid, gid), "{text}");
                    assert_eq!(made.attr.perm, perm, "{text}");
                    assert_eq!(made.attr.kind, kind, "{text}");
                    let Lookup::Found(seen) = upper.lookup(parent, name(at)).unwrap() else {
                        panic!("{text}");
                    };
                    assert_eq!(seen.attr, made.attr);
                    let value = upper.getxattr(made.id, b"trusted.x").unwrap();
                    assert_eq!(value.is_some(), !attributes.is_empty(), "{text}");
                    if what == What::Dir {
                        upper.rmdir(parent, name(at)).unwrap();
                    } else {
                        upper.unlink(parent, name(at)).unwrap();
                    }
                    upper.forget(seen.id);
                    upper.forget(made.id);
                }
            }
        }
    }
}

#[test]
fn objects_are_made_exactly_as_asked() {
    let place = Place::new();
    let upper = place.open_upper();
    create_all(&upper, ROOT);
    let setgid = New { gid: 77, ..new(What::Dir, 0o2775) };
    let setgid = upper.create(ROOT, name("setgid"), &setgid).unwrap();
    create_all(&upper, setgid.id);
    // A default ACL: user::rwx, group::r-x, other::---.
    let acl = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\
                \x20\0\0\0\xff\xff\xff\xff";
    let inherits = dir(&upper, ROOT, "acl");
    upper.setxattr(inherits.id, b"system.posix_acl_default", acl, 0).unwrap();
    create_all(&upper, inherits.id);
    assert!(entry(&*upper, "acl").marks.default_acl);
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

#[test]
fn a_directory_made_setgid_later_hands_nothing_down() {
    let place = Place::new();
    let upper = place.open_upper();
    let made = dir(&upper, ROOT, "d");
    let set = SetAttr { perm: Some(0o2777), gid: Some(5), ..SetAttr::default() };
    upper.setattr(made.id, &set).unwrap();
    create_all(&upper, made.id);
}

#[test]
fn nothing_is_made_over_anything() {
    let place = Place::new();
    let upper = place.open_upper();
    file(&upper, "file", b"");
    upper.whiteout(ROOT, name("gone"), false).unwrap();
    for at in ["file", "gone"] {
        for uid in [0, 1000] {
            for (_, what) in all_kinds() {
                let new = New { uid, ..new(what, 0o777) };
                let error = upper.create(ROOT, name(at), &new).unwrap_err();
                assert_eq!(error.errno(), Errno::EEXIST);
            }
        }
        assert_eq!(upper.whiteout(ROOT, name(at), false).unwrap_err().errno(), Errno::EEXIST);
    }
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

#[test]
fn a_device_zero_of_a_user_is_no_whiteout_ever() {
    let place = Place::new();
    let upper = place.open_upper();
    let made = upper.create(ROOT, name("c"), &new(What::Node(Kind::Char, 0), 0o640)).unwrap();
    let kinds = |layer: &dyn Layer, dir| {
        let mut kinds = Vec::new();
        let mut each = |item: DirItem<'_>| {
            kinds.push((item.name.as_bytes().to_vec(), item.kind));
            Ok(())
        };
        layer.readdir(dir, &mut each).unwrap();
        kinds.retain(|(_, kind)| *kind != Some(Kind::Dir));
        kinds
    };
    assert_eq!(kinds(&*upper, ROOT), [(b"c".to_vec(), Some(Kind::Char))]);
    let set = SetAttr { perm: Some(0o600), uid: Some(9), ..SetAttr::default() };
    let changed = upper.setattr(made.id, &set).unwrap();
    assert!(changed.is_char_zero() && changed.perm == 0o600 && changed.uid == 9);
    assert_eq!(upper.open(made.id).unwrap_err().errno(), Errno::EINVAL);
    // It stays one where it goes, and when the upper is a lower layer some day.
    let sub = dir(&upper, ROOT, "sub");
    let to = (sub.id, name("moved"));
    upper.rename((ROOT, name("c")), made.id, to, None, RenameHow::Replace).unwrap();
    upper.link(made.id, ROOT, name("again"), false).unwrap();
    assert!(std::fs::metadata(place.upper("sub/moved")).unwrap().is_file());
    drop(upper);
    let layer = DirLayer::open(&place.upper("")).unwrap();
    assert!(entry(&*layer, "sub/moved").attr.is_char_zero());
    assert_eq!(kinds(&*layer, entry(&*layer, "sub").id), [(b"moved".to_vec(), Some(Kind::Char))]);
    assert!(entry(&*layer, "again").attr.is_char_zero());
}

#[test]
fn names_that_look_like_whiteouts_are_names() {
    let place = Place::new();
    let upper = place.open_upper();
    let longest = format!(".wh.{}", "x".repeat(251));
    for at in [".wh.a", ".wh..wh..opq", ".wh.", &longest] {
        for (_, what) in all_kinds() {
            let made = upper.create(ROOT, name(at), &new(what, 0o755)).unwrap();
            assert_eq!(word(&*upper, ROOT, at), "found", "{at} {what:?}");
            if at != ".wh..wh..opq" {
                assert_eq!(list(&*upper, ROOT), [at]);
            }
            assert_eq!(word(&*upper, ROOT, "a"), "absent");
            if what == What::Dir {
                upper.rmdir(ROOT, name(at)).unwrap();
            } else {
                upper.unlink(ROOT, name(at)).unwrap();
            }
            upper.forget(made.id);
        }
    }
    let f = file(&upper, "f", b"");
    let to = (ROOT, name(".wh.f"));
    upper.rename((ROOT, name("f")), f.id, to, None, RenameHow::Replace).unwrap();
    upper.link(f.id, ROOT, name(".wh.g"), false).unwrap();
    assert_eq!(list(&*upper, ROOT), [".wh.f", ".wh.g"]);
    assert_eq!(word(&*upper, ROOT, "f"), "absent");
}

#[test]
fn publishing_in_every_way() {
    let place = Place::new();
    let upper = place.open_upper();
    let stage = |what| upper.stage(&New { marks: &[Mark::Ino(5)], ..new(what, 0o700) }).unwrap();
    file(&upper, "old", b"old");
    let mut staged = stage(What::File);
    let busy = upper.publish(&mut staged, ROOT, name("old"), How::NoReplace, false).unwrap_err();
    assert_eq!(busy.errno(), Errno::EEXIST);
    assert_eq!(read(&*upper, entry(&*upper, "old").id), b"old");
    upper.publish(&mut staged, ROOT, name("new"), How::NoReplace, false).unwrap();
    assert!(staged.temp.is_none());
    assert_eq!(entry(&*upper, "new").marks.ino, Some(5));
    let mut staged = stage(What::File);
    upper.publish(&mut staged, ROOT, name("old"), How::Replace, false).unwrap();
    assert!(staged.temp.is_none());
    assert_eq!(read(&*upper, staged.id), b"");
    upper.whiteout(ROOT, name("gone"), false).unwrap();
    let mut staged = stage(What::Dir);
    upper.publish(&mut staged, ROOT, name("gone"), How::Exchange, false).unwrap();
    assert_eq!(word(&*upper, ROOT, "gone"), "found");
    let temp = staged.temp.take().unwrap();
    assert_eq!(place.leftovers().len(), 1);
    upper.discard_temp(temp.as_name());
    upper.create(staged.id, name("inside"), &new(What::File, 0o600)).unwrap();
    assert!(place.upper("gone/inside").exists());
    upper.discard(stage(What::Dir));
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

#[test]
fn a_staged_link_replaces() {
    let place = Place::new();
    let upper = place.open_upper();
    let f = file(&upper, "f", b"content");
    upper.whiteout(ROOT, name("gone"), false).unwrap();
    for at in ["gone", "f"] {
        let mut staged = upper.stage_link(f.id).unwrap();
        upper.publish(&mut staged, ROOT, name(at), How::Replace, false).unwrap();
        upper.discard(staged);
        assert_eq!(entry(&*upper, at).attr.ino, f.attr.ino);
        assert_eq!(place.leftovers(), Vec::<String>::new());
    }
    assert_eq!(upper.attr(f.id).unwrap().nlink, 2);
}

#[test]
fn renames_in_every_way() {
    for xattr in [false, true] {
        let place = Place::new();
        let upper = if xattr { place.open_upper_xattr() } else { place.open_upper() };
        let (a, d) = (file(&upper, "a", b"a"), dir(&upper, ROOT, "d"));
        let swap = RenameHow::Exchange;
        upper.rename((ROOT, name("a")), a.id, (ROOT, name("d")), Some(d.id), swap).unwrap();
        assert_eq!(entry(&*upper, "a").attr.kind, Kind::Dir);
        assert_eq!(upper.attr(a.id).unwrap().kind, Kind::File);
        assert_eq!(upper.attr(d.id).unwrap().kind, Kind::Dir);
        // Now the file is at d, the directory at a.
        let leave = RenameHow::Whiteout;
        upper.rename((ROOT, name("d")), a.id, (ROOT, name("f")), None, leave).unwrap();
        assert_eq!(word(&*upper, ROOT, "d"), "whiteout");
        assert_eq!(read(&*upper, a.id), b"a");
        upper.create(d.id, name("inside"), &new(What::File, 0o600)).unwrap();
        // A directory over a whiteout, and over an empty directory, and over nothing.
        upper.rename((ROOT, name("a")), d.id, (ROOT, name("d")), None, leave).unwrap();
        assert_eq!(word(&*upper, ROOT, "a"), "whiteout");
        dir(&upper, ROOT, "empty");
        upper.rename((ROOT, name("d")), d.id, (ROOT, name("empty")), None, leave).unwrap();
        upper.rename((ROOT, name("empty")), d.id, (ROOT, name("last")), None, leave).unwrap();
        assert_eq!(list(&*upper, d.id), ["inside"]);
        assert_eq!(list(&*upper, ROOT), ["-a", "-d", "-empty", "f", "last"]);
        // Over a whiteout without leaving one.
        let plain = RenameHow::Replace;
        upper.rename((ROOT, name("last")), d.id, (ROOT, name("a")), None, plain).unwrap();
        upper.rename((ROOT, name("f")), a.id, (ROOT, name("d")), None, plain).unwrap();
        assert_eq!(list(&*upper, ROOT), ["-empty", "a", "d"]);
        assert_eq!(upper.attr(a.id).unwrap().ino, a.attr.ino);
        assert_eq!(place.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn a_directory_does_not_replace_what_is_no_whiteout() {
    let place = Place::new();
    let upper = place.open_upper();
    let d = dir(&upper, ROOT, "d");
    file(&upper, "f", b"");
    for how in [RenameHow::Replace, RenameHow::Whiteout] {
        let error = upper.rename((ROOT, name("d")), d.id, (ROOT, name("f")), None, how);
        assert_eq!(error.unwrap_err().errno(), Errno::ENOTDIR);
    }
    assert_eq!(list(&*upper, ROOT), ["d", "f"]);
}

#[test]
fn marks_and_attributes_come_back() {
    let place = Place::new();
    let upper = place.open_upper();
    let d = dir(&upper, ROOT, "d");
    let nlink = crate::layer::Nlink { base: crate::layer::NlinkBase::Upper, delta: -1 };
    let origin = upper.handle(d.id).unwrap().unwrap();
    let marks =
        [Mark::Opaque, Mark::Redirect(b"/x/y"), Mark::Impure, Mark::Ino(9), Mark::Nlink(nlink)];
    for mark in marks.iter().chain([&Mark::Origin(&origin)]) {
        upper.set_mark(d.id, mark).unwrap();
    }
    let expected = Marks {
        opaque: true,
        redirect: Some((*b"/x/y").into()),
        impure: true,
        ino: Some(9),
        nlink: Some(nlink),
        origin: Some(origin.into()),
        ..Marks::default()
    };
    assert_eq!(entry(&*upper, "d").marks, expected);
    assert_eq!(upper.marks(d.id).unwrap(), expected);
    upper.setxattr(d.id, b"user.\xffa", b"1", libc::XATTR_CREATE).unwrap();
    let again = upper.setxattr(d.id, b"user.\xffa", b"1", libc::XATTR_CREATE);
    assert_eq!(again.unwrap_err().errno(), Errno::EEXIST);
    assert!(upper.listxattr(d.id).unwrap().contains(&b"user.\xffa".to_vec()));
    upper.removexattr(d.id, b"user.\xffa").unwrap();
    assert_eq!(upper.removexattr(d.id, b"user.\xffa").unwrap_err().errno(), Errno::ENODATA);
    assert_eq!(upper.getxattr(d.id, b"user.\xffa").unwrap(), None);
}

#[test]
fn metacopy_is_cleared() {
    let place = Place::new();
    let upper = place.open_upper();
    let f = file(&upper, "f", b"");
    upper.clear_metacopy(f.id).unwrap();
    set_xattr(&place.upper("f"), "trusted.overlay.metacopy", b"");
    set_xattr(&place.upper("f"), "trusted.overlay.redirect", b"/g");
    assert!(entry(&*upper, "f").marks.metacopy);
    upper.clear_metacopy(f.id).unwrap();
    assert_eq!(entry(&*upper, "f").marks, Marks::default());
}

#[test]
fn the_index_is_a_directory_beside_the_tree() {
    let place = Place::new();
    let upper = place.open_upper();
    // From the start: a lookup that had to make it would fail on a full filesystem.
    assert!(place.work("index").is_dir());
    let index = upper.index().unwrap();
    let f = file(&upper, "f", b"x");
    upper.link(f.id, index, name("00fb"), true).unwrap();
    let Lookup::Found(found) = upper.lookup(index, name("00fb")).unwrap() else { panic!() };
    assert_eq!(found.attr.ino, f.attr.ino);
    assert_eq!(list(&*upper, upper.index().unwrap()), ["00fb"]);
    assert!(place.work("index/00fb").exists());
    upper.sync_dir(index).unwrap();
    upper.sync().unwrap();
}
