//! One kind of change at a time, with the entries that it has to give.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use super::*;
use plyfs::name::Name;
use plyfs::testkit::Outcome;
use plyfs::union::{Caller, Mode as NodeMode, RenameFlag};

fn at(path: &str) -> Place {
    Place::from(path)
}

fn append(path: &str) -> Op<Place> {
    Op::Append(at(path), 3, b'+')
}

fn rename(from: &str, to: &str) -> Op<Place> {
    Op::Rename(at(from), at(to), RenameFlag::None)
}

/// A stand whose union did all of `ops`.
fn changed(lowers: &[TreeSpec], ops: &[Op<Place>]) -> (Stand, UnionTarget) {
    let stand = Stand::new(lowers);
    let mut union = stand.mount();
    for op in ops {
        let outcome = union.apply(op);
        let done = matches!(outcome, Outcome::Done | Outcome::Count(_));
        assert!(done, "{op}: {outcome:?}");
    }
    (stand, union)
}

/// The entries (but for the root's) that `ops` over `lowers` give; checks that they give the tree.
fn layer_of(lowers: &[TreeSpec], ops: &[Op<Place>]) -> String {
    let (stand, mut union) = changed(lowers, ops);
    let (layer, _) = stand.check(&mut union);
    union.unmount();
    let all = listing(&layer);
    all.strip_prefix("./\n").unwrap_or(&all).to_owned()
}

#[test]
fn only_what_changed_is_told() {
    if !is_root() {
        return;
    }
    let lower = TreeSpec::new().dir("d").file("d/a", "a").file("d/b", "b").dir("e").file("e/x", "");
    let one = std::slice::from_ref(&lower);
    assert_eq!(layer_of(one, &[]), "");
    assert_eq!(layer_of(one, &[append("d/a")]), "d/\nd/a 4\n");
    assert_eq!(layer_of(one, &[Op::Unlink(at("d/a"))]), "d/\nd/.wh.a\n");
    let ops = [Op::Unlink(at("e/x")), Op::Rmdir(at("e")), Op::Create(at("e"), 0o644)];
    assert_eq!(layer_of(one, &ops), "e 0\n");
    // Made and gone again, or back: nothing is below that needs hiding.
    let ops = [Op::Create(at("new"), 0o644), Op::Unlink(at("new"))];
    assert_eq!(layer_of(one, &ops), "");
    let ops = [rename("d", "n"), Op::Mkdir(at("d"), 0o755), Op::Rmdir(at("d")), rename("n", "d")];
    assert_eq!(layer_of(one, &ops), "d/\n");
}

#[test]
fn whiteouts_come_first() {
    if !is_root() {
        return;
    }
    let lower = TreeSpec::new().file("a", "").file("m", "").file("z", "").dir("d").file("d/z", "");
    let ops = [
        Op::Unlink(at("z")),
        Op::Unlink(at("m")),
        append("a"),
        Op::Unlink(at("d/z")),
        Op::Create(at("d/a"), 0o644),
        Op::Create(at("d.x"), 0o644),
    ];
    let expected = ".wh.m\n.wh.z\na 3\nd/\nd/.wh.z\nd/a 0\nd.x 0\n";
    assert_eq!(layer_of(&[lower], &ops), expected);
}

#[test]
fn what_an_opaque_directory_hides_is_whited_out_by_name() {
    if !is_root() {
        return;
    }
    let lower = TreeSpec::new().dir("d").file("d/a", "a").dir("d/s").file("d/s/x", "x").dir("d/t");
    let ops = [
        Op::Unlink(at("d/a")),
        Op::Unlink(at("d/s/x")),
        Op::Rmdir(at("d/s")),
        Op::Rmdir(at("d/t")),
        Op::Rmdir(at("d")),
        Op::Mkdir(at("d"), 0o700),
        Op::Create(at("d/a"), 0o600),
        Op::Mkdir(at("d/s"), 0o700),
    ];
    assert_eq!(layer_of(&[lower], &ops), "d/\nd/.wh.t\nd/a 0\nd/s/\nd/s/.wh.x\n");
    // The root itself.
    let stand = Stand::new(&[TreeSpec::new().dir("d").file("f", "")]);
    rustix::fs::setxattr(stand.at("upper"), "trusted.overlay.opaque", b"y", XattrFlags::empty())
        .unwrap();
    let (layer, stats) = stand.layer().unwrap();
    assert!(listing(&layer).ends_with(".wh.d\n.wh.f\n"));
    assert_eq!(stats.whiteouts, 2);
}

