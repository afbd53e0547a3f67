//! What every container tutorial promises, and what is refused.

use std::fs;
use std::process::Command;

use super::stand::{Stand, fingerprint, names, plyfs, run};

fn image(lower: &std::path::Path) {
    fs::create_dir_all(lower.join("etc/conf.d")).unwrap();
    fs::create_dir_all(lower.join("bin")).unwrap();
    fs::write(lower.join("etc/hostname"), "image\n").unwrap();
    fs::write(lower.join("etc/conf.d/a"), "a\n").unwrap();
    fs::write(lower.join("bin/tool"), vec![7; 100_000]).unwrap();
    fs::hard_link(lower.join("bin/tool"), lower.join("bin/tool2")).unwrap();
    std::os::unix::fs::symlink("tool", lower.join("bin/link")).unwrap();
}

#[test]
fn an_image_cannot_change() {
    let mut stand = Stand::new(image);
    let before = fingerprint(&stand.path("lower"));
    let root = stand.path("mnt");
    fs::write(root.join("etc/hostname"), "container\n").unwrap();
    fs::remove_file(root.join("etc/conf.d/a")).unwrap();
    fs::rename(root.join("etc"), root.join("etc2")).unwrap();
    run("chmod", &[&"-R", &"u+w", &root]);
    run("chown", &[&"-R", &"12:34", &root.join("bin")]);
    run("touch", &[&root.join("bin/tool")]);
    run("cp", &[&"-a", &root.join("bin"), &root.join("bin2")]);
    run("rm", &[&"-rf", &root.join("bin")]);
    stand.umount();
    assert_eq!(before, fingerprint(&stand.path("lower")));
}

#[test]
fn many_containers_of_one_image_see_only_their_own_writes() {
    let stand = Stand::new(image);
    let mut others: Vec<_> = ["b", "c", "d"].map(|name| stand.beside(name)).into();
    for other in &mut others {
        other.mount();
        assert_eq!(fs::read_to_string(other.at("etc/hostname")).unwrap(), "image\n");
    }
    fs::write(stand.at("etc/hostname"), "first\n").unwrap();
    for (number, other) in others.iter().enumerate() {
        fs::write(other.at("etc/hostname"), format!("{number}\n")).unwrap();
        fs::write(other.at(&format!("own-{number}")), "").unwrap();
    }
    assert_eq!(fs::read_to_string(stand.at("etc/hostname")).unwrap(), "first\n");
    assert_eq!(names(&stand.path("mnt")), ["bin", "etc"]);
    for (number, other) in others.iter().enumerate() {
        assert_eq!(fs::read_to_string(other.at("etc/hostname")).unwrap(), format!("{number}\n"));
        assert_eq!(names(&other.part("mnt")), ["bin", "etc", &format!("own-{number}")]);
    }
}

#[test]
fn a_stopped_container_keeps_its_state() {
    let mut stand = Stand::new(image);
    fs::write(stand.at("etc/hostname"), "mine\n").unwrap();
    fs::remove_file(stand.at("bin/link")).unwrap();
    fs::create_dir(stand.at("home")).unwrap();
    fs::rename(stand.at("etc/conf.d"), stand.at("home/conf.d")).unwrap();
    stand.umount();
    assert!(names(&stand.path("mnt")).is_empty());
    stand.mount();
    assert_eq!(fs::read_to_string(stand.at("etc/hostname")).unwrap(), "mine\n");
    assert_eq!(fs::read_to_string(stand.at("home/conf.d/a")).unwrap(), "a\n");
    assert_eq!(names(&stand.at("bin")), ["tool", "tool2"]);
    assert_eq!(names(&stand.at("etc")), ["hostname"]);
}

#[test]
fn a_removed_container_leaves_the_image_and_the_others_alone() {
    let stand = Stand::new(image);
    let before = fingerprint(&stand.path("lower"));
    let mut other = stand.beside("other");
    other.mount();
    fs::write(other.at("etc/hostname"), "other\n").unwrap();
    fs::write(stand.at("etc/hostname"), "stays\n").unwrap();
    other.umount();
    fs::remove_dir_all(other.part("upper")).unwrap();
    fs::remove_dir_all(other.part("work")).unwrap();
    assert_eq!(fs::read_to_string(stand.at("etc/hostname")).unwrap(), "stays\n");
    assert_eq!(before, fingerprint(&stand.path("lower")));
}

