//! One read, within a transaction.

use bytes::Bytes;
use engine::{
    ChangeHash, DocumentId,
    storage::{Answer, ChunkKind, Orphan, Read, ReadWhat, StoredChunk},
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{
    checks,
    row::{DocumentRow, damaged, signed, unsigned},
};

/// Answers a question.
///
/// # Errors
/// What SQLite says, and `SQLITE_CORRUPT` for a row whose checksum is wrong.
pub(crate) fn read(connection: &Connection, read: &Read) -> rusqlite::Result<Answer> {
    let document = read.document;
    // what belongs together is read in one transaction
    let transaction = connection.unchecked_transaction()?;
    match read.what {
        ReadWhat::Meta => Ok(Answer::Meta(
            DocumentRow::find(&transaction, document)?.map(|row| row.meta()),
        )),
        ReadWhat::Graph => graph(&transaction, document),
        ReadWhat::Chunks { from, until } => {
            let row = DocumentRow::find(&transaction, document)?;
            let number = row.as_ref().and_then(|row| row.number);
            let range = (signed(from), signed(until));
            let chunks = number.map_or(Ok(vec![]), |number| chunks(&transaction, number, range))?;
            Ok(Answer::Chunks {
                meta: row.map(|row| row.meta()),
                chunks,
            })
        }
        ReadWhat::Documents { limit } => documents(&transaction, document, limit),
    }
}

fn graph(connection: &Connection, document: DocumentId) -> rusqlite::Result<Answer> {
    let Some(row) = DocumentRow::find(connection, document)? else {
        return Ok(Answer::Graph {
            meta: None,
            index: None,
            tail: vec![],
            orphans: vec![],
        });
    };
    let number = row.number.unwrap_or_default();
    let has_snapshot = row.snapshot_bytes > 0;
    let index = if has_snapshot {
        index(connection, number)?
    } else {
        None
    };
    let tail = if row.tail_bytes > 0 {
        tail(connection, number)?
    } else {
        vec![]
    };
    let orphans = if row.orphans > 0 {
        orphans(connection, number)?
    } else {
        vec![]
    };
    Ok(Answer::Graph {
        meta: Some(row.meta()),
        index,
        tail,
        orphans,
    })
}

fn index(connection: &Connection, document: i64) -> rusqlite::Result<Option<Bytes>> {
    let mut statement = connection.prepare_cached(
        "SELECT change_index, index_crc32 FROM chunks WHERE document = ?1 AND kind = 0 LIMIT 1",
    )?;
    let index = |row: &Row<'_>| {
        let index: Vec<u8> = row.get(0)?;
        let sound = checks::index(document, &index) == row.get::<_, i64>(1)?;
        if sound {
            Ok(Bytes::from(index))
        } else {
            Err(damaged())
        }
    };
    statement.query_row([document], index).optional()
}

fn tail(connection: &Connection, document: i64) -> rusqlite::Result<Vec<StoredChunk>> {
    let mut statement = connection.prepare_cached(
        "SELECT number, kind, bytes, crc32 FROM chunks WHERE document = ?1 AND kind = 1
         ORDER BY number",
    )?;
    statement
        .query_map([document], |row| chunk(document, row))?
        .collect()
}

fn chunks(
    connection: &Connection,
    document: i64,
    (from, until): (i64, i64),
) -> rusqlite::Result<Vec<StoredChunk>> {
    let mut statement = connection.prepare_cached(
        "SELECT number, kind, bytes, crc32 FROM chunks
         WHERE document = ?1 AND number >= ?2 AND number < ?3 ORDER BY number",
    )?;
    statement
        .query_map([document, from, until], |row| chunk(document, row))?
        .collect()
}

fn chunk(document: i64, row: &Row<'_>) -> rusqlite::Result<StoredChunk> {
    let (number, kind) = (row.get(0)?, row.get(1)?);
    let bytes = row.get_ref(2)?.as_blob()?;
    if checks::chunk(document, number, kind, bytes) != row.get::<_, i64>(3)? {
        return Err(damaged());
    }
    let kind = match kind {
        0 => ChunkKind::Snapshot,
        1 => ChunkKind::Tail,
        _ => ChunkKind::Pushed,
    };
    Ok(StoredChunk {
        number: unsigned(number),
        kind,
        bytes: Bytes::copy_from_slice(bytes),
    })
}

fn orphans(connection: &Connection, document: i64) -> rusqlite::Result<Vec<Orphan>> {
    let mut statement = connection.prepare_cached(
        "SELECT hash, bytes, crc32 FROM orphans WHERE document = ?1 ORDER BY number",
    )?;
    let orphan = |row: &Row<'_>| {
        let (hash, bytes) = (row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
        let sound = checks::orphan(document, hash, bytes) == row.get::<_, i64>(2)?;
        let hash = <[u8; ChangeHash::BYTES]>::try_from(hash).map_err(|_| damaged())?;
        let bytes = Bytes::copy_from_slice(bytes);
        if sound {
            Ok(Orphan {
                hash: ChangeHash::from_bytes(hash),
                bytes,
            })
        } else {
            Err(damaged())
        }
    };
    statement.query_map([document], orphan)?.collect()
}

fn documents(connection: &Connection, after: DocumentId, limit: usize) -> rusqlite::Result<Answer> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(DocumentRow::SELECT_AFTER)?;
    let rows = statement.query_map(params![after.as_bytes(), limit], |row| {
        DocumentRow::read_sound(row).map(|row| (row.id, row.heads()))
    })?;
    Ok(Answer::Documents(rows.collect::<rusqlite::Result<_>>()?))
}
