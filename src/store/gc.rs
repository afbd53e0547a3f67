//! What nobody owns goes: after crashes, after removals.

use std::path::Path;

use rusqlite::Connection;

use super::image::{column, digest};
use super::layout::Layout;
use super::{Lock, Store, container, db, finished, lock, reserve, trash};
use crate::errno::{Errno, Result};
use crate::image::digest::ChainId;

/// How many rows go in one transaction: each holds a lock, which is a descriptor, and there may be
/// no more than some hundred of these.
const AT_ONCE: usize = 64;

/// What a collection found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Containers that went with their last user.
    pub containers: usize,
    /// Layers that no image has.
    pub layers: usize,
    /// Directories that no row speaks of, left by a crash.
    pub strays: usize,
    /// What was deleted from the trash, all of the above included.
    pub deleted: usize,
}

/// What becomes of layers that interrupted imports have finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finished {
    /// They go.
    Goes,
    /// They stay, unless they are old.
    Stays,
}

impl Store {
    /// Removes what nobody owns: ephemeral containers whose process is gone, layers that no image
    /// has, what interrupted imports and removals left, the trash. Whatever is in use stays for the
    /// next time.
    pub fn gc(&self) -> Result<Collected> {
        self.collect_all(Finished::Goes)
    }

    /// As [`gc`](Self::gc), by the way: what interrupted imports have finished stays for a while.
    pub(super) fn tidy_up(&self) -> Result<Collected> {
        self.collect_all(Finished::Stays)
    }

    fn collect_all(&self, finished: Finished) -> Result<Collected> {
        let collected = reserve::with(&self.layout, || self.collect(finished))?;
        reserve::keep(&self.layout);
        Ok(collected)
    }

    fn collect(&self, finished: Finished) -> Result<Collected> {
        let mut collected = Collected::default();
        while self.drop_rows(&mut collected)? == AT_ONCE {}
        // Only now, when the rows are gone for good, may the directories go.
        let tx = self.db.write()?;
        self.strays(&tx, finished, &mut |stray| trash::discard(&self.layout, stray))?;
        db::commit(tx)?;
        let trashed = trash::empty(&self.layout)?;
        collected.deleted = trashed;
        collected.strays = trashed.saturating_sub(collected.containers + collected.layers);
        Ok(collected)
    }

    /// Removes the rows of what nobody uses, [`AT_ONCE`] at most; returns how many it were. Each is
    /// locked until its row is gone for good.
    fn drop_rows(&self, collected: &mut Collected) -> Result<usize> {
        let tx = self.db.write()?;
        let (mut locks, mut gone) = (Vec::new(), Vec::new());
        for container in self.containers()?.into_iter().filter(|found| found.ephemeral) {
            if gone.len() == AT_ONCE {
                break;
            }
            match container.try_own() {
                Ok(None) => continue,
                Ok(Some(lock)) => locks.push(lock),
                Err(error) if error.errno() == Errno::ENOENT => {}
                Err(error) => return Err(error),
            }
            container::delete(&tx, container.id)?;
            gone.push(container.dir);
        }
        let layers = drop_layers(&tx, &self.layout, &mut locks, AT_ONCE - gone.len())?;
        db::commit(tx)?;
        // Those of containers before their locks are given up, for which somebody who has read the
        // row may wait.
        let tx = self.db.write()?;
        for dir in &gone {
            trash::discard(&self.layout, dir)?;
        }
        db::commit(tx)?;
        drop(locks);
        collected.containers += gone.len();
        collected.layers += layers;
        Ok(gone.len() + layers)
    }

    /// Shows `each` the directories that no row speaks of and nobody uses, locked meanwhile. For
    /// the holder of the write lock.
    pub(super) fn strays(
        &self,
        tx: &Connection,
        finished: Finished,
        each: &mut dyn FnMut(&Path) -> Result<()>,
    ) -> Result<()> {
        let layers = column(tx, "SELECT chain FROM layers WHERE ?1", "1")?;
        let containers = column(tx, "SELECT CAST(id AS TEXT) FROM containers WHERE ?1", "1")?;
        let none = Vec::new();
        let places = [
            (self.layout.trees(), &layers),
            (self.layout.snapshots(), &containers),
            (self.layout.incoming(), &none),
        ];
        for (place, rows) in places {
            for entry in std::fs::read_dir(&place)? {
                let entry = entry?;
                if entry.file_name().to_str().is_some_and(|name| rows.iter().any(|r| r == name)) {
                    continue;
                }
                // A reader of a layer, an import, or a mount that is just ending.
                let Some(_lock) = unused(&entry.path())? else { continue };
                if finished == Finished::Stays && place == self.layout.incoming() {
                    unfinished(&entry.path(), each)?;
                } else {
                    each(&entry.path())?;
                }
            }
        }
        Ok(())
    }
}

/// Shows `each` what an import that was interrupted has not finished: its whole directory if that
/// is all there is in it.
fn unfinished(import: &Path, each: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    // What is no directory was not made by an import.
    let Ok(layers) = std::fs::read_dir(import) else { return each(import) };
    let layers = layers.map(|layer| Ok(layer?.path())).collect::<Result<Vec<_>>>()?;
    if !layers.iter().any(|layer| finished::is_young(layer)) {
        return each(import);
    }
    layers.iter().filter(|layer| !finished::is_young(layer)).try_for_each(|layer| each(layer))
}

/// The lock of a directory, if nobody else holds any on it or on the `lock` in it.
fn unused(path: &Path) -> Result<Option<Lock>> {
    let inner = path.join("lock");
    // Nothing further can be told of what is no directory, or has no lock of its own.
    if let Ok(None) = lock::try_lock(&inner, true, false) {
        return Ok(None);
    }
    match lock::try_lock(path, true, false) {
        Ok(found) => Ok(found.map(Lock::new)),
        Err(error) if error.errno() == Errno::ENOENT => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes the rows of layers that neither an image nor another layer stands on and nobody reads,
/// from the top downwards, `most` of them. Their locks go to `locks`.
fn drop_layers(
    tx: &Connection,
    layout: &Layout,
    locks: &mut Vec<Lock>,
    most: usize,
) -> Result<usize> {
    let unused = "
        SELECT chain FROM layers AS this
        WHERE NOT EXISTS (SELECT 1 FROM layers WHERE parent = this.chain)
        AND NOT EXISTS (SELECT 1 FROM images WHERE top = this.chain)
        AND ?1";
    let mut dropped = 0;
    loop {
        let before = dropped;
        for chain in column(tx, unused, "1")? {
            if dropped == most {
                return Ok(dropped);
            }
            match lock::try_lock(&layout.tree(ChainId(digest(&chain)?)), true, false) {
                Ok(None) => continue,
                Ok(Some(held)) => locks.push(Lock::new(held)),
                Err(error) if error.errno() == Errno::ENOENT => {}
                Err(error) => return Err(error),
            }
            tx.execute("DELETE FROM layers WHERE chain = ?1", [&chain]).map_err(db::error)?;
            dropped += 1;
        }
        if dropped == before {
            return Ok(dropped);
        }
    }
}