#[test]
fn renamed_directories_come_whole() {
    if !is_root() {
        return;
    }
    let low = TreeSpec::new().dir("d").dir("d/s").file("d/s/x", "x").file("d/a", "a");
    let high = TreeSpec::new().dir("d").file("d/b", "b").whiteout("d/a").dir("n").file("n/q", "");
    let lowers = [high, low];
    assert_eq!(layer_of(&lowers, &[rename("d", "m")]), ".wh.d\nm/\nm/b 1\nm/s/\nm/s/x 1\n");
    // Changed inside before and after, and moved over what is below.
    let ops = [
        append("d/b"),
        Op::Unlink(at("n/q")),
        rename("d", "n"),
        Op::Unlink(at("n/s/x")),
        Op::Create(at("n/s/y"), 0o644),
        rename("n/s", "d"),
    ];
    assert_eq!(layer_of(&lowers, &ops), "d/\nd/.wh.b\nd/.wh.s\nd/y 0\nn/\nn/.wh.q\nn/b 4\n");
}

#[test]
fn hard_links_stay_together() {
    if !is_root() {
        return;
    }
    let lower = TreeSpec::new()
        .dir("d")
        .file("d/a", "one")
        .hardlink("d/a", "b")
        .dir("e")
        .dir("e/f")
        .hardlink("d/a", "e/f/c")
        .file("e/f/alone", "");
    let one = std::slice::from_ref(&lower);
    // One name was written to: the others are only below.
    let expected = "b 6\nd/\nd/a = b\ne/\ne/f/\ne/f/c = b\n";
    assert_eq!(layer_of(one, &[append("d/a")]), expected);
    // One of them is gone, one is new.
    let ops = [append("e/f/c"), Op::Unlink(at("b")), Op::Link(at("d/a"), at("n"))];
    let expected = ".wh.b\nd/\nd/a 6\ne/\ne/f/\ne/f/c = d/a\nn = d/a\n";
    assert_eq!(layer_of(one, &ops), expected);
    // One of them is gone, and the others are only below.
    let expected = ".wh.b\nd/\nd/a 3\ne/\ne/f/\ne/f/c = d/a\n";
    assert_eq!(layer_of(one, &[Op::Unlink(at("b"))]), expected);
    // A directory with one name moved away: nothing was copied up.
    let expected = ".wh.e\nb 3\nd/\nd/a = b\nm/\nm/f/\nm/f/alone 0\nm/f/c = b\n";
    assert_eq!(layer_of(one, &[rename("e", "m")]), expected);
    // All names are in the upper layer.
    let ops = [
        append("b"),
        Op::Link(at("b"), at("x")),
        Op::Unlink(at("d/a")),
        Op::Unlink(at("e/f/c")),
        Op::Unlink(at("b")),
    ];
    assert_eq!(layer_of(one, &ops), ".wh.b\nd/\nd/.wh.a\ne/\ne/f/\ne/f/.wh.c\nx 6\n");
    let ops = [Op::Symlink(at("s"), 1), Op::Link(at("s"), at("t"))];
    assert_eq!(layer_of(&[], &ops), "s -> target1\nt = s\n");
}

