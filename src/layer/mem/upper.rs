//! Changes to a tree in memory.

use std::sync::Arc;

use super::tree::{Body, Place, Tree};
use super::{Data, Entry, Id, Layer, Mark, MemData, MemLayer, Name, New, Upper};
use crate::attr::{Attr, Kind, SetAttr, SetTime, Time};
use crate::bug;
use crate::errno::{Errno, Result};
use crate::layer::{How, RenameHow, Staged, What};

/// Set-id and execute bits that decide what a change of owner clears.
const SUID: u16 = 0o4000;
const SGID: u16 = 0o2000;
const XGRP: u16 = 0o010;

/// The longest value of an extended attribute (`XATTR_SIZE_MAX`).
const XATTR_SIZE_MAX: usize = 65536;

/// The attribute that a change of owner or content drops.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

fn tree_place(dir: Id, name: Name<'_>) -> Place<'_> {
    Place::Tree(dir.0, name.as_bytes())
}

/// What a move does with what is at the target, and what it leaves behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    NoReplace,
    Replace,
    Exchange,
    Whiteout,
    Device(u32, u32),
}

impl Tree {
    /// rename(2) between two places.
    fn shift(&mut self, from: Place<'_>, to: Place<'_>, mode: Mode, quiet: bool) -> Result<()> {
        let moved = self.at(from)?.ok_or(Errno::ENOENT)?;
        let target = self.at(to)?;
        let is_dir = self.live(moved)?.is_dir();
        match (target, mode) {
            (Some(_), Mode::NoReplace) => return Err(Errno::EEXIST.into()),
            (None, Mode::Exchange) => return Err(Errno::ENOENT.into()),
            _ => {}
        }
        if is_dir {
            self.not_inside(moved, to)?;
        }
        if let (Some(other), Mode::Exchange) = (target, mode)
            && self.live(other)?.is_dir()
        {
            self.not_inside(other, from)?;
        }
        if target == Some(moved) {
            return Ok(());
        }
        match (target, mode) {
            (Some(old), Mode::Device(..)) if matches!(self.live(old)?.body, Body::Whiteout) => {}
            (Some(old), Mode::Replace | Mode::Whiteout | Mode::Device(..)) => {
                self.may_replace(is_dir, old)?;
            }
            _ => {}
        }
        self.take(from)?;
        self.put(to, moved)?;
        match (target, mode) {
            (Some(other), Mode::Exchange) => {
                self.put(from, other)?;
                self.touch_ctime(other);
            }
            (Some(old), _) => self.unnamed(old),
            (None, _) => {}
        }
        let left = match mode {
            Mode::Whiteout => Some(self.make_whiteout()),
            Mode::Device(uid, gid) => {
                let what = What::Node(Kind::Char, 0);
                Some(self.make(&New { what, perm: 0, uid, gid, xattrs: &[], marks: &[] }))
            }
            Mode::NoReplace | Mode::Replace | Mode::Exchange => None,
        };
        if let Some(left) = left {
            self.named(left);
            self.put(from, left)?;
        }
        self.touch_ctime(moved);
        if !quiet {
            self.touch(from);
            self.touch(to);
        }
        Ok(())
    }

    /// Names a node in the work directory and returns it with a reference.
    fn put_in_work(&mut self, ino: u64) -> Result<Staged> {
        let temp = self.temp();
        self.named(ino);
        self.put(Place::Work(&temp), ino)?;
        self.staged(ino, &temp)
    }

    fn staged(&mut self, ino: u64, temp: &[u8]) -> Result<Staged> {
        self.live_mut(ino)?.refs += 1;
        Ok(Staged { id: Id(ino), temp: Some(Name::new(temp)?.to_buf()) })
    }

    fn vacant(&self, place: Place<'_>) -> Result<()> {
        match self.at(place)? {
            Some(_) => Err(Errno::EEXIST.into()),
            None => Ok(()),
        }
    }

    fn linkable(&self, id: Id) -> Result<()> {
        let node = self.live(id.0)?;
        match (node.is_dir(), node.names) {
            (true, _) => Err(Errno::EPERM.into()),
            (false, 0) => Err(Errno::ENOENT.into()),
            (false, _) => Ok(()),
        }
    }

    fn settime(&mut self, time: SetTime) -> Time {
        match time {
            SetTime::Now => self.tick(),
            SetTime::At(time) => time,
        }
    }

