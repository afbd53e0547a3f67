//! Faults and races that hurt whoever holds a node: the kernel keeps what it has looked up, so a
//! node that is wrong in memory stays wrong until it is forgotten, whatever the layers hold.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::needless_pass_by_value,
    reason = "this is test code: a surprise must stop the test, and layers are seen from outside"
)]

use std::sync::Arc;

use plyfs::attr::SetAttr;
use plyfs::errno::Errno;
use plyfs::layer::fault::{Fault, FaultLayer};
use plyfs::layer::mem::MemLayer;
use plyfs::layer::{Layer, Marks, Upper};
use plyfs::name::Name;
use plyfs::testkit::TreeSpec;
use plyfs::testkit::tree::raw;
use plyfs::union::{NodeId, Options, RenameFlag, Stack, Union};

fn name(bytes: &str) -> Name<'_> {
    Name::new(bytes.as_bytes()).unwrap()
}

fn mount(upper: Arc<dyn Upper>, lowers: &[Arc<MemLayer>]) -> Union {
    let lowers = lowers.iter().map(|mem| Arc::clone(mem) as Arc<dyn Layer>).collect();
    Union::new(Stack { upper: Some(upper), lowers }, Options::default()).unwrap()
}

/// The node at a path; never forgotten, as if the kernel kept it.
fn at(union: &Union, path: &str) -> NodeId {
    find(union, path).unwrap_or_else(|| panic!("{path} is not there"))
}

fn find(union: &Union, path: &str) -> Option<NodeId> {
    let mut node = union.root();
    for part in path.split('/') {
        node = union.lookup(node, name(part)).unwrap()?.node;
    }
    Some(node)
}

fn chmod(union: &Union, node: NodeId, perm: u16) -> plyfs::errno::Result<()> {
    let set = SetAttr { perm: Some(perm), ..SetAttr::default() };
    union.setattr(node, &set).map(drop)
}

fn content(union: &Union, node: NodeId) -> String {
    let handle = union.open(node, libc::O_RDONLY, false).unwrap();
    let mut buf = [0; 64];
    let n = union.read(node, handle, &mut buf, 0).unwrap();
    union.release(node, handle).unwrap();
    String::from_utf8_lossy(&buf[..n]).into_owned()
}

fn write(union: &Union, node: NodeId, text: &str) {
    let handle = union.open(node, libc::O_RDWR, false).unwrap();
    union.write(node, handle, text.as_bytes(), 0, false).unwrap();
    union.release(node, handle).unwrap();
}

fn names(union: &Union, dir: NodeId) -> Vec<String> {
    let mut names = Vec::new();
    union
        .readdir(dir, 0, &mut |entry| {
            names.push(String::from_utf8_lossy(entry.name).into_owned());
            true
        })
        .unwrap();
    names.retain(|name| !name.starts_with('.'));
    names
}

/// The whiteouts of an empty merged directory are taken out before it is replaced.
#[test]
fn a_removal_that_fails_does_not_show_what_the_whiteouts_hid() {
    type Run = fn(&Union) -> plyfs::errno::Result<()>;
    let ops: [(&str, Run); 2] = [
        ("rmdir", |union| union.rmdir(union.root(), name("s"))),
        ("rename", |union| {
            let root = union.root();
            union.rename((root, name("t")), (root, name("s")), RenameFlag::None)
        }),
    ];
    for (what, op) in ops {
        for n in 1..8 {
            let upper = TreeSpec::new().whiteout("s/c").dir("t").mem(1);
            let lower = TreeSpec::new().file("s/c", "deleted").mem(2);
            let fault = FaultLayer::new(upper);
            let union = mount(fault.clone(), &[lower]);
            let dir = at(&union, "s");
            fault.arm(Fault::Fail(n, Errno::ENOSPC));
            let failed = op(&union).is_err();
            fault.arm(Fault::None);
            assert!(find(&union, "s/c").is_none(), "{what}, {n}: what was deleted is back");
            assert!(union.lookup(dir, name("c")).unwrap().is_none(), "{what}, {n}: is back");
            assert!(names(&union, dir).is_empty(), "{what}, {n}: it is listed");
            if failed {
                op(&union).unwrap_or_else(|e| panic!("{what}, {n}: not even a second time: {e}"));
            }
        }
    }
}

