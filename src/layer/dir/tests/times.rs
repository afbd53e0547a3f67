//! Attributes, times and content.

use super::*;
use crate::attr::{SetAttr, SetTime, Time};
use crate::errno::Errno;
use crate::layer::{How, Seek};

const TIMES: [Time; 5] = [
    Time { sec: 1, nsec: 999_999_999 },
    Time { sec: -1, nsec: 1 },
    Time { sec: -2_147_483_000, nsec: 123_456_789 },
    Time { sec: 4_294_967_296, nsec: 5 },
    Time { sec: 15_032_385_000, nsec: 999_999_999 },
];

#[test]
fn times_are_exact_on_every_kind_of_object() {
    let place = Place::new();
    let upper = place.open_upper();
    let kinds = [What::File, What::Dir, What::Symlink(b"/nowhere"), What::Node(Kind::Fifo, 0)];
    for (i, what) in kinds.into_iter().enumerate() {
        let made = upper.create(ROOT, name(&i.to_string()), &new(what, 0o700)).unwrap();
        for mtime in TIMES {
            for atime in TIMES {
                let set = SetAttr {
                    atime: Some(SetTime::At(atime)),
                    mtime: Some(SetTime::At(mtime)),
                    ..SetAttr::default()
                };
                let attr = upper.setattr(made.id, &set).unwrap();
                assert_eq!((attr.atime, attr.mtime), (atime, mtime), "{what:?}");
                let only = SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() };
                let attr = upper.setattr(made.id, &only).unwrap();
                assert_eq!(attr.atime, atime);
                assert!(attr.mtime.sec > 1_600_000_000);
            }
        }
    }
}

#[test]
fn a_quiet_change_leaves_the_times_of_the_directory() {
    let place = Place::new();
    let upper = place.open_upper();
    let d = dir(&upper, ROOT, "d");
    let at = Time { sec: -100, nsec: 3 };
    let old = SetAttr {
        atime: Some(SetTime::At(at)),
        mtime: Some(SetTime::At(at)),
        ..SetAttr::default()
    };
    upper.setattr(d.id, &old).unwrap();
    let mut staged = upper.stage(&new(What::File, 0o600)).unwrap();
    upper.publish(&mut staged, d.id, name("f"), How::NoReplace, true).unwrap();
    upper.link(staged.id, d.id, name("g"), true).unwrap();
    let attr = upper.attr(d.id).unwrap();
    assert_eq!((attr.atime, attr.mtime), (at, at));
    let mut staged = upper.stage(&new(What::File, 0o600)).unwrap();
    upper.publish(&mut staged, d.id, name("h"), How::NoReplace, false).unwrap();
    assert!(upper.attr(d.id).unwrap().mtime > at);
}

#[test]
fn set_id_bits_and_owner_set_together_both_hold() {
    let place = Place::new();
    let upper = place.open_upper();
    let f = file(&upper, "f", b"content");
    let set = SetAttr {
        perm: Some(0o6755),
        uid: Some(1000),
        gid: Some(1000),
        size: Some(2),
        ..SetAttr::default()
    };
    let attr = upper.setattr(f.id, &set).unwrap();
    assert_eq!((attr.perm, attr.uid, attr.gid, attr.size), (0o6755, 1000, 1000, 2));
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    let xattrs = [(b"security.capability".to_vec(), capability.clone())];
    let new = New { uid: 1000, xattrs: &xattrs, ..new(What::File, 0o4755) };
    let made = upper.create(ROOT, name("cap"), &new).unwrap();
    assert_eq!(made.attr.perm, 0o4755);
    assert_eq!(upper.getxattr(made.id, b"security.capability").unwrap().unwrap(), capability);
}

#[test]
fn a_symlink_is_changed_itself() {
    let place = Place::new();
    std::fs::write(place.upper("target"), "").unwrap();
    let upper = place.open_upper();
    let link = upper.create(ROOT, name("l"), &new(What::Symlink(b"target"), 0o777)).unwrap();
    let set = SetAttr { uid: Some(12), gid: Some(13), ..SetAttr::default() };
    let attr = upper.setattr(link.id, &set).unwrap();
    assert_eq!((attr.kind, attr.uid, attr.gid), (Kind::Symlink, 12, 13));
    assert_eq!(entry(&*upper, "target").attr.uid, 0);
    upper.setxattr(link.id, b"trusted.a", b"1", 0).unwrap();
    assert!(!has_xattr(&place.upper("target"), "trusted.a"));
    assert!(has_xattr(&place.upper("l"), "trusted.a"));
    let mode = SetAttr { perm: Some(0o700), ..SetAttr::default() };
    assert_eq!(upper.setattr(link.id, &mode).unwrap_err().errno(), Errno::EOPNOTSUPP);
    let size = SetAttr { size: Some(0), ..SetAttr::default() };
    assert_eq!(upper.setattr(link.id, &size).unwrap_err().errno(), Errno::EINVAL);
}

