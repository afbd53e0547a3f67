//! Whether the store is what it says it is, and what can be done if not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rusqlite::{Connection, params};
use rustix::fs::{CWD, Mode, OFlags};

use super::census::census;
use super::finished::is_finished;
use super::gc::Finished;
use super::image::{Image, LayerInfo, delete, load};
use super::layout::{Layout, sync_dir};
use super::{Container, Store, Use, db, lock, trash};
use crate::errno::{Context, Errno, Error, Result};
use crate::image::config::Config;
use crate::image::digest::{ChainId, Digest, Hashing};
use crate::image::recipe;
use crate::layer::Layer as _;
use crate::layer::dir::{DirLayer, names_in};

/// What images are found with.
const DAMAGED: &str = "a damaged layer";

/// What to check.
#[derive(Clone, Copy)]
pub struct CheckOptions<'a> {
    /// Do what can be done: clean up, restore what can be made anew, and give up what is damaged,
    /// so that an import brings it back.
    pub repair: bool,
    /// Read every byte of every layer and compare digests; without it only names and attributes
    /// are looked at.
    pub contents: bool,
    /// Hears of each layer when it was looked at: how many so far, of how many.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
    /// Set by whoever wants it to stop; the check then fails with `EINTR`.
    pub stop: &'a AtomicBool,
}

impl std::fmt::Debug for CheckOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { repair, contents, .. } = self;
        f.debug_struct("CheckOptions")
            .field("repair", repair)
            .field("contents", contents)
            .finish_non_exhaustive()
    }
}

/// What a check came upon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, or left over.
    pub findings: Vec<Finding>,
    /// How many images there are.
    pub images: usize,
    /// How many layers.
    pub layers: usize,
    /// How many containers.
    pub containers: usize,
    /// The bytes of the layers' tars that were compared with their digests.
    pub compared: u64,
}

/// One thing that is wrong, or left over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about: an image, a layer, a container, a path.
    pub what: String,
    /// What is wrong with it.
    pub why: String,
    /// A crash left it, and nothing is lost.
    pub leftover: bool,
    /// What was done, or can be done.
    pub remedy: Remedy,
}

/// What was or can be done about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It is as it should be now.
    Repaired,
    /// A repair would do this.
    Repair(&'static str),
    /// People have to do this.
    ByHand(String),
}

impl Report {
    /// Whether nothing is wrong any more; what a crash left is no fault.
    pub fn is_sound(&self) -> bool {
        let good = |found: &Finding| found.leftover || found.remedy == Remedy::Repaired;
        self.findings.iter().all(good)
    }

    /// Takes a finding back: it was one, and is none any more.
    fn healed(&mut self, number: usize) {
        if let Some(finding) = self.findings.get_mut(number) {
            finding.why.push_str("; by now it is sound");
            finding.remedy = Remedy::Repaired;
        }
    }

    fn add(&mut self, what: impl Into<String>, why: impl Into<String>, remedy: Remedy) {
        let (what, why) = (what.into(), why.into());
        self.findings.push(Finding { what, why, leftover: false, remedy });
    }
}

impl Store {
    /// Compares the database with the directories, and the layers with their digests.
    ///
    /// # Errors
    /// `EINTR` when stopped; what keeps it from looking. What it finds is no error.
    pub fn check(&self, options: &CheckOptions<'_>) -> Result<Report> {
        let mut report = Report::default();
        for fault in self.db.faults()? {
            let remedy = "make a new store and import the images again".to_owned();
            report.add("database", fault, Remedy::ByHand(remedy));
        }
        let tx = self.db.read().unchecked_transaction().map_err(db::error)?;
        let images = all_images(&tx)?;
        drop(tx);
        report.images = images.len();
        let bad = self.check_layers(&images, options, &mut report)?;
        for image in &images {
            check_image(image, &mut report);
        }
        for container in self.containers()? {
            report.containers += 1;
            self.check_container(&container, options.repair, &mut report)?;
        }
        self.check_leftovers(options.repair, &mut report)?;
        if options.repair && !bad.is_empty() {
            self.give_up(&bad, options, &mut report)?;
        }
        Ok(report)
    }

