//! Copy-up: making the upper layer hold an object before it is changed.
//!
//! The copy is made in the work directory, complete, and published by one step. Ancestors are
//! copied up first, from the top; nothing but the latch of the node being copied is held, and its
//! place is read again once the latch is.

use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLockReadGuard};

use crate::attr::{Attr, Kind, SetAttr, SetTime};
use crate::errno::{Errno, Error, Result};
use crate::layer::{Data, Held, How, Id, Layer, Mark, New, Nlink, NlinkBase, Seek, Staged};
use crate::layer::{What, marks};
use crate::name::Name;

use super::index::{index_key, origin_of};
use super::node::{Links, Lower, Node, Orphan, Place, UpperRef};
use super::{Durability, Metacopy, Union, interrupt};

/// Bytes copied between two looks at whether to go on.
const PIECE: u64 = 8 << 20;

/// Security attributes that a write to the file removes: set after the data.
const CAPABILITY: &[u8] = b"security.capability";

/// How much of a regular file a copy-up copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// All but its data, which are read from below until they are changed.
    Metadata,
    /// The first so many bytes, too.
    Bytes(u64),
}

impl Union {
    /// The node's object in the upper layer, with all its content.
    pub(super) fn ensure_upper(&self, node: &Arc<Node>) -> Result<Id> {
        self.ensure_part(node, Part::Bytes(u64::MAX))
    }

    /// As [`ensure_upper`](Self::ensure_upper), but of a regular file that must be copied now, only
    /// the first `len` bytes: the caller truncates it to that.
    pub(super) fn ensure_upper_len(&self, node: &Arc<Node>, len: u64) -> Result<Id> {
        self.ensure_part(node, Part::Bytes(len))
    }

    /// As [`ensure_upper`](Self::ensure_upper), but of a regular file only the metadata: the caller
    /// changes nothing else.
    pub(super) fn ensure_upper_metadata(&self, node: &Arc<Node>) -> Result<Id> {
        self.ensure_part(node, Part::Metadata)
    }

    fn ensure_part(&self, node: &Arc<Node>, part: Part) -> Result<Id> {
        self.writable()?;
        let mut chain = vec![Arc::clone(node)];
        loop {
            let Some(top) = chain.last().cloned() else { return self.upper_id(node) };
            let (done, place) = {
                let state = top.state()?;
                let enough = !state.metacopy || (chain.len() == 1 && part == Part::Metadata);
                (state.upper.is_some() && enough, state.place.clone())
            };
            if done {
                chain.pop();
                continue;
            }
            if let Some(place) = place
                && place.parent.upper()?.is_none()
            {
                chain.push(place.parent);
                continue;
            }
            let part = if chain.len() == 1 { part } else { Part::Bytes(u64::MAX) };
            self.copy_up(&top, part)?;
        }
    }

    fn upper_id(&self, node: &Node) -> Result<Id> {
        match node.upper()? {
            Some(upper) => Ok(upper.id()),
            None => Err(crate::bug!("no upper object after a copy-up")),
        }
    }

    /// Copies one node up whose parent is. Does nothing if its place changed meanwhile: the caller
    /// looks again.
    fn copy_up(&self, node: &Arc<Node>, part: Part) -> Result<()> {
        self.roomy()?;
        let _latch = node.latch_write_or_stop()?;
        let (upper, place, metacopy, lowers) = {
            let state = node.state()?;
            (state.upper.clone(), state.place.clone(), state.metacopy, state.lowers.clone())
        };
        if let Some(upper) = upper {
            return match part {
                Part::Bytes(len) if metacopy => self.fill(node, &upper, len),
                _ => Ok(()),
            };
        }
        let Some(lowers) = lowers.filter(|lowers| !lowers.is_empty()) else {
            return Err(crate::bug!("a node without any object"));
        };
        let Some(place) = place else { return self.copy_orphan(node, &lowers, part) };
        let Some(parent) = place.parent.upper()? else { return Ok(()) };
        let copied = self.copy_to(node, &lowers, &place, parent.id(), part);
        copied.map_err(|error| {
            let name = place.name.as_name();
            tracing::debug!(name = %name, %error, "copy-up failed");
            error
        })
    }