#[test]
fn without_an_upper_everything_is_read_only() {
    let stand = Stand::unmounted(&["lower"]);
    image(&stand.path("lower"));
    let options = format!("lowerdir={}", stand.path("lower").display());
    let mounted = plyfs(&["mount", "-o", &options]).arg(stand.path("mnt")).output().unwrap();
    super::stand::assert_ok(&mounted);
    let outcome = [
        super::stand::errno(fs::write(stand.at("etc/hostname"), "x")),
        super::stand::errno(fs::remove_file(stand.at("etc/hostname"))),
        super::stand::errno(fs::create_dir(stand.at("new"))),
    ];
    let read = fs::read_to_string(stand.at("etc/hostname"));
    super::stand::assert_ok(&plyfs(&["umount"]).arg(stand.path("mnt")).output().unwrap());
    assert_eq!(outcome, [libc::EROFS; 3]);
    assert_eq!(read.unwrap(), "image\n");
}

fn refused(options: &str, mnt: &std::path::Path) -> String {
    let output = plyfs(&["mount", "-o", options]).arg(mnt).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{options} should have been refused");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("plyfs: "), "{text}");
    text
}

#[test]
fn line_53_one_upper_is_not_mounted_twice() {
    let stand = Stand::new(image);
    let other = stand.path("other");
    fs::create_dir(&other).unwrap();
    let text = refused(&stand.options(), &other);
    assert!(text.contains("in use"), "{text}");
}

#[test]
fn line_53_what_lies_inside_each_other_is_refused() {
    let stand = Stand::unmounted(&["lower"]);
    for dir in ["lower/upper", "lower/work", "lower/mnt", "upper/inner"] {
        fs::create_dir(stand.path(dir)).unwrap();
    }
    let dir = |name: &str| stand.path(name).display().to_string();
    let options = |lower: &str, upper: &str, work: &str| {
        format!("lowerdir={},upperdir={},workdir={}", dir(lower), dir(upper), dir(work))
    };
    refused(&options("lower", "lower/upper", "work"), &stand.path("mnt"));
    refused(&options("lower", "upper", "lower/work"), &stand.path("mnt"));
    refused(&options("upper/inner", "upper", "work"), &stand.path("mnt"));
    refused(&options("lower", "upper", "work"), &stand.path("lower/mnt"));
    refused(&options("lower", "upper", "upper/inner"), &stand.path("mnt"));
}

#[test]
fn a_killed_server_loses_nothing_that_was_written() {
    let mut stand = Stand::new(image);
    fs::write(stand.at("etc/hostname"), "written\n").unwrap();
    fs::rename(stand.at("bin"), stand.at("sbin")).unwrap();
    stand.kill_and_mount(|| {});
    assert_eq!(fs::read_to_string(stand.at("etc/hostname")).unwrap(), "written\n");
    assert_eq!(fs::read(stand.at("sbin/tool")).unwrap().len(), 100_000);
    assert!(!stand.at("bin").exists());
    stand.assert_work_is_clean();
}

#[test]
fn diff_and_check_tell_of_a_container() {
    let mut stand = Stand::new(image);
    fs::write(stand.at("etc/hostname"), "new\n").unwrap();
    fs::remove_file(stand.at("bin/link")).unwrap();
    fs::write(stand.at("added"), "").unwrap();
    stand.umount();
    let diff = plyfs(&["diff"]).arg(stand.path("upper")).output().unwrap();
    super::stand::assert_ok(&diff);
    let text = String::from_utf8(diff.stdout).unwrap();
    for path in ["etc/hostname", "bin/link", "added"] {
        assert!(text.contains(path), "{path} is missing in\n{text}");
    }
    let check = Command::new(env!("CARGO_BIN_EXE_plyfs"))
        .args(["check", "-o", &stand.options()])
        .output()
        .unwrap();
    super::stand::assert_ok(&check);
}
