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

use super::pass_on::{pass_on, pass_on_data};
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

    fn step(&self) -> Result<()> {
        step(&self.plan)
    }

    fn wrap(&self, inner: Arc<dyn Data>) -> Arc<dyn Data> {
        Arc::new(FaultData { inner, plan: Arc::clone(&self.plan) })
    }
}

impl Layer for FaultLayer {
    pass_on! {
        root root_entry forget readdir attr marks readlink getxattr listxattr open fs handle ino_of
        statfs
    }

    fn lookup(&self, dir: Id, name: Name<'_>) -> Result<Lookup> {
        let found = self.inner.lookup(dir, name);
        if let Some(meanwhile) = self.due() {
            (meanwhile.act)();
        }
        found
    }
}

impl Upper for FaultLayer {
    pass_on! { sync_marks pin unpin rebind index }
    pass_on! {
        after step;
        create sync_dir stage stage_link publish clear_whiteout clear_metacopy whiteout rename
        clear_opaque_entry link unlink rmdir withdraw setattr setxattr removexattr set_mark sync
    }

    fn as_layer(self: Arc<Self>) -> Arc<dyn Layer> {
        self
    }

    fn create_open(
        &self,
        dir: Id,
        name: Name<'_>,
        new: &New<'_>,
    ) -> Result<(Entry, Arc<dyn Data>)> {
        self.step()?;
        let (entry, data) = self.inner.create_open(dir, name, new)?;
        Ok((entry, self.wrap(data)))
    }

    fn discard(&self, staged: Staged) {
        if staged.temp.is_none() || self.step().is_ok() {
            self.inner.discard(staged);
        } else {
            // What lies in work stays there; only the reference, which is memory, goes.
            self.plan.lock().discard_failed = true;
            self.inner.forget(staged.id);
        }
    }

    fn discard_temp(&self, temp: Name<'_>) {
        if self.step().is_ok() {
            self.inner.discard_temp(temp);
        } else {
            self.plan.lock().discard_failed = true;
        }
    }

    fn open_write(&self, id: Id) -> Result<Arc<dyn Data>> {
        Ok(self.wrap(self.inner.open_write(id)?))
    }
}

#[derive(Debug)]
struct FaultData {
    inner: Arc<dyn Data>,
    plan: Shared,
}

impl FaultData {
    fn step(&self) -> Result<()> {
        step(&self.plan)
    }
}

impl Data for FaultData {
    pass_on_data! { read_at seek attr fd }
    pass_on_data! {
        after step; write_at set_len sync allocate copy_from reflink_from removexattr
    }
}