    /// setattr as a local filesystem does it for root.
    fn setattr(&mut self, id: Id, set: &SetAttr) -> Result<Attr> {
        let kind = self.live(id.0)?.kind();
        if set.size.is_some() {
            match kind {
                Some(Kind::File) => {}
                Some(Kind::Dir) => return Err(Errno::EISDIR.into()),
                _ => return Err(Errno::EINVAL.into()),
            }
        }
        if let Some(size) = set.size {
            self.resize(id.0, size)?;
        }
        let atime = set.atime.map(|time| self.settime(time));
        let mtime = set.mtime.map(|time| self.settime(time));
        let now = self.tick();
        let node = self.live_mut(id.0)?;
        if set.uid.is_some() || set.gid.is_some() {
            node.uid = set.uid.unwrap_or(node.uid);
            node.gid = set.gid.unwrap_or(node.gid);
            if kind != Some(Kind::Dir) {
                node.perm &= !SUID;
                if node.perm & XGRP != 0 {
                    node.perm &= !SGID;
                }
                node.xattrs.remove(CAPABILITY);
            }
        }
        if let Some(perm) = set.perm {
            if kind == Some(Kind::Symlink) {
                return Err(Errno::EOPNOTSUPP.into());
            }
            node.perm = perm & 0o7777;
        }
        node.atime = atime.unwrap_or(node.atime);
        node.mtime = mtime.unwrap_or(node.mtime);
        node.ctime = now;
        self.attr(id.0)
    }
}

impl Upper for MemLayer {
    fn as_layer(self: Arc<Self>) -> Arc<dyn Layer> {
        self
    }

    fn create(&self, dir: Id, name: Name<'_>, new: &New<'_>) -> Result<Entry> {
        let mut tree = self.tree();
        let place = tree_place(dir, name);
        tree.vacant(place)?;
        let ino = tree.make(new);
        tree.named(ino);
        tree.put(place, ino)?;
        tree.touch(place);
        tree.entry(ino)
    }

    fn create_open(
        &self,
        dir: Id,
        name: Name<'_>,
        new: &New<'_>,
    ) -> Result<(Entry, Arc<dyn Data>)> {
        let entry = self.create(dir, name, new)?;
        match self.open_write(entry.id) {
            Ok(data) => Ok((entry, data)),
            Err(error) => {
                self.forget(entry.id);
                Err(error)
            }
        }
    }

    fn sync_marks(&self) -> Result<()> {
        Ok(())
    }

    fn clear_opaque_entry(&self, _dir: Id) -> Result<()> {
        Ok(())
    }

    fn stage(&self, new: &New<'_>) -> Result<Staged> {
        let mut tree = self.tree();
        let ino = tree.make(new);
        tree.put_in_work(ino)
    }

    fn stage_link(&self, id: Id) -> Result<Staged> {
        let mut tree = self.tree();
        tree.linkable(id)?;
        tree.put_in_work(id.0)
    }

    fn publish(
        &self,
        staged: &mut Staged,
        dir: Id,
        name: Name<'_>,
        how: How,
        quiet: bool,
    ) -> Result<()> {
        let mut tree = self.tree();
        let temp = match &staged.temp {
            Some(temp) => temp.clone(),
            None => return Err(bug!("publish of {staged:?}, which is not in work")),
        };
        let mode = match how {
            How::NoReplace => Mode::NoReplace,
            How::Replace => Mode::Replace,
            How::Exchange => Mode::Exchange,
        };
        let from = Place::Work(temp.as_bytes());
        tree.shift(from, tree_place(dir, name), mode, quiet)?;
        if how == How::Exchange {
            return Ok(());
        }
        // What is left there is another name of what was already at the target.
        if let Some(same) = tree.take(from)? {
            tree.unnamed(same);
        }
        staged.temp = None;
        Ok(())
    }

    fn discard(&self, staged: Staged) {
        let mut tree = self.tree();
        if let Some(ino) = staged.temp.and_then(|temp| tree.work.remove(temp.as_bytes())) {
            tree.unnamed(ino);
        }
        tree.forget(staged.id.0);
    }

    fn discard_temp(&self, temp: Name<'_>) {
        let mut tree = self.tree();
        if let Some(ino) = tree.work.remove(temp.as_bytes()) {
            tree.unnamed(ino);
        }
    }

    fn clear_whiteout(&self, dir: Id, name: Name<'_>) -> Result<()> {
        let place = tree_place(dir, name);
        let mut tree = self.tree();
        if tree.dir_mut(dir.0)?.siblings.remove(name.as_bytes()) {
            tree.touch(place);
            return Ok(());
        }
        match tree.at(place)? {
            Some(ino) if !matches!(tree.live(ino)?.body, Body::Whiteout) => {
                return Err(Errno::EEXIST.into());
            }
            _ => {}
        }
        drop(tree);
        self.unlink(dir, name)
    }

    fn clear_metacopy(&self, id: Id) -> Result<()> {
        let mut tree = self.tree();
        let marks = &mut tree.live_mut(id.0)?.marks;
        marks.metacopy = false;
        marks.redirect = None;
        Ok(())
    }

    fn whiteout(&self, dir: Id, name: Name<'_>, replace: bool) -> Result<()> {
        let mut tree = self.tree();
        let place = tree_place(dir, name);
        let old = tree.at(place)?;
        match old {
            Some(_) if !replace => return Err(Errno::EEXIST.into()),
            Some(old) => {
                if let Body::Dir(dir) = &tree.live(old)?.body {
                    dir.may_vanish()?;
                }
            }
            None => {}
        }
        let white = tree.make_whiteout();
        tree.named(white);
        tree.put(place, white)?;
        if let Some(old) = old {
            tree.unnamed(old);
        }
        tree.touch(place);
        Ok(())
    }

