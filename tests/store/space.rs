//! A disk that is full: the error says so, nothing is left, and nothing that was there is harmed.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use plyfs::errno::Errno;
use plyfs::store::Store;

use crate::samples::{assert_clean, bulk, commit, create, import, layer, layout, names, tags};

/// A filesystem in memory of so many KiB, gone with the test.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, kib: u64) -> Self {
        fs::create_dir_all(at).unwrap();
        let options = CString::new(format!("size={kib}k")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", at, "tmpfs", flags, options.as_c_str()).unwrap();
        Self(at.to_owned())
    }

    fn resize(&self, kib: u64) {
        let options = CString::new(format!("size={kib}k")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount_remount(&self.0, flags, options.as_c_str()).unwrap();
    }

    /// How much is in use.
    fn used(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize / 1024
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(&self.0, flags).unwrap();
    }
}

#[test]
fn an_import_without_space_says_so_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let layers: Vec<_> = (0..3).map(|n| bulk(&format!("d{n}"), 60, 8000)).collect();
    let source = layout(&dir.path().join("oci"), "bulk:1", &layers);
    let place = dir.path().join("small");
    let small = Small::mount(&place, 64 << 10);
    let store = Store::open(Some(&place.join("store"))).unwrap();
    // What is there already has to stay whole.
    let little = layout(&dir.path().join("little"), "little:1", &[bulk("x", 3, 100)]);
    import(&store, &little).unwrap();
    let before = small.used();
    import(&store, &source).unwrap();
    let needed = small.used() - before;
    store.remove_image("bulk:1", false).unwrap();
    let empty = small.used();
    let mut refused = 0;
    for step in 0..24 {
        small.resize(empty + 16 + needed * step / 20);
        match import(&store, &source) {
            Err(error) => {
                assert_eq!(error.errno(), Errno::ENOSPC, "{error}");
                assert!(error.to_string().contains("No space left"), "{error}");
                assert!(names(&store, "incoming").is_empty(), "{error}");
                assert_eq!(tags(&store), ["little:1"]);
                refused += 1;
            }
            Ok(_) => drop(store.remove_image("bulk:1", false).unwrap()),
        }
        assert_clean(&store);
    }
    assert!(refused >= 10, "{refused}");
    small.resize(64 << 10);
    import(&store, &source).unwrap();
    assert_clean(&store);
}

#[test]
fn a_commit_without_space_says_so_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("small");
    let small = Small::mount(&place, 64 << 10);
    let store = Store::open(Some(&place.join("store"))).unwrap();
    let little = layout(&dir.path().join("little"), "little:1", &[bulk("x", 3, 100)]);
    import(&store, &little).unwrap();
    let container = create(&store, "little:1", "box");
    for number in 0..100 {
        fs::write(container.upper().join(format!("f{number}")), vec![number; 12_000]).unwrap();
    }
    let before = small.used();
    commit(&store, &container, "made:1").unwrap();
    let needed = small.used() - before;
    store.remove_image("made:1", false).unwrap();
    let empty = small.used();
    let mut refused = 0;
    for step in 0..24 {
        small.resize(empty + 16 + needed * step / 20);
        match commit(&store, &container, "made:1") {
            Err(error) => {
                assert_eq!(error.errno(), Errno::ENOSPC, "{error}");
                assert!(names(&store, "incoming").is_empty(), "{error}");
                assert_eq!(tags(&store), ["little:1"]);
                refused += 1;
            }
            Ok(_) => drop(store.remove_image("made:1", false).unwrap()),
        }
        assert_clean(&store);
    }
    assert!(refused >= 10, "{refused}");
}

#[test]
fn on_a_full_disk_things_can_still_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("small");
    let small = Small::mount(&place, 16 << 10);
    let root = place.join("store");
    let store = Store::open(Some(&root)).unwrap();
    let little = layout(&dir.path().join("little"), "little:1", &[bulk("x", 3, 100)]);
    import(&store, &little).unwrap();
    let container = create(&store, "little:1", "box");
    drop(store);
    // Its last byte is used up by what the container writes.
    let fill = fs::File::create(container.upper().join("fill")).unwrap();
    let mut block = 1 << 20;
    while block >= 1 {
        let content = vec![1; block];
        if std::io::Write::write(&mut &fill, &content).is_err() {
            block /= 2;
        }
    }
    drop(fill);
    assert_eq!(rustix::fs::statvfs(&place).unwrap().f_bfree, 0);
    let store = Store::open(Some(&root)).unwrap();
    store.remove_container("box").unwrap();
    assert!(small.used() < 4 << 10);
    assert_clean(&store);
}

/// A few kilobytes of archive: zeros compress well.
#[test]
fn an_archive_of_more_than_there_is_room_for_is_refused_before_the_disk_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let zeros = vec![0; 12 << 20];
    let source = layout(&dir.path().join("oci"), "zip:1", &[layer(&[("bomb", Some(&zeros))])]);
    let place = dir.path().join("small");
    let _small = Small::mount(&place, 10 << 10);
    let store = Store::open(Some(&place.join("store"))).unwrap();
    let error = import(&store, &source).unwrap_err();
    assert_eq!(error.errno(), Errno::ENOSPC, "{error}");
    // In the words of the import and not of a write that failed.
    assert!(error.to_string().contains("less than 1024 KiB are free"), "{error}");
    assert!(names(&store, "incoming").is_empty() && tags(&store).is_empty());
    assert_clean(&store);
}
