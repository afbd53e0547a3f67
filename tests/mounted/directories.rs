//! Merging, whiteouts, renames and listings.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::fs::{AtFlags, CWD, RenameFlags, renameat_with};

use super::stand::{Stand, errno, fingerprint, names, rerrno, run};

fn tree(lower: &std::path::Path) {
    fs::create_dir_all(lower.join("dir/sub")).unwrap();
    fs::write(lower.join("dir/a"), "a").unwrap();
    fs::write(lower.join("dir/sub/b"), "b").unwrap();
    fs::create_dir(lower.join("empty")).unwrap();
    fs::write(lower.join("f"), "f").unwrap();
    fs::write(lower.join("g"), "g").unwrap();
}

#[test]
fn line_01_a_directory_of_whiteouts_is_empty() {
    let mut stand = Stand::new(tree);
    fs::remove_file(stand.at("dir/a")).unwrap();
    assert_eq!(errno(fs::remove_dir(stand.at("dir"))), libc::ENOTEMPTY);
    fs::remove_file(stand.at("dir/sub/b")).unwrap();
    fs::remove_dir(stand.at("dir/sub")).unwrap();
    fs::remove_dir(stand.at("dir")).unwrap();
    let whiteout = fs::symlink_metadata(stand.path("upper/dir")).unwrap();
    assert_eq!((whiteout.rdev(), whiteout.mode() & libc::S_IFMT), (0, libc::S_IFCHR));
    stand.assert_work_is_clean();
    stand.remount();
    assert!(!stand.at("dir").exists());
}

/// fuse-overlayfs 2.0 lets the lower content show again after a remount.
#[test]
fn line_03_what_was_deleted_does_not_come_back_with_a_new_directory() {
    let mut stand = Stand::new(tree);
    run("rm", &[&"-r", &stand.at("dir")]);
    fs::create_dir(stand.at("dir")).unwrap();
    assert!(names(&stand.at("dir")).is_empty());
    stand.remount();
    assert!(names(&stand.at("dir")).is_empty());
    fs::create_dir(stand.at("dir/sub")).unwrap();
    stand.remount();
    assert!(names(&stand.at("dir/sub")).is_empty());
}

/// fuse-overlayfs 2.0: EEXIST.
#[test]
fn line_11_noreplace_onto_a_deleted_name() {
    let stand = Stand::new(tree);
    fs::remove_file(stand.at("g")).unwrap();
    let (from, to) = (stand.at("f"), stand.at("g"));
    renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE).unwrap();
    assert_eq!(fs::read_to_string(&to).unwrap(), "f");
    fs::write(&from, "again").unwrap();
    let second = renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE);
    assert_eq!(rerrno(second), libc::EEXIST);
}

/// fuse-overlayfs 2.0: ENOENT.
#[test]
fn line_12_exchange_of_lower_objects() {
    let mut stand = Stand::new(tree);
    let exchange = |a: &str, b: &str| {
        renameat_with(CWD, stand.at(a), CWD, stand.at(b), RenameFlags::EXCHANGE).unwrap();
    };
    exchange("f", "g");
    exchange("dir", "empty");
    exchange("f", "dir");
    for _ in 0..2 {
        assert_eq!(fs::read_to_string(stand.at("g")).unwrap(), "f");
        assert_eq!(fs::read_to_string(stand.at("dir")).unwrap(), "g");
        assert_eq!(names(&stand.at("empty")), ["a", "sub"]);
        assert!(names(&stand.at("f")).is_empty());
        stand.remount();
    }
}