#[test]
fn devices_attributes_and_empty_values_come_through() {
    if !is_root() {
        return;
    }
    let lower = TreeSpec::new().dir("d").file("d/f", "f");
    let ops = [
        Op::Char(at("d/null"), 0),
        Op::Char(at("d/one"), 1),
        Op::Fifo(at("d/fifo"), 0o640),
        Op::SetXattr(at("d/f"), 2, 7, 0),
        Op::SetXattr(at("d"), 0, 0, 0),
        Op::Chown(at("d/f"), 5, 6),
        Op::Chmod(at("d/f"), 0o6751),
        Op::Utimens(at("d/f"), 9),
        Op::Chmod(at(""), 0o711),
    ];
    let (stand, mut union) = changed(&[lower], &ops);
    let (layer, _) = stand.check(&mut union);
    let expected = "./\nd/\nd/f 1\nd/fifo fifo\nd/null c0x0\nd/one c0x1\n";
    assert_eq!(listing(&layer), expected);
    let all = entries(&layer);
    assert_eq!((all[0].0.perm, all[2].0.uid), (0o711, 5));
    let names: Vec<_> = all[2].0.xattrs.iter().map(|(name, _)| name.as_slice()).collect();
    assert_eq!(names, [b"trusted.overlay.opaque"]);
    union.unmount();
}

#[test]
fn names_that_no_layer_holds_are_refused() {
    if !is_root() {
        return;
    }
    for op in [Op::Create(at("d/.wh.x"), 0o644), Op::Mkdir(at("d/.wh.x"), 0o755)] {
        let (stand, mut union) = changed(&[TreeSpec::new().dir("d")], &[op]);
        let error = stand.layer().unwrap_err();
        assert_eq!(error.errno(), Errno::EINVAL);
        assert!(error.to_string().starts_with("'d/.wh.x': no image layer can hold"), "{error}");
        union.unmount();
    }
}

#[test]
fn sockets_are_left_out_and_counted() {
    if !is_root() {
        return;
    }
    let lower = TreeSpec::new().file("s", "hidden by the socket");
    let (stand, mut union) = changed(&[lower], &[Op::Unlink(at("s"))]);
    for name in [&b"s"[..], b"t"] {
        let (union, mode) = (union.union(), NodeMode { perm: 0o600, umask: 0 });
        let (name, socket) = (Name::new(name).unwrap(), (Kind::Socket, 0));
        let made = union.mknod(union.root(), name, socket, mode, &Caller::default()).unwrap();
        union.forget(made.node, 1);
    }
    let (layer, stats) = stand.layer().unwrap();
    assert_eq!(listing(&layer).trim_start_matches("./\n"), ".wh.s\n");
    assert_eq!((stats.sockets, stats.whiteouts), (2, 1));
    union.unmount();
}

#[test]
fn holes_stay_holes() {
    if !is_root() {
        return;
    }
    let stand = Stand::new(&[]);
    let make = |name: &str, size: u64, pieces: &[u64]| {
        let file = fs::File::create(stand.at("upper").join(name)).unwrap();
        file.set_len(size).unwrap();
        for piece in pieces {
            file.write_all_at(b"data", *piece).unwrap();
        }
    };
    make("all hole", 100 << 20, &[]);
    make("end", (10 << 20) + 5, &[0, 3 << 20, (10 << 20) + 1]);
    make("middle", 1 << 40, &[1 << 39]);
    make("short", 60 << 10, &[0]);
    let (layer, stats) = stand.layer().unwrap();
    let mut reader = Reader::new(layer.as_slice(), Limits::default());
    let mut found = BTreeMap::new();
    while let Some(entry) = reader.next().unwrap() {
        let (mut buf, mut pieces, mut stored) = (vec![0; 1 << 20], Vec::new(), 0);
        while let Some((at, n)) = reader.data(&mut buf).unwrap() {
            stored += n as u64;
            for (k, data) in buf[..n].windows(4).enumerate() {
                if data == b"data" {
                    pieces.push(at + k as u64);
                }
            }
        }
        found.insert(String::from_utf8(entry.path).unwrap(), (entry.what, stored, pieces));
    }
    let pieces = |name: &str| found[name].2.clone();
    assert_eq!(found["all hole"], (What::File(100 << 20), 0, vec![]));
    assert_eq!(pieces("end"), [0, 3 << 20, (10 << 20) + 1]);
    assert!(found["end"].1 <= 12288);
    assert_eq!((pieces("middle"), found["middle"].1), (vec![1 << 39], 4096));
    assert_eq!(found["short"].1, 60 << 10);
    assert_eq!(stats.bytes, found.values().map(|(_, stored, _)| stored).sum::<u64>());
}

