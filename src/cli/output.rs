//! Everything that plyfs prints.

mod progress;
mod table;

use std::fmt;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::Serialize;

pub use progress::Progress;
pub use table::{Table, age, short, size};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It worked.
    Ok,
    /// It failed, or a check found errors.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// As the command ended that was run.
    Command(u8),
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Command(code) => code,
        }
    }
}

/// Why a command failed, in the words for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What failed: a path, an operation.
    pub what: String,
    /// Why.
    pub why: String,
    /// The next thing to try.
    pub hint: String,
}

impl Failure {
    /// An operation failed.
    pub fn new(what: impl fmt::Display, why: impl fmt::Display, hint: impl fmt::Display) -> Self {
        let (what, why, hint) = (what.to_string(), why.to_string(), hint.to_string());
        Self { exit: Exit::Failed, what, why, hint }
    }

    /// The command line made no sense.
    pub fn usage(what: impl fmt::Display, why: impl fmt::Display, hint: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, ..Self::new(what, why, hint) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plyfs: {}: {}", self.what, self.why)?;
        if !self.hint.is_empty() {
            write!(f, "\nplyfs: {}", self.hint)?;
        }
        Ok(())
    }
}

/// What a command returns.
pub type Outcome = Result<Exit, Failure>;

/// Prints a failure to standard error.
pub fn failure(failure: &Failure) {
    // Where standard error is gone there is nobody left to tell.
    writeln!(io::stderr(), "{failure}").unwrap_or_default();
}

/// Tells whoever sits at the terminal something that is no result.
pub fn note(text: impl fmt::Display) {
    // As for failures.
    writeln!(io::stderr(), "plyfs: {text}").unwrap_or_default();
}

/// Prints a line to standard output.
pub fn line(text: impl fmt::Display) -> Result<(), Failure> {
    written(writeln!(io::stdout(), "{text}"))
}

/// Prints bytes to standard output as they are.
pub fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout();
    written(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// Prints a value as one line of JSON.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    match serde_json::to_string(value) {
        Ok(text) => line(text),
        Err(error) => Err(Failure::new("output", error, "")),
    }
}

/// Prints a value as JSON over several lines, for people and machines alike.
pub fn pretty_json(value: &impl Serialize) -> Result<(), Failure> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(text),
        Err(error) => Err(Failure::new("output", error, "")),
    }
}

/// A reader that has seen enough (`plyfs diff | head`) is no failure to talk about.
fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            std::process::exit(i32::from(Exit::Failed.code()))
        }
        result => result.map_err(|error| Failure::new("standard output", error, "")),
    }
}

/// A path as text that a terminal can show: UTF-8 stays, what would steer the terminal or reorder
/// the line does not.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if steers(c) => text.extend(c.escape_unicode()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let digits = [b'\\', b'x', hex(byte >> 4), hex(byte & 15)];
            text.extend(digits.map(char::from));
        }
    }
    text
}

/// The hexadecimal digit of a number below 16.
fn hex(digit: u8) -> u8 {
    if digit < 10 { b'0' + digit } else { b'a' + (digit - 10) }
}

/// Control characters, and those that change the direction of text or have no width.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || c == '\u{feff}'
}

/// A path in JSON: text where it is UTF-8; where it is not, the nearest text, and the bytes.
#[derive(Debug, Serialize)]
pub struct JsonPath {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

impl JsonPath {
    /// From a path.
    pub fn of(path: &Path) -> Self {
        Self::new(path.as_os_str().as_bytes())
    }

    /// From a path's bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let path = String::from_utf8_lossy(bytes).into_owned();
        let path_hex = std::str::from_utf8(bytes)
            .is_err()
            .then(|| bytes.iter().flat_map(|byte| [hex(byte >> 4), hex(byte & 15)]))
            .map(|digits| digits.map(char::from).collect());
        Self { path, path_hex }
    }
}

#[cfg(test)]
mod tests;
