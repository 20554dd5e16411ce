//! Access tokens of a PDS, read for what they hint at.
//!
//! Nobody but the PDS that made one can check it: it is signed with that server's secret. So its signature is not even
//! looked at, and what it says proves nothing: anybody can write such a token. It helps to refuse what is plainly not
//! meant for us, and to show the owner what an app claims to be.
//!
//! Source: RFC 9068, 2 for the form, as the PDS of atproto fills it.

use serde::Deserialize;

use crate::{
    did::{Did, InvalidDid},
    jwt::{self, JwtError},
    key::{InvalidThumbprint, Thumbprint},
};

/// What an access token claims. None of it is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hints {
    /// Whose token it is.
    pub sub: Did,
    /// The app that it was given to, 1 to [`CLIENT_ID_BYTES_MAX`](Hints::CLIENT_ID_BYTES_MAX) bytes.
    pub client_id: String,
    /// Its end, in Unix seconds.
    pub exp_s: i64,
    /// The key that it is bound to.
    pub jkt: Thumbprint,
}

/// A text that is no access token of a PDS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HintsError {
    /// It is no token of the right form, or lacks a claim.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// Its type is not `at+jwt`.
    #[error("the token's type is not at+jwt")]
    Type,
    /// Its `sub` is no DID of an account.
    #[error("the token's subject: {0}")]
    Subject(#[from] InvalidDid),
    /// Its `client_id` is empty or too long.
    #[error("the token's client_id is empty or too long")]
    ClientId,
    /// Its `cnf.jkt` is no thumbprint.
    #[error("the token's key: {0}")]
    Key(#[from] InvalidThumbprint),
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    client_id: String,
    exp: i64,
    cnf: Confirmation,
}

/// The key that a token is bound to (RFC 9449, 6.1).
#[derive(Deserialize)]
struct Confirmation {
    jkt: String,
}

impl Hints {
    /// Longest `client_id`, in bytes.
    pub const CLIENT_ID_BYTES_MAX: usize = 2048;

    /// Reads the token behind `Authorization: DPoP`.
    ///
    /// # Errors
    /// [`HintsError`] if it is no access token, or leaves one of the hints out.
    pub fn parse(text: &str) -> Result<Self, HintsError> {
        let (header, claims, _) = jwt::parse::<Claims>(text)?;
        if !header.is_of_type("at+jwt") {
            return Err(HintsError::Type);
        }
        if !(1..=Self::CLIENT_ID_BYTES_MAX).contains(&claims.client_id.len()) {
            return Err(HintsError::ClientId);
        }
        Ok(Self {
            sub: claims.sub.parse()?,
            client_id: claims.client_id,
            exp_s: claims.exp,
            jkt: claims.cnf.jkt.parse()?,
        })
    }
}
