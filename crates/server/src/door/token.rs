//! Tokens: JSON Web Tokens (RFC 7519) that only this server makes, and only this server reads.
//!
//! There is one header, so there is nothing to choose for whoever makes one up: the header must be ours, byte for
//! byte, before anything else of a token is looked at. Each kind of token is signed with a key of its own, which is
//! derived from the secret key, so one kind is never taken for another. An *epoch* goes into the derivation too: with a
//! new epoch all tokens end at once.

use std::marker::PhantomData;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::Sha256;

use super::SessionId;
use crate::{group::Group, secret::SecretKey};

/// `{"alg":"HS256","typ":"JWT"}`
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 1_024;

/// What a kind of token says.
pub trait Claims: Serialize + DeserializeOwned {
    /// What tells the kinds apart: it goes into the key.
    const PURPOSE: &'static str;

    /// When the token ends, Unix time in seconds.
    fn expires_at_s(&self) -> i64;
}

/// A sync token: opens WebSockets of one session in one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncClaims {
    /// The session that it names.
    #[serde(rename = "sid")]
    pub session: SessionId,
    /// The group.
    #[serde(rename = "grp")]
    pub group: Group,
    /// When it ends, Unix time in seconds. Its session may end earlier.
    #[serde(rename = "exp")]
    pub expires_at_s: i64,
}

/// An access token: what a session shows at the XRPC methods, with a proof by the key that it is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessClaims {
    /// The session that it names.
    #[serde(rename = "sid")]
    pub session: SessionId,
    /// The thumbprint of the key. Source: RFC 9449, section 6.1.
    #[serde(rename = "jkt")]
    pub thumbprint: String,
    /// When it ends, Unix time in seconds.
    #[serde(rename = "exp")]
    pub expires_at_s: i64,
}

/// A refresh token: good once for the next pair, with a proof by the key that it is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefreshClaims {
    /// The session that it names.
    #[serde(rename = "sid")]
    pub session: SessionId,
    /// The thumbprint of the key.
    #[serde(rename = "jkt")]
    pub thumbprint: String,
    /// Which of the session's refresh tokens it is, counted from 0.
    #[serde(rename = "gen")]
    pub generation: u32,
    /// When it ends, Unix time in seconds.
    #[serde(rename = "exp")]
    pub expires_at_s: i64,
}

impl Claims for SyncClaims {
    const PURPOSE: &'static str = "sync";

    fn expires_at_s(&self) -> i64 {
        self.expires_at_s
    }
}

impl Claims for AccessClaims {
    const PURPOSE: &'static str = "access";

    fn expires_at_s(&self) -> i64 {
        self.expires_at_s
    }
}

impl Claims for RefreshClaims {
    const PURPOSE: &'static str = "refresh";

    fn expires_at_s(&self) -> i64 {
        self.expires_at_s
    }
}

/// A token that is not good. Which of these it is, is for the log alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It is no token of ours.
    #[error("not a token of this server")]
    Malformed,
    /// Somebody else has signed it, it was changed, or is for another purpose.
    #[error("the signature is wrong")]
    Signature,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
}

/// The keys of all kinds of tokens, in one epoch.
pub struct TokenKeys {
    /// For sync tokens.
    pub sync: TokenKey<SyncClaims>,
    /// For access tokens.
    pub access: TokenKey<AccessClaims>,
    /// For refresh tokens.
    pub refresh: TokenKey<RefreshClaims>,
}

impl TokenKeys {
    /// The keys that follow from the secret key in an epoch.
    pub fn derive(secret: &SecretKey, epoch: &str) -> Self {
        Self {
            sync: TokenKey::derive(secret, epoch),
            access: TokenKey::derive(secret, epoch),
            refresh: TokenKey::derive(secret, epoch),
        }
    }
}

/// The key that one kind of token is signed with.
pub struct TokenKey<T> {
    mac: Hmac<Sha256>,
    kind: PhantomData<fn(T)>,
}

#[expect(clippy::expect_used, reason = "an HMAC takes keys of any length")]
fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

