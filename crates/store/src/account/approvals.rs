//! Approvals: what a device may do with a group, said by the owner, or taken from what the owner granted its app.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    AccountStore, AppKind, Device, DeviceProof, Grant, SessionAccess,
    audit::{AuditEntry, Occasion},
    devices::{add_device, device, device_by_jkt, was_revoked},
    grants, pairing,
};
use crate::error::AccountError;

/// What a device was approved for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The group.
    pub group: String,
    /// What the device may do there at most.
    pub access: SessionAccess,
    /// When it was given, Unix time in milliseconds.
    pub created_at_ms: i64,
    /// When it ends.
    pub expires_at_ms: i64,
}

/// An approval to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApproval {
    /// The id of a pending request, or of a device.
    pub id: String,
    /// For which groups, and for what.
    pub groups: Vec<(String, SessionAccess)>,
    /// What to call the device, if not what it calls itself.
    pub name: Option<String>,
    /// When the approval ends, Unix time in milliseconds.
    pub expires_at_ms: i64,
}

/// What became of an approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approved {
    /// It holds, for this device.
    Device(Device),
    /// There is no pending request with this id, and no device that is not revoked.
    Unknown,
    /// The key of the request has become that of a device of another app meanwhile.
    OtherApp,
}

/// A device whose app proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDevice {
    /// Its id, not used before. Not used either if the key has a device.
    pub id: String,
    /// Its app.
    pub app: String,
    /// Its key's thumbprint.
    pub jkt: String,
    /// The web origin that its request comes from, if it is a browser.
    pub origin: Option<String>,
    /// What kind of app it is.
    pub kind: AppKind,
    /// What it calls itself; may be empty.
    pub name: String,
    /// The network address that its request comes from.
    pub address: String,
    /// What it asks for.
    pub groups: Vec<(String, SessionAccess)>,
}

/// What became of a device whose app proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attested {
    /// It is approved for at least one group that it asks for.
    Device(Device),
    /// The owner has granted its app none of the groups by name. Nothing was changed.
    NotGranted,
    /// A device with this key was revoked. Nothing was changed.
    Revoked,
    /// The key is that of a device of another app. Nothing was changed.
    OtherApp,
}

const APPROVAL: &str = "SELECT access_group, access, created_at_ms, expires_at_ms FROM approvals";

impl AccountStore {
    /// What a device was approved for, by group, approvals that have ended included.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn approvals(&self, device: &str) -> Result<Vec<Approval>, AccountError> {
        let query = format!("{APPROVAL} WHERE device = ?1 ORDER BY access_group");
        let mut statement = self.connection.prepare_cached(&query)?;
        let approvals = statement.query_map([device], row)?;
        Ok(approvals.collect::<rusqlite::Result<_>>()?)
    }

    /// Approves a pending request, which becomes a device under the same id, or approves a device for more, for longer
    /// or for less. The app is granted what it lacks for that.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; nothing is approved then.
    pub fn approve(
        &self,
        approval: &NewApproval,
        occasion: &Occasion<'_>,
    ) -> Result<Approved, AccountError> {
        self.change(|transaction| {
            let target = target(transaction, &approval.id, occasion.now_ms)?;
            let Approved::Device(device) = target else {
                return Ok(target);
            };
            pairing::remove_pending(transaction, &approval.id)?;
            let device = by_owner(transaction, device, approval.name.as_deref())?;
            for (group, access) in &approval.groups {
                let approval = Approval {
                    group: group.clone(),
                    access: *access,
                    created_at_ms: occasion.now_ms,
                    expires_at_ms: approval.expires_at_ms,
                };
                let entry = occasion.entry("device.approved");
                put_approval(transaction, &device, &approval, By::Owner, entry)?;
                grants::widen(transaction, least_grant(&device, approval), occasion)?;
            }
            Ok(Approved::Device(device))
        })
    }

    /// Lets a device in whose app proved who it is, for what it asks for as far as the app was granted that. What the
    /// owner approved the device for stays as it is.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; nothing is changed then.
    pub fn add_attested_device(
        &self,
        new: &NewDevice,
        occasion: &Occasion<'_>,
    ) -> Result<Attested, AccountError> {
        self.change(|transaction| {
            let found = device_by_jkt(transaction, &new.jkt)?;
            if found.as_ref().is_some_and(|device| device.app != new.app) {
                return Ok(Attested::OtherApp);
            }
            if found.is_none() && was_revoked(transaction, &new.jkt)? {
                return Ok(Attested::Revoked);
            }
            let granted = granted(transaction, new, occasion.now_ms)?;
            if granted.is_empty() {
                return Ok(Attested::NotGranted);
            }
            let device = match found {
                Some(device) => device,
                None => add_attested(transaction, new, occasion.now_ms)?,
            };
            for approval in granted {
                let found = approval_of(transaction, &device.id, &approval.group)?
                    .filter(|found| found.expires_at_ms > occasion.now_ms);
                if let Some(approval) = attested_approval(&device, found, approval) {
                    let entry = occasion.entry("device.attested");
                    put_approval(transaction, &device, &approval, By::App, entry)?;
                }
            }
            Ok(Attested::Device(device))
        })
    }
}

