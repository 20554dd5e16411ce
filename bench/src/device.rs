//! A device of the owner, as door A of the server meets it: a key, the access token that the owner's PDS has bound to
//! it, and proofs that it holds the key. `docs/identity.md` says what the server makes of them.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use p256::ecdsa::signature::Signer as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::http;

/// The account that the servers here belong to.
pub(crate) const OWNER: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
/// What the device's app asks for.
const GROUP: &str = "xyz.groundmist.library";
/// An app that describes itself in its name, so that the server has nothing to fetch.
const CLIENT_ID: &str = "http://localhost/?redirect_uri=http%3A%2F%2F127.0.0.1%2Fcallback";
const TOKEN_SECONDS: u64 = 3_600;

/// The two kinds of keys that the server knows.
#[derive(Clone, Copy)]
pub(crate) enum Algorithm {
    Es256,
    Es256k,
}

impl Algorithm {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es256k => "ES256K",
        }
    }
}

enum Key {
    P256(p256::ecdsa::SigningKey),
    K256(k256::ecdsa::SigningKey),
}

pub(crate) struct Device {
    key: Key,
    fingerprint: String,
    /// The header of its proofs, as it is signed.
    header: String,
    token: String,
    token_hash: String,
}

impl Device {
    /// Always the same one for a number.
    pub(crate) fn new(algorithm: Algorithm, number: u32) -> Result<Self> {
        let secret = Sha256::digest(format!("device {number}"));
        let key = match algorithm {
            Algorithm::Es256 => Key::P256(p256::ecdsa::SigningKey::from_slice(&secret)?),
            Algorithm::Es256k => Key::K256(k256::ecdsa::SigningKey::from_slice(&secret)?),
        };
        let jwk = key.jwk();
        // serde_json writes the members in the order of their names, which is that of RFC 7638
        let fingerprint = encode(Sha256::digest(jwk.to_string()));
        let header = json!({ "typ": "dpop+jwt", "alg": algorithm.name(), "jwk": jwk });
        let token = access_token(&fingerprint);
        Ok(Self {
            key,
            header: encode(header.to_string()),
            token_hash: encode(Sha256::digest(&token)),
            token,
            fingerprint,
        })
    }

    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// A proof for one request: this is `number`, and no other of this device may have it.
    pub(crate) fn proof(&self, address: &Address<'_>, number: usize) -> String {
        self.proof_by(&self.key, address, number)
    }

    /// The same with a signature of another device.
    pub(crate) fn forged(&self, by: &Self, address: &Address<'_>, number: usize) -> String {
        self.proof_by(&by.key, address, number)
    }

    fn proof_by(&self, signer: &Key, address: &Address<'_>, number: usize) -> String {
        let claims = json!({
            "jti": format!("{}-{number}", address.nonce),
            "iat": now_s(),
            "htm": "POST",
            "htu": address.url,
            "ath": self.token_hash,
            "nonce": address.nonce,
        });
        let signed = format!("{}.{}", self.header, encode(claims.to_string()));
        let signature = signer.sign(signed.as_bytes());
        format!("{signed}.{}", encode(signature))
    }

    /// `POST /authenticate` with this proof.
    pub(crate) fn login(&self, proof: &str) -> Vec<u8> {
        let authorization = format!("DPoP {}", self.token);
        let headers = [
            ("Authorization", authorization.as_str()),
            ("DPoP", proof),
            ("Content-Type", "application/json"),
        ];
        let body = json!({ "lexiconAuthorityDomain": GROUP, "rootDocUrl": null });
        http::request("POST", "/authenticate", &headers, &body.to_string())
    }
}

/// What a proof is made for.
pub(crate) struct Address<'a> {
    pub(crate) url: &'a str,
    /// Good for 150 seconds at least; a proof is for 60.
    pub(crate) nonce: &'a str,
}

impl Key {
    /// The public key.
    fn jwk(&self) -> Value {
        let (curve, point) = match self {
            Self::P256(key) => (
                "P-256",
                key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            ),
            Self::K256(key) => (
                "secp256k1",
                key.verifying_key().to_sec1_point(false).as_bytes().to_vec(),
            ),
        };
        let (x, y) = point.get(1..).unwrap_or_default().split_at(32);
        json!({ "crv": curve, "kty": "EC", "x": encode(x), "y": encode(y) })
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
            Self::K256(key) => {
                let signature: k256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
        }
    }
}

/// As a PDS makes them. Nobody else can check its signature, and so it has none.
fn access_token(fingerprint: &str) -> String {
    let header = json!({ "typ": "at+jwt", "alg": "HS256" });
    let claims = json!({
        "sub": OWNER,
        "client_id": CLIENT_ID,
        "cnf": { "jkt": fingerprint },
        "iat": now_s(),
        "exp": now_s() + TOKEN_SECONDS,
    });
    let signature = encode([7; 32]);
    format!(
        "{}.{}.{signature}",
        encode(header.to_string()),
        encode(claims.to_string())
    )
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn now_s() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.unwrap_or_default().as_secs()
}
