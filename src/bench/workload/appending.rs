//! Small writes: one after another, and each of them to be safe on disk before the next.

use std::fs::{File, OpenOptions};
use std::io::Write;

use super::{Group, Measured, Scale, Workload};
use crate::bench::check;
use crate::bench::site::{Site, check_bytes, each, time};

const BLOCK: usize = 4096;

pub(super) fn workloads(scale: Scale) -> Vec<Workload> {
    let (many, few) = (scale.count(5000), scale.count(50));
    let what = "appending of 4 KiB, 5000 times, to a new file";
    let append =
        Workload::new(Group::Data, "append", what, move |site| appended(site, many, false));
    let what = "appending of 4 KiB and fsync, 50 times, to a new file";
    let sync = Workload::new(Group::Data, "fsync", what, move |site| appended(site, few, true));
    vec![append.per("write").writes(64 << 20), sync.per("fsync").quick()]
}

fn appended(site: &Site<'_>, count: u32, sync: bool) -> Measured {
    let path = site.at("log");
    drop(File::create_new(&path)?);
    let mut file = OpenOptions::new().append(true).open(&path)?;
    let block = site.pattern(BLOCK, 0);
    let (seconds, ()) = time(|| {
        for _ in 0..count {
            file.write_all(&block)?;
            if sync {
                file.sync_all()?;
            }
        }
        Ok(())
    })?;
    let (size, expected) = (std::fs::metadata(&path)?.len(), u64::from(count) * BLOCK as u64);
    check(size == expected, || format!("{size} bytes, not {expected}"))?;
    check_bytes(&path, expected - BLOCK as u64, &block)?;
    Ok(vec![each(seconds, count as usize)])
}
