//! Panic: the owner takes everything back at once.

use super::{
    AccountStore, OWNER, TOKEN_EPOCH, audit::Occasion, devices, pairing, sessions, set_property,
};
use crate::error::AccountError;

/// How much a panic has taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevokedCounts {
    /// Sessions that had not been revoked.
    pub sessions: u32,
    /// Devices that had not been revoked.
    pub devices: u32,
    /// Approvals.
    pub approvals: u32,
    /// Grants.
    pub grants: u32,
    /// Pending requests.
    pub pending: u32,
}

impl AccountStore {
    /// Takes everything back: revokes all sessions and devices, removes all approvals, grants and pending requests,
    /// closes the pairing window, forgets the owner, and puts another token epoch, 32 hex digits, in place of the one
    /// there was. What is remembered as used, the root documents and the audit stay.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; nothing is taken back then.
    pub fn revoke_everything(
        &self,
        new_epoch: &str,
        occasion: &Occasion<'_>,
    ) -> Result<RevokedCounts, AccountError> {
        self.change(|transaction| {
            let delete_all = |query| -> rusqlite::Result<u32> {
                Ok(u32::try_from(transaction.execute(query, [])?).unwrap_or(u32::MAX))
            };
            let counts = RevokedCounts {
                sessions: sessions::revoke_all(transaction, occasion.now_ms)?,
                devices: devices::revoke_all(transaction, occasion.now_ms)?,
                approvals: delete_all("DELETE FROM approvals")?,
                grants: delete_all("DELETE FROM grants")?,
                pending: pairing::forget_all(transaction)?,
            };
            pairing::close(transaction)?;
            set_property(transaction, TOKEN_EPOCH, new_epoch)?;
            transaction.execute("DELETE FROM properties WHERE name = ?1", [OWNER])?;
            let detail = format!(
                "{} sessions, {} devices, {} approvals, {} grants, {} requests",
                counts.sessions, counts.devices, counts.approvals, counts.grants, counts.pending
            );
            let entry = occasion.entry("panic").with_detail(&detail);
            entry.write(transaction)?;
            Ok(counts)
        })
    }
}
