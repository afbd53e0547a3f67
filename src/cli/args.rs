//! The command line: every command and option with its help.

mod bench;
mod stored;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use bench::*;
pub use stored::*;

const EXIT_CODES: &str = "\
Exit codes:
  0  it worked (check: no errors found)
  1  the operation failed (check: errors found)
  2  the command line makes no sense

An image is an immutable template: layers, and how to start what is in them. A container is a
disposable writable layer over an image. Both lie in the store; directories that you layer yourself
('plyfs mount -o') need none.

Environment:
  PLYFS_ROOT      the store, where --root does not say it
  PLYFS_DRIVER    what speaks FUSE's protocol, where --driver does not say it: native, fuser
  PLYFS_LOG       what to log, e.g. 'warn', 'debug', 'plyfs::fuse=trace'
  PLYFS_LOG_FILE  where a mount in the background logs to: a file, 'syslog' or 'none'; without it
                  to the system's logger (/dev/log) if there is one";

/// A layered filesystem: read-only layers unioned under one writable directory.
#[derive(Debug, Parser)]
#[command(name = "plyfs", version, about, after_help = EXIT_CODES, disable_help_subcommand = false)]
#[command(arg_required_else_help = true)]
pub struct Cli {
    /// The store: images and containers [default: /var/lib/plyfs, or for users
    /// ~/.local/share/plyfs]
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a command in a container made from an image, gone afterwards
    Run(RunArgs),
    /// Import, list, name, remove and export images
    #[command(subcommand, after_help = IMAGE_HELP)]
    Image(ImageCommand),
    /// Make a container from an image without starting anything
    Create(CreateArgs),
    /// List containers
    Ls(LsArgs),
    /// Make an image from a container
    Commit(CommitArgs),
    /// Remove containers
    Rm(RmArgs),
    /// Mount a container, or layers, at a directory
    Mount(MountArgs),
    /// Unmount, and wait until the mount's data are safe on disk
    Umount(UmountArgs),
    /// List what a container, or an upper directory, changes
    Diff(DiffArgs),
    /// Verify the store, or a stack of layers
    Check(CheckArgs),
    /// Remove from the store what nothing refers to
    Gc(GcArgs),
    /// Measure what copy-on-write costs: plyfs, overlayfs, fuse-overlayfs, a plain directory
    Bench(BenchArgs),
    /// Tell what this kernel, these privileges and this filesystem allow
    Doctor(DoctorArgs),
    /// Write manual pages or shell completions
    Generate(GenerateArgs),
}

const IMAGE_HELP: &str = "\
An image is the immutable template that containers are made from; its layers are stored once,
however many images have them.

Examples:
  plyfs image import debian.oci.tar --name debian
  plyfs image ls
  plyfs image export debian debian-again.oci.tar";

pub(super) const MOUNT_HELP: &str = "\
Options for -o, separated by commas:
  lowerdir=A:B:C     the read-only layers, topmost first
  lowerdir+=DIR      one more layer below those given so far
  upperdir=DIR       where changes go; without it the mount is read-only
  workdir=DIR        an empty directory on the same filesystem as upperdir
  volatile           never sync: faster, but after a crash the upperdir is lost
  metacopy=off       chmod, chown and the like copy a file's data, too, as before Linux 4.19;
                     without it the data stay in the layers until they are changed
  uidmapping=ID:SHOWN:COUNT[:ID:SHOWN:COUNT..], gidmapping=..   ids as the layers hold them and
                     as the mount shows them; those in no range are shown as 65534
  squash_to_root, squash_to_uid=ID, squash_to_gid=ID   everything is shown as one owner's
  xattr_permissions=2   owners, modes and types are kept in the attribute
                     user.containers.override_stat (1: security.fuseoverlayfs.override_stat)
  redirect_dir=off   no directory of a layer can be renamed (EXDEV: programs copy then), and
                     metacopy=off: every tool can read such an upperdir, but for hard links
  fsync=0            fsync(2) does nothing; copies from the layers are synced all the same
  noacl, noxattrs    no ACLs, or no extended attributes at all: EOPNOTSUPP; copies keep them
  static_nlink       directories show a link count of 1
  timeout=SECONDS    how long the kernel may keep names and attributes; without it for good
  context=LABEL, fscontext=, defcontext=, rootcontext=   SELinux's, handed to the kernel; where
                     SELinux is off, the mount is refused
  fsname=SOURCE      shown as the source in /proc/mounts
  log=FILE           where a mount in the background logs to; also log=syslog, log=none
  debug              as -d
  sync, dirsync      changes are durable before the program goes on: all, or those of names
  auto_unmount       unmounted when its process ends, however that ends, by a second process
  allow_other        all users may enter, as they always may when root mounts
  ro, nosuid, nodev, noexec, noatime   as for mount(8); as root without them: suid, dev, exec
