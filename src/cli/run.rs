//! `plyfs run`: a container from an image, a command in it, and afterwards nothing.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::args::RunArgs;
use super::mount::{self, Request, Serving};
use super::output::{self, Exit, Failure, Outcome};
use super::{image, stored, umount};
use crate::container::{self, Spec, Status, config as wishes};
use crate::errno::{Errno, Error};
use crate::image::config::Config;
use crate::store::{Container, Lock, NewContainer, Store, Use};
use crate::sys::program;

/// Runs a command in a container.
pub(super) fn run(args: &RunArgs, root: Option<&Path>) -> Outcome {
    // Before anything else: what the container executes first may be this very program.
    program::shield().map_err(|error| Failure::new("run", error, "is /proc mounted?"))?;
    let store = stored::open(root)?;
    let (container, user) = find(&store, args)?;
    let image = store
        .image_of(&container)
        .map_err(|error| stored::failure(&args.image, error, "try plyfs check"))?;
    let ran = Config::parse(&image.config)
        .map_err(|error| Failure::new(&args.image, error, "is it an image of a file system?"))
        .and_then(|config| in_container(&store, &container, args, &config));
    // Not across the clean-up: a killed one is cleaned up after by whoever comes next.
    let cleaned = if container.ephemeral {
        store.discard_container(&container, user).map_err(|error| {
            stored::failure(format!("container {}", container.name), error, "'plyfs gc' removes it")
        })
    } else {
        drop(user);
        Ok(())
    };
    let status = ran?;
    // How the command ended is what was asked; what it wrote, if it is to be kept, is there.
    if let Err(failure) = cleaned {
        output::failure(&failure);
    }
    if let Status::NotStarted(error) = &status {
        return Err(Failure {
            exit: Exit::Command(status.code()),
            ..Failure::new(
                "run",
                error,
                "give a command that the image has: plyfs run IMAGE -- CMD",
            )
        });
    }
    Ok(Exit::Command(status.code()))
}

/// The container that is meant, made if an image is meant, and the lock that keeps it.
fn find(store: &Store, args: &RunArgs) -> Result<(Container, Lock), Failure> {
    let failed = |error: Error| {
        let hint = match error.errno() {
            Errno::EEXIST => "start that one by its name, or keep this one under another",
            _ => "'plyfs ls' lists containers, 'plyfs image ls' images",
        };
        stored::failure("run", error, hint)
    };
    match store.container(&args.image) {
        Ok(container) => {
            if let Some(name) = &args.keep {
                let why = format!("{} is a container, and kept under its own name", args.image);
                return Err(Failure::usage(format!("--keep {name}"), why, "leave --keep out"));
            }
            let lock = container.lock(Use::Read).map_err(failed)?;
            return Ok((container, lock));
        }
        Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::EINVAL) => {}
        Err(error) => return Err(failed(error)),
    }
    let image = image::find_or_import(store, &args.image)?;
    let new = match &args.keep {
        Some(name) => NewContainer::Kept(name),
        None => NewContainer::Ephemeral,
    };
    store.create_container(&image, new).map_err(failed)
}

/// Mounts the container, runs the command, unmounts.
fn in_container(
    store: &Store,
    container: &Container,
    args: &RunArgs,
    config: &Config,
) -> Result<Status, Failure> {
    let (options, mut lock) = stored::layers(store, container)?;
    let root = container.merged();
    let spec = spec(args, config, container, &root)
        .map_err(|error| Failure::usage("run", error, "see 'plyfs help run'"))?;
    stored::sign(&mut lock, &root);
    mount::start(Request {
        options,
        mountpoint: root.clone(),
        serving: Serving::usual()?,
        source: stored::source(container),
        held: Some(lock),
        with_parent: true,
    })?;
    let ran = container::run(&spec);
    // Whatever the command left running has ended with its process 1. Somebody else may be looking.
    let unmounted = umount::unmount(&root, false);
    let status = ran.map_err(|error| {
        let hint = match error.errno() {
            Errno::EPERM | Errno::EACCES => {
                "run as root, or in a user namespace: 'unshare --map-auto --map-root-user --mount'"
            }
            _ => "'plyfs doctor' tells what this system allows",
        };
        Failure::new("run", error, hint)
    })?;
    if let Err(failure) = unmounted {
        let hint = "detached: it ends when nobody uses it any more".to_owned();
        output::failure(&Failure { hint, ..failure });
        umount::unmount(&root, true)?;
    }
    Ok(status)
}

/// From what the image says and what the user wants to what is run.
fn spec(
    args: &RunArgs,
    config: &Config,
    container: &Container,
    root: &Path,
) -> Result<Spec, Error> {
    let hostname = args.hostname.clone().unwrap_or_else(|| short_name(&container.name));
    let terminal = std::io::stdin().is_terminal().then(|| std::env::var_os("TERM")).flatten();
    let variables = args
        .env
        .iter()
        .map(|argument| wishes::variable(argument, |name| std::env::var_os(name)))
        .collect::<Result<Vec<_>, _>>()?;
    let binds = args.volumes.iter().map(|argument| wishes::bind(argument));
    Ok(Spec {
        root: root.to_owned(),
        args: wishes::command(
            &config.entrypoint,
            &config.cmd,
            args.entrypoint.as_deref(),
            &args.command,
        )?,
        env: wishes::environment(&hostname, terminal.as_deref(), &config.env, &variables),
        cwd: match &args.workdir {
            Some(dir) => PathBuf::from(dir),
            None => PathBuf::from(&config.working_dir),
        },
        user: args.user.clone().or_else(|| Some(config.user.clone())),
        hostname,
        binds: binds.collect::<Result<Vec<_>, _>>()?,
        resolv_conf: true,
    })
}

/// A host name can have 64 bytes.
fn short_name(name: &str) -> String {
    name.chars().take(63).collect()
}
