//! A root filesystem made of busybox, and ways to run something in it: in this process, or in one
//! that can be killed, stopped and given a terminal.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use plyfs::container::{self, Bind, Spec, Status, config};
use plyfs::sys::mountinfo::{self, Mount};

/// What the helper prints before the container's own output.
pub(crate) const MARK: &str = "--- the container ---\n";
/// Where the helper finds what it is to run.
const VARIABLE: &str = "PLYFS_TEST_CONTAINER";
/// Between the fields, and between the words of one.
const FIELD: char = '\x1e';
const WORD: char = '\x1f';

/// A root in a directory of its own.
pub(crate) struct Stand {
    dir: tempfile::TempDir,
}

impl Stand {
    pub(crate) fn new() -> Self {
        let stand = Self { dir: tempfile::tempdir().unwrap() };
        let root = stand.root();
        for dir in ["bin", "etc", "tmp", "root"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        // Not the copy: a container that another test forks right now may have it open still.
        let applets = Command::new("/bin/busybox").arg("--list").output().unwrap();
        for applet in String::from_utf8(applets.stdout).unwrap().lines() {
            if applet != "busybox" {
                symlink("busybox", root.join("bin").join(applet)).unwrap();
            }
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:100:Ann:/home/ann:/bin/sh\n";
        fs::write(root.join("etc/passwd"), passwd).unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nusers:x:100:\naudio:x:29:bob,ann\n").unwrap();
        stand
    }

    /// A directory beside the root.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// What is mounted on the host, each with its number, as far as a container may have done it:
    /// in the stand's directory, or of a type that containers get anew. Others mount and unmount
    /// at the same time.
    pub(crate) fn mounts(&self) -> Vec<Mount> {
        let mut mounts = mountinfo::read().unwrap();
        let of_containers = ["proc", "sysfs", "devpts", "mqueue"];
        mounts.retain(|mount| {
            let kind = mount.fs_type.to_str();
            mount.point.starts_with(self.dir()) || kind.is_some_and(|k| of_containers.contains(&k))
        });
        mounts
    }

    /// A file of the root, from outside.
    pub(crate) fn read(&self, path: &str) -> String {
        let path = self.root().join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// To run `words`.
    pub(crate) fn spec(&self, words: &[&str]) -> Spec {
        Spec {
            root: self.root(),
            args: words.iter().map(OsString::from).collect(),
            env: config::environment("box", None, &[], &[]),
            cwd: PathBuf::new(),
            user: None,
            hostname: "box".to_owned(),
            binds: Vec::new(),
            resolv_conf: false,
        }
    }

    /// To run a shell script.
    pub(crate) fn script(&self, script: &str) -> Spec {
        self.spec(&["sh", "-c", script])
    }

    /// Runs a script whose standard output goes to a file; its exit code and the output.
    pub(crate) fn output_of(&self, script: &str) -> (u8, String) {
        self.output_with(script, |_| {})
    }

    /// As [`output_of`](Self::output_of), with changes to what is run.
    pub(crate) fn output_with(&self, script: &str, change: impl FnOnce(&mut Spec)) -> (u8, String) {
        let file = self.root().join("tmp/output");
        fs::write(&file, "").unwrap();
        set_mode(&file, 0o666);
        let mut spec = self.script(&format!("exec >/tmp/output 2>&1\n{script}"));
        change(&mut spec);
        let code = code(&spec);
        (code, self.read("tmp/output"))
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Runs, and must be able to.
pub(crate) fn status(spec: &Spec) -> Status {
    container::run(spec).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn code(spec: &Spec) -> u8 {
    status(spec).code()
}

/// The helper: this test program, told by a variable what to run.
pub(crate) fn process(spec: &Spec) -> Command {
    let words = |words: &[OsString]| {
        let words = words.iter().map(|word| word.to_str().unwrap());
        words.collect::<Vec<_>>().join(&WORD.to_string())
    };
    let binds = spec.binds.iter().map(|Bind { host, container, read_only }| {
        let mode = if *read_only { "ro" } else { "rw" };
        OsString::from(format!("{}:{}:{mode}", host.display(), container.display()))
    });
    let fields = [
        spec.root.to_str().unwrap().to_owned(),
        words(&spec.args),
        words(&spec.env),
        spec.user.clone().unwrap_or_default(),
        words(&binds.collect::<Vec<_>>()),
    ];
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_process_runs_what_it_is_told", "--nocapture"]);
    command.env(VARIABLE, fields.join(&FIELD.to_string()));
    command
}

/// What the helper was told to run, if it was.
pub(crate) fn told() -> Option<Spec> {
    let told = std::env::var(VARIABLE).ok()?;
    let fields: Vec<_> = told.split(FIELD).collect();
    let words = |field: &str| {
        let words = field.split(WORD).filter(|word| !word.is_empty());
        words.map(OsString::from).collect::<Vec<_>>()
    };
    Some(Spec {
        root: fields[0].into(),
        args: words(fields[1]),
        env: words(fields[2]),
        cwd: PathBuf::new(),
        user: Some(fields[3].to_owned()),
        hostname: "box".to_owned(),
        binds: words(fields[4]).iter().map(|bind| config::bind(bind).unwrap()).collect(),
        resolv_conf: false,
    })
}

/// What the container wrote to standard output.
pub(crate) fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    let (_, said) = text.split_once(MARK).unwrap_or_else(|| panic!("it did not start: {text}"));
    said.to_owned()
}

/// Runs the helper with this on its standard input.
pub(crate) fn fed(spec: &Spec, input: &[u8]) -> Output {
    use std::io::Write;
    let mut child =
        process(spec).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the helper");
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// Waits for something that happens soon.
#[track_caller]
pub(crate) fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    for _ in 0..400 {
        if happened() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    panic!("never: {what}");
}

/// The processes of this machine whose command line has this word.
pub(crate) fn processes_with(word: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.split(|&byte| byte == 0).any(|argument| argument == word.as_bytes()) {
            found.push(pid);
        }
    }
    found
}
