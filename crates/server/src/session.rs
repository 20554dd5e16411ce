//! Sessions: who may open a socket, and the tokens that name them.

use std::{
    collections::BTreeSet,
    fmt,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use engine::Access;
use store::{
    AccountError, AccountStore, NewSession, Occasion, Session, SessionAccess, SessionKind,
};

use crate::{
    group::Group,
    sync::Admitted,
    token::{Claims, InvalidToken, TokenKey},
};

/// A session's id: 16 random bytes, as 22 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(String);

/// A text that is no session id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a session id: expected 22 letters, digits, - or _, as `token ls` shows them")]
pub struct InvalidSessionId;

impl SessionId {
    const BYTES: usize = 16;

    /// An id that nobody can guess.
    ///
    /// # Errors
    /// What the operating system says if it has no randomness.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; Self::BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// The id's characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SessionId {
    type Err = InvalidSessionId;

    fn from_str(text: &str) -> Result<Self, InvalidSessionId> {
        match BASE64_URL_SAFE_NO_PAD.decode(text) {
            Ok(bytes) if bytes.len() == Self::BYTES => Ok(Self(text.into())),
            _ => Err(InvalidSessionId),
        }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why somebody is not let in. Outside it is always the same answer.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The token is none of ours, or too old.
    #[error(transparent)]
    Token(#[from] InvalidToken),
    /// The token is ours, but its session is not in force.
    #[error("the session is revoked, has expired or does not exist")]
    Session,
    /// The account database failed.
    #[error(transparent)]
    Account(#[from] AccountError),
}

/// The door: tokens and the sessions behind them.
pub struct Door {
    accounts: Mutex<AccountStore>,
    key: TokenKey,
    used: Mutex<BTreeSet<SessionId>>,
}

impl Door {
    /// A door with these sessions, whose tokens are signed with this key.
    pub fn new(accounts: AccountStore, key: TokenKey) -> Self {
        Self {
            accounts: Mutex::new(accounts),
            key,
            used: Mutex::default(),
        }
    }

    /// Adds a session, and gives its token.
    ///
    /// # Errors
    /// [`AccountError`]; there is no session then.
    pub fn open_session(
        &self,
        group: &Group,
        access: SessionAccess,
        name: &str,
        ttl_s: u64,
    ) -> Result<(SessionId, String), AccountError> {
        let id = SessionId::random()?;
        // whole seconds, so that the token can be made again from the session
        let expires_at_s = now_ms() / 1_000 + i64::try_from(ttl_s).unwrap_or(i64::MAX / 2_000);
        let expires_at_ms = expires_at_s.saturating_mul(1_000);
        let session = NewSession {
            id: id.as_str().into(),
            name: name.into(),
            kind: SessionKind::Token,
            device: None,
            groups: vec![(group.to_string(), access)],
            expires_at_ms,
            slide_ms: 0,
            ends_at_ms: expires_at_ms,
        };
        self.accounts().add(&session, &Occasion::at(now_ms()))?;
        let token = self.key.sign(&Claims::new(&id, group, expires_at_s));
        Ok((id, token))
    }

    /// The token of a session: the same whenever it is asked for. Nothing if the row is none that we wrote.
    pub fn token_of(&self, session: &Session) -> Option<String> {
        let (group, _) = session.groups.first()?;
        let (id, group) = (session.id.parse().ok()?, group.parse().ok()?);
        Some(
            self.key
                .sign(&Claims::new(&id, &group, session.ends_at_ms / 1_000)),
        )
    }

    /// Lets somebody in, or not: signature, expiry, session and its group must all hold.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admit(&self, token: &str) -> Result<Admitted, Refused> {
        let claims = self.key.verify(token, now_ms() / 1_000)?;
        let (session, group) = (claims.session.as_str(), claims.group.as_str());
        let access = self.accounts().access(session, group, now_ms())?;
        let access = match access.ok_or(Refused::Session)? {
            SessionAccess::Read => Access::Read,
            SessionAccess::Write => Access::Write,
        };
        self.used().insert(claims.session.clone());
        Ok(Admitted {
            session: claims.session,
            group: claims.group,
            access,
        })
    }

    /// Those of `sessions` that are no longer in force.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn ended(&self, sessions: Vec<SessionId>) -> Result<Vec<SessionId>, AccountError> {
        let (accounts, now_ms) = (self.accounts(), now_ms());
        let mut ended = vec![];
        for id in sessions {
            let session = accounts.session(id.as_str())?;
            if !session.is_some_and(|session| session.is_in_force(now_ms)) {
                ended.push(id);
            }
        }
        Ok(ended)
    }

    /// A number that is another one once another process has changed a session.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn change_counter(&self) -> Result<i64, AccountError> {
        self.accounts().change_counter()
    }

    /// Writes down which sessions have been used since the last call.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn note_used(&self) -> Result<(), AccountError> {
        let used = std::mem::take(&mut *self.used());
        self.accounts()
            .touch(used.iter().map(SessionId::as_str), now_ms())
    }

    /// The sessions.
    pub fn accounts(&self) -> MutexGuard<'_, AccountStore> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) -> MutexGuard<'_, BTreeSet<SessionId>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unix time in milliseconds.
pub(crate) fn now_ms() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
