//! kill -9 at any moment of an import, a commit, a removal: nothing is half visible, nothing is
//! lost, and what is left over goes with the next collection.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use plyfs::store::{NewContainer, Store};

use crate::samples::{
    assert_clean, bulk, check, commit, create, import, import_keeping, layout, names, open_source,
    tags,
};

/// What the child process shall do, said to it in this variable: work, store, source.
const JOB: &str = "PLYFS_STORE_TEST_JOB";

/// Not a test but the child's main program: does what it is told, if it is told anything.
#[test]
fn child() {
    let Ok(job) = std::env::var(JOB) else { return };
    let [work, root, source] = job.split('|').collect::<Vec<_>>()[..] else { panic!("{job}") };
    let store = Store::open(Some(Path::new(root))).unwrap();
    match work {
        "import" => drop(import(&store, Path::new(source)).unwrap()),
        "import, kept" => {
            import_keeping(&store, &*open_source(Path::new(source)), Duration::ZERO).unwrap();
        }
        "commit" => {
            let container = store.container("box").unwrap();
            commit(&store, &container, "made:1").unwrap();
        }
        "remove" => {
            store.remove_container("box").unwrap();
            store.remove_image("bulk:1", false).unwrap();
        }
        "run" => {
            let made = store.create_container("bulk:1", NewContainer::Ephemeral).unwrap();
            fs::write(made.0.upper().join("started"), "").unwrap();
            std::thread::sleep(Duration::from_mins(10));
        }
        _ => panic!("{work}"),
    }
}

pub(crate) fn start(work: &str, root: &Path, source: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["crash::child", "--exact"])
        .env(JOB, format!("{work}|{}|{}", root.display(), source.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets a child work undisturbed; returns how long that took.
fn whole(work: &str, root: &Path, source: &Path) -> Duration {
    let before = Instant::now();
    assert!(start(work, root, source).wait().unwrap().success(), "{work}");
    before.elapsed()
}

/// Ends a child after `moment`, unless it was faster.
fn killed(work: &str, root: &Path, source: &Path, moment: Duration) {
    let mut child = start(work, root, source);
    std::thread::sleep(moment);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// After a crash: only leftovers, and none once these are collected.
#[track_caller]
fn assert_heals(store: &Store, moment: Duration) {
    let report = check(store, false);
    let faults: Vec<_> = report.findings.iter().filter(|found| !found.leftover).collect();
    assert!(faults.is_empty(), "killed after {moment:?}: {faults:?}");
    store.gc().unwrap();
    assert_clean(store);
}

/// Moments all over `whole`, and a little past it: nth of `count`.
fn moment(whole: Duration, nth: u32, count: u32) -> Duration {
    whole * nth * 11 / (count * 10)
}

/// How many kills each test makes; more from `PLYFS_STORE_TEST_KILLS`.
fn kills() -> u32 {
    std::env::var("PLYFS_STORE_TEST_KILLS").map_or(8, |count| count.parse().unwrap())
}

fn sample(dir: &Path) -> std::path::PathBuf {
    let layers: Vec<_> = (0..5).map(|n| bulk(&format!("d{n}"), 120, 4000)).collect();
    layout(&dir.join("oci"), "bulk:1", &layers)
}

#[test]
fn a_killed_import_leaves_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = sample(dir.path());
    let time = whole("import", &dir.path().join("first"), &source);
    let root = dir.path().join("store");
    let mut seen = [0, 0];
    let kills = kills();
    for nth in 0..kills {
        let moment = moment(time, nth, kills);
        killed("import", &root, &source, moment);
        let store = Store::open(Some(&root)).unwrap();
        let complete = tags(&store) == ["bulk:1"];
        assert!(complete || tags(&store).is_empty());
        assert_heals(&store, moment);
        seen[usize::from(complete)] += 1;
        let trees = names(&store, "trees").len();
        assert_eq!(trees, if complete { 5 } else { 0 }, "{moment:?}");
        if complete {
            store.remove_image("bulk:1", false).unwrap();
        }
    }
    assert!(seen[0] > 0, "no kill came before the end");
    let store = Store::open(Some(&root)).unwrap();
    import(&store, &source).unwrap();
    assert_clean(&store);
}

#[test]
fn a_killed_commit_leaves_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = sample(dir.path());
    let root = dir.path().join("store");
    let store = Store::open(Some(&root)).unwrap();
    import(&store, &source).unwrap();
    let container = create(&store, "bulk:1", "box");
    for number in 0..400 {
        fs::write(container.upper().join(format!("f{number}")), [7; 3000]).unwrap();
    }
    let time = whole("commit", &root, &source);
    store.remove_image("made:1", false).unwrap();
    let kills = kills();
    for nth in 0..kills {
        let moment = moment(time, nth, kills);
        killed("commit", &root, &source, moment);
        assert_heals(&store, moment);
        let complete = tags(&store) == ["bulk:1", "made:1"];
        assert!(complete || tags(&store) == ["bulk:1"]);
        assert_eq!(names(&store, "trees").len(), if complete { 6 } else { 5 }, "{moment:?}");
        assert_eq!(fs::read_dir(container.upper()).unwrap().count(), 400);
        if complete {
            store.remove_image("made:1", false).unwrap();
        }
    }
    commit(&store, &container, "made:1").unwrap();
    assert_clean(&store);
}

#[test]
fn a_killed_removal_can_be_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let source = sample(dir.path());
    let root = dir.path().join("store");
    let store = Store::open(Some(&root)).unwrap();
    let prepare = || {
        import(&store, &source).unwrap();
        if store.container("box").is_err() {
            let container = create(&store, "bulk:1", "box");
            for number in 0..200 {
                fs::write(container.upper().join(format!("f{number}")), "x").unwrap();
            }
        }
    };
    prepare();
    let time = whole("remove", &root, &source);
    let kills = kills();
    for nth in 0..kills {
        let moment = moment(time, nth, kills);
        prepare();
        killed("remove", &root, &source, moment);
        let image = !tags(&store).is_empty();
        let container = store.containers().unwrap().pop();
        assert!(image || container.is_none(), "a container without its image");
        if let Some(container) = container {
            let left = fs::read_dir(container.upper()).unwrap().count();
            assert_eq!(left, 200, "a container that is there is whole: {moment:?}");
        }
        assert_heals(&store, moment);
    }
}

#[test]
fn what_a_killed_process_ran_goes_with_the_next_collection() {
    let dir = tempfile::tempdir().unwrap();
    let source = sample(dir.path());
    let root = dir.path().join("store");
    let store = Store::open(Some(&root)).unwrap();
    import(&store, &source).unwrap();
    let mut child = start("run", &root, &source);
    let started = |store: &Store| {
        let found = store.containers().unwrap().pop()?;
        found.upper().join("started").exists().then_some(found)
    };
    let patience = Instant::now();
    let container = loop {
        if let Some(container) = started(&store) {
            break container;
        }
        assert!(patience.elapsed() < Duration::from_mins(1), "the child has not started");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(store.gc().unwrap().containers, 0, "it is in use");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(store.gc().unwrap().containers, 1);
    assert!(!container.dir.exists());
    assert_clean(&store);
}
