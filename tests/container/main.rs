//! Commands run in container roots, as root: what they see, what they cannot do, how they end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod ending;
mod hostile;
mod sight;
mod stand;
mod terminal;

use std::io::Write;

/// Not a test of its own: what the others start when they need a process. Untold, it runs `true`.
#[test]
fn a_process_runs_what_it_is_told() {
    let Some(spec) = stand::told() else {
        let stand = stand::Stand::new();
        assert_eq!(stand::code(&stand.spec(&["true"])), 0);
        return;
    };
    std::io::stdout().write_all(stand::MARK.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
    match plyfs::container::run(&spec) {
        Ok(status) => {
            if let plyfs::container::Status::NotStarted(error) = &status {
                eprintln!("{error}");
            }
            std::process::exit(status.code().into())
        }
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(125)
        }
    }
}
