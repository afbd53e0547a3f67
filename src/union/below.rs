//! What the layers below a layer show, for those who compare one with the others.

mod content;

use std::rc::Rc;
use std::sync::Arc;

use super::{NodeId, Options, Stack, Union};
use crate::attr::{Attr, Kind};
use crate::errno::Result;
use crate::layer::{Layer, Marks};
use crate::name::Name;

/// The union of some layers, without an upper one.
#[derive(Debug)]
pub struct Below(Rc<Union>);

/// An object in it, forgotten on drop.
#[derive(Debug)]
pub struct Object {
    union: Rc<Union>,
    node: NodeId,
    /// Its attributes.
    pub attr: Attr,
    /// Its path in that union, without a leading `/`.
    pub path: Vec<u8>,
}

impl Below {
    /// The union of `lowers`; `None` if there are none.
    pub fn new(lowers: &[Arc<dyn Layer>]) -> Result<Option<Self>> {
        if lowers.is_empty() {
            return Ok(None);
        }
        let stack = Stack { upper: None, lowers: lowers.to_vec() };
        Ok(Some(Self(Rc::new(Union::new(stack, Options::default())?))))
    }

    /// Its root directory.
    pub fn root(&self) -> Result<Object> {
        let node = self.0.root();
        let attr = self.0.getattr(node)?;
        Ok(Object { union: self.0.clone(), node, attr, path: Vec::new() })
    }

    /// What an object named `name`, with these marks, in an upper directory that lies over `dir`
    /// (if over anything), lies over: by its redirect if it has one, else by its name. A redirect
    /// with a path counts from the root, also in a directory that is new.
    ///
    /// # Errors
    /// `EINVAL` for a redirect that no kernel writes: with `.`, `..` or empty components.
    pub fn under(
        &self,
        dir: Option<&Object>,
        name: &[u8],
        marks: &Marks,
    ) -> Result<Option<Object>> {
        let beside = marks.redirect.as_deref().unwrap_or(name);
        let Some(absolute) = beside.strip_prefix(b"/") else {
            return Ok(dir.map(|dir| dir.lookup(beside)).transpose()?.flatten());
        };
        let mut at = Some(self.root()?);
        for component in absolute.split(|&byte| byte == b'/') {
            Name::new(component)?;
            at = match at {
                Some(dir) => dir.lookup(component)?,
                None => None,
            };
        }
        Ok(at)
    }
}

impl Object {
    /// What is at `name` in this directory.
    pub fn lookup(&self, name: &[u8]) -> Result<Option<Self>> {
        if self.attr.kind != Kind::Dir {
            return Ok(None);
        }
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let found = self.union.lookup(self.node, Name::new(name)?)?;
        Ok(found.map(|found| Self {
            union: self.union.clone(),
            node: found.node,
            attr: found.attr,
            path,
        }))
    }

    /// Calls `each` with the name, type and inode number of all that is in this directory.
    pub fn each(&self, each: &mut dyn FnMut(&[u8], Kind, u64)) -> Result<()> {
        self.union.readdir(self.node, 0, &mut |entry| {
            if entry.name != b"." && entry.name != b".." {
                each(entry.name, entry.kind, entry.ino);
            }
            true
        })
    }

    /// The extended attributes that a user sees, sorted.
    pub fn xattrs(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut all = Vec::new();
        for name in self.union.listxattr(self.node)? {
            let value = self.union.getxattr(self.node, &name)?;
            all.push((name, value));
        }
        all.sort();
        Ok(all)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if self.node != self.union.root() {
            self.union.forget(self.node, 1);
        }
    }
}
