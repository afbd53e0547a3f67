//! What the last name of an entry's path says: names that begin with `.wh.` are no files but
//! deletions (image-spec, layer.md, "Whiteouts").

use crate::errno::{Errno, Error, Result};
use crate::name::Name;

const PREFIX: &[u8] = b".wh.";
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Where AUFS kept, in the root of a layer, the files that have several names: each name is an
/// entry that is a hard link to a file in here.
pub(super) const LINKED: &[u8] = b".wh..wh.plnk";

/// A name of an archive, told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// A name as any other.
    Plain(Name<'a>),
    /// `.wh.NAME`: the layers below have no NAME.
    Whiteout(Name<'a>),
    /// `.wh..wh..opq`: the layers below have nothing in this directory.
    Opaque,
    /// Any other `.wh..wh.` name: what AUFS kept for itself.
    Ignored,
}

/// Tells a name apart.
///
/// # Errors
/// `EINVAL` for `.wh.` alone, for a whiteout of `.` or `..`, and for what can be no name;
/// `ENAMETOOLONG` beyond 255 bytes, those before the name of a whiteout not counted.
pub fn whiteout(name: &[u8]) -> Result<Said<'_>> {
    if name == OPAQUE {
        return Ok(Said::Opaque);
    }
    if name.starts_with(META) {
        return Name::new(name).map(|_| Said::Ignored);
    }
    // It is the name that is hidden which has to be one: no file is ever called `.wh.NAME`.
    let Some(hidden) = name.strip_prefix(PREFIX) else { return Name::new(name).map(Said::Plain) };
    if hidden.is_empty() {
        return Err(Error::new(Errno::EINVAL, "a whiteout of nothing"));
    }
    match Name::new(hidden) {
        Ok(hidden) => Ok(Said::Whiteout(hidden)),
        Err(error) => Err(error.context_of("a whiteout of what is no name")),
    }
}

/// What a name means inside of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inner {
    /// A directory as any other.
    Plain,
    /// A directory that AUFS kept for itself.
    Ignored,
}

/// Tells apart the name of a directory on the way to an entry.
///
/// # Errors
/// As [`whiteout`]; and `EINVAL` for a whiteout, which holds nothing.
pub(super) fn inner(name: &[u8]) -> Result<Inner> {
    match whiteout(name)? {
        Said::Plain(_) => Ok(Inner::Plain),
        Said::Ignored => Ok(Inner::Ignored),
        Said::Whiteout(_) | Said::Opaque => {
            Err(Error::new(Errno::EINVAL, "it lies in a whiteout, which can hold nothing"))
        }
    }
}

#[cfg(test)]
mod tests;
