//! The account database: who may do what. Several processes use it at once, the server and the command line.
//!
//! Texts such as apps, groups, keys and addresses are the server's to check. The times that decide something are
//! handed in, as Unix times in milliseconds. Whatever changes who may do what is one transaction with its line in
//! the audit, and each function here is whole: it has happened, or nothing has.

mod access;
mod approvals;
mod audit;
mod devices;
mod grants;
mod pairing;
mod panic;
mod roots;
mod sessions;
mod text;
mod used;

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

pub use self::{
    access::SessionAccess,
    approvals::{Approval, Approved, Attested, NewApproval, NewDevice},
    audit::{AuditEntry, AuditOrder, AuditRow, Occasion},
    devices::{Device, DeviceProof},
    grants::Grant,
    pairing::{AppKind, NewPending, Pending, PendingDoor, Recorded},
    panic::RevokedCounts,
    roots::Root,
    sessions::{NewSession, Refreshed, Session, SessionKind},
    used::Use,
};

use crate::{
    error::{AccountError, OpenError},
    schema,
};

/// Most memory for pages of the file, in KiB.
const CACHE_KIB: u32 = 512;
/// Most statements that are kept ready, which is more than there are.
const STATEMENTS_MAX: usize = 100;

/// The account database.
pub struct AccountStore {
    connection: Connection,
}

impl AccountStore {
    /// Opens the database, which is made if it does not exist.
    ///
    /// # Errors
    /// [`OpenError`] if the file cannot be used, or is damaged.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let connection = schema::open(path, &schema::ACCOUNT, CACHE_KIB)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Ok(Self { connection })
    }

    /// A number that is another one once another connection, in whichever process, has changed the database. It
    /// stays what it is when this one does.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn change_counter(&self) -> Result<i64, AccountError> {
        Ok(self
            .connection
            .pragma_query_value(None, "data_version", |row| row.get(0))?)
    }

    /// 32 hex digits that go into the key that tokens are signed with. Others after a panic.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn token_epoch(&self) -> Result<String, AccountError> {
        // never made up: with another epoch, every token would end
        property(&self.connection, TOKEN_EPOCH)?
            .ok_or_else(|| rusqlite::Error::QueryReturnedNoRows.into())
    }

    /// Changes something, or nothing if that fails. It has the file to itself from the start: what it reads is still
    /// so when it writes.
    fn change<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, AccountError>,
    ) -> Result<T, AccountError> {
        let transaction =
            Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
        let outcome = change(&transaction)?;
        transaction.commit()?;
        Ok(outcome)
    }
}

const TOKEN_EPOCH: &str = "token_epoch";

fn property(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT value FROM properties WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

fn set_property(connection: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO properties (name, value) VALUES (?1, ?2)")?
        .execute([name, value])?;
    Ok(())
}
