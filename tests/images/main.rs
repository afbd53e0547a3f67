//! Images in, containers out, as a user does it: the built program on images that other people's
//! tools made (`scripts/images.py`). Needs root, /dev/fuse, umoci, skopeo and buildah.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "this is test code: a surprise must stop the test"
)]

mod covered;
mod hostile;
mod overlayfs;
mod rootless;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const PLYFS: &str = env!("CARGO_BIN_EXE_plyfs");

/// Makes the images of that name, once for all tests, and returns the directory they are in.
fn images() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("i{}", std::process::id()));
        script(&["make", text(&dir), "small", "odd", "tall", "buildah", "docker", "zstd"]);
        dir
    })
}

/// Runs `scripts/images.py`.
fn script(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/images.py");
    let output = Command::new("python3").arg(script).args(arguments).output().unwrap();
    let said = format!("{}{}", stdout(&output), stderr(&output));
    assert!(output.status.success(), "images.py {arguments:?}: {said}");
    said
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A store of its own, whose mounts end with the test.
struct Stand(tempfile::TempDir);

impl Stand {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("plyfs-images-").tempdir().unwrap())
    }

    /// With the image `small`.
    fn with_small() -> Self {
        let this = Self::new();
        this.ok(&["image", "import", text(&images().join("small")), "--name", "small"]);
        this
    }

    fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PLYFS);
        command.current_dir(self.0.path()).env("PLYFS_ROOT", self.store()).args(arguments);
        command
    }

    fn plyfs(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs what has to work, and returns what it prints.
    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.plyfs(arguments);
        assert_eq!(output.status.code(), Some(0), "plyfs {arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// Runs what has to fail with `code`, and returns what it says.
    #[track_caller]
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.plyfs(arguments);
        assert_eq!(output.status.code(), Some(code), "plyfs {arguments:?}: {}", stderr(&output));
        stderr(&output)
    }

    /// The store holds what it says, and nothing else.
    #[track_caller]
    fn is_sound(&self) {
        let said = self.ok(&["check"]);
        assert!(said.contains("nothing found"), "{said}");
    }

    fn mounts(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        points.filter(|at| at.starts_with(text(self.0.path()))).map(str::to_owned).collect()
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        for at in self.mounts() {
            Command::new("umount").args(["--lazy", &at]).output().unwrap();
        }
    }
}

#[test]
fn trees_are_what_umoci_unpacks() {
    script(&["check", text(images()), PLYFS, "small", "odd", "tall", "buildah", "docker", "zstd"]);
}

#[test]
fn a_command_runs_in_what_the_image_says() {
    let stand = Stand::with_small();
    let said = stand.ok(&["run", "small", "--", "/bin/sh", "-c", "echo $GREETING $PWD; cat gone"]);
    assert_eq!(said, "hello /data\nback again");
    let said =
        stand.ok(&["run", "-u", "app", "-w", "/etc", "small", "--", "/bin/sh", "-c", "id; pwd"]);
    assert!(said.contains("uid=1000(app) gid=1000(app)") && said.ends_with("/etc\n"), "{said}");
    for (command, code) in [("exit 42", 42), ("kill -9 $$", 128 + 9), ("kill -TERM $$", 128 + 15)] {
        stand.fails(code, &["run", "small", "--", "/bin/sh", "-c", command]);
    }
    let said = stand.fails(127, &["run", "small", "--", "frobnicate"]);
    assert!(said.contains("frobnicate"), "{said}");
    stand.fails(126, &["run", "small", "--", "/etc/passwd"]);
    fs::write(stand.0.path().join("given"), "from the host").unwrap();
    let volume = format!("{}:/mnt/given:ro", text(&stand.0.path().join("given")));
    let script = "cat /mnt/given; echo x >/mnt/given";
    let output = stand.plyfs(&["run", "-v", &volume, "small", "--", "/bin/sh", "-c", script]);
    assert_eq!(stdout(&output), "from the host");
    assert!(!output.status.success());
    // The containers are gone, and so are the mounts.
    assert_eq!(stand.ok(&["ls", "--json"]), "");
    assert_eq!(stand.mounts(), Vec::<String>::new());
    stand.is_sound();
}

