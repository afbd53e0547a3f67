//! The specification line by line, as far as it can be said of layers in memory: each test is named
//! after its line. Outcome and tree are always those of one plain directory (the model).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    reason = "this is test code: a surprise must stop the test, and layers are seen from outside"
)]

use std::sync::Arc;

use plyfs::errno::Errno;
use plyfs::layer::mem::MemLayer;
use plyfs::layer::{Layer, Marks, Upper};
use plyfs::name::Name;
use plyfs::testkit::run::run_paths;
use plyfs::testkit::tree::{raw, render};
use plyfs::testkit::union_target::UnionTarget;
use plyfs::testkit::{Model, Op, Outcome, Place, Target, TreeSpec};
use plyfs::union::{Caller, Mode, NodeId, RenameFlag, Stack};

const CALLER: Caller = Caller { uid: 0, gid: 0 };
const MODE: Mode = Mode { perm: 0o644, umask: 0 };

/// A union over layers in memory, beside the model of what it shows.
struct Stand {
    upper: Arc<MemLayer>,
    lowers: Vec<Arc<MemLayer>>,
    pristine: Vec<String>,
    union: UnionTarget,
    model: Model,
}

impl Stand {
    fn new(upper: &TreeSpec, lowers: &[TreeSpec]) -> Self {
        let specs: Vec<TreeSpec> = std::iter::once(upper).chain(lowers).cloned().collect();
        Self::with_model(upper, lowers, Model::merged(&specs))
    }

    /// A stack with marks that the model's own merge does not know.
    fn with_model(upper: &TreeSpec, lowers: &[TreeSpec], model: Model) -> Self {
        let upper = upper.mem(1);
        let lowers: Vec<_> = lowers.iter().zip(2..).map(|(spec, fs)| spec.mem(fs)).collect();
        let pristine = lowers.iter().map(|mem| mem.dump_exact()).collect();
        let all: Vec<_> = std::iter::once(&upper).chain(&lowers).cloned().collect();
        let stack = {
            let all = all.clone();
            move || {
                let upper = Arc::clone(&all[0]) as Arc<dyn Upper>;
                let lowers = all[1..].iter().map(|mem| Arc::clone(mem) as Arc<dyn Layer>);
                Stack { upper: Some(upper), lowers: lowers.collect() }
            }
        };
        let leaks = move || {
            let left =
                all.iter().map(|mem| (mem.live_refs(), mem.live_opens(), mem.staged_count()));
            left.filter(|left| *left != (0, 0, 0)).map(|left| format!("{left:?}")).collect()
        };
        let union = UnionTarget::new(stack, leaks);
        Self { upper, lowers, pristine, union, model }
    }

    /// Does these operations; the union and a plain directory must agree after each.
    fn does(&mut self, ops: &[Op<Place>]) {
        run_paths(ops, &mut self.model, &mut [&mut self.union]);
    }

    /// The outcome of one operation, which the model must share.
    fn says(&mut self, op: Op<Place>) -> Outcome {
        self.does(std::slice::from_ref(&op));
        match op {
            // Looked up again: an observation may be asked twice.
            Op::Lookup(_) | Op::Read(_) | Op::Readdir(_) => self.union.apply(&op),
            _ => Outcome::Done,
        }
    }

    /// What an operation gives; for failures, which change nothing and may be asked twice.
    fn fails(&mut self, op: Op<Place>, errno: Errno) {
        assert_eq!(self.union.apply(&op), Outcome::Failed(errno), "{op}");
        self.does(&[op]);
    }

    /// The raw upper layer's line for a path, without the path; `None` if it holds nothing there.
    fn raw(&self, path: &str) -> Option<String> {
        let dump = self.upper.dump();
        let mut lines = dump.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(at, _)| *at == path).map(|(_, rest)| rest.to_owned())
    }

    fn node(&self, path: &str) -> NodeId {
        let union = self.union.union();
        let mut node = union.root();
        for part in Place::from(path).0 {
            let found = union.lookup(node, Name::new(&part).unwrap()).unwrap().unwrap();
            union.forget(node, 1);
            node = found.node;
        }
        node
    }

    fn ino(&self, path: &str) -> u64 {
        let node = self.node(path);
        let ino = self.union.union().getattr(node).unwrap().ino;
        self.union.union().forget(node, 1);
        ino
    }
}

