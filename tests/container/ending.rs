//! How containers end: statuses, signals, kills.

use std::borrow::BorrowMut;
use std::fs;
use std::ops::{Deref, DerefMut};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Output, Stdio};

use plyfs::container::Status;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::stand::{self, Stand, code, eventually, processes_with, status};

/// A process that does not outlive the test, whatever comes of it.
struct Started(Option<Child>);

impl Started {
    fn by(mut command: impl BorrowMut<Command>) -> Self {
        Self(Some(command.borrow_mut().spawn().unwrap()))
    }

    fn wait_with_output(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Deref for Started {
    type Target = Child;

    fn deref(&self) -> &Child {
        self.0.as_ref().unwrap()
    }
}

impl DerefMut for Started {
    fn deref_mut(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It has ended already if the test went well.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Whether the child has been stopped, or let go on, since the last time this was asked.
fn waited(child: &Child, what: WaitIdOptions) -> bool {
    let which = WaitId::Pid(Pid::from_child(child));
    waitid(which, what | WaitIdOptions::NOHANG).unwrap().is_some()
}

#[test]
fn exit_codes_are_passed_on() {
    let stand = Stand::new();
    assert_eq!(code(&stand.spec(&["true"])), 0);
    assert_eq!(code(&stand.spec(&["false"])), 1);
    assert_eq!(code(&stand.script("exit 7")), 7);
    assert_eq!(code(&stand.script("exit 255")), 255);
}

#[test]
fn a_signal_that_ends_the_command_is_told() {
    let stand = Stand::new();
    for (name, number) in [("KILL", 9), ("TERM", 15), ("INT", 2), ("SEGV", 11)] {
        let status = status(&stand.script(&format!("kill -{name} $$; sleep 5")));
        assert!(matches!(status, Status::Signaled(signal) if signal == number), "{status:?}");
        assert_eq!(status.code(), 128 + number);
    }
}

#[test]
fn a_command_that_cannot_be_started_is_told_from_one_that_is_missing() {
    let stand = Stand::new();
    let root = stand.root();
    fs::write(root.join("etc/data"), "x").unwrap();
    fs::write(root.join("bin/odd"), "#!/opt/nowhere/perl\n").unwrap();
    stand::set_mode(&root.join("bin/odd"), 0o755);
    fs::write(root.join("bin/junk"), "\x01\x02\x03\x04 junk").unwrap();
    stand::set_mode(&root.join("bin/junk"), 0o755);
    for (name, expected, text) in [
        ("nothing-like-it", 127, "nothing-like-it: not found in the image"),
        ("/nowhere/it", 127, "/nowhere/it: not found in the image"),
        ("/etc/data/x", 127, "/etc/data/x: not found in the image"),
        ("/etc/data", 126, "/etc/data: may not be executed"),
        ("/etc", 126, "/etc: may not be executed"),
        ("odd", 126, "odd: the interpreter or loader that it asks for is not in the image"),
        ("junk", 126, "junk: Exec format error"),
    ] {
        let status = status(&stand.spec(&[name]));
        assert_eq!(status.code(), expected, "{name}: {status:?}");
        assert!(
            matches!(&status, Status::NotStarted(why) if why.to_string() == text),
            "{status:?}"
        );
    }
}

#[test]
fn signals_reach_the_command() {
    let stand = Stand::new();
    let script = "trap 'echo term; exit 3' TERM; trap 'echo usr1' USR1
        trap 'echo hup' HUP; echo ready >/tmp/ready; while :; do sleep 0.05; done";
    let child = Started::by(stand::process(&stand.script(script)).stdout(Stdio::piped()));
    eventually("it is ready", || stand.root().join("tmp/ready").exists());
    for signal in [Signal::USR1, Signal::HUP] {
        send(&child, signal);
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    send(&child, Signal::TERM);
    let output = child.wait_with_output();
    assert_eq!(stand::said(&output), "usr1\nhup\nterm\n");
    assert_eq!(output.status.code(), Some(3));
}

/// An init that is the command itself would not hear of this one.
#[test]
fn a_command_without_handlers_can_be_ended() {
    let stand = Stand::new();
    let mut child = Started::by(stand::process(&stand.spec(&["sleep", "876501"])));
    eventually("it sleeps", || !processes_with("876501").is_empty());
    send(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
}

#[test]
fn what_the_caller_ignores_the_command_ignores() {
    let stand = Stand::new();
    // The helper is started by a shell that ignores the signal, as nohup does.
    let helper = stand::process(&stand.script("kill -HUP $$; echo survived"));
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(helper.get_program());
    command.args(helper.get_args());
    for (name, value) in helper.get_envs() {
        command.env(name, value.unwrap());
    }
    assert_eq!(stand::said(&command.output().unwrap()), "survived\n");
}

/// Rust programs ignore SIGPIPE, and `yes | head` would never end if their children did.
#[test]
fn a_broken_pipe_ends_the_command() {
    let stand = Stand::new();
    let (_, said) = stand.output_of("grep SigIgn /proc/self/status");
    let ignored = u64::from_str_radix(said.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    assert_eq!(ignored & (1 << (libc::SIGPIPE - 1)), 0, "{said}");
    let (_, said) = stand.output_of("grep SigBlk /proc/self/status");
    assert_eq!(said, "SigBlk:\t0000000000000000\n");
}

#[test]
fn stopping_it_stops_plyfs_and_continuing_plyfs_continues_it() {
    let stand = Stand::new();
    let script = "echo $$ >/tmp/ready; while :; do sleep 0.05; done";
    // In a group of its own, whose leader's parent, outside of it, could let it go on: the kernel
    // stops no others.
    let mut child = Started::by(stand::process(&stand.script(script)).process_group(0));
    eventually("it is ready", || stand.root().join("tmp/ready").exists());
    let state = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('-')
    };
    send(&child, Signal::TSTP);
    eventually("plyfs stops", || waited(&child, WaitIdOptions::STOPPED));
    let commands = || processes_with(script);
    assert!(commands().iter().any(|&pid| state(pid) == 'T'));
    send(&child, Signal::CONT);
    eventually("plyfs goes on", || waited(&child, WaitIdOptions::CONTINUED));
    eventually("the command goes on", || commands().iter().all(|&pid| state(pid) != 'T'));
    send(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
}

#[test]
fn orphans_are_reaped_by_process_1() {
    let stand = Stand::new();
    let script = "
        sh -c 'sleep 0.2 & echo $! >/tmp/orphan'
        orphan=$(cat /tmp/orphan)
        awk '{ print \"parent\", $4 }' /proc/$orphan/stat
        sleep 0.6
        test -e /proc/$orphan && echo 'a zombie is left'
        true";
    assert_eq!(stand.output_of(script), (0, "parent 1\n".to_owned()));
}

#[test]
fn what_runs_on_in_the_background_ends_with_the_command() {
    let stand = Stand::new();
    let script = "setsid sleep 876502 </dev/null >/dev/null 2>&1 & sleep 0.3; exit 4";
    assert_eq!(code(&stand.script(script)), 4);
    assert_eq!(processes_with("876502"), Vec::<u32>::new());
}

#[test]
fn a_plyfs_that_is_killed_takes_the_container_along() {
    let stand = Stand::new();
    let script = "trap '' TERM HUP INT; setsid sleep 876503 & sleep 876503";
    let mut child = Started::by(stand::process(&stand.script(script)));
    eventually("both sleep", || processes_with("876503").len() >= 2);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    eventually("nothing is left", || processes_with("876503").is_empty());
}

/// Kills at any moment between the fork and the exec: nothing may outlive its plyfs.
#[test]
fn a_plyfs_that_is_killed_early_leaves_nothing() {
    let stand = Stand::new();
    let before = stand.mounts();
    for millis in 0..40 {
        let spec = stand.spec(&["sleep", "876504"]);
        let mut child = Started::by(stand::process(&spec).stdout(Stdio::null()));
        std::thread::sleep(std::time::Duration::from_micros(millis * 500));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    eventually("nothing is left", || processes_with("876504").is_empty());
    assert_eq!(stand.mounts(), before);
}

#[test]
fn pipes_carry_both_ways() {
    let stand = Stand::new();
    let output = stand::fed(&stand.script("tr a-z A-Z; exit 5"), b"hello\nworld\n");
    assert_eq!(stand::said(&output), "HELLO\nWORLD\n");
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn many_containers_at_once_from_one_process() {
    let stand = Stand::new();
    let before = stand.mounts();
    std::thread::scope(|scope| {
        for number in 0..8_u8 {
            let spec = stand.script(&format!("sleep 0.1; exit {number}"));
            scope.spawn(move || {
                for _ in 0..3 {
                    assert_eq!(code(&spec), number);
                }
            });
        }
    });
    assert_eq!(stand.mounts(), before);
}
