//! From an import to the last removal.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use plyfs::errno::{Errno, Result};
use plyfs::image::digest::Digest;
use plyfs::image::platform::Platform;
use plyfs::image::source::{Source, SourceImage, SourceLayer};
use plyfs::store::{NewContainer, Signature, Store, Use};

use crate::samples::{
    assert_clean, commit, create, import, import_source, layer, layout, names, open_source,
    small_layers, tags,
};

#[test]
fn an_image_comes_is_named_and_goes_with_its_layers() {
    let dir = tempfile::tempdir().unwrap();
    let source = layout(&dir.path().join("oci"), "example.org/small:1", &small_layers());
    let store = Store::open(Some(&dir.path().join("store"))).unwrap();
    let imported = import(&store, &source).unwrap();
    assert_eq!((imported.len(), imported[0].unpacked, imported[0].layers), (1, 3, 3));
    assert_eq!(tags(&store), ["example.org/small:1"]);
    let image = store.resolve("example.org/small:1").unwrap();
    assert_eq!(image.id, Digest::of(&image.config));
    assert_eq!(names(&store, "trees").len(), 3);
    let top = store.lowers(&image)[0].clone();
    assert_eq!(fs::read(top.join("usr/f")).unwrap(), b"new");
    assert_clean(&store);

    // Again: nothing to do. By the beginning of its id, with a second name.
    assert_eq!(import(&store, &source).unwrap()[0].unpacked, 0);
    let short = &image.id.hex()[..12];
    store.tag(short, "other").unwrap();
    assert_eq!(tags(&store), ["example.org/small:1", "other:latest"]);
    assert_eq!(store.resolve("other").unwrap().id, image.id);
    assert_eq!(store.remove_image(short, false).unwrap_err().errno(), Errno::EINVAL);
    assert!(!store.remove_image("other", false).unwrap().deleted);
    assert!(store.remove_image("example.org/small:1", false).unwrap().deleted);
    assert_eq!(store.resolve(short).unwrap_err().errno(), Errno::ENOENT);
    assert!(names(&store, "trees").is_empty() && names(&store, "trash").is_empty());
    assert_clean(&store);
}

#[test]
fn images_share_the_layers_they_have_in_common() {
    let dir = tempfile::tempdir().unwrap();
    let mut layers = small_layers();
    let one = layout(&dir.path().join("one"), "one:1", &layers);
    layers[2] = layer(&[("usr/other", Some(b"other"))]);
    let two = layout(&dir.path().join("two"), "two:1", &layers);
    let store = Store::open(Some(&dir.path().join("store"))).unwrap();
    assert_eq!(import(&store, &one).unwrap()[0].unpacked, 3);
    assert_eq!(import(&store, &two).unwrap()[0].unpacked, 1);
    assert_eq!(names(&store, "trees").len(), 4);
    store.remove_image("one:1", false).unwrap();
    assert_eq!(names(&store, "trees").len(), 3);
    assert_clean(&store);
    let removed = store.prune_images(false).unwrap();
    assert!(removed.is_empty(), "it has a name: {removed:?}");
    assert_eq!(store.prune_images(true).unwrap().len(), 1);
    assert!(names(&store, "trees").is_empty());
}

#[test]
fn a_name_given_to_another_image_leaves_the_first_without() {
    let dir = tempfile::tempdir().unwrap();
    let one = layout(&dir.path().join("one"), "a:1", &small_layers());
    let two = layout(&dir.path().join("two"), "a:1", &small_layers()[..1]);
    let store = Store::open(Some(&dir.path().join("store"))).unwrap();
    let first = import(&store, &one).unwrap()[0].id;
    let second = import(&store, &two).unwrap()[0].id;
    assert_eq!(store.resolve("a:1").unwrap().id, second);
    assert!(store.resolve(&first.to_string()).unwrap().names.is_empty());
    let removed = store.prune_images(false).unwrap();
    assert_eq!(removed.iter().map(|gone| gone.id).collect::<Vec<_>>(), [first]);
}

