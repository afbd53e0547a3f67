//! Mount options, as far as they take a mount: unknown ones, paths of any bytes, many layers.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use plyfs::sys::fuse_mount;

use super::stand::{Stand, assert_ok, errno, names, plyfs, run};

#[test]
fn line_54_an_unknown_option_is_named_and_what_tools_pass_blindly_is_not() {
    let mut stand = Stand::unmounted(&["lower"]);
    let mount = |more: &str| {
        let options = format!("{},{more}", stand.options());
        plyfs(&["mount", "-o", &options]).arg(stand.path("mnt")).output().unwrap()
    };
    for unknown in ["colour=red", "volatil", "xino=perhaps", "ro=1"] {
        let output = mount(unknown);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(unknown), "{unknown}: {told}");
        assert!(!Path::new(&stand.path("work/work")).exists(), "nothing was begun");
    }
    // Known, and not to be had: said as well, not ignored.
    for missing in ["redirect_dir=nofollow", "allow_root", "ino32_t"] {
        let output = mount(missing);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(missing), "{missing}: {told}");
    }
    assert_ok(&mount("nodev,nosuid,noatime,default_permissions,xino=auto,index=on,_netdev"));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let at = stand.path("mnt").display().to_string();
    let line = mounts.lines().find(|line| line.contains(&at)).unwrap();
    for flag in ["nodev", "nosuid", "noatime"] {
        assert!(line.contains(flag), "{line}");
    }
    stand.umount();
}

/// How often the server syncs while something is done.
fn syncs(stand: &Stand, something: impl FnOnce()) -> usize {
    let (out, server) = (stand.path("strace"), stand.server());
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fsync,fdatasync,syncfs", "-o"])
        .arg(&out)
        .args(["-p", &server.to_string()])
        .spawn()
        .unwrap();
    let threads = || fs::read_dir(format!("/proc/{server}/task")).unwrap();
    let traced = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap();
        !status.contains("TracerPid:\t0\n")
    };
    while !threads().all(|thread| traced(thread.unwrap())) {
        std::thread::sleep(Duration::from_millis(10));
    }
    something();
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&strace),
        rustix::process::Signal::INT,
    )
    .unwrap();
    strace.wait().unwrap();
    fs::read_to_string(&out).unwrap().lines().filter(|line| line.contains("sync")).count()
}

#[test]
fn line_54_the_mount_can_be_durable_at_once() {
    let mut stand = Stand::unmounted(&["lower"]);
    let (mut round, mut seen) = (0, Vec::new());
    for option in ["async", "dirsync", "sync"] {
        stand.mount_with(plyfs::<&str>(&[]), &["-o", option]);
        round += 1;
        let at = |name: &str| stand.at(&format!("{name}{round}"));
        let counts = [
            syncs(&stand, || fs::create_dir(at("dir")).unwrap()),
            syncs(&stand, || fs::rename(at("dir"), at("moved")).unwrap()),
            syncs(&stand, || run("chmod", &[&"700", &at("moved")]).clear()),
            syncs(&stand, || fs::write(at("file"), "text").unwrap()),
            syncs(&stand, || drop(fs::File::create(at("file")).unwrap())),
        ];
        seen.push(counts.map(|count| count > 0));
        stand.umount();
    }
    // The last one is two steps: a name, and a write.
    assert_eq!(seen, [[false; 5], [true, true, false, true, false], [true; 5]]);
    stand.mount_with(plyfs::<&str>(&[]), &["-o", "sync"]);
    let mut file = fs::File::create(stand.at("written")).unwrap();
    for _ in 0..3 {
        let count = syncs(&stand, || std::io::Write::write_all(&mut file, b"more").unwrap());
        assert!(count > 0, "a write alone");
    }
}

#[test]
fn line_54_without_acls_the_mode_decides() {
    let mut stand = Stand::unmounted(&["lower"]);
    let (file, dir) = (stand.path("lower/file"), stand.path("lower/dir"));
    fs::write(&file, "").unwrap();
    fs::create_dir(&dir).unwrap();
    run("setfattr", &[&"-n", &"user.kept", &"-v", &"x", &file]);
    run("setfacl", &[&"-m", &"u:77:rwx", &file]);
    run("setfacl", &[&"-d", &"-m", &"u:77:rwx", &dir]);
    stand.mount_with(plyfs::<&str>(&[]), &["-o", "noacl"]);
    let seen = |at: &str| run("getfattr", &[&"-d", &"-m", &"-", &stand.at(at)]);
    assert!(
        seen("file").contains("user.kept") && !seen("file").contains("acl"),
        "{}",
        seen("file")
    );
    let set =
        Command::new("setfacl").args(["-m", "u:78:r"]).arg(stand.at("file")).output().unwrap();
    assert!(String::from_utf8_lossy(&set.stderr).contains("not supported"), "{set:?}");
    fs::write(stand.at("dir/new"), "").unwrap();
    fs::write(stand.at("file"), "changed").unwrap();
    stand.umount();
    stand.mount();
    let acl = |at: &str| run("getfacl", &[&"-n", &"-p", &stand.at(at)]);
    assert!(acl("file").contains("user:77:rwx"), "a copy-up keeps it: {}", acl("file"));
    assert!(!acl("dir/new").contains("77"), "nothing was inherited: {}", acl("dir/new"));
}

