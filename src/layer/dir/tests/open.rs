//! Opening an upper directory: what is refused, and what a crash left behind.

use super::*;
use crate::errno::Errno;

fn refused(place: &Place) -> (Errno, String) {
    let error = place.try_upper().unwrap_err();
    (error.errno(), error.to_string())
}

#[test]
fn an_upper_is_used_once() {
    let place = Place::new();
    let upper = place.open_upper();
    let (errno, text) = refused(&place);
    assert_eq!(errno, Errno::EBUSY);
    assert!(text.contains("in use by another mount"), "{text}");
    // With a work directory of its own, too.
    let other = tempfile::tempdir().unwrap();
    let second = DirUpper::open(&place.upper(""), other.path(), UpperOptions::default());
    assert_eq!(second.unwrap_err().errno(), Errno::EBUSY);
    drop(upper);
    place.open_upper();
}

#[test]
fn a_work_directory_elsewhere_is_refused() {
    let place = Place::new();
    let temp = std::env::temp_dir();
    let shm = Path::new("/dev/shm");
    let elsewhere = if temp.starts_with(shm) { Path::new("/var/tmp") } else { shm };
    let work = tempfile::tempdir_in(elsewhere).unwrap();
    let error = DirUpper::open(&place.upper(""), work.path(), UpperOptions::default());
    assert_eq!(error.unwrap_err().errno(), Errno::EXDEV);
    assert_eq!(std::fs::read_dir(work.path()).unwrap().count(), 0);
}

#[test]
fn directories_in_one_another_are_refused() {
    let place = Place::new();
    std::fs::create_dir(place.upper("inside")).unwrap();
    std::os::unix::fs::symlink(place.upper("inside"), place.0.path().join("link")).unwrap();
    let pairs = [
        (place.upper(""), place.upper("inside")),
        (place.upper("inside"), place.upper("")),
        (place.upper(""), place.upper("")),
        (place.upper(""), place.0.path().join("link")),
    ];
    for (upper, work) in pairs {
        let error = DirUpper::open(&upper, &work, UpperOptions::default()).unwrap_err();
        assert_eq!(error.errno(), Errno::EINVAL);
        assert!(error.to_string().contains("lie in one another"), "{error}");
    }
}

#[test]
fn a_work_directory_with_foreign_things_is_left_alone() {
    let place = Place::new();
    std::fs::write(place.work("thesis.tex"), "years").unwrap();
    std::fs::create_dir(place.work("work")).unwrap();
    std::fs::write(place.work("work/x"), "").unwrap();
    let (errno, text) = refused(&place);
    assert_eq!(errno, Errno::ENOTEMPTY);
    assert!(text.contains("thesis.tex"), "{text}");
    assert!(place.work("work/x").exists());
}

/// fuse-overlayfs empties and moves what it replaces into its work directory, under numbers.
#[test]
fn what_fuse_overlayfs_leaves_in_its_work_directory_is_no_obstacle() {
    let place = Place::new();
    std::fs::create_dir_all(place.work("7/inside")).unwrap();
    std::fs::write(place.work("12"), "").unwrap();
    drop(place.open_upper());
    assert!(place.work("7/inside").exists() && place.work("12").exists());
}