#[test]
fn a_container_holds_its_image_and_a_user_holds_the_container() {
    let dir = tempfile::tempdir().unwrap();
    let source = layout(&dir.path().join("oci"), "small:1", &small_layers());
    let store = Store::open(Some(&dir.path().join("store"))).unwrap();
    import(&store, &source).unwrap();
    let container = create(&store, "small:1", "box");
    let again = store.create_container("small:1", NewContainer::Kept("box")).unwrap_err();
    assert_eq!(again.errno(), Errno::EEXIST);
    for bad in ["", "../x", "a b", ".x", "a/b"] {
        let error = store.create_container("small:1", NewContainer::Kept(bad)).unwrap_err();
        assert_eq!(error.errno(), Errno::EINVAL, "{bad}");
    }
    let error = store.remove_image("small:1", true).unwrap_err();
    assert_eq!(error.errno(), Errno::EBUSY);
    assert!(error.to_string().contains("box"), "{error}");

    let mut mounted = container.lock(Use::Mount).unwrap();
    mounted.sign(&signature(std::process::id(), "/some/place")).unwrap();
    let error = store.remove_container("box").unwrap_err();
    assert_eq!(error.errno(), Errno::EBUSY);
    let pid = std::process::id().to_string();
    assert!(error.to_string().contains("/some/place") && error.to_string().contains(&pid));
    assert_eq!(container.lock(Use::Mount).unwrap_err().errno(), Errno::EBUSY);
    drop(container.lock(Use::Read).unwrap());
    drop(mounted);
    assert_eq!(container.mounted(), None);
    store.remove_container("box").unwrap();
    assert_eq!(container.lock(Use::Read).unwrap_err().errno(), Errno::ENOENT);
    assert!(names(&store, "snapshots").is_empty());
    store.remove_image("small:1", false).unwrap();
    assert_clean(&store);
}

#[test]
fn a_new_container_shows_the_root_of_its_image() {
    let dir = tempfile::tempdir().unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o2751);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(1_234_567_890);
    header.set_size(0);
    tar.append_data(&mut header, "./", std::io::empty()).unwrap();
    let source = layout(&dir.path().join("oci"), "root:1", &[tar.into_inner().unwrap()]);
    let store = Store::open(Some(&dir.path().join("store"))).unwrap();
    import(&store, &source).unwrap();
    let upper = fs::metadata(create(&store, "root:1", "box").upper()).unwrap();
    assert_eq!(upper.permissions().mode() & 0o7777, 0o2751);
    assert_eq!((upper.uid(), upper.gid(), upper.mtime()), (7, 8, 1_234_567_890));
}

#[test]
fn an_ephemeral_container_goes_with_its_user() {
    let dir = tempfile::tempdir().unwrap();
    let source = layout(&dir.path().join("oci"), "small:1", &small_layers());
    let store = Store::open(Some(&dir.path().join("store"))).unwrap();
    import(&store, &source).unwrap();
    let (container, lock) = store.create_container("small:1", NewContainer::Ephemeral).unwrap();
    fs::create_dir_all(container.upper().join("a/b")).unwrap();
    assert_eq!(store.gc().unwrap().containers, 0);
    drop(lock);
    assert_eq!(store.gc().unwrap().containers, 1);
    assert!(store.containers().unwrap().is_empty() && names(&store, "snapshots").is_empty());
    let (container, lock) = store.create_container("small:1", NewContainer::Ephemeral).unwrap();
    store.discard_container(&container, lock).unwrap();
    assert!(store.containers().unwrap().is_empty());
}

#[test]
fn a_commit_is_one_more_layer_and_comes_out_the_same_twice() {
    let dir = tempfile::tempdir().unwrap();
    let source = layout(&dir.path().join("oci"), "small:1", &small_layers());
    let store = Store::open(Some(&dir.path().join("store"))).unwrap();
    let base = import(&store, &source).unwrap()[0].id;
    let container = create(&store, "small:1", "box");
    fs::write(container.upper().join("new"), "content").unwrap();
    let first = commit(&store, &container, "made:1").unwrap();
    let second = commit(&store, &container, "made:2").unwrap();
    assert_eq!(first, second);
    assert_eq!(store.resolve(&base.to_string()).unwrap().layers.len(), 3);
    let made = store.resolve("made:1").unwrap();
    assert_eq!(made.names, ["made:1", "made:2"]);
    assert_eq!(made.layers.len(), 4);
    assert_eq!(fs::read(store.lowers(&made)[0].join("new")).unwrap(), b"content");
    let config: serde_json::Value = serde_json::from_slice(&made.config).unwrap();
    assert_eq!(config["created"], "2001-09-09T01:46:40Z");
    assert_eq!(config["history"].as_array().unwrap().len(), 4);
    assert_eq!(config["config"]["Cmd"][0], "/bin/true");
    assert_clean(&store);

    // A file that no layer can hold: refused by name, nothing left.
    let literal = container.upper().join(".wh.x");
    fs::write(&literal, "").unwrap();
    let (mark, flags) = ("trusted.overlay.plyfs.literal", rustix::fs::XattrFlags::empty());
    rustix::fs::setxattr(&literal, mark, b"y", flags).unwrap();
    let error = commit(&store, &container, "made:3").unwrap_err();
    assert_eq!(error.errno(), Errno::EINVAL, "{error}");
    assert!(error.to_string().contains(".wh.x"), "{error}");
    assert!(names(&store, "incoming").is_empty());
    assert_clean(&store);
}

