//! What goes wrong outside: no space, limits, whoever starts a mount and what he leaves open.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::stand::{Stand, assert_ok, fingerprint, names, plyfs, run};

fn tree(lower: &Path) {
    fs::write(lower.join("big"), vec![7; 1 << 20]).unwrap();
    fs::write(lower.join("small"), "small").unwrap();
    fs::write(lower.join("gone"), "gone").unwrap();
    fs::hard_link(lower.join("small"), lower.join("alias")).unwrap();
    symlink("small", lower.join("link")).unwrap();
    for dir in ["dir", "dir/below", "empty", "deep", "deep/er"] {
        fs::create_dir(lower.join(dir)).unwrap();
    }
    fs::write(lower.join("dir/file"), "file").unwrap();
    fs::write(lower.join("deep/er/file"), vec![8; 100_000]).unwrap();
}

/// What a program sees, but for the link counts of directories.
fn seen(stand: &Stand) -> Vec<String> {
    let mut lines = fingerprint(&stand.path("mnt"));
    for line in &mut lines {
        let mut words: Vec<&str> = line.split(' ').collect();
        if words[1].starts_with('4') {
            words[3] = "-";
        }
        *line = words.join(" ");
    }
    lines
}

/// Takes all space and all inodes, from beside the mount.
fn fill_up(small: &Path) {
    let filler = small.join("filler");
    fs::create_dir(&filler).unwrap();
    let mut file = File::create(filler.join("data")).unwrap();
    for piece in [1 << 16, 1 << 12, 1 << 9, 1 << 6, 1 << 3, 1] {
        while file.write_all(&vec![1; piece]).is_ok() && file.sync_all().is_ok() {}
    }
    for number in 0.. {
        // A long name, so that the directory takes what blocks there are.
        if File::create(filler.join(format!("{number:0200}"))).is_err() {
            break;
        }
    }
    while file.write_all(&[1; 4096]).is_ok() && file.sync_all().is_ok() {}
}

type Operation = (&'static str, fn(&Stand) -> io::Result<()>);

fn append(path: &Path) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(&vec![9; 50_000])
}

const OPERATIONS: [Operation; 15] = [
    ("append to a large file", |s| append(&s.at("big"))),
    ("append to a file far below", |s| append(&s.at("deep/er/file"))),
    ("chmod", |s| fs::set_permissions(s.at("big"), PermissionsExt::from_mode(0o600))),
    ("chmod of a hard link", |s| {
        fs::set_permissions(s.at("alias"), PermissionsExt::from_mode(0o600))
    }),
    ("setxattr", |s| {
        let none = rustix::fs::XattrFlags::empty();
        Ok(rustix::fs::setxattr(s.at("dir"), "user.x", &[5; 300], none)?)
    }),
    ("create", |s| {
        OpenOptions::new().write(true).create_new(true).mode(0o6755).open(s.at("dir/new")).map(drop)
    }),
    ("mkdir", |s| fs::create_dir(s.at("deep/new"))),
    ("symlink", |s| symlink("x".repeat(1000), s.at("empty/new"))),
    ("link", |s| fs::hard_link(s.at("small"), s.at("dir/linked"))),
    ("rename of a directory", |s| fs::rename(s.at("dir"), s.at("deep/dir"))),
    ("rename of a file over another", |s| fs::rename(s.at("big"), s.at("small"))),
    ("unlink", |s| fs::remove_file(s.at("deep/er/file"))),
    ("unlink of a hard link", |s| fs::remove_file(s.at("alias"))),
    ("rmdir", |s| fs::remove_dir(s.at("empty"))),
    ("mkdir over a whiteout", |s| fs::create_dir(s.at("gone"))),
];

/// Runs every operation without space: it is done, or it fails and nothing has changed.
fn without_space(fs_type: &str, errno: i32) {
    let mut failed = 0;
    for (name, operation) in OPERATIONS {
        let mut stand = Stand::on_small(fs_type, tree);
        let below = fingerprint(&stand.path("lower"));
        fs::remove_file(stand.at("gone")).unwrap();
        fill_up(&stand.path("small"));
        let before = seen(&stand);
        match operation(&stand) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(errno), "{fs_type}: {name}");
                assert_eq!(seen(&stand), before, "{fs_type}: {name}");
                failed += 1;
            }
        }
        stand.assert_work_is_clean();
        let after = seen(&stand);
        if fs_type == "btrfs" {
            // Removing takes space, too.
            run("btrfs", &[&"qgroup", &"limit", &"none", &"0/5", &stand.path("small")]);
        }
        // A mount tries what the filesystem can do, for which it needs some space.
        fs::remove_dir_all(stand.path("small/filler")).unwrap();
        stand.remount();
        assert_eq!(seen(&stand), after, "{fs_type}: {name}: after a remount");
        if after == before {
            operation(&stand).unwrap_or_else(|e| panic!("{fs_type}: {name}: with space: {e}"));
            assert_ne!(seen(&stand), before, "{fs_type}: {name}");
            stand.assert_work_is_clean();
        }
        assert_eq!(fingerprint(&stand.path("lower")), below, "{fs_type}: {name}");
    }
    assert!(failed > 5, "{fs_type}: only {failed} operations lacked space");
}

