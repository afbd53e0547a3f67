use super::super::samples::{Item, output, read_all};
use super::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

fn file(path: &[u8], size: u64) -> Entry {
    Entry {
        path: path.to_vec(),
        what: What::File(size),
        perm: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: Vec::new(),
    }
}

/// The archive of `items`, each with its pieces if it is to be sparse.
fn write(items: &[(Item, Option<Vec<Piece>>)]) -> Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    for ((entry, content), pieces) in items {
        writer.start(entry, pieces.as_deref())?;
        match pieces {
            None => writer.data(content)?,
            Some(pieces) => {
                for piece in pieces {
                    let at = usize::try_from(piece.offset).unwrap();
                    writer.data(&content[at..at + usize::try_from(piece.len).unwrap()])?;
                }
            }
        }
    }
    writer.finish()
}

/// What comes back: directories with their slash.
fn expected(items: &[(Item, Option<Vec<Piece>>)]) -> Vec<Item> {
    let mut items: Vec<Item> = items.iter().map(|(item, _)| item.clone()).collect();
    for (entry, _) in &mut items {
        if entry.what == What::Dir && !entry.path.ends_with(b"/") {
            entry.path.push(b'/');
        }
        entry.xattrs.sort();
    }
    items
}

/// One entry of everything.
fn zoo() -> Vec<(Item, Option<Vec<Piece>>)> {
    let entry = |path: &[u8], what| Entry { what, ..file(path, 0) };
    let mut all = vec![
        entry(b".", What::Dir),
        entry(b"dir", What::Dir),
        entry(&[&[b'd'; 200][..], b"/", &[b'e'; 255]].concat(), What::Fifo),
        entry(&[&[b'd'; 90][..], b"/", &[b'e'; 90]].concat(), What::Fifo),
        entry(b"caf\xc3\xa9", What::Symlink(b"\xff/\xfe".to_vec())),
        entry(b"raw\xe9", What::Symlink([b't'; 101].to_vec())),
        entry(b"hard", What::HardLink(b"caf\xc3\xa9".to_vec())),
        entry(b"tty", What::Char(rustix::fs::makedev(5, 0xf_ffff))),
        entry(b"sda", What::Block(rustix::fs::makedev(8, 1))),
    ];
    for (sec, nsec) in
        [(1_700_000_000, 1), (-1, 0), (-2, 750_000_000), (1 << 40, 0), (5, 120_000_000)]
    {
        let path = format!("time{sec}");
        all.push(Entry { mtime: Time { sec, nsec }, ..file(path.as_bytes(), 0) });
    }
    all.push(Entry { uid: 2_097_151, gid: 2_097_152, perm: 0o7777, ..file(b"ids", 0) });
    all.push(Entry { uid: u32::MAX - 1, ..file(b"ids2", 0) });
    let pair = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
    let xattrs =
        vec![pair("user.b", b"\0\n=\xff"), pair("user.a", b""), pair("user.c", &[b'c'; 3000])];
    all.push(Entry { xattrs, ..file(b"xattrs", 0) });
    let mut all: Vec<_> = all.into_iter().map(|entry| ((entry, Vec::new()), None)).collect();
    all.push(((file(b"data", 513), vec![b'x'; 513]), None));
    let mut content = vec![0; 300_000];
    content[70_000..70_512].fill(b'a');
    content[299_999] = b'z';
    let pieces = vec![Piece { offset: 70_000, len: 512 }, Piece { offset: 299_999, len: 1 }];
    all.push(((file(b"dir/sparse", 300_000), content.clone()), Some(pieces.clone())));
    content[299_999] = 0;
    let long = [&[b's'; 120][..], b"\xff"].concat();
    all.push(((file(&long, 300_000), content), Some(pieces[..1].to_vec())));
    all.push(((file(b"hole", 300_000), vec![0; 300_000]), Some(Vec::new())));
    all
}

#[test]
fn what_is_written_is_read_again() {
    let items = zoo();
    let stream = write(&items).unwrap();
    assert_eq!(stream.len() % 512, 0);
    let found = read_all(&stream).unwrap();
    for (found, expected) in found.iter().zip(&expected(&items)) {
        assert_eq!(found.0, expected.0);
        assert!(found.1 == expected.1);
    }
    assert_eq!(found.len(), items.len());
    assert_eq!(write(&items).unwrap(), stream, "the same bytes for the same entries");
}

#[test]
fn plain_entries_need_no_extended_header() {
    let plain: &[&[u8]] = &[
        b"a",
        &[b'n'; 100],
        &[&[b'p'; 155][..], b"/", &[b'n'; 100]].concat(),
        &[&[b'p'; 50][..], b"/", &[b'p'; 90], b"/", &[b'n'; 50]].concat(),
    ];
    for path in plain {
        let stream = write(&[((file(path, 1), vec![1]), None)]).unwrap();
        assert_eq!(stream.len(), 2048, "{}", path.escape_ascii());
        assert_eq!(read_all(&stream).unwrap()[0].0.path, *path);
    }
    for path in [
        &[b'n'; 101][..],
        &[&[b'p'; 156][..], b"/n"].concat(),
        b"\xc3\xa9",
        &[b"/", &[b'n'; 101][..]].concat(),
        &[&[b'n'; 101][..], b"/"].concat(),
    ] {
        let stream = write(&[((file(path, 1), vec![1]), None)]).unwrap();
        assert_eq!(stream.len(), 3072, "{}", path.escape_ascii());
        assert_eq!(read_all(&stream).unwrap()[0].0.path, *path);
    }
}