/// What an overlay on the mount leaves at a name that it moves. Kernel overlayfs: EINVAL.
#[test]
fn line_13_a_rename_leaves_a_device_if_it_is_asked_to() {
    let mut stand = Stand::new(tree);
    let before = fingerprint(&stand.path("lower"));
    let leave = |a: &str, b: &str, more| {
        let flags = RenameFlags::WHITEOUT | more;
        renameat_with(CWD, stand.at(a), CWD, stand.at(b), flags)
    };
    let none = RenameFlags::empty();
    assert_eq!(rerrno(leave("f", "g", RenameFlags::NOREPLACE)), libc::EEXIST);
    assert_eq!(rerrno(leave("f", "g", RenameFlags::EXCHANGE)), libc::EINVAL);
    assert_eq!(rerrno(leave("f", "dir", none)), libc::EISDIR);
    fs::write(stand.at("own"), "own").unwrap();
    fs::remove_file(stand.at("dir/a")).unwrap();
    leave("f", "g", none).unwrap();
    leave("own", "dir/a", RenameFlags::NOREPLACE).unwrap();
    leave("dir", "moved", none).unwrap();
    for _ in 0..2 {
        assert_eq!(fs::read_to_string(stand.at("g")).unwrap(), "f");
        assert_eq!(fs::read_to_string(stand.at("moved/a")).unwrap(), "own");
        assert_eq!(fs::read_to_string(stand.at("moved/sub/b")).unwrap(), "b");
        for left in ["f", "own", "dir"] {
            let meta = fs::symlink_metadata(stand.at(left)).unwrap();
            assert!(meta.file_type().is_char_device(), "{left}");
            assert_eq!((meta.rdev(), meta.mode() & 0o7777), (0, 0), "{left}");
        }
        stand.assert_work_is_clean();
        stand.remount();
    }
    fs::remove_file(stand.at("f")).unwrap();
    assert!(!stand.at("f").exists());
    assert_eq!(before, fingerprint(&stand.path("lower")));
}

/// A container in a container: overlayfs asks its upper for `RENAME_WHITEOUT` when it is mounted.
#[test]
fn line_13_kernel_overlayfs_takes_a_mount_as_its_upper() {
    let mut stand = Stand::new(|lower| {
        tree(lower);
        for dir in ["inner/lower/d", "inner/upper", "inner/work", "inner/mnt"] {
            fs::create_dir_all(lower.join(dir)).unwrap();
        }
        fs::write(lower.join("inner/lower/d/a"), "a").unwrap();
        fs::write(lower.join("inner/lower/b"), "b").unwrap();
    });
    for round in 0..2 {
        let at = |name: &str| stand.at(&format!("inner/{name}"));
        let (lower, upper, work) = (at("lower"), at("upper"), at("work"));
        let (lower, upper, work) = (lower.display(), upper.display(), work.display());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        run("mount", &[&"-t", &"overlay", &"inner", &"-o", &options, &at("mnt")]);
        if round == 0 {
            fs::remove_file(at("mnt/d/a")).unwrap();
            fs::remove_dir(at("mnt/d")).unwrap();
            fs::rename(at("mnt/b"), at("mnt/c")).unwrap();
        }
        assert_eq!(names(&at("mnt")), ["c"]);
        assert_eq!(fs::read_to_string(at("mnt/c")).unwrap(), "b");
        run("umount", &[&at("mnt")]);
        assert_eq!(names(&at("upper")), ["b", "c", "d"]);
        stand.remount();
    }
}

#[test]
fn line_14_a_lower_directory_moves_with_all_it_holds() {
    let mut stand = Stand::new(tree);
    let before = fingerprint(&stand.path("lower"));
    fs::rename(stand.at("dir"), stand.at("empty/moved")).unwrap();
    fs::write(stand.at("empty/moved/new"), "new").unwrap();
    fs::rename(stand.at("empty/moved/sub"), stand.at("sub2")).unwrap();
    fs::create_dir(stand.at("dir")).unwrap();
    for _ in 0..2 {
        assert_eq!(names(&stand.at("empty/moved")), ["a", "new"]);
        assert_eq!(fs::read_to_string(stand.at("sub2/b")).unwrap(), "b");
        assert!(names(&stand.at("dir")).is_empty());
        stand.remount();
    }
    assert_eq!(before, fingerprint(&stand.path("lower")));
}

