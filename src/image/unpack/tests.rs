//! Archives, and the trees that become of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tempfile::TempDir;

use super::{Settled, Unpack, Unpacked};
use crate::errno::{Errno, Result};
use crate::image::recipe::rebuild;
use crate::image::tar::Limits;
use crate::layer::Layer;
use crate::layer::dir::DirLayer;
use crate::testkit::archive::{Archive, Member};
use crate::testkit::listing;

mod hostile;

static GO_ON: AtomicBool = AtomicBool::new(false);

fn job(dir: &Path) -> Unpack<'_> {
    Unpack { dir, limits: Limits::default(), stop: &GO_ON, progress: None }
}

fn unpack(dir: &Path, tar: &[u8]) -> Result<Unpacked> {
    job(dir).unpack(&mut &*tar)
}

/// A stack of layers under construction, lowest first.
struct Stack {
    home: PathBuf,
    dirs: Vec<TempDir>,
    /// Topmost first.
    layers: Vec<Arc<dyn Layer>>,
    /// How many layers had to be unpacked again.
    again: usize,
}

impl Stack {
    fn new() -> Self {
        Self { home: std::env::temp_dir(), dirs: Vec::new(), layers: Vec::new(), again: 0 }
    }

    fn add(&mut self, archive: Archive) -> Result<()> {
        let tar = archive.finish();
        let mut dir = tempfile::tempdir_in(&self.home).unwrap();
        let mut settled = unpack(dir.path(), &tar)?.settle(&self.layers, &GO_ON)?;
        if settled == Settled::Again {
            self.again += 1;
            dir = tempfile::tempdir_in(&self.home).unwrap();
            let unpacked = job(dir.path()).unpack_over(&mut &*tar, &self.layers)?;
            settled = unpacked.settle(&self.layers, &GO_ON)?;
        }
        let mut back = Vec::new();
        rebuild(dir.path(), &mut back).unwrap();
        assert!(back == tar, "the archive that comes back is another one");
        match settled {
            Settled::Done { root_opaque: true } => self.layers.clear(),
            Settled::Done { root_opaque: false } => {}
            Settled::Again => panic!("a layer unpacked over others has to be so again"),
        }
        self.layers.insert(0, DirLayer::open(&dir.path().join("root")).unwrap());
        self.dirs.push(dir);
        Ok(())
    }

    fn with(mut self, archive: Archive) -> Self {
        self.add(archive).unwrap();
        self
    }

    fn refused(mut self, archive: Archive) -> String {
        self.add(archive).unwrap_err().to_string()
    }

    /// The tree, less its root's line.
    fn tree(&self) -> Vec<String> {
        listing::of_layers(&self.layers).lines().skip(1).map(str::to_owned).collect()
    }

    fn paths(&self) -> String {
        let path = |line: &String| line.split(' ').next().unwrap().to_owned();
        self.tree().iter().map(path).collect::<Vec<_>>().join(" ")
    }
}

fn one(archive: Archive) -> Stack {
    Stack::new().with(archive)
}

