//! Renames that leave a device 0:0 behind for a user, who wants a whiteout of his own there: an
//! overlay mounted on the mount (`RENAME_WHITEOUT`).
//!
//! The filesystem below moves the object and leaves a whiteout in one step. That a whiteout of this
//! name is the user's device stands in the directory before that step, where it means nothing yet;
//! afterwards the device gets the form that all have ([`stage`](super::stage)), and the directory
//! says nothing any more. What a crash leaves of that is brought to its end when the directory is
//! next looked up for writing; whoever only reads it sees the device all the same.

use std::os::fd::AsFd;

use super::slots::Flags;
use super::upper::DirUpper;
use crate::attr::Kind;
use crate::errno::{Errno, Result};
use crate::layer::marks::{Left, Tag};
use crate::layer::{How, Id, Lookup, New, Staged, Upper, What};
use crate::name::Name;
use crate::sys::object::Object;

impl DirUpper {
    /// A lookup; what a crash left undone in the directory that is found gets done.
    pub(super) fn find_settled(&self, dir: Id, name: Name<'_>) -> Result<Lookup> {
        let found = self.tree.lookup(dir, name)?;
        if let Lookup::Found(entry) = &found
            && entry.attr.kind == Kind::Dir
            && let Err(error) = self.settle_left(entry.id)
        {
            // On a full disk, say. Until it can be done the device shows by its mark.
            tracing::debug!(%error, "what a rename left behind is not in its final form");
        }
        Ok(found)
    }

    /// See [`RenameHow::Device`](crate::layer::RenameHow::Device).
    pub(super) fn rename_leaving(
        &self,
        from: (Id, Name<'_>),
        to: (Id, Name<'_>),
        (uid, gid): (u32, u32),
    ) -> Result<()> {
        if !self.encoding.rename_whiteout {
            return Err(Errno::EINVAL.into());
        }
        self.settle_left(from.0)?;
        let left = Left { uid, gid, name: from.1.as_bytes().into() };
        let mut device = self.stage_left(&left)?;
        let renamed =
            self.moving_left(from.0, &left, &mut device, || self.rename_over(from, to, true));
        self.discard(device);
        renamed
    }

    /// Does a rename between the mark that says what it leaves, and the end of that.
    fn moving_left(
        &self,
        dir: Id,
        left: &Left,
        device: &mut Staged,
        rename: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let _one = self.leaving.lock();
        self.prepare(device.id, dir, Name::new(&left.name)?)?;
        self.say_left(dir, &left.encode())?;
        let renamed = rename();
        let finished = match &renamed {
            Ok(()) => self.finish_left(dir, &left.name, device),
            Err(_) => self.say_left(dir, b"y"),
        };
        if let Err(error) = finished {
            // It shows as what it is all the same.
            let name = left.name.escape_ascii();
            tracing::warn!(%name, %error, "what a rename left behind is not in its final form");
        }
        renamed
    }

    /// Ends what a rename began in this directory that was cut short, if one was.
    pub(super) fn settle_left(&self, dir: Id) -> Result<()> {
        let around = self.tree.slots.get(dir)?.flags;
        if !around.has(Flags::ESCAPES) {
            return Ok(());
        }
        let fd = self.tree.dir_fd(dir)?;
        if self.tree.left_in(&fd, around)?.is_none() {
            return Ok(());
        }
        let _one = self.leaving.lock();
        // Again: the rename may have been under way, and be done by now.
        let Some(left) = self.tree.left_in(&fd, around)? else { return Ok(()) };
        let object = Object::Entry(fd.as_fd(), &left.name);
        let there = match object.stat() {
            Err(error) if error.errno() == Errno::ENOENT => false,
            there => there?.attr.is_char_zero(),
        };
        if !there {
            return self.say_left(dir, b"y");
        }
        let mut device = self.stage_left(&left)?;
        let finished = self.finish_left(dir, &left.name, &mut device);
        self.discard(device);
        finished
    }

    /// The device in its final form, in the work directory.
    fn stage_left(&self, left: &Left) -> Result<Staged> {
        let (uid, gid) = (left.uid, left.gid);
        let what = What::Node(Kind::Char, 0);
        self.stage_new(&New { what, perm: 0, uid, gid, xattrs: &[], marks: &[] })
    }

    fn finish_left(&self, dir: Id, name: &[u8], device: &mut Staged) -> Result<()> {
        self.publish(device, dir, Name::new(name)?, How::Replace, true)?;
        self.say_left(dir, b"y")
    }

    fn say_left(&self, dir: Id, value: &[u8]) -> Result<()> {
        self.tree.on(dir, |object, _| self.put(object, Kind::Dir, Tag::Escapes, value))?;
        self.tree.slots.set_flag(dir, Flags::ESCAPES, true);
        Ok(())
    }
}
