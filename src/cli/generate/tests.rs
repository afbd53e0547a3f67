use clap::{Command, CommandFactory};

use super::{completions, escape, pages};
use crate::cli::args::{Cli, CompletedShell};

/// All commands that a user can see, by the names of their pages.
fn commands() -> Vec<(String, Command)> {
    let mut top = Cli::command().disable_help_subcommand(true);
    top.build();
    let mut left = vec![top];
    let mut found = Vec::new();
    while let Some(command) = left.pop() {
        left.extend(command.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned());
        let name = command.get_bin_name().unwrap_or(command.get_name()).replace(' ', "-");
        found.push((name, command));
    }
    found
}

#[test]
fn every_command_has_a_page_with_its_examples() {
    let pages = pages().unwrap();
    let commands = commands();
    assert_eq!(pages.len(), commands.len());
    for (name, command) in commands {
        let (_, page) = pages.iter().find(|(page, _)| *page == name).expect(&name);
        let page = String::from_utf8(page.clone()).unwrap();
        let about = command.get_about().unwrap().to_string();
        assert!(page.contains(&about.replace('-', "\\-").replace('\'', "\\*(Aq")), "{page}");
        let help = command.get_after_help().expect(&name).to_string();
        for line in help.lines().filter(|line| !line.ends_with(':')) {
            assert!(page.contains(&format!("\n{}\n", escape(line))), "{name}: {line}");
        }
        if name == "plyfs" {
            assert!(page.contains(".SH \"EXIT STATUS\""), "{page}");
            assert!(page.contains(".SH ENVIRONMENT"), "{page}");
        } else {
            assert!(page.contains(".SH EXAMPLES"), "{name} has no example");
        }
        assert_eq!(page.matches("\n.nf\n").count(), page.matches("\n.fi\n").count());
        for option in command.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(page.contains(&option.replace('-', "\\-")), "{name}: --{option}");
        }
    }
}

#[test]
fn what_roff_would_take_for_its_own_is_escaped() {
    assert_eq!(escape(".so /etc/passwd"), "\\&.so /etc/passwd");
    assert_eq!(escape("'x' \\n -o \"a\""), "\\&\\(aqx\\(aq \\en \\-o \\(dqa\\(dq");
}

#[test]
fn completions_know_every_command() {
    for shell in [CompletedShell::Bash, CompletedShell::Zsh, CompletedShell::Fish] {
        let script = String::from_utf8(completions(shell)).unwrap();
        for (name, command) in commands() {
            assert!(script.contains(command.get_name()), "{shell:?}: {name}");
        }
    }
}
