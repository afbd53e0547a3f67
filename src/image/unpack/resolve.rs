//! From paths to directories: the parents of an entry, made where the archive has no entry for
//! them, and the targets of hard links. Links on the way are followed inside the image only.

use std::os::fd::AsFd;

use super::job::Job;
use super::path::{clean, steps};
use super::tree::Dir;
use super::under::Led;
use super::whiteout::{Inner, inner};
use crate::attr::Kind;
use crate::bug;
use crate::errno::{Errno, Error, Result};
use crate::image::recipe::PATH_MOST;
use crate::image::tar::shown;
use crate::sys::object::Object;

/// The most links that are followed for one path, as in umoci.
const LINKS_MOST: u32 = 255;
/// The most names that may be left to walk after a link.
const STEPS_MOST: usize = 100_000;

/// Where the parent of an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parent {
    /// There.
    Dir(Dir),
    /// Nowhere: a whiteout has nothing to hide there, or the entry is for AUFS alone.
    Nowhere,
    /// Only the layers below can tell.
    Unknown,
}

/// Where the target of a hard link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Located {
    /// In this layer.
    Here(Dir, Vec<u8>),
    /// Below, at this path.
    Below(Vec<u8>),
    /// Only the layers below can tell.
    Unknown,
}

/// One name further.
enum Step {
    Dir(Dir),
    Link(Vec<u8>),
    Nowhere,
    Unknown,
}

