//! Mounting itself: what it takes by the number of layers, what many mounts of one image occupy,
//! and what one question to the server takes on either CPU.

use std::fs;
use std::path::PathBuf;

use super::{Act, Group, Leaves, Measured, Scale, Unit, Workload};
use crate::bench::fixture::Lower;
use crate::bench::site::{Bare, Site, each, time};
use crate::bench::{cannot, check, failed, open};
use crate::errno::Context;
use crate::sys::{mapping, usage};

/// How many mounts of one image there are at once.
const MOUNTS: u32 = 10;

pub(super) fn workloads(scale: Scale) -> Vec<Workload> {
    let mut all = Vec::new();
    for layers in [5, 50, 120, 500] {
        let lower = Lower::Layers { layers: scale.layers(layers), files: scale.count(20) };
        let what = format!("mount of {layers} layers, one listing of the root, unmount");
        let workload = bare(format!("mount-{layers}"), what, mount);
        let workload = Workload { quick: layers == 5, metrics: Vec::new(), ..workload };
        let workload = ["", "unmount"]
            .into_iter()
            .fold(workload, |workload, name| workload.measures(name, Unit::Seconds, "mount"));
        all.push(workload.over(lower).on_curve("mount", "layers", layers));
    }
    let count = scale.count(MOUNTS);
    let what = "10 mounts of one image that all read a tree and map a file of 64 MiB: memory of \
                the servers, and how often the file is in memory";
    let many = bare("mounts-10".to_owned(), what.to_owned(), move |site| many(site, count));
    let many = Workload { metrics: Vec::new(), ..many }
        .over(Lower::Large { bytes: scale.bytes(64 << 20), files: 1 })
        .measures("servers", Unit::Bytes, "mount")
        .measures("copies", Unit::Times, "file")
        .writes(u64::from(MOUNTS) * (64 << 20));
    all.push(many);
    for (name, what, apart) in [
        ("wake-here", "statfs, asked 2000 times, client and server on one CPU", false),
        ("wake-there", "statfs, asked 2000 times, client and server on two CPUs", true),
    ] {
        let count = scale.count(2000);
        let act = move |site: &Site<'_>| wake(site, count, apart);
        let workload = Workload::new(Group::Containers, name, what, act);
        all.push(workload.per("call").leaves(Leaves::Alone));
    }
    all
}

fn bare(name: String, what: String, act: impl Fn(&Bare<'_>) -> Measured + 'static) -> Workload {
    let with = Act::With(Box::new(act));
    Workload { act: with, ..Workload::new(Group::Containers, name, what, |_| Ok(Vec::new())) }
}

/// Mounts, looks, unmounts: seconds of the first two, and of the last.
fn mount(bare: &Bare<'_>) -> Measured {
    let stack = bare.stack;
    let (seconds, (mut mounted, listed)) = time(|| {
        let mounted = bare.mount(stack.upper, stack.work, stack.mnt)?;
        let listed = fs::read_dir(mounted.root())?.count();
        Ok((mounted, listed))
    })?;
    check(listed == 1, || format!("{listed} entries in the root"))?;
    let shared = fs::read_dir(mounted.root().join("shared"))?.count();
    check(shared == bare.fixture.files.len(), || format!("{shared} entries in the layers"))?;
    // Looked for now, so that unmounting does not have to.
    mounted.servers();
    let (unmount, ()) = time(|| mounted.unmount())?;
    Ok(vec![seconds, unmount])
}

/// Bytes of the servers' memory a mount, and how many copies of the file are in memory.
#[allow(clippy::cast_precision_loss, reason = "sizes in memory")]
fn many(bare: &Bare<'_>, count: u32) -> Measured {
    let at = |number: u32, what: &str| bare.stack.mnt.with_extension(format!("{number}.{what}"));
    let leaf = bare.fixture.files.first().ok_or_else(|| failed("there is no file"))?;
    let mut mounts = Vec::new();
    for number in 0..count {
        let dirs: [PathBuf; 3] = ["upper", "work", "mnt"].map(|what| at(number, what));
        dirs.iter().try_for_each(fs::create_dir)?;
        let [upper, work, mnt] = dirs;
        mounts.push(bare.mount(&upper, &work, &mnt)?);
    }
    let before = usage::share_of_memory(None)?;
    let mut maps = Vec::new();
    for mounted in &mounts {
        let file = open(&mounted.root().join(&leaf.path))?;
        maps.push(mapping::Touched::of(&file, leaf.size)?);
    }
    let of_file = usage::share_of_memory(None)?.saturating_sub(before);
    let mut memory = 0;
    for mounted in &mut mounts {
        for &server in mounted.servers() {
            memory += usage::share_of_memory(Some(server)).context(|| "memory of a server")?;
        }
    }
    drop(maps);
    let count = mounts.len();
    mounts.into_iter().try_for_each(crate::bench::target::Mounted::unmount)?;
    check(of_file >= leaf.size / 2, || format!("{of_file} bytes of the file in memory"))?;
    Ok(vec![each(memory as f64, count), of_file as f64 / leaf.size as f64])
}

/// Asks what no cache answers, with the server's threads on this CPU or on the other one.
fn wake(site: &Site<'_>, count: u32, apart: bool) -> Measured {
    let cpus = usage::cpus()?;
    let (Some(&here), other) = (cpus.first(), cpus.get(1)) else {
        return Err(failed("there is no CPU to be on"));
    };
    let there = match (apart, other) {
        (false, _) => here,
        (true, Some(&other)) => other,
        (true, None) => return Err(cannot("there is only one CPU to run on")),
    };
    site.servers.iter().try_for_each(|&server| usage::pin(server, there))?;
    usage::pin_thread(&[here])?;
    let asked = time(|| {
        (0..count).try_fold(0, |blocks, _| {
            Ok::<_, crate::errno::Error>(blocks | rustix::fs::statfs(site.root)?.f_blocks)
        })
    });
    usage::pin_thread(&cpus)?;
    let (seconds, blocks) = asked?;
    check(blocks > 0, || "a filesystem without blocks".to_owned())?;
    Ok(vec![each(seconds, count as usize)])
}
