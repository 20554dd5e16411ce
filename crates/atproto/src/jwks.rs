//! The keys that a confidential app signs with.
//!
//! Source: RFC 7517, 5.

use serde::Deserialize;

use crate::{
    jwk::Jwk,
    key::{InvalidKey, PublicKey},
    strict,
};

/// An app's keys, as far as they can be used here, each by its id.
#[derive(Debug, Clone)]
pub struct Jwks {
    keys: Vec<(String, PublicKey)>,
}

/// A text that is no set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// It is longer than [`Jwks::BYTES_MAX`].
    #[error("the key set is too long")]
    TooLong,
    /// It is no JSON object of the right form.
    #[error("the key set is not of the right form")]
    Form,
    /// One of the keys has a private part, so whoever has read the set can sign with it.
    #[error("the key set shows a private key")]
    Private,
    /// A key of ours is none, though its kind and curve would be right.
    #[error("a key in the set: {0}")]
    Key(#[from] InvalidKey),
    /// Two keys have the same id.
    #[error("two keys in the set have the same id")]
    Ambiguous,
}

#[derive(Deserialize)]
pub(crate) struct RawJwks {
    keys: Vec<Jwk>,
}

impl Jwks {
    /// Longest set that is looked at, in bytes.
    pub const BYTES_MAX: usize = 64 << 10;

    /// Reads what an app has at its `jwks_uri`.
    ///
    /// Keys of other kinds, for other uses or without an id are left out.
    ///
    /// # Errors
    /// [`JwksError`] if it is no set of public keys.
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        if json.len() > Self::BYTES_MAX {
            return Err(JwksError::TooLong);
        }
        let raw: RawJwks = strict::object(json).ok_or(JwksError::Form)?;
        Self::from_raw(&raw)
    }

    pub(crate) fn from_raw(raw: &RawJwks) -> Result<Self, JwksError> {
        let mut keys: Vec<(String, PublicKey)> = vec![];
        for jwk in &raw.keys {
            let key = match jwk.public_key() {
                Ok(key) => key,
                Err(InvalidKey::Kind | InvalidKey::Use) => continue,
                Err(InvalidKey::Private) => return Err(JwksError::Private),
                Err(error) => return Err(error.into()),
            };
            let Some(id) = &jwk.kid else { continue };
            if keys.iter().any(|(other, _)| other == id) {
                return Err(JwksError::Ambiguous);
            }
            keys.push((id.clone(), key));
        }
        Ok(Self { keys })
    }

    /// The key with this id.
    pub fn key(&self, id: &str) -> Option<&PublicKey> {
        self.keys
            .iter()
            .find_map(|(own, key)| (own == id).then_some(key))
    }

    /// Whether there is no key that could be used.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
