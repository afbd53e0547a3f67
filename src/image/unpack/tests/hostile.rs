//! Archives that mean no good.

use std::path::Path;
use std::process::Command;

use super::{Stack, below, job, one, unpack};
use crate::image::recipe::rebuild;
use crate::image::tar::Limits;
use crate::image::unpack::Unpack;
use crate::image::unpack::tree::{Dir, Tree};
use crate::testkit::archive::{Archive, Member};

#[test]
fn what_cannot_be_is_refused_by_name() {
    let a = Archive::new;
    let cases: Vec<(&str, Archive, &[&str])> = vec![
        ("a link as the root", a().symlink("./", "/etc"), &["''./'", "root of the image"]),
        ("a file as the root", a().file("x/..", ""), &["'x/..'", "root of the image"]),
        ("nothing as a file", a().file("", ""), &["root of the image"]),
        (
            "a parent that is a file",
            a().file("f", "").file("f/x", ""),
            &["'f/x'", "'f' on the way"],
        ),
        ("one below", a().file("f/x", ""), &["'f/x'", "'f' on the way"]),
        ("a device as parent", a().member(&Member::new("c", b'3')).file("c/x", ""), &["'c/x'"]),
        ("a whiteout of nothing", a().file("d/.wh.", ""), &["'d/.wh.'", "a whiteout of nothing"]),
        ("a whiteout of ..", a().file("d/.wh...", ""), &["'d/.wh...'"]),
        ("in a whiteout", a().file(".wh.d/x", ""), &["'.wh.d/x'", "can hold nothing"]),
        ("by a link", a().symlink("l", ".wh.d").file("l/x", ""), &["'l/x'", "can hold nothing"]),
        ("a loop", a().symlink("a", "b").symlink("b", "a").file("a/x", ""), &["'a/x'", "too many"]),
        ("itself", a().symlink("a", "a/a/a").file("a/x", ""), &["'a/x'", "too many"]),
        ("a link to nothing", a().hard("x", "missing"), &["'x'", "'missing'", "neither"]),
        ("to itself", a().hard("x", "x"), &["'x'", "neither"]),
        ("to a directory", a().dir("e").hard("x", "e"), &["'x'", "'e'", "directory"]),
        ("to one below", a().hard("x", "d"), &["'x'", "'d'", "directory"]),
        ("to the root", a().hard("x", "../.."), &["'x'", "root directory"]),
        ("over a link", a().dir("l").hard("x", "l/a"), &["'x'", "'l/a'", "neither"]),
        ("through a file", a().file("g", "").hard("x", "g/y"), &["'x'", "'g' on the way"]),
        ("to what it replaces", a().file("e/g", "").hard("e", "e/g"), &["'e'", "'e/g'"]),
        ("a long name", a().file("n".repeat(256), ""), &["nnnn", "too long"]),
        ("a name in it", a().file(format!("{}/x", "n".repeat(256)), ""), &["nnnn", "too long"]),
        ("an odd type", a().member(&Member::new("odd", b'Z')), &["'odd'", "type"]),
        (
            "a bad ACL",
            { a().member(&Member::new("acl", b'0').xattr("system.posix_acl_access", "?")) },
            &["'acl'", "system.posix_acl_access"],
        ),
    ];
    for (what, archive, words) in cases {
        let error = one(below()).refused(archive);
        for word in words {
            assert!(error.contains(word.trim_start_matches('\'')), "{what}: {error}");
        }
        assert!(error.starts_with("tar entry '"), "{what}: {error}");
    }
}

#[test]
fn nothing_outside_is_touched() {
    let home = tempfile::tempdir().unwrap();
    let outside = home.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("sentinel"), "untouched").unwrap();
    let absolute = outside.to_str().unwrap().to_owned();
    let a = Archive::new;
    let archives: Vec<Archive> = vec![
        a().file("../outside/x", "x").file("../../outside/sentinel", "x"),
        a().file(format!("{absolute}/sentinel"), "x"),
        a().symlink("l", "../../outside").file("l/sentinel", "x").file("l/.wh.sentinel", ""),
        a().symlink("l", &absolute).file("l/sentinel", "x").dir("l/d").symlink("l/m", "x"),
        a().symlink("l", &absolute).hard("h", "l/sentinel"),
        a().symlink("l", "..").symlink("l/m", "..").symlink("m/n", "../outside").file("n/x", "x"),
        a().symlink("l", &absolute).member(&Member::new("l", b'5').perm(0o777)).file("l/x", "x"),
        a().symlink("l", format!("{absolute}/sentinel")).file("l", "x"),
        a().symlink("l", format!("{absolute}/sentinel")).hard("m", "l").file("m", "x"),
        a().symlink("l", &absolute).file("l/.wh..wh..opq", ""),
        a().dir("d").symlink("d/l", "../../../outside").symlink("d", "d/l").file("d/sentinel", ""),
        a().hard("h", "../outside/sentinel"),
        a().hard("h", format!("{absolute}/sentinel")),
    ];
    for (number, archive) in archives.into_iter().enumerate() {
        let tar = archive.finish();
        let dir = home.path().join(number.to_string());
        std::fs::create_dir(&dir).unwrap();
        if let Ok(unpacked) = unpack(&dir, &tar) {
            // Links to what is not there are refused here.
            drop(unpacked.settle(&[], &super::GO_ON));
        }
        let names: Vec<_> = std::fs::read_dir(&outside).unwrap().collect();
        assert_eq!(names.len(), 1, "archive {number}");
        assert_eq!(std::fs::read(outside.join("sentinel")).unwrap(), b"untouched");
        let meta = std::fs::metadata(outside.join("sentinel")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&meta), 1, "archive {number}");
    }
}

