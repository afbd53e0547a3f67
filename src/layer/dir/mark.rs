//! Writing marks on the objects of an upper layer, as attributes where these can be, and beside
//! them where not; and permission bits, some of which are marks too.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::perm::{self, ACL};
use super::sidecar::Sidecar;
use super::slots::{Flags, Spot};
use super::tree::{INDEX, WORK};
use super::upper::DirUpper;
use super::work;
use crate::attr::Kind;
use crate::errno::{Errno, Error, Result};
use crate::layer::marks::{self, Namespace, Tag};
use crate::layer::walk::{self, Seen, Visit};
use crate::layer::{Id, Layer, Mark};
use crate::name::Name;
use crate::sys::object::Object;
use crate::sys::xattr;

/// The type that an object has on disk.
pub(super) fn stored_kind(spot: &Spot) -> Kind {
    if spot.flags.has(Flags::CHAR_ZERO) { Kind::File } else { spot.kind }
}

impl DirUpper {
    /// The marks that objects cannot carry.
    fn sidecar(&self) -> Result<&Sidecar> {
        self.tree.sidecar.get().ok_or_else(|| crate::bug!("an upper layer without a sidecar"))
    }

    /// Whether an object of this type can carry marks.
    fn carries(&self, kind: Kind) -> bool {
        match self.encoding.namespace {
            Some(Namespace::Trusted) => true,
            Some(Namespace::User) => matches!(kind, Kind::File | Kind::Dir),
            None => false,
        }
    }

    /// Writes a mark on an object that has the type `kind` on disk, in one step.
    pub(super) fn put(&self, object: Object<'_>, kind: Kind, tag: Tag, value: &[u8]) -> Result<()> {
        self.put_all(object, kind, &[(tag, value.to_vec())])
    }

    /// Writes marks on an object that nobody sees yet.
    pub(super) fn put_all(
        &self,
        object: Object<'_>,
        kind: Kind,
        marks: &[(Tag, Vec<u8>)],
    ) -> Result<()> {
        match self.encoding.namespace {
            Some(namespace) if self.carries(kind) => marks.iter().try_for_each(|(tag, value)| {
                self.put_attribute(object, kind, (*tag, value), namespace)
            }),
            _ if marks.is_empty() => Ok(()),
            _ => self.sidecar()?.put(object, marks),
        }
    }

    fn put_attribute(
        &self,
        object: Object<'_>,
        kind: Kind,
        (tag, value): (Tag, &[u8]),
        namespace: Namespace,
    ) -> Result<()> {
        let sidecar = self.sidecar()?;
        match xattr::set(object, &tag.stored(namespace), value, 0) {
            Err(error) if tag == Tag::Redirect && is_too_long(&error) => {
                tracing::debug!(%error, "a redirect of {} bytes goes beside", value.len());
                work::mark_aside(&*self.tree.dir_fd(WORK)?)?;
                // The record counts from the moment that the attribute says so, which without a
                // record would mean that it is lost.
                sidecar.put(object, &[(tag, value.to_vec())])?;
                xattr::set(object, &Tag::Aside.stored(namespace), b"y", 0)?;
                // An earlier one would count where the record does not: in a copy.
                return match xattr::remove(object, &tag.stored(namespace)) {
                    Err(error) if error.errno() != Errno::ENODATA => Err(error),
                    _ => Ok(()),
                };
            }
            result => result?,
        }
        // A record counts more than an attribute: from now on there is none.
        if sidecar.concerns(kind, tag == Tag::Redirect) {
            sidecar.take(object, tag)?;
        }
        Ok(())
    }

    /// Takes a mark off an object, in whichever form it is there.
    pub(super) fn clear(&self, object: Object<'_>, kind: Kind, tag: Tag) -> Result<()> {
        for namespace in [Namespace::Trusted, Namespace::User] {
            match xattr::remove(object, &tag.stored(namespace)) {
                Err(error) if is_missing(&error, Some(namespace) != self.encoding.namespace) => {}
                result => result?,
            }
        }
        let sidecar = self.sidecar()?;
        if sidecar.concerns(kind, true) { sidecar.take(object, tag) } else { Ok(()) }
    }

    /// See [`Upper::set_mark`](crate::layer::Upper::set_mark).
    pub(super) fn set_mark_on(&self, id: Id, mark: &Mark<'_>) -> Result<()> {
        let (tag, value) = marks::encode(mark);
        let put =
            |object: Object<'_>, spot: &Spot| self.put(object, stored_kind(spot), tag, &value);
        if *mark != Mark::Opaque || !self.tree.slots.get(id)?.flags.has(Flags::XATTR_WHITEOUTS) {
            return self.tree.on(id, put);
        }
        // One attribute says either: whiteouts would show as empty files from now on.
        self.readdir(id, &mut |item| match item.kind {
            Some(_) => Ok(()),
            None => Err(Errno::EOPNOTSUPP.into()),
        })?;
        self.tree.on(id, put)?;
        self.tree.slots.set_flag(id, Flags::XATTR_WHITEOUTS, false);
        Ok(())
    }

    /// The bits that an object gets on disk so that we can go on working on it, if it shows `perm`.
    pub(super) fn real_perm(&self, kind: Kind, perm: u16) -> u16 {
        if self.encoding.bound { perm::widened(kind, perm) } else { perm }
    }

