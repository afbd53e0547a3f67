//! The command line: what a user asks, done by the rooms below, answered in words or JSON.

pub mod aliases;
pub mod args;
mod bench;
mod check;
mod check_store;
mod container;
pub mod diff;
mod doctor;
pub mod generate;
mod image;
mod log;
mod mount;
pub mod options;
pub mod output;
mod overlap;
mod run;
mod stack;
mod stored;
mod umount;
pub mod verify;

use std::ffi::OsString;
use std::path::Path;

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
    match dispatch(&cli.command, cli.root.as_deref()) {
        Ok(exit) => exit,
        Err(failure) => {
            output::failure(&failure);
            failure.exit
        }
    }
}

/// Does what was asked.
fn dispatch(command: &Command, root: Option<&Path>) -> Outcome {
    match command {
        Command::Run(args) => run::run(args, root),
        Command::Image(command) => image::run(command, root),
        Command::Create(args) => container::create(args, root),
        Command::Ls(args) => container::ls(args, root),
        Command::Commit(args) => container::commit(args, root),
        Command::Rm(args) => container::rm(args, root),
        Command::Mount(args) => mount::run(args, root),
        Command::Umount(args) => umount::run(args, root),
        Command::Diff(args) => diff::run(args, root),
        Command::Check(args) => check::run(args, root),
        Command::Gc(args) => container::gc(args, root),
        Command::Bench(args) => bench::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Generate(args) => generate::run(args),
    }
}
