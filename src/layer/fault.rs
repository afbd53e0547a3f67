//! A layer that fails or stops at the n-th change.
//!
//! Wraps an upper layer and counts each call that changes something, on the layer and on files
//! opened for writing, syncs included. One of them fails without being done ([`Fault::Fail`]: the
//! disk is full for a moment), or it and all that follow do ([`Fault::Stop`]: the machine has
//! crashed; what lies in work stays there). Reading always works.

#[cfg(test)]
mod tests;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Data, DirItem, Entry, How, Id, Layer, Lookup, Mark, Marks, New, RenameHow};
use super::{Seek, Staged, Upper};
use crate::attr::{Attr, SetAttr, StatFs};
use crate::errno::{Errno, Result};
use crate::name::Name;

/// What goes wrong. Changes are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: only counts.
    None,
    /// Exactly this change fails, with this error, without being done.
    Fail(u64, Errno),
    /// This change and all that follow fail with `EIO`, and nothing is done any more.
    Stop(u64),
}

#[derive(Debug)]
struct Plan {
    fault: Fault,
    count: u64,
    discard_failed: bool,
}

type Shared = Arc<Mutex<Plan>>;

/// What happens between two steps of somebody else: a race, played out in one thread.
struct Meanwhile {
    lookups: u32,
    act: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meanwhile").field("lookups", &self.lookups).finish_non_exhaustive()
    }
}

/// Counts one change; fails if it is to fail.
fn step(plan: &Shared) -> Result<()> {
    let mut plan = plan.lock();
    plan.count += 1;
    match plan.fault {
        Fault::Fail(n, errno) if plan.count == n => Err(errno.into()),
        Fault::Stop(n) if plan.count >= n => Err(Errno::EIO.into()),
        _ => Ok(()),
    }
}

/// An upper layer whose changes fail as planned.
#[derive(Debug)]
pub struct FaultLayer {
    inner: Arc<dyn Upper>,
    plan: Shared,
    meanwhile: Mutex<Option<Meanwhile>>,
}

impl FaultLayer {
    /// Wraps `inner`; nothing fails yet.
    pub fn new(inner: Arc<dyn Upper>) -> Arc<Self> {
        let plan = Plan { fault: Fault::None, count: 0, discard_failed: false };
        let plan = Arc::new(Mutex::new(plan));
        Arc::new(Self { inner, plan, meanwhile: Mutex::default() })
    }

    /// Does `act` right after the n-th lookup from now on, before its answer is used.
    pub fn meanwhile(&self, lookups: u32, act: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock() = Some(Meanwhile { lookups, act: Box::new(act) });
    }

    fn due(&self) -> Option<Meanwhile> {
        let mut meanwhile = self.meanwhile.lock();
        meanwhile.as_mut()?.lookups -= 1;
        meanwhile.take_if(|meanwhile| meanwhile.lookups == 0)
    }

    /// Plans a fault and counts from zero again.
    pub fn arm(&self, fault: Fault) {
        *self.plan.lock() = Plan { fault, count: 0, discard_failed: false };
    }

    /// How many changes were asked for since the last [`arm`](Self::arm), failed ones included.
    pub fn count(&self) -> u64 {
        self.plan.lock().count
    }

    /// Whether the planned fault has hit the removal of something from the work directory, which
    /// nobody is told of and which the next mount makes good.
    pub fn discard_failed(&self) -> bool {
        self.plan.lock().discard_failed
    }

    fn wrap(&self, inner: Arc<dyn Data>) -> Arc<dyn Data> {
        Arc::new(FaultData { inner, plan: Arc::clone(&self.plan) })
    }
}

impl Layer for FaultLayer {
    fn root(&self) -> Id {
        self.inner.root()
    }

    fn root_entry(&self) -> Result<(Attr, Marks)> {
        self.inner.root_entry()
    }

