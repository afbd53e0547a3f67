//! `plyfs image`: images in the store.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::args::{
    CompressionArg, ExportArgs, FormatArg, ImageCommand, ImageRmArgs, ImportArgs, InspectArgs,
    LsArgs, PruneArgs, TagArgs,
};
use super::output::{self, Exit, Failure, Outcome, Progress, Table};
use super::overlap::shown;
use super::stored;
use crate::errno::{Errno, Error};
use crate::image::compression::Compression;
use crate::image::export::Format;
use crate::image::platform::Platform;
use crate::image::reference::{self, Reference};
use crate::image::source;
use crate::store::{Event, Image, ImportOptions, Imported, Removed, Store};
use crate::sys::limits;

/// Does what was asked.
pub(super) fn run(command: &ImageCommand, root: Option<&Path>) -> Outcome {
    match command {
        ImageCommand::Import(args) => import(args, root),
        ImageCommand::Ls(args) => ls(args, root),
        ImageCommand::Inspect(args) => inspect(args, root),
        ImageCommand::Tag(args) => tag(args, root),
        ImageCommand::Rm(args) => rm(args, root),
        ImageCommand::Prune(args) => prune(args, root),
        ImageCommand::Export(args) => export(args, root),
    }
}

impl From<CompressionArg> for Compression {
    fn from(arg: CompressionArg) -> Self {
        match arg {
            CompressionArg::Gzip => Self::Gzip,
            CompressionArg::Zstd => Self::Zstd,
            CompressionArg::None => Self::None,
        }
    }
}

/// An imported image as JSON.
#[derive(Serialize)]
struct JsonImported {
    id: String,
    names: Vec<String>,
    layers: usize,
    unpacked: usize,
    resumed: usize,
}

fn import(args: &ImportArgs, root: Option<&Path>) -> Outcome {
    let store = stored::open(root)?;
    let platform = match &args.platform {
        Some(text) => text.parse().map_err(|error: Error| {
            Failure::usage("--platform", error, "for example linux/amd64 or linux/arm64/v8")
        })?,
        None => Platform::host(),
    };
    for imported in import_from(&store, &args.source, args.name.as_deref(), &platform)? {
        if args.json {
            output::json(&JsonImported {
                id: imported.id.to_string(),
                names: imported.names.iter().map(ToString::to_string).collect(),
                layers: imported.layers,
                unpacked: imported.unpacked,
                resumed: imported.resumed,
            })?;
        } else {
            let name = imported.names.first().map_or("(none)".to_owned(), ToString::to_string);
            let resumed = match imported.resumed {
                0 => String::new(),
                some => format!(", {some} of these from an interrupted import"),
            };
            output::line(format_args!(
                "{name}  {}  {} layers, {} of them new{resumed}",
                output::short(&imported.id),
                imported.layers,
                imported.unpacked + imported.resumed
            ))?;
        }
    }
    Ok(Exit::Ok)
}

/// Imports what is at `path`, with a bar on a terminal; an interrupt ends it in order.
fn import_from(
    store: &Store,
    path: &Path,
    name: Option<&str>,
    platform: &Platform,
) -> Result<Vec<Imported>, Failure> {
    let what = || format!("cannot import {}", shown(path));
    let failed = |error: Error| {
        let hint = match error.errno() {
            Errno::ENOENT => "give the archive, or the directory of an OCI layout",
            Errno::EACCES | Errno::EPERM => {
                "layers hold other users' files: import as root, or in a user namespace that has \
                 them ('unshare --map-auto --map-root-user --mount', 'podman unshare')"
            }
            Errno::EINTR => "the same command goes on from there; 'plyfs gc' removes what was kept",
            _ => "no image is imported by half; is this complete? (skopeo inspect reads it, too)",
        };
        stored::failure(what(), error, hint)
    };
    let name = name
        .map(str::parse::<Reference>)
        .transpose()
        .map_err(|error| Failure::usage("--name", error, "for example debian or debian:12"))?;
    limits::raise_open_files();
    // An interrupt ends it at once while a pipe or an archive is read: nothing was begun yet.
    let source = source::open(path, &store.scratch()).map_err(failed)?;
    let stop = stored::stop_on_interrupt().map_err(failed)?;
    let stem = reference::stem(path);
    let progress = Progress::bytes("importing");
    let (done, total) = (AtomicU64::new(0), AtomicU64::new(0));
    let hear = |event: Event<'_>| {
        match event {
            Event::Image { bytes, .. } => drop(total.fetch_add(bytes, Ordering::Relaxed)),
            Event::Read(bytes) => drop(done.fetch_add(bytes, Ordering::Relaxed)),
            Event::Unpacked(_) | Event::Syncing => {}
        }
        progress.at(done.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
    };
    let options = ImportOptions {
        name: name.as_ref(),
        stem: &stem,
        platform,
        threads: None,
        progress: &hear,
        keep_each: ImportOptions::KEEP_EACH,
        stop: &stop,
    };
    let imported = store.import(source.as_ref(), &options).map_err(failed);
    progress.finish();
    imported
}

