//! Imports that were interrupted: nothing of the image shows, and the next import goes on with the
//! layers that were finished, if they are what they were.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use plyfs::store::Store;

use crate::crash::start;
use crate::program::Stand;
use crate::samples::{assert_clean, bulk, check, import, layout, names, tags};

/// The notes of finished layers in a store.
fn notes(root: &Path) -> Vec<PathBuf> {
    let Ok(imports) = fs::read_dir(root.join("incoming")) else { return Vec::new() };
    let layers = imports.flatten().filter_map(|import| fs::read_dir(import.path()).ok()).flatten();
    let notes = layers.flatten().map(|layer| layer.path().join("finished"));
    notes.filter(|note| note.exists()).collect()
}

/// A store in which an import was killed when some of its six layers were finished; and the source.
fn interrupted(dir: &Path) -> (Store, PathBuf) {
    let layers: Vec<_> = (0..6).map(|n| bulk(&format!("d{n}"), 100, 6000)).collect();
    let source = layout(&dir.join("oci"), "bulk:1", &layers);
    let root = dir.join("store");
    let store = Store::open(Some(&root)).unwrap();
    let begin = Instant::now();
    loop {
        let mut child = start("import, kept", &root, &source);
        while notes(&root).is_empty() && child.try_wait().unwrap().is_none() {
            assert!(begin.elapsed() < Duration::from_mins(2), "no layer was finished");
            std::thread::sleep(Duration::from_micros(500));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if tags(&store).is_empty() && !notes(&root).is_empty() {
            return (store, source);
        }
        // It was faster than we: the image is there, or its layers were about to become part of it.
        if !tags(&store).is_empty() {
            store.remove_image("bulk:1", false).unwrap();
        }
        store.gc().unwrap();
    }
}

#[test]
fn what_a_killed_import_has_finished_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (store, source) = interrupted(dir.path());
    let finished = notes(store.root()).len();
    let report = check(&store, false);
    assert!(report.is_sound() && !report.findings.is_empty(), "{report:?}");
    assert!(report.findings[0].why.contains("interrupted import"), "{report:?}");
    // Removals, which clean up too, leave them alone.
    let other = layout(&dir.path().join("other"), "other:1", &[bulk("x", 3, 100)]);
    import(&store, &other).unwrap();
    store.remove_image("other:1", false).unwrap();
    assert_eq!(notes(store.root()).len(), finished);
    let imported = import(&store, &source).unwrap().remove(0);
    assert_eq!((imported.resumed, imported.unpacked), (finished, 6 - finished));
    assert_eq!(names(&store, "incoming"), [""; 0]);
    assert_clean(&store);
    let stray = fs::read_dir(store.root().join("trees")).unwrap();
    assert!(stray.flatten().all(|tree| !tree.path().join("finished").exists()));
}

#[test]
fn what_is_finished_outlives_the_error_of_the_next_import() {
    let dir = tempfile::tempdir().unwrap();
    let tries = (0..).map(|n| interrupted(&dir.path().join(n.to_string())));
    let some = |(store, _): &(Store, _)| notes(store.root()).len() < 6;
    let (store, source) = tries.take(9).find(some).unwrap();
    let finished = notes(store.root()).len();
    let blobs = source.join("blobs/sha256");
    let blobs = fs::read_dir(blobs).unwrap().flatten().map(|blob| blob.path());
    let layers: Vec<_> = blobs.filter(|blob| fs::metadata(blob).unwrap().len() > 4096).collect();
    assert_eq!(layers.len(), 6);
    for blob in &layers {
        fs::rename(blob, blob.with_extension("away")).unwrap();
    }
    import(&store, &source).unwrap_err();
    assert_eq!(notes(store.root()).len(), finished);
    for blob in &layers {
        fs::rename(blob.with_extension("away"), blob).unwrap();
    }
    let imported = import(&store, &source).unwrap().remove(0);
    assert_eq!((imported.resumed, imported.unpacked), (finished, 6 - finished));
    assert_eq!(names(&store, "incoming"), [""; 0]);
    assert_clean(&store);
}

#[test]
fn what_is_not_as_it_was_left_is_unpacked_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, source) = interrupted(dir.path());
    let notes = notes(store.root());
    let (first, others) = notes.split_first().unwrap();
    let changed = first.with_file_name("root");
    fs::set_permissions(changed, fs::Permissions::from_mode(0o700)).unwrap();
    for note in others {
        // As a crash may leave it.
        let text = fs::read(note).unwrap();
        fs::write(note, &text[..text.len() - 1]).unwrap();
    }
    let imported = import(&store, &source).unwrap().remove(0);
    assert_eq!((imported.resumed, imported.unpacked), (0, 6));
    store.gc().unwrap();
    assert_clean(&store);
}

#[test]
fn finished_layers_go_when_they_are_old_or_unwanted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = interrupted(dir.path());
    let other = layout(&dir.path().join("other"), "other:1", &[bulk("x", 3, 100)]);
    let old = SystemTime::now() - Duration::from_hours(25);
    for note in notes(store.root()) {
        fs::File::options().write(true).open(note).unwrap().set_modified(old).unwrap();
    }
    import(&store, &other).unwrap();
    assert_eq!(names(&store, "incoming"), [""; 0]);
    let (store, _) = interrupted(&dir.path().join("again"));
    store.gc().unwrap();
    assert_eq!(names(&store, "incoming"), [""; 0]);
    assert_clean(&store);
}

#[test]
fn an_interrupt_leaves_nothing_that_shows_and_the_next_import_goes_on() {
    for then_gc in [true, false] {
        let stand = Stand::new("tmpfs");
        let layers: Vec<_> = (0..5).map(|n| bulk(&format!("i{n}"), 100, 6000)).collect();
        let source = layout(&stand.small().join("oci"), "i:1", &layers);
        let import = ["image", "import", "--json", source.to_str().unwrap()];
        let child =
            stand.command(&import).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // By then two layers are there, or nearly so.
        let begin = Instant::now();
        let third = |import: fs::DirEntry| import.path().join("3").exists();
        let incoming = stand.root().join("incoming");
        while !fs::read_dir(&incoming).unwrap().flatten().any(third) {
            assert!(begin.elapsed() < Duration::from_mins(1));
            std::thread::sleep(Duration::from_micros(500));
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains("stopped before the end"), "{said}");
        assert!(said.contains("the same command goes on"), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
        assert_eq!(stand.shown().images, ["base:latest"]);
        let kept = notes(&stand.root()).len();
        // None, if the interrupt was faster than the first layer.
        let told = if kept > 0 { format!("{kept} layer") } else { "nothing".to_owned() };
        assert!(said.contains(&told), "{kept}: {said}");
        // Nothing else is left of it.
        for import in fs::read_dir(&incoming).unwrap() {
            assert_eq!(fs::read_dir(import.unwrap().path()).unwrap().count(), kept);
        }
        if then_gc {
            stand.ok(&["gc"]);
            assert_eq!(fs::read_dir(&incoming).unwrap().count(), 0);
        }
        let resumed = if then_gc { 0 } else { kept };
        let said = stand.ok(&import);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!((&said["resumed"], &said["unpacked"]), (&resumed.into(), &(5 - resumed).into()));
        stand.assert_heals("after an interrupt");
        assert_eq!(fs::read_dir(&incoming).unwrap().count(), 0);
    }
}