#[test]
fn entries_come_out_as_they_are() {
    let stack = one(Archive::new()
        .dir("./")
        .member(&Member::new("d", b'5').perm(0o3770).ids(3, 4).mtime(-5, 7))
        .file("d/f", "content")
        .member(&Member::new("d/suid", b'0').perm(0o4755).ids(7, 8).xattr("user.a", b"x\ny"))
        .symlink("d/l", "../../..")
        .hard("d/h", "d/f")
        .hard("d/m", "d/l")
        .member(&Member::new("d/c", b'3').device(1, 3).perm(0o666))
        .member(&Member::new("d/zero", b'3').ids(1, 1))
        .member(&Member::new("d/b", b'4').device(7, 300))
        .member(&Member::new("d/p", b'6').mtime(5, 999_999_999)));
    let hash = "cbf29ce484222325";
    let expected = [
        "/d Dir 3770 3:4 -5.000000007".to_owned(),
        format!("/d/b Block 0644 0:0 1000000000.000000000 x1 =d/b 10072c 0 {hash}"),
        format!("/d/c Char 0666 0:0 1000000000.000000000 x1 =d/c 103 0 {hash}"),
        "/d/f File 0644 0:0 1000000000.000000000 x2 =d/f 0 7 420c75b526b35282".to_owned(),
        "/d/h File 0644 0:0 1000000000.000000000 x2 =d/f 0 7 420c75b526b35282".to_owned(),
        "/d/l Symlink 0777 0:0 1000000000.000000000 x2 =d/l 0 8 4d3355ff90ea1c2f".to_owned(),
        "/d/m Symlink 0777 0:0 1000000000.000000000 x2 =d/l 0 8 4d3355ff90ea1c2f".to_owned(),
        format!("/d/p Fifo 0644 0:0 5.999999999 x1 =d/p 0 0 {hash}"),
        format!("/d/suid File 4755 7:8 1000000000.000000000 x1 =d/suid 0 0 {hash} user.a=x\\ny"),
        format!("/d/zero Char 0644 1:1 1000000000.000000000 x1 =d/zero 0 0 {hash}"),
    ];
    assert_eq!(stack.tree(), expected);
}

/// A lower layer with a bit of everything.
fn below() -> Archive {
    Archive::new()
        .dir("./")
        .member(&Member::new("d", b'5').perm(0o2710).ids(1, 2).mtime(9, 9).xattr("user.d", "d"))
        .file("d/a", "aa")
        .hard("d/b", "d/a")
        .symlink("d/s", "a")
        .symlink("l", "d")
        .file("f", "ff")
        .member(&Member::new("zero", b'3'))
}

#[test]
fn what_is_only_implied_is_as_below() {
    let stack = one(below()).with(Archive::new().file("d/new", "x").file("n/e/w", "y"));
    let tree = stack.tree();
    assert!(tree.contains(&"/d Dir 2710 1:2 9.000000009 user.d=d".to_owned()), "{tree:?}");
    assert!(tree.contains(&"/n/e Dir 0755 0:0 0.000000000".to_owned()), "{tree:?}");
    assert_eq!(stack.paths(), "/d /d/a /d/b /d/new /d/s /f /l /n /n/e /n/e/w /zero");
}

#[test]
fn directories_for_whiteouts_alone_do_not_stay() {
    let layer = Archive::new()
        .file("no/where/.wh.x", "")
        .file("no/.wh..wh..opq", "")
        .file("f/.wh.x", "")
        .file("d/.wh.a", "")
        .symlink("s", "aside/../d")
        .file("s/x", "x");
    let stack = one(below()).with(layer);
    assert_eq!(stack.paths(), "/d /d/b /d/s /d/x /f /l /s /zero");
    assert!(!stack.dirs[1].path().join("root/no").exists());
}

#[test]
fn a_whiteout_hides_below_whatever_becomes_of_its_place() {
    // Made again only to step out of it: the whiteout stays.
    let layer = Archive::new().file(".wh.d", "").symlink("s", "d/../f2").file("s/x", "x");
    assert_eq!(one(below()).with(layer).paths(), "/f /f2 /f2/x /l /s /zero");
    // The same, the other way round.
    let layer = Archive::new().symlink("s", "d/../f2").file("s/x", "x").file(".wh.d", "");
    assert_eq!(one(below()).with(layer).paths(), "/f /f2 /f2/x /l /s /zero");
    // What is in a deleted directory has a new one around it.
    let layer = Archive::new().file("d/x", "x").file(".wh.d", "");
    let stack = one(below()).with(layer);
    assert_eq!(stack.paths(), "/d /d/x /f /l /zero");
    assert_eq!(stack.tree()[0], "/d Dir 0755 0:0 0.000000000");
    // An opaque mark keeps the directory.
    let layer = Archive::new().file("d/.wh..wh..opq", "").file("d/x", "x");
    let stack = one(below()).with(layer);
    assert_eq!(stack.paths(), "/d /d/x /f /l /zero");
    assert_eq!(stack.tree()[0], "/d Dir 2710 1:2 9.000000009 user.d=d");
    // A directory in the place of a whiteout, of a file, of a link that waits.
    let layer = Archive::new().file(".wh.d", "").dir("d").file(".wh.d", "");
    assert_eq!(one(below()).with(layer).paths(), "/d /f /l /zero");
    let layer = Archive::new().file("d", "").dir("d");
    assert_eq!(one(below()).with(layer).paths(), "/d /f /l /zero");
    let layer = Archive::new().hard("d", "f").dir("d");
    assert_eq!(one(below()).with(layer).paths(), "/d /f /l /zero");
}