    /// Looks at every layer, several at once; returns those that are bad, each with its finding.
    fn check_layers(
        &self,
        images: &[Image],
        options: &CheckOptions<'_>,
        report: &mut Report,
    ) -> Result<BTreeMap<ChainId, usize>> {
        let mut seen = BTreeSet::new();
        let layers = images.iter().flat_map(|image| &image.layers);
        let layers: Vec<&LayerInfo> = layers.filter(|layer| seen.insert(layer.chain)).collect();
        report.layers = layers.len();
        // A layer that goes while it is looked at is no finding.
        let mut held = Vec::new();
        for image in images {
            match self.hold_image(image) {
                Ok(lock) => held.extend(lock),
                // Gone, or its directory lost: what is found of its layers will tell.
                Err(error) if error.errno() == Errno::ENOENT => {}
                Err(error) => return Err(error),
            }
        }
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let verdicts = Mutex::new(Vec::new());
        let layout = &self.layout;
        let look = || {
            while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                if options.stop.load(Ordering::Relaxed) {
                    return;
                }
                let verdict = check_layer(layout, layer, options);
                verdicts.lock().push((layer.chain, verdict));
                (options.progress)(1 + done.fetch_add(1, Ordering::Relaxed), layers.len());
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| {
            for _ in 1..threads.min(layers.len()) {
                scope.spawn(look);
            }
            look();
        });
        if options.stop.load(Ordering::Relaxed) {
            return Err(Error::new(Errno::EINTR, "stopped before the end"));
        }
        let mut bad = BTreeMap::new();
        for (chain, verdict) in verdicts.into_inner() {
            match verdict {
                Ok(bytes) => report.compared += bytes,
                // Nothing that it says of the layer.
                Err(error) if error.errno().is_of_the_moment() => return Err(error),
                Err(error) if super::image::exists(self.db.read(), chain)? => {
                    let layer = layers.iter().find(|layer| layer.chain == chain);
                    let what = layer.map(|layer| format!("layer {}", layer.diff_id));
                    let remedy = "give up the images that have it; importing them heals it";
                    let what = what.unwrap_or_default();
                    report.add(what, error.to_string(), Remedy::Repair(remedy));
                    bad.insert(chain, report.findings.len() - 1);
                }
                Err(_) => {}
            }
        }
        Ok(bad)
    }

    fn check_container(
        &self,
        container: &Container,
        repair: bool,
        report: &mut Report,
    ) -> Result<()> {
        let what = || format!("container {}", container.name);
        for dir in [container.upper(), container.work()] {
            if !dir.is_dir() && self.container(&container.name).is_ok_and(|now| now == *container) {
                let why = format!("its directory {} is lost", dir.display());
                let remedy = format!("remove it: plyfs rm {}", container.name);
                report.add(what(), why, Remedy::ByHand(remedy));
                return Ok(());
            }
        }
        for (lost, path, again) in lost(container) {
            let mut remedy = Remedy::Repair("make it anew");
            if repair {
                // What was seen may have changed: while the lock is held nobody removes it.
                let tx = self.db.write()?;
                if !self.container(&container.name).is_ok_and(|now| now == *container) {
                    return Ok(());
                }
                if is_gone(&path) {
                    again(&path)?;
                    sync_dir(&container.dir)?;
                }
                db::commit(tx)?;
                remedy = Remedy::Repaired;
            }
            report.add(what(), lost, remedy);
        }
        if trash::is_dead(&container.merged()) && container.mounted().is_none() {
            let mut remedy = Remedy::Repair("unmount it");
            if repair && container.lock(Use::Mount).is_ok() && !trash::is_dead(&container.merged())
            {
                remedy = Remedy::Repaired;
            }
            report.add(what(), "it is mounted, but the process that served it is gone", remedy);
            report.findings.iter_mut().next_back().into_iter().for_each(|it| it.leftover = true);
        }
        Ok(())
    }

