//! Door B: the methods `xyz.groundmist.sync.*`, for apps that know of this server.
//!
//! [`owner`] is about service auth: the owner's PDS vouches for the owner, and for no app. [`introduction`] is how a
//! device comes to a session: by the owner's approval, or by an attestation and a grant. [`sessions`] is what a session
//! is and does: it is bound to the key of its device, and its tokens are worth nothing without it.
//!
//! Here is what all of them need: the call, the proof that comes with it, and why a call is refused.

mod introduction;
mod owner;
mod sessions;

use std::{net::IpAddr, sync::Arc};

use atproto::{
    ClientAttestationError, Did, Proof, ProofError, ServiceAuthError, SigningKeyError, Unverified,
    Verified, dpop,
};
use sha2::{Digest, Sha256};
use store::{AccountError, Use};

use super::{Door, InvalidToken, TooMany, now_ms, replay::Shown, scheme, uptime_ms};
use crate::{
    origin::Origin,
    outbound::{ClientError, DidError},
};

pub use self::{
    introduction::{AccessAnswer, AccessRequest},
    sessions::{Caller, Granted},
};

/// The methods' authority.
pub const NSID: &str = "xyz.groundmist.sync";
/// The service's name in this server's DID document.
pub const SERVICE: &str = "#groundmist_sync";
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
            nonce: &|nonce| self.nonces.is_good(nonce, uptime_ms() / 1_000),
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

    fn stranger(&self, call: &Call<'_>, problem: AccessError) -> AccessError {
        match self.limits.refuse(call.address) {
            Ok(()) => problem,
            Err(too_many) => too_many.into(),
        }
    }
}

/// The `did:web` of an origin; nothing for an address, which has none. Only `localhost` keeps its port.
///
/// Source: <https://atproto.com/specs/did>, "Blessed DID methods".
fn did_of(public_url: &Origin) -> Option<String> {
    let did = format!("did:web:{}", public_url.authority().replace(':', "%3A"));
    did.parse::<Did>().ok().map(|did| did.to_string())
}
