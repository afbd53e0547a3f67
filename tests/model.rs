//! The model is right: a plain directory of the system, driven by system calls, agrees with it.
//!
//! `PLYFS_CASES` says how many cases (128). Needs root: owners, devices, `trusted.*`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::needless_pass_by_value,
    reason = "this is test code: a surprise must stop the test, and layers are seen from outside"
)]

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;

use plyfs::testkit::run::run;
use plyfs::testkit::system::SystemTarget;
use plyfs::testkit::{Model, op};
use proptest::prelude::*;

fn cases() -> ProptestConfig {
    let cases = std::env::var("PLYFS_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(128);
    ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_model_is_a_plain_directory(ops in op::ops(40)) {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return Ok(());
        }
        let tmp = tempfile::tempdir().unwrap();
        set_permissions(tmp.path(), Permissions::from_mode(0o755)).unwrap();
        let mut plain = SystemTarget::new("plain directory", tmp.path(), || {});
        run(&ops, &mut Model::new(), &mut [&mut plain]);
    }
}
