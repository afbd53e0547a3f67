//! Options that say in which manner a mount is served: what fuse-overlayfs and mount(8) have beyond
//! layers and flags.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// The names of options whose value is a security context: commas in it may stand in quotes.
const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// In which manner a mount is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "mount options, each on its own")]
pub struct Manner {
    /// fsync does nothing; what plyfs itself relies on is synced.
    pub no_fsync: bool,
    /// There are no ACLs.
    pub no_acl: bool,
    /// There are no extended attributes.
    pub no_xattrs: bool,
    /// Directories show a link count of 1.
    pub static_nlink: bool,
    /// Directories of lower layers cannot be renamed (`EXDEV`).
    pub no_redirects: bool,
    /// Changes of names are durable before they are answered.
    pub dirsync: bool,
    /// So is everything else.
    pub sync: bool,
    /// It is unmounted when its process ends, however that ends.
    pub auto_unmount: bool,
    /// In the foreground, with each request logged.
    pub debug: bool,
    /// How long the kernel may keep names and attributes; `None` for good.
    pub timeout: Option<Duration>,
    /// Security contexts, by the option's name.
    pub contexts: Vec<(String, String)>,
    /// Shown as the source in /proc/mounts.
    pub source: Option<String>,
    /// Where the log goes: a file, `syslog` or `none`.
    pub log: Option<OsString>,
}

/// What came of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// It counts from now on.
    Yes,
    /// It is none of these.
    Unknown,
    /// It cannot have this value.
    Value,
}

impl Manner {
    /// Applies one option.
    pub(super) fn apply(&mut self, name: &[u8], value: Option<&[u8]>) -> Applied {
        let on = match value {
            None | Some(b"1") => Some(true),
            Some(b"0") => Some(false),
            Some(_) => None,
        };
        match (name, value, on) {
            (b"fsync", Some(_), Some(on)) => self.no_fsync = !on,
            (b"noxattrs", _, Some(on)) => self.no_xattrs = on,
            (b"noacl", None, _) => self.no_acl = true,
            (b"acl", None, _) => self.no_acl = false,
            (b"static_nlink", None, _) => self.static_nlink = true,
            (b"debug", None, _) => self.debug = true,
            (b"sync", None, _) => self.sync = true,
            (b"async", None, _) => self.sync = false,
            (b"dirsync", None, _) => self.dirsync = true,
            (b"auto_unmount", None, _) => self.auto_unmount = true,
            (b"redirect_dir", Some(b"on"), _) => self.no_redirects = false,
            (b"redirect_dir", Some(b"off" | b"follow"), _) => self.no_redirects = true,
            (b"timeout", Some(value), _) => match seconds(value) {
                Some(timeout) => self.timeout = Some(timeout),
                None => return Applied::Value,
            },
            (b"log", Some(to), _) if !to.is_empty() => {
                self.log = Some(OsString::from_vec(super::unescaped(to)));
            }
            (b"fsname", Some(source), _) if !source.is_empty() && !source.contains(&0) => {
                let source = super::unescaped(source);
                self.source = Some(String::from_utf8_lossy(&source).into_owned());
            }
            (b"fsync" | b"noxattrs" | b"log" | b"fsname", _, _) => return Applied::Value,
            (name, Some(value), _) => match context(name, value) {
                Some(context) => self.contexts.push(context),
                None => return Applied::Unknown,
            },
            _ => return Applied::Unknown,
        }
        Applied::Yes
    }
}

/// A security context by its option; quotes around the value are not part of it.
fn context(name: &[u8], value: &[u8]) -> Option<(String, String)> {
    let name = CONTEXTS.iter().find(|known| known.as_bytes() == name)?;
    let value =
        value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
    let value = std::str::from_utf8(value).ok().filter(|value| !value.contains(['\0', '"']))?;
    Some(((*name).to_owned(), value.to_owned()))
}

/// A number of seconds, perhaps with a fraction; what is beyond the protocol's means is for good.
fn seconds(text: &[u8]) -> Option<Duration> {
    let seconds: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    if !seconds.is_finite() || seconds < 0.0 {
        return None;
    }
    Some(Duration::from_secs_f64(seconds.min(f64::from(u32::MAX))))
}

/// How much of `rest`, which begins with an option, belongs to a security context in quotes,
/// commas included; 0 if it is none.
pub(super) fn quoted(rest: &[u8]) -> usize {
    let Some(at) = rest.iter().position(|&byte| byte == b'=') else { return 0 };
    let (Some(name), Some(value)) = (rest.get(..at), rest.get(at + 1..)) else { return 0 };
    let is_context = CONTEXTS.iter().any(|known| known.as_bytes() == name.trim_ascii_start());
    let end = value.strip_prefix(b"\"").filter(|_| is_context);
    let end = end.and_then(|inner| inner.iter().position(|&byte| byte == b'"'));
    end.map_or(0, |inner| at + 1 + inner + 2)
}
