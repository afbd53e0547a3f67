//! Uppers that others wrote: kernel overlayfs by several options, fuse-overlayfs 1.x and 2.x.
//! Random operations on their mounts, checked against a plain directory after each; where one does
//! something else, that operation is counted by name and left out. plyfs must show the same tree on
//! the upper, go on in it, and leave it so that the kernel shows the same and can go on, too.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use plyfs::attr::Kind;
use plyfs::testkit::run::{difference, run};
use plyfs::testkit::system::SystemTarget;
use plyfs::testkit::tree::render;
use plyfs::testkit::{At, Model, Op, Seen, Target, TreeSpec};
use plyfs::union::RenameFlag;

use super::stand::{Case, Mounted, make_dir, sh, text};

/// Who writes the upper.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// Kernel overlayfs with these options.
    Kernel(&'static str),
    /// This program.
    FuseOverlayfs(PathBuf),
}

/// How overlayfs can be mounted in ways that write different marks.
pub(crate) const KERNELS: [&str; 5] = [
    "redirect_dir=on,metacopy=on,index=on,xino=on",
    "redirect_dir=on,index=on,nfs_export=on",
    "redirect_dir=on,metacopy=on,index=off",
    "xino=off,redirect_dir=off,index=off,metacopy=off",
    "",
];

/// What the peers did differently, by peer and operation.
pub(crate) type Differences = BTreeMap<String, u32>;

impl Peer {
    fn name(&self) -> String {
        match self {
            Self::Kernel(options) => format!("overlayfs {options}"),
            Self::FuseOverlayfs(program) => program.display().to_string(),
        }
    }

    fn mount(&self, case: &Case) -> Result<Mounted, String> {
        let at = case.path("kmnt");
        let options = case.options_in("upper", "work");
        match self {
            Self::Kernel("") => sh("mount", &["-t", "overlay", "none", "-o", &options, text(&at)])?,
            Self::Kernel(more) => {
                let options = format!("{options},{more}");
                sh("mount", &["-t", "overlay", "none", "-o", &options, text(&at)])?;
            }
            // It may end well without having mounted anything, while its server of before, just
            // unmounted, has not ended yet.
            Self::FuseOverlayfs(program) => {
                let device = |path: &Path| fs::metadata(path).unwrap().dev();
                let empty = device(&at);
                for _ in 0..50 {
                    sh(text(program), &["-o", &options, text(&at)])?;
                    if device(&at) != empty {
                        return Ok(Mounted(at));
                    }
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
                return Err(format!("{} mounts nothing", program.display()));
            }
        }
        Ok(Mounted(at))
    }
}

/// What the others can do at all: no name that is a whiteout to some, no device 0:0, no remount.
pub(crate) fn tame(ops: &[Op]) -> Vec<Op> {
    let within = |at: &At| At { dir: at.dir, name: at.name % 3 };
    let ops = ops.iter().map(|op| match op.map(within) {
        Op::Char(at, _) => Op::Char(at, 1),
        Op::Rename(p, q, RenameFlag::Whiteout { .. }) => Op::Rename(p, q, RenameFlag::None),
        Op::Remount => Op::Drop(0),
        op => op,
    });
    ops.collect()
}

/// What of a tree is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// All of it, as on ext4.
    Whole,
    /// Not which names are one file: overlayfs does not tell where its layers are on several
    /// filesystems. An upper of its own lies in memory then.
    Apart,
}

impl Look {
    fn render(self, mut tree: Vec<Seen>) -> String {
        if self == Self::Apart {
            for (number, seen) in tree.iter_mut().enumerate() {
                seen.ino = number as u64;
            }
        }
        render(&tree)
    }
}

/// The operations that `peer` does as a plain directory, done, and what it holds then. `None` if
/// it shows another tree from the beginning.
fn write_upper(
    peer: &Peer,
    (specs, ops): (&[TreeSpec], &[Op]),
    base: &Path,
    how: Look,
    differences: &mut Differences,
) -> Option<(tempfile::TempDir, Case, Model, Vec<Op>)> {
    let mut ops = ops.to_vec();
    loop {
        let tmp = tempfile::tempdir_in(base).unwrap();
        let mut case = Case::new(tmp.path(), specs);
        let memory = (how == Look::Apart).then(|| case.upper_in_memory());
        let mut model = Model::merged(specs);
        let Ok(mounted) = peer.mount(&case) else {
            *differences.entry(format!("{}: mount", peer.name())).or_default() += 1;
            return None;
        };
        let mut target = SystemTarget::new("peer", &mounted.0, || {});
        if how == Look::Apart {
            target = target.listing_other_inos();
        }
        let same = |target: &mut SystemTarget, model: &Model| {
            let tree = target.try_tree();
            tree.is_ok_and(|tree| how.render(tree) == how.render(model.tree()))
        };
        if !same(&mut target, &model) {
            *differences.entry(format!("{}: the layers", peer.name())).or_default() += 1;
            target.close();
            return None;
        }
        let other = ops.iter().position(|op| {
            let op = op.resolve(&model.dirs());
            let expected = model.apply(&op);
            target.apply(&op) != expected || !same(&mut target, &model)
        });
        target.close();
        drop((mounted, memory));
        let Some(other) = other else { return Some((tmp, case, model, ops)) };
        let name = ops.remove(other).resolve(&Model::merged(specs).dirs()).to_string();
        let verb = name.split([' ', '(']).next().unwrap_or_default();
        *differences.entry(format!("{}: {verb}", peer.name())).or_default() += 1;
    }
}

