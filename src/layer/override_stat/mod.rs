//! A layer whose files do not belong to whom they seem to: owner, mode and type of each are told
//! by an attribute (`xattr_permissions`), for servers that cannot give files away, and for layers
//! that one user stores for all.
//!
//! It wraps another layer and changes what that says of its objects. Devices, FIFOs and sockets
//! are regular files there; symbolic links are what they are, and belong to whom they seem to,
//! since they can have no such attribute.

mod data;
mod upper;
pub mod value;

use std::sync::Arc;

pub use self::upper::OverriddenUpper;
pub use self::value::Form;
use self::value::Override;
use super::pass_on::pass_on;
use super::{Data, DirItem, Id, Layer, Lookup, Marks};
use crate::attr::{Attr, Kind, StatFs};
use crate::errno::{Errno, Error, Result};
use crate::name::Name;

/// Targets of symbolic links are shorter than a page.
const TARGET_MAX: usize = 4096;

/// The form in which `layer` keeps owners: that of its root.
pub fn form_of(layer: &dyn Layer) -> Result<Option<Form>> {
    for form in Form::ALL {
        if layer.getxattr(layer.root(), form.name())?.is_some() {
            return Ok(Some(form));
        }
    }
    Ok(None)
}

/// Whether nothing lies in `layer`.
pub fn is_empty(layer: &dyn Layer) -> Result<bool> {
    let listed = layer.readdir(layer.root(), &mut |_| Err(Errno::ENOTEMPTY.into()));
    match listed {
        Err(error) if error.errno() == Errno::ENOTEMPTY => Ok(false),
        listed => listed.map(|()| true),
    }
}

/// A read-only layer whose owners are told by an attribute.
#[derive(Debug)]
pub struct Overridden {
    inner: Arc<dyn Layer>,
    form: Form,
}

impl Overridden {
    /// `layer`, as the attributes of `form` have it.
    pub fn new(layer: Arc<dyn Layer>, form: Form) -> Arc<Self> {
        Arc::new(Self { inner: layer, form })
    }
}

/// Puts what the attribute of `id` says into `attr`.
fn amend(layer: &dyn Layer, form: Form, id: Id, attr: &mut Attr) -> Result<()> {
    if !matches!(attr.kind, Kind::File | Kind::Dir) {
        return Ok(());
    }
    let Some(value) = layer.getxattr(id, form.name())? else { return Ok(()) };
    let Some(told) = Override::parse(&value) else {
        let (name, value) = (form.name().escape_ascii(), value.escape_ascii());
        return Err(Error::new(Errno::EIO, format!("{name} is '{value}', of no known form")));
    };
    told.apply(attr);
    Ok(())
}

/// What `inner` finds, amended.
fn lookup(inner: &dyn Layer, form: Form, dir: Id, name: Name<'_>) -> Result<Lookup> {
    let mut found = inner.lookup(dir, name)?;
    if let Lookup::Found(entry) = &mut found
        && let Err(error) = amend(inner, form, entry.id, &mut entry.attr)
    {
        inner.forget(entry.id);
        return Err(error);
    }
    Ok(found)
}

/// Lists `dir` with the types that the attributes tell.
fn readdir(
    inner: &dyn Layer,
    form: Form,
    dir: Id,
    each: &mut dyn FnMut(DirItem<'_>) -> Result<()>,
) -> Result<()> {
    inner.readdir(dir, &mut |item| {
        if item.kind != Some(Kind::File) {
            return each(item);
        }
        let kind = match lookup(inner, form, dir, item.name)? {
            Lookup::Found(entry) => {
                inner.forget(entry.id);
                Some(entry.attr.kind)
            }
            // Gone, or replaced, since it was listed.
            Lookup::Absent | Lookup::Whiteout(_) => item.kind,
        };
        each(DirItem { kind, ..item })
    })
}

/// The target of a symbolic link, which may be the content of a file.
fn readlink(inner: &dyn Layer, id: Id) -> Result<Vec<u8>> {
    if inner.attr(id)?.kind != Kind::File {
        return inner.readlink(id);
    }
    let mut target = vec![0; TARGET_MAX];
    let len = inner.open(id)?.read_at(&mut target, 0)?;
    target.truncate(len);
    Ok(target)
}

/// The names of the attributes that are shown.
fn listxattr(inner: &dyn Layer, form: Form, id: Id) -> Result<Vec<Vec<u8>>> {
    let names = inner.listxattr(id)?;
    Ok(names.iter().filter_map(|name| form.shown(name)).map(<[u8]>::to_vec).collect())
}

/// The reading half, which both kinds have.
macro_rules! layer_by_amending {
    ($type:ty) => {
        impl Layer for $type {
            pass_on! { root forget marks open fs handle ino_of statfs }

            fn root_entry(&self) -> Result<(Attr, Marks)> {
                let (mut attr, marks) = self.inner.root_entry()?;
                amend(&*self.inner, self.form, self.root(), &mut attr)?;
                Ok((attr, marks))
            }

            fn lookup(&self, dir: Id, name: Name<'_>) -> Result<Lookup> {
                lookup(&*self.inner, self.form, dir, name)
            }

            fn readdir(
                &self,
                dir: Id,
                each: &mut dyn FnMut(DirItem<'_>) -> Result<()>,
            ) -> Result<()> {
                readdir(&*self.inner, self.form, dir, each)
            }

            fn attr(&self, id: Id) -> Result<Attr> {
                let mut attr = self.inner.attr(id)?;
                amend(&*self.inner, self.form, id, &mut attr)?;
                Ok(attr)
            }

            fn readlink(&self, id: Id) -> Result<Vec<u8>> {
                readlink(&*self.inner, id)
            }

            fn getxattr(&self, id: Id, name: &[u8]) -> Result<Option<Vec<u8>>> {
                match self.form.stored(name) {
                    Some(stored) => self.inner.getxattr(id, &stored),
                    None => Ok(None),
                }
            }

            fn listxattr(&self, id: Id) -> Result<Vec<Vec<u8>>> {
                listxattr(&*self.inner, self.form, id)
            }
        }
    };
}

layer_by_amending!(Overridden);
layer_by_amending!(OverriddenUpper);

#[cfg(test)]
mod tests;
