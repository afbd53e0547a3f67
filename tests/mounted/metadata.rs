//! Modes, owners, times, ACLs, capabilities, extended attributes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use super::stand::{Stand, as_user, assert_ok, run};

fn mode(path: &std::path::Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn chmod(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// fuse-overlayfs 2.0 makes 0755 of 0700.
#[test]
fn line_38_a_copied_up_directory_is_as_it_was() {
    let mut stand = Stand::new(|lower| {
        fs::create_dir_all(lower.join("p/q/r")).unwrap();
        fs::write(lower.join("p/q/r/f"), "f").unwrap();
        lchown(lower.join("p"), Some(12), Some(34)).unwrap();
        run("setfacl", &[&"-m", &"u:77:rwx,d:u:78:r-x", &lower.join("p/q")]);
        run("setfattr", &[&"-n", &"user.note", &"-v", &"kept", &lower.join("p/q")]);
        chmod(&lower.join("p"), 0o1700);
        chmod(&lower.join("p/q/r"), 0o2711);
        for dir in ["p/q/r", "p/q", "p"] {
            run("touch", &[&"--date=2001-02-03 04:05:06.789012345", &lower.join(dir)]);
        }
    });
    let facts = |stand: &Stand| {
        ["p", "p/q", "p/q/r"].map(|dir| {
            let meta = stand.at(dir).metadata().unwrap();
            let times = (meta.mtime(), meta.mtime_nsec());
            let acl = run("getfacl", &[&"--omit-header", &"--absolute-names", &stand.at(dir)]);
            let xattrs = run("getfattr", &[&"-d", &"--absolute-names", &stand.at(dir)]);
            (meta.mode(), meta.uid(), meta.gid(), times, acl, xattrs)
        })
    };
    let before = facts(&stand);
    chmod(&stand.at("p/q/r/f"), 0o600);
    assert!(stand.path("upper/p/q/r/f").exists());
    assert_eq!(before, facts(&stand), "after the copy-up, mtimes included");
    stand.remount();
    assert_eq!(before, facts(&stand));
}

/// fuse-overlayfs 2.0 applies its own umask, too.
#[test]
fn line_39_the_umask_applies_once_and_not_under_a_default_acl() {
    let stand = Stand::new(|_| {});
    let make = format!(
        "cd {}; umask 027; mkdir d; : > f; umask 0; mkdir e; : > g; mknod n p; \
         umask 077; mkdir acl",
        stand.path("mnt").display()
    );
    run("sh", &[&"-c", &make]);
    let modes = ["d", "f", "e", "g", "n"].map(|name| mode(&stand.at(name)));
    assert_eq!(modes, [0o750, 0o640, 0o777, 0o666, 0o666]);
    run("setfacl", &[&"-m", &"d:u::rwx,d:u:77:rwx,d:g::r-x,d:o::r-x", &stand.at("acl")]);
    let make = format!("cd {}; umask 077; mkdir d; : > f", stand.at("acl").display());
    run("sh", &[&"-c", &make]);
    assert_eq!((mode(&stand.at("acl/d")), mode(&stand.at("acl/f"))), (0o775, 0o664));
    let acl = run("getfacl", &[&"--omit-header", &"--absolute-names", &stand.at("acl/d")]);
    assert!(acl.contains("user:77:rwx") && acl.contains("default:user:77:rwx"), "{acl}");
}

#[test]
fn line_39_acls_decide_about_access() {
    let stand = Stand::new(|lower| {
        fs::write(lower.join("secret"), "s").unwrap();
        chmod(&lower.join("secret"), 0o600);
    });
    chmod(&stand.path("mnt"), 0o755);
    assert!(!as_user("cat", &[&stand.at("secret")]).status.success());
    run("setfacl", &[&"-m", &"u:1000:r", &stand.at("secret")]);
    assert_ok(&as_user("cat", &[&stand.at("secret")]));
    chmod(&stand.at("secret"), 0o600);
    assert!(!as_user("cat", &[&stand.at("secret")]).status.success(), "chmod closes the mask");
}

/// fuse-overlayfs 1.x and 2.0 fail here.
#[test]
fn line_40_a_setgid_directory_hands_its_group_down() {
    let stand = Stand::new(|lower| {
        fs::create_dir(lower.join("team")).unwrap();
        lchown(lower.join("team"), None, Some(500)).unwrap();
        chmod(&lower.join("team"), 0o2777);
    });
    let dir = stand.at("team");
    assert_ok(&as_user("touch", &[&dir.join("file")]));
    assert_ok(&as_user("mkdir", &[&dir.join("sub")]));
    assert_ok(&as_user("ln", &[&"-s", &"x", &dir.join("link")]));
    for name in ["file", "sub", "link"] {
        let meta = fs::symlink_metadata(dir.join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1000, 500), "{name}");
    }
    assert_eq!(mode(&dir.join("sub")) & 0o2000, 0o2000);
    assert_eq!(mode(&dir.join("file")) & 0o2000, 0);
}

#[test]
fn line_40_sticky_deletion_rules_hold() {
    let stand = Stand::new(|lower| {
        fs::create_dir(lower.join("tmp")).unwrap();
        fs::write(lower.join("tmp/roots"), "").unwrap();
        chmod(&lower.join("tmp"), 0o1777);
    });
    assert_ok(&as_user("touch", &[&stand.at("tmp/own")]));
    assert!(!as_user("rm", &[&"-f", &stand.at("tmp/roots")]).status.success());
    assert_ok(&as_user("rm", &[&stand.at("tmp/own")]));
}

#[test]
fn line_41_capabilities_survive_chmod_and_go_with_a_write() {
    let stand = Stand::new(|lower| {
        for name in ["kept", "written", "chowned", "cut"] {
            fs::write(lower.join(name), "#!").unwrap();
            run("setcap", &[&"cap_net_raw+ep", &lower.join(name)]);
        }
    });
    let capable = |name: &str| run("getcap", &[&stand.at(name)]).contains("cap_net_raw");
    chmod(&stand.at("kept"), 0o700);
    assert!(capable("kept"), "a copy-up for chmod keeps them");
    fs::write(stand.at("written"), "other").unwrap();
    assert!(!capable("written"));
    lchown(stand.at("chowned"), Some(1), None).unwrap();
    assert!(!capable("chowned"));
    run("truncate", &[&"--size=1", &stand.at("cut")]);
    assert!(!capable("cut"));
}

#[test]
fn line_41_an_unprivileged_write_clears_set_id() {
    let stand = Stand::new(|lower| {
        for name in ["written", "cut", "emptied", "roots"] {
            fs::write(lower.join(name), "content").unwrap();
            chmod(&lower.join(name), 0o6777);
        }
    });
    let script = |script: &str| {
        let shell = format!("cd {}; {script}", stand.path("mnt").display());
        assert_ok(&as_user("sh", &[&"-c", &shell]));
    };
    script("printf x >> written");
    script("truncate --size=1 cut");
    script(": > emptied");
    for name in ["written", "cut", "emptied"] {
        assert_eq!(mode(&stand.at(name)), 0o777, "{name}");
    }
    run("sh", &[&"-c", &format!("printf x >> {}", stand.at("roots").display())]);
    assert_eq!(mode(&stand.at("roots")), 0o6777, "the superuser's write keeps them");
    lchown(stand.at("roots"), Some(5), None).unwrap();
    assert_eq!(mode(&stand.at("roots")), 0o777, "a change of owner does not");
}

/// Found by the differential: before the write the kernel asks for "clear what has to go", which
/// came to mean the set-id bits, too.
#[test]
fn line_41_the_superusers_write_takes_capabilities_and_leaves_set_id() {
    let stand = Stand::new(|_| {});
    let path = stand.at("f");
    fs::write(&path, "content").unwrap();
    chmod(&path, 0o2755);
    run("setcap", &[&"cap_net_raw+ep", &path]);
    fs::write(&path, "other").unwrap();
    assert_eq!(mode(&path), 0o2755);
    assert!(!run("getcap", &[&path]).contains("cap_net_raw"));
}

/// fuse-overlayfs 2.0 panics, and the mount is gone.
#[test]
fn line_42_times_are_exact_before_1970_and_after_2106() {
    let mut stand = Stand::new(|lower| {
        fs::write(lower.join("f"), "").unwrap();
        fs::create_dir(lower.join("d")).unwrap();
    });
    // What ext4 with 256-byte inodes keeps: 1901 to 2446.
    let times = [(-2, 800_000_000), (-2_000_000_000, 1), (8_000_000_000, 999_999_999), (0, 0)];
    for (sec, nsec) in times {
        for name in ["f", "d"] {
            let time = Timespec { tv_sec: sec, tv_nsec: nsec };
            let both = Timestamps { last_access: time, last_modification: time };
            utimensat(CWD, stand.at(name), &both, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            for _ in 0..2 {
                let meta = stand.at(name).metadata().unwrap();
                assert_eq!((meta.mtime(), meta.mtime_nsec()), (sec, nsec), "{name}");
                stand.remount();
            }
        }
    }
}

#[test]
fn line_44_extended_attributes_of_any_bytes() {
    let stand = Stand::new(|lower| {
        fs::write(lower.join("f"), "").unwrap();
        run("setfattr", &[&"-n", &"user.low", &"-v", &"0x000aff", &lower.join("f")]);
    });
    let path = stand.at("f");
    let flags = rustix::fs::XattrFlags::empty();
    let get = |name: &str| {
        let mut buf = vec![0; 70_000];
        rustix::fs::lgetxattr(&path, name, &mut buf).map(|n| buf[..n].to_vec())
    };
    assert_eq!(get("user.low").unwrap(), [0, 0x0a, 0xff]);
    assert_eq!(
        rustix::fs::lremovexattr(&path, "user.none").unwrap_err().raw_os_error(),
        libc::ENODATA
    );
    assert!(!stand.path("upper/f").exists(), "asking in vain copies nothing up");
    let create = rustix::fs::XattrFlags::CREATE;
    let exists = rustix::fs::lsetxattr(&path, "user.low", b"", create).unwrap_err();
    assert_eq!(exists, rustix::io::Errno::EXIST);
    let replace = rustix::fs::XattrFlags::REPLACE;
    let missing = rustix::fs::lsetxattr(&path, "user.new", b"", replace).unwrap_err();
    assert_eq!(missing, rustix::io::Errno::NODATA);
    rustix::fs::lsetxattr(&path, "user.new", b"\0=\n\xff", flags).unwrap();
    assert_eq!(get("user.new").unwrap(), b"\0=\n\xff");
    assert_eq!(get("user.low").unwrap(), [0, 0x0a, 0xff], "came along");
    let mut small = [0; 2];
    let range = rustix::fs::lgetxattr(&path, "user.new", &mut small).unwrap_err();
    assert_eq!(range, rustix::io::Errno::RANGE);
    let names = run("getfattr", &[&"-m", &"-", &"--absolute-names", &path]);
    assert!(!names.contains("overlay"), "ours are hidden: {names}");
    rustix::fs::lremovexattr(&path, "user.low").unwrap();
    assert!(get("user.low").is_err());
}

#[test]
fn line_45_symlinks_are_changed_themselves() {
    let mut stand = Stand::new(|lower| symlink("/etc/passwd", lower.join("l")).unwrap());
    let before = fs::metadata("/etc/passwd").unwrap();
    lchown(stand.at("l"), Some(7), Some(8)).unwrap();
    let time = Timespec { tv_sec: 1000, tv_nsec: 1 };
    let both = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, stand.at("l"), &both, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    for _ in 0..2 {
        let meta = fs::symlink_metadata(stand.at("l")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec()), (7, 8, 1000, 1));
        assert_eq!(fs::read_link(stand.at("l")).unwrap().to_str(), Some("/etc/passwd"));
        stand.remount();
    }
    let after = fs::metadata("/etc/passwd").unwrap();
    assert_eq!((before.uid(), before.mtime()), (after.uid(), after.mtime()));
}

#[test]
fn line_46_statfs_shows_the_upper_and_whole_names() {
    let stand = Stand::new(|_| {});
    let mount = rustix::fs::statvfs(stand.path("mnt")).unwrap();
    let upper = rustix::fs::statvfs(stand.path("upper")).unwrap();
    assert_eq!(mount.f_namemax, 255);
    assert_eq!(mount.f_blocks * mount.f_frsize, upper.f_blocks * upper.f_frsize);
}
