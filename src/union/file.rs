//! Contents of regular files. A handle is (node, flags): the descriptor belongs to the node, so
//! that a copy-up can swap it under those who have the file open.

use std::sync::Arc;

use crate::attr::{Kind, SetAttr, without_set_id};
use crate::errno::{Errno, Result};
use crate::layer::{Data, Seek};

use super::node::{Node, Open};
use super::{Durability, Handle, NodeId, Union};

/// Among the flags of the open by which execve(2) gets at a program (`include/linux/fs.h`); it is
/// closed when the last process that runs it ends.
const FMODE_EXEC: i32 = 0x20;

impl Handle {
    /// The handle of an open with these flags, as in open(2).
    pub fn of_flags(flags: i32) -> Self {
        Self(u64::try_from(flags & (libc::O_ACCMODE | FMODE_EXEC)).unwrap_or_default())
    }

    fn has(self, flags: i32) -> bool {
        u64::try_from(flags).is_ok_and(|flags| self.0 & flags != 0)
    }

    fn writes(self) -> bool {
        self.has(libc::O_ACCMODE)
    }

    fn executes(self) -> bool {
        self.has(FMODE_EXEC)
    }
}

impl Union {
    /// Opens a regular file; opening for writing copies it up, `O_TRUNC` without its data. A
    /// truncation with `kill_set_id` clears setuid and setgid ([`SetAttr::kill_set_id`]).
    ///
    /// # Errors
    /// `ETXTBSY` if an open for reading is to truncate a program that runs.
    pub fn open(&self, node: NodeId, flags: i32, kill_set_id: bool) -> Result<Handle> {
        let node = self.node(node)?;
        match node.kind {
            Kind::File => {}
            Kind::Dir => return Err(Errno::EISDIR.into()),
            Kind::Symlink => return Err(Errno::ELOOP.into()),
            // The kernel opens FIFOs and devices itself; what backs them is never touched.
            _ => return Err(Errno::ENXIO.into()),
        }
        let handle = Handle::of_flags(flags);
        let truncate = flags & libc::O_TRUNC != 0;
        if handle.writes() || truncate {
            self.roomy()?;
            if !handle.writes() && node.state()?.open.as_ref().is_some_and(|it| it.executed > 0) {
                // The kernel says so, too, but for an open that only truncates it does when we
                // have done it (`handle_truncate` in `fs/namei.c`, after `vfs_open`).
                return Err(Errno::ETXTBSY.into());
            }
            self.ensure_upper_len(&node, if truncate { 0 } else { u64::MAX })?;
            let file = self.file(&node, true, true)?;
            if truncate && let Err(error) = self.truncate_open(&node, &*file, kill_set_id) {
                self.close(&node)?;
                return Err(error);
            }
        } else {
            self.file(&node, false, true)?;
            if handle.executes()
                && let Some(open) = node.state()?.open.as_mut()
            {
                open.executed += 1;
            }
        }
        Ok(handle)
    }

    fn truncate_open(&self, node: &Arc<Node>, file: &dyn Data, kill_set_id: bool) -> Result<()> {
        file.set_len(0)?;
        if kill_set_id {
            self.clear_set_id(node)?;
        }
        Ok(())
    }

    /// The node's open file, opened if need be, for one more handle if `count`.
    fn file(&self, node: &Arc<Node>, write: bool, count: bool) -> Result<Arc<dyn Data>> {
        loop {
            let (upper, lowers) = {
                let mut state = node.state()?;
                if let Some(open) = state.open.as_mut()
                    && (open.writable || !write)
                    && !open.stale
                {
                    open.handles += u32::from(count);
                    return Ok(Arc::clone(&open.file));
                }
                let metacopy = state.metacopy;
                (state.upper.clone().filter(|_| !metacopy), state.lowers.clone())
            };
            let from_upper = upper.is_some();
            let (file, writable) = match (&self.upper, upper, lowers.as_deref()) {
                (Some(layer), Some(object), _) if write => (layer.open_write(object.id())?, true),
                (_, Some(object), _) => (object.held.layer().open(object.id())?, false),
                (_, None, _) if write => return Err(Errno::EBADF.into()),
                (_, None, Some([.., data])) => (data.layer().open(data.id())?, false),
                _ => return Err(crate::bug!("a file without any object")),
            };
            let mut state = node.state()?;
            let now_upper = state.upper.is_some() && !state.metacopy;
            if now_upper != from_upper {
                // Copied up while the lower file was being opened.
                continue;
            }
            match state.open.as_mut() {
                Some(open) if (open.writable || !writable) && !open.stale => {
                    // Somebody else was faster; one descriptor is enough.
                    open.handles += u32::from(count);
                    return Ok(Arc::clone(&open.file));
                }
                Some(open) => {
                    open.file = Arc::clone(&file);
                    open.writable = writable;
                    open.stale = false;
                    open.handles += u32::from(count);
                }
                // A transient use: read(2) on a file that nobody opened (a driver without opens).
                None if !count => {}
                None => {
                    let file = Arc::clone(&file);
                    let open = Open { handles: 1, executed: 0, file, writable, stale: false };
                    state.open = Some(Box::new(open));
                }
            }
            return Ok(file);
        }
    }