/// Each change of each operation on a hard link fails once; whoever holds the node tries again.
#[test]
fn a_hard_link_that_failed_once_can_be_changed_by_who_holds_it() {
    type Run = fn(&Union, NodeId) -> plyfs::errno::Result<()>;
    let ops: [(&str, Run); 5] = [
        ("chmod", |union, node| chmod(union, node, 0o600)),
        ("unlink x", |union, _| union.unlink(at(union, "d"), name("x"))),
        ("unlink w", |union, _| union.unlink(union.root(), name("w"))),
        ("rename w", |union, _| {
            let root = union.root();
            union.rename((root, name("w")), (root, name("v")), RenameFlag::None)
        }),
        ("link", |union, node| union.link(node, union.root(), name("v")).map(drop)),
    ];
    for copied in [false, true] {
        for (what, op) in ops {
            for n in 1..20 {
                let lower = TreeSpec::new().file("d/x", "old").hardlink("d/x", "w").mem(2);
                let fault = FaultLayer::new(MemLayer::new(1));
                let union = mount(fault.clone(), &[lower]);
                let (node, alias) = (at(&union, "d/x"), at(&union, "w"));
                assert_eq!(node, alias);
                if copied {
                    write(&union, node, "new");
                }
                fault.arm(Fault::Fail(n, Errno::ENOSPC));
                let failed = op(&union, node).is_err();
                fault.arm(Fault::None);
                let what = format!("{what}, copied {copied}, change {n}");
                if failed {
                    op(&union, node).unwrap_or_else(|e| panic!("{what}: not a second time: {e}"));
                }
                chmod(&union, node, 0o640).unwrap_or_else(|e| panic!("{what}: chmod: {e}"));
                write(&union, node, "NEW");
                for path in ["d/x", "w", "v"] {
                    if let Some(node) = find(&union, path) {
                        assert_eq!(content(&union, node), "NEW", "{what}: {path}");
                    }
                }
            }
        }
    }
}

/// A name that no lower layer has cannot tell how many names the lower file has.
#[test]
fn a_crash_while_a_renamed_hard_link_gets_another_name_keeps_the_count() {
    for n in 1..20 {
        let upper = MemLayer::new(1);
        let lower = TreeSpec::new().file("d/x", "old").hardlink("d/x", "w").mem(2);
        let fault = FaultLayer::new(upper.clone());
        let union = mount(fault.clone(), std::slice::from_ref(&lower));
        let root = union.root();
        write(&union, at(&union, "d/x"), "new");
        union.rename((at(&union, "d"), name("x")), (root, name("q")), RenameFlag::None).unwrap();
        fault.arm(Fault::Stop(n));
        let stopped = union.rename((root, name("w")), (root, name("v")), RenameFlag::None).is_err();
        fault.arm(Fault::None);
        drop(union);
        upper.sweep();

        let union = mount(upper, &[lower]);
        let root = union.root();
        let found = union.lookup(root, name("q")).unwrap().unwrap();
        assert_eq!(found.attr.nlink, 2, "change {n}");
        union.unlink(root, name("q")).unwrap();
        let other = at(&union, if stopped && find(&union, "w").is_some() { "w" } else { "v" });
        assert_eq!(content(&union, other), "new", "change {n}: the old bytes are back");
    }
}

fn metacopy() -> (Arc<MemLayer>, Arc<MemLayer>) {
    let lower = TreeSpec::new().file("f", "0123456789").mem(2);
    let upper = TreeSpec::new().file("f", [0; 10]).mem(1);
    let marks = Marks { metacopy: true, ..Marks::default() };
    upper.put_marks(raw(&*upper, "f").unwrap(), marks).unwrap();
    (upper, lower)
}

/// A file of the full size whose tail is zeros is neither what was nor what shall be.
#[test]
fn a_crash_while_a_metacopy_file_is_truncated_leaves_no_zeros() {
    for n in 1..20 {
        let (upper, lower) = metacopy();
        let fault = FaultLayer::new(upper.clone());
        let union = mount(fault.clone(), std::slice::from_ref(&lower));
        let node = at(&union, "f");
        assert_eq!(content(&union, node), "0123456789");
        fault.arm(Fault::Stop(n));
        let set = SetAttr { size: Some(4), ..SetAttr::default() };
        let _stopped = union.setattr(node, &set);
        fault.arm(Fault::None);
        drop(union);
        upper.sweep();
        let union = mount(upper, &[lower]);
        let found = union.lookup(union.root(), name("f")).unwrap().unwrap();
        let size = usize::try_from(found.attr.size).unwrap();
        let seen = content(&union, found.node);
        assert!(seen == "0123456789" || seen == "0123", "change {n}: {seen:?}");
        assert!(size == 10 || size == 4, "change {n}: {size}");
    }
}

