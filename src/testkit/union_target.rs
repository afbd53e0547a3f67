//! A union as a target: driven as the kernel drives it, one lookup a component, each forgotten.

use std::collections::BTreeMap;
use std::fmt;

use super::op::{Op, SLOTS, xattr_name, xattr_value};
use super::place::Place;
use super::run::{Outcome, Target, not_a_file, stat, xattr_rule};
use super::tree::{Seen, shown_time};
use crate::attr::{Attr, Kind, SetAttr, SetTime, Time};
use crate::errno::{Errno, Result};
use crate::name::Name;
use crate::union::ids::{IdMap, Ids, Range};
use crate::union::{Caller, Found, Handle, Mode, NodeId, Options, RenameFlag, Stack, Union};

/// How far ids are shifted in a mount that shifts them, and how many: more than operations use.
const SHIFT: u32 = 100_000;
const IDS: u32 = 70_000;

/// The attribute that names a user.
const CAPABILITY: &[u8] = b"security.capability";

/// A file kept open.
#[derive(Clone, Copy)]
struct HeldFile {
    node: NodeId,
    handle: Handle,
    write: bool,
}

/// A union over any layers. Remounting drops it and builds a new one over what `stack` gives.
pub struct UnionTarget {
    stack: Box<dyn FnMut() -> Stack>,
    leaks: Box<dyn Fn() -> Vec<String>>,
    union: Option<Union>,
    held: BTreeMap<u8, HeldFile>,
    plus: bool,
    /// What is added to the ids that the layers hold.
    shift: u32,
    /// Who makes what is made; root, unless somebody else is named.
    caller: Caller,
}

impl fmt::Debug for UnionTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnionTarget").finish_non_exhaustive()
    }
}

impl UnionTarget {
    /// Mounts what `stack` gives, at once and at each remount. `leaks` is asked when the union is
    /// gone: what of the layers is still referenced, staged or open.
    pub fn new(
        stack: impl FnMut() -> Stack + 'static,
        leaks: impl Fn() -> Vec<String> + 'static,
    ) -> Self {
        let (stack, leaks) = (Box::new(stack), Box::new(leaks));
        let held = BTreeMap::new();
        let caller = Caller { uid: 0, gid: 0 };
        let mut this = Self { stack, leaks, union: None, held, plus: false, shift: 0, caller };
        this.mount();
        this
    }

    /// As [`new`](Self::new), with all ids shifted: done and seen by a container to which they are
    /// what they are in the layers.
    pub fn shifted(
        stack: impl FnMut() -> Stack + 'static,
        leaks: impl Fn() -> Vec<String> + 'static,
    ) -> Self {
        let mut this = Self::new(stack, leaks);
        this.unmount();
        this.shift = SHIFT;
        this.mount();
        this
    }

    /// What is made from now on is made by this user.
    pub fn act_as(&mut self, caller: Caller) {
        self.caller = caller;
    }

    fn mount(&mut self) {
        let mut options = Options::default();
        if self.shift != 0 {
            let range = Range { stored: 0, shown: self.shift, len: IDS };
            let map = IdMap::new(vec![range]).expect("is one range");
            options.ids = Ids { users: map.clone(), groups: map };
        }
        self.union = Some(Union::new((self.stack)(), options).expect("mounts"));
    }

    /// Who makes what is made, as the container's host numbers him.
    fn maker(&self) -> Caller {
        Caller { uid: self.caller.uid + self.shift, gid: self.caller.gid + self.shift }
    }

    /// An attribute's value as the kernel hands it on for a container whose root is another user.
    fn handed(&self, name: &[u8], value: Vec<u8>) -> Vec<u8> {
        if self.shift == 0 || name != CAPABILITY || value.get(3) != Some(&2) {
            return value;
        }
        let mut value = value;
        value[3] = 3;
        value.extend(self.shift.to_le_bytes());
        value
    }

    /// The other way round.
    fn taken(&self, name: &[u8], mut value: Vec<u8>) -> Vec<u8> {
        if name == CAPABILITY && value.ends_with(&self.shift.to_le_bytes()) && self.shift != 0 {
            value.truncate(value.len() - 4);
            value[3] = 2;
        }
        value
    }

    /// The union itself.
    pub fn union(&self) -> &Union {
        self.union.as_ref().expect("is mounted")
    }

