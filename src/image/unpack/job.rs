//! One entry after the other, from the archive into the tree.

use std::io::Read;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::layer::{Layer, write_all};
use super::path::clean;
use super::resolve::{Located, Parent};
use super::target::{Make, Stamp};
use super::tree::Dir;
use super::under::Under;
use super::whiteout::{Inner, LINKED, Said, inner, whiteout};
use crate::attr::Kind;
use crate::errno::{Context, Errno, Error, Result};
use crate::image::tar::{Entry, Reader, What, shown};
use crate::sys::object::Object;

/// How much of a file is written at once.
const CHUNK: usize = 256 << 10;

/// An unpacking under way.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) layer: Layer,
    /// The layers below, if they may be looked at.
    pub(super) under: Option<Under>,
    /// Whether they would have to be.
    pub(super) unknown: bool,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    stop: &'a AtomicBool,
    progress: Option<&'a AtomicU64>,
    buf: Vec<u8>,
}

impl<'a> Job<'a> {
    pub(super) fn new(
        layer: Layer,
        under: Option<Under>,
        stop: &'a AtomicBool,
        progress: Option<&'a AtomicU64>,
    ) -> Self {
        let buf = vec![0; CHUNK];
        Self { layer, under, unknown: false, entries: 0, bytes: 0, stop, progress, buf }
    }

    /// Takes in all entries, unless the layers below would have to be looked at.
    pub(super) fn run<R: Read>(&mut self, reader: &mut Reader<R>) -> Result<()> {
        self.take_all(reader)?;
        // Its files have the names by now that they are there for.
        match self.layer.tree.child(Dir::ROOT, LINKED) {
            Some(dir) if !self.unknown => self.layer.remove_dir(dir),
            _ => Ok(()),
        }
    }

    fn take_all<R: Read>(&mut self, reader: &mut Reader<R>) -> Result<()> {
        while let Some(entry) = reader.next()? {
            check(self.stop)?;
            self.entries += 1;
            if let Some(progress) = self.progress {
                progress.fetch_add(1, Ordering::Relaxed);
            }
            let what = || format!("tar entry '{}'", shown(&entry.path));
            self.apply(&entry, reader).map_err(|error| match error.context() {
                // The reader's own words name the entry too.
                Some(text) if text.starts_with("tar ") => error,
                _ => error.context_of(what()),
            })?;
            if self.unknown {
                break;
            }
        }
        Ok(())
    }

