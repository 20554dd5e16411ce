//! A row of `documents`.

use crc32fast::Hasher;
use engine::{ChangeHash, DocumentId, storage::DocumentMeta};
use rusqlite::{
    Connection, OptionalExtension, Row, params,
    types::{FromSqlError, Type},
};

/// What the file holds of a document beside its chunks and orphans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DocumentRow {
    /// What `chunks` and `orphans` call it; nothing before it is stored.
    pub(crate) number: Option<i64>,
    pub(crate) id: DocumentId,
    /// The heads' bytes, one after the other.
    pub(crate) heads: Vec<u8>,
    pub(crate) changes: i64,
    pub(crate) next_chunk: i64,
    pub(crate) snapshot_bytes: i64,
    pub(crate) tail_bytes: i64,
    /// How many pushed chunks there are.
    pub(crate) pushed: i64,
    /// How many orphans there are.
    pub(crate) orphans: i64,
    pub(crate) quarantine: Option<String>,
    pub(crate) created_at_ms: i64,
    pub(crate) changed_at_ms: i64,
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT number, id, heads, changes, next_chunk, snapshot_bytes, tail_bytes, pushed, orphans, \
             quarantine, created_at_ms, changed_at_ms, crc32 FROM documents ",
            $rest
        )
    };
}

impl DocumentRow {
    pub(crate) const SELECT_ALL: &'static str = select!("");
    /// Those behind an id, ascending, up to a limit.
    pub(crate) const SELECT_AFTER: &'static str = select!("WHERE id > ?1 ORDER BY id LIMIT ?2");
    const SELECT_ONE: &'static str = select!("WHERE id = ?1");

    /// A document of which nothing is stored yet.
    pub(crate) fn new(id: DocumentId, now_ms: i64) -> Self {
        Self {
            number: None,
            id,
            heads: vec![],
            changes: 0,
            next_chunk: 0,
            snapshot_bytes: 0,
            tail_bytes: 0,
            pushed: 0,
            orphans: 0,
            quarantine: None,
            created_at_ms: now_ms,
            changed_at_ms: now_ms,
        }
    }

    /// The row of a document, if there is one; one that is damaged is an error.
    pub(crate) fn find(connection: &Connection, id: DocumentId) -> rusqlite::Result<Option<Self>> {
        let mut statement = connection.prepare_cached(Self::SELECT_ONE)?;
        statement
            .query_row([id.as_bytes()], Self::read_sound)
            .optional()
    }

    /// A row as `SELECT_*` gives it, and the checksum that is stored with it.
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<(Self, i64)> {
        let id = <[u8; 16]>::try_from(row.get_ref(1)?.as_blob()?)
            .map_err(|_| conversion(1, FromSqlError::InvalidType))?;
        let document = Self {
            number: row.get(0)?,
            id: DocumentId::from_bytes(id),
            heads: row.get(2)?,
            changes: row.get(3)?,
            next_chunk: row.get(4)?,
            snapshot_bytes: row.get(5)?,
            tail_bytes: row.get(6)?,
            pushed: row.get(7)?,
            orphans: row.get(8)?,
            quarantine: row.get(9)?,
            created_at_ms: row.get(10)?,
            changed_at_ms: row.get(11)?,
        };
        Ok((document, row.get(12)?))
    }

    /// A row as `SELECT_*` gives it; one that is damaged is an error.
    pub(crate) fn read_sound(row: &Row<'_>) -> rusqlite::Result<Self> {
        let (document, crc32) = Self::read(row)?;
        if document.crc32() == crc32 {
            Ok(document)
        } else {
            Err(damaged())
        }
    }

    /// Stores the row, and gives its number.
    pub(crate) fn save(&mut self, connection: &Connection) -> rusqlite::Result<i64> {
        let Some(number) = self.number else {
            return self.insert(connection);
        };
        let mut statement = connection.prepare_cached(
            "UPDATE documents SET heads = ?2, changes = ?3, next_chunk = ?4, snapshot_bytes = ?5, tail_bytes = ?6,
                pushed = ?7, orphans = ?8, quarantine = ?9, changed_at_ms = ?10, crc32 = ?11 WHERE number = ?1",
        )?;
        statement.execute(params![
            number,
            self.heads,
            self.changes,
            self.next_chunk,
            self.snapshot_bytes,
            self.tail_bytes,
            self.pushed,
            self.orphans,
            self.quarantine,
            self.changed_at_ms,
            self.crc32(),
        ])?;
        Ok(number)
    }

    fn insert(&mut self, connection: &Connection) -> rusqlite::Result<i64> {
        let mut statement = connection.prepare_cached(
            "INSERT INTO documents (id, heads, changes, next_chunk, snapshot_bytes, tail_bytes, pushed, orphans,
                quarantine, created_at_ms, changed_at_ms, crc32)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?;
        statement.execute(params![
            self.id.as_bytes(),
            self.heads,
            self.changes,
            self.next_chunk,
            self.snapshot_bytes,
            self.tail_bytes,
            self.pushed,
            self.orphans,
            self.quarantine,
            self.created_at_ms,
            self.changed_at_ms,
            self.crc32(),
        ])?;
        let number = connection.last_insert_rowid();
        self.number = Some(number);
        Ok(number)
    }

    /// Sets the heads.
    pub(crate) fn set_heads(&mut self, heads: &[ChangeHash]) {
        self.heads = heads.iter().flat_map(|head| *head.as_bytes()).collect();
    }

    /// The heads.
    pub(crate) fn heads(&self) -> Vec<ChangeHash> {
        let (hashes, _) = self.heads.as_chunks::<{ ChangeHash::BYTES }>();
        hashes
            .iter()
            .map(|bytes| ChangeHash::from_bytes(*bytes))
            .collect()
    }

    /// What the engine wants to know of it.
    pub(crate) fn meta(&self) -> DocumentMeta {
        DocumentMeta {
            heads: self.heads(),
            changes: unsigned(self.changes),
            next_chunk: unsigned(self.next_chunk),
            snapshot_bytes: unsigned(self.snapshot_bytes),
            tail_bytes: unsigned(self.tail_bytes),
            has_pushed: self.pushed > 0,
            has_orphans: self.orphans > 0,
            quarantine: self.quarantine.clone(),
        }
    }

    /// The checksum of what must not change by itself.
    pub(crate) fn crc32(&self) -> i64 {
        let mut hasher = Hasher::new();
        hasher.update(self.id.as_bytes());
        hasher.update(&self.heads);
        let numbers = [
            self.changes,
            self.next_chunk,
            self.snapshot_bytes,
            self.tail_bytes,
            self.pushed,
            self.orphans,
            self.created_at_ms,
            self.changed_at_ms,
        ];
        numbers
            .iter()
            .for_each(|number| hasher.update(&number.to_le_bytes()));
        hasher.update(self.quarantine.as_deref().unwrap_or_default().as_bytes());
        hasher.finalize().into()
    }
}

/// What a wrong checksum is reported as: the same as what SQLite says of its own damage.
pub(crate) fn damaged() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some("a row's checksum is wrong".into()))
}

fn conversion(column: usize, error: FromSqlError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, Box::new(error))
}

/// A number of ours as SQLite holds it.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number of SQLite's as we hold it.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
