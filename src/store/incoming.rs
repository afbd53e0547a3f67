//! Layers on their way in: a directory of one process, and the step that makes them part of the
//! store.

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, OptionalExtension, params};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};

use super::census::census;
use super::image::set_name;
use super::layout::sync_dir;
use super::{Store, db, finished, fresh_name, lock, now, trash};
use crate::errno::{Context, Errno, Error, Result};
use crate::image::digest::{ChainId, DiffId, Digest};
use crate::image::reference::Reference;
use crate::layer::Layer as _;
use crate::layer::dir::{DirLayer, remove_tree};

/// A directory in incoming/ that goes with its owner, by its drop or by the next collection; what
/// is finished in it may stay for a while.
#[derive(Debug)]
pub(super) struct Incoming {
    path: PathBuf,
    /// Its lock.
    held: Option<OwnedFd>,
    /// What is finished in it stays.
    keeps: AtomicBool,
    /// Something that is in it could not be written to disk.
    lost: AtomicBool,
}

/// A layer that lies ready in an [`Incoming`].
#[derive(Clone, Debug)]
pub(super) struct NewLayer {
    /// The directory that holds it.
    pub(super) dir: PathBuf,
    /// It and all below it.
    pub(super) chain: ChainId,
    /// All below it.
    pub(super) parent: Option<ChainId>,
    /// The digest of its tar.
    pub(super) diff: DiffId,
    /// The bytes of its tar.
    pub(super) size: u64,
    /// The census of its tree, if it was taken.
    pub(super) census: Option<Digest>,
}

/// An image to be entered.
#[derive(Debug)]
pub(super) struct NewImage<'a> {
    /// The digest of the config.
    pub(super) id: Digest,
    /// The manifest, if there is one.
    pub(super) manifest: Option<&'a [u8]>,
    /// The config.
    pub(super) config: &'a [u8],
    /// The chain of all its layers.
    pub(super) top: Option<ChainId>,
    /// The names it shall have, whoever has them now.
    pub(super) names: &'a [Reference],
}

impl Incoming {
    /// Makes a subdirectory.
    pub(super) fn make(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Moves a directory here, as a subdirectory.
    pub(super) fn take(&self, from: &Path, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        rustix::fs::renameat_with(CWD, from, CWD, &path, RenameFlags::NOREPLACE)
            .context(|| format!("cannot take {}", from.display()))?;
        Ok(path)
    }

    /// Leaves the layers that are [finished] in it to the next import, or, from now on, does not.
    pub(super) fn keep_finished(&self, keep: bool) {
        self.keeps.store(keep, Ordering::Relaxed);
    }

    /// Writes all that is in it to disk.
    ///
    /// # Errors
    /// Those of writing, also of what the kernel has tried by itself since this was made. It tells
    /// of them once for each descriptor that was open then, and a new one would hear of none
    /// (`errseq_sample` in `lib/errseq.c`).
    pub(super) fn sync(&self) -> Result<()> {
        let dir = self.held.as_ref().ok_or(Errno::EBADF)?;
        let written = match rustix::fs::syncfs(dir) {
            // Said once, and true for ever.
            Ok(()) if self.lost.load(Ordering::Relaxed) => Err(Errno::EIO.into()),
            written => written.map_err(Error::from),
        };
        self.lost.fetch_or(written.is_err(), Ordering::Relaxed);
        written.context(|| "cannot write the layers to disk")
    }

    /// Removes all that is not to stay.
    fn clean_up(&self) -> Result<()> {
        let kept = if self.keeps.load(Ordering::Relaxed) { self.clean_up_unfinished()? } else { 0 };
        if kept > 0 {
            return Ok(());
        }
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let name = self.path.file_name().unwrap_or_default();
        let dir = rustix::fs::openat(CWD, parent, flags, Mode::empty())?;
        remove_tree(&dir, name.as_encoded_bytes())
    }

    /// Removes what is not finished; returns how much is left.
    fn clean_up_unfinished(&self) -> Result<usize> {
        let mut kept = 0;
        for layer in std::fs::read_dir(&self.path)? {
            let layer = layer?;
            if finished::is_finished(&layer.path()) {
                kept += 1;
            } else if let Some(dir) = &self.held {
                remove_tree(dir, layer.file_name().as_encoded_bytes())?;
            }
        }
        Ok(kept)
    }

    /// Removes a subdirectory, with all that it holds.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        match &self.held {
            Some(dir) => remove_tree(dir, name.as_bytes()),
            None => Ok(()),
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Err(error) = self.clean_up() {
            let path = self.path.display();
            tracing::warn!(%path, %error, "cannot clean up; the next gc will");
        }
    }
}

