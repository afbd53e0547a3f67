//! A stack of layers in a directory of its own, mounted; unmounted again whatever happens.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Layers, an upper and a mount point.
pub(crate) struct Stand {
    dir: TempDir,
    /// Names of the lower layers, topmost first.
    lowers: Vec<String>,
    upper: String,
    work: String,
    mounted: bool,
    /// The upper and the work directory lie on a small filesystem of their own.
    small: bool,
}

impl Stand {
    /// One lower layer, filled by `fill`, under an empty upper; mounted.
    pub(crate) fn new(fill: impl FnOnce(&Path)) -> Self {
        let mut stand = Self::unmounted(&["lower"]);
        fill(&stand.path("lower"));
        stand.mount();
        stand
    }

    /// Empty lower layers of these names, topmost first; not mounted yet.
    pub(crate) fn unmounted(lowers: &[&str]) -> Self {
        assert!(rustix::process::geteuid().is_root(), "these tests mount, and need root");
        let dir = tempfile::Builder::new().prefix("plyfs-test-").tempdir().unwrap();
        // Other users' processes take part in some tests.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in lowers.iter().chain(&["upper", "work", "mnt"]) {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let lowers = lowers.iter().map(ToString::to_string).collect();
        let (upper, work) = ("upper".to_owned(), "work".to_owned());
        Self { dir, lowers, upper, work, mounted: false, small: false }
    }

    /// One lower layer, filled by `fill`, under an upper on a filesystem of the type `fs` that
    /// holds a few megabytes (btrfs: by a quota), in the directory `small`; mounted.
    pub(crate) fn on_small(fs: &str, fill: impl FnOnce(&Path)) -> Self {
        let mut stand = Self::unmounted(&["lower"]);
        fill(&stand.path("lower"));
        let small = stand.path("small");
        fs::create_dir(&small).unwrap();
        if fs == "tmpfs" {
            run("mount", &[&"-t", &"tmpfs", &"-o", &"size=4m,nr_inodes=200", &"none", &small]);
        } else {
            // In memory, if there is such a place: the disk may be slow. The loop device keeps it.
            let image = tempfile::NamedTempFile::new_in("/dev/shm")
                .or_else(|_| tempfile::NamedTempFile::new())
                .unwrap();
            let btrfs = fs == "btrfs";
            image.as_file().set_len(if btrfs { 128 << 20 } else { 4 << 20 }).unwrap();
            let mkfs = format!("mkfs.{fs}");
            let image = image.path();
            if btrfs {
                run(&mkfs, &[&"-q", &image]);
            } else {
                run(&mkfs, &[&"-q", &"-N", &"200", &image]);
            }
            run("mount", &[&"-o", &"loop", &image, &small]);
            if btrfs {
                run("btrfs", &[&"quota", &"enable", &small]);
                run("btrfs", &[&"qgroup", &"limit", &"4M", &"0/5", &small]);
            }
        }
        stand.small = true;
        (stand.upper, stand.work) = ("small/upper".to_owned(), "small/work".to_owned());
        fs::create_dir(stand.path("small/upper")).unwrap();
        fs::create_dir(stand.path("small/work")).unwrap();
        stand.mount();
        stand
    }

    /// A second container over the same layers: its own upper and mount point, not mounted.
    pub(crate) fn beside(&self, name: &str) -> Beside<'_> {
        for part in ["upper", "work", "mnt"] {
            fs::create_dir(self.path(&format!("{name}-{part}"))).unwrap();
        }
        Beside { stand: self, name: name.to_owned(), mounted: false }
    }

    /// A path in the stand's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path in the mount.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path("mnt").join(name)
    }

    fn lowerdir(&self) -> String {
        let paths = self.lowers.iter().map(|name| self.path(name).display().to_string());
        paths.collect::<Vec<_>>().join(":")
    }

    /// The mount options.
    pub(crate) fn options(&self) -> String {
        let (upper, work) = (self.path(&self.upper), self.path(&self.work));
        let lower = self.lowerdir();
        format!("lowerdir={lower},upperdir={},workdir={}", upper.display(), work.display())
    }

    pub(crate) fn mount(&mut self) {
        self.mount_by(plyfs::<&str>(&[]));
    }

    /// Mounts by `command`, which ends in the program's name.
    pub(crate) fn mount_by(&mut self, command: Command) {
        self.mount_with(command, &[]);
    }

    /// As [`mount_by`](Self::mount_by), with more arguments.
    pub(crate) fn mount_with(&mut self, mut command: Command, more: &[&str]) {
        command.arg("mount").args(more).args(["-o", &self.options()]).arg(self.path("mnt"));
        assert_ok(&command.output().unwrap());
        self.mounted = true;
    }

    /// Ends the server by SIGKILL, takes the dead mount away and mounts anew.
    pub(crate) fn kill_and_mount(&mut self, before_mount: impl FnOnce()) {
        let server = self.server();
        let pid = rustix::process::Pid::from_raw(server).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        while Path::new(&format!("/proc/{server}/exe")).exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        before_mount();
        run("umount", &[&"--lazy", &self.path("mnt")]);
        self.mounted = false;
        self.mount();
    }

    /// The process that serves the mount.
    pub(crate) fn server(&self) -> i32 {
        let mnt = self.path("mnt").display().to_string();
        for entry in fs::read_dir("/proc").unwrap() {
            let entry = entry.unwrap();
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.split('\0').any(|arg| arg == mnt) && line.contains("plyfs") && serves(pid) {
                return pid;
            }
        }
        panic!("nobody serves {mnt}");
    }

    pub(crate) fn umount(&mut self) {
        let output = plyfs(&[OsStr::new("umount")]).arg(self.path("mnt")).output().unwrap();
        assert_ok(&output);
        self.mounted = false;
    }

    pub(crate) fn remount(&mut self) {
        self.umount();
        self.mount();
    }

    /// Nothing staged is left in the work directory.
    pub(crate) fn assert_work_is_clean(&self) {
        let work = self.path(&self.work).join("work");
        let left: Vec<_> = fs::read_dir(work).unwrap().map(|e| e.unwrap().file_name()).collect();
        // The inode that whiteouts share stays for the next use.
        let left: Vec<_> =
            left.iter().filter(|n| !n.as_encoded_bytes().starts_with(b"#whiteout-")).collect();
        assert!(left.is_empty(), "left in work: {left:?}");
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if self.mounted {
            force_umount(&self.path("mnt"));
        }
        if self.small {
            force_umount(&self.path("small"));
        }
    }
}

