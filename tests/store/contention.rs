//! Several at once, each with a handle of its own.

use std::sync::atomic::{AtomicBool, Ordering};

use plyfs::errno::Errno;
use plyfs::store::{NewContainer, Store};

use crate::samples::{assert_clean, bulk, import, layout, names, small_layers, tags};

#[test]
fn the_same_image_imported_at_once_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let layers: Vec<_> = (0..4).map(|n| bulk(&format!("d{n}"), 40, 3000)).collect();
    let source = layout(&dir.path().join("oci"), "same:1", &layers);
    let root = dir.path().join("store");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Store::open(Some(&root)).unwrap();
                import(&store, &source).unwrap();
            });
        }
    });
    let store = Store::open(Some(&root)).unwrap();
    assert_eq!(tags(&store), ["same:1"]);
    assert_eq!(names(&store, "trees").len(), 4);
    assert_clean(&store);
}

/// Imports, removals and collections against each other: each does its work or says that another
/// was faster, and what is there in the end is whole.
#[test]
fn imports_removals_and_collections_at_once_leave_whole_images() {
    let dir = tempfile::tempdir().unwrap();
    let mut layers = small_layers();
    let one = layout(&dir.path().join("one"), "one:1", &layers);
    layers.truncate(2);
    let two = layout(&dir.path().join("two"), "two:1", &layers);
    let root = dir.path().join("store");
    drop(Store::open(Some(&root)).unwrap());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let importers: Vec<_> = [&one, &two]
            .into_iter()
            .map(|source| {
                let root = &root;
                scope.spawn(move || {
                    let store = Store::open(Some(root)).unwrap();
                    for _ in 0..12 {
                        import(&store, source).unwrap();
                    }
                })
            })
            .collect();
        for name in ["one:1", "two:1"] {
            let (root, done) = (&root, &done);
            scope.spawn(move || {
                let store = Store::open(Some(root)).unwrap();
                while !done.load(Ordering::Relaxed) {
                    if let Err(error) = store.remove_image(name, false) {
                        let expected = [Errno::ENOENT, Errno::EBUSY];
                        assert!(expected.contains(&error.errno()), "{error}");
                    }
                }
            });
        }
        let (root, done) = (&root, &done);
        scope.spawn(move || {
            let store = Store::open(Some(root)).unwrap();
            while !done.load(Ordering::Relaxed) {
                match store.create_container("one:1", NewContainer::Ephemeral) {
                    Ok((container, lock)) => {
                        let lowers = store.stack(&container).unwrap().lowers;
                        assert!(lowers.iter().all(|lower| lower.is_dir()), "{lowers:?}");
                        store.discard_container(&container, lock).unwrap();
                    }
                    Err(error) => assert_eq!(error.errno(), Errno::ENOENT, "{error}"),
                }
            }
        });
        for importer in importers {
            importer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    let store = Store::open(Some(&root)).unwrap();
    store.gc().unwrap();
    assert_clean(&store);
    import(&store, &one).unwrap();
    assert_clean(&store);
}
