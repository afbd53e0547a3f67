//! Contents: open, read, write, truncate, holes, and whose bytes they are.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::process::Command;

use super::stand::{Stand, errno, fingerprint, rerrno, run};

fn files(lower: &std::path::Path) {
    fs::write(lower.join("f"), "0123456789").unwrap();
    fs::write(lower.join("big"), vec![b'x'; 3 << 20]).unwrap();
    let holes = File::create(lower.join("holes")).unwrap();
    holes.write_all_at(b"start", 0).unwrap();
    holes.write_all_at(b"middle", 4 << 20).unwrap();
    holes.set_len(16 << 20).unwrap();
    run("mkfifo", &[&"--mode=640", &lower.join("fifo")]);
    run("mknod", &[&lower.join("zero"), &"c", &"1", &"5"]);
}

#[test]
fn line_28_who_opened_before_the_copy_up_sees_what_is_written_after() {
    let stand = Stand::new(files);
    let early = File::open(stand.at("f")).unwrap();
    let mut buf = [0; 10];
    early.read_exact_at(&mut buf, 0).unwrap();
    fs::write(stand.at("f"), "abcdefghij").unwrap();
    early.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"abcdefghij");
}

/// Kernel overlayfs goes on showing the lower file's pages.
#[test]
fn line_28_a_mapping_from_before_the_copy_up_sees_what_is_written_after() {
    let stand = Stand::new(files);
    let script = r#"
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
m = mmap.mmap(fd, 10, mmap.MAP_SHARED, mmap.PROT_READ)
assert m[:] == b"0123456789", m[:]
w = os.open(sys.argv[1], os.O_WRONLY)
os.pwrite(w, b"AB", 4)
assert m[:] == b"0123AB6789", m[:]
before = os.stat(sys.argv[1]).st_mtime_ns
rw = os.open(sys.argv[1], os.O_RDWR)
n = mmap.mmap(rw, 10, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
n[0:2] = b"MM"
n.flush()
assert m[:2] == b"MM", m[:]
os.close(rw)
assert os.stat(sys.argv[1]).st_mtime_ns > before, "mtime does not move with the mapping"
"#;
    run("python3", &[&"-c", &script, &stand.at("f")]);
    assert_eq!(fs::read(stand.path("upper/f")).unwrap(), b"MM23AB6789");
    assert_eq!(fs::read(stand.path("lower/f")).unwrap(), b"0123456789");
}

/// fuse-overlayfs 2.0 writes into the image when a reader came before the writer.
#[test]
fn line_29_no_write_reaches_a_lower_layer() {
    let stand = Stand::new(files);
    let before = fingerprint(&stand.path("lower"));
    let readers: Vec<_> = (0..3).map(|_| File::open(stand.at("f")).unwrap()).collect();
    let writer = OpenOptions::new().write(true).open(stand.at("f")).unwrap();
    let late = File::open(stand.at("f")).unwrap();
    writer.write_all_at(b"WRITTEN", 0).unwrap();
    drop(readers);
    let second = OpenOptions::new().read(true).write(true).open(stand.at("f")).unwrap();
    second.write_all_at(b"!", 9).unwrap();
    drop((writer, late, second));
    assert_eq!(fs::read(stand.at("f")).unwrap(), b"WRITTEN78!");
    fs::write(stand.at("big"), "short").unwrap();
    File::options().append(true).open(stand.at("holes")).unwrap().write_all(b"end").unwrap();
    assert_eq!(before, fingerprint(&stand.path("lower")));
}

/// fuse-overlayfs copies the whole file first.
#[test]
fn line_30_truncation_copies_no_more_than_is_left() {
    let stand = Stand::new(files);
    let options = |size: u64| {
        let file = OpenOptions::new().write(true).open(stand.at("big")).unwrap();
        file.set_len(size).unwrap();
    };
    drop(OpenOptions::new().write(true).truncate(true).open(stand.at("f")).unwrap());
    assert_eq!(stand.at("f").metadata().unwrap().len(), 0);
    assert!(stand.path("upper/f").metadata().unwrap().blocks() <= 8, "attributes at most");
    let path = stand.at("big");
    run("truncate", &[&"--size=5", &path]);
    assert_eq!(fs::read(&path).unwrap(), b"xxxxx");
    options(8);
    assert_eq!(fs::read(&path).unwrap(), b"xxxxx\0\0\0", "lower bytes do not come back");
}

#[test]
fn line_31_two_appenders_lose_nothing() {
    let stand = Stand::new(files);
    let path = stand.at("f");
    let writers: Vec<_> = (0..4)
        .map(|number| {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut file = OpenOptions::new().append(true).open(path).unwrap();
                for _ in 0..200 {
                    file.write_all(format!("line of {number}\n").as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text["0123456789".len()..].lines().collect();
    assert_eq!(lines.len(), 800);
    assert!(lines.iter().all(|line| line.starts_with("line of ")));
}

#[test]
fn line_31_direct_io_works() {
    let stand = Stand::new(files);
    let status = std::process::Command::new("dd")
        .args(["if=/dev/zero", "bs=4096", "count=4", "oflag=direct", "status=none"])
        .arg(format!("of={}", stand.at("big").display()))
        .arg("conv=notrunc")
        .status()
        .unwrap();
    assert!(status.success());
    let content = fs::read(stand.at("big")).unwrap();
    assert!(
        content[..16384].iter().all(|b| *b == 0) && content[16384..].iter().all(|b| *b == b'x')
    );
}

/// fuse-overlayfs 1.x opens and reads the device below.
#[test]
fn line_32_what_backs_a_fifo_or_device_is_never_opened() {
    let mut stand = Stand::new(files);
    // A FIFO opened for reading without a writer answers at once only with O_NONBLOCK; the server,
    // had it opened the lower one, would hang or become a reader of it.
    let nonblock = libc::O_NONBLOCK;
    let fifo = OpenOptions::new().read(true).custom_flags(nonblock).open(stand.at("fifo")).unwrap();
    let mut lower = OpenOptions::new();
    lower.write(true).custom_flags(nonblock);
    assert_eq!(errno(lower.open(stand.path("lower/fifo"))), libc::ENXIO);
    drop(fifo);
    let mut zero = [1; 4];
    File::open(stand.at("zero")).unwrap().read_exact(&mut zero).unwrap();
    assert_eq!(zero, [0; 4]);
    run("chmod", &[&"600", &stand.at("fifo"), &stand.at("zero")]);
    for _ in 0..2 {
        let (fifo, zero) =
            (stand.at("fifo").metadata().unwrap(), stand.at("zero").metadata().unwrap());
        assert_eq!((fifo.mode(), zero.mode()), (0o10_600, 0o20_600));
        assert_eq!(zero.rdev(), 0x105);
        let below = stand.path("lower/zero").metadata().unwrap();
        assert_eq!((zero.mtime(), zero.mtime_nsec()), (below.mtime(), below.mtime_nsec()));
        stand.remount();
    }
}

#[test]
fn line_33_holes_survive() {
    let stand = Stand::new(files);
    let extents = |path: &std::path::Path| {
        let mut file = File::open(path).unwrap();
        let (mut at, mut found) = (0, Vec::new());
        while let Ok(data) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
            at = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(data)).unwrap();
            found.push((data, at));
        }
        file.seek(SeekFrom::Start(0)).unwrap();
        found
    };
    let before = extents(&stand.at("holes"));
    assert_eq!(before.len(), 2);
    run("touch", &[&stand.at("holes")]);
    assert_eq!(before, extents(&stand.at("holes")));
    let blocks = stand.at("holes").metadata().unwrap().blocks();
    assert!(blocks <= 64, "{blocks} blocks for 11 bytes");
    assert_eq!(fs::read(stand.at("holes")).unwrap().len(), 16 << 20);
}

#[test]
fn line_33_fallocate_punches_and_extends() {
    use rustix::fs::FallocateFlags;
    let stand = Stand::new(files);
    let file = OpenOptions::new().read(true).write(true).open(stand.at("big")).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, punch, 0, 1 << 20).unwrap();
    let mut byte = [1];
    file.read_exact_at(&mut byte, 4096).unwrap();
    assert_eq!(byte, [0]);
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 4 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4 << 20);
}

#[test]
fn line_34_copy_file_range_between_files_of_the_mount() {
    let stand = Stand::new(files);
    let from = File::open(stand.at("big")).unwrap();
    let to = File::create(stand.at("copy")).unwrap();
    let mut copied = 0;
    while copied < 3 << 20 {
        let n = rustix::fs::copy_file_range(&from, None, &to, None, (3 << 20) - copied).unwrap();
        assert_ne!(n, 0);
        copied += n;
    }
    assert_eq!(fs::read(stand.at("copy")).unwrap(), vec![b'x'; 3 << 20]);
}

/// fuse-overlayfs 2.0: ENOENT.
#[test]
fn line_35_unlinked_but_open_goes_on_working() {
    let stand = Stand::new(files);
    for name in ["f", "new"] {
        fs::write(stand.at("new"), "0123456789").unwrap();
        let file = OpenOptions::new().read(true).write(true).open(stand.at(name)).unwrap();
        fs::remove_file(stand.at(name)).unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0, "{name}");
        file.write_all_at(b"AB", 2).unwrap();
        file.set_len(6).unwrap();
        let mut buf = [0; 6];
        file.read_exact_at(&mut buf, 0).unwrap();
        assert_eq!(&buf, b"01AB45");
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
        rustix::fs::fsetxattr(&file, "user.x", b"y", rustix::fs::XattrFlags::empty()).unwrap();
        file.sync_all().unwrap();
    }
    let reader = File::open(stand.at("big")).unwrap();
    fs::remove_file(stand.at("big")).unwrap();
    let mut byte = [0];
    reader.read_exact_at(&mut byte, (3 << 20) - 1).unwrap();
    assert_eq!(&byte, b"x");
    fs::create_dir(stand.at("dir")).unwrap();
    let dir = File::open(stand.at("dir")).unwrap();
    fs::remove_dir(stand.at("dir")).unwrap();
    assert!(dir.metadata().unwrap().is_dir());
    let create = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let refused = rustix::fs::openat(&dir, "x", create, rustix::fs::Mode::RWXU);
    assert_eq!(rerrno(refused), libc::ENOENT);
}

