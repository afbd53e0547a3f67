//! Whiteouts, written in the one encoding that the upper directory allows.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags};
use rustix::io::Errno as Raw;

use super::reader::{DOT_WH, DOT_WH_OPAQUE};
use super::slots::Flags;
use super::tree::WORK;
use super::upper::DirUpper;
use super::work;
use crate::attr::Kind;
use crate::errno::{Errno, Result};
use crate::layer::marks::Tag;
use crate::layer::{DirItem, Id, Layer, Lookup, Mark, Upper, WhiteoutForm};
use crate::name::{Name, NameBuf};
use crate::sys::object::Object;

impl DirUpper {
    /// Goes on as where no device can be made: whiteouts are files with an attribute. `None` if
    /// somebody else has the layer, too.
    #[cfg(feature = "testkit")]
    pub fn without_devices(self: Arc<Self>) -> Option<Arc<Self>> {
        let mut this = Arc::into_inner(self)?;
        (this.encoding.char_whiteouts, this.encoding.rename_whiteout) = (false, false);
        Some(Arc::new(this))
    }

    /// See [`Upper::whiteout`].
    pub(super) fn put_whiteout(&self, dir: Id, name: Name<'_>, replace: bool) -> Result<()> {
        if !self.encoding.char_whiteouts && self.allow_xattr_whiteouts(dir)? == Hidden::Already {
            return if replace { self.remove_entry(dir, name) } else { Ok(()) };
        }
        self.settle_left(dir)?;
        if !replace && self.encoding.char_whiteouts {
            let fd = self.tree.dir_fd(dir)?;
            return self.link_whiteout(fd.as_fd(), name.as_bytes());
        }
        self.put_staged_whiteout(dir, name, replace)
    }

    fn put_staged_whiteout(&self, dir: Id, name: Name<'_>, replace: bool) -> Result<()> {
        let temp = self.stage_whiteout()?;
        let placed = self.place_whiteout(dir, name, &temp, replace);
        if !matches!(placed, Ok(false)) {
            // Left behind by a failure, or brought by an exchange.
            self.discard_temp(temp.as_name());
        }
        placed.map(drop)
    }

    /// Puts a staged whiteout at its place. True if something lies under `temp` afterwards.
    fn place_whiteout(
        &self,
        dir: Id,
        name: Name<'_>,
        temp: &NameBuf,
        replace: bool,
    ) -> Result<bool> {
        let (work, fd) = (self.tree.dir_fd(WORK)?, self.tree.dir_fd(dir)?);
        let put = |flags| {
            rustix::fs::renameat_with(&*work, temp.as_bytes(), &*fd, name.as_bytes(), flags)
        };
        if !replace {
            put(RenameFlags::NOREPLACE)?;
            return Ok(false);
        }
        match self.losing(dir, name, || Ok(put(RenameFlags::empty())?)) {
            Err(error)
                if matches!(error.errno(), Errno::EISDIR | Errno::ENOTEMPTY | Errno::EEXIST) => {}
            result => return result.map(|()| false),
        }
        self.refuse_visible(dir, name)?;
        put(RenameFlags::EXCHANGE)?;
        Ok(true)
    }

