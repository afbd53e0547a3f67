//! What goes over the wire: opcodes, flags and structures of FUSE's ABI 7.45, as the kernel's
//! include/uapi/linux/fuse.h has them, in the byte order of this machine. Only what is used.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The ABI's major version.
pub(super) const MAJOR: u32 = 7;
/// The newest minor version that is spoken.
pub(super) const MINOR: u32 = 45;
/// The oldest minor version that is spoken: Linux 5.18's.
pub(super) const OLDEST_MINOR: u32 = 36;
/// The node id of the root.
pub(super) const ROOT_ID: u64 = 1;

/// Declares constants of one type.
macro_rules! constants {
    ($kind:ty: $($name:ident = $value:expr,)*) => {
        $(pub(in crate::fuse::native) const $name: $kind = $value;)*
    };
}

/// What a request asks for.
pub(super) mod opcode {
    constants!(u32:
        LOOKUP = 1, FORGET = 2, GETATTR = 3, SETATTR = 4, READLINK = 5, SYMLINK = 6, MKNOD = 8,
        MKDIR = 9, UNLINK = 10, RMDIR = 11, RENAME = 12, LINK = 13, OPEN = 14, READ = 15,
        WRITE = 16, STATFS = 17, RELEASE = 18, FSYNC = 20, SETXATTR = 21, GETXATTR = 22,
        LISTXATTR = 23, REMOVEXATTR = 24, FLUSH = 25, INIT = 26, OPENDIR = 27, READDIR = 28,
        RELEASEDIR = 29, FSYNCDIR = 30, ACCESS = 34, CREATE = 35, INTERRUPT = 36, DESTROY = 38,
        IOCTL = 39, BATCH_FORGET = 42, FALLOCATE = 43, READDIRPLUS = 44, RENAME2 = 45, LSEEK = 46,
        COPY_FILE_RANGE = 47, SYNCFS = 50, TMPFILE = 51, STATX = 52, COPY_FILE_RANGE_64 = 53,
    );
}

/// What the kernel offers and a server chooses from, in INIT.
pub mod init {
    constants!(u64:
        ASYNC_READ = 1 << 0, ATOMIC_O_TRUNC = 1 << 3, BIG_WRITES = 1 << 5, DONT_MASK = 1 << 6,
        DO_READDIRPLUS = 1 << 13, READDIRPLUS_AUTO = 1 << 14, ASYNC_DIO = 1 << 15,
        PARALLEL_DIROPS = 1 << 18,
        POSIX_ACL = 1 << 20, ABORT_ERROR = 1 << 21, MAX_PAGES = 1 << 22, CACHE_SYMLINKS = 1 << 23,
        NO_OPENDIR_SUPPORT = 1 << 24, EXPLICIT_INVAL_DATA = 1 << 25, HANDLE_KILLPRIV_V2 = 1 << 28,
        SETXATTR_EXT = 1 << 29, INIT_EXT = 1 << 30, HAS_EXPIRE_ONLY = 1 << 35,
        NO_EXPORT_SUPPORT = 1 << 38, HAS_RESEND = 1 << 39, ALLOW_IDMAP = 1 << 40,
    );
    /// What Linux 5.18 does not offer.
    pub const AFTER_5_18: u64 = !0 << 34;
}

/// Which fields of a SETATTR count.
pub(super) mod fattr {
    constants!(u32:
        MODE = 1 << 0, UID = 1 << 1, GID = 1 << 2, SIZE = 1 << 3, ATIME = 1 << 4, MTIME = 1 << 5,
        ATIME_NOW = 1 << 7, MTIME_NOW = 1 << 8, KILL_SUIDGID = 1 << 11,
    );
}

constants!(u32:
    WRITE_KILL_SUIDGID = 1 << 2,
    OPEN_KILL_SUIDGID = 1 << 0,
    SETXATTR_ACL_KILL_SGID = 1 << 0,
    FSYNC_DATA_ONLY = 1 << 0,
    FOPEN_KEEP_CACHE = 1 << 1,
    FOPEN_NOFLUSH = 1 << 5,
);

/// What a notification is about; it stands in the place of an error.
pub(super) mod notify {
    constants!(i32: INVAL_INODE = 2, INVAL_ENTRY = 3, INC_EPOCH = 8,);
    /// The entry is only looked up again when it is next used.
    pub(in crate::fuse::native) const EXPIRE_ONLY: u32 = 1;
    /// The minor version that brought `INC_EPOCH`.
    pub(in crate::fuse::native) const INC_EPOCH_SINCE: u32 = 44;
}

