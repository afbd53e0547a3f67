//! `plyfs doctor`: what this system allows, and what plyfs does in each case.

use std::path::Path;

use serde::Serialize;

use super::args::DoctorArgs;
use super::output::{self, Exit, Failure, Outcome};
use super::overlap::shown;
use crate::layer::dir::probe::{self, Probe};
use crate::layer::marks::Namespace;
use crate::sys::process::KernelVersion;
use crate::sys::{fuse_mount, process};

/// The oldest kernel that plyfs is made for.
const OLDEST: KernelVersion = KernelVersion { major: 5, minor: 18 };

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Item {
    /// What was looked at.
    topic: &'static str,
    /// How that is here.
    found: String,
    /// Whether plyfs can mount in spite of it.
    ok: bool,
    /// What plyfs does in that case.
    so: String,
}

/// An item whose consequences are known.
fn item(topic: &'static str, ok: bool, found: impl Into<String>, so: impl Into<String>) -> Item {
    Item { topic, found: found.into(), ok, so: so.into() }
}

/// Looks at everything and tells.
pub(super) fn run(args: &DoctorArgs) -> Outcome {
    let mut items = vec![kernel(), device(), privileges(), user_namespace(), helper()];
    items.push(overlay());
    items.push(descriptors());
    if let Some(dir) = &args.dir {
        items.extend(filesystem(dir)?);
    }
    let can_mount = items.iter().all(|item| item.ok);
    if args.json {
        for item in &items {
            output::json(item)?;
        }
    } else {
        let width = items.iter().map(|item| item.topic.len()).max().unwrap_or(0);
        for Item { topic, found, ok, so } in &items {
            let mark = if *ok { "ok" } else { "NO" };
            output::line(format_args!("{mark}  {topic:width$}  {found}"))?;
            output::line(format_args!("    {:width$}  {so}", ""))?;
        }
    }
    Ok(if can_mount { Exit::Ok } else { Exit::Failed })
}

/// The kernel's version and what its FUSE can do.
fn kernel() -> Item {
    let version = process::kernel_version();
    let found = format!("Linux {}.{}", version.major, version.minor);
    if version < OLDEST {
        let so = format!("made for {}.{} and later: untested", OLDEST.major, OLDEST.minor);
        return item("kernel", true, found, so);
    }
    item("kernel", true, found, "negotiates with its FUSE at mount what both can do")
}

/// Whether the FUSE device can be used.
fn device() -> Item {
    match fuse_mount::open_device() {
        Ok(_) => item("FUSE device", true, "can be opened", "each thread gets a queue of its own"),
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
            let so = "cannot mount: run as root, or chmod 666 /dev/fuse";
            item("FUSE device", false, "may not be opened by this user", so)
        }
        Err(errno) => {
            let so = "cannot mount: modprobe fuse (in a container: --device /dev/fuse)";
            item("FUSE device", false, format!("cannot be opened: {errno}"), so)
        }
    }
}

/// Root or not.
fn privileges() -> Item {
    let (uid, _) = process::fs_ids();
    if process::has_sys_admin() {
        let so = "mounts by itself, for all users; marks in trusted.overlay.*";
        return item("privileges", true, format!("uid {uid}, CAP_SYS_ADMIN"), so);
    }
    let helper = fuse_mount::find_program(fuse_mount::HELPER).is_some();
    let so = "mounts by the helper, for this user only; marks in user.overlay.*";
    item("privileges", helper, format!("uid {uid}, no CAP_SYS_ADMIN"), so)
}

/// The initial user namespace or another.
fn user_namespace() -> Item {
    if process::in_initial_user_namespace() {
        let so = "all owners and devices can be kept as they are";
        item("user namespace", true, "the initial one", so)
    } else {
        let so = "owners outside the namespace's map cannot be kept; marks in user.overlay.*";
        item("user namespace", true, "not the initial one", so)
    }
}

/// The mount helper.
fn helper() -> Item {
    if let Some(path) = fuse_mount::find_program(fuse_mount::HELPER) {
        let so = "used where this user may not mount by itself";
        return item("mount helper", true, shown(&path), so);
    }
    let so = "only who has CAP_SYS_ADMIN can mount; Debian's package is fuse3";
    item("mount helper", true, format!("no {}", fuse_mount::HELPER), so)
}

/// The kernel's own union, for those who want to compare.
fn overlay() -> Item {
    let known = std::fs::read_to_string("/proc/filesystems")
        .is_ok_and(|text| text.lines().any(|line| line.ends_with("\toverlay")));
    let found = if known { "loaded" } else { "not loaded (or not there)" };
    let so = "not needed: an upperdir of plyfs, unmounted, can be mounted by it and back";
    item("kernel overlayfs", true, found, so)
}

/// The limit on open files.
fn descriptors() -> Item {
    let limit = process::nofile_limit();
    let so = "raised to the hard limit at mount; descriptors are cached within it";
    item("open files", true, format!("limit {limit}"), so)
}

/// What the filesystem of a directory allows.
fn filesystem(dir: &Path) -> Result<Vec<Item>, Failure> {
    let probe = probe::probe(dir).map_err(|error| {
        let hint = "give a directory that you may write to";
        Failure::new(format!("doctor: {}", shown(dir)), error, hint)
    })?;
    let marks = match probe.namespace {
        Some(Namespace::Trusted) => item("marks", true, "trusted.overlay.*", "as overlayfs's own"),
        Some(Namespace::User) => {
            let so = "overlayfs reads them with userxattr, but no redirects";
            item("marks", true, "user.overlay.*", so)
        }
        None if probe.char_whiteouts && probe.identity => {
            let so = "kept in the workdir: all works but users' attributes, and a copy of the \
                      directories cannot be mounted";
            item("marks", true, "no extended attributes", so)
        }
        None => item("marks", false, "no extended attributes", "cannot be an upperdir"),
    };
    Ok(std::iter::once(marks).chain(abilities(&probe)).collect())
}

/// What the filesystem can do, and what plyfs does if it can and if it cannot.
fn abilities(probe: &Probe) -> impl Iterator<Item = Item> {
    const NO_UPPER: &str = "cannot be an upperdir";
    let row = |topic, has, then: &str, otherwise: &str| {
        let so = if has { then } else { otherwise };
        item(topic, has || otherwise != NO_UPPER, if has { "yes" } else { "no" }, so)
    };
    [
        row(
            "whiteout devices",
            probe.char_whiteouts,
            "deletes by devices 0:0",
            "deletes by marked empty files",
        ),
        row(
            "RENAME_WHITEOUT",
            probe.rename_whiteout,
            "renames in one step",
            "stages a whiteout beforehand",
        ),
        row("RENAME_EXCHANGE", probe.exchange, "replaces directories in one step", NO_UPPER),
        row("RENAME_NOREPLACE", probe.no_replace, "never replaces unasked", NO_UPPER),
        row("symbolic links", probe.symlinks, "are kept as they are", NO_UPPER),
        row("O_TMPFILE", probe.tmpfile, "not needed yet", "not needed: stages under names"),
        row("reflinks", probe.reflink, "copies up by sharing blocks", "copies up by copying data"),
        row("d_type", probe.d_type, "lists without a stat each", "lists with a stat each"),
        row(
            "file handles",
            probe.handles,
            "hard links stay one",
            "a hard link parts when copied up",
        ),
        row(
            "CAP_DAC_OVERRIDE",
            probe.overrides,
            "works on objects whatever their permission bits",
            "keeps bits that would shut us out as marks; cannot read lower files that their owner \
             may not read",
        ),
    ]
    .into_iter()
}
