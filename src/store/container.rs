//! Containers: a writable directory over an image.

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};
use rustix::fs::{CWD, OFlags};

use super::image::{Image, digest, find, load};
use super::layout::sync_dir;
use super::{Lock, Signature, Store, Use, db, fresh_name, lock, now, reserve, trash};
use crate::attr::SetTime;
use crate::errno::{Context, Errno, Error, Result};
use crate::image::digest::Digest;
use crate::layer::dir::DirLayer;
use crate::layer::{Layer, marks};
use crate::sys::object::Object;
use crate::sys::xattr;
use crate::union::below::Below;

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its number, never given twice.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// The image it is made of.
    pub image: Digest,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// It goes when nobody uses it any more.
    pub ephemeral: bool,
    /// Its directory in the store.
    pub dir: PathBuf,
}

/// What a new container shall be.
#[derive(Clone, Copy, Debug)]
pub enum NewContainer<'a> {
    /// One that stays, with this name.
    Kept(&'a str),
    /// One that goes with its last user, with a name made up.
    Ephemeral,
}

/// The directories that make up a container, as a mount wants them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mountable {
    /// The layers below, topmost first, those left out that an opaque root hides.
    pub lowers: Vec<PathBuf>,
    /// The container's changes.
    pub upper: PathBuf,
    /// The mount's own directory.
    pub work: PathBuf,
}

/// How often to try for a lock that somebody may only be asking for, and how long to wait between.
const ASKERS: u32 = 20;
const ASKING: Duration = Duration::from_millis(5);

impl Container {
    /// Where its changes are.
    pub fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    /// The mount's own directory.
    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// An empty directory to mount it on if nobody says where.
    pub fn merged(&self) -> PathBuf {
        self.dir.join("merged")
    }

    /// Says that it is in use, until the lock is dropped or its process (and every child that
    /// inherited it) ends. For [`Use::Mount`], [`Lock::sign`] it afterwards.
    ///
    /// # Errors
    /// `EBUSY` if it is mounted already or on its way out; `ENOENT` if it has gone.
    pub fn lock(&self, how: Use) -> Result<Lock> {
        let gone = || Error::new(Errno::ENOENT, format!("container {} is gone", self.name));
        let held = match lock::try_lock(&self.dir.join("lock"), false, false) {
            Ok(Some(held)) => held,
            Ok(None) => {
                let text = format!("container {} is being removed", self.name);
                return Err(Error::new(Errno::EBUSY, text));
            }
            Err(error) if error.errno() == Errno::ENOENT => return Err(gone()),
            Err(error) => return Err(error),
        };
        // The path may have gone to the trash between the opening and the lock.
        if !same_file(&held, &self.dir.join("lock")) {
            return Err(gone());
        }
        match how {
            Use::Read => Ok(Lock::new(held)),
            Use::Mount => match self.note()? {
                Some(note) => {
                    // Nobody serves it: a mount that a killed server left is in the way.
                    trash::detach_dead(&self.merged());
                    Lock::with_note(held, note)
                }
                None => Err(Error::new(Errno::EBUSY, self.busy())),
            },
        }
    }

    /// Takes the lock of those who mount it. Who only asks for it, as in
    /// [`mounted`](Self::mounted), has it for a moment, too: only who keeps it uses the container.
    fn note(&self) -> Result<Option<OwnedFd>> {
        for _ in 0..ASKERS {
            if let Some(note) = lock::try_lock(&self.dir.join("mount"), true, true)? {
                return Ok(Some(note));
            }
            std::thread::sleep(ASKING);
        }
        Ok(None)
    }

    /// Who has it mounted, and where, if anybody has.
    pub fn mounted(&self) -> Option<Signature> {
        let path = self.dir.join("mount");
        match lock::try_lock(&path, false, false) {
            Ok(None) => Some(lock::signature(&path).unwrap_or_default()),
            _ => None,
        }
    }

    /// Why it cannot be had.
    fn busy(&self) -> String {
        let Signature { pid, mountpoint, .. } = self.mounted().unwrap_or_default();
        let (name, at) = (&self.name, mountpoint.display());
        match (pid, mountpoint.as_os_str().is_empty()) {
            (0, _) => format!("container {name} is in use by another plyfs"),
            (_, true) => format!("container {name} is in use by process {pid}"),
            (_, false) => format!("container {name} is in use: mounted at {at} by process {pid}"),
        }
    }

    /// Takes the lock that nobody else can hold any at the same time; `None` if it is in use.
    pub(super) fn try_own(&self) -> Result<Option<Lock>> {
        match lock::try_lock(&self.dir.join("lock"), true, false) {
            Ok(held) => Ok(held.map(Lock::new)),
            Err(error) => Err(error),
        }
    }
}

