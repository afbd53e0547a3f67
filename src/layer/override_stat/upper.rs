//! Changes of a layer whose owners are told by an attribute.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::data::Guarded;
use super::value::{CAPABILITY, Form, Override};
use crate::attr::{Attr, Kind, SetAttr, without_set_id};
use crate::errno::{Errno, Result};
use crate::layer::pass_on::pass_on;
use crate::layer::{Data, Entry, How, Id, Layer, Mark, New, RenameHow, Staged, Upper, What};
use crate::name::Name;

/// What the server itself must be able to do with what it stores.
const FILE: u16 = 0o600;
const DIR: u16 = 0o700;
/// The bits that the real object may have: set-id bits would be those of the wrong owner.
const REAL: u16 = 0o777;

/// An upper layer whose owners are told by an attribute.
#[derive(Debug)]
pub struct OverriddenUpper {
    pub(super) inner: Arc<dyn Upper>,
    pub(super) form: Form,
    /// Whom the real objects belong to.
    owner: (u32, u32),
    /// Raised whenever some file may have got capabilities.
    granted: Arc<AtomicU64>,
}

/// A new object as it is stored.
struct Stored<'a> {
    what: What<'a>,
    perm: u16,
    owner: (u32, u32),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    marks: &'a [Mark<'a>],
}

impl Stored<'_> {
    fn as_new(&self) -> New<'_> {
        New {
            what: self.what,
            perm: self.perm,
            uid: self.owner.0,
            gid: self.owner.1,
            xattrs: &self.xattrs,
            marks: self.marks,
        }
    }
}

impl OverriddenUpper {
    /// `upper`, whose owners are kept in attributes of `form`; what is stored belongs to `owner`,
    /// user and group. Marks the root so, if it is not yet.
    ///
    /// # Errors
    /// `EOPNOTSUPP` or `EPERM` where no such attribute can be written.
    pub fn new(upper: Arc<dyn Upper>, form: Form, owner: (u32, u32)) -> Result<Arc<Self>> {
        let root = upper.root();
        if upper.getxattr(root, form.name())?.is_none() {
            let told = Override::of(&upper.attr(root)?);
            upper.setxattr(root, form.name(), told.format().as_bytes(), 0)?;
        }
        Ok(Arc::new(Self { inner: upper, form, owner, granted: Arc::new(AtomicU64::new(1)) }))
    }

    /// How `new` is stored, and what shall be said of it.
    fn stored<'a>(&self, new: &New<'a>) -> Stored<'a> {
        let sheltered =
            |(name, value): &(Vec<u8>, Vec<u8>)| Some((self.form.stored(name)?, value.clone()));
        let mut xattrs: Vec<_> = new.xattrs.iter().filter_map(sheltered).collect();
        let (what, told, must) = match new.what {
            What::File => (What::File, Some((Kind::File, 0)), FILE),
            What::Dir => (What::Dir, Some((Kind::Dir, 0)), DIR),
            What::Symlink(_) => (new.what, None, 0),
            What::Node(kind, rdev) => (What::File, Some((kind, rdev)), FILE),
        };
        if told.is_some() {
            let told = Override { uid: new.uid, gid: new.gid, perm: new.perm, what: told };
            xattrs.push((self.form.name().to_vec(), told.format().into_bytes()));
        }
        let symlink = told.is_none();
        let perm = if symlink { new.perm } else { new.perm & REAL | must };
        let owner = if symlink { (new.uid, new.gid) } else { self.owner };
        Stored { what, perm, owner, xattrs, marks: new.marks }
    }

    /// Calls `make` with what is to be stored. A link is its real owner's; where that cannot be,
    /// it is the server's.
    fn make<T>(&self, new: &New<'_>, make: impl Fn(&New<'_>) -> Result<T>) -> Result<T> {
        let mut stored = self.stored(new);
        match make(&stored.as_new()) {
            Err(error) if is_refusal(&error) && stored.owner != self.owner => {
                stored.owner = self.owner;
                make(&stored.as_new())
            }
            made => made,
        }
    }

    fn amended(&self, mut entry: Entry) -> Result<Entry> {
        match super::amend(&*self.inner, self.form, entry.id, &mut entry.attr) {
            Ok(()) => Ok(entry),
            Err(error) => {
                self.inner.forget(entry.id);
                Err(error)
            }
        }
    }

    /// Changes of owner and mode, which the attribute takes.
    fn set_owner(&self, id: Id, set: &mut SetAttr) -> Result<()> {
        let (uid, gid, perm) = (set.uid.take(), set.gid.take(), set.perm.take());
        if uid.is_none() && gid.is_none() && perm.is_none() {
            return Ok(());
        }
        let attr = self.attr(id)?;
        if !matches!(self.inner.attr(id)?.kind, Kind::File | Kind::Dir) {
            // A link, or a device that a rename has left: they have no such attribute.
            let set = SetAttr { perm, uid, gid, ..SetAttr::default() };
            return match self.inner.setattr(id, &set) {
                Err(error) if !is_refusal(&error) => Err(error),
                _ => Ok(()),
            };
        }
        let mut told = Override::of(&attr);
        if uid.or(gid).is_some() && attr.kind != Kind::Dir {
            // As Linux does for whoever changes an owner, root included.
            told.perm = without_set_id(told.perm);
            self.revoke(id)?;
        }
        told.uid = uid.unwrap_or(told.uid);
        told.gid = gid.unwrap_or(told.gid);
        told.perm = perm.unwrap_or(told.perm);
        self.inner.setxattr(id, self.form.name(), told.format().as_bytes(), 0)
    }
}

