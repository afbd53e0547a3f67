//! What several layers make up, and what removing and making things over them writes.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use super::alike::fill;
use super::stand::{Stand, errno, names, run};

/// Several layers, topmost first, each filled by a shell script.
fn layered(layers: &[(&str, &str)]) -> Stand {
    let layer_names: Vec<&str> = layers.iter().map(|(name, _)| *name).collect();
    let stand = Stand::unmounted(&layer_names);
    for (name, setup) in layers {
        fill(&stand.path(name), setup);
    }
    stand
}

fn mounted(layers: &[(&str, &str)]) -> Stand {
    let mut stand = layered(layers);
    stand.mount();
    stand
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

/// Extended attributes in the upper layer that are marks.
fn marks(path: &Path) -> String {
    run("getfattr", &[&"--absolute-names", &"-d", &"-m", &"overlay.opaque", &path])
}

#[test]
fn line_02_a_lower_child_keeps_its_directory_from_being_removed() {
    let mut stand = layered(&[("lower", "mkdir d; echo a > d/a")]);
    fs::create_dir(stand.path("upper/d")).unwrap();
    stand.mount();
    assert_eq!(errno(fs::remove_dir(stand.at("d"))), libc::ENOTEMPTY);
    assert_eq!(errno(fs::rename(stand.at("d"), stand.at("."))), libc::EBUSY);
    fs::remove_file(stand.at("d/a")).unwrap();
    fs::remove_dir(stand.at("d")).unwrap();
    assert!(is_whiteout(&stand.path("upper/d")));
}

#[test]
fn line_04_what_is_made_over_a_whiteout_takes_its_place() {
    let mut stand = mounted(&[("lower", "for f in a b c d e; do echo low > $f; done; echo k > k")]);
    for name in ["a", "b", "c", "d", "e"] {
        fs::remove_file(stand.at(name)).unwrap();
        assert!(is_whiteout(&stand.path("upper").join(name)), "{name}");
    }
    fs::write(stand.at("a"), "new").unwrap();
    symlink("target", stand.at("b")).unwrap();
    run("mkfifo", &[&stand.at("c")]);
    fs::hard_link(stand.at("k"), stand.at("d")).unwrap();
    run("mknod", &[&stand.at("e"), &"c", &"1", &"3"]);
    for _ in 0..2 {
        assert_eq!(fs::read_to_string(stand.at("a")).unwrap(), "new");
        assert_eq!(fs::read_link(stand.at("b")).unwrap().to_str(), Some("target"));
        assert!(fs::symlink_metadata(stand.at("c")).unwrap().file_type().is_fifo());
        assert_eq!(fs::read_to_string(stand.at("d")).unwrap(), "k\n");
        assert_eq!(fs::metadata(stand.at("e")).unwrap().rdev(), 0x103);
        stand.remount();
    }
    stand.assert_work_is_clean();
}

#[test]
fn line_05_marks_and_whiteouts_are_made_only_where_something_lies_below() {
    let stand = mounted(&[("lower", "mkdir d; echo a > d/a")]);
    fs::create_dir_all(stand.at("own/sub")).unwrap();
    fs::write(stand.at("own/f"), "").unwrap();
    fs::remove_file(stand.at("own/f")).unwrap();
    run("rm", &[&"-r", &stand.at("d")]);
    fs::create_dir(stand.at("d")).unwrap();
    fs::create_dir(stand.at("d/sub")).unwrap();
    fs::write(stand.at("d/a"), "").unwrap();
    fs::remove_file(stand.at("d/a")).unwrap();
    assert_eq!(names(&stand.path("upper/own")), ["sub"]);
    assert_eq!(names(&stand.path("upper/d")), ["sub"], "no whiteout in an opaque directory");
    for dir in ["own", "own/sub", "d/sub"] {
        assert_eq!(marks(&stand.path("upper").join(dir)), "", "{dir}");
    }
    assert!(marks(&stand.path("upper/d")).contains("opaque=\"y\""));
}

const OPAQUE: &str = "setfattr -n trusted.overlay.opaque -v y";

#[test]
fn line_06_an_opaque_directory_in_the_middle_stops_the_layers_below() {
    let middle = format!("mkdir -p m/s; echo mid > m/mid; {OPAQUE} m");
    let bottom = "mkdir -p m/s t; echo old > m/old; echo old > m/s/old; echo b > t/b";
    let mut stand = mounted(&[("top", "mkdir -p m t"), ("middle", &middle), ("bottom", bottom)]);
    for _ in 0..2 {
        assert_eq!(names(&stand.at("m")), ["mid", "s"]);
        assert!(names(&stand.at("m/s")).is_empty());
        assert!(!stand.at("m/s/old").exists());
        assert_eq!(names(&stand.at("t")), ["b"], "only what lies below the opaque one");
        stand.remount();
    }
    fs::create_dir(stand.at("m/s/old")).unwrap();
    assert!(names(&stand.at("m/s/old")).is_empty());
}

#[test]
fn line_07_a_file_between_two_directories_hides_the_lower_one() {
    let top = "mkdir b; echo t > b/top";
    let middle = "echo file > a; echo file > b";
    let stand =
        mounted(&[("top", top), ("middle", middle), ("bottom", "mkdir a b; touch a/x b/y")]);
    assert_eq!(fs::read_to_string(stand.at("a")).unwrap(), "file\n");
    assert_eq!(names(&stand.at("b")), ["top"]);
    assert_eq!(errno(fs::read_dir(stand.at("a"))), libc::ENOTDIR);
    fs::remove_file(stand.at("a")).unwrap();
    fs::create_dir(stand.at("a")).unwrap();
    assert!(names(&stand.at("a")).is_empty(), "the hidden directory stays hidden");
}

#[test]
fn line_08_a_whiteout_in_the_middle_hides_what_is_below_it_only() {
    let stand = mounted(&[
        ("top", "echo new > again"),
        ("middle", "mknod again c 0 0; mknod gone c 0 0"),
        ("bottom", "echo old > again; echo old > gone"),
    ]);
    assert_eq!(names(&stand.path("mnt")), ["again"]);
    assert_eq!(fs::read_to_string(stand.at("again")).unwrap(), "new\n");
    assert_eq!(errno(fs::metadata(stand.at("gone"))), libc::ENOENT);
    fs::remove_file(stand.at("again")).unwrap();
    assert_eq!(errno(fs::metadata(stand.at("again"))), libc::ENOENT);
}

#[test]
fn line_09_unlink_writes_a_whiteout_only_over_a_lower_name() {
    let mut stand = mounted(&[("lower", "echo l > lower; echo m > moved")]);
    fs::write(stand.at("own"), "").unwrap();
    fs::rename(stand.at("moved"), stand.at("elsewhere")).unwrap();
    for name in ["own", "lower", "elsewhere"] {
        fs::remove_file(stand.at(name)).unwrap();
    }
    assert_eq!(names(&stand.path("upper")), ["lower", "moved"]);
    assert!(["lower", "moved"].iter().all(|name| is_whiteout(&stand.path("upper").join(name))));
    stand.remount();
    assert!(names(&stand.path("mnt")).is_empty());
}

#[test]
fn line_10_rename_over_a_whiteout_leaves_one_only_where_a_lower_name_was() {
    let mut stand = mounted(&[("lower", "echo a > a; echo b > b; mkdir d; echo x > d/x")]);
    fs::write(stand.at("own"), "own").unwrap();
    fs::remove_file(stand.at("a")).unwrap();
    fs::rename(stand.at("own"), stand.at("a")).unwrap();
    assert_eq!(names(&stand.path("upper")), ["a"]);
    fs::rename(stand.at("b"), stand.at("a")).unwrap();
    assert!(is_whiteout(&stand.path("upper/b")) && !is_whiteout(&stand.path("upper/a")));
    fs::rename(stand.at("d"), stand.at("b")).unwrap();
    for _ in 0..2 {
        assert_eq!(names(&stand.path("mnt")), ["a", "b"]);
        assert_eq!(names(&stand.at("b")), ["x"]);
        stand.remount();
    }
}

const REDIRECT: &str = "setfattr -n trusted.overlay.redirect -v";

#[test]
fn line_17_chains_of_redirects_are_followed_and_none_leads_out() {
    let top = format!(
        "mkdir c loop out; mknod b c 0 0; touch c/top; {REDIRECT} /b c
        {REDIRECT} /loop loop; {REDIRECT} ../../etc out"
    );
    let middle = format!(
        "mkdir b loop; mknod a c 0 0; touch b/middle; {REDIRECT} a b
        {REDIRECT} /loop loop"
    );
    let bottom = "mkdir a loop etc; echo content > a/bottom; echo no > etc/secret";
    let stand = mounted(&[("top", &top), ("middle", &middle), ("bottom", bottom)]);
    assert_eq!(names(&stand.at("c")), ["bottom", "middle", "top"]);
    assert_eq!(fs::read_to_string(stand.at("c/bottom")).unwrap(), "content\n");
    let refused = fs::read_dir(stand.at("out")).and_then(|mut entries| entries.next().transpose());
    assert!(refused.is_err(), "{refused:?}");
    // To itself is no cycle: each layer is looked at once.
    assert!(fs::read_dir(stand.at("loop")).is_ok_and(|entries| entries.count() == 0));
}

#[test]
fn line_19_marks_that_plyfs_does_not_follow_are_refused() {
    let verity = "echo data > f; setfattr -n trusted.overlay.metacopy -v 0x00240001 f";
    let nowhere = "truncate -s 5 f; setfattr -n trusted.overlay.metacopy -v '' f";
    for top in [verity, nowhere] {
        let stand = mounted(&[("top", top), ("bottom", "mkdir d; echo x > other")]);
        let read = fs::read(stand.at("f"));
        assert!(read.is_err(), "{top}: shown as {read:?}");
        assert_eq!(fs::read_to_string(stand.at("other")).unwrap(), "x\n", "the rest is there");
    }
}

#[test]
fn line_46_statfs_of_a_read_only_mount_is_that_of_the_top_layer() {
    let stand = layered(&[("top", "true"), ("bottom", "echo f > f")]);
    let top = stand.path("top");
    run("mount", &[&"-t", &"tmpfs", &"-o", &"size=3m", &"none", &top]);
    let lowers = format!("lowerdir={}:{}", top.display(), stand.path("bottom").display());
    let mnt = stand.path("mnt");
    let output = super::stand::plyfs(&["mount", "-o", &lowers]).arg(&mnt).output().unwrap();
    let seen = rustix::fs::statvfs(&mnt);
    let unmounted = super::stand::plyfs(&["umount"]).arg(&mnt).output().unwrap();
    run("umount", &[&top]);
    super::stand::assert_ok(&output);
    super::stand::assert_ok(&unmounted);
    let seen = seen.unwrap();
    assert_eq!((seen.f_blocks * seen.f_frsize, seen.f_namemax), (3 << 20, 255));
}

/// fuse-overlayfs 1.x writes `.wh..wh..opq`, which no listing shows, into an opaque directory.
#[test]
fn line_01_a_directory_that_is_opaque_by_an_entry_can_be_removed_and_replaced() {
    let mut stand = layered(&[("lower", "mkdir d e f; touch d/a e/a f/a")]);
    fill(&stand.path("upper"), "mkdir d e f; touch d/.wh..wh..opq e/.wh..wh..opq e/.wh.a f/b");
    stand.mount();
    for dir in ["d", "e"] {
        assert!(names(&stand.at(dir)).is_empty());
    }
    fs::remove_dir(stand.at("d")).unwrap();
    fs::rename(stand.at("f"), stand.at("e")).unwrap();
    for _ in 0..2 {
        assert_eq!(names(&stand.path("mnt")), ["e"]);
        assert_eq!(names(&stand.at("e")), ["a", "b"]);
        stand.assert_work_is_clean();
        stand.remount();
    }
}

/// As Docker and fuse-overlayfs 1.x write it where no device can be made: a directory must not come
/// to lie beside its own whiteout, which would make it opaque.
#[test]
fn line_01_a_directory_takes_a_name_that_an_entry_beside_it_whites_out() {
    let mut stand = layered(&[("lower", "mkdir x d e; touch x/a d/b e/f; mkdir p; touch p/x")]);
    fill(&stand.path("upper"), "mkdir p; touch .wh.x p/.wh.x");
    stand.mount();
    fs::rename(stand.at("d"), stand.at("x")).unwrap();
    fs::rename(stand.at("e"), stand.at("p/x")).unwrap();
    for _ in 0..2 {
        assert_eq!(names(&stand.path("mnt")), ["p", "x"]);
        assert_eq!(names(&stand.at("x")), ["b"]);
        assert_eq!(names(&stand.at("p/x")), ["f"]);
        stand.assert_work_is_clean();
        stand.remount();
    }
}
