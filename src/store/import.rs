//! Import: from a source's blobs to layers and an image in the store.
//!
//! ```text
//!     blob -> decompress | digest -> unpack        each layer by itself, several at once
//!          -> settle over the layers below         in order, as soon as those are ready
//!          -> sync -> enter                        one transaction
//! ```
//! Nothing is visible before the end. Layers that are finished are noted as such (see
//! [`finished`]) when the import is called off, and every few seconds for the case
//! that it is killed; the next import of the image begins with them.

mod feed;
mod keeper;
mod layer;
mod room;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;
use std::time::Duration;

use rusqlite::OptionalExtension;

use self::keeper::Keeper;
pub(super) use self::layer::Below;
use self::layer::{Ready, Work, settle};
use self::room::Room;
use super::incoming::{Incoming, NewImage, NewLayer};
use super::{Lock, Store, db, finished};
use crate::errno::{Context, Errno, Error, Result};
use crate::image::digest::{ChainId, DiffId, Digest};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::source::{Source, SourceImage};

/// How to import.
#[derive(Clone, Copy)]
pub struct ImportOptions<'a> {
    /// The name to give, instead of those the source has; only for a source of one image.
    pub name: Option<&'a Reference>,
    /// What names that are only a tag are tags of: the source's own name, as a rule.
    pub stem: &'a str,
    /// Which of several images under one name.
    pub platform: &'a Platform,
    /// How many layers at once; `None` for one on each processor.
    pub threads: Option<usize>,
    /// Hears what happens, from several threads.
    pub progress: &'a (dyn Fn(Event<'_>) + Sync),
    /// How often finished layers are made safe from the end of this process: they are written to
    /// disk while others are unpacked. [`KEEP_EACH`](Self::KEEP_EACH), as a rule.
    pub keep_each: Duration,
    /// Set by whoever wants it to stop; the import then fails with `EINTR` and leaves nothing but
    /// the layers that are finished, for the next import.
    pub stop: &'a AtomicBool,
}

impl ImportOptions<'_> {
    /// Less than anybody likes to wait once more; more than most imports take, which write to disk
    /// once.
    pub const KEEP_EACH: Duration = Duration::from_secs(5);
}

/// What happens during an import.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// An image begins.
    Image {
        /// The first of its names; empty if it has none.
        name: &'a str,
        /// How many layers it has.
        layers: usize,
        /// How many of these have to be unpacked: the others are in the store, or were finished by
        /// an import that was interrupted.
        missing: usize,
        /// The bytes of the missing layers' blobs, as they are stored (compressed or not).
        bytes: u64,
    },
    /// Bytes of a blob were read.
    Read(u64),
    /// A layer was unpacked.
    Unpacked(DiffId),
    /// Everything is unpacked and goes to disk.
    Syncing,
}

/// An image that was imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Its id.
    pub id: Digest,
    /// The names that it was given.
    pub names: Vec<Reference>,
    /// How many layers were unpacked.
    pub unpacked: usize,
    /// How many an earlier import, which was interrupted, had unpacked.
    pub resumed: usize,
    /// How many layers it has.
    pub layers: usize,
}

impl std::fmt::Debug for ImportOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, stem, platform, threads, .. } = self;
        f.debug_struct("ImportOptions")
            .field("name", name)
            .field("stem", stem)
            .field("platform", platform)
            .field("threads", threads)
            .finish_non_exhaustive()
    }
}

/// What is done to one image.
struct Plan<'a> {
    image: &'a SourceImage,
    chains: Vec<ChainId>,
    /// Which layers are not in the store, by their place.
    missing: Vec<usize>,
    /// Those of them that an interrupted import has finished, by their place.
    resumed: Vec<(usize, NewLayer)>,
    /// Keeps those that are here.
    _held: Option<Lock>,
}

impl Plan<'_> {
    /// The places of the layers that have to be unpacked.
    fn unpacked(&self) -> impl Iterator<Item = usize> {
        let resumed = |place: &usize| self.resumed.iter().any(|(known, _)| known == place);
        self.missing.iter().copied().filter(move |place| !resumed(place))
    }
}

