//! The tables of posix_acl_create_masq.

use super::{Inherited, inherit};

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, perm, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perm.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const NONE: u32 = u32::MAX;

#[test]
fn a_minimal_acl_is_only_a_mask_of_the_mode() {
    let default = acl(&[(1, 7, NONE), (4, 5, NONE), (0x20, 0, NONE)]);
    assert_eq!(inherit(&default, 0o666), Some(Inherited { perm: 0o640, access: None }));
    assert_eq!(inherit(&default, 0o2777), Some(Inherited { perm: 0o2750, access: None }));
}

#[test]
fn a_named_user_is_kept_and_the_mask_takes_the_group_bits() {
    let default =
        acl(&[(1, 7, NONE), (2, 7, 1000), (4, 5, NONE), (0x10, 7, NONE), (0x20, 5, NONE)]);
    let expected =
        acl(&[(1, 6, NONE), (2, 7, 1000), (4, 5, NONE), (0x10, 6, NONE), (0x20, 4, NONE)]);
    let got = inherit(&default, 0o666);
    assert_eq!(got, Some(Inherited { perm: 0o664, access: Some(expected) }));
}

#[test]
fn what_is_no_acl_is_refused() {
    assert_eq!(inherit(b"", 0o644), None);
    assert_eq!(inherit(&[2, 0, 0, 0], 0o644), None);
    assert_eq!(inherit(&[1, 0, 0, 0, 1, 0, 7, 0, 0, 0, 0, 0], 0o644), None);
    assert_eq!(inherit(&[2, 0, 0, 0, 1, 0, 7], 0o644), None);
}