/// At the end of every test: a remount shows the same, nothing is left, no lower has changed.
impl Drop for Stand {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.does(&[Op::Remount]);
        self.union.unmount();
        let now: Vec<String> = self.lowers.iter().map(|mem| mem.dump_exact()).collect();
        assert_eq!(now, self.pristine, "a lower layer was changed");
    }
}

fn new() -> TreeSpec {
    TreeSpec::new()
}

fn p(path: &str) -> Place {
    path.into()
}

fn rename(from: &str, to: &str) -> Op<Place> {
    Op::Rename(p(from), p(to), RenameFlag::None)
}

fn exchange(from: &str, to: &str) -> Op<Place> {
    Op::Rename(p(from), p(to), RenameFlag::Exchange)
}

/// A user empties a directory of the image and removes it: one whiteout is all that is left.
#[test]
fn line_01_rmdir_of_a_merged_directory_full_of_whiteouts_leaves_one_whiteout() {
    let mut stand = Stand::new(&new(), &[new().file("d/a", "a").file("d/b", "b")]);
    stand.does(&[Op::Unlink(p("d/a")), Op::Unlink(p("d/b")), Op::Rmdir(p("d"))]);
    assert_eq!(stand.upper.dump(), "/ dir 0755 0:0 [impure]\n/d whiteout\n");
}

/// The upper half is empty, but the image's file shows.
#[test]
fn line_02_rmdir_with_a_visible_lower_child_is_enotempty() {
    let mut stand = Stand::new(&new().dir("d"), &[new().file("d/a", "a")]);
    stand.fails(Op::Rmdir(p("d")), Errno::ENOTEMPTY);
}

/// `rm -r d && mkdir d`: what the image had in `d` must not come back, now or tomorrow.
#[test]
fn line_03_mkdir_over_whiteout_is_opaque_and_survives_remount() {
    let mut stand = Stand::new(&new(), &[new().dir("d").dir("e/d").file("e/d/a", "old")]);
    stand.does(&[
        Op::Rmdir(p("d")),
        Op::Mkdir(p("d"), 0o755),
        Op::Unlink(p("e/d/a")),
        Op::Rmdir(p("e/d")),
        Op::Mkdir(p("e/d"), 0o700),
        Op::Remount,
        Op::Readdir(p("e/d")),
    ]);
    assert_eq!(stand.raw("/d").unwrap(), "dir 0755 0:0 [opaque]");
    assert!(stand.raw("/e/d").unwrap().starts_with("dir 0700 0:0 [opaque]"));
}

/// Each kind of object takes the place of the whiteout that hid a lower one.
#[test]
fn line_04_new_objects_replace_whiteouts() {
    let lower = new().file("a", "").file("b", "").file("c", "").file("d", "").file("keep", "k");
    let mut stand = Stand::new(&new(), &[lower]);
    stand.does(&["a", "b", "c", "d"].map(|name| Op::Unlink(p(name))));
    stand.does(&[
        Op::Create(p("a"), 0o644),
        Op::Symlink(p("b"), 1),
        Op::Fifo(p("c"), 0o644),
        Op::Link(p("keep"), p("d")),
    ]);
    assert!(!stand.upper.dump().contains("whiteout"));
}

