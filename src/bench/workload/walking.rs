//! Looking at names and attributes, without opening a file.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::pass::Pass;
use super::{Caches, Group, Leaves, Measured, Scale, Workload};
use crate::bench::fixture::Lower;
use crate::bench::site::{Site, each, run, time, word};
use crate::bench::{check, failed};
use crate::errno::Result;

pub(super) fn workloads(scale: Scale) -> Vec<Workload> {
    let mut all = STAT.workloads(scale, &[Caches::Warm, Caches::Fresh]);
    all.extend(NEGATIVE.workloads(scale, &[Caches::Warm]));
    all.extend(READDIR.workloads(scale, &[Caches::Fresh]));
    all.extend(LS.workloads(scale, &[Caches::Fresh]));
    for files in [100, 1000, 10_000, 100_000] {
        let lower = Lower::Wide { files: scale.count(files) };
        let what = format!("listing of one directory of {files} entries in a fresh mount");
        let workload = Workload::new(Group::Metadata, format!("readdir-{files}"), what, list_dirs);
        all.push(
            workload
                .per("entry")
                .over(lower)
                .leaves(Leaves::Alone)
                .on_curve("readdir", "entries", files),
        );
    }
    let lower = Lower::Hidden { files: scale.count(2000) };
    let what = "listing of a directory of 2000 entries, half of them hidden by whiteouts";
    let hidden = Workload::new(Group::Metadata, "readdir-hidden", what, list_dirs);
    all.push(hidden.per("entry").over(lower).leaves(Leaves::Alone));
    for layers in [1, 10, 50, 120] {
        let lower = Lower::Layers { layers: scale.layers(layers), files: scale.count(500) };
        let what = format!("stat of 500 files of the lowest of {layers} layers in a fresh mount");
        let workload = Workload::new(Group::Containers, format!("lookup-{layers}"), what, deep);
        all.push(
            workload
                .per("file")
                .over(lower)
                .leaves(Leaves::Alone)
                .on_curve("lookup", "layers", layers),
        );
    }
    all
}

const STAT: Pass = Pass {
    group: Group::Metadata,
    name: "stat",
    what: "stat of each file of a tree in three layers",
    per: "file",
    lower: Scale::tree,
    paths: |site| site.files(),
    run: |_, paths| paths.iter().try_fold(0, |sum, path| Ok(sum + fs::metadata(path)?.len())),
    expected: |site| (site.bytes(), site.fixture.files.len()),
    programs: &[],
};

const NEGATIVE: Pass = Pass {
    group: Group::Metadata,
    name: "negative",
    what: "stat of as many names that no layer has",
    per: "name",
    lower: Scale::tree,
    paths: |site| site.files().into_iter().map(|path| path.with_extension("no")).collect(),
    run: |_, paths| {
        let missing = |path: &&PathBuf| {
            fs::metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
        };
        Ok(paths.iter().filter(missing).count() as u64)
    },
    expected: |site| (site.fixture.files.len() as u64, site.fixture.files.len()),
    programs: &[],
};

const READDIR: Pass = Pass {
    group: Group::Metadata,
    name: "readdir",
    what: "listing of all directories of a tree in three layers",
    per: "entry",
    lower: Scale::tree,
    paths: |site| site.dirs(),
    run: |_, paths| count(paths),
    expected: |site| (site.fixture.files.len() as u64, site.fixture.files.len()),
    programs: &[],
};

const LS: Pass = Pass {
    group: Group::Metadata,
    name: "ls",
    what: "ls -lR of a tree in three layers",
    per: "whole",
    lower: Scale::tree,
    paths: |_| Vec::new(),
    run: |site, _| {
        let listed = run("ls", &["-lR", word(site.root)?], site.root)?;
        let is_file = |line: &&[u8]| line.starts_with(b"-");
        Ok(listed.split(|&byte| byte == b'\n').filter(is_file).count() as u64)
    },
    expected: |site| (site.fixture.files.len() as u64, 1),
    programs: &["ls"],
};

/// How many entries these directories have.
fn count(dirs: &[PathBuf]) -> Result<u64> {
    let mut found = 0;
    for dir in dirs {
        for entry in fs::read_dir(dir)? {
            entry?;
            found += 1;
        }
    }
    Ok(found)
}

/// Lists the directories of the layers.
fn list_dirs(site: &Site<'_>) -> Measured {
    let dirs = site.dirs();
    let (seconds, found) = time(|| count(&dirs))?;
    let files = site.fixture.files.len();
    check(found == files as u64, || format!("{found} entries, not {files}"))?;
    Ok(vec![each(seconds, files)])
}

/// Looks up the files of the lowest layer.
fn deep(site: &Site<'_>) -> Measured {
    let names: Vec<_> = site.files().into_iter().filter(|path| is_of_lowest(path)).collect();
    let stat = |sum: u64, path: &PathBuf| Ok(sum + fs::metadata(path)?.len());
    let (seconds, bytes) = time(|| names.iter().try_fold(0, stat))?;
    if names.is_empty() {
        return Err(failed("the lowest layer has no files"));
    }
    check(bytes == 200 * names.len() as u64, || format!("{bytes} bytes in {}", names.len()))?;
    Ok(vec![each(seconds, names.len())])
}

fn is_of_lowest(path: &std::path::Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"file"))
}
