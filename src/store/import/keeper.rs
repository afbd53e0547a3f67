//! Finished layers are written to disk every now and then, beside the unpacking of the others, so
//! that an import that is killed need not begin anew.

use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::errno::Result;
use crate::store::finished::finish_all;
use crate::store::incoming::{Incoming, NewLayer};

/// Layers that have been finished, and their number among all.
type Finished = (usize, Vec<NewLayer>);

/// Has layers written.
pub(super) struct Keeper<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    incoming: &'scope Incoming,
    each: Duration,
    last: Instant,
    writing: Option<ScopedJoinHandle<'scope, Result<Finished>>>,
}

impl std::fmt::Debug for Keeper<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("last", &self.last).finish_non_exhaustive()
    }
}

impl<'scope, 'env> Keeper<'scope, 'env> {
    /// Writes what is in `incoming` at most once in `each`.
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        incoming: &'scope Incoming,
        each: Duration,
    ) -> Self {
        Self { scope, incoming, each, last: Instant::now(), writing: None }
    }

    /// Begins to write those of the layers that are not written yet, if it is time to.
    ///
    /// # Errors
    /// As [`end`](Self::end).
    pub(super) fn look_at(&mut self, layers: &mut [NewLayer]) -> Result<()> {
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return Ok(());
        }
        self.end(layers)?;
        if self.last.elapsed() < self.each {
            return Ok(());
        }
        let from = layers.iter().position(|layer| layer.census.is_none()).unwrap_or(layers.len());
        let mut new = layers.get(from..).unwrap_or_default().to_vec();
        let incoming = self.incoming;
        let write = move || finish_all(incoming, &mut new).map(|()| (from, new));
        let thread = std::thread::Builder::new().name("plyfs-sync".to_owned());
        match thread.spawn_scoped(self.scope, write) {
            Ok(writing) => self.writing = Some(writing),
            Err(error) => tracing::warn!(%error, "finished layers are not kept"),
        }
        Ok(())
    }

    /// Waits for what is being written, and takes over what was learned of it.
    ///
    /// # Errors
    /// What went wrong in writing it: the kernel tells of data that it could not write but once, so
    /// another attempt would seem to succeed.
    pub(super) fn end(&mut self, layers: &mut [NewLayer]) -> Result<()> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        self.last = Instant::now();
        match writing.join() {
            Ok(Ok((from, written))) => {
                for (layer, written) in layers.iter_mut().skip(from).zip(written) {
                    layer.census = written.census;
                }
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(crate::bug!("a thread has panicked")),
        }
        Ok(())
    }
}
