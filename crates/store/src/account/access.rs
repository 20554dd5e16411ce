//! What a session, or a device, may do with a group now. This is asked at each login, and again and again for each
//! open socket, so each question is one statement.

use rusqlite::{Connection, OptionalExtension, params};

use super::{AccountStore, text::words};
use crate::error::AccountError;

words! {
    /// What may be done with the documents of a group. Less comes first.
    pub enum SessionAccess {
        /// Read them.
        Read = "read",
        /// Read and change them.
        Write = "write",
    }
}

/// The least of what the session has, the device has, and the app has. `min` is null if one of them is missing, and
/// as words go, 'read' is less than 'write'. Only a session that names no device needs nothing but itself.
macro_rules! effective {
    ($rest:literal) => {
        concat!(
            "SELECT own.access_group,
                    CASE WHEN sessions.device IS NULL THEN own.access
                         ELSE min(own.access, approvals.access,
                                  CASE WHEN approvals.attested = 0 THEN grants.access
                                       WHEN grants.attested_until_ms > ?2
                                       THEN min(grants.access, grants.attested) END) END
             FROM sessions
             JOIN session_groups AS own ON own.session = sessions.id
             LEFT JOIN devices ON devices.id = sessions.device AND devices.revoked_at_ms IS NULL
             LEFT JOIN approvals ON approvals.device = devices.id
                   AND approvals.access_group = own.access_group AND approvals.expires_at_ms > ?2
             LEFT JOIN grants ON grants.app = devices.app
                   AND grants.access_group = own.access_group AND grants.expires_at_ms > ?2
             WHERE sessions.id = ?1 AND sessions.revoked_at_ms IS NULL AND sessions.expires_at_ms > ?2",
            $rest
        )
    };
}

pub(super) const OF_SESSION: &str = effective!(" AND own.access_group = ?3");
pub(super) const ALL_OF_SESSION: &str = effective!(" ORDER BY own.access_group");
pub(super) const OF_DEVICE: &str = "SELECT min(approvals.access,
                CASE WHEN approvals.attested = 0 THEN grants.access
                     WHEN grants.attested_until_ms > ?3
                     THEN min(grants.access, grants.attested) END)
     FROM devices
     JOIN approvals ON approvals.device = devices.id
     JOIN grants ON grants.app = devices.app AND grants.access_group = approvals.access_group
     WHERE devices.id = ?1 AND devices.revoked_at_ms IS NULL AND approvals.access_group = ?2
       AND approvals.expires_at_ms > ?3 AND grants.expires_at_ms > ?3";

impl AccountStore {
    /// What a session may do with a group now: the least of its own access, its device's approval and the app's
    /// grant. Nothing if any of them is missing, revoked or past its end.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn access(
        &self,
        session: &str,
        group: &str,
        now_ms: i64,
    ) -> Result<Option<SessionAccess>, AccountError> {
        let access = self
            .connection
            .prepare_cached(OF_SESSION)?
            .query_row(params![session, now_ms, group], |row| row.get(1))
            .optional()?;
        Ok(access.flatten())
    }

    /// All groups that a session may do something with now, by name, and what.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn scopes(
        &self,
        session: &str,
        now_ms: i64,
    ) -> Result<Vec<(String, SessionAccess)>, AccountError> {
        let mut statement = self.connection.prepare_cached(ALL_OF_SESSION)?;
        let scope = |row: &rusqlite::Row<'_>| {
            let access: Option<SessionAccess> = row.get(1)?;
            Ok(access.map(|access| row.get(0).map(|group| (group, access))))
        };
        let scopes = statement
            .query_map(params![session, now_ms], scope)?
            .filter_map(Result::transpose)
            .map(Result::flatten);
        Ok(scopes.collect::<rusqlite::Result<_>>()?)
    }

    /// What a session of a device could do with a group now: the lesser of the device's approval and the app's grant.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn device_access(
        &self,
        device: &str,
        group: &str,
        now_ms: i64,
    ) -> Result<Option<SessionAccess>, AccountError> {
        Ok(access_of_device(&self.connection, device, group, now_ms)?)
    }
}

pub(super) fn access_of_device(
    connection: &Connection,
    device: &str,
    group: &str,
    now_ms: i64,
) -> rusqlite::Result<Option<SessionAccess>> {
    let access = connection
        .prepare_cached(OF_DEVICE)?
        .query_row(params![device, group, now_ms], |row| row.get(0))
        .optional()?;
    Ok(access.flatten())
}