/// Nothing lies below: neither marks nor whiteouts have anything to say.
#[test]
fn line_05_no_marks_where_nothing_lies_below() {
    let mut stand = Stand::new(&new(), &[new().dir("d")]);
    stand.does(&[
        Op::Mkdir(p("own"), 0o755),
        Op::Mkdir(p("own/sub"), 0o755),
        Op::Create(p("own/f"), 0o644),
        Op::Unlink(p("own/f")),
        Op::Rmdir(p("d")),
        Op::Mkdir(p("d"), 0o755),
        Op::Mkdir(p("d/sub"), 0o755),
        Op::Create(p("d/f"), 0o644),
        Op::Unlink(p("d/f")),
    ]);
    let expected = "/ dir 0755 0:0\n/d dir 0755 0:0 [opaque]\n/d/sub dir 0755 0:0\n\
                    /own dir 0755 0:0\n/own/sub dir 0755 0:0\n";
    assert_eq!(stand.upper.dump(), expected);
}

/// Opaque is for all below it, and a middle layer's opaque stops the layers under that.
#[test]
fn line_06_opaque_is_inherited_and_stops_the_layers_below() {
    let bottom = new().file("d/s/old", "").file("m/old", "").file("m/s/old", "");
    let middle = new().opaque("m").file("m/mid", "").dir("m/s");
    let mut stand = Stand::new(&new().opaque("d").dir("d/s").dir("m"), &[middle, bottom]);
    assert_eq!(stand.says(Op::Readdir(p("d/s"))), Outcome::Names(vec![]));
    stand.does(&[Op::Readdir(p("m/s")), Op::Mkdir(p("d/s/old"), 0o755), Op::Readdir(p("m"))]);
}

/// Directory, file, directory: what shows is the topmost, alone.
#[test]
fn line_07_a_non_directory_hides_and_stops() {
    let layers = [new().file("a", "file").file("b", "file"), new().file("a/x", "").file("b/y", "")];
    let mut stand = Stand::new(&new().file("b/top", ""), &layers);
    stand.does(&[Op::Readdir(p("b")), Op::Read(p("a")), Op::Unlink(p("a"))]);
    stand.does(&[Op::Mkdir(p("a"), 0o755), Op::Readdir(p("a"))]);
}

/// The second image layer deleted it, the third made it again.
#[test]
fn line_08_a_whiteout_in_the_middle_hides_only_what_is_below() {
    let layers = [
        new().file("again", "new"),
        new().whiteout("again").whiteout("gone"),
        new().file("again", "old").file("gone", "old"),
    ];
    let mut stand = Stand::new(&new(), &layers);
    stand.fails(Op::Lookup(p("gone")), Errno::ENOENT);
    assert_eq!(stand.says(Op::Read(p("again"))), Outcome::Bytes(b"new".to_vec()));
    stand.does(&[Op::Unlink(p("again")), Op::Lookup(p("again"))]);
}

/// A scratch file leaves no trace; a file of the image leaves a whiteout.
#[test]
fn line_09_unlink_leaves_a_whiteout_only_over_a_lower_name() {
    let mut stand = Stand::new(&new().file("own", ""), &[new().file("image", "")]);
    stand.does(&[Op::Unlink(p("own")), Op::Unlink(p("image"))]);
    assert_eq!(stand.upper.dump(), "/ dir 0755 0:0\n/image whiteout\n");
}

/// The whiteout at the target vanishes; the source leaves one only where the image has the name.
#[test]
fn line_10_rename_over_a_whiteout() {
    let mut stand = Stand::new(&new().file("own", "o"), &[new().file("a", "a").file("b", "b")]);
    stand.does(&[Op::Unlink(p("a")), rename("own", "a"), Op::Read(p("a"))]);
    assert_eq!(stand.raw("/own"), None);
    stand.does(&[rename("b", "a")]);
    assert_eq!(stand.raw("/b").unwrap(), "whiteout");
}

/// fuse-overlayfs 2.0 says EEXIST, because it finds the whiteout.
#[test]
fn line_11_noreplace_onto_a_whited_out_name_succeeds() {
    let mut stand = Stand::new(&new(), &[new().file("a", "a").file("b", "b").dir("d")]);
    stand.does(&[
        Op::Unlink(p("a")),
        Op::Rename(p("b"), p("a"), RenameFlag::NoReplace),
        Op::Unlink(p("a")),
        Op::Rename(p("d"), p("a"), RenameFlag::NoReplace),
    ]);
}