#[test]
fn links_of_a_layer_below_stay_inside_too() {
    let stack = one(Archive::new().symlink("l", "../../../..").symlink("abs", "/").dir("etc"))
        .with(Archive::new().file("l/etc/x", "x").file("abs/etc/y", "y").hard("h", "abs/etc/x"));
    assert_eq!(stack.paths(), "/abs /etc /etc/x /etc/y /h /l");
    assert_eq!(stack.again, 1);
    let error =
        one(Archive::new().symlink("l", "/etc")).refused(Archive::new().hard("h", "l/passwd"));
    assert!(error.contains("'h'") && error.contains("etc/passwd"), "{error}");
}

/// In memory: directories take a disk a long time.
const QUICK: &str = "/dev/shm";

/// Directories in directories, deeper than any path: link by link.
fn deep(levels: usize) -> (Archive, String) {
    const STEP: usize = 500;
    let step = "d/".repeat(STEP);
    let mut archive = Archive::new();
    for level in 0..levels / STEP {
        let from = if level == 0 { String::new() } else { format!("l{}/", level - 1) };
        archive = archive.dir(format!("{from}{step}"));
        archive = archive.symlink(format!("l{level}"), format!("{from}{step}"));
    }
    (archive, format!("l{}/", levels / STEP - 1))
}

fn remove(dir: &Path) {
    // Too deep for paths.
    assert!(Command::new("rm").arg("-rf").arg(dir).status().unwrap().success());
}

#[test]
fn ten_thousand_levels() {
    let (archive, bottom) = deep(10_000);
    let archive = archive.file(format!("{bottom}f"), "deep").file(format!("{bottom}f"), "down");
    // `add` reads the recipe too.
    let mut stack = Stack { home: QUICK.into(), ..Stack::new() };
    stack.add(archive).unwrap();
    stack.add(Archive::new().file(format!("{bottom}g"), "over")).unwrap();
    assert_eq!(stack.again, 1);
    stack.dirs.iter().for_each(|dir| remove(dir.path()));
}

#[test]
fn a_deep_tree_is_replaced() {
    let (archive, bottom) = deep(3000);
    let mut stack = Stack { home: QUICK.into(), ..Stack::new() };
    let archive = archive.file(format!("{bottom}f"), "deep").file("d/d/f", "not so deep");
    stack.add(archive.file("d", "flat").file("f", "f")).unwrap();
    assert_eq!(stack.paths(), "/d /f /l0 /l1 /l2 /l3 /l4 /l5");
    let kept = std::fs::read_dir(stack.dirs[0].path().join("kept")).unwrap();
    assert_eq!(kept.count(), 2);
}

#[test]
fn too_deep_is_refused() {
    let (archive, _) = deep(40_000);
    let dir = tempfile::tempdir_in(QUICK).unwrap();
    let error = unpack(dir.path(), &archive.finish()).unwrap_err().to_string();
    assert!(error.contains("tar entry 'l") && error.contains("nest"), "{error}");
    remove(dir.path());
}

#[test]
fn broken_archives_end_in_errors() {
    let tar = below().file("last", "content").finish();
    let whole = 1024;
    for len in (0..tar.len() - whole).step_by(37) {
        let dir = tempfile::tempdir_in(QUICK).unwrap();
        // It may end after an entry, or in the padding there.
        match unpack(dir.path(), &tar[..len]) {
            Ok(_) => {
                let mut back = Vec::new();
                rebuild(dir.path(), &mut back).unwrap();
                assert!(back == tar[..len], "{len}");
            }
            Err(error) => assert!(error.to_string().starts_with("tar "), "{error}"),
        }
    }
    for at in (0..tar.len() - whole).step_by(11) {
        let mut broken = tar.clone();
        broken[at] ^= 0x11;
        let dir = tempfile::tempdir_in(QUICK).unwrap();
        match unpack(dir.path(), &broken) {
            Ok(unpacked) => drop(unpacked.settle(&[], &super::GO_ON)),
            Err(error) => assert!(error.to_string().starts_with("tar "), "{error}"),
        }
    }
}

