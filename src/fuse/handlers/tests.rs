//! The rules of the protocol, on a union in memory.

use std::sync::Arc;

use super::*;
use crate::layer::mem::MemLayer;
use crate::union::{Options, Stack};

const CALLER: Caller = Caller { uid: 0, gid: 0 };

fn union() -> Union {
    let lowers: Vec<Arc<dyn crate::layer::Layer>> = vec![MemLayer::new(1)];
    Union::new(Stack { upper: Some(MemLayer::new(2)), lowers }, Options::default()).unwrap()
}

fn errno<T>(result: Result<T>) -> Errno {
    result.map(drop).unwrap_err().errno()
}

#[test]
fn names_are_checked() {
    let (u, long) = (union(), [b'x'; 256]);
    let root = u.root();
    assert_eq!(errno(lookup(&u, root, &long)), Errno::ENAMETOOLONG);
    assert_eq!(errno(mkdir(&u, root, &long, (0o755, 0), &CALLER)), Errno::ENAMETOOLONG);
    assert_eq!(errno(unlink(&u, root, b"..")), Errno::EINVAL);
    assert!(lookup(&u, root, &long[..255]).unwrap().is_none());
}

#[test]
fn mknod_makes_what_mknod_makes() {
    let u = union();
    let root = u.root();
    let make = |name: &[u8], mode| mknod(&u, root, name, (mode, 0o022), 0x103, &CALLER);
    let device = make(b"c", libc::S_IFCHR | 0o666).unwrap().attr;
    assert_eq!((device.kind, device.rdev, device.perm), (Kind::Char, 0x103, 0o644));
    let fifo = make(b"p", libc::S_IFIFO | 0o4600).unwrap().attr;
    assert_eq!((fifo.kind, fifo.rdev, fifo.perm), (Kind::Fifo, 0, 0o4600));
    assert_eq!(make(b"f", 0o600).unwrap().attr.kind, Kind::File);
    assert_eq!(errno(make(b"d", libc::S_IFDIR | 0o700)), Errno::EINVAL);
    assert_eq!(errno(make(b"x", 0o170_000)), Errno::EINVAL);
}

#[test]
fn rename_flags() {
    let u = union();
    let root = u.root();
    mkdir(&u, root, b"a", (0o755, 0), &CALLER).unwrap();
    mkdir(&u, root, b"b", (0o755, 0), &CALLER).unwrap();
    let to_b = |flags| rename(&u, (root, b"a"), (root, b"b"), flags, &CALLER);
    for flags in [
        libc::RENAME_WHITEOUT | libc::RENAME_EXCHANGE,
        libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE,
        1 << 31,
    ] {
        assert_eq!(errno(to_b(flags)), Errno::EINVAL, "{flags:#x}");
    }
    assert_eq!(errno(to_b(libc::RENAME_NOREPLACE)), Errno::EEXIST);
    assert_eq!(errno(to_b(libc::RENAME_NOREPLACE | libc::RENAME_WHITEOUT)), Errno::EEXIST);
    to_b(libc::RENAME_EXCHANGE).unwrap();
    to_b(libc::RENAME_WHITEOUT).unwrap();
    let left = lookup(&u, root, b"a").unwrap().unwrap().attr;
    assert_eq!((left.kind, left.rdev, left.perm), (Kind::Char, 0, 0));
}

#[test]
fn the_size_protocol_of_xattrs() {
    let u = union();
    let root = u.root();
    u.setxattr(root, b"user.a", b"12345", 0).unwrap();
    u.setxattr(root, b"user.b", b"", 0).unwrap();
    assert_eq!(getxattr(&u, root, b"user.a", 0).unwrap(), Answer::Length(5));
    assert_eq!(getxattr(&u, root, b"user.a", 5).unwrap(), Answer::Bytes(b"12345".to_vec()));
    assert_eq!(errno(getxattr(&u, root, b"user.a", 4)), Errno::ERANGE);
    assert_eq!(getxattr(&u, root, b"user.b", 9).unwrap(), Answer::Bytes(Vec::new()));
    assert_eq!(errno(getxattr(&u, root, b"user.c", 0)), Errno::ENODATA);
    assert_eq!(listxattr(&u, root, 0).unwrap(), Answer::Length(14));
    assert_eq!(errno(listxattr(&u, root, 13)), Errno::ERANGE);
    let Answer::Bytes(list) = listxattr(&u, root, 14).unwrap() else { panic!("a length") };
    assert_eq!(list.last(), Some(&0));
}

#[test]
fn seeks_that_are_none() {
    let u = union();
    let mode = (0o644, 0);
    let (found, handle) = create(&u, u.root(), b"f", mode, libc::O_RDWR, &CALLER).unwrap();
    let seek = |offset, whence| lseek(&u, found.node, handle, offset, whence);
    assert_eq!(errno(seek(0, libc::SEEK_END)), Errno::EINVAL);
    assert_eq!(errno(seek(-1, libc::SEEK_DATA)), Errno::ENXIO);
    u.write(found.node, handle, b"abc", 0, false).unwrap();
    assert_eq!(seek(0, libc::SEEK_HOLE).unwrap(), 3);
}

#[test]
fn copies_are_as_long_as_the_answer_can_tell() {
    let u = union();
    let (a, ha) = create(&u, u.root(), b"a", (0o644, 0), libc::O_RDWR, &CALLER).unwrap();
    let (b, hb) = create(&u, u.root(), b"b", (0o644, 0), libc::O_RDWR, &CALLER).unwrap();
    u.write(a.node, ha, b"abc", 0, false).unwrap();
    let copied = copy_file_range(&u, (a.node, ha, 1), (b.node, hb, 0), u64::MAX).unwrap();
    assert_eq!(copied, 2);
}

#[test]
fn a_listing_stops_and_goes_on() {
    let u = union();
    for name in [b"x", b"y", b"z"] {
        mkdir(&u, u.root(), name, (0o755, 0), &CALLER).unwrap();
    }
    let (mut names, mut cookie) = (Vec::new(), 0);
    loop {
        let (mut room, before) = (2, names.len());
        readdirplus(&u, u.root(), cookie, &mut |entry, found| {
            if room == 0 {
                return false;
            }
            room -= 1;
            assert_eq!(found.is_none(), entry.name == b"." || entry.name == b"..");
            names.push(entry.name.to_vec());
            cookie = entry.cookie;
            true
        })
        .unwrap();
        if names.len() == before {
            break;
        }
    }
    names.sort();
    assert_eq!(names, [&b"."[..], b"..", b"x", b"y", b"z"]);
}
