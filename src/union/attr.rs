//! Attributes: reading them from the layer that has them, changing them in the upper.

use std::sync::Arc;

use crate::attr::{Attr, Kind, SetAttr, SetTime, without_set_id};
use crate::errno::{Errno, Result};

use super::node::{Lower, Node};
use super::{Caller, NodeId, Union};

/// What the data take that a file in the upper layer has below: its own blocks are none.
pub(super) fn blocks_below(lowers: &[Lower]) -> Result<u64> {
    let Some(data) = lowers.last() else { return Ok(0) };
    Ok(data.layer().attr(data.id())?.blocks)
}

impl Union {
    /// The attributes.
    pub fn getattr(&self, node: NodeId) -> Result<Attr> {
        let node = self.node(node)?;
        self.attr_of(&node)
    }

    pub(super) fn attr_of(&self, node: &Node) -> Result<Attr> {
        let (upper, lowers, dead, metacopy, links) = {
            let state = node.state()?;
            let links = state.links().cloned();
            (state.upper.clone(), state.lowers.clone(), state.dead, state.metacopy, links)
        };
        let lowers = lowers.as_deref().unwrap_or_default();
        let (attr, layers) = match (&upper, lowers.first()) {
            (Some(at), _) => (at.held.layer().attr(at.id())?, 1 + lowers.len()),
            (None, Some(top)) => (top.layer().attr(top.id())?, lowers.len()),
            (None, None) => return Err(crate::bug!("a node without any object")),
        };
        let mut attr = self.shown(attr, node.ino, layers, links.as_ref());
        if metacopy {
            attr.blocks = blocks_below(lowers)?;
        }
        if dead {
            attr.nlink = 0;
        }
        Ok(attr)
    }

    /// Changes attributes and returns the new ones. A change of owner clears set-id bits, one of
    /// owner or size capabilities, as Linux does.
    pub fn setattr(&self, node: NodeId, set: &SetAttr) -> Result<Attr> {
        let upper = self.roomy()?;
        let node = self.node(node)?;
        let mut set = *set;
        let ids = &self.options.ids;
        set.uid = set.uid.map(|uid| ids.users.stored(uid)).transpose()?;
        set.gid = set.gid.map(|gid| ids.groups.stored(gid)).transpose()?;
        if set.size.is_some() && node.kind != Kind::File {
            return Err(if node.is_dir() { Errno::EISDIR } else { Errno::EINVAL }.into());
        }
        let kill = std::mem::take(&mut set.kill_set_id) && !node.is_dir();
        if kill || set.size.is_some() {
            let attr = self.attr_of(&node)?;
            if set.size.is_some_and(|size| size != attr.size) && set.mtime.is_none() {
                // A copy-up makes a copy of that size at once: the filesystem below sees no change.
                set.mtime = Some(SetTime::Now);
            }
            let perm = set.perm.unwrap_or(attr.perm);
            let cleared = if kill { without_set_id(perm) } else { perm };
            set.perm = if cleared == attr.perm { set.perm } else { Some(cleared) };
        }
        if set == SetAttr::default() {
            return self.attr_of(&node);
        }
        let id = match set.size {
            Some(size) => self.ensure_upper_len(&node, size)?,
            None => self.ensure_upper_metadata(&node)?,
        };
        let _filled = Self::not_while_filled(&node)?;
        upper.setattr(id, &set)?;
        self.attr_of(&node)
    }

    /// The target of a symbolic link.
    pub fn readlink(&self, node: NodeId) -> Result<Vec<u8>> {
        let node = self.node(node)?;
        if node.kind != Kind::Symlink {
            return Err(Errno::EINVAL.into());
        }
        let (upper, lowers) = self.objects(&node)?;
        match (upper, lowers.as_deref().and_then(<[Lower]>::first)) {
            (Some(upper), _) => upper.held.layer().readlink(upper.id()),
            (None, Some(top)) => top.layer().readlink(top.id()),
            (None, None) => Err(crate::bug!("a node without any object")),
        }
    }

    /// The node's objects, kept alive for as long as they are looked at.
    #[allow(clippy::type_complexity, reason = "taken apart where it is called")]
    pub(super) fn objects(
        &self,
        node: &Node,
    ) -> Result<(Option<super::UpperRef>, Option<Arc<[Lower]>>)> {
        let state = node.state()?;
        Ok((state.upper.clone(), state.lowers.clone()))
    }

    /// Whether `caller` may access the node (`mask` of R_OK, W_OK, X_OK) by its mode bits. The
    /// kernel asks only when it was told not to check by itself, so this knows neither ACLs nor
    /// supplementary groups.
    pub fn access(&self, node: NodeId, mask: u32, caller: &Caller) -> Result<()> {
        const WRITE: u32 = 2;
        let attr = self.getattr(node)?;
        if mask & WRITE != 0 && self.upper.is_none() {
            return Err(Errno::EROFS.into());
        }
        let bits = if caller.uid == attr.uid {
            attr.perm >> 6
        } else if caller.gid == attr.gid {
            attr.perm >> 3
        } else {
            attr.perm
        };
        let allowed = if caller.uid == 0 {
            let executable = attr.kind == Kind::Dir || attr.perm & 0o111 != 0;
            if executable { 7 } else { 6 }
        } else {
            u32::from(bits) & 7
        };
        if mask & 7 & !allowed == 0 { Ok(()) } else { Err(Errno::EACCES.into()) }
    }
}