impl Store {
    /// Makes a container of an image. The lock that comes with it keeps an ephemeral one alive.
    ///
    /// # Errors
    /// `EINVAL` for what is no name; `EEXIST` if there is one of that name; `ENOENT` if there is no
    /// such image; `EIO` if a check found the image damaged.
    pub fn create_container(
        &self,
        image: &str,
        new: NewContainer<'_>,
    ) -> Result<(Container, Lock)> {
        let (name, ephemeral) = match new {
            NewContainer::Kept(name) => (name.to_owned(), false),
            NewContainer::Ephemeral => (format!("run-{}", fresh_name()), true),
        };
        validate_name(&name)?;
        // Of an ephemeral one, nothing survives a crash that would be worth waiting for.
        self.db.lazily(!ephemeral, || self.insert_container(image, name, ephemeral))
    }

    fn insert_container(
        &self,
        image: &str,
        name: String,
        ephemeral: bool,
    ) -> Result<(Container, Lock)> {
        let tx = self.db.write()?;
        let id = find(&tx, image)?;
        let image = load(&tx, &id)?.ok_or(Errno::ENOENT)?;
        if let Some(layer) = image.layers.iter().find(|layer| layer.damaged) {
            let text = format!(
                "layer {} of image {} is damaged; import the image again to heal it",
                layer.diff_id,
                image.label()
            );
            return Err(Error::new(Errno::EIO, text));
        }
        if by_name(&tx, &name)?.is_some() {
            let text = format!(
                "there is a container {name} already; choose another name, or remove it first \
                 (plyfs rm {name})"
            );
            return Err(Error::new(Errno::EEXIST, text));
        }
        let created = now();
        let sql = "INSERT INTO containers (name, image, created, ephemeral)
                   VALUES (?1, ?2, ?3, ?4)";
        tx.execute(sql, params![name, id, created, ephemeral]).map_err(db::error)?;
        let number = tx.last_insert_rowid();
        let dir = self.layout.snapshot(number);
        let container = Container { id: number, name, image: image.id, created, ephemeral, dir };
        // What a crash left there is nobody's.
        trash::discard(&self.layout, &container.dir)?;
        let lock = self
            .make_directories(&container, &image)
            .context(|| format!("cannot make container {}", container.name))?;
        db::commit(tx)?;
        Ok((container, lock))
    }

    /// Makes a container's directories, durably if it is to be kept, and takes its lock.
    fn make_directories(&self, container: &Container, image: &Image) -> Result<Lock> {
        let mut private = std::fs::DirBuilder::new();
        private.mode(0o700);
        private.create(&container.dir)?;
        for dir in [container.upper(), container.work(), container.merged()] {
            private.create(dir)?;
        }
        dress_root(&container.upper(), &self.lowers(image))
            .context(|| "cannot copy the root directory's attributes")?;
        let lock = lock::try_lock(&container.dir.join("lock"), false, true)?
            .map(Lock::new)
            .ok_or(Errno::EBUSY)?;
        if !container.ephemeral {
            for dir in [&container.upper(), &container.dir, &self.layout.snapshots()] {
                sync_dir(dir)?;
            }
        }
        Ok(lock)
    }

    /// The container of that name.
    ///
    /// # Errors
    /// `ENOENT` if there is none.
    pub fn container(&self, name: &str) -> Result<Container> {
        let found = by_name(self.db.read(), name)?;
        found.map(|found| self.placed(found)).transpose()?.ok_or_else(|| {
            let shown = name.chars().take(80).collect::<String>();
            let text = format!("there is no container {}", shown.escape_debug());
            Error::new(Errno::ENOENT, text)
        })
    }