#[test]
fn links_below_are_followed_the_second_time() {
    let cases = [
        (Archive::new().file("l/x", "x"), "/d /d/a /d/b /d/s /d/x /f /l /zero"),
        (Archive::new().file("l/.wh.a", ""), "/d /d/b /d/s /f /l /zero"),
        (Archive::new().hard("l/x", "l/a"), "/d /d/a /d/b /d/s /d/x /f /l /zero"),
        (Archive::new().hard("m", "l").file("m/x", ""), "/d /d/a /d/b /d/s /d/x /f /l /m /zero"),
        (Archive::new().file("l/x", "x").dir("l"), "/d /d/a /d/b /d/s /d/x /f /l /zero"),
        (
            Archive::new().symlink("k", "l/../f").hard("x", "k"),
            "/d /d/a /d/b /d/s /f /k /l /x /zero",
        ),
        (
            Archive::new().symlink("k", "l/../d").hard("x", "k/a"),
            "/d /d/a /d/b /d/s /f /k /l /x /zero",
        ),
        (
            Archive::new().dir("m/l").file("m/l/x", "x").file("l/x", "x").symlink("l", "f"),
            "/d /d/a /d/b /d/s /d/x /f /l /m /m/l /m/l/x /zero",
        ),
    ];
    let mut again = Vec::new();
    for (layer, paths) in cases {
        let stack = one(below()).with(layer);
        assert_eq!(stack.paths(), paths);
        again.push(stack.again);
    }
    assert_eq!(again, [1, 1, 1, 1, 1, 0, 1, 1]);
}

#[test]
fn links_to_below_bring_the_whole_group() {
    let stack = one(below()).with(Archive::new().hard("x", "d/a").hard("y", "x").hard("z", "zero"));
    let tree = stack.tree();
    let group: Vec<_> = tree.iter().filter(|line| line.contains(" x4 =d/a ")).collect();
    assert_eq!(group.len(), 4, "{tree:#?}");
    let zero: Vec<_> = tree.iter().filter(|line| line.contains("Char 0644 0:0")).collect();
    assert_eq!(zero.len(), 2, "{tree:#?}");
    assert!(tree.contains(&"/d Dir 2710 1:2 9.000000009 user.d=d".to_owned()), "{tree:?}");
    // A name that this layer deletes or replaces stays so.
    let layer = Archive::new().hard("x", "d/a").file("d/.wh.a", "").file("d/b", "other");
    let stack = one(below()).with(layer);
    assert!(
        stack.tree().iter().any(|line| line.starts_with("/x File 0644") && line.contains("x1"))
    );
    assert_eq!(stack.paths(), "/d /d/b /d/s /f /l /x /zero");
    // What replaces a link that waits, wins.
    let layer = Archive::new().hard("x", "d/a").file("x", "own").hard("y", "x");
    let stack = one(below()).with(layer);
    assert!(stack.tree().iter().any(|line| line.starts_with("/y File") && line.contains("x2 =x")));
}