#[test]
fn content_is_read_written_and_cut() {
    let place = Place::new();
    let upper = place.open_upper();
    let f = file(&upper, "f", b"0123456789");
    let data = upper.open_write(f.id).unwrap();
    let mut buf = [0; 20];
    assert_eq!(data.read_at(&mut buf, 4).unwrap(), 6);
    assert_eq!(&buf[..6], b"456789");
    assert_eq!(data.read_at(&mut buf, 10).unwrap(), 0);
    data.set_len(3).unwrap();
    assert_eq!(data.write_at(b"x", 5).unwrap(), 1);
    assert_eq!(read(&*upper, f.id), b"012\0\0x");
    assert_eq!(data.attr().unwrap().size, 6);
    data.allocate(0, 0, 100).unwrap();
    assert_eq!(data.attr().unwrap().size, 100);
    data.sync(true).unwrap();
    data.sync(false).unwrap();
    let reader = upper.open(f.id).unwrap();
    assert_eq!(reader.write_at(b"x", 0).unwrap_err().errno(), Errno::EBADF);
}

#[test]
fn holes_are_found_and_data_copied_between_them() {
    const MIB: u64 = 1 << 20;
    let place = Place::new();
    let upper = place.open_upper();
    let (source, copy) = (file(&upper, "source", b""), file(&upper, "copy", b""));
    let from = upper.open_write(source.id).unwrap();
    from.set_len(4 * MIB).unwrap();
    from.write_at(&[7; 8192], MIB).unwrap();
    assert_eq!(from.seek(0, Seek::Data).unwrap(), MIB);
    assert_eq!(from.seek(MIB, Seek::Hole).unwrap(), MIB + 8192);
    assert_eq!(from.seek(2 * MIB, Seek::Data).unwrap_err().errno(), Errno::ENXIO);
    assert_eq!(from.seek(4 * MIB, Seek::Hole).unwrap_err().errno(), Errno::ENXIO);
    let to = upper.open_write(copy.id).unwrap();
    let mut done = 0;
    while done < 8192 {
        let copied = to.copy_from(&*from, MIB + done, MIB + done, 8192 - done).unwrap();
        assert!(copied > 0);
        done += copied;
    }
    let mut buf = [0; 8192];
    assert_eq!(to.read_at(&mut buf, MIB).unwrap(), 8192);
    assert!(buf.iter().all(|byte| *byte == 7));
    assert_eq!(to.copy_from(&*from, 4 * MIB, 0, 10).unwrap(), 0);
    assert!(to.attr().unwrap().blocks * 512 < MIB);
    match to.reflink_from(&*from) {
        Ok(()) => assert_eq!(to.attr().unwrap().size, 4 * MIB),
        Err(error) => assert!(!upper.probe().reflink, "{error}"),
    }
}

/// Data without a descriptor.
#[derive(Debug)]
struct Memory(Vec<u8>);

impl Data for Memory {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let rest = self.0.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
    fn write_at(&self, _: &[u8], _: u64) -> Result<usize> {
        Err(Errno::EBADF.into())
    }
    fn set_len(&self, _: u64) -> Result<()> {
        Err(Errno::EBADF.into())
    }
    fn sync(&self, _: bool) -> Result<()> {
        Ok(())
    }
    fn allocate(&self, _: i32, _: u64, _: u64) -> Result<()> {
        Err(Errno::EBADF.into())
    }
    fn seek(&self, _: u64, _: Seek) -> Result<u64> {
        Err(Errno::EINVAL.into())
    }
    fn attr(&self) -> Result<Attr> {
        Err(Errno::EIO.into())
    }
    fn copy_from(&self, _: &dyn Data, _: u64, _: u64, _: u64) -> Result<u64> {
        Err(Errno::EBADF.into())
    }
    fn reflink_from(&self, _: &dyn Data) -> Result<()> {
        Err(Errno::EBADF.into())
    }
    fn removexattr(&self, _name: &[u8]) -> Result<()> {
        Err(Errno::EBADF.into())
    }

    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        None
    }
}

#[test]
fn data_without_a_descriptor_and_of_other_filesystems_are_copied_by_hand() {
    let content: Vec<u8> = (0..300_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let place = Place::new();
    let upper = place.open_upper();
    let memory = Memory(content.clone());
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::write(elsewhere.path().join("f"), &content).unwrap();
    let layer = DirLayer::open(elsewhere.path()).unwrap();
    let other = layer.open(entry(&*layer, "f").id).unwrap();
    for (at, source) in [("a", &memory as &dyn Data), ("b", &*other)] {
        let to = upper.open_write(file(&upper, at, b"").id).unwrap();
        let mut done = 0;
        loop {
            match to.copy_from(source, done, done, u64::MAX).unwrap() {
                0 => break,
                copied => done += copied,
            }
        }
        assert_eq!(std::fs::read(place.upper(at)).unwrap(), content);
    }
    assert!(upper.open_write(entry(&*upper, "a").id).unwrap().reflink_from(&memory).is_err());
}
