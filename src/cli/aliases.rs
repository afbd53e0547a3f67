//! Other names that plyfs answers to, each with its own order of arguments.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Turns the arguments of a program that plyfs stands in for into plyfs's own.
///
/// * `mount.plyfs SOURCE MNT [-nsv] [-o OPTIONS]`, as mount(8) calls its helpers;
/// * `fuse-overlayfs [-f] [-d] [-o OPTIONS] MNT`.
#[must_use]
pub fn rewrite(arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    match name.map(OsStrExt::as_bytes) {
        Some(b"mount.plyfs" | b"mount.fuse.plyfs") => helper(arguments),
        Some(b"fuse-overlayfs") => {
            let is_info = |word: &OsString| word == "--version" || word == "--help";
            let command = (!arguments.iter().any(is_info)).then(|| OsString::from("mount"));
            let mut arguments = arguments.into_iter();
            let own = arguments.next();
            own.into_iter().chain(command).chain(arguments).collect()
        }
        _ => arguments,
    }
}

/// The arguments of a mount helper: the source, which says nothing to us, is left out, and so are
/// the switches that ask mount(8) for what we do anyway.
fn helper(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut rewritten = vec![OsString::from("plyfs"), OsString::from("mount")];
    let mut source = None;
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
            _ if source.is_none() => source = Some(word),
            _ => rewritten.push(word),
        }
    }
    rewritten
}

#[cfg(test)]
mod tests;
