//! The built program on a disk that becomes full, at every amount of space that is left: it works,
//! or says that there is no room and leaves everything as it was; what makes room works without
//! any. `PLYFS_FULL_STEPS` says how many amounts.

use crate::program::{FILESYSTEMS, Stand, WORKS, Work};

fn steps() -> u64 {
    std::env::var("PLYFS_FULL_STEPS").map_or(2, |count| count.parse().unwrap())
}

/// How much space the work takes while it is done, in bytes: at least what it takes afterwards.
fn needed(stand: &Stand, work: &Work) -> u64 {
    (work.prepare)(stand);
    let mut least = stand.free();
    let before = least;
    let mut child = stand.start(work.command);
    while child.try_wait().unwrap().is_none() {
        least = least.min(stand.free());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    (before - least).max(64 << 10)
}

/// Without room for it, on one filesystem.
fn full(work: &Work, fs: &'static str) {
    let stand = Stand::new(fs);
    let needed = needed(&stand, work);
    let steps = steps();
    let mut refused = 0;
    for step in 0..=steps {
        (work.prepare)(&stand);
        assert_eq!(stand.shown(), work.shown(false), "{fs}: {}", work.name);
        let left = needed * step / steps;
        stand.leave_free(Some(left));
        let output = stand.plyfs(work.command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let status = output.status;
        let when = format!("{} with {left} of {needed} bytes: {status}: {said}", work.name);
        stand.leave_free(None);
        let done = output.status.success();
        if !done {
            refused += 1;
            assert!(said.contains("No space left"), "{fs}: {when}");
            assert!(!work.removes, "{fs}: {when}");
        }
        let shown = stand.shown();
        // A command that failed in its container was run all the same.
        let kept = work.name == "run --keep" && shown == work.shown(true);
        assert!(shown == work.shown(done) || kept, "{fs}: {when}: {shown:?}");
        stand.assert_heals(&when);
        if !done {
            (work.prepare)(&stand);
            stand.ok(work.command);
        }
        assert_eq!(stand.shown(), work.shown(true), "{fs}: {when}");
        stand.assert_heals(&when);
    }
    assert!(refused > 0 || work.removes, "{fs}: {}: there was room every time", work.name);
}

#[test]
fn what_adds_says_that_there_is_no_room_and_leaves_nothing() {
    for work in WORKS.iter().filter(|work| !work.removes) {
        for fs in FILESYSTEMS {
            full(work, fs);
        }
    }
}

#[test]
fn what_removes_needs_no_room() {
    for work in WORKS.iter().filter(|work| work.removes) {
        for fs in FILESYSTEMS {
            full(work, fs);
        }
    }
}
