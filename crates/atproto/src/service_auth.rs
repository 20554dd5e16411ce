//! Service auth: a token by which an account's PDS says to another service that a request is the account's.
//!
//! It proves the DID, and never the app: any app that the account's owner uses can have its PDS make one.
//!
//! [`Unverified::check`] comes before anything is fetched, so that a stranger's token makes us fetch nothing; then the
//! issuer's DID document is resolved, and [`Unverified::verify`] checks again, and the signature.
//!
//! Not here: that a token is used once. Whoever keeps state does that, with [`Verified::issuer`] and [`Verified::jti`].
//!
//! Source: <https://atproto.com/specs/xrpc>, "Inter-Service Authentication (JWT)".

use serde::Deserialize;

use crate::{
    claims::{self, TokenId, Untimely},
    did::{Did, InvalidDid},
    jwt::{self, JwtError, Unverified, Verified},
    key::{Algorithm, InvalidSignature, PublicKey},
};

/// What such a token says.
#[derive(Debug, Clone)]
pub struct ServiceAuth {
    algorithm: Algorithm,
    issuer: Did,
    claims: Claims,
}

#[derive(Debug, Clone, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    lxm: Option<String>,
    exp: i64,
    iat: Option<i64>,
    jti: TokenId,
}

/// What a token has to be for.
pub struct Expected<'a> {
    /// The one account whose tokens are taken.
    pub issuer: &'a Did,
    /// Our own names, `did:web:host#service` or without the service; one of them has to be in the token, to the letter.
    pub audiences: &'a [&'a str],
    /// The method that is called, by its NSID.
    pub method: &'a str,
    /// The time, in Unix seconds.
    pub now_s: i64,
}

/// Why a token is none for this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServiceAuthError {
    /// It is no token of the right form, or lacks a claim.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// Its type is that of another kind of token.
    #[error("the token is of another kind")]
    Type,
    /// Its algorithm is neither ES256 nor ES256K, or not that of the issuer's key.
    #[error("the token's algorithm is not that of the issuer's key, or not allowed")]
    Algorithm,
    /// It names another key than the account's signing key.
    #[error("the token is signed with another key than #atproto")]
    KeyId,
    /// Its issuer is no bare DID of an account.
    #[error("the token's issuer: {0}")]
    InvalidIssuer(#[from] InvalidDid),
    /// It is another account's.
    #[error("the token is another account's")]
    Issuer,
    /// It is for another service.
    #[error("the token is for another service")]
    Audience,
    /// It is for another method, or for any.
    #[error("the token is for another method")]
    Method,
    /// It has expired, is from the future, or lives for too long.
    #[error("the token's time: {0}")]
    Time(#[from] Untimely),
    /// The issuer's key did not sign it: perhaps it is new, and an old one was in a cache.
    #[error(transparent)]
    Signature(#[from] InvalidSignature),
}

impl ServiceAuth {
    /// The one key that may sign, by its place in the issuer's DID document.
    const KEY_ID: &str = "#atproto";
    /// How the types of all other kinds end: `at+jwt`, `refresh+jwt`, `dpop+jwt`. The same key signs some of them, with
    /// issuers, audiences and ends as well, and they must not pass for one of these.
    const OTHER_TYPES: &str = "+jwt";

    /// Reads the token behind `Authorization: Bearer`.
    ///
    /// # Errors
    /// [`ServiceAuthError`] if it is no such token: of its form, type, algorithm, key or issuer.
    pub fn parse(text: &str) -> Result<Unverified<Self>, ServiceAuthError> {
        let (header, claims, signed) = jwt::parse::<Claims>(text)?;
        if header
            .media_type()
            .is_some_and(|typ| typ.ends_with(Self::OTHER_TYPES))
        {
            return Err(ServiceAuthError::Type);
        }
        let algorithm = header.algorithm().ok_or(ServiceAuthError::Algorithm)?;
        if header.kid.is_some_and(|kid| kid != Self::KEY_ID) {
            return Err(ServiceAuthError::KeyId);
        }
        Ok(Unverified {
            content: Self {
                algorithm,
                issuer: claims.iss.parse()?,
                claims,
            },
            signed,
        })
    }
}

impl Unverified<ServiceAuth> {
    /// The account that is claimed to have made it.
    pub fn issuer(&self) -> &Did {
        &self.content.issuer
    }

    /// Checks everything but the signature.
    ///
    /// # Errors
    /// The first [`ServiceAuthError`] there is.
    pub fn check(&self, expected: &Expected<'_>) -> Result<(), ServiceAuthError> {
        let ServiceAuth { issuer, claims, .. } = &self.content;
        if issuer != expected.issuer {
            return Err(ServiceAuthError::Issuer);
        }
        if !expected.audiences.contains(&claims.aud.as_str()) {
            return Err(ServiceAuthError::Audience);
        }
        if claims.lxm.as_deref() != Some(expected.method) {
            return Err(ServiceAuthError::Method);
        }
        Ok(claims::check_lifetime(
            claims.iat,
            claims.exp,
            expected.now_s,
        )?)
    }

    /// Checks everything, with the signing key in the issuer's DID document.
    ///
    /// # Errors
    /// The first [`ServiceAuthError`] there is.
    pub fn verify(
        self,
        key: &PublicKey,
        expected: &Expected<'_>,
    ) -> Result<Verified<ServiceAuth>, ServiceAuthError> {
        self.check(expected)?;
        if key.algorithm() != self.content.algorithm {
            return Err(ServiceAuthError::Algorithm);
        }
        self.signed.verify(key)?;
        Ok(Verified::new(self.content))
    }
}

impl Verified<ServiceAuth> {
    /// The account whose request it is.
    pub fn issuer(&self) -> &Did {
        &self.content().issuer
    }

    /// The token's id, 1 to 256 bytes: to be seen once for each issuer.
    pub fn jti(&self) -> &str {
        &self.content().claims.jti.0
    }

    /// Its end, in Unix seconds; until then its id has to be remembered.
    pub fn expires_at_s(&self) -> i64 {
        self.content().claims.exp
    }

    /// Which of our names it is for.
    pub fn audience(&self) -> &str {
        &self.content().claims.aud
    }
}