    /// Changes the permission bits that an object shows.
    pub(super) fn set_perm(
        &self,
        id: Id,
        object: Object<'_>,
        spot: &Spot,
        perm: u16,
    ) -> Result<()> {
        let kind = stored_kind(spot);
        let (real, marked) = (self.real_perm(kind, perm), spot.flags.has(Flags::PERM));
        if real == perm {
            object.chmod(perm)?;
            if marked {
                // Until now the mark was what showed.
                self.clear(object, kind, Tag::Perm)?;
                self.tree.slots.set_flag(id, Flags::PERM, false);
            }
            return Ok(());
        }
        let before = if marked { self.tree.decode(object, kind)?.perm } else { None };
        self.put(object, kind, Tag::Perm, &marks::encode_perm(perm::mark(perm)))?;
        self.tree.slots.set_flag(id, Flags::PERM, true);
        object.chmod(real).inspect_err(|_| {
            let undone = match before {
                Some(before) => self.put(object, kind, Tag::Perm, &marks::encode_perm(before)),
                None => self.clear(object, kind, Tag::Perm),
            };
            self.tree.slots.set_flag(id, Flags::PERM, before.is_some() || undone.is_err());
        })
    }

    /// Sets the ACL of an object, of which its permission bits are a part.
    pub(super) fn set_acl(
        &self,
        id: Id,
        object: Object<'_>,
        spot: &Spot,
        acl: &[u8],
        flags: i32,
    ) -> Result<()> {
        let kind = stored_kind(spot);
        let Some(owner) = perm::acl_owner(acl) else {
            return xattr::set(object, ACL, acl, flags);
        };
        let real = self.real_perm(kind, owner);
        if real == owner && !spot.flags.has(Flags::PERM) {
            return xattr::set(object, ACL, acl, flags);
        }
        let before = self.tree.attr_at(object, spot)?.perm;
        xattr::set(object, ACL, &perm::acl_with_owner(acl, real), flags)?;
        let now = object.stat()?.attr.perm;
        self.set_perm(id, object, spot, perm::with_owner(now, owner, before))
    }

    /// Does what takes the name `name` of `dir` from the object there, if there is one; with its
    /// last name its record goes, too.
    pub(super) fn losing<T>(
        &self,
        dir: Id,
        name: Name<'_>,
        act: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let record = self.record_of(dir, name);
        let done = act()?;
        if let Some(key) = record
            && let Ok(sidecar) = self.sidecar()
            && let Err(error) = sidecar.drop_record(&key)
        {
            tracing::debug!(%error, "a record of a removed object stays for the next sweep");
            sidecar.leak();
        }
        Ok(done)
    }

    /// The key of the record that goes with this name.
    fn record_of(&self, dir: Id, name: Name<'_>) -> Option<Vec<u8>> {
        let sidecar = self.sidecar().ok().filter(|sidecar| sidecar.any())?;
        let fd = self.tree.dir_fd(dir).ok()?;
        let object = Object::Entry(fd.as_fd(), name.as_bytes());
        let attr = object.stat().ok()?.attr;
        let last = attr.kind == Kind::Dir || attr.nlink <= 1;
        // What a directory says of itself may go unread here: a key costs less.
        if !last || !sidecar.concerns(attr.kind, attr.kind == Kind::Dir) {
            return None;
        }
        sidecar.key(object).ok()?
    }

    /// Removes records that a crash left without their objects.
    pub(super) fn sweep_records(self: &Arc<Self>) -> Result<()> {
        let sidecar = self.sidecar()?;
        if !sidecar.is_unswept() {
            return Ok(());
        }
        let mut live = HashSet::new();
        let index = self.tree.dir_fd(INDEX)?;
        for name in work::names(Object::dir(&*index))? {
            live.extend(sidecar.key(Object::Entry(index.as_fd(), &name))?);
        }
        let layer: Arc<dyn Layer> = Arc::<Self>::clone(self);
        live.extend(sidecar.key(Object::dir(&*self.tree.dir_fd(layer.root())?))?);
        let mut whole = true;
        walk::walk(&layer, (), &mut |(), Visit { seen, .. }| {
            match seen {
                Seen::Whiteout(_) => {}
                Seen::Failed(_) => whole = false,
                Seen::Object(entry) => {
                    live.extend(self.tree.on(entry.id, |object, _| sidecar.key(object))?);
                }
            }
            Ok(Some(()))
        })?;
        if whole {
            return sidecar.sweep(&live);
        }
        tracing::debug!("not all of the upper layer can be read: its records all stay");
        Ok(())
    }
}

/// Whether an attribute may not have fitted on its object. Where the filesystem is full, what is
/// tried instead tells.
fn is_too_long(error: &Error) -> bool {
    matches!(error.errno(), Errno::ENOSPC | Errno::ERANGE | Errno::E2BIG)
}

/// Whether a mark could not be removed since it is not there.
fn is_missing(error: &Error, foreign: bool) -> bool {
    match error.errno() {
        Errno::ENODATA | Errno::EOPNOTSUPP => true,
        Errno::EPERM => foreign,
        _ => false,
    }
}