    /// Closes what is open and drops the union.
    ///
    /// # Panics
    /// If a node was not forgotten, or something of the layers is still referenced.
    pub fn unmount(&mut self) {
        for slot in 0..SLOTS {
            self.close(slot);
        }
        let union = self.union.take().expect("is mounted");
        assert_eq!(union.node_count(), 1, "nodes that nobody knows any more");
        union.sync().expect("syncs");
        drop(union);
        let leaks = (self.leaks)();
        assert!(leaks.is_empty(), "left behind by the union: {leaks:?}");
    }

    fn close(&mut self, slot: u8) {
        if let Some(held) = self.held.remove(&slot) {
            self.union().release(held.node, held.handle).expect("closes");
            self.union().forget(held.node, 1);
        }
    }

    /// The node at a path, looked up once; its attributes.
    fn walk(&self, place: &Place) -> Result<(NodeId, Attr)> {
        let union = self.union();
        let mut node = union.root();
        for part in &place.0 {
            let found = Name::new(part).and_then(|name| union.lookup(node, name));
            union.forget(node, 1);
            node = found?.ok_or(Errno::ENOENT)?.node;
        }
        let attr = union.getattr(node);
        if attr.is_err() {
            union.forget(node, 1);
        }
        Ok((node, attr?))
    }

    fn at<T>(
        &self,
        place: &Place,
        f: impl FnOnce(&Union, NodeId, &Attr) -> Result<T>,
    ) -> Result<T> {
        let (node, attr) = self.walk(place)?;
        let result = f(self.union(), node, &attr);
        self.union().forget(node, 1);
        result
    }

