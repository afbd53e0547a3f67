//! Permission bits that would keep us out, where we are not privileged.

use super::*;
use crate::attr::SetAttr;

fn bound(place: &Place) -> Arc<DirUpper> {
    place.open_upper_as(|encoding| {
        encoding.namespace = Some(crate::layer::marks::Namespace::User);
        encoding.bound = true;
    })
}

fn chmod(upper: &DirUpper, id: Id, perm: u16) -> u16 {
    upper.setattr(id, &SetAttr { perm: Some(perm), ..SetAttr::default() }).unwrap().perm
}

fn on_disk(place: &Place, at: &str) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(place.upper(at)).unwrap().mode() & 0o7777
}

#[test]
fn what_is_made_shows_the_bits_it_was_given() {
    let place = Place::new();
    let upper = bound(&place);
    let table = [(0o444, 0o1644, 0o744), (0, 0o1600, 0o700), (0o6555, 0o7755, 0o6755)];
    for (perm, file, dir) in table {
        for (what, real) in
            [(What::File, file), (What::Dir, dir), (What::Node(Kind::Char, 0), file)]
        {
            let at = format!("{perm:o}-{what:?}");
            let made = upper.create(ROOT, name(&at), &new(what, perm)).unwrap();
            assert_eq!((made.attr.perm, on_disk(&place, &at)), (perm, real), "{at}");
            assert_eq!(upper.attr(made.id).unwrap().perm, perm);
        }
    }
    let read = |layer: &dyn Layer| {
        for (perm, ..) in table {
            for what in [What::File, What::Dir, What::Node(Kind::Char, 0)] {
                let found = entry(layer, &format!("{perm:o}-{what:?}"));
                assert_eq!((found.attr.perm, layer.attr(found.id).unwrap().perm), (perm, perm));
            }
        }
    };
    read(&*upper);
    drop(upper);
    read(&*place.open_upper());
    read(&*DirLayer::open(&place.upper("")).unwrap());
}

#[test]
fn chmod_to_and_fro() {
    let place = Place::new();
    let upper = bound(&place);
    let (f, d) = (file(&upper, "f", b"content"), dir(&upper, ROOT, "d"));
    for (id, at, table) in [
        (
            f.id,
            "f",
            [(0, 0o1600), (0o200, 0o1600), (0o644, 0o644), (0o4411, 0o5611), (0o1600, 0o1600)],
        ),
        (
            d.id,
            "d",
            [(0, 0o700), (0o1500, 0o1700), (0o755, 0o755), (0o2077, 0o2777), (0o700, 0o700)],
        ),
    ] {
        for (perm, real) in table {
            assert_eq!((chmod(&upper, id, perm), on_disk(&place, at)), (perm, real), "{at}");
            assert_eq!(entry(&*upper, at).attr.perm, perm);
        }
        assert!(!has_xattr(&place.upper(at), "user.overlay.plyfs.perm"), "{at}");
    }
    chmod(&upper, f.id, 0o4111);
    chmod(&upper, d.id, 0);
    // What is in it can be worked on all the same.
    upper.create(d.id, name("x"), &new(What::File, 0)).unwrap();
    assert_eq!(list(&*upper, d.id), ["x"]);
    drop(upper);
    // Who is privileged takes the mark away with the first change.
    let upper = place.open_upper();
    let (f, d) = (entry(&*upper, "f"), entry(&*upper, "d"));
    assert_eq!((f.attr.perm, d.attr.perm), (0o4111, 0));
    for (id, at) in [(f.id, "f"), (d.id, "d")] {
        assert_eq!((chmod(&upper, id, 0o400), on_disk(&place, at)), (0o400, 0o400));
        assert!(!has_xattr(&place.upper(at), "user.overlay.plyfs.perm"));
    }
}

#[test]
fn an_acl_says_what_the_bits_say() {
    let place = Place::new();
    let upper = bound(&place);
    let f = file(&upper, "f", b"");
    let acl = |owner: u8| {
        let entry = |tag: u8, bits: u8, id: [u8; 4]| [&[tag, 0, bits, 0][..], &id].concat();
        let any = [0xff; 4];
        let entries = [
            entry(1, owner, any),
            entry(2, 7, [77, 0, 0, 0]),
            entry(4, 4, any),
            entry(0x10, 5, any),
            entry(0x20, 0, any),
        ];
        [&[2, 0, 0, 0][..], &entries.concat()].concat()
    };
    let name = b"system.posix_acl_access";
    for (owner, perm, real) in [(4, 0o450, 0o1650), (0, 0o050, 0o1650), (6, 0o650, 0o650)] {
        upper.setxattr(f.id, name, &acl(owner), 0).unwrap();
        assert_eq!(upper.getxattr(f.id, name).unwrap(), Some(acl(owner)));
        assert_eq!((upper.attr(f.id).unwrap().perm, on_disk(&place, "f")), (perm, real));
    }
    assert_eq!(chmod(&upper, f.id, 0o050), 0o050);
    assert_eq!(upper.getxattr(f.id, name).unwrap(), Some(acl(0)));
    // One that is made with its ACL.
    let xattrs = [(name.to_vec(), acl(4))];
    let made = New { xattrs: &xattrs, marks: &[Mark::Ino(5)], ..new(What::File, 0o450) };
    let g = upper.create(ROOT, super::name("g"), &made).unwrap();
    assert_eq!(upper.getxattr(g.id, name).unwrap(), Some(acl(4)));
    assert_eq!((upper.attr(g.id).unwrap().perm, on_disk(&place, "g")), (0o450, 0o1650));
}