#[test]
fn line_15_over_a_directory_full_of_whiteouts() {
    let mut stand = Stand::new(tree);
    run("rm", &[&"-r", &stand.at("dir/sub"), &stand.at("dir/a")]);
    fs::write(stand.at("empty/x"), "x").unwrap();
    fs::rename(stand.at("empty"), stand.at("dir")).unwrap();
    for _ in 0..2 {
        assert_eq!(names(&stand.at("dir")), ["x"]);
        assert!(!stand.at("empty").exists());
        stand.remount();
    }
    stand.assert_work_is_clean();
}

#[test]
fn line_16_into_itself_onto_itself_and_under_an_open_directory() {
    let stand = Stand::new(tree);
    assert_eq!(errno(fs::rename(stand.at("dir"), stand.at("dir/sub/x"))), libc::EINVAL);
    fs::hard_link(stand.at("f"), stand.at("f2")).unwrap();
    fs::rename(stand.at("f"), stand.at("f2")).unwrap();
    assert!(stand.at("f").exists() && stand.at("f2").exists());
    let open = fs::File::open(stand.at("dir")).unwrap();
    fs::rename(stand.at("dir"), stand.at("elsewhere")).unwrap();
    let flags = rustix::fs::OFlags::RDONLY;
    let inside = rustix::fs::openat(&open, "sub/b", flags, rustix::fs::Mode::empty()).unwrap();
    let mut byte = [0];
    assert_eq!(rustix::io::read(&inside, &mut byte).unwrap(), 1);
    assert_eq!(&byte, b"b");
}

#[test]
fn line_18_whiteouts_of_every_form_are_read() {
    let mut stand = Stand::unmounted(&["top", "bottom"]);
    let (top, bottom) = (stand.path("top"), stand.path("bottom"));
    for name in ["kernel", "dotwh", "xattr/x", "opq/o", "trusted/t", "user/u", "fo/f"] {
        let path = bottom.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "hidden").unwrap();
    }
    for dir in ["xattr", "opq", "trusted", "user", "fo"] {
        fs::create_dir(top.join(dir)).unwrap();
    }
    run("mknod", &[&top.join("kernel"), &"c", &"0", &"0"]);
    fs::write(top.join(".wh.dotwh"), "").unwrap();
    let set = |name: &str, value: &str, at: &str| {
        run("setfattr", &[&"-n", &name, &"-v", &value, &top.join(at)]);
    };
    fs::write(top.join("xattr/x"), "").unwrap();
    set("trusted.overlay.opaque", "x", "xattr");
    set("trusted.overlay.whiteout", "y", "xattr/x");
    fs::write(top.join("opq/.wh..wh..opq"), "").unwrap();
    set("trusted.overlay.opaque", "y", "trusted");
    set("user.overlay.opaque", "y", "user");
    set("user.fuseoverlayfs.opaque", "y", "fo");
    stand.mount();
    assert_eq!(names(&stand.path("mnt")), ["fo", "opq", "trusted", "user", "xattr"]);
    for dir in ["xattr", "opq", "trusted", "user", "fo"] {
        assert!(names(&stand.at(dir)).is_empty(), "{dir}: {:?}", names(&stand.at(dir)));
    }
    assert!(!stand.at("kernel").exists() && !stand.at("dotwh").exists());
}

