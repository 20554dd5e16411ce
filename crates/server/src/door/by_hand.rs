//! Sessions that are made by hand, on the server's machine: `token add`, and the one of `dev`.

use store::{
    AccountError, AccountStore, NewSession, Occasion, Session, SessionAccess, SessionKind,
};

use super::{SessionId, SyncClaims, TokenKeys, now_ms};
use crate::{group::Group, secret::SecretKey};

/// The keys of tokens in the epoch that is in force.
///
/// # Errors
/// [`AccountError`] if the database fails.
pub fn token_keys(accounts: &AccountStore, secret: &SecretKey) -> Result<TokenKeys, AccountError> {
    Ok(TokenKeys::derive(secret, &accounts.token_epoch()?))
}

/// A session that was made by hand.
pub struct Made {
    /// The session.
    pub id: SessionId,
    /// Its token.
    pub token: String,
}

/// Adds a session that no device has, and gives it with its token.
///
/// # Errors
/// [`AccountError`]; there is no session then.
pub fn open_session(
    accounts: &AccountStore,
    keys: &TokenKeys,
    group: &Group,
    access: SessionAccess,
    name: &str,
    ttl_s: u64,
) -> Result<Made, AccountError> {
    let id = SessionId::random()?;
    let now_ms = now_ms();
    // whole seconds, so that the token can be made again from the session
    let expires_at_s = now_ms / 1_000 + i64::try_from(ttl_s).unwrap_or(i64::MAX / 2_000);
    let expires_at_ms = expires_at_s.saturating_mul(1_000);
    let session = NewSession {
        id: id.to_string(),
        kind: SessionKind::Token,
        device: None,
        name: name.into(),
        groups: vec![(group.to_string(), access)],
        expires_at_ms,
        slide_ms: 0,
        ends_at_ms: expires_at_ms,
    };
    accounts.add(&session, &Occasion::at(now_ms))?;
    let token = sync_token(keys, &id, group, expires_at_ms);
    Ok(Made { id, token })
}

/// The token of a session that was made by hand: the same whenever it is asked for. Nothing if the row is none that we
/// wrote.
pub fn token_of(keys: &TokenKeys, session: &Session) -> Option<String> {
    let id = session.id.parse().ok()?;
    let (group, _) = session.groups.first()?;
    Some(sync_token(
        keys,
        &id,
        &group.parse().ok()?,
        session.ends_at_ms,
    ))
}

/// The sync token of a session in a group.
pub(super) fn sync_token(
    keys: &TokenKeys,
    session: &SessionId,
    group: &Group,
    ends_at_ms: i64,
) -> String {
    keys.sync.sign(&SyncClaims {
        session: session.clone(),
        group: group.clone(),
        expires_at_s: ends_at_ms / 1_000,
    })
}