#[test]
fn a_container_is_kept_committed_exported_and_removed() {
    let stand = Stand::with_small();
    let change = "echo new >new; rm gone; mv sub moved; echo more >>moved/2; chmod 700 /etc";
    stand.ok(&["run", "small", "--keep", "c", "--", "/bin/sh", "-ec", change]);
    let said = stand.fails(1, &["run", "small", "--keep", "c", "--", "true"]);
    assert!(said.contains("container c already"), "{said}");
    assert_eq!(stand.ok(&["run", "c", "--", "/bin/cat", "new"]), "new\n");
    let diff = stand.ok(&["diff", "c"]);
    for line in ["A data/new", "D data/gone", "R data/sub/ -> data/moved/", "C etc/"] {
        assert!(diff.lines().any(|said| said == line), "{line} is missing in {diff}");
    }
    let said = stand.fails(1, &["image", "rm", "small"]);
    assert!(said.contains("container") && said.contains(" c"), "{said}");
    stand.ok(&["commit", "c", "small:2", "--change", "ENV LEFT=right", "-m", "moved"]);
    stand.ok(&["rm", "c"]);
    let said =
        stand.ok(&["run", "small:2", "--", "/bin/sh", "-c", "ls; echo $LEFT; cat moved/link"]);
    assert!(said.starts_with("moved\nnew\nreplaced\nright\n"), "{said}");
    assert!(said.ends_with("more\n"), "a hard link of the layer: {said}");

    // Read back by others, and by plyfs, it is the same.
    stand.ok(&["image", "export", "small:2", "out.tar"]);
    stand.ok(&[
        "image",
        "export",
        "small:2",
        "out",
        "--format",
        "oci-dir",
        "--compression",
        "zstd",
    ]);
    stand.ok(&["image", "export", "small:2", "docker.tar", "--format", "docker-archive"]);
    let said = stand.fails(1, &["image", "export", "small:2", "out.tar"]);
    assert!(said.contains("out.tar"), "{said}");
    script(&["check", text(stand.0.path()), PLYFS, "out"]);
    for archive in ["out.tar", "out", "docker.tar"] {
        let name = format!("{archive}:back");
        stand.ok(&["image", "import", archive, "--name", &name]);
        let same =
            stand.ok(&["image", "inspect", &name]) == stand.ok(&["image", "inspect", "small:2"]);
        assert!(same, "{archive}");
    }
    stand.is_sound();
    stand.ok(&["image", "rm", "small:2", "out.tar:back", "out:back", "docker.tar:back", "small"]);
    assert_eq!(stand.ok(&["image", "ls", "--json"]), "");
    for dir in ["trees", "snapshots", "trash", "incoming"] {
        assert_eq!(fs::read_dir(stand.store().join(dir)).unwrap().count(), 0, "{dir}");
    }
}

#[test]
fn a_commit_depends_on_the_container_alone() {
    let stand = Stand::with_small();
    stand.ok(&["run", "small", "--keep", "c", "--", "/bin/sh", "-c", "echo x >x; rm gone"]);
    let commit = |name: &str| {
        let mut command = stand.command(&["commit", "c", name]);
        stdout(&command.env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap())
    };
    let (one, two) = (commit("one"), commit("two"));
    assert!(one.starts_with("sha256:"), "{one}");
    assert_eq!(one, two);
    stand.ok(&["image", "export", "one", "one.tar"]);
    stand.ok(&["image", "export", "one", "again.tar"]);
    let read = |name: &str| fs::read(stand.0.path().join(name)).unwrap();
    assert!(read("one.tar") == read("again.tar"));
}

#[test]
fn what_is_in_use_stays() {
    let stand = Stand::with_small();
    stand.ok(&["create", "small", "c"]);
    fs::create_dir(stand.0.path().join("mnt")).unwrap();
    stand.ok(&["mount", "c", "mnt"]);
    for arguments in [&["rm", "c"][..], &["mount", "c", "mnt"], &["run", "c"]] {
        let said = stand.fails(1, arguments);
        assert!(said.contains("mnt"), "{arguments:?}: {said}");
    }
    assert!(stand.ok(&["ls"]).contains(text(&stand.0.path().join("mnt"))));
    // The process that is named is the one that serves.
    let listed: serde_json::Value = serde_json::from_str(&stand.ok(&["ls", "--json"])).unwrap();
    let server = Path::new("/proc").join(listed["pid"].to_string()).join("cmdline");
    let server = fs::read(&server).unwrap_or_else(|error| panic!("{listed}: {error}"));
    assert!(server.windows(9).any(|words| words == b"\0mount\0c\0"), "{}", server.escape_ascii());
    fs::write(stand.0.path().join("mnt/data/kept"), "kept").unwrap();
    stand.ok(&["umount", "c"]);
    stand.ok(&["mount", "c", "mnt", "-o", "ro"]);
    assert_eq!(fs::read(stand.0.path().join("mnt/data/kept")).unwrap(), b"kept");
    stand.ok(&["umount", "mnt"]);
    stand.ok(&["rm", "c"]);
    stand.is_sound();
}