    /// What crashes left: found under the write lock, so that nobody's work is taken for it.
    fn check_leftovers(&self, repair: bool, report: &mut Report) -> Result<()> {
        let before = report.findings.len();
        let tx = self.db.write()?;
        for container in self.containers()?.into_iter().filter(|found| found.ephemeral) {
            if let Ok(Some(_)) = container.try_own() {
                let what = format!("container {}", container.name);
                report.add(what, "its process is gone", Remedy::Repair("remove it"));
            }
        }
        self.strays(&tx, Finished::Goes, &mut |stray| {
            let finished = std::fs::read_dir(stray).is_ok_and(|mut layers| {
                layers.any(|layer| layer.is_ok_and(|layer| is_finished(&layer.path())))
            });
            let why = if finished {
                "layers of an interrupted import; the next import of its image goes on with them"
            } else {
                "nothing in the database speaks of it"
            };
            report.add(stray.display().to_string(), why, Remedy::Repair("remove it"));
            Ok(())
        })?;
        drop(tx);
        let trash = self.layout.trash();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = rustix::fs::open(&trash, flags, Mode::empty())?;
        for name in names_in(&dir)? {
            let path = trash.join(String::from_utf8_lossy(&name).as_ref());
            report.add(path.display().to_string(), "not yet deleted", Remedy::Repair("delete it"));
        }
        if repair {
            self.gc()?;
        }
        for finding in report.findings.iter_mut().skip(before) {
            finding.leftover = true;
            // The collection has looked for itself, and left what somebody has begun to use.
            if repair && !Path::new(&finding.what).exists() {
                finding.remedy = Remedy::Repaired;
            }
        }
        Ok(())
    }

    /// Looks at a bad layer once more; if it is still bad, nobody can change that until what is
    /// returned is dropped. Nobody waits while the layer is read, which may take minutes.
    fn still_bad(
        &self,
        chain: ChainId,
        options: &CheckOptions<'_>,
    ) -> Result<Option<rusqlite::Transaction<'_>>> {
        let tree = self.layout.tree(chain);
        loop {
            let before = present(&tree)?;
            let images = all_images(self.db.read())?;
            let mut layers = images.iter().flat_map(|image| &image.layers);
            if let Some(layer) = layers.find(|layer| layer.chain == chain) {
                match check_layer(&self.layout, layer, options) {
                    Ok(_) => return Ok(None),
                    Err(error) if error.errno().is_of_the_moment() => return Err(error),
                    Err(_) => {}
                }
            }
            let tx = self.db.write()?;
            // An import heals a layer by putting another directory in its place.
            if present(&tree)?.map(|(_, ino)| ino) == before.map(|(_, ino)| ino) {
                return Ok(Some(tx));
            }
        }
    }

    /// Notes which layers are bad, and removes the images that have them and no containers. Each
    /// layer is looked at once more before: minutes may have gone by since, in which an import has
    /// healed it, or the disk has come to its senses.
    fn give_up(
        &self,
        bad: &BTreeMap<ChainId, usize>,
        options: &CheckOptions<'_>,
        report: &mut Report,
    ) -> Result<()> {
        let mut left = Vec::new();
        for (&chain, &number) in bad {
            let Some(tx) = self.still_bad(chain, options)? else {
                report.healed(number);
                continue;
            };
            let images = all_images(&tx)?;
            let has = |image: &&Image| image.layers.iter().any(|layer| layer.chain == chain);
            let images = images.iter().filter(has);
            let sql = "UPDATE layers SET damaged = 1 WHERE chain = ?1";
            tx.execute(sql, params![chain.0.hex()]).map_err(db::error)?;
            for image in images {
                remove_damaged(&tx, image, report)?;
            }
            db::commit(tx)?;
            left.push((chain, number));
        }
        self.gc()?;
        for (chain, number) in left {
            let Some(finding) = report.findings.get_mut(number) else { continue };
            finding.remedy = if super::image::exists(self.db.read(), chain)? {
                Remedy::ByHand("import an image that has it".to_owned())
            } else {
                Remedy::Repaired
            };
        }
        Ok(())
    }
}

/// Which directory lies at `path`, open: no other has its inode number meanwhile.
fn present(path: &Path) -> Result<Option<(OwnedFd, u64)>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(dir) => {
            let ino = rustix::fs::fstat(&dir)?.st_ino;
            Ok(Some((dir, ino)))
        }
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn all_images(db: &Connection) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for id in super::image::column(db, "SELECT id FROM images WHERE ?1", "1")? {
        images.extend(load(db, &id)?);
    }
    Ok(images)
}

