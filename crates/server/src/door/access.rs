//! Door B: `requestAccess`, for apps that know of this server, and what a session does afterwards.
//!
//! Service auth, which the owner's PDS signs, proves the owner and never the app. A client attestation proves the app,
//! where it has a back end that can make one. What opens the door is the owner's approval of a device, or a grant for an
//! app that has proven itself. A session is bound to the key of its device: its tokens are worth nothing without it.

use std::{net::IpAddr, sync::Arc};

use atproto::{
    ClientAttestation, ClientAttestationError, ClientId, ClientMetadata, Did, Jwks, Proof,
    ProofError, ServiceAuth, ServiceAuthError, SigningKeyError, Thumbprint, Unverified, Verified,
    client_attestation, dpop, service_auth,
};
use sha2::{Digest, Sha256};
use store::{
    AccountError, AccountStore, AppKind, Attested, Device, NewDevice, NewPending, NewSession,
    Occasion, PendingDoor, Recorded, Refreshed, Session, SessionAccess, SessionKind, Use,
};

use super::{
    Door, Event, InvalidToken, RootUrl, SessionId, Ticket, TooMany,
    authenticate::browser_kind,
    lock, now_ms,
    replay::Shown,
    token::{AccessClaims, RefreshClaims},
};
use crate::{
    group::Group,
    origin::Origin,
    outbound::{ClientError, DidError},
    settings::BareAudience,
};

/// The methods' authority.
pub const NSID: &str = "xyz.groundmist.sync";
/// The service's name in this server's DID document.
pub const SERVICE: &str = "#groundmist_sync";
/// How long an access token is good, in seconds.
const ACCESS_S: i64 = 600;
/// How long a session is good unused, in milliseconds.
const SLIDE_MS: i64 = 30 * 24 * 3_600 * 1_000;
/// How long a refresh token may be shown again, because the answer was lost, in milliseconds.
const REFRESH_GRACE_MS: i64 = 60_000;
/// Most sessions of one device; the oldest makes room.
const OF_DEVICE_MAX: usize = 8;
/// Most ids of service auth and attestations that are kept: they live for five minutes, and only the owner makes them.
const USED_MAX: u32 = 10_000;

/// Where a method is.
pub fn path(method: &str) -> String {
    format!("/xrpc/{NSID}.{method}")
}

/// What a request to an XRPC method shows. There are tokens in it, so it cannot be printed.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// `GET` or `POST`.
    pub verb: &'static str,
    /// The method's name, without its authority.
    pub method: &'static str,
    /// The header `Authorization`.
    pub authorization: Option<&'a str>,
    /// All headers `DPoP`.
    pub proofs: &'a [&'a str],
    /// The header `Origin`.
    pub origin: Option<&'a str>,
    /// Where it comes from.
    pub address: IpAddr,
}

/// What an app asks for. There may be an attestation in it, so it cannot be printed.
#[derive(Clone)]
pub struct AccessRequest {
    /// The app.
    pub client_id: ClientId,
    /// What its device is to be called; may be empty.
    pub device_name: String,
    /// The groups, each once, and what it wants to do there.
    pub groups: Vec<(Group, SessionAccess)>,
    /// A client attestation.
    pub attestation: Option<String>,
    /// A DPoP proof, for calls through a PDS, which drops the header.
    pub proof: Option<String>,
}

/// What became of it.
pub enum AccessAnswer {
    /// It has a session.
    Granted(Granted),
    /// The owner decides; this is the id of the request.
    Pending(String),
}

/// A session, as its device gets it.
pub struct Granted {
    /// Its id.
    pub id: SessionId,
    /// The access token, bound to the device's key.
    pub access_token: String,
    /// The refresh token, likewise.
    pub refresh_token: String,
    /// When the access token ends, Unix time in seconds.
    pub access_expires_at_s: i64,
    /// What it may do now.
    pub groups: Vec<(Group, SessionAccess)>,
}

