//! The first write into a lower file, by the file's size; what it takes in room and in writing, and
//! what everybody else notices of it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{Group, Leaves, Measured, Scale, Unit, Workload};
use crate::bench::fixture::{Fixture, Lower};
use crate::bench::site::{Site, check_bytes, check_lower, each, time};
use crate::bench::stats::percentile;
use crate::bench::{check, failed};
use crate::errno::{Context, Result};
use crate::sys::usage;

/// What is written.
const BLOCK: usize = 4096;

/// The sizes: name, in words, bytes, how many files a round, in the quick set.
const SIZES: [(&str, &str, u64, u32, bool); 8] = [
    ("4k", "4 KiB", 4 << 10, 100, true),
    ("64k", "64 KiB", 64 << 10, 100, false),
    ("1m", "1 MiB", 1 << 20, 20, true),
    ("16m", "16 MiB", 16 << 20, 4, false),
    ("64m", "64 MiB", 64 << 20, 1, true),
    ("256m", "256 MiB", 256 << 20, 1, false),
    ("1g", "1 GiB", 1 << 30, 1, false),
    ("4g", "4 GiB", 4 << 30, 1, false),
];

pub(super) fn workloads(scale: Scale) -> Vec<Workload> {
    let mut all = Vec::new();
    for (name, shown, bytes, files, quick) in SIZES {
        let what = format!("the first write of 4 KiB into lower files of {shown}, and the close");
        let lower = Lower::Large { bytes: scale.bytes(bytes), files: scale.count(files) };
        #[allow(clippy::cast_precision_loss, reason = "powers of two")]
        let x = bytes as f64;
        let workload = Workload::new(Group::CopyOnWrite, format!("copyup-{name}"), what, first);
        let workload =
            workload.per("file").over(lower).leaves(Leaves::Fit).writes(bytes * u64::from(files));
        all.push(Workload { quick, ..workload.on_curve("copyup", "bytes", x) });
    }
    let what = "the first write of 4 KiB into a lower file of 1 GiB that is a hole but for 1 MiB";
    let data = scale.bytes(1 << 20);
    let lower = Lower::Sparse { bytes: scale.bytes(1 << 30).max(2 * data), data };
    let sparse = Workload::new(Group::CopyOnWrite, "copyup-sparse", what, sparse);
    all.push(sparse.over(lower).leaves(Leaves::Fit).measures("room", Unit::Bytes, "whole"));
    let what = "what other operations take while the first write copies a lower file of 1 GiB";
    let lower = Lower::Large { bytes: scale.bytes(1 << 30), files: 1 };
    let others = Workload::new(Group::CopyOnWrite, "copyup-others", what, others);
    let others =
        Workload { metrics: Vec::new(), ..others }.over(lower).leaves(Leaves::Fit).writes(1 << 30);
    let time = |workload: Workload, name| workload.measures(name, Unit::Seconds, "operation");
    all.push(["p50", "p99", "longest"].into_iter().fold(others, time));
    let what = "what the first write of 4 KiB into a lower file of 64 MiB has written and occupied";
    let lower = Lower::Large { bytes: scale.bytes(64 << 20), files: 1 };
    let cost = Workload::new(Group::CopyOnWrite, "copyup-cost", what, cost);
    let cost =
        Workload { metrics: Vec::new(), ..cost }.over(lower).leaves(Leaves::Fit).writes(64 << 20);
    let times = |workload: Workload, name| workload.measures(name, Unit::Times, "byte changed");
    all.push(["written", "blocks"].into_iter().fold(cost, times));
    all
}

/// Writes a block into the middle of a file that is there.
fn write_block(path: &Path, block: &[u8], at: u64) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    Ok(file.write_all_at(block, at)?)
}

/// Where to write in a file of this size: a whole block in its middle.
fn middle(size: u64) -> u64 {
    let block = BLOCK as u64;
    size / 2 / block * block
}

/// Fails unless the file has its size, the block, and around it what it had before.
fn checked(path: &Path, size: u64, block: &[u8]) -> Result<()> {
    let (at, length) = (middle(size), block.len() as u64);
    let found = fs::metadata(path)?.len();
    check(found == size, || format!("{}: {found} bytes, not {size}", path.display()))?;
    check_bytes(path, at, block)?;
    let around = 4096.min(usize::try_from(at).unwrap_or(0));
    check_lower(path, 0, around)?;
    check_lower(path, at - around as u64, around)?;
    let after = usize::try_from(size - at - length).unwrap_or(0).min(4096);
    check_lower(path, at + length, after)?;
    check_lower(path, size - after as u64, after)
}