A backslash takes the meaning from a comma, a colon or a backslash in a path: a\\:b
Accepted since other programs pass them, and of no effect: async, atime, auto, clone_fd, comment=,
default_permissions, defaults, diratime, fast_ino=, group, index=on, index=off, iversion, lazytime,
loud, mand, max_idle_threads=, max_read=, max_threads=, nfs_export=off, noauto, nodiratime, nofail,
nogroup, noiversion, nolazytime, nomand, noowner, norelatime, nostrictatime, nouser, nousers, owner,
private, relatime, rprivate, rshared, rslave, shared, silent, slave, strictatime, subtype=,
threaded=, user, users, userxattr, uuid=auto, uuid=null, uuid=off, verity=off, writeback=,
xino=auto, xino=off, xino=on, X-*, x-*, _netdev. What else there is in mount(8), fuse-overlayfs and
overlayfs is refused by name.

By other names: 'fuse-overlayfs -o OPTIONS MNT' (a link of that name to plyfs), 'plyfs -o OPTIONS
MNT', 'mount.plyfs SOURCE MNT -o OPTIONS', 'mount -t fuse.plyfs SOURCE MNT -o OPTIONS'.

SIGTERM ends the process of a mount, and the mount with it; SIGUSR1 has it log statistics.

Examples:
  plyfs mount web /mnt                                       the container 'web'
  plyfs mount -o lowerdir=/img/app:/img/base,upperdir=/c/up,workdir=/c/work /c/root
  plyfs mount -o lowerdir=/img/app:/img/base /mnt            read-only
  PLYFS_LOG=debug plyfs mount -f -o lowerdir=/img/base /mnt  in the foreground, with a log";

/// Arguments of `plyfs mount`.
#[derive(Args, Debug)]
#[command(after_help = MOUNT_HELP)]
pub struct MountArgs {
    /// Layers and flags; may be given several times. For a container: flags only
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<OsString>,
    /// Stay in the foreground and log to standard error
    #[arg(short = 'f', long)]
    pub foreground: bool,
    /// As -f, and log each request
    #[arg(short = 'd', long)]
    pub debug: bool,
    /// Threads that serve requests
    #[arg(long, value_name = "N", default_value_t = super::mount::THREADS,
        value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,
    /// What speaks FUSE's protocol: plyfs itself, or the crate fuser (conservative; it cannot do
    /// all). Without it $PLYFS_DRIVER counts, else it is 'native'
    #[arg(long, value_name = "DRIVER")]
    pub driver: Option<NamedDriver>,
    /// The directory to mount at; before it, the container, unless -o gives layers
    #[arg(value_name = "[CONTAINER] MNT", required = true, num_args = 1..=2)]
    pub what: Vec<PathBuf>,
}

/// Arguments of `plyfs umount`.
#[derive(Args, Debug)]
#[command(after_help = "\
Returns when the process that served the mount has gone: the upperdir is complete then, and may be
mounted again, copied or removed. Waits a minute for that at most: another mount namespace may have
the mount, too, and is served on. Refuses anything that is not a plyfs mount.

Examples:
  plyfs umount /c/root
  plyfs umount web           the container 'web', wherever it is mounted")]
