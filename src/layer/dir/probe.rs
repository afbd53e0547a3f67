//! What a directory can do as an upper layer, found out by doing it.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, RawDir, RenameFlags};

use super::{sidecar, work};
use crate::errno::{Context, Errno, Error, Result};
use crate::layer::marks::{Namespace, Tag};
use crate::sys::object::Object;
use crate::sys::{handle, process, xattr};

/// What a filesystem and our privileges on it allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub struct Probe {
    /// Which extended attributes marks can be written as; none where neither can.
    pub namespace: Option<Namespace>,
    /// Character devices 0:0 can be made: whiteouts as the kernel writes them.
    pub char_whiteouts: bool,
    /// A rename can leave a whiteout behind in the same step (`RENAME_WHITEOUT`).
    pub rename_whiteout: bool,
    /// Two entries can change places in one step (`RENAME_EXCHANGE`).
    pub exchange: bool,
    /// A rename can refuse to replace (`RENAME_NOREPLACE`).
    pub no_replace: bool,
    /// Files without a name (`O_TMPFILE`).
    pub tmpfile: bool,
    /// Files can share blocks (`FICLONE`).
    pub reflink: bool,
    /// Listings tell the type of entries.
    pub d_type: bool,
    /// Objects have handles that survive a remount.
    pub handles: bool,
    /// Each object is told from all others, later ones too: by handles, or by inode number and the
    /// time when it was made.
    pub identity: bool,
    /// Symbolic links can be made.
    pub symlinks: bool,
    /// Permission bits do not keep us from our own objects (`CAP_DAC_OVERRIDE`).
    pub overrides: bool,
}

/// Finds out what the filesystem of the directory `path` allows, in a temporary directory there.
pub fn probe(path: &Path) -> Result<Probe> {
    let dir = super::open_dir(path).context(|| path.display())?;
    run(dir.as_fd()).context(|| path.display())
}

/// The entries that a probe makes in its directory.
const FILE: &str = "file";
const OTHER: &str = "other";
const WHITEOUT: &str = "whiteout";
const MOVED: &str = "moved";
const LINK: &str = "link";
const CLOSED: &str = "closed";

/// Finds out what the filesystem of `parent` allows.
pub(super) fn run(parent: BorrowedFd<'_>) -> Result<Probe> {
    let name = format!("#probe-{:x}", std::process::id());
    work::remove(parent, name.as_bytes())?;
    rustix::fs::mkdirat(parent, &name, Mode::from_raw_mode(0o700))?;
    let probed = run_in(parent, &name);
    let removed = work::remove(parent, name.as_bytes());
    let probe = probed?;
    removed?;
    Ok(probe)
}

fn run_in(parent: BorrowedFd<'_>, name: &str) -> Result<Probe> {
    let dir = Object::Entry(parent, name.as_bytes()).open(OFlags::RDONLY | OFlags::DIRECTORY)?;
    let rename = |from: &str, to: &str, flags| {
        rustix::fs::renameat_with(&dir, from, &dir, to, flags).is_ok()
    };
    let file = create(&dir, FILE)?;
    let other = create(&dir, OTHER)?;
    rustix::io::pwrite(&file, b"plyfs", 0)?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    let char_whiteouts =
        rustix::fs::mknodat(&dir, WHITEOUT, FileType::CharacterDevice, Mode::empty(), 0).is_ok();
    Ok(Probe {
        namespace: namespace(&dir),
        char_whiteouts,
        tmpfile: rustix::fs::openat(&dir, ".", flags, mode).is_ok(),
        reflink: rustix::fs::ioctl_ficlone(&other, &file).is_ok(),
        d_type: lists_types(&dir),
        handles: matches!(handle::of(Object::dir(&dir)), Ok(Some(_))),
        identity: sidecar::identity(&dir)? != sidecar::Identity::None,
        symlinks: rustix::fs::symlinkat(FILE, &dir, LINK).is_ok(),
        overrides: overrides(&dir)?,
        exchange: rename(FILE, OTHER, RenameFlags::EXCHANGE),
        no_replace: rename(FILE, MOVED, RenameFlags::NOREPLACE)
            && !rename(OTHER, MOVED, RenameFlags::NOREPLACE),
        rename_whiteout: rename(MOVED, FILE, RenameFlags::WHITEOUT)
            && is_whiteout(&dir, MOVED).unwrap_or(false),
    })
}

fn create(dir: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?)
}

/// Whether we can open what nobody may open.
fn overrides(dir: &OwnedFd) -> Result<bool> {
    create(dir, CLOSED)?;
    let object = Object::Entry(dir.as_fd(), CLOSED.as_bytes());
    Ok(object.chmod(0).is_ok() && object.open(OFlags::RDWR).is_ok())
}

/// The first of the two namespaces in which a mark can be written and read back.
fn namespace(dir: &OwnedFd) -> Option<Namespace> {
    [Namespace::Trusted, Namespace::User].into_iter().find(|namespace| {
        let (object, name) = (Object::dir(dir), Tag::Opaque.stored(*namespace));
        xattr::set(object, &name, b"y", 0).is_ok()
            && matches!(xattr::get(object, &name), Ok(Some(value)) if value == b"y")
    })
}

fn is_whiteout(dir: &OwnedFd, name: &str) -> Result<bool> {
    Ok(Object::Entry(dir.as_fd(), name.as_bytes()).stat()?.attr.is_char_zero())
}