impl Store {
    /// A directory for what shall become layers.
    pub(super) fn incoming(&self) -> Result<Incoming> {
        let path = self.layout.incoming().join(fresh_name());
        // A collection looks for unlocked directories under the same lock.
        let _alone = self.db.write()?;
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .context(|| format!("cannot make {}", path.display()))?;
        let mut incoming = Incoming {
            path,
            held: None,
            keeps: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        };
        incoming.held = lock::try_lock(&incoming.path, true, false)?;
        Ok(incoming)
    }

    /// Makes layers and an image part of the store, all or nothing. The layers come lowest first;
    /// those below them are held. What another process has entered meanwhile is left as it is.
    pub(super) fn enter(
        &self,
        incoming: &Incoming,
        layers: &[NewLayer],
        image: &NewImage<'_>,
    ) -> Result<()> {
        let censuses = sync_and_count(incoming, layers)?;
        let tx = self.db.write()?;
        for (layer, census) in layers.iter().zip(censuses) {
            self.place(&tx, layer, census).context(|| format!("layer {}", layer.diff))?;
        }
        if !layers.is_empty() {
            sync_dir(&self.layout.trees())?;
        }
        let sql = "INSERT INTO images (id, manifest, config, top, imported)
                   VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (id) DO UPDATE SET manifest = coalesce(manifest, excluded.manifest)";
        let (id, top) = (image.id.hex(), image.top.map(|top| top.0.hex()));
        tx.execute(sql, params![id, image.manifest, image.config, top, now()])
            .map_err(db::error)?;
        for name in image.names {
            set_name(&tx, name, &id)?;
        }
        db::commit(tx)?;
        // What was damaged and has been replaced.
        if let Err(error) = trash::empty(&self.layout) {
            tracing::warn!(%error, "cannot empty the trash; the next gc will");
        }
        Ok(())
    }

    /// Moves a layer to its place and enters its row.
    fn place(&self, tx: &Connection, layer: &NewLayer, census: Digest) -> Result<()> {
        let chain = layer.chain.0.hex();
        let sql = "SELECT damaged FROM layers WHERE chain = ?1";
        let known: Option<bool> =
            tx.query_row(sql, [&chain], |row| row.get(0)).optional().map_err(db::error)?;
        let to = self.layout.tree(layer.chain);
        if known == Some(false) && to.join("root").is_dir() {
            return Ok(());
        }
        let opaque = DirLayer::open(&layer.dir.join("root"))?.root_entry()?.1.opaque;
        finished::forget(&layer.dir)?;
        // A damaged layer's tree, or what a crash left.
        trash::discard(&self.layout, &to)?;
        rustix::fs::renameat_with(CWD, &layer.dir, CWD, &to, RenameFlags::NOREPLACE)
            .context(|| format!("cannot move it to {}", to.display()))?;
        let size = i64::try_from(layer.size).map_err(|_| Errno::EFBIG)?;
        let parent = layer.parent.map(|parent| parent.0.hex());
        let sql = "INSERT INTO layers (chain, parent, diff, size, opaque, census)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                   ON CONFLICT (chain) DO UPDATE SET damaged = 0, size = excluded.size,
                   opaque = excluded.opaque, census = excluded.census";
        let (diff, census) = (layer.diff.hex(), census.hex());
        tx.execute(sql, params![chain, parent, diff, size, opaque, census]).map_err(db::error)?;
        Ok(())
    }
}

/// Writes the layers to disk, and takes their census while the disk works.
fn sync_and_count(incoming: &Incoming, layers: &[NewLayer]) -> Result<Vec<Digest>> {
    if layers.is_empty() {
        return Ok(Vec::new());
    }
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| incoming.sync());
        let count = |layer: &NewLayer| match layer.census {
            Some(census) => Ok(census),
            None => census(&layer.dir.join("root")).context(|| format!("layer {}", layer.diff)),
        };
        let censuses = layers.iter().map(count).collect::<Result<Vec<_>>>();
        syncing.join().map_err(|_| Error::from(Errno::EIO))??;
        censuses
    })
}
