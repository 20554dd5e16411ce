//! An account database in a folder of its own, and rows to put into it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses a part of it, and a test that meets the unexpected ends"
)]

use std::{ops::Deref, path::PathBuf};

use rusqlite::Connection;
use store::{
    AccountStore, AppKind, Approved, AuditOrder, Device, NewApproval, NewDevice, NewPending,
    NewSession, Occasion, PendingDoor, SessionAccess, SessionKind,
};
use tempfile::TempDir;

/// The time at which tests begin.
pub const NOW: i64 = 1_000_000;
/// A time that no test reaches.
pub const LATE: i64 = 2_000_000;
pub const APP: &str = "https://notes.example/client.json";
pub const GROUP: &str = "com.example.notes";

pub struct Accounts {
    folder: TempDir,
    store: AccountStore,
}

impl Accounts {
    pub fn create() -> Self {
        let folder = TempDir::new().unwrap();
        let store = AccountStore::open(&folder.path().join("account.db")).unwrap();
        Self { folder, store }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("account.db")
    }

    /// As another process has it.
    pub fn another(&self) -> AccountStore {
        AccountStore::open(&self.path()).unwrap()
    }

    /// The file, past the store.
    pub fn raw(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    /// A device that the owner approved, and its app with it, until [`LATE`].
    pub fn add_device(&self, id: &str, groups: &[(&str, SessionAccess)]) -> Device {
        self.record_pending(&pending(id, id, groups), 100, &now())
            .unwrap();
        self.approved(id, groups, LATE)
    }

    pub fn approved(
        &self,
        id: &str,
        groups: &[(&str, SessionAccess)],
        expires_at_ms: i64,
    ) -> Device {
        let approval = approval(id, groups, expires_at_ms);
        let approved = self.approve(&approval, &now()).unwrap();
        let Approved::Device(device) = approved else {
            panic!("{approved:?}")
        };
        device
    }

    /// The events since the beginning, the oldest first.
    pub fn events(&self) -> Vec<String> {
        let rows = self.audit(0, 1_000, AuditOrder::OldestFirst).unwrap();
        rows.into_iter()
            .map(|row| row.entry.event.into_owned())
            .collect()
    }
}

impl Deref for Accounts {
    type Target = AccountStore;

    fn deref(&self) -> &AccountStore {
        &self.store
    }
}

pub fn now() -> Occasion<'static> {
    Occasion::at(NOW)
}

pub fn owned(groups: &[(&str, SessionAccess)]) -> Vec<(String, SessionAccess)> {
    groups
        .iter()
        .map(|(group, access)| ((*group).into(), *access))
        .collect()
}

/// A session that ends at [`LATE`], used or not. Without a device it is a token.
pub fn session(id: &str, device: Option<&str>, groups: &[(&str, SessionAccess)]) -> NewSession {
    NewSession {
        id: id.into(),
        name: String::new(),
        kind: match device {
            Some(_) => SessionKind::Authenticate,
            None => SessionKind::Token,
        },
        device: device.map(Into::into),
        groups: owned(groups),
        expires_at_ms: LATE,
        slide_ms: 0,
        ends_at_ms: LATE,
    }
}

/// A request of [`APP`].
pub fn pending(id: &str, jkt: &str, groups: &[(&str, SessionAccess)]) -> NewPending {
    NewPending {
        id: id.into(),
        door: PendingDoor::Authenticate,
        app: APP.into(),
        jkt: jkt.into(),
        origin: Some("https://notes.example".into()),
        kind: AppKind::Web,
        app_name: Some("Notes".into()),
        name: "laptop".into(),
        address: "192.0.2.1".into(),
        groups: owned(groups),
    }
}

pub fn approval(id: &str, groups: &[(&str, SessionAccess)], expires_at_ms: i64) -> NewApproval {
    NewApproval {
        id: id.into(),
        groups: owned(groups),
        name: None,
        expires_at_ms,
    }
}

/// A device of [`APP`], which proved who it is.
pub fn attested(id: &str, jkt: &str, groups: &[(&str, SessionAccess)]) -> NewDevice {
    NewDevice {
        id: id.into(),
        app: APP.into(),
        jkt: jkt.into(),
        origin: None,
        kind: AppKind::Native,
        name: "phone".into(),
        address: "192.0.2.2".into(),
        groups: owned(groups),
    }
}
