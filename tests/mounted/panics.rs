//! A panic costs one request: served by this process, so that a layer of the test's can panic.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use plyfs::errno::Result;
use plyfs::fuse::{self, MountConfig};
use plyfs::layer::mem::MemLayer;
use plyfs::testkit::TreeSpec;
use plyfs::testkit::hook::{Call, HookLayer};
use plyfs::union::{Options, Stack, Union};

use super::stand::errno;

/// fuse-overlayfs 2.0: "transport endpoint is not connected", for everybody and for good.
#[test]
fn line_52_a_panic_costs_one_request_and_not_the_mount() {
    let dir = tempfile::tempdir().unwrap();
    let inner = TreeSpec::new().file("good", "good").file("bad", "bad").mem(1);
    let panics = Arc::new(AtomicBool::new(true));
    let when = Arc::clone(&panics);
    let lower = HookLayer::new(inner, move |call| -> Result<()> {
        match call {
            Call::Lookup(name) if name.as_bytes() == b"bad" && when.load(Ordering::SeqCst) => {
                panic!("on purpose, by a test")
            }
            _ => Ok(()),
        }
    });
    let stack = Stack { upper: Some(MemLayer::new(2)), lowers: vec![lower] };
    let union = Arc::new(Union::new(stack, Options::default()).unwrap());
    let config = MountConfig { allow_other: true, ..MountConfig::default() };
    let session = fuse::mount(union, dir.path(), &config).unwrap();
    let ender = session.ender();
    let server = std::thread::spawn(move || session.run());

    let outcome = std::panic::catch_unwind(|| {
        assert_eq!(errno(fs::read(dir.path().join("bad"))), libc::EIO);
        assert_eq!(fs::read_to_string(dir.path().join("good")).unwrap(), "good");
        fs::write(dir.path().join("new"), "new").unwrap();
        panics.store(false, Ordering::SeqCst);
        assert_eq!(fs::read_to_string(dir.path().join("bad")).unwrap(), "bad");
    });
    ender.end().unwrap();
    server.join().unwrap().unwrap();
    outcome.unwrap();
}
