//! What is measured: ways to have a writable tree over read-only layers. Each is mounted over a
//! stack of directories and gives the tree's root; where it cannot be had here, mounting says why.

mod copy;
mod overlay;
mod program;

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::failed;
use crate::errno::{Context, Result};
use crate::sys::fuse_mount;

/// The directories that a tree is made of.
#[derive(Clone, Copy, Debug)]
pub struct Stack<'a> {
    /// The read-only layers, topmost first.
    pub lowers: &'a [PathBuf],
    /// Where changes go: empty.
    pub upper: &'a Path,
    /// Empty, on the same filesystem.
    pub work: &'a Path,
    /// Where to mount.
    pub mnt: &'a Path,
    /// Where a target that copies may keep its copy for later, since nobody will change its tree.
    pub kept: Option<&'a Path>,
}

impl Stack<'_> {
    /// As an option of mount: `lowerdir=A:B,upperdir=U,workdir=W`.
    fn options(&self) -> String {
        let lowers: Vec<_> = self.lowers.iter().map(|path| path.display().to_string()).collect();
        let (upper, work) = (self.upper.display(), self.work.display());
        format!("lowerdir={},upperdir={upper},workdir={work}", lowers.join(":"))
    }
}

/// A way to have a writable tree over read-only layers.
pub trait Target: Debug + Send + Sync {
    /// What it is called in reports: a word.
    fn name(&self) -> &str;

    /// What it is, with version and options, for whoever wants to measure the same.
    fn about(&self) -> String;

    /// Mounts it.
    ///
    /// # Errors
    /// Why it cannot be had here, in words for the user.
    fn mount(&self, stack: &Stack<'_>) -> Result<Mounted>;
}

/// A tree that is mounted. Unmounted when dropped, whether or not that is still noticed.
#[derive(Debug)]
pub struct Mounted {
    root: PathBuf,
    upper: PathBuf,
    /// There is a mount to take away.
    live: bool,
    /// The program that was started, unless it has ended.
    child: Option<Child>,
    /// The processes that serve it, once they were looked for.
    servers: Option<Vec<Pid>>,
}

/// How long a server may take to end after its mount has gone: it may sync the upper layer.
const SERVER_ENDS: Duration = Duration::from_mins(2);

impl Mounted {
    /// A tree that is no mount.
    fn plain(root: &Path) -> Self {
        let (root, upper) = (root.to_owned(), root.to_owned());
        Self { root, upper, live: false, child: None, servers: Some(Vec::new()) }
    }

    /// A mount of the kernel's own.
    fn kernel(stack: &Stack<'_>) -> Self {
        let mut mounted = Self::served(stack, None);
        mounted.servers = Some(Vec::new());
        mounted
    }

    /// A mount that processes serve.
    fn served(stack: &Stack<'_>, child: Option<Child>) -> Self {
        let (root, upper) = (stack.mnt.to_owned(), stack.upper.to_owned());
        Self { root, upper, live: true, child, servers: None }
    }

    /// The tree's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where what is changed comes to lie.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// The processes that serve it; looked for once.
    pub fn servers(&mut self) -> &[Pid] {
        if self.servers.is_none() && self.child.as_mut().is_some_and(ends_soon) {
            self.child = None;
        }
        let (root, child) = (&self.root, &self.child);
        self.servers.get_or_insert_with(|| {
            let mut found = program::naming(root);
            if let Some(child) = child {
                let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                found.extend(pid.filter(|pid| !found.contains(pid)));
            }
            found
        })
    }

    /// Unmounts, and returns when whoever served it has ended.
    pub fn unmount(mut self) -> Result<()> {
        self.end(false)
    }

    fn end(&mut self, lazy: bool) -> Result<()> {
        if !std::mem::take(&mut self.live) {
            return Ok(());
        }
        let servers = self.servers().to_vec();
        let unmounted = match fuse_mount::unmount(&self.root, lazy) {
            Err(_) if !lazy => fuse_mount::unmount(&self.root, true),
            result => result,
        };
        let until = Instant::now() + SERVER_ENDS;
        let ended = servers.iter().try_for_each(|&server| wait_for(server, until));
        if let Some(child) = &mut self.child {
            // What has ended is no zombie afterwards; what has not was sent SIGKILL.
            child.wait()?;
        }
        unmounted.context(|| format!("cannot unmount {}", self.root.display()))?;
        ended
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.end(true) {
            tracing::warn!("{error}");
        }
    }
}

/// How long a program that goes into the background may take to end in front.
const IN_FRONT: Duration = Duration::from_millis(50);

/// Whether a program that has mounted ends now, since another process of it serves.
fn ends_soon(child: &mut Child) -> bool {
    let until = Instant::now() + IN_FRONT;
    while Instant::now() < until {
        if child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

/// Waits until a process has ended; kills it when that takes too long.
fn wait_for(process: Pid, until: Instant) -> Result<()> {
    // One that is not there has ended.
    let Ok(fd) = pidfd_open(process, PidfdFlags::empty()) else { return Ok(()) };
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => break,
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    pidfd_send_signal(&fd, Signal::KILL)?;
    let (pid, seconds) = (process.as_raw_nonzero(), SERVER_ENDS.as_secs());
    Err(failed(format!("process {pid} went on for {seconds} seconds after its mount had gone")))
}

/// How a program ended, in words.
fn ending(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("ended with status {code}"),
        None => "was ended by a signal".to_owned(),
    }
}

/// The targets that are measured unless others are named.
pub const USUAL: [&str; 5] = ["plyfs", "overlay", "overlay-full", "fuse-overlayfs", "plain"];

/// Those that `--full` measures besides.
pub const FURTHER: [&str; 2] = ["plyfs-fuser", "reflink"];

/// The forms in which a target can be named, for messages.
pub const FORMS: &str = "plyfs, plyfs-fuser, overlay, overlay-full, fuse-overlayfs, plain, \
                         reflink, the path of a program that is called as fuse-overlayfs is, \
                         'cmd:PROGRAM -o {opts} {mnt}', or NAME= before one of the last two";

/// The target of this name or form; `plyfs` is the program to run for those that are plyfs.
pub fn named(said: &str, plyfs: &Path) -> Result<Box<dyn Target>> {
    let (name, form) = match said.split_once('=') {
        Some((name, form)) if is_name(name) && (form.starts_with("cmd:") || is_path(form)) => {
            (Some(name.to_owned()), form)
        }
        _ => (None, said),
    };
    Ok(match form {
        "plyfs" => Box::new(program::plyfs("plyfs", plyfs, "native")),
        "plyfs-fuser" => Box::new(program::plyfs("plyfs-fuser", plyfs, "fuser")),
        "overlay" => Box::new(overlay::Overlay::usual()),
        "overlay-full" => Box::new(overlay::Overlay::full()),
        "fuse-overlayfs" => Box::new(program::alike("fuse-overlayfs", "fuse-overlayfs")),
        "plain" => Box::new(copy::Copy::plain()),
        "reflink" => Box::new(copy::Copy::reflink()),
        path if is_path(path) => {
            Box::new(program::alike(&name.unwrap_or_else(|| last(path)), path))
        }
        _ => match form.strip_prefix("cmd:") {
            Some(line) => Box::new(program::by_line(name, line)?),
            None => return Err(failed(format!("there is no target '{said}'; it may be {FORMS}"))),
        },
    })
}

fn is_name(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_path(word: &str) -> bool {
    word.starts_with('/') || word.starts_with("./") || word.starts_with("../")
}

/// The last component of a program's path.
fn last(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests;
