//! Line 54: whose files a mount shows, where that is not whom they belong to.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown};
use std::path::Path;

use super::alike::{alike, fill};
use super::stand::{Stand, as_user, assert_ok, errno, plyfs, run};

const MAP: &str = "uidmapping=0:100000:65536,gidmapping=0:100000:65536";

/// A stand whose lower layer holds files of several owners, mounted with more options.
fn mounted(options: &str) -> Stand {
    let mut stand = Stand::unmounted(&["lower"]);
    let lower = stand.path("lower");
    for (name, owner) in [("root", 0), ("web", 33), ("nobody", 70_000)] {
        fs::write(lower.join(name), name).unwrap();
        chown(lower.join(name), Some(owner), Some(owner)).unwrap();
    }
    fs::create_dir(lower.join("dir")).unwrap();
    run("chmod", &[&"1777", &lower.join("dir")]);
    stand.mount_with(plyfs::<&str>(&[]), &["-o", options]);
    stand
}

fn owner(path: &Path) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid())
}

#[test]
fn line_54_ids_are_mapped_and_none_without_a_counterpart_is_written() {
    const EOVERFLOW: i32 = 75;
    let mut stand = mounted(MAP);
    let at = |name: &str| stand.at(name);
    let below = |name: &str| stand.path("upper").join(name);
    assert_eq!(owner(&at("root")), (100_000, 100_000));
    assert_eq!(owner(&at("web")), (100_033, 100_033));
    assert_eq!(owner(&at("nobody")), (65534, 65534), "no counterpart");
    // We are 0, whom the map does not know: what we make is for the container's root.
    fs::write(at("new"), "").unwrap();
    assert_eq!((owner(&at("new")), owner(&below("new"))), ((100_000, 100_000), (0, 0)));
    for make in ["touch", "mkdir", "mkfifo", "ln -s x"] {
        let refused = as_user("sh", &[&"-c", &format!("{make} \"$0\""), &at("dir/other")]);
        assert!(!refused.status.success() && !below("dir/other").exists(), "{refused:?}");
    }
    for id in [0, 5, 65534, 165_536] {
        assert_eq!(errno(chown(at("web"), Some(id), None)), EOVERFLOW, "{id}");
        assert_eq!(errno(chown(at("web"), None, Some(id))), EOVERFLOW, "{id}");
    }
    assert!(!below("web").exists(), "what is refused copies nothing up");
    chown(at("web"), Some(100_001), Some(100_002)).unwrap();
    assert_eq!((owner(&at("web")), owner(&below("web"))), ((100_001, 100_002), (1, 2)));
    // What has no counterpart is copied up as it is.
    fs::write(at("nobody"), "changed").unwrap();
    assert_eq!((owner(&at("nobody")), owner(&below("nobody"))), ((65534, 65534), (70_000, 70_000)));
    stand.remount();
    assert_eq!(owner(&stand.at("web")), (1, 2), "the layers hold the container's own ids");
    stand.umount();
}

#[test]
fn line_54_ids_in_acls_are_mapped_too() {
    let mut stand = mounted(MAP);
    let below = stand.path("upper/dir");
    run("setfacl", &[&"-m", &"u:100007:rwx,d:u:100007:rwx,d:g:100008:r-x", &stand.at("dir")]);
    let shown = run("getfacl", &[&"-n", &"-c", &"-p", &stand.at("dir")]);
    assert!(shown.contains("user:100007:rwx") && shown.contains("default:group:100008:r-x"));
    let stored = run("getfacl", &[&"-n", &"-c", &"-p", &below]);
    assert!(stored.contains("user:7:rwx") && stored.contains("default:group:8:r-x"), "{stored}");
    let refused = std::process::Command::new("setfacl")
        .args(["-m", "u:7:rwx"])
        .arg(stand.at("root"))
        .output()
        .unwrap();
    assert!(!refused.status.success());
    assert!(!stand.path("upper/root").exists());
    stand.umount();
}

