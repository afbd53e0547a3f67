//! Writing of new files: in order, here and there, by a mapping, and truncation of a lower one.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;

use super::{Group, Measured, Scale, Workload};
use crate::bench::check;
use crate::bench::fixture::Lower;
use crate::bench::site::{Site, check_bytes, each, time};
use crate::bench::stats::Dice;
use crate::errno::{Error, Result};
use crate::sys::mapping;

/// The size of the file, and how much is written at a time.
const LARGE: u64 = 128 << 20;
const PIECE: usize = 128 << 10;
const BLOCK: usize = 4096;

pub(super) fn workloads(scale: Scale) -> Vec<Workload> {
    let (size, blocks) = (scale.bytes(LARGE), scale.count(5000));
    let new = |name: &str, what: &str, per: &str, act: fn(&Site<'_>, u64) -> Measured| {
        let workload = Workload::new(Group::Data, name, what, move |site| act(site, size));
        workload.per(per).writes(LARGE)
    };
    let what = "overwriting of 5000 blocks of 4 KiB of a new file of 128 MiB, here and there";
    let random = Workload::new(Group::Data, "write-random", what, move |site| {
        here_and_there(site, size, blocks)
    });
    let truncate = |name: &str, shown: &str, bytes: u64| {
        let what = format!("open with O_TRUNC of a lower file of {shown}, and 4 KiB written to it");
        let lower = Lower::Large { bytes: scale.bytes(bytes), files: 1 };
        Workload::new(Group::Data, name, what, truncate).over(lower).writes(bytes)
    };
    vec![
        new("write", "writing of a new file of 128 MiB, 128 KiB at a time", "MiB", plain).quick(),
        new("write-sync", "as write, with an fsync at the end", "MiB", synced),
        random.per("block").writes(LARGE),
        new("write-mapped", "writing of each page of a mapped new file of 128 MiB", "MiB", mapped),
        truncate("truncate-64m", "64 MiB", 64 << 20).quick(),
        truncate("truncate-1g", "1 GiB", 1 << 30),
    ]
}

/// Writes a new file in order.
fn written(site: &Site<'_>, size: u64) -> Result<File> {
    let piece = site.pattern(PIECE, 0);
    let mut file = File::create_new(site.at("written"))?;
    for _ in 0..size / PIECE as u64 {
        file.write_all(&piece)?;
    }
    Ok(file)
}

fn checked(site: &Site<'_>, size: u64) -> Result<()> {
    let path = site.at("written");
    check(std::fs::metadata(&path)?.len() == size, || "not its whole size".to_owned())?;
    let piece = site.pattern(PIECE, 0);
    check_bytes(&path, 0, &piece)?;
    check_bytes(&path, size - PIECE as u64, &piece)
}

fn plain(site: &Site<'_>, size: u64) -> Measured {
    let (seconds, ()) = time(|| written(site, size).map(drop))?;
    checked(site, size)?;
    Ok(vec![each(seconds, mib(size))])
}

fn synced(site: &Site<'_>, size: u64) -> Measured {
    let (seconds, ()) = time(|| Ok(written(site, size)?.sync_all()?))?;
    checked(site, size)?;
    Ok(vec![each(seconds, mib(size))])
}

fn here_and_there(site: &Site<'_>, size: u64, count: u32) -> Measured {
    drop(written(site, size)?);
    let path = site.at("written");
    let file = OpenOptions::new().write(true).open(&path)?;
    let blocks = usize::try_from(size).unwrap_or(0) / BLOCK;
    let mut dice = Dice::new();
    let places: Vec<_> = (0..count).map(|_| (dice.below(blocks) * BLOCK) as u64).collect();
    let block = [0xee; BLOCK];
    let (seconds, ()) =
        time(|| places.iter().try_for_each(|&at| Ok::<_, Error>(file.write_all_at(&block, at)?)))?;
    drop(file);
    for &at in places.iter().step_by(97) {
        check_bytes(&path, at, &block)?;
    }
    Ok(vec![each(seconds, places.len())])
}

fn mapped(site: &Site<'_>, size: u64) -> Measured {
    let path = site.at("written");
    let byte = site.pattern(1, 0).first().copied().unwrap_or(1);
    let (seconds, ()) = time(|| {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        file.set_len(size)?;
        mapping::fill(&file, size, byte)
    })?;
    check(std::fs::metadata(&path)?.len() == size, || "not its whole size".to_owned())?;
    check_bytes(&path, 0, &[byte; BLOCK])?;
    check_bytes(&path, size - BLOCK as u64, &[byte; BLOCK])?;
    Ok(vec![each(seconds, mib(size))])
}

/// Replaces the content of the lower file.
fn truncate(site: &Site<'_>) -> Measured {
    let path = site.at("large0");
    let content = site.pattern(BLOCK, 0);
    let (seconds, ()) = time(|| {
        let mut file = OpenOptions::new().write(true).truncate(true).open(&path)?;
        Ok(file.write_all(&content)?)
    })?;
    check_bytes(&path, 0, &content)?;
    let size = std::fs::metadata(&path)?.len();
    check(size == BLOCK as u64, || format!("{size} bytes after O_TRUNC"))?;
    Ok(vec![seconds])
}

fn mib(bytes: u64) -> usize {
    usize::try_from(bytes >> 20).unwrap_or(1).max(1)
}
