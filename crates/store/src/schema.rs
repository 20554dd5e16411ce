//! The tables, and how older files become newer ones.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::{
    error::{OpenError, OpenProblem},
    open::{Disk, connect, connect_readonly, create_private_file, random_hex, random_uuid},
};

/// A kind of file: how to know it, and the steps from an empty one to the newest format. A step that was ever
/// released is never changed.
pub(crate) struct Format {
    /// `PRAGMA application_id`.
    application_id: i64,
    migrations: &'static [Migration],
}

type Migration = fn(&Transaction<'_>) -> Result<(), OpenProblem>;

/// "gmsG"
pub(crate) const GROUP: Format = Format {
    application_id: 0x676d_7347,
    migrations: &[group_1],
};

/// "gmsA"
pub(crate) const ACCOUNT: Format = Format {
    application_id: 0x676d_7341,
    migrations: &[account_1, account_2, account_3],
};

fn group_1(transaction: &Transaction<'_>) -> Result<(), OpenProblem> {
    transaction.execute_batch(
        "CREATE TABLE properties (
            name TEXT PRIMARY KEY,
            value TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE documents (
            number INTEGER PRIMARY KEY,
            id BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
            heads BLOB NOT NULL CHECK (length(heads) % 32 = 0),
            changes INTEGER NOT NULL,
            next_chunk INTEGER NOT NULL,
            snapshot_bytes INTEGER NOT NULL,
            tail_bytes INTEGER NOT NULL,
            pushed INTEGER NOT NULL,
            orphans INTEGER NOT NULL,
            quarantine TEXT,
            created_at_ms INTEGER NOT NULL,
            changed_at_ms INTEGER NOT NULL,
            crc32 INTEGER NOT NULL
        ) STRICT;

        CREATE TABLE chunks (
            document INTEGER NOT NULL REFERENCES documents (number) ON DELETE CASCADE,
            number INTEGER NOT NULL,
            -- not IN: for that SQLite fills a table at each insert
            kind INTEGER NOT NULL CHECK (kind BETWEEN 0 AND 2),
            bytes BLOB NOT NULL,
            crc32 INTEGER NOT NULL,
            change_index BLOB CHECK ((kind = 0) = (change_index IS NOT NULL)),
            index_crc32 INTEGER CHECK ((change_index IS NULL) = (index_crc32 IS NULL)),
            PRIMARY KEY (document, number)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE orphans (
            number INTEGER PRIMARY KEY,
            document INTEGER NOT NULL REFERENCES documents (number) ON DELETE CASCADE,
            hash BLOB NOT NULL CHECK (length(hash) = 32),
            bytes BLOB NOT NULL,
            crc32 INTEGER NOT NULL,
            UNIQUE (document, hash)
        ) STRICT;",
    )?;
    let uuid = random_uuid().map_err(std::io::Error::from)?;
    transaction.execute(
        "INSERT INTO properties VALUES ('storage_id', ?1), ('probe', '')",
        [uuid],
    )?;
    Ok(())
}

fn account_1(transaction: &Transaction<'_>) -> Result<(), OpenProblem> {
    transaction.execute_batch(
        "CREATE TABLE sessions (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            access_group TEXT NOT NULL,
            access TEXT NOT NULL CHECK (access IN ('read', 'write')),
            created_at_ms INTEGER NOT NULL,
            expires_at_ms INTEGER NOT NULL,
            revoked_at_ms INTEGER,
            last_used_at_ms INTEGER
        ) STRICT, WITHOUT ROWID;",
    )?;
    Ok(())
}

fn account_2(transaction: &Transaction<'_>) -> Result<(), OpenProblem> {
    transaction.execute_batch(
        "CREATE TABLE properties (
            name TEXT PRIMARY KEY,
            value TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE devices (
            id TEXT PRIMARY KEY,
            app TEXT NOT NULL,
            jkt TEXT NOT NULL,
            origin TEXT,
            kind TEXT NOT NULL CHECK (kind IN ('web', 'native', 'unverified')),
            proof TEXT NOT NULL CHECK (proof IN ('owner', 'attested')),
            name TEXT NOT NULL,
            address TEXT NOT NULL,
            created_at_ms INTEGER NOT NULL,
            last_seen_at_ms INTEGER,
            revoked_at_ms INTEGER
        ) STRICT, WITHOUT ROWID;
        CREATE UNIQUE INDEX devices_by_jkt ON devices (jkt) WHERE revoked_at_ms IS NULL;
        CREATE INDEX revoked_devices_by_jkt ON devices (jkt) WHERE revoked_at_ms IS NOT NULL;

        CREATE TABLE approvals (
            device TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
            access_group TEXT NOT NULL,
            access TEXT NOT NULL CHECK (access IN ('read', 'write')),
            created_at_ms INTEGER NOT NULL,
            expires_at_ms INTEGER NOT NULL,
            PRIMARY KEY (device, access_group)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE grants (
            app TEXT NOT NULL,
            access_group TEXT NOT NULL,
            access TEXT NOT NULL CHECK (access IN ('read', 'write')),
            attested TEXT CHECK (attested IN ('read', 'write')),
            created_at_ms INTEGER NOT NULL,
            expires_at_ms INTEGER NOT NULL,
            PRIMARY KEY (app, access_group)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE pending (
            id TEXT PRIMARY KEY,
            door TEXT NOT NULL CHECK (door IN ('authenticate', 'request_access')),
            app TEXT NOT NULL,
            jkt TEXT NOT NULL UNIQUE,
            origin TEXT,
            kind TEXT NOT NULL CHECK (kind IN ('web', 'native', 'unverified')),
            app_name TEXT,
            name TEXT NOT NULL,
            address TEXT NOT NULL,
            first_at_ms INTEGER NOT NULL,
            last_at_ms INTEGER NOT NULL,
            tries INTEGER NOT NULL,
            denied_at_ms INTEGER
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE pending_groups (
            pending TEXT NOT NULL REFERENCES pending (id) ON DELETE CASCADE,
            access_group TEXT NOT NULL,
            access TEXT NOT NULL CHECK (access IN ('read', 'write')),
            PRIMARY KEY (pending, access_group)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE roots (
            app TEXT NOT NULL,
            access_group TEXT NOT NULL,
            url TEXT NOT NULL,
            set_at_ms INTEGER NOT NULL,
            device TEXT,
            PRIMARY KEY (app, access_group)
        ) STRICT, WITHOUT ROWID;

        CREATE TABLE used (
            kind TEXT NOT NULL,
            hash BLOB NOT NULL CHECK (length(hash) = 32),
            expires_at_ms INTEGER NOT NULL,
            PRIMARY KEY (kind, hash)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX used_by_end ON used (expires_at_ms);",
    )?;
    audit_2(transaction)?;
    sessions_2(transaction)?;
    transaction.execute(
        "INSERT INTO properties VALUES ('token_epoch', ?1), ('pairing_open_until_ms', '0')",
        [random_hex().map_err(std::io::Error::from)?],
    )?;
    Ok(())
}

/// What an app vouches for has an end of its own: the approval of a device prolongs the grant, and not that.
fn account_3(transaction: &Transaction<'_>) -> Result<(), OpenProblem> {
    transaction.execute_batch(
        "ALTER TABLE grants ADD COLUMN attested_until_ms INTEGER;
        UPDATE grants SET attested_until_ms = expires_at_ms WHERE attested IS NOT NULL;
        ALTER TABLE approvals ADD COLUMN attested INTEGER NOT NULL DEFAULT 0 CHECK (attested IN (0, 1));
        UPDATE approvals SET attested = 1
            WHERE device IN (SELECT id FROM devices WHERE proof = 'attested');",
    )?;
    Ok(())
}

/// The third trigger is for `INSERT OR REPLACE`, which removes a row without asking the second.
fn audit_2(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE TABLE audit (
            number INTEGER PRIMARY KEY,
            at_ms INTEGER NOT NULL,
            until_ms INTEGER,
            event TEXT NOT NULL,
            app TEXT,
            device TEXT,
            access_group TEXT,
            session TEXT,
            address TEXT,
            detail TEXT,
            count INTEGER NOT NULL DEFAULT 1 CHECK (count > 0)
        ) STRICT;
        CREATE INDEX audit_by_time ON audit (at_ms);
        CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
            BEGIN SELECT RAISE(ABORT, 'the audit is not changed'); END;
        CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
            BEGIN SELECT RAISE(ABORT, 'the audit is not changed'); END;
        CREATE TRIGGER audit_is_not_replaced BEFORE INSERT ON audit
            WHEN EXISTS (SELECT 1 FROM audit WHERE number = NEW.number)
            BEGIN SELECT RAISE(ABORT, 'the audit is not changed'); END;",
    )
}

/// Sessions had one group each, no device, and a fixed end.
fn sessions_2(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE sessions RENAME TO sessions_1;

        CREATE TABLE sessions (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            kind TEXT NOT NULL CHECK (kind IN ('token', 'authenticate', 'access')),
            device TEXT REFERENCES devices (id),
            created_at_ms INTEGER NOT NULL,
            expires_at_ms INTEGER NOT NULL CHECK (expires_at_ms <= ends_at_ms),
            slide_ms INTEGER NOT NULL DEFAULT 0 CHECK (slide_ms >= 0),
            ends_at_ms INTEGER NOT NULL,
            refresh_generation INTEGER NOT NULL DEFAULT 0,
            refreshed_at_ms INTEGER,
            revoked_at_ms INTEGER,
            last_used_at_ms INTEGER,
            CHECK ((kind = 'token') = (device IS NULL))
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX sessions_by_device ON sessions (device, kind, expires_at_ms) WHERE device IS NOT NULL;

        CREATE TABLE session_groups (
            session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
            access_group TEXT NOT NULL,
            access TEXT NOT NULL CHECK (access IN ('read', 'write')),
            PRIMARY KEY (session, access_group)
        ) STRICT, WITHOUT ROWID;

        INSERT INTO sessions
            (id, name, kind, created_at_ms, expires_at_ms, ends_at_ms, revoked_at_ms, last_used_at_ms)
            SELECT id, name, 'token', created_at_ms, expires_at_ms, expires_at_ms, revoked_at_ms, last_used_at_ms
            FROM sessions_1;
        INSERT INTO session_groups SELECT id, access_group, access FROM sessions_1;
        DROP TABLE sessions_1;",
    )
}

/// Opens a file for writing; makes it if it does not exist, and brings it to the newest format.
pub(crate) fn open(
    disk: Disk,
    path: &Path,
    format: &Format,
    cache_kib: u32,
) -> Result<Connection, OpenError> {
    prepare(disk, path, format, cache_kib).map_err(|problem| OpenError {
        path: path.to_owned(),
        problem: damage(problem),
    })
}

fn prepare(
    disk: Disk,
    path: &Path,
    format: &Format,
    cache_kib: u32,
) -> Result<Connection, OpenProblem> {
    create_private_file(disk, path)?;
    let mut connection = connect(disk, path, cache_kib)?;
    let found = format.version_of(&connection)?;
    for (migration, version) in format.migrations.iter().zip(1i64..).skip(found) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // another process may have been quicker
        if format.version_of(&transaction)? >= usize::try_from(version).unwrap_or(usize::MAX) {
            continue;
        }
        transaction.pragma_update(None, "application_id", format.application_id)?;
        migration(&transaction)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    let check: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    if check != "ok" {
        return Err(found_wrong(check));
    }
    Ok(connection)
}

/// Whether a file has its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filled {
    Yes,
    /// It has just been made, or there was no room for them on the disk.
    NotYet,
}

/// What SQLite's check has found. A page that the disk would not give is no damage: it may give it the next time.
fn found_wrong(what: String) -> OpenProblem {
    if what.contains("error code=") || what.contains("failed to get page") {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
        OpenProblem::Sqlite(rusqlite::Error::SqliteFailure(code, Some(what)))
    } else {
        OpenProblem::Damaged { what }
    }
}

/// Opens a file that exists, for reading alone.
pub(crate) fn open_existing(
    path: &Path,
    format: &Format,
    cache_kib: u32,
) -> Result<(Connection, Filled), OpenError> {
    let open = || {
        // SQLite would say no more than that it cannot open it
        std::fs::metadata(path)?;
        let connection = connect_readonly(path, cache_kib)?;
        let filled = if format.version_of(&connection)? == 0 {
            Filled::NotYet
        } else {
            Filled::Yes
        };
        Ok((connection, filled))
    };
    open().map_err(|problem| OpenError {
        path: path.to_owned(),
        problem: damage(problem),
    })
}

impl Format {
    /// The version that a file is in, 0 for an empty one.
    fn version_of(&self, connection: &Connection) -> Result<usize, OpenProblem> {
        let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (found, application_id) = (number("user_version")?, number("application_id")?);
        let fresh = found == 0 && application_id == 0;
        if !fresh && application_id != self.application_id {
            return Err(OpenProblem::Foreign { application_id });
        }
        let known = self.migrations.len();
        usize::try_from(found)
            .ok()
            .filter(|found| *found <= known)
            .ok_or(OpenProblem::TooNew {
                found,
                known: i64::try_from(known).unwrap_or(i64::MAX),
            })
    }
}

/// What SQLite reports as corruption is damage, whichever statement met it.
pub(crate) fn damage(problem: OpenProblem) -> OpenProblem {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let OpenProblem::Sqlite(rusqlite::Error::SqliteFailure(error, message)) = &problem else {
        return problem;
    };
    if matches!(error.code, DatabaseCorrupt | NotADatabase) {
        let what = message.clone().unwrap_or_else(|| error.to_string());
        return OpenProblem::Damaged { what };
    }
    problem
}
