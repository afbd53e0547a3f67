//! The store: images, the layers they are made of, and containers, on our disk.
//!
//! ```text
//!     layout         every path under the root
//!     db             the database: what exists, and how its tables came to be
//!     lock           what is in use: locks that die with their process
//!     image          names and images: list, resolve, tag, remove
//!     import         a source's blobs to layers and an image
//!     incoming       layers on their way in, and the step that makes them part of the store
//!     finished       layers of an import that was interrupted, for the next one
//!     commit         a container's changes to a layer and an image
//!     export         layers' tars again, for who writes images
//!     container      writable directories over images
//!     trash, gc      what goes is renamed first and deleted later; what nobody owns goes
//!     reserve        space kept back, so that a full disk can be emptied
//!     census         a layer's tree in one digest
//!     check          whether all of it is what it says it is
//! ```
//!
//! # Rules
//! The database says what exists. Files are on disk for good before a row says so; a row is gone
//! for good before its files go. Every rename into or out of the visible directories happens while
//! the database's write lock is held (`BEGIN IMMEDIATE`), so whoever holds that lock sees rows and
//! directories that agree, or what a crash left: directories without rows, never the reverse.
//!
//! Several processes use one store at once. A handle is opened after a fork, never carried across
//! one; [`Lock`]s may be carried.

mod census;
mod check;
mod commit;
mod container;
mod db;
mod export;
mod finished;
mod gc;
mod image;
mod import;
mod incoming;
pub mod layout;
mod lock;
mod reserve;
mod trash;

use std::path::{Path, PathBuf};

pub use self::check::{CheckOptions, Finding, Remedy, Report};
pub use self::commit::{CommitOptions, Committed};
pub use self::container::{Container, Mountable, NewContainer};
pub use self::gc::Collected;
pub use self::image::{Image, ImageInfo, LayerInfo, Removed};
pub use self::import::{Event, ImportOptions, Imported};
use self::layout::Layout;
pub use self::lock::{Lock, Signature, Use};
use crate::errno::{Context, Errno, Error, Result};
use crate::image::digest::ChainId;

/// A store, opened.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
    db: db::Db,
}

impl Store {
    /// Opens the store at `root`, or the default one; made if there is none yet.
    ///
    /// # Errors
    /// `EINVAL` for a store of a newer version; `ENOTEMPTY` for a directory that holds something
    /// else; `EACCES` for another user's.
    pub fn open(root: Option<&Path>) -> Result<Self> {
        let root = match root {
            Some(root) => {
                std::path::absolute(root).context(|| format!("store {}", root.display()))?
            }
            None => Self::default_root()?,
        };
        let what = || format!("store {}", root.display());
        let layout = Layout::prepare(&root).context(what)?;
        let open = || db::Db::open(&layout);
        let db = reserve::with(&layout, open).context(what)?;
        layout.make_directories().context(what)?;
        reserve::keep(&layout);
        Ok(Self { layout, db })
    }

    /// Where the store is if nobody says: `/var/lib/plyfs` for root, `$XDG_DATA_HOME/plyfs` (or
    /// `~/.local/share/plyfs`) for others.
    ///
    /// # Errors
    /// `EINVAL` if neither `XDG_DATA_HOME` nor `HOME` is an absolute path.
    pub fn default_root() -> Result<PathBuf> {
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/plyfs"));
        }
        let home = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let data = home("XDG_DATA_HOME")
            .or_else(|| home("HOME").map(|home| home.join(".local/share")))
            .ok_or_else(|| {
                let text = "no place for a store: neither XDG_DATA_HOME nor HOME is set";
                Error::new(Errno::EINVAL, text)
            })?;
        Ok(data.join("plyfs"))
    }

    /// Where nameless files may be kept while an import reads them.
    pub fn scratch(&self) -> PathBuf {
        self.layout.incoming()
    }

    /// Where the tree of a layer is.
    pub fn layer_dir(&self, chain: ChainId) -> PathBuf {
        self.layout.tree_root(chain)
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }
}

/// Seconds since 1970, now.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// A name for a directory that nobody else is likely to use: 16 hexadecimal digits.
fn fresh_name() -> String {
    use std::hash::{BuildHasher, RandomState};
    let salt = (std::process::id(), std::thread::current().id());
    format!("{:016x}", RandomState::new().hash_one(salt))
}
