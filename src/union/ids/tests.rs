//! Translation of owners, ACLs and capabilities; and what a union makes of it.

use super::*;

fn range(stored: u32, shown: u32, len: u32) -> Range {
    Range { stored, shown, len }
}

/// The map of podman's manual: 0 is the user itself, 1 to 65536 its subordinate ids.
fn podman() -> IdMap {
    IdMap::new(vec![range(0, 1000, 1), range(1, 110_000, 65536)]).unwrap()
}

#[test]
fn ids_in_a_range_have_a_counterpart_and_others_none() {
    let map = podman();
    for (stored, shown) in [(0, 1000), (1, 110_000), (65536, 175_535)] {
        assert_eq!((map.shown(stored), map.stored(shown).unwrap()), (shown, stored));
    }
    assert_eq!(map.shown(65537), OVERFLOW);
    for nobody in [0, 999, 1001, 109_999, 175_536, OVERFLOW, u32::MAX] {
        assert_eq!(map.stored(nobody).unwrap_err().errno(), Errno::EOVERFLOW, "{nobody}");
    }
    // What the machine's root puts there is the container's root's; no others' is anybody's.
    assert_eq!((map.made_by(0).unwrap(), map.made_by(1000).unwrap()), (0, 0));
    assert_eq!(map.made_by(OVERFLOW).unwrap_err().errno(), Errno::EOVERFLOW);
    let rootless = IdMap::new(vec![range(1, 110_000, 65536)]).unwrap();
    assert_eq!(rootless.made_by(0).unwrap_err().errno(), Errno::EOVERFLOW);
    let none = IdMap::default();
    assert_eq!((none.shown(7), none.stored(u32::MAX).unwrap()), (7, u32::MAX));
}

#[test]
fn ranges_that_contradict_each_other_are_refused() {
    for ranges in [
        vec![range(0, 0, 0)],
        vec![range(u32::MAX, 0, 1)],
        vec![range(0, 1, u32::MAX)],
        vec![range(0, 100, 10), range(9, 200, 1)],
        vec![range(0, 100, 10), range(10, 109, 1)],
        vec![range(5, 100, 1), range(0, 200, 10)],
    ] {
        assert_eq!(IdMap::new(ranges.clone()).unwrap_err().errno(), Errno::EINVAL, "{ranges:?}");
    }
    IdMap::new(vec![range(0, 100, 10), range(10, 90, 10), range(20, 110, 10)]).unwrap();
    IdMap::new(vec![range(0, 1, u32::MAX - 1)]).unwrap();
}

#[test]
fn squashing_hides_owners_and_keeps_what_is_given() {
    let map = podman().squashed(5, None);
    assert_eq!((map.shown(0), map.shown(70_000)), (5, 5));
    assert_eq!(map.stored(110_000).unwrap(), 1);
    let kept = IdMap::default().squashed(0, Some(1000));
    assert_eq!((kept.shown(33), kept.stored(33).unwrap()), (0, 1000));
}

fn acl_of(user: u32, group: u32) -> Vec<u8> {
    let mut acl = vec![2, 0, 0, 0];
    for (tag, perm, id) in [
        (0x01_u16, 7_u16, u32::MAX),
        (0x02, 6, user),
        (0x04, 5, u32::MAX),
        (0x08, 4, group),
        (0x10, 7, u32::MAX),
        (0x20, 0, u32::MAX),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(perm.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

#[test]
fn acls_name_users_and_groups_as_files_do() {
    let ids = Ids { users: podman(), groups: IdMap::new(vec![range(0, 500, 100)]).unwrap() };
    for name in [acl::ACCESS, acl::DEFAULT] {
        assert_eq!(ids.shown_value(name, acl_of(0, 7)), acl_of(1000, 507));
        assert_eq!(ids.stored_value(name, &acl_of(1000, 507)).unwrap(), acl_of(0, 7));
        assert_eq!(ids.shown_value(name, acl_of(70_000, 7)), acl_of(OVERFLOW, 507));
        let refused = ids.stored_value(name, &acl_of(OVERFLOW, 507)).unwrap_err();
        assert_eq!(refused.errno(), Errno::EOVERFLOW);
    }
    assert_eq!(ids.shown_value(b"user.acl", acl_of(0, 7)), acl_of(0, 7));
    // What is no ACL passes unharmed: the filesystem below says so.
    for torn in [&[][..], &[2, 0, 0, 0, 2], &[2, 0, 0, 0, 2, 0, 6, 0, 9]] {
        assert_eq!(ids.stored_value(acl::ACCESS, torn).unwrap(), torn);
    }
}

fn capability_of(root: Option<u32>) -> Vec<u8> {
    let revision = if root.is_some() { 0x0300_0001_u32 } else { 0x0200_0001 };
    let mut value = revision.to_le_bytes().to_vec();
    value.extend([0xaa; 16]);
    value.extend(root.iter().flat_map(|root| root.to_le_bytes()));
    value
}

#[test]
fn capabilities_are_those_of_the_root_that_is_shown() {
    let ids = Ids { users: podman(), groups: IdMap::default() };
    // What an image holds means root, which is another user here: and the other way round.
    assert_eq!(ids.shown_value(CAPABILITY, capability_of(None)), capability_of(Some(1000)));
    let stored = |root| ids.stored_value(CAPABILITY, &capability_of(root));
    assert_eq!(stored(Some(1000)).unwrap(), capability_of(None));
    assert_eq!(stored(Some(110_002)).unwrap(), capability_of(Some(3)));
    assert_eq!(stored(None).unwrap_err().errno(), Errno::EOVERFLOW);
    for odd in [&b""[..], b"xyz", &[1, 0, 0, 1, 0, 0], &[0; 24]] {
        assert_eq!(ids.stored_value(CAPABILITY, odd).unwrap(), odd);
    }
}
