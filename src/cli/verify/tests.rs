//! Stacks with something wrong in them.

use super::*;
use crate::layer::mem::MemLayer;
use crate::layer::{Id, Mark, Marks, New, Upper, What};
use crate::name::Name;

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

fn put(layer: &MemLayer, dir: Id, text: &str, what: What<'_>, marks: &[Mark<'_>]) -> Id {
    let new = New { what, perm: 0o755, uid: 0, gid: 0, xattrs: &[], marks };
    layer.put(dir, name(text), &new).unwrap()
}

/// Checks `upper` over a lower with the directory `d` and the file `f`; "severity path" each.
fn found(upper: Arc<MemLayer>) -> Vec<String> {
    let lower = MemLayer::new(1);
    put(&lower, lower.root(), "d", What::Dir, &[]);
    put(&lower, lower.root(), "f", What::File, &[]);
    let stack: [Arc<dyn Layer>; 2] = [upper, lower];
    let mut lines = Vec::new();
    layers(&stack, &mut |finding| {
        let path = String::from_utf8_lossy(&finding.path).into_owned();
        assert!(!finding.what.is_empty());
        lines.push(format!("{} {path}", finding.severity.word()));
        Ok(())
    })
    .unwrap();
    lines
}

#[test]
fn a_sound_stack() {
    let upper = MemLayer::new(2);
    put(&upper, upper.root(), "e", What::Dir, &[Mark::Redirect(b"/d"), Mark::Ino(7)]);
    upper.whiteout(upper.root(), name("d"), false).unwrap();
    put(&upper, upper.root(), "f", What::File, &[Mark::Ino(8)]);
    assert_eq!(found(upper), [""; 0]);
}

#[test]
fn a_lower_directory_moved_into_a_new_one_is_sound() {
    let upper = MemLayer::new(2);
    let new = put(&upper, upper.root(), "new", What::Dir, &[]);
    put(&upper, new, "moved", What::Dir, &[Mark::Redirect(b"/d"), Mark::Ino(7)]);
    upper.whiteout(upper.root(), name("d"), false).unwrap();
    assert_eq!(found(upper), [""; 0]);
}

#[test]
fn harmless_leftovers_are_notes() {
    let upper = MemLayer::new(2);
    upper.whiteout(upper.root(), name("nothing"), false).unwrap();
    put(&upper, upper.root(), "o", What::Dir, &[Mark::Opaque]);
    assert_eq!(found(upper), ["note nothing", "note o"]);
}

#[test]
fn redirects_must_lead_somewhere() {
    for (redirect, finding) in [
        (&b"/nowhere"[..], "error r"),
        (b"/f", "error r"),
        (b"/../d", "error r"),
        (b"/d/..", "error r"),
        (b"//d", "error r"),
        (b"nowhere", "error r"),
    ] {
        let upper = MemLayer::new(2);
        put(&upper, upper.root(), "r", What::Dir, &[Mark::Redirect(redirect)]);
        assert_eq!(found(upper), [finding], "{}", redirect.escape_ascii());
    }
}

#[test]
fn two_objects_with_one_number() {
    let upper = MemLayer::new(2);
    put(&upper, upper.root(), "a", What::File, &[Mark::Ino(9)]);
    put(&upper, upper.root(), "b", What::File, &[Mark::Ino(9)]);
    assert_eq!(found(upper), ["error b"]);
}

#[test]
fn metacopies_need_their_data() {
    let upper = MemLayer::new(2);
    for text in ["d2", "f"] {
        let id = put(&upper, upper.root(), text, What::File, &[]);
        upper.put_marks(id, Marks { metacopy: true, ..Marks::default() }).unwrap();
    }
    assert_eq!(found(upper), ["error d2"]);
}

#[test]
fn marks_that_are_not_followed() {
    let upper = MemLayer::new(2);
    let id = put(&upper, upper.root(), "x", What::File, &[]);
    let unknown = Some("verity".into());
    upper.put_marks(id, Marks { unknown, ..Marks::default() }).unwrap();
    // Below, a union refuses it as well; here it is named.
    assert_eq!(found(upper), ["error x"]);
}
