//! What stands after `-o`: bytes in, meaning out. No file is touched here.
//!
//! The grammar is that of the kernel's overlayfs: options are separated by `,`, the directories of
//! `lowerdir` by `:`, and a backslash takes the meaning from the byte after it. Paths are any
//! bytes.

mod manner;
mod owners;

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use self::manner::Applied;
pub use self::manner::Manner;
pub use self::owners::Owners;

/// Options that other programs pass without asking what they mean, and that change nothing here:
/// what they ask for is how plyfs works anyway, or nothing that it does.
const IGNORED: &[&str] = &[
    "auto",
    "clone_fd",
    "comment=*",
    "default_permissions",
    "defaults",
    "diratime",
    "fast_ino=*",
    "group",
    "index=off",
    "index=on",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "max_idle_threads=*",
    "max_read=*",
    "max_threads=*",
    "nfs_export=off",
    "noauto",
    "nodiratime",
    "nofail",
    "nogroup",
    "noiversion",
    "nolazytime",
    "nomand",
    "noowner",
    "norelatime",
    "nostrictatime",
    "nouser",
    "nousers",
    "owner",
    "private",
    "relatime",
    "rprivate",
    "rshared",
    "rslave",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "subtype=*",
    "threaded=*",
    "user",
    "users",
    "userxattr",
    "uuid=auto",
    "uuid=null",
    "uuid=off",
    "verity=off",
    "writeback=*",
    "X-*",
    "x-*",
    "xino=auto",
    "xino=off",
    "xino=on",
    "_netdev",
];

/// Options that would change what the mount shows or keeps, and that plyfs cannot do, each with the
/// reason: to ignore them would be to lie.
const REFUSED: &[(&str, &str)] = &[
    (
        "allow_root",
        "the kernel answers from what it keeps without a word of who asks; use allow_other, and \
         mount below a directory that is only yours",
    ),
    ("datadir+", "there are no layers of data alone"),
    ("ino32_t", "numbers that short would make hard links of files that are none"),
    ("nfs_export", "mounts through FUSE have no handles that outlive them"),
    ("nosymfollow", "fusermount3 cannot mount so"),
    ("plugins", "plyfs loads no code but its own"),
    ("redirect_dir", "it may be on, off or follow"),
    ("uuid", "it may be auto, null or off"),
    ("verity", "digests of files are not checked"),
];

/// What is to be mounted, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "mount flags, each on its own")]
pub struct MountOptions {
    /// The read-only layers, topmost first.
    pub lowers: Vec<PathBuf>,
    /// The writable layer.
    pub upper: Option<PathBuf>,
    /// The work directory, on the upper's filesystem.
    pub work: Option<PathBuf>,
    /// Nothing is synced; after a crash the upper must be thrown away.
    pub volatile: bool,
    /// Volatile, and gone with the mount: not even its end makes anything durable.
    pub disposable: bool,
    /// A change of metadata copies the data, too.
    pub no_metacopy: bool,
    /// No changes, even where there is an upper.
    pub read_only: bool,
    /// Set-id bits have no effect.
    pub nosuid: bool,
    /// Devices cannot be opened.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
    /// Access times stay.
    pub noatime: bool,
    /// All users may enter (as they always may when root mounts).
    pub allow_other: bool,
    /// In which manner it is served.
    pub manner: Manner,
    /// Whose files it shows.
    pub owners: Owners,
    /// What was given and has no effect, for the log.
    pub ignored: Vec<Vec<u8>>,
}

