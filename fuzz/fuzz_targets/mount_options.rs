//! Mount options are bytes from anybody.
//!
//! * Parsing them never panics.
//! * What was understood can be written again, escaped, and means the same.
//! * No path is empty or holds a NUL byte; with an upper there is a work directory.
#![no_main]

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use plyfs::cli::options::{MountOptions, parse};

fuzz_target!(|bytes: &[u8]| {
    // A line break in the input separates the arguments of several -o.
    let Ok(options) = parse(bytes.split(|&byte| byte == b'\n')) else { return };
    let paths = options.lowers.iter().chain(&options.upper).chain(&options.work);
    for path in paths {
        let path = path.as_os_str().as_bytes();
        assert!(!path.is_empty() && !path.contains(&0));
    }
    assert!(options.upper.is_some() || !options.lowers.is_empty());
    assert_eq!(options.upper.is_some(), options.work.is_some());
    let written = written(&options);
    let again = parse([written.as_slice()]).expect("options that were understood before");
    assert_eq!(again.lowers, options.lowers);
    assert_eq!(again.upper, options.upper);
    assert_eq!(again.work, options.work);
    assert_eq!(again.volatile, options.volatile);
});

/// The options that say what is to be mounted, as one argument.
fn written(options: &MountOptions) -> Vec<u8> {
    let mut out = Vec::new();
    for lower in &options.lowers {
        add(&mut out, b"lowerdir+=".as_slice(), lower);
    }
    for (name, path) in [("upperdir=", &options.upper), ("workdir=", &options.work)] {
        if let Some(path) = path {
            add(&mut out, name.as_bytes(), path);
        }
    }
    if options.volatile {
        out.extend_from_slice(b"volatile");
    }
    out
}

/// One path, every special byte of it escaped.
fn add(out: &mut Vec<u8>, name: &[u8], path: &Path) {
    out.extend_from_slice(name);
    for &byte in path.as_os_str().as_bytes() {
        if b"\\,:".contains(&byte) {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b',');
}
