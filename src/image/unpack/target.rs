//! The directory tree that is being written: system calls relative to the descriptors of its own
//! directories, one name at a time, never through a link.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use lru::LruCache;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::tree::{Dir, Late, Tree};
use crate::attr::{Attr, Kind, SetTime, Time};
use crate::errno::{Context, Errno, Error, Result};
use crate::image::recipe::ROOT;
use crate::layer::marks::{self, Namespace, Tag};
use crate::sys::object::Object;
use crate::sys::xattr;

/// Directories that are kept open.
const OPEN_MOST: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// Bits that the kernel clears or passes on by itself.
const SPECIAL: u16 = 0o7000;

/// Attributes that belong to the machine, not to the image; umoci passes over them too.
const OF_THE_HOST: [&[u8]; 2] = [b"security.selinux", b"system.nfs4_acl"];

/// Owner, mode and time of an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) perm: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
}

impl Stamp {
    /// Of an object that is there.
    pub(super) fn of(attr: &Attr) -> Self {
        Self { perm: attr.perm, uid: attr.uid, gid: attr.gid, mtime: attr.mtime }
    }
}

/// Extended attributes: names as a user calls them, and values.
pub(super) type Xattrs = [(Vec<u8>, Vec<u8>)];

/// What to make, when it is no directory and has no content.
#[derive(Clone, Copy, Debug)]
pub(super) enum Make<'a> {
    /// A symbolic link.
    Symlink(&'a [u8]),
    /// A device or FIFO.
    Node(Kind, u64),
}

/// A tree that is being written.
#[derive(Debug)]
pub(super) struct Target {
    /// The directory of the layer.
    pub(super) home: OwnedFd,
    root: Arc<OwnedFd>,
    open: LruCache<Dir, Arc<OwnedFd>>,
    /// Who owns what is made here.
    ids: (u32, u32),
    /// Permissions that what is made here does not get.
    umask: u16,
    /// How marks are written.
    pub(super) namespace: Namespace,
    /// Whether whiteouts can be devices.
    char_whiteouts: bool,
    /// Devices 0:0 that were made, in disguise.
    pub(super) disguised: u64,
    warned: bool,
}

impl Target {
    /// Makes the root in `home`, and finds out how objects come out in it.
    pub(super) fn create(home: OwnedFd) -> Result<Self> {
        rustix::fs::mkdirat(&home, ROOT, Mode::from_raw_mode(0o755)).context(|| ROOT)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::openat(&home, ROOT, flags, Mode::empty()).context(|| ROOT)?;
        // Not the set-group-id bit of the directory around it, which would pass on.
        Object::dir(&root).chmod(0o755)?;
        let probe = "probe";
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(rustix::fs::openat(&root, probe, flags, Mode::from_raw_mode(0o777))?);
        let probed = Object::Entry(root.as_fd(), probe.as_bytes());
        let attr = probed.stat()?.attr;
        let mark = Tag::Opaque.stored(Namespace::Trusted);
        let namespace = match xattr::set(probed, &mark, b"n", 0) {
            Err(error) if error.errno() == Errno::EPERM => Namespace::User,
            _ => Namespace::Trusted,
        };
        rustix::fs::unlinkat(&root, probe, AtFlags::empty())?;
        Ok(Self {
            home,
            root: Arc::new(root),
            open: LruCache::new(OPEN_MOST),
            ids: (attr.uid, attr.gid),
            umask: !attr.perm & 0o777,
            namespace,
            char_whiteouts: true,
            disguised: 0,
            warned: false,
        })
    }

    /// Closes what can be opened again.
    pub(super) fn rest(&mut self) {
        self.open.clear();
    }

