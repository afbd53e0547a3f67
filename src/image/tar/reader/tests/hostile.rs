//! Archives made by hand: ambiguous, hostile, cut off.

use super::super::super::samples::{
    END, entry, header, read_all, read_with, records, sealed, summary,
};
use super::super::*;
use proptest::prelude::*;

fn error(stream: &[u8]) -> String {
    let error = read_all(stream).expect_err("an archive that is no good");
    assert_eq!(error.errno(), crate::errno::Errno::EINVAL);
    error.to_string()
}

/// The only entry of an archive.
fn only(parts: &[&[u8]]) -> Entry {
    let mut items = read_all(&parts.concat()).unwrap();
    assert_eq!(items.len(), 1);
    items.remove(0).0
}

#[test]
fn an_archive_may_end_in_several_ways() {
    let file = entry(b"f", b'0', b"data");
    for end in [&b""[..], &[0; 512], &END, &[0; 10_240], &[&END[..], b"rubbish"].concat()] {
        let stream = [file.as_slice(), end].concat();
        assert_eq!(summary(&read_all(&stream).unwrap()), "f File(4)\n");
    }
    // The padding may be missing, whole or in part.
    for end in [516, 517, 1000] {
        assert_eq!(summary(&read_all(&file[..end]).unwrap()), "f File(4)\n");
    }
    assert_eq!(read_all(b"").unwrap(), []);
    assert_eq!(read_all(&END).unwrap(), []);
}

#[test]
fn an_archive_that_was_cut_is_an_error() {
    let whole = [
        records(&[("path", b"name"), ("size", b"600")]).as_slice(),
        &entry(b"f", b'0', &[7; 600]),
        &entry(b"././@LongLink", b'L', b"long\0"),
        &entry(b"g", b'0', b""),
    ]
    .concat();
    read_all(&whole).unwrap();
    // After the first entry's data it is whole; in between it never is.
    let complete = |cut: usize| matches!(cut, 0) || (2136..=2560).contains(&cut) || cut == 4096;
    for cut in (0..whole.len()).step_by(41).chain([512, 1024, 1536, 2136, 2560, 3072, 3584]) {
        let read = read_all(&whole[..cut]);
        assert_eq!(read.is_ok(), complete(cut), "cut at {cut}: {read:?}");
    }
    let said = error(&whole[..2000]);
    assert_eq!(said, "tar entry 'name': the archive ends in the middle of its data");
}

#[test]
fn a_wrong_checksum_is_an_error() {
    let mut block = sealed(header(b"f", b'0', 0));
    block[0] = b'g';
    assert_eq!(error(&block), "tar archive, byte 0: is no tar header: its checksum is wrong");
    let stream = [&entry(b"a", b'0', b"1")[..], &[1; 512]].concat();
    assert!(error(&stream).starts_with("tar archive, byte 1024: "));
    assert!(error(&[&[0; 512][..], &entry(b"a", b'0', b"")].concat()).contains("lone block"));
    // The sum of signed bytes does, too.
    let mut block = header(b"caf\xe9", b'0', 0);
    block[148..156].copy_from_slice(b"        ");
    let sum: i32 = block.iter().map(|&byte| i32::from(byte.cast_signed())).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    assert_eq!(only(&[&block]).path, b"caf\xe9");
}

#[test]
fn what_is_no_number_is_an_error() {
    for (at, what) in [(100, "mode"), (108, "owner"), (116, "group"), (124, "size"), (136, "time")]
    {
        let mut block = header(b"f", b'0', 0);
        block[at..at + 4].copy_from_slice(b"0x9z");
        assert!(error(&sealed(block)).starts_with(&format!("tar entry 'f': its {what} '0x9z")));
    }
    // More than 64 bits.
    for (at, what) in [(124, "size"), (136, "time")] {
        let mut block = header(b"f", b'0', 0);
        block[at..at + 12].fill(0x7f);
        block[at] = 0xbf;
        assert!(error(&sealed(block)).starts_with(&format!("tar entry 'f': its {what}")));
    }
    // Spaces and nothing at all are numbers.
    let mut block = header(b"f", b'0', 0);
    block[100..108].copy_from_slice(b"   644 \0");
    block[108..116].fill(0);
    assert_eq!(only(&[&sealed(block)]).perm, 0o644);
}

