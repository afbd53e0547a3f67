use std::fs;

use super::*;
use crate::image::compression::Encoder;
use crate::image::digest::Digest;
use crate::image::platform::Platform;
use crate::image::tests::{Sample, Tape, open, read};

const HOST: &str = "linux/amd64";
const LAYERS: [&[u8]; 2] = [b"the lower layer", b"the upper layer"];

fn sample() -> Sample {
    let sample = Sample::new();
    sample.index(vec![sample.image(HOST, &LAYERS)]);
    sample
}

/// The path holds the image of [`sample`].
#[track_caller]
fn is_the_sample(path: &Path) {
    let source = open(path).unwrap();
    let images = source.images(&Platform::host()).unwrap();
    assert_eq!(images.len(), 1);
    for (layer, bytes) in images[0].layers.iter().zip(LAYERS) {
        assert_eq!(read(source.as_ref(), layer).unwrap(), bytes);
    }
}

#[track_caller]
fn refused(path: &Path) -> String {
    let shown = path.display().to_string();
    let opened = open(path).and_then(|source| source.images(&Platform::host()));
    let text = opened.unwrap_err().to_string();
    assert!(text.starts_with(&shown), "{text}");
    text
}

#[test]
fn an_archive_is_read_plain_and_compressed() {
    let archive = Tape::of(&sample()).done();
    is_the_sample(archive.path());
    let plain = fs::read(archive.path()).unwrap();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let scratch = tempfile::tempdir().unwrap();
        let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
        encoder.write_all(&plain).unwrap();
        let path = scratch.path().join("image");
        fs::write(&path, encoder.finish().unwrap()).unwrap();
        is_the_sample(&path);
        crate::image::source::open(&path, scratch.path()).unwrap();
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "nothing is left behind");
    }
}

#[test]
fn an_archive_may_come_through_a_pipe() {
    let archive = Tape::of(&sample()).done();
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| fs::copy(archive.path(), &fifo).unwrap());
        is_the_sample(&fifo);
    });
}

#[test]
fn several_layers_are_read_at_once() {
    let layers: Vec<Vec<u8>> = (0..4_u8).map(|n| vec![n; 300_000]).collect();
    let slices: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let sample = Sample::new();
    sample.index(vec![sample.image(HOST, &slices)]);
    let archive = Tape::of(&sample).done();
    let source = open(archive.path()).unwrap();
    let image = source.images(&Platform::host()).unwrap().remove(0);
    std::thread::scope(|scope| {
        for (layer, bytes) in image.layers.iter().zip(&layers) {
            let source = source.as_ref();
            scope.spawn(move || assert_eq!(read(source, layer).unwrap(), *bytes));
        }
    });
}

#[test]
fn names_have_one_spelling_and_the_last_file_counts() {
    let archive = Tape::new()
        .file("./oci-layout", b"[")
        .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("a//../b/./index.json", b"x")
        .done();
    let files = Archive::open(crate::image::tests::file(archive.path()).into(), "/tmp".as_ref());
    let files = files.unwrap();
    assert_eq!(files.open("oci-layout").unwrap().unwrap().size, 30);
    assert_eq!(files.open("/b/index.json").unwrap().unwrap().size, 1);
    assert!(files.open("index.json").unwrap().is_none());
}

#[test]
fn links_are_followed_within_the_archive_only() {
    let hard = tar::EntryType::Link;
    let long = |n: usize| format!("l{n}");
    let mut tape = Tape::new()
        .file("oci-layout", b"x")
        .file("dir/file", b"12")
        .symlink("dir/up", "../dir/file")
        .symlink("absolute", "/dir/file")
        .symlink("out", "../dir/file")
        .symlink("etc", "/etc/passwd")
        .symlink("loop", "loop")
        .link(hard, "dir/hard", "dir/file")
        .link(tar::EntryType::Fifo, "fifo", "");
    for n in 0..20 {
        tape = tape.symlink(&long(n), &long(n + 1));
    }
    let archive = tape.done();
    let files = Archive::open(crate::image::tests::file(archive.path()).into(), "/tmp".as_ref());
    let files = files.unwrap();
    for name in ["dir/file", "dir/up", "dir/hard", "absolute"] {
        assert_eq!(files.open(name).unwrap().unwrap().size, 2, "{name}");
    }
    assert!(files.open("etc").unwrap().is_none());
    assert!(files.open("../dir/file").unwrap().is_none());
    for (name, why) in [("out", "not a regular"), ("fifo", "not a regular"), ("loop", "too many")] {
        let text = files.open(name).unwrap_err().to_string();
        assert!(text.starts_with(&format!("{name}: {why}")), "{text}");
    }
    assert!(files.open("l0").unwrap_err().to_string().contains("too many links"));
    assert!(files.open("l15").unwrap().is_none());
}

