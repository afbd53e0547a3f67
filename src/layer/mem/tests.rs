use super::*;
use crate::attr::{Kind, SetAttr};
use crate::layer::{How, RenameHow};

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

fn new(what: What<'_>) -> New<'_> {
    New { what, perm: 0o755, uid: 1, gid: 2, xattrs: &[], marks: &[] }
}

fn errno<T: fmt::Debug>(result: Result<T>) -> Errno {
    result.unwrap_err().errno()
}

#[test]
fn a_directory_has_two_links_and_one_for_each_directory_in_it() {
    let mem = MemLayer::new(1);
    let root = mem.root();
    let d = mem.put(root, name("d"), &new(What::Dir)).unwrap();
    mem.put(d, name("sub"), &new(What::Dir)).unwrap();
    mem.put(d, name("file"), &new(What::File)).unwrap();
    assert_eq!(mem.attr(d).unwrap().nlink, 3);
    assert_eq!(mem.attr(root).unwrap().nlink, 3);
}

#[test]
fn an_unlinked_object_is_out_of_reach_unless_pinned_and_an_open_one_goes_on() {
    let mem = MemLayer::new(1);
    let root = mem.root();
    let a = mem.create(root, name("a"), &new(What::File)).unwrap().id;
    let b = mem.create(root, name("b"), &new(What::File)).unwrap().id;
    let data = mem.open_write(a).unwrap();
    mem.pin(b).unwrap();
    mem.unlink(root, name("a")).unwrap();
    mem.unlink(root, name("b")).unwrap();
    assert_eq!(errno(mem.attr(a)), Errno::ESTALE);
    assert_eq!(mem.attr(b).unwrap().nlink, 0);
    data.write_at(b"still here", 0).unwrap();
    assert_eq!(data.attr().unwrap().size, 10);
    mem.forget(a);
    mem.forget(b);
    drop(data);
    assert_eq!((mem.live_refs(), mem.live_opens(), mem.object_count()), (0, 0, 1));
}

#[test]
fn publish_replaces_exchanges_or_refuses() {
    let mem = MemLayer::new(1);
    let root = mem.root();
    mem.whiteout(root, name("w"), false).unwrap();
    let mut staged = mem.stage(&new(What::Dir)).unwrap();
    let refused = mem.publish(&mut staged, root, name("w"), How::NoReplace, false);
    assert_eq!(errno(refused), Errno::EEXIST);
    let refused = mem.publish(&mut staged, root, name("w"), How::Replace, false);
    assert_eq!(errno(refused), Errno::ENOTDIR, "rename(2) puts no directory over a file");
    mem.publish(&mut staged, root, name("w"), How::Exchange, false).unwrap();
    assert_eq!(mem.staged_count(), 1, "the whiteout is in work now");
    assert_eq!(mem.dump(), "/ dir 0755 0:0\n/w dir 0755 1:2\n#work/#1 whiteout\n");
    mem.discard(staged);
    assert_eq!((mem.staged_count(), mem.live_refs()), (0, 0));
}

#[test]
fn a_quiet_publish_leaves_the_directory_times() {
    let mem = MemLayer::new(1);
    let root = mem.root();
    let before = mem.attr(root).unwrap();
    let mut staged = mem.stage(&new(What::File)).unwrap();
    mem.publish(&mut staged, root, name("f"), How::NoReplace, true).unwrap();
    assert_eq!(mem.attr(root).unwrap(), before);
    let mut staged = mem.stage(&new(What::File)).unwrap();
    mem.publish(&mut staged, root, name("f"), How::Replace, false).unwrap();
    assert!(mem.attr(root).unwrap().mtime > before.mtime);
}

#[test]
fn rename_leaves_a_whiteout_in_the_same_step_and_never_goes_into_itself() {
    let mem = MemLayer::new(1);
    let root = mem.root();
    let d = mem.put(root, name("d"), &new(What::Dir)).unwrap();
    let e = mem.put(d, name("e"), &new(What::Dir)).unwrap();
    let inside = mem.rename((root, name("d")), d, (e, name("x")), None, RenameHow::Replace);
    assert_eq!(errno(inside), Errno::EINVAL);
    mem.rename((d, name("e")), e, (root, name("e")), None, RenameHow::Whiteout).unwrap();
    let expected = "/ dir 0755 0:0\n/d dir 0755 1:2\n/d/e whiteout\n/e dir 0755 1:2\n";
    assert_eq!(mem.dump(), expected);
    assert_eq!(errno(mem.rmdir(root, name("d"))), Errno::ENOTEMPTY, "a whiteout is in it");
    mem.unlink(d, name("e")).unwrap();
    mem.rmdir(root, name("d")).unwrap();
    assert_eq!(mem.attr(root).unwrap().nlink, 3);
}

#[test]
fn rename_onto_a_hard_link_of_itself_does_nothing() {
    let mem = MemLayer::new(1);
    let root = mem.root();
    let a = mem.put(root, name("a"), &new(What::File)).unwrap();
    mem.link(a, root, name("b"), false).unwrap();
    mem.rename((root, name("a")), a, (root, name("b")), None, RenameHow::Whiteout).unwrap();
    let expected = "/ dir 0755 0:0\n/a file \"\" 0755 1:2 nlink=2\n/b = /a\n";
    assert_eq!(mem.dump(), expected);
}

#[test]
fn a_change_of_owner_clears_set_id_bits_and_capabilities_but_not_on_directories() {
    let mem = MemLayer::new(1);
    let root = mem.root();
    let xattrs = vec![(b"security.capability".to_vec(), b"cap".to_vec())];
    let file = New { perm: 0o6755, xattrs: &xattrs, ..new(What::File) };
    let f = mem.put(root, name("f"), &file).unwrap();
    let d = mem.put(root, name("d"), &New { perm: 0o6755, ..new(What::Dir) }).unwrap();
    let chown = SetAttr { uid: Some(9), ..SetAttr::default() };
    assert_eq!(mem.setattr(f, &chown).unwrap().perm, 0o755);
    assert_eq!(mem.getxattr(f, b"security.capability").unwrap(), None);
    assert_eq!(mem.setattr(d, &chown).unwrap().perm, 0o6755);
}

#[test]
fn whiteouts_beside_a_name_are_read() {
    let mem = MemLayer::new(1);
    let root = mem.root();
    mem.sibling_whiteout(root, name("gone")).unwrap();
    mem.sibling_whiteout(root, name("hides")).unwrap();
    let d = mem.put(root, name("hides"), &new(What::Dir)).unwrap();
    let gone = mem.lookup(root, name("gone")).unwrap();
    assert!(matches!(gone, Lookup::Whiteout(WhiteoutForm::Sibling)));
    let Lookup::Found(entry) = mem.lookup(root, name("hides")).unwrap() else { panic!() };
    assert!(entry.marks.opaque && mem.marks(d).unwrap().opaque);
    mem.forget(entry.id);
    let mut names = Vec::new();
    mem.readdir(root, &mut |item| {
        names.push((item.name.to_string(), item.kind));
        Ok(())
    })
    .unwrap();
    let hides = "hides".to_owned();
    let all = [(hides.clone(), Some(Kind::Dir)), ("gone".to_owned(), None), (hides, None)];
    assert_eq!(names, all);
}

#[test]
fn what_is_staged_is_swept_and_the_index_is_not_in_the_tree() {
    let mem = MemLayer::new(1);
    let f = mem.put(mem.root(), name("f"), &new(What::File)).unwrap();
    let index = mem.index().unwrap();
    mem.link(f, index, name("00fb"), false).unwrap();
    let staged = mem.stage_link(f).unwrap();
    assert_eq!(mem.attr(f).unwrap().nlink, 3);
    mem.forget(staged.id);
    mem.sweep();
    let expected =
        "/ dir 0755 0:0\n/f file \"\" 0755 1:2 nlink=2\n#index dir 0755 0:0\n#index/00fb = /f\n";
    assert_eq!(mem.dump(), expected);
}

#[test]
fn handles_differ_between_objects_and_filesystems() {
    let (one, other) = (MemLayer::new(1), MemLayer::new(2));
    let f = one.put(one.root(), name("f"), &new(What::File)).unwrap();
    let handles = [one.handle(f), one.handle(one.root()), other.handle(other.root())];
    let handles = handles.map(|h| h.unwrap().unwrap());
    assert!(handles[0] != handles[1] && handles[1] != handles[2]);
    assert!(one.beside().root() != one.root(), "one filesystem, one series of inode numbers");
}