    fn copy_to(
        &self,
        node: &Arc<Node>,
        lowers: &[Lower],
        place: &Place,
        dir: Id,
        part: Part,
    ) -> Result<()> {
        let upper = self.writable()?;
        let Some(top) = lowers.first() else { return Err(Errno::EIO.into()) };
        let attr = top.layer().attr(top.id())?;
        let linked = attr.nlink > 1 && node.kind != Kind::Dir;
        let part = self.part_to_copy(node.kind, &attr, part);
        let mut staged = self.stage_copy(node, lowers, &attr, part, linked)?;
        let real = upper.attr(staged.id).map(|attr| attr.ino);
        let name = place.name.as_name();
        let published = real.and_then(|real| {
            // The directory's times are put back after the publish: not while somebody else makes
            // or removes an entry, whose time would be lost.
            let _entries = place.parent.latch_write()?;
            self.note_impure(&place.parent, dir)?;
            let published = if linked {
                self.publish_linked(&mut staged, top, (dir, name), attr.nlink)
            } else {
                upper.publish(&mut staged, dir, name, How::NoReplace, true).map(|()| None)
            };
            // Before the latch is given back: a listing of the version before says that the name
            // is in a lower layer only, and the upper is not asked then.
            place.parent.changed();
            Ok((real, published?))
        });
        let (real, links) = match published {
            Ok(published) => published,
            Err(error) => {
                upper.discard(staged);
                return Err(error);
            }
        };
        if links.is_some() {
            self.links_changed();
        }
        let copy = Self::upper_ref(upper, staged.id, real);
        if part == Part::Metadata {
            let mut state = node.state()?;
            state.upper = Some(copy);
            // Who has it open goes on reading what lies below.
            state.metacopy = true;
            return Ok(());
        }
        self.switch(node, copy, links)
    }

    /// Whether metadata alone will do. Not of a file with several names: the index leads to its
    /// copy from names under which the data could not be found. Nor of an empty one, whose data
    /// cost nothing.
    fn part_to_copy(&self, kind: Kind, attr: &Attr, part: Part) -> Part {
        let possible = self.options.metacopy == Metacopy::On
            && kind == Kind::File
            && attr.nlink == 1
            && attr.size > 0;
        match part {
            Part::Metadata if !possible => Part::Bytes(u64::MAX),
            part => part,
        }
    }

