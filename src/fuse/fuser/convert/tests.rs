//! Times and types, there and back.

use super::*;

/// What fuser 0.18 makes of the two words of a SETATTR.
fn as_fuser_decodes(sec: i64, nsec: u32) -> SystemTime {
    if sec >= 0 {
        UNIX_EPOCH + Duration::new(sec.unsigned_abs(), nsec)
    } else {
        UNIX_EPOCH - Duration::new(sec.unsigned_abs(), nsec)
    }
}

const TIMES: [(i64, u32); 14] = [
    (0, 0),
    (0, 1),
    (1, 999_999_999),
    (-1, 0),
    (-1, 999_999_999),
    (-2, 800_000_000),
    (-2, 1),
    (4_294_967_296, 5),
    (-4_294_967_297, 7),
    (i64::MAX, 0),
    (i64::MAX, 999_999_999),
    (i64::MIN, 0),
    (i64::MIN + 1, 0),
    (i64::MIN + 1, 999_999_999),
];

#[test]
fn times_from_the_wire_are_exact() {
    for (sec, nsec) in TIMES {
        let time = Time { sec, nsec };
        assert_eq!(wire_time(as_fuser_decodes(sec, nsec)), time, "{time:?}");
    }
}

#[test]
fn times_to_the_wire_are_exact() {
    for (sec, nsec) in TIMES {
        let shown = system_time(Time { sec, nsec });
        // As fuser encodes: whole seconds downwards, nanoseconds counted up from there.
        let told = match shown.duration_since(UNIX_EPOCH) {
            Ok(d) => (i128::from(d.as_secs()), d.subsec_nanos()),
            Err(e) => match (i128::from(e.duration().as_secs()), e.duration().subsec_nanos()) {
                (secs, 0) => (-secs, 0),
                (secs, nanos) => (-secs - 1, 1_000_000_000 - nanos),
            },
        };
        assert_eq!(told, (i128::from(sec), nsec));
    }
}

#[test]
fn impossible_times_do_not_panic() {
    for sec in [i64::MIN, -1, 0, i64::MAX] {
        for nsec in [1_000_000_000, u32::MAX] {
            system_time(Time { sec, nsec });
        }
    }
}

#[test]
fn devices_fit_the_wire() {
    for (major, minor) in [(0, 0), (1, 3), (8, 255), (4095, 1_048_575), (259, 70_000)] {
        let rdev = libc::makedev(major, minor);
        assert_eq!(u64::from(wire_rdev(rdev)), rdev);
    }
}

#[test]
fn no_entry_has_node_id_0() {
    assert_eq!(no_entry().ino.0, 0);
}
