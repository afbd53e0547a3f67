//! Whiteouts, removal, and what stays reachable without a name.

use super::*;
use crate::attr::{SetAttr, SetTime, Time};
use crate::errno::Errno;
use crate::layer::RenameHow;

#[test]
fn whiteouts_in_both_forms() {
    for xattr in [false, true] {
        let place = Place::new();
        let upper = if xattr { place.open_upper_xattr() } else { place.open_upper() };
        let sub = dir(&upper, ROOT, "sub").id;
        upper.whiteout(sub, name("nothing"), false).unwrap();
        upper.create(sub, name("file"), &new(What::File, 0o600)).unwrap();
        upper.whiteout(sub, name("file"), true).unwrap();
        dir(&upper, sub, "dir");
        upper.whiteout(sub, name("dir"), true).unwrap();
        let full = dir(&upper, sub, "full").id;
        upper.whiteout(full, name("x"), false).unwrap();
        upper.whiteout(sub, name("full"), true).unwrap();
        let holds = dir(&upper, sub, "holds").id;
        upper.create(holds, name("x"), &new(What::File, 0o600)).unwrap();
        let error = upper.whiteout(sub, name("holds"), true).unwrap_err();
        assert_eq!(error.errno(), Errno::ENOTEMPTY);
        let expected = ["-dir", "-file", "-full", "-nothing", "holds"];
        assert_eq!(list(&*upper, sub), expected);
        let again = upper.whiteout(sub, name("file"), false).unwrap_err();
        assert_eq!(again.errno(), Errno::EEXIST);
        assert_eq!(place.leftovers(), Vec::<String>::new());
        for at in ["dir", "file", "full", "nothing"] {
            assert_eq!(word(&*upper, sub, at), "whiteout");
            let attr = std::fs::symlink_metadata(place.upper("sub").join(at)).unwrap();
            assert_eq!(attr.is_file(), xattr);
        }
        drop(upper);
        let layer = DirLayer::open(&place.upper("")).unwrap();
        assert_eq!(list(&*layer, entry(&*layer, "sub").id), expected);
    }
}

