//! `plyfs generate`: manual pages and completions, from the definitions of the command line, so
//! that they cannot say anything else than `--help` does.

use std::io::Write;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::{Cli, CompletedShell, Generate, GenerateArgs};
use super::output::{self, Exit, Failure, Outcome};

/// Generates.
pub(super) fn run(args: &GenerateArgs) -> Outcome {
    match &args.what {
        Generate::Man { dir } => {
            let failure =
                |error| Failure::new(dir.display(), error, "give a directory that you may write");
            write_manual(dir).map_err(failure)?;
        }
        Generate::Completions { shell } => output::bytes(&completions(*shell))?,
    }
    Ok(Exit::Ok)
}

/// The completions for a shell.
fn completions(shell: CompletedShell) -> Vec<u8> {
    let shell = match shell {
        CompletedShell::Bash => Shell::Bash,
        CompletedShell::Zsh => Shell::Zsh,
        CompletedShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "plyfs", &mut script);
    script
}

/// Writes all manual pages to a directory.
fn write_manual(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    for (name, page) in pages()? {
        std::fs::write(dir.join(format!("{name}.1")), page)?;
    }
    Ok(())
}

/// All manual pages: names such as `plyfs-mount`, and their text in roff.
pub fn pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut top = Cli::command().disable_help_subcommand(true);
    top.build();
    let mut left = vec![top];
    let mut pages = Vec::new();
    while let Some(command) = left.pop() {
        left.extend(command.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned());
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        pages.push((name, page(command)?));
    }
    Ok(pages)
}

/// One page. What comes after the options in `--help` keeps its lines and columns: it is tables
/// and examples.
fn page(mut command: Command) -> std::io::Result<Vec<u8>> {
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let has_commands = command.has_subcommands();
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").lines().map(str::trim);
    let man = Man::new(command)
        .source(concat!("plyfs ", env!("CARGO_PKG_VERSION")))
        .manual("plyfs")
        .section("1");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    writeln!(text, ".SH SYNOPSIS\n.nf")?;
    for line in usage {
        writeln!(text, "{}", escape(line))?;
    }
    writeln!(text, ".fi")?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if has_commands {
        man.render_subcommands_section(&mut text)?;
    }
    render_after_help(&after, &mut text)?;
    Ok(text)
}

/// What comes after the options in `--help`: headed tables and examples, and words in between.
fn render_after_help(after: &str, text: &mut Vec<u8>) -> std::io::Result<()> {
    let mut open = false;
    let mut lines = after.lines().peekable();
    while let Some(line) = lines.next() {
        let is_heading = line.ends_with(':')
            && !line.starts_with(' ')
            && lines.peek().is_some_and(|next| next.starts_with(' '));
        if is_heading || !open {
            let end = if open { ".fi\n" } else { "" };
            let heading = if is_heading { heading(line) } else { ".SH NOTES".to_owned() };
            write!(text, "{end}{heading}\n.nf\n")?;
            open = true;
        }
        if !is_heading {
            writeln!(text, "{}", escape(line))?;
        }
    }
    if open {
        text.extend_from_slice(b".fi\n");
    }
    Ok(())
}

/// A heading of `--help` as one of a manual page: a section where manuals have one of that name.
fn heading(heading: &str) -> String {
    match heading.trim_end_matches(':') {
        "Example" | "Examples" => ".SH EXAMPLES".to_owned(),
        "Exit codes" => ".SH \"EXIT STATUS\"".to_owned(),
        "Environment" => ".SH ENVIRONMENT".to_owned(),
        other => format!(".SS \"{}\"", escape(other)),
    }
}

/// A line of text in roff, where backslashes, hyphens, quotes, and dots in front mean something.
fn escape(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len() + 8);
    if line.starts_with(['.', '\'']) {
        escaped.push_str("\\&");
    }
    for c in line.chars() {
        match c {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '"' => escaped.push_str("\\(dq"),
            '\'' => escaped.push_str("\\(aq"),
            '~' => escaped.push_str("\\(ti"),
            '^' => escaped.push_str("\\(ha"),
            '`' => escaped.push_str("\\(ga"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
