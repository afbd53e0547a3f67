//! Owners as the layers hold them and as the mount shows them: ranges of ids that are shifted, and
//! one owner for everything (squashing).
//!
//! Inside the union ids are always those of the layers; they are translated where a caller comes
//! in and where attributes, ACLs and capabilities go out.

use crate::errno::{Errno, Error, Result};

use super::acl;

/// What an id without a counterpart is shown as: the default of /proc/sys/kernel/overflowuid.
pub const OVERFLOW: u32 = 65534;

/// The attribute that holds a file's capabilities.
const CAPABILITY: &[u8] = b"security.capability";

/// Ids that follow one another, and their counterparts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first one, as the layers hold it.
    pub stored: u32,
    /// The first one, as the mount shows it.
    pub shown: u32,
    /// How many.
    pub len: u32,
}

impl Range {
    /// The counterpart of `id` where the range that begins at `from` becomes the one at `to`.
    fn shift(id: u32, from: u32, to: u32, len: u32) -> Option<u32> {
        let nth = id.checked_sub(from).filter(|nth| *nth < len)?;
        to.checked_add(nth)
    }

    /// Whether two spans have an id in common, or one ends beyond the last id.
    fn collides(a: (u32, u32), b: (u32, u32)) -> bool {
        let end = |(start, len): (u32, u32)| u64::from(start) + u64::from(len);
        u64::from(a.0) < end(b) && u64::from(b.0) < end(a)
    }
}

/// How the ids of users (or of groups) are translated. The default changes none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap {
    ranges: Vec<Range>,
    squash: Option<u32>,
    keeper: Option<u32>,
}

impl IdMap {
    /// Ids in one of `ranges` have a counterpart, and no others. Without any, every id is its own.
    ///
    /// # Errors
    /// `EINVAL` if a range is empty, goes beyond the last id, or overlaps with another one.
    pub fn new(ranges: Vec<Range>) -> Result<Self> {
        // The very last id means "none" to chown(2).
        let beyond = |start: u32, len: u32| u64::from(start) + u64::from(len) > u64::from(u32::MAX);
        for (nth, range) in ranges.iter().enumerate() {
            if range.len == 0 || beyond(range.stored, range.len) || beyond(range.shown, range.len) {
                return Err(Error::new(Errno::EINVAL, "a range is empty or ends beyond all ids"));
            }
            for other in ranges.iter().take(nth) {
                let stored = Range::collides((range.stored, range.len), (other.stored, other.len));
                let shown = Range::collides((range.shown, range.len), (other.shown, other.len));
                if stored || shown {
                    return Err(Error::new(Errno::EINVAL, "two ranges overlap"));
                }
            }
        }
        Ok(Self { ranges, ..Self::default() })
    }

    /// Shows `id` as the owner of everything. With `keeper`, what is new belongs to that id in the
    /// layers, and changes of owner have no effect: for a server that cannot give files away.
    #[must_use]
    pub fn squashed(mut self, id: u32, keeper: Option<u32>) -> Self {
        (self.squash, self.keeper) = (Some(id), keeper);
        self
    }

    /// The owner that the mount shows.
    pub fn shown(&self, stored: u32) -> u32 {
        self.squash.unwrap_or_else(|| self.mapped(stored))
    }

    /// What the layers hold for an owner that a program names.
    ///
    /// # Errors
    /// `EOVERFLOW` for an id that has no counterpart, as Linux says on an id-mapped mount.
    pub fn stored(&self, shown: u32) -> Result<u32> {
        match self.keeper {
            Some(keeper) => Ok(keeper),
            None => self.unmapped(shown),
        }
    }

    /// What the layers hold for the owner of something new that `caller` makes. The machine's root,
    /// if it has no counterpart, makes it for the root of the layers: container engines put files
    /// into a container before they enter it.
    ///
    /// # Errors
    /// `EOVERFLOW` for anybody else without a counterpart.
    pub(super) fn made_by(&self, caller: u32) -> Result<u32> {
        match self.stored(caller) {
            Err(_) if caller == 0 && self.ranges.iter().any(|range| range.stored == 0) => Ok(0),
            stored => stored,
        }
    }

    fn mapped(&self, id: u32) -> u32 {
        let shift = |range: &Range| Range::shift(id, range.stored, range.shown, range.len);
        if self.ranges.is_empty() {
            return id;
        }
        self.ranges.iter().find_map(shift).unwrap_or(OVERFLOW)
    }

    fn unmapped(&self, id: u32) -> Result<u32> {
        let shift = |range: &Range| Range::shift(id, range.shown, range.stored, range.len);
        if self.ranges.is_empty() {
            return Ok(id);
        }
        self.ranges.iter().find_map(shift).ok_or_else(|| Errno::EOVERFLOW.into())
    }
}

/// How owners are translated. The default changes none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Of users.
    pub users: IdMap,
    /// Of groups.
    pub groups: IdMap,
}

impl Ids {
    /// The value of the attribute `name` as the mount shows it.
    pub(super) fn shown_value(&self, name: &[u8], value: Vec<u8>) -> Vec<u8> {
        let user = |id| Ok(self.users.mapped(id));
        let group = |id| Ok(self.groups.mapped(id));
        self.translate(name, &value, user, group).unwrap_or(value)
    }

    /// What the layers hold for a value of the attribute `name`.
    ///
    /// # Errors
    /// `EOVERFLOW` if an id in it has no counterpart.
    pub(super) fn stored_value(&self, name: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        let user = |id| self.users.unmapped(id);
        let group = |id| self.groups.unmapped(id);
        self.translate(name, value, user, group)
    }

    fn translate(
        &self,
        name: &[u8],
        value: &[u8],
        user: impl Fn(u32) -> Result<u32>,
        group: impl Fn(u32) -> Result<u32>,
    ) -> Result<Vec<u8>> {
        if self.users.ranges.is_empty() && self.groups.ranges.is_empty() {
            return Ok(value.to_vec());
        }
        match name {
            acl::ACCESS | acl::DEFAULT => acl::translate(value, user, group),
            CAPABILITY => capability(value, user),
            _ => Ok(value.to_vec()),
        }
    }
}

/// A capability attribute (linux/capability.h) whose root user is translated by `user`. Its second
/// form means the root of the filesystem, 0; its third names the user.
fn capability(value: &[u8], user: impl Fn(u32) -> Result<u32>) -> Result<Vec<u8>> {
    const REVISION: u32 = 0xff00_0000;
    const SECOND: u32 = 0x0200_0000;
    const THIRD: u32 = 0x0300_0000;
    const SECOND_LEN: usize = 20;
    let word = |at: usize| -> Option<u32> {
        let bytes = value.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let Some(magic) = word(0) else { return Ok(value.to_vec()) };
    let root = match (magic & REVISION, value.len()) {
        (SECOND, SECOND_LEN) => Some(0),
        (THIRD, _) => word(SECOND_LEN),
        _ => None,
    };
    // A form that Linux does not know grants nothing, whoever it means.
    let Some(root) = root else { return Ok(value.to_vec()) };
    let root = user(root)?;
    let revision = if root == 0 { SECOND } else { THIRD };
    let mut out = (magic & !REVISION | revision).to_le_bytes().to_vec();
    out.extend_from_slice(value.get(4..SECOND_LEN).unwrap_or_default());
    if root != 0 {
        out.extend_from_slice(&root.to_le_bytes());
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