    fn apply<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let names = clean(&entry.path);
        let Some((name, parents)) = names.split_last() else {
            if entry.what != What::Dir {
                let why = "the root of the image can only be a directory";
                return Err(Error::new(Errno::EINVAL, why));
            }
            return self.set_dir(Dir::ROOT, false, entry);
        };
        if parents == [LINKED] && matches!(entry.what, What::File(_)) {
            return self.put_aside(name, entry, reader);
        }
        for parent in parents {
            if inner(parent)? == Inner::Ignored {
                return Ok(());
            }
        }
        let said = whiteout(name)?;
        if said == Said::Ignored {
            return Ok(());
        }
        let dir = match self.parent(parents, !matches!(said, Said::Plain(_)))? {
            Parent::Dir(dir) => dir,
            Parent::Nowhere => return Ok(()),
            Parent::Unknown => {
                self.unknown = true;
                return Ok(());
            }
        };
        match said {
            Said::Plain(name) => {
                self.layer.tree.mark_real(dir)?;
                self.put(dir, name.as_bytes(), entry, reader)
            }
            Said::Whiteout(name) => self.hide(dir, name.as_bytes()),
            Said::Opaque => {
                self.layer.tree.get_mut(dir)?.hides = true;
                Ok(())
            }
            Said::Ignored => Ok(()),
        }
    }

    /// Unpacks a file that AUFS kept for its names, which are entries of their own, to where they
    /// find it; it is no part of the tree.
    fn put_aside<R: Read>(
        &mut self,
        name: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let Said::Plain(name) = whiteout(name)? else { return Ok(()) };
        let Layer { target, tree, .. } = &mut self.layer;
        let dir = match tree.child(Dir::ROOT, LINKED) {
            Some(dir) => dir,
            None => target.make_dir(tree, Dir::ROOT, LINKED, 0o700)?,
        };
        self.put(dir, name.as_bytes(), entry, reader)
    }

    /// A whiteout says something of the layers below only, wherever in the archive it stands.
    fn hide(&mut self, dir: Dir, name: &[u8]) -> Result<()> {
        let layer = &mut self.layer;
        if let Some(child) = layer.tree.child(dir, name) {
            let node = layer.tree.get_mut(child)?;
            (node.hides, node.fresh) = (true, true);
            return Ok(());
        }
        if layer.pending_at(dir, name).is_some() {
            return Ok(());
        }
        match layer.target.make_whiteout(&mut layer.tree, dir, name) {
            Err(error) if error.errno() == Errno::EEXIST => Ok(()),
            made => made,
        }
    }

    fn put<R: Read>(
        &mut self,
        dir: Dir,
        name: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let stamp = stamp(entry);
        let xattrs = &entry.xattrs;
        let what = match &entry.what {
            What::File(size) => return self.put_file(dir, name, *size, entry, reader),
            What::Dir => return self.put_dir(dir, name, entry),
            What::HardLink(target) => return self.put_link(dir, name, target, &entry.path),
            What::Symlink(target) => Make::Symlink(target),
            What::Char(device) => Make::Node(Kind::Char, *device),
            What::Block(device) => Make::Node(Kind::Block, *device),
            What::Fifo => Make::Node(Kind::Fifo, 0),
        };
        self.placing(dir, name, |Layer { target, tree, .. }| {
            target.make(tree, dir, name, what, &stamp, xattrs)
        })
    }

    /// Makes something at a name, in the place of what is there.
    fn placing<T>(
        &mut self,
        dir: Dir,
        name: &[u8],
        mut make: impl FnMut(&mut Layer) -> Result<T>,
    ) -> Result<T> {
        if self.layer.pending_at(dir, name).is_some() {
            self.layer.clear(dir, name)?;
        }
        match make(&mut self.layer) {
            Err(error) if error.errno() == Errno::EEXIST => {
                self.layer.clear(dir, name)?;
                make(&mut self.layer)
            }
            made => made,
        }
    }

    fn put_dir(&mut self, dir: Dir, name: &[u8], entry: &Entry) -> Result<()> {
        if let Some(child) = self.layer.tree.child(dir, name) {
            return self.set_dir(child, false, entry);
        }
        self.check_depth(dir, name)?;
        let mut replaced = self.layer.pending_at(dir, name).is_some();
        let mut tries = 0;
        let child = self.placing(dir, name, |Layer { target, tree, .. }| {
            tries += 1;
            target.make_dir(tree, dir, name, entry.perm)
        })?;
        replaced |= tries > 1;
        if replaced {
            // What was here, be it a whiteout, has hidden what is below once and for all.
            let node = self.layer.tree.get_mut(child)?;
            (node.hides, node.fresh) = (true, true);
        }
        self.layer.tree.mark_real(child)?;
        self.set_dir(child, true, entry)
    }

    fn set_dir(&mut self, dir: Dir, new: bool, entry: &Entry) -> Result<()> {
        let Layer { target, tree, .. } = &mut self.layer;
        let node = tree.get_mut(dir)?;
        node.explicit = true;
        tree.mark_real(dir)?;
        target.set_dir(tree, dir, new, &stamp(entry), &entry.xattrs)
    }

    fn put_link(&mut self, dir: Dir, name: &[u8], target: &[u8], path: &[u8]) -> Result<()> {
        let what = || format!("hard link to '{}'", shown(target));
        let (from, old) = match self.locate(target).context(what)? {
            Located::Here(from, old) => (from, old),
            Located::Below(target) => {
                self.layer.clear(dir, name)?;
                return self.layer.postpone(dir, name, path, target);
            }
            Located::Unknown => {
                self.unknown = true;
                return Ok(());
            }
        };
        let Layer { target, tree, .. } = &mut self.layer;
        let fd = target.fd(tree, from)?;
        let attr = Object::Entry(fd.as_fd(), &old).stat()?.attr;
        let disguised = target.is_disguised(fd.as_fd(), &old, &attr)?;
        if target.stat(tree, dir, name)?.is_some_and(|there| there.ino == attr.ino) {
            return Ok(());
        }
        let linked = self.placing(dir, name, |Layer { target, tree, .. }| {
            let (from, to) = (target.fd(tree, from)?, target.fd(tree, dir)?);
            Object::Entry(from.as_fd(), &old).link(to.as_fd(), name)
        });
        linked.context(what)?;
        self.layer.note_linked(from, &old, &attr)?;
        self.layer.tree.get_mut(dir)?.escapes |= disguised;
        Ok(())
    }

    fn put_file<R: Read>(
        &mut self,
        dir: Dir,
        name: &[u8],
        size: u64,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        self.check_depth(dir, name)?;
        let stamp = stamp(entry);
        let file = self.placing(dir, name, |Layer { target, tree, .. }| {
            target.make_file(tree, dir, name, &stamp)
        })?;
        if size > 0 {
            let path = self.layer.tree.path_of(dir, name)?;
            self.layer.note(|recipe| recipe.file(&path))?;
            let end = self.fill(&file, reader)?;
            if end < size {
                rustix::fs::ftruncate(&file, size)?;
            }
        }
        let Layer { target, tree, .. } = &mut self.layer;
        let fd = target.fd(tree, dir)?;
        target.finish_file(&file, (fd.as_fd(), name), &stamp, &entry.xattrs)
    }

    /// Moves an entry's data from the archive to its file; returns where they end.
    fn fill<R: Read>(
        &mut self,
        file: &std::os::fd::OwnedFd,
        reader: &mut Reader<R>,
    ) -> Result<u64> {
        // The buffer holds this much, which belongs there.
        let (mut held, mut start) = (0, 0);
        loop {
            let room = self.buf.get_mut(held..).unwrap_or_default();
            let Some((offset, got)) = reader.data(room)? else { break };
            self.layer.note(|recipe| recipe.piece(offset, got as u64))?;
            self.bytes += got as u64;
            if held > 0 && offset != start + held as u64 {
                write_all(file, self.buf.get(..held).unwrap_or_default(), start)?;
                self.buf.copy_within(held..held + got, 0);
                held = 0;
            }
            if held == 0 {
                start = offset;
            }
            held += got;
            if held == self.buf.len() {
                check(self.stop)?;
                write_all(file, &self.buf, start)?;
                start += held as u64;
                held = 0;
            }
        }
        write_all(file, self.buf.get(..held).unwrap_or_default(), start)?;
        Ok(start + held as u64)
    }
}

fn stamp(entry: &Entry) -> Stamp {
    Stamp { perm: entry.perm, uid: entry.uid, gid: entry.gid, mtime: entry.mtime }
}

/// `EINTR` once the work was called off.
pub(super) fn check(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) {
        return Err(Error::new(Errno::EINTR, "called off"));
    }
    Ok(())
}