#[test]
fn line_54_without_attributes_there_are_none_and_none_is_lost() {
    let mut stand = Stand::unmounted(&["lower"]);
    let file = stand.path("lower/file");
    fs::write(&file, "").unwrap();
    run("setfattr", &[&"-n", &"user.kept", &"-v", &"x", &file]);
    let mut options = "noxattrs=1,static_nlink,fsync=0,timeout=0";
    if std::env::var_os("PLYFS_DRIVER").is_some_and(|driver| driver == "fuser") {
        // The crate has a timeout of its own; docs/RUNTIMES.md says so.
        options = "noxattrs=1,static_nlink,fsync=0";
    }
    stand.mount_with(plyfs::<&str>(&[]), &["-o", options]);
    let mut set = Command::new("setfattr");
    let set = set.args(["-n", "user.x", "-v", "y"]).arg(stand.at("file")).output().unwrap();
    assert!(String::from_utf8_lossy(&set.stderr).contains("not supported"), "{set:?}");
    fs::write(stand.at("file"), "changed").unwrap();
    fs::File::open(stand.at("file")).unwrap().sync_all().unwrap();
    fs::create_dir_all(stand.at("dir/sub")).unwrap();
    assert_eq!(fs::metadata(stand.at("dir")).unwrap().nlink(), 1, "static_nlink");
    stand.remount();
    assert_eq!(fs::metadata(stand.at("dir")).unwrap().nlink(), 3);
    assert!(run("getfattr", &[&"-d", &stand.at("file")]).contains("user.kept=\"x\""));
}

#[test]
fn line_54_without_redirects_directories_below_stay_where_they_are() {
    let mut stand = Stand::unmounted(&["lower"]);
    fs::create_dir_all(stand.path("lower/dir/sub")).unwrap();
    fs::write(stand.path("lower/file"), "text").unwrap();
    stand.mount_with(plyfs::<&str>(&[]), &["-o", "redirect_dir=off"]);
    let rename = |from: &str, to: &str| errno(fs::rename(stand.at(from), stand.at(to)));
    assert_eq!(rename("dir", "moved"), libc::EXDEV);
    fs::create_dir(stand.at("new")).unwrap();
    let exchange = |one: &str, other: &str| {
        let (one, other) = (stand.at(one), stand.at(other));
        let how = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, how)
    };
    assert_eq!(exchange("new", "dir"), Err(rustix::io::Errno::XDEV));
    assert_eq!(names(&stand.path("upper")), ["new"], "nothing was copied up for it");
    fs::rename(stand.at("new"), stand.at("newer")).unwrap();
    run("chmod", &[&"600", &stand.at("file")]);
    assert_eq!(fs::read(stand.path("upper/file")).unwrap(), b"text", "with its data");
    // What is there already is followed.
    stand.remount();
    fs::rename(stand.at("dir"), stand.at("moved")).unwrap();
    stand.umount();
    stand.mount_with(plyfs::<&str>(&[]), &["-o", "redirect_dir=off"]);
    assert_eq!(names(&stand.at("moved")), ["sub"]);
}

/// Where no security module takes them.
#[test]
fn line_54_a_security_context_that_the_kernel_does_not_take_is_named() {
    let stand = Stand::unmounted(&["lower"]);
    let label = "context=\"system_u:object_r:container_file_t:s0:c1,c2\"";
    let options = format!("{},{label}", stand.options());
    let output = plyfs(&["mount", "-o", &options]).arg(stand.path("mnt")).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if Path::new("/sys/fs/selinux/enforce").exists() {
        assert_ok(&output);
        assert_ok(&plyfs(&["umount"]).arg(stand.path("mnt")).output().unwrap());
        return;
    }
    assert!(!output.status.success(), "it was to be refused");
    assert!(told.contains("'context'") && told.contains("SELinux"), "{told}");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&stand.path("mnt").display().to_string()));
}

