//! Proofs of possession: that who makes a request holds a key.
//!
//! A proof is made for one request: it names the method, the address, the time, a nonce of ours and, by its hash, the
//! token that goes with it. It proves the key, and nothing about who has it.
//!
//! Not here: that a proof is used once. Whoever keeps state does that, with [`Verified::jkt`] and [`Verified::jti`].
//!
//! Source: RFC 9449, 4.2 and 4.3.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;

use crate::{
    claims::{CLOCK_SKEW_S, TokenId, Untimely},
    jwt::{self, JwtError, Unverified, Verified},
    key::{InvalidKey, InvalidSignature, PublicKey, Thumbprint},
};

/// What a proof says.
#[derive(Debug, Clone)]
pub struct Proof {
    key: PublicKey,
    claims: Claims,
}

#[derive(Debug, Clone, Deserialize)]
struct Claims {
    jti: TokenId,
    iat: i64,
    htm: String,
    htu: String,
    ath: Option<String>,
    nonce: Option<String>,
    exp: Option<i64>,
    nbf: Option<i64>,
}

/// The request that a proof has to be for.
pub struct Expected<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// The address by its public name, as configured: never as a `Host` header says. Query and fragment do not count.
    pub url: &'a Url,
    /// The token that came with the proof; none if the proof stands alone.
    pub access_token: Option<&'a str>,
    /// The time, in Unix seconds.
    pub now_s: i64,
    /// Whether a nonce is one that we gave, and not too long ago.
    pub nonce: &'a dyn Fn(&str) -> bool,
}

/// Why a proof is none. All but [`Nonce`](Self::Nonce) are the client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It is no token of the right form.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// Its type is not `dpop+jwt`.
    #[error("the proof's type is not dpop+jwt")]
    Type,
    /// Its algorithm is neither ES256 nor ES256K, or not that of its key.
    #[error("the proof's algorithm is not that of its key, or not allowed")]
    Algorithm,
    /// It has no key, or one that is not public, or not of our curves.
    #[error("the proof's key: {0}")]
    Key(#[from] InvalidKey),
    /// It is for another method.
    #[error("the proof is for another method")]
    Method,
    /// It is for another address.
    #[error("the proof is for another address")]
    Address,
    /// It is too old, or from the future.
    #[error("the proof's time: {0}")]
    Time(#[from] Untimely),
    /// It is for no token or another one.
    #[error("the proof is for another token")]
    Token,
    /// It has no nonce, or none of ours: to be made again with the one that goes with the answer.
    #[error("the proof needs a nonce of this server")]
    Nonce,
    /// Its key did not sign it.
    #[error(transparent)]
    Signature(#[from] InvalidSignature),
}

impl Proof {
    /// Reads the value of a `DPoP` header.
    ///
    /// # Errors
    /// [`ProofError`] if it is no proof: of its form, type, algorithm or key.
    pub fn parse(text: &str) -> Result<Unverified<Self>, ProofError> {
        let (header, claims, signed) = jwt::parse::<Claims>(text)?;
        if !header.is_of_type("dpop+jwt") {
            return Err(ProofError::Type);
        }
        let algorithm = header.algorithm().ok_or(ProofError::Algorithm)?;
        let key = header.jwk.as_ref().ok_or(InvalidKey::Jwk)?.public_key()?;
        if key.algorithm() != algorithm {
            return Err(ProofError::Algorithm);
        }
        Ok(Unverified {
            content: Self { key, claims },
            signed,
        })
    }
}

impl Unverified<Proof> {
    /// The thumbprint of the key that is claimed.
    pub fn thumbprint(&self) -> Thumbprint {
        self.content.key.thumbprint()
    }

    /// The nonce that it was made with.
    pub fn nonce(&self) -> Option<&str> {
        self.content.claims.nonce.as_deref()
    }

    /// Checks all of it, the signature last, since that costs the most.
    ///
    /// # Errors
    /// The first [`ProofError`] there is. [`ProofError::Nonce`] is said only of proofs that are otherwise for this
    /// request, though their signature is not looked at.
    ///
    /// Source: RFC 9449, 4.3.
    pub fn verify(self, expected: &Expected<'_>) -> Result<Verified<Proof>, ProofError> {
        let claims = &self.content.claims;
        if claims.htm != expected.method {
            return Err(ProofError::Method);
        }
        if !is_same_address(&claims.htu, expected.url) {
            return Err(ProofError::Address);
        }
        claims.check_time(expected.now_s)?;
        if let Some(token) = expected.access_token
            && claims.ath.as_deref() != Some(&hash_of(token))
        {
            return Err(ProofError::Token);
        }
        if !self.nonce().is_some_and(expected.nonce) {
            return Err(ProofError::Nonce);
        }
        self.signed.verify(&self.content.key)?;
        Ok(Verified::new(self.content))
    }
}

impl Verified<Proof> {
    /// The thumbprint of the key.
    pub fn jkt(&self) -> Thumbprint {
        self.content().key.thumbprint()
    }

    /// The proof's id, 1 to 256 bytes: to be seen once for each key.
    pub fn jti(&self) -> &str {
        &self.content().claims.jti.0
    }

    /// When it was made, in Unix seconds.
    pub fn iat_s(&self) -> i64 {
        self.content().claims.iat
    }
}

impl Claims {
    fn check_time(&self, now_s: i64) -> Result<(), Untimely> {
        let latest_s = now_s.saturating_add(CLOCK_SKEW_S);
        if self.iat > latest_s || self.nbf.is_some_and(|begins_s| begins_s > latest_s) {
            return Err(Untimely::Future);
        }
        if self.iat < now_s.saturating_sub(CLOCK_SKEW_S) {
            return Err(Untimely::Old);
        }
        if self.exp.is_some_and(|ends_s| ends_s <= now_s) {
            return Err(Untimely::Expired);
        }
        Ok(())
    }
}

/// Whether a proof's `htu` means this address. Clients up to oauth-client 0.3 leave query and fragment in.
fn is_same_address(htu: &str, url: &Url) -> bool {
    let Ok(htu) = Url::parse(htu) else {
        return false;
    };
    htu.scheme() == url.scheme()
        && htu.host() == url.host()
        && htu.port_or_known_default() == url.port_or_known_default()
        && htu.path() == url.path()
        && htu.username().is_empty()
        && htu.password().is_none()
}

/// What `ath` holds.
fn hash_of(token: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(token))
}