#[test]
fn absurd_sizes_and_ids_are_refused() {
    for (key, value, why) in [
        ("size", "-1", "its size is negative"),
        ("size", "9223372036854775808", "extended header 'size' has a value that it cannot have"),
        ("size", "9223372036854775807", "the archive ends in the middle of its data"),
        ("uid", "4294967295", "its owner 4294967295 is none that Linux has"),
        ("gid", "-1", "its group -1 is none that Linux has"),
        ("uid", "x", "extended header 'uid' has a value that it cannot have"),
        ("mtime", "1.5e3", "extended header 'mtime' has a value that it cannot have"),
    ] {
        let stream = [records(&[(key, value.as_bytes())]), entry(b"f", b'0', b"")].concat();
        let said = error(&stream);
        assert!(said.ends_with(why) && said.starts_with("tar entry '"), "{key}={value}: {said}");
    }
    let mut block = header(b"f", b'0', 0);
    block[124..136].fill(0xff);
    assert_eq!(error(&sealed(block)), "tar entry 'f': its size is negative");
    let mut block = header(b"f", b'0', 0);
    block[108..116].fill(0xff);
    assert_eq!(error(&sealed(block)), "tar entry 'f': its owner -1 is none that Linux has");
    for (major, minor) in [
        (b"0010000", b"0000000"),
        (b"0000000", b"4000000"),
        (b"\xff\xff\xff\xff\xff\xff\xff", b"0000000"),
    ] {
        let mut block = header(b"dev", b'3', 0);
        block[329..336].copy_from_slice(major);
        block[337..344].copy_from_slice(minor);
        assert!(error(&sealed(block)).starts_with("tar entry 'dev': its device number"));
    }
}

#[test]
fn times_before_1970_and_finer_than_a_second_are_kept() {
    for (value, sec, nsec) in [
        ("1.5", 1, 500_000_000),
        ("-1", -1, 0),
        ("-0.25", -1, 750_000_000),
        ("-3.000000001", -4, 999_999_999),
        ("7.1234567891", 7, 123_456_789),
        ("7.", 7, 0),
        ("-1.0000000009", -1, 0),
    ] {
        let stream = [records(&[("mtime", value.as_bytes())]), entry(b"f", b'0', b"")];
        assert_eq!(only(&[&stream.concat()]).mtime, Time { sec, nsec }, "{value}");
    }
}

#[test]
fn malformed_records_are_refused() {
    for text in [
        "11 path=abc",
        "10 path=abc\n",
        "13 path=abc\n",
        "x path=a\n",
        "5 a=\n\n",
        "-5 a=b\n",
        "99999999999999999999 a=b\n",
        " a=b\n",
        "6 =ab\n",
        "6 abc\n",
        "0 a=b\n",
        "1 a=b\n",
        "\0",
    ] {
        let stream = [entry(b"x", b'x', text.as_bytes()), entry(b"f", b'0', b"")].concat();
        assert_eq!(error(&stream), "tar entry 'x': its extended header is malformed", "{text:?}");
    }
    for (key, value) in [("path", "a\0b"), ("linkpath", "\0"), ("GNU.sparse.name", "a\0")] {
        let stream = [records(&[(key, value.as_bytes())]), entry(b"f", b'0', b"")].concat();
        assert!(error(&stream).ends_with("holds a NUL"));
    }
    let long = "n".repeat(256);
    for name in ["a\0b", "", &long] {
        let key = format!("SCHILY.xattr.{name}");
        error(&[records(&[(&key, b"v")]), entry(b"f", b'0', b"")].concat());
    }
    let big = vec![0; 65537];
    let stream = [records(&[("SCHILY.xattr.user.x", &big)]), entry(b"f", b'0', b"")].concat();
    assert!(error(&stream).ends_with("holds more than an attribute can"));
}

#[test]
fn the_later_of_two_records_counts() {
    let parts = records(&[
        ("path", b"one"),
        ("SCHILY.xattr.user.a", b"1"),
        ("SCHILY.xattr.user.b", b"b"),
        ("path", b"two"),
        ("SCHILY.xattr.user.a", b"2"),
        ("uid", b"5"),
        ("uid", b""),
    ]);
    let file = only(&[&parts, &entry(b"f", b'0', b"")]);
    assert_eq!((file.path.as_slice(), file.uid), (&b"two"[..], 0));
    let pair = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
    assert_eq!(file.xattrs, [pair("user.a", b"2"), pair("user.b", b"b")]);
    // A second extended header replaces the first, a global one ends it.
    let first = records(&[("path", b"first"), ("uid", b"1")]);
    let second = records(&[("gid", b"2")]);
    let file = only(&[&first, &second, &entry(b"f", b'0', b"")]);
    assert_eq!((file.path.as_slice(), file.uid, file.gid), (&b"f"[..], 0, 2));
    let global = entry(b"g", b'g', b"11 path=xy\n");
    assert_eq!(only(&[&first, &global, &entry(b"f", b'0', b"")]).path, b"f");
    assert!(error(&[&first[..], &END].concat()).ends_with("an extended header without an entry"));
}

