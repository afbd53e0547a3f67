//! Any bytes are a request from the kernel: read, or refused, and never a panic. What a request
//! names lies within its bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plyfs::fuse::native::request::{Layout, Op, Request};

fuzz_target!(|bytes: &[u8]| {
    for setxattr_ext in [false, true] {
        let Ok(request) = Request::parse(bytes, Layout { setxattr_ext }) else { continue };
        assert!(request.op.entry().len() < bytes.len());
        assert!(!request.op.entry().contains(&0));
        assert!(!request.op.name().is_empty());
        match request.op {
            Op::BatchForget(nodes) => assert!(nodes.count() * 16 < bytes.len()),
            Op::Write { data, .. } => assert!(data.len() < bytes.len()),
            Op::SetXattr { value, .. } => assert!(value.len() < bytes.len()),
            _ => {}
        }
    }
});