#[test]
fn records_count_their_own_digits() {
    for len in (0..1200).chain([9_980, 9_990, 9_999, 99_980, 99_990, 99_992, 99_999]) {
        let record = record(b"key", &vec![b'v'; len]);
        let digits = record.iter().position(|&byte| byte == b' ').unwrap();
        let said: usize = std::str::from_utf8(&record[..digits]).unwrap().parse().unwrap();
        assert_eq!(said, record.len());
    }
}

#[test]
fn what_no_archive_holds_is_refused() {
    let said = |entry: Entry, pieces: Option<Vec<Piece>>| {
        let error = write(&[((entry, vec![0; 10]), pieces)]).expect_err("nothing to be written");
        assert_eq!(error.errno(), crate::errno::Errno::EINVAL);
        error.to_string()
    };
    for name in ["user.a=b", "", "user.a\0"] {
        let xattrs = vec![(name.as_bytes().to_vec(), b"v".to_vec())];
        let text = said(Entry { xattrs, ..file(b"f", 10) }, None);
        assert!(text.starts_with("tar entry 'f': its attribute '"), "{text}");
    }
    let xattrs = (0..20).map(|n| (format!("user.{n}").into_bytes(), vec![0; 65536])).collect();
    said(Entry { xattrs, ..file(b"f", 10) }, None);
    assert_eq!(said(file(b"f", 11), None), "tar entry 'f': 1 bytes of its data are missing");
    assert!(said(file(b"f", 9), None).starts_with("tar entry 'f': more data than"));
    let piece = |offset, len| Piece { offset, len };
    let bad = [vec![piece(1, 512)], vec![piece(9, 2)], vec![piece(1, 0)], vec![piece(1, 1)]];
    for pieces in bad {
        assert!(
            said(file(b"f", 10), Some(pieces)).ends_with("its pieces of data are not in order")
        );
    }
}

#[test]
fn sizes_beyond_eight_gibibytes_are_in_a_record() {
    let mut start = Vec::new();
    let mut writer = Writer::new(&mut start);
    writer.start(&file(b"big", 1 << 33), None).unwrap();
    writer.data(&vec![0; 1 << 20]).unwrap();
    assert!(writer.finish().unwrap_err().to_string().ends_with("of its data are missing"));
    assert_eq!(start.len(), 512 * 3 + (1 << 20));
    let mut reader = super::super::Reader::new(start.as_slice(), super::super::Limits::default());
    assert_eq!(reader.next().unwrap().unwrap().what, What::File(1 << 33));
    // A sparse file as big is as small as its data.
    let pieces = vec![Piece { offset: (1 << 35) - 1, len: 1 }];
    let mut writer = Writer::new(Vec::new());
    writer.start(&file(b"holes", 1 << 35), Some(&pieces)).unwrap();
    writer.data(b"x").unwrap();
    let mut reader_of = writer.finish().unwrap();
    reader_of.truncate(reader_of.len() - 512);
    let mut reader =
        super::super::Reader::new(reader_of.as_slice(), super::super::Limits::default());
    assert_eq!(reader.next().unwrap().unwrap().what, What::File(1 << 35));
    assert_eq!(reader.data(&mut [0; 8]).unwrap(), Some(((1 << 35) - 1, 1)));
}

#[test]
fn gnu_tar_reads_what_is_written() {
    let mut items = zoo();
    // Without privileges there are neither devices nor owners.
    items.retain(|((entry, _), _)| !matches!(entry.what, What::Char(_) | What::Block(_)));
    // GNU tar splits a path that is too long to be made at once; names of 255 are fine.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.tar"), write(&items).unwrap()).unwrap();
    let args = ["--no-same-owner", "-C", "out", "-xf", "a.tar"];
    fs::create_dir(dir.path().join("out")).unwrap();
    output(dir.path(), "tar", &args);
    for ((entry, content), _) in &items {
        let path = dir.path().join("out").join(std::ffi::OsStr::from_bytes(&entry.path));
        let found = fs::symlink_metadata(&path).unwrap();
        match &entry.what {
            What::File(size) => {
                assert_eq!(found.len(), *size);
                assert!(fs::read(&path).unwrap() == *content);
            }
            What::Symlink(to) => {
                assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_bytes(), to);
            }
            What::Dir => assert!(found.is_dir()),
            _ => {}
        }
    }
    let found = fs::metadata(dir.path().join("out/dir/sparse")).unwrap();
    assert!(found.blocks() * 512 < 300_000, "the holes are holes");
    let time = fs::metadata(dir.path().join("out/time5")).unwrap();
    assert_eq!((time.mtime(), time.mtime_nsec()), (5, 120_000_000));
}

