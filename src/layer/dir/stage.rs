//! Making objects: at their place where one system call makes them as they shall be, else in the
//! work directory, where nobody sees them before they are complete.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{FileType, Mode, OFlags};

use super::data::FileData;
use super::mark::stored_kind;
use super::perm::{self, ACL};
use super::reader::DOT_WH;
use super::slots::Flags;
use super::tree::WORK;
use super::upper::DirUpper;
use crate::attr::{Attr, Kind};
use crate::errno::{Errno, Result};
use crate::layer::marks::{self, Tag};
use crate::layer::{Entry, How, Id, Mark, Marks, New, Staged, Upper, What};
use crate::name::{Name, NameBuf};
use crate::sys::object::Object;
use crate::sys::xattr;

/// Bits that making an object may lose: they are set afterwards.
const SET_ID: u16 = 0o6000;
/// What the owner needs on an object to write attributes on it.
const OWNER_ALL: u16 = 0o700;

/// The type of what is made, as a user sees it.
pub(super) fn kind_of(what: &What<'_>) -> Kind {
    match what {
        What::File => Kind::File,
        What::Dir => Kind::Dir,
        What::Symlink(_) => Kind::Symlink,
        What::Node(kind, _) => *kind,
    }
}

/// Whether this is a device that would read as a whiteout.
fn is_char_zero(what: &What<'_>) -> bool {
    matches!(what, What::Node(Kind::Char, 0))
}

/// The flags that go with a new object whose making is known.
fn flags_of(new: &New<'_>) -> Flags {
    let is_dir = new.what == What::Dir;
    let acl = new.xattrs.iter().any(|(name, _)| name == marks::DEFAULT_ACL);
    let setgid = u32::from(new.perm) & libc::S_ISGID != 0;
    Flags::MARKS_KNOWN
        .with(Flags::NO_DOT_WH, is_dir)
        .with(Flags::PLAIN, is_dir && !acl && !setgid)
        .with(Flags::CHAR_ZERO, is_char_zero(&new.what))
}

/// Makes an object by one call.
fn make(dir: BorrowedFd<'_>, name: &[u8], what: &What<'_>, perm: u16) -> Result<()> {
    let mode = Mode::from_raw_mode(perm.into());
    let node = |kind, device| rustix::fs::mknodat(dir, name, kind, mode, device);
    match *what {
        What::Dir => rustix::fs::mkdirat(dir, name, mode)?,
        What::Symlink(target) => rustix::fs::symlinkat(target, dir, name)?,
        What::File | What::Node(Kind::Char, 0) => node(FileType::RegularFile, 0)?,
        What::Node(kind, device) => match kind {
            Kind::Char => node(FileType::CharacterDevice, device)?,
            Kind::Block => node(FileType::BlockDevice, device)?,
            Kind::Fifo => node(FileType::Fifo, 0)?,
            Kind::Socket => node(FileType::Socket, 0)?,
            Kind::File | Kind::Dir | Kind::Symlink => return Err(Errno::EINVAL.into()),
        },
    }
    Ok(())
}

impl DirUpper {
    /// Whether one system call in `dir` makes the object exactly as it shall be.
    fn makes_exactly(&self, dir: Id, name: Name<'_>, new: &New<'_>) -> Result<bool> {
        Ok(self.real_perm(kind_of(&new.what), new.perm) == new.perm
            && (new.uid, new.gid) == self.ids
            && new.xattrs.is_empty()
            && new.marks.is_empty()
            && new.perm & SET_ID == 0
            && !is_char_zero(&new.what)
            && !name.as_bytes().starts_with(DOT_WH)
            && self.tree.slots.get(dir)?.flags.has(Flags::PLAIN))
    }

    /// See [`Upper::create`].
    pub(super) fn create_at(&self, dir: Id, name: Name<'_>, new: &New<'_>) -> Result<Entry> {
        if self.makes_exactly(dir, name, new)? {
            let fd = self.tree.dir_fd(dir)?;
            make(fd.as_fd(), name.as_bytes(), &new.what, new.perm)?;
            return self.made(dir, name, new, Object::Entry(fd.as_fd(), name.as_bytes()));
        }
        let mut staged = self.stage_new(new)?;
        match self.publish(&mut staged, dir, name, How::NoReplace, false) {
            Ok(()) => {
                let attr = self.tree.attr(staged.id)?;
                Ok(Entry { id: staged.id, attr, marks: told(new) })
            }
            Err(error) => {
                self.discard(staged);
                Err(error)
            }
        }
    }

    /// See [`Upper::create_open`].
    pub(super) fn create_file(
        &self,
        dir: Id,
        name: Name<'_>,
        new: &New<'_>,
    ) -> Result<(Entry, FileData)> {
        if new.what == What::File && self.makes_exactly(dir, name, new)? {
            let fd = self.tree.dir_fd(dir)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(new.perm.into());
            let data = FileData::new(rustix::fs::openat(&*fd, name.as_bytes(), flags, mode)?);
            let entry = self.made(dir, name, new, Object::Itself(data.as_fd()))?;
            return Ok((entry, data));
        }
        let entry = self.create_at(dir, name, new)?;
        match self.tree.open(entry.id, true) {
            Ok(data) => Ok((entry, data)),
            Err(error) => {
                self.tree.forget(entry.id);
                Err(error)
            }
        }
    }