fn lists_types(dir: &OwnedFd) -> bool {
    let Ok(listing) = Object::dir(dir).open(OFlags::RDONLY | OFlags::DIRECTORY) else {
        return false;
    };
    let mut buf = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(listing, &mut buf);
    while let Some(Ok(entry)) = entries.next() {
        if entry.file_name().to_bytes() == FILE.as_bytes() {
            return entry.file_type() == FileType::RegularFile;
        }
    }
    false
}

impl Probe {
    /// The namespace to write, if this directory can be an upper layer at all; none where marks
    /// have to lie beside the objects.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, with what is missing and what to do.
    pub(super) fn require(&self) -> Result<Option<Namespace>> {
        let missing = match self {
            Self { exchange: false, .. } => "entries cannot change places (RENAME_EXCHANGE)",
            Self { no_replace: false, .. } => "a rename cannot refuse to replace",
            Self { symlinks: false, .. } => "it has no symbolic links",
            Self { namespace: Some(namespace), .. } => return Ok(Some(*namespace)),
            Self { char_whiteouts: true, identity: true, .. } => return Ok(None),
            Self { char_whiteouts: true, .. } => {
                "it has no extended attributes, nor file handles or times of birth instead"
            }
            Self { namespace: None, .. } => {
                "neither trusted.* nor user.* extended attributes can be written, nor devices 0:0 \
                 made"
            }
        };
        let text = format!(
            "its filesystem cannot hold an upper layer: {missing}; put upperdir and workdir on \
             ext4, XFS, Btrfs or tmpfs"
        );
        Err(Error::new(Errno::EOPNOTSUPP, text))
    }
}

/// Where a work directory keeps what was found out last.
const KEPT: &str = "probe";

/// The most bytes that are kept.
const KEPT_MAX: usize = 64;

/// As [`run`], in `staging`. What it finds is kept in `home`, and counts where the filesystem is so
/// full that nothing can be found out by trying: who could not mount then could not delete, either.
pub(super) fn run_or_recall(staging: BorrowedFd<'_>, home: &OwnedFd) -> Result<Probe> {
    let kept = recall(home);
    match run(staging) {
        Ok(found) if kept == Some(found) => Ok(found),
        // What failed for want of space looks as if it could not be done.
        Ok(found) => {
            if let Some(kept) = kept.filter(|_| is_full(home)) {
                return Ok(kept);
            }
            if let Err(error) = keep(home, &found) {
                tracing::debug!(%error, "what the filesystem can do is not noted");
            }
            Ok(found)
        }
        Err(error) if matches!(error.errno(), Errno::ENOSPC | Errno::EDQUOT) => kept.ok_or(error),
        Err(error) => Err(error),
    }
}

/// Whether hardly anything can be made there.
fn is_full(dir: &OwnedFd) -> bool {
    rustix::fs::fstatvfs(dir).is_ok_and(|stat| stat.f_bavail < 64 || stat.f_ffree < 16)
}

/// Whose findings they are: others may do other things.
fn finder() -> String {
    let (uid, _) = process::fs_ids();
    format!("1 {uid} {}", u8::from(process::in_initial_user_namespace()))
}

fn keep(home: &OwnedFd, probe: &Probe) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    let file = rustix::fs::openat(home, KEPT, flags | OFlags::NOFOLLOW, mode)?;
    let text = format!("{} {}\n", finder(), probe.encode());
    rustix::io::pwrite(&file, text.as_bytes(), 0)?;
    Ok(())
}

fn recall(home: &OwnedFd) -> Option<Probe> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::openat(home, KEPT, flags, Mode::empty()).ok()?;
    let mut text = [0; KEPT_MAX];
    let len = rustix::io::pread(&file, &mut text, 0).ok()?;
    let text = std::str::from_utf8(text.get(..len)?).ok()?;
    let (whose, bits) = text.strip_suffix('\n')?.rsplit_once(' ')?;
    (whose == finder()).then(|| Probe::decode(bits)).flatten()
}

impl Probe {
    /// A letter an answer.
    fn encode(&self) -> String {
        let namespace = match self.namespace {
            Some(Namespace::Trusted) => 't',
            Some(Namespace::User) => 'u',
            None => '-',
        };
        let answer = |yes: bool| if yes { 'y' } else { 'n' };
        std::iter::once(namespace).chain(self.answers().map(answer)).collect()
    }

    fn answers(&self) -> [bool; 11] {
        [
            self.char_whiteouts,
            self.rename_whiteout,
            self.exchange,
            self.no_replace,
            self.tmpfile,
            self.reflink,
            self.d_type,
            self.handles,
            self.identity,
            self.symlinks,
            self.overrides,
        ]
    }

    fn decode(text: &str) -> Option<Self> {
        let mut letters = text.chars();
        let namespace = match letters.next()? {
            't' => Some(Namespace::Trusted),
            'u' => Some(Namespace::User),
            '-' => None,
            _ => return None,
        };
        let mut next = || match letters.next()? {
            'y' => Some(true),
            'n' => Some(false),
            _ => None,
        };
        let probe = Self {
            namespace,
            char_whiteouts: next()?,
            rename_whiteout: next()?,
            exchange: next()?,
            no_replace: next()?,
            tmpfile: next()?,
            reflink: next()?,
            d_type: next()?,
            handles: next()?,
            identity: next()?,
            symlinks: next()?,
            overrides: next()?,
        };
        letters.next().is_none().then_some(probe)
    }
}

/// Whether `path` is a directory on the same mount as `other`; a rename leads from one to the other
/// then.
pub(super) fn same_mount(one: &OwnedFd, other: &OwnedFd) -> Result<bool> {
    let (one, other) = (Object::dir(one).stat()?, Object::dir(other).stat()?);
    Ok((one.dev, one.mount) == (other.dev, other.mount))
}