/// A path as an option's value has it.
fn escaped(path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        if b",:\\".contains(&byte) {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out
}

#[test]
fn line_55_paths_of_layers_may_hold_any_bytes() {
    let stand = Stand::unmounted(&["lower"]);
    let odd: [&[u8]; 9] = [
        b"a,b",
        b"c:d",
        b"e\\f",
        b"g\nh",
        b"\xff\xfe",
        b" i ",
        b"-j",
        b"k\\,l\\:m\\",
        b"\\040=\"'$",
    ];
    let mut options = b"lowerdir=".to_vec();
    for (number, name) in odd.iter().enumerate() {
        let lower = stand.path("lower").join(OsStr::from_bytes(name));
        fs::create_dir(&lower).unwrap();
        fs::write(lower.join(number.to_string()), name).unwrap();
        if number > 0 {
            options.push(b':');
        }
        options.extend(escaped(&lower));
    }
    let (upper, work) = (stand.path("up,per:\\\n"), stand.path("w,o:r\\k"));
    let mnt = stand.path("m,n:t\\ \n");
    for (option, path) in [("upperdir", &upper), ("workdir", &work)] {
        fs::create_dir(path).unwrap();
        options.extend(format!(",{option}=").bytes());
        options.extend(escaped(path));
    }
    fs::create_dir(&mnt).unwrap();
    let options = OsString::from_vec(options);
    assert_ok(
        &plyfs(&[OsStr::new("mount"), OsStr::new("-o"), &options]).arg(&mnt).output().unwrap(),
    );
    let outcome = std::panic::catch_unwind(|| {
        assert_eq!(names(&mnt), (0..odd.len()).map(|n| n.to_string()).collect::<Vec<_>>());
        for (number, name) in odd.iter().enumerate() {
            assert_eq!(&fs::read(mnt.join(number.to_string())).unwrap(), name);
        }
        fs::write(mnt.join("0"), "changed").unwrap();
        assert_eq!(fs::read(upper.join("0")).unwrap(), b"changed");
    });
    assert_ok(&plyfs(&["umount"]).arg(&mnt).output().unwrap());
    outcome.unwrap();
}

#[test]
fn line_55_five_hundred_layers_and_options_beyond_a_page() {
    let layers: Vec<String> = (0..500).map(|n| format!("layer-{n:03}")).collect();
    let mut stand = Stand::unmounted(&layers.iter().map(String::as_str).collect::<Vec<_>>());
    for (number, name) in layers.iter().enumerate() {
        fs::create_dir(stand.path(name).join("dir")).unwrap();
        if number % 50 == 49 {
            fs::write(stand.path(name).join("dir").join(number.to_string()), name).unwrap();
        }
        fs::write(stand.path(name).join("everywhere"), name).unwrap();
    }
    assert!(stand.options().len() > 4096);
    stand.mount();
    assert_eq!(names(&stand.at("dir")).len(), 10);
    assert_eq!(fs::read_to_string(stand.at("everywhere")).unwrap(), "layer-000");
    assert_eq!(fs::read_to_string(stand.at("dir/499")).unwrap(), "layer-499");
    fs::rename(stand.at("dir"), stand.at("moved")).unwrap();
    fs::remove_file(stand.at("everywhere")).unwrap();
    stand.remount();
    assert_eq!(names(&stand.path("mnt")), ["moved"]);
    assert_eq!(names(&stand.at("moved")).len(), 10);
}

/// A container that was started meanwhile may have a copy of the mount, for as long as it runs.
#[test]
fn who_unmounts_does_not_wait_forever_for_another_mount_namespace() {
    let mut stand = Stand::new(|_| {});
    let script = "mount --make-rprivate / && echo ready && exec sleep 1000";
    let mut other = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut ready).unwrap();
    run("umount", &[&stand.path("mnt")]);
    let mnt = stand.path("mnt");
    let gone = |limit| fuse_mount::wait_unclaimed(&mnt, Duration::from_millis(limit)).unwrap();
    let kept = !gone(300);
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(kept, "it is served on to the other one");
    assert!(gone(10_000), "the server ends with its last user");
    stand.mount();
}

#[test]
fn a_log_in_the_mount_itself_is_refused_and_hangs_nobody() {
    let stand = Stand::unmounted(&["lower"]);
    let log = stand.path("mnt/log");
    let options = format!("{},log={}", stand.options(), log.display());
    let mut mount = Command::new("timeout");
    mount.args(["-s", "KILL", "20", env!("CARGO_BIN_EXE_plyfs"), "mount", "-o", &options]);
    let refused = mount.arg(stand.path("mnt")).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{told}");
    assert!(told.contains("would lie in the mount"), "{told}");
}
