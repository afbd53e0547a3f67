//! A layer on its way: the directories that are known, the tree on disk, and what is still open.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags};

use super::target::Target;
use super::tree::{Dir, Tree};
use crate::attr::{Attr, Kind};
use crate::errno::{Context, Errno, Error, Result};
use crate::image::recipe::{self, KEPT};
use crate::sys::object::Object;

/// How many bytes may be remembered for when the layers below are known. It is far more than any
/// layer asks for: hard links into other layers are rare, and are few.
const WAITING_MOST: usize = if cfg!(test) { 1 << 20 } else { 64 << 20 };
/// What remembering something takes beside its bytes.
const WAITING_EACH: usize = 128;

/// A hard link whose target is no entry of the archive.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// The entry, for errors.
    pub(super) path: Box<[u8]>,
    /// The path of the target below, perhaps through links there.
    pub(super) target: Vec<u8>,
    /// The order in which they came.
    pub(super) number: u64,
}

/// A layer that is being unpacked.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) tree: Tree,
    pub(super) target: Target,
    /// It was unpacked with the layers below at hand: no path of it leads through a link of theirs.
    pub(super) over: bool,
    /// Hard links to be made when the layers below are known, by their place.
    pub(super) pending: HashMap<(Dir, Box<[u8]>), Pending>,
    /// Where directories were that are gone, and through which paths led.
    pub(super) passed: Vec<Vec<u8>>,
    /// The parent of the entry before, as the archive calls it.
    pub(super) last: Option<(Vec<u8>, Dir)>,
    recipe: Arc<Mutex<Option<recipe::Writer>>>,
    /// Of files that have or had several names, by inode number: the one that the recipe knows
    /// their data by, if it still stands.
    linked: HashMap<u64, Option<Box<[u8]>>>,
    kept: u64,
    links: u64,
    /// What the links that wait and the paths that were passed take, in bytes.
    waiting: usize,
}

impl Layer {
    /// In the empty directory `home`.
    pub(super) fn create(home: OwnedFd) -> Result<Self> {
        let recipe = recipe::Writer::create(home.as_fd())?;
        Ok(Self {
            tree: Tree::new(),
            target: Target::create(home)?,
            over: false,
            pending: HashMap::new(),
            passed: Vec::new(),
            last: None,
            recipe: Arc::new(Mutex::new(Some(recipe))),
            linked: HashMap::new(),
            kept: 0,
            links: 0,
            waiting: 0,
        })
    }

    /// What takes the bytes of the archive that are in no file.
    pub(super) fn tape(&self) -> crate::image::tar::Tape {
        let recipe = Arc::clone(&self.recipe);
        Box::new(move |bytes| match recipe.lock().as_mut() {
            Some(recipe) => recipe.inline(bytes),
            None => Ok(()),
        })
    }

    /// Writes to the recipe.
    pub(super) fn note(&self, write: impl FnOnce(&mut recipe::Writer) -> Result<()>) -> Result<()> {
        self.recipe.lock().as_mut().map_or(Ok(()), write)
    }

    /// Ends the recipe.
    pub(super) fn end_recipe(&self) -> Result<()> {
        let recipe = self.recipe.lock().take();
        recipe.map_or(Ok(()), recipe::Writer::finish)
    }

    /// Forgets the recipe, which is of no use.
    pub(super) fn drop_recipe(&mut self) {
        drop(self.recipe.lock().take());
    }

    /// Remembers a hard link to be made later.
    pub(super) fn postpone(
        &mut self,
        dir: Dir,
        name: &[u8],
        path: &[u8],
        target: Vec<u8>,
    ) -> Result<()> {
        self.wait_for(name.len() + path.len() + target.len())?;
        self.links += 1;
        let pending = Pending { path: path.into(), target, number: self.links };
        self.pending.insert((dir, name.into()), pending);
        Ok(())
    }