#[test]
fn line_49_without_space_an_operation_fails_and_changes_nothing_on_ext4() {
    without_space("ext4", libc::ENOSPC);
}

#[test]
fn line_49_without_space_an_operation_fails_and_changes_nothing_on_tmpfs() {
    without_space("tmpfs", libc::ENOSPC);
}

#[test]
fn line_49_over_quota_an_operation_fails_and_changes_nothing_on_btrfs() {
    without_space("btrfs", libc::EDQUOT);
}

fn limited(limit: &str) -> Command {
    let mut command = Command::new("prlimit");
    command.args([limit, env!("CARGO_BIN_EXE_plyfs")]);
    command
}

#[test]
fn a_limit_on_file_sizes_where_it_was_mounted_does_not_end_the_mount() {
    let mut stand = Stand::unmounted(&["lower"]);
    stand.mount_by(limited("--fsize=65536:"));
    fs::write(stand.at("big"), vec![1; 1 << 20]).unwrap();
    assert_eq!(fs::metadata(stand.at("big")).unwrap().len(), 1 << 20);
    stand.umount();
    stand.mount_by(limited("--fsize=65536:65536"));
    if let Err(error) = fs::write(stand.at("other"), vec![1; 1 << 20]) {
        // Without CAP_SYS_RESOURCE the limit stays, and is the writer's alone.
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
    }
    assert_eq!(fs::metadata(stand.at("big")).unwrap().len(), 1 << 20);
}

