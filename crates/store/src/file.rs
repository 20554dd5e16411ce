//! A look into a group's file from outside, also while the server has it open.

use std::path::Path;

use engine::{
    ChangeHash, DocumentId,
    storage::{Answer, Read, ReadWhat, StoredChunk},
};
use rusqlite::Connection;

use crate::{
    error::OpenError,
    read::read,
    row::{DocumentRow, unsigned},
    schema::{self, Filled},
};

/// Most memory for pages of the file, in KiB.
const CACHE_KIB: u32 = 512;

/// A group's file, open for reading.
pub struct GroupFile {
    connection: Connection,
    filled: Filled,
}

/// What there is to say of a document without looking into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentSummary {
    /// Its id.
    pub id: DocumentId,
    /// Its heads, ascending.
    pub heads: Vec<ChangeHash>,
    /// How many changes it has; 0 while a pushed chunk has not been looked at.
    pub changes: u64,
    /// Bytes of its snapshot.
    pub snapshot_bytes: u64,
    /// Bytes of the changes behind its snapshot.
    pub tail_bytes: u64,
    /// How many changes wait for their dependencies.
    pub orphans: u64,
    /// Whether a pushed chunk waits to be looked at.
    pub has_pushed: bool,
    /// When its first byte came, Unix time in milliseconds.
    pub created_at_ms: i64,
    /// When its last change came, Unix time in milliseconds.
    pub changed_at_ms: i64,
    /// Why the worker could not digest it, if that is so.
    pub quarantine: Option<String>,
}

/// A group's file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the group's file cannot be read ({0})")]
pub struct FileError(#[from] rusqlite::Error);

impl GroupFile {
    /// Opens a file that exists.
    ///
    /// # Errors
    /// [`OpenError`] if it does not, or cannot be used.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let (connection, filled) = schema::open_existing(path, &schema::GROUP, CACHE_KIB)?;
        Ok(Self { connection, filled })
    }

    /// All documents, ascending by id.
    ///
    /// # Errors
    /// [`FileError`], also for a row whose checksum is wrong.
    pub fn documents(&self) -> Result<Vec<DocumentSummary>, FileError> {
        if self.filled == Filled::NotYet {
            return Ok(vec![]);
        }
        let mut statement = self.connection.prepare(DocumentRow::SELECT_ALL)?;
        let rows = statement.query_map([], DocumentRow::read_sound)?;
        let mut documents = rows
            .map(|row| row.map(summary))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        documents.sort_by_key(|document| document.id);
        Ok(documents)
    }

    /// One document, if it exists.
    ///
    /// # Errors
    /// [`FileError`], also for a row whose checksum is wrong.
    pub fn document(&self, id: DocumentId) -> Result<Option<DocumentSummary>, FileError> {
        if self.filled == Filled::NotYet {
            return Ok(None);
        }
        Ok(DocumentRow::find(&self.connection, id)?.map(summary))
    }

    /// The chunks of a document, which Automerge loads one after the other; none if it does not exist.
    ///
    /// # Errors
    /// [`FileError`], also for a row whose checksum is wrong.
    pub fn chunks(&self, id: DocumentId) -> Result<Vec<StoredChunk>, FileError> {
        if self.filled == Filled::NotYet {
            return Ok(vec![]);
        }
        let what = ReadWhat::Chunks {
            from: 0,
            until: u64::MAX,
        };
        match read(&self.connection, &Read { document: id, what })? {
            Answer::Chunks { chunks, .. } => Ok(chunks),
            Answer::Stored | Answer::Meta(_) | Answer::Graph { .. } | Answer::Documents(_) => {
                Ok(vec![])
            }
        }
    }
}

fn summary(row: DocumentRow) -> DocumentSummary {
    DocumentSummary {
        id: row.id,
        heads: row.heads(),
        changes: unsigned(row.changes),
        snapshot_bytes: unsigned(row.snapshot_bytes),
        tail_bytes: unsigned(row.tail_bytes),
        orphans: unsigned(row.orphans),
        has_pushed: row.pushed > 0,
        created_at_ms: row.created_at_ms,
        changed_at_ms: row.changed_at_ms,
        quarantine: row.quarantine,
    }
}
