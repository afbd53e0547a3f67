//! Layers of an export, compressed by several threads ahead of the one that writes them one after
//! another. What is ready waits in memory, up to a limit; a layer's bytes are what one thread alone
//! would have made of it.

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use super::LayerWriter;
use crate::errno::{Context as _, Errno, Error, Result};
use crate::image::compression::{Compression, Encoder};
use crate::image::digest::{DiffId, Hashing};

/// How much is handed over at once, in bytes.
const CHUNK: usize = 1 << 20;
/// What may wait in all, in chunks: 128 MiB.
const WAITING_MOST: usize = 128;

/// A layer to be compressed: whose it is, which of them, and its identity.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) image: usize,
    pub(super) layer: usize,
    pub(super) id: DiffId,
}

/// A piece of a compressed layer; an empty one is its end.
type Piece = Result<Vec<u8>>;

/// Compressed layers, in the order of their jobs.
#[derive(Debug)]
pub(super) struct Ahead {
    layers: std::vec::IntoIter<Receiver<Piece>>,
}

impl Ahead {
    /// Begins with all jobs, the first ones first, by at most so many `threads`.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        jobs: &[Job],
        layer: &'scope LayerWriter<'scope>,
        compression: Compression,
        threads: usize,
    ) -> Result<Self> {
        let threads = threads.clamp(1, jobs.len().max(1));
        let most = (WAITING_MOST / threads).max(1);
        let (todo, layers): (Vec<_>, Vec<_>) = jobs
            .iter()
            .map(|&job| {
                let (pieces, layer) = sync_channel(most);
                ((job, pieces), layer)
            })
            .unzip();
        let todo = std::sync::Arc::new(Mutex::new(todo.into_iter()));
        for _ in 0..threads {
            let todo = std::sync::Arc::clone(&todo);
            let next = move || todo.lock().ok().and_then(|mut todo| todo.next());
            std::thread::Builder::new()
                .name("plyfs-compress".to_owned())
                .spawn_scoped(scope, move || {
                    while let Some((job, pieces)) = next() {
                        let made = compress(job, layer, compression, &pieces);
                        // Nobody takes any more: the export has failed.
                        if pieces.send(made.map(|()| Vec::new())).is_err() {
                            return;
                        }
                    }
                })
                .context(|| "cannot start a thread")?;
        }
        Ok(Self { layers: layers.into_iter() })
    }

    /// Writes the next layer to `out`.
    pub(super) fn next(&mut self, out: &mut dyn Write) -> Result<()> {
        let gone = || Error::new(Errno::EIO, "a thread that compressed layers ended unexpectedly");
        let pieces = self.layers.next().ok_or_else(gone)?;
        loop {
            let piece = pieces.recv().map_err(|_| gone())??;
            if piece.is_empty() {
                return Ok(());
            }
            out.write_all(&piece)?;
        }
    }
}

/// Makes a layer's tar, compresses it, and compares it with its identity.
fn compress(
    job: Job,
    layer: &LayerWriter<'_>,
    compression: Compression,
    to: &SyncSender<Piece>,
) -> Result<()> {
    let Job { image, layer: which, id } = job;
    let pieces = Pieces { to, piece: Vec::with_capacity(CHUNK) };
    let mut input = Hashing::new(Encoder::new(compression, pieces)?);
    layer(image, which, &mut input).context(|| format!("layer {id}"))?;
    let (encoder, found, _) = input.finish();
    if found != id {
        let why = format!("layer {id}: what was stored of it gives {found}");
        return Err(Error::new(Errno::EIO, why));
    }
    Ok(encoder.finish()?.flush()?)
}

/// Hands over what is written to it.
struct Pieces<'a> {
    to: &'a SyncSender<Piece>,
    piece: Vec<u8>,
}

impl Write for Pieces<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = CHUNK - self.piece.len().min(CHUNK);
        let taken = buf.get(..room.min(buf.len())).unwrap_or_default();
        self.piece.extend_from_slice(taken);
        if self.piece.len() == CHUNK {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(CHUNK));
        self.to.send(Ok(piece)).map_err(|_| io::Error::from_raw_os_error(libc::EPIPE))
    }
}
