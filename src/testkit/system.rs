//! A directory of the system as a target: a mounted union, the kernel's overlayfs, or a plain
//! directory. Runs as root; sets the process's umask to 0.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    self, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps,
    UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::{pread, pwrite, write};

use super::op::{Op, SLOTS, xattr_name, xattr_value};
use super::place::Place;
use super::run::{Outcome, Target, not_a_file, xattr_rule};
use super::tree::{BASE_TIME, Item, Seen, Thing, TreeSpec, shown_time};
use crate::attr::Kind;
use crate::errno::{Errno, Result};
use crate::union::RenameFlag;

/// A directory of the system.
pub struct SystemTarget {
    name: String,
    path: PathBuf,
    root: Option<OwnedFd>,
    remount: Box<dyn FnMut()>,
    held: BTreeMap<u8, (OwnedFd, bool)>,
    keeps_inos: bool,
    keeps_dir_times: bool,
    lists_inos: bool,
    on_ext4: bool,
}

impl fmt::Debug for SystemTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemTarget").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SystemTarget {
    /// The directory at `path`, which is mounted; `remount` unmounts it and mounts it again.
    pub fn new(name: &str, path: &Path, remount: impl FnMut() + 'static) -> Self {
        rustix::process::umask(Mode::empty());
        let mut this = Self {
            name: name.to_owned(),
            path: path.to_owned(),
            root: None,
            remount: Box::new(remount),
            held: BTreeMap::new(),
            keeps_inos: true,
            keeps_dir_times: true,
            lists_inos: true,
            on_ext4: false,
        };
        this.open_root();
        this
    }

    /// Inode numbers are not compared: this filesystem does not promise to keep them.
    #[must_use]
    pub fn changing_inos(mut self) -> Self {
        self.keeps_inos = false;
        self
    }

    /// This filesystem moves a directory's time of change when it moves the directory.
    #[must_use]
    pub fn changing_dir_times(mut self) -> Self {
        self.keeps_dir_times = false;
        self
    }

    /// This is ext4 itself, which moves a directory's time of change even if a rename that was to
    /// leave a whiteout there fails (`ext4_resetent` in `fs/ext4/namei.c`): it is set back.
    #[must_use]
    pub fn on_ext4(mut self) -> Self {
        self.on_ext4 = true;
        self
    }

    /// Its listings may tell other inode numbers than stat(2) (overlayfs, of files that somebody
    /// moved who does not know that they were copied up).
    #[must_use]
    pub fn listing_other_inos(mut self) -> Self {
        self.lists_inos = false;
        self
    }

    /// Closes everything, so that it can be unmounted.
    pub fn close(&mut self) {
        self.held.clear();
        self.root = None;
    }

    /// The whole tree, or what is wrong with it: a name is listed that is not there, or whose type
    /// or inode number is another (overlayfs does both).
    pub fn try_tree(&mut self) -> std::result::Result<Vec<Seen>, String> {
        let mut out = Vec::new();
        let mut wrong = None;
        let seen = self.see(&Place::root(), &mut out, &mut wrong);
        if let Some(wrong) = wrong {
            return Err(format!("{}: {wrong}", self.name));
        }
        seen.map_err(|e| format!("{}: the tree cannot be read: {e:?}", self.name))?;
        out.sort_by(|a, b| a.place.cmp(&b.place));
        Ok(out)
    }

    fn open_root(&mut self) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.root = Some(fs::openat(CWD, &self.path, flags, Mode::empty()).expect("is there"));
    }

    fn dir(&self, place: &Place) -> Result<OwnedFd> {
        let root = self.root.as_ref().expect("is open");
        let mut dir = root.try_clone()?;
        for part in &place.0 {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
            dir = fs::openat(&dir, part.as_slice(), flags, Mode::empty())?;
        }
        Ok(dir)
    }

    /// The directory an entry is in, and its name (`.` for the root).
    fn entry<'a>(&self, place: &'a Place) -> Result<(OwnedFd, &'a [u8])> {
        match place.0.split_last() {
            Some((name, dir)) => Ok((self.dir(&Place(dir.to_vec()))?, name)),
            None => Ok((self.dir(place)?, b".")),
        }
    }

    fn stat(&self, place: &Place) -> Result<Stat> {
        let (dir, name) = self.entry(place)?;
        Ok(fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn open(&self, place: &Place, flags: OFlags) -> Result<std::result::Result<OwnedFd, Outcome>> {
        let (dir, name) = self.entry(place)?;
        let kind = kind(&fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?);
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        if let Some(outcome) = not_a_file(kind, writes) {
            return Ok(Err(outcome));
        }
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Ok(fs::openat(&dir, name, flags, Mode::empty())?))
    }

    fn try_apply(&mut self, op: &Op<Place>) -> Result<Outcome> {
        match op {
            Op::Lookup(p) => return Ok(stat(&self.stat(p)?)),
            Op::Unlink(p) => {
                let (dir, name) = self.entry(p)?;
                fs::unlinkat(&dir, name, AtFlags::empty())?;
            }
            Op::Rmdir(p) => {
                let (dir, name) = self.entry(p)?;
                fs::unlinkat(&dir, name, AtFlags::REMOVEDIR)?;
            }
            Op::Rename(p, q, flag) => {
                let flags = match flag {
                    RenameFlag::None => RenameFlags::empty(),
                    RenameFlag::NoReplace => RenameFlags::NOREPLACE,
                    RenameFlag::Exchange => RenameFlags::EXCHANGE,
                    RenameFlag::Whiteout { .. } => RenameFlags::WHITEOUT,
                };
                let ((from, from_name), (to, to_name)) = (self.entry(p)?, self.entry(q)?);
                let before = fs::fstat(&from)?;
                let renamed = fs::renameat_with(&from, from_name, &to, to_name, flags);
                if renamed.is_err()
                    && self.on_ext4
                    && let Some(sec) = shown_time(before.st_mtime)
                {
                    set_mtime(&from, b".", sec)?;
                }
                renamed?;
            }
            Op::Link(p, q) => {
                let ((from, from_name), (to, to_name)) = (self.entry(p)?, self.entry(q)?);
                fs::linkat(&from, from_name, &to, to_name, AtFlags::empty())?;
            }
            Op::Create(..) | Op::Mkdir(..) | Op::Symlink(..) | Op::Fifo(..) | Op::Char(..) => {
                self.make(op)?;
            }
            Op::Chmod(..) | Op::Chown(..) | Op::Utimens(..) => self.change_attr(op)?,
            Op::SetXattr(..) | Op::RemoveXattr(..) | Op::GetXattr(..) => return self.on_xattr(op),
            Op::Readlink(p) => {
                let (dir, name) = self.entry(p)?;
                let target = fs::readlinkat(&dir, name, Vec::new())?;
                return Ok(Outcome::Bytes(target.into_bytes()));
            }
            Op::Readdir(p) => {
                let names = self.list(&self.dir(p)?)?;
                return Ok(Outcome::Names(names.into_iter().map(|(n, k, _)| (n, k)).collect()));
            }
            Op::Drop(slot) => drop(self.held.remove(slot)),
            Op::Remount => {
                (0..SLOTS).for_each(|slot| drop(self.held.remove(&slot)));
                self.root = None;
                (self.remount)();
                self.open_root();
            }
            Op::HeldWrite(slot, ..)
            | Op::HeldTruncate(slot, _)
            | Op::HeldChmod(slot, _)
            | Op::HeldRead(slot)
            | Op::HeldStat(slot) => {
                let Some((file, _)) = self.held.get(slot) else { return Ok(Outcome::Skipped) };
                return on_held(op, file);
            }
            _ => return self.on_content(op),
        }
        Ok(Outcome::Done)
    }

    fn make(&self, op: &Op<Place>) -> Result<()> {
        let (Op::Create(p, _)
        | Op::Mkdir(p, _)
        | Op::Symlink(p, _)
        | Op::Fifo(p, _)
        | Op::Char(p, _)) = op
        else {
            unreachable!("makes nothing")
        };
        let (dir, name) = self.entry(p)?;
        match op {
            Op::Create(_, perm) => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
                drop(fs::openat(&dir, name, flags, mode(*perm))?);
            }
            Op::Mkdir(_, perm) => fs::mkdirat(&dir, name, mode(*perm))?,
            Op::Symlink(_, n) => fs::symlinkat(format!("target{n}"), &dir, name)?,
            Op::Fifo(_, perm) => fs::mknodat(&dir, name, FileType::Fifo, mode(*perm), 0)?,
            Op::Char(_, minor) => {
                let rdev = fs::makedev(0, u32::from(*minor));
                fs::mknodat(&dir, name, FileType::CharacterDevice, mode(0o600), rdev)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn change_attr(&self, op: &Op<Place>) -> Result<()> {
        let (Op::Chmod(p, _) | Op::Chown(p, ..) | Op::Utimens(p, _)) = op else {
            unreachable!("changes no attribute")
        };
        let (dir, name) = self.entry(p)?;
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        match op {
            Op::Chmod(_, perm) => {
                if kind(&fs::statat(&dir, name, nofollow)?) == Kind::Symlink {
                    return Err(Errno::EOPNOTSUPP.into());
                }
                fs::chmodat(&dir, name, mode(*perm), AtFlags::empty())?;
            }
            Op::Chown(_, uid, gid) => {
                let owner = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
                fs::chownat(&dir, name, owner.0, owner.1, nofollow)?;
            }
            Op::Utimens(_, sec) => set_mtime(&dir, name, i64::from(*sec))?,
            _ => {}
        }
        Ok(())
    }

    fn on_xattr(&self, op: &Op<Place>) -> Result<Outcome> {
        let (Op::SetXattr(p, n, ..) | Op::RemoveXattr(p, n) | Op::GetXattr(p, n)) = op else {
            unreachable!("has no extended attribute")
        };
        let (dir, name) = self.entry(p)?;
        let kind = kind(&fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?);
        let sets = !matches!(op, Op::GetXattr(..));
        if let Some(outcome) = xattr_rule(kind, xattr_name(*n), sets) {
            return Ok(outcome);
        }
        let path = through(&dir, name);
        let attr = xattr_name(*n);
        match op {
            Op::SetXattr(_, n, value, flags) => {
                let flags = XattrFlags::from_bits_retain(u32::try_from(*flags).unwrap());
                fs::lsetxattr(path, attr, &xattr_value(*n, *value), flags)?;
            }
            Op::RemoveXattr(..) => fs::lremovexattr(path, attr)?,
            _ => return Ok(Outcome::Bytes(getxattr(&path, attr)?)),
        }
        Ok(Outcome::Done)
    }

    fn on_content(&mut self, op: &Op<Place>) -> Result<Outcome> {
        let (p, flags) = match op {
            Op::Read(p) | Op::Hold(p, _, false) => (p, OFlags::RDONLY),
            Op::Hold(p, _, true) => (p, OFlags::RDWR),
            Op::Append(p, ..) => (p, OFlags::WRONLY | OFlags::APPEND),
            Op::OpenTrunc(p) => (p, OFlags::WRONLY | OFlags::TRUNC),
            Op::Write(p, ..) => (p, OFlags::WRONLY),
            Op::Truncate(p, _) => (p, OFlags::WRONLY),
            _ => unreachable!("handled before"),
        };
        let file = match self.open(p, flags)? {
            Ok(file) => file,
            Err(outcome) => return Ok(outcome),
        };
        match op {
            Op::Read(_) => return Ok(Outcome::Bytes(content(&file)?)),
            Op::Hold(_, slot, write) => drop(self.held.insert(*slot, (file, *write))),
            Op::Append(_, len, byte) => {
                let n = write(&file, &vec![*byte; usize::from(*len)])?;
                return Ok(Outcome::Count(n));
            }
            Op::Write(_, at, len, byte) => {
                let n = pwrite(&file, &vec![*byte; usize::from(*len)], *at)?;
                return Ok(Outcome::Count(n));
            }
            Op::Truncate(_, len) => truncate(&file, *len)?,
            _ => {}
        }
        Ok(Outcome::Done)
    }

    fn list(&self, dir: &OwnedFd) -> Result<Vec<(Vec<u8>, Kind, u64)>> {
        let mut items = Vec::new();
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        for entry in Dir::new(fs::openat(dir, ".", flags, Mode::empty())?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes().to_vec();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = Kind::from_mode(entry.file_type().as_raw_mode()).expect("d_type is set");
            items.push((name, kind, entry.ino()));
        }
        items.sort();
        Ok(items)
    }

    fn see(&self, place: &Place, out: &mut Vec<Seen>, wrong: &mut Option<String>) -> Result<()> {
        let (dir, name) = self.entry(place)?;
        let stat = fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = kind(&stat);
        let content = match kind {
            Kind::File => match self.open(place, OFlags::RDONLY)? {
                Ok(file) => content(&file)?,
                Err(_) => Vec::new(),
            },
            Kind::Symlink => fs::readlinkat(&dir, name, Vec::new())?.into_bytes(),
            _ => Vec::new(),
        };
        if kind == Kind::Dir {
            for (name, kind, ino) in self.list(&self.dir(place)?)? {
                let child = place.join(&name);
                let stat = self.stat(&child)?;
                let (listed, found) = ((kind, ino), (self::kind(&stat), stat.st_ino));
                if listed.0 != found.0 || (self.lists_inos && listed != found) {
                    wrong.get_or_insert(format!("{child} is listed as {listed:?}, is {found:?}"));
                }
                self.see(&child, out, wrong)?;
            }
        }
        out.push(Seen {
            place: place.clone(),
            kind,
            perm: (stat.st_mode & 0o7777) as u16,
            uid: stat.st_uid,
            gid: stat.st_gid,
            nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            rdev: stat.st_rdev,
            content,
            xattrs: xattrs(&through(&dir, name))?,
            mtime: shown_time(stat.st_mtime),
            ino: stat.st_ino,
        });
        Ok(())
    }
}

impl Target for SystemTarget {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn apply(&mut self, op: &Op<Place>) -> Outcome {
        self.try_apply(op).unwrap_or_else(|error| Outcome::Failed(error.errno()))
    }

    fn tree(&mut self) -> Vec<Seen> {
        self.try_tree().unwrap_or_else(|wrong| panic!("{wrong}"))
    }

    fn keeps_inos(&self) -> bool {
        self.keeps_inos
    }

    fn keeps_dir_times(&self) -> bool {
        self.keeps_dir_times
    }
}

fn mode(perm: u16) -> Mode {
    Mode::from_raw_mode(u32::from(perm))
}

fn kind(stat: &Stat) -> Kind {
    Kind::from_mode(stat.st_mode).expect("is of a known type")
}

fn stat(stat: &Stat) -> Outcome {
    let kind = kind(stat);
    let nlink = if kind == Kind::Dir { 0 } else { u32::try_from(stat.st_nlink).unwrap() };
    let size = if kind == Kind::File { u64::try_from(stat.st_size).unwrap() } else { 0 };
    Outcome::Stat(kind, (stat.st_mode & 0o7777) as u16, nlink, size)
}

fn on_held(op: &Op<Place>, file: &OwnedFd) -> Result<Outcome> {
    match op {
        Op::HeldWrite(_, at, len, byte) => {
            let n = pwrite(file, &vec![*byte; usize::from(*len)], *at)?;
            return Ok(Outcome::Count(n));
        }
        Op::HeldTruncate(_, len) => {
            // Even where nothing is to be done, what is not open for writing cannot be cut.
            if !fs::fcntl_getfl(file)?.contains(OFlags::RDWR) {
                return Err(Errno::EINVAL.into());
            }
            truncate(file, *len)?;
        }
        Op::HeldChmod(_, perm) => fs::fchmod(file, mode(*perm))?,
        Op::HeldRead(_) => return Ok(Outcome::Bytes(content(file)?)),
        _ => return Ok(stat(&fs::fstat(file)?)),
    }
    Ok(Outcome::Done)
}

fn truncate(file: &OwnedFd, len: u64) -> Result<()> {
    if fs::fstat(file)?.st_size != i64::try_from(len).unwrap() {
        fs::ftruncate(file, len)?;
    }
    Ok(())
}

fn content(file: &OwnedFd) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut buf = [0; 8192];
    loop {
        let n = pread(file, &mut buf, out.len() as u64)?;
        if n == 0 {
            return Ok(out);
        }
        out.extend_from_slice(&buf[..n]);
    }
}

/// A path to an entry of an open directory, for the calls that take only paths.
fn through(dir: &OwnedFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

fn getxattr(path: &[u8], name: &[u8]) -> Result<Vec<u8>> {
    let mut buf = vec![0; 1 << 16];
    let n = fs::lgetxattr(path, name, &mut buf)?;
    buf.truncate(n);
    Ok(buf)
}

fn xattrs(path: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut buf = vec![0; 1 << 16];
    let n = match fs::llistxattr(path, &mut buf) {
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(BTreeMap::new()),
        other => other?,
    };
    let mut out = BTreeMap::new();
    for name in buf[..n].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        out.insert(name.to_vec(), getxattr(path, name)?);
    }
    Ok(out)
}

fn set_mtime(dir: &OwnedFd, name: &[u8], sec: i64) -> Result<()> {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps {
        last_access: omit,
        last_modification: Timespec { tv_sec: BASE_TIME + sec, tv_nsec: 0 },
    };
    Ok(fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

impl TreeSpec {
    /// Builds the layer in an empty directory, in the format of the kernel's overlayfs with
    /// `trusted.overlay.*` (needs root). Whiteouts beside names are written as `.wh.NAME`.
    pub fn system(&self, root: &Path) -> Result<()> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::openat(CWD, root, flags, Mode::empty())?;
        let place = |place: &Place| -> Result<(OwnedFd, Vec<u8>)> {
            let (dir, name) = place.split().ok_or(Errno::EINVAL)?;
            let mut at = root.try_clone()?;
            for part in &dir.0 {
                let flags = flags | OFlags::NOFOLLOW;
                at = fs::openat(&at, part.as_slice(), flags, Mode::empty())?;
            }
            Ok((at, name.to_vec()))
        };
        for (path, item) in &self.items {
            let (dir, name) = place(path)?;
            item.system(&dir, &name)?;
        }
        for (path, item) in &self.items {
            if let Thing::Hardlink(of) = &item.what {
                let ((from, from_name), (to, to_name)) = (place(of)?, place(path)?);
                let flags = AtFlags::empty();
                fs::linkat(&from, &*from_name, &to, &*to_name, flags)?;
            }
        }
        for path in &self.beside {
            let (dir, name) = place(path)?;
            let name = [b".wh.".as_slice(), &name].concat();
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            drop(fs::openat(&dir, &*name, flags, mode(0o600))?);
        }
        for path in self.items.keys().rev() {
            let (dir, name) = place(path)?;
            set_mtime(&dir, &name, 0)?;
        }
        Ok(())
    }
}

impl Item {
    fn system(&self, dir: &OwnedFd, name: &[u8]) -> Result<()> {
        let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        match &self.what {
            Thing::Dir => fs::mkdirat(dir, name, mode(0o700))?,
            Thing::File(content) => {
                let file = fs::openat(dir, name, create, mode(0o600))?;
                let written = write(&file, content)?;
                assert_eq!(written, content.len(), "test files are short");
            }
            Thing::Symlink(target) => fs::symlinkat(target.as_slice(), dir, name)?,
            Thing::Node(kind, rdev) => {
                let kind = FileType::from_raw_mode(kind.mode());
                fs::mknodat(dir, name, kind, mode(0o600), *rdev)?;
            }
            Thing::Hardlink(_) => return Ok(()),
            Thing::Whiteout => {
                let kind = FileType::CharacterDevice;
                return Ok(fs::mknodat(dir, name, kind, Mode::empty(), 0)?);
            }
        }
        let owner = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
        fs::chownat(dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        if !matches!(self.what, Thing::Symlink(_)) {
            fs::chmodat(dir, name, mode(self.perm), AtFlags::empty())?;
        }
        let path = through(dir, name);
        let set =
            |name: &[u8], value: &[u8]| fs::lsetxattr(&path[..], name, value, XattrFlags::empty());
        for (name, value) in &self.xattrs {
            set(name, value)?;
        }
        if self.opaque {
            set(b"trusted.overlay.opaque", b"y")?;
        }
        if let Some(to) = &self.redirect {
            set(b"trusted.overlay.redirect", to)?;
        }
        Ok(())
    }
}
