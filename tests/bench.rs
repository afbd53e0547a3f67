//! `plyfs bench`: every workload on every target, as small as it can be, its effect checked by the
//! workload itself; that nothing is left behind, whatever ends it. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails here"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use plyfs::bench::plan::{Plan, Watcher};
use plyfs::bench::results::Results;
use plyfs::bench::workload::{Scale, all};

const PLYFS: &str = env!("CARGO_BIN_EXE_plyfs");

/// A disk's directory: /tmp may be in memory.
fn scratch() -> tempfile::TempDir {
    assert!(rustix::process::geteuid().is_root(), "these tests mount, and need root");
    let base = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    tempfile::Builder::new().prefix("plyfs-bt-").tempdir_in(base).unwrap()
}

/// Never has enough of it, and is not interested.
struct Patient;

impl Watcher for Patient {
    fn at(&self, _: usize, _: usize, _: &str) {}

    fn stop(&self) -> bool {
        false
    }

    fn place(&self, _: &Path) {}
}

/// Measures at the tiny scale, for a round.
fn tiny(dir: &Path, targets: &[&str], workloads: &[&str]) -> Results {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    let plan = Plan {
        full: true,
        targets: words(targets),
        workloads: words(workloads),
        rounds: 1,
        dir: dir.to_owned(),
        pin: false,
        scale: Scale::Tiny,
        plyfs: PLYFS.into(),
        command: "plyfs bench".to_owned(),
    };
    plan.run(&Patient).unwrap()
}

#[track_caller]
fn nothing_is_left(dir: &Path) {
    let left: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = dir.canonicalize().unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()), "{mounts}");
}

/// Every workload measures what it says on a target, and finds its effect.
#[track_caller]
fn does_everything(target: &str) {
    let dir = scratch();
    let results = tiny(dir.path(), &[target], &[]);
    assert_eq!(results.targets[0].cannot, None);
    assert_eq!(results.gaps, []);
    assert_eq!(results.workloads.len(), all(Scale::Tiny).len());
    for workload in &results.workloads {
        for metric in &workload.metrics {
            let values = results.values(&workload.name, &metric.name, target);
            let what = format!("{} {} on {target}: {values:?}", workload.name, metric.name);
            assert_eq!(values.len(), 1, "{what}");
            assert!(values[0].is_finite() && values[0] >= 0.0, "{what}");
        }
    }
    nothing_is_left(dir.path());
}

#[test]
fn plyfs_does_everything() {
    does_everything("plyfs");
}

#[test]
fn plyfs_on_the_crate_fuser_does_everything() {
    does_everything("plyfs-fuser");
}

#[test]
fn overlayfs_does_everything() {
    does_everything("overlay");
}

#[test]
fn overlayfs_with_all_options_does_everything() {
    does_everything("overlay-full");
}

#[test]
fn a_plain_directory_does_everything() {
    does_everything("plain");
}

/// Whichever of its versions is there: a workload that it does wrong is one that it does wrong.
#[test]
fn fuse_overlayfs_is_measured() {
    let dir = scratch();
    let results = tiny(dir.path(), &["fuse-overlayfs"], &["stat*", "create", "copyup-4k", "untar"]);
    assert_eq!(results.targets[0].cannot, None);
    assert_eq!(results.gaps, []);
    assert!(results.targets[0].about.contains("fuse-overlayfs"), "{:?}", results.targets);
    nothing_is_left(dir.path());
}

