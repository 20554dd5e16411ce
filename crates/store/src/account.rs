//! The account database: sessions. Several processes use it at once, the server and the command line.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{
    error::{AccountError, OpenError},
    open::now_ms,
    schema,
};

/// Most memory for pages of the file, in KiB.
const CACHE_KIB: u32 = 256;

/// The account database.
pub struct AccountStore {
    connection: Connection,
}

/// What a session may do with the documents of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionAccess {
    /// Read them.
    Read,
    /// Read and change them.
    Write,
}

/// A session to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Its id, not used before.
    pub id: String,
    /// What its owner calls it; may be empty.
    pub name: String,
    /// Its group.
    pub group: String,
    /// What it may do.
    pub access: SessionAccess,
    /// When it ends by itself, Unix time in milliseconds.
    pub expires_at_ms: i64,
}

/// A session. All times are Unix times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// What its owner calls it; may be empty.
    pub name: String,
    /// Its group.
    pub group: String,
    /// What it may do.
    pub access: SessionAccess,
    /// When it was added.
    pub created_at_ms: i64,
    /// When it ends by itself.
    pub expires_at_ms: i64,
    /// When it was revoked, if it was.
    pub revoked_at_ms: Option<i64>,
    /// When it last opened a socket, if it ever did.
    pub last_used_at_ms: Option<i64>,
}

impl Session {
    /// Whether it is in force: neither revoked nor past its end.
    pub fn is_in_force(&self, now_ms: i64) -> bool {
        self.revoked_at_ms.is_none() && now_ms < self.expires_at_ms
    }
}

const SESSION: &str =
    "SELECT id, name, access_group, access, created_at_ms, expires_at_ms, revoked_at_ms,
                       last_used_at_ms FROM sessions";

impl AccountStore {
    /// Opens the database, which is made if it does not exist.
    ///
    /// # Errors
    /// [`OpenError`] if the file cannot be used, or is damaged.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        schema::open(path, &schema::ACCOUNT, CACHE_KIB).map(|connection| Self { connection })
    }

    /// Adds a session.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; nothing is added then.
    pub fn add(&self, session: &NewSession) -> Result<(), AccountError> {
        let access = match session.access {
            SessionAccess::Read => "read",
            SessionAccess::Write => "write",
        };
        self.connection
            .prepare_cached(
                "INSERT INTO sessions (id, name, access_group, access, created_at_ms, expires_at_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                session.id,
                session.name,
                session.group,
                access,
                now_ms(),
                session.expires_at_ms
            ])?;
        Ok(())
    }

    /// A session, if there is one with this id.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn session(&self, id: &str) -> Result<Option<Session>, AccountError> {
        let mut statement = self
            .connection
            .prepare_cached(&format!("{SESSION} WHERE id = ?1"))?;
        Ok(statement.query_row([id], session).optional()?)
    }

    /// All sessions, the oldest first, those that have ended included.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn sessions(&self) -> Result<Vec<Session>, AccountError> {
        let query = format!("{SESSION} ORDER BY created_at_ms, id");
        let mut statement = self.connection.prepare_cached(&query)?;
        Ok(statement
            .query_map([], session)?
            .collect::<rusqlite::Result<_>>()?)
    }

    /// Ends a session for good. Whether there was one that had not been revoked.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn revoke(&self, id: &str) -> Result<bool, AccountError> {
        let revoked = self
            .connection
            .prepare_cached(
                "UPDATE sessions SET revoked_at_ms = ?2 WHERE id = ?1 AND revoked_at_ms IS NULL",
            )?
            .execute(params![id, now_ms()])?;
        Ok(revoked > 0)
    }

    /// Notes that a session has opened a socket.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn touch(&self, id: &str) -> Result<(), AccountError> {
        self.connection
            .prepare_cached("UPDATE sessions SET last_used_at_ms = ?2 WHERE id = ?1")?
            .execute(params![id, now_ms()])?;
        Ok(())
    }

    /// A number that is another one once another process has changed the database.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn change_counter(&self) -> Result<i64, AccountError> {
        Ok(self
            .connection
            .pragma_query_value(None, "data_version", |row| row.get(0))?)
    }
}

fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    let access = match row.get_ref(3)?.as_str()? {
        "write" => SessionAccess::Write,
        // the table allows nothing else, and less is safer
        _ => SessionAccess::Read,
    };
    Ok(Session {
        id: row.get(0)?,
        name: row.get(1)?,
        group: row.get(2)?,
        access,
        created_at_ms: row.get(4)?,
        expires_at_ms: row.get(5)?,
        revoked_at_ms: row.get(6)?,
        last_used_at_ms: row.get(7)?,
    })
}