#[test]
fn python_reads_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.tar"), write(&zoo()).unwrap()).unwrap();
    let script = r#"
import tarfile, hashlib
for i in tarfile.open("a.tar", encoding="utf-8", errors="surrogateescape"):
    x = {k[13:]: v for k, v in i.pax_headers.items() if k.startswith("SCHILY.xattr.")}
    data = i.isreg() and tarfile.open("a.tar").extractfile(i).read() or b""
    data = hashlib.sha256(data).hexdigest()
    name = i.name.encode("utf-8", "surrogateescape").hex()
    link = i.linkname.encode("utf-8", "surrogateescape").hex()
    print(name, link, i.type.decode(), oct(i.mode), i.uid, i.gid, i.size, repr(float(i.mtime)),
          i.devmajor, i.devminor, len(x), data)
"#;
    let found = String::from_utf8(output(dir.path(), "python3", &["-c", script])).unwrap();
    let hex = |bytes: &[u8]| -> String {
        bytes
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .map(|digit| char::from_digit(digit.into(), 16).unwrap())
            .collect()
    };
    let mut expected = String::new();
    for ((entry, content), _) in zoo() {
        let (flag, link, rdev, size) = match &entry.what {
            What::File(size) => (0, &b""[..], 0, *size),
            What::HardLink(to) => (1, to.as_slice(), 0, 0),
            What::Symlink(to) => (2, to.as_slice(), 0, 0),
            What::Char(rdev) => (3, &b""[..], *rdev, 0),
            What::Block(rdev) => (4, &b""[..], *rdev, 0),
            What::Dir => (5, &b""[..], 0, 0),
            What::Fifo => (6, &b""[..], 0, 0),
        };
        #[allow(clippy::cast_precision_loss, reason = "python has it as a float, too")]
        let time = entry.mtime.sec as f64 + f64::from(entry.mtime.nsec) / 1e9;
        let content = super::super::super::digest::Digest::of(&content);
        let line = format!(
            "{} {} {flag} 0o{:o} {} {} {size} {time:?} {} {} {} {}\n",
            hex(&entry.path),
            hex(link),
            entry.perm,
            entry.uid,
            entry.gid,
            rustix::fs::major(rdev),
            rustix::fs::minor(rdev),
            entry.xattrs.len(),
            content.hex(),
        );
        expected.push_str(&line);
    }
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

fn paths() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![8 => b'a'..=b'c', 2 => Just(b'/'), 1 => 1..=255_u8];
    proptest::collection::vec(byte, 1..300)
}

fn entries() -> impl Strategy<Value = Entry> {
    let what = prop_oneof![
        (0..3000_u64).prop_map(What::File),
        Just(What::Dir),
        paths().prop_map(What::Symlink),
        paths().prop_map(What::HardLink),
        (0..=0xfff_u32, 0..=0xf_ffff_u32).prop_map(|(a, b)| What::Char(rustix::fs::makedev(a, b))),
        Just(What::Fifo),
    ];
    let time = (any::<i64>(), 0..1_000_000_000_u32, any::<bool>()).prop_map(|(sec, nsec, near)| {
        // The last representable second has no half before it.
        let sec = if near { sec % (1 << 34) } else { sec };
        Time { sec, nsec }
    });
    let name = proptest::collection::vec(
        any::<u8>().prop_filter("no name", |&byte| byte != 0 && byte != b'='),
        1..40,
    );
    let xattrs =
        proptest::collection::btree_map(name, proptest::collection::vec(any::<u8>(), 0..200), 0..4);
    (paths(), what, 0..0o10000_u16, 0..u32::MAX, 0..u32::MAX, time, xattrs).prop_map(
        |(path, what, perm, uid, gid, mtime, xattrs)| Entry {
            path,
            what,
            perm,
            uid,
            gid,
            mtime,
            xattrs: xattrs.into_iter().collect(),
        },
    )
}

proptest! {
    #[test]
    fn any_entries_come_back(
        entries in proptest::collection::vec((entries(), any::<u64>()), 0..6),
    ) {
        let items: Vec<_> = entries.into_iter().map(|(entry, cut)| {
            let size = if let What::File(size) = entry.what { size } else { 0 };
            let mut content = vec![0; usize::try_from(size).unwrap()];
            let (mut pieces, mut at) = (vec![], cut % 900);
            while cut % 2 == 1 && at < size {
                let piece = Piece { offset: at, len: (512 + at % 3 * 512).min(size - at) };
                content[usize::try_from(at).unwrap()] = b'd';
                pieces.push(piece);
                at += piece.len + cut % 300;
            }
            let sparse = (cut % 2 == 1 && matches!(entry.what, What::File(_))).then_some(pieces);
            ((entry, content), sparse)
        }).collect();
        let stream = write(&items).unwrap();
        prop_assert_eq!(read_all(&stream).unwrap(), expected(&items));
    }
}
