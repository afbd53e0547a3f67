//! The kernel's overlayfs over layers as plyfs has unpacked them: the same tree.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use plyfs::store::Store;

use super::{Stand, images, text};

/// Mounts the layers of an image at `overlay`, under an upper of their own.
fn mount(stand: &Stand, image: &str) {
    let store = Store::open(Some(&stand.store())).unwrap();
    let lowers = store.lowers(&store.resolve(image).unwrap());
    // Their paths would be more than mount(2) takes.
    let dir = stand.0.path().join("layers");
    for made in ["layers", "upper", "work", "overlay"] {
        fs::create_dir(stand.0.path().join(made)).unwrap();
    }
    // The root that shows is the upper's.
    let (root, upper) = (fs::metadata(&lowers[0]).unwrap(), stand.0.path().join("upper"));
    fs::set_permissions(&upper, root.permissions()).unwrap();
    let times = fs::FileTimes::new().set_modified(root.modified().unwrap());
    fs::File::open(&upper).unwrap().set_times(times).unwrap();
    for (number, lower) in lowers.iter().enumerate() {
        symlink(lower, dir.join(number.to_string())).unwrap();
    }
    let numbers: Vec<_> = (0..lowers.len()).map(|number| number.to_string()).collect();
    let options = format!(
        "lowerdir={},upperdir=../upper,workdir=../work,redirect_dir=on,metacopy=on,index=on",
        numbers.join(":")
    );
    let mut mount = Command::new("mount");
    mount.current_dir(&dir).args(["-t", "overlay", "overlay", "-o", &options, "../overlay"]);
    let output = mount.output().unwrap();
    assert!(output.status.success(), "{image}: {}", super::stderr(&output));
}

/// Compares what overlayfs shows of an image with what plyfs does; `except` is left out.
fn same(image: &str, except: &[&str]) {
    let stand = Stand::new();
    stand.ok(&["image", "import", text(&images().join(image)), "--name", image]);
    stand.ok(&["create", image, "c"]);
    fs::create_dir(stand.0.path().join("mnt")).unwrap();
    stand.ok(&["mount", "c", "mnt"]);
    mount(&stand, image);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/same_tree.py");
    let skips = except.iter().map(|path| format!("--skip={path}"));
    let mut compare = Command::new(script);
    compare.current_dir(stand.0.path()).args(["mnt", "overlay"]).args(skips);
    let output = compare.output().unwrap();
    let said = format!("{}{}", super::stdout(&output), super::stderr(&output));
    assert!(output.status.success(), "{image}: {said}");
    stand.ok(&["umount", "c"]);
    // No layer was touched.
    stand.is_sound();
}

#[test]
fn overlayfs_shows_the_same_of_an_odd_image() {
    // A device 0:0 that an image has is stored as a file (docs/FORMAT.md).
    same("odd", &["/dir/zero"]);
}

#[test]
fn overlayfs_shows_the_same_of_an_image_of_120_layers() {
    same("tall", &[]);
}
