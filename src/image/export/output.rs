//! Where an export goes: a directory or an archive that does not exist before it is complete.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags};

use super::super::digest::{Digest, Hashing};
use super::super::layout::blob_name;
use crate::errno::{Context as _, Errno, Error, Result};

/// Where the blobs lie.
const DIRS: [&str; 2] = ["blobs", "blobs/sha256"];
/// The name of a blob whose digest is not known yet.
const PART: &str = "blobs/sha256/part";

/// The unit of a tar archive.
const BLOCK: u64 = 512;
type Block = [u8; 512];

/// Writes a blob's bytes to where they belong.
type Fill<'a> = dyn FnMut(&mut dyn Write) -> Result<()> + 'a;

/// A layout in the making. Unless it is finished, nothing of it remains.
#[derive(Debug)]
pub(super) struct Output {
    dest: PathBuf,
    /// Where it comes about; `None` once it is in its place.
    temporary: Option<PathBuf>,
    form: Form,
    blobs: BTreeSet<Digest>,
}

#[derive(Debug)]
enum Form {
    Directory,
    /// An archive, and how long it is.
    Archive(File, u64),
}

impl Output {
    /// An empty one for `dest`, where nothing may be.
    pub(super) fn create(archive: bool, dest: &Path) -> Result<Self> {
        refuse_existing(dest)?;
        let (temporary, form) = temporary(archive, dest)?;
        let (dest, temporary) = (dest.to_owned(), Some(temporary));
        let mut output = Self { dest, temporary, form, blobs: BTreeSet::new() };
        for dir in DIRS {
            output.dir(dir)?;
        }
        Ok(output)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temporary.as_deref().unwrap_or(&self.dest).join(name)
    }

    fn dir(&mut self, name: &str) -> Result<()> {
        match &mut self.form {
            Form::Directory => DirBuilder::new().mode(0o755).create(self.path(name))?,
            Form::Archive(file, at) => {
                file.write_all_at(&header(&format!("{name}/"), b'5', 0o755, 0), *at)?;
                *at += BLOCK;
            }
        }
        Ok(())
    }

    /// A file that is no blob.
    pub(super) fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write(name, &mut |out| Ok(out.write_all(bytes)?)).map(drop)
    }

    /// A blob whose digest is known, unless it is there already.
    pub(super) fn known(&mut self, digest: Digest, bytes: &[u8]) -> Result<()> {
        if self.blobs.insert(digest) { self.file(&blob_name(digest), bytes) } else { Ok(()) }
    }

    /// A blob whose digest comes of writing it; and its size.
    pub(super) fn blob(&mut self, fill: &mut Fill<'_>) -> Result<(Digest, u64)> {
        let begin = if let Form::Archive(_, at) = &self.form { *at } else { 0 };
        let (digest, size) = self.write(PART, fill)?;
        let new = self.blobs.insert(digest);
        let name = blob_name(digest);
        let (part, whole) = (self.path(PART), self.path(&name));
        match &mut self.form {
            Form::Directory => fs::rename(part, whole)?,
            Form::Archive(file, _) if new => {
                file.write_all_at(&header(&name, b'0', 0o644, size), begin)?;
            }
            Form::Archive(file, at) => {
                file.set_len(begin)?;
                *at = begin;
            }
        }
        Ok((digest, size))
    }

    /// Writes a file; its header follows its data, which may be of unknown number before.
    fn write(&mut self, name: &str, fill: &mut Fill<'_>) -> Result<(Digest, u64)> {
        let path = self.path(name);
        match &mut self.form {
            Form::Directory => {
                let file = File::create_new(path)?;
                let (digest, size) = pour(&file, fill)?;
                file.sync_all()?;
                Ok((digest, size))
            }
            Form::Archive(file, at) => {
                let begin = *at;
                rustix::fs::seek(&*file, rustix::fs::SeekFrom::Start(begin + BLOCK))?;
                let (digest, size) = pour(file, fill)?;
                file.write_all_at(&header(name, b'0', 0o644, size), begin)?;
                *at = begin + BLOCK + size.next_multiple_of(BLOCK);
                file.set_len(*at)?;
                Ok((digest, size))
            }
        }
    }

    /// Syncs everything, and puts it in its place.
    pub(super) fn finish(mut self) -> Result<()> {
        let Some(temporary) = self.temporary.clone() else { return Ok(()) };
        match &mut self.form {
            Form::Directory => {
                for dir in DIRS.iter().rev().map(|dir| temporary.join(dir)) {
                    sync_dir(&dir)?;
                }
                sync_dir(&temporary)?;
            }
            Form::Archive(file, at) => {
                // The end of an archive is two blocks of zeros.
                file.set_len(*at + 2 * BLOCK)?;
                file.sync_all()?;
            }
        }
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(CWD, &temporary, CWD, &self.dest, flags) {
            // A filesystem that cannot promise it.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                refuse_existing(&self.dest)?;
                fs::rename(&temporary, &self.dest)?;
            }
            Err(rustix::io::Errno::EXIST) => return Err(exists()),
            renamed => renamed?,
        }
        self.temporary = None;
        sync_dir(parent(&self.dest))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let Some(path) = self.temporary.take() else { return };
        let removed = match self.form {
            Form::Directory => fs::remove_dir_all(&path),
            Form::Archive(..) => fs::remove_file(&path),
        };
        if let Err(error) = removed {
            tracing::warn!("{}: not removed: {error}", path.display());
        }
    }
}