/// fuse-overlayfs 2.0 says ENOENT, because the upper holds neither.
#[test]
fn line_12_exchange_of_lower_objects() {
    let lower = new().file("a", "a").file("b", "b").file("d/x", "x").file("e/y", "y");
    let mut stand = Stand::new(&new(), &[lower]);
    stand.does(&[exchange("a", "b"), Op::Read(p("a")), Op::Read(p("b"))]);
    stand.does(&[exchange("d", "e"), Op::Readdir(p("d")), Op::Readdir(p("e"))]);
    stand.does(&[exchange("d", "a"), Op::Remount, Op::Read(p("d")), Op::Readdir(p("a"))]);
}

/// Package managers rename directories of the image; "Invalid cross-device link" stops them.
#[test]
fn line_14_lower_and_merged_directories_rename() {
    let lower = new().file("lib/a", "a").file("lib/sub/b", "b").file("both/l", "l");
    let mut stand = Stand::new(&new().file("both/u", "u"), &[lower, new().file("lib/c", "c")]);
    stand.does(&[
        rename("lib", "lib2"),
        Op::Write(p("lib2/sub/b"), 0, 1, b'B'),
        rename("both", "lib2/both"),
        Op::Remount,
        rename("lib2/sub", "sub"),
        rename("lib2", "lib"),
        Op::Remount,
        Op::Readdir(p("lib/both")),
        Op::Read(p("sub/b")),
    ]);
}

/// The target is empty to its user, and full of whiteouts to us.
#[test]
fn line_15_rename_over_a_directory_full_of_whiteouts() {
    let mut stand = Stand::new(&new(), &[new().file("d/a", "").file("d/b", "").file("e/c", "c")]);
    stand.does(&[Op::Unlink(p("d/a")), Op::Unlink(p("d/b")), rename("e", "d")]);
    assert_eq!(stand.says(Op::Readdir(p("d"))).clone(), {
        Outcome::Names(vec![(b"c".to_vec(), plyfs::attr::Kind::File)])
    });
}

/// The rules of rename that have nothing to do with layers hold for lower objects, too.
#[test]
fn line_16_rename_into_itself_and_onto_its_own_link() {
    let lower = new().file("d/s/f", "").file("x", "x").hardlink("x", "y");
    let mut stand = Stand::new(&new(), &[lower]);
    stand.fails(rename("d", "d/s/new"), Errno::EINVAL);
    stand.does(&[rename("x", "y"), Op::Lookup(p("x")), Op::Lookup(p("y"))]);
}

/// A shell stands in a directory of the image while somebody renames it.
#[test]
fn line_16_an_open_directory_survives_its_rename() {
    let mut stand = Stand::new(&new(), &[new().file("d/f", "f")]);
    let dir = stand.node("d");
    stand.does(&[rename("d", "e")]);
    let union = stand.union.union();
    let found = union.lookup(dir, Name::new(b"f").unwrap()).unwrap().expect("is still there");
    let (made, handle) =
        union.create(dir, Name::new(b"g").unwrap(), MODE, libc::O_RDWR, &CALLER).unwrap();
    union.release(made.node, handle).unwrap();
    for node in [found.node, made.node, dir] {
        union.forget(node, 1);
    }
    stand.model.apply(&Op::Create(p("e/g"), 0o644));
    stand.does(&[Op::Readdir(p("e"))]);
}

/// Two image layers renamed the same directory one after the other.
#[test]
fn line_17_a_chain_of_redirects_in_lower_layers_is_followed() {
    let layers = [
        new().redirect("c", "/b").file("c/top", "").whiteout("b"),
        new().redirect("b", "a").file("b/middle", "").whiteout("a"),
        new().file("a/bottom", "content"),
    ];
    let shown = new().file("c/top", "").file("c/middle", "").file("c/bottom", "content");
    let mut stand = Stand::with_model(&new(), &layers, Model::merged(&[shown]));
    stand.does(&[Op::Readdir(p("c")), Op::Read(p("c/bottom")), Op::Unlink(p("c/bottom"))]);
}

