//! Pairing: while the owner holds the window open, devices that nobody knows may leave a request.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    AccountStore, SessionAccess,
    audit::{AuditEntry, Occasion},
    devices::device_by_jkt,
    property, set_property,
    text::words,
};
use crate::error::AccountError;

/// Most groups that one request may gather. Whoever asks for more is told that there is no room.
const GROUPS_MAX: u32 = 16;

words! {
    /// What kind of app a device runs.
    pub enum AppKind {
        /// A page of a browser, which says its origin.
        Web = "web",
        /// No browser.
        Native = "native",
        /// One whose name proves nothing.
        Unverified = "unverified",
    }
}

words! {
    /// Where a request was left.
    pub enum PendingDoor {
        /// At `POST /authenticate`.
        Authenticate = "authenticate",
        /// At `requestAccess`.
        RequestAccess = "request_access",
    }
}

/// A request to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPending {
    /// Its id, not used before. Not used either if the key has left one already.
    pub id: String,
    /// Where it is left.
    pub door: PendingDoor,
    /// The app.
    pub app: String,
    /// The key's thumbprint.
    pub jkt: String,
    /// The web origin that it comes from, if it is a browser.
    pub origin: Option<String>,
    /// What kind of app it is.
    pub kind: AppKind,
    /// What the app calls itself.
    pub app_name: Option<String>,
    /// What the device calls itself; may be empty.
    pub name: String,
    /// The network address that it comes from.
    pub address: String,
    /// What it asks for.
    pub groups: Vec<(String, SessionAccess)>,
}

/// A request that waits for the owner. All times are Unix times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its id, and that of the device if it is approved.
    pub id: String,
    /// Where it was left.
    pub door: PendingDoor,
    /// The app.
    pub app: String,
    /// The key's thumbprint. No two requests have the same.
    pub jkt: String,
    /// The web origin that it first came from, if that was a browser.
    pub origin: Option<String>,
    /// What kind of app it is.
    pub kind: AppKind,
    /// What the app calls itself.
    pub app_name: Option<String>,
    /// What the device calls itself; may be empty.
    pub name: String,
    /// The network address that it first came from.
    pub address: String,
    /// All that it has asked for, by group.
    pub groups: Vec<(String, SessionAccess)>,
    /// When it first came.
    pub first_at_ms: i64,
    /// When it last came.
    pub last_at_ms: i64,
    /// How often it came.
    pub tries: u32,
    /// When the owner denied it, if so.
    pub denied_at_ms: Option<i64>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// It was recorded.
    New,
    /// The key has left one before, under this id; now it also asks for these groups.
    Again {
        /// The id.
        id: String,
    },
    /// The owner denied it.
    Denied,
    /// There are as many as may be, or it asks for more groups than one may. Nothing was changed.
    Full,
    /// The key is known for another app. Nothing was changed.
    OtherApp,
    /// The pairing window is closed. Nothing was changed.
    Closed,
}

const PENDING: &str = "SELECT id, door, app, jkt, origin, kind, app_name, name, address, first_at_ms, last_at_ms, tries,
            denied_at_ms FROM pending";
/// How long a request waits that does not come again.
const WAITS_MS_MAX: i64 = 24 * 3_600 * 1_000;
/// How long the pairing window may stay open, in milliseconds.
pub const WINDOW_MS_MAX: i64 = 3_600 * 1_000;
const OPEN_UNTIL: &str = "pairing_open_until_ms";

impl AccountStore {
    /// Opens the pairing window until a time, at most [`WINDOW_MS_MAX`] from now. If it was closed, the requests of the last time are forgotten with
    /// their denials; if it was open, this only moves its end.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; the window stays as it was then.
    pub fn open_window(&self, until_ms: i64, occasion: &Occasion<'_>) -> Result<(), AccountError> {
        self.change(|transaction| {
            if open_until(transaction, occasion.now_ms)?.is_none() {
                forget_all(transaction)?;
            }
            set_property(transaction, OPEN_UNTIL, &until_ms.to_string())?;
            let entry = occasion.entry("pairing.opened");
            Ok(entry
                .with_detail(&format!("until {until_ms}"))
                .write(transaction)?)
        })
    }

    /// Closes the pairing window. Whether it was open.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; the window stays as it was then.
    pub fn close_window(&self, occasion: &Occasion<'_>) -> Result<bool, AccountError> {
        self.change(|transaction| {
            let open = open_until(transaction, occasion.now_ms)?.is_some();
            close(transaction)?;
            if open {
                occasion.entry("pairing.closed").write(transaction)?;
            }
            Ok(open)
        })
    }

