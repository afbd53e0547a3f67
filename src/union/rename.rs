//! rename, in all its forms. One step on the upper layer moves the object and leaves the whiteout.

use std::sync::Arc;

use crate::errno::{Errno, Result};
use crate::layer::{Id, RenameHow, Upper};
use crate::name::Name;

use super::create::SET_GID;
use super::lookup::{Ref, Slot, Spot};
use super::node::{Node, Place, lock_all};
use super::{Caller, NodeId, Redirects, RenameFlag, Union};

/// Both ends of a rename.
struct Ends<'a> {
    from: (&'a Arc<Node>, Id, Name<'a>),
    to: (&'a Arc<Node>, Id, Name<'a>),
    moved: &'a Arc<Node>,
    other: Option<&'a Arc<Node>>,
    /// What the upper physically holds at the target.
    slot: Slot,
}

impl Union {
    /// Renames. Directories of lower layers, too: they carry a redirect.
    ///
    /// # Errors
    /// As rename(2); never `EXDEV` within the union, unless redirects are off, or the path of one
    /// is longer than the upper's filesystem can keep.
    pub fn rename(
        &self,
        from: (NodeId, Name<'_>),
        to: (NodeId, Name<'_>),
        flag: RenameFlag,
    ) -> Result<()> {
        self.with_room(|| self.rename_once(from, to, flag))
    }

    fn rename_once(
        &self,
        from: (NodeId, Name<'_>),
        to: (NodeId, Name<'_>),
        flag: RenameFlag,
    ) -> Result<()> {
        self.writable()?;
        let (from_dir, to_dir) = (self.dir(from.0)?, self.dir(to.0)?);
        loop {
            let source = self.locate(&from_dir, from.1)?;
            let target = self.locate(&to_dir, to.1)?;
            let Some(moved) = &source.node else { return Err(Errno::ENOENT.into()) };
            let other = target.node.as_ref();
            self.may_rename((&from_dir, moved), (&to_dir, other), flag)?;
            if let Some(other) = other {
                if other.id == moved.id {
                    return Ok(());
                }
                if flag != RenameFlag::Exchange && other.is_dir() && !self.is_empty(other)? {
                    return Err(Errno::ENOTEMPTY.into());
                }
            }
            let from_id = self.ensure_upper(&from_dir)?;
            let to_id = self.ensure_upper(&to_dir)?;
            self.ensure_upper(moved)?;
            self.ensure_alias(&from_dir, from.1, moved)?;
            if let Some(other) = other {
                self.prepare_target(&to_dir, to.1, other, flag)?;
            }
            if target.slot == Slot::Sibling && moved.is_dir() {
                self.whiteout_as_entry(&to_dir, to_id, to.1)?;
            }
            let fallback: &Node = moved;
            let mut nodes: Vec<&Node> = vec![&from_dir, &to_dir, fallback];
            nodes.extend(other.map(|other| -> &Node { other }));
            let _latches = lock_all(&nodes)?;
            if !current(&from_dir, &source) || !current(&to_dir, &target) {
                continue;
            }
            // Ancestry may have changed before the latches were taken.
            self.may_rename((&from_dir, moved), (&to_dir, other), flag)?;
            let ends = Ends {
                from: (&from_dir, from_id, from.1),
                to: (&to_dir, to_id, to.1),
                moved,
                other: other.map(|other| -> &Arc<Node> { other }),
                slot: target.slot,
            };
            let by = match flag {
                RenameFlag::Exchange => return self.exchange(&ends),
                RenameFlag::Whiteout { by, .. } => Some(by),
                RenameFlag::None | RenameFlag::NoReplace => None,
            };
            let Some(full) = self.replace(&ends, by)? else { return Ok(()) };
            self.rmdir_latched(&to_dir, to_id, to.1, &target, full)?;
        }
    }

    /// The rules of rename(2) that do not depend on layers.
    fn may_rename(
        &self,
        (from_dir, moved): (&Arc<Node>, &Arc<Node>),
        (to_dir, other): (&Arc<Node>, Option<&Ref<'_>>),
        flag: RenameFlag,
    ) -> Result<()> {
        if to_dir.state()?.dead {
            return Err(Errno::ENOENT.into());
        }
        if moved.is_dir() && self.is_ancestor(moved.id, to_dir)? {
            return Err(Errno::EINVAL.into());
        }
        self.may_redirect(moved)?;
        let Some(other) = other else {
            let missing = flag == RenameFlag::Exchange;
            return if missing { Err(Errno::ENOENT.into()) } else { Ok(()) };
        };
        match flag {
            RenameFlag::NoReplace | RenameFlag::Whiteout { replace: false, .. } => {
                return Err(Errno::EEXIST.into());
            }
            RenameFlag::Exchange => {
                let above = other.is_dir() && self.is_ancestor(other.id, from_dir)?;
                return if above { Err(Errno::EINVAL.into()) } else { self.may_redirect(other) };
            }
            RenameFlag::None | RenameFlag::Whiteout { .. } => {}
        }
        if other.id == moved.id {
            return Ok(());
        }
        match (moved.is_dir(), other.is_dir()) {
            (true, false) => Err(Errno::ENOTDIR.into()),
            (false, true) => Err(Errno::EISDIR.into()),
            _ => Ok(()),
        }
    }

    /// Refuses to move a directory of a lower layer where that cannot be written down.
    fn may_redirect(&self, moved: &Node) -> Result<()> {
        if self.options.redirects == Redirects::On || !moved.is_dir() {
            return Ok(());
        }
        let merged = !moved.state()?.lowers().is_empty();
        if merged { Err(Errno::EXDEV.into()) } else { Ok(()) }
    }

    fn prepare_target(
        &self,
        dir: &Arc<Node>,
        name: Name<'_>,
        other: &Arc<Node>,
        flag: RenameFlag,
    ) -> Result<()> {
        if flag == RenameFlag::Exchange {
            self.ensure_upper(other)?;
            return self.ensure_alias(dir, name, other);
        }
        if self.hard_linked_below(other)? {
            self.ensure_alias(dir, name, other)?;
        }
        Ok(())
    }

    /// Writes the whiteout beside `name` as one that occupies it. A directory that came to lie
    /// beside its own whiteout would be opaque, and lose what it shows of lower layers.
    fn whiteout_as_entry(&self, dir: &Node, id: Id, name: Name<'_>) -> Result<()> {
        let upper = self.writable()?;
        let _latch = dir.latch_write()?;
        let written = upper.whiteout(id, name, false).and_then(|()| upper.clear_whiteout(id, name));
        dir.changed();
        written
    }

    fn exchange(&self, ends: &Ends<'_>) -> Result<()> {
        let upper = self.writable()?;
        let Some(other) = ends.other else { return Err(Errno::ENOENT.into()) };
        let moved_id = self.settle(ends.moved, ends.to)?;
        let other_id = self.settle(other, ends.from)?;
        let (from, to) = ((ends.from.1, ends.from.2), (ends.to.1, ends.to.2));
        let renamed = upper.rename(from, moved_id, to, Some(other_id), RenameHow::Exchange);
        ends.from.0.changed();
        ends.to.0.changed();
        renamed?;
        self.moved_to(ends.moved, ends.to)?;
        self.moved_to(other, ends.from)
    }

    /// Moves it, and leaves a device 0:0 that was made `by` somebody at the old name.
    ///
    /// Returns the directory at the target if that must go first, because the whiteouts in it have
    /// to stay while it is there; nothing has changed then.
    fn replace<'a>(&self, ends: &Ends<'a>, by: Option<Caller>) -> Result<Option<&'a Arc<Node>>> {
        let upper = self.writable()?;
        let moved_id = self.settle(ends.moved, ends.to)?;
        let mut last = false;
        if let Some(other) = ends.other {
            if other.is_dir() && !self.is_empty_latched(other)? {
                return Err(Errno::ENOTEMPTY.into());
            }
            last = self.before_name_goes(other)?;
            let entry = other.is_dir() && ends.slot == Slot::Object;
            if entry && !self.empty_out(&**upper, other)? {
                return Ok(Some(other));
            }
        }
        let published = match by {
            Some(by) => self.publish_leaving(&**upper, ends, moved_id, by),
            None => self.publish_rename(&**upper, ends, moved_id),
        };
        ends.from.0.changed();
        ends.to.0.changed();
        published?;
        self.moved_to(ends.moved, ends.to)?;
        if let Some(other) = ends.other {
            other.changed();
            self.after_name_went(other, ends.to.0, ends.to.2, last)?;
        }
        Ok(None)
    }

    /// The one step. What it must leave at the old name depends on what lies below that.
    fn publish_rename(&self, upper: &dyn Upper, ends: &Ends<'_>, moved: Id) -> Result<()> {
        let leave = self.lower_shows(ends.from.0, ends.from.2)?;
        let (from, to) = ((ends.from.1, ends.from.2), (ends.to.1, ends.to.2));
        if !(ends.moved.is_dir() && ends.slot == Slot::Whiteout) {
            let how = if leave { RenameHow::Whiteout } else { RenameHow::Replace };
            return upper.rename(from, moved, to, None, how);
        }
        // A directory cannot replace a whiteout, which is no directory: they change places, and the
        // whiteout is just what the old name needs, or hides nothing there.
        upper.rename(from, moved, to, None, RenameHow::Exchange)?;
        if leave {
            return Ok(());
        }
        match upper.clear_whiteout(from.0, from.1) {
            Err(error) if error.errno() != Errno::ENOENT => {
                let name = from.1;
                tracing::warn!(%name, %error, "a whiteout that hides nothing stays behind");
            }
            _ => {}
        }
        Ok(())
    }

    /// The one step of a rename that leaves a device.
    fn publish_leaving(
        &self,
        upper: &dyn Upper,
        ends: &Ends<'_>,
        moved: Id,
        by: Caller,
    ) -> Result<()> {
        let (from, to) = ((ends.from.1, ends.from.2), (ends.to.1, ends.to.2));
        let dir = upper.attr(from.0)?;
        let ids = &self.options.ids;
        let uid = ids.users.made_by(by.uid)?;
        let gid = if dir.perm & SET_GID == 0 { ids.groups.made_by(by.gid)? } else { dir.gid };
        upper.rename(from, moved, to, None, RenameHow::Device { uid, gid })
    }

    /// Prepares an upper object for its new place; returns it. Changes nothing that is visible.
    fn settle(&self, node: &Arc<Node>, to: (&Arc<Node>, Id, Name<'_>)) -> Result<Id> {
        let id = match node.upper()? {
            Some(upper) => upper.id(),
            None => return Err(crate::bug!("renaming what was not copied up")),
        };
        if node.is_dir() {
            self.settle_dir(node, id, to.0, to.2)?;
        }
        if self.is_foreign(node)? {
            self.note_impure(to.0, to.1)?;
        }
        Ok(id)
    }

    /// Accounts for the node's new place.
    fn moved_to(&self, node: &Arc<Node>, to: (&Arc<Node>, Id, Name<'_>)) -> Result<()> {
        let place = Place { parent: Arc::clone(to.0), name: to.2.to_buf() };
        to.0.refs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let left = node.state()?.place.replace(place);
        if let Some(left) = left {
            self.live.table.release(left.parent, 1);
        }
        Ok(())
    }
}

fn current(dir: &Node, spot: &Spot<'_>) -> bool {
    dir.version() == spot.version
}