    /// The entry for an object just made at its place.
    fn made(&self, dir: Id, name: Name<'_>, new: &New<'_>, object: Object<'_>) -> Result<Entry> {
        let mut attr = object.stat()?.attr;
        let is_link = matches!(new.what, What::Symlink(_));
        // A mount option (grpid, forced owners) may have had its own idea.
        if (attr.uid, attr.gid) != (new.uid, new.gid) {
            object.chown(Some(new.uid), Some(new.gid))?;
            attr = object.stat()?.attr;
        }
        if attr.perm != new.perm && !is_link {
            object.chmod(new.perm)?;
            attr = object.stat()?.attr;
        }
        let id = self.tree.insert(dir, name.to_buf(), attr.kind, attr.ino, flags_of(new))?;
        Ok(Entry { id, attr, marks: told(new) })
    }

    /// See [`Upper::stage`].
    pub(super) fn stage_new(&self, new: &New<'_>) -> Result<Staged> {
        let work = self.tree.dir_fd(WORK)?;
        let is_link = matches!(new.what, What::Symlink(_));
        let real = self.real_perm(kind_of(&new.what), new.perm);
        let attributes = !new.xattrs.is_empty() || !new.marks.is_empty() || real != new.perm;
        let wide = new.perm & !SET_ID | if attributes { OWNER_ALL } else { 0 };
        let temp = self.with_temp(|temp| make(work.as_fd(), temp, &new.what, wide))?;
        let object = Object::Entry(work.as_fd(), temp.as_bytes());
        let finished = self.finish(object, new, wide, is_link);
        let placed = finished.and_then(|attr| {
            let flags = flags_of(new).with(Flags::PERM, attr.perm != new.perm && !is_link);
            self.tree.insert(WORK, temp.clone(), kind_of(&new.what), attr.ino, flags)
        });
        match placed {
            Ok(id) => Ok(Staged { id, temp: Some(temp) }),
            Err(error) => {
                self.discard_temp(temp.as_name());
                Err(error)
            }
        }
    }

    /// Gives a staged object what making it did not.
    fn finish(
        &self,
        object: Object<'_>,
        new: &New<'_>,
        mut wide: u16,
        is_link: bool,
    ) -> Result<Attr> {
        // The owner first, since that clears set-id bits and capabilities.
        if (new.uid, new.gid) != self.ids {
            object.chown(Some(new.uid), Some(new.gid))?;
            wide &= !SET_ID;
        }
        let kind = if is_char_zero(&new.what) { Kind::File } else { kind_of(&new.what) };
        let real = self.real_perm(kind, new.perm);
        for (name, value) in new.xattrs {
            if name == ACL && real != new.perm {
                xattr::set(object, name, &perm::acl_with_owner(value, real), 0)?;
            } else {
                xattr::set(object, name, value, 0)?;
            }
        }
        let mut marks: Vec<_> = new.marks.iter().map(marks::encode).collect();
        if is_char_zero(&new.what) {
            marks.push((Tag::Kind, marks::CHAR_ZERO.to_vec()));
        }
        if real != new.perm {
            marks.push((Tag::Perm, marks::encode_perm(perm::mark(new.perm))));
        }
        self.put_all(object, kind, &marks)?;
        let acl = new.xattrs.iter().any(|(name, _)| name.starts_with(b"system.posix_acl"));
        if (wide != real || acl) && !is_link {
            object.chmod(real)?;
        }
        Ok(object.stat()?.attr)
    }

    /// Before `id` gets the name `name` in `dir`: writes what tells its name, or itself, from a
    /// whiteout.
    pub(super) fn prepare(&self, id: Id, dir: Id, name: Name<'_>) -> Result<()> {
        let spot = self.tree.slots.get(id)?;
        if name.as_bytes().starts_with(DOT_WH) {
            self.tree
                .on(id, |object, spot| self.put(object, stored_kind(spot), Tag::Literal, b"y"))?;
        }
        let around = self.tree.slots.get(dir)?.flags;
        if spot.flags.has(Flags::CHAR_ZERO) && !around.has(Flags::ESCAPES) {
            self.tree.on(dir, |object, _| self.put(object, Kind::Dir, Tag::Escapes, b"y"))?;
            self.tree.slots.set_flag(dir, Flags::ESCAPES, true);
        }
        Ok(())
    }

    /// Makes something under a name in the work directory that is new.
    pub(super) fn with_temp(&self, mut make: impl FnMut(&[u8]) -> Result<()>) -> Result<NameBuf> {
        loop {
            let number = self.temps.fetch_add(1, Ordering::Relaxed);
            let temp = format!("#{number:x}");
            match make(temp.as_bytes()) {
                Ok(()) => return Ok(Name::new(temp.as_bytes())?.to_buf()),
                Err(error) if error.errno() == Errno::EEXIST => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The marks of a new object, as a lookup would tell them.
fn told(new: &New<'_>) -> Marks {
    let mut told = Marks::default();
    for mark in new.marks {
        match *mark {
            Mark::Opaque => told.opaque = true,
            Mark::Redirect(path) => told.redirect = Some(path.into()),
            Mark::Impure => told.impure = true,
            Mark::Ino(ino) => told.ino = Some(ino),
            Mark::LowerNlink(nlink) => told.lower_nlink = Some(nlink),
            Mark::Nlink(nlink) => told.nlink = Some(nlink),
            Mark::Origin(origin) => told.origin = Some(origin.into()),
            Mark::Metacopy => told.metacopy = true,
        }
    }
    if told.nlink.is_none() {
        told.origin = None;
    }
    told.default_acl = new.xattrs.iter().any(|(name, _)| name == marks::DEFAULT_ACL);
    told
}
