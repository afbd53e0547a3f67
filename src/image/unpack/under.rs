//! The layers below, as they show through in the directories of a layer that is being unpacked
//! over them.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::tree::{Dir, Tree};
use crate::attr::Kind;
use crate::errno::{Error, Result};
use crate::layer::Layer;
use crate::union::below::{Below, Object};

/// What is known of the layers below.
#[derive(Debug)]
pub(super) struct Under {
    below: Option<Below>,
    known: HashMap<Dir, Option<Rc<Object>>>,
}

/// What a path leads to below.
#[derive(Debug)]
pub(super) enum Led {
    /// To this.
    To(Object),
    /// To a symbolic link on the way.
    ByLink,
    /// To nothing.
    Nowhere,
}

impl Under {
    /// Of these layers, topmost first.
    pub(super) fn new(lowers: &[Arc<dyn Layer>]) -> Result<Self> {
        Ok(Self { below: Below::new(lowers)?, known: HashMap::new() })
    }

    /// The root below.
    pub(super) fn root(&self) -> Result<Option<Object>> {
        self.below.as_ref().map(Below::root).transpose()
    }

    /// What is at `name` below, as far as it shows in `dir`.
    pub(super) fn lookup(&mut self, tree: &Tree, dir: Dir, name: &[u8]) -> Result<Option<Object>> {
        match self.at(tree, dir)? {
            Some(object) if !tree.get(dir)?.hides => object.lookup(name),
            _ => Ok(None),
        }
    }

    /// The directory below that lies under `dir`.
    fn at(&mut self, tree: &Tree, dir: Dir) -> Result<Option<Rc<Object>>> {
        let mut missing = Vec::new();
        let mut at = dir;
        let mut found = loop {
            if let Some(known) = self.known.get(&at) {
                break known.clone();
            }
            if at == Dir::ROOT {
                let root = self.root()?.map(Rc::new);
                self.known.insert(at, root.clone());
                break root;
            }
            missing.push(at);
            at = tree.get(at)?.parent;
        };
        while let Some(next) = missing.pop() {
            let node = tree.get(next)?;
            let covered = node.fresh || tree.get(node.parent)?.hides;
            found = match found {
                Some(above) if !covered => above.lookup(&node.name)?.map(Rc::new),
                _ => None,
            };
            found = found.filter(|object| object.attr.kind == Kind::Dir);
            self.known.insert(next, found.clone());
        }
        Ok(found)
    }

    /// The same object once more.
    pub(super) fn again(&self, object: &Object) -> Result<Option<Object>> {
        Ok(match self.follow(&object.path)? {
            Led::To(object) => Some(object),
            Led::ByLink | Led::Nowhere => None,
        })
    }

    /// Follows a path from the root below, not through links.
    pub(super) fn follow(&self, path: &[u8]) -> Result<Led> {
        let Some(mut at) = self.root()? else { return Ok(Led::Nowhere) };
        let mut names = path.split(|&byte| byte == b'/').peekable();
        while let Some(name) = names.next() {
            let found = match at.lookup(name) {
                Err(error) if is_no_name(&error) => None,
                found => found?,
            };
            let Some(found) = found else { return Ok(Led::Nowhere) };
            if names.peek().is_some() && found.attr.kind == Kind::Symlink {
                return Ok(Led::ByLink);
            }
            at = found;
        }
        Ok(Led::To(at))
    }
}

fn is_no_name(error: &Error) -> bool {
    use crate::errno::Errno;
    matches!(error.errno(), Errno::EINVAL | Errno::ENAMETOOLONG | Errno::ENOTDIR)
}