pub struct UmountArgs {
    /// Detach at once, even if the mount is in use; it is served to its last user. Does not wait
    #[arg(short = 'l', long)]
    pub lazy: bool,
    /// The directory it is mounted at, or the container's name
    #[arg(value_name = "MNT|CONTAINER")]
    pub mountpoint: PathBuf,
}

/// Arguments of `plyfs diff`.
#[derive(Args, Debug)]
#[command(after_help = "\
One line a change, sorted by path:
  A PATH           added: no layer below has it (with --lower)
  C PATH           changed: a layer below has it, too (with --lower)
  U PATH           upper: added or changed, which only --lower can tell
  D PATH           deleted
  O PATH           a directory that replaces whatever lies below it
  R OLD -> PATH    a directory that was renamed; OLD is its path in the layers below
A directory that is there only to hold a change below it, and is otherwise as in the layers, is not
listed with --lower. Bytes that a terminal would interpret are shown as \\xNN.

Examples:
  plyfs diff web                       the container 'web', against its image
  plyfs diff /c/up
  plyfs diff /c/up --lower /img/app:/img/base --json")]
pub struct DiffArgs {
    /// The container, or an upper directory
    #[arg(value_name = "CONTAINER|UPPER")]
    pub upper: PathBuf,
    /// Layers below it, topmost first, joined by ':' as in lowerdir; may be given several times
    #[arg(long, value_name = "DIR[:DIR..]")]
    pub lower: Vec<OsString>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `plyfs check`.
#[derive(Args, Debug)]
#[command(after_help = "\
Without -o the store is verified: its database, that each layer is there and gives back the very
bytes it was imported from, and that nothing is left behind. With -o, a stack of layers is, and
nothing is changed.

Findings are errors (data are missing or wrong), warnings (something was left behind or is odd) and
notes (harmless). Only errors make the exit code 1.

Examples:
  plyfs check
  plyfs check --repair       removes what is left behind or broken; import mends the images then
  plyfs check -o lowerdir=/img/app:/img/base,upperdir=/c/up,workdir=/c/work")]
pub struct CheckArgs {
    /// The same options as for mount; may be given several times
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<OsString>,
    /// Do not read the contents of layers, only what there is
    #[arg(long, conflicts_with = "options")]
    pub quick: bool,
    /// Remove what is left behind, and what is broken
    #[arg(long, conflicts_with = "options")]
    pub repair: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `plyfs doctor`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  plyfs doctor
  plyfs doctor /var/lib/containers     also what the filesystem there can hold")]
pub struct DoctorArgs {
    /// A directory to probe as the place of an upper directory; a few files are made and removed
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `plyfs generate`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  plyfs generate man /usr/local/share/man/man1
  plyfs generate completions bash > /etc/bash_completion.d/plyfs
  plyfs generate completions zsh > /usr/local/share/zsh/site-functions/_plyfs
  plyfs generate completions fish > ~/.config/fish/completions/plyfs.fish")]
pub struct GenerateArgs {
    /// What to write.
    #[command(subcommand)]
    pub what: Generate,
}

/// What can be generated.
#[derive(Debug, Subcommand)]
pub enum Generate {
    /// Write a manual page for each command, plyfs.1, plyfs-mount.1, ...
    #[command(after_help = "\
Example:
  plyfs generate man /usr/local/share/man/man1")]
    Man {
        /// The directory to write them to; made if it is missing
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Print the completions for a shell
    #[command(after_help = "\
Example:
  plyfs generate completions bash > /etc/bash_completion.d/plyfs")]
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: CompletedShell,
    },
}

/// What speaks FUSE's protocol.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum NamedDriver {
    /// plyfs itself.
    Native,
    /// The crate fuser.
    Fuser,
}

/// A shell that there are completions for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CompletedShell {
    /// GNU bash, with its bash-completion package.
    Bash,
    /// The Z shell.
    Zsh,
    /// The friendly interactive shell.
    Fish,
}
