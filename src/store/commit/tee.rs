//! One stream written, several read, each by a thread of its own.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How much is handed over at once, in bytes.
const CHUNK: usize = 256 << 10;
/// How many chunks wait to be taken.
const AHEAD: usize = 8;

type Chunk = Arc<[u8]>;

/// The near end: what is written comes out of both readers.
#[derive(Debug)]
pub(super) struct Tee<'a> {
    branches: [SyncSender<Chunk>; 2],
    buf: Vec<u8>,
    stop: &'a AtomicBool,
}

/// A far end. It fails instead of ending if the writer did not say that this is the end.
#[derive(Debug)]
pub(super) struct Branch {
    chunks: Receiver<Chunk>,
    current: Chunk,
    at: usize,
    ended: bool,
}

/// A writer and its two readers. `stop` set makes writing fail.
pub(super) fn tee(stop: &AtomicBool) -> (Tee<'_>, Branch, Branch) {
    let ((a, a_end), (b, b_end)) = (sync_channel(AHEAD), sync_channel(AHEAD));
    let branch = |chunks| Branch { chunks, current: Arc::from([]), at: 0, ended: false };
    let tee = Tee { branches: [a, b], buf: Vec::with_capacity(CHUNK), stop };
    (tee, branch(a_end), branch(b_end))
}

impl Tee<'_> {
    /// Says that this is the end, after a flush.
    pub(super) fn end(self) {
        for branch in &self.branches {
            // Who has gone has said why.
            branch.send(Arc::from([])).unwrap_or_default();
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::ECANCELED));
        }
        if self.buf.is_empty() {
            return Ok(());
        }
        let chunk = Chunk::from(self.buf.as_slice());
        self.buf.clear();
        for branch in &self.branches {
            let gone = |_| io::Error::from_raw_os_error(libc::EPIPE);
            branch.send(chunk.clone()).map_err(gone)?;
        }
        Ok(())
    }
}

impl Write for Tee<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let room = CHUNK - self.buf.len().min(CHUNK);
        let n = room.min(buf.len());
        self.buf.extend_from_slice(buf.get(..n).unwrap_or_default());
        if self.buf.len() >= CHUNK {
            self.send()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Read for Branch {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() && !self.ended {
            let cut = |_| io::Error::new(ErrorKind::UnexpectedEof, "the writer has given up");
            self.current = self.chunks.recv().map_err(cut)?;
            self.at = 0;
            self.ended = self.current.is_empty();
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
