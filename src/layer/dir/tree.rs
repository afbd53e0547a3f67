//! From ids to objects: nothing ever resolves outside of the tree.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::descriptors::Descriptors;
use super::sidecar::Sidecar;
use super::slots::{Flags, Slots, Spot};
use crate::attr::Kind;
use crate::errno::{Errno, Error, Result};
use crate::layer::Id;
use crate::name::NameBuf;
use crate::sys::handle;
use crate::sys::object::Object;

/// The root of the layer.
pub(super) const ROOT: Id = Id(0);
/// The work directory, where staged objects are.
pub(super) const WORK: Id = Id(1);
/// The index of copied-up hard links.
pub(super) const INDEX: Id = Id(2);

/// The longest path that is resolved by one call; the kernel takes up to 4095 bytes.
const PIECE: usize = 4000;
/// How often to look again where something is that others are moving: about half a second in all,
/// since whoever moves it may be kept from going on between the move and its account.
const TRIES: usize = 500;
/// How often of these without going to sleep in between.
const AT_ONCE: usize = 16;

/// Lets others go on before another look.
fn pause(tries: usize) {
    if tries < AT_ONCE {
        std::thread::yield_now();
    } else {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A directory tree: ids, and the descriptors to reach what they stand for.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) slots: Slots,
    pub(super) descriptors: Descriptors,
    anchors: [OnceLock<Arc<OwnedFd>>; 3],
    moves: Moves,
    /// Whether this tree changes: names may move, inodes may come and go.
    pub(super) changes: bool,
    /// `st_dev` of the root.
    pub(super) fs: u64,
    /// A descriptor on the same filesystem, not `O_PATH`, to open handles with.
    pub(super) readable: OnceLock<OwnedFd>,
    /// UUID of the filesystem, once it was asked for.
    pub(super) uuid: OnceLock<[u8; 16]>,
    /// The marks that objects cannot carry, of an upper layer.
    pub(super) sidecar: OnceLock<Sidecar>,
}

/// Counts renames, so that whoever fails to find something knows that it may just have moved.
#[derive(Debug, Default)]
struct Moves {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Moves {
    /// `None` while something is moving.
    fn quiet(&self) -> Option<u64> {
        let ended = self.ended.load(Ordering::SeqCst);
        (self.begun.load(Ordering::SeqCst) == ended).then_some(ended)
    }
}

/// How to reach an object now.
#[derive(Debug)]
pub(super) enum Place {
    /// As an entry of a directory.
    At(Arc<OwnedFd>, NameBuf),
    /// A directory by a descriptor of its own.
    Dir(Arc<OwnedFd>),
    /// Anything else by a descriptor of its own.
    Own(Arc<OwnedFd>),
}

impl Place {
    pub(super) fn object(&self) -> Object<'_> {
        match self {
            Self::At(dir, name) => Object::Entry(dir.as_fd(), name.as_bytes()),
            Self::Dir(fd) => Object::dir(fd),
            Self::Own(fd) => Object::Itself(fd.as_fd()),
        }
    }
}

impl Tree {
    /// The tree below the directory `root`.
    pub(super) fn new(root: OwnedFd, changes: bool) -> Result<Self> {
        let stat = Object::dir(&root).stat()?;
        let anchors = [const { OnceLock::new() }; 3];
        let tree = Self {
            slots: Slots::new(),
            descriptors: Descriptors::new(),
            anchors,
            moves: Moves::default(),
            changes,
            fs: stat.dev,
            readable: OnceLock::new(),
            uuid: OnceLock::new(),
            sidecar: OnceLock::new(),
        };
        tree.set_anchor(ROOT, root);
        Ok(tree)
    }

    /// Holds a directory open for good; the first one given for an id stays.
    pub(super) fn set_anchor(&self, id: Id, fd: OwnedFd) -> Option<Arc<OwnedFd>> {
        let cell = self.anchor(id)?;
        Some(Arc::clone(cell.get_or_init(|| Arc::new(fd))))
    }

    fn anchor(&self, id: Id) -> Option<&OnceLock<Arc<OwnedFd>>> {
        usize::try_from(id.0).ok().and_then(|number| self.anchors.get(number))
    }

    fn open_already(&self, id: Id) -> Option<Arc<OwnedFd>> {
        match self.anchor(id) {
            Some(cell) => cell.get().cloned(),
            None => self.descriptors.get(id),
        }
    }

    /// A descriptor (`O_PATH`) of a directory.
    pub(super) fn dir_fd(&self, id: Id) -> Result<Arc<OwnedFd>> {
        let mut error = Errno::ESTALE.into();
        for tries in 0..TRIES {
            let quiet = self.moves.quiet();
            let (start, names) = self.slots.path(id, |id| self.open_already(id))?;
            if names.is_empty() {
                return Ok(start);
            }
            let opened = open_beneath(&start, &names);
            let settled = !self.changes || (quiet.is_some() && quiet == self.moves.quiet());
            match opened {
                Ok(fd) if settled || self.is(id, &fd)? => {
                    let fd = Arc::new(fd);
                    self.descriptors.insert(id, Arc::clone(&fd));
                    return Ok(fd);
                }
                Ok(_) => {}
                Err(failed) if settled => return Err(failed),
                Err(failed) => error = failed,
            }
            pause(tries);
        }
        Err(error)
    }

