//! Lines as kernels write them.

use super::*;

#[test]
fn a_line_with_escapes_and_optional_fields() {
    let line = b"36 35 98:0 /mnt1 /mnt\\040two\\134x\\012y rw,noatime master:1 shared:2 - \
fuse.plyfs plyfs rw,user_id=0";
    let mount = parse(line).unwrap();
    assert_eq!(mount.point, Path::new("/mnt two\\x\ny"));
    assert_eq!(mount.fstype, b"fuse.plyfs");
    assert_eq!(mount.source, b"plyfs");
    assert_eq!(mount.options, b"rw,user_id=0");
}

#[test]
fn no_optional_fields_and_rubbish() {
    assert!(parse(b"1 1 0:1 / / rw - ext4 /dev/sda rw").is_some());
    assert_eq!(parse(b""), None);
    assert_eq!(parse(b"1 1 0:1 / / rw ext4 /dev/sda rw"), None);
}

#[test]
fn an_escape_that_is_none_stays() {
    assert_eq!(unescape(b"a\\9\\04\\777"), b"a\\9\\04\\777");
    assert_eq!(unescape(b"\\"), b"\\");
}

#[test]
fn this_system_has_a_root() {
    assert!(at(Path::new("/")).unwrap().is_some());
}
