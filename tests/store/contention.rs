//! Several at once, each with a handle of its own.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plyfs::errno::Errno;
use plyfs::store::{NewContainer, Store, Use};

use crate::samples::{assert_clean, bulk, create, import, layout, names, small_layers, tags};

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

#[test]
fn an_interrupt_ends_the_reading_of_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut child = Command::new(env!("CARGO_BIN_EXE_plyfs"))
        .arg("--root")
        .arg(dir.path().join("store"))
        .args(["image", "import"])
        .arg(&pipe)
        .spawn()
        .unwrap();
    // Opens when the other end is open; nothing ever comes.
    let silent = std::fs::File::options().write(true).open(&pipe).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            panic!("it reads on");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(silent);
    assert_clean(&Store::open(Some(&dir.path().join("store"))).unwrap());
}

#[test]
fn asking_who_has_a_container_takes_it_from_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let source = layout(&dir.path().join("oci"), "small:1", &small_layers());
    let store = Store::open(Some(&dir.path().join("store"))).unwrap();
    import(&store, &source).unwrap();
    let container = create(&store, "small:1", "c");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                container.mounted();
            }
        });
        let locked = (0..500).map(|_| container.lock(Use::Mount).map(drop));
        let locked: Vec<_> = locked.filter_map(Result::err).collect();
        done.store(true, Ordering::Relaxed);
        assert!(locked.is_empty(), "{locked:?}");
    });
}

/// A lock and a removal at once: one of them fails. Else somebody would write into what the next
/// collection deletes.
#[test]
fn who_has_a_container_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let source = layout(&dir.path().join("oci"), "small:1", &small_layers());
    let root = dir.path().join("store");
    let store = Store::open(Some(&root)).unwrap();
    import(&store, &source).unwrap();
    for _ in 0..40 {
        let container = create(&store, "small:1", "c");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let store = Store::open(Some(&root)).unwrap();
                while let Err(error) = store.remove_container("c") {
                    assert_eq!(error.errno(), Errno::EBUSY, "{error}");
                }
            });
            loop {
                match container.lock(Use::Read) {
                    Ok(lock) => {
                        assert!(store.container("c").is_ok(), "of a container that is removed");
                        drop(lock);
                    }
                    Err(error) if error.errno() == Errno::ENOENT => break,
                    Err(error) => assert_eq!(error.errno(), Errno::EBUSY, "{error}"),
                }
            }
        });
    }
}

/// SQLite's locks are the process's (fcntl(2)): closing any other descriptor of the file lets go of
/// them, and the next process to open the database truncates what this one has mapped.
#[test]
fn who_has_the_store_open_holds_its_lock_on_the_index() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(Some(place.path())).unwrap();
    let again = Store::open(Some(place.path())).unwrap();
    drop(again);
    let index = std::fs::metadata(place.path().join("plyfs.db-shm")).unwrap();
    let inode = format!(":{} ", std::os::unix::fs::MetadataExt::ino(&index));
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let held = locks.lines().any(|line| line.contains("POSIX") && line.contains(&inode));
    assert!(held, "nobody holds {inode}:\n{locks}");
    drop(store);
}
