//! From an image's config and a user's wishes to a command and its environment. The answers are
//! docker's.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::Bind;
use crate::errno::{Context, Errno, Error, Result};

/// Where commands are looked for unless the image says otherwise.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The command of a container: the image's entry point, then what the user gave or else the
/// image's arguments. An entry point given by the user takes the place of both; an empty one is
/// none.
///
/// # Errors
/// `EINVAL` if that comes to nothing.
pub fn command(
    image_entrypoint: &[String],
    image_cmd: &[String],
    entrypoint: Option<&OsStr>,
    arguments: &[OsString],
) -> Result<Vec<OsString>> {
    let owned = |words: &[String]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let mut words = match entrypoint {
        Some(word) if word.is_empty() => Vec::new(),
        Some(word) => vec![word.to_owned()],
        None => owned(image_entrypoint),
    };
    match arguments {
        [] if entrypoint.is_none() => words.extend(owned(image_cmd)),
        _ => words.extend_from_slice(arguments),
    }
    if words.first().is_none_or(|word| word.is_empty()) {
        return Err(Error::new(Errno::EINVAL, "neither the image nor you named a command to run"));
    }
    Ok(words)
}

/// A wish about the environment, `-e NAME[=VALUE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// This value.
    Set(OsString, OsString),
    /// Not in the environment.
    Unset(OsString),
}

/// Reads `NAME=VALUE`, or `NAME` for the value that the caller has; a name that the caller does
/// not have is taken out.
///
/// # Errors
/// `EINVAL` without a name.
pub fn variable(
    argument: &OsStr,
    caller: impl FnOnce(&OsStr) -> Option<OsString>,
) -> Result<Variable> {
    let (name, value) = split(argument.as_bytes(), b'=');
    let name = OsStr::from_bytes(name);
    if name.is_empty() {
        let why = "a variable without a name: write NAME=VALUE or NAME";
        return Err(Error::new(Errno::EINVAL, why)).context(|| argument.display().to_string());
    }
    Ok(match value.map(|value| OsStr::from_bytes(value).to_owned()).or_else(|| caller(name)) {
        Some(value) => Variable::Set(name.to_owned(), value),
        None => Variable::Unset(name.to_owned()),
    })
}

/// The environment of a container: [`DEFAULT_PATH`], the hostname, the terminal's type if there
/// is a terminal, then what the image says, then what the user says; the last word on a name
/// counts. What is no `NAME=VALUE` in the image is left out.
pub fn environment(
    hostname: &str,
    terminal: Option<&OsStr>,
    image: &[String],
    wishes: &[Variable],
) -> Vec<OsString> {
    let mut variables: Vec<(OsString, OsString)> = Vec::new();
    let mut set = |name: &OsStr, value: Option<&OsStr>| {
        let place = variables.iter().position(|(known, _)| known == name);
        match (place.and_then(|place| variables.get_mut(place)), value) {
            (Some((_, old)), Some(value)) => value.clone_into(old),
            (None, Some(value)) => variables.push((name.to_owned(), value.to_owned())),
            (_, None) => variables.retain(|(known, _)| known != name),
        }
    };
    set(OsStr::new("PATH"), Some(OsStr::new(DEFAULT_PATH)));
    set(OsStr::new("HOSTNAME"), Some(OsStr::new(hostname)));
    if let Some(terminal) = terminal {
        set(OsStr::new("TERM"), Some(terminal));
    }
    for entry in image {
        let (name, value) = split(entry.as_bytes(), b'=');
        if let (false, Some(value)) = (name.is_empty(), value) {
            set(OsStr::from_bytes(name), Some(OsStr::from_bytes(value)));
        }
    }
    for wish in wishes {
        match wish {
            Variable::Set(name, value) => set(name, Some(value)),
            Variable::Unset(name) => set(name, None),
        }
    }
    let joined = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        name
    };
    variables.into_iter().map(joined).collect()
}

/// The value of a variable in a list of `NAME=VALUE`.
pub(super) fn value<'a>(environment: &'a [OsString], name: &str) -> Option<&'a OsStr> {
    environment.iter().rev().find_map(|entry| match split(entry.as_bytes(), b'=') {
        (known, Some(value)) if known == name.as_bytes() => Some(OsStr::from_bytes(value)),
        _ => None,
    })
}

/// Reads `HOST:PATH[:ro|rw]`.
///
/// # Errors
/// `EINVAL`, saying what is wrong with it.
pub fn bind(argument: &OsStr) -> Result<Bind> {
    let parsed = bind_fields(argument.as_bytes());
    parsed.map_err(|why| {
        Error::new(Errno::EINVAL, format!("{}: {why}", argument.as_bytes().escape_ascii()))
    })
}

fn bind_fields(argument: &[u8]) -> std::result::Result<Bind, &'static str> {
    let (host, rest) = split(argument, b':');
    let (container, mode) = split(rest.ok_or("write HOST:PATH, or HOST:PATH:ro")?, b':');
    let read_only = match mode {
        None | Some(b"rw") => false,
        Some(b"ro") => true,
        Some(mode) if mode.contains(&b'/') => return Err("a path with a colon cannot be given"),
        Some(_) => return Err("after the second colon comes ro or rw"),
    };
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    let (host, container) = (path(host), path(container));
    if host.as_os_str().is_empty() {
        return Err("the path on the host is empty");
    }
    if !container.is_absolute() {
        return Err("the path in the container has to begin with a slash");
    }
    if is_reserved(&container) {
        return Err("that place in the container is taken: /, /proc and /sys");
    }
    Ok(Bind { host, container, read_only })
}

/// Whether a path in a container is, by its words, where nothing of the user's can be.
pub(super) fn is_reserved(path: &Path) -> bool {
    let mut words: Vec<&OsStr> = Vec::new();
    for component in path.components() {
        match component {
            std::path::Component::Normal(word) => words.push(word),
            std::path::Component::ParentDir => drop(words.pop()),
            _ => {}
        }
    }
    words.first().is_none_or(|first| *first == "proc" || *first == "sys")
}

/// What lies before the first `at`, and after it if there is one.
fn split(bytes: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    let mut parts = bytes.splitn(2, |&byte| byte == at);
    (parts.next().unwrap_or_default(), parts.next())
}

#[cfg(test)]
mod tests;