    /// Until when the pairing window is open; nothing if it is closed.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn window_open_until(&self, now_ms: i64) -> Result<Option<i64>, AccountError> {
        Ok(open_until(&self.connection, now_ms)?)
    }

    /// The requests, the oldest first, those that were denied included.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn pending(&self) -> Result<Vec<Pending>, AccountError> {
        let query = format!("{PENDING} ORDER BY first_at_ms, id");
        let mut statement = self.connection.prepare_cached(&query)?;
        let pending = statement
            .query_map([], row)?
            .map(|pending| with_groups(&self.connection, pending?));
        Ok(pending.collect::<rusqlite::Result<_>>()?)
    }

    /// The request of a key, denied or not.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn pending_by_jkt(&self, jkt: &str) -> Result<Option<Pending>, AccountError> {
        Ok(by_jkt(&self.connection, jkt)?)
    }

    /// Records a request, or that it came again, whether the pairing window is open or not. No more than `pending_max`
    /// wait for the owner at each door; one that has not come again for a day makes room.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; nothing is changed then.
    pub fn record_pending(
        &self,
        new: &NewPending,
        pending_max: u32,
        occasion: &Occasion<'_>,
    ) -> Result<Recorded, AccountError> {
        self.change(|transaction| Ok(record(transaction, new, pending_max, occasion)?))
    }

    /// The same while the pairing window is open. That is asked here too, as the owner may have closed it since whoever
    /// asks was heard.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; nothing is changed then.
    pub fn record_pending_if_open(
        &self,
        new: &NewPending,
        pending_max: u32,
        occasion: &Occasion<'_>,
    ) -> Result<Recorded, AccountError> {
        self.change(
            |transaction| match open_until(transaction, occasion.now_ms)? {
                Some(_) => Ok(record(transaction, new, pending_max, occasion)?),
                None => Ok(Recorded::Closed),
            },
        )
    }

    /// Denies a request: its key is not heard again before the window is opened anew. Whether there was one that had
    /// not been denied.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn deny(&self, id: &str, occasion: &Occasion<'_>) -> Result<bool, AccountError> {
        self.change(|transaction| {
            let app: Option<String> = transaction
                .prepare_cached(
                    "UPDATE pending SET denied_at_ms = ?2 WHERE id = ?1 AND denied_at_ms IS NULL
                     RETURNING app",
                )?
                .query_row(params![id, occasion.now_ms], |row| row.get(0))
                .optional()?;
            let Some(app) = app else {
                return Ok(false);
            };
            let entry = AuditEntry {
                app: Some(app),
                device: Some(id.into()),
                ..occasion.entry("request.denied")
            };
            entry.write(transaction)?;
            Ok(true)
        })
    }

    /// Forgets the requests that last came before a time, with their denials. How many those were.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn drop_pending_before(&self, before_ms: i64) -> Result<u32, AccountError> {
        let dropped = self
            .connection
            .prepare_cached("DELETE FROM pending WHERE last_at_ms < ?1")?
            .execute([before_ms])?;
        Ok(u32::try_from(dropped).unwrap_or(u32::MAX))
    }
}

fn record(
    connection: &Connection,
    new: &NewPending,
    pending_max: u32,
    occasion: &Occasion<'_>,
) -> rusqlite::Result<Recorded> {
    let device = device_by_jkt(connection, &new.jkt)?;
    if device.is_some_and(|device| device.app != new.app) {
        return Ok(Recorded::OtherApp);
    }
    match by_jkt(connection, &new.jkt)? {
        Some(found) if found.app != new.app => Ok(Recorded::OtherApp),
        Some(found) => record_again(connection, found, new, occasion.now_ms),
        None => record_new(connection, new, pending_max, occasion),
    }
}

fn record_new(
    connection: &Connection,
    new: &NewPending,
    pending_max: u32,
    occasion: &Occasion<'_>,
) -> rusqlite::Result<Recorded> {
    connection
        .prepare_cached("DELETE FROM pending WHERE denied_at_ms IS NULL AND last_at_ms < ?1")?
        .execute([occasion.now_ms.saturating_sub(WAITS_MS_MAX)])?;
    // the denied do not count: the owner has seen each of them. Nor do those at the other door: it has other ways to
    // be filled
    let waiting: u32 = connection
        .prepare_cached("SELECT count(*) FROM pending WHERE denied_at_ms IS NULL AND door = ?1")?
        .query_row([new.door], |row| row.get(0))?;
    if waiting >= pending_max || new.groups.len() > GROUPS_MAX as usize {
        return Ok(Recorded::Full);
    }
    connection
        .prepare_cached(
            "INSERT INTO pending (id, door, app, jkt, origin, kind, app_name, name, address,
                                  first_at_ms, last_at_ms, tries)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, 1)",
        )?
        .execute(params![
            new.id,
            new.door,
            new.app,
            new.jkt,
            new.origin,
            new.kind,
            new.app_name,
            new.name,
            new.address,
            occasion.now_ms
        ])?;
    add_groups(connection, &new.id, &new.groups)?;
    let entry = AuditEntry {
        app: Some(new.app.clone()),
        device: Some(new.id.clone()),
        ..occasion.entry("request.recorded")
    };
    entry.write(connection)?;
    Ok(Recorded::New)
}

