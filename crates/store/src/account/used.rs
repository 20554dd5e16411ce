//! What may be used once, and is still refused the second time after a restart.

use engine::planted::{Bug, is_planted};
use rusqlite::{Transaction, params};

use super::{AccountStore, property, set_property};
use crate::error::AccountError;

/// Whether something may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// It may: nobody did before, and nobody will again.
    First,
    /// It was used before, or may have been, or is past its end.
    Again,
    /// Too many are remembered to remember one more, so it may not.
    Full,
}

impl AccountStore {
    /// Uses something once, by its kind and hash. It is remembered until `expires_at_ms`, from when on whoever brings
    /// it must be refused anyway. Of each kind `used_max` are remembered at a time.
    ///
    /// A clock that is set forward makes it forget too early. So the last end that was forgotten stays, and once the
    /// clock is right again whatever ends no later than that may have been used before. It is not the time at which it
    /// was forgotten: a clock that was in the next century for a moment would keep everybody out until then.
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
            if expires_at_ms <= forget(transaction, kind, now_ms)? {
                return Ok(Use::Again);
            }
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

/// Forgets what is past its end by the clock; which end is the last that was ever forgotten.
fn forget(transaction: &Transaction<'_>, kind: &str, now_ms: i64) -> rusqlite::Result<i64> {
    let name = format!("used_forgotten_until_ms {kind}");
    let before = property(transaction, &name)?;
    let before: Option<i64> = before.and_then(|value| value.parse().ok());
    let mut statement = transaction.prepare_cached(
        "DELETE FROM used WHERE kind = ?1 AND expires_at_ms <= ?2 RETURNING expires_at_ms",
    )?;
    let ends = statement.query_map(params![kind, now_ms], |row| row.get::<_, i64>(0))?;
    let forgotten = ends
        .collect::<rusqlite::Result<Vec<_>>>()?
        .into_iter()
        .max();
    let last = before.max(forgotten);
    if last > before {
        set_property(transaction, &name, &last.unwrap_or_default().to_string())?;
    }
    Ok(last.unwrap_or(i64::MIN))
}
