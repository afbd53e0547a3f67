//! The names of images, as people and registries write them: `[registry/]name[:tag][@digest]`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::digest::Digest;
use crate::errno::{Errno, Error, Result};

/// The tag that a name without one means.
pub const DEFAULT_TAG: &str = "latest";

/// The registry that names without one are of; never shown.
const HOME: &str = "docker.io";
/// What stands before a name of one word in the home registry; never shown either.
const LIBRARY: &str = "library";

/// A name is no longer than this (registry and path; the distribution specification's limit).
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// The name of an image.
///
/// There is one spelling per meaning: `docker.io/library/debian`, `library/debian` and `debian`
/// are equal and shown as `debian:latest`, so that the text can be a database's key. It holds
/// ASCII letters, digits and `._-/:@[]` only, starts with none of `.-/`, and has no `..` and no
/// empty component in its path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: Option<String>,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry, if it is not Docker's: a host, perhaps with a port.
    pub fn registry(&self) -> Option<&str> {
        self.registry.as_deref()
    }

    /// The name without registry, tag and digest: `debian`, `library-of/words`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; `None` only if there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest that the name is pinned to.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The name with nothing left out, as containerd keeps it: `docker.io/library/debian:12`.
    pub fn full(&self) -> String {
        match &self.registry {
            Some(_) => self.to_string(),
            None if self.path.contains('/') => format!("{HOME}/{self}"),
            None => format!("{HOME}/{LIBRARY}/{self}"),
        }
    }

    /// What `said` in an image source means: layouts often hold nothing but a tag (umoci's and
    /// skopeo's `DIR:12` say `12`), which is then a tag of `stem`, the source's own name
    /// ([`stem`]).
    ///
    /// # Errors
    /// `EINVAL` if neither reading is a name.
    pub fn from_source(said: &str, stem: &str) -> Result<Self> {
        if said.contains(['/', ':', '@']) || stem.is_empty() {
            said.parse()
        } else {
            format!("{stem}:{said}").parse()
        }
    }
}

/// What an image in this file or directory might be called if nothing else says it: `debian` for
/// `Debian.oci.tar.gz`. Empty if nothing of the file's name can be in a name.
pub fn stem(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase());
    let name = name.unwrap_or_default();
    let mut stem = name.as_str();
    let endings = [".gz", ".zst", ".tgz", ".tzst", ".tar", ".oci", ".docker"];
    while let Some(rest) = endings.iter().find_map(|end| stem.strip_suffix(end)) {
        stem = rest;
    }
    // What may not be in a name separates the words of it.
    let mut found = String::new();
    for word in stem.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        if !found.is_empty() {
            found.push('-');
        }
        found.push_str(word);
    }
    found.truncate(MAX_NAME / 2);
    found.trim_end_matches('-').to_owned()
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        f.write_str(&self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    /// # Errors
    /// `EINVAL`, with the reason, for what is not a name by the distribution specification's
    /// grammar, and for 64 hexadecimal digits, which would read as an image's id.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| {
            let shown = text.chars().take(80).collect::<String>().escape_debug().to_string();
            Error::new(Errno::EINVAL, format!("'{shown}' is no image name: {why}"))
        };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let (registry, rest) = split_registry(name);
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if let Some(registry) = registry {
            check_registry(registry).map_err(bad)?;
        }
        check_path(path).map_err(bad)?;
        tag.map_or(Ok(()), check_tag).map_err(bad)?;
        if registry.map_or(0, str::len) + path.len() > MAX_NAME {
            return Err(bad("longer than 255 characters"));
        }
        let registry = registry.filter(|host| *host != HOME && *host != "index.docker.io");
        let path = match path.split_once('/') {
            Some((LIBRARY, word)) if registry.is_none() && !word.contains('/') => word,
            _ => path,
        };
        if registry.is_none() && path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad("it would read as an image's id"));
        }
        let tag = tag.or_else(|| digest.is_none().then_some(DEFAULT_TAG));
        Ok(Self {
            registry: registry.map(str::to_owned),
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

/// The first component is a registry if it cannot be part of a path, or is `localhost`.
fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((host, rest))
            if host.contains(['.', ':'])
                || host == "localhost"
                || host.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (Some(host), rest)
        }
        _ => (None, name),
    }
}

type Verdict = std::result::Result<(), &'static str>;

fn check_registry(text: &str) -> Verdict {
    let wrong = Err("its registry is no host");
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').unwrap_or("-"))),
            None => return wrong,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if port.is_some_and(|p| p.is_empty() || p.len() > 5 || !p.bytes().all(|b| b.is_ascii_digit())) {
        return Err("its registry's port is no number");
    }
    let address = text.starts_with('[');
    let good = if address {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
    } else {
        host.split('.').all(|part| {
            let inner = part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            !part.is_empty() && inner && !part.starts_with('-') && !part.ends_with('-')
        })
    };
    if good { Ok(()) } else { wrong }
}

fn check_path(path: &str) -> Verdict {
    if path.is_empty() {
        return Err("it is empty");
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("upper case is for tags only");
    }
    for part in path.split('/') {
        let Some(last) = part.bytes().last() else { return Err("a component is empty") };
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if !part.bytes().all(|b| word(b) || b"._-".contains(&b)) {
            return Err("only a-z, 0-9 and ._-/ may be in it");
        }
        if !part.bytes().next().is_some_and(word) || !word(last) {
            return Err("a component starts and ends with a letter or a digit");
        }
        // Between words stands one dot, one or two underscores, or any number of dashes.
        let between = part.split(|c: char| c.is_ascii_alphanumeric()).filter(|s| !s.is_empty());
        for separator in between {
            let dashes = separator.bytes().all(|b| b == b'-');
            if !dashes && !matches!(separator, "." | "_" | "__") {
                return Err("two separators follow each other");
            }
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> Verdict {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if tag.is_empty() {
        return Err("its tag is empty");
    }
    if tag.len() > MAX_TAG {
        return Err("its tag is longer than 128 characters");
    }
    if !tag.bytes().all(inner) || tag.starts_with(['.', '-']) {
        return Err("its tag has characters that tags may not have");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
