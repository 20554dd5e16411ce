//! The way out of quarantine, in a file that no server has open: an engine would not know of it.

use std::path::Path;

use engine::DocumentId;
use rusqlite::{Connection, TransactionBehavior};

use crate::{
    error::{OpenError, OpenProblem},
    open::Disk,
    row::DocumentRow,
    schema::{self, damage},
};

/// Most memory for pages of the file, in KiB.
const CACHE_KIB: u32 = 512;

/// Takes a document out of quarantine, and gives why it was there; nothing if it was not, or if there is no such
/// document. The caller sees to it that the file exists, and that no server has it open or opens it meanwhile.
///
/// # Errors
/// [`OpenError`] if the file cannot be used, or the document's row is damaged; nothing was changed then.
pub fn end_quarantine(path: &Path, document: DocumentId) -> Result<Option<String>, OpenError> {
    let mut connection = schema::open(Disk::System, path, &schema::GROUP, CACHE_KIB)?;
    clear(&mut connection, document).map_err(|error| OpenError {
        path: path.to_owned(),
        problem: damage(OpenProblem::from(error)),
    })
}

fn clear(connection: &mut Connection, document: DocumentId) -> rusqlite::Result<Option<String>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let Some(mut row) = DocumentRow::find(&transaction, document)? else {
        return Ok(None);
    };
    let reason = row.quarantine.take();
    if reason.is_some() {
        row.save(&transaction)?;
        transaction.commit()?;
    }
    Ok(reason)
}