    /// Publishes the copy of a hard link: into the index first, then at its name. Between the two,
    /// the index already answers for every name.
    fn publish_linked(
        &self,
        staged: &mut Staged,
        lower: &Lower,
        at: (Id, Name<'_>),
        count: u32,
    ) -> Result<Option<Links>> {
        let upper = self.writable()?;
        let key = index_key(lower)?;
        upper.publish(staged, upper.index()?, key.as_name(), How::NoReplace, true)?;
        if let Err(error) = upper.link(staged.id, at.0, at.1, true) {
            // The copy is complete and reachable by the index: a name of its own is a convenience
            // for whoever reads the upper alone.
            tracing::warn!(name = %at.1, %error, "copied-up hard link has no name in the upper");
        }
        if let Err(error) = Self::count_by_upper(&**upper, staged.id, count) {
            // From the index on there is no way back, and none is needed: relative to the lower
            // count the number is as right. Whatever changes it writes it anew first.
            tracing::warn!(name = %at.1, %error, "link count stays relative to the lower one");
        }
        Ok(Some(Links { key: Some(key), count }))
    }

    /// The copy of a file whose last name is gone, for those who have it open: it never leaves the
    /// work directory, and is discarded with the node.
    fn copy_orphan(&self, node: &Arc<Node>, lowers: &[Lower], part: Part) -> Result<()> {
        let part = if part == Part::Metadata { Part::Bytes(u64::MAX) } else { part };
        let upper = self.writable()?;
        let Some(top) = lowers.first() else { return Err(Errno::EIO.into()) };
        let attr = top.layer().attr(top.id())?;
        let staged = self.stage_copy(node, lowers, &attr, part, false)?;
        let id = staged.id;
        let orphan = Orphan::new(Arc::clone(upper), staged, false);
        let real_ino = upper.attr(id)?.ino;
        // The orphan gives back the one reference that the staged object carries.
        let held = Arc::new(Held::borrowed(Arc::clone(upper).as_layer(), id));
        node.state()?.ext().orphan = Some(orphan);
        self.switch(node, UpperRef { held, real_ino }, None)
    }

    /// Makes a copy, complete as far as it goes, in the work directory.
    fn stage_copy(
        &self,
        node: &Node,
        lowers: &[Lower],
        attr: &Attr,
        part: Part,
        linked: bool,
    ) -> Result<Staged> {
        let upper = self.writable()?;
        let (Some(top), Some(data)) = (lowers.first(), lowers.last()) else {
            return Err(Errno::EIO.into());
        };
        let target;
        let what = match node.kind {
            Kind::File => What::File,
            Kind::Dir => What::Dir,
            Kind::Symlink => {
                target = top.layer().readlink(top.id())?;
                What::Symlink(&target)
            }
            kind => What::Node(kind, attr.rdev),
        };
        let xattrs = visible_xattrs(&**top.layer(), top.id())?;
        // The origin's handle is what names a hard link in the index; elsewhere the number says all
        // that is needed, and both together would not fit into an ext4 inode.
        let origin = if linked { origin_of(top)? } else { Vec::new() };
        let mut marks = vec![Mark::Ino(node.ino)];
        if linked {
            marks.push(Mark::Origin(&origin));
            marks.push(Mark::LowerNlink(attr.nlink));
            marks.push(Mark::Nlink(Nlink { base: NlinkBase::Lower, delta: 0 }));
        }
        if part == Part::Metadata {
            marks.push(Mark::Metacopy);
        }
        // A file is closed to everybody until its data are there, and its attributes are set after
        // them: a write removes capabilities and may clear set-id bits.
        let file = node.kind == Kind::File;
        let (early, perm): (&[_], u16) = if file { (&[], 0o600) } else { (&xattrs, attr.perm) };
        let (uid, gid) = (attr.uid, attr.gid);
        let staged = upper.stage(&New { what, perm, uid, gid, xattrs: early, marks: &marks })?;
        let finished = if file {
            match part {
                Part::Metadata => self.fill_metadata(&staged, attr, &xattrs),
                Part::Bytes(len) => self.fill_file(&staged, data, attr, len, &xattrs),
            }
        } else {
            upper.setattr(staged.id, &times_of(attr)).map(drop)
        };
        match finished {
            Ok(()) => Ok(staged),
            Err(error) => {
                upper.discard(staged);
                Err(error)
            }
        }
    }

    /// Gives a file without data its size, and all that it shows but them.
    fn fill_metadata(
        &self,
        staged: &Staged,
        attr: &Attr,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<()> {
        let upper = self.writable()?;
        upper.open_write(staged.id)?.set_len(attr.size)?;
        for (name, value) in xattrs {
            upper.setxattr(staged.id, name, value, 0)?;
        }
        upper.setattr(staged.id, &SetAttr { perm: Some(attr.perm), ..times_of(attr) }).map(drop)
    }

    fn fill_file(
        &self,
        staged: &Staged,
        source: &Lower,
        attr: &Attr,
        len: u64,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<()> {
        let upper = self.writable()?;
        let len = len.min(attr.size);
        let copy = upper.open_write(staged.id)?;
        // Not opened for nothing: it may be one that its owner can write, and not read.
        if len > 0 {
            self.copy_data(&*source.layer().open(source.id())?, &*copy, attr, len)?;
        }
        for (name, value) in xattrs {
            upper.setxattr(staged.id, name, value, 0)?;
        }
        // A copy that is cut short is a change already: what a crash leaves must not carry the time
        // of the whole.
        let times = if len < attr.size { SetAttr::default() } else { times_of(attr) };
        upper.setattr(staged.id, &SetAttr { perm: Some(attr.perm), ..times })?;
        if self.options.durability != Durability::Volatile && len > 0 {
            copy.sync(false)?;
        }
        Ok(())
    }

    /// Copies the first `len` bytes: shared blocks where the filesystem can, else the data without
    /// the holes between them.
    fn copy_data(&self, from: &dyn Data, to: &dyn Data, attr: &Attr, len: u64) -> Result<()> {
        let _counted = Counted::new(&self.copying);
        if len == attr.size && to.reflink_from(from).is_ok() {
            return Ok(());
        }
        let sparse = attr.blocks.saturating_mul(512) < attr.size;
        let mut at = 0;
        while at < len {
            let (start, end) = if sparse { extent(from, at)? } else { (at, len) };
            if start >= len {
                break;
            }
            at = start;
            while at < end.min(len) {
                interrupt::check()?;
                let copied = to.copy_from(from, at, at, PIECE.min(end.min(len) - at))?;
                if copied == 0 {
                    return Err(Error::new(Errno::EIO, "a lower file shrank while it was copied"));
                }
                at += copied;
            }
        }
        to.set_len(len)
    }

    /// Keeps the data of a metacopy file from being filled in while its metadata are changed: the
    /// filling ends by setting those that it found when it began.
    pub(super) fn not_while_filled(node: &Node) -> Result<Option<RwLockReadGuard<'_, ()>>> {
        let metacopy = node.state()?.metacopy;
        metacopy.then(|| node.latch_read()).transpose()
    }

    /// Gives a metacopy file its data, in place. Until the mark is gone they are not looked at, so
    /// a crash in between changes nothing.
    fn fill(&self, node: &Arc<Node>, copy: &UpperRef, len: u64) -> Result<()> {
        let upper = self.writable()?;
        let lowers = node.state()?.lowers.clone();
        let data = lowers.as_deref().and_then(<[Lower]>::last);
        let Some(data) = data else { return Err(crate::bug!("a metacopy file without data")) };
        let attr = upper.attr(copy.id())?;
        let len = len.min(attr.size);
        let source = if len > 0 { Some(data.layer().open(data.id())?) } else { None };
        let to = upper.open_write(copy.id())?;
        let capability = upper.getxattr(copy.id(), CAPABILITY)?;
        let copied = if let Some(source) = source {
            let origin = data.layer().attr(data.id())?;
            let attr = Attr { size: origin.size, blocks: origin.blocks, ..attr };
            self.copy_data(&*source, &*to, &attr, len)
        } else {
            Ok(())
        };
        // Not to the full size: a tail of zeros is neither the old content nor the new one. But if
        // it failed, the file is as before.
        let size = if copied.is_ok() { len } else { attr.size };
        to.set_len(size)?;
        if let Some(value) = capability {
            upper.setxattr(copy.id(), CAPABILITY, &value, 0)?;
        }
        let times = if size < attr.size { SetAttr::default() } else { times_of(&attr) };
        upper.setattr(copy.id(), &SetAttr { perm: Some(attr.perm), ..times })?;
        copied?;
        if self.options.durability != Durability::Volatile {
            to.sync(false)?;
        }
        upper.clear_metacopy(copy.id())?;
        self.switch(node, copy.clone(), None)
    }

    /// From now on the node is the copy: for its earlier readers, too.
    fn switch(&self, node: &Arc<Node>, copy: UpperRef, links: Option<Links>) -> Result<()> {
        let upper = self.writable()?;
        let id = copy.id();
        let mut state = node.state()?;
        state.upper = Some(copy);
        state.metacopy = false;
        if node.kind != Kind::Dir {
            state.lowers = None;
        }
        if links.is_some() {
            state.ext().links = links;
        }
        let Some(open) = state.open.as_mut() else { return Ok(()) };
        // At once: others may change the copy before it is opened here.
        open.stale = true;
        drop(state);
        let file = upper.open_write(id);
        let mut state = node.state()?;
        if let Some(open) = state.open.as_mut() {
            // Never serve old bytes: without the file, whoever reads next opens anew, or gets this
            // error.
            if let Ok(file) = file {
                (open.file, open.writable, open.stale) = (file, true, false);
            }
        }
        Ok(())
    }

    /// Marks the upper directory `dir` as holding objects that show another inode number than their
    /// own.
    pub(super) fn note_impure(&self, node: &Node, dir: Id) -> Result<()> {
        if node.state()?.impure {
            return Ok(());
        }
        self.writable()?.set_mark(dir, &Mark::Impure)?;
        node.state()?.impure = true;
        Ok(())
    }

    /// Whether the node shows another inode number than its upper object has.
    pub(super) fn is_foreign(&self, node: &Node) -> Result<bool> {
        let device = self.writable()?.fs();
        Ok(node
            .upper()?
            .is_some_and(|upper| self.live.inos.map(device, upper.real_ino) != node.ino))
    }
}

/// The extended attributes that belong to the object and not to a layer's format, as stored.
pub(super) fn visible_xattrs(layer: &dyn Layer, id: Id) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut visible = Vec::new();
    for name in layer.listxattr(id)? {
        if marks::unescape(&name).is_none() {
            continue;
        }
        if let Some(value) = layer.getxattr(id, &name)? {
            visible.push((name, value));
        }
    }
    Ok(visible)
}

fn times_of(attr: &Attr) -> SetAttr {
    let (atime, mtime) = (Some(SetTime::At(attr.atime)), Some(SetTime::At(attr.mtime)));
    SetAttr { atime, mtime, ..SetAttr::default() }
}

/// The next stretch of data at or after `at`; an empty one at the end.
fn extent(data: &dyn Data, at: u64) -> Result<(u64, u64)> {
    let start = match data.seek(at, Seek::Data) {
        Ok(start) => start,
        Err(error) if error.errno() == Errno::ENXIO => return Ok((u64::MAX, u64::MAX)),
        Err(error) => return Err(error),
    };
    let end = data.seek(start, Seek::Hole)?;
    Ok((start, end.max(start + 1)))
}

/// Counts a copy-up while it lives.
struct Counted<'a>(&'a std::sync::atomic::AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a std::sync::atomic::AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
