//! Programs of `programs/` for which a plain directory is no oracle: they say of the mount alone
//! what must hold.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::alike::{fill, program, program_with};
use super::stand::{Stand, assert_ok, fingerprint, names, plyfs, run};

/// A handle that could be opened later would have to be found again by the server after it has
/// forgotten the file.
#[test]
fn line_27_handles_are_refused_but_tell_files_apart() {
    let stand = Stand::new(|lower| {
        fill(lower, "echo 1 > f; mkdir d; echo 1 > g; ln -s f link; ln f alias");
    });
    let seen = program(&stand.path("mnt"), include_str!("programs/handles.py"));
    let expected = ".: to be opened: ENOTSUP\nf: to be opened: ENOTSUP\nd: to be opened: ENOTSUP\n\
        apart 5\na hard link is the same True\nafter copy-up and rename True\n\
        of a directory True\nof another file False\nof files made one after the other 50\n\
        opened: ESTALE\n";
    assert_eq!(seen, expected);
}

/// fuse-overlayfs 2.0: EIO.
#[test]
fn line_36_requests_for_file_attributes_are_never_eio() {
    let stand = Stand::new(|lower| fill(lower, "echo 12345 > f; mkdir d; echo 1 > copied"));
    let seen = program(&stand.path("mnt"), include_str!("programs/flags.py"));
    let (mut asked, mut listed) = (0, 0);
    for line in seen.lines() {
        if line.starts_with("lsattr") {
            assert_eq!(line, "lsattr True False");
            listed += 1;
        } else if let Some((_, outcome)) = line.split_once(": ") {
            assert!(["ENOTTY", "ENOTSUP"].contains(&outcome), "{line}");
            asked += 1;
        }
    }
    assert_eq!((asked, listed), (28, 4), "{seen}");
    assert!(seen.ends_with("(6,)\n"), "{seen}");
}

const PRIVATE: &str = include_str!("programs/private_lowers.py");

fn assert_private(seen: &str) {
    assert!(seen.ends_with("held ['', '/d/g']\n") || seen.contains("'/d'"), "{seen}");
    assert!(seen.contains("'/d/g'"), "an open file is held: {seen}");
    let tried = seen.lines().filter(|line| !line.starts_with("held"));
    for line in tried.clone() {
        assert!(line.ends_with(": EROFS"), "{seen}");
    }
    assert!(tried.count() >= 6, "{seen}");
}

/// So that no mistake of ours can write to an image.
#[test]
fn line_53_what_the_server_holds_of_a_lower_layer_is_read_only() {
    let stand = Stand::new(|lower| fill(lower, "mkdir d; echo g > d/g; echo f > f"));
    let before = fingerprint(&stand.path("lower"));
    let server = stand.server().to_string();
    let (lower, mnt) = (stand.path("lower"), stand.path("mnt"));
    let arguments = [&*server, lower.to_str().unwrap(), mnt.to_str().unwrap()];
    assert_private(&program_with(&mnt, PRIVATE, &arguments));
    // What is mounted over the layer later is not part of it.
    run("mount", &[&"-t", &"tmpfs", &"none", &lower.join("d")]);
    let seen = names(&stand.at("d"));
    run("umount", &[&lower.join("d")]);
    assert_eq!(seen, ["g"]);
    assert_eq!(before, fingerprint(&lower));
}

/// There, mounts below the layer are cloned with it, or the kernel would refuse.
#[test]
fn line_53_also_in_a_user_namespace() {
    let stand = Stand::unmounted(&["lower"]);
    fill(&stand.path("lower"), "mkdir d below; echo g > d/g; echo f > f");
    let text = include_str!("programs/prelude.py").to_owned() + PRIVATE;
    let program = stand.path("program");
    fs::write(&program, text).unwrap();
    run("mount", &[&"-t", &"tmpfs", &"none", &stand.path("lower/below")]);
    let script = format!(
        "'{plyfs}' mount -f -o '{options}' '{mnt}' & server=$!
        for i in $(seq 500); do [ -e '{mnt}/f' ] && break; sleep 0.01; done
        timeout 60 python3 '{program}' $server '{lower}' '{mnt}'; result=$?
        umount '{mnt}'; wait $server; exit $result",
        plyfs = env!("CARGO_BIN_EXE_plyfs"),
        options = stand.options(),
        mnt = stand.path("mnt").display(),
        program = program.display(),
        lower = stand.path("lower").display(),
    );
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .output()
        .unwrap();
    run("umount", &[&stand.path("lower/below")]);
    assert_ok(&output);
    assert_private(&String::from_utf8_lossy(&output.stdout));
}

