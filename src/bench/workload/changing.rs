//! Names of lower files, changed: removed, renamed one by one, renamed with their directory.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Group, Measured, Scale, Workload};
use crate::bench::check;
use crate::bench::site::{Site, check_lower, each, run, time};
use crate::errno::{Error, Result};

pub(super) fn workloads(scale: Scale) -> Vec<Workload> {
    let what = "removal of each of 300 lower files";
    let unlink = Workload::new(Group::Metadata, "unlink-lower", what, unlink);
    let what = "renaming of each of 300 lower files within its directory";
    let rename = Workload::new(Group::Metadata, "rename-lower", what, rename);
    let what = "mv of 10 lower directories of 30 files; where they cannot be renamed, mv copies";
    let dirs = Workload::new(Group::Metadata, "rename-lower-dir", what, rename_dirs);
    vec![
        unlink.per("file").over(scale.little()).quick(),
        rename.per("file").over(scale.little()),
        dirs.per("directory").over(scale.little()).runs(&["mv"]).quick(),
    ]
}

fn unlink(site: &Site<'_>) -> Measured {
    let files = site.files();
    let (seconds, ()) =
        time(|| files.iter().try_for_each(|path| Ok::<_, Error>(fs::remove_file(path)?)))?;
    for path in &files {
        check(!path.exists(), || format!("{} is still there", path.display()))?;
    }
    empty(&site.dirs())?;
    Ok(vec![each(seconds, files.len())])
}

fn rename(site: &Site<'_>) -> Measured {
    let files = site.files();
    let renamed = |path: &Path| path.with_extension("renamed");
    let (seconds, ()) = time(|| {
        files.iter().try_for_each(|path| Ok::<_, Error>(fs::rename(path, renamed(path))?))
    })?;
    for (path, leaf) in files.iter().zip(&site.fixture.files) {
        check(!path.exists(), || format!("{} is still there", path.display()))?;
        check_lower(&renamed(path), 0, 100)?;
        check(fs::metadata(renamed(path))?.len() == leaf.size, || path.display().to_string())?;
    }
    Ok(vec![each(seconds, files.len())])
}

fn rename_dirs(site: &Site<'_>) -> Measured {
    let dirs = &site.fixture.dirs;
    let names: Vec<_> = dirs.iter().filter_map(|dir| dir.to_str()).collect();
    let (seconds, ()) = time(|| {
        names.iter().try_for_each(|name| {
            run("mv", &["-T", name, &format!("{name}-moved")], site.root).map(drop)
        })
    })?;
    for (dir, name) in dirs.iter().zip(&names) {
        check(!site.at(dir).exists(), || format!("{name} is still there"))?;
    }
    for leaf in &site.fixture.files {
        let (Some(dir), Some(name)) = (leaf.path.parent(), leaf.path.file_name()) else { continue };
        let moved = site.at(format!("{}-moved", dir.display())).join(name);
        check_lower(&moved, 0, 100)?;
        check(fs::metadata(&moved)?.len() == leaf.size, || moved.display().to_string())?;
    }
    Ok(vec![each(seconds, dirs.len())])
}

/// Fails unless these directories are empty.
fn empty(dirs: &[PathBuf]) -> Result<()> {
    for dir in dirs {
        check(fs::read_dir(dir)?.next().is_none(), || format!("{} is not empty", dir.display()))?;
    }
    Ok(())
}
