//! New objects: create, mkdir, mknod, symlink, link; also over a whiteout.

use std::sync::Arc;

use crate::attr::{Attr, Kind};
use crate::errno::{Errno, Result};
use crate::layer::{Data, Entry, How, Id, Mark, Marks, New, Upper, What};
use crate::name::Name;

use super::acl;
use super::lookup::Slot;
use super::node::{Latches, Node, Open, lock_all};
use super::{Caller, Found, Handle, Mode, NodeId, Union, Xattrs};

pub(super) const SET_GID: u16 = 0o2000;

/// What is about to be made.
pub(super) struct Plan<'a> {
    what: What<'a>,
    pub(super) perm: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    default_acl: bool,
}

/// An object that was made: in the upper layer, and as a node.
struct Made {
    node: Arc<Node>,
    attr: Attr,
    file: Option<Arc<dyn Data>>,
}

impl Union {
    /// Makes a file, FIFO, socket or device with its number.
    pub fn mknod(
        &self,
        parent: NodeId,
        name: Name<'_>,
        (kind, rdev): (Kind, u64),
        mode: Mode,
        caller: &Caller,
    ) -> Result<Found> {
        let what = match kind {
            Kind::File => What::File,
            Kind::Fifo | Kind::Socket => What::Node(kind, 0),
            Kind::Char | Kind::Block => What::Node(kind, rdev),
            Kind::Dir | Kind::Symlink => return Err(Errno::EINVAL.into()),
        };
        Ok(self.make(parent, name, what, mode, caller, false)?.found())
    }

    /// Makes a directory.
    pub fn mkdir(
        &self,
        parent: NodeId,
        name: Name<'_>,
        mode: Mode,
        caller: &Caller,
    ) -> Result<Found> {
        Ok(self.make(parent, name, What::Dir, mode, caller, false)?.found())
    }

    /// Makes a symbolic link.
    pub fn symlink(
        &self,
        parent: NodeId,
        name: Name<'_>,
        target: &[u8],
        caller: &Caller,
    ) -> Result<Found> {
        let mode = Mode { perm: 0o777, umask: 0 };
        Ok(self.make(parent, name, What::Symlink(target), mode, caller, false)?.found())
    }

    /// Makes and opens a regular file; `EEXIST` if the name exists. `flags` as in open(2).
    pub fn create(
        &self,
        parent: NodeId,
        name: Name<'_>,
        mode: Mode,
        flags: i32,
        caller: &Caller,
    ) -> Result<(Found, Handle)> {
        let made = self.make(parent, name, What::File, mode, caller, true)?;
        if let Some(file) = &made.file {
            let file = Arc::clone(file);
            let mut state = made.node.state()?;
            // Somebody else may have looked it up and opened it already.
            let before = state.open.as_ref();
            let handles = 1 + before.map_or(0, |open| open.handles);
            let executed = before.map_or(0, |open| open.executed);
            let open = Open { handles, executed, file, writable: true, stale: false };
            let before = state.open.replace(Box::new(open));
            drop(state);
            drop(before);
        }
        Ok((made.found(), Handle::of_flags(flags)))
    }

    fn make(
        &self,
        parent: NodeId,
        name: Name<'_>,
        what: What<'_>,
        mode: Mode,
        caller: &Caller,
        open: bool,
    ) -> Result<Made> {
        let upper = self.roomy()?;
        let parent = self.dir(parent)?;
        loop {
            let spot = self.locate(&parent, name)?;
            if spot.node.is_some() {
                return Err(Errno::EEXIST.into());
            }
            let dir = self.ensure_upper(&parent)?;
            let _latch = parent.latch_write()?;
            if parent.state()?.dead {
                return Err(Errno::ENOENT.into());
            }
            if parent.version() != spot.version {
                continue;
            }
            let plan = self.plan(&parent, dir, what, mode, caller)?;
            let made = publish_new(&**upper, dir, name, spot.slot, &plan, open);
            parent.changed();
            let (entry, file) = made?;
            let reference = Self::upper_ref(upper, entry.id, entry.attr.ino);
            let marks = Marks {
                default_acl: plan.default_acl && what == What::Dir,
                opaque: spot.slot.is_whiteout() && what == What::Dir,
                ..Marks::default()
            };
            let (node, attr) = self.intern_made(&parent, name, reference, entry.attr, marks)?;
            return Ok(Made { node, attr, file });
        }
    }