/// fuse-overlayfs 1.10 puts an entry into each new directory of the upper that says that it hides
/// what is below. The directory is as empty as any other.
#[test]
fn a_directory_that_holds_only_marks_of_other_tools_is_empty() {
    let mut stand = Stand::unmounted(&["lower"]);
    let (lower, upper) = (stand.path("lower"), stand.path("upper"));
    for dir in ["merged", "over", "above"] {
        fs::create_dir(lower.join(dir)).unwrap();
        fs::write(lower.join(dir).join("hidden"), "hidden").unwrap();
    }
    for dir in ["alone", "merged", "target", "over"] {
        fs::create_dir(upper.join(dir)).unwrap();
        fs::write(upper.join(dir).join(".wh..wh..opq"), "").unwrap();
        run("mknod", &[&upper.join(dir).join(".wh..opq"), &"c", &"0", &"0"]);
    }
    fs::create_dir_all(upper.join("kept/inner")).unwrap();
    fs::write(upper.join("kept/inner/.wh..wh..opq"), "").unwrap();
    fs::write(upper.join("kept/inner/file"), "").unwrap();
    stand.mount();
    let remove = |name: &str| fs::remove_dir(stand.at(name));
    assert_eq!(errno(remove("kept/inner")), libc::ENOTEMPTY);
    fs::remove_file(stand.at("kept/inner/file")).unwrap();
    remove("kept/inner").unwrap();
    remove("alone").unwrap();
    remove("merged").unwrap();
    for (from, to) in [("new", "target"), ("above", "over")] {
        fs::create_dir_all(stand.at(from)).unwrap();
        fs::write(stand.at(from).join("moved"), "").unwrap();
        fs::rename(stand.at(from), stand.at(to)).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(names(&stand.path("mnt")), ["kept", "over", "target"]);
        assert_eq!(names(&stand.at("target")), ["moved"]);
        assert_eq!(names(&stand.at("over")), ["hidden", "moved"], "what came with 'above'");
        assert!(names(&stand.at("kept")).is_empty());
        stand.remount();
    }
    stand.umount();
    stand.assert_work_is_clean();
}

/// Containers run overlayfs and unpack images, too: what marks a layer must be theirs to use.
#[test]
fn line_20_what_looks_like_a_mark_is_stored_as_any_other_thing() {
    let mut stand = Stand::new(tree);
    fs::write(stand.at(".wh.f"), "a file").unwrap();
    run("mknod", &[&stand.at("null"), &"c", &"0", &"0"]);
    let set = |name: &str, at: &str| {
        run("setfattr", &[&"-n", &name, &"-v", &"y", &stand.at(at)]);
    };
    set("trusted.overlay.opaque", "dir");
    set("trusted.overlay.overlay.nested", "dir");
    set("user.fuseoverlayfs.opaque", "dir");
    let long = "n".repeat(255);
    fs::write(stand.at(&long), "all 255 bytes").unwrap();
    for _ in 0..2 {
        assert_eq!(fs::read_to_string(stand.at("f")).unwrap(), "f", ".wh.f hides nothing");
        assert_eq!(fs::read_to_string(stand.at(".wh.f")).unwrap(), "a file");
        let null = fs::symlink_metadata(stand.at("null")).unwrap();
        assert_eq!((null.mode() & libc::S_IFMT, null.rdev()), (libc::S_IFCHR, 0));
        assert_eq!(names(&stand.at("dir")), ["a", "sub"], "the user's mark hides nothing");
        let xattrs = run("getfattr", &[&"-m", &"-", &"-d", &stand.at("dir")]);
        for name in ["trusted.overlay.opaque", "trusted.overlay.overlay.nested"] {
            assert!(xattrs.contains(&format!("{name}=\"y\"")), "{xattrs}");
        }
        assert!(xattrs.contains("user.fuseoverlayfs.opaque=\"y\""), "{xattrs}");
        assert_eq!(xattrs.matches("=\"").count(), 3, "nothing else shows: {xattrs}");
        assert_eq!(names(&stand.path("mnt")), [".wh.f", "dir", "empty", "f", "g", &long, "null"]);
        stand.remount();
    }
}

