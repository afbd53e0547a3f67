//! The command line as a user meets it: exit codes and messages of the built program. What mounts
//! needs root and skips nothing: without root those tests fail.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails here"
)]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

const PLYFS: &str = env!("CARGO_BIN_EXE_plyfs");

/// Runs plyfs in `dir`.
fn plyfs(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(PLYFS).args(arguments).current_dir(dir).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory with the layers `a` and `b`, `up`, `work` and `mnt`.
fn stand() -> tempfile::TempDir {
    let temp = tempfile::Builder::new().prefix("plyfs-cli-").tempdir().unwrap();
    for dir in ["a/d", "b", "up", "work", "mnt"] {
        fs::create_dir_all(temp.path().join(dir)).unwrap();
    }
    fs::write(temp.path().join("a/f"), "lower\n").unwrap();
    temp
}

const ALL: &str = "lowerdir=a:b,upperdir=up,workdir=work";

fn is_mounted(point: &Path) -> bool {
    let point = point.canonicalize().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == point.to_str())
}

/// Unmounts when a test ends, however it ends.
struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let point = self.0.join("mnt");
        Command::new("umount").arg("-l").arg(point).output().unwrap();
    }
}

#[test]
fn help_and_version() {
    let temp = stand();
    for arguments in [&["--help"][..], &["help"], &["help", "mount"], &["mount", "--help"]] {
        let output = plyfs(temp.path(), arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(stdout(&output).contains("Usage:"), "{arguments:?}");
    }
    let help = stdout(&plyfs(temp.path(), &["--help"]));
    assert!(help.contains("Exit codes:"), "{help}");
    for command in ["mount", "umount", "diff", "check", "doctor", "generate"] {
        let output = plyfs(temp.path(), &["help", command]);
        assert!(stdout(&output).contains("plyfs "), "{command} has no example");
    }
    let version = stdout(&plyfs(temp.path(), &["--version"]));
    assert_eq!(version, format!("plyfs {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_command_lines_end_with_2() {
    let temp = stand();
    for (arguments, said) in [
        (&[][..], "Usage:"),
        (&["frobnicate"], "frobnicate"),
        (&["mount", "mnt"], "-o"),
        (&["mount", "-o", "lowerdir=a"], "MNT"),
        (&["mount", "-o", "lowerdir=a,colour=red", "mnt"], "colour=red"),
        (&["mount", "-o", "lowerdir=a,allow_root", "mnt"], "allow_root"),
        (&["mount", "-o", "upperdir=up", "mnt"], "workdir"),
        (&["mount", "-o", "ro", "mnt"], "lowerdir"),
        (&["check", "-o", "lowerdir="], "lowerdir"),
    ] {
        let output = plyfs(temp.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
    }
    assert!(!is_mounted(&temp.path().join("mnt")));
}

#[test]
fn failures_say_what_why_and_what_next() {
    let temp = stand();
    let root = temp.path();
    for (arguments, what) in [
        (&["mount", "-o", "lowerdir=a:nope", "mnt"][..], "lowerdir nope"),
        (&["mount", "-o", "lowerdir=a/f", "mnt"], "lowerdir a/f"),
        (&["mount", "-o", "lowerdir=a", "nope"], "mount point nope"),
        (&["mount", "-o", "lowerdir=a", "a/d"], "inside the lowerdir"),
        (&["mount", "-o", "lowerdir=a:a", "mnt"], "is also the lowerdir"),
        (&["mount", "-o", "lowerdir=a,upperdir=a/d,workdir=work", "mnt"], "inside the lowerdir"),
        (&["umount", "mnt"], "nothing is mounted there"),
        (&["umount", "/proc"], "a mount of type proc"),
        (&["diff", "nope"], "nope"),
        (&["doctor", "nope"], "nope"),
    ] {
        let output = plyfs(root, arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains(what), "{arguments:?}: {text}");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{arguments:?}: {text}");
        assert!(lines.iter().all(|line| line.starts_with("plyfs: ")), "{text}");
    }
    assert!(!is_mounted(&root.join("mnt")));
    assert_eq!(fs::read_dir(root.join("work")).unwrap().count(), 0, "something was left in work");
}

#[test]
fn a_mount_lives_until_it_is_unmounted() {
    let temp = stand();
    let root = temp.path();
    let _guard = Unmount(root);
    let output = plyfs(root, &["mount", "-o", ALL, "mnt"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output) + &stderr(&output), "");
    // It is live when the command returns.
    assert_eq!(fs::read_to_string(root.join("mnt/f")).unwrap(), "lower\n");
    fs::write(root.join("mnt/f"), "mine\n").unwrap();
    fs::remove_dir(root.join("mnt/d")).unwrap();
    fs::write(root.join("mnt/new"), "").unwrap();

    let again = plyfs(root, &["mount", "-o", ALL, "mnt"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("plyfs is mounted there"), "{}", stderr(&again));
    fs::create_dir(root.join("other")).unwrap();
    let second = plyfs(root, &["mount", "-o", ALL, "other"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("in use by another mount"), "{}", stderr(&second));
    assert!(!is_mounted(&root.join("other")));

    let busy = fs::read_dir(root.join("mnt")).unwrap();
    let refused = plyfs(root, &["umount", "mnt"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("busy"), "{}", stderr(&refused));
    drop(busy);
    for _ in 0..3 {
        // The server has gone when umount returns: the layers can be mounted again at once.
        let output = plyfs(root, &["umount", "mnt"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(!is_mounted(&root.join("mnt")));
        let output = plyfs(root, &["mount", "-o", ALL, "mnt"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    assert_eq!(fs::read_to_string(root.join("mnt/f")).unwrap(), "mine\n");
    assert_eq!(plyfs(root, &["umount", "mnt"]).status.code(), Some(0));

    let diff = plyfs(root, &["diff", "up", "--lower", "a:b"]);
    assert_eq!(stdout(&diff), "D d\nC f\nA new\n");
    let json = stdout(&plyfs(root, &["diff", "up", "--lower", "a:b", "--json"]));
    assert!(json.contains(r#"{"change":"deleted","path":"d","dir":false}"#), "{json}");
    let check = plyfs(root, &["check", "-o", ALL]);
    assert_eq!(check.status.code(), Some(0), "{}", stdout(&check));
    assert_eq!(stdout(&check), "3 layers, nothing found\n");
    assert_eq!(fs::read_to_string(root.join("a/f")).unwrap(), "lower\n");
}

#[test]
fn without_an_upper_nothing_can_be_written() {
    let temp = stand();
    let root = temp.path();
    let _guard = Unmount(root);
    let output = plyfs(root, &["mount", "-o", "lowerdir=a:b", "mnt"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let error = fs::write(root.join("mnt/x"), "").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    assert_eq!(plyfs(root, &["umount", "mnt"]).status.code(), Some(0));
}

/// A mount in the foreground, whose process we know.
fn foreground(root: &Path) -> std::process::Child {
    let arguments = ["mount", "-f", "-o", ALL, "mnt"];
    let mut child = Command::new(PLYFS).args(arguments).current_dir(root).spawn().unwrap();
    for _ in 0..500 {
        if root.join("mnt/f").exists() {
            return child;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    panic!("not mounted after five seconds");
}

#[test]
fn signals_end_a_mount_cleanly() {
    let temp = stand();
    let root = temp.path();
    let _guard = Unmount(root);
    for signal in ["TERM", "INT", "HUP"] {
        let mut child = foreground(root);
        let kill = format!("kill -{signal} {}", child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
        assert!(!is_mounted(&root.join("mnt")), "{signal}");
    }
}

#[test]
fn a_dead_mount_can_be_unmounted_and_mounted_again() {
    let temp = stand();
    let root = temp.path();
    let _guard = Unmount(root);
    let mut child = foreground(root);
    fs::write(root.join("mnt/kept"), "kept").unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let output = plyfs(root, &["mount", "-o", ALL, "mnt"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("plyfs umount mnt"), "{}", stderr(&output));
    assert_eq!(plyfs(root, &["umount", "mnt"]).status.code(), Some(0));
    let output = plyfs(root, &["mount", "-o", ALL, "mnt"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(root.join("mnt/kept")).unwrap(), "kept");
    assert_eq!(plyfs(root, &["umount", "mnt"]).status.code(), Some(0));
}

#[test]
fn as_a_mount_helper_and_as_fuse_overlayfs() {
    let temp = stand();
    let root = temp.path();
    let _guard = Unmount(root);
    for (name, arguments) in [
        ("/sbin/mount.plyfs", &["none", "mnt", "-n", "-o", "rw,lowerdir=a"][..]),
        ("fuse-overlayfs", &["-o", "lowerdir=a", "mnt"]),
        ("/opt/plyfs", &["-o", "lowerdir=a,", "mnt"]),
        ("plyfs", &["a source, or so", "mnt", "-o", "rw,lowerdir=a,dev,suid"]),
    ] {
        let mut command = Command::new(PLYFS);
        let output = command.arg0(name).args(arguments).current_dir(root).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{name}: {}", stderr(&output));
        assert!(root.join("mnt/f").exists(), "{name}");
        assert_eq!(plyfs(root, &["umount", "mnt"]).status.code(), Some(0), "{name}");
    }
}

#[test]
fn the_doctor_sees_this_directory() {
    let temp = stand();
    let output = plyfs(temp.path(), &["doctor", "up", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let topics: Vec<_> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|item| item["topic"].as_str().unwrap().to_owned())
        .collect();
    for topic in ["kernel", "FUSE device", "privileges", "marks", "reflinks"] {
        assert!(topics.iter().any(|t| t == topic), "{topic} is not in {topics:?}");
    }
    assert_eq!(fs::read_dir(temp.path().join("up")).unwrap().count(), 0);
}

#[test]
fn manual_pages_are_written_where_they_are_wanted() {
    let temp = stand();
    let output = plyfs(temp.path(), &["generate", "man", "share/man/man1"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for page in ["plyfs.1", "plyfs-mount.1", "plyfs-generate-man.1"] {
        let text = fs::read_to_string(temp.path().join("share/man/man1").join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}: {text}");
    }
    let output = plyfs(temp.path(), &["generate", "man", "a/f"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("plyfs: a/f: "), "{}", stderr(&output));
}

#[test]
fn bash_reads_its_completions() {
    let temp = stand();
    let output = plyfs(temp.path(), &["generate", "completions", "bash"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let script = temp.path().join("plyfs.bash");
    fs::write(&script, &output.stdout).unwrap();
    let read = Command::new("bash").arg("-n").arg(&script).output().unwrap();
    assert!(read.status.success(), "{}", stderr(&read));
    let complete = format!(
        "source {}; COMP_WORDS=(plyfs mo); COMP_CWORD=1; _plyfs plyfs mo plyfs; \
         echo \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let completed = Command::new("bash").args(["-c", &complete]).output().unwrap();
    assert_eq!(stdout(&completed).trim(), "mount", "{}", stderr(&completed));
    let output = plyfs(temp.path(), &["generate", "completions", "tcsh"]);
    assert_eq!(output.status.code(), Some(2));
}
