//! Metadata of lower files, changed: what a union has to copy of them is its business.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::{Group, Measured, Scale, Workload};
use crate::bench::check;
use crate::bench::site::{Site, check_lower, each, run, time};
use crate::errno::Result;

pub(super) fn workloads(scale: Scale) -> Vec<Workload> {
    let what = "chmod of each of 300 lower files";
    let chmod = Workload::new(Group::Metadata, "chmod-lower", what, chmod_each);
    let what = "chmod -R of a tree of 300 lower files";
    let chmods = Workload::new(Group::CopyOnWrite, "chmod-r", what, |site| {
        by_program(site, "chmod", "go-rwx", |stat| stat.mode() & 0o777 == 0o600)
    });
    let what = "chown -R of a tree of 300 lower files";
    let chowns = Workload::new(Group::CopyOnWrite, "chown-r", what, |site| {
        by_program(site, "chown", "12345:54321", |stat| (stat.uid(), stat.gid()) == (12345, 54321))
    });
    vec![
        chmod.per("file").over(scale.little()).quick(),
        chmods.per("file").over(scale.little()).runs(&["chmod"]).quick(),
        chowns.per("file").over(scale.little()).runs(&["chown"]),
    ]
}

fn chmod_each(site: &Site<'_>) -> Measured {
    let files = site.files();
    let mode = || fs::Permissions::from_mode(0o640);
    let (seconds, ()) = time(|| {
        files
            .iter()
            .try_for_each(|path| Ok::<_, crate::errno::Error>(fs::set_permissions(path, mode())?))
    })?;
    checked(site, |stat| stat.mode() & 0o7777 == 0o640)?;
    Ok(vec![each(seconds, files.len())])
}

/// Changes the whole tree by a program that is told what to change and where.
fn by_program(
    site: &Site<'_>,
    program: &str,
    how: &str,
    right: fn(&fs::Metadata) -> bool,
) -> Measured {
    let names: Vec<_> = site.fixture.dirs.iter().filter_map(|dir| dir.to_str()).collect();
    let arguments: Vec<_> = ["-R", how].into_iter().chain(names).collect();
    let (seconds, _) = time(|| run(program, &arguments, site.root))?;
    checked(site, right)?;
    Ok(vec![each(seconds, site.fixture.files.len())])
}

/// Fails unless all files have the new attributes and the old contents.
fn checked(site: &Site<'_>, right: impl Fn(&fs::Metadata) -> bool) -> Result<()> {
    for leaf in &site.fixture.files {
        let path = site.at(&leaf.path);
        let stat = fs::metadata(&path)?;
        check(right(&stat) && stat.len() == leaf.size, || path.display().to_string())?;
        check_lower(&path, 0, 100)?;
    }
    Ok(())
}
