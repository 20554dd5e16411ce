//! Sync tokens: JSON Web Tokens (RFC 7519) that only this server makes, and only this server reads.
//!
//! There is one header, so there is nothing to choose for whoever makes one up: the header must be ours, byte for
//! byte, before anything else of a token is looked at.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::{group::Group, secret::SecretKey, session::SessionId};

/// `{"alg":"HS256","typ":"JWT"}`
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
/// `iss` and `aud`: a token for another purpose that is signed with the same key is not a sync token.
const ISSUER: &str = "groundmist-sync";
const AUDIENCE: &str = "groundmist-sync/sync";
/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 1_024;

/// The key that tokens are signed with.
pub struct TokenKey(Hmac<Sha256>);

/// What a token says, once it has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The session that it names.
    pub session: SessionId,
    /// The session's group.
    pub group: Group,
    /// When it ends, Unix time in seconds.
    pub expires_at_s: i64,
}

impl Claims {
    /// What the token of a session says.
    pub fn new(session: &SessionId, group: &Group, expires_at_s: i64) -> Self {
        Self {
            session: session.clone(),
            group: group.clone(),
            expires_at_s,
        }
    }
}

/// A token that is not good. Which of these it is, is for the log alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It is no sync token.
    #[error("not a sync token")]
    Malformed,
    /// Somebody else has signed it, or it was changed.
    #[error("the signature is wrong")]
    Signature,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload<'a> {
    iss: &'a str,
    aud: &'a str,
    sid: &'a str,
    grp: &'a str,
    exp: i64,
}

impl TokenKey {
    /// # Panics
    /// Never: this kind of signature takes keys of any length.
    #[expect(clippy::expect_used, clippy::allow_attributes_without_reason)]
    pub fn new(key: &SecretKey) -> Self {
        Self(Hmac::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length"))
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Claims) -> String {
        let payload = Payload {
            iss: ISSUER,
            aud: AUDIENCE,
            sid: claims.session.as_str(),
            grp: claims.group.as_str(),
            exp: claims.expires_at_s,
        };
        // a struct of texts and a number always has a form in JSON
        let payload = serde_json::to_vec(&payload).unwrap_or_default();
        let signed = format!("{HEADER}.{}", BASE64_URL_SAFE_NO_PAD.encode(payload));
        let signature = self.0.clone().chain_update(&signed).finalize().into_bytes();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// The claims of a token that is ours and not yet over.
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub fn verify(&self, token: &str, now_s: i64) -> Result<Claims, InvalidToken> {
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
        let mac = self.0.clone().chain_update(signed);
        mac.verify_slice(&signature)
            .map_err(|_| InvalidToken::Signature)?;
        let claims = parse(payload).ok_or(InvalidToken::Malformed)?;
        if now_s < claims.expires_at_s {
            Ok(claims)
        } else {
            Err(InvalidToken::Expired)
        }
    }
}

fn parse(payload: &str) -> Option<Claims> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    let payload: Payload<'_> = serde_json::from_slice(&json).ok()?;
    if payload.iss != ISSUER || payload.aud != AUDIENCE {
        return None;
    }
    Some(Claims {
        session: payload.sid.parse().ok()?,
        group: payload.grp.parse().ok()?,
        expires_at_s: payload.exp,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: &str) -> TokenKey {
        TokenKey::new(&SecretKey::parse(&byte.repeat(32)).unwrap())
    }

    fn claims() -> Claims {
        let group = "com.example.notes".parse().unwrap();
        Claims::new(&SessionId::random().unwrap(), &group, 1_000)
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