/// Lets `fill` write to `file` from where it stands, through a buffer.
fn pour(file: &File, fill: &mut Fill<'_>) -> Result<(Digest, u64)> {
    let mut out = Hashing::new(BufWriter::with_capacity(256 << 10, file));
    fill(&mut out)?;
    let (mut out, digest, size) = out.finish();
    out.flush()?;
    Ok((digest, size))
}

/// The header of an archive's entry: nobody's, from 1970.
fn header(name: &str, kind: u8, mode: u32, size: u64) -> Block {
    const SIZE: usize = 124;
    const SUM: usize = 148;
    let mut block: Block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in block.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}\0{:07o}\0{:07o}\0", 0, 0).as_bytes());
    match size {
        // What eleven octal digits cannot say is said in binary, as GNU tar does.
        0o100_000_000_000.. => {
            put(SIZE, &[0x80, 0, 0, 0]);
            put(SIZE + 4, &size.to_be_bytes());
        }
        _ => put(SIZE, format!("{size:011o}\0").as_bytes()),
    }
    put(136, format!("{:011o}\0        ", 0).as_bytes());
    put(156, &[kind]);
    put(257, b"ustar  \0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    for (to, from) in block.iter_mut().skip(SUM).zip(sum.as_bytes()) {
        *to = *from;
    }
    block
}

/// A new file or directory beside `dest`.
fn temporary(archive: bool, dest: &Path) -> Result<(PathBuf, Form)> {
    let Some(name) = dest.file_name() else {
        return Err(Error::new(Errno::EINVAL, "not a name for a new file"));
    };
    for number in 0..1000 {
        let mut beside = OsString::from(".");
        beside.push(name);
        beside.push(format!(".plyfs-{}-{number}", std::process::id()));
        let path = parent(dest).join(beside);
        let made = if archive {
            File::create_new(&path).map(|file| Form::Archive(file, 0))
        } else {
            DirBuilder::new().mode(0o755).create(&path).map(|()| Form::Directory)
        };
        match made {
            Ok(form) => return Ok((path, form)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(exists())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn refuse_existing(dest: &Path) -> Result<()> {
    if dest.symlink_metadata().is_ok() { Err(exists()) } else { Ok(()) }
}

fn exists() -> Error {
    Error::new(Errno::EEXIST, "it exists already")
}

fn sync_dir(path: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    rustix::fs::fsync(fd).context(|| path.display().to_string())
}
