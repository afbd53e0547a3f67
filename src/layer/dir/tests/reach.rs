//! Ids reach their objects, however deep they lie and however many there are, and nothing else.

use super::*;
use crate::errno::Errno;

/// Makes `depth` directories, one in the other, and returns the id of the last.
fn chain(upper: &DirUpper, part: &str, depth: usize) -> Vec<Id> {
    let mut ids = vec![ROOT];
    for _ in 0..depth {
        let entry = dir(upper, *ids.last().unwrap(), part);
        ids.push(entry.id);
    }
    ids
}

#[test]
fn paths_near_and_above_path_max_are_reached() {
    let long = "n".repeat(250);
    for (part, depth) in [(long.as_str(), 15), (&long, 16), (&long, 17), (&long, 70), ("d", 3000)] {
        let place = Place::new();
        let upper = place.open_upper();
        let ids = chain(&upper, part, depth);
        let last = *ids.last().unwrap();
        upper.tree.descriptors.remove(&ids);
        let made = upper.create(last, name("leaf"), &new(What::File, 0o600)).unwrap();
        upper.tree.descriptors.remove(&ids);
        assert_eq!(upper.attr(made.id).unwrap().ino, made.attr.ino);
        assert_eq!(list(&*upper, last), ["leaf"]);
        // All of it can be removed again.
        let staged = upper.withdraw(ROOT, name(part)).unwrap();
        upper.discard(staged);
        assert_eq!(place.leftovers(), Vec::<String>::new());
        assert_eq!(list(&*upper, ROOT), Vec::<String>::new());
    }
}

#[test]
fn a_directory_replaced_by_a_symlink_leads_nowhere() {
    let place = Place::new();
    std::fs::create_dir_all(place.lower("a/b")).unwrap();
    std::fs::create_dir(place.upper("b")).unwrap();
    std::fs::write(place.upper("b/secret"), "").unwrap();
    let layer = place.open_lower();
    let (a, b) = (entry(&*layer, "a").id, entry(&*layer, "a/b").id);
    std::fs::rename(place.lower("a"), place.lower("old")).unwrap();
    for target in [place.upper(""), PathBuf::from("../upper"), PathBuf::from("old")] {
        std::os::unix::fs::symlink(target, place.lower("a")).unwrap();
        layer.tree.descriptors.close();
        let error = layer.lookup(b, name("secret")).unwrap_err();
        assert!(matches!(error.errno(), Errno::ELOOP | Errno::ENOTDIR), "{error}");
        assert!(layer.readdir(a, &mut |_| Ok(())).is_err());
        std::fs::remove_file(place.lower("a")).unwrap();
    }
}

#[test]
fn symlinks_are_objects_not_ways() {
    let place = Place::new();
    std::os::unix::fs::symlink("/", place.lower("root")).unwrap();
    let layer = place.open_lower();
    let link = entry(&*layer, "root");
    assert_eq!(link.attr.kind, Kind::Symlink);
    assert_eq!(layer.lookup(link.id, name("etc")).unwrap_err().errno(), Errno::ENOTDIR);
}

#[test]
fn thousands_of_directories_need_few_descriptors() {
    let place = Place::new();
    for i in 0..3000 {
        std::fs::create_dir(place.lower(&i.to_string())).unwrap();
        std::fs::write(place.lower(&format!("{i}/f")), i.to_string()).unwrap();
    }
    let mut layer = place.open_lower();
    Arc::get_mut(&mut layer).unwrap().tree.descriptors.limit(64);
    let dirs: Vec<_> = (0..3000).map(|i| entry(&*layer, &i.to_string()).id).collect();
    assert!(layer.tree.descriptors.cached() <= 64);
    for (i, dir) in dirs.iter().enumerate().rev() {
        let Lookup::Found(f) = layer.lookup(*dir, name("f")).unwrap() else { panic!("{i}") };
        assert_eq!(read(&*layer, f.id), i.to_string().as_bytes());
        layer.forget(f.id);
        layer.forget(*dir);
    }
    assert!(layer.tree.descriptors.cached() <= 64);
    assert_eq!(layer.tree.slots.len(), slots::ANCHORS as usize);
}

#[test]
fn ids_follow_renames_of_what_is_above_them() {
    let place = Place::new();
    let upper = place.open_upper();
    let a = dir(&upper, ROOT, "a");
    let b = dir(&upper, a.id, "b");
    let f = upper.create(b.id, name("f"), &new(What::File, 0o600)).unwrap();
    let how = crate::layer::RenameHow::Replace;
    upper.rename((ROOT, name("a")), a.id, (ROOT, name("z")), None, how).unwrap();
    upper.tree.descriptors.remove(&[a.id, b.id]);
    assert_eq!(upper.attr(f.id).unwrap().ino, f.attr.ino);
    let x = dir(&upper, ROOT, "a");
    upper.rename((a.id, name("b")), b.id, (x.id, name("y")), None, how).unwrap();
    upper.tree.descriptors.remove(&[a.id, b.id, x.id]);
    assert_eq!(upper.attr(f.id).unwrap().ino, f.attr.ino);
    assert!(place.upper("a/y/f").exists());
}

#[test]
fn lookups_survive_renames_by_others() {
    let place = Place::new();
    let upper = place.open_upper();
    let ids = chain(&upper, "d", 4);
    let leaf = upper.create(*ids.last().unwrap(), name("f"), &new(What::File, 0o600)).unwrap();
    let how = crate::layer::RenameHow::Replace;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..500 {
                let names = if i % 2 == 0 { ["d", "e"] } else { ["e", "d"] };
                let [from, to] = names.map(name);
                upper.rename((ROOT, from), ids[1], (ROOT, to), None, how).unwrap();
            }
        });
        for _ in 0..2000 {
            upper.tree.descriptors.remove(&ids);
            assert_eq!(upper.attr(leaf.id).unwrap().ino, leaf.attr.ino);
        }
    });
}

#[test]
fn a_forgotten_id_is_stale() {
    let place = Place::new();
    std::fs::write(place.lower("f"), "").unwrap();
    let layer = place.open_lower();
    let f = entry(&*layer, "f").id;
    layer.forget(f);
    assert_eq!(layer.attr(f).unwrap_err().errno(), Errno::ESTALE);
}

#[test]
fn who_looks_at_a_file_while_its_name_goes_still_sees_it() {
    let place = Place::new();
    let upper = place.open_upper();
    let look = |id, go: &dyn Fn()| {
        let mut looks = 0;
        let attr = upper.tree.on(id, |object, spot| {
            looks += 1;
            if looks == 1 {
                // Somebody else, between finding out where the file is and looking there.
                upper.pin(id).unwrap();
                go();
            }
            upper.tree.attr_at(object, spot)
        });
        attr.unwrap().ino
    };
    let old = upper.create(ROOT, name("old"), &new(What::File, 0o600)).unwrap();
    let other = upper.create(ROOT, name("other"), &new(What::File, 0o600)).unwrap();
    let third = upper.create(ROOT, name("third"), &new(What::File, 0o600)).unwrap();
    assert_eq!(look(old.id, &|| upper.unlink(ROOT, name("old")).unwrap()), old.attr.ino);
    let replace = || {
        let (from, to) = ((ROOT, name("third")), (ROOT, name("other")));
        upper.rename(from, third.id, to, None, crate::layer::RenameHow::Replace).unwrap();
    };
    assert_eq!(look(other.id, &replace), other.attr.ino);
}
