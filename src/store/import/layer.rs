//! One layer on its way in: read, decompressed, digested, unpacked, settled.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Scope;

use super::feed::{Feed, Watch};
use super::room::Room;
use super::{Event, ImportOptions};
use crate::bug;
use crate::errno::{Context, Errno, Error, Result};
use crate::image::compression;
use crate::image::digest::{DiffId, Hashing};
use crate::image::source::{Source, SourceImage};
use crate::image::tar::Limits;
use crate::image::unpack::{Settled, Unpack, Unpacked};
use crate::layer::Layer;
use crate::layer::dir::DirLayer;
use crate::store::incoming::Incoming;

/// What the workers share.
pub(super) struct Work<'a> {
    pub(super) source: &'a dyn Source,
    pub(super) image: &'a SourceImage,
    pub(super) incoming: &'a Incoming,
    pub(super) options: &'a ImportOptions<'a>,
    /// Set once another layer has failed.
    pub(super) abort: &'a AtomicBool,
    /// What all of them may take.
    pub(super) room: &'a Room<'a>,
}

/// A layer that was unpacked by itself.
#[derive(Debug)]
pub(in crate::store) struct Ready {
    /// Where it is.
    pub(in crate::store) dir: PathBuf,
    /// The digest of its tar, as found.
    pub(in crate::store) diff: DiffId,
    /// The bytes of its tar.
    pub(in crate::store) size: u64,
    /// What is left to be done.
    pub(in crate::store) unpacked: Unpacked,
}

/// The layers below the next one.
#[derive(Debug, Default)]
pub(in crate::store) struct Below {
    /// Topmost first.
    pub(in crate::store) layers: Vec<Arc<dyn Layer>>,
}

impl Below {
    /// One more, which all that follow lie on.
    pub(in crate::store) fn push(&mut self, root: &Path) -> Result<()> {
        let layer: Arc<dyn Layer> = DirLayer::open(root)?;
        if layer.root_entry()?.1.opaque {
            self.layers.clear();
        }
        self.layers.insert(0, layer);
        Ok(())
    }
}

type Stream<'a> = Hashing<Feed<'a>>;

impl Work<'_> {
    pub(super) fn stopped(&self) -> bool {
        self.options.stop.load(Ordering::Relaxed) || self.abort.load(Ordering::Relaxed)
    }

    /// Unpacks a layer into a directory of its own, knowing nothing of those below.
    pub(super) fn unpack<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        place: usize,
    ) -> Result<Ready> {
        let diff = self.diff(place)?;
        let dir = self.incoming.make(&place.to_string())?;
        let unpack = self.how(&dir);
        let (unpacked, size) = self
            .read(scope, place, diff, |stream| unpack.unpack(stream))
            .context(|| format!("layer {} ({diff})", place + 1))?;
        (self.options.progress)(Event::Unpacked(diff));
        Ok(Ready { dir, diff, size, unpacked })
    }

    /// Unpacks a layer once more, knowing what lies below.
    fn unpack_over<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        place: usize,
        below: &Below,
    ) -> Result<Unpacked> {
        let name = place.to_string();
        self.incoming.remove(&name)?;
        let dir = self.incoming.make(&name)?;
        let (unpack, diff) = (self.how(&dir), self.diff(place)?);
        let read = |stream: &mut Stream<'_>| unpack.unpack_over(stream, &below.layers);
        Ok(self.read(scope, place, diff, read)?.0)
    }

    fn how<'b>(&'b self, dir: &'b Path) -> Unpack<'b> {
        Unpack { dir, limits: Limits::default(), stop: self.options.stop, progress: None }
    }

    fn diff(&self, place: usize) -> Result<DiffId> {
        self.image.diff_ids.get(place).copied().ok_or_else(|| Errno::EINVAL.into())
    }

    /// Opens a layer's tar, lets `unpack` read it, and compares it with its digest.
    fn read<'scope, T>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        place: usize,
        diff: DiffId,
        unpack: impl FnOnce(&mut Stream<'scope>) -> Result<T>,
    ) -> Result<(T, u64)> {
        let layer = self.image.layers.get(place).ok_or(Errno::EINVAL)?;
        let count = Arc::new(AtomicU64::new(0));
        let blob = Counted { inner: self.source.layer(layer)?, count: count.clone() };
        let (_, tar) = compression::decoder(Box::new(blob))?;
        let watch = Watch {
            count,
            progress: self.options.progress,
            stops: [self.options.stop, self.abort],
            room: self.room,
        };
        let mut stream = Hashing::new(Feed::new(scope, tar, watch)?);
        let unpacked = unpack(&mut stream).and_then(|unpacked| {
            // The blob is verified at its end only, and the digest is of all there is.
            io::copy(&mut stream, &mut io::sink())?;
            Ok(unpacked)
        });
        let unpacked = unpacked.map_err(|error| self.room.refusal().unwrap_or(error))?;
        let (_, found, size) = stream.finish();
        if found != diff {
            let text = format!("its content has the digest {found}, not what the config says");
            return Err(Error::new(Errno::EIO, text));
        }
        Ok((unpacked, size))
    }
}

/// Finishes a layer when all below it are finished.
pub(super) fn settle<'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: &'scope Work<'_>,
    place: usize,
    ready: Ready,
    below: &Below,
) -> Result<()> {
    let stop = work.options.stop;
    if ready.unpacked.settle(&below.layers, stop)? != Settled::Again {
        return Ok(());
    }
    match work.unpack_over(scope, place, below)?.settle(&below.layers, stop)? {
        Settled::Done { .. } => Ok(()),
        Settled::Again => Err(bug!("layer {place} cannot be settled")),
    }
}

/// Counts what is read.
struct Counted {
    inner: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