/// What is gone afterwards anyway: a disk that is busy with something else is not waited for.
#[test]
fn a_run_that_is_not_kept_waits_for_no_disk() {
    let stand = Stand::with_small();
    let synced = |arguments: &[&str]| {
        let log = stand.0.path().join("calls");
        let mut traced = Command::new("strace");
        traced.args(["-f", "-e", "trace=fsync,fdatasync,sync,syncfs", "-o", text(&log), PLYFS]);
        traced.args(arguments).env("PLYFS_ROOT", stand.store()).stdin(Stdio::null());
        let output = traced.output().expect("strace is installed");
        assert!(output.status.success(), "{}", stderr(&output));
        let log = fs::read_to_string(log).unwrap();
        let calls = log.lines().filter(|line| line.contains("sync(") || line.contains("syncfs("));
        calls.count()
    };
    // The first one may have to begin a new log of the database.
    stand.ok(&["run", "small", "--", "/bin/sh", "-c", "echo something > /file"]);
    assert_eq!(synced(&["run", "small", "--", "/bin/sh", "-c", "echo something > /file"]), 0);
    let kept = synced(&["run", "--keep", "kept", "small", "--", "/bin/sh", "-c", ":"]);
    assert!(kept > 2, "what is kept is on the disk");
    assert_eq!(stand.ok(&["run", "kept", "--", "/bin/sh", "-c", "echo here"]), "here\n");
    stand.is_sound();
}

