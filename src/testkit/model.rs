//! The only definition of correct: what one plain POSIX directory does.
//!
//! Errors come in the order in which the kernel's VFS finds them. The caller is root with a umask
//! of 0 and all capabilities: writing clears no set-id bit, but drops `security.capability`;
//! changing the owner of anything but a directory clears both.

mod merge;

use std::collections::BTreeMap;

use super::op::{DEPTH, Op, SLOTS, xattr_name, xattr_value};
use super::place::Place;
use super::run::{Outcome, not_a_file, xattr_rule};
use super::tree::Seen;
use crate::attr::Kind;
use crate::errno::Errno;
use crate::union::RenameFlag;

type Result<T> = std::result::Result<T, Errno>;

#[derive(Clone, Debug)]
struct Inode {
    kind: Kind,
    perm: u16,
    uid: u32,
    gid: u32,
    rdev: u64,
    names: u32,
    /// Names in a lower layer that do not show: the link count of a layer includes them, and
    /// nothing short of reading all of it could tell.
    hidden: u32,
    content: Vec<u8>,
    entries: BTreeMap<Vec<u8>, u64>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    mtime: Option<i64>,
}

/// One plain tree.
#[derive(Clone, Debug)]
pub struct Model {
    inodes: BTreeMap<u64, Inode>,
    held: BTreeMap<u8, (u64, bool)>,
    next: u64,
}

const ROOT: u64 = 1;

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

fn inode(kind: Kind, perm: u16, uid: u32, gid: u32) -> Inode {
    Inode {
        kind,
        perm,
        uid,
        gid,
        rdev: 0,
        names: 0,
        hidden: 0,
        content: Vec::new(),
        entries: BTreeMap::new(),
        xattrs: BTreeMap::new(),
        mtime: None,
    }
}

impl Model {
    /// An empty tree.
    pub fn new() -> Self {
        let root = Inode { names: 1, ..inode(Kind::Dir, 0o755, 0, 0) };
        Self { inodes: BTreeMap::from([(ROOT, root)]), held: BTreeMap::new(), next: ROOT + 1 }
    }

    fn add(&mut self, inode: Inode) -> u64 {
        let ino = self.next;
        self.next += 1;
        self.inodes.insert(ino, inode);
        ino
    }

    fn at(&self, ino: u64) -> &Inode {
        &self.inodes[&ino]
    }

    fn at_mut(&mut self, ino: u64) -> &mut Inode {
        self.inodes.get_mut(&ino).expect("no number dangles")
    }

    /// The directories that operations take place in: those at most two deep.
    pub fn dirs(&self) -> Vec<Place> {
        let tree = self.tree();
        let dirs = tree.into_iter().filter(|s| s.kind == Kind::Dir && s.place.depth() < DEPTH);
        dirs.map(|seen| seen.place).collect()
    }

    /// The whole tree.
    pub fn tree(&self) -> Vec<Seen> {
        let mut out = Vec::new();
        self.walk(Place::root(), ROOT, &mut out);
        out.sort_by(|a, b| a.place.cmp(&b.place));
        out
    }

    fn walk(&self, place: Place, ino: u64, out: &mut Vec<Seen>) {
        let node = self.at(ino);
        for (name, child) in &node.entries {
            self.walk(place.join(name), *child, out);
        }
        let Inode { kind, perm, uid, gid, rdev, .. } = *node;
        let (content, xattrs, mtime) = (node.content.clone(), node.xattrs.clone(), node.mtime);
        let nlink = node.nlink();
        out.push(Seen { place, kind, perm, uid, gid, nlink, rdev, content, xattrs, mtime, ino });
    }

    fn lookup(&self, place: &Place) -> Result<u64> {
        let mut ino = ROOT;
        for part in &place.0 {
            if self.at(ino).kind != Kind::Dir {
                return Err(Errno::ENOTDIR);
            }
            if part.len() > crate::name::NAME_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            ino = *self.at(ino).entries.get(part).ok_or(Errno::ENOENT)?;
        }
        Ok(ino)
    }

