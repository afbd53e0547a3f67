//! The database: SQLite, shared by every process that uses the store.

use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, ffi};
use rustix::fs::{CWD, FallocateFlags, Mode, OFlags};
use rustix::io::Errno as Raw;

use super::layout::Layout;
use crate::errno::{Context, Errno, Error, Result};
use crate::sys::namespace;

/// What makes a store of version n into one of version n + 1. Released ones never change.
const MIGRATIONS: &[&str] = &[include_str!("db/1.sql")];

/// How long to wait for another process's transaction. The longest ones rename layers and wait for
/// the disk.
const PATIENCE: Duration = Duration::from_mins(2);

/// Says in the file's header whose database it is ("plyf").
const APPLICATION: i32 = 0x706c_7966;

/// The open database.
#[derive(Debug)]
pub(super) struct Db(Connection);

impl Db {
    /// Opens or makes the database and brings it to this version. An empty one is refused where
    /// there is something already that it ought to know.
    pub(super) fn open(layout: &Layout) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Self(Connection::open_with_flags(layout.database(), flags).map_err(error)?);
        db.0.busy_timeout(PATIENCE).map_err(error)?;
        let version = db.version()?;
        db.refuse_foreign(version, layout)?;
        db.0.pragma_update(None, "journal_mode", "wal").map_err(error)?;
        db.0.pragma_update(None, "synchronous", "full").map_err(error)?;
        db.0.pragma_update(None, "foreign_keys", true).map_err(error)?;
        if usize::try_from(version) != Ok(MIGRATIONS.len()) {
            db.migrate(layout)?;
        }
        allocate_index(layout)?;
        Ok(db)
    }

    fn version(&self) -> Result<i64> {
        self.0.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(error)
    }

    fn refuse_foreign(&self, version: i64, layout: &Layout) -> Result<()> {
        let known = MIGRATIONS.len();
        if usize::try_from(version).is_ok_and(|version| version <= known) {
            return Ok(());
        }
        let text = format!(
            "the store at {} is of version {version}, and this plyfs knows versions up to \
             {known}: use a newer plyfs, or another store with --root",
            layout.root().display()
        );
        Err(Error::new(Errno::EINVAL, text))
    }

    /// Runs the migrations that are missing, all or nothing. Another process may have done so.
    fn migrate(&self, layout: &Layout) -> Result<()> {
        let tx = self.write()?;
        let version = self.version()?;
        self.refuse_foreign(version, layout)?;
        if version == 0 {
            layout.refuse_orphans()?;
        }
        self.run_migrations(tx, version).context(|| "cannot bring the database to this version")
    }

    fn run_migrations(&self, tx: Transaction<'_>, version: i64) -> Result<()> {
        for sql in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(usize::MAX)) {
            tx.execute_batch(sql).map_err(error)?;
        }
        let version = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        tx.pragma_update(None, "user_version", version).map_err(error)?;
        tx.pragma_update(None, "application_id", APPLICATION).map_err(error)?;
        commit(tx)
    }

    /// The connection, for reading.
    pub(super) fn read(&self) -> &Connection {
        &self.0
    }

    /// Begins a transaction that holds the store's write lock; rolled back unless [`commit`]ted.
    pub(super) fn write(&self) -> Result<Transaction<'_>> {
        Transaction::new_unchecked(&self.0, TransactionBehavior::Immediate).map_err(error)
    }

    /// Does `work`, whose transactions need not survive a crash of the machine: they are made all
    /// or nothing, but nobody waits for the disk. With `wait` they are as any others.
    pub(super) fn lazily<T>(&self, wait: bool, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if wait {
            return work();
        }
        // The last one to close the database would wait for it after all.
        let keep_log = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        self.0.set_db_config(keep_log, true).map_err(error)?;
        self.0.pragma_update(None, "synchronous", "normal").map_err(error)?;
        let done = work();
        self.0.pragma_update(None, "synchronous", "full").map_err(error)?;
        done
    }

    /// What SQLite finds wrong with the file and with references between rows.
    pub(super) fn faults(&self) -> Result<Vec<String>> {
        let mut query = self.0.prepare("PRAGMA integrity_check(20)").map_err(error)?;
        let texts = query.query_map([], |row| row.get::<_, String>(0)).map_err(error)?;
        let mut faults = texts.collect::<rusqlite::Result<Vec<_>>>().map_err(error)?;
        faults.retain(|text| text != "ok");
        let mut query = self.0.prepare("PRAGMA foreign_key_check").map_err(error)?;
        let rows = query
            .query_map([], |row| {
                let (table, other): (String, String) = (row.get(0)?, row.get(2)?);
                Ok(format!("a row of {table} refers to a row of {other} that is not there"))
            })
            .map_err(error)?;
        for row in rows {
            faults.push(row.map_err(error)?);
        }
        Ok(faults)
    }
}

/// Gives the index of the journal, which SQLite maps into memory, all the blocks of its pages.
/// Where pages are larger, SQLite makes sure of one only, and a write to another would end this
/// process (`SIGBUS`) on a full disk. What a process has open and locked, nobody truncates: so the
/// locks of SQLite must not go with our descriptor of that file.
fn allocate_index(layout: &Layout) -> Result<()> {
    let mut path = layout.database().into_os_string();
    path.push("-shm");
    namespace::with_own_descriptors(|| allocate(&path))
}

/// Allocates all blocks of the file at `path`.
fn allocate(path: &std::ffi::OsStr) -> Result<()> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let index = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    let size = u64::try_from(rustix::fs::fstat(&index)?.st_size).unwrap_or(0);
    match rustix::fs::fallocate(&index, FallocateFlags::empty(), 0, size) {
        // A filesystem that does not know it.
        Err(Raw::OPNOTSUPP | Raw::NOSYS) => Ok(()),
        Err(errno) if size > 0 => Err(errno).context(|| "database"),
        _ => Ok(()),
    }
}

/// Makes a transaction durable.
pub(super) fn commit(tx: Transaction<'_>) -> Result<()> {
    tx.commit().map_err(error)
}

/// SQLite's errors as the kernel counts them.
#[allow(clippy::needless_pass_by_value, reason = "this is what map_err passes on")]
pub(super) fn error(error: rusqlite::Error) -> Error {
    // It cannot extend what it maps into memory.
    if error.sqlite_error().is_some_and(|it| it.extended_code == ffi::SQLITE_IOERR_SHMSIZE) {
        return Error::from(Errno::ENOSPC).context_of("database");
    }
    let errno = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            let text = "the store's database has been in use by other processes for too long";
            return Error::new(Errno::EBUSY, text);
        }
        Some(ErrorCode::DiskFull) => return Error::from(Errno::ENOSPC).context_of("database"),
        Some(ErrorCode::ReadOnly) => Errno::EROFS,
        Some(ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => Errno::EACCES,
        Some(ErrorCode::OutOfMemory) => Errno::ENOMEM,
        _ => Errno::EIO,
    };
    let code = error.sqlite_error().map(|error| format!(" ({})", error.extended_code));
    Error::new(errno, format!("database: {error}{}", code.unwrap_or_default()))
}