/// The id of the image that a word means: an image's name or id, or the file of one, which is
/// imported.
///
/// The import runs in a process of its own: who runs or mounts something afterwards must have no
/// threads, and no signals blocked.
pub(super) fn find_or_import(store: &Store, word: &str) -> Result<String, Failure> {
    match store.resolve(word) {
        Ok(image) => return Ok(image.id.to_string()),
        Err(error) if error.errno() == Errno::ENOENT && Path::new(word).exists() => {}
        Err(error) => return Err(no_image(word, error)),
    }
    let what = || format!("cannot import {word}");
    let mut command = Command::new("/proc/self/exe");
    command.arg("--root").arg(store.root()).args(["image", "import", "--json", "--", word]);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::new(what(), error, "is /proc mounted?"))?;
    let imported: Vec<JsonId> = serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::new(what(), error, ""))?;
    match imported.as_slice() {
        _ if !output.status.success() => {
            Err(Failure::new(what(), "the import failed", "see above"))
        }
        [one] => Ok(one.id.clone()),
        several => {
            let names: Vec<_> = several.iter().flat_map(|image| image.names.clone()).collect();
            let why = format!("it holds {} images: {}", several.len(), names.join(", "));
            Err(Failure::new(word, why, "say which by its name: they are imported now"))
        }
    }
}

/// What is read of the output of `plyfs image import --json`.
#[derive(Deserialize)]
struct JsonId {
    id: String,
    names: Vec<String>,
}

/// An image that is not there.
fn no_image(word: &str, error: Error) -> Failure {
    let hint = "'plyfs image ls' lists images, 'plyfs image import FILE' brings one in";
    stored::failure(format!("image {word}"), error, hint)
}

fn resolve(store: &Store, word: &str) -> Result<Image, Failure> {
    store.resolve(word).map_err(|error| no_image(word, error))
}

/// An image as JSON.
#[derive(Serialize)]
struct JsonImage<'a> {
    id: String,
    names: &'a [String],
    created: &'a Option<String>,
    imported: i64,
    size: u64,
    layers: usize,
    containers: &'a [String],
}

fn ls(args: &LsArgs, root: Option<&Path>) -> Outcome {
    let store = stored::open(root)?;
    let images =
        store.images().map_err(|error| stored::failure("images", error, "try plyfs check"))?;
    let mut table = Table::new(&["NAME", "ID", "IMPORTED", "SIZE", "LAYERS"]);
    for image in &images {
        if args.json {
            output::json(&JsonImage {
                id: image.id.to_string(),
                names: &image.names,
                created: &image.created,
                imported: image.imported,
                size: image.size,
                layers: image.layers,
                containers: &image.containers,
            })?;
            continue;
        }
        let none = ["(none)".to_owned()];
        let names = if image.names.is_empty() { &none[..] } else { &image.names };
        for name in names {
            table.row([
                name.clone(),
                output::short(&image.id),
                output::age(image.imported),
                output::size(image.size),
                image.layers.to_string(),
            ]);
        }
    }
    if !args.json {
        table.print()?;
    }
    Ok(Exit::Ok)
}

/// All that is known of an image.
#[derive(Serialize)]
struct JsonInspected {
    id: String,
    names: Vec<String>,
    imported: i64,
    layers: Vec<JsonLayer>,
    manifest: Option<serde_json::Value>,
    config: serde_json::Value,
}

/// A layer of an image.
#[derive(Serialize)]
struct JsonLayer {
    diff_id: String,
    chain_id: String,
    size: u64,
    dir: output::JsonPath,
    damaged: bool,
}

