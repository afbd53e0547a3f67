//! Whether work that takes long is to go on: whoever asked for it may be gone.
//!
//! A driver runs an operation [`under`] a question, and the copying of data asks it now and then.
//! The answer belongs to the thread that works: an operation is one thread's from its beginning
//! to its end.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use crate::errno::{Errno, Result};

/// How often somebody who waits for another's copy-up asks.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// Says whether to stop.
pub type Question = Arc<dyn Fn() -> bool + Send + Sync>;

thread_local! {
    static ASKED: RefCell<Option<Question>> = const { RefCell::new(None) };
}

/// Runs `work`, which fails with `EINTR` soon after `stop` says true, as if it had not begun.
pub fn under<T>(stop: Question, work: impl FnOnce() -> T) -> T {
    /// Takes the question back, also when `work` panics.
    struct Asked;
    impl Drop for Asked {
        fn drop(&mut self) {
            ASKED.set(None);
        }
    }
    ASKED.set(Some(stop));
    let _asked = Asked;
    work()
}

/// Whether anybody could stop what this thread does.
pub(super) fn is_possible() -> bool {
    ASKED.with_borrow(Option::is_some)
}

/// Goes on, or not.
///
/// # Errors
/// `EINTR` to stop.
pub(super) fn check() -> Result<()> {
    // Not under the borrow: the question may do anything.
    let question = ASKED.with_borrow(Clone::clone);
    if question.is_some_and(|stop| stop()) { Err(Errno::EINTR.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
