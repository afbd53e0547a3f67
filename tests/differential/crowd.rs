//! Several processes at once (`crowd.py`), each keeping files open, mapped and locked over what it
//! does: what they see and the tree that they leave is what they see and leave in a plain
//! directory, over remounts too, and what kernel overlayfs shows of the upper afterwards.

use std::path::Path;
use std::process::{Command, Stdio};

use plyfs::testkit::run::difference;

use super::stand::{Case, make_dir, sh, text};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/differential/crowd.py");
const PROCESSES: usize = 3;
const ROUNDS: u64 = 3;
const STEPS: &str = "120";

/// The program, which is killed if it never ends.
fn python(words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "120", "python3", PROGRAM]).args(words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What it prints.
fn said(child: std::process::Child) -> String {
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "crowd.py: {}\n{error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn tree(at: &Path) -> String {
    said(python(&["tree", text(at)]).spawn().unwrap())
}

/// All processes at once in one directory; what each of them saw.
fn together(at: &Path, seed: u64) -> Vec<String> {
    let start = |number: usize| {
        let words = ["run", text(at), &number.to_string(), &seed.to_string(), STEPS];
        python(&words).spawn().unwrap()
    };
    let children: Vec<_> = (0..PROCESSES).map(start).collect();
    children.into_iter().map(said).collect()
}

fn assert_same(what: &str, seed: u64, expected: &str, got: &str) {
    assert!(
        expected == got,
        "PLYFS_CROWD_SEED={seed}: {what} (-: in a plain directory)\n{}",
        difference(expected, got)
    );
}

/// One case in `base`.
pub(crate) fn one_case(seed: u64, base: &Path) {
    let tmp = tempfile::tempdir_in(base).unwrap();
    let mut case = Case::new(tmp.path(), &[]);
    make_dir(&case.path("lower1"));
    case.lowers = 2;
    let (count, number) = (PROCESSES.to_string(), seed.to_string());
    for (at, layer) in [("lower1", "0"), ("lower0", "1")] {
        let at = case.path(at);
        said(python(&["fill", text(&at), &count, &number, layer]).spawn().unwrap());
    }
    let before = (tree(&case.path("lower0")), tree(&case.path("lower1")));
    let plain = case.path("plain");
    for round in 0..ROUNDS {
        let mounted = case.mount_plyfs();
        if round == 0 {
            sh("cp", &["-a", &format!("{}/.", text(&mounted.0)), text(&plain)]).unwrap();
        }
        let seed = seed * ROUNDS + round;
        let (here, there) = (together(&mounted.0, seed), together(&plain, seed));
        for (number, (got, expected)) in here.iter().zip(&there).enumerate() {
            assert_same(&format!("process {number}, round {round}"), seed, expected, got);
        }
        assert_same("the tree", seed, &tree(&plain), &tree(&mounted.0));
        sh(env!("CARGO_BIN_EXE_plyfs"), &["umount", text(&mounted.0)]).unwrap();
        std::mem::forget(mounted);
    }
    let after = (tree(&case.path("lower0")), tree(&case.path("lower1")));
    assert_eq!(before, after, "PLYFS_CROWD_SEED={seed}: a lower layer was changed");
    let kernel = case.mount_overlay("upper", "work").expect("overlayfs takes our upper");
    assert_same("as overlayfs shows it", seed, &tree(&plain), &tree(&kernel.0));
}