fn inspect(args: &InspectArgs, root: Option<&Path>) -> Outcome {
    let store = stored::open(root)?;
    let image = resolve(&store, &args.image)?;
    let json = |bytes: &[u8]| {
        serde_json::from_slice::<serde_json::Value>(bytes).map_err(|error| {
            Failure::new(format!("image {}", args.image), error, "try plyfs check")
        })
    };
    let layers = image.layers.iter().map(|layer| JsonLayer {
        diff_id: layer.diff_id.to_string(),
        chain_id: layer.chain.to_string(),
        size: layer.size,
        dir: output::JsonPath::of(&store.layer_dir(layer.chain)),
        damaged: layer.damaged,
    });
    output::pretty_json(&JsonInspected {
        id: image.id.to_string(),
        layers: layers.collect(),
        manifest: image.manifest.as_deref().map(json).transpose()?,
        config: json(&image.config)?,
        imported: image.imported,
        names: image.names,
    })?;
    Ok(Exit::Ok)
}

fn tag(args: &TagArgs, root: Option<&Path>) -> Outcome {
    let store = stored::open(root)?;
    store.tag(&args.image, &args.name).map_err(|error| no_image(&args.image, error))?;
    Ok(Exit::Ok)
}

/// A removed image as JSON.
#[derive(Serialize)]
struct JsonRemoved<'a> {
    id: String,
    names: &'a [String],
    deleted: bool,
}

/// Says what was removed.
fn say_removed(removed: &Removed, json: bool) -> Result<(), Failure> {
    if json {
        return output::json(&JsonRemoved {
            id: removed.id.to_string(),
            names: &removed.names,
            deleted: removed.deleted,
        });
    }
    for name in &removed.names {
        output::line(format_args!("name {name}"))?;
    }
    if removed.deleted {
        output::line(format_args!("image {}", removed.id))?;
    }
    Ok(())
}

fn rm(args: &ImageRmArgs, root: Option<&Path>) -> Outcome {
    let store = stored::open(root)?;
    for image in &args.images {
        let removed = store.remove_image(image, args.force).map_err(|error| {
            let hint = match error.errno() {
                Errno::EBUSY => "'plyfs ls' lists the containers",
                _ => "'plyfs image ls' lists images",
            };
            stored::failure(format!("cannot remove {image}"), error, hint)
        })?;
        say_removed(&removed, args.json)?;
    }
    Ok(Exit::Ok)
}

fn prune(args: &PruneArgs, root: Option<&Path>) -> Outcome {
    let store = stored::open(root)?;
    let removed = store
        .prune_images(args.all)
        .map_err(|error| stored::failure("prune", error, "try plyfs check"))?;
    for removed in &removed {
        say_removed(removed, args.json)?;
    }
    Ok(Exit::Ok)
}

fn export(args: &ExportArgs, root: Option<&Path>) -> Outcome {
    let store = stored::open(root)?;
    let mut image = resolve(&store, &args.image)?;
    // Under the name that was asked for: skopeo and podman take a layout with two for two images.
    if let Ok(asked) = args.image.parse::<Reference>().map(|asked| asked.to_string())
        && image.names.contains(&asked)
    {
        image.names = vec![asked];
    }
    let format = match args.format {
        FormatArg::OciArchive => Format::OciArchive,
        FormatArg::OciDir => Format::OciLayout,
        FormatArg::DockerArchive => Format::DockerArchive,
    };
    let compression = match (args.compression, args.format) {
        (Some(compression), _) => compression.into(),
        (None, FormatArg::DockerArchive) => Compression::None,
        (None, _) => Compression::Gzip,
    };
    let failed = |error: Error| {
        let what = format!("cannot export to {}", shown(&args.dest));
        let hint = match error.errno() {
            Errno::EEXIST => "remove it first, or choose another name",
            Errno::EINTR => "nothing was left there; the same command starts it again",
            _ => "nothing was left there; 'plyfs check' verifies the store",
        };
        Failure::new(what, error, hint)
    };
    let stop = stored::stop_on_interrupt().map_err(failed)?;
    store.export(&[image], compression, format, &args.dest, &stop).map_err(failed)?;
    Ok(Exit::Ok)
}
