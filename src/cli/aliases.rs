//! Other names that plyfs answers to, each with its own order of arguments.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use clap::CommandFactory;

use super::args::Cli;

/// Turns the arguments of a program that plyfs stands in for into plyfs's own.
///
/// * `mount.plyfs SOURCE MNT [-nsv] [-o OPTIONS]`, as mount(8) calls its helpers;
/// * `plyfs SOURCE MNT -o OPTIONS`, as mount.fuse3(8) calls the programs that it is told of;
/// * `plyfs -o OPTIONS MNT`, as podman calls its mount program, whatever its name;
/// * `fuse-overlayfs [-f] [-d] [-o OPTIONS] MNT`.
#[must_use]
pub fn rewrite(arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    match name.map(OsStrExt::as_bytes) {
        Some(b"mount.plyfs" | b"mount.fuse.plyfs") => helper(arguments),
        Some(b"fuse-overlayfs") => {
            let is_version = |word: &OsString| word == "--version" || word == "-V";
            if arguments.iter().any(is_version) { arguments } else { as_mount(arguments) }
        }
        _ if is_source(&arguments) => helper(arguments),
        _ if arguments.get(1).is_some_and(|word| word.as_bytes().starts_with(b"-o")) => {
            as_mount(arguments)
        }
        _ => arguments,
    }
}

/// The arguments with the command that they are those of.
fn as_mount(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let own = arguments.next();
    own.into_iter().chain([OsString::from("mount")]).chain(arguments).collect()
}

/// Whether the first argument can only be the source of a mount: it is no command of ours, and
/// mount options follow.
fn is_source(arguments: &[OsString]) -> bool {
    let [_, source, mountpoint, rest @ ..] = arguments else { return false };
    let is_switch = |word: &OsString| word.as_bytes().starts_with(b"-");
    let is_command = Cli::command().find_subcommand(source).is_some() || source == "help";
    !is_switch(source)
        && !is_switch(mountpoint)
        && !is_command
        && rest.iter().any(|word| word.as_bytes().starts_with(b"-o"))
}

/// The arguments of a mount helper: the source, which is to be shown and says nothing else to us,
/// is an option; the switches that ask mount(8) for what we do anyway are left out.
fn helper(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut rewritten = vec![OsString::from("plyfs"), OsString::from("mount")];
    let mut has_source = false;
    let mut arguments = arguments.into_iter().skip(1);
    while let Some(word) = arguments.next() {
        match word.as_bytes() {
            b"-n" | b"-s" | b"-v" => {}
            b"-t" => drop(arguments.next()),
            b"-o" => {
                rewritten.push(word);
                rewritten.extend(arguments.next());
            }
            bytes if bytes.starts_with(b"-") => rewritten.push(word),
            b"" if !has_source => has_source = true,
            _ if !has_source => {
                rewritten.push(OsString::from("-o"));
                rewritten.push(shown_source(&word));
                has_source = true;
            }
            _ => rewritten.push(word),
        }
    }
    rewritten
}

/// The option that shows `source` in /proc/mounts.
fn shown_source(source: &OsStr) -> OsString {
    let mut option = b"fsname=".to_vec();
    for &byte in source.as_bytes() {
        if byte == b',' || byte == b'\\' {
            option.push(b'\\');
        }
        option.push(byte);
    }
    OsString::from_vec(option)
}

#[cfg(test)]
mod tests;