    /// `ENOTEMPTY` if the directory `name` holds more than whiteouts.
    fn refuse_visible(&self, dir: Id, name: Name<'_>) -> Result<()> {
        let Lookup::Found(entry) = self.lookup(dir, name)? else { return Ok(()) };
        let listed = self.readdir(entry.id, &mut |item: DirItem<'_>| match item.kind {
            Some(_) => Err(Errno::ENOTEMPTY.into()),
            None => Ok(()),
        });
        self.forget(entry.id);
        listed
    }

    /// Removes what is at `name` where that alone makes the name vanish.
    fn remove_entry(&self, dir: Id, name: Name<'_>) -> Result<()> {
        match self.unlink(dir, name) {
            Err(error) if matches!(error.errno(), Errno::EISDIR | Errno::EPERM) => {}
            result => return result,
        }
        self.refuse_visible(dir, name)?;
        let staged = self.withdraw(dir, name)?;
        self.discard(staged);
        Ok(())
    }

    /// A whiteout in the work directory.
    fn stage_whiteout(&self) -> Result<NameBuf> {
        let work = self.tree.dir_fd(WORK)?;
        if self.encoding.char_whiteouts {
            return self.with_temp(|temp| self.link_whiteout(work.as_fd(), temp));
        }
        let mode = Mode::from_raw_mode(0o600);
        let file = FileType::RegularFile;
        let temp = self.with_temp(|temp| Ok(rustix::fs::mknodat(&*work, temp, file, mode, 0)?))?;
        let object = Object::Entry(work.as_fd(), temp.as_bytes());
        match self.put(object, Kind::File, Tag::Whiteout, b"y") {
            Ok(()) => Ok(temp),
            Err(error) => {
                self.discard_temp(temp.as_name());
                Err(error)
            }
        }
    }

    /// Makes a device 0:0 by linking the one inode that all whiteouts share while it can take
    /// another name. `EEXIST` if anything is there.
    fn link_whiteout(&self, dir: std::os::fd::BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let work = self.tree.dir_fd(WORK)?;
        for _ in 0..3 {
            let number = self.shared_whiteout.load(Ordering::Relaxed);
            let shared = shared_name(number);
            match rustix::fs::linkat(&*work, &shared, dir, name, AtFlags::empty()) {
                Ok(()) => return Ok(()),
                // `dir` itself may be what is gone: then a new inode changes nothing.
                Err(Raw::NOENT) => make_whiteout(&work, shared.as_bytes())?,
                Err(Raw::MLINK) => {
                    let next = number + 1;
                    make_whiteout(&work, shared_name(next).as_bytes())?;
                    let swap = (Ordering::Relaxed, Ordering::Relaxed);
                    let swapped =
                        self.shared_whiteout.compare_exchange(number, next, swap.0, swap.1);
                    if swapped.is_ok() {
                        work::remove(work.as_fd(), shared.as_bytes())?;
                    }
                }
                Err(Raw::PERM | Raw::OPNOTSUPP) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        let char = FileType::CharacterDevice;
        Ok(rustix::fs::mknodat(dir, name, char, Mode::empty(), 0)?)
    }

    /// Removes the inode that whiteouts share from the work directory.
    pub(super) fn remove_shared_whiteout(&self) -> Result<()> {
        let shared = shared_name(self.shared_whiteout.load(Ordering::Relaxed));
        work::remove(self.tree.dir_fd(WORK)?.as_fd(), shared.as_bytes())
    }

    /// Makes the directory one whose empty files may be whiteouts.
    pub(super) fn allow_xattr_whiteouts(&self, dir: Id) -> Result<Hidden> {
        if self.tree.slots.get(dir)?.flags.has(Flags::XATTR_WHITEOUTS) {
            return Ok(Hidden::ByWhiteout);
        }
        let hidden = self.tree.on(dir, |object, _| {
            if self.tree.decode(object, Kind::Dir)?.marks.opaque {
                return Ok(Hidden::Already);
            }
            self.put(object, Kind::Dir, Tag::Opaque, b"x")?;
            Ok(Hidden::ByWhiteout)
        })?;
        self.tree.slots.set_flag(dir, Flags::XATTR_WHITEOUTS, hidden == Hidden::ByWhiteout);
        Ok(hidden)
    }

    /// See [`Upper::clear_opaque_entry`].
    pub(super) fn remove_opaque_entry(&self, dir: Id) -> Result<()> {
        let fd = self.tree.dir_fd(dir)?;
        let flags = self.tree.slots.get(dir)?.flags;
        if flags.has(Flags::NO_DOT_WH) || !self.tree.has_opaque_entry(&fd, flags)? {
            return Ok(());
        }
        self.set_mark(dir, &Mark::Opaque)?;
        Ok(rustix::fs::unlinkat(&*fd, DOT_WH_OPAQUE, AtFlags::empty())?)
    }

    /// See [`Upper::clear_whiteout`].
    pub(super) fn remove_whiteout(&self, dir: Id, name: Name<'_>) -> Result<()> {
        let fd = self.tree.dir_fd(dir)?;
        let around = self.tree.slots.get(dir)?.flags;
        let stored = if self.tree.is_whited_out(&fd, around, name)? {
            [DOT_WH, name.as_bytes()].concat()
        } else {
            match self.lookup(dir, name)? {
                Lookup::Whiteout(_) => name.as_bytes().to_vec(),
                Lookup::Absent => return Err(Errno::ENOENT.into()),
                Lookup::Found(entry) => {
                    self.forget(entry.id);
                    return Err(Errno::EEXIST.into());
                }
            }
        };
        match rustix::fs::unlinkat(&*fd, &stored, AtFlags::empty()) {
            Err(Raw::ISDIR) => Ok(rustix::fs::unlinkat(&*fd, &stored, AtFlags::REMOVEDIR)?),
            result => Ok(result?),
        }
    }

    /// Renames where the filesystem cannot leave a whiteout behind in the same step.
    ///
    /// A directory: a whiteout is put where it goes (nothing, or an empty directory, was visible
    /// there), then the two change places. Between the two steps a crash leaves everything as it
    /// was, less an empty directory that was to be replaced; or with an empty file there, if the
    /// directory it goes to is opaque and no device can be made.
    ///
    /// Anything else: it gets its new name first, then the whiteout replaces the old one. Between
    /// the two it has both names, and nothing is lost.
    pub(super) fn rename_then_whiteout(
        &self,
        from: (Id, Name<'_>),
        moved: Id,
        to: (Id, Name<'_>),
    ) -> Result<()> {
        if self.tree.slots.get(moved)?.kind != Kind::Dir {
            let mut staged = self.stage_link(moved)?;
            let published =
                self.publish(&mut staged, to.0, to.1, crate::layer::How::Replace, false);
            self.discard(staged);
            published?;
            return self.put_whiteout(from.0, from.1, true);
        }
        if !self.encoding.char_whiteouts {
            self.allow_xattr_whiteouts(from.0)?;
        }
        match self.lookup(to.0, to.1)? {
            Lookup::Whiteout(WhiteoutForm::Entry) => {}
            Lookup::Found(entry) => {
                self.forget(entry.id);
                self.put_whiteout(to.0, to.1, true)?;
            }
            Lookup::Absent | Lookup::Whiteout(WhiteoutForm::Sibling) => {
                self.put_whiteout(to.0, to.1, false)?;
            }
        }
        // An opaque directory needs none, so there this one shows as the empty file that it is.
        let file = matches!(self.lookup(to.0, to.1)?, Lookup::Absent);
        if file {
            self.put_staged_whiteout(to.0, to.1, false)?;
        }
        self.rename_call(from, to, RenameFlags::EXCHANGE).inspect_err(|_| {
            if file && let Err(error) = self.unlink(to.0, to.1) {
                tracing::warn!(name = %to.1, %error, "an empty file stays after a failed rename");
            }
        })
    }

    /// A rename that gives the old name the whiteout which occupied the new one.
    pub(super) fn exchange_whiteout(&self, from: (Id, Name<'_>), to: (Id, Name<'_>)) -> Result<()> {
        // An attribute makes it one only in a directory that says so.
        let by_attribute = self.tree.slots.get(to.0)?.flags.has(Flags::XATTR_WHITEOUTS);
        let opaque = by_attribute && self.allow_xattr_whiteouts(from.0)? == Hidden::Already;
        self.rename_call(from, to, RenameFlags::EXCHANGE)?;
        if opaque && let Err(error) = self.unlink(from.0, from.1) {
            tracing::warn!(name = %from.1, %error, "an empty file stays after a rename");
        }
        Ok(())
    }
}

/// What hides the lower entries of a directory one by one, or all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hidden {
    /// The directory is opaque.
    Already,
    /// Whiteouts, which may be put in it now.
    ByWhiteout,
}

fn shared_name(number: u64) -> String {
    format!("#whiteout-{number:x}")
}

/// Makes a device 0:0; one that is there already will do.
fn make_whiteout(dir: &Arc<std::os::fd::OwnedFd>, name: &[u8]) -> Result<()> {
    let char = FileType::CharacterDevice;
    match rustix::fs::mknodat(&**dir, name, char, Mode::empty(), 0) {
        Ok(()) | Err(Raw::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
