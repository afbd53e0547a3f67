//! Hard links of lower layers keep one inode over copy-up and remount, by the kernel's index: the
//! copy is (also) an entry of the index directory, named by the origin's file handle. A lookup of
//! any lower name of that inode finds the copy there.
//!
//! The number of names that the mount shows is kept on the copy as `overlay.nlink`, relative to
//! whichever number the next step moves along with it: to the upper link count before a step that
//! adds or removes a name, to the lower one before a step that only makes a lower name an upper
//! one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::attr::Attr;
use crate::errno::{Errno, Result};
use crate::layer::{Held, Id, Lookup, Mark, Marks, Nlink, NlinkBase, Upper, marks};
use crate::name::{Name, NameBuf};

use super::Union;
use super::descend::{Below, refuse_unknown, starts};
use super::node::{Links, Lower, Node, UpperRef};

/// The first bytes of a handle as the kernel encodes it (struct `ovl_fb`): version, magic.
const HANDLE_MAGIC: &[u8] = &[0x00, 0xfb];

/// The name of the index entry for an origin.
fn key_of(origin: &[u8]) -> Option<NameBuf> {
    if !origin.starts_with(HANDLE_MAGIC) {
        return Name::new(origin).ok().map(Name::to_buf);
    }
    Name::new(&marks::index_name(origin)).ok().map(Name::to_buf)
}

/// What names a lower object in the index: its handle, or (where the filesystem gives none) its
/// filesystem and inode number.
pub(super) fn origin_of(lower: &Lower) -> Result<Vec<u8>> {
    let layer = lower.layer();
    if let Some(handle) = layer.handle(lower.id())? {
        return Ok(handle);
    }
    let ino = layer.attr(lower.id())?.ino;
    Ok(format!("plyfs-{:x}-{ino:x}", layer.fs()).into_bytes())
}

/// The index entry's name for a lower object.
pub(super) fn index_key(lower: &Lower) -> Result<NameBuf> {
    match key_of(&origin_of(lower)?) {
        Some(key) => Ok(key),
        None => Err(crate::bug!("an origin that names no index entry")),
    }
}

impl Union {
    /// The copy of a lower hard link, if one of its names was copied up.
    #[allow(clippy::type_complexity, reason = "taken apart by its only caller")]
    pub(super) fn copy_in_index(
        &self,
        lower: &Lower,
    ) -> Result<Option<(UpperRef, Attr, Links, Marks)>> {
        let Some(upper) = &self.upper else { return Ok(None) };
        let key = index_key(lower)?;
        let Lookup::Found(entry) = upper.lookup(upper.index()?, key.as_name())? else {
            return Ok(None);
        };
        let copy = Self::upper_ref(upper, entry.id, entry.attr.ino);
        refuse_unknown(&entry.marks, key.as_bytes())?;
        let nlink = entry.marks.nlink.unwrap_or(Nlink { base: NlinkBase::Lower, delta: 0 });
        let base = match nlink.base {
            NlinkBase::Upper => entry.attr.nlink,
            NlinkBase::Lower => lower.layer().attr(lower.id())?.nlink,
        };
        // A name was found: there is one at least, even if the index was wiped and made anew.
        let count = base.saturating_add_signed(nlink.delta).max(1);
        let links = Links { key: Some(key), count };
        Ok(Some((copy, entry.attr, links, entry.marks)))
    }

    /// The index entry's name for a copy found in the tree, from its origin.
    pub(super) fn index_key_of_copy(&self, id: Id) -> Result<Option<NameBuf>> {
        let marks = self.writable()?.marks(id)?;
        Ok(marks.origin.as_deref().and_then(key_of))
    }

    /// Makes the next change of the copy's upper names change the count that the mount shows.
    pub(super) fn count_by_upper(upper: &dyn Upper, id: Id, count: u32) -> Result<()> {
        let real = upper.attr(id)?.nlink;
        Self::write_count(upper, id, NlinkBase::Upper, count, real)
    }

    /// Writes the count relative to `base`, which presently is `real`.
    pub(super) fn write_count(
        upper: &dyn Upper,
        id: Id,
        base: NlinkBase,
        count: u32,
        real: u32,
    ) -> Result<()> {
        let delta = i64::from(count) - i64::from(real);
        let delta = i32::try_from(delta).map_err(|_| Errno::EMLINK)?;
        upper.set_mark(id, &Mark::Nlink(Nlink { base, delta }))
    }

    /// Gives a copied-up hard link its name `name` in the upper layer too, if so far only a lower
    /// layer has that name: an operation that removes or moves the name then moves the link count
    /// along with it in one step.
    pub(super) fn ensure_alias(
        &self,
        parent: &Arc<Node>,
        name: Name<'_>,
        node: &Arc<Node>,
    ) -> Result<()> {
        if node.is_dir() {
            return Ok(());
        }
        let id = self.ensure_upper(node)?;
        if node.state()?.links().is_none() {
            return Ok(());
        }
        let dir = self.ensure_upper(parent)?;
        let upper = self.writable()?;
        let _latch = node.latch_write()?;
        // Not before: whoever had the latch may have changed the count.
        let Some(links) = node.state()?.links().cloned() else { return Ok(()) };
        match upper.lookup(dir, name)? {
            Lookup::Absent => {}
            Lookup::Whiteout(_) => return Ok(()),
            Lookup::Found(entry) => {
                drop(Held::new(Arc::clone(upper).as_layer(), entry.id));
                // A crash after the name was made may have left the count relative to the lower
                // one, which nobody finds once the name has moved.
                return Self::count_by_upper(&**upper, id, links.count);
            }
        }
        let lowers = parent.state()?.lowers.clone();
        let start = starts(lowers.as_deref().unwrap_or_default());
        let mut found = Vec::new();
        let lower = self.descend(&start, name, Below::Nothing, &mut found)?;
        let Some((lower, _)) = lower else { return Ok(()) };
        self.note_impure(parent, dir)?;
        Self::write_count(&**upper, id, NlinkBase::Lower, links.count, lower.nlink)?;
        let linked = upper.link(id, dir, name, true);
        parent.changed();
        Self::count_by_upper(&**upper, id, links.count)?;
        linked
    }

    /// Changes whenever a hard link is copied up or the number of its names changes.
    pub(super) fn links_version(&self) -> u64 {
        self.links_version.load(Ordering::Acquire)
    }

    /// Says that a hard link was copied up, or that the number of its names changed.
    pub(super) fn links_changed(&self) {
        self.links_version.fetch_add(1, Ordering::AcqRel);
    }

    /// Accounts for a name that went: removes the index entry with the last one.
    pub(super) fn name_went(&self, node: &Node) -> Result<()> {
        let mut state = node.state()?;
        let Some(links) = state.ext.as_mut().and_then(|ext| ext.links.as_mut()) else {
            return Ok(());
        };
        links.count = links.count.saturating_sub(1);
        let (count, key) = (links.count, links.key.clone());
        drop(state);
        self.links_changed();
        if count == 0
            && let (Some(key), Some(upper)) = (key, &self.upper)
        {
            // What a crash before this leaves in the index has no name in the mount, so nothing
            // looks for it; `plyfs check` tells of it.
            let index = upper.index();
            if let Err(error) = index.and_then(|index| upper.unlink(index, key.as_name())) {
                tracing::warn!(key = ?key, %error, "index entry of a removed file stays behind");
            }
        }
        Ok(())
    }
}