    /// A descriptor (`O_PATH`) of a directory.
    pub(super) fn fd(&mut self, tree: &Tree, dir: Dir) -> Result<Arc<OwnedFd>> {
        let mut missing = Vec::new();
        let mut at = dir;
        let mut fd = loop {
            if at == Dir::ROOT {
                break Arc::clone(&self.root);
            }
            if let Some(fd) = self.open.get(&at) {
                break Arc::clone(fd);
            }
            missing.push(at);
            at = tree.get(at)?.parent;
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        while let Some(next) = missing.pop() {
            let name = &*tree.get(next)?.name;
            fd = Arc::new(rustix::fs::openat(&*fd, name, flags, Mode::empty())?);
            self.open.put(next, Arc::clone(&fd));
        }
        Ok(fd)
    }

    /// Forgets the descriptors of directories that are gone.
    pub(super) fn forget(&mut self, gone: &[Dir]) {
        for dir in gone {
            self.open.pop(dir);
        }
    }

    /// What is at `name`.
    pub(super) fn stat(&mut self, tree: &Tree, dir: Dir, name: &[u8]) -> Result<Option<Attr>> {
        let fd = self.fd(tree, dir)?;
        match Object::Entry(fd.as_fd(), name).stat() {
            Ok(stat) => Ok(Some(stat.attr)),
            Err(error) if error.errno() == Errno::ENOENT => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the object at `name`, which looks like this, is a whiteout.
    pub(super) fn is_whiteout(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        attr: &Attr,
    ) -> Result<bool> {
        if attr.is_char_zero() {
            return Ok(true);
        }
        if self.char_whiteouts || attr.kind != Kind::File || attr.size != 0 {
            return Ok(false);
        }
        let mark = Tag::Whiteout.stored(self.namespace);
        Ok(xattr::get(Object::Entry(dir, name), &mark)?.is_some())
    }

    /// Whether the object at `name`, which looks like this, is a device 0:0 in disguise.
    pub(super) fn is_disguised(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        attr: &Attr,
    ) -> Result<bool> {
        if self.disguised == 0 || attr.kind != Kind::File || attr.size != 0 {
            return Ok(false);
        }
        let mark = Tag::Kind.stored(self.namespace);
        Ok(xattr::get(Object::Entry(dir, name), &mark)?.is_some())
    }

    /// Puts a whiteout where nothing is; `EEXIST` if anything is.
    pub(super) fn make_whiteout(&mut self, tree: &mut Tree, dir: Dir, name: &[u8]) -> Result<()> {
        let fd = self.fd(tree, dir)?;
        if self.char_whiteouts {
            let device = FileType::CharacterDevice;
            match rustix::fs::mknodat(&*fd, name, device, Mode::empty(), 0) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::PERM | rustix::io::Errno::OPNOTSUPP) => {
                    self.char_whiteouts = false;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(&*fd, name, FileType::RegularFile, mode, 0)?;
        let mark = Tag::Whiteout.stored(self.namespace);
        xattr::set(Object::Entry(fd.as_fd(), name), &mark, b"y", 0)?;
        tree.get_mut(dir)?.xattr_whiteouts = true;
        Ok(())
    }

    /// Makes a directory where nothing is; what it is to have only later stays to be done.
    pub(super) fn make_dir(
        &mut self,
        tree: &mut Tree,
        dir: Dir,
        name: &[u8],
        perm: u16,
    ) -> Result<Dir> {
        let fd = self.fd(tree, dir)?;
        rustix::fs::mkdirat(&*fd, name, Mode::from_raw_mode((perm & !SPECIAL).into()))?;
        tree.add(dir, name)
    }

    /// Gives a directory attributes; `new` says that it was just made with this mode. What would
    /// pass on to what is made in it waits.
    pub(super) fn set_dir(
        &mut self,
        tree: &mut Tree,
        dir: Dir,
        new: bool,
        stamp: &Stamp,
        xattrs: &Xattrs,
    ) -> Result<()> {
        let (above, name) = self.place(tree, dir)?;
        let object = Object::Entry(above.as_fd(), &name);
        let node = tree.get_mut(dir)?;
        if node.has_xattrs {
            for name in xattr::list(object)? {
                if !OF_THE_HOST.contains(&name.as_slice()) {
                    xattr::remove(object, &name)?;
                }
            }
        }
        if !new || (stamp.uid, stamp.gid) != self.ids {
            object
                .chown(Some(stamp.uid), Some(stamp.gid))
                .map_err(|error| no_owner(stamp, error))?;
        }
        node.late.default_acl = None;
        for (name, value) in xattrs {
            if name == marks::DEFAULT_ACL {
                node.late.default_acl = Some(value.as_slice().into());
            } else {
                self.set_xattr(object, Kind::Dir, name, value)?;
            }
        }
        let plain = Stamp { perm: stamp.perm & !SPECIAL, ..*stamp };
        if !new || self.needs_chmod(&plain, xattrs) {
            object.chmod(plain.perm)?;
        }
        node.has_xattrs = !xattrs.is_empty();
        node.late.perm = Some(stamp.perm).filter(|perm| perm & SPECIAL != 0);
        node.late.mtime = Some(stamp.mtime);
        Ok(())
    }

    /// How a directory is reached: by its name in the one above, the root by itself.
    fn place(&mut self, tree: &Tree, dir: Dir) -> Result<(Arc<OwnedFd>, Vec<u8>)> {
        if dir == Dir::ROOT {
            return Ok((Arc::clone(&self.root), b".".to_vec()));
        }
        let node = tree.get(dir)?;
        Ok((self.fd(tree, node.parent)?, node.name.to_vec()))
    }

    /// Does to a directory what had to wait, and writes its marks.
    pub(super) fn complete(&mut self, tree: &Tree, dir: Dir) -> Result<()> {
        let (above, name) = self.place(tree, dir)?;
        let object = Object::Entry(above.as_fd(), &name);
        let node = tree.get(dir)?;
        let mark = |tag: Tag, value| xattr::set(object, &tag.stored(self.namespace), value, 0);
        if node.hides {
            mark(Tag::Opaque, b"y")?;
        } else if node.xattr_whiteouts {
            mark(Tag::Opaque, b"x")?;
        }
        if node.escapes {
            mark(Tag::Escapes, b"y")?;
        }
        let Late { perm, mtime, default_acl } = &node.late;
        if let Some(value) = default_acl {
            self.set_xattr(object, Kind::Dir, marks::DEFAULT_ACL, value)?;
        }
        if let Some(perm) = perm {
            object.chmod(*perm)?;
        }
        if let Some(mtime) = mtime {
            set_times(object, *mtime)?;
        }
        Ok(())
    }

    /// Makes a regular file where nothing is, open for writing, and still without attributes.
    pub(super) fn make_file(
        &mut self,
        tree: &Tree,
        dir: Dir,
        name: &[u8],
        stamp: &Stamp,
    ) -> Result<OwnedFd> {
        let fd = self.fd(tree, dir)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode((stamp.perm & !SPECIAL).into());
        Ok(rustix::fs::openat(&*fd, name, flags | OFlags::NOFOLLOW, mode)?)
    }

    /// Gives a regular file, whose content is complete, its attributes.
    pub(super) fn finish_file(
        &mut self,
        file: &OwnedFd,
        (dir, name): (BorrowedFd<'_>, &[u8]),
        stamp: &Stamp,
        xattrs: &Xattrs,
    ) -> Result<()> {
        if (stamp.uid, stamp.gid) != self.ids {
            let (uid, gid) = (stamp.uid, stamp.gid);
            let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
            rustix::fs::fchown(file, Some(uid), Some(gid))
                .map_err(|errno| no_owner(stamp, errno.into()))?;
        }
        let object = Object::Entry(dir, name);
        for (name, value) in xattrs {
            self.set_xattr(object, Kind::File, name, value)?;
        }
        if self.needs_chmod(stamp, xattrs) {
            rustix::fs::fchmod(file, Mode::from_raw_mode(stamp.perm.into()))?;
        }
        Ok(rustix::fs::futimens(file, &timestamps(stamp.mtime))?)
    }

    /// Whether an object that was made with the plain bits of its mode has not got its mode yet.
    fn needs_chmod(&self, stamp: &Stamp, xattrs: &Xattrs) -> bool {
        stamp.perm & (SPECIAL | self.umask) != 0
            || xattrs.iter().any(|(name, _)| name.starts_with(b"system.posix_acl"))
    }

    /// Makes an object that has no content where nothing is, with its attributes.
    pub(super) fn make(
        &mut self,
        tree: &mut Tree,
        dir: Dir,
        name: &[u8],
        what: Make<'_>,
        stamp: &Stamp,
        xattrs: &Xattrs,
    ) -> Result<()> {
        let fd = self.fd(tree, dir)?;
        let mode = Mode::from_raw_mode((stamp.perm & !SPECIAL).into());
        let node = |kind, device| rustix::fs::mknodat(&*fd, name, kind, mode, device);
        let kind = match what {
            Make::Symlink(target) => {
                rustix::fs::symlinkat(target, &*fd, name)?;
                Kind::Symlink
            }
            Make::Node(Kind::Char, 0) => {
                node(FileType::RegularFile, 0)?;
                Kind::Char
            }
            Make::Node(kind, device) => {
                match kind {
                    Kind::Char => node(FileType::CharacterDevice, device)?,
                    Kind::Block => node(FileType::BlockDevice, device)?,
                    Kind::Fifo => node(FileType::Fifo, 0)?,
                    Kind::Socket => node(FileType::Socket, 0)?,
                    Kind::File | Kind::Dir | Kind::Symlink => return Err(Errno::EINVAL.into()),
                }
                kind
            }
        };
        let object = Object::Entry(fd.as_fd(), name);
        if (stamp.uid, stamp.gid) != self.ids {
            object
                .chown(Some(stamp.uid), Some(stamp.gid))
                .map_err(|error| no_owner(stamp, error))?;
        }
        for (name, value) in xattrs {
            self.set_xattr(object, kind, name, value)?;
        }
        if matches!(what, Make::Node(Kind::Char, 0)) {
            xattr::set(object, &Tag::Kind.stored(self.namespace), marks::CHAR_ZERO, 0)?;
            tree.get_mut(dir)?.escapes = true;
            self.disguised += 1;
        }
        if kind != Kind::Symlink && self.needs_chmod(stamp, xattrs) {
            object.chmod(stamp.perm)?;
        }
        set_times(object, stamp.mtime)
    }

    /// Sets an attribute that a user calls `name`. What the filesystem, or an object of this kind,
    /// cannot carry is left out, as other tools do, and said once.
    fn set_xattr(
        &mut self,
        object: Object<'_>,
        kind: Kind,
        name: &[u8],
        value: &[u8],
    ) -> Result<()> {
        if OF_THE_HOST.contains(&name) {
            return Ok(());
        }
        let stored = marks::escape(name);
        let stored = stored.as_deref().unwrap_or(name);
        let Err(error) = xattr::set(object, stored, value, 0) else { return Ok(()) };
        let unprivileged = self.namespace == Namespace::User;
        let cannot_carry =
            name.starts_with(b"user.") && !matches!(kind, Kind::File | Kind::Dir) || unprivileged;
        match error.errno() {
            Errno::EOPNOTSUPP => {}
            Errno::EPERM if cannot_carry => {}
            _ => {
                let what = format!("extended attribute '{}'", crate::image::tar::shown(name));
                return Err(error.context_of(what));
            }
        }
        if !std::mem::replace(&mut self.warned, true) {
            let name = crate::image::tar::shown(name);
            tracing::warn!(%name, %error, "extended attributes of the layer left out");
        }
        Ok(())
    }
}

/// Why an object cannot have its owner. A user may give nothing away; a user namespace only has the
/// ids that are mapped into it (`EINVAL`, which says nothing to a user).
fn no_owner(stamp: &Stamp, error: Error) -> Error {
    let Stamp { uid, gid, .. } = stamp;
    match error.errno() {
        Errno::EPERM => {
            let why = format!("it belongs to {uid}:{gid}, and this user may give nothing away");
            Error::new(Errno::EPERM, why)
        }
        Errno::EINVAL => {
            let why = format!("it belongs to {uid}:{gid}, which this user namespace does not have");
            Error::new(Errno::EPERM, why)
        }
        _ => error,
    }
}

/// Access time too: nobody has looked at it yet.
pub(super) fn set_times(object: Object<'_>, mtime: Time) -> Result<()> {
    object.set_times(Some(SetTime::At(mtime)), Some(SetTime::At(mtime)))
}

fn timestamps(mtime: Time) -> rustix::fs::Timestamps {
    let time = rustix::fs::Timespec { tv_sec: mtime.sec, tv_nsec: mtime.nsec.into() };
    rustix::fs::Timestamps { last_access: time, last_modification: time }
}

/// An error that says of which entry it speaks.
pub(super) fn refuse(path: &[u8], why: impl std::fmt::Display) -> Error {
    let path = crate::image::tar::shown(path);
    Error::new(Errno::EINVAL, format!("tar entry '{path}': {why}"))
}