/// Who calls, by an access token.
pub struct Caller {
    /// The session's id.
    pub id: SessionId,
    /// The session.
    pub session: Session,
    /// Its device.
    pub device: Device,
    /// What it may do now.
    pub groups: Vec<(Group, SessionAccess)>,
}

/// Why a call is refused. The texts are for the app's developer, and hold nothing that is secret.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The server does not know whose it is, or where.
    #[error("the server's owner has yet to set owner and public_url")]
    NotConfigured,
    /// What is asked for makes no sense.
    #[error("{0}")]
    Request(&'static str),
    /// Nothing is shown that could be checked.
    #[error("{0}")]
    Missing(&'static str),
    /// The service auth is not good.
    #[error("{0}")]
    ServiceAuth(#[source] ServiceAuthError),
    /// It was shown before.
    #[error("the service auth was used before")]
    ServiceAuthUsed,
    /// The owner's DID cannot be looked up now.
    #[error("the owner's DID document cannot be had: {0}")]
    Directory(#[source] DidError),
    /// The owner's DID document has no key that service auth could be signed with.
    #[error("the owner's DID document: {0}")]
    Key(#[source] SigningKeyError),
    /// The proof lacks a nonce of ours; the answer brings one.
    #[error("the proof must repeat the nonce in DPoP-Nonce")]
    Nonce,
    /// The proof is not good.
    #[error("{0}")]
    Proof(#[source] ProofError),
    /// The proof was shown before, or is of another key.
    #[error("{0}")]
    WrongProof(&'static str),
    /// The token is not good.
    #[error(transparent)]
    Token(InvalidToken),
    /// The token's session is not in force.
    #[error("the session is revoked, has expired or does not exist")]
    Session,
    /// The app's own description of itself cannot be had.
    #[error("the app's client metadata cannot be used: {0}")]
    Client(#[source] ClientError),
    /// The attestation is not good.
    #[error("{0}")]
    Attestation(#[source] ClientAttestationError),
    /// It was shown before.
    #[error("the attestation was used before")]
    AttestationUsed,
    /// The session, or the device, may not do this.
    #[error("{0}")]
    Denied(&'static str),
    /// It was too often.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The account database failed.
    #[error("the storage is unavailable, try again later")]
    Account(#[from] AccountError),
}

impl Door {
    /// This server's DID: `did:web` of its public host.
    ///
    /// # Errors
    /// [`AccessError::NotConfigured`] if it has none.
    pub fn did(&self) -> Result<String, AccessError> {
        let public_url = self.policy.public_url.as_ref();
        public_url
            .and_then(did_of)
            .ok_or(AccessError::NotConfigured)
    }

    fn site(&self) -> Result<(&Did, &Origin), AccessError> {
        let Some((owner, public_url)) = self
            .policy
            .owner
            .as_ref()
            .zip(self.policy.public_url.as_ref())
        else {
            return Err(AccessError::NotConfigured);
        };
        Ok((owner, public_url))
    }

    /// The owner, by service auth. The app is not known thereby.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn owner(self: &Arc<Self>, call: &Call<'_>) -> Result<(), AccessError> {
        self.limits.refuse(call.address)?;
        self.service_auth(call).await
    }

    async fn service_auth(self: &Arc<Self>, call: &Call<'_>) -> Result<(), AccessError> {
        let token = scheme(call.authorization, "bearer").ok_or(AccessError::Missing(
            "the header Authorization: Bearer with service auth is needed",
        ))?;
        let (owner, _) = self.site()?;
        let did = self.did()?;
        let service = format!("{did}{SERVICE}");
        let audiences = [service.as_str(), did.as_str()];
        let audiences = match self.policy.bare_audience {
            BareAudience::Allow => audiences.as_slice(),
            BareAudience::Refuse => audiences.split_at(1).0,
        };
        let method = format!("{NSID}.{}", call.method);
        let expected = service_auth::Expected {
            issuer: owner,
            audiences,
            method: &method,
            now_s: now_ms() / 1_000,
        };
        let auth = ServiceAuth::parse(token).map_err(AccessError::ServiceAuth)?;
        // all that can be told without a look at the network comes first
        auth.check(&expected).map_err(AccessError::ServiceAuth)?;
        let auth = self.verify(token, auth, &expected).await?;
        match self
            .use_once("service_auth", auth.jti(), auth.expires_at_s())
            .await?
        {
            Use::First => Ok(()),
            Use::Again | Use::Full => Err(AccessError::ServiceAuthUsed),
        }
    }

    /// By the key of the owner's DID document; a fresh one if the key that is known does not fit, as it may have been
    /// changed.
    async fn verify(
        &self,
        token: &str,
        auth: Unverified<ServiceAuth>,
        expected: &service_auth::Expected<'_>,
    ) -> Result<Verified<ServiceAuth>, AccessError> {
        let owner = expected.issuer;
        let known = self.dids.resolve(owner).await;
        let known = known.map_err(AccessError::Directory)?;
        if let Ok(key) = known.signing_key() {
            match auth.verify(key, expected) {
                Err(ServiceAuthError::Signature(_) | ServiceAuthError::Algorithm) => {}
                other => return other.map_err(AccessError::ServiceAuth),
            }
        }
        let fresh = self.dids.resolve_fresh(owner).await;
        let fresh = fresh.map_err(AccessError::Directory)?;
        let key = fresh.signing_key().map_err(AccessError::Key)?;
        let auth = ServiceAuth::parse(token).and_then(|auth| auth.verify(key, expected));
        auth.map_err(AccessError::ServiceAuth)
    }

    /// These are kept on the disk: they live on after a restart, unlike proofs, whose nonces do not.
    async fn use_once(
        self: &Arc<Self>,
        kind: &'static str,
        id: &str,
        expires_at_s: i64,
    ) -> Result<Use, AccountError> {
        let hash: [u8; 32] = Sha256::digest(id).into();
        let expires_at_ms = expires_at_s.saturating_mul(1_000);
        self.write(move |accounts| {
            accounts.use_once(kind, &hash, expires_at_ms, USED_MAX, now_ms())
        })
        .await
    }

    /// Gives a device of the owner a session, or has the owner decide.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn request_access(
        self: &Arc<Self>,
        call: &Call<'_>,
        request: AccessRequest,
    ) -> Result<AccessAnswer, AccessError> {
        // before any cryptography: anybody can make a key and a proof by it
        self.limits.refuse(call.address)?;
        let proof = self.proof_of_request(call, &request)?;
        self.service_auth(call).await?;
        self.use_proof(&proof)?;
        let app = request.client_id.as_str().to_owned();
        let known = self.reader().device_by_jkt(&proof.jkt().to_string())?;
        if known.as_ref().is_some_and(|device| device.app != app) {
            return Err(AccessError::Denied("this key was approved for another app"));
        }
        if let Some(device) = known {
            let groups = self.allowed(&device, &request.groups)?;
            if !groups.is_empty() {
                let granted = self.begin(device, groups, call.address).await?;
                return Ok(AccessAnswer::Granted(granted));
            }
        }
        self.introduce(call, request, &proof.jkt()).await
    }

    /// The proof of the header, which names the service auth; or, through a PDS, the one in the body, which cannot.
    fn proof_of_request(
        &self,
        call: &Call<'_>,
        request: &AccessRequest,
    ) -> Result<Verified<Proof>, AccessError> {
        let token = scheme(call.authorization, "bearer");
        match (call.proofs, &request.proof) {
            ([proof], None) => self.proof(proof, call, token),
            ([], Some(proof)) => self.proof(proof, call, None),
            _ => Err(AccessError::Missing(
                "one DPoP proof is needed, in the header DPoP or, through a PDS, in the field proof",
            )),
        }
    }

    fn proof(
        &self,
        proof: &str,
        call: &Call<'_>,
        token: Option<&str>,
    ) -> Result<Verified<Proof>, AccessError> {
        let proof = Proof::parse(proof).map_err(AccessError::Proof)?;
        self.verify_proof(proof, call, token)
    }

    fn verify_proof(
        &self,
        proof: Unverified<Proof>,
        call: &Call<'_>,
        token: Option<&str>,
    ) -> Result<Verified<Proof>, AccessError> {
        let (_, public_url) = self.site()?;
        let now_s = now_ms() / 1_000;
        let url = public_url.at(&path(call.method));
        let expected = dpop::Expected {
            method: call.verb,
            url: &url,
            access_token: token,
            now_s,
            nonce: &|nonce| self.nonces.is_good(nonce, now_s),
        };
        proof.verify(&expected).map_err(|problem| {
            if problem == ProofError::Nonce {
                AccessError::Nonce
            } else {
                AccessError::Proof(problem)
            }
        })
    }

    fn use_proof(&self, proof: &Verified<Proof>) -> Result<(), AccessError> {
        match self.show_proof(&proof.jkt().to_string(), proof.jti()) {
            Shown::First => Ok(()),
            Shown::Again => Err(AccessError::WrongProof("the proof was used before")),
            Shown::Full => Err(TooMany::for_a_slot().into()),
        }
    }

    /// What of the groups a device may have now.
    fn allowed(
        &self,
        device: &Device,
        wanted: &[(Group, SessionAccess)],
    ) -> Result<Vec<(Group, SessionAccess)>, AccountError> {
        let (reader, now_ms) = (self.reader(), now_ms());
        let mut allowed = vec![];
        for (group, access) in wanted {
            if let Some(most) = reader.device_access(&device.id, group.as_str(), now_ms)? {
                allowed.push((group.clone(), most.min(*access)));
            }
        }
        Ok(allowed)
    }

    /// A device that nobody knows: by its app's attestation and the owner's grant, or else the owner decides.
    async fn introduce(
        self: &Arc<Self>,
        call: &Call<'_>,
        request: AccessRequest,
        thumbprint: &Thumbprint,
    ) -> Result<AccessAnswer, AccessError> {
        let metadata = self.clients.metadata(&request.client_id).await;
        let metadata = metadata.map_err(AccessError::Client)?;
        if call
            .origin
            .is_some_and(|origin| !metadata.allows_origin(origin))
        {
            return Err(AccessError::Denied(
                "the request comes from an origin that is none of the app's",
            ));
        }
        let kind = match call.origin {
            _ if request.client_id.metadata_url().is_none() => AppKind::Unverified,
            Some(origin) => browser_kind(&metadata, origin),
            None => AppKind::Native,
        };
        if let Some(attestation) = &request.attestation {
            self.attested(attestation, &metadata, thumbprint).await?;
            if let Some(granted) = self
                .admit_attested(call, &request, thumbprint, kind)
                .await?
            {
                return Ok(AccessAnswer::Granted(granted));
            }
        }
        self.have_owner_decide(call, request, thumbprint, kind, &metadata)
            .await
    }

    /// Whether an attestation is the app's, for this server and this key.
    async fn attested(
        self: &Arc<Self>,
        attestation: &str,
        metadata: &ClientMetadata,
        thumbprint: &Thumbprint,
    ) -> Result<(), AccessError> {
        let (did, client_id) = (self.did()?, metadata.client_id());
        let service = format!("{did}{SERVICE}");
        let expected = client_attestation::Expected {
            client_id,
            audiences: &[service.as_str(), did.as_str()],
            jkt: *thumbprint,
            now_s: now_ms() / 1_000,
        };
        let verify = |keys: Result<Option<Arc<Jwks>>, ClientError>| {
            let keys = keys.map_err(AccessError::Client)?;
            let keys = keys.ok_or(AccessError::Denied("the app's metadata name no keys"))?;
            let attestation = ClientAttestation::parse(attestation);
            let verified = attestation.and_then(|attestation| attestation.verify(&keys, &expected));
            verified.map_err(AccessError::Attestation)
        };
        let verified = match verify(self.clients.keys(metadata).await) {
            // the app may have other keys by now
            Err(AccessError::Attestation(
                ClientAttestationError::Signature(_) | ClientAttestationError::KeyId,
            )) => verify(self.clients.fresh_keys(metadata).await)?,
            other => other?,
        };
        let id = format!("{} {}", client_id.as_str(), verified.jti());
        match self
            .use_once("client_attestation", &id, verified.expires_at_s())
            .await?
        {
            Use::First => Ok(()),
            Use::Again | Use::Full => Err(AccessError::AttestationUsed),
        }
    }

    async fn admit_attested(
        self: &Arc<Self>,
        call: &Call<'_>,
        request: &AccessRequest,
        thumbprint: &Thumbprint,
        kind: AppKind,
    ) -> Result<Option<Granted>, AccessError> {
        let device = NewDevice {
            id: SessionId::random().map_err(AccountError::from)?.to_string(),
            app: request.client_id.as_str().to_owned(),
            jkt: thumbprint.to_string(),
            origin: call.origin.map(str::to_owned),
            kind,
            name: request.device_name.clone(),
            address: call.address.to_string(),
            groups: texts(&request.groups),
        };
        let address = call.address.to_string();
        let added = self
            .write(move |accounts| {
                let occasion = Occasion {
                    address: Some(&address),
                    ..Occasion::at(now_ms())
                };
                accounts.add_attested_device(&device, &occasion)
            })
            .await?;
        let device = match added {
            Attested::Device(device) => device,
            Attested::NotGranted => return Ok(None),
            Attested::Revoked => {
                return Err(AccessError::Denied(
                    "the owner of this server has revoked this device",
                ));
            }
            Attested::OtherApp => {
                return Err(AccessError::Denied("this key was approved for another app"));
            }
        };
        let groups = self.allowed(&device, &request.groups)?;
        if groups.is_empty() {
            return Ok(None);
        }
        self.begin(device, groups, call.address).await.map(Some)
    }

    /// Has the owner decide. The pairing window need not be open: it is the owner's PDS that vouches for who asks.
    async fn have_owner_decide(
        self: &Arc<Self>,
        call: &Call<'_>,
        request: AccessRequest,
        thumbprint: &Thumbprint,
        kind: AppKind,
        metadata: &ClientMetadata,
    ) -> Result<AccessAnswer, AccessError> {
        let pending = NewPending {
            id: SessionId::random().map_err(AccountError::from)?.to_string(),
            door: PendingDoor::RequestAccess,
            app: request.client_id.as_str().to_owned(),
            jkt: thumbprint.to_string(),
            origin: call.origin.map(str::to_owned),
            kind,
            app_name: metadata.client_name().map(str::to_owned),
            name: request.device_name,
            address: call.address.to_string(),
            groups: texts(&request.groups),
        };
        let id = pending.id.clone();
        let recorded = self.record(pending, call.address).await?;
        match recorded {
            Recorded::New => Ok(AccessAnswer::Pending(id)),
            Recorded::Again { id } => Ok(AccessAnswer::Pending(id)),
            Recorded::Denied => Err(AccessError::Denied("the owner has denied this device")),
            Recorded::Full => Err(AccessError::TooMany(TooMany::for_a_slot())),
            Recorded::OtherApp => Err(AccessError::Denied("this key is known for another app")),
        }
    }

    /// Begins a session of a device.
    async fn begin(
        self: &Arc<Self>,
        device: Device,
        groups: Vec<(Group, SessionAccess)>,
        address: IpAddr,
    ) -> Result<Granted, AccessError> {
        let now_ms = now_ms();
        let id = SessionId::random().map_err(AccountError::from)?;
        let ends_at_ms = self.approved_until(&device, groups.iter().map(|(group, _)| group))?;
        let session = NewSession {
            id: id.to_string(),
            kind: SessionKind::Access,
            device: Some(device.id.clone()),
            name: device.name.clone(),
            groups: texts(&groups),
            expires_at_ms: ends_at_ms.min(now_ms.saturating_add(SLIDE_MS)),
            slide_ms: SLIDE_MS,
            ends_at_ms,
        };
        let (of, address_text) = (device.id.clone(), address.to_string());
        self.write(move |accounts| {
            let occasion = Occasion {
                address: Some(&address_text),
                ..Occasion::at(now_ms)
            };
            end_oldest(accounts, &of, &occasion)?;
            accounts.add(&session, &occasion)
        })
        .await?;
        self.note(Event {
            event: "login",
            detail: "requestAccess".into(),
            app: Some(device.app),
            device: Some(device.id),
            address: Some(address),
        });
        Ok(self.tokens(id, &device.jkt, 0, ends_at_ms, groups))
    }

    fn tokens(
        &self,
        id: SessionId,
        thumbprint: &str,
        generation: u32,
        ends_at_ms: i64,
        groups: Vec<(Group, SessionAccess)>,
    ) -> Granted {
        let (keys, ends_at_s) = (self.keys(), ends_at_ms / 1_000);
        let access_expires_at_s = (now_ms() / 1_000 + ACCESS_S).min(ends_at_s);
        Granted {
            access_token: keys.access.sign(&AccessClaims {
                session: id.clone(),
                thumbprint: thumbprint.to_owned(),
                expires_at_s: access_expires_at_s,
            }),
            refresh_token: keys.refresh.sign(&RefreshClaims {
                session: id.clone(),
                thumbprint: thumbprint.to_owned(),
                generation,
                expires_at_s: ends_at_s,
            }),
            id,
            access_expires_at_s,
            groups,
        }
    }

    /// The session that calls, by its access token and a proof of its key.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn caller(&self, call: &Call<'_>) -> Result<Caller, AccessError> {
        let token = self.token(call)?;
        let claims = self.keys().access.verify(token, now_ms() / 1_000);
        let claims = claims.map_err(|problem| self.stranger(call, AccessError::Token(problem)))?;
        self.session_of(call, token, claims.session, &claims.thumbprint)
    }

    /// A new pair of tokens for a session, by its refresh token and a proof of its key. A token that was used before
    /// ends the session: somebody else has it.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn refresh(self: &Arc<Self>, call: &Call<'_>) -> Result<Granted, AccessError> {
        let token = self.token(call)?;
        let claims = self.keys().refresh.verify(token, now_ms() / 1_000);
        let claims = claims.map_err(|problem| self.stranger(call, AccessError::Token(problem)))?;
        let caller = self.session_of(call, token, claims.session, &claims.thumbprint)?;
        let id = caller.id.to_string();
        let refreshed = self
            .write(move |accounts| {
                let now_ms = now_ms();
                let refreshed =
                    accounts.refresh(&id, claims.generation, now_ms, REFRESH_GRACE_MS)?;
                if refreshed == Refreshed::Reused {
                    let occasion = Occasion {
                        reason: Some("a refresh token was used twice"),
                        ..Occasion::at(now_ms)
                    };
                    accounts.revoke(&id, &occasion)?;
                }
                Ok(refreshed)
            })
            .await?;
        match refreshed {
            Refreshed::Next(generation) | Refreshed::Repeated(generation) => Ok(self.tokens(
                caller.id,
                &caller.device.jkt,
                generation,
                caller.session.ends_at_ms,
                caller.groups,
            )),
            Refreshed::Reused | Refreshed::Ended => Err(AccessError::Session),
        }
    }

    fn token<'a>(&self, call: &Call<'a>) -> Result<&'a str, AccessError> {
        self.site()?;
        scheme(call.authorization, "dpop").ok_or(AccessError::Missing(
            "the header Authorization: DPoP with a token of this server is needed",
        ))
    }

    fn stranger(&self, call: &Call<'_>, problem: AccessError) -> AccessError {
        match self.limits.refuse(call.address) {
            Ok(()) => problem,
            Err(too_many) => too_many.into(),
        }
    }

    /// The session that a token of ours names, if it is in force, once its key has proven itself. In this order: who
    /// only has a token, or had a session once, must not cost signatures, nor the memory for proofs that all share.
    fn session_of(
        &self,
        call: &Call<'_>,
        token: &str,
        id: SessionId,
        thumbprint: &str,
    ) -> Result<Caller, AccessError> {
        let caller = self.session_in_force(id)?;
        let caller = caller.ok_or_else(|| self.stranger(call, AccessError::Session))?;
        self.prove(call, token, thumbprint)?;
        lock(&self.used).insert(caller.id.clone());
        Ok(caller)
    }

    fn prove(&self, call: &Call<'_>, token: &str, thumbprint: &str) -> Result<(), AccessError> {
        let [proof] = call.proofs else {
            return Err(AccessError::Missing("exactly one DPoP header is needed"));
        };
        let proof = Proof::parse(proof)
            .map_err(|problem| self.stranger(call, AccessError::Proof(problem)))?;
        if proof.thumbprint().to_string() != thumbprint {
            let problem = "the token is bound to another key than the proof's";
            return Err(self.stranger(call, AccessError::WrongProof(problem)));
        }
        let proof = self.verify_proof(proof, call, Some(token));
        let proof = proof.map_err(|problem| match matches!(problem, AccessError::Nonce) {
            true => problem,
            false => self.stranger(call, problem),
        })?;
        self.use_proof(&proof)
    }

    /// A session with its device, if both are in force.
    fn session_in_force(&self, id: SessionId) -> Result<Option<Caller>, AccountError> {
        let (reader, now_ms) = (self.reader(), now_ms());
        let session = reader.session(id.as_str())?;
        let Some(session) = session.filter(|session| session.is_in_force(now_ms)) else {
            return Ok(None);
        };
        let device = match &session.device {
            Some(device) => reader.device(device)?,
            None => None,
        };
        let Some(device) = device.filter(|device| device.revoked_at_ms.is_none()) else {
            return Ok(None);
        };
        let scopes = reader.scopes(id.as_str(), now_ms)?;
        drop(reader);
        let groups: Vec<_> = scopes
            .into_iter()
            .filter_map(|(group, access)| Some((group.parse().ok()?, access)))
            .collect();
        Ok(Some(Caller {
            id,
            session,
            device,
            groups,
        }))
    }

    /// A ticket for one WebSocket.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn issue_ticket(&self, caller: &Caller, group: &Group) -> Result<Ticket, AccessError> {
        caller.access_to(group)?;
        let ticket = lock(&self.tickets).issue(&caller.id, group, now_ms());
        let ticket = ticket.map_err(AccountError::from)?;
        ticket.ok_or_else(|| TooMany::for_a_slot().into())
    }

    /// Ends a session of the caller's device.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn end_session(
        self: &Arc<Self>,
        caller: &Caller,
        id: Option<SessionId>,
    ) -> Result<(), AccessError> {
        let id = id.unwrap_or_else(|| caller.id.clone());
        let of_device = self.reader().sessions_of_device(&caller.device.id)?;
        if !of_device.iter().any(|session| session.id == id.as_str()) {
            return Err(AccessError::Denied("this device has no such session"));
        }
        let revoke = move |accounts: &AccountStore| {
            let occasion = Occasion {
                reason: Some("the app has ended it"),
                ..Occasion::at(now_ms())
            };
            accounts.revoke(id.as_str(), &occasion)
        };
        self.write(revoke).await?;
        Ok(())
    }

    /// The sessions of the caller's app, with their devices.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn sessions_of_app(&self, caller: &Caller) -> Result<Vec<(Session, Device)>, AccountError> {
        let (reader, now_ms) = (self.reader(), now_ms());
        let mut sessions = vec![];
        for device in reader.devices()? {
            if device.app != caller.device.app || device.revoked_at_ms.is_some() {
                continue;
            }
            let of_device = reader.sessions_of_device(&device.id)?;
            let in_force = of_device
                .into_iter()
                .filter(|session| session.is_in_force(now_ms));
            sessions.extend(in_force.map(|session| (session, device.clone())));
        }
        Ok(sessions)
    }

    /// The root document of the caller's app in a group.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn root_document(
        &self,
        caller: &Caller,
        group: &Group,
    ) -> Result<Option<String>, AccessError> {
        caller.access_to(group)?;
        Ok(self.reader().root(&caller.device.app, group.as_str())?)
    }

    /// Stores the root document of the caller's app in a group, if there is none; the one that is stored then.
    ///
    /// # Errors
    /// [`AccessError`].
    pub async fn put_root_document(
        self: &Arc<Self>,
        caller: &Caller,
        group: &Group,
        url: RootUrl,
    ) -> Result<String, AccessError> {
        if caller.access_to(group)? != SessionAccess::Write {
            return Err(AccessError::Denied("this session may only read this group"));
        }
        let (app, device) = (caller.device.app.clone(), caller.device.id.clone());
        let (group, url) = (group.to_string(), url.to_string());
        let put = move |accounts: &AccountStore| {
            accounts.put_root_first(&app, &group, &url, Some(&device), &Occasion::at(now_ms()))
        };
        Ok(self.write(put).await?)
    }

    /// The groups that the owner has given apps access to.
    ///
    /// # Errors
    /// [`AccountError`] if the database fails.
    pub fn granted_groups(&self) -> Result<Vec<Group>, AccountError> {
        let grants = self.reader().grants()?;
        let mut groups: Vec<Group> = grants
            .iter()
            .filter_map(|grant| grant.group.parse().ok())
            .collect();
        groups.sort();
        groups.dedup();
        Ok(groups)
    }

    /// When the last of a device's approvals for these groups ends, Unix time in milliseconds.
    pub(super) fn approved_until<'a>(
        &self,
        device: &Device,
        groups: impl Iterator<Item = &'a Group>,
    ) -> Result<i64, AccountError> {
        let reader = self.reader();
        let approvals = reader.approvals(&device.id)?;
        let mut until_ms = 0;
        for group in groups {
            let approval = approvals
                .iter()
                .find(|approval| approval.group == group.as_str());
            let grant = reader.grant(&device.app, group.as_str())?;
            if let (Some(approval), Some(grant)) = (approval, grant) {
                until_ms = until_ms.max(approval.expires_at_ms.min(grant.expires_at_ms));
            }
        }
        Ok(until_ms)
    }
}

