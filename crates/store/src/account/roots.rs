//! Roots: for each app and group, the URL of the document from which the app finds its others.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    AccountStore, SessionAccess,
    access::access_of_device,
    audit::{AuditEntry, Occasion},
};
use crate::error::AccountError;

/// The root document of an app in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The app.
    pub app: String,
    /// The group.
    pub group: String,
    /// The document's URL.
    pub url: String,
    /// When it was set, Unix time in milliseconds.
    pub set_at_ms: i64,
    /// The device that set it; none if the owner did.
    pub device: Option<String>,
}

impl AccountStore {
    /// The URL of an app's root document in a group, if one was set.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn root(&self, app: &str, group: &str) -> Result<Option<String>, AccountError> {
        Ok(url(&self.connection, app, group)?)
    }

    /// Sets an app's root document unless one is set: the first one wins, whoever comes at the same time. Gives the URL
    /// that stands; nothing if none does and the device may not write there, or not any more.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; none is set then.
    pub fn put_root_first(
        &self,
        app: &str,
        group: &str,
        new_url: &str,
        device: Option<&str>,
        occasion: &Occasion<'_>,
    ) -> Result<Option<String>, AccountError> {
        // nearly always it is there, and then nobody has to wait for the file
        if let Some(stored) = url(&self.connection, app, group)? {
            return Ok(Some(stored));
        }
        self.change(|transaction| {
            if let Some(stored) = url(transaction, app, group)? {
                return Ok(Some(stored));
            }
            // who asked may have waited long for the file, and the owner has gone first
            let access = match device {
                Some(device) => access_of_device(transaction, device, group, occasion.now_ms)?,
                None => Some(SessionAccess::Write),
            };
            if access != Some(SessionAccess::Write) {
                return Ok(None);
            }
            let root = Root {
                app: app.into(),
                group: group.into(),
                url: new_url.into(),
                set_at_ms: occasion.now_ms,
                device: device.map(Into::into),
            };
            put(transaction, &root, occasion)?;
            Ok(Some(root.url))
        })
    }

    /// Sets an app's root document, in place of the one that there may be.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; the one that there was stays then.
    pub fn set_root(
        &self,
        app: &str,
        group: &str,
        new_url: &str,
        occasion: &Occasion<'_>,
    ) -> Result<(), AccountError> {
        let root = Root {
            app: app.into(),
            group: group.into(),
            url: new_url.into(),
            set_at_ms: occasion.now_ms,
            device: None,
        };
        self.change(|transaction| Ok(put(transaction, &root, occasion)?))
    }

    /// Forgets an app's root document: the next device sets another. Whether there was one.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn remove_root(
        &self,
        app: &str,
        group: &str,
        occasion: &Occasion<'_>,
    ) -> Result<bool, AccountError> {
        self.change(|transaction| {
            let removed = transaction
                .prepare_cached("DELETE FROM roots WHERE app = ?1 AND access_group = ?2")?
                .execute([app, group])?;
            if removed > 0 {
                let entry = AuditEntry {
                    app: Some(app.into()),
                    group: Some(group.into()),
                    ..occasion.entry("root.removed")
                };
                entry.write(transaction)?;
            }
            Ok(removed > 0)
        })
    }

    /// All root documents, by app and group.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn roots(&self) -> Result<Vec<Root>, AccountError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT app, access_group, url, set_at_ms, device FROM roots ORDER BY app, access_group",
        )?;
        let roots = statement.query_map([], row)?;
        Ok(roots.collect::<rusqlite::Result<_>>()?)
    }
}

fn url(connection: &Connection, app: &str, group: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT url FROM roots WHERE app = ?1 AND access_group = ?2")?
        .query_row([app, group], |row| row.get(0))
        .optional()
}

fn put(connection: &Connection, root: &Root, occasion: &Occasion<'_>) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO roots (app, access_group, url, set_at_ms, device)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            root.app,
            root.group,
            root.url,
            root.set_at_ms,
            root.device
        ])?;
    let entry = AuditEntry {
        app: Some(root.app.clone()),
        group: Some(root.group.clone()),
        device: root.device.clone(),
        ..occasion.entry("root.set")
    };
    entry.with_detail(&root.url).write(connection)
}

fn row(row: &Row<'_>) -> rusqlite::Result<Root> {
    Ok(Root {
        app: row.get(0)?,
        group: row.get(1)?,
        url: row.get(2)?,
        set_at_ms: row.get(3)?,
        device: row.get(4)?,
    })
}