/// What the filesystem below would do by itself, if it knew whose file it is.
impl OverriddenUpper {
    /// Takes a file's capabilities away.
    fn revoke(&self, id: Id) -> Result<()> {
        let stored = self.form.stored_capability();
        match self.inner.removexattr(id, &stored) {
            Err(error) if !matches!(error.errno(), Errno::ENODATA | Errno::EOPNOTSUPP) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// An open file that loses its capabilities when it is written to.
    fn guarded(&self, data: Arc<dyn Data>) -> Arc<dyn Data> {
        if self.form == Form::Privileged {
            return data;
        }
        Arc::new(Guarded::new(data, self.form.stored_capability(), Arc::clone(&self.granted)))
    }
}

/// Whether the filesystem below does not let this process give something away: for want of
/// privileges, or because its user namespace does not know the owner.
fn is_refusal(error: &crate::errno::Error) -> bool {
    matches!(error.errno(), Errno::EPERM | Errno::EINVAL)
}

impl Upper for OverriddenUpper {
    pass_on! {
        sync_marks sync_dir stage_link publish discard discard_temp whiteout clear_whiteout rename
        clear_opaque_entry link unlink rmdir withdraw pin unpin rebind set_mark clear_metacopy index
        sync
    }

    fn as_layer(self: Arc<Self>) -> Arc<dyn Layer> {
        self
    }

    fn create(&self, dir: Id, name: Name<'_>, new: &New<'_>) -> Result<Entry> {
        self.amended(self.make(new, |new| self.inner.create(dir, name, new))?)
    }

    fn create_open(
        &self,
        dir: Id,
        name: Name<'_>,
        new: &New<'_>,
    ) -> Result<(Entry, Arc<dyn Data>)> {
        let (entry, data) = self.make(new, |new| self.inner.create_open(dir, name, new))?;
        Ok((self.amended(entry)?, self.guarded(data)))
    }

    fn stage(&self, new: &New<'_>) -> Result<Staged> {
        self.make(new, |new| self.inner.stage(new))
    }

    fn setattr(&self, id: Id, set: &SetAttr) -> Result<Attr> {
        let mut set = *set;
        self.set_owner(id, &mut set)?;
        if set != SetAttr::default() {
            self.inner.setattr(id, &set)?;
        }
        if set.size.is_some() {
            self.revoke(id)?;
        }
        self.attr(id)
    }

    fn setxattr(&self, id: Id, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        let stored = self.form.stored(name).ok_or(Errno::EOPNOTSUPP)?;
        self.inner.setxattr(id, &stored, value, flags)?;
        if name == CAPABILITY {
            self.granted.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    fn removexattr(&self, id: Id, name: &[u8]) -> Result<()> {
        let stored = self.form.stored(name).ok_or(Errno::EOPNOTSUPP)?;
        self.inner.removexattr(id, &stored)
    }

    fn open_write(&self, id: Id) -> Result<Arc<dyn Data>> {
        Ok(self.guarded(self.inner.open_write(id)?))
    }
}
