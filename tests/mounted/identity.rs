//! Hard links, inode numbers, locks: that a file stays the same file.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{FlockOperation, flock};

use super::stand::{Stand, fingerprint, run};

fn linked(lower: &std::path::Path) {
    fs::create_dir(lower.join("d")).unwrap();
    fs::write(lower.join("a"), "original content").unwrap();
    fs::hard_link(lower.join("a"), lower.join("b")).unwrap();
    fs::hard_link(lower.join("a"), lower.join("d/c")).unwrap();
    fs::write(lower.join("single"), "s").unwrap();
}

fn read(stand: &Stand, name: &str) -> String {
    fs::read_to_string(stand.at(name)).unwrap()
}

#[test]
fn line_21_link_of_a_lower_file_is_one_inode() {
    let mut stand = Stand::new(linked);
    fs::hard_link(stand.at("single"), stand.at("d/second")).unwrap();
    for _ in 0..2 {
        let (one, two) =
            (stand.at("single").metadata().unwrap(), stand.at("d/second").metadata().unwrap());
        assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
        stand.remount();
    }
    fs::write(stand.at("single"), "through one").unwrap();
    assert_eq!(read(&stand, "d/second"), "through one");
    fs::remove_file(stand.at("single")).unwrap();
    fs::hard_link(stand.at("d/second"), stand.at("third")).unwrap();
    assert_eq!(stand.at("third").metadata().unwrap().nlink(), 2);
}

/// fuse-overlayfs 1.x reads old bytes, padded with zeros, through the other name after a remount.
#[test]
fn line_22_all_names_of_a_lower_inode_follow_its_copy() {
    let mut stand = Stand::new(linked);
    let before = fingerprint(&stand.path("lower"));
    assert_eq!(stand.at("a").metadata().unwrap().nlink(), 3, "line 23: right at once");
    fs::write(stand.at("b"), "new").unwrap();
    for _ in 0..2 {
        let inodes: std::collections::HashSet<_> =
            ["a", "b", "d/c"].map(|name| stand.at(name).metadata().unwrap().ino()).into();
        assert_eq!(inodes.len(), 1);
        for name in ["a", "b", "d/c"] {
            assert_eq!(read(&stand, name), "new", "{name}");
            assert_eq!(stand.at(name).metadata().unwrap().nlink(), 3, "{name}");
        }
        stand.remount();
    }
    fs::remove_file(stand.at("a")).unwrap();
    fs::hard_link(stand.at("b"), stand.at("e")).unwrap();
    fs::rename(stand.at("d/c"), stand.at("c")).unwrap();
    fs::write(stand.at("e"), "newer").unwrap();
    for _ in 0..2 {
        for name in ["b", "c", "e"] {
            assert_eq!(read(&stand, name), "newer", "{name}");
            assert_eq!(stand.at(name).metadata().unwrap().nlink(), 3, "{name}");
        }
        assert!(!stand.at("a").exists() && !stand.at("d/c").exists());
        stand.remount();
    }
    for name in ["b", "c", "e"] {
        fs::remove_file(stand.at(name)).unwrap();
    }
    stand.umount();
    assert_eq!(fs::read_dir(stand.path("work/index")).unwrap().count(), 0, "the index is clean");
    assert_eq!(before, fingerprint(&stand.path("lower")));
}

/// fuse-overlayfs 1.x counts the names as it comes to know them.
/// One name lies in the upper layer, another only in the lower one.
#[test]
fn line_22_a_hard_link_that_the_kernel_copied_up_is_one_file() {
    let mut stand = Stand::unmounted(&["lower"]);
    linked(&stand.path("lower"));
    let options = stand.options() + ",index=on,redirect_dir=on,metacopy=off";
    run("mount", &[&"-t", &"overlay", &"overlay", &"-o", &options, &stand.path("mnt")]);
    fs::write(stand.at("b"), "new").unwrap();
    run("umount", &[&stand.path("mnt")]);
    stand.mount();
    for content in ["new", "newer"] {
        for name in ["a", "b", "d/c"] {
            let (one, this) =
                (stand.at("b").metadata().unwrap(), stand.at(name).metadata().unwrap());
            assert_eq!((this.ino(), this.nlink()), (one.ino(), 3), "{name}");
            assert_eq!(read(&stand, name), content, "{name}");
        }
        fs::write(stand.at("d/c"), "newer").unwrap();
    }
    stand.remount();
    assert_eq!(read(&stand, "a"), "newer");
}