#[test]
fn the_archive_comes_back_whatever_was_replaced() {
    // Each is checked by `add`.
    let stack = one(Archive::new()
        .file("f", "one")
        .file("f", "two")
        .hard("g", "f")
        .file("f", "three")
        .file("d/e/f", "in a directory")
        .file("d/e/f", "again")
        .hard("h", "d/e/f")
        .dir("d/e/empty")
        .symlink("d/s", "x")
        .file("d", "no directory now")
        .dir("d")
        .file("d/e/f", "a third time")
        .hard("d/e/f", "d/e/f")
        .file(".wh..wh.plnk/1.2", "of aufs")
        .file(".wh.gone", "a whiteout with content")
        .raw(&[0; 1024])
        .raw(b"what follows the end is kept too"));
    assert_eq!(stack.paths(), "/d /d/e /d/e/f /f /g /h");
    let line = |path: &str| stack.tree().into_iter().find(|line| line.starts_with(path)).unwrap();
    assert!(line("/g").contains(" x1 =g 0 3 "), "{}", line("/g"));
    assert!(line("/h").contains(" x1 =h 0 5 "), "{}", line("/h"));
    assert_eq!(std::fs::read_dir(stack.dirs[0].path().join("kept")).unwrap().count(), 6);
}

#[test]
fn names_that_aufs_kept_together_are_one_file() {
    let kept = Member::new(".wh..wh.plnk/12.34", b'0').perm(0o4755).ids(5, 6);
    let stack = one(Archive::new()
        .dir(".wh..wh.plnk")
        .member(&Member { data: b"shared".to_vec(), ..kept })
        .file(".wh..wh.plnk/56.78", "of no name")
        .symlink(".wh..wh.plnk/9.9", "what cannot be linked to")
        .dir("a")
        .hard("a/one", ".wh..wh.plnk/12.34")
        .hard("two", "./.wh..wh.plnk/12.34")
        .file("z", "z"));
    assert_eq!(stack.paths(), "/a /a/one /two /z");
    let line = |path: &str| stack.tree().into_iter().find(|line| line.starts_with(path)).unwrap();
    assert!(line("/two").starts_with("/two File 4755 5:6 "), "{}", line("/two"));
    assert!(line("/two").contains(" x2 =a/one 0 6 "), "{}", line("/two"));
    // Over layers, too; and what is not there is refused.
    let again = Archive::new()
        .file(".wh..wh.plnk/1.2", "of this layer")
        .hard("three", ".wh..wh.plnk/1.2")
        .hard("four", "z");
    assert_eq!(stack.with(again).paths(), "/a /a/one /four /three /two /z");
    let said = Stack::new().refused(Archive::new().hard("x", ".wh..wh.plnk/1.2"));
    assert!(said.contains("'x'") && said.contains(".wh..wh.plnk/1.2"), "{said}");
}

#[test]
fn a_default_acl_is_not_passed_on() {
    let acl = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\x10\0\x05\0\
        \xff\xff\xff\xff\x02\0\x07\0\x07\0\0\0\x20\0\x05\0\xff\xff\xff\xff";
    // Sorted as the kernel wants them: owner, named user, group, mask, others.
    let sorted = [&acl[..12], &acl[28..36], &acl[12..28], &acl[36..]].concat();
    let dir = Member::new("d", b'5').perm(0o2755).xattr("system.posix_acl_default", &sorted);
    let stack = one(Archive::new().member(&dir).file("d/f", "x").dir("d/e"));
    let tree = stack.tree();
    assert!(tree[0].starts_with("/d Dir 2755 0:0 1000000000.000000000 system.posix_acl_default="));
    assert_eq!(tree[1], "/d/e Dir 0755 0:0 1000000000.000000000");
    assert!(tree[2].starts_with("/d/f File 0644 0:0") && !tree[2].contains("acl"), "{}", tree[2]);
    // Nor to what comes in later.
    let stack = one(below()).with(Archive::new().member(&dir).hard("d/x", "f"));
    assert!(!stack.tree().iter().any(|line| line.starts_with("/d/x") && line.contains("acl")));
}

