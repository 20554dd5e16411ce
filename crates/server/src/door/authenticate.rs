//! Door A: `POST /authenticate`, for apps that know nothing of this server but its address.
//!
//! Such an app shows an access token of its owner's PDS, and a DPoP proof. The token proves nothing to anybody but the
//! PDS. The proof shows who holds a key, and the key is what the owner approves: it lives as long as the app's sign-in.
//! What the token says has to agree with that, as a hint; agreement opens nothing.
//!
//! `docs/identity.md` tells app developers the same from their side.

use std::{net::IpAddr, sync::Arc};

use atproto::{ClientId, ClientMetadata, Hints, Proof, ProofError, Thumbprint, Unverified, dpop};
use store::{
    AccountError, AccountStore, AppKind, Device, NewPending, NewSession, Occasion, PendingDoor,
    Recorded, Session, SessionAccess, SessionKind,
};

use super::{
    Door, Event, SessionId, TooMany, by_hand, lock, now_ms,
    replay::Shown,
    uptime_ms,
    wish::{Wish, scheme},
};
use crate::{group::Group, origin::Origin, outbound::ClientError, settings::LegacyAuthenticate};

/// Where the route is.
const PATH: &str = "/authenticate";
/// How long a sync token that an app holds is good unused, in milliseconds: apps that know nothing of this server open
/// the same address for ever.
const SLIDE_MS: i64 = 12 * 3_600 * 1_000;
/// Most requests that wait for the owner.
const PENDING_MAX: u32 = 8;

/// What a request shows. There are tokens in it, so it cannot be printed.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The header `Authorization`.
    pub authorization: Option<&'a str>,
    /// All headers `DPoP`.
    pub proofs: &'a [&'a str],
    /// The header `Origin`, which browsers send, and only they can be trusted about it.
    pub origin: Option<&'a str>,
    /// What it is about.
    pub body: &'a [u8],
    /// Where it comes from.
    pub address: IpAddr,
}

/// What somebody who is let in gets. It cannot be printed either.
pub struct Welcome {
    /// The sync token.
    pub token: String,
    /// The root document, if there is one.
    pub root: Option<String>,
}

/// What an unknown device can do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// Nothing: the owner has not opened the pairing window.
    Closed,
    /// Wait: the owner sees its request.
    Waiting,
    /// Nothing: the owner has said no.
    Denied,
    /// Try again: too many others wait.
    Full,
}

impl Pairing {
    /// What became of a request; nothing if its key is known for another app.
    pub(super) fn of(recorded: &Recorded) -> Option<Self> {
        match recorded {
            Recorded::New | Recorded::Again { .. } => Some(Self::Waiting),
            Recorded::Denied => Some(Self::Denied),
            Recorded::Full => Some(Self::Full),
            Recorded::Closed => Some(Self::Closed),
            Recorded::OtherApp => None,
        }
    }
}

