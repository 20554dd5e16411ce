//! The door: who gets in, and what the owner has to say about it.
//!
//! Whoever comes shows something that can be checked here and now: a token that this server has signed, a ticket, or a
//! proof by a key that the owner has approved (`authenticate`: apps as they are; `access`: apps that know of this
//! server). What a session may do is asked of the account database each time, so that what the owner takes back is
//! gone.
//!
//! Two connections to that database: what many devices ask for is read over one, and does not wait for the disk that
//! the other one writes to.

mod access;
mod authenticate;
pub mod by_hand;
mod journal;
mod limits;
mod nonce;
mod replay;
mod root;
mod session;
mod ticket;
mod token;
mod wish;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use atproto::Did;
use engine::Access;
use rustix::time::{ClockId, clock_gettime};
use store::{AccountError, AccountStore, Obstacle, Session, SessionAccess};
use tokio::{sync::Semaphore, time::timeout};

#[cfg(any(test, feature = "fuzz"))]
pub(crate) use self::wish::Wish;
pub(crate) use self::wish::scheme;
pub use self::{
    access::{
        AccessAnswer, AccessError, AccessRequest, Call, Caller, Granted, NSID, SERVICE,
        path as method_path,
    },
    authenticate::{Asked, AuthenticateError, Pairing, Welcome},
    journal::Event,
    limits::{Limits, Place, TooMany},
    root::{InvalidRootUrl, RootUrl},
    session::{InvalidSessionId, SessionId},
    ticket::{TICKET_MS, Ticket},
    token::{InvalidToken, SyncClaims, TOKEN_BYTES_MAX, TokenKeys},
    wish::root_in,
};
use crate::{
    group::Group,
    origin::Origin,
    outbound::{ClientResolver, DidResolver},
    secret::SecretKey,
    settings::{BareAudience, LegacyAuthenticate},
    sync::Admitted,
};

/// How long anybody may wait until the account database can be written to for them.
const TURN_TIME_MAX: Duration = Duration::from_secs(8);
/// A use of a session that ends sooner than this unless it is used is written down at once, in milliseconds: those of the
/// others are twice a minute, and it would have ended by then.
const ENDS_SOON_MS: i64 = 60_000;

/// Whose door it is, and how it is to be opened.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The account that the server belongs to; without one only tokens made by hand open the door.
    pub owner: Option<Did>,
    /// The origin that clients reach the server at, which proofs must name; without one likewise.
    pub public_url: Option<Origin>,
    /// Whether apps that know nothing of this server may ask.
    pub legacy_authenticate: LegacyAuthenticate,
    /// Whether service auth may name this server's DID alone, as PDSs do when they proxy.
    pub bare_audience: BareAudience,
}

