//! The form that every token here has: a compact JWS of three parts, with claims inside.
//!
//! Everything is measured before it is decoded, and what comes out is [`Unverified`]: it says who signed it, how and
//! what, and proves nothing. A token's own module checks it and makes a [`Verified`] of it.
//!
//! Source: RFC 7515, 7.1 and RFC 7519; the pitfalls of RFC 8725.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    jwk::Jwk,
    key::{Algorithm, InvalidSignature, Malleability, PublicKey},
    strict::{self, Member},
};

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Longest header of a token that is looked at, in bytes as they are sent.
pub const HEADER_BYTES_MAX: usize = 2 << 10;

/// A text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// The whole is longer than [`TOKEN_BYTES_MAX`], or its header than [`HEADER_BYTES_MAX`].
    #[error("the token is too long")]
    TooLong,
    /// There are not exactly three parts between dots.
    #[error("the token does not have three parts")]
    Parts,
    /// A part is not base64url without padding.
    #[error("a part of the token is not base64url")]
    Encoding,
    /// The header is no JSON object of the form that belongs there: a member is missing, twice there or of a wrong
    /// type.
    #[error("the header of the token is not as expected")]
    Header,
    /// The same of the claims.
    #[error("the claims of the token are not as expected")]
    Claims,
    /// The header asks for extensions to be understood (`crit`), and none is.
    #[error("the token asks for an extension of its format")]
    Critical,
}

/// What a token says, before anything of it is proven.
///
/// What may be asked of it, and the check that makes a [`Verified`] of it, depend on the kind of token.
pub struct Unverified<T> {
    pub(crate) content: T,
    pub(crate) signed: Signed,
}

/// What a token says, after all of it was checked: holding it is the proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    content: T,
}

impl<T> Verified<T> {
    /// To be called where the last of a token's checks has passed, and nowhere else.
    pub(crate) fn new(content: T) -> Self {
        Self { content }
    }

    pub(crate) fn content(&self) -> &T {
        &self.content
    }
}

impl<T> fmt::Debug for Unverified<T> {
    /// Who holds a token can use it, so nothing of it is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unverified(..)")
    }
}

/// The bytes that a token's signature is over, and the signature.
pub(crate) struct Signed {
    bytes: Box<[u8]>,
    signature: Box<[u8]>,
}

impl Signed {
    pub(crate) fn verify(&self, key: &PublicKey) -> Result<(), InvalidSignature> {
        // Signers of JWTs make either form, and who alters one gains nothing: what is counted is the `jti`.
        key.verify(&self.bytes, &self.signature, Malleability::Accepted)
    }
}

/// The members of a header that matter here. Those that would name a key elsewhere (`jku`, `x5u`) are not looked at.
#[derive(Deserialize)]
pub(crate) struct Header {
    alg: String,
    typ: Option<String>,
    pub(crate) kid: Option<String>,
    pub(crate) jwk: Option<Jwk>,
    #[serde(default)]
    crit: Member,
}

impl Header {
    /// The algorithm, if it is one of ours.
    pub(crate) fn algorithm(&self) -> Option<Algorithm> {
        Algorithm::from_name(&self.alg)
    }

    /// The token's type, without `application/` and in lower case, because media types have no case.
    pub(crate) fn media_type(&self) -> Option<String> {
        let typ = self.typ.as_ref()?.to_ascii_lowercase();
        let short = typ.strip_prefix("application/").unwrap_or(&typ);
        Some(short.to_owned())
    }

    pub(crate) fn is_of_type(&self, expected: &str) -> bool {
        self.media_type().as_deref() == Some(expected)
    }
}

/// Takes a token apart.
pub(crate) fn parse<C: DeserializeOwned>(text: &str) -> Result<(Header, C, Signed), JwtError> {
    if text.len() > TOKEN_BYTES_MAX {
        return Err(JwtError::TooLong);
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(JwtError::Parts)?;
    let (header, claims) = signed.split_once('.').ok_or(JwtError::Parts)?;
    if claims.contains('.') {
        return Err(JwtError::Parts);
    }
    if header.len() > HEADER_BYTES_MAX {
        return Err(JwtError::TooLong);
    }
    let header: Header = strict::object(&decode(header)?).ok_or(JwtError::Header)?;
    if header.crit == Member::Present {
        return Err(JwtError::Critical);
    }
    let claims = strict::object(&decode(claims)?).ok_or(JwtError::Claims)?;
    let signed = Signed {
        bytes: signed.as_bytes().into(),
        signature: decode(signature)?.into(),
    };
    Ok((header, claims, signed))
}

fn decode(part: &str) -> Result<Vec<u8>, JwtError> {
    BASE64_URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| JwtError::Encoding)
}
