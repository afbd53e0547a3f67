use rustix::fs::{Mode, OFlags};

use super::*;

fn own() -> OwnedFd {
    rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// Who opens it again, to write.
fn reopened(program: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Whether it runs, as a program of tests does.
fn runs(program: &OwnedFd) -> bool {
    let path = format!("/proc/{}/fd/{}", std::process::id(), program.as_raw_fd());
    let output = std::process::Command::new(path).arg("--list").output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    output.status.success() && listed.contains("a_sealed_copy_runs_and_cannot_be_changed: test")
}

#[test]
fn a_sealed_copy_runs_and_cannot_be_changed() {
    let own = own();
    let copy = sealed_copy(&own).unwrap();
    assert!(is_shielded(&copy).unwrap());
    let size = |file: &OwnedFd| rustix::fs::fstat(file).unwrap().st_size;
    assert_eq!(size(&copy), size(&own));
    let again = reopened(&copy);
    let written = again.and_then(|again| rustix::io::pwrite(again, b"x", 0));
    assert!(written.is_err(), "{written:?}");
    assert_eq!(rustix::fs::ftruncate(&copy, 0), Err(rustix::io::Errno::PERM));
    assert!(runs(&copy));
}

#[test]
fn a_read_only_view_runs_and_cannot_be_changed() {
    if !crate::sys::process::has_sys_admin() {
        println!("skipped: needs CAP_SYS_ADMIN");
        return;
    }
    let view = read_only().unwrap();
    assert!(is_shielded(&view).unwrap());
    // Busy, as long as it runs; and the mode can be changed of what runs.
    assert!(reopened(&view).is_err());
    let path = format!("/proc/self/fd/{}", view.as_raw_fd());
    let again = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let changed = rustix::fs::fchmod(again, Mode::from_raw_mode(0o755));
    assert_eq!(changed, Err(rustix::io::Errno::ROFS));
    assert!(runs(&view));
}