/// A hostile image must not make us look outside of it, or for ever.
#[test]
fn line_17_redirects_that_escape_are_refused() {
    for to in ["../../etc", "/a/../../etc", "..", "/d/./d", ""] {
        let layers = [new().redirect("d", to), new().file("d/x", "")];
        let all: Vec<_> = layers.iter().zip(1..).map(|(spec, fs)| spec.mem(fs)).collect();
        let lowers = all.iter().map(|mem| Arc::clone(mem) as Arc<dyn Layer>).collect();
        let stack = Stack { upper: None, lowers };
        let union = plyfs::union::Union::new(stack, plyfs::union::Options::default()).unwrap();
        let refused = match union.lookup(union.root(), Name::new(b"d").unwrap()) {
            Err(_) => true,
            Ok(found) => {
                let dir = found.expect("is there").node;
                union.readdir(dir, 0, &mut |_| true).is_err()
            }
        };
        assert!(refused, "redirect {to:?} was followed");
    }
}

/// Whiteouts as an archive has them, beside the name: alone, and beside a new object.
#[test]
fn line_18_whiteouts_beside_their_name_are_read() {
    let middle = new().dir("d").file("d/keep", "").whiteout_beside("a").whiteout_beside("d");
    let mut stand = Stand::new(&new(), &[middle, new().file("a", "").file("d/old", "")]);
    stand.fails(Op::Lookup(p("a")), Errno::ENOENT);
    stand.does(&[Op::Readdir(p("d")), Op::Create(p("a"), 0o644), rename("d", "e")]);
}

/// A layer with marks from the future must not look like an empty one.
#[test]
fn line_19_marks_that_are_not_followed_are_refused() {
    let lower = new().file("d/x", "x").mem(1);
    let dir = raw(&*lower, "d").unwrap();
    let marks = Marks { unknown: Some("overlay.verity".into()), ..Marks::default() };
    lower.put_marks(dir, marks).unwrap();
    let stack = Stack { upper: None, lowers: vec![lower] };
    let union = plyfs::union::Union::new(stack, plyfs::union::Options::default()).unwrap();
    let refused = union.lookup(union.root(), Name::new(b"d").unwrap()).unwrap_err();
    assert!(refused.context().is_some_and(|why| why.contains("overlay.verity")), "{refused}");
}

/// A container inside the container keeps its own whiteouts and marks in our mount.
#[test]
fn line_20_a_users_own_whiteouts_and_marks_are_stored_escaped() {
    let mut stand = Stand::new(&new(), &[new().file("d/a", "a").file("a", "a")]);
    stand.does(&[
        Op::Char(p("w"), 0),
        Op::Create(p("d/.wh.a"), 0o644),
        Op::SetXattr(p("d"), 2, 1, 0),
        Op::Remount,
        Op::Lookup(p("w")),
        Op::Lookup(p("d/a")),
        Op::GetXattr(p("d"), 2),
        rename("w", "a"),
    ]);
}

/// `ln` of a file of the image: both names are one inode, and stay it.
#[test]
fn line_21_link_of_a_lower_file() {
    let mut stand = Stand::new(&new(), &[new().file("a", "a")]);
    let before = stand.ino("a");
    stand.does(&[Op::Link(p("a"), p("b")), Op::Write(p("b"), 0, 1, b'B'), Op::Read(p("a"))]);
    assert_eq!((stand.ino("a"), stand.ino("b")), (before, before));
}