    /// The directory an entry is in, and what is there.
    fn entry<'a>(&self, place: &'a Place) -> Result<(u64, &'a [u8], Option<u64>)> {
        let (dir, name) = place.split().ok_or(Errno::EBUSY)?;
        let parent = self.lookup(&dir)?;
        let name = &place.0[place.0.len() - 1][..name.len()];
        match self.lookup(place) {
            Ok(ino) => Ok((parent, name, Some(ino))),
            Err(Errno::ENOENT) => Ok((parent, name, None)),
            Err(errno) => Err(errno),
        }
    }

    fn make(&mut self, place: &Place, mut new: Inode) -> Result<()> {
        let (dir, name, there) = self.entry(place)?;
        if there.is_some() {
            return Err(Errno::EEXIST);
        }
        let parent = self.at(dir);
        if parent.perm & 0o2000 != 0 {
            new.gid = parent.gid;
            if new.kind == Kind::Dir {
                new.perm |= 0o2000;
            }
        }
        new.names = 1;
        let ino = self.add(new);
        self.enter(dir, name, ino);
        Ok(())
    }

    fn enter(&mut self, dir: u64, name: &[u8], ino: u64) {
        let dir = self.at_mut(dir);
        dir.entries.insert(name.to_vec(), ino);
        dir.mtime = None;
    }

    fn leave(&mut self, dir: u64, name: &[u8]) {
        let dir = self.at_mut(dir);
        dir.entries.remove(name);
        dir.mtime = None;
    }

    fn unname(&mut self, ino: u64) {
        self.at_mut(ino).names -= 1;
        self.reap(ino);
    }

    fn reap(&mut self, ino: u64) {
        let held = self.held.values().any(|(held, _)| *held == ino);
        if self.at(ino).names == 0 && !held {
            self.inodes.remove(&ino);
        }
    }

    /// Does one operation.
    pub fn apply(&mut self, op: &Op<Place>) -> Outcome {
        match self.try_apply(op) {
            Ok(outcome) => outcome,
            Err(errno) => Outcome::Failed(errno),
        }
    }

    fn try_apply(&mut self, op: &Op<Place>) -> Result<Outcome> {
        match op {
            Op::Create(p, perm) => self.make(p, inode(Kind::File, *perm, 0, 0))?,
            Op::Mkdir(p, perm) => self.make(p, inode(Kind::Dir, *perm & 0o1777, 0, 0))?,
            Op::Symlink(p, n) => {
                let content = format!("target{n}").into_bytes();
                self.make(p, Inode { content, ..inode(Kind::Symlink, 0o777, 0, 0) })?;
            }
            Op::Fifo(p, perm) => self.make(p, inode(Kind::Fifo, *perm, 0, 0))?,
            Op::Char(p, minor) => {
                let rdev = u64::from(*minor);
                self.make(p, Inode { rdev, ..inode(Kind::Char, 0o600, 0, 0) })?;
            }
            Op::Unlink(p) => self.unlink(p)?,
            Op::Rmdir(p) => self.rmdir(p)?,
            Op::Rename(p, q, flag) => self.rename(p, q, *flag)?,
            Op::Link(p, q) => self.link(p, q)?,
            Op::Lookup(_) | Op::Readlink(_) | Op::Read(_) | Op::Readdir(_) | Op::GetXattr(..) => {
                return self.observe(op);
            }
            Op::Write(..) | Op::Append(..) | Op::Truncate(..) | Op::OpenTrunc(_) => {
                return self.change_content(op);
            }
            Op::Chmod(..)
            | Op::Chown(..)
            | Op::Utimens(..)
            | Op::SetXattr(..)
            | Op::RemoveXattr(..) => return self.change_metadata(op),
            _ => return self.held(op),
        }
        Ok(Outcome::Done)
    }

    fn observe(&mut self, op: &Op<Place>) -> Result<Outcome> {
        Ok(match op {
            Op::Lookup(p) => self.at(self.lookup(p)?).stat(),
            Op::Readlink(p) => {
                let node = self.at(self.lookup(p)?);
                match node.kind {
                    Kind::Symlink => Outcome::Bytes(node.content.clone()),
                    _ => return Err(Errno::EINVAL),
                }
            }
            Op::Read(p) => {
                let node = self.at(self.lookup(p)?);
                match not_a_file(node.kind, false) {
                    Some(outcome) => outcome,
                    None => Outcome::Bytes(node.content.clone()),
                }
            }
            Op::Readdir(p) => {
                let node = self.at(self.lookup(p)?);
                if node.kind != Kind::Dir {
                    return Err(Errno::ENOTDIR);
                }
                let kinds = node.entries.iter().map(|(n, ino)| (n.clone(), self.at(*ino).kind));
                Outcome::Names(kinds.collect())
            }
            Op::GetXattr(p, n) => {
                let node = self.at(self.lookup(p)?);
                if let Some(outcome) = xattr_rule(node.kind, xattr_name(*n), false) {
                    return Ok(outcome);
                }
                Outcome::Bytes(node.xattrs.get(xattr_name(*n)).ok_or(Errno::ENODATA)?.clone())
            }
            _ => unreachable!("not an observation"),
        })
    }

    fn unlink(&mut self, p: &Place) -> Result<()> {
        let (dir, name, there) = self.entry(p)?;
        let ino = there.ok_or(Errno::ENOENT)?;
        if self.at(ino).kind == Kind::Dir {
            return Err(Errno::EISDIR);
        }
        self.leave(dir, name);
        self.unname(ino);
        Ok(())
    }

    fn rmdir(&mut self, p: &Place) -> Result<()> {
        let (dir, name, there) = self.entry(p)?;
        let ino = there.ok_or(Errno::ENOENT)?;
        if self.at(ino).kind != Kind::Dir {
            return Err(Errno::ENOTDIR);
        }
        if !self.at(ino).entries.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.leave(dir, name);
        self.unname(ino);
        Ok(())
    }

    fn link(&mut self, p: &Place, q: &Place) -> Result<()> {
        let ino = self.lookup(p)?;
        let (dir, name, there) = self.entry(q)?;
        if there.is_some() {
            return Err(Errno::EEXIST);
        }
        if self.at(ino).kind == Kind::Dir {
            return Err(Errno::EPERM);
        }
        self.at_mut(ino).names += 1;
        self.enter(dir, name, ino);
        Ok(())
    }

    fn rename(&mut self, p: &Place, q: &Place, flag: RenameFlag) -> Result<()> {
        let (from, from_name, there) = self.entry(p)?;
        let (to, to_name, target) = self.entry(q)?;
        let ino = there.ok_or(Errno::ENOENT)?;
        match (flag, target) {
            (RenameFlag::NoReplace | RenameFlag::Whiteout { replace: false, .. }, Some(_)) => {
                return Err(Errno::EEXIST);
            }
            (RenameFlag::Exchange, None) => return Err(Errno::ENOENT),
            _ => {}
        }
        if q.depth() > p.depth() && q.0.starts_with(&p.0) {
            return Err(Errno::EINVAL);
        }
        if p.depth() > q.depth() && p.0.starts_with(&q.0) {
            let exchange = flag == RenameFlag::Exchange;
            return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        if target == Some(ino) {
            return Ok(());
        }
        if flag == RenameFlag::Exchange {
            let other = target.ok_or(Errno::ENOENT)?;
            self.enter(from, from_name, other);
            self.enter(to, to_name, ino);
            return Ok(());
        }
        if let Some(old) = target {
            let dirs = (self.at(ino).kind == Kind::Dir, self.at(old).kind == Kind::Dir);
            match dirs {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                (true, true) if !self.at(old).entries.is_empty() => return Err(Errno::ENOTEMPTY),
                _ => {}
            }
        }
        self.leave(from, from_name);
        self.enter(to, to_name, ino);
        if let Some(old) = target {
            self.unname(old);
        }
        if let RenameFlag::Whiteout { by, .. } = flag {
            let gid = if self.at(from).perm & 0o2000 == 0 { by.gid } else { self.at(from).gid };
            let device = self.add(Inode { names: 1, ..inode(Kind::Char, 0, by.uid, gid) });
            self.enter(from, from_name, device);
        }
        Ok(())
    }

    fn change_content(&mut self, op: &Op<Place>) -> Result<Outcome> {
        let (Op::Write(p, ..) | Op::Append(p, ..) | Op::Truncate(p, ..) | Op::OpenTrunc(p)) = op
        else {
            unreachable!("not a change of content")
        };
        let ino = self.lookup(p)?;
        let node = self.at_mut(ino);
        if let Some(outcome) = not_a_file(node.kind, true) {
            return Ok(outcome);
        }
        match op {
            Op::Write(_, at, len, byte) => return Ok(node.write(*at, *len, *byte)),
            Op::Append(_, len, byte) => {
                return Ok(node.write(node.content.len() as u64, *len, *byte));
            }
            Op::Truncate(_, len) => node.truncate(*len),
            _ => {
                node.content.clear();
                node.modified();
            }
        }
        Ok(Outcome::Done)
    }

    fn change_metadata(&mut self, op: &Op<Place>) -> Result<Outcome> {
        let (Op::Chmod(p, _)
        | Op::Chown(p, ..)
        | Op::Utimens(p, _)
        | Op::SetXattr(p, ..)
        | Op::RemoveXattr(p, _)) = op
        else {
            unreachable!("not a change of metadata")
        };
        let ino = self.lookup(p)?;
        let node = self.at_mut(ino);
        match op {
            Op::Chmod(_, perm) => node.chmod(*perm)?,
            Op::Chown(_, uid, gid) => node.chown(*uid, *gid),
            Op::Utimens(_, sec) => node.mtime = Some(i64::from(*sec)),
            Op::SetXattr(_, n, value, flags) => {
                let name = xattr_name(*n);
                if let Some(outcome) = xattr_rule(node.kind, name, true) {
                    return Ok(outcome);
                }
                match (node.xattrs.contains_key(name), *flags) {
                    (true, libc::XATTR_CREATE) => return Err(Errno::EEXIST),
                    (false, libc::XATTR_REPLACE) => return Err(Errno::ENODATA),
                    _ => node.xattrs.insert(name.to_vec(), xattr_value(*n, *value)),
                };
            }
            Op::RemoveXattr(_, n) => {
                if let Some(outcome) = xattr_rule(node.kind, xattr_name(*n), true) {
                    return Ok(outcome);
                }
                node.xattrs.remove(xattr_name(*n)).ok_or(Errno::ENODATA)?;
            }
            _ => {}
        }
        Ok(Outcome::Done)
    }

    fn held(&mut self, op: &Op<Place>) -> Result<Outcome> {
        match op {
            Op::Hold(p, slot, write) => {
                let ino = self.lookup(p)?;
                if let Some(outcome) = not_a_file(self.at(ino).kind, *write) {
                    return Ok(outcome);
                }
                self.drop(*slot);
                self.held.insert(*slot, (ino, *write));
                return Ok(Outcome::Done);
            }
            Op::Drop(slot) => {
                self.drop(*slot);
                return Ok(Outcome::Done);
            }
            Op::Remount => {
                (0..SLOTS).for_each(|slot| self.drop(slot));
                return Ok(Outcome::Done);
            }
            _ => {}
        }
        let slot = match op {
            Op::HeldWrite(slot, ..) | Op::HeldTruncate(slot, _) | Op::HeldChmod(slot, _) => slot,
            Op::HeldRead(slot) | Op::HeldStat(slot) => slot,
            _ => unreachable!("not on a held file"),
        };
        let Some((ino, write)) = self.held.get(slot).copied() else {
            return Ok(Outcome::Skipped);
        };
        let node = self.at_mut(ino);
        match op {
            Op::HeldWrite(..) if !write => return Err(Errno::EBADF),
            Op::HeldTruncate(..) if !write => return Err(Errno::EINVAL),
            Op::HeldWrite(_, at, len, byte) => return Ok(node.write(*at, *len, *byte)),
            Op::HeldTruncate(_, len) => node.truncate(*len),
            Op::HeldChmod(_, perm) => node.chmod(*perm)?,
            Op::HeldRead(_) => return Ok(Outcome::Bytes(node.content.clone())),
            _ => return Ok(node.stat()),
        }
        Ok(Outcome::Done)
    }

    fn drop(&mut self, slot: u8) {
        if let Some((ino, _)) = self.held.remove(&slot) {
            self.reap(ino);
        }
    }
}