/// Runs a script as root of a user namespace whose 0 is our 100000.
fn in_container(stand: &Stand, script: &str) -> String {
    fs::write(stand.path("script"), script).unwrap();
    let outside = "mkfifo go
        unshare --user --keep-caps sh -c 'read _ < go
            exec setpriv --reuid=0 --regid=0 --clear-groups bash -e ./script' &
        inside=$!
        while [ \"$(readlink /proc/$inside/ns/user)\" = \"$(readlink /proc/self/ns/user)\" ]; do
            sleep 0.01; done
        echo '0 100000 65536' > /proc/$inside/uid_map
        echo '0 100000 65536' > /proc/$inside/gid_map
        echo > go; wait $inside";
    let output = std::process::Command::new("timeout")
        .args(["60", "bash", "-e", "-c", outside])
        .current_dir(stand.path(""))
        .output()
        .unwrap();
    assert_ok(&output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn line_54_a_container_under_a_shifted_map_needs_no_chown() {
    let mut stand = Stand::unmounted(&["lower"]);
    let lower = stand.path("lower");
    run("cp", &[&"/bin/cat", &lower.join("cat")]);
    run("cp", &[&"/bin/cat", &lower.join("capable")]);
    run("setcap", &[&"cap_dac_read_search=ep", &lower.join("capable")]);
    fs::write(lower.join("secret"), "told\n").unwrap();
    run("chmod", &[&"600", &lower.join("secret")]);
    stand.mount_with(plyfs::<&str>(&[]), &["-o", MAP]);
    let seen = in_container(
        &stand,
        "cd mnt; stat -c %u:%g . secret; cat secret
        user() { setpriv --reuid=5 --regid=5 --clear-groups \"$@\"; }
        user ./cat secret 2>&1 | grep -o 'Permission denied'
        user ./capable secret
        cp cat given; setcap cap_dac_read_search=ep given; user ./given secret
        mkdir new; chown 33:34 new; chmod 2775 new; touch new/file; stat -c '%u:%g %a' new new/file
        setfacl -m u:7:r new/file; getfacl -cnp new/file | grep user:7",
    );
    let expected = "0:0\n0:0\ntold\nPermission denied\ntold\ntold\n33:34 2775\n0:34 644\n\
                    user:7:r--\n";
    assert_eq!(seen, expected);
    assert!(!stand.path("upper/secret").exists(), "nothing was copied up for its owner");
    assert_eq!(owner(&stand.path("upper/new")), (33, 34));
    // What the container gave is what an image would hold.
    let shown = run("getcap", &[&"-n", &stand.path("upper/given")]);
    assert!(shown.trim_end().ends_with("cap_dac_read_search=ep"), "no root id: {shown}");
    stand.umount();
}

/// Kernel overlayfs cannot be mounted so: it is no filesystem with `FS_ALLOW_IDMAP`.
#[test]
fn line_54_the_mount_can_be_id_mapped() {
    let setup = "chmod 1777 .; mkdir team; chgrp 44 team; chmod 2777 team
        for f in root web far; do echo $f > $f; chmod 600 $f; done
        chown 33:33 web; chown 70000:70000 far";
    let seen = alike(setup, include_str!("programs/idmapped.py"));
    assert!(seen.contains("root is: (100000, 100000, '0o100600')"), "{seen}");
    assert!(seen.contains("by nobody: EOVERFLOW"), "{seen}");
    assert!(seen.contains("read by its owner: b'web"), "{seen}");
}

#[test]
fn line_54_everything_is_one_users() {
    for (options, shown) in [
        ("squash_to_root", (0, 0)),
        ("squash_to_uid=5", (5, 33)),
        ("squash_to_gid=6,squash_to_root", (0, 6)),
        ("squash_to_uid=5,squash_to_gid=6", (5, 6)),
    ] {
        let mut stand = mounted(options);
        assert_eq!(owner(&stand.at("web")), shown, "{options}");
        assert_ok(&as_user("sh", &[&"-c", &"echo x > \"$0\"", &stand.at("dir/new")]));
        chown(stand.at("web"), Some(77), None).unwrap();
        assert_eq!(owner(&stand.at("web")).0, if shown.0 == 33 { 77 } else { shown.0 });
        // Root's server keeps what others cannot see: it is there without the option.
        stand.remount();
        assert_eq!(owner(&stand.at("dir/new")), (1000, 1000));
        assert_eq!(owner(&stand.at("web")), (77, 33));
        stand.umount();
    }
}

#[test]
fn line_54_owners_modes_and_types_in_an_attribute() {
    let mut stand = mounted("xattr_permissions=2");
    let at = |name: &str| stand.at(name);
    let below = |name: &str| stand.path("upper").join(name);
    let told = |name: &str| {
        let mut value = [0_u8; 100];
        let attribute = c"user.containers.override_stat";
        let len = rustix::fs::getxattr(below(name), attribute, &mut value).unwrap();
        String::from_utf8_lossy(&value[..len]).into_owned()
    };
    run("mknod", &[&at("disk"), &"b", &"8", &"0"]);
    run("mknod", &[&at("null"), &"c", &"1", &"3"]);
    run("mkfifo", &[&at("pipe")]);
    fs::write(at("tool"), "x").unwrap();
    chown(at("tool"), Some(7), Some(8)).unwrap();
    run("chmod", &[&"4511", &at("tool")]);
    assert_ok(&as_user("mkdir", &[&at("dir/mine")]));
    assert_eq!(told("disk"), "0:0:0644:block-8-0");
    assert_eq!(told("null"), "0:0:0644:char-1-3");
    assert_eq!(told("pipe"), "0:0:0644:pipe");
    assert_eq!(told("tool"), "7:8:4511:file");
    assert_eq!(told("dir/mine"), "1000:1000:0755:dir");
    assert_eq!(owner(&below("dir/mine")), (0, 0), "the server's");
    assert!(fs::metadata(below("disk")).unwrap().is_file());
    chown(at("web"), Some(77), None).unwrap();
    assert_eq!(told("web"), "77:33:0644:file");
    stand.umount();
    // Who is not told so takes the attribute for a user's.
    stand.mount();
    assert!(fs::metadata(stand.at("disk")).unwrap().is_file());
    stand.umount();
    stand.mount_with(plyfs::<&str>(&[]), &["-o", "xattr_permissions=2"]);
    let meta = fs::metadata(stand.at("disk")).unwrap();
    assert!(meta.file_type().is_block_device() && meta.rdev() == rustix::fs::makedev(8, 0));
    assert!(fs::metadata(stand.at("pipe")).unwrap().file_type().is_fifo());
    let meta = fs::metadata(stand.at("tool")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (7, 8, 0o4511));
    assert_eq!(owner(&stand.at("dir/mine")), (1000, 1000));
    let kinds: Vec<_> = fs::read_dir(stand.path("mnt")).unwrap().map(|e| e.unwrap()).collect();
    let disk = kinds.iter().find(|e| e.file_name() == "disk").unwrap();
    assert!(disk.file_type().unwrap().is_block_device(), "listings tell types");
    drop(kinds);
    assert_eq!(errno(fs::read(stand.at("disk")).map(drop)), 6, "no such device, but a device");
    stand.umount();
}

/// fuse-overlayfs hides what lies below by an entry where it can set no attribute.
#[test]
fn line_54_such_a_directory_that_is_opaque_by_an_entry_can_be_removed() {
    let mut stand = mounted("xattr_permissions=2");
    fs::create_dir(stand.at("dir/new")).unwrap();
    fs::create_dir(stand.at("other")).unwrap();
    stand.umount();
    fill(&stand.path("upper"), "touch dir/.wh..wh..opq dir/new/.wh..wh..opq other/.wh..wh..opq");
    stand.mount_with(plyfs::<&str>(&[]), &["-o", "xattr_permissions=2"]);
    fs::remove_dir(stand.at("dir/new")).unwrap();
    fs::rename(stand.at("dir"), stand.at("other")).unwrap();
    assert_eq!(fs::read_dir(stand.at("other")).unwrap().count(), 0);
    fs::remove_dir(stand.at("other")).unwrap();
    stand.umount();
}

/// Any user can set the attribute on a file of his own, where it means nothing.
#[test]
fn line_54_what_users_call_owners_becomes_none() {
    let mut stand = mounted("rw");
    let attribute = "user.containers.override_stat";
    for at in ["dir", "", "web"] {
        run("setfattr", &[&"-n", &attribute, &"-v", &"0:0:4755:file", &stand.at(at)]);
    }
    let before = owner(&stand.at("web"));
    stand.remount();
    assert_eq!(owner(&stand.at("web")), before);
    stand.umount();
    run("setfattr", &[&"-x", &attribute, &stand.path("upper")]);
    let options = format!("{},xattr_permissions=2", stand.options());
    let refused = plyfs(&["mount", "-o", &options]).arg(stand.path("mnt")).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("without xattr_permissions"), "{told}");
}