impl Store {
    /// Imports all images of a source, each of them wholly or not at all.
    ///
    /// # Errors
    /// Those of the source and of unpacking; `EIO` for a layer that is not what its digest says;
    /// `EINVAL` for a name that is none, or one name for several images; `EINTR` when stopped;
    /// `ENOSPC`. Images that were imported before the error stay.
    pub fn import(
        &self,
        source: &dyn Source,
        options: &ImportOptions<'_>,
    ) -> Result<Vec<Imported>> {
        // What a crash left may be the space that this needs.
        if let Err(error) = self.tidy_up() {
            tracing::warn!(%error, "cannot collect what nobody owns");
        }
        let images = source.images(options.platform)?;
        if options.name.is_some() && images.len() > 1 {
            let text = format!("the source has {} images; one name cannot be theirs", images.len());
            return Err(Error::new(Errno::EINVAL, text));
        }
        let named = |image: &SourceImage| {
            if let Some(name) = options.name {
                return Ok(vec![name.clone()]);
            }
            image.names.iter().map(|name| Reference::from_source(name, options.stem)).collect()
        };
        let names = images.iter().map(named).collect::<Result<Vec<Vec<_>>>>()?;
        let both = images.iter().zip(names);
        both.map(|(image, names)| self.import_one(source, image, names, options)).collect()
    }

    fn import_one(
        &self,
        source: &dyn Source,
        image: &SourceImage,
        names: Vec<Reference>,
        options: &ImportOptions<'_>,
    ) -> Result<Imported> {
        if image.layers.len() != image.diff_ids.len() {
            let text = format!(
                "{} layers, but the config speaks of {}",
                image.layers.len(),
                image.diff_ids.len()
            );
            return Err(Error::new(Errno::EINVAL, text));
        }
        let mut plan = self.plan(image)?;
        let incoming = self.incoming()?;
        let wanted = plan.missing.iter().filter_map(|&at| Some((at, *plan.chains.get(at)?)));
        // What is finished once is not lost to whatever error comes.
        incoming.keep_finished(true);
        plan.resumed = self.adopt(&wanted.collect::<Vec<_>>(), &incoming)?;
        if plan.resumed.is_empty() {
            incoming.keep_finished(false);
        }
        let missing = plan.unpacked().filter_map(|place| image.layers.get(place));
        (options.progress)(Event::Image {
            name: &names.first().map(Reference::to_string).unwrap_or_default(),
            layers: image.layers.len(),
            missing: plan.unpacked().count(),
            bytes: missing.fold(0, |all, layer| all.saturating_add(layer.size)),
        });
        let mut layers = Vec::new();
        let unpacked = self.unpack_all(source, &plan, &incoming, options, &mut layers);
        // Which of the threads heard of it first, and in what words, is nothing to tell.
        if options.stop.load(Ordering::Relaxed) {
            return Err(stopped(&incoming, &mut layers));
        }
        unpacked?;
        (options.progress)(Event::Syncing);
        let new = NewImage {
            id: image.config_digest,
            manifest: image.manifest.as_deref(),
            config: &image.config,
            top: plan.chains.last().copied(),
            names: &names,
        };
        self.enter(&incoming, &layers, &new)?;
        // Another process may have entered the same ones.
        incoming.keep_finished(false);
        let (resumed, all) = (plan.resumed.len(), image.layers.len());
        let (unpacked, id) = (layers.len() - resumed, image.config_digest);
        Ok(Imported { id, names, unpacked, resumed, layers: all })
    }

