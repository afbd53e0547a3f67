//! The work directory.

use std::fs::{create_dir_all, write};

use super::*;

fn found(work: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    work_dir(work, &mut |finding| {
        let path = String::from_utf8_lossy(&finding.path).into_owned();
        lines.push(format!("{} {path}", finding.severity.word()));
        Ok(())
    })
    .unwrap();
    lines
}

#[test]
fn what_is_left_behind_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let work = temp.path();
    assert_eq!(found(work), [""; 0]);
    create_dir_all(work.join("work/incompat/volatile")).unwrap();
    assert_eq!(found(work), ["error work/incompat/volatile"]);
    write(work.join("work/#5"), "half").unwrap();
    create_dir_all(work.join("index")).unwrap();
    write(work.join("index/00fb1d00"), "").unwrap();
    write(work.join("index/notes.txt"), "").unwrap();
    assert_eq!(
        found(work),
        [
            "error work/incompat/volatile",
            "note work",
            "warning index/00fb1d00",
            "warning index/notes.txt"
        ]
    );
}

#[test]
fn a_mount_in_use_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let options = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let mode = rustix::fs::Mode::empty();
    let held = rustix::fs::open(temp.path(), options, mode).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    create_dir_all(temp.path().join("work/#1")).unwrap();
    assert_eq!(found(temp.path()), ["note "]);
}
