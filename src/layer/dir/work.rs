//! The work directory: where changes are prepared, and what is left there after a crash.
//!
//! ```text
//!     WORK/work/        staged objects, swept at every mount
//!     WORK/work/incompat/volatile
//!                       the upper was not synced: nothing but removing it helps after a crash
//!     WORK/index/       copied-up hard links by their origin, as the kernel's overlayfs keeps them
//!     WORK/plyfs/       our own
//! ```

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RawDir, RenameFlags};
use rustix::io::Errno as Raw;

use crate::errno::{Context, Errno, Error, Result};
use crate::layer::marks;
use crate::sys::object::Object;
use crate::sys::xattr;

/// What the work directory may hold.
const OURS: [&[u8]; 3] = [b"work", b"index", b"plyfs"];
/// Features that make the upper unfit for those who do not know them, one entry each.
const INCOMPAT: &str = "incompat";
const VOLATILE: &str = "volatile";
/// There if the upper directory's marks are `trusted.*` attributes.
const TRUSTED: &str = "trusted";
/// Marks that decide what shows lie in the sidecar: nobody else must mount this.
const ASIDE: &str = "plyfs";

/// How long a mount that is gone may take to say so: its server has to notice.
const NOTICED: Duration = Duration::from_secs(2);

/// How long a server may take to end once its mount is gone: it syncs what was written.
const ENDED: Duration = Duration::from_mins(1);

/// Opens the work and the upper directory for good and takes the locks that say that they are in
/// use. The upper's is given up when the mount has gone, the other when all is on disk: who mounts
/// anew at once, as container engines do, waits for that.
///
/// # Errors
/// `EBUSY` while another mount uses either.
pub(super) fn lock(work: &Path, upper: &Path) -> Result<(OwnedFd, OwnedFd)> {
    let of_work = || format!("workdir {}", work.display());
    let of_upper = || format!("upperdir {}", upper.display());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let locked = rustix::fs::openat(CWD, work, flags, Mode::empty()).context(of_work)?;
    let live = rustix::fs::openat(CWD, upper, flags, Mode::empty()).context(of_upper)?;
    wait_for(&live, NOTICED, upper).context(of_upper)?;
    wait_for(&locked, ENDED, upper).context(of_work)?;
    Ok((locked, live))
}

/// Locks a directory, at the latest when `limit` is over.
fn wait_for(dir: &OwnedFd, limit: Duration, upper: &Path) -> Result<()> {
    let begin = Instant::now();
    loop {
        match rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Raw::WOULDBLOCK | Raw::INTR) if begin.elapsed() < limit => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(Raw::WOULDBLOCK) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Error::new(
        Errno::EBUSY,
        format!(
            "upperdir {} is in use by another mount; unmount that one first, or use directories \
             of its own for each mount",
            upper.display()
        ),
    ))
}

/// Refuses a work directory that holds what is not ours: it would be taken for garbage. What
/// fuse-overlayfs leaves there, numbered, is left alone.
pub(super) fn refuse_foreign(work: &OwnedFd) -> Result<()> {
    for name in names(Object::dir(work))? {
        if !OURS.contains(&name.as_slice()) && !name.iter().all(u8::is_ascii_digit) {
            let text = format!(
                "it holds {}, which is not of a mount's making; use an empty directory",
                name.escape_ascii()
            );
            return Err(Error::new(Errno::ENOTEMPTY, text));
        }
    }
    Ok(())
}

/// Opens (`O_PATH`) the directory `name` in the work directory, made if it is missing; closed to
/// everybody else, and handing nothing down to what is made in it.
pub(super) fn subdirectory(work: &OwnedFd, name: &str) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(work, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Raw::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let object = Object::Entry(work.as_fd(), name.as_bytes());
    let attr = object.stat()?.attr;
    if attr.perm != 0o700 {
        object.chmod(0o700)?;
    }
    match xattr::remove(object, marks::DEFAULT_ACL) {
        Err(error) if !matches!(error.errno(), Errno::ENODATA | Errno::EOPNOTSUPP) => {
            return Err(error);
        }
        _ => {}
    }
    object.open(OFlags::PATH | OFlags::DIRECTORY)
}

/// Refuses an upper that was left in a state this version cannot go on from.
pub(super) fn refuse_incompat(staging: &OwnedFd, upper: &Path, work: &Path) -> Result<()> {
    let held = match names(Object::Entry(staging.as_fd(), INCOMPAT.as_bytes())) {
        Err(error) if error.errno() == Errno::ENOENT => return Ok(()),
        held => held?,
    };
    let Some(feature) = held.iter().find(|name| *name != ASIDE.as_bytes()) else {
        return Ok(());
    };
    let text = if feature == VOLATILE.as_bytes() {
        format!(
            "upperdir {} was mounted volatile and not unmounted cleanly: what it holds may be \
             incomplete. Throw it away and start anew; to keep it all the same, remove {}",
            upper.display(),
            work.join("work").join(INCOMPAT).display()
        )
    } else {
        format!(
            "upperdir {} uses a feature that this version does not know: {}",
            upper.display(),
            feature.escape_ascii()
        )
    };
    Err(Error::new(Errno::EINVAL, text))
}

