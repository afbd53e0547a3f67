//! Samples made by other hands: GNU tar, python's tarfile, the tar crate.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

use super::super::samples::{Item, output, python, read_all, summary};
use super::*;

mod hostile;

fn named<'a>(items: &'a [Item], path: &str) -> &'a Item {
    items.iter().find(|(entry, _)| entry.path == path.as_bytes()).unwrap()
}

/// A tree with every type that needs no privileges.
fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/file"), vec![b'x'; 1000]).unwrap();
    fs::write(at("d/empty"), b"").unwrap();
    fs::write(at("d/block"), vec![b'b'; 512]).unwrap();
    fs::set_permissions(at("d/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(at("d/file"), at("d/link")).unwrap();
    symlink("file", at("d/symlink")).unwrap();
    output(dir.path(), "mkfifo", &["d/fifo"]);
    output(dir.path(), "touch", &["-d", "2001-02-03 04:05:06.789", "d/file"]);
    dir
}

const SORTED: &[&str] = &["--sort=name", "--owner=7", "--group=8", "-cf", "-", "."];

#[test]
fn gnu_tar_writes_the_same_tree_in_five_formats() {
    let dir = tree();
    for format in ["v7", "oldgnu", "gnu", "ustar", "pax"] {
        let how = format!("--format={format}");
        // v7 has no FIFOs.
        let mut args = vec![how.as_str(), "--exclude=fifo"];
        if format != "v7" {
            args.pop();
        }
        args.extend(SORTED);
        let items = read_all(&output(dir.path(), "tar", &args)).unwrap();
        let fifo = if format == "v7" { "" } else { "./d/fifo Fifo\n" };
        let expected = format!(
            "./ Dir\n./d/ Dir\n./d/block File(512)\n./d/empty File(0)\n{fifo}./d/file File(1000)\n\
             ./d/link HardLink(\"./d/file\")\n./d/symlink Symlink(\"file\")\n"
        );
        let found = summary(&items);
        let found = found.replace("[46, 47, 100, 47, 102, 105, 108, 101]", "\"./d/file\"");
        assert_eq!(found.replace("[102, 105, 108, 101]", "\"file\""), expected, "{format}");
        let (file, content) = named(&items, "./d/file");
        assert_eq!((file.perm, file.uid, file.gid), (0o4751, 7, 8));
        assert_eq!(*content, vec![b'x'; 1000]);
        let nsec = if format == "pax" { 789_000_000 } else { 0 };
        assert_eq!(file.mtime, Time { sec: 981_173_106, nsec }, "{format}");
    }
}

#[test]
fn long_names_come_in_three_ways() {
    let dir = tempfile::tempdir().unwrap();
    let deep = ["n".repeat(200), "m".repeat(255)].join("/");
    fs::create_dir_all(dir.path().join(&deep)).unwrap();
    let target = "t/".repeat(300);
    symlink(&target, dir.path().join("link")).unwrap();
    for format in ["oldgnu", "gnu", "pax"] {
        let how = format!("--format={format}");
        let items = read_all(&output(dir.path(), "tar", &[&how, "-cf", "-", "."])).unwrap();
        named(&items, &format!("./{deep}/"));
        let (link, _) = named(&items, "./link");
        assert_eq!(link.what, What::Symlink(target.clone().into_bytes()), "{format}");
    }
    // A name that needs the prefix of ustar.
    let split = ["p".repeat(90), "q".repeat(80)].join("/");
    fs::create_dir_all(dir.path().join("u").join(&split)).unwrap();
    let stream = output(dir.path(), "tar", &["--format=ustar", "-cf", "-", "u"]);
    named(&read_all(&stream).unwrap(), &format!("u/{split}/"));
}

#[test]
fn sparse_files_come_in_four_forms() {
    let dir = tempfile::tempdir().unwrap();
    // Enough pieces for several extension blocks, one at the start; data up to the end or not.
    for (name, size, pieces) in [
        ("many", 30 << 16, (0..30_u64).map(|n| n << 16).collect::<Vec<_>>()),
        ("tail", 1 << 20, vec![1 << 16]),
        ("end", (1 << 20) + 5, vec![0, 1 << 20]),
        ("hole", 1 << 20, vec![]),
    ] {
        let file = fs::File::create(dir.path().join(name)).unwrap();
        file.set_len(size).unwrap();
        for at in pieces {
            let data = format!("at {at}").into_bytes();
            let room = usize::try_from(size - at).unwrap().min(data.len());
            file.write_all_at(&data[..room], at).unwrap();
        }
    }
    for args in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let args = [args, &["--sparse", "-cf", "-", "many", "tail", "end", "hole"]].concat();
        let stream = output(dir.path(), "tar", &args);
        assert!(stream.len() < 1 << 20, "GNU tar found the holes");
        let items = read_all(&stream).unwrap();
        assert_eq!(items.len(), 4);
        for (entry, content) in items {
            let name = String::from_utf8(entry.path).unwrap();
            let whole = fs::read(dir.path().join(&name)).unwrap();
            assert_eq!(entry.what, What::File(whole.len() as u64));
            assert!(content == whole, "{args:?}: {name}");
        }
    }
}

