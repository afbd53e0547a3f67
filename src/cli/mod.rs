//! The command line: what a user asks, done by the rooms below, answered in words or JSON.

pub mod aliases;
pub mod args;
mod check;
pub mod diff;
mod doctor;
pub mod generate;
mod log;
mod mount;
pub mod options;
pub mod output;
mod overlap;
mod stack;
mod umount;
pub mod verify;

use std::ffi::OsString;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Cli, Command};
use output::{Exit, Outcome};

/// Runs the program with these arguments, the program's own name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(aliases::rewrite(arguments.into_iter().collect())) {
        Ok(cli) => cli,
        Err(error) => {
            let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return match error.print() {
                Ok(()) if help => Exit::Ok,
                _ => Exit::Usage,
            };
        }
    };
    match dispatch(&cli.command) {
        Ok(exit) => exit,
        Err(failure) => {
            output::failure(&failure);
            failure.exit
        }
    }
}

/// Does what was asked.
fn dispatch(command: &Command) -> Outcome {
    match command {
        Command::Mount(args) => mount::run(args),
        Command::Umount(args) => umount::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Check(args) => check::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Generate(args) => generate::run(args),
    }
}
