use std::fs;

use super::*;

fn blob(bytes: &[u8]) -> (tempfile::NamedTempFile, Blob) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let open = Arc::new(file.reopen().unwrap());
    (file, Blob { file: open, at: 2, size: 3 })
}

#[test]
fn a_blob_is_its_run_of_bytes_and_no_more() {
    let (_file, run) = blob(b"..abc..");
    assert_eq!(run.clone().read(3, Some(Digest::of(b"abc")), "x").unwrap(), b"abc");
    let mut reader = run.clone().reader(Some(Digest::of(b"abc")), "x".to_owned());
    let mut one = [0; 1];
    let mut found = Vec::new();
    while reader.read(&mut one).unwrap() > 0 {
        found.push(one[0]);
    }
    assert_eq!(found, b"abc");
    assert_eq!(reader.read(&mut one).unwrap(), 0, "it stays at its end");
    let error = run.clone().read(2, None, "x").unwrap_err();
    assert_eq!(
        (error.errno(), error.to_string().as_str()),
        (Errno::EINVAL, "x: 3 bytes, more than 2")
    );
    let error = run.read(3, Some(Digest::of(b"..abc..")), "x").unwrap_err();
    assert_eq!(error.errno(), Errno::EIO);
    assert!(error.to_string().starts_with("x: corrupt"), "{error}");
}

#[test]
fn nothing_is_judged_before_the_end() {
    let (_file, run) = blob(b"..abc..");
    let mut reader = run.reader(Some(Digest::of(b"other")), "x".to_owned());
    let mut buffer = [0; 3];
    assert_eq!(reader.read(&mut []).unwrap(), 0, "no room is not the end");
    assert_eq!(reader.read(&mut buffer).unwrap(), 3);
    assert_eq!(reader.read(&mut []).unwrap(), 0);
    assert!(reader.read(&mut buffer).is_err());
    assert!(reader.read(&mut buffer).is_err());
}

#[test]
fn a_file_that_shrinks_is_an_error() {
    let (file, run) = blob(b"..abc..");
    fs::write(file.path(), b"..a").unwrap();
    let error = run.read(3, None, "x").unwrap_err();
    assert!(error.to_string().contains("cut short"), "{error}");
}