    /// Whether `fd` is what `id` stands for, by its inode number.
    fn is(&self, id: Id, fd: &OwnedFd) -> Result<bool> {
        Ok(Object::dir(fd).stat()?.attr.ino == self.slots.get(id)?.ino)
    }

    /// How to reach an object now.
    pub(super) fn place(&self, id: Id, spot: &Spot) -> Result<Place> {
        if let Some(fd) = self.open_already(id) {
            let is_dir = spot.kind == Kind::Dir;
            return Ok(if is_dir { Place::Dir(fd) } else { Place::Own(fd) });
        }
        if self.changes
            && let Some(handle) = self.descriptors.handle(id)
            && let Some(on) = self.readable.get()
        {
            return Ok(Place::Own(Arc::new(handle::open(on, &handle)?)));
        }
        let Some(name) = spot.name.clone() else { return Err(Errno::ESTALE.into()) };
        Ok(Place::At(self.dir_fd(spot.parent)?, name))
    }

    /// Does something with an object; again, if it was not found because it was moving.
    pub(super) fn on<T>(
        &self,
        id: Id,
        mut act: impl FnMut(Object<'_>, &Spot) -> Result<T>,
    ) -> Result<T> {
        for tries in 1..TRIES {
            let quiet = self.moves.quiet();
            let spot = self.slots.get(id)?;
            let place = self.place(id, &spot)?;
            match act(place.object(), &spot) {
                Err(error) if self.changes && is_missing(&error) => {
                    let settled = quiet.is_some() && quiet == self.moves.quiet();
                    if settled && !self.has_left(id, &spot, &place) {
                        return Err(error);
                    }
                    pause(tries);
                }
                result => return result,
            }
        }
        let spot = self.slots.get(id)?;
        act(self.place(id, &spot)?.object(), &spot)
    }

    /// Whether the object is no longer to be found at `place`, where it was looked for: it was
    /// pinned since, because that name was about to go, or is known by another name.
    fn has_left(&self, id: Id, spot: &Spot, place: &Place) -> bool {
        let by_name = matches!(place, Place::At(..));
        let pinned = || self.open_already(id).is_some() || self.descriptors.handle(id).is_some();
        let renamed = || {
            let now = self.slots.get(id);
            now.is_ok_and(|now| (now.parent, now.name) != (spot.parent, spot.name.clone()))
        };
        by_name && (pinned() || renamed())
    }

    /// Renames by `call`, and on success lets `then` change the slots, so that nobody takes the
    /// time between the two for a name that is gone.
    pub(super) fn moving<T>(
        &self,
        call: impl FnOnce() -> Result<T>,
        then: impl FnOnce(&T) -> Result<()>,
    ) -> Result<T> {
        self.moves.begun.fetch_add(1, Ordering::SeqCst);
        let result = call().and_then(|value| then(&value).map(|()| value));
        self.moves.ended.fetch_add(1, Ordering::SeqCst);
        result
    }

    /// A new id for an object in `dir`.
    pub(super) fn insert(
        &self,
        dir: Id,
        name: NameBuf,
        kind: Kind,
        ino: u64,
        flags: Flags,
    ) -> Result<Id> {
        self.slots.insert(Spot { parent: dir, name: Some(name), kind, ino, flags })
    }

    /// `id` is now called `name` in `dir`.
    pub(super) fn relocate(&self, id: Id, dir: Id, name: NameBuf) -> Result<()> {
        self.descriptors.remove(&self.slots.relocate(id, dir, name)?);
        Ok(())
    }

    /// Gives back one reference.
    pub(super) fn forget(&self, id: Id) {
        self.descriptors.remove(&self.slots.forget(id));
    }
}

/// Whether an object was not found where it was looked for, or another one was.
fn is_missing(error: &Error) -> bool {
    matches!(error.errno(), Errno::ENOENT | Errno::ESTALE)
}

/// Opens the directory that `names` lead to, in as few calls as the length of paths allows.
fn open_beneath(start: &OwnedFd, names: &[NameBuf]) -> Result<OwnedFd> {
    let mut reached: Option<OwnedFd> = None;
    let mut path = Vec::new();
    for name in names {
        if path.len() + name.as_bytes().len() >= PIECE {
            let fd = open_piece(reached.as_ref().unwrap_or(start), &path)?;
            reached = Some(fd);
            path.clear();
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
    }
    open_piece(reached.as_ref().unwrap_or(start), &path)
}

fn open_piece(dir: &OwnedFd, path: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    Ok(rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve)?)
}
