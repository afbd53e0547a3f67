use super::*;

const TEXT: &[u8] = b"\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
30 22 0:26 / /mnt/a\\040b\\134\\012c rw,nosuid,nodev master:3 propagate_from:2 - \
fuse.plyfs plyfs rw,user_id=0\n\
31 22 0:27 /sub /mnt ro - tmpfs tmpfs ro\n\
32 31 0:28 / /mnt rw - tmpfs second rw\n\
broken line\n\
33 22 0:x / /y rw - tmpfs t rw\n";

#[test]
fn lines_are_parsed_with_escapes_and_optional_fields() {
    let mounts = parse(TEXT);
    assert_eq!(mounts.len(), 4);
    assert_eq!(mounts[1].point, Path::new("/mnt/a b\\\nc"));
    assert_eq!(mounts[1].fs_type, "fuse.plyfs");
    assert_eq!(mounts[1].super_options, "rw,user_id=0");
    assert_eq!(mounts[2].root, Path::new("/sub"));
    assert_eq!((mounts[0].id, mounts[0].parent, mounts[0].dev), (22, 1, (254, 0)));
}

#[test]
fn the_topmost_mount_of_a_path_is_found() {
    let mounts = parse(TEXT);
    assert_eq!(at(&mounts, Path::new("/mnt")).unwrap().id, 32);
    assert!(at(&mounts, Path::new("/mnt/x")).is_none());
    assert_eq!(containing(&mounts, Path::new("/mnt/x/y")).unwrap().id, 32);
    assert_eq!(containing(&mounts, Path::new("/mntx")).unwrap().id, 22);
}

#[test]
fn a_backslash_that_escapes_nothing_stays() {
    assert_eq!(unescape(b"a\\9zz\\04"), "a\\9zz\\04");
    assert_eq!(unescape(b"\\777"), "\\777");
}

#[test]
fn the_mounts_of_this_process_are_read() {
    assert!(at(&read().unwrap(), Path::new("/")).is_some());
}
