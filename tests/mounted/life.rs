//! The life of the process behind a mount: when it begins and ends, what it takes, what it says.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::stand::{Stand, assert_ok, names, plyfs, run};

/// Whether the process exists, and is no zombie.
fn lives(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).exists()
}

/// Waits until `done`; fails after ten seconds.
#[track_caller]
fn wait(what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(10), "{what}: not after ten seconds");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// A number in a line such as `VmRSS:  123 kB` of a file of the process.
fn number(pid: i32, file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.split_ascii_whitespace().next().unwrap().parse().unwrap()
}

fn text(lower: &Path) {
    fs::write(lower.join("file"), "text\n").unwrap();
}

#[test]
fn one_process_serves_a_mount_and_has_no_children() {
    let stand = Stand::new(text);
    let server = stand.server();
    let children = fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
    assert_eq!(children.unwrap_or_default(), "");
    assert!(number(server, "status", "Threads:") < 10);
}

#[test]
fn a_lazily_unmounted_mount_is_served_to_its_last_user_and_then_ends() {
    let mut stand = Stand::new(text);
    let server = stand.server();
    let held = fs::File::open(stand.at("file")).unwrap();
    run("umount", &[&"--lazy", &stand.path("mnt")]);
    std::thread::sleep(Duration::from_millis(200));
    assert!(lives(server), "somebody has a file open");
    assert_eq!(std::io::read_to_string(&held).unwrap(), "text\n");
    drop(held);
    wait("the server's end", || !lives(server));
    stand.mount();
}

#[test]
fn who_asked_for_it_is_unmounted_even_if_the_server_is_killed() {
    let mut stand = Stand::unmounted(&["lower"]);
    text(&stand.path("lower"));
    let at = stand.path("mnt").display().to_string();
    let mounted = || fs::read_to_string("/proc/self/mounts").unwrap().contains(&at);
    for round in 0..2 {
        stand.mount_with(plyfs::<&str>(&[]), &["-o", "auto_unmount"]);
        assert!(mounted());
        assert_eq!(names(&stand.path("mnt")), ["file"]);
        if round == 0 {
            stand.umount();
        } else {
            signal(stand.server(), Signal::KILL);
        }
        wait("the mount's end", || !mounted());
    }
    stand.mount();
    assert_eq!(fs::read(stand.at("file")).unwrap(), b"text\n");
}

/// Container engines detach a root filesystem and mount it again in the same breath.
#[test]
fn who_mounts_anew_at_once_waits_for_the_server_before() {
    let mut stand = Stand::new(text);
    for round in 0..10 {
        fs::write(stand.at("file"), vec![round; 1 << 20]).unwrap();
        run("umount", &[&"--lazy", &stand.path("mnt")]);
        stand.mount();
        assert_eq!(fs::read(stand.at("file")).unwrap(), vec![round; 1 << 20]);
    }
    stand.umount();
    stand.assert_work_is_clean();
}

#[test]
fn the_server_outlives_its_terminal() {
    let mut stand = Stand::unmounted(&["lower"]);
    text(&stand.path("lower"));
    let script =
        "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let mut python = Command::new("python3");
    python.args(["-c", script, env!("CARGO_BIN_EXE_plyfs")]);
    stand.mount_by(python);
    let server = stand.server();
    signal(server, Signal::HUP);
    std::thread::sleep(Duration::from_millis(200));
    assert!(lives(server), "the terminal is of no interest");
    assert_eq!(fs::read_to_string(stand.at("file")).unwrap(), "text\n");
    signal(server, Signal::TERM);
    wait("the server's end", || !lives(server));
    assert!(!stand.at("file").exists(), "and nothing is mounted");
    stand.mount();
}

#[test]
fn statistics_go_to_the_log_that_was_told() {
    let mut stand = Stand::unmounted(&["lower"]);
    text(&stand.path("lower"));
    let log = stand.path("log");
    let option = format!("log={}", log.display());
    stand.mount_with(plyfs::<&str>(&[]), &["-o", &option]);
    fs::read(stand.at("file")).unwrap();
    let told = || fs::read_to_string(&log).unwrap();
    assert_eq!(told(), "", "nothing happened that is worth a line");
    signal(stand.server(), Signal::USR1);
    wait("the statistics", || told().ends_with('\n'));
    let line = told();
    let mnt = stand.path("mnt").display().to_string();
    for part in ["statistics", &mnt, "nodes=2", "seconds=", "resident_kib=", "descriptors="] {
        assert!(line.contains(part), "{part} is missing: {line}");
    }
}

/// Makes /dev ours alone in a mount namespace, and so is a socket in it. The namespace also has the
/// mounts of the tests beside this one, whose servers go on until it ends: it must not take long.
const OWN_DEVICES: &str = "
mount --make-rprivate /; mount -t tmpfs none /dev
mknod /dev/null c 1 3; mknod /dev/fuse c 10 229";