/// One alias is gone; a new one is made of the other.
#[test]
fn line_21_link_after_unlink_of_another_alias() {
    let mut stand = Stand::new(&new(), &[new().file("a", "a").hardlink("a", "b")]);
    stand.does(&[
        Op::Unlink(p("a")),
        Op::Link(p("b"), p("c")),
        Op::Lookup(p("c")),
        Op::Remount,
        Op::Write(p("c"), 0, 1, b'C'),
        Op::Read(p("b")),
    ]);
}

/// fuse-overlayfs 1.x: after a remount the other name gives old bytes, padded with zeros.
#[test]
fn line_22_copy_up_of_one_hard_link_keeps_all_names_on_one_inode() {
    let lower = new().file("a", "a").hardlink("a", "d/b").hardlink("a", "c");
    let mut stand = Stand::new(&new(), &[lower]);
    stand.does(&[
        Op::Append(p("a"), 40, b'+'),
        Op::Read(p("d/b")),
        Op::Remount,
        Op::Read(p("c")),
        Op::Append(p("c"), 5, b'-'),
        Op::Remount,
        Op::Read(p("a")),
        Op::Unlink(p("a")),
        Op::Unlink(p("c")),
        Op::Remount,
        Op::Read(p("d/b")),
    ]);
}

/// fuse-overlayfs 1.x counts names as it happens to see them.
#[test]
fn line_23_nlink_of_a_lower_hard_link_is_right_at_once() {
    let lower = new().file("a", "a").hardlink("a", "b").hardlink("a", "c");
    let mut stand = Stand::new(&new(), &[lower]);
    let stat = stand.says(Op::Lookup(p("c")));
    assert_eq!(stat, Outcome::Stat(plyfs::attr::Kind::File, 0o644, 3, 1));
    stand.does(&[Op::Unlink(p("b")), Op::Lookup(p("c")), Op::Remount, Op::Lookup(p("a"))]);
}

/// A backup program takes a changed inode number for another file.
#[test]
fn line_24_inode_numbers_survive_copy_up_rename_and_remount() {
    let lower = new().file("f", "f").file("d/x", "x").symlink("l", "f").fifo("p");
    let mut stand = Stand::new(&new(), &[lower]);
    let before = ["f", "d", "d/x", "l", "p"].map(|path| stand.ino(path));
    stand.does(&[
        Op::Append(p("f"), 1, b'.'),
        Op::Chown(p("l"), 1, 1),
        Op::Chmod(p("p"), 0o600),
        Op::Chmod(p("d/x"), 0o600),
        rename("d", "e"),
        Op::Remount,
    ]);
    assert_eq!(["f", "e", "e/x", "l", "p"].map(|path| stand.ino(path)), before);
}

/// An editor replaces the file that a reader has open.
#[test]
fn line_25_a_file_made_again_is_another_one() {
    let mut stand = Stand::new(&new(), &[new().file("f", "old")]);
    let before = stand.ino("f");
    stand.does(&[Op::Hold(p("f"), 0, false), Op::Unlink(p("f")), Op::Create(p("f"), 0o644)]);
    assert_ne!(stand.ino("f"), before);
    stand.does(&[Op::HeldRead(0), Op::HeldStat(0), Op::Read(p("f"))]);
}

/// `tail -f` of a log file of the image.
#[test]
fn line_28_an_earlier_reader_sees_later_writes() {
    let mut stand = Stand::new(&new(), &[new().file("log", "one")]);
    stand.does(&[
        Op::Hold(p("log"), 0, false),
        Op::HeldRead(0),
        Op::Append(p("log"), 3, b'!'),
        Op::HeldRead(0),
        Op::OpenTrunc(p("log")),
        Op::HeldRead(0),
    ]);
}