/// One case in `base`: what `peer` writes, plyfs and the kernel go on with.
pub(crate) fn one_case(
    peer: &Peer,
    seed: u64,
    (specs, ops): (&[TreeSpec], &[Op]),
    base: &Path,
    differences: &mut Differences,
) -> bool {
    let told = format!("PLYFS_SEED={seed}, {}", peer.name());
    let ops = tame(ops);
    let (first, rest) = ops.split_at(ops.len() / 2);
    let Some((_tmp, case, mut model, _)) =
        write_upper(peer, (specs, first), base, Look::Whole, differences)
    else {
        return false;
    };
    // What it does not find again itself may not be in the upper.
    let again = peer.mount(&case).map(|mounted| {
        let mut target = SystemTarget::new("peer", &mounted.0, || {});
        let tree = target.try_tree();
        target.close();
        tree
    });
    let Ok(Ok(again)) = again else {
        *differences.entry(format!("{}: no tree after a remount", peer.name())).or_default() += 1;
        return false;
    };
    let below = Model::merged(specs).tree();
    // It does not write down that a copy and what lies below under another name are one file.
    let linked = !matches!(peer, Peer::Kernel(_)) && below.iter().any(is_linked);
    let lost = if render(&again) != render(&model.tree()) {
        Some("after a remount")
    } else if linked && shown(&case) != render(&model.tree()) {
        Some("hard links")
    } else {
        None
    };
    if let Some(lost) = lost {
        *differences.entry(format!("{}: {lost}", peer.name())).or_default() += 1;
        one_or_the_other(&told, &case, [model.tree(), again, below]);
        return false;
    }
    let (on, more) = rest.split_at(rest.len() / 2);
    continued(&told, &case, &mut model, on);
    if let Peer::Kernel(_) = peer
        && kernel_again(&told, &case, &mut model, more)
    {
        continued(&told, &case, &mut model, &[]);
    }
    true
}

/// A tree without what fuse-overlayfs does not keep: which names are one file, and when something
/// was last made or removed in a directory.
fn kept(mut tree: Vec<Seen>) -> String {
    for (number, seen) in tree.iter_mut().enumerate() {
        (seen.nlink, seen.ino) = (1, number as u64);
        if seen.kind == Kind::Dir {
            seen.mtime = None;
        }
    }
    render(&tree)
}

fn is_linked(seen: &Seen) -> bool {
    seen.kind == Kind::File && seen.nlink > 1
}

/// The tree that plyfs shows.
fn shown(case: &Case) -> String {
    let mounted = case.mount_plyfs();
    let mut union = SystemTarget::new("plyfs", &mounted.0, || {});
    let tree = render(&union.tree());
    union.close();
    tree
}

/// Each object that plyfs shows is what was there, or what the upper's writer finds in it again; or
/// what a lower file of several names holds: fuse-overlayfs copies it up under one of them, shows
/// that for the others, too, as long as it remembers, and copies it again when they are renamed.
fn one_or_the_other(told: &str, case: &Case, [before, again, mut below]: [Vec<Seen>; 3]) {
    let mounted = case.mount_plyfs();
    let mut union = SystemTarget::new("plyfs", &mounted.0, || {});
    below.retain(is_linked);
    let (before, again, below) = (&*kept(before), &*kept(again), &*kept(below));
    let got = kept(union.tree());
    union.close();
    let nameless = |line: &str| line.split_once(' ').map(|(_, rest)| rest.to_owned());
    let linked: Vec<_> = below.lines().map(nameless).collect();
    let known = |line: &&str| {
        [before, again].iter().any(|text| text.lines().any(|l| l == *line))
            || linked.contains(&nameless(line))
    };
    let wrong: Vec<_> = got.lines().filter(|line| !known(line)).collect();
    let path = |line: &&str| line.split(' ').next().map(ToOwned::to_owned);
    let paths = |text: &str| text.lines().filter_map(|line| path(&line)).collect::<Vec<_>>();
    let all_there = [before, again].iter().any(|text| paths(text) == paths(&got));
    assert!(
        wrong.is_empty() && all_there,
        "{told}: plyfs shows neither what was there nor what its writer finds again\n\
         was there, plyfs:\n{}\nfound again, plyfs:\n{}",
        difference(before, &got),
        difference(again, &got)
    );
}

