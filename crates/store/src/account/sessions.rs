//! Sessions: a device that uses what it was allowed, for one group or several, or a token made by hand.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    AccountStore, SessionAccess,
    audit::{AuditEntry, Occasion},
    text::words,
};
use crate::error::AccountError;

words! {
    /// Which way a session was made.
    pub enum SessionKind {
        /// By hand; it has no device.
        Token = "token",
        /// By `POST /authenticate`.
        Authenticate = "authenticate",
        /// By `requestAccess`.
        Access = "access",
    }
}

/// A session to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Its id, not used before.
    pub id: String,
    /// What its owner calls it; may be empty.
    pub name: String,
    /// Which way it is made.
    pub kind: SessionKind,
    /// Whose it is: exactly a token has no device.
    pub device: Option<String>,
    /// Its groups, each once, and what it may do there at most.
    pub groups: Vec<(String, SessionAccess)>,
    /// When it ends if it is not used, Unix time in milliseconds; no later than `ends_at_ms`.
    pub expires_at_ms: i64,
    /// For how long each use makes it good; 0 if use makes no difference.
    pub slide_ms: i64,
    /// When it ends whatever happens.
    pub ends_at_ms: i64,
}

/// A session. All times are Unix times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// What its owner calls it; may be empty.
    pub name: String,
    /// Which way it was made.
    pub kind: SessionKind,
    /// Whose it is: exactly a token has no device.
    pub device: Option<String>,
    /// Its groups by name, and what it may do there at most.
    pub groups: Vec<(String, SessionAccess)>,
    /// When it was added.
    pub created_at_ms: i64,
    /// When it ends if it is not used.
    pub expires_at_ms: i64,
    /// For how long each use makes it good; 0 if use makes no difference.
    pub slide_ms: i64,
    /// When it ends whatever happens.
    pub ends_at_ms: i64,
    /// The number in the refresh token that is good; 0 in the first one.
    pub refresh_generation: u32,
    /// When it was last refreshed.
    pub refreshed_at_ms: Option<i64>,
    /// When it was revoked, if it was.
    pub revoked_at_ms: Option<i64>,
    /// When it was last used, if it ever was.
    pub last_used_at_ms: Option<i64>,
}

impl Session {
    /// Whether it is in force: neither revoked nor past its end. What it may do then is what
    /// [`AccountStore::access`] says.
    pub fn is_in_force(&self, now_ms: i64) -> bool {
        self.revoked_at_ms.is_none() && now_ms < self.expires_at_ms
    }
}

/// What became of a refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// It was the good one; now the one with this number is.
    Next(u32),
    /// It was the one before, and that was replaced just now: whoever has it did not get the answer. The one with this
    /// number is good.
    Repeated(u32),
    /// It was used before, so two have it. Whoever asks should revoke the session.
    Reused,
    /// There is no such session in force.
    Ended,
}

const SESSION: &str =
    "SELECT id, name, kind, device, created_at_ms, expires_at_ms, slide_ms, ends_at_ms,
            refresh_generation, refreshed_at_ms, revoked_at_ms, last_used_at_ms FROM sessions";

/// Of those that would do, the one that lasts longest.
pub(super) fn of_device_and_group() -> String {
    format!(
        "{SESSION}
         WHERE device = ?1 AND kind = ?2 AND expires_at_ms > ?4 AND revoked_at_ms IS NULL
           AND EXISTS (SELECT 1 FROM session_groups WHERE session = sessions.id AND access_group = ?3)
         ORDER BY expires_at_ms DESC LIMIT 1"
    )
}

impl AccountStore {
    /// Adds a session.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; nothing is added then.
    pub fn add(&self, session: &NewSession, occasion: &Occasion<'_>) -> Result<(), AccountError> {
        self.change(|transaction| Ok(add(transaction, session, occasion)?))
    }