/// Removes an image that has a damaged layer, unless containers are made of it.
fn remove_damaged(tx: &Connection, image: &Image, report: &mut Report) -> Result<()> {
    let what = format!("image {}", image.label());
    if report.findings.iter().any(|known| known.what == what && known.why.contains(DAMAGED)) {
        return Ok(());
    }
    let (why, remedy) = match delete(tx, &image.id.hex()) {
        Ok(_) => (format!("it had {DAMAGED}, and was removed"), Remedy::Repaired),
        Err(error) if error.errno() == Errno::EBUSY => {
            let remedy = "import it again: that heals the layer in its place".to_owned();
            (format!("it has {DAMAGED}; {error}"), Remedy::ByHand(remedy))
        }
        Err(error) => return Err(error),
    };
    report.add(what, why, remedy);
    Ok(())
}

/// Whether nothing is there. A mount whose server was killed is something.
fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// What can be made anew of a container: what to say of it, where it belongs, and how.
type Lost = (String, PathBuf, fn(&Path) -> Result<()>);

/// What a container has lost that can be made anew.
fn lost(container: &Container) -> Vec<Lost> {
    let (merged, lock) = (container.merged(), container.dir.join("lock"));
    let mut lost: Vec<Lost> = Vec::new();
    if !container.dir.is_dir() {
        return lost;
    }
    if is_gone(&merged) {
        let text = format!("its directory {} is lost", merged.display());
        lost.push((text, merged, |path| Ok(std::fs::create_dir(path)?)));
    }
    if is_gone(&lock) {
        let text = "its lock file is lost".to_owned();
        lost.push((text, lock, |path| lock::try_lock(path, false, true).map(drop)));
    }
    lost
}

/// Looks at one layer; returns how many bytes were compared.
fn check_layer(layout: &Layout, layer: &LayerInfo, options: &CheckOptions<'_>) -> Result<u64> {
    let fault = |why: String| Error::new(Errno::EIO, why);
    let tree = layout.tree(layer.chain);
    let root = DirLayer::open(&tree.join("root"))?;
    if root.root_entry()?.1.opaque != layer.opaque {
        return Err(fault("its root is opaque in the database or on disk, not both".to_owned()));
    }
    std::fs::symlink_metadata(tree.join("recipe")).context(|| "its recipe")?;
    if census(&tree.join("root"))? != layer.census {
        let why = "names or attributes in its tree have changed since it was unpacked";
        return Err(fault(why.to_owned()));
    }
    if !options.contents {
        let known = || fault("an earlier check found it damaged".to_owned());
        return if layer.damaged { Err(known()) } else { Ok(0) };
    }
    let mut out = Hashing::new(Stoppable(options.stop));
    recipe::rebuild(&tree, &mut out)?;
    let (_, digest, size) = out.finish();
    if digest != layer.diff_id {
        return Err(fault(format!("its content has changed: its digest is {digest}")));
    }
    if size != layer.size {
        return Err(fault(format!("{size} bytes instead of {}", layer.size)));
    }
    Ok(size)
}

/// Whether an image's rows agree with its config.
fn check_image(image: &Image, report: &mut Report) {
    let what = || format!("image {}", image.label());
    let by_hand = || Remedy::ByHand("remove it and import it again".to_owned());
    let digest = Digest::of(&image.config);
    if digest != image.id {
        report.add(what(), format!("its config has changed: its digest is {digest}"), by_hand());
        return;
    }
    match Config::parse(&image.config) {
        Err(error) => report.add(what(), error.to_string(), by_hand()),
        Ok(config) => {
            let chains = image.layers.iter().map(|layer| layer.chain);
            if !chains.eq(ChainId::all(&config.diff_ids)) {
                report.add(what(), "its layers are not those that its config has", by_hand());
            }
        }
    }
}

/// Takes everything in until somebody wants it to stop.
struct Stoppable<'a>(&'a AtomicBool);

impl io::Write for Stoppable<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.0.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::ECANCELED));
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