    /// Accounts for what is to be remembered.
    fn wait_for(&mut self, bytes: usize) -> Result<()> {
        self.waiting = self.waiting.saturating_add(bytes).saturating_add(WAITING_EACH);
        if self.waiting <= WAITING_MOST {
            return Ok(());
        }
        let why = "too much in the archive depends on the layers below: hard links to what it does \
                   not hold, directories that it only implies and then replaces";
        Err(Error::new(Errno::EINVAL, why))
    }

    /// Notes that the file `name`, which was like this, has got one more name.
    pub(super) fn note_linked(&mut self, dir: Dir, name: &[u8], attr: &Attr) -> Result<()> {
        if attr.kind == Kind::File && attr.size > 0 && !self.linked.contains_key(&attr.ino) {
            self.linked.insert(attr.ino, Some(self.tree.path_of(dir, name)?.into()));
        }
        Ok(())
    }

    /// Whether the recipe knows data by this path, which is about to go from a file like this.
    fn had_data(&mut self, path: &[u8], attr: &Attr) -> bool {
        let known = match self.linked.get_mut(&attr.ino) {
            Some(known) if known.as_deref() == Some(path) => {
                *known = None;
                true
            }
            Some(_) => false,
            None => true,
        };
        // The number may be another file's soon.
        if attr.nlink == 1 {
            self.linked.remove(&attr.ino);
        }
        known
    }

    /// The hard link that is to be made at this place.
    pub(super) fn pending_at(&self, dir: Dir, name: &[u8]) -> Option<&Pending> {
        if self.pending.is_empty() {
            return None;
        }
        self.pending.get(&(dir, name.into()))
    }

    /// Takes away what is at `name`, so that something else can be there. What the recipe needs is
    /// kept. Returns whether there was anything, were it only a link that is yet to be made.
    pub(super) fn clear(&mut self, dir: Dir, name: &[u8]) -> Result<bool> {
        let pending =
            !self.pending.is_empty() && self.pending.remove(&(dir, name.into())).is_some();
        self.last = None;
        if let Some(child) = self.tree.child(dir, name) {
            self.remove_dir(child)?;
            return Ok(true);
        }
        let Some(attr) = self.target.stat(&self.tree, dir, name)? else { return Ok(pending) };
        let path = self.tree.path_of(dir, name)?;
        let fd = self.target.fd(&self.tree, dir)?;
        self.take_away(fd.as_fd(), name, &attr, &path)?;
        Ok(true)
    }