/// A directory beside its own whiteout (what image layers and fuse-overlayfs leave) is opaque; the
/// whiteout stays behind when it moves.
#[test]
fn a_directory_beside_its_whiteout_shows_nothing_new_where_it_goes() {
    let lower = TreeSpec::new().file("a/x", "hidden").file("b/y", "deleted").mem(2);
    let upper = TreeSpec::new().file("a/new", "n").whiteout_beside("a").mem(1);
    let union = mount(upper.clone(), std::slice::from_ref(&lower));
    let root = union.root();
    assert_eq!(names(&union, at(&union, "a")), ["new"]);
    union.unlink(at(&union, "b"), name("y")).unwrap();
    union.rename((root, name("a")), (root, name("b")), RenameFlag::None).unwrap();
    assert_eq!(names(&union, at(&union, "b")), ["new"]);
    drop(union);
    let union = mount(upper, &[lower]);
    assert_eq!(names(&union, at(&union, "b")), ["new"], "after a remount");
    assert!(find(&union, "a").is_none());
}

/// A layer below an opaque root is no part of the tree, for a redirect neither.
#[test]
fn a_redirect_does_not_pass_an_opaque_root() {
    let hidden = TreeSpec::new().file("a/secret", "hidden").mem(3);
    let opaque = TreeSpec::new().file("a/x", "x").mem(2);
    let marks = Marks { opaque: true, ..Marks::default() };
    opaque.put_marks(opaque.root(), marks).unwrap();
    let upper = MemLayer::new(1);
    let lowers = [opaque, hidden];
    let union = mount(upper.clone(), &lowers);
    let root = union.root();
    assert_eq!(names(&union, at(&union, "a")), ["x"]);
    union.rename((root, name("a")), (root, name("b")), RenameFlag::None).unwrap();
    assert_eq!(names(&union, at(&union, "b")), ["x"]);
    drop(union);
    let union = mount(upper, &lowers);
    assert_eq!(names(&union, at(&union, "b")), ["x"], "after a remount");
}

/// Between a look into the index and the node that is made of it, another name of the file is
/// copied up, changed and forgotten: nothing in the first name's directory says so.
#[test]
fn a_hard_link_looked_up_while_another_name_is_copied_up_is_the_copy() {
    let lower = TreeSpec::new().file("d/x", "old").hardlink("d/x", "w").mem(2);
    let fault = FaultLayer::new(MemLayer::new(1));
    let union = Arc::new(mount(fault.clone(), &[lower]));
    chmod(&union, at(&union, "d"), 0o700).unwrap();
    let other = Arc::clone(&union);
    // The first lookup is of the name itself, the second in the index.
    fault.meanwhile(2, move || {
        let dir = other.lookup(other.root(), name("d")).unwrap().unwrap().node;
        let node = other.lookup(dir, name("x")).unwrap().unwrap().node;
        write(&other, node, "new");
        other.forget(node, 1);
        other.forget(dir, 1);
    });
    let node = at(&union, "w");
    assert_eq!(content(&union, node), "new");
    chmod(&union, node, 0o600).unwrap();
    write(&union, node, "NEW");
    assert_eq!(content(&union, at(&union, "d/x")), "NEW");
}

/// What was just deleted takes room until the kernel forgets it: who is told that there is none
/// before that was told so too early.
#[test]
fn what_finds_no_room_is_done_again_when_what_was_deleted_has_gone() {
    type Act = fn(&Union) -> plyfs::errno::Result<()>;
    let acts: [(&str, Act); 5] = [
        ("unlink", |union| union.unlink(union.root(), name("f"))),
        ("rmdir", |union| union.rmdir(union.root(), name("e"))),
        ("rename", |union| {
            union.rename((union.root(), name("f")), (union.root(), name("g")), RenameFlag::None)
        }),
        ("link", |union| union.link(at(union, "f"), union.root(), name("g")).map(drop)),
        ("setxattr", |union| union.setxattr(at(union, "f"), b"user.a", b"v", 0)),
    ];
    for (what, act) in acts {
        for deleted in [false, true] {
            let upper = TreeSpec::new().file("f", "kept").file("old", "").dir("e").mem(1);
            let fault = FaultLayer::new(upper);
            let union = mount(fault.clone(), &[]);
            let old = at(&union, "old");
            if deleted {
                union.unlink(union.root(), name("old")).unwrap();
            }
            fault.arm(Fault::Fail(1, Errno::ENOSPC));
            let done = std::thread::scope(|scope| {
                let acting = scope.spawn(|| act(&union));
                while fault.count() == 0 {
                    std::thread::yield_now();
                }
                union.forget(old, 1);
                acting.join().unwrap()
            });
            match done {
                Ok(()) => assert!(deleted, "{what}: the fault hit nothing"),
                Err(error) => {
                    assert_eq!((deleted, error.errno()), (false, Errno::ENOSPC), "{what}");
                }
            }
        }
    }
}
