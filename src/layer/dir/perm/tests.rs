use super::*;

#[test]
fn what_is_widened_shows_what_it_was_given() {
    for kind in [Kind::File, Kind::Dir] {
        for perm in 0..=0o7777 {
            let real = widened(kind, perm);
            let need = if kind == Kind::File { 0o600 } else { 0o700 };
            assert_eq!(real & need, need);
            assert_eq!(real & 0o6077, perm & 0o6077, "{perm:o}: others get no more");
            let marked = (real != perm).then(|| mark(perm));
            assert_eq!(shown(real, marked), perm, "{perm:o}");
            assert_eq!(perm & need == need, marked.is_none());
        }
    }
    assert_eq!(widened(Kind::Fifo, 0), 0);
    assert_eq!(widened(Kind::File, 0o444), 0o1644);
    assert_eq!(widened(Kind::Dir, 0o555), 0o755);
}

#[test]
fn what_the_kernel_takes_away_is_gone() {
    // A write to a file that shows 04555.
    assert_eq!(shown(0o1755, Some(mark(0o4555))), 0o555);
}

#[test]
fn the_owner_in_an_acl() {
    let id = [0xff; 4];
    let entry = |tag: u8, bits: u8| [&[tag, 0, bits, 0][..], &id].concat();
    let acl = |owner| {
        let entries = [entry(1, owner), entry(4, 5), entry(0x10, 7), entry(0x20, 1)];
        [&ACL_VERSION[..], &entries.concat()].concat()
    };
    assert_eq!(acl_owner(&acl(4)), Some(0o400));
    assert_eq!(acl_with_owner(&acl(4), 0o7611), acl(6));
    assert_eq!(acl_with_owner(&acl(6), 0), acl(0));
    assert_eq!(with_owner(0o1675, 0o400, 0o644), 0o475);
    assert_eq!(with_owner(0o2775, 0o500, 0o1777), 0o3575);
    for bad in [&b""[..], b"\x01\0\0\0", b"\x02\0\0\0", &acl(4)[..8]] {
        assert_eq!(acl_owner(bad), None);
        assert_eq!(acl_with_owner(bad, 0o700), bad);
    }
}
