//! Marks that lie in the work directory, since objects cannot carry them.

use super::*;
use crate::errno::Errno;
use crate::layer::marks::Namespace;
use crate::layer::{How, Nlink, NlinkBase, RenameHow};

const LINK: What<'_> = What::Symlink(b"target");
const NLINK: Nlink = Nlink { base: NlinkBase::Upper, delta: 2 };
const MARKS: [Mark<'_>; 3] = [Mark::Ino(7), Mark::Origin(b"o \0%="), Mark::Nlink(NLINK)];

impl Place {
    fn open_upper_user(&self) -> Arc<DirUpper> {
        self.open_upper_as(|encoding| encoding.namespace = Some(Namespace::User))
    }

    /// As on a filesystem without attributes.
    fn open_upper_bare(&self) -> Arc<DirUpper> {
        let upper = self.open_upper_as(|encoding| encoding.namespace = None);
        upper.tree.sidecar.get().unwrap().take_all().unwrap();
        upper
    }

    /// The records there are.
    fn records(&self) -> usize {
        std::fs::read_dir(self.work("plyfs/marks")).unwrap().count()
    }
}

fn marked(upper: &DirUpper, at: &str, what: What<'_>) -> Entry {
    upper.create(ROOT, name(at), &New { marks: &MARKS, ..new(what, 0o777) }).unwrap()
}

fn assert_marks(layer: &dyn Layer, at: &str) {
    let marks = layer.marks(entry(layer, at).id).unwrap();
    let shown = (marks.ino, marks.nlink, marks.origin.as_deref());
    assert_eq!(shown, (Some(7), Some(NLINK), Some(&b"o \0%="[..])), "{at}");
}

#[test]
fn what_carries_no_marks_has_them_beside_it() {
    let place = Place::new();
    let upper = place.open_upper_user();
    let kinds = [LINK, What::Node(Kind::Fifo, 0), What::Node(Kind::Socket, 0)];
    let names = ["link", "fifo", ".wh.socket"];
    for (at, what) in names.iter().zip(kinds) {
        marked(&upper, at, what);
        let plain = upper.create(ROOT, name(&format!("plain-{at}")), &new(what, 0o777)).unwrap();
        assert_eq!(upper.marks(plain.id).unwrap(), Marks::default());
    }
    assert_eq!(place.records(), 3);
    upper.set_mark(entry(&*upper, "link").id, &Mark::Ino(8)).unwrap();
    upper.set_mark(entry(&*upper, "link").id, &Mark::Ino(7)).unwrap();
    let look = |layer: &dyn Layer| {
        for at in names {
            assert_marks(layer, at);
        }
        let listed = [".wh.socket", "fifo", "link", "plain-.wh.socket", "plain-fifo", "plain-link"];
        assert_eq!(list(layer, ROOT), listed);
        assert_eq!(word(layer, ROOT, "socket"), "absent");
    };
    look(&*upper);
    upper.close().unwrap();
    drop(upper);
    look(&*DirLayer::open_upper(&place.upper(""), &place.work("")).unwrap());
    // Whoever comes later may carry marks everywhere, and finds those.
    let upper = place.open_upper();
    look(&*upper);
    upper.set_mark(entry(&*upper, "link").id, &Mark::Ino(9)).unwrap();
    assert_eq!(upper.marks(entry(&*upper, "link").id).unwrap().ino, Some(9));
}

#[test]
fn a_record_goes_with_the_last_name() {
    let place = Place::new();
    let upper = place.open_upper_user();
    let l = marked(&upper, "l", LINK);
    upper.link(l.id, ROOT, name("m"), false).unwrap();
    upper.unlink(ROOT, name("l")).unwrap();
    assert_marks(&*upper, "m");
    upper.unlink(ROOT, name("m")).unwrap();
    assert_eq!(place.records(), 0);
    // Removed, and still open.
    let open = marked(&upper, "open", LINK);
    upper.pin(open.id).unwrap();
    upper.unlink(ROOT, name("open")).unwrap();
    upper.set_mark(open.id, &Mark::Ino(3)).unwrap();
    assert_eq!(place.records(), 0);
    // Replaced: by a rename, by a whiteout, by what was staged; exchanged and thrown away.
    for at in ["r", "w", "s", "x"] {
        marked(&upper, at, LINK);
    }
    let f = file(&upper, "f", b"");
    upper.rename((ROOT, name("f")), f.id, (ROOT, name("r")), None, RenameHow::Replace).unwrap();
    upper.whiteout(ROOT, name("w"), true).unwrap();
    for (at, how) in [("s", How::Replace), ("x", How::Exchange)] {
        let mut staged = upper.stage(&new(What::File, 0o600)).unwrap();
        upper.publish(&mut staged, ROOT, name(at), how, false).unwrap();
        upper.discard(staged);
    }
    assert_eq!(place.records(), 0);
}

#[test]
fn what_a_crash_leaves_is_found_by_nobody_and_swept() {
    let place = Place::new();
    let upper = place.open_upper_user();
    let d = dir(&upper, ROOT, "d");
    let deep = New { marks: &MARKS, ..new(LINK, 0o777) };
    upper.create(d.id, name("deep"), &deep).unwrap();
    for at in ["stays", "goes"] {
        marked(&upper, at, LINK);
    }
    upper.whiteout(ROOT, name("gone"), false).unwrap();
    // The machine stops after an unlink, and before a publish.
    std::fs::remove_file(place.upper("goes")).unwrap();
    let staged = upper.stage(&deep).unwrap();
    drop((upper, staged));
    std::fs::write(place.work("plyfs/#1"), "unfinished").unwrap();
    assert_eq!(place.records(), 4);
    let upper = place.open_upper();
    assert_eq!(place.records(), 2);
    assert_marks(&*upper, "stays");
    assert_marks(&*upper, "d/deep");
    assert!(!place.work("plyfs/#1").exists());
    upper.close().unwrap();
    drop(upper);
    // In order: nothing is swept, so nothing has to be walked.
    assert!(!place.work("plyfs/unswept").exists());
    std::fs::remove_file(place.upper("stays")).unwrap();
    drop(place.open_upper());
    assert_eq!(place.records(), 2);
}

#[test]
fn without_attributes_all_marks_lie_beside() {
    let place = Place::new();
    let upper = place.open_upper_bare();
    let make = |at, what, marks: &[Mark<'_>]| {
        upper.create(ROOT, name(at), &New { marks, ..new(what, 0o755) }).unwrap()
    };
    make("opaque", What::Dir, &[Mark::Opaque]);
    make("moved", What::Dir, &[Mark::Redirect(b"/a b")]);
    make("metacopy", What::File, &[Mark::Metacopy, Mark::Ino(5)]);
    make(".wh.literal", What::File, &[]);
    make("device", What::Node(Kind::Char, 0), &[]);
    let look = |layer: &dyn Layer| {
        let marks = |at| layer.marks(entry(layer, at).id).unwrap();
        assert!(marks("opaque").opaque && !marks("moved").opaque);
        assert_eq!(marks("moved").redirect.as_deref(), Some(&b"/a b"[..]));
        assert!(marks("metacopy").metacopy && marks("metacopy").ino == Some(5));
        assert_eq!(entry(layer, "device").attr.kind, Kind::Char);
        assert_eq!(word(layer, ROOT, "literal"), "absent");
        assert_eq!(list(layer, ROOT), [".wh.literal", "device", "metacopy", "moved", "opaque"]);
    };
    look(&*upper);
    drop(upper);
    look(&*place.open_upper());
    let upper = place.open_upper();
    upper.clear_metacopy(entry(&*upper, "metacopy").id).unwrap();
    assert!(!upper.marks(entry(&*upper, "metacopy").id).unwrap().metacopy);
    upper.rmdir(ROOT, name("opaque")).unwrap();
    let count = place.records();
    upper.unlink(ROOT, name("metacopy")).unwrap();
    assert_eq!(place.records(), count - 1);
    for name in ["opaque", "moved", "metacopy"] {
        assert!(!has_xattr(&place.upper("moved"), &format!("trusted.overlay.{name}")));
    }
}

/// The objects of a copy have other handles: what was deleted would be back.
#[test]
fn a_copy_whose_marks_lie_beside_is_refused() {
    let copy = |place: &Place| {
        let other = Place::new();
        for part in ["upper", "work"] {
            let mut cp = std::process::Command::new("cp");
            let (from, to) = (place.0.path().join(part), other.0.path());
            assert!(cp.arg("-a").args([&*from, to]).status().unwrap().success());
        }
        other
    };
    let place = Place::new();
    let upper = place.open_upper_bare();
    upper
        .create(ROOT, name("d"), &New { marks: &[Mark::Opaque], ..new(What::Dir, 0o755) })
        .unwrap();
    drop(upper);
    let other = copy(&place);
    let error = other.try_upper().unwrap_err();
    assert_eq!(error.errno(), Errno::EINVAL);
    assert!(error.to_string().contains("is a copy"), "{error}");
    assert!(DirLayer::open_upper(&other.upper(""), &other.work("")).is_err());
    assert!(place.try_upper().is_ok());
    // Where only inode numbers are lost, they are lost.
    let place = Place::new();
    marked(&place.open_upper_user(), "l", LINK);
    let other = copy(&place);
    let upper = other.open_upper();
    assert_eq!(upper.marks(entry(&*upper, "l").id).unwrap(), Marks::default());
    upper.set_mark(entry(&*upper, "l").id, &Mark::Ino(4)).unwrap();
    drop(upper);
    let upper = other.open_upper();
    assert_eq!(upper.marks(entry(&*upper, "l").id).unwrap().ino, Some(4));
}

#[test]
fn a_redirect_of_any_length() {
    let long = [b"/".as_slice(), &[b'l'; 200]].concat().repeat(40);
    let makes = [Place::open_upper, Place::open_upper_user, Place::open_upper_bare];
    for (nth, make) in makes.into_iter().enumerate() {
        let place = Place::new();
        let upper = make(&place);
        let d = dir(&upper, ROOT, "d");
        let redirect = |layer: &dyn Layer| {
            let marks = layer.marks(entry(layer, "d").id).unwrap();
            assert_eq!(marks.unknown, None);
            marks.redirect.map(Vec::from)
        };
        for path in [&b"/short"[..], &long, b"/another", &long] {
            upper.set_mark(d.id, &Mark::Redirect(path)).unwrap();
            assert_eq!(redirect(&*upper).as_deref(), Some(path));
            let read = DirLayer::open_upper(&place.upper(""), &place.work("")).unwrap();
            assert_eq!(redirect(&*read).as_deref(), Some(path));
        }
        // The third has been made to believe that there are no attributes.
        let noted = place.work("work/incompat/plyfs").exists();
        assert!(noted || nth == 2, "overlayfs must not mount this");
        if nth == 0 {
            // Without the record it is refused, and not shown empty.
            let lower = DirLayer::open(&place.upper("")).unwrap();
            assert!(lower.marks(entry(&*lower, "d").id).unwrap().unknown.is_some());
        }
        upper.close().unwrap();
        drop(upper);
        let upper = make(&place);
        assert_eq!(redirect(&*upper).as_deref(), Some(&*long));
        upper.rmdir(ROOT, name("d")).unwrap();
        assert_eq!(place.records(), 0);
    }
}
