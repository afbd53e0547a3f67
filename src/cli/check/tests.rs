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
    assert_eq!(found(work), ["warning work/incompat/volatile"]);
    write(work.join("work/#5"), "half").unwrap();
    create_dir_all(work.join("index")).unwrap();
    write(work.join("index/00fb1d00"), "").unwrap();
    write(work.join("index/notes.txt"), "").unwrap();
    assert_eq!(
        found(work),
        ["warning work/incompat/volatile", "note work", "warning index/notes.txt"]
    );
}