#[test]
fn removed_names_of_hard_links_cost_no_descriptors() {
    let mut stand = Stand::unmounted(&["lower"]);
    fs::create_dir(stand.path("upper/tree")).unwrap();
    for number in 0..300 {
        let file = stand.path(&format!("upper/tree/{number}"));
        fs::write(&file, "x").unwrap();
        fs::hard_link(&file, stand.path(&format!("upper/{number}"))).unwrap();
    }
    stand.mount_by(limited("--nofile=128:128"));
    // As git puts an object in its place.
    for number in 0..300 {
        let (temporary, real) = (stand.at("temporary"), stand.at(&format!("real-{number}")));
        fs::write(&temporary, format!("{number}")).unwrap();
        fs::hard_link(&temporary, &real).unwrap();
        fs::remove_file(&temporary).unwrap();
    }
    // As a copy of links is removed: the names that stay are not known yet.
    let open = File::open(stand.at("tree/7")).unwrap();
    fs::remove_dir_all(stand.at("tree")).unwrap();
    assert_eq!(open.metadata().unwrap().nlink(), 1);
    open.set_permissions(PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(fs::metadata(stand.at("7")).unwrap().mode() & 0o777, 0o640);
    for number in 0..300 {
        assert_eq!(fs::read_to_string(stand.at(&number.to_string())).unwrap(), "x");
        let real = stand.at(&format!("real-{number}"));
        assert_eq!(fs::read_to_string(real).unwrap(), number.to_string());
    }
    fs::remove_file(stand.at("7")).unwrap();
    assert_eq!(open.metadata().unwrap().nlink(), 0);
}

#[test]
fn a_volatile_mount_that_fails_leaves_the_upper_usable() {
    let stand = Stand::unmounted(&["lower"]);
    let mark = "trusted.overlay.unheard-of";
    run("setfattr", &[&"-n", &mark, &"-v", &"1", &stand.path("lower")]);
    let options = format!("{},volatile", stand.options());
    let mount = || plyfs(&["mount", "-o", &options]).arg(stand.path("mnt")).output().unwrap();
    assert!(!mount().status.success());
    run("setfattr", &[&"-x", &mark, &stand.path("lower")]);
    assert_ok(&mount());
    assert_ok(&plyfs(&["umount"]).arg(stand.path("mnt")).output().unwrap());
}

#[test]
fn what_the_caller_has_open_is_not_held_by_the_server() {
    let mut stand = Stand::unmounted(&["lower"]);
    let lock = stand.path("lock");
    let mut shell = Command::new("sh");
    let script = "exec 9>\"$0\"; flock 9; exec \"$@\"";
    shell.args(["-c", script]).arg(&lock).arg(env!("CARGO_BIN_EXE_plyfs"));
    stand.mount_by(shell);
    run("flock", &[&"--nonblock", &lock, &"true"]);
}

#[test]
fn a_server_asked_to_end_finds_its_mount_under_a_new_name() {
    let outer = tempfile::Builder::new().prefix("plyfs-test-").tempdir().unwrap();
    let (old, new) = (outer.path().join("old"), outer.path().join("new"));
    for dir in ["lower", "upper", "work", "mnt"] {
        fs::create_dir_all(old.join(dir)).unwrap();
    }
    let part = |dir: &str| old.join(dir).display().to_string();
    let layers = (part("lower"), part("upper"), part("work"));
    let options = format!("lowerdir={},upperdir={},workdir={}", layers.0, layers.1, layers.2);
    let args = ["mount", "-f", "-o", &options, &part("mnt")];
    let mut server = plyfs(&args).spawn().unwrap();
    let is_mounted =
        || fs::read_to_string("/proc/mounts").unwrap().contains(&*outer.path().to_string_lossy());
    wait_until(is_mounted);
    fs::rename(&old, &new).unwrap();
    let pid = rustix::process::Pid::from_child(&server);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    wait_until(|| server.try_wait().unwrap().is_some());
    assert!(!is_mounted());
}

#[test]
fn a_server_that_ends_leaves_a_mount_that_came_after_it() {
    let mut stand = Stand::new(|_| {});
    for _ in 0..5 {
        let server = stand.server();
        // Not by plyfs, which waits for the server: the next mount comes before that has ended.
        rustix::mount::unmount(stand.path("mnt"), rustix::mount::UnmountFlags::empty()).unwrap();
        let next = stand.path("mnt");
        run("mount", &[&"-t", &"tmpfs", &"none", &next]);
        wait_until(|| !Path::new(&format!("/proc/{server}/exe")).exists());
        fs::write(next.join("there"), "").unwrap();
        run("umount", &[&next]);
        assert!(!next.join("there").exists(), "the next mount was gone before");
        stand.mount();
    }
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("waited for too long");
}

#[test]
fn line_53_an_upper_inside_a_lower_is_refused_under_another_name_too() {
    let stand = Stand::unmounted(&["lower"]);
    for dir in ["lower/in/upper", "lower/in/work", "bound"] {
        fs::create_dir_all(stand.path(dir)).unwrap();
    }
    run("mount", &[&"--bind", &stand.path("lower/in"), &stand.path("bound")]);
    let part = |dir: &str| stand.path(dir).display().to_string();
    let (lower, upper, work) = (part("lower"), part("bound/upper"), part("bound/work"));
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let refused = plyfs(&["mount", "-o", &options, &part("mnt")]).output().unwrap();
    run("umount", &[&stand.path("bound")]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "it was mounted");
    assert!(said.contains("is inside the lowerdir"), "{said}");
}

/// A limit on processes or memory is reached: what would have had a thread of its own waits for
/// none.
#[test]
fn without_a_thread_to_be_had_a_long_operation_is_done_all_the_same() {
    let mut stand = Stand::unmounted(&["lower"]);
    tree(&stand.path("lower"));
    let mut command = plyfs::<&str>(&[]);
    command.env("PLYFS_DRIVER", "native");
    stand.mount_with(command, &["--threads", "1"]);
    let server = stand.server();
    let statm = fs::read_to_string(format!("/proc/{server}/statm")).unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    // Room for what a request needs, and not for a stack.
    let limit = pages * 4096 + (1 << 20);
    run("prlimit", &[&format!("--pid={server}"), &format!("--as={limit}")]);
    for name in ["small", "dir/file"] {
        fs::set_permissions(stand.at(name), PermissionsExt::from_mode(0o600)).unwrap();
    }
    append(&stand.at("deep/er/file")).unwrap();
    fs::remove_file(stand.at("gone")).unwrap();
}

/// Else nothing could be deleted any more.
#[test]
fn line_49_a_full_disk_can_be_mounted_and_emptied() {
    for fs in ["ext4", "tmpfs"] {
        let mut stand = Stand::on_small(fs, two_files);
        fs::write(stand.at("own"), "own").unwrap();
        fs::remove_file(stand.at("gone")).unwrap();
        stand.umount();
        let upper = stand.path("small/upper");
        for size in [65536, 1024, 1] {
            let mut n = 0;
            while fs::write(upper.join(format!("fill-{size}-{n}")), vec![7; size]).is_ok() {
                n += 1;
            }
        }
        stand.mount();
        assert!(!stand.at("gone").exists());
        assert_eq!(fs::read(stand.at("own")).unwrap(), b"own");
        fs::remove_file(stand.at("own")).unwrap();
        fs::remove_file(stand.at("fill-65536-0")).unwrap();
        fs::write(stand.at("own"), "again").unwrap();
        fs::remove_file(stand.at("kept")).unwrap();
        stand.remount();
        assert_eq!(names(&stand.path("mnt")).iter().filter(|n| !n.starts_with("fill")).count(), 1);
        stand.umount();
    }
}

fn two_files(lower: &Path) {
    for name in ["gone", "kept"] {
        fs::write(lower.join(name), name).unwrap();
    }
}
