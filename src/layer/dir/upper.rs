//! A writable directory in overlay format.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, OFlags, RenameFlags};
use rustix::io::Errno as Raw;

use super::perm::ACL;
use super::probe::{self, Probe};
use super::sidecar::{self, Sidecar};
use super::slots::Flags;
use super::tree::{INDEX, ROOT, Tree, WORK};
use super::work;
use crate::attr::{Attr, Kind, SetAttr, SetTime};
use crate::errno::{Context, Errno, Error, Result};
use crate::layer::marks::{self, Namespace, Tag};
use crate::layer::{Data, Entry, How, Id, Layer, Lookup, Mark, New, RenameHow, Staged, Upper};
use crate::name::Name;
use crate::sys::handle::{self, FileHandle};
use crate::sys::object::Object;
use crate::sys::{process, xattr};

/// How an upper layer is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpperOptions {
    /// It is not synced; after a crash it must be thrown away.
    pub volatile: bool,
}

/// The encoding that is written: one for the whole layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encoding {
    /// None where no attributes can be written: all marks lie beside the objects.
    pub(super) namespace: Option<Namespace>,
    /// Whiteouts are devices 0:0, else empty files with an attribute.
    pub(super) char_whiteouts: bool,
    /// A rename can leave one behind.
    pub(super) rename_whiteout: bool,
    /// Permission bits of our own objects bind us.
    pub(super) bound: bool,
}

/// A writable layer on disk.
#[derive(Debug)]
pub struct DirUpper {
    pub(super) tree: Tree,
    pub(super) encoding: Encoding,
    probe: Probe,
    /// Held open, and locked, for the life of the layer.
    work: OwnedFd,
    /// As long as there is a mount.
    live: Mutex<Option<OwnedFd>>,
    /// Who new objects belong to if nothing is done about it.
    pub(super) ids: (u32, u32),
    pub(super) temps: AtomicU64,
    pub(super) shared_whiteout: AtomicU64,
    volatile: AtomicBool,
    /// Held while a rename leaves a device behind, and who looks for what is left of one waits.
    pub(super) leaving: parking_lot::Mutex<()>,
}

impl DirUpper {
    /// Opens `upper` for writing, with `work` beside it to prepare changes in. What a crash left
    /// there is removed.
    ///
    /// # Errors
    /// `EBUSY` while another mount uses either, `EXDEV` if they are on different mounts, `EINVAL`
    /// if one lies in the other or the upper was left unsynced, `ENOTEMPTY` if `work` holds foreign
    /// things, `EOPNOTSUPP` if the filesystem cannot hold an upper layer; each says what to do.
    pub fn open(upper: &Path, work: &Path, options: UpperOptions) -> Result<Arc<Self>> {
        let (of_upper, of_work) =
            (|| format!("upperdir {}", upper.display()), || format!("workdir {}", work.display()));
        let root = super::open_dir(upper).context(of_upper)?;
        refuse_nested(upper, work)?;
        let (locked, live) = work::lock(work, upper)?;
        if !probe::same_mount(&root, &locked)? {
            let text = format!(
                "upperdir {} and workdir {} are on different mounts; put the workdir beside the \
                 upperdir",
                upper.display(),
                work.display()
            );
            return Err(Error::new(Errno::EXDEV, text));
        }
        work::refuse_foreign(&locked).context(of_work)?;
        let staging = work::subdirectory(&locked, "work").context(of_work)?;
        work::refuse_incompat(&staging, upper, work)?;
        let home = work::subdirectory(&locked, "plyfs").context(of_work)?;
        let noted = home.try_clone().context(of_work)?;
        let sidecar = Sidecar::open(home).context(of_work)?;
        work::sweep(&staging).context(of_work)?;
        let probe = probe::run_or_recall(staging.as_fd(), &noted).context(of_work)?;
        let namespace = probe.require().context(of_upper)?;
        work::note_trusted(&noted, namespace == Some(Namespace::Trusted), upper)?;
        accept_marks(&sidecar, namespace, &staging, upper)?;
        if options.volatile {
            work::mark_volatile(&staging).context(of_work)?;
        }
        let readable = locked.try_clone().context(of_work)?;
        let (char_whiteouts, rename_whiteout) = (probe.char_whiteouts, probe.rename_whiteout);
        let tree = Tree::new(root, true).context(of_upper)?;
        tree.set_anchor(WORK, staging);
        tree.readable.get_or_init(|| readable);
        tree.sidecar.get_or_init(|| sidecar);
        let layer = Self {
            tree,
            encoding: Encoding {
                namespace,
                char_whiteouts,
                rename_whiteout: char_whiteouts && rename_whiteout,
                bound: !probe.overrides,
            },
            probe,
            work: locked,
            live: Mutex::new(Some(live)),
            ids: process::fs_ids(),
            temps: AtomicU64::new(1),
            shared_whiteout: AtomicU64::new(1),
            volatile: AtomicBool::new(options.volatile),
            leaving: parking_lot::Mutex::new(()),
        };
        layer.root_entry().context(of_upper)?;
        if let Err(error) = layer.settle_left(ROOT) {
            tracing::debug!(%error, "what a rename left behind is not in its final form");
        }
        // Now, so that no lookup has to make it: those must work on a full filesystem, too.
        layer.index().context(of_work)?;
        let layer = Arc::new(layer);
        layer.sweep_records().context(of_work)?;
        Ok(layer)
    }