    /// All containers by name, also those that go by themselves.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let sql = "SELECT id, name, image, created, ephemeral FROM containers ORDER BY name";
        let mut query = self.db.read().prepare_cached(sql).map_err(db::error)?;
        let rows = query.query_map([], columns).map_err(db::error)?;
        rows.map(|row| self.placed(row.map_err(db::error)?)).collect()
    }

    fn placed(&self, found: Columns) -> Result<Container> {
        let (id, name, image, created, ephemeral) = found;
        let dir = self.layout.snapshot(id);
        Ok(Container { id, name, image: digest(&image)?, created, ephemeral, dir })
    }

    /// What a mount of the container is made of.
    pub fn stack(&self, container: &Container) -> Result<Mountable> {
        let image = self.image_of(container)?;
        Ok(Mountable {
            lowers: self.lowers(&image),
            upper: container.upper(),
            work: container.work(),
        })
    }

    /// The image that a container is made of.
    pub fn image_of(&self, container: &Container) -> Result<Image> {
        let image = load(self.db.read(), &container.image.hex())?;
        let gone = || {
            let text = format!("the image of container {} is gone", container.name);
            Error::new(Errno::ENOENT, text)
        };
        image.ok_or_else(gone)
    }

    /// Removes a container with all its changes.
    ///
    /// # Errors
    /// `ENOENT` if there is none; `EBUSY` if it is in use, naming by whom.
    pub fn remove_container(&self, name: &str) -> Result<()> {
        reserve::with(&self.layout, || self.delete_container(name))?;
        self.clean_up();
        Ok(())
    }

    /// What was asked for is gone; that something else cannot be deleted is another matter.
    fn clean_up(&self) {
        if let Err(error) = self.tidy_up() {
            tracing::warn!(%error, "cannot clean up; the next gc will");
        }
    }

    /// Removes the row of a container that nobody uses.
    fn delete_container(&self, name: &str) -> Result<()> {
        let container = self.container(name)?;
        let tx = self.db.write()?;
        let Some(found) = by_name(&tx, name)?.filter(|(id, ..)| *id == container.id) else {
            let text = format!("container {name} has just been removed");
            return Err(Error::new(Errno::ENOENT, text));
        };
        let container = self.placed(found)?;
        let owned = match container.try_own() {
            Ok(Some(lock)) => Some(lock),
            Ok(None) => return Err(Error::new(Errno::EBUSY, container.busy())),
            // A row whose directory is lost can always go.
            Err(error) if error.errno() == Errno::ENOENT => None,
            Err(error) => return Err(error),
        };
        delete(&tx, container.id)?;
        db::commit(tx)?;
        // Before the lock is given up: who has read the row may be about to take it.
        let moved = self.db.write().and_then(|tx| {
            trash::discard(&self.layout, &container.dir)?;
            db::commit(tx)
        });
        if let Err(error) = moved {
            tracing::warn!(%error, "cannot throw the directory away; the next gc will");
        }
        drop(owned);
        Ok(())
    }

    /// Lets an ephemeral container go whose lock this process holds. That it has gone already is no
    /// error, nor that somebody else still uses it: it goes after the last one.
    pub fn discard_container(&self, container: &Container, lock: Lock) -> Result<()> {
        drop(lock);
        // A row that a crash brings back has no directory, or nobody's; the next gc takes it away.
        let delete = || self.delete_container(&container.name);
        let deleted = self.db.lazily(false, || reserve::with(&self.layout, delete));
        match deleted {
            Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::EBUSY) => return Ok(()),
            deleted => deleted?,
        }
        // Not lazily: with others, files go whose rows must be gone for good.
        self.clean_up();
        Ok(())
    }
}

/// Removes the row of a container.
pub(super) fn delete(tx: &Connection, id: i64) -> Result<()> {
    tx.execute("DELETE FROM containers WHERE id = ?1", [id]).map_err(db::error)?;
    Ok(())
}

type Columns = (i64, String, String, i64, bool);

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

fn by_name(db: &Connection, name: &str) -> Result<Option<Columns>> {
    let sql = "SELECT id, name, image, created, ephemeral FROM containers WHERE name = ?1";
    db.query_row(sql, [name], columns).optional().map_err(db::error)
}

/// What a name may be.
fn validate_name(name: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if first && name.len() <= 200 && name.bytes().all(rest) {
        return Ok(());
    }
    let shown = name.chars().take(80).collect::<String>();
    let text = format!(
        "'{}' is no name for a container: letters, digits and _.- (a letter or digit first), 200 \
         at most",
        shown.escape_debug()
    );
    Err(Error::new(Errno::EINVAL, text))
}

/// Whether `path` is what `fd` has open.
fn same_file(fd: &OwnedFd, path: &Path) -> bool {
    let (Ok(a), Ok(b)) = (rustix::fs::fstat(fd), rustix::fs::lstat(path)) else { return false };
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

/// Gives a new upper's root what the root of the image has: that of an upper is the one that
/// shows.
fn dress_root(upper: &Path, lowers: &[PathBuf]) -> Result<()> {
    let Some(topmost) = lowers.first() else {
        return Ok(std::fs::set_permissions(
            upper,
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?);
    };
    let layer: Arc<dyn Layer> = DirLayer::open(topmost)?;
    let Some(below) = Below::new(std::slice::from_ref(&layer))? else { return Ok(()) };
    let attr = below.root()?.attr;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::openat(CWD, upper, flags, rustix::fs::Mode::empty())?;
    let object = Object::dir(&fd);
    object.chown(Some(attr.uid), Some(attr.gid))?;
    object.chmod(attr.perm)?;
    for name in layer.listxattr(layer.root())? {
        if marks::is_private(&name) {
            continue;
        }
        if let Some(value) = layer.getxattr(layer.root(), &name)? {
            xattr::set(object, &name, &value, 0)?;
        }
    }
    object.set_times(Some(SetTime::At(attr.atime)), Some(SetTime::At(attr.mtime)))
}
