//! Durable: documents, and who may do what, in SQLite files. No async, no network, no Automerge, no users.
//!
//! A group of documents is one file, [`GroupStore`]. What it says is stored has been fsynced. One thread writes,
//! and many writes share one commit; another reads. Sessions, devices, approvals and grants lie in
//! [`AccountStore`], which several processes use at once. `docs/storage.md` describes the files.

mod account;
mod checks;
mod error;
mod file;
mod group;
mod health;
mod open;
mod quarantine;
mod read;
mod reader;
mod row;
mod schema;
#[cfg(feature = "simulator")]
pub mod simulator;
mod write;
mod writer;

pub use account::{
    AccountStore, AppKind, Approval, Approved, Attested, AuditEntry, AuditOrder, AuditRow, Device,
    DeviceProof, Grant, NewApproval, NewDevice, NewPending, NewSession, Occasion, Pending,
    PendingDoor, Recorded, Refreshed, RevokedCounts, Root, Session, SessionAccess, SessionKind,
    Use, WINDOW_MS_MAX,
};
pub use error::{AccountError, Obstacle, OpenError, OpenProblem};
pub use file::{DocumentSummary, FileError, GroupFile};
pub use group::{Completion, GroupSettings, GroupStore, Notice};
pub use health::{Health, HealthReader};
pub use open::{create_private_dir, sync_folder_of};
pub use quarantine::end_quarantine;
