//! The marks of objects that cannot carry them: symbolic links, FIFOs, sockets and devices where
//! marks are `user.*` attributes; everything on a filesystem without attributes; a redirect longer
//! than the filesystem takes.
//!
//! ```text
//!     WORK/plyfs/marks/KEY     the record of one object: a symbolic link to its text, which is
//!                              written and read by one call; a file if it is too long for that
//!     WORK/plyfs/where         the key of `marks`: a copy of the directory has another
//!     WORK/plyfs/all           files and directories may have records, too
//!     WORK/plyfs/unswept       records of objects that are gone may lie here
//! ```
//!
//! A key is the object's file handle, with its generation (else its inode number and when it was
//! made): a record never counts for a later object. So the record and the object are changed one
//! after the other, and what a crash leaves in between is a record that nobody finds. The next
//! mount removes it.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno as Raw;

use super::record::Record;
use super::work;
use crate::attr::{Kind, Time};
use crate::errno::{Context, Errno, Error, Result};
use crate::layer::marks::{Namespace, Tag, stored_as};
use crate::sys::handle;
use crate::sys::object::Object;

const MARKS: &str = "marks";
const WHERE: &str = "where";
const ALL: &str = "all";
const UNSWEPT: &str = "unswept";
/// What the names of unfinished things begin with.
const TEMP: &[u8] = b"#";
/// The longest record that is read, in bytes: marks are no longer than attributes can be.
const LONGEST: usize = 1 << 20;

/// The records of one upper layer.
#[derive(Debug)]
pub(super) struct Sidecar {
    /// `WORK/plyfs`
    home: OwnedFd,
    records: OwnedFd,
    identity: Identity,
    /// There are records: most upper layers never have any, and never look for one.
    any: AtomicBool,
    all: AtomicBool,
    unswept: AtomicBool,
    /// A record could not be removed.
    leaked: AtomicBool,
    /// Records were changed since they were last made durable.
    unsynced: AtomicBool,
    /// Held while a record is read, changed and replaced.
    writing: Mutex<()>,
    temps: AtomicU64,
}

/// How objects are told apart on the filesystem that `dir` lies on.
pub(super) fn identity(dir: &OwnedFd) -> Result<Identity> {
    /// `FUSE_SUPER_MAGIC`. Its handles are numbers that another mount gives to other objects.
    const FUSE: rustix::fs::FsWord = 0x6573_5546;
    if rustix::fs::fstatfs(dir)?.f_type != FUSE && handle::of(Object::dir(dir))?.is_some() {
        return Ok(Identity::Handle);
    }
    let born = Object::dir(dir).stat()?.born;
    Ok(if born.is_some() { Identity::Birth } else { Identity::None })
}

/// What names an object for as long as it lives, and no other after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// Its file handle.
    Handle,
    /// Its inode number and the time when it was made.
    Birth,
    /// Nothing.
    None,
}

impl Identity {
    fn key(self, object: Object<'_>) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Handle => Ok(handle::of(object)?.map(|handle| {
                let mut key = format!("h{:x}-", handle.kind);
                key.extend(handle.bytes.iter().map(|byte| format!("{byte:02x}")));
                key.into_bytes()
            })),
            Self::Birth => {
                let stat = object.stat()?;
                let key = |at: Time| format!("i{:x}-{:x}.{:x}", stat.attr.ino, at.sec, at.nsec);
                Ok(stat.born.map(|born| key(born).into_bytes()))
            }
            Self::None => Ok(None),
        }
    }
}

/// Marks that an object can do without: it shows another inode number after a remount, and hard
/// links among the likes of it part.
fn is_comfort(tag: Tag) -> bool {
    matches!(tag, Tag::Ino | Tag::Nlink | Tag::LowerNlink | Tag::Origin | Tag::Impure)
}

/// The refusal of an upper directory whose marks cannot be found again.
pub(super) fn copied(upper: &Path) -> Error {
    let text = format!(
        "upperdir {} is a copy: what was deleted and renamed there is noted in the workdir, since \
         its filesystem has no extended attributes, and by file handles, which a copy has others \
         of. Go on with the original, or commit that instead of copying it",
        upper.display()
    );
    Error::new(Errno::EINVAL, text)
}

/// The objects for which there may be records though attributes can be written.
fn never_carries(kind: Kind) -> bool {
    !matches!(kind, Kind::File | Kind::Dir)
}

impl Sidecar {
    /// Opens what is in `home`, and removes what a crash left unfinished there.
    pub(super) fn open(home: OwnedFd) -> Result<Self> {
        let records = work::subdirectory(&home, MARKS)?;
        let names = work::names(Object::dir(&home))?;
        for temp in names.iter().filter(|name| name.starts_with(TEMP)) {
            rustix::fs::unlinkat(&home, &**temp, AtFlags::empty())?;
        }
        Self::with(home, records, &names)
    }