/// On a filesystem that has them; where it has none, that is the reason given.
#[test]
fn reflinks_are_copies_where_there_are_any() {
    let dir = scratch();
    let (image, point) = (dir.path().join("image"), dir.path().join("xfs"));
    fs::create_dir(&point).unwrap();
    fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
    let run = |program: &str, words: &[&Path]| {
        let output = Command::new(program).args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    run("mkfs.xfs", &[Path::new("-q"), &image]);
    run("mount", &[Path::new("-o"), Path::new("loop"), &image, &point]);
    // Unmounted whatever comes.
    let small = std::panic::catch_unwind(|| {
        let words = ["copyup-4k", "chmod-r", "readdir"].map(str::to_owned);
        let plan = Plan {
            full: false,
            targets: vec!["reflink".to_owned(), "plain".to_owned()],
            workloads: words.to_vec(),
            rounds: 1,
            dir: point.clone(),
            pin: true,
            scale: Scale::Tiny,
            plyfs: PLYFS.into(),
            command: String::new(),
        };
        plan.run(&Patient)
    });
    run("umount", &[&point]);
    match small.unwrap() {
        // Room is asked for first: half a gigabyte is more than this filesystem has.
        Err(error) => assert!(error.to_string().contains("MiB are free"), "{error}"),
        Ok(results) => panic!("there was no room for {results:?}"),
    }
}

#[test]
fn any_program_is_measured_that_is_told_where_to_mount() {
    let dir = scratch();
    let in_front = format!("mine=cmd:{PLYFS} mount -f -o {{opts}} {{mnt}}");
    let targets = [in_front.as_str(), "absent=/no/such/program", "broken=cmd:false {opts} {mnt}"];
    let results = tiny(dir.path(), &targets, &["unlink-lower", "mount-5", "mounts-10"]);
    let names: Vec<_> = results.targets.iter().map(|target| target.name.as_str()).collect();
    assert_eq!(names, ["mine", "absent", "broken"]);
    let why = |number: usize| results.targets[number].cannot.clone().unwrap_or_default();
    assert_eq!(why(0), "");
    assert!(why(1).contains("/no/such/program"), "{}", why(1));
    assert!(why(2).contains("status 1"), "{}", why(2));
    assert_eq!(results.gaps, []);
    assert_eq!(results.values("unlink-lower", "", "mine").len(), 1);
    nothing_is_left(dir.path());
}

/// A program that lies about what it did is found out: this one shows the layers, and leaves out
/// what it was not told about.
#[test]
fn a_wrong_result_is_no_result() {
    let dir = scratch();
    let script = dir.path().join("readable");
    // The topmost layer only, and complete when it appears.
    let text = "#!/bin/sh\nfor last; do :; done\nlower=${2#lowerdir=}\nlower=${lower%%[:,]*}\n\
                cp -r \"$lower\" \"$last.d\" && mount --bind \"$last.d\" \"$last\"\n";
    fs::write(&script, text).unwrap();
    Command::new("chmod").arg("755").arg(&script).status().unwrap();
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    let results = tiny(&place, &[script.to_str().unwrap()], &["stat", "create"]);
    assert_eq!(results.targets[0].cannot, None);
    let wrong: Vec<_> = results.gaps.iter().map(|gap| (gap.workload.as_str(), gap.wrong)).collect();
    assert_eq!(wrong, [("stat", true)], "{:?}", results.gaps);
    assert!(results.is_wrong());
    nothing_is_left(&place);
}

fn plyfs(dir: &Path, words: &[&str]) -> Output {
    Command::new(PLYFS).arg("bench").args(words).current_dir(dir).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_command_measures_and_tells() {
    let dir = scratch();
    let words = ["--dir", ".", "--rounds", "1", "--target", "plyfs", "--target", "plain"];
    let output = plyfs(dir.path(), &[&words[..], &["--workload", "stat-cold"]].concat());
    let said = text(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for part in ["\nstat-cold", "plyfs: plyfs 0.", "warning: with 1 rounds", "plain"] {
        assert!(said.contains(part), "no '{part}' in {said}");
    }
    let output = plyfs(dir.path(), &[&words[..], &["--workload", "mkdir", "--json"]].concat());
    let results = Results::from_json(&text(&output.stdout)).unwrap();
    assert_eq!(results.values("mkdir", "", "plyfs").len(), 1);
    assert!(results.command.starts_with("plyfs bench --dir ."), "{}", results.command);
    nothing_is_left(dir.path());
}

#[test]
fn reports_are_written_and_two_runs_compared() {
    let dir = scratch();
    for out in ["before", "after"] {
        let words = ["--dir", ".", "--rounds", "2", "--target", "plyfs", "--target", "overlay"];
        let more = ["--workload", "readdir", "--workload", "mount-5", "--out", out];
        let output = plyfs(dir.path(), &[&words[..], &more].concat());
        assert!(output.status.success(), "{output:?}");
        let read = |name: &str| fs::read_to_string(dir.path().join(out).join(name)).unwrap();
        assert!(read("report.html").contains("</html>"));
        assert!(read("report.md").contains("\n| readdir |"));
        let results = Results::from_json(&read("results.json")).unwrap();
        assert_eq!(results.values("mount-5", "unmount", "plyfs").len(), 2);
    }
    let output = plyfs(dir.path(), &["compare", "before/results.json", "after/results.json"]);
    assert!(output.status.success(), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.contains("that cannot be told apart"), "{said}");
    // What has been made a thousand times as slow is told of.
    let path = dir.path().join("after/results.json");
    let mut results = Results::from_json(&fs::read_to_string(&path).unwrap()).unwrap();
    let readdir = results
        .series
        .iter_mut()
        .find(|series| series.workload == "readdir" && series.target == "plyfs")
        .unwrap();
    for value in &mut readdir.values {
        *value *= 1000.0;
    }
    fs::write(&path, results.to_json().unwrap()).unwrap();
    let output = plyfs(dir.path(), &["compare", "before/results.json", "after/results.json"]);
    let said = text(&output.stdout);
    let told = |line: &str| line.split_ascii_whitespace().take(2).eq(["readdir", "plyfs"]);
    assert!(said.lines().any(told), "{said}");
    let output = plyfs(dir.path(), &["compare", "before/results.json", "before/report.md"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("not a results.json"), "{output:?}");
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    let dir = scratch();
    for (words, said) in [
        (["--dir", ".", "--workload", "frobnicate"], "plyfs bench list"),
        (["--dir", ".", "--target", "aufs"], "fuse-overlayfs"),
        (["--dir", "missing", "--target", "plain"], "missing"),
    ] {
        let output = plyfs(dir.path(), &words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(text(&output.stderr).contains(said), "{output:?}");
    }
    nothing_is_left(dir.path());
}

#[test]
fn all_workloads_are_listed() {
    let dir = scratch();
    let listed = text(&plyfs(dir.path(), &["list"]).stdout);
    let json = text(&plyfs(dir.path(), &["list", "--json"]).stdout);
    let names: BTreeSet<_> =
        listed.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
    for workload in all(Scale::Usual) {
        assert!(names.contains(workload.name.as_str()), "{}", workload.name);
        assert!(json.contains(&format!("\"name\":\"{}\"", workload.name)), "{json}");
    }
    assert_eq!(names.len(), json.lines().count());
}

/// Once: it ends with what there is. Twice: at once. Either way nothing is left.
#[test]
fn signals_end_it_and_leave_nothing_behind() {
    for times in [1, 2] {
        let dir = scratch();
        let mut child = Command::new(PLYFS)
            .args(["bench", "--rounds", "1000", "--target", "plyfs", "--target", "plain"])
            .args(["--workload", "create", "--dir", "."])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let until = Instant::now() + Duration::from_mins(1);
        let point = dir.path().canonicalize().unwrap().display().to_string();
        // In the midst of it: past the trial, with something mounted.
        loop {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            if mounts.lines().any(|line| line.contains(&point) && !line.contains("/round/0/")) {
                break;
            }
            assert!(Instant::now() < until, "nothing was mounted");
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        for _ in 0..times {
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{output:?}");
        assert!(text(&output.stderr).contains("once more: at once"), "{output:?}");
        if times == 1 {
            assert!(text(&output.stdout).contains("interrupted"), "{output:?}");
        }
        nothing_is_left(dir.path());
    }
}