#[test]
fn an_opaque_directory_needs_no_whiteouts_by_attribute() {
    let place = Place::new();
    let upper = place.open_upper_xattr();
    let opaque = New { marks: &[Mark::Opaque], ..new(What::Dir, 0o755) };
    let opaque = upper.create(ROOT, name("o"), &opaque).unwrap().id;
    upper.create(opaque, name("f"), &new(What::File, 0o600)).unwrap();
    dir(&upper, opaque, "d");
    for at in ["f", "d"] {
        upper.whiteout(opaque, name(at), true).unwrap();
        assert_eq!(word(&*upper, opaque, at), "absent");
    }
    upper.whiteout(opaque, name("nothing"), false).unwrap();
    assert_eq!(word(&*upper, ROOT, "o"), "opaque");
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

#[test]
fn a_directory_moves_into_an_opaque_one_and_leaves_a_whiteout() {
    for xattr in [false, true] {
        let place = Place::new();
        let upper = if xattr { place.open_upper_xattr() } else { place.open_upper() };
        let opaque = New { marks: &[Mark::Opaque], ..new(What::Dir, 0o755) };
        let opaque = upper.create(ROOT, name("o"), &opaque).unwrap().id;
        let moved = dir(&upper, ROOT, "d").id;
        dir(&upper, opaque, "empty");
        dir(&upper, moved, "in");
        for (from, to) in [((ROOT, "d"), (opaque, "new")), ((opaque, "new"), (opaque, "empty"))] {
            let how = if from.0 == ROOT { RenameHow::Whiteout } else { RenameHow::Replace };
            let (from, to) = ((from.0, name(from.1)), (to.0, name(to.1)));
            upper.rename(from, moved, to, None, how).unwrap();
        }
        assert_eq!(word(&*upper, ROOT, "d"), "whiteout");
        assert_eq!(word(&*upper, opaque, "new"), "absent");
        assert_eq!(list(&*upper, moved), ["in"]);
        assert_eq!(place.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn whiteouts_share_an_inode_while_it_takes_names() {
    let place = Place::new();
    let upper = place.open_upper();
    // ext4 gives an inode 65,000 names, XFS and tmpfs many more.
    for i in 0..65_005 {
        upper.whiteout(ROOT, name(&i.to_string()), false).unwrap();
    }
    assert_eq!(word(&*upper, ROOT, "0"), "whiteout");
    assert_eq!(word(&*upper, ROOT, "65004"), "whiteout");
    upper.close().unwrap();
    assert_eq!(std::fs::read_dir(place.work("work")).unwrap().count(), 0);
}

#[test]
fn whiteouts_are_cleared_whichever_form_they_have() {
    let place = Place::new();
    std::fs::write(place.upper(".wh.sibling"), "").unwrap();
    std::fs::create_dir(place.upper("both")).unwrap();
    std::fs::write(place.upper(".wh.both"), "").unwrap();
    let upper = place.open_upper();
    upper.whiteout(ROOT, name("entry"), false).unwrap();
    assert_eq!(word(&*upper, ROOT, "both"), "opaque");
    for at in ["sibling", "both", "entry"] {
        upper.clear_whiteout(ROOT, name(at)).unwrap();
    }
    assert_eq!(list(&*upper, ROOT), ["both"]);
    assert_eq!(word(&*upper, ROOT, "both"), "found");
    let error = upper.clear_whiteout(ROOT, name("missing")).unwrap_err();
    assert_eq!(error.errno(), Errno::ENOENT);
}

#[test]
fn a_pinned_object_outlives_its_names() {
    let place = Place::new();
    let upper = place.open_upper();
    let f = file(&upper, "f", b"content");
    upper.pin(f.id).unwrap();
    upper.unlink(ROOT, name("f")).unwrap();
    file(&upper, "f", b"another");
    assert_eq!(upper.attr(f.id).unwrap().nlink, 0);
    assert_eq!(read(&*upper, f.id), b"content");
    upper.open_write(f.id).unwrap().write_at(b"C", 0).unwrap();
    upper.setxattr(f.id, b"user.a", b"1", 0).unwrap();
    assert_eq!(upper.getxattr(f.id, b"user.a").unwrap().unwrap(), b"1");
    assert_eq!(upper.listxattr(f.id).unwrap(), [b"user.a".to_vec()]);
    upper.removexattr(f.id, b"user.a").unwrap();
    let at = SetTime::At(Time { sec: -5, nsec: 7 });
    let set = SetAttr {
        perm: Some(0o4755),
        uid: Some(3),
        gid: Some(4),
        size: Some(3),
        atime: Some(at),
        mtime: Some(at),
        kill_set_id: false,
    };
    let attr = upper.setattr(f.id, &set).unwrap();
    assert_eq!((attr.perm, attr.uid, attr.gid, attr.size), (0o4755, 3, 4, 3));
    assert_eq!(attr.mtime, Time { sec: -5, nsec: 7 });
    assert_eq!(read(&*upper, f.id), b"Con");
    assert_eq!(read(&*upper, entry(&*upper, "f").id), b"another");
    upper.forget(f.id);
    assert!(!upper.tree.descriptors.is_pinned(f.id));
}

#[test]
fn pinned_objects_of_every_kind() {
    let place = Place::new();
    let upper = place.open_upper();
    let kinds = [
        What::Dir,
        What::Symlink(b"target"),
        What::Node(Kind::Fifo, 0),
        What::Node(Kind::Char, rustix::fs::makedev(1, 3)),
        What::Node(Kind::Char, 0),
    ];
    for what in kinds {
        let made = upper.create(ROOT, name("x"), &new(what, 0o755)).unwrap();
        upper.pin(made.id).unwrap();
        if what == What::Dir {
            upper.rmdir(ROOT, name("x")).unwrap();
            assert!(upper.create(made.id, name("y"), &new(What::File, 0o600)).is_err());
            // As the kernel answers for a directory that is no more.
            let listed = upper.readdir(made.id, &mut |_| Ok(())).unwrap_err();
            assert_eq!(listed.errno(), Errno::ENOENT);
        } else {
            upper.unlink(ROOT, name("x")).unwrap();
        }
        let set = SetAttr { uid: Some(8), mtime: Some(SetTime::Now), ..SetAttr::default() };
        assert_eq!(upper.setattr(made.id, &set).unwrap().uid, 8);
        assert_eq!(upper.attr(made.id).unwrap().kind, made.attr.kind);
        if let What::Symlink(target) = what {
            assert_eq!(upper.readlink(made.id).unwrap(), target);
        } else {
            let set = SetAttr { perm: Some(0o700), ..SetAttr::default() };
            assert_eq!(upper.setattr(made.id, &set).unwrap().perm, 0o700);
        }
        upper.forget(made.id);
    }
}

#[test]
fn an_object_that_was_not_pinned_is_not_mistaken_for_its_successor() {
    let place = Place::new();
    let upper = place.open_upper();
    let old = file(&upper, "f", b"old");
    // Keeps the inode from being used again at once.
    let _open = upper.open(old.id).unwrap();
    upper.unlink(ROOT, name("f")).unwrap();
    assert_eq!(upper.attr(old.id).unwrap_err().errno(), Errno::ENOENT);
    file(&upper, "f", b"new");
    assert_eq!(upper.attr(old.id).unwrap_err().errno(), Errno::ESTALE);
    assert_eq!(upper.open(old.id).unwrap_err().errno(), Errno::ESTALE);
    assert_eq!(upper.pin(old.id).unwrap_err().errno(), Errno::ESTALE);
}

#[test]
fn an_id_is_bound_to_another_name_of_its_object() {
    let place = Place::new();
    let upper = place.open_upper();
    let f = file(&upper, "f", b"content");
    upper.link(f.id, ROOT, name("g"), false).unwrap();
    upper.pin(f.id).unwrap();
    upper.unlink(ROOT, name("f")).unwrap();
    let g = entry(&*upper, "g");
    upper.rebind(f.id, g.id);
    upper.rebind(f.id, f.id);
    upper.forget(g.id);
    assert!(!upper.tree.descriptors.is_pinned(f.id));
    assert_eq!(read(&*upper, f.id), b"content");
    upper.forget(f.id);
    assert_eq!(upper.tree.slots.len(), slots::ANCHORS as usize);
}

#[test]
fn what_is_withdrawn_lies_in_the_work_directory() {
    let place = Place::new();
    let upper = place.open_upper();
    let d = dir(&upper, ROOT, "d");
    let sub = dir(&upper, d.id, "sub");
    upper.create(sub.id, name("f"), &new(What::File, 0o600)).unwrap();
    let closed = SetAttr { perm: Some(0), ..SetAttr::default() };
    upper.setattr(sub.id, &closed).unwrap();
    upper.whiteout(d.id, name("gone"), false).unwrap();
    upper.tree.descriptors.remove(&[d.id, sub.id]);
    let staged = upper.withdraw(ROOT, name("d")).unwrap();
    assert_eq!(staged.temp.as_ref().map(|_| place.leftovers().len()), Some(1));
    assert_eq!(list(&*upper, ROOT), Vec::<String>::new());
    assert_eq!(list(&*upper, staged.id), ["-gone", "sub"]);
    upper.discard(staged);
    assert_eq!(place.leftovers(), Vec::<String>::new());
    assert_eq!(upper.withdraw(ROOT, name("d")).unwrap_err().errno(), Errno::ENOENT);
}

#[test]
fn removal_says_what_is_in_the_way() {
    let place = Place::new();
    let upper = place.open_upper();
    let d = dir(&upper, ROOT, "d");
    upper.whiteout(d.id, name("w"), false).unwrap();
    assert_eq!(upper.rmdir(ROOT, name("d")).unwrap_err().errno(), Errno::ENOTEMPTY);
    assert_eq!(upper.unlink(ROOT, name("d")).unwrap_err().errno(), Errno::EISDIR);
    upper.unlink(d.id, name("w")).unwrap();
    upper.rmdir(ROOT, name("d")).unwrap();
    assert_eq!(upper.unlink(ROOT, name("d")).unwrap_err().errno(), Errno::ENOENT);
}
