//! `plyfs create|ls|commit|rm|gc`: containers in the store.

use std::path::Path;

use serde::Serialize;

use super::args::{CommitArgs, CreateArgs, GcArgs, LsArgs, RmArgs};
use super::output::{self, Exit, Failure, JsonPath, Outcome, Table};
use super::{image, stored};
use crate::errno::{Errno, Error};
use crate::image::reference::Reference;
use crate::store::{CommitOptions, NewContainer};

/// `plyfs create`
pub(super) fn create(args: &CreateArgs, root: Option<&Path>) -> Outcome {
    let store = stored::open(root)?;
    let image = image::find_or_import(&store, &args.image)?;
    let (container, lock) =
        store.create_container(&image, NewContainer::Kept(&args.name)).map_err(|error| {
            let hint = "'plyfs ls' lists containers, 'plyfs image ls' images";
            stored::failure(format!("container {}", args.name), error, hint)
        })?;
    drop(lock);
    output::line(&container.name)?;
    Ok(Exit::Ok)
}

/// A container as JSON.
#[derive(Serialize)]
struct JsonContainer<'a> {
    name: &'a str,
    image: String,
    image_id: String,
    created: i64,
    ephemeral: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    mounted: Option<JsonPath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
}

/// `plyfs ls`
pub(super) fn ls(args: &LsArgs, root: Option<&Path>) -> Outcome {
    let store = stored::open(root)?;
    let wrong = |error| stored::failure("containers", error, "try plyfs check");
    let mut table = Table::new(&["NAME", "IMAGE", "CREATED", "MOUNTED AT"]);
    for container in store.containers().map_err(wrong)? {
        let image = store
            .image_of(&container)
            .map_or_else(|_| container.image.hex().chars().take(12).collect(), |i| i.label());
        let mounted = container.mounted();
        if args.json {
            output::json(&JsonContainer {
                name: &container.name,
                image,
                image_id: container.image.to_string(),
                created: container.created,
                ephemeral: container.ephemeral,
                pid: mounted.as_ref().map(|by| by.pid),
                mounted: mounted.map(|by| JsonPath::of(&by.mountpoint)),
            })?;
            continue;
        }
        let mounted = mounted.map(|by| super::overlap::shown(&by.mountpoint)).unwrap_or_default();
        table.row([container.name, image, output::age(container.created), mounted]);
    }
    if !args.json {
        table.print()?;
    }
    Ok(Exit::Ok)
}

/// `plyfs commit`
pub(super) fn commit(args: &CommitArgs, root: Option<&Path>) -> Outcome {
    let store = stored::open(root)?;
    let container = stored::container(&store, &args.container)?;
    let created = source_date_epoch()?;
    let name: Reference = args
        .image
        .parse()
        .map_err(|error| Failure::usage(&args.image, error, "for example web:2"))?;
    let failed = |error: Error| {
        let hint = match error.errno() {
            Errno::EINTR => "nothing was made; the same command starts it again",
            _ => "no image was made; the container is as it was",
        };
        stored::failure(format!("cannot commit {}", args.container), error, hint)
    };
    let stop = stored::stop_on_interrupt().map_err(failed)?;
    let options = CommitOptions {
        name: Some(&name),
        compression: args.compression.into(),
        author: args.author.as_deref(),
        message: args.message.as_deref(),
        changes: &args.changes,
        created,
        stop: &stop,
    };
    let committed = store.commit(&container, &options).map_err(failed)?;
    output::line(committed.id)?;
    Ok(Exit::Ok)
}

/// The time that a reproducible build shall have, in seconds since 1970
/// (<https://reproducible-builds.org/specs/source-date-epoch/>).
fn source_date_epoch() -> Result<Option<i64>, Failure> {
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let parsed = value.to_str().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or_else(|| {
        let why = "it is no number of seconds";
        Failure::usage("SOURCE_DATE_EPOCH", why, "unset it, or give it as date +%s does")
    })
}

/// `plyfs rm`
pub(super) fn rm(args: &RmArgs, root: Option<&Path>) -> Outcome {
    let store = stored::open(root)?;
    for name in &args.containers {
        store.remove_container(name).map_err(|error| {
            let hint = match error.errno() {
                Errno::EBUSY => "unmount it first: plyfs umount",
                _ => "'plyfs ls' lists containers",
            };
            stored::failure(format!("cannot remove {name}"), error, hint)
        })?;
        output::line(name)?;
    }
    Ok(Exit::Ok)
}

/// What was collected, as JSON.
#[derive(Serialize)]
struct JsonCollected {
    containers: usize,
    layers: usize,
    strays: usize,
    deleted: usize,
}

/// `plyfs gc`
pub(super) fn gc(args: &GcArgs, root: Option<&Path>) -> Outcome {
    let store = stored::open(root)?;
    let found = store.gc().map_err(|error| stored::failure("gc", error, "try plyfs check"))?;
    if args.json {
        output::json(&JsonCollected {
            containers: found.containers,
            layers: found.layers,
            strays: found.strays,
            deleted: found.deleted,
        })?;
    } else {
        output::line(format_args!(
            "removed {} abandoned containers, {} unused layers, {} other leftovers",
            found.containers, found.layers, found.strays
        ))?;
    }
    Ok(Exit::Ok)
}