    /// A session, if there is one with this id.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn session(&self, id: &str) -> Result<Option<Session>, AccountError> {
        self.one_session(&format!("{SESSION} WHERE id = ?1"), params![id])
    }

    /// All sessions, the oldest first, those that have ended included.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn sessions(&self) -> Result<Vec<Session>, AccountError> {
        self.many_sessions("ORDER BY created_at_ms, id", params![])
    }

    /// The sessions of a device, the oldest first, those that have ended included.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn sessions_of_device(&self, device: &str) -> Result<Vec<Session>, AccountError> {
        self.many_sessions(
            "WHERE device = ?1 ORDER BY created_at_ms, id",
            params![device],
        )
    }

    /// The session of a device for a group that is in force; if there are several, the one that lasts longest.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn session_of(
        &self,
        device: &str,
        kind: SessionKind,
        group: &str,
        now_ms: i64,
    ) -> Result<Option<Session>, AccountError> {
        self.one_session(&of_device_and_group(), params![device, kind, group, now_ms])
    }

    /// Ends a session for good. Whether there was one that had not been revoked.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn revoke(&self, id: &str, occasion: &Occasion<'_>) -> Result<bool, AccountError> {
        self.change(|transaction| {
            let device: Option<Option<String>> = transaction
                .prepare_cached(
                    "UPDATE sessions SET revoked_at_ms = ?2 WHERE id = ?1 AND revoked_at_ms IS NULL
                     RETURNING device",
                )?
                .query_row(params![id, occasion.now_ms], |row| row.get(0))
                .optional()?;
            let Some(device) = device else {
                return Ok(false);
            };
            let entry = AuditEntry {
                session: Some(id.into()),
                device,
                ..occasion.entry("session.revoked")
            };
            entry.write(transaction)?;
            Ok(true)
        })
    }

    /// Ends all sessions for good, those made by hand too. How many had not been revoked.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn revoke_all(&self, occasion: &Occasion<'_>) -> Result<u32, AccountError> {
        self.change(|transaction| {
            let count = revoke_all(transaction, occasion.now_ms)?;
            let entry = AuditEntry {
                count,
                ..occasion.entry("sessions.revoked")
            };
            if count > 0 {
                entry.write(transaction)?;
            }
            Ok(count)
        })
    }

    /// Notes that sessions have been used, and their devices seen. Those that are in force and slide last longer now.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; then it notes none.
    pub fn touch<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a str>,
        now_ms: i64,
    ) -> Result<(), AccountError> {
        let mut ids = ids.into_iter().peekable();
        if ids.peek().is_none() {
            return Ok(());
        }
        self.change(|transaction| Ok(ids.try_for_each(|id| touch(transaction, id, now_ms))?))
    }

    /// Takes a refresh token in, by its number, and says which is the next. That is a use of the session. A token that
    /// was replaced no longer than `grace_ms` ago is forgiven once more, for an answer may have been lost.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; the token is still good then.
    pub fn refresh(
        &self,
        id: &str,
        generation: u32,
        now_ms: i64,
        grace_ms: i64,
    ) -> Result<Refreshed, AccountError> {
        self.change(|transaction| {
            let row: Option<(u32, Option<i64>)> = transaction
                .prepare_cached(
                    "SELECT refresh_generation, refreshed_at_ms FROM sessions
                     WHERE id = ?1 AND revoked_at_ms IS NULL AND expires_at_ms > ?2",
                )?
                .query_row(params![id, now_ms], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((good, refreshed_at_ms)) = row else {
                return Ok(Refreshed::Ended);
            };
            if generation != good {
                let before = generation.checked_add(1) == Some(good);
                // by a clock that may have been set since
                let passed_ms = |at: i64| now_ms.saturating_sub(at).saturating_abs();
                let just_now = refreshed_at_ms.is_some_and(|at| passed_ms(at) <= grace_ms);
                return Ok(match before && just_now {
                    true => Refreshed::Repeated(good),
                    false => Refreshed::Reused,
                });
            }
            let next = good.saturating_add(1);
            transaction
                .prepare_cached(
                    "UPDATE sessions SET refresh_generation = ?2, refreshed_at_ms = ?3 WHERE id = ?1",
                )?
                .execute(params![id, next, now_ms])?;
            touch(transaction, id, now_ms)?;
            Ok(Refreshed::Next(next))
        })
    }

    fn one_session(
        &self,
        query: &str,
        params: impl rusqlite::Params,
    ) -> Result<Option<Session>, AccountError> {
        let mut statement = self.connection.prepare_cached(query)?;
        let session = statement.query_row(params, session).optional()?;
        Ok(session
            .map(|session| with_groups(&self.connection, session))
            .transpose()?)
    }

    fn many_sessions(
        &self,
        rest: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<Session>, AccountError> {
        let mut statement = self
            .connection
            .prepare_cached(&format!("{SESSION} {rest}"))?;
        let sessions = statement
            .query_map(params, session)?
            .map(|session| with_groups(&self.connection, session?));
        Ok(sessions.collect::<rusqlite::Result<_>>()?)
    }
}

/// How many sessions of a device are remembered that have ended; the oldest go first. What is looked at for each
/// session of a device must not grow with how often the device has begun and ended one.
const ENDED_MAX: u32 = 32;

fn add(
    connection: &Connection,
    session: &NewSession,
    occasion: &Occasion<'_>,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM sessions WHERE id IN
                 (SELECT id FROM sessions
                  WHERE device = ?1 AND (revoked_at_ms IS NOT NULL OR expires_at_ms <= ?2)
                  ORDER BY created_at_ms DESC, id LIMIT -1 OFFSET ?3)",
        )?
        .execute(params![session.device, occasion.now_ms, ENDED_MAX])?;
    connection
        .prepare_cached(
            "INSERT INTO sessions
                 (id, name, kind, device, created_at_ms, expires_at_ms, slide_ms, ends_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            session.id,
            session.name,
            session.kind,
            session.device,
            occasion.now_ms,
            session.expires_at_ms.min(session.ends_at_ms),
            session.slide_ms,
            session.ends_at_ms
        ])?;
    let mut groups = connection.prepare_cached(
        "INSERT INTO session_groups (session, access_group, access) VALUES (?1, ?2, ?3)",
    )?;
    for (group, access) in &session.groups {
        groups.execute(params![session.id, group, access])?;
        let entry = AuditEntry {
            session: Some(session.id.clone()),
            device: session.device.clone(),
            group: Some(group.clone()),
            ..occasion.entry("session.added")
        };
        entry
            .with_detail(&format!("{}, {}", session.kind.as_str(), access.as_str()))
            .write(connection)?;
    }
    Ok(())
}