#[test]
fn the_log_may_go_to_the_system() {
    let stand = Stand::unmounted(&["lower"]);
    text(&stand.path("lower"));
    let script = OWN_DEVICES.to_owned()
        + "
exec python3 -c '
import os, signal, socket, subprocess, sys
def listen():
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind(\"/dev/log\")
    log.settimeout(1 if \"log=none\" in sys.argv[2] else 10)
    return log
log = listen()
subprocess.run([sys.argv[1], \"mount\", \"-o\", sys.argv[2], sys.argv[3]], check=True)
for pid in filter(str.isdigit, os.listdir(\"/proc\")):
    try:
        line = open(f\"/proc/{pid}/cmdline\").read().split(chr(0))
    except OSError:
        continue
    if sys.argv[2] in line and line[0] == sys.argv[1]:
        os.kill(int(pid), signal.SIGUSR1)
        print(log.recv(4096).decode())
        # The logger is started anew.
        log.close()
        os.unlink(\"/dev/log\")
        log = listen()
        os.kill(int(pid), signal.SIGUSR1)
        print(log.recv(4096).decode())
subprocess.run([sys.argv[1], \"umount\", sys.argv[3]], check=True)
' \"$@\"";
    for (log, heard) in [("", true), (",log=syslog", true), (",log=none", false)] {
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "bash", "-e", "-c", &script, "bash", env!("CARGO_BIN_EXE_plyfs")]);
        shell.arg(format!("{}{log}", stand.options())).arg(stand.path("mnt"));
        let output = shell.env_remove("PLYFS_LOG_FILE").output().unwrap();
        if heard {
            assert_ok(&output);
            let said = String::from_utf8(output.stdout).unwrap();
            assert_eq!(said.lines().count(), 2, "{said}");
            for line in said.lines() {
                assert!(line.starts_with("<30>plyfs[") && line.contains("nodes="), "{line}");
            }
        } else {
            assert!(!output.status.success(), "nothing was to be said");
        }
    }
}

/// What the server needs of /dev, it has before that is hidden.
#[test]
fn a_mount_may_cover_the_devices() {
    let stand = Stand::unmounted(&["lower"]);
    text(&stand.path("lower"));
    let script = OWN_DEVICES.to_owned()
        + "
exec python3 -c '
import os, socket, subprocess, sys
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind(\"/dev/log\")
subprocess.run([sys.argv[1], \"mount\", \"-o\", sys.argv[2], \"/dev\"], check=True, timeout=60)
print(sorted(os.listdir(\"/dev\")))
subprocess.run([sys.argv[1], \"umount\", \"/dev\"], check=True, timeout=60)
print(sorted(os.listdir(\"/dev\")))
' \"$@\"";
    let mut shell = Command::new("unshare");
    // Whatever does not end is killed with the namespace.
    shell.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    shell.args(["bash", "-e", "-c", &script, "bash", env!("CARGO_BIN_EXE_plyfs")]);
    let output = shell.arg(stand.options()).env_remove("PLYFS_LOG_FILE").output().unwrap();
    if std::env::var_os("PLYFS_DRIVER").is_some_and(|driver| driver == "fuser") {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("needs the device that the mount would hide"), "{told}");
        return;
    }
    assert_ok(&output);
    let lower = fs::read_dir(stand.path("lower")).unwrap();
    let mut names: Vec<_> = lower.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    let shown = format!("{names:?}").replace('"', "'");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("{shown}\n['fuse', 'log', 'null']\n"));
}

#[test]
fn the_server_is_spared_when_memory_ends() {
    const CAP_SYS_RESOURCE: u32 = 24;
    let stand = Stand::new(text);
    let score = |pid: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        text.trim().parse::<i32>().unwrap()
    };
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let may = u64::from_str_radix(set.trim(), 16).unwrap() >> CAP_SYS_RESOURCE & 1 == 1;
    let expected = if may { score("self").min(-900) } else { score("self") };
    assert_eq!(score(&stand.server().to_string()), expected);
}

/// What is its own, in KiB: the program's text is shared by all of them.
#[test]
fn an_idle_server_takes_little_memory() {
    let stand = Stand::new(|lower| {
        for number in 0..200 {
            fs::write(lower.join(number.to_string()), "x").unwrap();
        }
    });
    let own = || number(stand.server(), "smaps_rollup", "Pss_Anon:");
    let fresh = own();
    for number in 0..200 {
        fs::write(stand.at(&number.to_string()), vec![1; 100_000]).unwrap();
        fs::read(stand.at(&number.to_string())).unwrap();
    }
    let used = own();
    eprintln!("an idle server's own memory: {fresh} KiB when fresh, {used} KiB when used");
    assert!(fresh < 4 << 10, "{fresh} KiB when nothing has happened yet");
    assert!(used < 16 << 10, "{used} KiB when 40 MB went through it");
}

#[test]
fn the_kernel_reads_ahead_by_more_than_it_would() {
    let stand = Stand::new(text);
    let device = rustix::fs::stat(stand.path("mnt")).unwrap().st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let file = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    let found = fs::read_to_string(&file).unwrap();
    // Where /sys cannot be written to nobody can have said it.
    let expected = if fs::write(&file, "256").is_ok() { "256" } else { "128" };
    assert_eq!(found.trim(), expected);
}