#[test]
fn a_killed_run_leaves_nothing() {
    let stand = Stand::with_small();
    let mut run = stand
        .command(&["run", "small", "--", "/bin/sh", "-c", "echo up; sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    std::io::Read::read_exact(run.stdout.as_mut().unwrap(), &mut up).unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    let patience = Instant::now() + Duration::from_secs(20);
    while !stand.mounts().is_empty() {
        assert!(Instant::now() < patience, "{:?}", stand.mounts());
        std::thread::sleep(Duration::from_millis(20));
    }
    // The server lets go of the container a moment after its mount is gone.
    while !stand.ok(&["ls", "--json"]).is_empty() {
        assert!(Instant::now() < patience, "{}", stand.ok(&["ls"]));
        stand.ok(&["gc"]);
    }
    stand.is_sound();
}

#[test]
fn failures_say_what_why_and_what_next() {
    let stand = Stand::with_small();
    fs::write(stand.0.path().join("noise"), vec![0x5a; 4096]).unwrap();
    for (code, arguments, what) in [
        (1, &["run", "nope"][..], "nope"),
        (1, &["image", "import", "nope.tar"], "nope.tar"),
        (1, &["image", "import", "noise"], "noise"),
        (2, &["image", "import", "noise", "--name", "UPPER CASE"], "--name"),
        (2, &["image", "import", "noise", "--platform", "//"], "--platform"),
        (1, &["image", "rm", "nope"], "nope"),
        (1, &["create", "small", "../up"], "../up"),
        (1, &["rm", "nope"], "nope"),
        (1, &["commit", "nope", "x"], "nope"),
        (1, &["diff", "nope"], "nope"),
        (1, &["umount", "nope"], "nope"),
        (1, &["mount", "nope", "."], "nope"),
        (2, &["run", "small", "-v", "nocolon"], "nocolon"),
    ] {
        let said = stand.fails(code, arguments);
        assert!(said.contains(what), "{arguments:?}: {said}");
        assert!(said.lines().all(|line| line.starts_with("plyfs: ")), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 2, "{arguments:?}: {said}");
    }
    stand.is_sound();
}

/// Starts a container that sleeps, and waits until it does.
fn sleeping(stand: &Stand, options: &[&str]) -> Child {
    let command = ["--", "/bin/sh", "-c", "echo up; sleep 1000"];
    let mut run = stand
        .command(&[&["run"], options, &command].concat())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    std::io::Read::read_exact(run.stdout.as_mut().unwrap(), &mut up).unwrap();
    run
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Kills a container's plyfs and all that it started, none of which can do anything about it.
fn kill_all(mut run: Child) {
    use rustix::process::Signal;
    signal(run.id(), Signal::STOP);
    for process in fs::read_dir("/proc").unwrap() {
        let process = process.unwrap();
        let name = process.file_name().into_string().unwrap();
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1));
        if parent == Some(&run.id().to_string()) {
            signal(name.parse().unwrap(), Signal::KILL);
        }
    }
    run.kill().unwrap();
    run.wait().unwrap();
}

#[test]
fn a_mount_whose_server_was_killed_is_in_nobodys_way() {
    let stand = Stand::with_small();
    // One that is to be removed, and the next one's status is its own.
    kill_all(sleeping(&stand, &["small"]));
    assert_eq!(stand.mounts().len(), 1, "the mount of a killed server");
    stand.fails(7, &["run", "small", "--", "/bin/sh", "-c", "exit 7"]);
    stand.ok(&["gc"]);
    assert!(stand.mounts().is_empty(), "{:?}", stand.mounts());
    stand.is_sound();
    // One that is to be run again.
    kill_all(sleeping(&stand, &["small", "--keep", "c"]));
    assert_eq!(stand.ok(&["run", "c", "--", "/bin/sh", "-c", "echo again"]), "again\n");
    assert!(stand.mounts().is_empty(), "{:?}", stand.mounts());
    stand.ok(&["rm", "c"]);
    stand.is_sound();
}

#[test]
fn a_command_keeps_its_status_while_somebody_looks_into_its_container() {
    let stand = Stand::with_small();
    let mut run = stand
        .command(&["run", "small", "--", "/bin/sh", "-c", "echo up; read go; exit 7"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    std::io::Read::read_exact(run.stdout.as_mut().unwrap(), &mut up).unwrap();
    let inside = fs::File::open(&stand.mounts()[0]).unwrap();
    std::io::Write::write_all(run.stdin.as_mut().unwrap(), b"go\n").unwrap();
    let ended = run.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(7), "{}", stderr(&ended));
    assert!(stderr(&ended).contains("busy"), "{}", stderr(&ended));
    assert!(stand.mounts().is_empty(), "{:?}", stand.mounts());
    drop(inside);
    let patience = Instant::now() + Duration::from_secs(20);
    while !stand.ok(&["ls", "--json"]).is_empty() {
        assert!(Instant::now() < patience, "{}", stand.ok(&["ls"]));
        stand.ok(&["gc"]);
    }
    stand.is_sound();
}

#[test]
fn the_longest_name_can_be_deleted_in_an_image() {
    let stand = Stand::with_small();
    let name = "n".repeat(255);
    let make = format!("echo x >/data/{name}; echo y >/data/stays");
    stand.ok(&["run", "small", "--keep", "c", "--", "/bin/sh", "-ec", &make]);
    stand.ok(&["commit", "c", "with"]);
    let remove = format!("rm /data/{name}");
    stand.ok(&["run", "with", "--keep", "d", "--", "/bin/sh", "-ec", &remove]);
    stand.ok(&["commit", "d", "without"]);
    let listed = stand.ok(&["run", "without", "--", "/bin/ls", "/data"]);
    assert!(listed.contains("stays") && !listed.contains(&name), "{listed}");
}

#[test]
fn what_a_crash_may_have_cut_short_becomes_no_image() {
    let stand = Stand::with_small();
    stand.ok(&["create", "small", "c"]);
    fs::create_dir(stand.0.path().join("mnt")).unwrap();
    stand.ok(&["mount", "c", "mnt", "-o", "volatile"]);
    stand.ok(&["commit", "c", "alive"]);
    let listed: serde_json::Value = serde_json::from_str(&stand.ok(&["ls", "--json"])).unwrap();
    let server = u32::try_from(listed["pid"].as_u64().unwrap()).unwrap();
    signal(server, rustix::process::Signal::KILL);
    while stand.ok(&["ls", "--json"]).contains("\"pid\"") {
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = stand.fails(1, &["commit", "c", "dead"]);
    assert!(said.contains("volatile"), "{said}");
    assert!(!stand.ok(&["image", "ls"]).contains("dead"));
}

#[test]
fn a_container_that_loses_files_all_the_time_can_be_committed() {
    let stand = Stand::with_small();
    let script =
        "cd /tmp; echo up; while :; do echo x >a; mkdir d; mv a d/b; mv d e; rm -r e; done";
    let mut run = stand
        .command(&["run", "small", "--keep", "c", "--", "/bin/sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    std::io::Read::read_exact(run.stdout.as_mut().unwrap(), &mut up).unwrap();
    let committed: Vec<_> =
        (0..10).map(|n| stand.plyfs(&["commit", "c", &n.to_string()])).collect();
    signal(run.id(), rustix::process::Signal::TERM);
    run.wait().unwrap();
    for output in committed {
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    stand.is_sound();
}

#[test]
fn an_interrupted_export_leaves_nothing() {
    let stand = Stand::with_small();
    let big = "dd if=/dev/urandom of=/data/big bs=1M count=4 2>/dev/null";
    stand.ok(&["run", "small", "--keep", "c", "--", "/bin/sh", "-ec", big]);
    stand.ok(&["commit", "c", "big"]);
    let dir = stand.0.path().join("out");
    fs::create_dir(&dir).unwrap();
    for format in ["oci-archive", "oci-dir"] {
        let export = stand
            .command(&["image", "export", "--format", format, "big", "out/image"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while fs::read_dir(&dir).unwrap().count() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(export.id(), rustix::process::Signal::INT);
        let ended = export.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{format}: {}", stderr(&ended));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "{format}: {}", stderr(&ended));
    }
}
