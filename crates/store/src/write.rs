//! One write, within a transaction.

use engine::{
    ChangeHash,
    storage::{ChunkKind, Orphan, StoredChunk, Write, WriteAction},
};
use rusqlite::{Connection, params};

use crate::{
    checks,
    row::{DocumentRow, signed},
};

/// What became of a write that SQLite had nothing against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Yes,
    /// It builds on a write that failed; nothing was changed.
    OutOfOrder,
}

/// Carries out a write.
///
/// # Errors
/// What SQLite says; the transaction must then be rolled back.
pub(crate) fn write(
    connection: &Connection,
    write: &Write,
    now_ms: i64,
) -> rusqlite::Result<Written> {
    let id = write.document;
    let found = DocumentRow::find(connection, id)?;
    let mut row = found.unwrap_or_else(|| DocumentRow::new(id, now_ms));
    match &write.action {
        WriteAction::Append {
            chunk,
            heads,
            changes,
            orphans,
            adopted,
        } => {
            if chunk
                .as_ref()
                .is_some_and(|chunk| signed(chunk.number) != row.next_chunk)
            {
                return Ok(Written::OutOfOrder);
            }
            row.changed_at_ms = now_ms;
            append(connection, &mut row, chunk.as_ref(), heads, *changes)?;
            if !orphans.is_empty() || !adopted.is_empty() {
                queue_orphans(connection, &mut row, orphans, adopted)?;
            }
        }
        WriteAction::Replace {
            snapshot,
            index,
            covers_through,
            heads,
            changes,
        } => {
            row.set_heads(heads);
            row.changes = signed(*changes);
            replace(
                connection,
                &mut row,
                snapshot,
                index,
                signed(*covers_through),
            )?;
        }
        WriteAction::Quarantine { reason } => {
            row.quarantine = Some(reason.clone());
            row.save(connection)?;
        }
        WriteAction::DropPushed { number } => drop_pushed(connection, row, signed(*number))?,
    }
    Ok(Written::Yes)
}

fn append(
    connection: &Connection,
    row: &mut DocumentRow,
    chunk: Option<&StoredChunk>,
    heads: &[ChangeHash],
    changes: u64,
) -> rusqlite::Result<()> {
    row.changes += signed(changes);
    if let Some(chunk) = chunk {
        row.set_heads(heads);
        row.next_chunk += 1;
        let bytes = i64::try_from(chunk.bytes.len()).unwrap_or(i64::MAX);
        match chunk.kind {
            ChunkKind::Snapshot => row.snapshot_bytes += bytes,
            ChunkKind::Tail => row.tail_bytes += bytes,
            ChunkKind::Pushed => row.pushed += 1,
        }
    }
    let document = row.save(connection)?;
    chunk.map_or(Ok(()), |chunk| {
        insert_chunk(connection, document, chunk, None)
    })
}

fn insert_chunk(
    connection: &Connection,
    document: i64,
    chunk: &StoredChunk,
    index: Option<&[u8]>,
) -> rusqlite::Result<()> {
    let (number, kind) = (signed(chunk.number), kind_number(chunk.kind));
    let crc32 = checks::chunk(document, number, kind, &chunk.bytes);
    let index_crc32 = index.map(|index| checks::index(document, index));
    let mut statement = connection.prepare_cached(
        "INSERT INTO chunks (document, number, kind, bytes, crc32, change_index, index_crc32)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let bytes = &chunk.bytes[..];
    statement.execute(params![
        document,
        number,
        kind,
        bytes,
        crc32,
        index,
        index_crc32
    ])?;
    Ok(())
}

/// Adds orphans and takes out those that found their dependencies.
fn queue_orphans(
    connection: &Connection,
    row: &mut DocumentRow,
    orphans: &[Orphan],
    adopted: &[ChangeHash],
) -> rusqlite::Result<()> {
    let document = row.save(connection)?;
    let mut insert = connection.prepare_cached(
        "INSERT OR IGNORE INTO orphans (document, hash, bytes, crc32) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for orphan in orphans {
        let crc32 = checks::orphan(document, orphan.hash.as_bytes(), &orphan.bytes);
        insert.execute(params![
            document,
            orphan.hash.as_bytes(),
            &orphan.bytes[..],
            crc32
        ])?;
    }
    let mut delete =
        connection.prepare_cached("DELETE FROM orphans WHERE document = ?1 AND hash = ?2")?;
    for hash in adopted {
        delete.execute(params![document, hash.as_bytes()])?;
    }
    row.orphans = count(
        connection,
        "SELECT count(*) FROM orphans WHERE document = ?1",
        document,
    )?;
    row.save(connection)?;
    Ok(())
}

fn replace(
    connection: &Connection,
    row: &mut DocumentRow,
    snapshot: &StoredChunk,
    index: &[u8],
    covers_through: i64,
) -> rusqlite::Result<()> {
    let document = row.save(connection)?;
    let mut delete =
        connection.prepare_cached("DELETE FROM chunks WHERE document = ?1 AND number <= ?2")?;
    delete.execute([document, covers_through])?;
    insert_chunk(connection, document, snapshot, Some(index))?;
    row.next_chunk = row.next_chunk.max(covers_through + 1);
    weigh(connection, row, document)?;
    row.save(connection)?;
    Ok(())
}

fn drop_pushed(connection: &Connection, mut row: DocumentRow, chunk: i64) -> rusqlite::Result<()> {
    let Some(document) = row.number else {
        return Ok(());
    };
    let mut delete = connection
        .prepare_cached("DELETE FROM chunks WHERE document = ?1 AND number = ?2 AND kind = 2")?;
    delete.execute([document, chunk])?;
    weigh(connection, &mut row, document)?;
    if row.snapshot_bytes + row.tail_bytes + row.pushed > 0 {
        row.save(connection)?;
        return Ok(());
    }
    if row.orphans == 0 {
        connection
            .prepare_cached("DELETE FROM documents WHERE number = ?1")?
            .execute([document])?;
        return Ok(());
    }
    row.heads.clear();
    row.changes = 0;
    row.save(connection)?;
    Ok(())
}

/// Works out again what the chunks amount to.
fn weigh(connection: &Connection, row: &mut DocumentRow, document: i64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "SELECT coalesce(sum(length(bytes)) FILTER (WHERE kind = 0), 0),
                coalesce(sum(length(bytes)) FILTER (WHERE kind = 1), 0),
                count(*) FILTER (WHERE kind = 2)
         FROM chunks WHERE document = ?1",
    )?;
    (row.snapshot_bytes, row.tail_bytes, row.pushed) = statement.query_row([document], |sums| {
        Ok((sums.get(0)?, sums.get(1)?, sums.get(2)?))
    })?;
    Ok(())
}

fn count(connection: &Connection, query: &str, document: i64) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(query)?
        .query_row([document], |row| row.get(0))
}

/// How `chunks.kind` says it.
pub(crate) fn kind_number(kind: ChunkKind) -> i64 {
    match kind {
        ChunkKind::Snapshot => 0,
        ChunkKind::Tail => 1,
        ChunkKind::Pushed => 2,
    }
}
