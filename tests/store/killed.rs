//! The built program, killed (`kill -9`) at random moments of everything that it does: the store
//! shows the old state or the new, a check finds nothing that a repair does not heal, and the next
//! attempt succeeds. `PLYFS_KILL_ROUNDS` says how often each is killed on each filesystem,
//! `PLYFS_SEED` when.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::program::{FILESYSTEMS, Stand, Work, work};

/// Numbers that look random: the same ones for the same seed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var("PLYFS_SEED").ok().map(|seed| seed.parse().unwrap());
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let seed = seed.unwrap_or_else(|| u64::try_from(now % (1 << 40)).unwrap());
        println!("PLYFS_SEED={seed}");
        Self(seed)
    }

    /// From 0 to `end`.
    fn until(&mut self, end: Duration) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        end * u32::try_from(self.0 >> 48).unwrap() / (1 << 16)
    }
}

fn rounds() -> u32 {
    std::env::var("PLYFS_KILL_ROUNDS").map_or(2, |count| count.parse().unwrap())
}

/// Kills a process and, if `all`, first those that it has started, none of which can do anything
/// about it.
fn kill(mut child: Child, all: bool) {
    if all {
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let parent = child.id().to_string();
        let listed = Command::new("ps").args(["-o", "pid=", "--ppid", &parent]).output().unwrap();
        for pid in String::from_utf8(listed.stdout).unwrap().split_whitespace() {
            let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
            // It may have ended by itself.
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap_or_default();
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Kills it again and again.
fn killed(work: &Work) {
    let mut random = Random::new();
    for fs in FILESYSTEMS {
        let stand = Stand::new(fs);
        (work.prepare)(&stand);
        let begin = Instant::now();
        stand.ok(work.command);
        let whole = begin.elapsed();
        assert_eq!(stand.shown(), work.shown(true), "{fs}: {}", work.name);
        let (mut before, mut rounds) = (0, rounds());
        while rounds > 0 {
            (work.prepare)(&stand);
            assert_eq!(stand.shown(), work.shown(false), "{fs}: {}", work.name);
            let moment = random.until(whole * 11 / 10);
            let when = format!("{} killed after {moment:?} of {whole:?}", work.name);
            let child = stand.start(work.command);
            std::thread::sleep(moment);
            let all = rounds % 2 == 0;
            kill(child, all);
            if !all {
                stand.settle();
            }
            let shown = stand.shown();
            let done = shown == work.shown(true);
            assert!(done || shown == work.shown(false), "{fs}: {when}: {shown:?}");
            stand.assert_heals(&when);
            assert_eq!(stand.mounts(), 0, "{fs}: {when}");
            assert_eq!(stand.shown(), shown, "{fs}: {when}: the repair has changed something");
            if !done || shown == work.shown(false) {
                before += 1;
                stand.ok(work.command);
            }
            assert_eq!(stand.shown(), work.shown(true), "{fs}: {when}");
            rounds -= 1;
        }
        println!("{fs}: {}: {before} kills before the end", work.name);
    }
}

#[test]
fn an_import() {
    killed(work("image import"));
}

#[test]
fn a_commit() {
    killed(work("commit"));
}

#[test]
fn a_removal_of_a_container() {
    killed(work("rm"));
}

#[test]
fn a_removal_of_an_image() {
    killed(work("image rm"));
}

#[test]
fn a_removal_of_what_is_not_used() {
    killed(work("image prune"));
}

#[test]
fn a_collection() {
    killed(work("gc"));
}

#[test]
fn a_run_of_a_container_that_goes() {
    killed(work("run"));
}

#[test]
fn a_run_of_a_container_that_stays() {
    killed(work("run --keep"));
}
