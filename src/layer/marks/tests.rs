use std::convert::Infallible;

use super::*;

fn decode_one(name: &str, value: &[u8]) -> Decoded {
    decode_all(&[(name, value)])
}

fn decode_all(attrs: &[(&str, &[u8])]) -> Decoded {
    let names: Vec<_> = attrs.iter().map(|(name, _)| name.as_bytes().to_vec()).collect();
    let get = |wanted: &[u8]| {
        let found = attrs.iter().find(|(name, _)| name.as_bytes() == wanted);
        Ok::<_, Infallible>(found.map(|(_, value)| value.to_vec()))
    };
    let Ok(decoded) = decode(&names, get);
    decoded
}

#[test]
fn what_a_user_names_like_a_mark_is_escaped_and_comes_back() {
    let table: [(&[u8], &[u8]); 5] = [
        (b"trusted.overlay.opaque", b"trusted.overlay.overlay.opaque"),
        (b"user.overlay.x", b"user.overlay.overlay.x"),
        (b"user.fuseoverlayfs.opaque", b"user.fuseoverlayfs.overlay.opaque"),
        (b"trusted.overlay.overlay.opaque", b"trusted.overlay.overlay.overlay.opaque"),
        (b"user.overlay.\xff\xfe", b"user.overlay.overlay.\xff\xfe"),
    ];
    for (seen, stored) in table {
        assert_eq!(escape(seen).unwrap(), stored);
        assert_eq!(unescape(stored).unwrap(), seen);
        assert!(!is_private(stored), "{}", stored.escape_ascii());
        assert_eq!(classify(stored), Class::Plain);
    }
}

#[test]
fn other_names_stay() {
    let names: [&[u8]; 6] = [
        b"user.overlayx",
        b"trusted.overlay",
        b"trusted.md5",
        b"security.capability",
        b"user.xoverlay.opaque",
        b"\xff",
    ];
    for name in names {
        assert_eq!(escape(name), None);
        assert_eq!(unescape(name).unwrap(), name);
        assert!(!is_private(name));
    }
}

#[test]
fn marks_are_hidden() {
    for prefix in ["trusted.overlay.", "user.overlay.", "user.fuseoverlayfs."] {
        for name in ["opaque", "redirect", "origin", "anything", "", "plyfs.ino", "plyfs.new"] {
            let stored = format!("{prefix}{name}");
            assert!(is_private(stored.as_bytes()), "{stored}");
            assert_eq!(unescape(stored.as_bytes()), None);
        }
    }
}

#[test]
fn every_mark_comes_back_as_it_was_written() {
    let upper = Nlink { base: NlinkBase::Upper, delta: 1 };
    let lower = Nlink { base: NlinkBase::Lower, delta: -2 };
    let nothing = Marks::default;
    let table = [
        (Mark::Opaque, Marks { opaque: true, ..nothing() }),
        (Mark::Impure, Marks { impure: true, ..nothing() }),
        (Mark::Redirect(b"/a/\xffb"), Marks { redirect: Some((*b"/a/\xffb").into()), ..nothing() }),
        (Mark::Ino(u64::MAX), Marks { ino: Some(u64::MAX), ..nothing() }),
        (Mark::LowerNlink(2), Marks { lower_nlink: Some(2), ..nothing() }),
        (Mark::Nlink(upper), Marks { nlink: Some(upper), ..nothing() }),
        (Mark::Nlink(lower), Marks { nlink: Some(lower), ..nothing() }),
        (Mark::Origin(b"xyz"), nothing()),
    ];
    for namespace in [Namespace::Trusted, Namespace::User] {
        for (mark, marks) in &table {
            let (tag, value) = encode(mark);
            let name = String::from_utf8(tag.stored(namespace)).unwrap();
            let decoded = decode_one(&name, &value);
            assert_eq!(decoded, Decoded { marks: marks.clone(), ..Decoded::default() });
        }
    }
    assert_eq!(encode(&Mark::Nlink(upper)).1, b"U+1");
    assert_eq!(encode(&Mark::Nlink(lower)).1, b"L-2");
    let (tag, _) = encode(&Mark::Opaque);
    assert_eq!(tag.stored(Namespace::Trusted), b"trusted.overlay.opaque");
}

