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
    pairing::{AppKind, NewPending, Pending, PendingDoor, Recorded, WINDOW_MS_MAX},
    panic::RevokedCounts,
    roots::Root,
    sessions::{NewSession, Refreshed, Session, SessionKind},
    used::Use,
};

use crate::{
    error::{AccountError, OpenError},
    open::{Disk, Log},
    schema,
};

/// Most memory for pages of the file, in KiB.
const CACHE_KIB: u32 = 512;
/// Most statements that are kept ready, which is more than there are.
const STATEMENTS_MAX: usize = 100;

/// The account database.
pub struct AccountStore {
    connection: Connection,
    log: Log,
}

impl AccountStore {
    /// Opens the database, which is made if it does not exist.
    ///
    /// # Errors
    /// [`OpenError`] if the file cannot be used, or is damaged.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_on(Disk::System, path)
    }

    /// The same on another disk.
    pub(crate) fn open_on(disk: Disk, path: &Path) -> Result<Self, OpenError> {
        let connection = schema::open(disk, path, &schema::ACCOUNT, CACHE_KIB)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Ok(Self {
            connection,
            log: Log::default(),
        })
    }

    /// From now on the log is put into the file by [`Self::tidy`] alone, which can say that it failed. For the one
    /// connection that lives long; the others see to it in passing.
    ///
    /// # Errors
    /// [`AccountError`] if SQLite refuses.
    pub fn keep_tidy(&mut self) -> Result<(), AccountError> {
        Ok(self.log.measure(&mut self.connection)?)
    }

    /// Puts the log into the file, if it is long enough to be worth it. As long as that fails it grows.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn tidy(&self) -> Result<(), AccountError> {
        if self.log.is_due() {
            self.log.take_over(&self.connection)?;
        }
        Ok(())
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

    /// Notes whom all that is allowed here belongs to, a DID, unless that is noted already. Gives who it is if it is
    /// somebody else: nothing that they have allowed is to be good for another owner. A panic forgets it.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn claim(&self, owner: &str) -> Result<Option<String>, AccountError> {
        let known = match property(&self.connection, OWNER)? {
            Some(known) => known,
            None => self.change(|transaction| {
                if property(transaction, OWNER)?.is_none() {
                    set_property(transaction, OWNER, owner)?;
                }
                Ok(property(transaction, OWNER)?.unwrap_or_default())
            })?,
        };
        Ok((known != owner).then_some(known))
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
const OWNER: &str = "owner";

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

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;

    /// How SQLite goes about a statement.
    fn plan(store: &AccountStore, query: &str) -> Vec<String> {
        let query = format!("EXPLAIN QUERY PLAN {query}");
        let mut statement = store.connection.prepare(&query).unwrap();
        let parameters = vec![rusqlite::types::Null; statement.parameter_count()];
        let steps = statement
            .query_map(rusqlite::params_from_iter(parameters), |row| row.get(3))
            .unwrap();
        steps.collect::<rusqlite::Result<_>>().unwrap()
    }

    #[test]
    fn the_questions_of_each_login_and_socket_search_and_never_scan() {
        let folder = tempfile::TempDir::new().unwrap();
        let store = AccountStore::open(&folder.path().join("account.db")).unwrap();
        let session_of = sessions::of_device_and_group();
        for query in [
            access::OF_SESSION,
            access::ALL_OF_SESSION,
            access::OF_DEVICE,
            &session_of,
        ] {
            let steps = plan(&store, query);
            let searches = |step: &String| step.starts_with("SEARCH");
            assert!(steps.iter().any(searches), "{steps:?}");
            let worse = |step: &String| step.contains("SCAN") || step.contains("TEMP B-TREE");
            assert!(!steps.iter().any(worse), "{steps:?}");
        }
    }

    #[test]
    fn the_question_of_each_login_is_planned_once() {
        let folder = tempfile::TempDir::new().unwrap();
        let store = AccountStore::open(&folder.path().join("account.db")).unwrap();
        for (session, now_ms) in [("a", 1), ("b", 2), ("a", 3)] {
            store.access(session, "com.example.notes", now_ms).unwrap();
            store
                .session_of(session, SessionKind::Access, "g", now_ms)
                .unwrap();
        }
        for query in [access::OF_SESSION, &sessions::of_device_and_group()] {
            let statement = store.connection.prepare_cached(query).unwrap();
            assert!(statement.get_status(StatementStatus::Run) > 0);
            assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
        }
    }
}