/// The device that an approval is for. It is made if there is only a request yet.
fn target(connection: &Connection, id: &str, now_ms: i64) -> rusqlite::Result<Approved> {
    let Some(pending) = pairing::pending(connection, id)? else {
        let device = device(connection, id)?.filter(|device| device.revoked_at_ms.is_none());
        return Ok(device.map_or(Approved::Unknown, Approved::Device));
    };
    match device_by_jkt(connection, &pending.jkt)? {
        Some(device) if device.app != pending.app => Ok(Approved::OtherApp),
        Some(device) => Ok(Approved::Device(device)),
        None => {
            let device = Device {
                id: pending.id,
                app: pending.app,
                jkt: pending.jkt,
                origin: pending.origin,
                kind: pending.kind,
                proof: DeviceProof::Owner,
                name: pending.name,
                address: pending.address,
                created_at_ms: now_ms,
                last_seen_at_ms: None,
                revoked_at_ms: None,
            };
            add_device(connection, &device)?;
            Ok(Approved::Device(device))
        }
    }
}

fn least_grant(device: &Device, approval: Approval) -> Grant {
    Grant {
        app: device.app.clone(),
        group: approval.group,
        access: approval.access,
        attested: None,
        attested_until_ms: None,
        created_at_ms: approval.created_at_ms,
        expires_at_ms: approval.expires_at_ms,
    }
}

/// What an app was granted by name of what a device asks for: access and end are those of the grant, if they are less.
fn granted(
    connection: &Connection,
    new: &NewDevice,
    now_ms: i64,
) -> rusqlite::Result<Vec<Approval>> {
    let mut granted = vec![];
    for (group, access) in &new.groups {
        let grant = grants::grant(connection, &new.app, group)?;
        let in_force = grant.filter(|grant| grant.expires_at_ms > now_ms);
        granted.extend(in_force.and_then(|grant| {
            let until_ms = grant
                .attested_until_ms
                .filter(|until_ms| *until_ms > now_ms)?;
            Some(Approval {
                group: grant.group,
                access: grant.attested?.min(grant.access).min(*access),
                created_at_ms: now_ms,
                expires_at_ms: until_ms.min(grant.expires_at_ms),
            })
        }));
    }
    Ok(granted)
}

/// The approval to write for a device whose app asks again, if there is anything to write. `found` is in force.
fn attested_approval(
    device: &Device,
    found: Option<Approval>,
    granted: Approval,
) -> Option<Approval> {
    let Some(found) = found else {
        return Some(granted);
    };
    let wanted = Approval {
        access: found.access.max(granted.access),
        created_at_ms: found.created_at_ms,
        ..granted
    };
    (device.proof == DeviceProof::Attested && wanted != found).then_some(wanted)
}

fn add_attested(connection: &Connection, new: &NewDevice, now_ms: i64) -> rusqlite::Result<Device> {
    let device = Device {
        id: new.id.clone(),
        app: new.app.clone(),
        jkt: new.jkt.clone(),
        origin: new.origin.clone(),
        kind: new.kind,
        proof: DeviceProof::Attested,
        name: new.name.clone(),
        address: new.address.clone(),
        created_at_ms: now_ms,
        last_seen_at_ms: None,
        revoked_at_ms: None,
    };
    add_device(connection, &device)?;
    Ok(device)
}

fn by_owner(
    connection: &Connection,
    device: Device,
    name: Option<&str>,
) -> rusqlite::Result<Device> {
    connection
        .prepare_cached("UPDATE devices SET proof = ?2, name = coalesce(?3, name) WHERE id = ?1")?
        .execute(params![device.id, DeviceProof::Owner, name])?;
    Ok(Device {
        proof: DeviceProof::Owner,
        name: name.map_or(device.name, Into::into),
        ..device
    })
}

fn approval_of(
    connection: &Connection,
    device: &str,
    group: &str,
) -> rusqlite::Result<Option<Approval>> {
    connection
        .prepare_cached(&format!(
            "{APPROVAL} WHERE device = ?1 AND access_group = ?2"
        ))?
        .query_row([device, group], row)
        .optional()
}

/// Who has said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// The owner.
    Owner,
    /// The app, as far as the owner has granted it by name: this lasts as long as that, and is no more than that.
    App,
}

fn put_approval(
    connection: &Connection,
    device: &Device,
    approval: &Approval,
    by: By,
    entry: AuditEntry,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO approvals (device, access_group, access, created_at_ms, expires_at_ms, attested)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            device.id,
            approval.group,
            approval.access,
            approval.created_at_ms,
            approval.expires_at_ms,
            by == By::App
        ])?;
    let entry = AuditEntry {
        app: Some(device.app.clone()),
        device: Some(device.id.clone()),
        group: Some(approval.group.clone()),
        ..entry
    };
    let access = approval.access.as_str();
    entry
        .with_detail(&format!("{access}, until {}", approval.expires_at_ms))
        .write(connection)
}

fn row(row: &Row<'_>) -> rusqlite::Result<Approval> {
    Ok(Approval {
        group: row.get(0)?,
        access: row.get(1)?,
        created_at_ms: row.get(2)?,
        expires_at_ms: row.get(3)?,
    })
}