#[test]
fn records_hold_any_bytes() {
    let stream = python(
        "PAX",
        r#"
raw = lambda b: b.decode("utf-8", "surrogateescape")
add("x", b"data", mtime=-1.25, pax={
    "SCHILY.xattr.user.a": "1\n2=3", "SCHILY.xattr.user.b=c"[:19]: "b",
    "SCHILY.xattr.security.capability": raw(bytes(range(256))), "SCHILY.xattr.user.empty": "",
    "comment": "12 path=y\n", "atime": "nonsense", "hdrcharset": "BINARY"})
add(raw(b"caf\xe9/\xff"), uid=4000000000, gid=3000000, mtime=1e9 + 0.5)
add("plain", mtime=5)
"#,
    );
    let items = read_all(&stream).unwrap();
    let (x, content) = &items[0];
    assert_eq!((x.path.as_slice(), content.as_slice()), (&b"x"[..], &b"data"[..]));
    assert_eq!(x.mtime, Time { sec: -2, nsec: 750_000_000 });
    let xattr = |name: &str| x.xattrs.iter().find(|(n, _)| n == name.as_bytes()).unwrap().1.clone();
    assert_eq!(xattr("user.a"), b"1\n2=3");
    assert_eq!(xattr("security.capability"), (0..=255).collect::<Vec<u8>>());
    assert_eq!(xattr("user.empty"), b"");
    let (raw, _) = &items[1];
    assert_eq!(
        (raw.path.as_slice(), raw.uid, raw.gid),
        (&b"caf\xe9/\xff"[..], 4_000_000_000, 3_000_000)
    );
    assert_eq!(raw.mtime, Time { sec: 1_000_000_000, nsec: 500_000_000 });
    // Nothing of one entry's records reaches the next.
    assert_eq!(items[2].0.xattrs, []);
    assert_eq!(items[2].0.mtime, Time { sec: 5, nsec: 0 });
}

#[test]
fn global_headers_are_passed_over() {
    let stream = python(
        "PAX",
        r#"
t.pax_headers = {"comment": "x" * 3000, "path": "everywhere", "SCHILY.xattr.user.g": "1"}
t.offset = 0; t.close; t2 = t
buf = t.tarinfo.create_pax_global_header(t.pax_headers)
out.seek(0); out.truncate(); out.write(buf); t.offset = len(buf)
add("a", b"1"); add("b")
"#,
    );
    assert_eq!(summary(&read_all(&stream).unwrap()), "a File(1)\nb File(0)\n");
}

#[test]
fn numbers_may_be_in_base_256() {
    let stream = python(
        "GNU",
        r#"
add("big", uid=4000000000, gid=2097152, mtime=-1)
add("later", mtime=2**40)
add("device", type=tarfile.CHRTYPE, devmajor=5, devminor=1)
add("disk", type=tarfile.BLKTYPE, devmajor=0xfff, devminor=0xfffff)
add("zero", type=tarfile.CHRTYPE)
"#,
    );
    let items = read_all(&stream).unwrap();
    let all: Vec<_> = items.iter().map(|(entry, _)| entry).collect();
    assert_eq!((all[0].uid, all[0].gid, all[0].mtime.sec), (4_000_000_000, 2_097_152, -1));
    assert_eq!(all[1].mtime.sec, 1 << 40);
    assert_eq!(all[2].what, What::Char(rustix::fs::makedev(5, 1)));
    assert_eq!(all[3].what, What::Block(rustix::fs::makedev(0xfff, 0xf_ffff)));
    assert_eq!(all[4].what, What::Char(0));
}

#[test]
fn the_tar_crate_is_understood() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o640);
    let long = "long/".repeat(60) + "name";
    builder.append_data(&mut header, &long, &b"hello"[..]).unwrap();
    builder.append_pax_extensions([("SCHILY.xattr.user.x", &b"\0\n"[..])]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Continuous);
    header.set_path("contiguous").unwrap();
    header.set_size(1);
    header.set_cksum();
    builder.append(&header, &b"c"[..]).unwrap();
    let items = read_all(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(named(&items, &long).1, b"hello");
    let (contiguous, content) = named(&items, "contiguous");
    assert_eq!((&contiguous.what, content.as_slice()), (&What::File(1), &b"c"[..]));
    assert_eq!(contiguous.xattrs, [(b"user.x".to_vec(), b"\0\n".to_vec())]);
}