#[test]
fn permission_bits_are_read_as_they_are_written() {
    for perm in [0, 0o1, 0o400, 0o1777] {
        let decoded = decode_one("user.overlay.plyfs.perm", &encode_perm(perm));
        assert_eq!(decoded, Decoded { perm: Some(perm), ..Decoded::default() });
    }
    for value in ["", "8", "+7", "4755", "2000", "1111111", " 7"] {
        let decoded = decode_one("user.overlay.plyfs.perm", value.as_bytes());
        assert!(decoded.perm.is_none() && decoded.marks.unknown.is_some(), "{value:?}");
    }
}

#[test]
fn the_origin_is_read_where_a_link_count_is() {
    let decoded =
        decode_all(&[("trusted.overlay.origin", b"\0\xfbabc"), ("trusted.overlay.nlink", b"U+0")]);
    assert_eq!(decoded.marks.origin.unwrap().as_ref(), b"\0\xfbabc");
}

#[test]
fn what_is_not_followed_is_named() {
    let table: [(&str, &[u8]); 13] = [
        ("trusted.overlay.verity", b""),
        ("user.overlay.\x7fodd", b""),
        ("trusted.overlay.metacopy", b"\0\x24\0\x01digest"),
        ("trusted.overlay.opaque", b"z"),
        ("trusted.overlay.nlink", b"U1"),
        ("trusted.overlay.nlink", b"X+1"),
        ("trusted.overlay.nlink", b"U+99999999999"),
        ("trusted.overlay.redirect", b"../escape"),
        ("trusted.overlay.redirect", b"/a/../../escape"),
        ("trusted.overlay.redirect", b"/a//b"),
        ("trusted.overlay.redirect", b"a\0b"),
        ("trusted.overlay.plyfs.ino", b"0"),
        ("trusted.overlay.plyfs.kind", b"b8:0"),
    ];
    for (name, value) in table {
        let unknown = decode_one(name, value).marks.unknown;
        let unknown = unknown.unwrap_or_else(|| panic!("{name} was taken"));
        assert!(unknown.starts_with(&name.as_bytes().escape_ascii().to_string()), "{unknown}");
    }
}

#[test]
fn what_means_nothing_for_reading_is_passed_over() {
    for name in [
        "trusted.overlay.upper",
        "trusted.overlay.uuid",
        "user.overlay.plyfs.later",
        // Who looks at owners there asks for it by name.
        "user.fuseoverlayfs.override_stat",
    ] {
        assert_eq!(decode_one(name, b"?"), Decoded::default());
    }
    let escaped = decode_one("trusted.overlay.overlay.opaque", b"y");
    assert_eq!(escaped, Decoded::default());
}

#[test]
fn marks_of_the_layer_alone_are_told_apart() {
    assert!(decode_one("trusted.overlay.opaque", b"x").xattr_whiteouts);
    assert!(!decode_one("trusted.overlay.opaque", b"x").marks.opaque);
    assert!(decode_one("user.overlay.whiteout", b"y").whiteout);
    assert!(decode_one("user.overlay.plyfs.literal", b"y").literal);
    assert!(decode_one("user.overlay.plyfs.kind", b"c0:0").char_zero);
    assert!(decode_one("user.overlay.plyfs.escapes", b"y").escapes);
    assert!(decode_one("trusted.overlay.metacopy", b"").marks.metacopy);
    assert!(decode_one("trusted.overlay.metacopy", b"\0\x04\0\0").marks.metacopy);
    assert!(decode_one("system.posix_acl_default", b"").marks.default_acl);
}

#[test]
fn an_origin_has_the_form_of_the_kernel() {
    let uuid: [u8; 16] = std::array::from_fn(|i| u8::try_from(i).unwrap());
    let fb = encode_origin(&uuid, 1, b"\x01\x02\x03\x04\xff\x00\x00\x00").unwrap();
    assert_eq!(fb.len(), 29);
    assert_eq!(fb[..5], [0, 0xfb, 29, u8::from(cfg!(target_endian = "big")), 1]);
    assert_eq!(fb[5..21], uuid);
    assert!(index_name(&fb).starts_with(b"00fb1d0"));
    assert_eq!(encode_origin(&uuid, 1, &[0; 240]), None);
    assert_eq!(encode_origin(&uuid, 999, b""), None);
}