/// Declares structures that go over the wire.
macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub(super) struct $name { $(pub(super) $field: $kind,)* }
    )*};
}

// What the kernel sends.
structures! {
    /// `struct fuse_in_header`, at the head of each request.
    InHeader {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32,
        extensions: u16, padding: u16,
    }
    /// `struct fuse_init_in` as far as ABI 7.35 had it.
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32, }
    /// What ABI 7.36 added to it.
    InitExt { flags2: u32, unused: [u32; 11], }
    /// `struct fuse_forget_in`
    ForgetIn { nlookup: u64, }
    /// `struct fuse_forget_one`
    ForgetOne { nodeid: u64, nlookup: u64, }
    /// `struct fuse_batch_forget_in`
    BatchForgetIn { count: u32, dummy: u32, }
    /// `struct fuse_setattr_in`
    SetAttrIn {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64,
        ctime: u64, atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32,
        uid: u32, gid: u32, unused5: u32,
    }
    /// `struct fuse_mknod_in`
    MkNodIn { mode: u32, rdev: u32, umask: u32, padding: u32, }
    /// `struct fuse_mkdir_in`
    MkDirIn { mode: u32, umask: u32, }
    /// `struct fuse_rename_in`
    RenameIn { newdir: u64, }
    /// `struct fuse_rename2_in`
    Rename2In { newdir: u64, flags: u32, padding: u32, }
    /// `struct fuse_link_in`
    LinkIn { oldnodeid: u64, }
    /// `struct fuse_open_in`
    OpenIn { flags: u32, open_flags: u32, }
    /// `struct fuse_create_in`
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32, }
    /// `struct fuse_release_in`
    ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64, }
    /// `struct fuse_read_in`
    ReadIn {
        fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32,
        padding: u32,
    }
    /// `struct fuse_write_in`
    WriteIn {
        fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32,
        padding: u32,
    }
    /// `struct fuse_fsync_in`
    FSyncIn { fh: u64, fsync_flags: u32, padding: u32, }
    /// `struct fuse_setxattr_in` where `FUSE_SETXATTR_EXT` is not agreed upon.
    SetXattrIn { size: u32, flags: u32, }
    /// What `FUSE_SETXATTR_EXT` adds to it.
    SetXattrExt { setxattr_flags: u32, padding: u32, }
    /// `struct fuse_getxattr_in`
    GetXattrIn { size: u32, padding: u32, }
    /// `struct fuse_access_in`
    AccessIn { mask: u32, padding: u32, }
    /// `struct fuse_interrupt_in`
    InterruptIn { unique: u64, }
    /// `struct fuse_fallocate_in`
    FAllocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32, }
    /// `struct fuse_lseek_in`
    LSeekIn { fh: u64, offset: u64, whence: u32, padding: u32, }
    /// `struct fuse_copy_file_range_in`
    CopyFileRangeIn {
        fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64,
    }
}

// What it is sent.
structures! {
    /// `struct fuse_out_header`, at the head of each reply and notification.
    OutHeader { len: u32, error: i32, unique: u64, }
    /// `struct fuse_init_out`
    InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16,
        congestion_threshold: u16, max_write: u32, time_gran: u32, max_pages: u16,
        map_alignment: u16, flags2: u32, max_stack_depth: u32, request_timeout: u16,
        unused: [u16; 11],
    }
    /// `struct fuse_attr`
    Attr {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32,
        mtimensec: u32, ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32,
        blksize: u32, flags: u32,
    }
    /// `struct fuse_entry_out`
    EntryOut {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32,
        attr_valid_nsec: u32, attr: Attr,
    }
    /// `struct fuse_attr_out`
    AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr, }
    /// `struct fuse_open_out`
    OpenOut { fh: u64, open_flags: u32, backing_id: i32, }
    /// `struct fuse_write_out`
    WriteOut { size: u32, padding: u32, }
    /// `struct fuse_copy_file_range_out`, and `struct fuse_lseek_out`
    LongOut { value: u64, }
    /// `struct fuse_getxattr_out`
    GetXattrOut { size: u32, padding: u32, }
    /// `struct fuse_kstatfs`
    StatFsOut {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32,
        frsize: u32, padding: u32, spare: [u32; 6],
    }
    /// `struct fuse_dirent` without its name.
    DirEnt { ino: u64, off: u64, namelen: u32, kind: u32, }
    /// `struct fuse_notify_inval_inode_out`
    InvalInode { nodeid: u64, off: i64, len: i64, }
    /// `struct fuse_notify_inval_entry_out`
    InvalEntry { parent: u64, namelen: u32, flags: u32, }
}

#[cfg(test)]
mod tests;