    fn lookup(&self, dir: Id, name: Name<'_>) -> Result<Lookup> {
        let found = self.inner.lookup(dir, name);
        if let Some(meanwhile) = self.due() {
            (meanwhile.act)();
        }
        found
    }

    fn forget(&self, id: Id) {
        self.inner.forget(id);
    }

    fn readdir(&self, dir: Id, each: &mut dyn FnMut(DirItem<'_>) -> Result<()>) -> Result<()> {
        self.inner.readdir(dir, each)
    }

    fn attr(&self, id: Id) -> Result<Attr> {
        self.inner.attr(id)
    }

    fn marks(&self, id: Id) -> Result<Marks> {
        self.inner.marks(id)
    }

    fn readlink(&self, id: Id) -> Result<Vec<u8>> {
        self.inner.readlink(id)
    }

    fn getxattr(&self, id: Id, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.inner.getxattr(id, name)
    }

    fn listxattr(&self, id: Id) -> Result<Vec<Vec<u8>>> {
        self.inner.listxattr(id)
    }

    fn open(&self, id: Id) -> Result<Arc<dyn Data>> {
        self.inner.open(id)
    }

    fn fs(&self) -> u64 {
        self.inner.fs()
    }

    fn handle(&self, id: Id) -> Result<Option<Vec<u8>>> {
        self.inner.handle(id)
    }

    fn ino_of(&self, handle: &[u8]) -> Result<Option<u64>> {
        self.inner.ino_of(handle)
    }

    fn statfs(&self) -> Result<StatFs> {
        self.inner.statfs()
    }
}

impl Upper for FaultLayer {
    fn as_layer(self: Arc<Self>) -> Arc<dyn Layer> {
        self
    }

    fn create(&self, dir: Id, name: Name<'_>, new: &New<'_>) -> Result<Entry> {
        step(&self.plan)?;
        self.inner.create(dir, name, new)
    }

    fn create_open(
        &self,
        dir: Id,
        name: Name<'_>,
        new: &New<'_>,
    ) -> Result<(Entry, Arc<dyn Data>)> {
        step(&self.plan)?;
        let (entry, data) = self.inner.create_open(dir, name, new)?;
        Ok((entry, self.wrap(data)))
    }

    fn sync_marks(&self) -> Result<()> {
        self.inner.sync_marks()
    }

    fn sync_dir(&self, id: Id) -> Result<()> {
        step(&self.plan)?;
        self.inner.sync_dir(id)
    }

    fn stage(&self, new: &New<'_>) -> Result<Staged> {
        step(&self.plan)?;
        self.inner.stage(new)
    }

    fn stage_link(&self, id: Id) -> Result<Staged> {
        step(&self.plan)?;
        self.inner.stage_link(id)
    }

    fn publish(
        &self,
        staged: &mut Staged,
        dir: Id,
        name: Name<'_>,
        how: How,
        quiet: bool,
    ) -> Result<()> {
        step(&self.plan)?;
        self.inner.publish(staged, dir, name, how, quiet)
    }

    fn discard(&self, staged: Staged) {
        if staged.temp.is_none() || step(&self.plan).is_ok() {
            self.inner.discard(staged);
        } else {
            // What lies in work stays there; only the reference, which is memory, goes.
            self.plan.lock().discard_failed = true;
            self.inner.forget(staged.id);
        }
    }

    fn discard_temp(&self, temp: Name<'_>) {
        if step(&self.plan).is_ok() {
            self.inner.discard_temp(temp);
        } else {
            self.plan.lock().discard_failed = true;
        }
    }

    fn clear_whiteout(&self, dir: Id, name: Name<'_>) -> Result<()> {
        step(&self.plan)?;
        self.inner.clear_whiteout(dir, name)
    }

    fn clear_metacopy(&self, id: Id) -> Result<()> {
        step(&self.plan)?;
        self.inner.clear_metacopy(id)
    }

    fn whiteout(&self, dir: Id, name: Name<'_>, replace: bool) -> Result<()> {
        step(&self.plan)?;
        self.inner.whiteout(dir, name, replace)
    }

