//! unlink and rmdir: the upper object goes, and a whiteout hides what lies below.

use std::sync::Arc;

use crate::errno::{Errno, Result};
use crate::layer::{Id, Mark, Upper};
use crate::name::{Name, NameBuf};

use super::lookup::{Slot, Spot};
use super::node::{Lower, Node, lock_all};
use super::{NodeId, Union};

impl Union {
    /// Removes a name of a non-directory.
    pub fn unlink(&self, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.with_room(|| self.remove(parent, name, false))
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: NodeId, name: Name<'_>) -> Result<()> {
        self.with_room(|| self.remove(parent, name, true))
    }

    fn remove(&self, parent: NodeId, name: Name<'_>, dir: bool) -> Result<()> {
        self.writable()?;
        let parent = self.dir(parent)?;
        loop {
            let spot = self.locate(&parent, name)?;
            let Some(node) = &spot.node else { return Err(Errno::ENOENT.into()) };
            match (dir, node.is_dir()) {
                (true, false) => return Err(Errno::ENOTDIR.into()),
                (false, true) => return Err(Errno::EISDIR.into()),
                _ => {}
            }
            if dir && !self.is_empty(node)? {
                return Err(Errno::ENOTEMPTY.into());
            }
            let upper_dir = self.ensure_upper(&parent)?;
            if self.hard_linked_below(node)? {
                self.ensure_alias(&parent, name, node)?;
            }
            let _latches = lock_all(&[&parent, node])?;
            if parent.version() != spot.version {
                continue;
            }
            if dir {
                return self.rmdir_latched(&parent, upper_dir, name, &spot, node);
            }
            return self.unlink_latched(&parent, upper_dir, name, &spot, node);
        }
    }

    /// Whether the node is a hard link whose name only a lower layer has, or one whose count of
    /// names is kept: then its name must lie in the upper before it goes.
    pub(super) fn hard_linked_below(&self, node: &Node) -> Result<bool> {
        let lowers = {
            let state = node.state()?;
            if node.is_dir() || (state.upper.is_some() && state.links().is_none()) {
                return Ok(false);
            }
            if state.links().is_some() {
                return Ok(true);
            }
            state.lowers.clone()
        };
        match lowers.as_deref().and_then(<[Lower]>::first) {
            Some(top) => Ok(top.layer().attr(top.id())?.nlink > 1),
            None => Ok(false),
        }
    }

    fn unlink_latched(
        &self,
        parent: &Arc<Node>,
        dir: Id,
        name: Name<'_>,
        spot: &Spot<'_>,
        node: &Arc<Node>,
    ) -> Result<()> {
        let upper = self.writable()?;
        let at_upper = spot.slot == Slot::Object;
        let below = !at_upper || self.lower_shows(parent, name)?;
        let last = self.before_name_goes(node)?;
        let gone =
            if below { upper.whiteout(dir, name, at_upper) } else { upper.unlink(dir, name) };
        parent.changed();
        gone?;
        self.after_name_went(node, parent, name, last)
    }

    /// Prepares for the loss of one name of `node`, whose latch is held; returns whether it is the
    /// last one. Changes nothing that is visible.
    pub(super) fn before_name_goes(&self, node: &Node) -> Result<bool> {
        let upper = self.writable()?;
        let (object, links) = {
            let state = node.state()?;
            (state.upper.clone(), state.links().cloned())
        };
        let Some(object) = object else { return Ok(true) };
        // Whoever has it open, or as working directory, goes on using it.
        upper.pin(object.id())?;
        if let Some(links) = links {
            Self::count_by_upper(&**upper, object.id(), links.count)?;
            return Ok(links.count <= 1);
        }
        Ok(node.is_dir() || upper.attr(object.id())?.nlink <= 1)
    }

    /// Accounts for the loss of the name `name` in `parent`.
    pub(super) fn after_name_went(
        &self,
        node: &Arc<Node>,
        parent: &Arc<Node>,
        name: Name<'_>,
        last: bool,
    ) -> Result<()> {
        let left = {
            let mut state = node.state()?;
            state.dead |= last;
            self.live.table.leaving.note(&mut state);
            if state.place.as_ref().is_some_and(|place| place.is(parent, name)) {
                state.place.take()
            } else {
                None
            }
        };
        if let Some(place) = left {
            self.live.table.release(place.parent, 1);
        }
        if let (false, Some(upper), Some(object)) = (last, &self.upper, node.upper()?) {
            upper.unpin(object.id());
        }
        self.name_went(node)
    }

    /// Removes a directory whose latch and that of `parent` are held.
    pub(super) fn rmdir_latched(
        &self,
        parent: &Arc<Node>,
        dir: Id,
        name: Name<'_>,
        spot: &Spot<'_>,
        node: &Arc<Node>,
    ) -> Result<()> {
        let upper = self.writable()?;
        // Again: something may have been made in it before its latch was taken.
        if !self.is_empty_latched(node)? {
            return Err(Errno::ENOTEMPTY.into());
        }
        let at_upper = spot.slot == Slot::Object;
        let below = !at_upper || self.lower_shows(parent, name)?;
        let last = self.before_name_goes(node)?;
        let emptied = !at_upper || self.empty_out(&**upper, node)?;
        let gone = match (below, emptied) {
            (true, _) => upper.whiteout(dir, name, at_upper),
            (false, true) => upper.rmdir(dir, name),
            (false, false) => upper.withdraw(dir, name).map(|whole| upper.discard(whole)),
        };
        parent.changed();
        gone?;
        if !emptied {
            Self::became_empty(node)?;
        }
        node.changed();
        self.after_name_went(node, parent, name, last)
    }

    /// Nothing of lower layers shows in the directory any more, to whoever has it open either.
    pub(super) fn became_empty(node: &Node) -> Result<()> {
        let below = {
            let mut state = node.state()?;
            state.opaque = true;
            state.lowers.take()
        };
        drop(below);
        node.changed();
        Ok(())
    }

    /// Removes the whiteouts from the upper directory of an empty merged one, so that it can be
    /// replaced. It is made opaque first: what the whiteouts hid does not come back at any moment.
    ///
    /// False if they have to stay, because the upper cannot make a directory that has them opaque
    /// in one step; nothing has changed then.
    pub(super) fn empty_out(&self, upper: &dyn Upper, node: &Node) -> Result<bool> {
        let Some(object) = node.upper()? else { return Ok(true) };
        let mut whiteouts: Vec<NameBuf> = Vec::new();
        upper.readdir(object.id(), &mut |item| {
            if item.kind.is_some() {
                return Err(crate::bug!("an empty directory holds {:?}", item.name));
            }
            whiteouts.push(item.name.to_buf());
            Ok(())
        })?;
        if node.state()?.opaque {
            upper.clear_opaque_entry(object.id())?;
        } else if !whiteouts.is_empty() {
            match upper.set_mark(object.id(), &Mark::Opaque) {
                Err(error) if error.errno() == Errno::EOPNOTSUPP => return Ok(false),
                result => result?,
            }
            // Before what follows, which may fail, and then the directory stays.
            Self::became_empty(node)?;
        }
        let cleared =
            whiteouts.iter().try_for_each(|name| upper.clear_whiteout(object.id(), name.as_name()));
        node.changed();
        cleared.map(|()| true)
    }
}
