//! What the kernel is told without having asked: that something it keeps is no longer so.
//!
//! All changes made through the mount are known to the kernel. This is for those who change what
//! lies below it, and answer for the union seeing it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use super::reply::{Reply, SMALL, wire_id};
use super::wire::{self, init, notify};
use super::{Agreed, send};
use crate::errno::{Errno, Result};
use crate::name::Name;
use crate::union::{NodeId, Union};

/// Tells a mount's kernel side what to look at again. Not from a thread that serves the mount: the
/// kernel may wait for that very thread.
#[derive(Clone, Debug)]
pub struct Notifier {
    connection: Weak<OwnedFd>,
    union: Weak<Union>,
    agreed: Agreed,
}

impl Notifier {
    pub(super) fn new(connection: &Arc<OwnedFd>, union: &Arc<Union>, agreed: Agreed) -> Self {
        let (connection, union) = (Arc::downgrade(connection), Arc::downgrade(union));
        Self { connection, union, agreed }
    }

    /// The node's attributes are to be asked for again, and its cached data dropped.
    ///
    /// # Errors
    /// `ENODEV` when nobody serves the mount any more.
    pub fn invalidate(&self, node: NodeId) -> Result<()> {
        let nodeid = self.wire_id(node)?;
        // No length: to the end.
        self.tell(notify::INVAL_INODE, |reply| {
            reply.put(&wire::InvalInode { nodeid, off: 0, len: 0 })
        })
    }

    /// The name is to be looked up again when it is next used; who uses what it stands for now
    /// goes on.
    ///
    /// # Errors
    /// `EOPNOTSUPP` before Linux 6.2; else as [`invalidate`](Self::invalidate).
    pub fn expire(&self, parent: NodeId, name: Name<'_>) -> Result<()> {
        if self.agreed.flags & init::HAS_EXPIRE_ONLY == 0 {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let parent = self.wire_id(parent)?;
        let name = name.as_bytes();
        let namelen = u32::try_from(name.len()).map_err(|_| Errno::ENAMETOOLONG)?;
        self.tell(notify::INVAL_ENTRY, |reply| {
            reply.put(&wire::InvalEntry { parent, namelen, flags: notify::EXPIRE_ONLY })?;
            reply.bytes(name)?;
            reply.bytes(b"\0")
        })
    }

    /// All names are to be looked up again when they are next used.
    ///
    /// # Errors
    /// `EOPNOTSUPP` before Linux 6.16; else as [`invalidate`](Self::invalidate).
    pub fn expire_all(&self) -> Result<()> {
        if self.agreed.minor < notify::INC_EPOCH_SINCE {
            return Err(Errno::EOPNOTSUPP.into());
        }
        self.tell(notify::INC_EPOCH, |_| Ok(()))
    }

    fn wire_id(&self, node: NodeId) -> Result<u64> {
        let union = self.union.upgrade().ok_or(Errno::ENODEV)?;
        Ok(if node == union.root() { wire::ROOT_ID } else { wire_id(node) })
    }

    fn tell(&self, code: i32, fill: impl FnOnce(&mut Reply) -> Result<()>) -> Result<()> {
        let connection = self.connection.upgrade().ok_or(Errno::ENODEV)?;
        let mut reply = Reply::with_room(SMALL);
        fill(&mut reply)?;
        // That the kernel keeps nothing of the kind is no error.
        send(&connection, reply.notification(code))
    }
}