/// podman in a container writes such files: `podman system reset` could not remove its store.
#[test]
fn line_20_a_users_own_opaque_entry_is_a_file_like_any_other() {
    let mut stand = Stand::new(tree);
    fs::create_dir(stand.at("new")).unwrap();
    for dir in ["dir", "new"] {
        fs::write(stand.at(dir).join(".wh..wh..opq"), "kept").unwrap();
    }
    for _ in 0..2 {
        assert_eq!(names(&stand.at("dir")), [".wh..wh..opq", "a", "sub"]);
        assert_eq!(names(&stand.at("new")), [".wh..wh..opq"]);
        stand.remount();
    }
    // A directory that gets things from elsewhere loses marks that hide, and nothing else.
    fs::rename(stand.at("f"), stand.at("new/f")).unwrap();
    fs::rename(stand.at("empty"), stand.at("new/empty")).unwrap();
    fs::rename(stand.at("new"), stand.at("newer")).unwrap();
    assert_eq!(fs::read_to_string(stand.at("newer/.wh..wh..opq")).unwrap(), "kept");
    fs::remove_dir_all(stand.at("newer")).unwrap();
    fs::remove_dir_all(stand.at("dir")).unwrap();
    fs::create_dir(stand.at("dir")).unwrap();
    stand.remount();
    assert_eq!(names(&stand.path("mnt")), ["dir", "g"]);
    assert_eq!(names(&stand.at("dir")), Vec::<String>::new());
}

#[test]
fn line_47_deleting_while_listing_skips_and_repeats_nothing() {
    let stand = Stand::new(|lower| {
        for number in 0..3000 {
            fs::write(lower.join(format!("low-{number}")), "").unwrap();
        }
    });
    for number in 0..3000 {
        fs::write(stand.at(&format!("up-{number}")), "").unwrap();
    }
    let mut seen = std::collections::HashSet::new();
    for entry in fs::read_dir(stand.path("mnt")).unwrap() {
        let name = entry.unwrap().file_name();
        fs::remove_file(stand.path("mnt").join(&name)).unwrap();
        assert!(seen.insert(name.clone()), "{name:?} came twice");
    }
    assert_eq!(seen.len(), 6000);
    fs::write(stand.at("again"), "").unwrap();
    assert_eq!(names(&stand.path("mnt")), ["again"], "a new listing is fresh");
}

#[test]
fn line_48_names_and_paths_at_their_limits() {
    let stand = Stand::new(tree);
    let too_long = stand.at(&"n".repeat(256));
    assert_eq!(errno(fs::metadata(&too_long)), libc::ENAMETOOLONG);
    assert_eq!(errno(fs::write(&too_long, "")), libc::ENAMETOOLONG);
    // 30 levels of 250 bytes: far over PATH_MAX, reached by descriptors.
    let part = "d".repeat(250);
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let none = rustix::fs::Mode::empty();
    let mut at = rustix::fs::open(stand.path("mnt"), flags, none).unwrap();
    for _ in 0..30 {
        rustix::fs::mkdirat(&at, &*part, rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, &*part, flags, none).unwrap();
    }
    let create = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let file = rustix::fs::openat(&at, "deep", create, rustix::fs::Mode::RWXU).unwrap();
    rustix::io::write(&file, b"down here").unwrap();
    rustix::fs::renameat(&at, "deep", &at, "deeper").unwrap();
    assert_eq!(rustix::fs::statat(&at, "deeper", AtFlags::empty()).unwrap().st_size, 9);
    run("rm", &[&"-r", &stand.at(&part)]);
}

#[test]
fn line_48_listings_carry_types_and_inode_numbers() {
    let stand = Stand::new(tree);
    fs::write(stand.at("dir/a"), "copied up").unwrap();
    fs::write(stand.at("dir/new"), "").unwrap();
    for dir in ["", "dir"] {
        let open = fs::File::open(stand.at(dir)).unwrap();
        let mut buf = vec![std::mem::MaybeUninit::uninit(); 8192];
        let mut entries = rustix::fs::RawDir::new(&open, &mut buf);
        while let Some(entry) = entries.next() {
            let entry = entry.unwrap();
            let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
            if name == ".." && dir.is_empty() {
                continue;
            }
            let meta = fs::symlink_metadata(stand.at(dir).join(name)).unwrap();
            assert_eq!(entry.ino(), meta.ino(), "{dir}/{}", name.display());
            assert_eq!(entry.file_type().is_dir(), meta.is_dir());
        }
    }
}
