//! Files without a name (`O_TMPFILE`): they lie in the work directory until they get their first
//! name, and are gone with their last user if they never do.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::errno::{Errno, Result};
use crate::layer::{Held, How, Id, New, Upper, What};
use crate::name::Name;

use super::lookup::Slot;
use super::node::{Node, Open, Orphan, Place, State, UpperRef};
use super::table::Interned;
use super::{Caller, Found, Handle, Mode, NodeId, Union};
use crate::attr::Kind;

impl Union {
    /// Makes and opens a regular file without a name, on the filesystem of `parent`, whose default
    /// ACL and setgid bit apply. `flags` as in open(2); with `O_EXCL` it never gets a name.
    ///
    /// # Errors
    /// `ENOENT` in a directory that has been removed.
    pub fn tmpfile(
        &self,
        parent: NodeId,
        mode: Mode,
        flags: i32,
        caller: &Caller,
    ) -> Result<(Found, Handle)> {
        let upper = self.roomy()?;
        let parent = self.dir(parent)?;
        let dir = self.ensure_upper(&parent)?;
        if parent.state()?.dead {
            return Err(Errno::ENOENT.into());
        }
        let plan = self.plan(&parent, dir, What::File, mode, caller)?;
        let (perm, uid, gid) = (plan.perm, plan.uid, plan.gid);
        let new = New { what: What::File, perm, uid, gid, xattrs: &plan.xattrs, marks: &[] };
        let staged = upper.stage(&new)?;
        let id = staged.id;
        // From here on whatever fails discards it.
        let orphan = Orphan::new(Arc::clone(upper), staged, flags & libc::O_EXCL == 0);
        let attr = upper.attr(id)?;
        let file = upper.open_write(id)?;
        let node = self.nameless(upper, id, attr.ino, orphan)?;
        let open = Open { handles: 1, executed: 0, file, writable: true, stale: false };
        node.state()?.open = Some(Box::new(open));
        let mut attr = self.shown(attr, node.ino, 1, None);
        attr.nlink = 0;
        Ok((Found { node: node.id, attr }, Handle::of_flags(flags)))
    }

    /// The node of an object in the work directory.
    fn nameless(
        &self,
        upper: &Arc<dyn Upper>,
        id: Id,
        real_ino: u64,
        orphan: Orphan,
    ) -> Result<Arc<Node>> {
        let mut state = State::new(None);
        // The orphan gives back the one reference that the staged object carries.
        let held = Arc::new(Held::borrowed(Arc::clone(upper).as_layer(), id));
        state.upper = Some(UpperRef { held, real_ino });
        state.ext().orphan = Some(orphan);
        state.dead = true;
        let mut left = Some(state);
        let mut ino = self.live.inos.map(upper.fs(), real_ino);
        loop {
            let number = ino;
            let make = |node| {
                let state = left.take().unwrap_or_else(|| State::new(None));
                Node::new(node, number, Kind::File, state)
            };
            match self.live.table.intern(number, || true, |_| false, make) {
                Interned::Made(node) => return Ok(node),
                Interned::Known(_) | Interned::Stale => {
                    return Err(crate::bug!("a new file is known already"));
                }
                // A copied-up file shows this number as its own.
                Interned::Conflict => ino = self.live.inos.fresh(),
            }
        }
    }

    /// Whether the node is a file without a name that may get one.
    pub(super) fn awaits_name(node: &Node) -> Result<bool> {
        let state = node.state()?;
        let orphan = state.ext.as_ref().and_then(|ext| ext.orphan.as_ref());
        Ok(orphan.is_some_and(Orphan::may_get_name))
    }

    /// Gives a file without a name its first one. The caller holds the latches of both.
    pub(super) fn give_name(
        &self,
        upper: &Arc<dyn Upper>,
        node: &Arc<Node>,
        (parent, dir): (&Arc<Node>, Id),
        name: Name<'_>,
        slot: Slot,
    ) -> Result<()> {
        let orphan = node.state()?.ext().orphan.take();
        let Some(mut orphan) = orphan else { return Err(Errno::ENOENT.into()) };
        let how = if slot == Slot::Whiteout { How::Replace } else { How::NoReplace };
        let published = match orphan.staged() {
            Some(staged) => upper.publish(staged, dir, name, how, false),
            None => Err(Errno::ENOENT.into()),
        };
        parent.changed();
        if let Err(error) = published {
            node.state()?.ext().orphan = Some(orphan);
            return Err(error);
        }
        // The reference that the staged object carried is now the node's.
        orphan.published();
        let mut state = node.state()?;
        if let Some(real_ino) = state.upper.as_ref().map(|upper| upper.real_ino)
            && let Some(id) = state.upper.as_ref().map(UpperRef::id)
        {
            state.upper = Some(Self::upper_ref(upper, id, real_ino));
        }
        state.dead = false;
        // The caller knows the parent, so raising the count needs no lock.
        parent.refs.fetch_add(1, Ordering::Relaxed);
        state.place = Some(Place { parent: Arc::clone(parent), name: name.to_buf() });
        Ok(())
    }
}
