//! Opening and reading small files, large ones in order and here and there, by calls and by
//! mappings.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use super::pass::Pass;
use super::{Caches, Group, Scale, Workload};
use crate::bench::fixture::{Lower, byte_at};
use crate::bench::stats::Dice;
use crate::bench::{failed, open};
use crate::errno::Result;
use crate::sys::mapping;

/// The size of the file that is read in order, and how much is read at a time.
const LARGE: u64 = 256 << 20;
const PIECE: usize = 1 << 20;
/// How many blocks are read here and there, and how large those are.
const BLOCKS: usize = 10_000;
const BLOCK: usize = 4096;

pub(super) fn workloads(scale: Scale) -> Vec<Workload> {
    let mut all = OPEN_READ.workloads(scale, &[Caches::Warm, Caches::Fresh]);
    all.extend(SEQUENTIAL.workloads(scale, &[Caches::Fresh]));
    all.extend(RANDOM.workloads(scale, &[Caches::Warm]));
    all.extend(MAPPED.workloads(scale, &[]));
    all
}

fn large(scale: Scale) -> Lower {
    Lower::Large { bytes: scale.bytes(LARGE), files: 1 }
}

const OPEN_READ: Pass = Pass {
    group: Group::Metadata,
    name: "open-read",
    what: "open, read to the end, close, of each file of a tree in three layers",
    per: "file",
    lower: Scale::tree,
    paths: |site| site.files(),
    run: |_, paths| {
        let mut buffer = vec![0; 32 << 10];
        paths.iter().try_fold(0, |sum, path| Ok(sum + read_through(open(path)?, &mut buffer)?))
    },
    expected: |site| (site.bytes(), site.fixture.files.len()),
    programs: &[],
};

const SEQUENTIAL: Pass = Pass {
    group: Group::Data,
    name: "read",
    what: "reading of a lower file of 256 MiB in order, 1 MiB at a time",
    per: "MiB",
    lower: large,
    paths: |site| site.files(),
    run: |_, paths| {
        let mut buffer = vec![0; PIECE];
        paths.iter().try_fold(0, |sum, path| Ok(sum + read_through(open(path)?, &mut buffer)?))
    },
    expected: |site| (site.bytes(), mib(site.bytes())),
    programs: &[],
};

const RANDOM: Pass = Pass {
    group: Group::Data,
    name: "read-random",
    what: "reading of 10,000 blocks of 4 KiB of a lower file of 256 MiB, here and there",
    per: "block",
    lower: large,
    paths: |site| site.files(),
    run: |site, paths| {
        let file = open(paths.first().ok_or_else(|| failed("there is no large file"))?)?;
        let blocks = usize::try_from(site.bytes()).unwrap_or(0) / BLOCK;
        let (mut dice, mut buffer) = (Dice::new(), vec![0; BLOCK]);
        let mut right = 0;
        for _ in 0..BLOCKS {
            let at = (dice.below(blocks) * BLOCK) as u64;
            file.read_exact_at(&mut buffer, at)?;
            right += u64::from(buffer.first() == Some(&byte_at(at)));
        }
        Ok(right)
    },
    expected: |_| (BLOCKS as u64, BLOCKS),
    programs: &[],
};

const MAPPED: Pass = Pass {
    group: Group::Data,
    name: "read-mapped",
    what: "touching of each page of a mapped lower file of 256 MiB",
    per: "MiB",
    lower: large,
    paths: |site| site.files(),
    run: |site, paths| {
        let file = open(paths.first().ok_or_else(|| failed("there is no large file"))?)?;
        mapping::sum_of_pages(&file, site.bytes())
    },
    expected: |site| {
        let pages = (0..site.bytes()).step_by(mapping::PAGE);
        (pages.map(|at| u64::from(byte_at(at))).sum(), mib(site.bytes()))
    },
    programs: &[],
};

/// Reads a file to its end: how many bytes that were.
fn read_through(mut file: File, buffer: &mut [u8]) -> Result<u64> {
    let mut sum = 0;
    loop {
        match file.read(buffer)? {
            0 => return Ok(sum),
            n => sum += n as u64,
        }
    }
}

/// As many MiB, at least one.
fn mib(bytes: u64) -> usize {
    usize::try_from(bytes >> 20).unwrap_or(1).max(1)
}