#[test]
fn data_of_metadata_only_copies_come_from_below() {
    if !is_root() {
        return;
    }
    let stand =
        Stand::new(&[TreeSpec::new().dir("d").file("d/f", "the data below").file("g", "g")]);
    let upper = stand.at("upper");
    let mark = |path: &Path, name: &str, value: &[u8]| {
        let name = format!("trusted.overlay.{name}");
        rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    // As the kernel leaves it after `chmod 600 d/f; mv d/f new`.
    let new = upper.join("new");
    fs::File::create(&new).unwrap().set_len(14).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    mark(&new, "metacopy", b"");
    mark(&new, "redirect", b"/d/f");
    let (layer, _) = stand.layer().unwrap();
    let all = entries(&layer);
    let (entry, content) = all.last().unwrap();
    assert_eq!((entry.path.as_slice(), entry.perm), (&b"new"[..], 0o600));
    assert_eq!(content, b"the data below");
    // The same file over a stack that does not have it.
    mark(&new, "redirect", b"/d/nothing");
    let error = stand.layer().unwrap_err();
    assert!(error.to_string().starts_with("'new': no layer below has"), "{error}");
    mark(&new, "verity", b"?");
    let error = stand.layer().unwrap_err();
    assert!(error.to_string().contains("trusted.overlay.verity"), "{error}");
}

fn umoci(dir: &Path, args: &[&str]) {
    let run = Command::new("umoci").args(args).current_dir(dir).output().unwrap();
    assert!(run.status.success(), "umoci {args:?}: {}", String::from_utf8_lossy(&run.stderr));
}

/// Two layers, one over the other, unpacked by umoci.
#[test]
fn umoci_unpacks_the_same_tree() {
    if !is_root() || Command::new("umoci").arg("--version").output().is_err() {
        return;
    }
    let lower = TreeSpec::new()
        .dir("d")
        .dir("d/s")
        .file("d/s/x", "x")
        .file("d/a", "one")
        .hardlink("d/a", "b")
        .file("gone", "")
        .dir("over")
        .file("over/f", "f");
    let long = "n".repeat(200);
    let long = format!("{long}/{long}");
    let ops = [
        append("d/a"),
        Op::Unlink(at("gone")),
        rename("d/s", "over/s"),
        Op::Mkdir(at(&"n".repeat(200)), 0o755),
        Op::Create(at(&long), 0o640),
        Op::Write(at(&long), 9 << 20, 3, b'e'),
        Op::SetXattr(at(&long), 0, 1, 0),
        Op::Chown(at(&long), 3_000_000, 4_000_000_000),
        Op::Symlink(at("link"), 3),
        Op::Char(at("zero"), 0),
        Op::Utimens(at("over/f"), 5),
        Op::Create(Place(vec![b"raw\xe9\xff".to_vec()]), 0o644),
    ];
    let (stand, mut union) = changed(&[lower], &ops);
    let (layer, _) = stand.layer().unwrap();
    let mut base = Vec::new();
    let bottom = Stand::lowers(stand.temp.path(), 1);
    layer_tar(&bottom[0], None, &[], &mut base).unwrap();
    fs::write(stand.at("base.tar"), base).unwrap();
    fs::write(stand.at("layer.tar"), layer).unwrap();
    let dir = stand.temp.path();
    umoci(dir, &["init", "--layout", "oci"]);
    umoci(dir, &["new", "--image", "oci:x"]);
    umoci(dir, &["raw", "add-layer", "--image", "oci:x", "base.tar"]);
    umoci(dir, &["raw", "add-layer", "--image", "oci:x", "layer.tar"]);
    umoci(dir, &["raw", "unpack", "--image", "oci:x", "out"]);
    let out = SystemTarget::new("umoci", &stand.at("out"), || {}).tree();
    assert_eq!(text(&out), text(&union.tree()));
    let sparse = fs::metadata(stand.at("out").join(&long)).unwrap();
    assert_eq!(sparse.size(), (9 << 20) + 3);
    union.unmount();
}
