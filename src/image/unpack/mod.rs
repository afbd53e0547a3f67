//! From a layer's tar to a directory in overlay format, and what makes the tar again.
//!
//! A layer is unpacked without looking at those below, so that all of an image's can be at once:
//! directories that the archive only implies are made plain, and hard links to what it does not
//! hold are put off. Then, from the lowest layer up, each is [settled](Unpacked::settle) with the
//! layers below at hand. In the rare case that a path of the archive leads through a link that
//! only they have, the layer has to be unpacked [over them](Unpack::unpack_over) once more.
//!
//! ```text
//!     job            entry after entry: what to make
//!       whiteout     what the name of an entry says (pure)
//!       path         paths as names (pure)
//!       resolve      the way to an entry's directory, and to a hard link's target
//!       layer        what was replaced, and what waits
//!         tree       directories, in memory
//!         target     the directory on disk: objects, attributes, marks
//!     settle, links  what comes from the layers below
//!       under        these layers
//! ```
//!
//! # What counts where tools differ
//! umoci's answers, with what the archive says being all that counts: `..` and absolute paths are
//! taken apart as text and stay inside; a link on the way to an entry is followed inside the image,
//! be it this layer's or one below; the root's own entry counts, and so does its opaque mark;
//! times before 1970 and of nanoseconds are kept; a directory in the place of something else is
//! replaced by it, and the other way round; hard links may name what is in a layer below, and
//! symbolic links. An attribute that the filesystem, or that kind of object, cannot carry is left
//! out with a warning, as umoci and containerd do, and so are SELinux labels, which are the
//! machine's. What AUFS kept in `.wh..wh.plnk` is linked to, and no part of the tree. Unlike umoci:
//! attributes with an empty value are set, as they were in the tree that was packed; what whiteouts
//! say counts for the layers below wherever in the archive they stand (image-spec); a
//! directory that neither this layer nor one below describes has the time 0.
//!
//! What an archive calls `trusted.overlay.x` is stored escaped, a device 0:0 in disguise: neither
//! can become a mark.

mod job;
mod layer;
mod links;
mod path;
mod resolve;
mod settle;
mod target;
mod tree;
mod under;
pub mod whiteout;

use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use rustix::fs::{CWD, Mode, OFlags};

use self::job::Job;
use self::under::Under;
use super::tar::{Limits, Reader};
use crate::errno::{Context, Result};
use crate::layer::Layer;

/// How to unpack a layer.
#[derive(Clone, Copy, Debug)]
pub struct Unpack<'a> {
    /// The layer's directory: there, empty, and nobody else's. `root/`, `recipe` and, if need be,
    /// `kept/` are made in it.
    pub dir: &'a Path,
    /// What the archive may ask of the reader.
    pub limits: Limits,
    /// Set by somebody else to call the work off: it ends with `EINTR`.
    pub stop: &'a AtomicBool,
    /// Counts the entries.
    pub progress: Option<&'a AtomicU64>,
}

/// A layer that was unpacked, and waits for what the layers below have to say.
#[derive(Debug)]
pub struct Unpacked {
    layer: layer::Layer,
    unknown: bool,
    /// How many entries the archive has.
    pub entries: u64,
    /// How many bytes of data its files have.
    pub bytes: u64,
}

/// What settling led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The layer is complete.
    Done {
        /// Nothing of the layers below shows: the root is opaque.
        root_opaque: bool,
    },
    /// What the directory holds is of no use: the layer must be unpacked again, over the layers
    /// below, in an empty directory.
    Again,
}

impl Unpack<'_> {
    /// Unpacks the uncompressed tar, which is read to its very end, without looking at the layers
    /// below.
    ///
    /// # Errors
    /// `EINVAL` and others for what cannot be unpacked, naming the entry; `EINTR` when called off;
    /// those of the stream. What was made so far stays, for the caller to remove.
    pub fn unpack(&self, tar: &mut dyn Read) -> Result<Unpacked> {
        self.run(tar, None)
    }

    /// As [`unpack`](Self::unpack), where the layers below, topmost first, show the way. What
    /// comes out settles over these, and never has to be unpacked again.
    pub fn unpack_over(&self, tar: &mut dyn Read, lowers: &[Arc<dyn Layer>]) -> Result<Unpacked> {
        self.run(tar, Some(Under::new(lowers)?))
    }

    fn run(&self, tar: &mut dyn Read, under: Option<Under>) -> Result<Unpacked> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let home = rustix::fs::openat(CWD, self.dir, flags, Mode::empty())
            .context(|| self.dir.display())?;
        let mut layer = layer::Layer::create(home).context(|| self.dir.display())?;
        layer.over = under.is_some();
        let mut reader = Reader::new(BufReader::with_capacity(128 << 10, tar), self.limits);
        reader.set_tape(layer.tape());
        let mut job = Job::new(layer, under, self.stop, self.progress);
        job.run(&mut reader)?;
        let Job { mut layer, unknown, entries, bytes, .. } = job;
        if unknown {
            layer.drop_recipe();
        }
        reader.finish()?;
        layer.end_recipe()?;
        layer.target.rest();
        Ok(Unpacked { layer, unknown, entries, bytes })
    }
}

impl Unpacked {
    /// Makes the layer complete, given the layers below, topmost first, each settled before.
    ///
    /// # Errors
    /// `EINVAL` for a hard link to what is nowhere, naming both; `EINTR` when called off; those of
    /// the filesystem.
    pub fn settle(mut self, lowers: &[Arc<dyn Layer>], stop: &AtomicBool) -> Result<Settled> {
        if self.unknown || !settle::settle(&mut self.layer, &Under::new(lowers)?, stop)? {
            return Ok(Settled::Again);
        }
        let root_opaque = self.layer.tree.get(tree::Dir::ROOT)?.hides;
        Ok(Settled::Done { root_opaque })
    }
}

#[cfg(test)]
mod tests;
