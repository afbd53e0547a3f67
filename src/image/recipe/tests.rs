//! Recipes written by hand, and what is wrong with them.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::{Writer, rebuild};
use crate::errno::{Errno, Result};

fn write(dir: &Path, write: impl FnOnce(&mut Writer) -> Result<()>) {
    let fd = rustix::fs::openat(CWD, dir, OFlags::PATH, Mode::empty()).unwrap();
    let mut writer = Writer::create(fd.as_fd()).unwrap();
    write(&mut writer).unwrap();
    writer.finish().unwrap();
}

fn read(dir: &Path) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    rebuild(dir, &mut out).map(|()| out)
}

/// A layer with one file, replaced twice, and one that is deep.
fn layer() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("root/d")).unwrap();
    std::fs::create_dir(dir.path().join("kept")).unwrap();
    std::fs::write(dir.path().join("root/d/f"), "third").unwrap();
    std::fs::write(dir.path().join("kept/0"), "first").unwrap();
    std::fs::write(dir.path().join("kept/1"), "second").unwrap();
    write(dir.path(), |recipe| {
        recipe.inline(b"<")?;
        recipe.file(b"d/f")?;
        recipe.piece(0, 5)?;
        recipe.moved(b"d/f", 0)?;
        recipe.file(b"d/f")?;
        recipe.piece(0, 3)?;
        recipe.piece(3, 3)?;
        recipe.inline(&vec![b'-'; 200_000])?;
        recipe.moved(b"d/f", 1)?;
        recipe.file(b"d/f")?;
        recipe.piece(1, 3)?;
        recipe.piece(4, 1)?;
        recipe.inline(b">")
    });
    dir
}

#[test]
fn pieces_come_back_in_order() {
    let dir = layer();
    let dashes = vec![b'-'; 200_000];
    let expected = [b"<firstsecond".as_slice(), &dashes, b"hird>"].concat();
    assert!(read(dir.path()).unwrap() == expected);
}

#[test]
fn what_is_missing_is_named() {
    let dir = layer();
    std::fs::write(dir.path().join("root/d/f"), "th").unwrap();
    let error = read(dir.path()).unwrap_err();
    assert_eq!(error.errno(), Errno::EIO);
    assert!(error.to_string().contains("'root/d/f'"), "{error}");
    std::fs::remove_file(dir.path().join("kept/1")).unwrap();
    let error = read(dir.path()).unwrap_err();
    assert!(error.to_string().contains("'kept/1'"), "{error}");
}

#[test]
fn links_lead_nowhere() {
    let dir = layer();
    std::fs::remove_file(dir.path().join("root/d/f")).unwrap();
    std::os::unix::fs::symlink("../../kept/0", dir.path().join("root/d/f")).unwrap();
    let error = read(dir.path()).unwrap_err();
    assert!(error.to_string().contains("'root/d/f'"), "{error}");
    std::fs::rename(dir.path().join("root/d"), dir.path().join("e")).unwrap();
    std::os::unix::fs::symlink("../e", dir.path().join("root/d")).unwrap();
    read(dir.path()).unwrap_err();
}

#[test]
fn a_broken_recipe_is_an_error() {
    let dir = layer();
    let path = dir.path().join("recipe");
    let whole = std::fs::read(&path).unwrap();
    for len in 0..whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        read(dir.path()).unwrap_err();
    }
    for at in 0..whole.len() {
        let mut broken = whole.clone();
        broken[at] ^= 0x55;
        std::fs::write(&path, &broken).unwrap();
        // A flag of the frame may mean nothing; what comes out then is the same.
        if let Ok(out) = read(dir.path()) {
            std::fs::write(&path, &whole).unwrap();
            assert!(out == read(dir.path()).unwrap(), "byte {at}");
        }
    }
    let records: [&[u8]; 5] = [
        b"plyfs recipe 2\n\0\0",
        b"plyfs recipe 1\n\x09",
        b"plyfs recipe 1\n\x00\x01",
        b"plyfs recipe 1\n\x03\x00\x01",
        b"plyfs recipe 1\n\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    ];
    for record in records {
        std::fs::write(&path, zstd::encode_all(record, 1).unwrap()).unwrap();
        let error = read(dir.path()).unwrap_err();
        assert_eq!(error.errno(), Errno::EIO, "{error}");
    }
}