    /// As [`open`](Self::open), of a layer that nobody has mounted, and without changing anything;
    /// `None` if there are no records.
    pub(super) fn open_read_only(work: &OwnedFd) -> Result<Option<Self>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let sub = |dir: &OwnedFd, name: &str| match Object::Entry(dir.as_fd(), name.as_bytes())
            .open(flags)
        {
            Err(error) if error.errno() == Errno::ENOENT => Ok(None),
            opened => opened.map(Some),
        };
        let Some(home) = sub(work, "plyfs")? else { return Ok(None) };
        let Some(records) = sub(&home, MARKS)? else { return Ok(None) };
        let names = work::names(Object::dir(&home))?;
        Self::with(home, records, &names).map(Some)
    }

    fn with(home: OwnedFd, records: OwnedFd, names: &[Vec<u8>]) -> Result<Self> {
        let has = |wanted: &str| AtomicBool::new(names.iter().any(|n| n == wanted.as_bytes()));
        let any = AtomicBool::new(!work::names(Object::dir(&records))?.is_empty());
        let (all, unswept) = (has(ALL), has(UNSWEPT));
        let (leaked, unsynced) = (AtomicBool::new(false), AtomicBool::new(false));
        let (writing, temps) = (Mutex::default(), AtomicU64::new(1));
        let identity = identity(&records)?;
        Ok(Self { home, records, identity, any, all, unswept, leaked, unsynced, writing, temps })
    }

    /// What the object's record is called; `None` where nothing tells it from others.
    pub(super) fn key(&self, object: Object<'_>) -> Result<Option<Vec<u8>>> {
        self.identity.key(object)
    }

    /// From now on files and directories have records, too.
    pub(super) fn take_all(&self) -> Result<()> {
        self.flag(ALL, &self.all)
    }

    fn flag(&self, name: &str, known: &AtomicBool) -> Result<()> {
        if known.load(Ordering::Acquire) {
            return Ok(());
        }
        match rustix::fs::mkdirat(&self.home, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Raw::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        known.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether the work directory was copied: no object has the handle that it had.
    pub(super) fn was_copied(&self) -> Result<bool> {
        let Ok(at) = rustix::fs::readlinkat(&self.home, WHERE, Vec::new()) else {
            return Ok(false);
        };
        Ok(self.key(Object::dir(&self.records))?.is_some_and(|key| key != at.as_bytes()))
    }

    /// Whether every record counts: files and directories have some.
    pub(super) fn has_all(&self) -> bool {
        self.all.load(Ordering::Acquire)
    }

    /// Whether there are records at all.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Says that a record stays that should not: the next mount has to sweep.
    pub(super) fn leak(&self) {
        self.leaked.store(true, Ordering::Release);
    }

    /// Whether an object of this kind may have a record; `aside` is whether it says so itself.
    pub(super) fn concerns(&self, kind: Kind, aside: bool) -> bool {
        self.any() && (self.has_all() || never_carries(kind) || aside)
    }

    /// The marks of the object that `key` names.
    fn get(&self, key: &[u8]) -> Result<Record> {
        match rustix::fs::readlinkat(&self.records, key, Vec::new()) {
            Ok(text) => Record::decode(text.as_bytes()),
            Err(Raw::NOENT) => Ok(Record::default()),
            Err(Raw::INVAL) => {
                let file = Object::Entry(self.records.as_fd(), key).open(OFlags::RDONLY)?;
                Record::decode(&read_whole(&file)?)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// The object's marks, by the names that attributes of the user's namespace have.
    pub(super) fn marks(&self, object: Object<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let Some(key) = self.key(object)? else { return Ok(Vec::new()) };
        let marks = self.get(&key)?.0.into_iter();
        Ok(marks.map(|(suffix, value)| (stored_as(&suffix, Namespace::User), value)).collect())
    }

    /// Sets marks of an object, in one step.
    pub(super) fn put(&self, object: Object<'_>, marks: &[(Tag, Vec<u8>)]) -> Result<()> {
        // A removed object that is still open: no other mount will ask for it.
        if object.stat()?.attr.nlink == 0 {
            return Ok(());
        }
        let Some(key) = self.key(object)? else {
            if marks.iter().all(|(tag, _)| is_comfort(*tag)) {
                return Ok(());
            }
            let why = "this filesystem has no place for the mark that this needs";
            return Err(Error::new(Errno::EOPNOTSUPP, why));
        };
        self.change(&key, |record| {
            for (tag, value) in marks {
                record.set(tag.suffix(), value);
            }
            true
        })
    }

    /// Takes a mark off an object, in one step.
    pub(super) fn take(&self, object: Object<'_>, tag: Tag) -> Result<()> {
        match self.key(object)? {
            Some(key) => self.change(&key, |record| record.take(tag.suffix())),
            None => Ok(()),
        }
    }

    /// Replaces a record by what `act` makes of it, if it says that it made something of it.
    fn change(&self, key: &[u8], act: impl FnOnce(&mut Record) -> bool) -> Result<()> {
        let _writing = self.writing.lock();
        let mut record = self.get(key)?;
        if !act(&mut record) {
            return Ok(());
        }
        if record.0.is_empty() {
            return self.drop_record(key);
        }
        self.first()?;
        let written = self.write(key, &record.encode());
        // Now, and not before: it is not yet what anything counts on.
        self.unsynced.store(true, Ordering::Release);
        written
    }

    /// Puts a record in the place of what is there.
    fn write(&self, key: &[u8], text: &[u8]) -> Result<()> {
        if let Ok(()) = rustix::fs::symlinkat(text, &self.records, key) {
            return Ok(());
        }
        let temp = format!("#{:x}", self.temps.fetch_add(1, Ordering::Relaxed));
        let made = match rustix::fs::symlinkat(text, &self.home, &temp) {
            Err(Raw::NAMETOOLONG | Raw::NOSPC) => self.write_file(&temp, text),
            result => result.map_err(Error::from),
        };
        let moved = made.and_then(|()| {
            rustix::fs::renameat(&self.home, &temp, &self.records, key).map_err(Error::from)
        });
        if moved.is_err()
            && let Err(error) = work::remove(self.home.as_fd(), temp.as_bytes())
        {
            tracing::debug!(%error, "an unfinished record stays for the next mount to remove");
        }
        moved
    }

    /// Before a record is written: says that there are some, and where.
    fn first(&self) -> Result<()> {
        if !self.unswept.load(Ordering::Acquire) {
            if let Some(at) = self.key(Object::dir(&self.records))? {
                match rustix::fs::symlinkat(&*at, &self.home, WHERE) {
                    Ok(()) | Err(Raw::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            self.flag(UNSWEPT, &self.unswept)?;
        }
        self.any.store(true, Ordering::Release);
        Ok(())
    }

    /// A record in a file of its own, which must be there before anything counts on it.
    fn write_file(&self, temp: &str, text: &[u8]) -> Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.home, temp, flags, Mode::from_raw_mode(0o600))?;
        let mut written = 0;
        while let Some(rest) = text.get(written..).filter(|rest| !rest.is_empty()) {
            written += rustix::io::write(&file, rest)?;
        }
        Ok(rustix::fs::fsync(&file)?)
    }

    /// Makes the records durable. Some filesystems make of a directory that is synced nothing else
    /// durable that was done before.
    pub(super) fn sync(&self) -> Result<()> {
        if self.unsynced.swap(false, Ordering::AcqRel) {
            let open = Object::dir(&self.records).open(OFlags::RDONLY | OFlags::DIRECTORY)?;
            rustix::fs::fsync(open)
                .inspect_err(|_| self.unsynced.store(true, Ordering::Release))?;
        }
        Ok(())
    }

    /// Removes the record of an object that is gone.
    pub(super) fn drop_record(&self, key: &[u8]) -> Result<()> {
        match rustix::fs::unlinkat(&self.records, key, AtFlags::empty()) {
            Ok(()) | Err(Raw::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether records of objects that are gone may lie here, since the last mount did not end in
    /// order.
    pub(super) fn is_unswept(&self) -> bool {
        self.unswept.load(Ordering::Acquire)
    }

    /// Removes all records but those of `live` objects.
    pub(super) fn sweep(&self, live: &HashSet<Vec<u8>>) -> Result<()> {
        let names = work::names(Object::dir(&self.records))?;
        for name in &names {
            if !live.contains(name) {
                self.drop_record(name).context(|| format!("record {}", name.escape_ascii()))?;
            }
        }
        self.any.store(names.iter().any(|name| live.contains(name)), Ordering::Release);
        self.swept()?;
        if live.is_empty() {
            // Those of a copied directory: the next ones are of this one.
            match rustix::fs::unlinkat(&self.home, WHERE, AtFlags::empty()) {
                Ok(()) | Err(Raw::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Says that there are no records of objects that are gone, as far as that is known.
    pub(super) fn swept(&self) -> Result<()> {
        if !self.leaked.load(Ordering::Acquire) && self.unswept.swap(false, Ordering::AcqRel) {
            rustix::fs::unlinkat(&self.home, UNSWEPT, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }
}

fn read_whole(file: &OwnedFd) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut piece = vec![0; 4096];
    loop {
        match rustix::io::read(file, &mut piece)? {
            0 => return Ok(text),
            read => text.extend_from_slice(piece.get(..read).unwrap_or_default()),
        }
        if text.len() > LONGEST {
            return Err(Error::new(Errno::EIO, "a record of marks without end"));
        }
    }
}