/// fuse-overlayfs 2.0: EIO.
#[test]
fn line_36_file_flags_are_refused_as_a_filesystem_without_them_does() {
    let stand = Stand::new(files);
    let file = File::open(stand.at("f")).unwrap();
    let refused = rustix::fs::ioctl_getflags(&file).unwrap_err();
    assert!([rustix::io::Errno::NOTTY, rustix::io::Errno::OPNOTSUPP].contains(&refused));
}

#[test]
fn line_37_a_program_that_runs_is_not_written_to() {
    let stand = Stand::new(|lower| {
        fs::copy("/bin/sleep", lower.join("sleep")).unwrap();
    });
    let path = stand.at("sleep");
    let was = fs::read(&path).unwrap();
    let writer = OpenOptions::new().write(true).open(&path).unwrap();
    assert_eq!(errno(Command::new(&path).arg("0").spawn()), libc::ETXTBSY);
    drop(writer);
    let mut child = Command::new(&path).arg("60").spawn().unwrap();
    assert_eq!(errno(OpenOptions::new().write(true).open(&path)), libc::ETXTBSY);
    let truncate = || OpenOptions::new().read(true).custom_flags(libc::O_TRUNC).open(&path);
    assert_eq!(errno(truncate()), libc::ETXTBSY);
    let now = fs::read(&path).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(now == was, "the program was cut to {} bytes under the one who runs it", now.len());
    // Its end reaches the server a moment after whoever waits for it.
    let opened = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        truncate().is_ok()
    });
    assert!(opened && path.metadata().unwrap().len() == 0);
}