/// Why options were not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// No option of this name, or none that takes this value.
    Unknown(Vec<u8>),
    /// An option that plyfs knows of but cannot do, and why.
    Refused(Vec<u8>, &'static str),
    /// An option that takes no value was given one, or the other way round.
    Value(Vec<u8>),
    /// An option about owners whose value says nothing that could be.
    Owner(Vec<u8>, Vec<u8>),
    /// An option given twice.
    Twice(&'static str),
    /// An empty directory name in an option.
    EmptyPath(&'static str),
    /// A NUL byte, which no path can hold.
    Nul(&'static str),
    /// `::` in lowerdir: data-only layers.
    DataOnly,
    /// Neither lowerdir nor upperdir.
    NoLayer,
    /// An upperdir without a workdir.
    NoWork,
    /// An option that makes sense only with an upperdir.
    NoUpper(&'static str),
    /// Layers for a container, whose layers are known.
    Known(Vec<u8>),
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "unknown option '{}'", name.escape_ascii()),
            Self::Refused(name, why) => {
                write!(f, "option '{}' is not supported: {why}", name.escape_ascii())
            }
            Self::Value(name) => {
                write!(f, "option '{}' has a value too many or lacks one", name.escape_ascii())
            }
            Self::Owner(name, value) => {
                let (name, value) = (name.escape_ascii(), value.escape_ascii());
                write!(f, "option '{name}' cannot be '{value}'")
            }
            Self::Twice(name) => write!(f, "option '{name}' is given twice"),
            Self::EmptyPath(name) => write!(f, "option '{name}' names an empty path"),
            Self::Nul(name) => write!(f, "option '{name}' holds a NUL byte"),
            Self::DataOnly => f.write_str("lowerdir holds '::' (data-only layers), not supported"),
            Self::NoLayer => f.write_str("there is nothing to mount: lowerdir is missing"),
            Self::NoWork => f.write_str("upperdir needs a workdir"),
            Self::NoUpper(name) => write!(f, "'{name}' makes no sense without upperdir"),
            Self::Known(name) => {
                write!(f, "option '{}' says what the container says", name.escape_ascii())
            }
        }
    }
}

impl OptionError {
    /// The next thing to try.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unknown(_) | Self::Value(_) => {
                "see 'plyfs help mount' for the options; write a comma in a path as '\\,'"
            }
            Self::Owner(name, _) if name.ends_with(b"mapping") => {
                "give ID:SHOWN:COUNT, more of them after another ':', none overlapping"
            }
            Self::Owner(name, _) if name.starts_with(b"xattr") => "give 0, 1 or 2",
            Self::Owner(..) => "give the number of a user or group",
            Self::Refused(..) => {
                "leave it out if you can do without; it changes what a mount means"
            }
            Self::Twice("lowerdir") => "join the directories with ':' or use lowerdir+=DIR",
            Self::Twice(_) => "give it once",
            Self::EmptyPath(_) | Self::Nul(_) | Self::DataOnly => {
                "check the list; write a ':' in a path as '\\:'"
            }
            Self::NoLayer => "give the read-only layers, topmost first: -o lowerdir=A:B:C",
            Self::NoWork => {
                "add workdir=DIR: an empty directory on the same filesystem as the upperdir"
            }
            Self::NoUpper(_) => "add upperdir=DIR, or leave it out for a read-only mount",
            Self::Known(_) => "give either a container or layers",
        }
    }
}

/// Parses the arguments of all `-o` in order.
pub fn parse<'a>(
    arguments: impl IntoIterator<Item = &'a [u8]>,
) -> Result<MountOptions, OptionError> {
    let mut options = MountOptions::default();
    let mut seen_lowerdir = false;
    for argument in arguments {
        for option in split_options(argument) {
            apply(&mut options, option, &mut seen_lowerdir)?;
        }
    }
    check(options)
}

/// Parses the options of a mount whose layers are those of `container`.
pub fn parse_flags<'a>(
    container: MountOptions,
    arguments: impl IntoIterator<Item = &'a [u8]>,
) -> Result<MountOptions, OptionError> {
    let mut options = container;
    for option in arguments.into_iter().flat_map(split_options) {
        let name = option.trim_ascii_start().split(|&byte| byte == b'=').next().unwrap_or_default();
        if matches!(name, b"lowerdir" | b"lowerdir+" | b"upperdir" | b"workdir") {
            return Err(OptionError::Known(name.to_vec()));
        }
        apply(&mut options, option, &mut true)?;
    }
    check(options)
}

/// Parses one option of `lowerdir` form alone, as `plyfs diff --lower` takes it.
pub fn parse_lowers(list: &[u8]) -> Result<Vec<PathBuf>, OptionError> {
    split(list, b':').map(|part| path("lowerdir", part)).collect()
}

