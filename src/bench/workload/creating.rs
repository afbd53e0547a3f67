//! What is new: files, directories, links, and their renaming and removal. Nothing of it concerns
//! a lower layer but the question whether one has that name.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Group, Measured, Scale, Workload};
use crate::bench::check;
use crate::bench::site::{Site, check_bytes, each, time};
use crate::errno::Result;

/// How many objects.
const COUNT: u32 = 500;

pub(super) fn workloads(scale: Scale) -> Vec<Workload> {
    let count = scale.count(COUNT);
    let new = |name: &str, what: &str, make: Make, check: Check| {
        let act = move |site: &Site<'_>| measure(site, count, |_| Ok(()), make, check);
        Workload::new(Group::Metadata, name, what, act).per("object")
    };
    let changed = |name: &str, what: &str, change: Make, check: Check| {
        let before = |path: &Path| create(path, b"before");
        let act = move |site: &Site<'_>| measure(site, count, before, change, check);
        Workload::new(Group::Metadata, name, what, act).per("object")
    };
    vec![
        new("create", "creation of 500 files of 4 KiB in a new directory", CREATE, CREATED).quick(),
        new(
            "mkdir",
            "creation of 500 directories",
            |path| Ok(fs::create_dir(path)?),
            |path| Ok(path.is_dir()),
        ),
        new("symlink", "creation of 500 symbolic links", SYMLINK, |path| {
            Ok(fs::read_link(path)? == Path::new("target"))
        }),
        changed("link", "second names for 500 new files", LINK, |path| {
            Ok(fs::read(other(path))? == b"before" && nlink(path)? == 2)
        }),
        changed("rename", "renaming of 500 new files within their directory", RENAME, |path| {
            Ok(fs::read(other(path))? == b"before" && !path.exists())
        })
        .quick(),
        changed(
            "unlink",
            "removal of 500 new files",
            |path| Ok(fs::remove_file(path)?),
            |path| Ok(!path.exists()),
        )
        .quick(),
    ]
}

type Make = fn(&Path) -> Result<()>;
type Check = fn(&Path) -> Result<bool>;

const CREATE: Make = |path| create(path, &[7; 4096]);
const CREATED: Check = |path| {
    check_bytes(path, 0, &[7; 4096])?;
    Ok(fs::metadata(path)?.len() == 4096)
};
const SYMLINK: Make = |path| Ok(std::os::unix::fs::symlink("target", path)?);
const LINK: Make = |path| Ok(fs::hard_link(path, other(path))?);
const RENAME: Make = |path| Ok(fs::rename(path, other(path))?);

fn create(path: &Path, content: &[u8]) -> Result<()> {
    Ok(fs::File::create_new(path)?.write_all(content)?)
}

fn other(path: &Path) -> PathBuf {
    path.with_extension("other")
}

fn nlink(path: &Path) -> Result<u64> {
    Ok(std::os::unix::fs::MetadataExt::nlink(&fs::metadata(path)?))
}

/// Does something to each of so many names of a new directory.
fn measure(
    site: &Site<'_>,
    count: u32,
    before: impl Fn(&Path) -> Result<()>,
    act: Make,
    right: Check,
) -> Measured {
    let dir = site.at("new");
    fs::create_dir(&dir)?;
    let names: Vec<_> = (0..count).map(|number| dir.join(format!("n{number:04}"))).collect();
    names.iter().try_for_each(|path| before(path))?;
    let (seconds, ()) = time(|| names.iter().try_for_each(|path| act(path)))?;
    for path in &names {
        check(right(path)?, || path.display().to_string())?;
    }
    Ok(vec![each(seconds, names.len())])
}
