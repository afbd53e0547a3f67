//! Requests as the kernel lays them out.

use zerocopy::IntoBytes;

use super::*;

/// A request about node 5, with these parts after its header.
fn request(code: u32, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let header = wire::InHeader {
        len: u32::try_from(size_of::<wire::InHeader>() + body.len()).unwrap(),
        opcode: code,
        unique: 9,
        nodeid: 5,
        uid: 1,
        gid: 2,
        pid: 3,
        ..wire::InHeader::default()
    };
    [header.as_bytes(), &body].concat()
}

fn op(code: u32, parts: &[&[u8]]) -> std::result::Result<String, Malformed> {
    let bytes = request(code, parts);
    let layout = Layout { setxattr_ext: true };
    Request::parse(&bytes, layout).map(|request| format!("{:?}", request.op))
}

#[test]
fn the_header_says_who_asks() {
    let bytes = request(opcode::LOOKUP, &[b"name\0"]);
    let expected =
        Request { unique: 9, node: 5, uid: 1, gid: 2, pid: 3, op: Op::Lookup { name: b"name" } };
    assert_eq!(Request::parse(&bytes, Layout::default()), Ok(expected));
}

#[test]
fn names_end_with_nul() {
    let renamed = op(opcode::RENAME2, &[&7_u64.to_ne_bytes(), &2_u64.to_ne_bytes(), b"a\0b\0"]);
    let expected = Op::Rename { name: b"a", to: 7, new_name: b"b", flags: 2 };
    assert_eq!(renamed.unwrap(), format!("{expected:?}"));
    assert_eq!(op(opcode::LOOKUP, &[b"name"]), Err(Malformed { unique: Some(9) }));
    assert_eq!(op(opcode::SYMLINK, &[b"name\0target"]), Err(Malformed { unique: Some(9) }));
}

#[test]
fn times_before_1970_are_exact() {
    let set = wire::SetAttrIn {
        valid: fattr::MTIME | fattr::ATIME | fattr::ATIME_NOW | fattr::KILL_SUIDGID | fattr::MODE,
        mtime: (-2_i64).cast_unsigned(),
        mtimensec: 800_000_000,
        mode: 0o10_4755,
        ..wire::SetAttrIn::default()
    };
    let expected = SetAttr {
        perm: Some(0o4755),
        atime: Some(SetTime::Now),
        mtime: Some(SetTime::At(Time { sec: -2, nsec: 800_000_000 })),
        kill_set_id: true,
        ..SetAttr::default()
    };
    assert_eq!(set_attr(&set), expected);
}

#[test]
fn an_attribute_is_laid_out_as_agreed() {
    let parts: [&[u8]; 4] =
        [&3_u32.to_ne_bytes(), &1_u32.to_ne_bytes(), &[1, 0, 0, 0, 0, 0, 0, 0], b"user.a\0xyz"];
    let expected = Op::SetXattr { name: b"user.a", value: b"xyz", flags: 1, kill_set_gid: true };
    assert_eq!(op(opcode::SETXATTR, &parts).unwrap(), format!("{expected:?}"));
    let bytes = request(opcode::SETXATTR, &[parts[0], parts[1], parts[3]]);
    let request = Request::parse(&bytes, Layout::default()).unwrap();
    let expected = Op::SetXattr { name: b"user.a", value: b"xyz", flags: 1, kill_set_gid: false };
    assert_eq!(request.op, expected);
}

#[test]
fn nodes_are_forgotten_by_the_batch() {
    let [count, one, two]: [[u64; 2]; 3] = [[2, 0], [11, 1], [12, 3]];
    let count = wire::BatchForgetIn { count: u32::try_from(count[0]).unwrap(), dummy: 0 };
    let parts = [count.as_bytes(), one.as_bytes(), two.as_bytes()];
    let bytes = request(opcode::BATCH_FORGET, &parts);
    match Request::parse(&bytes, Layout::default()).unwrap().op {
        Op::BatchForget(nodes) => assert_eq!(nodes.collect::<Vec<_>>(), [(11, 1), (12, 3)]),
        other => panic!("{other:?}"),
    }
    // More than there are, and more than there can be.
    for count in [3, u32::MAX] {
        let count = wire::BatchForgetIn { count, dummy: 0 };
        assert!(op(opcode::BATCH_FORGET, &[count.as_bytes(), one.as_bytes()]).is_err());
    }
}

#[test]
fn extensions_are_no_part_of_the_name() {
    let mut bytes = request(opcode::MKDIR, &[&[0; 8], b"d\0\0\0\0\0\0\0", &[1; 16]]);
    bytes[36] = 2;
    let request = Request::parse(&bytes, Layout::default()).unwrap();
    assert_eq!(request.op, Op::MkDir { name: b"d", mode: 0, umask: 0 });
    bytes[36] = 200;
    assert!(Request::parse(&bytes, Layout::default()).is_err());
}

#[test]
fn the_offer_may_be_long_or_short() {
    let init = |flags: u64, more: &[u8]| {
        let flags = u32::try_from(flags).unwrap();
        let init = wire::InitIn { major: 7, minor: 45, max_readahead: 1, flags };
        op(opcode::INIT, &[init.as_bytes(), more])
    };
    let expected = |flags| Op::Init(Offer { version: (7, 45), max_readahead: 1, flags });
    assert_eq!(init(8, &[]).unwrap(), format!("{:?}", expected(8)));
    let ext = wire::InitExt { flags2: 1 << 8, unused: [0; 11] };
    let flags = wire::init::INIT_EXT | 1 << 40;
    let long = init(wire::init::INIT_EXT, ext.as_bytes());
    assert_eq!(long.unwrap(), format!("{:?}", expected(flags)));
    assert!(init(wire::init::INIT_EXT, &[]).is_err());
}

#[test]
fn what_is_too_short_is_malformed() {
    assert_eq!(Request::parse(b"", Layout::default()), Err(Malformed { unique: None }));
    for code in 0..70 {
        let whole = request(code, &[&[0; 128]]);
        for len in 0..whole.len() {
            // Its length says that more should have come.
            assert!(Request::parse(&whole[..len], Layout::default()).is_err(), "{code} {len}");
        }
    }
    assert_eq!(op(999, &[b"anything"]).unwrap(), "Unknown(999)");
}

#[test]
fn opening_for_reading_is_no_long_work() {
    let open = |flags| Op::Open { flags, kill_set_id: false }.may_take_long();
    assert!(!open(libc::O_RDONLY) && !open(libc::O_RDONLY | libc::O_NOFOLLOW));
    assert!(open(libc::O_RDONLY | libc::O_TRUNC) && open(libc::O_WRONLY) && open(libc::O_RDWR));
}
