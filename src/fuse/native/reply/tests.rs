//! Replies as the kernel reads them.

use zerocopy::FromBytes;

use super::*;
use crate::attr::Time;

fn attr() -> attr::Attr {
    attr::Attr {
        ino: 77,
        kind: Kind::Char,
        perm: 0o4640,
        nlink: 2,
        uid: 3,
        gid: 4,
        rdev: 0x0001_0203_0405,
        size: 5,
        blocks: 8,
        blksize: 4096,
        atime: Time { sec: -2, nsec: 1 },
        mtime: Time { sec: i64::MAX, nsec: 2 },
        ctime: Time { sec: 1, nsec: 3 },
    }
}

fn header(reply: &[u8]) -> wire::OutHeader {
    let (header, _) = wire::OutHeader::read_from_prefix(reply).unwrap();
    assert_eq!(header.len as usize, reply.len());
    header
}

#[test]
fn a_node_shows_its_own_number() {
    let mut reply = Reply::with_room(SMALL);
    reply.entry(&Found { node: NodeId(1 << 36), attr: attr() }).unwrap();
    let bytes = reply.finish(5);
    assert_eq!((header(bytes).error, header(bytes).unique), (0, 5));
    let (entry, _) = wire::EntryOut::read_from_prefix(&bytes[HEADER..]).unwrap();
    assert_eq!((entry.nodeid, entry.attr.ino), (1 << 36, 77));
    assert_eq!((entry.attr.mode, entry.attr.rdev), (0o2_4640, 0x0203_0405));
    assert_eq!(entry.attr.atime.cast_signed(), -2);
}

#[test]
fn a_refusal_carries_nothing() {
    let mut reply = Reply::with_room(SMALL);
    reply.attr(&attr()).unwrap();
    let bytes = reply.refuse(6, Errno::ENOSPC);
    assert_eq!((bytes.len(), header(bytes).error), (HEADER, -libc::ENOSPC));
}

#[test]
fn what_does_not_fit_is_not_sent() {
    let mut reply = Reply::with_room(100);
    assert_eq!(reply.bytes(&[0; 101]).unwrap_err().errno(), Errno::EIO);
    reply.fill(1000, |room| Ok(room.len())).unwrap();
    assert_eq!(reply.finish(1).len(), HEADER + 100);
    reply.clear();
    reply.fill(10, |_| Ok(1000)).unwrap();
    assert_eq!(reply.finish(1).len(), HEADER + 10);
}

#[test]
fn a_listing_ends_where_the_caller_said() {
    let entry = |name| DirEntry { name, kind: Kind::Dir, ino: 3, cookie: 4 };
    let mut reply = Reply::with_room(SMALL);
    // 24 bytes and a name, in whole words.
    assert!(reply.listed(&entry(b"abc"), 64));
    assert!(reply.listed(&entry(b"12345678"), 64));
    assert!(!reply.listed(&entry(b""), 64), "64 bytes are full");
    let bytes = reply.finish(1);
    assert_eq!(bytes.len(), HEADER + 64);
    assert_eq!(&bytes[HEADER + 24..HEADER + 32], b"abc\0\0\0\0\0");
    let (first, _) = wire::DirEnt::read_from_prefix(&bytes[HEADER..]).unwrap();
    assert_eq!((first.ino, first.off, first.namelen), (3, 4, 3));
    assert_eq!(first.kind, u32::from(libc::DT_DIR));
    reply.clear();
    assert!(!reply.listed_plus(&entry(b"abc"), None, 150));
    assert!(reply.listed_plus(&entry(b"abc"), None, 160));
}
