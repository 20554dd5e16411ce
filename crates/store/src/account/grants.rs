//! Grants: what an app may do with a group, on whichever device.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    AccountStore, SessionAccess,
    audit::{AuditEntry, Occasion},
};
use crate::error::AccountError;

/// What an app may do with a group. All times are Unix times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The app.
    pub app: String,
    /// The group.
    pub group: String,
    /// What it may do there.
    pub access: SessionAccess,
    /// What devices get that the app vouches for by itself, without the owner: as much as the owner has granted the app
    /// by name. Nothing if the grant came with the approval of a device.
    pub attested: Option<SessionAccess>,
    /// When that ends, which may be before the grant does.
    pub attested_until_ms: Option<i64>,
    /// When it was first given.
    pub created_at_ms: i64,
    /// When it ends.
    pub expires_at_ms: i64,
}

const GRANT: &str = "SELECT app, access_group, access, attested, created_at_ms, expires_at_ms,
            attested_until_ms FROM grants";

impl AccountStore {
    /// All grants, those that have ended included, by app and group.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn grants(&self) -> Result<Vec<Grant>, AccountError> {
        let query = format!("{GRANT} ORDER BY app, access_group");
        let mut statement = self.connection.prepare_cached(&query)?;
        let grants = statement.query_map([], row)?;
        Ok(grants.collect::<rusqlite::Result<_>>()?)
    }

    /// The grant of an app for a group, also one that has ended.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn grant(&self, app: &str, group: &str) -> Result<Option<Grant>, AccountError> {
        Ok(grant(&self.connection, app, group)?)
    }

    /// Gives an app a grant, in place of the one that it may have.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn put_grant(
        &self,
        app: &str,
        group: &str,
        access: SessionAccess,
        expires_at_ms: i64,
        occasion: &Occasion<'_>,
    ) -> Result<(), AccountError> {
        let grant = Grant {
            app: app.into(),
            group: group.into(),
            access,
            attested: Some(access),
            attested_until_ms: Some(expires_at_ms),
            created_at_ms: occasion.now_ms,
            expires_at_ms,
        };
        self.change(|transaction| Ok(put(transaction, &grant, occasion)?))
    }

    /// Takes grants from an app, for one group or for all. Its devices lose their approvals for them too: otherwise the
    /// next approval of one device, which brings the grant back, would wake them all. How many grants there were.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn remove_grant(
        &self,
        app: &str,
        group: Option<&str>,
        occasion: &Occasion<'_>,
    ) -> Result<u32, AccountError> {
        self.change(|transaction| {
            let removed: Vec<String> = transaction
                .prepare_cached(
                    "DELETE FROM grants WHERE app = ?1 AND (?2 IS NULL OR access_group = ?2)
                     RETURNING access_group",
                )?
                .query_map(params![app, group], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            transaction
                .prepare_cached(
                    "DELETE FROM approvals WHERE (?2 IS NULL OR access_group = ?2)
                       AND device IN (SELECT id FROM devices WHERE app = ?1)",
                )?
                .execute(params![app, group])?;
            for group in &removed {
                let entry = AuditEntry {
                    app: Some(app.into()),
                    group: Some(group.clone()),
                    ..occasion.entry("grant.removed")
                };
                entry.write(transaction)?;
            }
            Ok(u32::try_from(removed.len()).unwrap_or(u32::MAX))
        })
    }
}

/// Sees to it that an app has at least this grant. What one that is in force gives stays; one that has ended gives
/// nothing.
pub(super) fn widen(
    connection: &Connection,
    least: Grant,
    occasion: &Occasion<'_>,
) -> rusqlite::Result<()> {
    let found = grant(connection, &least.app, &least.group)?
        .filter(|found| found.expires_at_ms > occasion.now_ms);
    let wanted = match &found {
        None => least,
        Some(found) => Grant {
            access: found.access.max(least.access),
            attested: found.attested,
            attested_until_ms: found.attested_until_ms,
            created_at_ms: found.created_at_ms,
            expires_at_ms: found.expires_at_ms.max(least.expires_at_ms),
            ..least
        },
    };
    if found.as_ref() == Some(&wanted) {
        return Ok(());
    }
    put(connection, &wanted, occasion)
}

pub(super) fn grant(
    connection: &Connection,
    app: &str,
    group: &str,
) -> rusqlite::Result<Option<Grant>> {
    connection
        .prepare_cached(&format!("{GRANT} WHERE app = ?1 AND access_group = ?2"))?
        .query_row([app, group], row)
        .optional()
}

fn put(connection: &Connection, grant: &Grant, occasion: &Occasion<'_>) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO grants (app, access_group, access, attested, created_at_ms, expires_at_ms, attested_until_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT DO UPDATE SET access = excluded.access, attested = excluded.attested,
                                       attested_until_ms = excluded.attested_until_ms,
                                       expires_at_ms = excluded.expires_at_ms",
        )?
        .execute(params![
            grant.app,
            grant.group,
            grant.access,
            grant.attested,
            grant.created_at_ms,
            grant.expires_at_ms,
            grant.attested_until_ms
        ])?;
    let entry = AuditEntry {
        app: Some(grant.app.clone()),
        group: Some(grant.group.clone()),
        ..occasion.entry("grant.given")
    };
    let access = grant.access.as_str();
    entry
        .with_detail(&format!("{access}, until {}", grant.expires_at_ms))
        .write(connection)
}

fn row(row: &Row<'_>) -> rusqlite::Result<Grant> {
    Ok(Grant {
        app: row.get(0)?,
        group: row.get(1)?,
        access: row.get(2)?,
        attested: row.get(3)?,
        created_at_ms: row.get(4)?,
        expires_at_ms: row.get(5)?,
        attested_until_ms: row.get(6)?,
    })
}
