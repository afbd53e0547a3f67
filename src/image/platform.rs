//! What hardware and system an image is for, and which of several fits best.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::errno::{Errno, Error, Result};

/// A system, an architecture and its variant, by Go's words: `linux/arm64/v8`.
///
/// Spellings are brought to one (`x86_64` is `amd64`, `aarch64` is `arm64`), and a variant that
/// every machine of the architecture has (`amd64/v1`, `arm64/v8`) is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: String,
}

impl Platform {
    /// From the words of a manifest; any of them may be anything.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let os = if os == "macos" { "darwin".to_owned() } else { os.to_lowercase() };
        let (architecture, variant) = (architecture.to_lowercase(), variant.to_lowercase());
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", v) => ("amd64", v),
            ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
            ("aarch64", v) => ("arm64", v),
            ("i386" | "i686" | "x86", v) => ("386", v),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("powerpc64le", v) => ("ppc64le", v),
            ("loongarch64", v) => ("loong64", v),
            (other, v) => (other, v),
        };
        Self { os, architecture: architecture.to_owned(), variant: variant.to_owned() }
    }

    /// That of this machine.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            name => name,
        };
        Self::new(std::env::consts::OS, architecture, "")
    }

    /// The system: `linux`.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The architecture: `amd64`, `arm64`, `arm`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The variant of the architecture: `v7`, or empty.
    pub fn variant(&self) -> &str {
        &self.variant
    }

    /// Whether this says nothing: what attestations beside images carry.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }

    /// How well an image for `other` runs where `self` is asked for: `None` if not at all, more is
    /// better. Variants are levels: one asked for runs what is made for lower ones.
    pub fn rank(&self, other: &Self) -> Option<u32> {
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        if self.variant == other.variant {
            return Some(u32::MAX);
        }
        let level = |variant: &str| match (variant, self.architecture.as_str()) {
            ("", "arm64") => Some(8),
            ("", _) => Some(1),
            (text, _) => text.strip_prefix('v').and_then(|n| n.parse::<u16>().ok()).map(u32::from),
        };
        let (asked, offered) = (level(&self.variant)?, level(&other.variant)?);
        (offered <= asked).then_some(offered)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os.escape_debug(), self.architecture.escape_debug())?;
        match self.variant.as_str() {
            "" => Ok(()),
            variant => write!(f, "/{}", variant.escape_debug()),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// # Errors
    /// `EINVAL` for what is not `OS/ARCHITECTURE` or `OS/ARCHITECTURE/VARIANT`.
    fn from_str(text: &str) -> Result<Self> {
        let word = |part: &str| {
            let inner = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            !part.is_empty() && inner && part.len() <= 32
        };
        let parts: Vec<&str> = text.split('/').take(4).collect();
        match parts.as_slice() {
            [os, arch] if word(os) && word(arch) => Ok(Self::new(os, arch, "")),
            [os, arch, v] if word(os) && word(arch) && word(v) => Ok(Self::new(os, arch, v)),
            _ => {
                let shown = text.chars().take(80).collect::<String>().escape_debug().to_string();
                let why = format!("'{shown}' is no platform (OS/ARCHITECTURE[/VARIANT])");
                Err(Error::new(Errno::EINVAL, why))
            }
        }
    }
}

/// A platform as JSON has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Words {
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) variant: Option<String>,
}

impl From<&Platform> for Words {
    fn from(platform: &Platform) -> Self {
        let variant = match (platform.variant(), platform.architecture()) {
            ("", "arm64") => Some("v8".to_owned()),
            ("", _) => None,
            (variant, _) => Some(variant.to_owned()),
        };
        let (architecture, os) = (platform.architecture.clone(), platform.os.clone());
        Self { architecture, os, variant }
    }
}

impl From<&Words> for Platform {
    fn from(words: &Words) -> Self {
        Self::new(&words.os, &words.architecture, words.variant.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