fn record_again(
    connection: &Connection,
    found: Pending,
    new: &NewPending,
    now_ms: i64,
) -> rusqlite::Result<Recorded> {
    let known = |group| found.groups.iter().any(|(found, _)| found == group);
    let more = new.groups.iter().filter(|(group, _)| !known(group)).count();
    if found.denied_at_ms.is_none() && found.groups.len() + more > GROUPS_MAX as usize {
        return Ok(Recorded::Full);
    }
    connection
        .prepare_cached("UPDATE pending SET last_at_ms = ?2, tries = tries + 1 WHERE id = ?1")?
        .execute(params![found.id, now_ms])?;
    if found.denied_at_ms.is_some() {
        return Ok(Recorded::Denied);
    }
    add_groups(connection, &found.id, &new.groups)?;
    Ok(Recorded::Again { id: found.id })
}

/// A request that comes for another group asks for both: an app asks for one at a time, with one key.
fn add_groups(
    connection: &Connection,
    id: &str,
    groups: &[(String, SessionAccess)],
) -> rusqlite::Result<()> {
    // as words go, 'read' is less than 'write'
    let mut statement = connection.prepare_cached(
        "INSERT INTO pending_groups (pending, access_group, access) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET access = max(access, excluded.access)",
    )?;
    for (group, access) in groups {
        statement.execute(params![id, group, access])?;
    }
    Ok(())
}

fn open_until(connection: &Connection, now_ms: i64) -> rusqlite::Result<Option<i64>> {
    let until = property(connection, OPEN_UNTIL)?.and_then(|until| until.parse().ok());
    // an end that is further off than it can be set is that of a clock which was set back since
    let may_be = now_ms + 1..=now_ms.saturating_add(WINDOW_MS_MAX);
    Ok(until.filter(|until| may_be.contains(until)))
}

pub(super) fn close(connection: &Connection) -> rusqlite::Result<()> {
    set_property(connection, OPEN_UNTIL, "0")
}

pub(super) fn forget_all(connection: &Connection) -> rusqlite::Result<u32> {
    let forgotten = connection.execute("DELETE FROM pending", [])?;
    Ok(u32::try_from(forgotten).unwrap_or(u32::MAX))
}

/// Forgets a request.
pub(super) fn remove_pending(connection: &Connection, id: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM pending WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}

/// Forgets the request of a key.
pub(super) fn remove_pending_of(connection: &Connection, jkt: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM pending WHERE jkt = ?1")?
        .execute([jkt])?;
    Ok(())
}

pub(super) fn pending(connection: &Connection, id: &str) -> rusqlite::Result<Option<Pending>> {
    one(connection, &format!("{PENDING} WHERE id = ?1"), id)
}

fn by_jkt(connection: &Connection, jkt: &str) -> rusqlite::Result<Option<Pending>> {
    one(connection, &format!("{PENDING} WHERE jkt = ?1"), jkt)
}

fn one(connection: &Connection, query: &str, key: &str) -> rusqlite::Result<Option<Pending>> {
    let mut statement = connection.prepare_cached(query)?;
    let pending = statement.query_row([key], row).optional()?;
    pending
        .map(|pending| with_groups(connection, pending))
        .transpose()
}

fn row(row: &Row<'_>) -> rusqlite::Result<Pending> {
    Ok(Pending {
        id: row.get(0)?,
        door: row.get(1)?,
        app: row.get(2)?,
        jkt: row.get(3)?,
        origin: row.get(4)?,
        kind: row.get(5)?,
        app_name: row.get(6)?,
        name: row.get(7)?,
        address: row.get(8)?,
        groups: vec![],
        first_at_ms: row.get(9)?,
        last_at_ms: row.get(10)?,
        tries: row.get(11)?,
        denied_at_ms: row.get(12)?,
    })
}

fn with_groups(connection: &Connection, pending: Pending) -> rusqlite::Result<Pending> {
    let mut statement = connection.prepare_cached(
        "SELECT access_group, access FROM pending_groups WHERE pending = ?1 ORDER BY access_group",
    )?;
    let groups = statement
        .query_map([&pending.id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Pending { groups, ..pending })
}
