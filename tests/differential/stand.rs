//! Directories of one case, and what is mounted of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use plyfs::testkit::TreeSpec;

pub(crate) fn sh(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().expect(program);
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// Unmounts what is there when it goes.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        use rustix::mount::{UnmountFlags, unmount};
        // Not lazily, if it can be helped: what was written must be in the layer when it is mounted
        // again, and a lazy unmount writes it later.
        for _ in 0..50 {
            match unmount(&self.0, UnmountFlags::empty()) {
                Ok(()) => return,
                Err(rustix::io::Errno::BUSY) => {}
                Err(_) => break,
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        if unmount(&self.0, UnmountFlags::DETACH).is_err() {
            eprintln!("{} was not mounted any more", self.0.display());
        }
    }
}

/// One case's directories.
pub(crate) struct Case {
    pub(crate) dir: PathBuf,
    pub(crate) lowers: usize,
    /// Where a peer's upper and work directory lie, if not beside the lowers.
    pub(crate) upper_in: Option<PathBuf>,
}

impl Case {
    pub(crate) fn new(dir: &Path, specs: &[TreeSpec]) -> Self {
        for name in ["upper", "work", "mnt", "plain", "kupper", "kwork", "kmnt"] {
            make_dir(&dir.join(name));
        }
        for (n, spec) in specs.iter().enumerate() {
            let path = dir.join(format!("lower{n}"));
            make_dir(&path);
            spec.system(&path).unwrap();
        }
        if specs.is_empty() {
            // overlayfs wants at least one.
            make_dir(&dir.join("lower0"));
        }
        Self { dir: dir.to_owned(), lowers: specs.len().max(1), upper_in: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn options_at(&self, base: &Path, upper: &str, work: &str) -> String {
        let lowers: Vec<_> =
            (0..self.lowers).map(|n| text(&self.path(&format!("lower{n}"))).to_owned()).collect();
        let (upper, work) = (base.join(upper), base.join(work));
        format!("lowerdir={},upperdir={},workdir={}", lowers.join(":"), text(&upper), text(&work))
    }

    pub(crate) fn options(&self, upper: &str, work: &str) -> String {
        self.options_at(&self.dir, upper, work)
    }

    /// Puts the peer's upper and work directory on a filesystem of their own.
    pub(crate) fn upper_in_memory(&mut self) -> Mounted {
        let at = self.path("memory");
        make_dir(&at);
        sh("mount", &["-t", "tmpfs", "none", text(&at)]).unwrap();
        for name in ["upper", "work"] {
            make_dir(&at.join(name));
        }
        self.upper_in = Some(at.clone());
        Mounted(at)
    }

    /// With the upper where a peer has it.
    pub(crate) fn options_in(&self, upper: &str, work: &str) -> String {
        self.options_at(self.upper_in.as_ref().unwrap_or(&self.dir), upper, work)
    }

    pub(crate) fn mount_plyfs(&self) -> Mounted {
        let (options, at) = (self.options("upper", "work"), self.path("mnt"));
        sh(env!("CARGO_BIN_EXE_plyfs"), &["mount", "-o", &options, text(&at)]).unwrap();
        Mounted(at)
    }

    pub(crate) fn mount_overlay(&self, upper: &str, work: &str) -> Result<Mounted, String> {
        let options = self.options(upper, work) + ",redirect_dir=on,index=on,metacopy=on,xino=off";
        let at = self.path("kmnt");
        sh("mount", &["-t", "overlay", "overlay", "-o", &options, text(&at)])?;
        Ok(Mounted(at))
    }
}

pub(crate) fn make_dir(path: &Path) {
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