/// plyfs shows the model's tree on the upper, and goes on.
fn continued(told: &str, case: &Case, model: &mut Model, ops: &[Op]) {
    model.apply(&Op::Remount);
    let mounted = case.mount_plyfs();
    let mut union = SystemTarget::new("plyfs", &mounted.0, || {});
    let (expected, got) = (render(&model.tree()), render(&union.tree()));
    assert!(
        expected == got,
        "{told}: plyfs shows another tree on that upper ({})\n{}",
        case.dir.display(),
        difference(&expected, &got)
    );
    run(ops, model, &mut [&mut union]);
    union.close();
    sh(env!("CARGO_BIN_EXE_plyfs"), &["umount", text(&mounted.0)]).unwrap();
    std::mem::forget(mounted);
}

/// The kernel shows it, too, and goes on. False when it did something else than a plain directory.
fn kernel_again(told: &str, case: &Case, model: &mut Model, ops: &[Op]) -> bool {
    model.apply(&Op::Remount);
    let kernel = case.mount_overlay("upper", "work").expect("overlayfs takes the upper again");
    let mut target = SystemTarget::new("overlayfs", &kernel.0, || {}).listing_other_inos();
    let (expected, got) = (render(&model.tree()), render(&target.tree()));
    assert!(
        expected == got,
        "{told}: overlayfs shows another tree when plyfs has gone on\n{}",
        difference(&expected, &got)
    );
    let as_plain = ops.iter().all(|op| {
        let op = op.resolve(&model.dirs());
        let expected = model.apply(&op);
        target.apply(&op) == expected
            && target.try_tree().is_ok_and(|tree| render(&tree) == render(&model.tree()))
    });
    target.close();
    as_plain
}

/// Kernel overlayfs on an upper that lies in a mount of plyfs does what it does on one in memory,
/// and finds it again when both were mounted anew. False if it does nothing as a plain directory
/// does.
pub(crate) fn stacked_case(
    seed: u64,
    (specs, ops): (&[TreeSpec], &[Op]),
    base: &Path,
    differences: &mut Differences,
) -> bool {
    let peer = Peer::Kernel("");
    let mut ops = tame(ops);
    // overlayfs knows an inode by one dentry, and asks a FUSE mount about that by its name, even
    // when another name of the inode is meant and this one is gone (`ovl_revalidate_real` in
    // `fs/overlayfs/super.c`): ESTALE.
    ops.retain(|op| !matches!(op, Op::Link(..)));
    let done = write_upper(&peer, (specs, &ops), base, Look::Apart, differences);
    let Some((_tmp, _, _, ops)) = done else { return false };
    let tmp = tempfile::tempdir_in(base).unwrap();
    let mut case = Case::new(tmp.path(), specs);
    let (outer, mut model) = (case.mount_plyfs(), Model::merged(specs));
    for name in ["upper", "work"] {
        make_dir(&outer.0.join(name));
    }
    case.upper_in = Some(outer.0.clone());
    let on_top = |model: &mut Model, ops: &[Op]| {
        let inner = peer.mount(&case).expect("overlayfs takes an upper in a mount of plyfs");
        let mut target =
            SystemTarget::new("overlayfs on plyfs", &inner.0, || {}).listing_other_inos();
        let mut transcript = format!("PLYFS_SEED={seed}\n{}", render(&model.tree()));
        for op in ops {
            let op = op.resolve(&model.dirs());
            let (expected, got) = (model.apply(&op), target.apply(&op));
            writeln!(transcript, "{op}: {expected:?}").unwrap();
            assert!(got == expected, "{got:?}\n{transcript}");
            let got = target.try_tree().unwrap_or_else(|wrong| panic!("{wrong}\n{transcript}"));
            let (expected, got) = (Look::Apart.render(model.tree()), Look::Apart.render(got));
            assert!(expected == got, "{}\n{transcript}", difference(&expected, &got));
        }
        target.close();
    };
    on_top(&mut model, &ops);
    model.apply(&Op::Remount);
    sh(env!("CARGO_BIN_EXE_plyfs"), &["umount", text(&outer.0)]).unwrap();
    std::mem::forget(outer);
    let outer = case.mount_plyfs();
    on_top(&mut model, &[]);
    sh(env!("CARGO_BIN_EXE_plyfs"), &["umount", text(&outer.0)]).unwrap();
    std::mem::forget(outer);
    true
}