/// fuse-overlayfs 2.0 writes into the image when a reader came first.
#[test]
fn line_29_no_order_of_opens_lets_a_write_reach_a_lower_layer() {
    let lower = new().file("f", "f").hardlink("f", "g");
    let mut stand = Stand::new(&new(), &[lower]);
    stand.does(&[
        Op::Hold(p("f"), 0, false),
        Op::Hold(p("f"), 1, true),
        Op::Hold(p("g"), 2, true),
        Op::HeldWrite(1, 0, 5, b'1'),
        Op::HeldWrite(2, 2, 5, b'2'),
        Op::HeldRead(0),
        Op::Unlink(p("f")),
        Op::HeldWrite(1, 1, 40, b'3'),
        Op::HeldTruncate(2, 1),
        Op::HeldRead(0),
    ]);
    assert_eq!(stand.lowers[0].dump_exact(), stand.pristine[0]);
}

/// A temporary file, deleted while it is open; fuse-overlayfs 2.0 says ENOENT.
#[test]
fn line_35_an_unlinked_open_file_goes_on_working() {
    for spec in [[new(), new().file("f", "content")], [new().file("f", "content"), new()]] {
        let mut stand = Stand::new(&spec[0], &spec[1..]);
        stand.does(&[
            Op::Hold(p("f"), 0, true),
            Op::Unlink(p("f")),
            Op::HeldStat(0),
            Op::HeldRead(0),
            Op::HeldWrite(0, 3, 40, b'w'),
            Op::HeldTruncate(0, 20),
            Op::HeldChmod(0, 0o600),
            Op::HeldStat(0),
            Op::HeldRead(0),
        ]);
    }
}

/// The lower file was only being read when its last name went; then somebody changes it.
#[test]
fn line_35_an_unlinked_lower_file_can_still_be_changed() {
    let mut stand = Stand::new(&new(), &[new().file("f", "content")]);
    stand.does(&[
        Op::Hold(p("f"), 0, false),
        Op::Unlink(p("f")),
        Op::HeldChmod(0, 0o600),
        Op::HeldStat(0),
        Op::HeldRead(0),
        Op::Create(p("f"), 0o644),
        Op::HeldStat(0),
    ]);
}

/// The working directory of a shell is removed under it.
#[test]
fn line_35_a_removed_directory_answers_and_takes_nothing_in() {
    let mut stand = Stand::new(&new(), &[new().dir("d")]);
    let dir = stand.node("d");
    stand.does(&[Op::Rmdir(p("d"))]);
    let union = stand.union.union();
    assert_eq!(union.getattr(dir).unwrap().nlink, 0);
    let name = Name::new(b"f").unwrap();
    let refused = union.create(dir, name, MODE, libc::O_RDWR, &CALLER).unwrap_err();
    assert_eq!(refused.errno(), Errno::ENOENT);
    let mut names = Vec::new();
    union
        .readdir(dir, 0, &mut |entry| {
            names.push(entry.name.to_vec());
            true
        })
        .unwrap();
    names.retain(|name| name != b"." && name != b"..");
    assert!(names.is_empty(), "{names:?}");
    union.forget(dir, 1);
}

/// Two containers over one image: each sees its own writes, and the image stays what it was.
#[test]
fn many_containers_of_one_image_see_only_their_own_writes() {
    let image = new().file("etc/conf", "image").mem(9);
    let before = image.dump_exact();
    let container = |fs| {
        let (upper, image) = (MemLayer::new(fs), Arc::clone(&image));
        let stack = move || Stack {
            upper: Some(Arc::clone(&upper) as Arc<dyn Upper>),
            lowers: vec![Arc::clone(&image) as Arc<dyn Layer>],
        };
        UnionTarget::new(stack, Vec::new)
    };
    let (mut one, mut two) = (container(1), container(2));
    let fresh = render(&two.tree());
    one.apply(&Op::OpenTrunc(p("etc/conf")));
    one.apply(&Op::Create(p("etc/own"), 0o644));
    assert_eq!(render(&two.tree()), fresh);
    two.apply(&Op::Unlink(p("etc/conf")));
    assert_eq!(one.apply(&Op::Read(p("etc/conf"))), Outcome::Bytes(vec![]));
    one.unmount();
    two.unmount();
    assert_eq!(image.dump_exact(), before);
}
