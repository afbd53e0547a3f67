//! The layers, seen as one. Knows no FUSE and no paths: an entry is (parent node, name).
//!
//! One file per family of operations, in the manner of the kernel's fs/overlayfs; [`node`] holds
//! the structures and the lock order, and is the one to read first. An operation that changes
//! something goes: look (which layers hold what), prepare (copy up, marks that change nothing
//! visible), latch and look again, publish (one step on the upper layer), account (in memory).

mod acl;
mod attr;
pub mod below;
mod copy_up;
mod create;
mod descend;
mod file;
pub mod ids;
mod index;
mod ino;
pub mod interrupt;
mod live;
mod lookup;
mod node;
mod readdir;
mod redirect;
mod remove;
mod rename;
mod room;
mod table;
mod tmpfile;
mod xattr;

use std::sync::Arc;

use parking_lot::Mutex;

use crate::attr::{Attr, Kind, StatFs};
use crate::errno::{Errno, Error, Result};
use crate::layer::{Held, Layer, Upper};

use ids::Ids;
use ino::InoMap;
use live::Live;
use lookup::Recent;
use node::{Lower, Node, State, UpperRef};
use readdir::Listings;
use table::Interned;

/// A node of the union, as the driver names it: valid from the lookup that returned it until it is
/// forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// What is unioned.
#[derive(Debug)]
pub struct Stack {
    /// The writable layer; without it the union is read-only (`EROFS`).
    pub upper: Option<Arc<dyn Upper>>,
    /// The read-only layers, topmost first. At least one, unless there is an upper.
    pub lowers: Vec<Arc<dyn Layer>>,
}

/// When copied-up data must be durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Data are synced before a copy-up becomes visible; fsync means fsync.
    #[default]
    Strict,
    /// As [`Strict`](Self::Strict), but fsync does nothing: what a program wants to be durable is
    /// so when the union ends, or when the filesystem below gets to it.
    Unasked,
    /// Nothing is ever synced; after a crash the upper layer must be thrown away.
    Volatile,
}

/// Whether a change of metadata alone copies a file's metadata alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metacopy {
    /// It does: the data stay below until they are changed, and who reads the upper layer needs
    /// those below it.
    #[default]
    On,
    /// It copies the whole file.
    Off,
}

/// Whether directories of lower layers can be renamed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redirects {
    /// They can: what was renamed says where it was.
    #[default]
    On,
    /// No redirect is written: `EXDEV`, at which programs copy instead. Those that are there are
    /// followed.
    Off,
}

/// Which extended attributes there are for users. What is there is kept by copy-ups in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Xattrs {
    /// Those of the filesystem below.
    #[default]
    All,
    /// No ACLs: none can be seen, set or inherited.
    NoAcl,
    /// None: `EOPNOTSUPP`.
    None,
}

/// Every switch of a union, with its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// When copied-up data must be durable.
    pub durability: Durability,
    /// What a change of metadata copies.
    pub metacopy: Metacopy,
    /// Whether directories of lower layers can be renamed.
    pub redirects: Redirects,
    /// Which extended attributes there are for users.
    pub xattrs: Xattrs,
    /// Directories show a link count of 1, and not that of their subdirectories.
    pub static_nlink: bool,
    /// Whose files the mount shows.
    pub ids: Ids,
}

/// Who asks: for the owner of new objects and for set-id rules. Permission to do it has been
/// checked before (the kernel does, with `default_permissions`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Filesystem user id.
    pub uid: u32,
    /// Filesystem group id.
    pub gid: u32,
}

/// The mode of a new object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Permission bits as the program gave them, `0o7777`.
    pub perm: u16,
    /// The program's umask; it does not apply where the parent has a default ACL.
    pub umask: u16,
}

/// A node as a lookup or a creation returns it. Its lookup count has been raised by one.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The node.
    pub node: NodeId,
    /// Its attributes; `ino` is the number that the mount shows.
    pub attr: Attr,
}

/// An open file: which access it was opened with. It can be made anew from (node, flags).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(pub u64);

/// How rename treats the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RenameFlag {
    /// Replace it.
    #[default]
    None,
    /// `RENAME_NOREPLACE`
    NoReplace,
    /// `RENAME_EXCHANGE`
    Exchange,
    /// `RENAME_WHITEOUT`: leaves a character device 0:0 without permissions at the old name.
    Whiteout {
        /// Not with `RENAME_NOREPLACE`.
        replace: bool,
        /// Who makes the device.
        by: Caller,
    },
}

/// One entry of a merged listing.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// The entry's name; `.` and `..` are passed as such.
    pub name: &'a [u8],
    /// Its type.
    pub kind: Kind,
    /// The inode number that `stat` shows for it.
    pub ino: u64,
    /// Pass this as `offset` to go on after this entry. Positive as an `i64`.
    pub cookie: u64,
}

/// The union of a stack of layers.
///
/// All methods may be called by several threads at once. A method given a node that the caller has
/// already forgotten returns `ESTALE`. Any change of a union without an upper layer is `EROFS`.
#[derive(Debug)]
pub struct Union {
    upper: Option<Arc<dyn Upper>>,
    lowers: Vec<Arc<dyn Layer>>,
    options: Options,
    live: Live,
    root: Arc<Node>,
    recent: Recent,
    listings: Mutex<Listings>,
    /// Bumped when a hard link is copied up or the number of its names changes.
    links_version: std::sync::atomic::AtomicU64,
    /// Copy-ups under way: a driver that answers requests with few threads asks.
    copying: std::sync::atomic::AtomicUsize,
}