#[test]
fn a_gnu_name_outranks_a_record() {
    let pax = records(&[("path", b"pax"), ("linkpath", b"pax target")]);
    let name = entry(b"././@LongLink", b'L', b"gnu\0rest");
    let link = entry(b"././@LongLink", b'K', b"gnu target\0");
    let symlink = entry(b"f", b'2', b"");
    for order in [[&pax, &name, &link], [&name, &link, &pax]] {
        let found = only(&[&order.map(Vec::as_slice).concat(), &symlink]);
        assert_eq!(found.path, b"gnu");
        assert_eq!(found.what, What::Symlink(b"gnu target".to_vec()));
    }
}

#[test]
fn only_files_have_data() {
    for flag in b'1'..=b'6' {
        let mut block = header(b"x", flag, 5000);
        block[157..160].copy_from_slice(b"to\0");
        let stream = [&sealed(block)[..], &entry(b"next", b'0', b"1")].concat();
        let items = read_all(&stream).unwrap();
        assert_eq!(items[1].0.path, b"next", "{}", flag as char);
    }
    // A size in the records is about the data that follow.
    let pax = records(&[("size", b"3")]);
    let mut file = entry(b"f", b'0', b"abc");
    file[..512].copy_from_slice(&sealed(header(b"f", b'0', 0o777)));
    let items = read_all(&[pax, file, entry(b"g", b'0', b"")].concat()).unwrap();
    assert_eq!((items[0].1.as_slice(), items[1].0.path.as_slice()), (&b"abc"[..], &b"g"[..]));
}

#[test]
fn types_that_no_layer_has_are_refused() {
    for flag in [b'V', b'M', b'D', b'N', b'A', b'Z', b'8', b'9', b'X', b' ', 0xff] {
        let said = error(&entry(b"dir/\xff\n", flag, b""));
        assert!(said.starts_with("tar entry 'dir/\\xff\\n': its type '"), "{said}");
    }
    assert_eq!(only(&[&entry(b"old/", 0, b"")]).what, What::Dir);
    assert_eq!(only(&[&entry(b"old", 0, b"")]).what, What::File(0));
    assert_eq!(only(&[&entry(b"old/", b'0', b"")]).what, What::File(0));
    assert!(error(&entry(b"l", b'2', b"")).ends_with("a link without a target"));
    assert!(error(&entry(b"s", b'S', b"")).ends_with("a sparse file of no known form"));
}

#[test]
fn a_sparse_map_must_fit_its_file() {
    let with = |map: &str, size: &str, data: &[u8]| {
        let count = (map.split(',').count() / 2).to_string();
        let pax = records(&[
            ("GNU.sparse.major", b"0"),
            ("GNU.sparse.minor", b"1"),
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.numblocks", count.as_bytes()),
            ("GNU.sparse.map", map.as_bytes()),
        ]);
        [pax, entry(b"f", b'0', data)].concat()
    };
    let items = read_all(&with("1,2,5,1,9,0", "9", b"abc")).unwrap();
    assert_eq!(
        (items[0].0.path.as_slice(), items[0].1.as_slice()),
        (&b"real"[..], &b"\0ab\0\0c\0\0\0"[..])
    );
    for (map, size, data) in [
        ("0,3", "2", "abc"),
        ("2,1,1,1", "9", "ab"),
        ("0,2,1,1", "9", "abc"),
        ("-1,1", "9", "a"),
        ("0,-1", "9", "a"),
        ("0,9223372036854775807,9223372036854775807,1", "9223372036854775807", "a"),
        ("0,1", "9", "abc"),
        ("0,3", "9", "a"),
        ("0,1", "-9", "a"),
    ] {
        let said = error(&with(map, size, data.as_bytes()));
        assert!(said.starts_with("tar entry 'real': its "), "{map}: {said}");
    }
    for map in ["0,1,2", "0,x", "0", ","] {
        error(&with(map, "9", b"a"));
    }
    let odd = records(&[("GNU.sparse.numbytes", b"1"), ("GNU.sparse.offset", b"1")]);
    assert!(error(&odd).contains("out of order"));
}

#[test]
fn the_map_before_the_data_is_checked() {
    let with = |map: &[u8], data: &[u8]| {
        let pax = records(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"real"),
            ("GNU.sparse.realsize", b"4000"),
        ]);
        let mut all = map.to_vec();
        all.resize(all.len().next_multiple_of(512), 0);
        all.extend_from_slice(data);
        [pax, entry(b"f", b'0', &all)].concat()
    };
    let items = read_all(&with(b"2\n5\n3\n3999\n1\n", b"abcd")).unwrap();
    assert_eq!(items[0].1[5..8], *b"abc");
    assert_eq!((items[0].1.len(), items[0].1[3999]), (4000, b'd'));
    for map in [
        &b""[..],
        b"1",
        b"1\n",
        b"1\n0\n",
        b"9999999999999\n",
        b"-1\n",
        b"x\n",
        b"1\n3999\n4\n",
        b"111111111111111111111111111\n",
        b"2\n5\n2\n4\n2\n",
        b"\n",
    ] {
        let said = error(&with(map, b"abcd"));
        assert!(said.starts_with("tar entry 'real': its "), "{said}");
    }
}

