//! Layers of an import that was interrupted: what was finished before need not be done again.
//!
//! A layer is finished when it lies in incoming/ as it will lie in trees/, synced, with a note of
//! what it is and of its census beside it. The note comes last, so whoever finds one finds the
//! whole layer; who takes it counts it again all the same. Nothing else knows of it: it is no part
//! of the store, and goes with `plyfs gc`, or with any collection after [`LIFETIME`].

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Mode, OFlags};

use super::census::census;
use super::incoming::{Incoming, NewLayer};
use super::layout::sync_dir;
use super::{Store, lock};
use crate::errno::{Context, Errno, Error, Result};
use crate::image::digest::{ChainId, Digest};

/// For how long collections that nobody asked for leave finished layers alone.
const LIFETIME: Duration = Duration::from_hours(24);
/// The note in a layer's directory.
const NOTE: &str = "finished";
/// How it begins: with what it is, and in which version.
const HEAD: &str = "plyfs finished layer 1";

/// What a note says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Note {
    chain: ChainId,
    diff: Digest,
    size: u64,
    census: Digest,
}

impl Note {
    /// Writes it; one that a crash has cut short is none.
    fn write(&self, layer: &Path) -> Result<()> {
        let Self { chain, diff, size, census } = self;
        let text = format!("{HEAD}\n{chain}\n{diff}\n{size}\n{census}\n");
        let path = layer.join(NOTE);
        let write = || -> Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            sync_dir(layer)
        };
        write().context(|| format!("cannot write {}", path.display()))
    }

    /// The note in a layer's directory, if there is a whole one.
    fn read(layer: &Path) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, layer.join(NOTE), flags, Mode::empty()).ok()?;
        let mut text = String::new();
        File::from(file).take(4096).read_to_string(&mut text).ok()?;
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != HEAD {
            return None;
        }
        let note = Self {
            chain: ChainId(lines.next()?.parse().ok()?),
            diff: lines.next()?.parse().ok()?,
            size: lines.next()?.parse().ok()?,
            census: lines.next()?.parse().ok()?,
        };
        lines.next().is_none().then_some(note)
    }
}

/// Whether there is a finished layer in this directory.
pub(super) fn is_finished(layer: &Path) -> bool {
    Note::read(layer).is_some()
}

/// Whether a collection that nobody asked for leaves it alone.
pub(super) fn is_young(layer: &Path) -> bool {
    let written = std::fs::metadata(layer.join(NOTE)).and_then(|note| note.modified());
    // A time that is still to come is no age.
    let age = written.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
    is_finished(layer) && age.is_ok_and(|age| age < LIFETIME)
}

/// Takes the note away: the layer becomes part of the store, or of nothing.
pub(super) fn forget(layer: &Path) -> Result<()> {
    match std::fs::remove_file(layer.join(NOTE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes to disk those of `layers` in `incoming` that have no census yet, takes it, and notes that
/// they are finished.
pub(super) fn finish_all(incoming: &Incoming, layers: &mut [NewLayer]) -> Result<()> {
    let new: Vec<&mut NewLayer> = layers.iter_mut().filter(|new| new.census.is_none()).collect();
    if new.is_empty() {
        return Ok(());
    }
    incoming.sync()?;
    for layer in new {
        let census = census(&layer.dir.join("root"))?;
        let NewLayer { chain, diff, size, .. } = *layer;
        Note { chain, diff, size, census }.write(&layer.dir)?;
        layer.census = Some(census);
    }
    Ok(())
}

impl Store {
    /// Moves the finished layers that interrupted imports left, and that make up one of the chains
    /// `wanted`, into `incoming`, each as a subdirectory of the number that is its chain's. What
    /// is not as its note says stays where it is.
    pub(super) fn adopt(
        &self,
        wanted: &[(usize, ChainId)],
        incoming: &Incoming,
    ) -> Result<Vec<(usize, NewLayer)>> {
        let mut found: Vec<(usize, NewLayer)> = Vec::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        for left in std::fs::read_dir(self.layout.incoming())? {
            let left = left?.path();
            // Its import is at work, or it goes at this moment.
            let Ok(Some(_lock)) = lock::try_lock(&left, true, false) else { continue };
            let Ok(layers) = std::fs::read_dir(&left) else { continue };
            for layer in layers {
                let layer = layer?.path();
                let Some(note) = Note::read(&layer) else { continue };
                let place = wanted.iter().find(|(_, chain)| *chain == note.chain);
                let Some(&(place, chain)) = place else { continue };
                if found.iter().any(|(known, _)| *known == place) || !is_whole(&layer, &note) {
                    continue;
                }
                let dir = incoming.take(&layer, &place.to_string())?;
                let census = Some(note.census);
                let Note { diff, size, .. } = note;
                found.push((place, NewLayer { dir, chain, parent: None, diff, size, census }));
            }
            // What is left in it is a collection's business.
            std::fs::remove_dir(&left).unwrap_or_default();
        }
        Ok(found)
    }
}

/// Whether a layer is what its note says.
fn is_whole(layer: &Path, note: &Note) -> bool {
    let counted = std::fs::symlink_metadata(layer.join("recipe"))
        .map_err(Error::from)
        .and_then(|_| census(&layer.join("root")));
    match counted {
        Ok(census) if census == note.census => true,
        Ok(_) => {
            tracing::warn!(layer = %layer.display(), "not as it was left; unpacking it again");
            false
        }
        Err(error) if error.errno() == Errno::ENOENT => false,
        Err(error) => {
            tracing::warn!(layer = %layer.display(), %error, "unpacking it again");
            false
        }
    }
}