impl Union {
    /// Builds the union. Sweeps nothing: the upper layer does that when it is opened.
    ///
    /// # Errors
    /// `EINVAL` without any layer; what reading the layers' roots gives.
    pub fn new(stack: Stack, options: Options) -> Result<Self> {
        let Stack { upper, lowers } = stack;
        if upper.is_none() && lowers.is_empty() {
            return Err(Error::new(Errno::EINVAL, "a union needs at least one layer"));
        }
        // Lowers first: their numbers stay what they are when an upper is added or taken away.
        let inos = InoMap::new(lowers.iter().map(|l| l.fs()).chain(upper.iter().map(|u| u.fs())));
        let live = Live::new(inos);
        let root = make_root(upper.as_ref(), &lowers, &live)?;
        Ok(Self {
            upper,
            lowers,
            options,
            live,
            root,
            recent: Recent::default(),
            listings: Mutex::default(),
            links_version: std::sync::atomic::AtomicU64::new(0),
            copying: std::sync::atomic::AtomicUsize::new(0),
        })
    }

    /// The root directory's node. Never forgotten.
    pub fn root(&self) -> NodeId {
        self.root.id
    }

    /// The node that shows this inode number, if it is live. For drivers whose node ids are inode
    /// numbers.
    pub fn by_ino(&self, ino: u64) -> Option<NodeId> {
        self.live.table.by_ino(ino)
    }

    /// Number of live nodes, the root included.
    pub fn node_count(&self) -> usize {
        self.live.table.len()
    }

    /// Number of copy-ups of file contents under way: while it is not zero, a request that changes
    /// something may wait for one.
    pub fn copying(&self) -> usize {
        self.copying.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Lowers the lookup count by `n`; at zero the node is gone.
    pub fn forget(&self, node: NodeId, n: u64) {
        if node == self.root.id {
            return;
        }
        if let Some(node) = self.live.table.get(node) {
            self.live.table.release(node, n);
        }
    }

    /// The upper's figures, the topmost layer's when read-only; names to 255 bytes.
    pub fn statfs(&self) -> Result<StatFs> {
        let mut stat = match (&self.upper, self.lowers.first()) {
            (Some(upper), _) => upper.statfs()?,
            (None, Some(lower)) => lower.statfs()?,
            (None, None) => return Err(Errno::EIO.into()),
        };
        stat.namelen = 255;
        Ok(stat)
    }

    /// Whether ACLs decide about access.
    pub fn has_acls(&self) -> bool {
        self.options.xattrs == Xattrs::All
    }

    /// Makes the upper durable (unless volatile).
    pub fn sync(&self) -> Result<()> {
        match (&self.upper, self.options.durability) {
            (Some(upper), Durability::Strict | Durability::Unasked) => upper.sync(),
            _ => Ok(()),
        }
    }

    fn node(&self, id: NodeId) -> Result<Arc<Node>> {
        if id == self.root.id {
            return Ok(Arc::clone(&self.root));
        }
        self.live.table.get(id).ok_or_else(|| Errno::ESTALE.into())
    }

    fn dir(&self, id: NodeId) -> Result<Arc<Node>> {
        let node = self.node(id)?;
        if node.is_dir() { Ok(node) } else { Err(Errno::ENOTDIR.into()) }
    }

    /// The upper layer, for whoever wants to change something.
    fn writable(&self) -> Result<&Arc<dyn Upper>> {
        self.upper.as_ref().ok_or_else(|| Errno::EROFS.into())
    }

    /// A reference to an object of the upper layer, as a node keeps it.
    fn upper_ref(upper: &Arc<dyn Upper>, id: crate::layer::Id, real_ino: u64) -> UpperRef {
        let held = Arc::new(Held::new(Arc::clone(upper).as_layer(), id));
        UpperRef { held, real_ino }
    }
}

fn make_root(
    upper: Option<&Arc<dyn Upper>>,
    lowers: &[Arc<dyn Layer>],
    live: &Live,
) -> Result<Arc<Node>> {
    let mut state = State::new(None);
    let mut ino = None;
    let mut merge = true;
    if let Some(upper) = upper {
        let (attr, marks) = upper.root_entry()?;
        descend::refuse_unknown(&marks, b"/")?;
        state.upper = Some(Union::upper_ref(upper, upper.root(), attr.ino));
        state.opaque = marks.opaque;
        state.impure = marks.impure;
        state.default_acl = marks.default_acl;
        ino = Some(live.inos.map(upper.fs(), attr.ino));
        merge = !marks.opaque;
    }
    let mut merged = Vec::new();
    for (layer, lower) in lowers.iter().enumerate() {
        if !merge {
            break;
        }
        let (attr, marks) = lower.root_entry()?;
        descend::refuse_unknown(&marks, b"/")?;
        if merged.is_empty() {
            ino = Some(live.inos.map(lower.fs(), attr.ino));
            if upper.is_none() {
                state.default_acl = marks.default_acl;
            }
        }
        let held = Held::new(Arc::clone(lower), lower.root());
        merged.push(Lower { layer, held });
        merge = !marks.opaque;
    }
    state.lowers = Some(merged.into());
    let ino = ino.unwrap_or_else(|| live.inos.fresh());
    let make = |id| Node::new(id, ino, Kind::Dir, state);
    let made = live.table.intern(ino, || true, |_| false, make);
    match made {
        Interned::Made(root) => Ok(root),
        _ => Err(crate::bug!("the first node met another one")),
    }
}