    fn rename(
        &self,
        from: (Id, Name<'_>),
        moved: Id,
        to: (Id, Name<'_>),
        other: Option<Id>,
        how: RenameHow,
    ) -> Result<()> {
        step(&self.plan)?;
        self.inner.rename(from, moved, to, other, how)
    }

    fn clear_opaque_entry(&self, dir: Id) -> Result<()> {
        step(&self.plan)?;
        self.inner.clear_opaque_entry(dir)
    }

    fn link(&self, id: Id, dir: Id, name: Name<'_>, quiet: bool) -> Result<()> {
        step(&self.plan)?;
        self.inner.link(id, dir, name, quiet)
    }

    fn unlink(&self, dir: Id, name: Name<'_>) -> Result<()> {
        step(&self.plan)?;
        self.inner.unlink(dir, name)
    }

    fn rmdir(&self, dir: Id, name: Name<'_>) -> Result<()> {
        step(&self.plan)?;
        self.inner.rmdir(dir, name)
    }

    fn withdraw(&self, dir: Id, name: Name<'_>) -> Result<Staged> {
        step(&self.plan)?;
        self.inner.withdraw(dir, name)
    }

    fn pin(&self, id: Id) -> Result<()> {
        self.inner.pin(id)
    }

    fn unpin(&self, id: Id) {
        self.inner.unpin(id);
    }

    fn rebind(&self, id: Id, other: Id) {
        self.inner.rebind(id, other);
    }

    fn setattr(&self, id: Id, set: &SetAttr) -> Result<Attr> {
        step(&self.plan)?;
        self.inner.setattr(id, set)
    }

    fn setxattr(&self, id: Id, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        step(&self.plan)?;
        self.inner.setxattr(id, name, value, flags)
    }

    fn removexattr(&self, id: Id, name: &[u8]) -> Result<()> {
        step(&self.plan)?;
        self.inner.removexattr(id, name)
    }

    fn set_mark(&self, id: Id, mark: &Mark<'_>) -> Result<()> {
        step(&self.plan)?;
        self.inner.set_mark(id, mark)
    }

    fn open_write(&self, id: Id) -> Result<Arc<dyn Data>> {
        Ok(self.wrap(self.inner.open_write(id)?))
    }

    fn index(&self) -> Result<Id> {
        self.inner.index()
    }

    fn sync(&self) -> Result<()> {
        step(&self.plan)?;
        self.inner.sync()
    }
}

#[derive(Debug)]
struct FaultData {
    inner: Arc<dyn Data>,
    plan: Shared,
}

impl Data for FaultData {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.inner.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        step(&self.plan)?;
        self.inner.write_at(buf, offset)
    }

    fn set_len(&self, size: u64) -> Result<()> {
        step(&self.plan)?;
        self.inner.set_len(size)
    }

    fn sync(&self, data_only: bool) -> Result<()> {
        step(&self.plan)?;
        self.inner.sync(data_only)
    }

    fn allocate(&self, mode: i32, offset: u64, len: u64) -> Result<()> {
        step(&self.plan)?;
        self.inner.allocate(mode, offset, len)
    }

    fn seek(&self, offset: u64, what: Seek) -> Result<u64> {
        self.inner.seek(offset, what)
    }

    fn attr(&self) -> Result<Attr> {
        self.inner.attr()
    }

    fn copy_from(
        &self,
        source: &dyn Data,
        source_offset: u64,
        offset: u64,
        len: u64,
    ) -> Result<u64> {
        step(&self.plan)?;
        self.inner.copy_from(source, source_offset, offset, len)
    }

    fn reflink_from(&self, source: &dyn Data) -> Result<()> {
        step(&self.plan)?;
        self.inner.reflink_from(source)
    }

    fn removexattr(&self, name: &[u8]) -> Result<()> {
        step(&self.plan)?;
        self.inner.removexattr(name)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.fd()
    }
}