impl Job<'_> {
    /// The directory that `names` lead to from the root. What is missing is made, without
    /// attributes; not for the sake of a whiteout that lies in one.
    pub(super) fn parent(&mut self, names: &[&[u8]], whiteout: bool) -> Result<Parent> {
        let path = names.join(&b'/');
        if let Some((last, dir)) = &self.layer.last
            && *last == path
        {
            return Ok(Parent::Dir(*dir));
        }
        let mut at = Dir::ROOT;
        let mut rest = names;
        while let Some((first, more)) = rest.split_first()
            && let Some(child) = self.layer.tree.child(at, first)
        {
            (at, rest) = (child, more);
        }
        let mut todo: Vec<Box<[u8]>> = rest.iter().rev().map(|name| Box::from(*name)).collect();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if &*name == b".." {
                at = self.layer.tree.get(at)?.parent;
                continue;
            }
            match self.step(at, &name, whiteout)? {
                Step::Dir(dir) => at = dir,
                Step::Link(target) => {
                    if target.starts_with(b"/") {
                        at = Dir::ROOT;
                    }
                    follow(&target, &mut todo, &mut links)?;
                }
                Step::Nowhere => return Ok(Parent::Nowhere),
                Step::Unknown => return Ok(Parent::Unknown),
            }
        }
        self.layer.last = Some((path, at));
        Ok(Parent::Dir(at))
    }

    fn step(&mut self, at: Dir, name: &[u8], whiteout: bool) -> Result<Step> {
        if inner(name)? == Inner::Ignored {
            return Ok(Step::Nowhere);
        }
        if let Some(child) = self.layer.tree.child(at, name) {
            return Ok(Step::Dir(child));
        }
        if let Some(pending) = self.layer.pending_at(at, name) {
            let target = pending.target.clone();
            return self.through_pending(&target, name, whiteout);
        }
        self.check_depth(at, name)?;
        if self.under.is_some()
            && self.layer.target.stat(&self.layer.tree, at, name)?.is_none()
            && let Some(under) = &mut self.under
            && let Some(object) = under.lookup(&self.layer.tree, at, name)?
            && object.attr.kind != Kind::Dir
        {
            return match object.attr.kind {
                Kind::Symlink => Ok(Step::Link(object.readlink()?)),
                _ if whiteout => Ok(Step::Nowhere),
                _ => Err(no_dir(name)),
            };
        }
        match self.layer.target.make_dir(&mut self.layer.tree, at, name, 0o755) {
            Ok(dir) => {
                self.layer.tree.get_mut(dir)?.assumed = self.under.is_none();
                Ok(Step::Dir(dir))
            }
            Err(error) if error.errno() == Errno::EEXIST => self.step_occupied(at, name, whiteout),
            Err(error) => Err(error),
        }
    }

    /// A step to a name of this layer that is no directory.
    fn step_occupied(&mut self, at: Dir, name: &[u8], whiteout: bool) -> Result<Step> {
        let layer = &mut self.layer;
        let fd = layer.target.fd(&layer.tree, at)?;
        let object = Object::Entry(fd.as_fd(), name);
        let attr = object.stat()?.attr;
        if attr.kind == Kind::Symlink {
            return Ok(Step::Link(object.readlink()?));
        }
        if whiteout {
            return Ok(Step::Nowhere);
        }
        if !layer.target.is_whiteout(fd.as_fd(), name, &attr)? {
            return Err(no_dir(name));
        }
        layer.clear(at, name)?;
        let dir = layer.target.make_dir(&mut layer.tree, at, name, 0o755)?;
        let node = layer.tree.get_mut(dir)?;
        (node.hides, node.fresh) = (true, true);
        Ok(Step::Dir(dir))
    }

    /// A step through a hard link that is yet to be made: to a symbolic link, perhaps.
    fn through_pending(&self, target: &[u8], name: &[u8], whiteout: bool) -> Result<Step> {
        let Some(under) = &self.under else { return Ok(Step::Unknown) };
        match under.follow(target)? {
            Led::To(object) if object.attr.kind == Kind::Symlink => {
                Ok(Step::Link(object.readlink()?))
            }
            _ if whiteout => Ok(Step::Nowhere),
            _ => Err(no_dir(name)),
        }
    }

    /// Refuses paths longer than a recipe holds.
    pub(super) fn check_depth(&self, dir: Dir, name: &[u8]) -> Result<()> {
        if self.layer.tree.get(dir)?.path_len + name.len() < PATH_MOST {
            return Ok(());
        }
        let why = format!("its directories nest to a path of more than {PATH_MOST} bytes");
        Err(Error::new(Errno::ENAMETOOLONG, why))
    }

    /// Where the target of a hard link is.
    pub(super) fn locate(&mut self, target: &[u8]) -> Result<Located> {
        let names = clean(target);
        let Some((last, parents)) = names.split_last() else {
            return Err(Error::new(Errno::EPERM, "a hard link to the root directory"));
        };
        let mut todo: Vec<Box<[u8]>> = parents.iter().rev().map(|name| Box::from(*name)).collect();
        if self.under.is_some() {
            return self.locate_over(last, todo);
        }
        let (mut at, mut links) = (Dir::ROOT, 0);
        while let Some(name) = todo.pop() {
            if &*name == b".." {
                at = self.layer.tree.get(at)?.parent;
                continue;
            }
            if let Some(child) = self.layer.tree.child(at, &name) {
                at = child;
                continue;
            }
            if self.layer.pending_at(at, &name).is_some() {
                return Ok(Located::Unknown);
            }
            if let Some(link) = self.link_here(at, &name)? {
                if link.starts_with(b"/") {
                    at = Dir::ROOT;
                }
                follow(&link, &mut todo, &mut links)?;
                continue;
            }
            // Nothing that this layer knows.
            if todo.iter().any(|name| &**name == b"..") {
                return Ok(Located::Unknown);
            }
            let mut path = self.layer.tree.path_of(at, &name)?;
            for name in todo.iter().rev().map(|name| &**name).chain([*last]) {
                path.push(b'/');
                path.extend_from_slice(name);
            }
            return Ok(Located::Below(path));
        }
        self.locate_in(at, last)
    }

    /// Where the target of a hard link is whose directory is one of this layer.
    fn locate_in(&mut self, dir: Dir, name: &[u8]) -> Result<Located> {
        let layer = &mut self.layer;
        if layer.tree.child(dir, name).is_some() {
            return Err(Error::new(Errno::EPERM, "a hard link to a directory"));
        }
        if let Some(pending) = layer.pending_at(dir, name) {
            return Ok(Located::Below(pending.target.clone()));
        }
        if let Some(attr) = layer.target.stat(&layer.tree, dir, name)? {
            let fd = layer.target.fd(&layer.tree, dir)?;
            if !layer.target.is_whiteout(fd.as_fd(), name, &attr)? {
                return Ok(Located::Here(dir, name.to_vec()));
            }
        }
        Ok(Located::Below(layer.tree.path_of(dir, name)?))
    }

    /// The symbolic link of this layer at a place; an error if what is there leads nowhere.
    fn link_here(&mut self, dir: Dir, name: &[u8]) -> Result<Option<Vec<u8>>> {
        inner(name)?;
        let layer = &mut self.layer;
        let Some(attr) = layer.target.stat(&layer.tree, dir, name)? else { return Ok(None) };
        let fd = layer.target.fd(&layer.tree, dir)?;
        if attr.kind == Kind::Symlink {
            return Ok(Some(Object::Entry(fd.as_fd(), name).readlink()?));
        }
        if layer.target.is_whiteout(fd.as_fd(), name, &attr)? {
            return Ok(None);
        }
        Err(no_dir(name))
    }

    /// As [`locate`](Self::locate), with the layers below to look at.
    fn locate_over(&mut self, last: &[u8], mut todo: Vec<Box<[u8]>>) -> Result<Located> {
        let mut done: Vec<Box<[u8]>> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if &*name == b".." {
                done.pop();
                continue;
            }
            let link = match self.known_dir(&done) {
                Some(dir) if self.layer.tree.child(dir, &name).is_some() => None,
                Some(dir) => match self.layer.pending_at(dir, &name) {
                    Some(pending) => match self.follow_below(&pending.target)? {
                        Some(link) => Some(link),
                        None => return Err(no_dir(&name)),
                    },
                    None => match self.link_here(dir, &name)? {
                        Some(link) => Some(link),
                        None => self.link_below(&done, &name)?,
                    },
                },
                None => self.link_below(&done, &name)?,
            };
            match link {
                None => done.push(name),
                Some(link) => {
                    if link.starts_with(b"/") {
                        done.clear();
                    }
                    follow(&link, &mut todo, &mut links)?;
                }
            }
        }
        if let Some(dir) = self.known_dir(&done) {
            return self.locate_in(dir, last);
        }
        done.push(last.into());
        Ok(Located::Below(done.join(&b'/')))
    }

    /// The directory of this layer at these names.
    fn known_dir(&self, names: &[Box<[u8]>]) -> Option<Dir> {
        names.iter().try_fold(Dir::ROOT, |dir, name| self.layer.tree.child(dir, name))
    }

    fn link_below(&self, names: &[Box<[u8]>], name: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut path = names.to_vec();
        path.push(name.into());
        self.follow_below(&path.join(&b'/'))
    }

    /// The target of the symbolic link at this path below, if that is one.
    fn follow_below(&self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        let under = self.under.as_ref().ok_or_else(|| bug!("nothing is known of below"))?;
        match under.follow(path)? {
            Led::To(object) if object.attr.kind == Kind::Symlink => Ok(Some(object.readlink()?)),
            _ => Ok(None),
        }
    }
}

/// Puts the target of a link before what is still to be walked.
fn follow(target: &[u8], todo: &mut Vec<Box<[u8]>>, links: &mut u32) -> Result<()> {
    *links += 1;
    todo.extend(steps(target));
    if *links > LINKS_MOST || todo.len() > STEPS_MOST {
        return Err(Error::new(Errno::ELOOP, "too many symbolic links lead to it"));
    }
    Ok(())
}

fn no_dir(name: &[u8]) -> Error {
    Error::new(Errno::ENOTDIR, format!("'{}' on the way to it is not a directory", shown(name)))
}