    /// Finds out what is here, and holds it. A layer that is damaged, or whose directory is lost,
    /// is missing.
    fn plan<'a>(&self, image: &'a SourceImage) -> Result<Plan<'a>> {
        let chains = ChainId::all(&image.diff_ids);
        loop {
            let mut missing = Vec::new();
            let mut topmost = None;
            for (place, chain) in chains.iter().enumerate() {
                let there = self.layout.tree_root(*chain).is_dir();
                let sound = self.is_sound(*chain)?.filter(|_| there);
                if sound != Some(true) {
                    missing.push(place);
                }
                if sound.is_some() {
                    topmost = Some(*chain);
                }
            }
            let held = match topmost.map(|chain| self.hold_chain(chain)).transpose() {
                // Removed just now: look again.
                Err(error) if error.errno() == Errno::ENOENT => continue,
                held => held?,
            };
            let resumed = Vec::new();
            return Ok(Plan { image, chains, missing, resumed, _held: held });
        }
    }

    /// Whether a layer is known: `Some(false)` if it is damaged.
    fn is_sound(&self, chain: ChainId) -> Result<Option<bool>> {
        let sql = "SELECT damaged = 0 FROM layers WHERE chain = ?1";
        let row = self.db.read().query_row(sql, [chain.0.hex()], |row| row.get(0));
        row.optional().map_err(db::error)
    }

    /// Unpacks what is missing and settles it; `layers` has what is complete, also after an error.
    fn unpack_all(
        &self,
        source: &dyn Source,
        plan: &Plan<'_>,
        incoming: &Incoming,
        options: &ImportOptions<'_>,
        layers: &mut Vec<NewLayer>,
    ) -> Result<()> {
        let places: Vec<usize> = plan.unpacked().collect();
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = options.threads.unwrap_or(processors).clamp(1, places.len().max(1));
        let next = AtomicUsize::new(0);
        let abort = AtomicBool::new(false);
        let scratch = self.scratch();
        let room = Room::new(&scratch);
        let work =
            Work { source, image: plan.image, incoming, options, abort: &abort, room: &room };
        std::thread::scope(|scope| {
            let (done, results) = channel();
            for _ in 0..threads {
                let (done, next, work, places) = (done.clone(), &next, &work, &places);
                let run = move || worker(scope, work, places, next, &done);
                std::thread::Builder::new()
                    .name("plyfs-unpack".to_owned())
                    .spawn_scoped(scope, run)
                    .context(|| "cannot start a thread")?;
            }
            drop(done);
            let mut keeper = Keeper::new(scope, incoming, options.keep_each);
            let settled = self.settle_all((scope, &mut keeper), plan, &work, &results, layers);
            if settled.is_err() {
                abort.store(true, Ordering::Relaxed);
            }
            let kept = keeper.end(layers);
            settled.and(kept)
        })
    }

    /// Settles layers in their order, as they come from the workers.
    fn settle_all<'scope>(
        &self,
        (scope, keeper): (&'scope Scope<'scope, '_>, &mut Keeper<'scope, '_>),
        plan: &Plan<'_>,
        work: &'scope Work<'_>,
        results: &Receiver<(usize, Result<Ready>)>,
        layers: &mut Vec<NewLayer>,
    ) -> Result<()> {
        let mut ready: Vec<Option<Ready>> = plan.chains.iter().map(|_| None).collect();
        let mut below = Below::default();
        for (place, chain) in plan.chains.iter().enumerate() {
            if !plan.missing.contains(&place) {
                below.push(&self.layout.tree_root(*chain))?;
                continue;
            }
            let parent = place.checked_sub(1).and_then(|below| plan.chains.get(below)).copied();
            if let Some((_, layer)) = plan.resumed.iter().find(|(known, _)| *known == place) {
                below.push(&layer.dir.join("root")).context(|| format!("layer {}", layer.diff))?;
                layers.push(NewLayer { parent, ..layer.clone() });
                continue;
            }
            while ready.get(place).is_some_and(Option::is_none) {
                let (came, result) = results.recv().map_err(|_| {
                    Error::new(Errno::EIO, "a thread that unpacked layers ended unexpectedly")
                })?;
                if let Some(slot) = ready.get_mut(came) {
                    *slot = Some(result?);
                }
            }
            let Some(done) = ready.get_mut(place).and_then(Option::take) else { continue };
            let (dir, diff, size) = (done.dir.clone(), done.diff, done.size);
            settle(scope, work, place, done, &below).context(|| format!("layer {diff}"))?;
            below.push(&dir.join("root")).context(|| format!("layer {diff}"))?;
            layers.push(NewLayer { dir, chain: *chain, parent, diff, size, census: None });
            keeper.look_at(layers)?;
        }
        Ok(())
    }
}

/// Unpacks one layer after another, the lowest first.
fn worker<'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: &'scope Work<'_>,
    missing: &[usize],
    next: &AtomicUsize,
    done: &Sender<(usize, Result<Ready>)>,
) {
    while let Some(&place) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
        if work.stopped() {
            return;
        }
        // Nobody listens any more once another layer has failed.
        if done.send((place, work.unpack(scope, place))).is_err() {
            return;
        }
    }
}

/// Leaves what is complete to the next import, and says so.
fn stopped(incoming: &Incoming, layers: &mut [NewLayer]) -> Error {
    let kept = match finished::finish_all(incoming, layers) {
        Ok(()) => {
            incoming.keep_finished(true);
            layers.len()
        }
        Err(error) => {
            tracing::warn!(%error, "cannot keep what is finished");
            0
        }
    };
    let text = match kept {
        0 => "stopped before the end; nothing of this image was kept".to_owned(),
        1 => "stopped before the end; 1 layer is finished and kept for a day".to_owned(),
        several => {
            format!("stopped before the end; {several} layers are finished and kept for a day")
        }
    };
    Error::new(Errno::EINTR, text)
}
