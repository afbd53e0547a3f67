//! Changes, told from trees in memory.

use super::*;
use crate::layer::mem::MemLayer;
use crate::layer::{Id, Mark, New, Upper, What};
use crate::name::Name;

fn name(text: &str) -> Name<'_> {
    Name::new(text.as_bytes()).unwrap()
}

fn put(layer: &MemLayer, dir: Id, text: &str, what: What<'_>, marks: &[Mark<'_>]) -> Id {
    let new = New { what, perm: 0o755, uid: 0, gid: 0, xattrs: &[], marks };
    layer.put(dir, name(text), &new).unwrap()
}

/// A lower with dir/{a,b}, old/x, f; an upper that changes most of it.
fn layers() -> (Arc<dyn Layer>, Vec<Arc<dyn Layer>>) {
    let lower = MemLayer::new(1);
    let dir = put(&lower, lower.root(), "dir", What::Dir, &[]);
    put(&lower, dir, "a", What::File, &[]);
    put(&lower, dir, "b", What::File, &[]);
    let old = put(&lower, lower.root(), "old", What::Dir, &[]);
    put(&lower, old, "x", What::File, &[]);
    put(&lower, lower.root(), "f", What::File, &[]);
    put(&lower, lower.root(), "gone", What::Dir, &[]);

    let upper = MemLayer::new(2);
    let dir = put(&upper, upper.root(), "dir", What::Dir, &[]);
    put(&upper, dir, "a", What::File, &[]);
    upper.whiteout(dir, name("b"), false).unwrap();
    upper.whiteout(dir, name("never"), false).unwrap();
    put(&upper, dir, "new", What::Dir, &[]);
    let new = put(&upper, upper.root(), "new", What::Dir, &[Mark::Redirect(b"/old")]);
    put(&upper, new, "x", What::File, &[]);
    put(&upper, new, "y", What::File, &[]);
    put(&upper, upper.root(), "gone", What::Dir, &[Mark::Opaque]);
    upper.whiteout(upper.root(), name("old"), false).unwrap();
    let upper: Arc<dyn Layer> = upper;
    (upper, vec![lower])
}

fn lines(upper: &Arc<dyn Layer>, lowers: &[Arc<dyn Layer>]) -> Vec<String> {
    let mut lines = Vec::new();
    changes(upper, lowers, &mut |change| {
        let path = String::from_utf8(change.path.clone()).unwrap();
        let from = match &change.how {
            How::Renamed(from) => format!("{} -> ", String::from_utf8_lossy(from)),
            _ => String::new(),
        };
        lines.push(format!("{} {from}{path}", change.how.letter()));
        Ok(())
    })
    .unwrap();
    lines
}

#[test]
fn with_the_layers_below() {
    let (upper, lowers) = layers();
    assert_eq!(
        lines(&upper, &lowers),
        [
            "C dir/a",
            "D dir/b",
            "A dir/new",
            "O gone",
            "R old -> new",
            "C new/x",
            "A new/y",
            "D old"
        ]
    );
}

#[test]
fn without_them() {
    let (upper, _) = layers();
    assert_eq!(
        lines(&upper, &[]),
        [
            "U dir",
            "U dir/a",
            "D dir/b",
            "D dir/never",
            "U dir/new",
            "O gone",
            "R old -> new",
            "U new/x",
            "U new/y",
            "D old"
        ]
    );
}

#[test]
fn a_directory_with_another_mode_is_changed() {
    let (lower, upper) = (MemLayer::new(1), MemLayer::new(2));
    put(&lower, lower.root(), "d", What::Dir, &[]);
    let new = New { what: What::Dir, perm: 0o700, uid: 0, gid: 0, xattrs: &[], marks: &[] };
    upper.put(upper.root(), name("d"), &new).unwrap();
    let upper: Arc<dyn Layer> = upper;
    assert_eq!(lines(&upper, &[lower]), ["C d"]);
}

#[test]
fn a_lower_directory_moved_into_a_new_one_is_still_compared() {
    let (_, lowers) = layers();
    let upper = MemLayer::new(2);
    let new = put(&upper, upper.root(), "new", What::Dir, &[Mark::Opaque]);
    let moved = put(&upper, new, "moved", What::Dir, &[Mark::Redirect(b"/dir")]);
    upper.whiteout(moved, name("b"), false).unwrap();
    put(&upper, moved, "a", What::File, &[]);
    let upper: Arc<dyn Layer> = upper;
    let told = lines(&upper, &lowers);
    assert_eq!(told, ["A new", "R dir -> new/moved", "C new/moved/a", "D new/moved/b"]);
}