    /// Ends one open.
    pub fn release(&self, node: NodeId, handle: Handle) -> Result<()> {
        let node = self.node(node)?;
        if handle.executes()
            && let Some(open) = node.state()?.open.as_mut()
        {
            open.executed = open.executed.saturating_sub(1);
        }
        self.close(&node)
    }

    fn close(&self, node: &Node) -> Result<()> {
        let closed = {
            let mut state = node.state()?;
            let Some(open) = state.open.as_mut() else { return Ok(()) };
            open.handles = open.handles.saturating_sub(1);
            if open.handles == 0 { state.open.take() } else { None }
        };
        // The descriptor is closed here, not under the state's lock.
        if closed.is_some() {
            drop(closed);
            self.live.table.leaving.note(&mut *node.state()?);
        }
        Ok(())
    }

    /// Reads; short only at the end of the file.
    pub fn read(
        &self,
        node: NodeId,
        _handle: Handle,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<usize> {
        let node = self.node(node)?;
        self.file(&node, false, false)?.read_at(buf, offset)
    }

    /// Writes; with `kill_set_id` clears setuid and setgid as a write without CAP_FSETID does.
    pub fn write(
        &self,
        node: NodeId,
        handle: Handle,
        data: &[u8],
        offset: u64,
        kill_set_id: bool,
    ) -> Result<usize> {
        if !handle.writes() {
            return Err(Errno::EBADF.into());
        }
        let node = self.node(node)?;
        let file = self.file_to_write(&node)?;
        let written = file.write_at(data, offset)?;
        if kill_set_id {
            self.clear_set_id(&node)?;
        }
        Ok(written)
    }

    fn file_to_write(&self, node: &Arc<Node>) -> Result<Arc<dyn Data>> {
        self.roomy()?;
        self.ensure_upper(node)?;
        self.file(node, true, false)
    }

    fn clear_set_id(&self, node: &Arc<Node>) -> Result<()> {
        let perm = self.attr_of(node)?.perm;
        let cleared = without_set_id(perm);
        if cleared != perm {
            let id = self.ensure_upper(node)?;
            let set = SetAttr { perm: Some(cleared), ..SetAttr::default() };
            self.writable()?.setattr(id, &set)?;
        }
        Ok(())
    }

    /// Clears setuid and setgid before a change of which nobody said whether it takes them away.
    /// `keep` is asked only where there is something to clear.
    pub fn clear_set_id_unless(&self, node: NodeId, keep: impl FnOnce() -> bool) -> Result<()> {
        let node = self.node(node)?;
        let perm = self.attr_of(&node)?.perm;
        if without_set_id(perm) == perm || keep() {
            return Ok(());
        }
        self.clear_set_id(&node)
    }

    /// Makes a file or directory durable.
    pub fn fsync(&self, node: NodeId, data_only: bool) -> Result<()> {
        let node = self.node(node)?;
        let Some(upper) = &self.upper else { return Ok(()) };
        let Some(object) = node.upper()? else { return Ok(()) };
        if self.options.durability != Durability::Strict {
            return Ok(());
        }
        // A mark that comes back after a crash would hide what is written here.
        upper.sync_marks()?;
        match node.kind {
            Kind::Dir => upper.sync_dir(object.id()),
            // What is open are the data below, which nobody has changed.
            Kind::File if node.state()?.metacopy => upper.open_write(object.id())?.sync(data_only),
            Kind::File => self.file(&node, false, false)?.sync(data_only),
            _ => Ok(()),
        }
    }

    /// fallocate(2) on an open file.
    pub fn fallocate(
        &self,
        node: NodeId,
        handle: Handle,
        mode: i32,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        if !handle.writes() {
            return Err(Errno::EBADF.into());
        }
        let node = self.node(node)?;
        self.file_to_write(&node)?.allocate(mode, offset, len)
    }

    /// `SEEK_DATA` and `SEEK_HOLE`.
    pub fn lseek(&self, node: NodeId, _handle: Handle, offset: u64, what: Seek) -> Result<u64> {
        let node = self.node(node)?;
        self.file(&node, false, false)?.seek(offset, what)
    }

    /// copy_file_range(2) between two open files; shares blocks where the filesystem can.
    pub fn copy_file_range(
        &self,
        from: (NodeId, Handle, u64),
        to: (NodeId, Handle, u64),
        len: u64,
    ) -> Result<u64> {
        if !to.1.writes() {
            return Err(Errno::EBADF.into());
        }
        let (source, target) = (self.node(from.0)?, self.node(to.0)?);
        let target = self.file_to_write(&target)?;
        let source = self.file(&source, false, false)?;
        target.copy_from(&*source, from.2, to.2, len)
    }
}