#[test]
fn limits_end_it() {
    let tar = below().finish();
    let limits = Limits { entries: 3, ..Limits::default() };
    let dir = tempfile::tempdir_in(QUICK).unwrap();
    let job = Unpack { limits, ..job(dir.path()) };
    let error = job.unpack(&mut tar.as_slice()).unwrap_err().to_string();
    assert!(error.contains("'d/b'") && error.contains("more than 3 entries"), "{error}");
}

#[test]
fn a_link_to_what_aufs_kept_for_itself_leads_nowhere() {
    let stack = one(Archive::new()
        .symlink("l", ".wh..wh.x")
        .dir("d")
        .symlink("m", "d/.wh..wh.plnk/q")
        .file("l/f", "hidden")
        .file("m/f", "hidden")
        .dir("l/d/e")
        .file("l/.wh.f", "")
        .file("z", "z"));
    assert_eq!(stack.paths(), "/d /l /m /z");
}

#[test]
fn replacing_links_keeps_data_once() {
    let data = vec![b'd'; 300_000];
    let mut archive = Archive::new().dir("e").file("f", &data);
    for _ in 0..20 {
        archive = archive.hard("l", "f").file("l", "x").hard("e/l", "f").symlink("e", "x").dir("e");
    }
    // The name under which they came goes, comes back as a link, and goes again.
    let archive = archive.hard("l", "f").file("f", "y").hard("f", "l").file("f", "");
    let archive = archive.hard("m", "l").file("l", "z").hard("l", "m").file("l", "").file("m", "w");
    // A file of its own whose number may be the one of the file that went.
    let archive = archive.file("n", &data).hard("o", "n").file("n", "n").file("o", "");
    let stack = one(archive);
    assert_eq!(stack.paths(), "/e /f /l /m /n /o");
    let kept = std::fs::read_dir(stack.dirs[0].path().join("kept")).unwrap();
    let bytes: u64 = kept.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 650_000, "{bytes} bytes kept");
}

#[test]
fn what_waits_for_the_layers_below_is_bounded() {
    let links = |count: usize| {
        (0..count).fold(Archive::new(), |archive, number| {
            archive.hard(format!("l{number}"), format!("{}/{number}", "n/".repeat(2000)))
        })
    };
    let error = one(below()).refused(links(300));
    assert!(error.starts_with("tar entry 'l2"), "{error}");
    assert!(error.contains("too much in the archive depends on the layers below"), "{error}");
    // As are the paths of directories that were replaced.
    let deep = format!("l/{}", "d/".repeat(1900));
    let dirs = (0..300).fold(
        Archive::new().symlink("l", format!("./{}", "e/".repeat(1900))),
        |archive, number| {
            archive.file(format!("{deep}{number}/f"), "").file(format!("{deep}{number}"), "")
        },
    );
    let error = one(below()).refused(dirs);
    assert!(error.contains("too much in the archive depends on the layers below"), "{error}");
}

#[test]
fn a_path_that_no_recipe_can_hold_is_refused() {
    let name = "a".repeat(250);
    let file = |last: usize| {
        let target = vec![name.as_str(); 15].join("/");
        let deep = (0..17).fold(Archive::new(), |archive, level| {
            archive.symlink(format!("{}l", "l/".repeat(level)), &target)
        });
        let (down, dirs) = ("l/".repeat(17), format!("{name}/").repeat(6));
        deep.file(format!("{down}{dirs}{}", "f".repeat(last)), "content")
    };
    // 17 * 15 + 6 directories of 251 bytes each, slash included: 65511.
    drop(one(file(24)));
    let error = one(below()).refused(file(25));
    assert!(error.contains("more than 65536 bytes"), "{error}");
}

#[test]
fn directories_are_bounded() {
    let mut tree = Tree::new();
    let error = (0..60_000).find_map(|number: u32| {
        tree.add(Dir::ROOT, number.to_string().as_bytes()).err().map(|error| (number, error))
    });
    let (number, error) = error.unwrap();
    assert_eq!(number, 49_999, "the root is one, too");
    assert!(error.to_string().contains("more than 50000 directories"), "{error}");
}