#[test]
fn marks_in_an_archive_are_no_marks() {
    let marked = |path: &str, flag| {
        Member::new(path, flag)
            .xattr("trusted.overlay.opaque", "y")
            .xattr("trusted.overlay.redirect", "/etc")
            .xattr("trusted.overlay.metacopy", "")
            .xattr("user.overlay.whiteout", "y")
            .xattr("user.fuseoverlayfs.opaque", "y")
            .xattr("trusted.overlay.plyfs.kind", "c0:0")
    };
    let layer = Archive::new().member(&marked("d", b'5')).member(&marked("f", b'0'));
    let stack = one(below()).with(layer);
    assert_eq!(stack.paths(), "/d /d/a /d/b /d/s /f /l /zero");
    for path in ["/d ", "/f "] {
        let tree = stack.tree();
        let line = tree.iter().find(|line| line.starts_with(path)).unwrap();
        assert!(line.contains("trusted.overlay.redirect=/etc"), "{line}");
        assert!(line.contains("user.fuseoverlayfs.opaque=y"), "{line}");
    }
}

#[test]
fn holes_stay_holes() {
    let mut member = Member::new("GNUSparseFile.0/f", b'0');
    member.data = b"2\n0\n3\n1000000\n3\n".to_vec();
    member.data.resize(512, 0);
    member.data.extend_from_slice(b"abcxyz");
    let pax = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n21 GNU.sparse.name=f\n\
        31 GNU.sparse.realsize=1048576\n";
    let mut head = Member::new("pax", b'x');
    head.data = pax.to_vec();
    let stack = one(Archive::new().member(&head).member(&member));
    let file = stack.dirs[0].path().join("root/f");
    let content = std::fs::read(&file).unwrap();
    assert_eq!((content.len(), &content[..4], &content[1_000_000..1_000_004]), {
        (1_048_576, b"abc\0".as_slice(), b"xyz\0".as_slice())
    });
    let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&file).unwrap());
    assert!(blocks < 100, "{blocks} blocks");
}

#[test]
fn the_root_may_be_described_last() {
    let root = Member::new("/", b'5').perm(0o1700).ids(5, 5).mtime(-1, 0).xattr("user.r", "r");
    let stack = one(Archive::new().file("a", "").member(&root));
    let tree = listing::of_layers(&stack.layers);
    assert!(tree.starts_with("/ Dir 1700 5:5 -1.000000000 user.r=r\n"), "{tree}");
    let stack = stack.with(Archive::new().file("b", ""));
    let tree = listing::of_layers(&stack.layers);
    assert!(tree.starts_with("/ Dir 1700 5:5 -1.000000000 user.r=r\n"), "{tree}");
}

#[test]
fn what_was_called_off_ends() {
    let dir = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(true);
    let job = Unpack { stop: &stop, ..job(dir.path()) };
    let tar = below().finish();
    assert_eq!(job.unpack(&mut tar.as_slice()).unwrap_err().errno(), Errno::EINTR);
}

#[test]
fn seeds_of_the_fuzz_targets() {
    use crate::testkit::unpacking::{check_entries, check_name, check_tar};
    check_tar(b"");
    check_tar(&below().finish());
    check_tar(&Archive::new().symlink("c", "..").file("c/beside/x", "").raw(b"x").finish());
    for name in [b"a".as_slice(), b".wh.a", b".wh.", b".wh..wh..opq", b".wh..wh.x", b"/", b"\0"] {
        check_name(name);
    }
    let mut seed = 1_u64;
    for _ in 0..100 {
        let mut bytes = Vec::new();
        for _ in 0..30 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.push(u8::try_from(seed >> 56).unwrap());
        }
        check_entries(&bytes);
    }
}