impl Inode {
    fn nlink(&self) -> u32 {
        self.names + self.hidden
    }

    fn stat(&self) -> Outcome {
        let nlink = if self.kind == Kind::Dir { 0 } else { self.nlink() };
        let size = if self.kind == Kind::File { self.content.len() as u64 } else { 0 };
        Outcome::Stat(self.kind, self.perm, nlink, size)
    }

    fn modified(&mut self) {
        self.mtime = None;
        self.xattrs.remove(&b"security.capability"[..]);
    }

    fn write(&mut self, at: u64, len: u16, byte: u8) -> Outcome {
        let (at, len) = (usize::try_from(at).unwrap(), usize::from(len));
        if len > 0 {
            let end = self.content.len().max(at + len);
            self.content.resize(end, 0);
            self.content[at..at + len].fill(byte);
            self.modified();
        }
        Outcome::Count(len)
    }

    fn truncate(&mut self, len: u64) {
        let len = usize::try_from(len).unwrap();
        if self.content.len() != len {
            self.content.resize(len, 0);
            self.modified();
        }
    }

    fn chmod(&mut self, perm: u16) -> Result<()> {
        if self.kind == Kind::Symlink {
            return Err(Errno::EOPNOTSUPP);
        }
        self.perm = perm & 0o7777;
        Ok(())
    }

    fn chown(&mut self, uid: u32, gid: u32) {
        (self.uid, self.gid) = (uid, gid);
        if self.kind != Kind::Dir {
            self.perm &= !0o4000;
            if self.perm & 0o010 != 0 {
                self.perm &= !0o2000;
            }
            self.xattrs.remove(&b"security.capability"[..]);
        }
    }
}