fn first(site: &Site<'_>) -> Measured {
    let block = site.pattern(BLOCK, 0);
    let files = &site.fixture.files;
    let (seconds, ()) = time(|| {
        files
            .iter()
            .try_for_each(|leaf| write_block(&site.at(&leaf.path), &block, middle(leaf.size)))
    })?;
    files.iter().try_for_each(|leaf| checked(&site.at(&leaf.path), leaf.size, &block))?;
    Ok(vec![each(seconds, files.len())])
}

fn sparse(site: &Site<'_>) -> Measured {
    let block = site.pattern(BLOCK, 0);
    let leaf = one(site.fixture)?;
    let path = site.at("sparse");
    let (seconds, ()) = time(|| write_block(&path, &block, 0))?;
    check_bytes(&path, 0, &block)?;
    check_bytes(&path, BLOCK as u64, &[0; BLOCK])?;
    check_lower(&path, leaf.size - 4096, 4096)?;
    Ok(vec![seconds, occupied(site.upper)?])
}

#[allow(clippy::cast_precision_loss, reason = "sizes of files")]
fn occupied(dir: &Path) -> Result<f64> {
    Ok(blocks(dir)? as f64)
}

/// The bytes that what lies below a directory occupies.
fn blocks(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let stat = entry.metadata()?;
        sum += if stat.is_dir() { blocks(&entry.path())? } else { stat.blocks() * 512 };
    }
    Ok(sum)
}

/// One operation after another on other files, while the copy goes on; at least so many.
const AT_LEAST: usize = 300;

fn others(site: &Site<'_>) -> Measured {
    let block = site.pattern(BLOCK, 0);
    let leaf = one(site.fixture)?;
    let path = site.at(&leaf.path);
    let done = AtomicBool::new(false);
    let mut taken = Vec::new();
    std::thread::scope(|scope| {
        let copier = scope.spawn(|| {
            let result = write_block(&path, &block, middle(leaf.size));
            done.store(true, Ordering::Release);
            result
        });
        let operated = operate(site, &done, &mut taken);
        let copied = copier.join().map_err(|_| failed("the thread that copies panicked"))?;
        copied.and(operated)
    })?;
    checked(&path, leaf.size, &block)?;
    let at = |share| percentile(&taken, share).ok_or_else(|| failed("no operation was timed"));
    Ok(vec![at(0.5)?, at(0.99)?, at(1.0)?])
}

/// Creates, reads and removes small files until the copy is done.
fn operate(site: &Site<'_>, done: &AtomicBool, taken: &mut Vec<f64>) -> Result<()> {
    let dir = site.at("others");
    fs::create_dir(&dir).or_else(|error| {
        // A plain directory serves again.
        if dir.is_dir() { Ok(()) } else { Err(error) }
    })?;
    for number in 0.. {
        if done.load(Ordering::Acquire) && taken.len() >= AT_LEAST {
            break;
        }
        let path = dir.join(format!("f{number}"));
        let mut timed = |act: &dyn Fn() -> std::io::Result<bool>| {
            let from = Instant::now();
            let right = act()?;
            taken.push(from.elapsed().as_secs_f64());
            check(right, || path.display().to_string())
        };
        timed(&|| fs::write(&path, b"text").map(|()| true))?;
        timed(&|| Ok(fs::metadata(&path)?.len() == 4))?;
        timed(&|| Ok(fs::read(&path)? == b"text"))?;
        timed(&|| fs::remove_file(&path).map(|()| true))?;
    }
    Ok(())
}

/// What is written to the disk, and what is occupied, for each byte that was changed.
#[allow(clippy::cast_precision_loss, reason = "sizes of files")]
fn cost(site: &Site<'_>) -> Measured {
    let block = site.pattern(BLOCK, 0);
    let leaf = one(site.fixture)?;
    let path = site.at(&leaf.path);
    let all = || -> Result<u64> {
        let own = usage::written(None)?;
        site.servers.iter().try_fold(own, |sum, &pid| Ok(sum + usage::written(Some(pid))?))
    };
    let (written, occupied) = (all()?, blocks(site.upper)?);
    write_block(&path, &block, middle(leaf.size))?;
    OpenOptions::new().write(true).open(&path)?.sync_all().context(|| "fsync")?;
    let (written, occupied) = (all()? - written, blocks(site.upper)?.saturating_sub(occupied));
    checked(&path, leaf.size, &block)?;
    check(written > 0, || "nothing was written".to_owned())?;
    Ok(vec![written as f64 / BLOCK as f64, occupied as f64 / BLOCK as f64])
}

/// The one file of a fixture.
fn one(fixture: &Fixture) -> Result<&crate::bench::fixture::Leaf> {
    fixture.files.first().ok_or_else(|| failed("there is no file"))
}
