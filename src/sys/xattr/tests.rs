use std::os::fd::AsFd;

use rustix::fs::{CWD, Mode, OFlags};

use super::*;

/// Runs the same checks on the calls of new kernels and of old ones.
fn both_families(check: impl Fn()) {
    check();
    OLD_KERNEL.store(true, Ordering::Relaxed);
    check();
    OLD_KERNEL.store(false, Ordering::Relaxed);
}

#[test]
fn attributes_are_set_listed_read_and_removed_without_opening() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("f"), "").unwrap();
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let dir = rustix::fs::openat(CWD, temp.path(), flags, Mode::empty()).unwrap();
    let pinned = Object::Entry(dir.as_fd(), b"f").pin().unwrap();
    both_families(|| {
        let entry = Object::Entry(dir.as_fd(), b"f");
        for object in [entry, Object::Itself(pinned.as_fd()), Object::dir(&dir)] {
            assert_eq!(get(object, b"user.a").unwrap(), None);
            let value = vec![7; 1500];
            set(object, b"user.a", &value, libc::XATTR_CREATE).unwrap();
            set(object, b"user.\xff", b"", 0).unwrap();
            let again = set(object, b"user.a", b"x", libc::XATTR_CREATE).unwrap_err();
            assert_eq!(again.errno(), Errno::EEXIST);
            assert_eq!(get(object, b"user.a").unwrap().unwrap(), value);
            assert_eq!(get(object, b"user.\xff").unwrap().unwrap(), b"");
            let mut names = list(object).unwrap();
            names.retain(|name| name.starts_with(b"user."));
            names.sort();
            assert_eq!(names, [b"user.a".to_vec(), b"user.\xff".to_vec()]);
            remove(object, b"user.a").unwrap();
            remove(object, b"user.\xff").unwrap();
            assert_eq!(remove(object, b"user.a").unwrap_err().errno(), Errno::ENODATA);
        }
    });
}

#[test]
fn a_symlink_is_not_followed() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("f"), "").unwrap();
    std::os::unix::fs::symlink("f", temp.path().join("l")).unwrap();
    let dir = rustix::fs::openat(CWD, temp.path(), OFlags::PATH, Mode::empty()).unwrap();
    set(Object::Entry(dir.as_fd(), b"f"), b"user.a", b"1", 0).unwrap();
    let pinned = Object::Entry(dir.as_fd(), b"l").pin().unwrap();
    both_families(|| {
        let entry = Object::Entry(dir.as_fd(), b"l");
        for object in [entry, Object::Itself(pinned.as_fd())] {
            assert_eq!(get(object, b"user.a").unwrap(), None);
            assert!(set(object, b"user.b", b"1", 0).is_err());
        }
    });
}