#[test]
fn what_is_no_archive_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(refused(file.path()).contains("neither an OCI layout"), "empty");
    fs::write(file.path(), b"no archive at all".repeat(100)).unwrap();
    assert!(refused(file.path()).contains("tar"), "{}", refused(file.path()));
    fs::write(file.path(), b"\x1f\x8b\x08garbage").unwrap();
    assert!(refused(file.path()).contains("gzip"), "{}", refused(file.path()));
    let other = Tape::new().file("etc/passwd", b"x").done();
    assert!(refused(other.path()).contains("neither an OCI layout"));
    let missing = Path::new("/nowhere/at/all");
    assert_eq!(open(missing).unwrap_err().errno(), Errno::ENOENT);
    assert!(refused(missing).contains("/nowhere/at/all"));
    let text = refused(Path::new("/dev/null"));
    assert!(text.contains("neither"), "{text}");
}

#[test]
fn an_archive_that_is_cut_is_refused() {
    let archive = Tape::of(&sample()).done();
    let whole = fs::metadata(archive.path()).unwrap().len();
    let file = fs::File::options().write(true).open(archive.path()).unwrap();
    let mut refused = 0;
    for length in (1..whole - 1024).rev().step_by(333) {
        file.set_len(length).unwrap();
        // If it ends after all that counts (or between two entries), it is taken; whole, though.
        match open(archive.path()).and_then(|source| {
            let images = source.images(&Platform::host())?;
            images[0].layers.iter().try_for_each(|layer| read(source.as_ref(), layer).map(drop))
        }) {
            Ok(()) => {}
            Err(error) => {
                assert!(error.context().is_some(), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn huge_claims_are_refused_at_once() {
    let mut header = tar::Header::new_gnu();
    header.set_path("oci-layout").unwrap();
    for size in [1 << 40, u64::MAX >> 1, u64::MAX] {
        header.set_size(size);
        header.set_cksum();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), header.as_bytes()).unwrap();
        let text = refused(file.path());
        assert!(text.contains("oci-layout"), "{size}: {text}");
    }
}

#[test]
fn a_sparse_member_is_refused_where_it_counts() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_path("oci-layout").unwrap();
    header.set_size(512);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(1 << 40);
    gnu.sparse[0].set_offset(0);
    gnu.sparse[0].set_length(512);
    header.set_cksum();
    let mut builder = tar::Builder::new(tempfile::NamedTempFile::new().unwrap());
    builder.append(&header, &[b'x'; 512][..]).unwrap();
    let file = builder.into_inner().unwrap();
    let text = refused(file.path());
    assert!(text.contains("oci-layout: a sparse file"), "{text}");
}

#[test]
fn a_bomb_is_put_out() {
    let file = tempfile::NamedTempFile::new().unwrap();
    // A frame of zstd says "128 KiB of zeros" in four bytes; many of them in a thousandth of it.
    let mut encoder = zstd::Encoder::new(fs::File::create(file.path()).unwrap(), 1).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..(RATIO_FLOOR >> 20) + 8 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap();
    let error = open(file.path()).unwrap_err();
    assert_eq!(error.errno(), Errno::EFBIG);
    assert!(error.to_string().contains("more than 200 times its size"), "{error}");
}

#[test]
fn a_digest_counts_in_archives_too() {
    let sample = sample();
    let bad = Digest::of(LAYERS[1]);
    let archive =
        Tape::of(&sample).file(&format!("blobs/sha256/{}", bad.hex()), b"THE upper layer");
    let archive = archive.done();
    let source = open(archive.path()).unwrap();
    let image = source.images(&Platform::host()).unwrap().remove(0);
    read(source.as_ref(), &image.layers[0]).unwrap();
    let text = read(source.as_ref(), &image.layers[1]).unwrap_err().to_string();
    assert!(text.contains(&format!("layer {bad}: corrupt")), "{text}");
}
