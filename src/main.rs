//! The plyfs program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(plyfs::cli::run(std::env::args_os()).code())
}
