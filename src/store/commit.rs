//! Commit: from a container's changes to a layer and an image.
//!
//! ```text
//!     changes -> tar -> digest            this thread
//!                    -> unpack            a second: the new layer is made as an import makes one
//!                    -> compress, digest  a third: what the manifest says of the blob
//! ```

mod describe;
mod tee;

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::describe::{Blob, describe};
use self::tee::tee;
use super::import::Below;
use super::incoming::{NewImage, NewLayer};
use super::{Container, Store, Use};
use crate::bug;
use crate::errno::{Context, Errno, Error, Result};
use crate::image::changes;
use crate::image::compression::{Compression, Encoder};
use crate::image::digest::{ChainId, Digest, Hashing};
use crate::image::reference::Reference;
use crate::image::tar::Limits;
use crate::image::unpack::{Settled, Unpack, Unpacked};
use crate::layer::Layer;
use crate::layer::dir::{DirLayer, refuse_unclean};

/// How often and how long to try to read a container that loses files meanwhile.
const TRIES: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(20);

/// How to make an image of a container.
#[derive(Clone, Copy, Debug)]
pub struct CommitOptions<'a> {
    /// The new image's name, if it shall have one.
    pub name: Option<&'a Reference>,
    /// How the layer is compressed when the image leaves the store.
    pub compression: Compression,
    /// By whom, for the history.
    pub author: Option<&'a str>,
    /// A remark, for the history.
    pub message: Option<&'a str>,
    /// What the new config shall have instead of the old: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`,
    /// `LABEL`, `STOPSIGNAL`, `USER`, `VOLUME`, `WORKDIR`, each as in a Dockerfile.
    pub changes: &'a [String],
    /// When it was made, in seconds since 1970 (`SOURCE_DATE_EPOCH`); now, if `None`.
    pub created: Option<i64>,
    /// Set by whoever wants it to stop; the commit then fails with `EINTR` and leaves nothing.
    pub stop: &'a AtomicBool,
}

/// An image made of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its id.
    pub id: Digest,
    /// The digest of the new layer's tar.
    pub diff_id: Digest,
    /// The bytes of that tar.
    pub size: u64,
}

impl Store {
    /// Makes an image of a container: its image, and one more layer with its changes. The
    /// container stays as it is; it may be mounted, but what is being written meanwhile may be in
    /// the layer or not.
    ///
    /// # Errors
    /// `EINVAL` for a file that no layer can hold (`.wh.` names), naming it, for a change of the
    /// config that makes no sense, and for a container whose volatile mount was not unmounted;
    /// `ENOENT` if the container has gone; `EINTR` when stopped; `ENOSPC`.
    pub fn commit(&self, container: &Container, options: &CommitOptions<'_>) -> Result<Committed> {
        let _used = container.lock(Use::Read)?;
        let image = self.image_of(container)?;
        let _held = self.hold_image(&image)?;
        match container.mounted() {
            Some(by) => sync_mount(&by.mountpoint),
            None => refuse_unclean(&container.upper(), &container.work())?,
        }
        // Told before the work, not after it.
        describe(&image, options, None)?;
        let mut below = Below::default();
        for layer in &image.layers {
            below.push(&self.layout.tree_root(layer.chain))?;
        }
        let incoming = self.incoming()?;
        let started = Instant::now();
        let mut tries = 0;
        let (dir, (unpacked, blob)) = loop {
            let name = tries.to_string();
            let dir = incoming.make(&name)?;
            let in_use = container.mounted().is_some();
            match pack(container, &below.layers, &dir, options) {
                Ok(made) => break (dir, made),
                Err(_) if options.stop.load(Ordering::Relaxed) => {
                    let text = "stopped before the end; nothing was kept";
                    return Err(Error::new(Errno::EINTR, text));
                }
                // In use, it may lose a file between the listing and the reading of it.
                Err(error) if is_gone(&error) && in_use => {
                    tries += 1;
                    if tries >= TRIES && started.elapsed() > PATIENCE {
                        let text = "it changes all the time; end what runs in it, or try again";
                        return Err(error.context_of(text));
                    }
                    incoming.remove(&name)?;
                }
                Err(error) => return Err(error),
            }
        };
        if unpacked.settle(&below.layers, options.stop)? == Settled::Again {
            return Err(bug!("the changes of {} lead out of themselves", container.name));
        }
        let (config, manifest) = describe(&image, options, Some(&blob))?;
        let parent = image.top();
        let chain = parent.map_or(ChainId::base(blob.diff), |below| below.over(blob.diff));
        let (diff, size) = (blob.diff, blob.tar_size);
        let layer = NewLayer { dir, chain, parent, diff, size, census: None };
        let new = NewImage {
            id: Digest::of(&config),
            manifest: manifest.as_deref(),
            config: &config,
            top: Some(chain),
            names: options.name.map(std::slice::from_ref).unwrap_or_default(),
        };
        self.enter(&incoming, &[layer], &new)?;
        Ok(Committed { id: new.id, diff_id: blob.diff, size: blob.tar_size })
    }
}