impl<T: Claims> TokenKey<T> {
    fn derive(secret: &SecretKey, epoch: &str) -> Self {
        // one step of HKDF-Expand (RFC 5869): the secret is as good as random, and longer than it need be
        let key = hmac(secret.as_bytes())
            .chain_update(format!("groundmist-sync/{}/{epoch}", T::PURPOSE))
            .finalize()
            .into_bytes();
        Self {
            mac: hmac(&key),
            kind: PhantomData,
        }
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &T) -> String {
        // a struct of texts and numbers always has a form in JSON
        let payload = serde_json::to_vec(claims).unwrap_or_default();
        let signed = format!("{HEADER}.{}", BASE64_URL_SAFE_NO_PAD.encode(payload));
        let signature = self.mac.clone().chain_update(&signed).finalize();
        let signature = BASE64_URL_SAFE_NO_PAD.encode(signature.into_bytes());
        format!("{signed}.{signature}")
    }

    /// The claims of a token that is ours and not yet over.
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub fn verify(&self, token: &str, now_s: i64) -> Result<T, InvalidToken> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(InvalidToken::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(InvalidToken::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(InvalidToken::Malformed)?;
        let signature = BASE64_URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| InvalidToken::Malformed)?;
        if header != HEADER {
            return Err(InvalidToken::Malformed);
        }
        // compares in constant time
        let mac = self.mac.clone().chain_update(signed);
        mac.verify_slice(&signature)
            .map_err(|_| InvalidToken::Signature)?;
        let claims: T = parse(payload).ok_or(InvalidToken::Malformed)?;
        if now_s < claims.expires_at_s() {
            Ok(claims)
        } else {
            Err(InvalidToken::Expired)
        }
    }
}

fn parse<T: Claims>(payload: &str) -> Option<T> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(byte: &str, epoch: &str) -> TokenKeys {
        TokenKeys::derive(&SecretKey::parse(&byte.repeat(32)).unwrap(), epoch)
    }

    fn key(byte: &str) -> TokenKey<SyncClaims> {
        keys(byte, "1").sync
    }

    fn claims() -> SyncClaims {
        SyncClaims {
            session: SessionId::random().unwrap(),
            group: "com.example.notes".parse().unwrap(),
            expires_at_s: 1_000,
        }
    }

    #[test]
    fn a_token_is_for_one_purpose_and_one_epoch() {
        let (keys, later) = (keys("ab", "1"), keys("ab", "2"));
        let token = keys.sync.sign(&claims());
        assert_eq!(keys.access.verify(&token, 0), Err(InvalidToken::Signature));
        assert_eq!(keys.refresh.verify(&token, 0), Err(InvalidToken::Signature));
        assert_eq!(later.sync.verify(&token, 0), Err(InvalidToken::Signature));
    }

    #[test]
    fn a_token_is_good_until_its_time_is_over() {
        let (key, claims) = (key("ab"), claims());
        let token = key.sign(&claims);
        assert_eq!(key.verify(&token, 999), Ok(claims));
        assert_eq!(key.verify(&token, 1_000), Err(InvalidToken::Expired));
    }

    #[test]
    fn a_token_signed_with_another_key_is_refused() {
        let token = key("ab").sign(&claims());
        assert_eq!(key("cd").verify(&token, 0), Err(InvalidToken::Signature));
    }

    #[test]
    fn a_token_that_was_changed_anywhere_is_refused() {
        let key = key("ab");
        let token = key.sign(&claims());
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(key.verify(&changed, 0).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn tokens_without_a_signature_or_of_another_algorithm_are_refused() {
        let key = key("ab");
        let token = key.sign(&claims());
        let payload = token.split('.').nth(1).unwrap();
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"HS256"}"#,
            r#"{"alg":"RS256","typ":"JWT"}"#,
        ] {
            let header = BASE64_URL_SAFE_NO_PAD.encode(header);
            for signature in ["", token.rsplit('.').next().unwrap()] {
                let forged = format!("{header}.{payload}.{signature}");
                assert_eq!(key.verify(&forged, 0), Err(InvalidToken::Malformed));
            }
        }
        for garbage in [
            "",
            ".",
            "..",
            "a.b.c",
            "Bearer x",
            &"a".repeat(5_000),
            &format!("{HEADER}.."),
        ] {
            assert!(key.verify(garbage, 0).is_err(), "{garbage}");
        }
        let unsigned = format!("{HEADER}.{payload}.");
        assert_eq!(key.verify(&unsigned, 0), Err(InvalidToken::Signature));
    }
}
