//! Reading a tree in overlay format: lookups and listings with every encoding of a whiteout.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags, RawDir};

use super::data::FileData;
use super::mark::stored_kind;
use super::perm::{self, ACL};
use super::slots::{Flags, Spot};
use super::tree::{ROOT, Tree};
use crate::attr::{Attr, Kind, StatFs};
use crate::errno::{Context, Errno, Error, Result};
use crate::layer::marks::{self, Class, Decoded, Left, Tag};
use crate::layer::{DirItem, Entry, Id, Lookup, Marks, WhiteoutForm};
use crate::name::{NAME_MAX, Name};
use crate::sys::handle::{self, FileHandle};
use crate::sys::object::Object;
use crate::sys::xattr;

/// What a whiteout beside the name it hides begins with.
pub(super) const DOT_WH: &[u8] = b".wh.";
/// The entry that makes the directory it is in opaque.
pub(super) const DOT_WH_OPAQUE: &[u8] = b".wh..wh..opq";

/// The room for one getdents64 call, in bytes.
const LISTING: usize = 32 * 1024;

/// The object's attributes, unless there is none.
fn stat_if_any(object: Object<'_>) -> Result<Option<Attr>> {
    match object.stat() {
        Ok(stat) => Ok(Some(stat.attr)),
        // A name too long for the filesystem is one that it does not hold.
        Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ENAMETOOLONG) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Shows a file that stands for a device 0:0 as one.
fn as_char_zero(attr: &mut Attr) {
    attr.kind = Kind::Char;
    attr.rdev = 0;
    attr.size = 0;
    attr.blocks = 0;
}

/// Refuses a directory whose redirect lies elsewhere and is not to be had: without it the directory
/// would be shown empty.
fn whole(mut decoded: Decoded) -> Decoded {
    if decoded.aside && decoded.marks.redirect.is_none() {
        let why = "plyfs.aside, without its workdir (or in a copy)";
        decoded.marks.unknown.get_or_insert_with(|| why.into());
    }
    decoded
}

impl Tree {
    /// All marks of an object: its attributes, and what lies beside for want of them, which counts
    /// more.
    pub(super) fn decode(&self, object: Object<'_>, kind: Kind) -> Result<Decoded> {
        let names = xattr::list(object)?;
        let get = |name: &[u8]| xattr::get(object, name);
        let aside = |name: &Vec<u8>| marks::classify(name) == Class::Known(Tag::Aside);
        let Some(sidecar) = self.sidecar.get() else {
            return Ok(whole(marks::decode(&names, get)?));
        };
        if !sidecar.concerns(kind, names.iter().any(aside)) {
            return marks::decode(&names, get);
        }
        let records = sidecar.marks(object)?;
        let recorded = |name: &[u8]| records.iter().find(|(recorded, _)| recorded == name);
        let own = names.into_iter().filter(|name| recorded(name).is_none());
        let all: Vec<_> = own.chain(records.iter().map(|(name, _)| name.clone())).collect();
        let decoded = marks::decode(&all, |name| match recorded(name) {
            Some((_, value)) => Ok(Some(value.clone())),
            None => get(name),
        });
        decoded.map(whole)
    }

    /// See [`Layer::lookup`](crate::layer::Layer::lookup).
    pub(super) fn lookup(&self, dir: Id, name: Name<'_>) -> Result<Lookup> {
        let fd = self.dir_fd(dir)?;
        let around = self.slots.get(dir)?.flags;
        let object = Object::Entry(fd.as_fd(), name.as_bytes());
        let Some(mut attr) = stat_if_any(object)? else {
            return self.lookup_sibling(&fd, around, name);
        };
        if attr.is_char_zero() {
            if self.left_in(&fd, around)?.is_none_or(|left| *left.name != *name.as_bytes()) {
                return Ok(Lookup::Whiteout(WhiteoutForm::Entry));
            }
            let (kind, flags) = (attr.kind, Flags::MARKS_KNOWN);
            let id = self.insert(dir, name.to_buf(), kind, attr.ino, flags)?;
            return Ok(Lookup::Found(Entry { id, attr, marks: Marks::default() }));
        }
        let is_dir = attr.kind == Kind::Dir;
        let dot_wh = name.as_bytes().starts_with(DOT_WH);
        let marked = self.changes || is_dir || dot_wh || may_be_marked(&attr, around);
        let mut decoded = if marked { self.decode(object, attr.kind)? } else { Decoded::default() };
        let empty_file = attr.kind == Kind::File && attr.size == 0;
        if empty_file && decoded.whiteout && around.has(Flags::XATTR_WHITEOUTS) {
            return Ok(Lookup::Whiteout(WhiteoutForm::Entry));
        }
        if dot_wh && !decoded.literal {
            return self.lookup_sibling(&fd, around, name);
        }
        if empty_file && decoded.char_zero {
            as_char_zero(&mut attr);
        }
        decoded.perm = decoded.perm.filter(|_| perm::counts(&attr));
        attr.perm = perm::shown(attr.perm, decoded.perm);
        let mut opened = None;
        if is_dir {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let inside = object.open(flags)?;
            decoded.marks.opaque = decoded.marks.opaque
                || self.has_opaque_entry(&inside, whiteouts_of(&decoded))?
                || self.is_whited_out(&fd, around, name)?;
            opened = Some(inside);
        }
        let flags = flags_of(&attr, &decoded, marked && self.changes);
        let id = self.insert(dir, name.to_buf(), attr.kind, attr.ino, flags)?;
        if let Some(opened) = opened {
            self.descriptors.insert(id, Arc::new(opened));
        }
        Ok(Lookup::Found(Entry { id, attr, marks: decoded.marks }))
    }

    /// There is no object of that name: a whiteout beside it, perhaps.
    fn lookup_sibling(&self, dir: &OwnedFd, around: Flags, name: Name<'_>) -> Result<Lookup> {
        Ok(if self.is_whited_out(dir, around, name)? {
            Lookup::Whiteout(WhiteoutForm::Sibling)
        } else {
            Lookup::Absent
        })
    }

    /// The attributes of the object.
    pub(super) fn attr(&self, id: Id) -> Result<Attr> {
        self.on(id, |object, spot| self.attr_at(object, spot))
    }

    /// The attributes of an object that is known to be at `object`.
    pub(super) fn attr_at(&self, object: Object<'_>, spot: &Spot) -> Result<Attr> {
        let mut attr = object.stat()?.attr;
        if self.changes && spot.ino != 0 && spot.ino != attr.ino {
            return Err(Errno::ESTALE.into());
        }
        if spot.flags.has(Flags::PERM) || perm::is_widened_file(&attr) {
            let mark = self.decode(object, attr.kind)?.perm.filter(|_| perm::counts(&attr));
            attr.perm = perm::shown(attr.perm, mark);
        }
        if spot.flags.has(Flags::CHAR_ZERO) {
            as_char_zero(&mut attr);
        }
        Ok(attr)
    }

    /// See [`Layer::getxattr`](crate::layer::Layer::getxattr).
    pub(super) fn getxattr(&self, id: Id, name: &[u8]) -> Result<Option<Vec<u8>>> {
        self.on(id, |object, spot| match xattr::get(object, name)? {
            Some(acl) if name == ACL && spot.flags.has(Flags::PERM) => {
                Ok(Some(perm::acl_with_owner(&acl, self.attr_at(object, spot)?.perm)))
            }
            value => Ok(value),
        })
    }

    /// The marks of the object.
    pub(super) fn marks(&self, id: Id) -> Result<Marks> {
        let mut decoded = self.on(id, |object, spot| self.decode(object, stored_kind(spot)))?;
        let spot = self.slots.get(id)?;
        if spot.kind == Kind::Dir && !decoded.marks.opaque {
            let beside = match &spot.name {
                Some(name) => {
                    let around = self.slots.get(spot.parent)?.flags;
                    self.is_whited_out(&*self.dir_fd(spot.parent)?, around, name.as_name())?
                }
                None => false,
            };
            let opaque = self.has_opaque_entry(&*self.dir_fd(id)?, whiteouts_of(&decoded))?;
            decoded.marks.opaque = beside || opaque;
        }
        self.slots.set_flag(id, Flags::MARKS_KNOWN, true);
        Ok(decoded.marks)
    }

    /// The root's attributes and marks; notes what they mean for lookups in it.
    pub(super) fn root_entry(&self) -> Result<(Attr, Marks)> {
        let decoded = self.on(ROOT, |object, _| self.decode(object, Kind::Dir))?;
        self.slots.set_flag(ROOT, Flags::PERM, decoded.perm.is_some());
        let attr = self.attr(ROOT)?;
        self.note_dir(ROOT, &attr, &decoded);
        Ok((attr, self.marks(ROOT)?))
    }

    /// Notes what the attributes and marks of a directory mean for its entries.
    pub(super) fn note_dir(&self, id: Id, attr: &Attr, decoded: &Decoded) {
        let flags = flags_of(attr, decoded, true);
        for flag in [Flags::XATTR_WHITEOUTS, Flags::ESCAPES, Flags::PLAIN] {
            self.slots.set_flag(id, flag, flags.has(flag));
        }
    }

    /// See [`Layer::readdir`](crate::layer::Layer::readdir).
    pub(super) fn readdir(
        &self,
        dir: Id,
        each: &mut dyn FnMut(DirItem<'_>) -> Result<()>,
    ) -> Result<()> {
        let fd = self.dir_fd(dir)?;
        let flags = self.slots.get(dir)?.flags;
        let listing = Object::dir(&*fd).open(OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut buf = vec![MaybeUninit::uninit(); LISTING];
        let mut entries = RawDir::new(&listing, &mut buf);
        let mut dot_wh = false;
        let left = self.left_in(&fd, flags)?;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let stored = entry.file_name().to_bytes();
            if stored == b"." || stored == b".." {
                continue;
            }
            let object = Object::Entry(fd.as_fd(), stored);
            let raw = (entry.file_type(), entry.ino());
            let found = match self.see(object, raw, stored, flags) {
                Ok(Seen::Whiteout) if left.as_ref().is_some_and(|it| *it.name == *stored) => {
                    Seen::Object(Kind::Char)
                }
                Ok(found) => found,
                // Gone since it was listed.
                Err(error) if error.errno() == Errno::ENOENT => continue,
                Err(error) => return Err(error),
            };
            let (name, kind, ino) = match found {
                Seen::Object(kind) => (stored, Some(kind), entry.ino()),
                Seen::Whiteout => (stored, None, 0),
                Seen::Sibling(name) => {
                    dot_wh = true;
                    if stored == DOT_WH_OPAQUE {
                        continue;
                    }
                    (name, None, 0)
                }
            };
            // What can be no name of ours (".wh." alone) hides nothing.
            let Ok(name) = Name::new(name) else { continue };
            each(DirItem { name, kind, ino })?;
        }
        if !dot_wh {
            self.slots.set_flag(dir, Flags::NO_DOT_WH, true);
        }
        Ok(())
    }

    /// What the directory says of a device that is being left in it.
    pub(super) fn left_in(&self, dir: &OwnedFd, around: Flags) -> Result<Option<Left>> {
        if !around.has(Flags::ESCAPES) {
            return Ok(None);
        }
        Ok(self.decode(Object::dir(dir), Kind::Dir)?.left)
    }

    /// Whether there is a whiteout beside `name`.
    pub(super) fn is_whited_out(
        &self,
        dir: &OwnedFd,
        around: Flags,
        name: Name<'_>,
    ) -> Result<bool> {
        let beside = [DOT_WH, name.as_bytes()].concat();
        if around.has(Flags::NO_DOT_WH) || beside.len() > NAME_MAX || beside == DOT_WH_OPAQUE {
            return Ok(false);
        }
        let object = Object::Entry(dir.as_fd(), &beside);
        match stat_if_any(object)? {
            // A device 0:0 of that name hides that very name, and is the kernel's doing.
            Some(attr) if attr.is_char_zero() => Ok(false),
            Some(attr) => Ok(!self.is_literal(object, attr.kind, around)?),
            None => Ok(false),
        }
    }

    /// Whether `dir` holds the entry that makes it opaque: neither a user's file of that name, nor
    /// the whiteout of one; `within` are the flags of `dir`. Of one that we may not search nobody
    /// knows: nothing in it can be shown either.
    pub(super) fn has_opaque_entry(&self, dir: &OwnedFd, within: Flags) -> Result<bool> {
        let object = Object::Entry(dir.as_fd(), DOT_WH_OPAQUE);
        match stat_if_any(object) {
            Err(error) if error.errno() == Errno::EACCES => Ok(false),
            Err(error) => Err(error),
            Ok(None) => Ok(false),
            Ok(Some(attr)) if attr.is_char_zero() => Ok(false),
            Ok(Some(attr)) => Ok(!self.is_literal(object, attr.kind, within)?),
        }
    }

    /// Whether the object's name begins with `.wh.` because a user called it so: it is that user's,
    /// or the whiteout of such a one.
    fn is_literal(&self, object: Object<'_>, kind: Kind, around: Flags) -> Result<bool> {
        let is = |name: &[u8], tag| marks::classify(name) == Class::Known(tag);
        let names = xattr::list(object)?;
        let aside = names.iter().any(|name| is(name, Tag::Aside));
        let whiteout = around.has(Flags::XATTR_WHITEOUTS) && kind == Kind::File;
        Ok(names.iter().any(|name| is(name, Tag::Literal))
            || whiteout && names.iter().any(|name| is(name, Tag::Whiteout))
            || match self.sidecar.get().filter(|sidecar| sidecar.concerns(kind, aside)) {
                Some(sidecar) => {
                    sidecar.marks(object)?.iter().any(|(name, _)| is(name, Tag::Literal))
                }
                None => false,
            })
    }

    /// What an entry of a listing is.
    fn see<'a>(
        &self,
        object: Object<'_>,
        (kind, _): (FileType, u64),
        stored: &'a [u8],
        around: Flags,
    ) -> Result<Seen<'a>> {
        let kind = match kind_of(kind) {
            Some(kind) => kind,
            None => object.stat()?.attr.kind,
        };
        if kind == Kind::Char && object.stat()?.attr.is_char_zero() {
            return Ok(Seen::Whiteout);
        }
        if let Some(name) = stored.strip_prefix(DOT_WH)
            && !self.is_literal(object, kind, around)?
        {
            return Ok(Seen::Sibling(name));
        }
        let special = around.has(Flags::XATTR_WHITEOUTS) || around.has(Flags::ESCAPES);
        if kind == Kind::File && special && object.stat()?.attr.size == 0 {
            let decoded = self.decode(object, kind)?;
            if decoded.whiteout && around.has(Flags::XATTR_WHITEOUTS) {
                return Ok(Seen::Whiteout);
            }
            if decoded.char_zero {
                return Ok(Seen::Object(Kind::Char));
            }
        }
        Ok(Seen::Object(kind))
    }

    /// See [`Layer::open`](crate::layer::Layer::open).
    pub(super) fn open(&self, id: Id, write: bool) -> Result<FileData> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        self.on(id, |object, spot| {
            if spot.kind != Kind::File {
                return Err(Errno::EINVAL.into());
            }
            let data = FileData::new(object.open(access)?);
            if self.changes {
                let attr = data.stat()?;
                if attr.kind != Kind::File || (spot.ino != 0 && attr.ino != spot.ino) {
                    return Err(Errno::ESTALE.into());
                }
            } else if !spot.flags.has(Flags::MARKS_KNOWN) {
                refuse_metacopy(&data)?;
            }
            Ok(data)
        })
    }

    /// See [`Layer::handle`](crate::layer::Layer::handle).
    pub(super) fn handle(&self, id: Id) -> Result<Option<Vec<u8>>> {
        let Some(handle) = self.on(id, |object, _| handle::of(object))? else { return Ok(None) };
        Ok(marks::encode_origin(&self.fs_uuid()?, handle.kind, &handle.bytes))
    }

    fn fs_uuid(&self) -> Result<[u8; 16]> {
        if let Some(uuid) = self.uuid.get() {
            return Ok(*uuid);
        }
        let open = self.open_root()?;
        Ok(*self.uuid.get_or_init(|| handle::fs_uuid(&open)))
    }

    /// The root, not `O_PATH`.
    fn open_root(&self) -> Result<OwnedFd> {
        Object::dir(&*self.dir_fd(ROOT)?).open(OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// See [`Layer::ino_of`](crate::layer::Layer::ino_of).
    pub(super) fn ino_of(&self, origin: &[u8]) -> Result<Option<u64>> {
        let Some((uuid, kind, bytes)) = marks::decode_origin(origin) else { return Ok(None) };
        let here = self.fs_uuid()?;
        // The kernel writes zeros where it is told not to tell filesystems apart.
        if uuid != here && uuid != [0; 16] && here != [0; 16] {
            return Ok(None);
        }
        let handle = FileHandle { kind, bytes: bytes.to_vec() };
        // Gone, or we may not: in either case it tells us nothing.
        let Ok(object) = handle::open(&self.open_root()?, &handle) else { return Ok(None) };
        Ok(Some(Object::Itself(object.as_fd()).stat()?.attr.ino))
    }

    /// See [`Layer::statfs`](crate::layer::Layer::statfs).
    pub(super) fn statfs(&self) -> Result<StatFs> {
        let stat = rustix::fs::fstatvfs(&*self.dir_fd(ROOT)?)?;
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(StatFs {
            blocks: stat.f_blocks,
            bfree: stat.f_bfree,
            bavail: stat.f_bavail,
            files: stat.f_files,
            ffree: stat.f_ffree,
            bsize: small(stat.f_bsize),
            frsize: small(stat.f_frsize),
            namelen: small(stat.f_namemax),
        })
    }
}

/// Whether marks may change what a regular file of a lower layer is: an empty one may be a
/// whiteout or a device where the directory says so; one with fewer blocks than bytes may have
/// its data in another layer; one with the sticky bit may show other permission bits.
fn may_be_marked(attr: &Attr, around: Flags) -> bool {
    if attr.kind != Kind::File {
        return false;
    }
    if perm::is_widened_file(attr) {
        return true;
    }
    if attr.size == 0 {
        return around.has(Flags::XATTR_WHITEOUTS) || around.has(Flags::ESCAPES);
    }
    attr.blocks.saturating_mul(512) < attr.size
}

/// What is to be remembered of an object.
fn flags_of(attr: &Attr, decoded: &Decoded, marks_known: bool) -> Flags {
    let is_dir = attr.kind == Kind::Dir;
    let setgid = u32::from(attr.perm) & libc::S_ISGID != 0;
    if is_dir { whiteouts_of(decoded) } else { Flags::default() }
        .with(Flags::ESCAPES, is_dir && decoded.escapes)
        .with(Flags::PLAIN, is_dir && !setgid && !decoded.marks.default_acl)
        .with(Flags::CHAR_ZERO, attr.kind == Kind::Char && decoded.char_zero)
        .with(Flags::PERM, decoded.perm.is_some())
        .with(Flags::MARKS_KNOWN, marks_known || decoded.marks.metacopy)
}

/// What a directory's marks say of the whiteouts in it.
fn whiteouts_of(decoded: &Decoded) -> Flags {
    Flags::default().with(Flags::XATTR_WHITEOUTS, decoded.xattr_whiteouts)
}

/// What an entry of a listing is.
enum Seen<'a> {
    Object(Kind),
    /// A whiteout of the very name.
    Whiteout,
    /// A whiteout of another name.
    Sibling(&'a [u8]),
}

fn kind_of(listed: FileType) -> Option<Kind> {
    Some(match listed {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        FileType::Unknown => return None,
    })
}

/// A file whose data are elsewhere, opened by somebody who does not know, would read as zeros.
fn refuse_metacopy(data: &FileData) -> Result<()> {
    let names = xattr::list_open(&data.as_fd()).context(|| "cannot look for marks")?;
    if names.iter().any(|name| marks::classify(name) == Class::Known(Tag::Metacopy)) {
        let why = "the file holds metadata only (overlay.metacopy), though its blocks do not \
                   show it: its data are in a layer below";
        return Err(Error::new(Errno::EIO, why));
    }
    Ok(())
}
