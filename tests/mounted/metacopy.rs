//! A change of metadata alone copies metadata alone.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use super::stand::{Stand, assert_ok, plyfs, run};

const SIZE: usize = 1 << 20;

/// One large file in the lower layer, with times and an attribute of its own.
fn stand() -> Stand {
    Stand::new(|lower| {
        fs::write(lower.join("f"), vec![b'l'; SIZE]).unwrap();
        run("setfattr", &[&"-n", &"user.note", &"-v", &"kept", &lower.join("f")]);
        run("touch", &[&"--date=2001-02-03 04:05:06.789012345", &lower.join("f")]);
    })
}

fn chmod(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What the upper layer takes of the file: 512-byte blocks.
fn blocks_above(stand: &Stand) -> u64 {
    fs::metadata(stand.path("upper/f")).unwrap().blocks()
}

#[test]
fn line_43_a_change_of_metadata_copies_no_data() {
    let mut stand = stand();
    let before = fs::metadata(stand.at("f")).unwrap();
    let earlier = fs::File::open(stand.at("f")).unwrap();
    chmod(&stand.at("f"), 0o600);
    run("setfattr", &[&"-n", &"user.new", &"-v", &"1", &stand.at("f")]);
    std::os::unix::fs::chown(stand.at("f"), Some(7), Some(8)).unwrap();
    run("setfattr", &[&"-x", &"user.note", &stand.at("f")]);
    // ext4 may give attributes a block of their own.
    assert!(blocks_above(&stand) <= 8, "data were copied");
    let look = |stand: &Stand| {
        let now = fs::metadata(stand.at("f")).unwrap();
        assert_eq!((now.mode() & 0o7777, now.uid(), now.gid()), (0o600, 7, 8));
        assert_eq!((now.size(), now.blocks()), (before.size(), before.blocks()));
        assert_eq!((now.mtime(), now.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
        assert_eq!(now.ino(), before.ino());
        assert_eq!(fs::read(stand.at("f")).unwrap(), vec![b'l'; SIZE]);
        let names = run("getfattr", &[&"--dump", &"--absolute-names", &stand.at("f")]);
        assert!(names.contains("user.new=\"1\"") && !names.contains("note"), "{names}");
    };
    look(&stand);
    let mut seen = vec![0; SIZE];
    earlier.read_exact_at(&mut seen, 0).unwrap();
    assert!(seen == vec![b'l'; SIZE]);
    drop(earlier);
    stand.remount();
    look(&stand);
    stand.kill_and_mount(|| {});
    look(&stand);
    stand.assert_work_is_clean();
}

#[test]
fn line_43_data_follow_when_they_are_changed() {
    let mut stand = stand();
    let earlier = fs::File::open(stand.at("f")).unwrap();
    chmod(&stand.at("f"), 0o600);
    let file = fs::File::options().write(true).open(stand.at("f")).unwrap();
    file.write_all_at(b"new", 10).unwrap();
    file.sync_all().unwrap();
    let mut expected = vec![b'l'; SIZE];
    expected[10..13].copy_from_slice(b"new");
    let mut seen = vec![0; SIZE];
    earlier.read_exact_at(&mut seen, 0).unwrap();
    assert!(seen == expected, "who opened it before the chmod sees the write");
    assert!(blocks_above(&stand) >= SIZE as u64 / 512);
    drop((file, earlier));
    stand.remount();
    assert!(fs::read(stand.at("f")).unwrap() == expected);
    assert_eq!(fs::metadata(stand.at("f")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::read(stand.path("lower/f")).unwrap(), vec![b'l'; SIZE]);
}

#[test]
fn line_43_a_renamed_linked_or_removed_one_keeps_its_data() {
    let mut stand = stand();
    for name in ["g", "h", "f"] {
        chmod(&stand.at("f"), 0o600);
        match name {
            "g" => fs::hard_link(stand.at("f"), stand.at(name)).unwrap(),
            "h" => fs::rename(stand.at("g"), stand.at(name)).unwrap(),
            _ => {
                let open = fs::File::open(stand.at("f")).unwrap();
                fs::remove_file(stand.at("f")).unwrap();
                let mut seen = vec![0; SIZE];
                open.read_exact_at(&mut seen, 0).unwrap();
                assert!(seen == vec![b'l'; SIZE]);
                continue;
            }
        }
        assert!(fs::read(stand.at(name)).unwrap() == vec![b'l'; SIZE]);
    }
    stand.remount();
    assert!(fs::read(stand.at("h")).unwrap() == vec![b'l'; SIZE]);
    assert!(!stand.at("f").exists() && !stand.at("g").exists());
}

/// A directory above it moves: the data are found where they were.
#[test]
fn line_43_under_a_directory_that_moves() {
    let mut stand = Stand::new(|lower| {
        fs::create_dir_all(lower.join("a/b")).unwrap();
        fs::write(lower.join("a/b/f"), vec![b'l'; SIZE]).unwrap();
    });
    chmod(&stand.at("a/b/f"), 0o640);
    fs::rename(stand.at("a"), stand.at("moved")).unwrap();
    fs::create_dir_all(stand.at("a/b")).unwrap();
    fs::write(stand.at("a/b/f"), "another").unwrap();
    for _ in 0..2 {
        assert!(fs::read(stand.at("moved/b/f")).unwrap() == vec![b'l'; SIZE]);
        assert_eq!(fs::read(stand.at("a/b/f")).unwrap(), b"another");
        stand.remount();
    }
    assert!(fs::metadata(stand.path("upper/moved/b/f")).unwrap().blocks() <= 8);
}

#[test]
fn line_43_metacopy_off_copies_the_data() {
    let mut stand = Stand::unmounted(&["lower"]);
    fs::write(stand.path("lower/f"), vec![b'l'; SIZE]).unwrap();
    let options = stand.options() + ",metacopy=off";
    assert_ok(&plyfs(&["mount", "-o", &options]).arg(stand.path("mnt")).output().unwrap());
    chmod(&stand.at("f"), 0o600);
    assert!(fs::read(stand.path("upper/f")).unwrap() == vec![b'l'; SIZE]);
    run("umount", &[&stand.path("mnt")]);
    stand.mount();
}