/// Why somebody is not let in. The texts are for the app's developer, and hold nothing that is secret.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// The owner has switched the route off.
    #[error("this server does not take devices this way")]
    Off,
    /// The server does not know whose it is, or where.
    #[error("the server's owner has yet to set owner and public_url")]
    NotConfigured,
    /// The body is not what it should be.
    #[error("{0}")]
    Request(&'static str),
    /// The proof lacks a nonce of ours; the answer brings one.
    #[error("the proof must repeat the nonce in DPoP-Nonce")]
    Nonce,
    /// The proof is not good.
    #[error("{0}")]
    Proof(#[source] ProofError),
    /// The proof was shown before.
    #[error("the proof was used before")]
    Replayed,
    /// The headers are not those of a DPoP-bound request.
    #[error("{0}")]
    Headers(&'static str),
    /// What the token says disagrees with the request.
    #[error("{0}")]
    Token(&'static str),
    /// The request comes from an origin that is none of the app's.
    #[error("{0}")]
    Origin(&'static str),
    /// The app's own description of itself cannot be had.
    #[error("the app's client metadata cannot be used: {0}")]
    Client(#[source] ClientError),
    /// The owner has not approved the device.
    #[error("{}", approval_text(.0))]
    Approval(Pairing),
    /// The owner has taken the approval back.
    #[error("the owner of this server has revoked this device")]
    Revoked,
    /// It was too often.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The account database failed.
    #[error("the storage is unavailable, try again later")]
    Account(#[from] AccountError),
}

fn approval_text(pairing: &Pairing) -> &'static str {
    match pairing {
        Pairing::Closed => {
            "the owner of this server has to approve this device, and takes no requests now"
        }
        Pairing::Waiting => "the owner of this server has to approve this device, and sees it now",
        Pairing::Denied => "the owner of this server has denied this device",
        Pairing::Full => "the owner of this server has to approve this device; too many wait",
    }
}

/// What a request has proven: that it holds the key; and what it says besides.
struct Claimant {
    thumbprint: String,
    jti: String,
    client_id: String,
}

impl Door {
    /// Lets a device in, or has it wait for its owner.
    ///
    /// # Errors
    /// [`AuthenticateError`]: nothing has changed then, but that a request may wait for the owner.
    pub async fn authenticate(
        self: &Arc<Self>,
        asked: &Asked<'_>,
    ) -> Result<Welcome, AuthenticateError> {
        let public_url = self.is_open()?;
        let wish = Wish::parse(asked.body).map_err(AuthenticateError::Request)?;
        let token = bearer(asked.authorization)?;
        let [proof] = asked.proofs else {
            return Err(AuthenticateError::Headers(
                "exactly one DPoP header is needed",
            ));
        };
        let proof = Proof::parse(proof).map_err(|problem| self.strange(asked, problem))?;
        let device = self
            .reader()
            .device_by_jkt(&proof.thumbprint().to_string())?;
        if device.is_none() {
            // before any cryptography: a key that nobody knows costs us little
            self.limits.refuse(asked.address)?;
        }
        let claimant = self.claimant(proof, token, public_url, asked)?;
        // whatever comes of it: who has seen it has nothing once the owner has approved
        self.use_up(&claimant)?;
        match device {
            Some(device) if device.app == claimant.client_id => {
                if device.origin.as_deref() != asked.origin {
                    return Err(AuthenticateError::Origin(
                        "the request comes from another origin than the device was approved for",
                    ));
                }
                let allowed =
                    self.reader()
                        .device_access(&device.id, wish.group.as_str(), now_ms())?;
                match allowed {
                    Some(access) => self.welcome((device, access), wish, asked).await,
                    None => self.ask_owner(wish, claimant, asked).await,
                }
            }
            Some(_) => Err(AuthenticateError::Token(
                "this key was approved for another app",
            )),
            None => self.ask_owner(wish, claimant, asked).await,
        }
    }

    fn is_open(&self) -> Result<&Origin, AuthenticateError> {
        if self.policy.legacy_authenticate == LegacyAuthenticate::Off {
            return Err(AuthenticateError::Off);
        }
        let public_url = self.policy.public_url.as_ref();
        public_url
            .filter(|_| self.policy.owner.is_some())
            .ok_or(AuthenticateError::NotConfigured)
    }

    /// A proof that cannot be read is a stranger's.
    fn strange(&self, asked: &Asked<'_>, problem: ProofError) -> AuthenticateError {
        match self.limits.refuse(asked.address) {
            Ok(()) => AuthenticateError::Proof(problem),
            Err(too_many) => too_many.into(),
        }
    }

    /// Finds out whether who asks holds the key, for this request, now; and whether its token agrees.
    fn claimant(
        &self,
        proof: Unverified<Proof>,
        token: &str,
        public_url: &Origin,
        asked: &Asked<'_>,
    ) -> Result<Claimant, AuthenticateError> {
        let now_s = now_ms() / 1_000;
        let verified = proof.verify(&dpop::Expected {
            method: "POST",
            url: &public_url.at(PATH),
            access_token: Some(token),
            now_s,
            nonce: &|nonce| self.nonces.is_good(nonce, uptime_ms() / 1_000),
        });
        let proof = verified.map_err(|problem| {
            if problem == ProofError::Nonce {
                AuthenticateError::Nonce
            } else {
                self.strange(asked, problem)
            }
        })?;
        let thumbprint = proof.jkt();
        let client_id = self.agreed(token, &thumbprint, now_s)?;
        Ok(Claimant {
            thumbprint: thumbprint.to_string(),
            jti: proof.jti().to_owned(),
            client_id,
        })
    }

    /// The app that a token names, if the token agrees with the request.
    fn agreed(
        &self,
        token: &str,
        thumbprint: &Thumbprint,
        now_s: i64,
    ) -> Result<String, AuthenticateError> {
        let disagrees = |what| Err(AuthenticateError::Token(what));
        let Ok(hints) = Hints::parse(token) else {
            return disagrees("the access token is none of an atproto PDS");
        };
        if Some(&hints.sub) != self.policy.owner.as_ref() {
            return disagrees("this server belongs to another account");
        }
        if hints.jkt != *thumbprint {
            return disagrees("the access token is bound to another key");
        }
        if hints.exp_s <= now_s {
            return disagrees("the access token has expired");
        }
        Ok(hints.client_id)
    }

    /// The token of a device that may come in.
    async fn welcome(
        self: &Arc<Self>,
        (device, access): (Device, SessionAccess),
        wish: Wish,
        asked: &Asked<'_>,
    ) -> Result<Welcome, AuthenticateError> {
        let group = &wish.group;
        let known = self.reader().session_of(
            &device.id,
            SessionKind::Authenticate,
            group.as_str(),
            now_ms(),
        )?;
        let known = match known {
            Some(session) if self.would_last(&session, &device, group)? => {
                let id = session.id.parse().ok();
                id.inspect(|id| self.note_use(id, &session))
                    .map(|id| (id, session.ends_at_ms))
            }
            _ => None,
        };
        let (session, ends_at_ms): (SessionId, i64) = match known {
            Some(known) => known,
            None => {
                self.limits.begin(&device.id)?;
                self.begin_session(&device, group).await?
            }
        };
        let root = self.root(&device, access, &wish).await?;
        lock(&self.used).insert(session.clone());
        self.note(Event {
            event: "login",
            detail: format!("authenticate {group}"),
            app: Some(device.app),
            device: Some(device.id),
            address: Some(asked.address),
        });
        Ok(Welcome {
            token: by_hand::sync_token(&self.keys(), &session, group, ends_at_ms),
            root,
        })
    }

    /// Whether a new session would end no later than this one, or both so late that it makes no difference.
    fn would_last(
        &self,
        session: &Session,
        device: &Device,
        group: &Group,
    ) -> Result<bool, AccountError> {
        if session.ends_at_ms > now_ms().saturating_add(SLIDE_MS) {
            return Ok(true);
        }
        let until_ms = self.approved_until(device, std::iter::once(group))?;
        Ok(session.ends_at_ms >= until_ms)
    }

    fn use_up(&self, claimant: &Claimant) -> Result<(), AuthenticateError> {
        match self.show_proof(&claimant.thumbprint, &claimant.jti) {
            Shown::First => Ok(()),
            Shown::Again => Err(AuthenticateError::Replayed),
            Shown::Full => Err(AuthenticateError::TooMany(TooMany::for_a_slot())),
        }
    }

    async fn begin_session(
        self: &Arc<Self>,
        device: &Device,
        group: &Group,
    ) -> Result<(SessionId, i64), AccountError> {
        let ends_at_ms = self.approved_until(device, std::iter::once(group))?;
        let id = SessionId::random()?;
        let session = NewSession {
            id: id.to_string(),
            kind: SessionKind::Authenticate,
            device: Some(device.id.clone()),
            name: device.name.clone(),
            // the approval and the grant say how much of it is in force
            groups: vec![(group.to_string(), SessionAccess::Write)],
            expires_at_ms: ends_at_ms.min(now_ms().saturating_add(SLIDE_MS)),
            slide_ms: SLIDE_MS,
            ends_at_ms,
        };
        self.write(move |accounts| accounts.add(&session, &Occasion::at(now_ms())))
            .await?;
        Ok((id, ends_at_ms))
    }

    /// The root document of the device's app: the one that is stored, else the one that is sent, which is stored then if
    /// the device may write.
    async fn root(
        self: &Arc<Self>,
        device: &Device,
        access: SessionAccess,
        wish: &Wish,
    ) -> Result<Option<String>, AccountError> {
        let stored = self.reader().root(&device.app, wish.group.as_str())?;
        let (None, Some(sent)) = (&stored, &wish.root) else {
            return Ok(stored);
        };
        if access == SessionAccess::Read {
            return Ok(Some(sent.to_string()));
        }
        let (app, group, device) = (
            device.app.clone(),
            wish.group.to_string(),
            device.id.clone(),
        );
        let url = sent.to_string();
        let put = move |accounts: &AccountStore| {
            accounts.put_root_first(&app, &group, &url, Some(&device), &Occasion::at(now_ms()))
        };
        let stands = self.write(put).await?;
        Ok(Some(stands.unwrap_or_else(|| sent.to_string())))
    }

    /// Has the owner decide, if the owner wants to be asked now.
    async fn ask_owner(
        self: &Arc<Self>,
        wish: Wish,
        claimant: Claimant,
        asked: &Asked<'_>,
    ) -> Result<Welcome, AuthenticateError> {
        let thumbprint = &claimant.thumbprint;
        if !self.window_is_open()? {
            // nothing is fetched for strangers while the window is shut
            let reader = self.reader();
            let is_revoked =
                reader.was_revoked(thumbprint)? && reader.device_by_jkt(thumbprint)?.is_none();
            return Err(if is_revoked {
                AuthenticateError::Revoked
            } else {
                AuthenticateError::Approval(Pairing::Closed)
            });
        }
        let metadata = self.metadata(&claimant.client_id).await?;
        let kind = kind_of(&metadata, asked.origin)?;
        let pending = NewPending {
            id: SessionId::random().map_err(AccountError::from)?.to_string(),
            door: PendingDoor::Authenticate,
            app: claimant.client_id.clone(),
            jkt: thumbprint.clone(),
            origin: asked.origin.map(str::to_owned),
            kind,
            app_name: metadata.client_name().map(str::to_owned),
            name: String::new(),
            address: asked.address.to_string(),
            groups: vec![(wish.group.to_string(), SessionAccess::Write)],
        };
        let recorded = self.record(pending, asked.address).await?;
        match Pairing::of(&recorded) {
            Some(pairing) => Err(AuthenticateError::Approval(pairing)),
            None => Err(AuthenticateError::Token(
                "this key is known for another app",
            )),
        }
    }

    pub(super) fn window_is_open(&self) -> Result<bool, AccountError> {
        Ok(self.reader().window_open_until(now_ms())?.is_some())
    }

    /// Keeps a request for the owner; one of this door only while the pairing window is open.
    pub(super) async fn record(
        self: &Arc<Self>,
        pending: NewPending,
        address: IpAddr,
    ) -> Result<Recorded, AccountError> {
        let address = address.to_string();
        let record = move |accounts: &AccountStore| {
            let occasion = Occasion {
                address: Some(&address),
                ..Occasion::at(now_ms())
            };
            match pending.door {
                PendingDoor::Authenticate => {
                    accounts.record_pending_if_open(&pending, PENDING_MAX, &occasion)
                }
                PendingDoor::RequestAccess => {
                    accounts.record_pending(&pending, PENDING_MAX, &occasion)
                }
            }
        };
        self.write(record).await
    }

    async fn metadata(&self, client_id: &str) -> Result<Arc<ClientMetadata>, AuthenticateError> {
        let client_id: ClientId = client_id
            .parse()
            .map_err(|_| AuthenticateError::Token("the client_id is none of an atproto app"))?;
        let metadata = self.clients.metadata(&client_id).await;
        metadata.map_err(AuthenticateError::Client)
    }
}

/// What the owner is told of the program that asks.
fn kind_of(metadata: &ClientMetadata, origin: Option<&str>) -> Result<AppKind, AuthenticateError> {
    let Some(origin) = origin else {
        return Ok(AppKind::Native);
    };
    if !metadata.allows_origin(origin) {
        return Err(AuthenticateError::Origin(
            "the request comes from an origin that is none of the app's",
        ));
    }
    Ok(browser_kind(metadata, origin))
}

/// What the owner is told of a page at an origin of an app. Any program on a machine can serve a page there, whatever
/// app has registered that it may be sent back to it.
pub(super) fn browser_kind(metadata: &ClientMetadata, origin: &str) -> AppKind {
    let is_of_this_machine = origin.starts_with("http://");
    if metadata.client_id().metadata_url().is_none() || is_of_this_machine {
        AppKind::Unverified
    } else {
        AppKind::Web
    }
}

fn bearer(authorization: Option<&str>) -> Result<&str, AuthenticateError> {
    scheme(authorization, "dpop").ok_or(AuthenticateError::Headers(
        "the header Authorization: DPoP with an access token is needed",
    ))
}
