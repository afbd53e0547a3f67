use super::*;
use crate::name::Name;

fn name(name: &str) -> NameBuf {
    Name::new(name.as_bytes()).unwrap().to_buf()
}

fn dir_in(slots: &Slots, parent: Id, at: &str) -> Id {
    let (name, flags) = (Some(name(at)), Flags::default());
    slots.insert(Spot { parent, name, kind: Kind::Dir, ino: 7, flags }).unwrap()
}

fn path(slots: &Slots, id: Id) -> String {
    let ((), names) = slots.path(id, |id| (id == Id(0)).then_some(())).unwrap();
    names.iter().fold(String::new(), |path, name| format!("{path}/{}", name.as_name()))
}

#[test]
fn a_slot_is_small() {
    assert!(size_of::<Slot>() <= 48, "{}", size_of::<Slot>());
}

#[test]
fn a_forgotten_id_is_stale_even_when_its_slot_is_used_again() {
    let slots = Slots::new();
    let a = dir_in(&slots, Id(0), "a");
    assert_eq!(slots.forget(a), [a]);
    let b = dir_in(&slots, Id(0), "b");
    assert_eq!(number(a), number(b));
    assert_eq!(slots.get(a).unwrap_err().errno(), Errno::ESTALE);
    assert!(slots.forget(a).is_empty());
    assert_eq!(path(&slots, b), "/b");
}

#[test]
fn a_child_keeps_its_parents() {
    let slots = Slots::new();
    let a = dir_in(&slots, Id(0), "a");
    let b = dir_in(&slots, a, "b");
    assert!(slots.forget(a).is_empty());
    assert_eq!(path(&slots, b), "/a/b");
    assert_eq!(slots.forget(b), [b, a]);
    assert_eq!(slots.len(), ANCHORS as usize);
}

#[test]
fn what_lies_below_follows_a_rename() {
    let slots = Slots::new();
    let a = dir_in(&slots, Id(0), "a");
    let b = dir_in(&slots, a, "b");
    let c = dir_in(&slots, Id(0), "c");
    slots.relocate(b, c, name("d")).unwrap();
    let leaf = dir_in(&slots, b, "leaf");
    assert_eq!(path(&slots, leaf), "/c/d/leaf");
    assert_eq!(slots.forget(a), [a]);
    slots.rebind(leaf, c).unwrap();
    assert_eq!(path(&slots, leaf), "/c");
    for id in [leaf, b, c] {
        slots.forget(id);
    }
    assert_eq!(slots.len(), ANCHORS as usize);
}

#[test]
fn anchors_are_never_forgotten() {
    let slots = Slots::new();
    assert!(slots.forget(Id(0)).is_empty());
    assert!(slots.get(Id(0)).is_ok());
}
