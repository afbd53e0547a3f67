//! Every path under the store's root.
//!
//! ```text
//!     ROOT/                       0700: images hold set-id programs
//!       plyfs.db                  what exists; PRAGMA user_version is the store's version
//!       reserve                   space kept back, so that a full disk can be emptied
//!       trees/CHAIN/root          a layer, unpacked, in overlay format
//!                   recipe        what gives back its tar bit for bit
//!                   kept/         contents that a later entry of the same tar replaced
//!       snapshots/ID/upper,work   a container's changes, and the mount's own directory
//!                    merged       where it is mounted if nobody says where
//!                    lock         held while it is in use
//!                    mount        held while it is mounted; says by whom
//!       incoming/NAME/            layers on their way in; the directory's lock is the owner's
//!       trash/NAME                on its way out
//! ```

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use crate::errno::{Context, Errno, Error, Result};
use crate::image::digest::ChainId;

/// The directories below the root.
const DIRECTORIES: [&str; 4] = ["trees", "snapshots", "incoming", "trash"];
/// The database, and what SQLite keeps beside it.
const DATABASE: &str = "plyfs.db";

/// Space kept back.
const RESERVE: &str = "reserve";

/// Paths in one store.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the root if there is none, and refuses one that is no store or not ours.
    pub(super) fn prepare(root: &Path) -> Result<Self> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .context(|| "cannot make the directory")?;
        let found = std::fs::metadata(root)?;
        let me = rustix::process::geteuid().as_raw();
        if found.uid() != me {
            let text = format!(
                "it belongs to user {}, and this is user {me}; choose another with --root",
                found.uid()
            );
            return Err(Error::new(Errno::EACCES, text));
        }
        let ours = |name: &str| {
            name.starts_with(DATABASE) || name == RESERVE || DIRECTORIES.contains(&name)
        };
        if !root.join(DATABASE).exists() {
            for entry in std::fs::read_dir(root)? {
                let name = entry?.file_name();
                if !name.to_str().is_some_and(ours) {
                    let text = format!(
                        "it is not empty and no store: it holds {}; choose an empty directory",
                        name.display()
                    );
                    return Err(Error::new(Errno::ENOTEMPTY, text));
                }
            }
        }
        if found.permissions().mode() & 0o077 != 0 {
            std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// Refuses directories that hold something while the database is new: it was lost, and whatever
    /// it does not know would go with the next collection, containers included.
    pub(super) fn refuse_orphans(&self) -> Result<()> {
        for name in DIRECTORIES {
            let dir = self.root.join(name);
            let holds = match std::fs::read_dir(&dir) {
                Ok(mut entries) => entries.next().transpose()?.is_some(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
                Err(error) => return Err(Error::from(error).context_of(dir.display())),
            };
            if holds {
                let text = format!(
                    "{DATABASE} is lost or empty, but {name}/ is not; put {DATABASE} back (with \
                     {DATABASE}-wal, if there is one), or move {name}/ elsewhere"
                );
                return Err(Error::new(Errno::EIO, text));
            }
        }
        Ok(())
    }

    /// Makes the directories, durably.
    pub(super) fn make_directories(&self) -> Result<()> {
        let mut made = false;
        for name in DIRECTORIES {
            match std::fs::DirBuilder::new().mode(0o700).create(self.root.join(name)) {
                Ok(()) => made = true,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
        if made { sync_dir(&self.root) } else { Ok(()) }
    }

    /// The store's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.root.join(DATABASE)
    }

    /// Space kept back for removals.
    pub(super) fn reserve(&self) -> PathBuf {
        self.root.join(RESERVE)
    }

    /// Where layers are.
    pub fn trees(&self) -> PathBuf {
        self.root.join("trees")
    }

    /// The layer that completes a chain.
    pub fn tree(&self, chain: ChainId) -> PathBuf {
        self.trees().join(chain.0.hex())
    }

    /// The root directory of that layer.
    pub fn tree_root(&self, chain: ChainId) -> PathBuf {
        self.tree(chain).join("root")
    }

    /// Where containers are.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// One container.
    pub fn snapshot(&self, id: i64) -> PathBuf {
        self.snapshots().join(id.to_string())
    }

    /// What is on its way in.
    pub fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    /// What is on its way out.
    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, path, flags, Mode::empty())
        .context(|| format!("cannot open {}", path.display()))?;
    rustix::fs::fsync(&dir).context(|| format!("cannot sync {}", path.display()))
}
