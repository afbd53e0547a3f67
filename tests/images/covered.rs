//! `plyfs umount NAME` when something else is where the container was mounted.

use std::fs;
use std::process::Command;

use super::{Stand, images, text};

fn mount(arguments: &[&str]) {
    let output = Command::new("mount").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", super::stderr(&output));
}

#[test]
fn what_covers_a_container_is_not_unmounted_in_its_place() {
    let stand = Stand::with_small();
    let mnt = stand.0.path().join("mnt");
    fs::create_dir(&mnt).unwrap();
    stand.ok(&["create", "small", "c"]);
    stand.ok(&["mount", "c", "mnt"]);
    mount(&["-t", "tmpfs", "precious", text(&mnt)]);
    fs::write(mnt.join("file"), "of somebody else").unwrap();
    let said = stand.fails(1, &["umount", "c"]);
    assert!(said.contains("precious (tmpfs) is there now"), "{said}");
    assert_eq!(fs::read(mnt.join("file")).unwrap(), b"of somebody else");
    rustix::mount::unmount(&mnt, rustix::mount::UnmountFlags::empty()).unwrap();
    stand.ok(&["umount", "c"]);
    assert!(stand.mounts().is_empty(), "{:?}", stand.mounts());
}

/// A container of the same name, of another store.
#[test]
fn another_container_of_that_name_is_not_unmounted_in_its_place() {
    let stand = Stand::with_small();
    let mnt = stand.0.path().join("mnt");
    fs::create_dir(&mnt).unwrap();
    let other = ["--root", "other"];
    let in_other = |arguments: &[&str]| stand.ok(&[&other, arguments].concat());
    in_other(&["image", "import", text(&images().join("small")), "--name", "small"]);
    in_other(&["create", "small", "c"]);
    stand.ok(&["create", "small", "c"]);
    stand.ok(&["mount", "c", "mnt"]);
    // Detached, it lives for as long as somebody uses it.
    let inside = fs::File::open(mnt.join("data")).unwrap();
    rustix::mount::unmount(&mnt, rustix::mount::UnmountFlags::DETACH).unwrap();
    let said = stand.fails(1, &["umount", "c"]);
    assert!(said.contains("nothing is there now"), "{said}");
    in_other(&["mount", "c", "mnt"]);
    let said = stand.fails(1, &["umount", "c"]);
    assert!(said.contains("plyfs:c (fuse.plyfs) is there now"), "{said}");
    // Who unmounts waits for all who serve there.
    drop(inside);
    in_other(&["umount", "c"]);
    assert!(stand.mounts().is_empty(), "{:?}", stand.mounts());
}