/// A file of this size that is no hole; quick to make.
fn large(path: &Path, mib: u64) {
    let file = File::create(path).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, mib << 20).unwrap();
}

/// Elsewhere it cannot be killed until a gigabyte is copied.
#[test]
fn line_51_who_is_killed_during_a_copy_up_dies_at_once_and_leaves_nothing() {
    let mut stand = Stand::new(|lower| {
        large(&lower.join("big"), 6 << 10);
        fs::write(lower.join("small"), "small").unwrap();
    });
    let seen = program(&stand.path("mnt"), include_str!("programs/killed_waiter.py"));
    assert_eq!(seen, "b'small'\n-9 at once\n-9 at once\n");
    assert!(!stand.path("upper/big").exists());
    stand.assert_work_is_clean();
    assert_eq!(stand.at("big").metadata().unwrap().len(), 6 << 30);
    stand.umount();
}

#[test]
fn line_51_a_timer_keeps_nobody_from_a_copy_up() {
    let stand = Stand::new(|lower| {
        large(&lower.join("one"), 128);
        large(&lower.join("two"), 128);
    });
    let seen = program(&stand.path("mnt"), include_str!("programs/alarmed.py"));
    let one = "opened 7 b'written\\x00\\x00\\x00' 134217728\nslow enough to tell True\n";
    assert_eq!(seen, one.repeat(2));
}

/// fuse-overlayfs 2.0 takes a half copy that lies in the work directory for the file.
#[test]
fn line_50_a_copy_that_was_cut_short_is_swept_and_not_adopted() {
    let mut stand = Stand::new(|lower| {
        large(&lower.join("big"), 1 << 10);
        let file = fs::OpenOptions::new().write(true).open(lower.join("big")).unwrap();
        file.write_all_at(b"the end", (1 << 30) - 7).unwrap();
    });
    let staged = |stand: &Stand| names(&stand.path("work/work")).len();
    let before = staged(&stand);
    let path = stand.at("big");
    let opener = std::thread::spawn(move || fs::OpenOptions::new().write(true).open(path));
    while staged(&stand) == before {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut left = 0;
    let work = stand.path("work/work");
    stand.kill_and_mount(|| {
        assert!(opener.join().unwrap().is_err(), "it was copied too fast for this test");
        left = names(&work).len();
    });
    assert!(left > before, "nothing was cut short");
    stand.assert_work_is_clean();
    assert!(!stand.path("upper/big").exists());
    let file = File::open(stand.at("big")).unwrap();
    let mut end = [0; 7];
    file.read_exact_at(&mut end, (1 << 30) - 7).unwrap();
    assert_eq!(&end, b"the end");
    drop(file);
    fs::write(stand.at("big"), "new").unwrap();
    stand.remount();
    assert_eq!(fs::read(stand.at("big")).unwrap(), b"new");
}

/// What was written before the crash may be anything.
#[test]
fn line_50_a_volatile_upper_is_refused_after_a_crash() {
    let stand = Stand::unmounted(&["lower"]);
    let options = format!("{},volatile", stand.options());
    let mount = || plyfs(&["mount", "-o", &options]).arg(stand.path("mnt")).output().unwrap();
    let umount = || assert_ok(&plyfs(&["umount"]).arg(stand.path("mnt")).output().unwrap());
    assert_ok(&mount());
    umount();
    assert_ok(&mount());
    fs::write(stand.at("f"), "volatile").unwrap();
    let server = rustix::process::Pid::from_raw(stand.server()).unwrap();
    rustix::process::kill_process(server, rustix::process::Signal::KILL).unwrap();
    while fs::metadata(stand.path("mnt")).is_ok() {
        std::thread::sleep(Duration::from_millis(5));
    }
    run("umount", &[&"--lazy", &stand.path("mnt")]);
    let refused = mount();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("volatile"), "{told}");
}