    fn rename(
        &self,
        from: (Id, Name<'_>),
        moved: Id,
        to: (Id, Name<'_>),
        other: Option<Id>,
        how: RenameHow,
    ) -> Result<()> {
        let mut tree = self.tree();
        let (from, to) = (tree_place(from.0, from.1), tree_place(to.0, to.1));
        if tree.at(from)? != Some(moved.0) {
            return Err(bug!("rename of {moved:?}, which is not at its name"));
        }
        let mode = match how {
            RenameHow::Replace => Mode::Replace,
            RenameHow::Whiteout => Mode::Whiteout,
            RenameHow::Exchange => Mode::Exchange,
            RenameHow::Device { uid, gid } => Mode::Device(uid, gid),
        };
        if mode == Mode::Exchange && other.is_some() && tree.at(to)? != other.map(|id| id.0) {
            return Err(bug!("exchange with {other:?}, which is not at its name"));
        }
        tree.shift(from, to, mode, false)
    }

    fn link(&self, id: Id, dir: Id, name: Name<'_>, quiet: bool) -> Result<()> {
        let mut tree = self.tree();
        let place = tree_place(dir, name);
        tree.vacant(place)?;
        tree.linkable(id)?;
        tree.named(id.0);
        tree.put(place, id.0)?;
        if !quiet {
            tree.touch(place);
        }
        Ok(())
    }

    fn unlink(&self, dir: Id, name: Name<'_>) -> Result<()> {
        let mut tree = self.tree();
        let place = tree_place(dir, name);
        match tree.at(place)? {
            Some(ino) if tree.live(ino)?.is_dir() => return Err(Errno::EISDIR.into()),
            Some(ino) => {
                tree.take(place)?;
                tree.unnamed(ino);
            }
            None if tree.dir_mut(dir.0)?.siblings.remove(name.as_bytes()) => {}
            None => return Err(Errno::ENOENT.into()),
        }
        tree.touch(place);
        Ok(())
    }

    fn rmdir(&self, dir: Id, name: Name<'_>) -> Result<()> {
        let mut tree = self.tree();
        let place = tree_place(dir, name);
        let ino = tree.at(place)?.ok_or(Errno::ENOENT)?;
        tree.dir(ino)?.may_vanish()?;
        tree.take(place)?;
        tree.unnamed(ino);
        tree.touch(place);
        Ok(())
    }

    fn withdraw(&self, dir: Id, name: Name<'_>) -> Result<Staged> {
        let mut tree = self.tree();
        let place = tree_place(dir, name);
        let ino = tree.at(place)?.ok_or(Errno::ENOENT)?;
        let temp = tree.temp();
        tree.shift(place, Place::Work(&temp), Mode::NoReplace, false)?;
        tree.staged(ino, &temp)
    }

    fn pin(&self, id: Id) -> Result<()> {
        self.tree().live_mut(id.0)?.pinned = true;
        Ok(())
    }

    fn unpin(&self, _: Id) {
        // A pin costs nothing here.
    }

    fn rebind(&self, id: Id, other: Id) {
        if id != other {
            drop(bug!("rebind of {id:?} to {other:?}, which is another object"));
        }
    }

    fn setattr(&self, id: Id, set: &SetAttr) -> Result<Attr> {
        self.tree().setattr(id, set)
    }

    fn setxattr(&self, id: Id, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        let mut tree = self.tree();
        let now = tree.tick();
        let node = tree.live_mut(id.0)?;
        if name.is_empty() || name.len() > crate::name::NAME_MAX {
            return Err(Errno::ERANGE.into());
        }
        if value.len() > XATTR_SIZE_MAX {
            return Err(Errno::E2BIG.into());
        }
        let plain = matches!(node.kind(), Some(Kind::File | Kind::Dir));
        if name.starts_with(b"user.") && !plain {
            return Err(Errno::EPERM.into());
        }
        let exists = node.xattrs.contains_key(name);
        if flags & libc::XATTR_CREATE != 0 && exists {
            return Err(Errno::EEXIST.into());
        }
        if flags & libc::XATTR_REPLACE != 0 && !exists {
            return Err(Errno::ENODATA.into());
        }
        node.xattrs.insert(name.to_vec(), value.to_vec());
        node.ctime = now;
        Ok(())
    }

    fn removexattr(&self, id: Id, name: &[u8]) -> Result<()> {
        let mut tree = self.tree();
        let now = tree.tick();
        let node = tree.live_mut(id.0)?;
        node.xattrs.remove(name).ok_or(Errno::ENODATA)?;
        node.ctime = now;
        Ok(())
    }

    fn set_mark(&self, id: Id, mark: &Mark<'_>) -> Result<()> {
        self.tree().live_mut(id.0)?.apply_mark(mark);
        Ok(())
    }

    fn open_write(&self, id: Id) -> Result<Arc<dyn Data>> {
        Ok(Arc::new(MemData::open(&self.tree, id.0, true)?))
    }

    fn index(&self) -> Result<Id> {
        Ok(Id(self.tree().index()))
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn sync_dir(&self, id: Id) -> Result<()> {
        self.tree().dir(id.0).map(|_| ())
    }
}