/// Whether something was not there any more.
fn is_gone(error: &Error) -> bool {
    matches!(error.errno(), Errno::ENOENT | Errno::ESTALE | Errno::ENOTDIR)
}

/// Writes back what a mount still holds in memory.
fn sync_mount(mountpoint: &Path) {
    let flags =
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let synced = rustix::fs::open(mountpoint, flags, rustix::fs::Mode::empty())
        .and_then(|dir| rustix::fs::syncfs(&dir));
    if let Err(error) = synced {
        tracing::debug!(%error, mountpoint = %mountpoint.display(), "cannot sync the mount");
    }
}

/// Writes the changes as a tar, digests it, unpacks it into `dir` and compresses it, all at once.
fn pack(
    container: &Container,
    lowers: &[Arc<dyn Layer>],
    dir: &Path,
    options: &CommitOptions<'_>,
) -> Result<(Unpacked, Blob)> {
    let (tee, mut to_unpack, mut to_compress) = tee(options.stop);
    let unpack = Unpack { dir, limits: Limits::default(), stop: options.stop, progress: None };
    std::thread::scope(|scope| {
        let unpacking = std::thread::Builder::new()
            .name("plyfs-unpack".to_owned())
            .spawn_scoped(scope, move || unpack.unpack(&mut to_unpack))
            .context(|| "cannot start a thread")?;
        let compressing = std::thread::Builder::new()
            .name("plyfs-compress".to_owned())
            .spawn_scoped(scope, move || compress(&mut to_compress, options.compression))
            .context(|| "cannot start a thread")?;
        let mut tee = Hashing::new(tee);
        let written = write_changes(container, lowers, &mut tee).and_then(|()| Ok(tee.flush()?));
        let (tee, diff, tar_size) = tee.finish();
        // Without an end mark the other ends fail instead of taking half for the whole.
        if written.is_ok() {
            tee.end();
        } else {
            drop(tee);
        }
        let gone = || Error::new(Errno::EIO, "a thread ended unexpectedly");
        let unpacked = unpacking.join().map_err(|_| gone());
        let compressed = compressing.join().map_err(|_| gone());
        // A consumer's error makes the writer fail too, and says more.
        let broken =
            matches!(&written, Err(error) if error.errno() == Errno::from_raw(libc::EPIPE));
        if !broken {
            written?;
        }
        // If one consumer fails, so does the other for want of the rest: it is the unpacking whose
        // errors come from outside.
        let unpacked = unpacked?.context(|| "the layer of its changes")?;
        let (digest, size) = compressed??;
        Ok((unpacked, Blob { diff, tar_size, digest, size }))
    })
}

/// Writes the tar of a container's changes.
fn write_changes(
    container: &Container,
    lowers: &[Arc<dyn Layer>],
    out: &mut dyn Write,
) -> Result<()> {
    let upper: Arc<dyn Layer> = DirLayer::open_upper(&container.upper(), &container.work())?;
    let index: Option<Arc<dyn Layer>> =
        match DirLayer::open_upper(&container.work().join("index"), &container.work()) {
            Ok(index) => Some(index),
            // Made by the first mount.
            Err(error) if error.errno() == Errno::ENOENT => None,
            Err(error) => return Err(error),
        };
    changes::layer_tar(&upper, index.as_ref(), lowers, out).map(drop)
}

/// What a blob would have as its digest and size.
fn compress(tar: &mut dyn io::Read, compression: Compression) -> Result<(Digest, u64)> {
    let mut encoder = Encoder::new(compression, Hashing::new(io::sink()))?;
    io::copy(tar, &mut encoder)?;
    let (_, digest, size) = encoder.finish()?.finish();
    Ok((digest, size))
}
