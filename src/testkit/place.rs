//! A path from the root of a tree under test, as its components.

use std::fmt;

/// A path: its components, none for the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub Vec<Vec<u8>>);

impl Place {
    /// The root.
    pub fn root() -> Self {
        Self::default()
    }

    /// The entry of that name in this directory.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        let mut parts = self.0.clone();
        parts.push(name.to_vec());
        Self(parts)
    }

    /// The directory and the last component; `None` for the root.
    pub fn split(&self) -> Option<(Self, &[u8])> {
        let (last, dir) = self.0.split_last()?;
        Some((Self(dir.to_vec()), last))
    }

    /// How many components it has.
    pub fn depth(&self) -> usize {
        self.0.len()
    }
}

impl From<&str> for Place {
    fn from(path: &str) -> Self {
        let parts = path.split('/').filter(|part| !part.is_empty());
        Self(parts.map(|part| part.as_bytes().to_vec()).collect())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        for part in &self.0 {
            if part.len() > 40 {
                write!(f, "/({} bytes)", part.len())?;
            } else {
                write!(f, "/{}", part.escape_ascii())?;
            }
        }
        Ok(())
    }
}
