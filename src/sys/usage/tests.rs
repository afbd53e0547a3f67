use std::io::Write;

use super::{cpus, pin, pin_thread, share_of_memory, written};

#[test]
fn this_process_uses_something() {
    assert!(share_of_memory(None).unwrap() > 100_000);
    let own = rustix::process::getpid();
    assert!(share_of_memory(Some(own)).unwrap() > 100_000);
    // Beside the program itself, which is on a disk more likely than /tmp is.
    let dir = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let before = written(None).unwrap();
    let mut file = tempfile::tempfile_in(dir).unwrap();
    file.write_all(&vec![1; 1 << 20]).unwrap();
    file.sync_all().unwrap();
    assert!(written(None).unwrap() - before >= 1 << 20);
    let nobody = rustix::process::Pid::from_raw(i32::MAX).unwrap();
    assert!(written(Some(nobody)).is_err());
}

#[test]
fn a_thread_runs_where_it_is_pinned() {
    std::thread::spawn(|| {
        let all = cpus().unwrap();
        pin_thread(&all[..1]).unwrap();
        assert_eq!(cpus().unwrap(), all[..1]);
        pin_thread(&all).unwrap();
        assert_eq!(cpus().unwrap(), all);
    })
    .join()
    .unwrap();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let cpu = cpus().unwrap()[0];
    let pinned = pin(pid, cpu);
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    pinned.unwrap();
    assert!(status.contains(&format!("Cpus_allowed_list:\t{cpu}\n")), "{status}");
}