    /// Removes a non-directory; `path` is where it is in the tree.
    fn take_away(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        attr: &Attr,
        path: &[u8],
    ) -> Result<()> {
        // Every regular file that is not empty has its data from the archive, under the first of
        // its names: under the others there is nothing to keep, however often they are replaced.
        if attr.kind != Kind::File || attr.size == 0 || !self.had_data(path, attr) {
            return Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?);
        }
        let number = self.kept;
        self.kept += 1;
        let kept = self.kept_dir(number == 0)?;
        let new = number.to_string();
        if attr.nlink == 1 {
            rustix::fs::renameat(dir, name, &kept, &new)?;
        } else {
            // Its other names shall not count this one.
            copy_file(dir, name, kept.as_fd(), new.as_bytes(), attr.size)?;
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
        }
        self.note(|recipe| recipe.moved(path, number))
    }

    fn kept_dir(&self, first: bool) -> Result<OwnedFd> {
        let home = &self.target.home;
        if first {
            rustix::fs::mkdirat(home, KEPT, Mode::from_raw_mode(0o700)).context(|| KEPT)?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(home, KEPT, flags, Mode::empty()).context(|| KEPT)
    }

    /// Removes a directory with all that is in it, however deep: goes down and up again by `..`,
    /// holding one descriptor. Nobody else moves anything in here.
    pub(super) fn remove_dir(&mut self, dir: Dir) -> Result<()> {
        let (parent, name) = {
            let node = self.tree.get(dir)?;
            (node.parent, node.name.to_vec())
        };
        let mut path = self.tree.path(parent)?;
        let above = self.target.fd(&self.tree, parent)?;
        let mut at = open_listing(above.as_fd(), &name)?;
        push(&mut path, &name);
        let mut names = vec![name];
        while !names.is_empty() {
            if let Some(below) = self.empty(&at, &path)? {
                at = open_listing(at.as_fd(), &below)?;
                push(&mut path, &below);
                names.push(below);
                continue;
            }
            at = open_listing(at.as_fd(), b"..")?;
            if let Some(last) = names.pop() {
                rustix::fs::unlinkat(&at, &*last, AtFlags::REMOVEDIR)?;
                path.truncate(path.len().saturating_sub(last.len() + 1));
            }
        }
        self.note_passed(dir)?;
        let gone = self.tree.remove(dir)?;
        self.target.forget(&gone);
        self.last = None;
        let tree = &self.tree;
        if !self.pending.is_empty() {
            self.pending.retain(|(dir, _), _| tree.get(*dir).is_ok_and(|node| !node.gone));
        }
        Ok(())
    }

    /// Remembers which paths led through directories that are about to go: if one of them is a
    /// link below, what was put there belongs elsewhere.
    fn note_passed(&mut self, dir: Dir) -> Result<()> {
        for dir in self.tree.below(dir) {
            let passed = |dir: &Dir| self.tree.get(*dir).is_ok_and(|node| node.assumed);
            // The longest paths say it of the others.
            if passed(&dir) && !self.tree.children(dir).iter().any(passed) {
                let path = self.tree.path(dir)?;
                self.wait_for(path.len())?;
                self.passed.push(path);
            }
        }
        Ok(())
    }

    /// Removes the non-directories of a directory up to the first directory that is met; returns
    /// the name of that.
    fn empty(&mut self, dir: &OwnedFd, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut buf = Vec::with_capacity(16 << 10);
        let mut entries = rustix::fs::RawDir::new(dir, buf.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let attr = Object::Entry(dir.as_fd(), name).stat()?.attr;
            if attr.kind == Kind::Dir {
                return Ok(Some(name.to_vec()));
            }
            let mut path = path.to_vec();
            push(&mut path, name);
            let path = path.strip_prefix(b"/").unwrap_or(&path);
            self.take_away(dir.as_fd(), name, &attr, path)?;
        }
        Ok(None)
    }
}

fn push(path: &mut Vec<u8>, name: &[u8]) {
    path.push(b'/');
    path.extend_from_slice(name);
}

fn open_listing(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// Copies the content of a file, holes and all, to a new one.
fn copy_file(
    from: BorrowedFd<'_>,
    old: &[u8],
    to: BorrowedFd<'_>,
    new: &[u8],
    size: u64,
) -> Result<()> {
    use rustix::fs::SeekFrom;
    let source = Object::Entry(from, old).open(OFlags::RDONLY)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let copy = rustix::fs::openat(to, new, flags, Mode::from_raw_mode(0o600))?;
    let mut buf = vec![0; 256 << 10];
    let mut at = 0;
    while at < size {
        at = match rustix::fs::seek(&source, SeekFrom::Data(at)) {
            Err(rustix::io::Errno::NXIO) => break,
            found => found?,
        };
        let end = rustix::fs::seek(&source, SeekFrom::Hole(at))?;
        while at < end {
            let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buf.len());
            let got = rustix::io::pread(&source, buf.get_mut(..want).unwrap_or_default(), at)?;
            if got == 0 {
                return Err(Error::new(Errno::EIO, "a file shrank while it was copied"));
            }
            write_all(&copy, buf.get(..got).unwrap_or_default(), at)?;
            at += got as u64;
        }
    }
    Ok(rustix::fs::ftruncate(&copy, size)?)
}

/// Writes all of `bytes` at `offset`.
pub(super) fn write_all(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<()> {
    while !bytes.is_empty() {
        let done = match rustix::io::pwrite(file, bytes, offset) {
            Err(rustix::io::Errno::INTR) => continue,
            done => done?,
        };
        offset += done as u64;
        bytes = bytes.get(done..).unwrap_or_default();
    }
    Ok(())
}