/// Applies one option.
fn apply(
    options: &mut MountOptions,
    option: &[u8],
    seen_lowerdir: &mut bool,
) -> Result<(), OptionError> {
    let option = option.trim_ascii_start();
    if option.is_empty() {
        return Ok(());
    }
    let (name, value) = match option.iter().position(|&byte| byte == b'=') {
        Some(at) => (option.get(..at).unwrap_or(option), option.get(at + 1..)),
        None => (option, None),
    };
    let manner = options.manner.apply(name, value);
    match (name, value) {
        (b"lowerdir", Some(list)) => {
            if std::mem::replace(seen_lowerdir, true) {
                return Err(OptionError::Twice("lowerdir"));
            }
            for part in split(list, b':') {
                if part.is_empty() && list.windows(2).any(|pair| pair == b"::") {
                    return Err(OptionError::DataOnly);
                }
                options.lowers.push(path("lowerdir", part)?);
            }
        }
        (b"lowerdir+", Some(dir)) => options.lowers.push(path("lowerdir+", dir)?),
        (b"upperdir", Some(dir)) => once("upperdir", &mut options.upper, dir)?,
        (b"workdir", Some(dir)) => once("workdir", &mut options.work, dir)?,
        (b"lowerdir" | b"lowerdir+" | b"upperdir" | b"workdir", None) => {
            return Err(OptionError::Value(name.to_vec()));
        }
        _ if options.owners.apply(name, value)? => {}
        (b"metacopy", Some(b"on")) => options.no_metacopy = false,
        (b"metacopy", Some(b"off")) => options.no_metacopy = true,
        (_, None) if flag(options, name) => {}
        _ if manner == Applied::Yes => {}
        _ if manner == Applied::Value => return Err(OptionError::Value(option.to_vec())),
        _ if matches(IGNORED, option) => options.ignored.push(option.to_vec()),
        _ => {
            let refused = REFUSED.iter().find(|(known, _)| known.as_bytes() == name);
            return Err(match refused {
                Some((_, why)) => OptionError::Refused(option.to_vec(), why),
                None => OptionError::Unknown(option.to_vec()),
            });
        }
    }
    Ok(())
}

/// Applies an option that is a mere word; false if it is none of these.
fn flag(options: &mut MountOptions, name: &[u8]) -> bool {
    match name {
        b"volatile" => options.volatile = true,
        b"allow_other" => options.allow_other = true,
        b"ro" => options.read_only = true,
        b"rw" => options.read_only = false,
        b"suid" => options.nosuid = false,
        b"nosuid" => options.nosuid = true,
        b"dev" => options.nodev = false,
        b"nodev" => options.nodev = true,
        b"exec" => options.noexec = false,
        b"noexec" => options.noexec = true,
        b"atime" => options.noatime = false,
        b"noatime" => options.noatime = true,
        _ => return false,
    }
    true
}

/// Whether `option` is in a table whose entries may end in `*`.
fn matches(table: &[&str], option: &[u8]) -> bool {
    table.iter().any(|entry| match entry.strip_suffix('*') {
        Some(start) => option.starts_with(start.as_bytes()),
        None => option == entry.as_bytes(),
    })
}

/// Sets a path that may be given once.
fn once(name: &'static str, place: &mut Option<PathBuf>, value: &[u8]) -> Result<(), OptionError> {
    let value = path(name, value)?;
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(OptionError::Twice(name)),
    }
}

/// A path with its escapes resolved.
fn path(name: &'static str, escaped: &[u8]) -> Result<PathBuf, OptionError> {
    let plain = unescaped(escaped);
    if plain.is_empty() {
        return Err(OptionError::EmptyPath(name));
    }
    if plain.contains(&0) {
        return Err(OptionError::Nul(name));
    }
    Ok(PathBuf::from(OsString::from_vec(plain)))
}

/// Bytes with their escapes resolved.
fn unescaped(escaped: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter().copied();
    while let Some(byte) = bytes.next() {
        // A backslash at the very end stands for itself.
        plain.push(if byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte });
    }
    plain
}

/// The options of one argument: between commas that no backslash precedes and, in a security
/// context, no quotes surround.
fn split_options(argument: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(argument);
    std::iter::from_fn(move || {
        let all = rest?;
        let (mut at, mut escaped) = (manner::quoted(all), false);
        while let Some(&byte) = all.get(at) {
            if byte == b',' && !escaped {
                break;
            }
            escaped = byte == b'\\' && !escaped;
            at += 1;
        }
        rest = all.get(at + 1..);
        all.get(..at)
    })
}

/// The parts of `list` between separators that no backslash precedes; escapes stay.
fn split(list: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut escaped = false;
    list.split(move |&byte| {
        let splits = byte == separator && !escaped;
        escaped = byte == b'\\' && !escaped;
        splits
    })
}

/// Whether the options make sense together.
fn check(options: MountOptions) -> Result<MountOptions, OptionError> {
    match (&options.upper, &options.work) {
        (None, _) if options.lowers.is_empty() => Err(OptionError::NoLayer),
        (Some(_), None) => Err(OptionError::NoWork),
        (None, Some(_)) => Err(OptionError::NoUpper("workdir")),
        _ => Ok(options),
    }
}

#[cfg(test)]
mod tests;
