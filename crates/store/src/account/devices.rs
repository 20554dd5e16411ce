//! Devices: keys that the owner knows, each of one app, and what each was approved for.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    AccountStore, AppKind,
    audit::{AuditEntry, Occasion},
    pairing,
    text::words,
};
use crate::error::AccountError;

words! {
    /// Why a device is let in.
    pub enum DeviceProof {
        /// The owner approved it.
        Owner = "owner",
        /// Its app proved who it is, and the owner had granted the app something.
        Attested = "attested",
    }
}

/// A device. All times are Unix times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its id.
    pub id: String,
    /// Its app.
    pub app: String,
    /// Its key's thumbprint. No two devices that are not revoked have the same.
    pub jkt: String,
    /// The web origin that its requests come from, if it is a browser.
    pub origin: Option<String>,
    /// What kind of app it is.
    pub kind: AppKind,
    /// Why it is let in.
    pub proof: DeviceProof,
    /// What its owner calls it; may be empty.
    pub name: String,
    /// The network address that its first request came from.
    pub address: String,
    /// When it was approved.
    pub created_at_ms: i64,
    /// When it was last heard of, if it was since.
    pub last_seen_at_ms: Option<i64>,
    /// When it was revoked, if it was.
    pub revoked_at_ms: Option<i64>,
}

const DEVICE: &str =
    "SELECT id, app, jkt, origin, kind, proof, name, address, created_at_ms, last_seen_at_ms,
            revoked_at_ms FROM devices";

impl AccountStore {
    /// A device, also one that was revoked.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn device(&self, id: &str) -> Result<Option<Device>, AccountError> {
        Ok(device(&self.connection, id)?)
    }

    /// The device with this key that is not revoked.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn device_by_jkt(&self, jkt: &str) -> Result<Option<Device>, AccountError> {
        Ok(device_by_jkt(&self.connection, jkt)?)
    }

    /// Whether a device with this key was ever revoked. There may be another since.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn was_revoked(&self, jkt: &str) -> Result<bool, AccountError> {
        Ok(was_revoked(&self.connection, jkt)?)
    }

    /// All devices, the oldest first, those that were revoked included.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn devices(&self) -> Result<Vec<Device>, AccountError> {
        let query = format!("{DEVICE} ORDER BY created_at_ms, id");
        let mut statement = self.connection.prepare_cached(&query)?;
        let devices = statement.query_map([], row)?;
        Ok(devices.collect::<rusqlite::Result<_>>()?)
    }

    /// Ends a device and its sessions for good; its key is remembered as revoked. How many sessions that were, or
    /// nothing if there is no such device, or it was revoked before.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; nothing is revoked then.
    pub fn revoke_device(
        &self,
        id: &str,
        occasion: &Occasion<'_>,
    ) -> Result<Option<u32>, AccountError> {
        self.change(|transaction| {
            let device = device(transaction, id)?.filter(|device| device.revoked_at_ms.is_none());
            let Some(device) = device else {
                return Ok(None);
            };
            transaction
                .prepare_cached("UPDATE devices SET revoked_at_ms = ?2 WHERE id = ?1")?
                .execute(params![id, occasion.now_ms])?;
            let sessions = transaction
                .prepare_cached(
                    "UPDATE sessions SET revoked_at_ms = ?2 WHERE device = ?1 AND revoked_at_ms IS NULL",
                )?
                .execute(params![id, occasion.now_ms])?;
            pairing::remove_pending_of(transaction, &device.jkt)?;
            let entry = AuditEntry {
                app: Some(device.app),
                device: Some(device.id),
                ..occasion.entry("device.revoked")
            };
            entry
                .with_detail(&format!("with {sessions} sessions"))
                .write(transaction)?;
            Ok(Some(u32::try_from(sessions).unwrap_or(u32::MAX)))
        })
    }

    /// Ends all devices and their sessions for good. How many devices had not been revoked.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; nothing is revoked then.
    pub fn revoke_all_devices(&self, occasion: &Occasion<'_>) -> Result<u32, AccountError> {
        self.change(|transaction| {
            let count = revoke_all(transaction, occasion.now_ms)?;
            let sessions = transaction.execute(
                "UPDATE sessions SET revoked_at_ms = ?1 WHERE device IS NOT NULL AND revoked_at_ms IS NULL",
                [occasion.now_ms],
            )?;
            let entry = AuditEntry {
                count,
                ..occasion.entry("devices.revoked")
            };
            if count > 0 {
                entry
                    .with_detail(&format!("with {sessions} sessions"))
                    .write(transaction)?;
            }
            Ok(count)
        })
    }

    /// Notes that devices were heard of, besides what [`AccountStore::touch`] notes.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; then it notes none.
    pub fn note_seen<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a str>,
        now_ms: i64,
    ) -> Result<(), AccountError> {
        let mut ids = ids.into_iter().peekable();
        if ids.peek().is_none() {
            return Ok(());
        }
        self.change(|transaction| {
            let mut statement = transaction
                .prepare_cached("UPDATE devices SET last_seen_at_ms = ?2 WHERE id = ?1")?;
            for id in ids {
                statement.execute(params![id, now_ms])?;
            }
            Ok(())
        })
    }
}

pub(super) fn device(connection: &Connection, id: &str) -> rusqlite::Result<Option<Device>> {
    connection
        .prepare_cached(&format!("{DEVICE} WHERE id = ?1"))?
        .query_row([id], row)
        .optional()
}

pub(super) fn device_by_jkt(
    connection: &Connection,
    jkt: &str,
) -> rusqlite::Result<Option<Device>> {
    connection
        .prepare_cached(&format!(
            "{DEVICE} WHERE jkt = ?1 AND revoked_at_ms IS NULL"
        ))?
        .query_row([jkt], row)
        .optional()
}

pub(super) fn was_revoked(connection: &Connection, jkt: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM devices WHERE jkt = ?1 AND revoked_at_ms IS NOT NULL")?
        .exists([jkt])
}

pub(super) fn add_device(connection: &Connection, device: &Device) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO devices (id, app, jkt, origin, kind, proof, name, address, created_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            device.id,
            device.app,
            device.jkt,
            device.origin,
            device.kind,
            device.proof,
            device.name,
            device.address,
            device.created_at_ms
        ])?;
    Ok(())
}

pub(super) fn revoke_all(connection: &Connection, now_ms: i64) -> rusqlite::Result<u32> {
    let count = connection.execute(
        "UPDATE devices SET revoked_at_ms = ?1 WHERE revoked_at_ms IS NULL",
        [now_ms],
    )?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

fn row(row: &Row<'_>) -> rusqlite::Result<Device> {
    Ok(Device {
        id: row.get(0)?,
        app: row.get(1)?,
        jkt: row.get(2)?,
        origin: row.get(3)?,
        kind: row.get(4)?,
        proof: row.get(5)?,
        name: row.get(6)?,
        address: row.get(7)?,
        created_at_ms: row.get(8)?,
        last_seen_at_ms: row.get(9)?,
        revoked_at_ms: row.get(10)?,
    })
}
