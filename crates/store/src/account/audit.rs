//! The audit: what was asked, allowed, refused and taken back, line by line. The database lets nobody change a line
//! that stands.

use std::borrow::Cow;

use rusqlite::{Connection, Row, params};

use super::AccountStore;
use crate::error::AccountError;

/// When somebody changes who may do what, from where, and why, for the audit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Occasion<'a> {
    /// When.
    pub now_ms: i64,
    /// The network address that asked for it; none if it was the command line.
    pub address: Option<&'a str>,
    /// Why, in words for the owner, if that is not plain.
    pub reason: Option<&'a str>,
}

impl Occasion<'_> {
    /// The owner, at the command line.
    pub fn at(now_ms: i64) -> Self {
        Self {
            now_ms,
            ..Self::default()
        }
    }

    pub(super) fn entry(&self, event: &'static str) -> AuditEntry {
        AuditEntry {
            address: self.address.map(Into::into),
            detail: self.reason.map(Into::into),
            ..AuditEntry::new(self.now_ms, event)
        }
    }
}

/// A line of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When; of several alike, the first.
    pub at_ms: i64,
    /// Of several alike, when the last was.
    pub until_ms: Option<i64>,
    /// What, in one word with a dot, such as `device.approved`.
    pub event: Cow<'static, str>,
    /// The app.
    pub app: Option<String>,
    /// The device's id.
    pub device: Option<String>,
    /// The group.
    pub group: Option<String>,
    /// The session's id.
    pub session: Option<String>,
    /// The network address that asked for it.
    pub address: Option<String>,
    /// More, in words for the owner.
    pub detail: Option<String>,
    /// How many alike this line stands for, at least 1.
    pub count: u32,
}

impl AuditEntry {
    /// A line that says no more than what and when.
    pub fn new(at_ms: i64, event: impl Into<Cow<'static, str>>) -> Self {
        Self {
            at_ms,
            until_ms: None,
            event: event.into(),
            app: None,
            device: None,
            group: None,
            session: None,
            address: None,
            detail: None,
            count: 1,
        }
    }

    /// The same with more detail, before the one that it has.
    pub(super) fn with_detail(self, detail: &str) -> Self {
        let detail = match self.detail {
            Some(reason) => format!("{detail}; {reason}"),
            None => detail.into(),
        };
        Self {
            detail: Some(detail),
            ..self
        }
    }

    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "INSERT INTO audit (at_ms, until_ms, event, app, device, access_group, session,
                                    address, detail, count)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                self.at_ms,
                self.until_ms,
                self.event,
                self.app,
                self.device,
                self.group,
                self.session,
                self.address,
                self.detail,
                self.count
            ])?;
        Ok(())
    }
}

/// A line of the audit with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// In which order the lines were written; each number is used once.
    pub number: i64,
    /// The line.
    pub entry: AuditEntry,
}

/// Which end of the audit comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditOrder {
    /// The newest line.
    NewestFirst,
    /// The oldest line.
    OldestFirst,
}

impl AccountStore {
    /// Writes lines into the audit, all or none. Those about changes that are made here need not be written again.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn append(&self, entries: &[AuditEntry]) -> Result<(), AccountError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.change(|transaction| {
            let mut entries = entries.iter();
            Ok(entries.try_for_each(|entry| entry.write(transaction))?)
        })
    }

    /// The lines since a time, `limit` of them at most.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn audit(
        &self,
        since_ms: i64,
        limit: u32,
        order: AuditOrder,
    ) -> Result<Vec<AuditRow>, AccountError> {
        let order = match order {
            AuditOrder::NewestFirst => "DESC",
            AuditOrder::OldestFirst => "ASC",
        };
        let query = format!(
            "SELECT number, at_ms, until_ms, event, app, device, access_group, session, address, detail, count
             FROM audit WHERE at_ms >= ?1 ORDER BY at_ms {order}, number {order} LIMIT ?2"
        );
        let mut statement = self.connection.prepare_cached(&query)?;
        let rows = statement.query_map(params![since_ms, limit], row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

fn row(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    let entry = AuditEntry {
        at_ms: row.get(1)?,
        until_ms: row.get(2)?,
        event: Cow::Owned(row.get(3)?),
        app: row.get(4)?,
        device: row.get(5)?,
        group: row.get(6)?,
        session: row.get(7)?,
        address: row.get(8)?,
        detail: row.get(9)?,
        count: row.get(10)?,
    };
    Ok(AuditRow {
        number: row.get(0)?,
        entry,
    })
}