    /// Owner, mode and ACL of what is made in `parent`.
    pub(super) fn plan<'a>(
        &self,
        parent: &Node,
        dir: Id,
        what: What<'a>,
        mode: Mode,
        caller: &Caller,
    ) -> Result<Plan<'a>> {
        let upper = self.writable()?;
        let parent_attr = upper.attr(dir)?;
        let ids = &self.options.ids;
        let inherits = parent_attr.perm & SET_GID != 0;
        let mut plan = Plan {
            what,
            perm: mode.perm,
            uid: ids.users.made_by(caller.uid)?,
            gid: if inherits { parent_attr.gid } else { ids.groups.made_by(caller.gid)? },
            xattrs: Vec::new(),
            default_acl: false,
        };
        if inherits && what == What::Dir {
            plan.perm |= SET_GID;
        }
        if matches!(what, What::Symlink(_)) {
            return Ok(plan);
        }
        let inherits = self.options.xattrs == Xattrs::All && parent.state()?.default_acl;
        let default = if inherits { upper.getxattr(dir, acl::DEFAULT)? } else { None };
        let inherited = default.as_deref().and_then(|acl| acl::inherit(acl, plan.perm));
        let (Some(default), Some(inherited)) = (default, inherited) else {
            plan.perm &= !mode.umask;
            return Ok(plan);
        };
        plan.perm = inherited.perm;
        if let Some(access) = inherited.access {
            plan.xattrs.push((acl::ACCESS.to_vec(), access));
        }
        if what == What::Dir {
            plan.xattrs.push((acl::DEFAULT.to_vec(), default));
            plan.default_acl = true;
        }
        Ok(plan)
    }

    /// Gives a non-directory another name.
    pub fn link(&self, node: NodeId, parent: NodeId, name: Name<'_>) -> Result<Found> {
        self.with_room(|| self.link_once(node, parent, name))
    }

    fn link_once(&self, node: NodeId, parent: NodeId, name: Name<'_>) -> Result<Found> {
        let upper = self.writable()?;
        let (node, parent) = (self.node(node)?, self.dir(parent)?);
        if node.is_dir() {
            return Err(Errno::EPERM.into());
        }
        loop {
            let spot = self.locate(&parent, name)?;
            if spot.node.is_some() {
                return Err(Errno::EEXIST.into());
            }
            if node.state()?.dead && !Self::awaits_name(&node)? {
                return Err(Errno::ENOENT.into());
            }
            let id = self.ensure_upper(&node)?;
            let dir = self.ensure_upper(&parent)?;
            let latches = lock_all(&[&parent, &node])?;
            let nameless = Self::awaits_name(&node)?;
            if parent.state()?.dead || (node.state()?.dead && !nameless) {
                return Err(Errno::ENOENT.into());
            }
            if parent.version() != spot.version {
                continue;
            }
            if nameless {
                self.give_name(upper, &node, (&parent, dir), name, spot.slot)?;
            } else {
                self.link_latched(&**upper, (&node, id), (&parent, dir), name, spot.slot)?;
            }
            drop::<Latches<'_>>(latches);
            let attr = self.attr_of(&node)?;
            node.refs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return Ok(Found { node: node.id, attr });
        }
    }

    fn link_latched(
        &self,
        upper: &dyn Upper,
        (node, id): (&Node, Id),
        (parent, dir): (&Arc<Node>, Id),
        name: Name<'_>,
        slot: Slot,
    ) -> Result<()> {
        if self.is_foreign(node)? {
            self.note_impure(parent, dir)?;
        }
        if let Some(links) = node.state()?.links().cloned() {
            Self::count_by_upper(upper, id, links.count)?;
        }
        let linked = if slot == Slot::Whiteout {
            let mut staged = upper.stage_link(id)?;
            let published = upper.publish(&mut staged, dir, name, How::Replace, false);
            upper.discard(staged);
            published
        } else {
            upper.link(id, dir, name, false)
        };
        parent.changed();
        linked?;
        let mut state = node.state()?;
        if let Some(links) = state.ext.as_mut().and_then(|ext| ext.links.as_mut()) {
            links.count += 1;
            self.links_changed();
        }
        Ok(())
    }
}

impl Made {
    fn found(&self) -> Found {
        Found { node: self.node.id, attr: self.attr }
    }
}

/// Puts the new object at its name by one step.
fn publish_new(
    upper: &dyn Upper,
    dir: Id,
    name: Name<'_>,
    slot: Slot,
    plan: &Plan<'_>,
    open: bool,
) -> Result<(Entry, Option<Arc<dyn Data>>)> {
    // A directory in the place of a whiteout must not let through what the whiteout hid.
    let opaque = [Mark::Opaque];
    let is_dir = plan.what == What::Dir;
    let marks: &[Mark<'_>] = if slot.is_whiteout() && is_dir { &opaque } else { &[] };
    let Plan { what, perm, uid, gid, .. } = *plan;
    let new = New { what, perm, uid, gid, xattrs: &plan.xattrs, marks };
    if slot != Slot::Whiteout {
        if open {
            let (entry, file) = upper.create_open(dir, name, &new)?;
            return Ok((entry, Some(file)));
        }
        return Ok((upper.create(dir, name, &new)?, None));
    }
    let mut staged = upper.stage(&new)?;
    let id = staged.id;
    let finish = |staged: &mut _| {
        let attr = upper.attr(id)?;
        let file = if open { Some(upper.open_write(id)?) } else { None };
        let how = if is_dir { How::Exchange } else { How::Replace };
        upper.publish(staged, dir, name, how, false)?;
        // The rename has moved the time of change: what is answered is what stat will say.
        Ok((upper.attr(id).unwrap_or(attr), file))
    };
    match finish(&mut staged) {
        Ok((attr, file)) => {
            if let Some(temp) = staged.temp {
                // What the exchange brought into the work directory, the whiteout, goes.
                upper.discard_temp(temp.as_name());
            }
            Ok((Entry { id, attr, marks: Marks::default() }, file))
        }
        Err(error) => {
            upper.discard(staged);
            Err(error)
        }
    }
}
