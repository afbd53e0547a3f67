//! Where the log goes.

use std::path::PathBuf;

use tracing_subscriber::EnvFilter;

/// Logs to standard error what `$PLYFS_LOG` asks for, else `default`.
pub(super) fn to_stderr(default: &str) {
    let filter = EnvFilter::try_from_env("PLYFS_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Only a second call can fail, and the first one's log is as good.
    subscriber.try_init().unwrap_or_default();
}

/// The file that `$PLYFS_LOG_FILE` names.
pub(super) fn file() -> Option<PathBuf> {
    std::env::var_os("PLYFS_LOG_FILE").filter(|path| !path.is_empty()).map(PathBuf::from)
}