/// A session that has ended is not brought back by a use that is noted late. One that has not ends no earlier for being
/// used: the clock may be set back just then, and right again before the next use.
fn touch(connection: &Connection, id: &str, now_ms: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE sessions SET last_used_at_ms = ?2,
                 expires_at_ms = CASE
                     WHEN slide_ms > 0 AND revoked_at_ms IS NULL AND expires_at_ms > ?2
                     THEN max(expires_at_ms, min(?2 + slide_ms, ends_at_ms)) ELSE expires_at_ms END
             WHERE id = ?1",
        )?
        .execute(params![id, now_ms])?;
    connection
        .prepare_cached(
            "UPDATE devices SET last_seen_at_ms = ?2
             WHERE id = (SELECT device FROM sessions WHERE id = ?1)",
        )?
        .execute(params![id, now_ms])?;
    Ok(())
}

pub(super) fn revoke_all(connection: &Connection, now_ms: i64) -> rusqlite::Result<u32> {
    let count = connection.execute(
        "UPDATE sessions SET revoked_at_ms = ?1 WHERE revoked_at_ms IS NULL",
        [now_ms],
    )?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        id: row.get(0)?,
        name: row.get(1)?,
        kind: row.get(2)?,
        device: row.get(3)?,
        groups: vec![],
        created_at_ms: row.get(4)?,
        expires_at_ms: row.get(5)?,
        slide_ms: row.get(6)?,
        ends_at_ms: row.get(7)?,
        refresh_generation: row.get(8)?,
        refreshed_at_ms: row.get(9)?,
        revoked_at_ms: row.get(10)?,
        last_used_at_ms: row.get(11)?,
    })
}

/// The groups of a session stay as they are for its life, so they can be read after it.
fn with_groups(connection: &Connection, session: Session) -> rusqlite::Result<Session> {
    let mut statement = connection.prepare_cached(
        "SELECT access_group, access FROM session_groups WHERE session = ?1 ORDER BY access_group",
    )?;
    let groups = statement
        .query_map([&session.id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Session { groups, ..session })
}
