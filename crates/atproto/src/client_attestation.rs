//! Client attestation: a token by which a confidential app says that a request is its own.
//!
//! Not here: that a token is used once. Whoever keeps state does that, with [`Verified::client_id`] and
//! [`Verified::jti`].
//!
//! Source: atproto proposal 0016, "Client attestation" (alpha); RFC 7523, 3 for the claims.

use serde::Deserialize;

use crate::{
    claims::{self, TokenId, Untimely},
    client_id::{ClientId, InvalidClientId},
    jwks::Jwks,
    jwt::{self, JwtError, Unverified, Verified},
    key::{Algorithm, InvalidSignature, Thumbprint},
};

/// What such a token says.
#[derive(Debug, Clone)]
pub struct ClientAttestation {
    algorithm: Algorithm,
    client_id: ClientId,
    key_id: String,
    claims: Claims,
}

#[derive(Debug, Clone, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    jti: TokenId,
    iat: i64,
    exp: i64,
    cnf: Option<Confirmation>,
}

/// The device key that a token is for.
#[derive(Debug, Clone, Deserialize)]
struct Confirmation {
    jkt: Option<String>,
}

/// What a token has to be for.
pub struct Expected<'a> {
    /// The app that the request is said to be from.
    pub client_id: &'a ClientId,
    /// Our own names; one of them has to be in the token, to the letter.
    pub audiences: &'a [&'a str],
    /// The key of the proof that came with it.
    pub jkt: Thumbprint,
    /// The time, in Unix seconds.
    pub now_s: i64,
}

/// Why a token is none for this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientAttestationError {
    /// It is no token of the right form, or lacks a claim.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// Its type is not `atproto-client-attestation+jwt`.
    #[error("the attestation's type is not atproto-client-attestation+jwt")]
    Type,
    /// Its algorithm is neither ES256 nor ES256K, or not that of its key.
    #[error("the attestation's algorithm is not that of its key, or not allowed")]
    Algorithm,
    /// It does not say which key signed it, or the app has no such key.
    #[error("the attestation is signed with a key that the client does not have")]
    KeyId,
    /// Its issuer is no client id.
    #[error("the attestation's issuer: {0}")]
    InvalidClientId(#[from] InvalidClientId),
    /// Issuer and subject are not both the expected app.
    #[error("the attestation is another client's")]
    Client,
    /// It is for another service.
    #[error("the attestation is for another service")]
    Audience,
    /// It has expired, is from the future, or lives for too long.
    #[error("the attestation's time: {0}")]
    Time(#[from] Untimely),
    /// It is for another device's key.
    #[error("the attestation is for another device")]
    Device,
    /// The app's key did not sign it.
    #[error(transparent)]
    Signature(#[from] InvalidSignature),
}

impl ClientAttestation {
    /// The `typ` of such a token.
    pub const TYPE: &str = "atproto-client-attestation+jwt";

    /// Reads an attestation.
    ///
    /// # Errors
    /// [`ClientAttestationError`] if it is none: of its form, type, algorithm, key or issuer.
    pub fn parse(text: &str) -> Result<Unverified<Self>, ClientAttestationError> {
        let (header, claims, signed) = jwt::parse::<Claims>(text)?;
        if !header.is_of_type(Self::TYPE) {
            return Err(ClientAttestationError::Type);
        }
        Ok(Unverified {
            content: Self {
                algorithm: header
                    .algorithm()
                    .ok_or(ClientAttestationError::Algorithm)?,
                client_id: claims.iss.parse()?,
                key_id: header.kid.ok_or(ClientAttestationError::KeyId)?,
                claims,
            },
            signed,
        })
    }
}

impl Unverified<ClientAttestation> {
    /// The app that is claimed to have made it.
    pub fn client_id(&self) -> &ClientId {
        &self.content.client_id
    }

    /// Which of the app's keys is claimed to have signed it.
    pub fn key_id(&self) -> &str {
        &self.content.key_id
    }

    /// Checks everything but the signature, so that a stranger's token makes us fetch nothing.
    ///
    /// # Errors
    /// The first [`ClientAttestationError`] there is.
    pub fn check(&self, expected: &Expected<'_>) -> Result<(), ClientAttestationError> {
        let ClientAttestation {
            client_id, claims, ..
        } = &self.content;
        if client_id != expected.client_id || claims.sub != claims.iss {
            return Err(ClientAttestationError::Client);
        }
        if !expected.audiences.contains(&claims.aud.as_str()) {
            return Err(ClientAttestationError::Audience);
        }
        claims::check_lifetime(Some(claims.iat), claims.exp, expected.now_s)?;
        // one that names no key is anybody's who has seen it, and a PDS sees what goes through it
        let device = claims.cnf.as_ref().and_then(|cnf| cnf.jkt.as_deref());
        if device.map(str::parse) != Some(Ok(expected.jkt)) {
            return Err(ClientAttestationError::Device);
        }
        Ok(())
    }

    /// Checks everything, with the keys that the app's metadata names.
    ///
    /// # Errors
    /// The first [`ClientAttestationError`] there is.
    pub fn verify(
        self,
        keys: &Jwks,
        expected: &Expected<'_>,
    ) -> Result<Verified<ClientAttestation>, ClientAttestationError> {
        self.check(expected)?;
        let key = keys
            .key(&self.content.key_id)
            .ok_or(ClientAttestationError::KeyId)?;
        if key.algorithm() != self.content.algorithm {
            return Err(ClientAttestationError::Algorithm);
        }
        self.signed.verify(key)?;
        Ok(Verified::new(self.content))
    }
}

impl Verified<ClientAttestation> {
    /// The app whose request it is.
    pub fn client_id(&self) -> &ClientId {
        &self.content().client_id
    }

    /// The token's id, 1 to 256 bytes: to be seen once for each app.
    pub fn jti(&self) -> &str {
        &self.content().claims.jti.0
    }

    /// Its end, in Unix seconds; until then its id has to be remembered.
    pub fn expires_at_s(&self) -> i64 {
        self.content().claims.exp
    }
}
