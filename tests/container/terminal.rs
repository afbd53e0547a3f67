//! Containers on a terminal: job control inside, job control outside.

use std::process::{Command, Stdio};

use crate::stand::{self, Stand};

/// Opens a terminal, starts a program on it, and talks to it: each line of the dialogue is what
/// to wait for and what to type then. Prints what was seen; exits as the program does.
const TALK: &str = r#"
import os, pty, sys, select, time, signal
dialogue, argv = eval(sys.argv[1]), sys.argv[2:]
pid, fd = pty.fork()
if pid == 0:
    os.execv(argv[0], argv)
seen, start = b"", 0
def read(until):
    global seen
    end = time.time() + 15
    while until is None or until not in seen[start:]:
        ready = select.select([fd], [], [], max(0, end - time.time()))[0]
        if not ready:
            sys.stdout.write(seen.decode(errors="replace"))
            os.kill(pid, signal.SIGKILL)
            sys.exit("waited in vain for %r" % until)
        try:
            data = os.read(fd, 4096)
        except OSError:
            data = b""
        if not data:
            if until is None: return
            sys.stdout.write(seen.decode(errors="replace"))
            sys.exit("it ended before it said %r" % until)
        seen += data
for until, typed in dialogue:
    read(until)
    start = len(seen)
    time.sleep(0.2)
    os.write(fd, typed)
read(None)
_, status = os.waitpid(pid, 0)
sys.stdout.write(seen.decode(errors="replace"))
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"#;

/// The outcome of a dialogue: the exit code, what was on the screen, what went wrong.
fn talk(helper: &Command, before: &[&str], dialogue: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new("python3");
    command.args(["-c", TALK, dialogue]).args(before);
    if before.is_empty() {
        command.arg(helper.get_program()).args(helper.get_args());
    }
    for (name, value) in helper.get_envs() {
        command.env(name, value.unwrap());
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_shell_on_a_terminal_has_job_control() {
    let stand = Stand::new();
    let helper = stand::process(&stand.spec(&["sh", "-i"]));
    let dialogue = r##"[
        (b"# ", b"sleep 876505\n"),
        (b"sleep 876505", b"\x1a"),
        (b"Stopped", b"echo $((6*7)) is; jobs\n"),
        (b"42 is", b"fg\n"),
        (b"sleep 876505", b"\x03"),
        (b"# ", b"tty; cat\n"),
        (b"/dev/console", b"typed\n\x04"),
        (b"typed\r\ntyped", b"exit 9\n"),
    ]"##;
    let (code, screen, wrong) = talk(&helper, &[], dialogue);
    assert_eq!(code, Some(9), "{screen}\n{wrong}");
    assert!(!screen.contains("can't access tty"), "{screen}");
}

#[test]
fn the_terminals_signals_go_to_the_command() {
    let stand = Stand::new();
    let script = "trap 'echo interrupted; exit 6' INT; echo ready; while :; do sleep 0.1; done";
    let helper = stand::process(&stand.script(script));
    let (code, screen, wrong) = talk(&helper, &[], r#"[(b"ready", b"\x03")]"#);
    assert_eq!(code, Some(6), "{screen}\n{wrong}");
    assert_eq!(screen.matches("interrupted").count(), 1, "{screen}");
}

/// Stopped and continued by the shell that plyfs was started from, in the foreground and in the
/// background; the terminal is where it belongs each time.
#[test]
fn the_callers_shell_can_stop_and_continue_it() {
    let stand = Stand::new();
    // Not the shell's own `read`: busybox polls first, which in the background stops nobody.
    let script = "trap 'echo got-int; exit 6' INT; echo ready; cat; echo ended";
    let helper = stand::process(&stand.script(script));
    let words: Vec<_> = std::iter::once(helper.get_program()).chain(helper.get_args()).collect();
    let line = words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let dialogue = format!(
        r##"[
        (b"# ", b"{line}\n"),
        (b"ready", b"one\n"),
        (b"one\r\none", b"\x1a"),
        (b"Stopped", b"echo outside $((6*7))\n"),
        (b"outside 42", b"bg\n"),
        (b"bg", b"until [ -n \"$(jobs -s)\" ]; do sleep 0.1; done; echo again $((6*7))\n"),
        (b"again 42", b"fg\n"),
        (b"a_process", b"two\n"),
        (b"two\r\ntwo", b"\x03"),
        (b"got-int", b"echo code $?\n"),
        (b"code 6", b"exit 0\n"),
    ]"##
    );
    let shell = ["/bin/bash", "--norc", "--noprofile", "-i"];
    let (code, screen, wrong) = talk(&helper, &shell, &dialogue);
    assert_eq!(code, Some(0), "{screen}\n{wrong}");
}

/// In a pipeline the other parts need the terminal, too: nothing is taken from them.
#[test]
fn a_pipeline_keeps_its_terminal() {
    let stand = Stand::new();
    let helper = stand::process(&stand.script("echo from inside; sleep 1; exit 0"));
    let words: Vec<_> = std::iter::once(helper.get_program()).chain(helper.get_args()).collect();
    let line = words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let dialogue = format!(
        r##"[
        (b"# ", b"{line} | {{ sleep 0.5; read x </dev/tty; echo got $x; cat >/dev/null; }}\n"),
        (b"cat >/dev/null", b"words\n"),
        (b"got words", b"exit 0\n"),
    ]"##
    );
    let shell = ["/bin/bash", "--norc", "--noprofile", "-i"];
    let (code, screen, wrong) = talk(&helper, &shell, &dialogue);
    assert_eq!(code, Some(0), "{screen}\n{wrong}");
}