#[test]
fn limits_hold() {
    let limits = Limits { path: 50, extension: 1000, xattrs: 2, pieces: 2, entries: 3 };
    let said = |stream: &[u8]| read_with(stream, limits, usize::MAX).unwrap_err().to_string();
    assert!(said(&entry(&[b'n'; 51], b'0', b"")).ends_with("its path has 51 bytes (at most 50)"));
    let link = entry(b"././@LongLink", b'K', &[b'l'; 51]);
    let stream = [&link[..], &entry(b"l", b'1', b"")].concat();
    assert!(said(&stream).ends_with("the target of the link has 51 bytes (at most 50)"));
    // Refused before it is read: the claim alone is enough.
    for flag in *b"xLK" {
        let block = sealed(header(b"h", flag, 1001));
        assert!(said(&block).ends_with("an extended header of 1001 bytes (at most 1000)"));
    }
    // A global one is passed over without being held.
    read_with(&entry(b"g", b'g', &[0; 5000]), limits, usize::MAX).unwrap();
    let many = ["a", "b", "c"].map(|name| format!("SCHILY.xattr.{name}"));
    let many = records(&many.each_ref().map(|key| (key.as_str(), &b"v"[..])));
    assert!(said(&many).ends_with("more than 2 extended attributes"));
    let four = entry(b"f", b'0', b"").repeat(4);
    assert!(said(&four).ends_with("the archive has more than 3 entries"));
    let sparse = records(&[("GNU.sparse.numblocks", b"3"), ("GNU.sparse.map", b"0,1,2,1,4,1")]);
    let stream = [sparse, records(&[]), entry(b"f", b'0', b"abc")].concat();
    read_with(&stream, limits, usize::MAX).unwrap();
    let sparse = records(&[
        ("GNU.sparse.size", b"9"),
        ("GNU.sparse.numblocks", b"3"),
        ("GNU.sparse.map", b"0,1,2,1,4,1"),
    ]);
    let stream = [sparse, entry(b"f", b'0', b"abc")].concat();
    assert!(said(&stream).ends_with("its sparse map has more than 2 pieces"));
    // Names in errors are cut.
    let long = Limits { path: 400, ..limits };
    let stream = [records(&[("path", &[b'p'; 500])]), entry(b"f", b'0', b"")].concat();
    let text = read_with(&stream, long, usize::MAX).unwrap_err().to_string();
    assert!(text.len() < 400 && text.contains("ppp...'"), "{text}");
}

/// A stream that fails at once.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::from_raw_os_error(libc::ENXIO))
    }
}

#[test]
fn errors_of_the_tape_and_the_stream_come_through() {
    let stream = entry(b"f", b'0', b"data");
    let mut reader = Reader::new(stream.as_slice(), Limits::default());
    reader.set_tape(Box::new(|_| Err(crate::errno::Errno::ENOSPC.into())));
    assert_eq!(reader.next().unwrap_err().errno(), crate::errno::Errno::ENOSPC);
    let mut reader = Reader::new((&stream[..514]).chain(Broken), Limits::default());
    reader.next().unwrap();
    let mut buf = [0; 10];
    assert_eq!(reader.data(&mut buf).unwrap(), Some((0, 2)));
    let error = reader.data(&mut buf).unwrap_err();
    assert_eq!(error.errno(), crate::errno::Errno::ENXIO);
    assert!(error.to_string().starts_with("tar archive, after byte 514: "), "{error}");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        blocks in proptest::collection::vec(
            (any::<[u8; 16]>(), proptest::sample::select(&b"0123457xgLKSV\0"[..]), 0..2000_u64,
             proptest::collection::vec(any::<u8>(), 0..1500)),
            0..6,
        ),
    ) {
        let mut stream = Vec::new();
        for (noise, flag, size, data) in blocks {
            let mut block = header(b"name", flag, size);
            if let Some(room) = block.get_mut(usize::from(noise[0]) * 2..) {
                let n = room.len().min(usize::from(noise[1]) % 16);
                room[..n].copy_from_slice(&noise[..n]);
            }
            stream.extend_from_slice(&sealed(block));
            stream.extend_from_slice(&data);
        }
        // Checks by itself that nothing is lost.
        if let Err(error) = read_all(&stream) {
            prop_assert_eq!(error.errno(), crate::errno::Errno::EINVAL);
        }
    }
}