/// Why somebody is not let in. Outside it is always the same answer.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The token is none of ours, or too old.
    #[error(transparent)]
    Token(#[from] InvalidToken),
    /// The ticket is none of ours, too old, or was used.
    #[error("the ticket is not good, or not any more")]
    Ticket,
    /// The token is ours, but its session is not in force, or not in this group.
    #[error("the session is revoked, has expired or does not exist")]
    Session,
    /// A browser has come from another origin than the device's.
    #[error("the request comes from another origin than the device was approved for")]
    Origin,
    /// The account database failed.
    #[error(transparent)]
    Account(#[from] AccountError),
}

/// Where the door looks up what it has not been told.
pub struct Resolvers {
    /// The owner's keys.
    pub dids: DidResolver,
    /// What apps say of themselves.
    pub clients: ClientResolver,
}

/// The door of a server.
pub struct Door {
    policy: Policy,
    secret: SecretKey,
    keys: RwLock<Keys>,
    reader: Mutex<AccountStore>,
    writer: Mutex<AccountStore>,
    /// Held by whoever writes, so that the others can wait their turn in order, and without a thread each.
    turn: Arc<Semaphore>,
    dids: DidResolver,
    clients: ClientResolver,
    limits: Limits,
    nonces: nonce::Nonces,
    proofs: Mutex<replay::UsedProofs>,
    tickets: Mutex<ticket::Tickets>,
    journal: Mutex<journal::Journal>,
    used: Mutex<BTreeSet<SessionId>>,
    /// Whether one of them ends soon unless that is written down.
    must_note: AtomicBool,
    /// How it goes to look what sessions may do.
    pub reading: Wellbeing,
    /// How it goes to keep the log of the account database short.
    pub tidiness: Wellbeing,
}

/// Whether something went well the last time, for health to tell. It does until it is tried.
#[derive(Default)]
pub struct Wellbeing {
    is_ill: AtomicBool,
}

impl Wellbeing {
    /// Notes how it is; how it was before, so that a change is said once.
    pub fn is(&self, well: bool) -> bool {
        !self.is_ill.swap(!well, Ordering::Relaxed)
    }
}

/// The keys of the epoch that is in force.
struct Keys {
    epoch: String,
    tokens: Arc<TokenKeys>,
}

impl Door {
    /// A door with these sessions, whose tokens are signed with this key. The two stores are two connections to one
    /// file.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails, or there is no randomness.
    pub fn new(
        [reader, mut writer]: [AccountStore; 2],
        secret: SecretKey,
        policy: Policy,
        Resolvers { dids, clients }: Resolvers,
    ) -> Result<Self, AccountError> {
        let epoch = reader.token_epoch()?;
        let tokens = Arc::new(TokenKeys::derive(&secret, &epoch));
        writer.keep_tidy()?;
        Ok(Self {
            policy,
            secret,
            keys: RwLock::new(Keys { epoch, tokens }),
            reader: Mutex::new(reader),
            writer: Mutex::new(writer),
            turn: Arc::new(Semaphore::new(1)),
            dids,
            clients,
            limits: Limits::default(),
            nonces: nonce::Nonces::new()?,
            proofs: Mutex::default(),
            tickets: Mutex::default(),
            journal: Mutex::default(),
            used: Mutex::default(),
            must_note: AtomicBool::default(),
            reading: Wellbeing::default(),
            tidiness: Wellbeing::default(),
        })
    }

    /// Whose door it is.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How often strangers may ask.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The nonce that proofs must repeat from now on.
    pub fn nonce(&self) -> String {
        self.nonces.current(uptime_ms() / 1_000)
    }

    /// Lets somebody in by a sync token, or not: signature, end, session, device, approval and grant must all hold.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admit(&self, token: &str, origin: Option<&str>) -> Result<Admitted, Refused> {
        let claims = self.keys().sync.verify(token, now_ms() / 1_000)?;
        self.admit_session(claims.session, claims.group, origin)
    }

    /// Lets somebody in by a ticket, which is used then.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admit_ticket(&self, ticket: &str, origin: Option<&str>) -> Result<Admitted, Refused> {
        let redeemed = lock(&self.tickets).redeem(ticket, uptime_ms());
        let (session, group) = redeemed.ok_or(Refused::Ticket)?;
        self.admit_session(session, group, origin)
    }

    fn admit_session(
        &self,
        session: SessionId,
        group: Group,
        origin: Option<&str>,
    ) -> Result<Admitted, Refused> {
        let access = self.access(&session, &group)?.ok_or(Refused::Session)?;
        let found = self.reader().session(session.as_str())?;
        let found = found.ok_or(Refused::Session)?;
        let expected = self.origin_of(&found)?;
        // only browsers tell an origin, and they cannot be made to tell another one
        if let (Some(expected), Some(origin)) = (expected, origin)
            && expected != origin
        {
            return Err(Refused::Origin);
        }
        self.note_use(&session, &found);
        Ok(Admitted {
            session,
            group,
            access,
        })
    }

    /// The origin that the device of a session was approved for, if there is one.
    fn origin_of(&self, session: &Session) -> Result<Option<String>, AccountError> {
        let Some(device) = &session.device else {
            return Ok(None);
        };
        let device = self.reader().device(device)?;
        Ok(device.and_then(|device| device.origin))
    }

    /// Notes that a session is used now.
    fn note_use(&self, id: &SessionId, session: &Session) {
        lock(&self.used).insert(id.clone());
        let slides = session.expires_at_ms < session.ends_at_ms;
        if slides && session.expires_at_ms <= now_ms().saturating_add(ENDS_SOON_MS) {
            self.must_note.store(true, Ordering::Relaxed);
        }
    }

    /// Whether what has been used since this was last asked is to be written down without waiting for more.
    pub fn must_note(&self) -> bool {
        self.must_note.swap(false, Ordering::Relaxed)
    }

    /// What a session may do in a group now; nothing if it, its device, the approval or the grant is not in force.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn access(
        &self,
        session: &SessionId,
        group: &Group,
    ) -> Result<Option<Access>, AccountError> {
        let access = self
            .reader()
            .access(session.as_str(), group.as_str(), now_ms())?;
        Ok(access.map(|access| match access {
            SessionAccess::Read => Access::Read,
            SessionAccess::Write => Access::Write,
        }))
    }

    /// A number that is another one once anybody has changed who may do what, and keys of the epoch that is in force
    /// then.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn change_counter(&self) -> Result<i64, AccountError> {
        let reader = self.reader();
        let (counter, epoch) = (reader.change_counter()?, reader.token_epoch()?);
        drop(reader);
        let is_new = self.keys_lock_read(|keys| keys.epoch != epoch);
        if is_new {
            let tokens = Arc::new(TokenKeys::derive(&self.secret, &epoch));
            let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
            *keys = Keys { epoch, tokens };
        }
        Ok(counter)
    }

    /// Notes that sessions have sockets open now, which keeps them from ending for want of use.
    pub fn keep(&self, sessions: impl IntoIterator<Item = SessionId>) {
        lock(&self.used).extend(sessions);
    }

    /// Writes down which sessions have been used since the last call.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; they are noted the next time then.
    pub async fn note_used(self: &Arc<Self>) -> Result<(), AccountError> {
        let door = Arc::clone(self);
        let note = move |accounts: &AccountStore| {
            let used = std::mem::take(&mut *lock(&door.used));
            let ids = used.iter().map(SessionId::as_str);
            let noted = accounts.touch(ids, now_ms());
            if noted.is_err() {
                lock(&door.used).extend(used);
            }
            noted
        };
        self.write(note).await
    }

    /// Counts something for the audit log that may happen often.
    pub fn note(&self, event: Event) {
        lock(&self.journal).note(event, now_ms());
    }

    /// Counts a refusal for the audit log.
    pub fn note_refusal(&self, detail: impl ToString, address: IpAddr) {
        self.note(Event {
            event: "refused",
            detail: detail.to_string(),
            app: None,
            device: None,
            address: Some(address),
        });
    }

    /// Writes what was counted into the audit log, if it is time.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; it is kept for the next time then.
    pub async fn write_journal(self: &Arc<Self>, when: JournalTime) -> Result<(), AccountError> {
        let door = Arc::clone(self);
        let write = move |accounts: &AccountStore| {
            let now_ms = now_ms();
            let rows = match when {
                JournalTime::IfDue => lock(&door.journal).due(now_ms),
                JournalTime::Now => lock(&door.journal).rest(now_ms),
            };
            let written = accounts.append(&rows);
            if written.is_err() {
                lock(&door.journal).keep(rows, now_ms);
            }
            written
        };
        self.write(write).await
    }

    /// Puts the log of the account database into its file, if it is time.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails; the log grows until it does not.
    pub async fn tidy(self: &Arc<Self>) -> Result<(), AccountError> {
        self.write(AccountStore::tidy).await
    }

    /// Whether the account database is as it should be, as far as that has shown.
    pub fn is_well(&self) -> bool {
        let is_well = |part: &Wellbeing| !part.is_ill.load(Ordering::Relaxed);
        is_well(&self.reading) && is_well(&self.tidiness)
    }

    /// The keys of tokens in the epoch that is in force.
    pub fn keys(&self) -> Arc<TokenKeys> {
        self.keys_lock_read(|keys| Arc::clone(&keys.tokens))
    }

    /// The account database, for one task at a time.
    pub fn writer(&self) -> MutexGuard<'_, AccountStore> {
        lock(&self.writer)
    }

    fn reader(&self) -> MutexGuard<'_, AccountStore> {
        lock(&self.reader)
    }

    fn keys_lock_read<T>(&self, look: impl FnOnce(&Keys) -> T) -> T {
        look(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does something with the database that waits for the disk. Whoever does not get a turn in time is told so: behind a
    /// file that somebody has locked, those who wait would be more and more.
    async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&AccountStore) -> Result<T, AccountError> + Send + 'static,
    ) -> Result<T, AccountError> {
        let turn = timeout(TURN_TIME_MAX, Arc::clone(&self.turn).acquire_owned()).await;
        let turn = turn.map_err(|_| AccountError::Obstacle(Obstacle::Locked))?;
        let door = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let done = change(&door.writer());
            // not when the request ends: the thread goes on waiting for one who has hung up
            drop(turn);
            done
        });
        // nobody aborts it, so what it has instead of an outcome is a panic, which goes on here
        done.await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// Notes that a proof was shown, by the thumbprint of its key and its `jti`.
    fn show_proof(&self, thumbprint: &str, jti: &str) -> replay::Shown {
        lock(&self.proofs).show(thumbprint, jti, uptime_ms() / 1_000)
    }
}

/// When what was counted is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalTime {
    /// If its span is over.
    IfDue,
    /// At once, because the server ends.
    Now,
}

/// A panic while the lock was held leaves what is whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long the machine has been up, in milliseconds: nobody sets it forward or back. What is kept in memory alone
/// lives by it; what is on the disk, or in a token, lives by [`now_ms`].
fn uptime_ms() -> i64 {
    let up = clock_gettime(ClockId::Boottime);
    up.tv_sec
        .saturating_mul(1_000)
        .saturating_add(up.tv_nsec / 1_000_000)
}

/// Unix time in milliseconds.
pub(crate) fn now_ms() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
