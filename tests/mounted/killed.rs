//! The server is killed at random moments while several programs change things, again and again.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, XattrFlags};

use super::stand::{Stand, assert_ok, plyfs, run};

const WORKERS: u64 = 3;

/// How often the server is killed, unless `PLYFS_KILL_ROUNDS` says otherwise.
const ROUNDS: u64 = 30;

/// The names that are used, in the directory of one worker.
const NAMES: [&str; 12] =
    ["a", "b", "c", "l1", "l2", "d", "d/a", "d/b", "d/sub", "d/sub/x", "e", "e/a"];

/// One system call that changes something (or an open that precedes it and changes nothing).
#[derive(Clone, Debug)]
enum Change {
    Create(&'static str),
    Write(&'static str, u64),
    Truncate(&'static str, u64),
    Empty(&'static str),
    Chmod(&'static str, u32),
    SetXattr(&'static str, u64),
    Mkdir(&'static str),
    Symlink(&'static str),
    Link(&'static str, &'static str),
    Unlink(&'static str),
    Rmdir(&'static str),
    Rename(&'static str, &'static str, u32),
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn name(&mut self) -> &'static str {
        NAMES[usize::try_from(self.below(NAMES.len() as u64)).unwrap()]
    }

    fn change(&mut self) -> Change {
        let (one, other, number) = (self.name(), self.name(), self.below(4000));
        match self.below(16) {
            0 => Change::Create(one),
            1..=3 => Change::Write(one, number),
            4 => Change::Truncate(one, number * 20),
            5 => Change::Empty(one),
            6 => Change::Chmod(one, 0o600 | u32::try_from(number % 64).unwrap()),
            7 => Change::SetXattr(one, number),
            8 => Change::Mkdir(one),
            9 => Change::Symlink(one),
            10 => Change::Link(one, other),
            11 => Change::Unlink(one),
            12 => Change::Rmdir(one),
            n => Change::Rename(one, other, u32::try_from(n - 13).unwrap()),
        }
    }
}

impl Change {
    fn apply(&self, at: &Path) -> io::Result<()> {
        match *self {
            Self::Create(p) => {
                OpenOptions::new().write(true).create_new(true).open(at.join(p)).map(drop)
            }
            Self::Write(p, n) => {
                // Within one page, so that a kill cannot cut it.
                let file = OpenOptions::new().write(true).open(at.join(p))?;
                file.write_all_at(n.to_string().as_bytes(), n)
            }
            Self::Truncate(p, n) => OpenOptions::new().write(true).open(at.join(p))?.set_len(n),
            Self::Empty(p) => {
                OpenOptions::new().write(true).truncate(true).open(at.join(p)).map(drop)
            }
            Self::Chmod(p, mode) => {
                fs::set_permissions(at.join(p), PermissionsExt::from_mode(mode))
            }
            Self::SetXattr(p, n) => {
                let (value, path) = (n.to_string(), at.join(p));
                let none = XattrFlags::empty();
                Ok(rustix::fs::setxattr(path, "user.n", value.as_bytes(), none)?)
            }
            Self::Mkdir(p) => fs::create_dir(at.join(p)),
            Self::Symlink(p) => symlink("target", at.join(p)),
            Self::Link(p, q) => fs::hard_link(at.join(p), at.join(q)),
            Self::Unlink(p) => fs::remove_file(at.join(p)),
            Self::Rmdir(p) => fs::remove_dir(at.join(p)),
            Self::Rename(p, q, flags) => {
                let flags = RenameFlags::from_bits_retain(flags);
                Ok(rustix::fs::renameat_with(CWD, at.join(p), CWD, at.join(q), flags)?)
            }
        }
    }
}

fn layer(lower: &Path) {
    for worker in 0..WORKERS {
        let at = lower.join(worker.to_string());
        fs::create_dir_all(at.join("d/sub")).unwrap();
        fs::write(at.join("a"), vec![b'a'; 200_000]).unwrap();
        fs::write(at.join("l1"), vec![b'l'; 5000]).unwrap();
        fs::hard_link(at.join("l1"), at.join("l2")).unwrap();
        fs::write(at.join("d/a"), "in d").unwrap();
        fs::write(at.join("d/sub/x"), "deep").unwrap();
    }
}

/// A tree without its times, and without the link counts of directories.
fn describe(at: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = vec![at.to_path_buf()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let shown = path.strip_prefix(at).unwrap().display();
        let mut value = [0; 64];
        let len = rustix::fs::lgetxattr(&path, "user.n", &mut value).unwrap_or(0);
        let xattr = value[..len].escape_ascii();
        let content = match meta.file_type() {
            kind if kind.is_dir() => {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                "a directory".to_owned()
            }
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
            _ => {
                let bytes = fs::read(&path).unwrap();
                let sum = bytes.iter().fold(0_u64, |sum, b| {
                    sum.wrapping_mul(0x0100_0000_01b3).wrapping_add(u64::from(*b) + 1)
                });
                format!("{} bytes {sum:x} {} names", bytes.len(), meta.nlink())
            }
        };
        lines.push(format!("{shown} {:o} {content} {xattr}", meta.mode()));
    }
    lines.sort();
    lines
}

/// Changes the mount and a plain directory alike until the server is gone. Returns the change of
/// which it is not known whether it was made, and how many were.
fn work(mount: &Path, plain: &Path, seed: u64) -> (Change, u64) {
    let mut random = Random(seed | 1);
    for done in 0.. {
        let change = random.change();
        let here = change.apply(mount).map_err(|e| e.raw_os_error());
        if matches!(here, Err(Some(libc::ENOTCONN | libc::ECONNABORTED))) {
            return (change, done);
        }
        let there = change.apply(plain).map_err(|e| e.raw_os_error());
        assert_eq!(here, there, "{change:?} in {}, seed {seed}", plain.display());
    }
    unreachable!("the server is always killed")
}

#[test]
fn line_50_killed_at_any_moment_each_change_is_made_or_not() {
    let rounds = std::env::var("PLYFS_KILL_ROUNDS").map_or(ROUNDS, |n| n.parse().unwrap());
    let mut stand = Stand::new(layer);
    run("cp", &[&"-a", &stand.path("lower"), &stand.path("plain")]);
    let places = |stand: &Stand, worker: u64| {
        (stand.at(&worker.to_string()), stand.path("plain").join(worker.to_string()))
    };
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(std::process::id()));
    let made = AtomicU64::new(0);
    for round in 0..rounds {
        let seeds: Vec<u64> = (0..WORKERS).map(|_| random.below(u64::MAX >> 12)).collect();
        let wait = Duration::from_micros(random.below(120_000));
        let workers: Vec<_> = (0..WORKERS)
            .zip(&seeds)
            .map(|(worker, &seed)| {
                let (mount, plain) = places(&stand, worker);
                std::thread::spawn(move || work(&mount, &plain, seed))
            })
            .collect();
        std::thread::sleep(wait);
        let mut unknown = Vec::new();
        stand.kill_and_mount(|| {
            for worker in workers {
                let (change, count) = worker.join().unwrap();
                made.fetch_add(count, Ordering::Relaxed);
                unknown.push(change);
            }
        });
        stand.assert_work_is_clean();
        for (worker, change) in (0..WORKERS).zip(unknown) {
            let (mount, plain) = places(&stand, worker);
            let (seen, old) = (describe(&mount), describe(&plain));
            if seen != old {
                let made = change.apply(&plain);
                let new = describe(&plain);
                assert_eq!(seen, new, "round {round}, {change:?} ({made:?}) from {old:#?}");
            }
        }
    }
    assert!(made.load(Ordering::Relaxed) > rounds, "hardly anything was under way");
    stand.umount();
    assert_ok(&plyfs(&["check", "-o", &stand.options()]).output().unwrap());
}
