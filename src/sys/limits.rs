//! What the process may use.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the number of descriptors that may be open to what an administrator allows.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            // Descriptors are cached, not kept: fewer of them cost time, nothing else.
            tracing::debug!("RLIMIT_NOFILE stays as it is: {error}");
        }
    }
}