#[test]
fn a_store_of_a_newer_version_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    drop(Store::open(Some(&root)).unwrap());
    let db = rusqlite::Connection::open(root.join("plyfs.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let error = Store::open(Some(&root)).unwrap_err();
    assert_eq!(error.errno(), Errno::EINVAL);
    assert!(error.to_string().contains("version 99"), "{error}");
    assert!(error.to_string().contains(root.to_str().unwrap()), "{error}");
}

#[test]
fn a_directory_that_is_no_store_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("precious"), "data").unwrap();
    let error = Store::open(Some(dir.path())).unwrap_err();
    assert_eq!(error.errno(), Errno::ENOTEMPTY);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn nobody_else_may_look_into_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("deep/store");
    drop(Store::open(Some(&root)).unwrap());
    assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o700);
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    drop(Store::open(Some(&root)).unwrap());
    assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o700);
}

/// A source whose layers claim sizes that nothing has.
#[derive(Debug)]
struct Boaster(Box<dyn Source>);

impl Source for Boaster {
    fn images(&self, platform: &Platform) -> Result<Vec<SourceImage>> {
        let mut images = self.0.images(platform)?;
        for layer in images.iter_mut().flat_map(|image| &mut image.layers) {
            layer.size = u64::MAX;
        }
        Ok(images)
    }

    fn layer(&self, layer: &SourceLayer) -> Result<Box<dyn Read + Send>> {
        self.0.layer(layer)
    }
}

#[test]
fn sizes_that_cannot_be_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let source = layout(&dir.path().join("oci"), "small:1", &small_layers());
    let store = Store::open(Some(&dir.path().join("store"))).unwrap();
    let error = import_source(&store, &Boaster(open_source(&source))).unwrap_err();
    assert_eq!(error.errno(), Errno::EIO, "{error}");
    assert_clean(&store);
}

#[test]
fn an_image_of_many_layers_goes_with_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let layers: Vec<_> =
        (0..150).map(|number: u32| layer(&[(&number.to_string(), Some(b""))])).collect();
    let source = layout(&dir.path().join("oci"), "tall:1", &layers);
    let store = Store::open(Some(&dir.path().join("store"))).unwrap();
    import(&store, &source).unwrap();
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 100 && exec \"$0\" --root \"$1\" image rm tall:1"])
        .arg(env!("CARGO_BIN_EXE_plyfs"))
        .arg(store.root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(names(&store, "trees").len(), 0);
    assert_clean(&store);
}

fn signature(pid: u32, mountpoint: &str) -> Signature {
    Signature { pid, mountpoint: mountpoint.into(), device: None }
}

#[test]
fn where_a_container_was_mounted_last_is_not_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let source = layout(&dir.path().join("oci"), "small:1", &small_layers());
    let store = Store::open(Some(&dir.path().join("store"))).unwrap();
    import(&store, &source).unwrap();
    let container = create(&store, "small:1", "c");
    let mut lock = container.lock(Use::Mount).unwrap();
    let by = Signature { device: Some((0, 99)), ..signature(17, "/mnt") };
    lock.sign(&by).unwrap();
    assert_eq!(container.mounted(), Some(by));
    drop(lock);
    assert_eq!(container.mounted(), None);
    // Somebody else's may be at /mnt by now.
    let _lock = container.lock(Use::Mount).unwrap();
    assert_eq!(container.mounted(), Some(Signature::default()));
}

/// One thing that cannot be deleted (here: a mount is in the way) is no reason to keep the others,
/// nor for a removal that has happened to be called a failure.
#[test]
fn what_cannot_be_deleted_stops_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let source = layout(&dir.path().join("oci"), "small:1", &small_layers());
    let store = Store::open(Some(&dir.path().join("store"))).unwrap();
    import(&store, &source).unwrap();
    let stuck = store.root().join("trash/a/stuck");
    fs::create_dir_all(&stuck).unwrap();
    rustix::mount::mount("none", &stuck, "tmpfs", rustix::mount::MountFlags::empty(), None)
        .unwrap();
    for name in ["c", "d", "e"] {
        create(&store, "small:1", name);
    }
    let removed = ["c", "d", "e"].map(|name| store.remove_container(name));
    let collected = store.gc();
    let left = names(&store, "trash");
    rustix::mount::unmount(&stuck, rustix::mount::UnmountFlags::DETACH).unwrap();
    for removed in removed {
        removed.unwrap();
    }
    assert_eq!(collected.unwrap_err().errno(), Errno::EBUSY);
    assert_eq!(left, ["a"]);
    store.gc().unwrap();
    assert_clean(&store);
}
