//! Tokens to attack with: keys from seeds, and whatever header and claims a test asks for.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "each test file uses a part of it, and a test that meets the unexpected ends"
)]

use atproto::PublicKey;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use p256::ecdsa::signature::Signer;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The time in all tests, in Unix seconds.
pub const NOW_S: i64 = 1_795_449_753;

/// A key pair.
#[derive(Clone)]
pub enum Key {
    P256(p256::ecdsa::SigningKey),
    K256(k256::ecdsa::SigningKey),
}

impl Key {
    pub fn p256(seed: u8) -> Self {
        Self::P256(p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    pub fn k256(seed: u8) -> Self {
        Self::K256(k256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    /// One key of each curve.
    pub fn both(seed: u8) -> [Self; 2] {
        [Self::p256(seed), Self::k256(seed)]
    }

    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::P256(_) => "ES256",
            Self::K256(_) => "ES256K",
        }
    }

    /// The uncompressed point: 0x04, x, y.
    pub fn point(&self) -> Vec<u8> {
        match self {
            Self::P256(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            Self::K256(key) => key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
        }
    }

    pub fn compressed_point(&self) -> Vec<u8> {
        match self {
            Self::P256(key) => key.verifying_key().to_sec1_point(true).as_bytes().to_vec(),
            Self::K256(key) => key.verifying_key().to_sec1_point(true).as_bytes().to_vec(),
        }
    }

    pub fn jwk(&self) -> Value {
        let point = self.point();
        let curve = match self {
            Self::P256(_) => "P-256",
            Self::K256(_) => "secp256k1",
        };
        json!({ "kty": "EC", "crv": curve, "x": base64url(&point[1..33]), "y": base64url(&point[33..]) })
    }

    pub fn multikey(&self) -> String {
        let codec = match self {
            Self::P256(_) => [0x80, 0x24],
            Self::K256(_) => [0xe7, 0x01],
        };
        multibase(&[&codec[..], &self.compressed_point()].concat())
    }

    pub fn public(&self) -> PublicKey {
        PublicKey::from_multikey(&self.multikey()).unwrap()
    }

    /// Both signatures of a message that the key makes: that with the low `s`, and that with the high one.
    pub fn signatures(&self, message: &[u8]) -> [Vec<u8>; 2] {
        match self {
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                let low = signature.normalize_s();
                let (r, s) = low.split_scalars();
                let high = p256::ecdsa::Signature::from_scalars(r, -*s).unwrap();
                [low.to_vec(), high.to_vec()]
            }
            Self::K256(key) => {
                let signature: k256::ecdsa::Signature = key.sign(message);
                let low = signature.normalize_s();
                let (r, s) = low.split_scalars();
                let high = k256::ecdsa::Signature::from_scalars(r, -*s).unwrap();
                [low.to_vec(), high.to_vec()]
            }
        }
    }

    /// A signed token, whatever its header says.
    pub fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let [low, _] = self.signatures(signed.as_bytes());
        format!("{signed}.{}", base64url(&low))
    }

    /// The same, with the other signature.
    pub fn high_s_token(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let [_, high] = self.signatures(signed.as_bytes());
        format!("{signed}.{}", base64url(&high))
    }
}

/// Header and claims, with the dot between them.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let [header, claims] = [header, claims].map(|part| base64url(part.to_string().as_bytes()));
    format!("{header}.{claims}")
}

/// A token signed with a secret, as a confused verifier would check it.
pub fn hs256_token(secret: &[u8], header: &Value, claims: &Value) -> String {
    use hmac::{KeyInit, Mac};
    let signed = unsigned(header, claims);
    let mut mac = hmac::Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", base64url(&mac.finalize().into_bytes()))
}

/// The object with one member changed.
pub fn with(object: &Value, name: &str, value: impl Into<Value>) -> Value {
    let mut object = object.clone();
    object[name] = value.into();
    object
}

/// The object with one member taken out.
pub fn without(object: &Value, name: &str) -> Value {
    let mut object = object.clone();
    object.as_object_mut().unwrap().remove(name);
    object
}

pub fn base64url(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub fn multibase(bytes: &[u8]) -> String {
    format!("z{}", bs58::encode(bytes).into_string())
}

pub fn sha256(text: &str) -> String {
    base64url(&Sha256::digest(text))
}

/// Reads a part of a token, to alter it.
pub fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// What a real PDS and stock clients made; see the README beside it.
pub fn real() -> Value {
    serde_json::from_str(include_str!("../vectors/real-pds.json")).unwrap()
}
