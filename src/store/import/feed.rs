//! A stream that another thread reads ahead: decompressing beside unpacking.

use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Scope;

use super::Event;
use super::room::Room;
use crate::errno::{Context, Result};

/// How much is handed over at once, in bytes.
const CHUNK: usize = 256 << 10;
/// How many chunks wait to be taken.
const AHEAD: usize = 6;

/// Who wants to know of the stream, and who may stop it.
pub(super) struct Watch<'a> {
    /// What was read at the source since it was last told.
    pub(super) count: Arc<AtomicU64>,
    /// Whom it is told.
    pub(super) progress: &'a (dyn Fn(Event<'_>) + Sync),
    /// Either set makes reading fail.
    pub(super) stops: [&'a AtomicBool; 2],
    /// What is read from the stream is about to be written there.
    pub(super) room: &'a Room<'a>,
}

/// The near end of the stream.
pub(super) struct Feed<'a> {
    chunks: Receiver<io::Result<Vec<u8>>>,
    /// Chunks that were used, for the other end to fill anew.
    used: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
    watch: Watch<'a>,
}

impl std::fmt::Debug for Feed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl<'a> Feed<'a> {
    /// Reads `inner` in a thread of its own.
    pub(super) fn new<'scope>(
        scope: &'scope Scope<'scope, '_>,
        inner: Box<dyn Read + Send>,
        watch: Watch<'a>,
    ) -> Result<Self> {
        let (full, chunks) = sync_channel(AHEAD);
        let (used, empty) = channel();
        std::thread::Builder::new()
            .name("plyfs-read".to_owned())
            .spawn_scoped(scope, move || fill(inner, &full, &empty))
            .context(|| "cannot start a thread")?;
        Ok(Self { chunks, used, current: Vec::new(), at: 0, ended: false, watch })
    }
}

/// The far end: ends at the end of `inner` (an empty chunk), at an error, or when nobody takes.
fn fill(
    mut inner: Box<dyn Read + Send>,
    full: &SyncSender<io::Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) {
    loop {
        let mut chunk = empty.try_recv().unwrap_or_default();
        chunk.clear();
        chunk.reserve(CHUNK);
        let read = inner.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
        let last = !matches!(read, Ok(n) if n > 0);
        // What came before an error is of no use without the rest.
        if full.send(read.map(|_| chunk)).is_err() || last {
            return;
        }
    }
}

impl Read for Feed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.watch.stops.iter().any(|stop| stop.load(Ordering::Relaxed)) {
            return Err(io::Error::from_raw_os_error(libc::ECANCELED));
        }
        if self.at == self.current.len() && !self.ended {
            let used = std::mem::take(&mut self.current);
            // At the end the other thread is gone, and so is its need.
            self.used.send(used).unwrap_or_default();
            self.at = 0;
            self.current = match self.chunks.recv() {
                Ok(chunk) => chunk?,
                Err(_) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "no more is read")),
            };
            self.ended = self.current.is_empty();
            self.watch.room.take(self.current.len() as u64)?;
            (self.watch.progress)(Event::Read(self.watch.count.swap(0, Ordering::Relaxed)));
        }
        let rest = self.current.get(self.at..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        self.at += n;
        Ok(n)
    }
}