impl Caller {
    /// What the session may do in a group.
    ///
    /// # Errors
    /// [`AccessError::Denied`] if that is nothing.
    pub fn access_to(&self, group: &Group) -> Result<SessionAccess, AccessError> {
        let found = self.groups.iter().find(|(known, _)| known == group);
        found.map(|(_, access)| *access).ok_or(AccessError::Denied(
            "this session has no access to this group",
        ))
    }
}

/// The `did:web` of an origin; nothing for an address, which has none. Only `localhost` keeps its port.
///
/// Source: <https://atproto.com/specs/did>, "Blessed DID methods".
fn did_of(public_url: &Origin) -> Option<String> {
    let did = format!("did:web:{}", public_url.authority().replace(':', "%3A"));
    did.parse::<Did>().ok().map(|did| did.to_string())
}

/// Makes room for one more session of a device.
fn end_oldest(
    accounts: &AccountStore,
    device: &str,
    occasion: &Occasion<'_>,
) -> Result<(), AccountError> {
    let mut sessions = accounts.sessions_of_device(device)?;
    sessions.retain(|session| {
        session.kind == SessionKind::Access && session.is_in_force(occasion.now_ms)
    });
    sessions.sort_by_key(|session| session.created_at_ms);
    let too_many = (sessions.len() + 1).saturating_sub(OF_DEVICE_MAX);
    for session in sessions.iter().take(too_many) {
        accounts.revoke(&session.id, occasion)?;
    }
    Ok(())
}

fn texts(groups: &[(Group, SessionAccess)]) -> Vec<(String, SessionAccess)> {
    groups
        .iter()
        .map(|(group, access)| (group.to_string(), *access))
        .collect()
}

/// What a header `Authorization` of this scheme holds.
fn scheme<'a>(authorization: Option<&'a str>, wanted: &str) -> Option<&'a str> {
    let (scheme, token) = authorization?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case(wanted) && !token.is_empty()).then_some(token)
}