    fn entry<T>(
        &self,
        place: &Place,
        f: impl FnOnce(&Union, NodeId, Name<'_>) -> Result<T>,
    ) -> Result<T> {
        let (dir, name) = place.split().ok_or(Errno::EBUSY)?;
        self.at(&dir, |union, dir, attr| {
            let kind = attr.kind;
            if kind != Kind::Dir {
                return Err(Errno::ENOTDIR.into());
            }
            f(union, dir, Name::new(name)?)
        })
    }

    fn make(
        &self,
        place: &Place,
        f: impl FnOnce(&Union, NodeId, Name<'_>) -> Result<Found>,
    ) -> Result<Outcome> {
        self.entry(place, |union, dir, name| {
            let found = f(union, dir, name)?;
            let again = union.lookup(dir, name)?.expect("was made just now");
            assert_eq!((again.node, again.attr), (found.node, found.attr), "made {place}");
            union.forget(found.node, 2);
            Ok(Outcome::Done)
        })
    }

    /// Opens a regular file, does something with it, closes it.
    fn open(
        &self,
        place: &Place,
        flags: i32,
        f: impl FnOnce(&Union, NodeId, Handle, u64) -> Result<Outcome>,
    ) -> Result<Outcome> {
        self.at(place, |union, node, attr| {
            if let Some(outcome) = not_a_file(attr.kind, flags & libc::O_ACCMODE != 0) {
                return Ok(outcome);
            }
            let handle = union.open(node, flags, false)?;
            let result = f(union, node, handle, attr.size);
            union.release(node, handle)?;
            result
        })
    }

    fn try_apply(&mut self, op: &Op<Place>) -> Result<Outcome> {
        match op {
            Op::Create(..) | Op::Mkdir(..) | Op::Symlink(..) | Op::Fifo(..) | Op::Char(..) => {
                self.try_make(op)
            }
            Op::Unlink(p) => self.entry(p, |u, dir, name| done(u.unlink(dir, name))),
            Op::Rmdir(p) => self.entry(p, |u, dir, name| done(u.rmdir(dir, name))),
            Op::Rename(p, q, flag) => self.rename(p, q, *flag),
            Op::Link(p, q) => self.at(p, |_, node, _| self.make_link(q, node)),
            Op::Hold(p, slot, write) => self.hold(p, *slot, *write),
            Op::HeldWrite(slot, ..)
            | Op::HeldTruncate(slot, _)
            | Op::HeldChmod(slot, _)
            | Op::HeldRead(slot)
            | Op::HeldStat(slot) => match self.held.get(slot) {
                Some(held) => self.on_held(op, *held),
                None => Ok(Outcome::Skipped),
            },
            Op::Drop(slot) => {
                self.close(*slot);
                Ok(Outcome::Done)
            }
            Op::Remount => {
                self.unmount();
                self.mount();
                Ok(Outcome::Done)
            }
            Op::Chmod(..) | Op::Chown(..) | Op::Utimens(..) => self.change_attr(op),
            Op::SetXattr(..) | Op::RemoveXattr(..) | Op::GetXattr(..) => self.on_xattr(op),
            _ => self.on_content(op),
        }
    }

    fn rename(&self, p: &Place, q: &Place, flag: RenameFlag) -> Result<Outcome> {
        self.entry(p, |_, from, from_name| {
            self.entry(q, |u, to, to_name| {
                // What the kernel finds before it asks, in its order.
                self.exists(u, from, from_name)?.then_some(()).ok_or(Errno::ENOENT)?;
                match (flag, self.exists(u, to, to_name)?) {
                    (RenameFlag::NoReplace | RenameFlag::Whiteout { replace: false, .. }, true) => {
                        return Err(Errno::EEXIST.into());
                    }
                    (RenameFlag::Exchange, false) => return Err(Errno::ENOENT.into()),
                    _ => {}
                }
                if p.depth() > q.depth() && p.0.starts_with(&q.0) && flag != RenameFlag::Exchange {
                    return Err(Errno::ENOTEMPTY.into());
                }
                let flag = match flag {
                    RenameFlag::Whiteout { replace, by } => {
                        let (uid, gid) = (by.uid + self.shift, by.gid + self.shift);
                        RenameFlag::Whiteout { replace, by: Caller { uid, gid } }
                    }
                    flag => flag,
                };
                done(u.rename((from, from_name), (to, to_name), flag))
            })
        })
    }

    fn exists(&self, u: &Union, dir: NodeId, name: Name<'_>) -> Result<bool> {
        let found = u.lookup(dir, name)?;
        if let Some(found) = &found {
            u.forget(found.node, 1);
        }
        Ok(found.is_some())
    }

    fn make_link(&self, q: &Place, node: NodeId) -> Result<Outcome> {
        self.make(q, |u, dir, name| {
            // The kernel finds an existing name before it asks.
            if self.exists(u, dir, name)? {
                return Err(Errno::EEXIST.into());
            }
            u.link(node, dir, name)
        })
    }

    fn try_make(&self, op: &Op<Place>) -> Result<Outcome> {
        let mode = |perm: u16| Mode { perm, umask: 0 };
        match op {
            Op::Create(p, perm) => self.make(p, |u, dir, name| {
                let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
                let (found, handle) = u.create(dir, name, mode(*perm), flags, &self.maker())?;
                u.release(found.node, handle)?;
                Ok(found)
            }),
            // The kernel masks these bits for a directory before it asks.
            Op::Mkdir(p, perm) => {
                self.make(p, |u, dir, name| u.mkdir(dir, name, mode(*perm & 0o1777), &self.maker()))
            }
            Op::Symlink(p, n) => {
                let target = format!("target{n}");
                self.make(p, |u, dir, name| u.symlink(dir, name, target.as_bytes(), &self.maker()))
            }
            Op::Fifo(p, perm) => self.make(p, |u, dir, name| {
                u.mknod(dir, name, (Kind::Fifo, 0), mode(*perm), &self.maker())
            }),
            Op::Char(p, minor) => self.make(p, |u, dir, name| {
                let node = (Kind::Char, u64::from(*minor));
                u.mknod(dir, name, node, mode(0o600), &self.maker())
            }),
            _ => unreachable!("makes nothing"),
        }
    }

    fn change_attr(&self, op: &Op<Place>) -> Result<Outcome> {
        let (place, set) = match op {
            Op::Chmod(p, perm) => (p, SetAttr { perm: Some(*perm), ..SetAttr::default() }),
            Op::Chown(p, uid, gid) => {
                let (uid, gid) = (Some(*uid + self.shift), Some(*gid + self.shift));
                (p, SetAttr { uid, gid, ..SetAttr::default() })
            }
            Op::Utimens(p, sec) => (p, SetAttr { mtime: Some(time(*sec)), ..SetAttr::default() }),
            _ => unreachable!("changes no attribute"),
        };
        self.at(place, |u, node, attr| {
            if set.perm.is_some() && attr.kind == Kind::Symlink {
                return Err(Errno::EOPNOTSUPP.into());
            }
            let new = u.setattr(node, &set)?;
            assert_eq!(new, u.getattr(node)?, "setattr's answer is what getattr says");
            Ok(Outcome::Done)
        })
    }

    fn on_xattr(&self, op: &Op<Place>) -> Result<Outcome> {
        let (Op::SetXattr(p, n, ..) | Op::RemoveXattr(p, n) | Op::GetXattr(p, n)) = op else {
            unreachable!("has no extended attribute")
        };
        let name = xattr_name(*n);
        self.at(p, |u, node, attr| {
            let sets = !matches!(op, Op::GetXattr(..));
            if let Some(outcome) = xattr_rule(attr.kind, name, sets) {
                return Ok(outcome);
            }
            match op {
                Op::SetXattr(_, n, value, flags) => {
                    let value = self.handed(name, xattr_value(*n, *value));
                    done(u.setxattr(node, name, &value, *flags))
                }
                Op::RemoveXattr(..) => done(u.removexattr(node, name)),
                _ => Ok(Outcome::Bytes(self.taken(name, u.getxattr(node, name)?))),
            }
        })
    }

    fn on_content(&mut self, op: &Op<Place>) -> Result<Outcome> {
        match op {
            Op::Lookup(p) => self.at(p, |_, _, attr| Ok(stat(attr))),
            Op::Readlink(p) => self.at(p, |u, node, _| Ok(Outcome::Bytes(u.readlink(node)?))),
            Op::Read(p) => self.open(p, libc::O_RDONLY, |u, node, handle, size| {
                Ok(Outcome::Bytes(read(u, node, handle, size)?))
            }),
            Op::Write(p, at, len, byte) => self.open(p, libc::O_WRONLY, |u, node, handle, _| {
                write(u, node, handle, *at, *len, *byte)
            }),
            Op::Append(p, len, byte) => {
                self.open(p, libc::O_WRONLY | libc::O_APPEND, |u, node, handle, size| {
                    write(u, node, handle, size, *len, *byte)
                })
            }
            Op::OpenTrunc(p) => {
                self.open(p, libc::O_WRONLY | libc::O_TRUNC, |_, _, _, _| Ok(Outcome::Done))
            }
            Op::Truncate(p, len) => self.at(p, |u, node, attr| {
                not_a_file(attr.kind, true).map_or_else(|| truncate(u, node, *len), Ok)
            }),
            Op::Readdir(p) => {
                let plus = self.plus;
                self.plus = !plus;
                self.at(p, |u, node, attr| {
                    if attr.kind != Kind::Dir {
                        return Err(Errno::ENOTDIR.into());
                    }
                    let names = list(u, node, plus)?;
                    Ok(Outcome::Names(names.into_iter().map(|(n, k, _)| (n, k)).collect()))
                })
            }
            _ => unreachable!("handled before"),
        }
    }

    fn hold(&mut self, p: &Place, slot: u8, write: bool) -> Result<Outcome> {
        let (node, attr) = self.walk(p)?;
        if let Some(outcome) = not_a_file(attr.kind, write) {
            self.union().forget(node, 1);
            return Ok(outcome);
        }
        let flags = if write { libc::O_RDWR } else { libc::O_RDONLY };
        let opened = self.union().open(node, flags, false);
        let handle = match opened {
            Ok(handle) => handle,
            Err(error) => {
                self.union().forget(node, 1);
                return Err(error);
            }
        };
        self.close(slot);
        self.held.insert(slot, HeldFile { node, handle, write });
        Ok(Outcome::Done)
    }

    fn on_held(&self, op: &Op<Place>, held: HeldFile) -> Result<Outcome> {
        let (u, node) = (self.union(), held.node);
        match op {
            Op::HeldWrite(..) if !held.write => Err(Errno::EBADF.into()),
            Op::HeldTruncate(..) if !held.write => Err(Errno::EINVAL.into()),
            Op::HeldWrite(_, at, len, byte) => write(u, node, held.handle, *at, *len, *byte),
            Op::HeldTruncate(_, len) => truncate(u, node, *len),
            Op::HeldChmod(_, perm) => {
                let set = SetAttr { perm: Some(*perm), ..SetAttr::default() };
                done(u.setattr(node, &set).map(|_| ()))
            }
            Op::HeldRead(_) => {
                let size = u.getattr(node)?.size;
                Ok(Outcome::Bytes(read(u, node, held.handle, size)?))
            }
            _ => Ok(stat(&u.getattr(node)?)),
        }
    }

    fn see(&self, place: Place, node: NodeId, out: &mut Vec<Seen>) -> Result<()> {
        let u = self.union();
        let attr = u.getattr(node)?;
        let Attr { kind, perm, nlink, uid, gid, rdev, ino, .. } = attr;
        let content = match kind {
            Kind::File => {
                let handle = u.open(node, libc::O_RDONLY, false)?;
                let content = read(u, node, handle, attr.size)?;
                u.release(node, handle)?;
                content
            }
            Kind::Symlink => u.readlink(node)?,
            _ => Vec::new(),
        };
        let (uid, gid) = (uid - self.shift, gid - self.shift);
        let mut xattrs = BTreeMap::new();
        for name in u.listxattr(node)? {
            let value = self.taken(&name, u.getxattr(node, &name)?);
            xattrs.insert(name, value);
        }
        if kind == Kind::Dir {
            for (name, kind, ino) in list(u, node, false)? {
                let found = u.lookup(node, Name::new(&name)?)?.expect("was listed just now");
                let child = place.join(&name);
                let same = (found.attr.kind, found.attr.ino) == (kind, ino);
                assert!(same, "{child}: listed as {kind:?} {ino}, but it is {:?}", found.attr);
                let seen = self.see(child, found.node, out);
                u.forget(found.node, 1);
                seen?;
            }
        }
        let mtime = shown_time(attr.mtime.sec);
        out.push(Seen { place, kind, perm, uid, gid, nlink, rdev, content, xattrs, mtime, ino });
        Ok(())
    }
}

impl Target for UnionTarget {
    fn name(&self) -> String {
        "union".to_owned()
    }

    fn apply(&mut self, op: &Op<Place>) -> Outcome {
        self.try_apply(op).unwrap_or_else(|error| Outcome::Failed(error.errno()))
    }

    fn tree(&mut self) -> Vec<Seen> {
        let mut out = Vec::new();
        let root = self.union().root();
        self.see(Place::root(), root, &mut out).expect("the tree can be read");
        out.sort_by(|a, b| a.place.cmp(&b.place));
        out
    }
}

fn done(result: Result<()>) -> Result<Outcome> {
    result.map(|()| Outcome::Done)
}

/// The time of modification that an operation sets.
fn time(sec: u8) -> SetTime {
    SetTime::At(Time { sec: super::tree::BASE_TIME + i64::from(sec), nsec: 0 })
}

fn read(u: &Union, node: NodeId, handle: Handle, size: u64) -> Result<Vec<u8>> {
    let mut buf = vec![0; usize::try_from(size).expect("is small") + 1];
    let n = u.read(node, handle, &mut buf, 0)?;
    buf.truncate(n);
    Ok(buf)
}

fn write(u: &Union, node: NodeId, handle: Handle, at: u64, len: u16, byte: u8) -> Result<Outcome> {
    let data = vec![byte; usize::from(len)];
    // The kernel passes on no write of nothing.
    if data.is_empty() {
        return Ok(Outcome::Count(0));
    }
    Ok(Outcome::Count(u.write(node, handle, &data, at, false)?))
}

fn truncate(u: &Union, node: NodeId, len: u64) -> Result<Outcome> {
    if u.getattr(node)?.size != len {
        let set = SetAttr { size: Some(len), ..SetAttr::default() };
        u.setattr(node, &set)?;
    }
    Ok(Outcome::Done)
}

/// A whole listing, sorted; `.` and `..` are checked and left out.
fn list(u: &Union, dir: NodeId, plus: bool) -> Result<Vec<(Vec<u8>, Kind, u64)>> {
    let mut items = Vec::new();
    let mut nodes = Vec::new();
    if plus {
        u.readdirplus(dir, 0, &mut |entry, found| {
            items.push((entry.name.to_vec(), entry.kind, entry.ino));
            nodes.extend(found.map(|found| found.node));
            true
        })?;
    } else {
        u.readdir(dir, 0, &mut |entry| {
            items.push((entry.name.to_vec(), entry.kind, entry.ino));
            true
        })?;
    }
    for node in nodes {
        u.forget(node, 1);
    }
    let ino = u.getattr(dir)?.ino;
    assert!(items.iter().any(|(name, _, n)| name == b"." && *n == ino), "`.` is the directory");
    items.retain(|(name, ..)| name != b"." && name != b"..");
    items.sort();
    Ok(items)
}
