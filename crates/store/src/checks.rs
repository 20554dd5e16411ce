//! Checksums of rows. SQLite notices damage to its own structure; a bit that flips within a value it does not.

use std::path::Path;

use crc32fast::Hasher;
use rusqlite::{Connection, Row};

use crate::{
    error::{OpenError, OpenProblem},
    row::DocumentRow,
    schema::damage,
};

/// The checksum of a row of `chunks`, its index excepted.
pub(crate) fn chunk(document: i64, number: i64, kind: i64, bytes: &[u8]) -> i64 {
    let mut hasher = Hasher::new();
    for number in [document, number, kind] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(bytes);
    hasher.finalize().into()
}

/// The checksum of a snapshot's index.
pub(crate) fn index(document: i64, bytes: &[u8]) -> i64 {
    let mut hasher = Hasher::new();
    hasher.update(&document.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize().into()
}

/// The checksum of a row of `orphans`.
pub(crate) fn orphan(document: i64, hash: &[u8], bytes: &[u8]) -> i64 {
    let mut hasher = Hasher::new();
    hasher.update(&document.to_le_bytes());
    hasher.update(hash);
    hasher.update(bytes);
    hasher.finalize().into()
}

/// Looks at every row of a group's file.
pub(crate) fn check_rows(path: &Path, connection: &Connection) -> Result<(), OpenError> {
    let problem = |problem| OpenError {
        path: path.to_owned(),
        problem: damage(problem),
    };
    for (query, is_sound) in CHECKS {
        let damaged = first_damaged(connection, query, is_sound);
        if let Some(what) = damaged.map_err(|error| problem(error.into()))? {
            return Err(problem(OpenProblem::Damaged {
                what: format!("checksum of {what}"),
            }));
        }
    }
    Ok(())
}

/// What a row is called, and whether its checksum is right.
type Check = fn(&Row<'_>) -> rusqlite::Result<(String, bool)>;

const CHECKS: [(&str, Check); 3] = [
    (DocumentRow::SELECT_ALL, document_is_sound),
    (
        "SELECT document, number, kind, bytes, crc32, change_index, index_crc32 FROM chunks",
        chunk_is_sound,
    ),
    (
        "SELECT document, hash, bytes, crc32 FROM orphans",
        orphan_is_sound,
    ),
];

fn first_damaged(
    connection: &Connection,
    query: &str,
    is_sound: Check,
) -> rusqlite::Result<Option<String>> {
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (name, sound) = is_sound(row)?;
        if !sound {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn document_is_sound(row: &Row<'_>) -> rusqlite::Result<(String, bool)> {
    let (document, crc32) = DocumentRow::read(row)?;
    Ok((
        format!("document {}", document.id),
        document.crc32() == crc32,
    ))
}

fn chunk_is_sound(row: &Row<'_>) -> rusqlite::Result<(String, bool)> {
    let (document, number) = (row.get(0)?, row.get(1)?);
    let bytes_sound =
        chunk(document, number, row.get(2)?, row.get_ref(3)?.as_blob()?) == row.get::<_, i64>(4)?;
    let index_crc32 = row
        .get_ref(5)?
        .as_blob_or_null()?
        .map(|bytes| index(document, bytes));
    let sound = bytes_sound && index_crc32 == row.get(6)?;
    Ok((
        format!("chunk {number} of document number {document}"),
        sound,
    ))
}

fn orphan_is_sound(row: &Row<'_>) -> rusqlite::Result<(String, bool)> {
    let document = row.get(0)?;
    let crc32 = orphan(
        document,
        row.get_ref(1)?.as_blob()?,
        row.get_ref(2)?.as_blob()?,
    );
    Ok((
        format!("an orphan of document number {document}"),
        crc32 == row.get::<_, i64>(3)?,
    ))
}
