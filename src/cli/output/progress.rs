//! A bar on a terminal for what takes more than a second; nothing anywhere else.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows how far something is.
#[derive(Clone, Debug)]
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
}

/// Nothing is shown before something has taken this long.
const PATIENCE: Duration = Duration::from_secs(1);

impl Progress {
    /// Of something that is counted in bytes.
    pub fn bytes(what: &'static str) -> Self {
        Self::with(what, "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}")
    }

    fn with(what: &'static str, template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self { bar, started: Instant::now() }
    }

    /// Of something that is counted in pieces.
    pub fn pieces(what: &'static str) -> Self {
        Self::with(what, "{bar:30} {pos}/{len} {msg}")
    }

    /// Says what is being done now.
    pub fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// Says that `done` of `total` are done.
    pub fn at(&self, done: u64, total: u64) {
        if self.started.elapsed() < PATIENCE {
            return;
        }
        if self.bar.is_hidden() {
            // Hidden still if standard error is no terminal.
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
