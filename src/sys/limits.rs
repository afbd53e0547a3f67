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

/// Lets files become as large as their filesystem allows: what a program may write is limited by
/// the kernel before it asks us. Where an administrator's limit stays, writing past it is `EFBIG`,
/// not the end of this process: see [`block_termination`](super::signal::block_termination).
pub fn lift_file_size() {
    let unlimited = Rlimit { current: None, maximum: None };
    if setrlimit(Resource::Fsize, unlimited).is_err() {
        let limit = getrlimit(Resource::Fsize);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Fsize, raised) {
            tracing::debug!("RLIMIT_FSIZE stays as it is: {error}");
        }
    }
}