/// Whether a process has a connection to the kernel's FUSE.
fn serves(pid: i32) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let mut targets = descriptors.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    targets.any(|target| target == Path::new("/dev/fuse"))
}

/// Another container over a stand's layers.
pub(crate) struct Beside<'a> {
    stand: &'a Stand,
    name: String,
    mounted: bool,
}

impl Beside<'_> {
    pub(crate) fn part(&self, part: &str) -> PathBuf {
        self.stand.path(&format!("{}-{part}", self.name))
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.part("mnt").join(name)
    }

    pub(crate) fn mount(&mut self) {
        let (lower, upper, work) = (self.stand.lowerdir(), self.part("upper"), self.part("work"));
        let options =
            format!("lowerdir={lower},upperdir={},workdir={}", upper.display(), work.display());
        let output = plyfs(&["mount", "-o", &options]).arg(self.part("mnt")).output().unwrap();
        assert_ok(&output);
        self.mounted = true;
    }

    pub(crate) fn umount(&mut self) {
        assert_ok(&plyfs(&["umount"]).arg(self.part("mnt")).output().unwrap());
        self.mounted = false;
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        if self.mounted {
            force_umount(&self.part("mnt"));
        }
    }
}

fn force_umount(at: &Path) {
    if rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH).is_err() {
        eprintln!("could not unmount {}", at.display());
    }
}

/// The program under test.
pub(crate) fn plyfs<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plyfs"));
    command.args(args);
    command
}

/// Runs a program of the system; it must succeed.
pub(crate) fn run(program: &str, args: &[&dyn AsRef<OsStr>]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}; scripts/test.sh installs it"));
    assert_ok(&output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program as an unprivileged user (1000:1000, no other groups); returns its output.
pub(crate) fn as_user(program: &str, args: &[&dyn AsRef<OsStr>]) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1000", "--regid=1000", "--clear-groups", program]);
    command.args(args).output().unwrap()
}

pub(crate) fn assert_ok(output: &Output) {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
}

/// The errno of a failed call.
pub(crate) fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

/// The errno of a failed rustix call.
pub(crate) fn rerrno<T: std::fmt::Debug>(result: rustix::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error()
}

/// Names in a directory, sorted.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Everything about a tree that must not change in a layer: one line an object.
pub(crate) fn fingerprint(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    describe(dir, "", &mut lines);
    lines.sort();
    lines
}

fn describe(path: &Path, at: &str, lines: &mut Vec<String>) {
    let meta = fs::symlink_metadata(path).unwrap();
    let content = if meta.is_file() {
        let bytes = fs::read(path).unwrap();
        let mut hash = std::hash::DefaultHasher::new();
        std::hash::Hasher::write(&mut hash, &bytes);
        format!("{:x}", std::hash::Hasher::finish(&hash))
    } else if meta.is_symlink() {
        fs::read_link(path).unwrap().display().to_string()
    } else {
        String::new()
    };
    let mut list = vec![0_u8; 65536];
    let len = rustix::fs::llistxattr(path, &mut list).unwrap();
    let mut xattrs = Vec::new();
    for name in list[..len].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0_u8; 65536];
        let name = std::ffi::CString::new(name).unwrap();
        let len = rustix::fs::lgetxattr(path, &*name, &mut value).unwrap();
        xattrs.push(format!("{}={}", name.to_string_lossy(), value[..len].escape_ascii()));
    }
    xattrs.sort();
    lines.push(format!(
        "{at} {:o} {}:{} {} {} {} {}.{} {content} {xattrs:?}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.nlink(),
        meta.size(),
        meta.rdev(),
        meta.mtime(),
        meta.mtime_nsec(),
    ));
    if meta.is_dir() {
        for name in names(path) {
            describe(&path.join(&name), &format!("{at}/{name}"), lines);
        }
    }
}
