//! A layer's tree in one digest: names, types, attributes, links, marks. Not the contents of files,
//! which the layer's recipe vouches for.
//!
//! It is taken when the layer comes in, and compared by checks. What is a mark, and how a whiteout
//! is written, is told as the layer tells it, so the digest survives another encoding of these, and
//! a copy of the store to another filesystem.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::attr::{Attr, Kind};
use crate::errno::{Context, Result};
use crate::image::digest::{Digest, Hashing};
use crate::layer::dir::DirLayer;
use crate::layer::walk::{Seen, walk};
use crate::layer::{Id, Layer, Marks, marks};

/// Before everything else: what is digested, in which version.
const HEAD: &[u8] = b"plyfs census 1\n";

/// What belongs to the machine, and may change under a store.
const LOCAL: [&[u8]; 2] = [b"security.selinux", b"security.evm"];

/// The digest of the tree below `root`, a layer's root directory.
///
/// # Errors
/// Those of looking at it, naming the entry.
pub(super) fn census(root: &Path) -> Result<Digest> {
    let layer: Arc<dyn Layer> = DirLayer::open(root)?;
    let mut taker = Taker { hash: Hashing::new(std::io::sink()), links: HashMap::new() };
    taker.bytes(HEAD)?;
    let (attr, marks) = layer.root_entry()?;
    taker.object(&*layer, layer.root(), b"", &attr, &marks)?;
    walk(&layer, (), &mut |(), visit| {
        let what = || format!("'{}'", visit.path.escape_ascii());
        match &visit.seen {
            Seen::Whiteout(_) => {
                taker.bytes(visit.path)?;
                taker.bytes(b"whiteout")?;
            }
            Seen::Object(entry) => taker
                .object(&*layer, entry.id, visit.path, &entry.attr, &entry.marks)
                .context(what)?,
            Seen::Failed(error) => {
                return Err(crate::errno::Error::new(error.errno(), error.to_string()))
                    .context(what);
            }
        }
        Ok(Some(()))
    })?;
    Ok(taker.hash.finish().1)
}

/// Takes in one object after another.
struct Taker {
    hash: Hashing<std::io::Sink>,
    /// Files of several names, by inode number: which was the first.
    links: HashMap<u64, u64>,
}

impl Taker {
    /// A field: its length, and itself.
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        use std::io::Write as _;
        self.hash.write_all(&(bytes.len() as u64).to_le_bytes())?;
        Ok(self.hash.write_all(bytes)?)
    }

    fn number(&mut self, number: u64) -> Result<()> {
        use std::io::Write as _;
        Ok(self.hash.write_all(&number.to_le_bytes())?)
    }

    fn object(
        &mut self,
        layer: &dyn Layer,
        id: Id,
        path: &[u8],
        attr: &Attr,
        marks: &Marks,
    ) -> Result<()> {
        self.bytes(path)?;
        self.number(u64::from(attr.kind.mode()) | u64::from(attr.perm))?;
        self.number(u64::from(attr.uid) << 32 | u64::from(attr.gid))?;
        self.number(attr.mtime.sec.cast_unsigned())?;
        self.number(attr.mtime.nsec.into())?;
        match attr.kind {
            Kind::File => self.number(attr.size)?,
            Kind::Symlink => self.bytes(&layer.readlink(id)?)?,
            Kind::Char | Kind::Block => self.number(attr.rdev)?,
            Kind::Dir | Kind::Fifo | Kind::Socket => {}
        }
        if attr.kind != Kind::Dir && attr.nlink > 1 {
            let next = self.links.len() as u64;
            let group = *self.links.entry(attr.ino).or_insert(next);
            self.number(group)?;
        }
        self.number(u64::from(marks.opaque) | u64::from(marks.metacopy) << 1)?;
        self.bytes(marks.redirect.as_deref().unwrap_or_default())?;
        let mut names = layer.listxattr(id)?;
        names.retain(|name| !marks::is_private(name) && !LOCAL.contains(&name.as_slice()));
        names.sort();
        self.number(names.len() as u64)?;
        for name in names {
            let value = layer.getxattr(id, &name)?.unwrap_or_default();
            self.bytes(&name)?;
            self.bytes(&value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