#[test]
fn line_23_the_link_count_is_right_before_any_other_name_is_seen() {
    let mut stand = Stand::new(linked);
    assert_eq!(stand.at("d/c").metadata().unwrap().nlink(), 3);
    fs::remove_file(stand.at("d/c")).unwrap();
    assert_eq!(stand.at("b").metadata().unwrap().nlink(), 2);
    stand.remount();
    assert_eq!(stand.at("a").metadata().unwrap().nlink(), 2);
    fs::hard_link(stand.at("a"), stand.at("d/again")).unwrap();
    assert_eq!(stand.at("b").metadata().unwrap().nlink(), 3);
}

#[test]
fn line_24_inode_numbers_survive_copy_up_and_remount() {
    let mut stand = Stand::new(linked);
    let objects = ["a", "d", "single", "d/c"];
    let inos = |stand: &Stand| objects.map(|name| stand.at(name).metadata().unwrap().ino());
    let before = inos(&stand);
    for name in ["a", "single", "d/c"] {
        fs::write(stand.at(name), "changed").unwrap();
    }
    run("chmod", &[&"700", &stand.at("d")]);
    assert_eq!(before, inos(&stand), "after copy-up");
    stand.remount();
    assert_eq!(before, inos(&stand), "after remount");
    let devices: std::collections::HashSet<_> =
        objects.map(|name| stand.at(name).metadata().unwrap().dev()).into();
    assert_eq!(devices.len(), 1);
    let roots = stand.path("mnt").metadata().unwrap().ino();
    stand.remount();
    assert_eq!(roots, stand.path("mnt").metadata().unwrap().ino());
}

#[test]
fn line_25_a_new_file_is_not_the_open_deleted_one() {
    let stand = Stand::new(linked);
    fs::write(stand.at("new"), "first").unwrap();
    let open = fs::File::open(stand.at("new")).unwrap();
    fs::remove_file(stand.at("new")).unwrap();
    fs::write(stand.at("new"), "second").unwrap();
    let (old, new) = (open.metadata().unwrap(), stand.at("new").metadata().unwrap());
    assert_ne!(old.ino(), new.ino());
    assert_eq!(old.nlink(), 0);
    assert_eq!(std::io::read_to_string(&open).unwrap(), "first");
}

#[test]
fn line_26_a_lock_from_before_copy_up_excludes_one_from_after() {
    let stand = Stand::new(linked);
    let before = fs::File::open(stand.at("single")).unwrap();
    flock(&before, FlockOperation::NonBlockingLockExclusive).unwrap();
    fs::write(stand.at("single"), "copied up").unwrap();
    let after = fs::File::open(stand.at("single")).unwrap();
    let refused = flock(&after, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(refused.unwrap_err(), rustix::io::Errno::WOULDBLOCK);
    drop(before);
    flock(&after, FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn line_26_inotify_on_a_lower_file_fires_after_copy_up() {
    use rustix::fs::inotify;
    let stand = Stand::new(linked);
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, stand.at("single"), inotify::WatchFlags::MODIFY).unwrap();
    fs::write(stand.at("single"), "changed").unwrap();
    let mut buf = [std::mem::MaybeUninit::uninit(); 512];
    let mut events = inotify::Reader::new(&watch, &mut buf);
    let event = events.next().unwrap();
    assert!(event.events().contains(inotify::ReadFlags::MODIFY));
}

#[test]
fn check_knows_a_sound_index_from_a_mixed_up_one() {
    let mut stand = Stand::new(linked);
    fs::write(stand.at("b"), "new").unwrap();
    fs::remove_file(stand.at("a")).unwrap();
    stand.umount();
    let check =
        || super::stand::plyfs(&["check", "-o", &stand.options()]).output().unwrap().status.code();
    assert_eq!(check(), Some(0));
    let index = stand.path("work/index");
    let entry = super::stand::names(&index).pop().unwrap();
    let other = format!("{}00", &entry[..entry.len() - 2]);
    fs::rename(index.join(&entry), index.join(other)).unwrap();
    assert_eq!(check(), Some(1), "a lower name would show another file's content");
}