/// As a mount does, refuses an upper that may be incomplete; for who only reads it, while it is not
/// mounted.
///
/// # Errors
/// `EINVAL` if it was mounted volatile and not unmounted cleanly, or has features not known here.
pub fn refuse_unclean(upper: &Path, work: &Path) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, work.join("work"), flags, Mode::empty()) {
        Ok(staging) => refuse_incompat(&staging, upper, work),
        // Made by the first mount.
        Err(Raw::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Says on disk that the upper is not being synced.
pub(super) fn mark_volatile(staging: &OwnedFd) -> Result<()> {
    mark_incompat(staging, VOLATILE)
}

/// Says on disk that the upper cannot be read without what lies in the sidecar.
pub(super) fn mark_aside(staging: &OwnedFd) -> Result<()> {
    mark_incompat(staging, ASIDE)
}

/// Whether there may be marks in the sidecar that decide what shows.
pub(super) fn has_aside(staging: &OwnedFd) -> bool {
    let path = format!("{INCOMPAT}/{ASIDE}");
    rustix::fs::statat(staging, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Notes in `home`, the directory of our own in the work directory, that marks are `trusted.*`
/// attributes, or refuses an upper directory that has such where they cannot even be seen.
///
/// # Errors
/// `EPERM` if they cannot.
pub(super) fn note_trusted(home: &OwnedFd, trusted: bool, upper: &Path) -> Result<()> {
    if trusted {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let made = rustix::fs::openat(home, TRUSTED, flags, Mode::from_raw_mode(0o600));
        return Ok(made.map(drop)?);
    }
    match rustix::fs::statat(home, TRUSTED, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => {
            let text = format!(
                "upperdir {} was written as root: its marks are trusted.* attributes, which nobody \
                 else can read, so that what is deleted would show; mount it as root",
                upper.display()
            );
            Err(Error::new(Errno::EPERM, text))
        }
        Err(_) => Ok(()),
    }
}

fn mark_incompat(staging: &OwnedFd, feature: &str) -> Result<()> {
    for name in [INCOMPAT, &format!("{INCOMPAT}/{feature}")] {
        match rustix::fs::mkdirat(staging, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Raw::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// The upper has been synced.
pub(super) fn clear_volatile(staging: &OwnedFd) -> Result<()> {
    let volatile = format!("{INCOMPAT}/{VOLATILE}");
    rustix::fs::unlinkat(staging, volatile, AtFlags::REMOVEDIR)?;
    clear_incompat(staging)
}

/// Removes the directory of features if there are none.
fn clear_incompat(staging: &OwnedFd) -> Result<()> {
    match rustix::fs::unlinkat(staging, INCOMPAT, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Raw::NOTEMPTY | Raw::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes all that a crash left behind. Features that were not refused stay.
pub(super) fn sweep(staging: &OwnedFd) -> Result<()> {
    for name in names(Object::dir(staging))? {
        if name == INCOMPAT.as_bytes() {
            clear_incompat(staging)?;
            continue;
        }
        remove(staging.as_fd(), &name)
            .context(|| format!("cannot remove the leftover {}", name.escape_ascii()))?;
    }
    Ok(())
}

/// Removes `name` in `dir`, which nobody else changes, with all it holds; never what is mounted in
/// it (`EBUSY`). What is not there is no error.
pub fn remove_tree(dir: &impl AsFd, name: &[u8]) -> Result<()> {
    remove(dir.as_fd(), name)
}

/// The names in the directory that `dir` has open, `.` and `..` left out.
pub fn names_in(dir: &impl AsFd) -> Result<Vec<Vec<u8>>> {
    names(Object::dir(dir))
}

/// Removes `name` in `dir`, which nobody else changes, with all it holds. What is not there is no
/// error.
///
/// Directories inside are moved up to `dir` before they are emptied, so that no depth costs more
/// than one descriptor.
pub(super) fn remove(dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let mut left = VecDeque::from([name.to_vec()]);
    let mut moved = 0_u64;
    while let Some(name) = left.front() {
        if remove_shallow(dir, name)? {
            left.pop_front();
            continue;
        }
        let inside = open_for_removal(dir, name)?;
        for entry in names(Object::dir(&inside))? {
            if remove_shallow(inside.as_fd(), &entry)? {
                continue;
            }
            // A directory takes a new parent only if it may be written to.
            Object::Entry(inside.as_fd(), &entry).chmod(0o700)?;
            let up = loop {
                moved += 1;
                let up = format!("#rm-{moved:x}").into_bytes();
                let flags = RenameFlags::NOREPLACE;
                match rustix::fs::renameat_with(&inside, &*entry, dir, &*up, flags) {
                    Ok(()) => break up,
                    Err(Raw::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
            };
            left.push_back(up);
        }
    }
    Ok(())
}

/// Removes what is no directory, or an empty one. False for a directory that holds something.
fn remove_shallow(dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Raw::NOENT) => return Ok(true),
        Err(Raw::ISDIR | Raw::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Raw::NOENT) => Ok(true),
        Err(Raw::NOTEMPTY | Raw::EXIST) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory whatever its permission bits.
fn open_for_removal(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let object = Object::Entry(dir, name);
    let perm = object.stat()?.attr.perm;
    if perm & 0o700 != 0o700 {
        object.chmod(0o700)?;
    }
    object.open(OFlags::RDONLY | OFlags::DIRECTORY)
}

/// The names in a directory, `.` and `..` left out.
pub(super) fn names(dir: Object<'_>) -> Result<Vec<Vec<u8>>> {
    let listing = match dir {
        Object::Entry(..) | Object::Dir(_) => dir.open(OFlags::RDONLY | OFlags::DIRECTORY)?,
        Object::Itself(_) => return Err(Errno::EINVAL.into()),
    };
    let mut buf = vec![MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(listing, &mut buf);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}
