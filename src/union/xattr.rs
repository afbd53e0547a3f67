//! Extended attributes as users see them: the format's own are hidden, and what a user sets under
//! such a name is stored escaped.

use std::sync::Arc;

use crate::errno::{Errno, Result};
use crate::layer::{Id, Layer, marks};

use super::acl;
use super::node::{Lower, Node};
use super::{NodeId, Union, Xattrs};

/// setxattr(2)'s flags.
const CREATE: i32 = libc::XATTR_CREATE;
const REPLACE: i32 = libc::XATTR_REPLACE;

impl Union {
    /// An extended attribute as a user sees it.
    ///
    /// # Errors
    /// `ENODATA` if there is none; `EOPNOTSUPP` if there can be none of that name.
    pub fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        self.may_have(name)?;
        let node = self.node(node)?;
        let value = self.xattr_of(&node, &stored(name))?.ok_or_else(|| absent(name))?;
        Ok(self.options.ids.shown_value(name, value))
    }

    /// The names of the extended attributes that a user sees.
    pub fn listxattr(&self, node: NodeId) -> Result<Vec<Vec<u8>>> {
        if self.options.xattrs == Xattrs::None {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let node = self.node(node)?;
        let names = self.with_object(&node, |layer, id| layer.listxattr(id))?;
        let names = names.iter().filter_map(|name| marks::unescape(name));
        Ok(names.filter(|name| self.may_have(name).is_ok()).collect())
    }

    /// Sets an extended attribute; `flags` as in setxattr(2).
    pub fn setxattr(&self, node: NodeId, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        self.with_room(|| self.setxattr_once(node, name, value, flags))
    }

    fn setxattr_once(&self, node: NodeId, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        let upper = self.writable()?;
        self.may_have(name)?;
        let node = self.node(node)?;
        let value = &self.options.ids.stored_value(name, value)?;
        let name = stored(name);
        if node.upper()?.is_none() && flags & (CREATE | REPLACE) != 0 {
            // What is bound to fail need not copy anything up.
            match (self.xattr_of(&node, &name)?, flags & CREATE != 0) {
                (Some(_), true) => return Err(Errno::EEXIST.into()),
                (None, false) => return Err(Errno::ENODATA.into()),
                _ => {}
            }
        }
        let id = self.ensure_upper_metadata(&node)?;
        let _filled = Self::not_while_filled(&node)?;
        upper.setxattr(id, &name, value, flags)?;
        if name == acl::DEFAULT {
            node.state()?.default_acl = true;
        }
        Ok(())
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// As [`getxattr`](Self::getxattr); nothing has been copied up then.
    pub fn removexattr(&self, node: NodeId, name: &[u8]) -> Result<()> {
        let upper = self.writable()?;
        self.may_have(name)?;
        let node = self.node(node)?;
        let shown = name;
        let name = stored(name);
        if self.xattr_of(&node, &name)?.is_none() {
            return Err(absent(shown).into());
        }
        let id = self.ensure_upper_metadata(&node)?;
        let _filled = Self::not_while_filled(&node)?;
        upper.removexattr(id, &name)?;
        if name == acl::DEFAULT {
            node.state()?.default_acl = false;
        }
        Ok(())
    }

    /// Whether there can be an attribute of this name at all: `EOPNOTSUPP`.
    fn may_have(&self, name: &[u8]) -> Result<()> {
        let none = match self.options.xattrs {
            Xattrs::All => false,
            Xattrs::NoAcl => name == acl::ACCESS || name == acl::DEFAULT,
            Xattrs::None => true,
        };
        if none { Err(Errno::EOPNOTSUPP.into()) } else { Ok(()) }
    }

    fn xattr_of(&self, node: &Node, stored: &[u8]) -> Result<Option<Vec<u8>>> {
        self.with_object(node, |layer, id| layer.getxattr(id, stored))
    }

    /// Calls `f` with the object that the node's metadata come from.
    fn with_object<T>(
        &self,
        node: &Node,
        f: impl FnOnce(&Arc<dyn Layer>, Id) -> Result<T>,
    ) -> Result<T> {
        let (upper, lowers) = self.objects(node)?;
        match (upper, lowers.as_deref().and_then(<[Lower]>::first)) {
            (Some(upper), _) => f(upper.held.layer(), upper.id()),
            (None, Some(top)) => f(top.layer(), top.id()),
            (None, None) => Err(crate::bug!("a node without any object")),
        }
    }
}

/// What is said of an attribute that is not there: it matters whether it could be.
fn absent(name: &[u8]) -> Errno {
    const FREE: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    let could_be = FREE.iter().any(|space| name.starts_with(space))
        || name == acl::ACCESS
        || name == acl::DEFAULT;
    if could_be { Errno::ENODATA } else { Errno::EOPNOTSUPP }
}

fn stored(name: &[u8]) -> Vec<u8> {
    marks::escape(name).unwrap_or_else(|| name.to_vec())
}