#[test]
fn what_a_crash_left_behind_is_swept() {
    let place = Place::new();
    let closed = place.work("work/a/b/c");
    std::fs::create_dir_all(&closed).unwrap();
    std::fs::write(closed.join("f"), "").unwrap();
    char_zero(&closed.join("w"));
    std::os::unix::fs::symlink("/", place.work("work/link")).unwrap();
    for dir in ["work/a/b/c", "work/a/b", "work/a", "work"] {
        let mode = Mode::from_raw_mode(0);
        rustix::fs::chmodat(CWD, place.work(dir), mode, rustix::fs::AtFlags::empty()).unwrap();
    }
    let upper = place.open_upper();
    assert_eq!(std::fs::read_dir(place.work("work")).unwrap().count(), 0);
    drop(upper);
    // As a whole program would leave it.
    let upper = place.open_upper();
    upper.stage(&new(What::Dir, 0)).unwrap();
    assert_eq!(place.leftovers().len(), 1);
    drop(upper);
    place.open_upper();
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

#[test]
fn a_volatile_upper_is_refused_after_a_crash_only() {
    let volatile = UpperOptions { volatile: true };
    let place = Place::new();
    let open = || DirUpper::open(&place.upper(""), &place.work(""), volatile);
    let upper = open().unwrap();
    file(&upper, "f", b"");
    assert!(place.work("work/incompat/volatile").exists());
    upper.close().unwrap();
    drop(upper);
    assert!(!place.work("work/incompat").exists());
    drop(open().unwrap());
    let (errno, text) = refused(&place);
    assert_eq!(errno, Errno::EINVAL);
    assert!(text.contains("volatile") && text.contains("work/incompat"), "{text}");
    std::fs::remove_dir_all(place.work("work/incompat")).unwrap();
    drop(open().unwrap());
    std::fs::rename(place.work("work/incompat/volatile"), place.work("work/incompat/new")).unwrap();
    let (errno, text) = refused(&place);
    assert_eq!(errno, Errno::EINVAL);
    assert!(text.contains("does not know: new"), "{text}");
}

#[test]
fn staging_inherits_nothing_from_the_work_directory() {
    let place = Place::new();
    let mode = Mode::from_raw_mode(0o2777);
    rustix::fs::chmodat(CWD, place.work(""), mode, rustix::fs::AtFlags::empty()).unwrap();
    rustix::fs::chownat(
        CWD,
        place.work(""),
        None,
        Some(rustix::fs::Gid::from_raw(7)),
        rustix::fs::AtFlags::empty(),
    )
    .unwrap();
    rustix::fs::chmodat(CWD, place.work(""), mode, rustix::fs::AtFlags::empty()).unwrap();
    let acl = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\
                \x20\0\0\0\xff\xff\xff\xff";
    set_xattr(&place.work(""), "system.posix_acl_default", acl);
    let upper = place.open_upper();
    let staged = upper.stage(&new(What::Dir, 0o777)).unwrap();
    let attr = upper.attr(staged.id).unwrap();
    assert_eq!((attr.perm, attr.gid), (0o777, 0));
    assert_eq!(upper.listxattr(staged.id).unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn the_probe_tells_what_this_filesystem_can() {
    let place = Place::new();
    let probe = probe::probe(&place.upper("")).unwrap();
    assert!(probe.exchange && probe.no_replace && probe.tmpfile && probe.d_type, "{probe:?}");
    assert_eq!(std::fs::read_dir(place.upper("")).unwrap().count(), 0);
    if crate::sys::process::has_sys_admin() {
        assert_eq!(probe.namespace, Some(crate::layer::marks::Namespace::Trusted));
        assert!(probe.char_whiteouts && probe.rename_whiteout, "{probe:?}");
    }
    assert_eq!(probe::probe(&place.upper("missing")).unwrap_err().errno(), Errno::ENOENT);
}

#[test]
fn a_filesystem_without_attributes_is_refused_with_advice() {
    let able = probe::Probe {
        namespace: Some(crate::layer::marks::Namespace::User),
        char_whiteouts: false,
        rename_whiteout: false,
        exchange: true,
        no_replace: true,
        tmpfile: false,
        reflink: false,
        d_type: true,
        handles: false,
        identity: false,
        symlinks: true,
        overrides: false,
    };
    assert!(able.require().is_ok());
    for unable in [
        probe::Probe { namespace: None, ..able },
        probe::Probe { namespace: None, char_whiteouts: true, ..able },
        probe::Probe { namespace: None, identity: true, ..able },
        probe::Probe { symlinks: false, ..able },
        probe::Probe { exchange: false, ..able },
        probe::Probe { no_replace: false, ..able },
    ] {
        let error = unable.require().unwrap_err();
        assert_eq!(error.errno(), Errno::EOPNOTSUPP);
        assert!(error.to_string().contains("ext4"), "{error}");
    }
}
