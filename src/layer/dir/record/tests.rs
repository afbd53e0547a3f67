use super::*;

fn record(marks: &[(&[u8], &[u8])]) -> Record {
    Record(marks.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
}

#[test]
fn any_bytes_come_back() {
    let all: Vec<u8> = (0..=255).collect();
    for marks in [
        record(&[]),
        record(&[(b"opaque", b"y")]),
        record(&[(b"plyfs.ino", b"17"), (b"redirect", b"/a b=c%20\n"), (b"metacopy", b"")]),
        record(&[(b"origin", &all)]),
    ] {
        let text = marks.encode();
        assert!(!text.contains(&0) && !text.contains(&b'\n'), "{}", text.escape_ascii());
        assert_eq!(Record::decode(&text).unwrap(), marks);
    }
    assert_eq!(record(&[(b"plyfs.ino", b"17")]).encode(), b"plyfs1 plyfs.ino=17");
}

#[test]
fn what_is_no_record_is_refused_and_not_taken_for_one() {
    let table: [&[u8]; 10] = [
        b"",
        b"plyfs2 opaque=y",
        b"plyfs1 opaque",
        b"plyfs1  opaque=y",
        b"plyfs1 opaque=y ",
        b"plyfs1 opaque=%2",
        b"plyfs1 opaque=%g0",
        b"plyfs1 opaque=\x01",
        b"plyfs1 a=b=c",
        b"plyfs1\0",
    ];
    for text in table {
        let error = Record::decode(text).unwrap_err();
        assert_eq!(error.errno(), Errno::EIO, "{}", text.escape_ascii());
    }
}

#[test]
fn a_mark_is_there_once() {
    let mut marks = record(&[(b"nlink", b"L+0"), (b"plyfs.ino", b"5")]);
    marks.set(b"nlink", b"U+1");
    assert_eq!(marks, record(&[(b"plyfs.ino", b"5"), (b"nlink", b"U+1")]));
    assert!(marks.take(b"nlink") && !marks.take(b"nlink"));
    assert_eq!(marks, record(&[(b"plyfs.ino", b"5")]));
}
