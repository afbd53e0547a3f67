//! What objects of the layers below hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Object;
use crate::attr::Kind;
use crate::errno::{Errno, Result};
use crate::layer::Data;
use crate::name::NameBuf;
use crate::union::index::index_key;

impl Object {
    /// The names in this directory, in the order of their bytes.
    ///
    /// # Errors
    /// `ENOTDIR` if it is none.
    pub fn names(&self) -> Result<BTreeSet<Vec<u8>>> {
        let mut names = BTreeSet::new();
        self.union.readdir(self.node, 0, &mut |entry| {
            if entry.name != b"." && entry.name != b".." {
                names.insert(entry.name.to_vec());
            }
            true
        })?;
        Ok(names)
    }

    /// The target of this symbolic link; `EINVAL` if it is none.
    pub fn readlink(&self) -> Result<Vec<u8>> {
        self.union.readlink(self.node)
    }

    /// Opens this regular file for reading; `EINVAL` if it is none.
    pub fn open(&self) -> Result<Arc<dyn Data>> {
        if self.attr.kind != Kind::File {
            return Err(Errno::EINVAL.into());
        }
        let node = self.union.node(self.node)?;
        let (layer, id) = match node.state()?.lowers() {
            // The last of several is where the data of metadata-only copies are.
            [.., data] => (Arc::clone(data.layer()), data.id()),
            [] => return Err(crate::bug!("a file without any object")),
        };
        layer.open(id)
    }

    /// The name that the copy of this hard link has in an upper layer's index.
    pub fn index_name(&self) -> Result<NameBuf> {
        let node = self.union.node(self.node)?;
        let state = node.state()?;
        let Some(top) = state.lowers().first() else {
            return Err(crate::bug!("a file without any object"));
        };
        index_key(top)
    }
}