    /// What the probe of the filesystem found.
    pub fn probe(&self) -> &Probe {
        &self.probe
    }

    /// Says that nothing will be written any more: who wants to mount the layer anew may wait for
    /// this one to be dropped.
    pub fn ending(&self) {
        drop(self.live.lock().take());
    }

    /// Ends the use of the layer cleanly: syncs a volatile one and takes the mark off that it is
    /// not; leaves the work directory empty.
    pub fn close(&self) -> Result<()> {
        self.remove_shared_whiteout()?;
        if let Some(sidecar) = self.tree.sidecar.get() {
            sidecar.swept()?;
        }
        if self.volatile.swap(false, Ordering::Relaxed) {
            rustix::fs::syncfs(&self.work)?;
            work::clear_volatile(&*self.tree.dir_fd(WORK)?)?;
        }
        Ok(())
    }

    /// renameat2(2) between two directories of the tree.
    pub(super) fn rename_call(
        &self,
        from: (Id, Name<'_>),
        to: (Id, Name<'_>),
        flags: RenameFlags,
    ) -> Result<()> {
        let (old, new) = (self.tree.dir_fd(from.0)?, self.tree.dir_fd(to.0)?);
        let (from, to) = (from.1.as_bytes(), to.1.as_bytes());
        Ok(rustix::fs::renameat_with(&*old, from, &*new, to, flags)?)
    }

    /// A rename whose target may be a whiteout in the way of a directory: the two change places
    /// then, which leaves the whiteout at the old name.
    pub(super) fn rename_over(
        &self,
        from: (Id, Name<'_>),
        to: (Id, Name<'_>),
        leave_whiteout: bool,
    ) -> Result<()> {
        let flags = if leave_whiteout { RenameFlags::WHITEOUT } else { RenameFlags::empty() };
        match self.losing(to.0, to.1, || self.rename_call(from, to, flags)) {
            Err(error) if error.errno() == Errno::ENOTDIR => {}
            result => return result,
        }
        let Lookup::Whiteout(crate::layer::WhiteoutForm::Entry) = self.lookup_raw(to)? else {
            return Err(Errno::ENOTDIR.into());
        };
        self.rename_call(from, to, RenameFlags::EXCHANGE)?;
        if !leave_whiteout {
            // It hides nothing where it is now: no lower layer has that name.
            let fd = self.tree.dir_fd(from.0)?;
            rustix::fs::unlinkat(&*fd, from.1.as_bytes(), AtFlags::empty())?;
        }
        Ok(())
    }

    /// What is at a name, with no id taken.
    fn lookup_raw(&self, at: (Id, Name<'_>)) -> Result<Lookup> {
        let found = self.tree.lookup(at.0, at.1)?;
        if let Lookup::Found(entry) = &found {
            self.tree.forget(entry.id);
        }
        Ok(found)
    }

    /// Does something in a directory; with `quiet` its times are afterwards what they were.
    fn quietly<T>(&self, dir: Id, quiet: bool, act: impl FnOnce() -> Result<T>) -> Result<T> {
        if !quiet {
            return act();
        }
        let fd = self.tree.dir_fd(dir)?;
        let before = Object::dir(&*fd).stat()?.attr;
        let done = act()?;
        let (atime, mtime) = (SetTime::At(before.atime), SetTime::At(before.mtime));
        if let Err(error) = Object::dir(&*fd).set_times(Some(atime), Some(mtime)) {
            // What was to be done is done; a directory's time is not worth undoing it.
            tracing::warn!(%error, "cannot set a directory's times back");
        }
        Ok(done)
    }

    /// See [`Upper::unpin`]. By the name that is known if that still leads there, else by the file
    /// handle where we may: a tree of hard links that is removed must not cost a descriptor a file.
    fn unpin_named(&self, id: Id) {
        if !self.tree.descriptors.is_pinned(id) {
            return;
        }
        if self.leads_there(id).unwrap_or(false) {
            return self.tree.descriptors.unpin(id);
        }
        let opens = |handle: &FileHandle| {
            self.tree.readable.get().is_some_and(|on| handle::open(on, handle).is_ok())
        };
        match self.tree.on(id, |object, _| handle::of(object)) {
            Ok(Some(handle)) if opens(&handle) => self.tree.descriptors.pin_by_handle(id, handle),
            _ => tracing::debug!(?id, "kept open: found by no name that is known"),
        }
    }

    /// Whether the object is where its slot says.
    fn leads_there(&self, id: Id) -> Result<bool> {
        let spot = self.tree.slots.get(id)?;
        let Some(name) = &spot.name else { return Ok(false) };
        let dir = self.tree.dir_fd(spot.parent)?;
        let attr = Object::Entry(dir.as_fd(), name.as_bytes()).stat()?.attr;
        Ok(spot.ino != 0 && attr.ino == spot.ino)
    }
}

/// Finds out whether the marks in the work directory are those of this upper directory, and whether
/// all have to lie there.
fn accept_marks(
    sidecar: &Sidecar,
    namespace: Option<Namespace>,
    staging: &OwnedFd,
    upper: &Path,
) -> Result<()> {
    let of_sidecar = || "marks in the workdir";
    if sidecar.was_copied().context(of_sidecar)? {
        if sidecar.has_all() {
            return Err(sidecar::copied(upper));
        }
        tracing::warn!(
            upper = %upper.display(),
            "the upperdir was copied: symbolic links, FIFOs, sockets and devices that came from a \
             lower layer show other inode numbers, hard links among them part, and one whose name \
             begins with .wh. does not show"
        );
        // Redirects among them are not given up: this may be the original, somehow disguised.
        if !work::has_aside(staging) {
            sidecar.sweep(&HashSet::new()).context(of_sidecar)?;
        }
    }
    if namespace.is_none() {
        tracing::warn!(
            upper = %upper.display(),
            "its filesystem has no extended attributes: what is deleted or renamed is noted in the \
             workdir. All works, but users' attributes cannot be set (EOPNOTSUPP), files that have \
             some cannot be copied up, and a copy of the directories cannot be mounted"
        );
        work::mark_aside(staging).context(of_sidecar)?;
        sidecar.take_all().context(of_sidecar)?;
    }
    Ok(())
}

/// Refuses an upper and a work directory of which one lies in the other.
fn refuse_nested(upper: &Path, work: &Path) -> Result<()> {
    let real = |path: &Path| path.canonicalize().context(|| path.display().to_string());
    let (one, other) = (real(upper)?, real(work)?);
    if one.starts_with(&other) || other.starts_with(&one) {
        let text = format!(
            "upperdir {} and workdir {} lie in one another; use two directories side by side",
            upper.display(),
            work.display()
        );
        return Err(Error::new(Errno::EINVAL, text));
    }
    Ok(())
}

impl Upper for DirUpper {
    fn as_layer(self: Arc<Self>) -> Arc<dyn Layer> {
        self
    }

    fn create(&self, dir: Id, name: Name<'_>, new: &New<'_>) -> Result<Entry> {
        self.create_at(dir, name, new)
    }

    fn create_open(
        &self,
        dir: Id,
        name: Name<'_>,
        new: &New<'_>,
    ) -> Result<(Entry, Arc<dyn Data>)> {
        let (entry, data) = self.create_file(dir, name, new)?;
        Ok((entry, Arc::new(data)))
    }

    fn sync_marks(&self) -> Result<()> {
        self.tree.sidecar.get().map_or(Ok(()), Sidecar::sync)
    }

    fn sync_dir(&self, id: Id) -> Result<()> {
        self.sync_marks()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let open = Object::dir(&*self.tree.dir_fd(id)?).open(flags)?;
        Ok(rustix::fs::fsync(open)?)
    }

    fn stage(&self, new: &New<'_>) -> Result<Staged> {
        self.stage_new(new)
    }

    fn stage_link(&self, id: Id) -> Result<Staged> {
        let work = self.tree.dir_fd(WORK)?;
        let temp =
            self.with_temp(|temp| self.tree.on(id, |object, _| object.link(work.as_fd(), temp)))?;
        let spot = self.tree.slots.get(id)?;
        let flags = spot.flags.with(Flags::LINKED, true);
        let id = self.tree.insert(WORK, temp.clone(), spot.kind, spot.ino, flags)?;
        Ok(Staged { id, temp: Some(temp) })
    }

    fn publish(
        &self,
        staged: &mut Staged,
        dir: Id,
        name: Name<'_>,
        how: How,
        quiet: bool,
    ) -> Result<()> {
        let Some(temp) = staged.temp.clone() else {
            return Err(crate::bug!("published twice"));
        };
        self.prepare(staged.id, dir, name)?;
        let flags = match how {
            How::NoReplace => RenameFlags::NOREPLACE,
            How::Replace => RenameFlags::empty(),
            How::Exchange => RenameFlags::EXCHANGE,
        };
        let from = (WORK, temp.as_name());
        let rename = || self.rename_call(from, (dir, name), flags);
        self.quietly(dir, quiet, || {
            self.tree.moving(
                || if how == How::Replace { self.losing(dir, name, rename) } else { rename() },
                |()| self.tree.relocate(staged.id, dir, name.to_buf()),
            )
        })?;
        if how != How::Exchange {
            staged.temp = None;
        }
        let linked = self.tree.slots.get(staged.id)?.flags.has(Flags::LINKED);
        if how == How::Replace && linked {
            // A rename onto a name of the same inode does nothing: both names are there.
            self.discard_temp(temp.as_name());
        }
        Ok(())
    }

    fn discard(&self, staged: Staged) {
        if let Some(temp) = staged.temp {
            self.discard_temp(temp.as_name());
        }
        self.tree.forget(staged.id);
    }

    fn discard_temp(&self, temp: Name<'_>) {
        let work = self.tree.dir_fd(WORK);
        let removed = work.and_then(|work| {
            self.losing(WORK, temp, || work::remove(work.as_fd(), temp.as_bytes()))
        });
        if let Err(error) = removed {
            tracing::warn!(%temp, %error, "left in the work directory for the next mount to sweep");
        }
    }

    fn whiteout(&self, dir: Id, name: Name<'_>, replace: bool) -> Result<()> {
        self.put_whiteout(dir, name, replace)
    }

    fn clear_whiteout(&self, dir: Id, name: Name<'_>) -> Result<()> {
        self.remove_whiteout(dir, name)
    }

    fn rename(
        &self,
        from: (Id, Name<'_>),
        moved: Id,
        to: (Id, Name<'_>),
        other: Option<Id>,
        how: RenameHow,
    ) -> Result<()> {
        self.prepare(moved, to.0, to.1)?;
        if let (RenameHow::Exchange, Some(other)) = (how, other) {
            self.prepare(other, from.0, from.1)?;
        }
        let call = || match how {
            RenameHow::Replace => self.rename_over(from, to, false),
            RenameHow::Exchange if other.is_none() => self.exchange_whiteout(from, to),
            RenameHow::Exchange => self.rename_call(from, to, RenameFlags::EXCHANGE),
            RenameHow::Whiteout if self.encoding.rename_whiteout => {
                self.rename_over(from, to, true)
            }
            RenameHow::Whiteout => self.rename_then_whiteout(from, moved, to),
            RenameHow::Device { uid, gid } => self.rename_leaving(from, to, (uid, gid)),
        };
        self.tree.moving(call, |()| {
            self.tree.relocate(moved, to.0, to.1.to_buf())?;
            match other {
                Some(other) if how == RenameHow::Exchange => {
                    self.tree.relocate(other, from.0, from.1.to_buf())
                }
                _ => Ok(()),
            }
        })
    }

    fn clear_opaque_entry(&self, dir: Id) -> Result<()> {
        self.remove_opaque_entry(dir)
    }

    fn link(&self, id: Id, dir: Id, name: Name<'_>, quiet: bool) -> Result<()> {
        self.prepare(id, dir, name)?;
        let fd = self.tree.dir_fd(dir)?;
        self.quietly(dir, quiet, || {
            self.tree.on(id, |object, _| object.link(fd.as_fd(), name.as_bytes()))
        })?;
        // Whoever writes to a temporary name, links it to the real one and removes the temporary
        // one (as git does) leaves the newest name. What is in the index never loses that name.
        if self.tree.slots.get(id)?.parent != INDEX {
            self.tree.relocate(id, dir, name.to_buf())?;
        }
        Ok(())
    }

    fn unlink(&self, dir: Id, name: Name<'_>) -> Result<()> {
        let fd = self.tree.dir_fd(dir)?;
        let unlink = || Ok(rustix::fs::unlinkat(&*fd, name.as_bytes(), AtFlags::empty())?);
        self.losing(dir, name, unlink)
    }

    fn rmdir(&self, dir: Id, name: Name<'_>) -> Result<()> {
        let fd = self.tree.dir_fd(dir)?;
        let rmdir = || match rustix::fs::unlinkat(&*fd, name.as_bytes(), AtFlags::REMOVEDIR) {
            Err(Raw::EXIST) => Err(Errno::ENOTEMPTY.into()),
            result => Ok(result?),
        };
        self.losing(dir, name, rmdir)
    }

    fn withdraw(&self, dir: Id, name: Name<'_>) -> Result<Staged> {
        let Lookup::Found(entry) = self.tree.lookup(dir, name)? else {
            return Err(Errno::ENOENT.into());
        };
        let withdrawn = self.with_temp(|temp| {
            let temp = Name::new(temp)?;
            self.tree.moving(
                || self.rename_call((dir, name), (WORK, temp), RenameFlags::NOREPLACE),
                |()| self.tree.relocate(entry.id, WORK, temp.to_buf()),
            )
        });
        match withdrawn {
            Ok(temp) => Ok(Staged { id: entry.id, temp: Some(temp) }),
            Err(error) => {
                self.tree.forget(entry.id);
                Err(error)
            }
        }
    }

    fn pin(&self, id: Id) -> Result<()> {
        if id == ROOT || id == WORK || id == INDEX || self.tree.descriptors.is_pinned(id) {
            return Ok(());
        }
        let fd = self.tree.on(id, |object, spot| {
            let fd = object.pin()?;
            let attr = Object::Itself(fd.as_fd()).stat()?.attr;
            if spot.ino != 0 && attr.ino != spot.ino {
                return Err(Errno::ESTALE.into());
            }
            Ok(fd)
        })?;
        self.tree.descriptors.pin(id, Arc::new(fd));
        Ok(())
    }

    fn unpin(&self, id: Id) {
        self.unpin_named(id);
    }

    fn rebind(&self, id: Id, other: Id) {
        if id == other {
            return;
        }
        match self.tree.slots.rebind(id, other) {
            Ok(freed) => {
                self.tree.descriptors.remove(&freed);
                self.tree.descriptors.unpin(id);
            }
            Err(error) => tracing::debug!(?id, ?other, %error, "cannot be found there"),
        }
    }

    fn setattr(&self, id: Id, set: &SetAttr) -> Result<Attr> {
        self.tree.on(id, |object, spot| {
            if let Some(size) = set.size {
                if spot.kind != Kind::File {
                    return Err(Errno::EINVAL.into());
                }
                object.truncate(size)?;
            }
            if set.uid.is_some() || set.gid.is_some() {
                object.chown(set.uid, set.gid)?;
            }
            if let Some(perm) = set.perm {
                self.set_perm(id, object, spot, perm)?;
                if spot.kind == Kind::Dir && u32::from(perm) & libc::S_ISGID != 0 {
                    self.tree.slots.clear_flag(Flags::PLAIN);
                }
            }
            if set.atime.is_some() || set.mtime.is_some() {
                object.set_times(set.atime, set.mtime)?;
            }
            // With what the change has made of its flags.
            self.tree.attr_at(object, &self.tree.slots.get(id)?)
        })
    }

    fn setxattr(&self, id: Id, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        if name == marks::DEFAULT_ACL {
            // Before it is there: what is made in the directory meanwhile is staged needlessly.
            self.tree.slots.clear_flag(Flags::PLAIN);
        }
        self.tree.on(id, |object, spot| {
            if name == ACL {
                return self.set_acl(id, object, spot, value, flags);
            }
            xattr::set(object, name, value, flags)
        })
    }

    fn removexattr(&self, id: Id, name: &[u8]) -> Result<()> {
        self.tree.on(id, |object, _| xattr::remove(object, name))
    }

    fn set_mark(&self, id: Id, mark: &Mark<'_>) -> Result<()> {
        self.set_mark_on(id, mark)
    }

    fn clear_metacopy(&self, id: Id) -> Result<()> {
        // In this order: a redirect without metacopy means nothing on a file.
        [Tag::Metacopy, Tag::Redirect]
            .into_iter()
            .try_for_each(|tag| self.tree.on(id, |object, _| self.clear(object, Kind::File, tag)))
    }

    fn open_write(&self, id: Id) -> Result<Arc<dyn Data>> {
        Ok(Arc::new(self.tree.open(id, true)?))
    }

    fn index(&self) -> Result<Id> {
        if self.tree.dir_fd(INDEX).is_err() {
            let index = work::subdirectory(&self.work, "index")?;
            let object = Object::dir(&index);
            let (attr, decoded) = (object.stat()?.attr, self.tree.decode(object, Kind::Dir)?);
            self.tree.set_anchor(INDEX, index);
            self.tree.note_dir(INDEX, &attr, &decoded);
        }
        Ok(INDEX)
    }

    fn sync(&self) -> Result<()> {
        Ok(rustix::fs::syncfs(&self.work)?)
    }
}
