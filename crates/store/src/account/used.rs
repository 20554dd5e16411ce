//! What may be used once, and is still refused the second time after a restart.

use engine::planted::{Bug, is_planted};
use rusqlite::params;

use super::AccountStore;
use crate::error::AccountError;

/// Whether something may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// It may: nobody did before, and nobody will again.
    First,
    /// It was used before, or is past its end.
    Again,
    /// Too many are remembered to remember one more, so it may not.
    Full,
}

impl AccountStore {
    /// Uses something once, by its kind and hash. It is remembered until `expires_at_ms`, from when on whoever brings
    /// it must be refused anyway. Of each kind `used_max` are remembered at a time.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; whoever brings it should be refused then.
    pub fn use_once(
        &self,
        kind: &str,
        hash: &[u8; 32],
        expires_at_ms: i64,
        used_max: u32,
        now_ms: i64,
    ) -> Result<Use, AccountError> {
        if expires_at_ms <= now_ms {
            return Ok(Use::Again);
        }
        self.change(|transaction| {
            transaction
                .prepare_cached("DELETE FROM used WHERE expires_at_ms <= ?1")?
                .execute([now_ms])?;
            let used = transaction
                .prepare_cached("SELECT 1 FROM used WHERE kind = ?1 AND hash = ?2")?
                .exists(params![kind, hash])?;
            if used && !is_planted(Bug::ReplaysATicket) {
                return Ok(Use::Again);
            }
            let remembered: u32 = transaction
                .prepare_cached("SELECT count(*) FROM used WHERE kind = ?1")?
                .query_row([kind], |row| row.get(0))?;
            if remembered >= used_max {
                return Ok(Use::Full);
            }
            transaction
                .prepare_cached(
                    "INSERT OR IGNORE INTO used (kind, hash, expires_at_ms) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![kind, hash, expires_at_ms])?;
            Ok(Use::First)
        })
    }
}
