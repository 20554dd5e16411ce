//! Public keys: their written forms, their thumbprints, and what they signed.

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use p256::ecdsa::signature::Verifier;
use sha2::{Digest, Sha256};

use crate::{jwk::Jwk, strict};

/// The two signature algorithms of atproto: ECDSA with SHA-256, on one curve or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// On P-256.
    Es256,
    /// On secp256k1.
    Es256k,
}

impl Algorithm {
    /// Its name in the header of a JWS (RFC 7518, 3.1 and RFC 8812, 3.2).
    pub fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es256k => "ES256K",
        }
    }

    /// The algorithm of that name; none for every other, such as `none` and `HS256`.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Es256, Self::Es256k]
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    fn curve(self) -> &'static str {
        match self {
            Self::Es256 => "P-256",
            Self::Es256k => "secp256k1",
        }
    }

    fn from_curve(name: &str) -> Option<Self> {
        [Self::Es256, Self::Es256k]
            .into_iter()
            .find(|algorithm| algorithm.curve() == name)
    }
}

/// Whether the second form that every ECDSA signature has, the one with the high `s`, is taken too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malleability {
    /// Both forms: JWTs, whose libraries make either.
    Accepted,
    /// The one with the low `s` alone: signatures of repositories and of PLC operations.
    Refused,
}

/// A public key on P-256 or secp256k1: a point of its curve, and not the neutral one.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Point);

#[derive(Clone, PartialEq, Eq)]
enum Point {
    P256(p256::ecdsa::VerifyingKey),
    K256(k256::ecdsa::VerifyingKey),
}

/// A text or JWK that is no such key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The text is no base58 multibase, or too long for a key.
    #[error("not a key in multibase form")]
    Multibase,
    /// The text does not begin with `did:key:`.
    #[error("not a did:key")]
    DidKey,
    /// The kind of key is neither P-256 nor secp256k1.
    #[error("not a key of P-256 or secp256k1")]
    Kind,
    /// The bytes are no point of the curve, or not in the form that belongs there.
    #[error("not a point of its curve")]
    Point,
    /// The JWK is not the public half of an EC key.
    #[error("not a public EC key in JWK form")]
    Jwk,
    /// The JWK holds a private or symmetric part, which is nobody else's to see.
    #[error("a JWK with a private part")]
    Private,
    /// The JWK is for another algorithm than that of its curve, or not for signatures.
    #[error("a JWK for another use")]
    Use,
}

/// A signature that this key did not make over this message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not this key's, or not of this message")]
pub struct InvalidSignature;

impl PublicKey {
    /// Longest multibase text that is looked at, in bytes. An uncompressed key needs 90.
    pub const MULTIBASE_BYTES_MAX: usize = 128;

    /// The multicodec prefixes of compressed keys, as varints: 0x1200 and 0xe7.
    const P256_CODEC: [u8; 2] = [0x80, 0x24];
    const K256_CODEC: [u8; 2] = [0xe7, 0x01];

    /// Reads the `publicKeyMultibase` of a verification method of type `Multikey`.
    ///
    /// # Errors
    /// [`InvalidKey`] for other kinds of keys, uncompressed ones, and what is no key.
    ///
    /// Source: <https://atproto.com/specs/cryptography>, "Public Key Encoding".
    pub fn from_multikey(text: &str) -> Result<Self, InvalidKey> {
        let bytes = decode_multibase(text)?;
        let (codec, point) = bytes.split_first_chunk().ok_or(InvalidKey::Kind)?;
        let algorithm = match *codec {
            Self::P256_CODEC => Algorithm::Es256,
            Self::K256_CODEC => Algorithm::Es256k,
            _ => return Err(InvalidKey::Kind),
        };
        match point {
            [0x02 | 0x03, _rest @ ..] => Self::from_point(algorithm, point),
            _ => Err(InvalidKey::Point),
        }
    }

    /// Reads a `did:key`.
    ///
    /// # Errors
    /// [`InvalidKey`], as [`from_multikey`](Self::from_multikey).
    pub fn from_did_key(text: &str) -> Result<Self, InvalidKey> {
        let multikey = text.strip_prefix("did:key:").ok_or(InvalidKey::DidKey)?;
        Self::from_multikey(multikey)
    }

    /// Reads the `publicKeyMultibase` of the verification methods that were there before `Multikey`: the point alone,
    /// compressed or not. Their type, `EcdsaSecp256r1VerificationKey2019` or `EcdsaSecp256k1VerificationKey2019`,
    /// tells the algorithm.
    ///
    /// # Errors
    /// [`InvalidKey`] if the text is no point of that curve.
    ///
    /// Source: <https://atproto.com/specs/did>, "Legacy Representation".
    pub fn from_legacy_multibase(algorithm: Algorithm, text: &str) -> Result<Self, InvalidKey> {
        match decode_multibase(text)?.as_slice() {
            point @ [0x02..=0x04, ..] => Self::from_point(algorithm, point),
            _ => Err(InvalidKey::Point),
        }
    }

    /// Reads a JWK, as JSON.
    ///
    /// # Errors
    /// [`InvalidKey`] unless it is the public half of an EC key of one of the two curves.
    ///
    /// Source: RFC 7517, RFC 7518 6.2 and RFC 8812 3.1.
    pub fn from_jwk(json: &[u8]) -> Result<Self, InvalidKey> {
        let jwk: Jwk = strict::object(json).ok_or(InvalidKey::Jwk)?;
        jwk.public_key()
    }

    /// The key with these coordinates, each of 32 bytes in base64url.
    pub(crate) fn from_coordinates(curve: &str, x: &str, y: &str) -> Result<Self, InvalidKey> {
        let algorithm = Algorithm::from_curve(curve).ok_or(InvalidKey::Kind)?;
        let mut point = vec![0x04];
        point.extend(decode_32(x).ok_or(InvalidKey::Point)?);
        point.extend(decode_32(y).ok_or(InvalidKey::Point)?);
        Self::from_point(algorithm, &point)
    }

    fn from_point(algorithm: Algorithm, point: &[u8]) -> Result<Self, InvalidKey> {
        let point = match algorithm {
            Algorithm::Es256 => p256::ecdsa::VerifyingKey::from_sec1_bytes(point).map(Point::P256),
            Algorithm::Es256k => k256::ecdsa::VerifyingKey::from_sec1_bytes(point).map(Point::K256),
        };
        point.map(Self).map_err(|_| InvalidKey::Point)
    }

    /// The algorithm that the key signs with: each curve has one.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Point::P256(_) => Algorithm::Es256,
            Point::K256(_) => Algorithm::Es256k,
        }
    }

    /// What the key is known by: the hash of its JWK.
    pub fn thumbprint(&self) -> Thumbprint {
        let [x, y] = self.coordinates();
        let json = format!(
            r#"{{"crv":"{}","kty":"EC","x":"{x}","y":"{y}"}}"#,
            self.algorithm().curve()
        );
        Thumbprint(Sha256::digest(json).into())
    }

    /// Checks that this key signed this message: `r` and `s`, 32 bytes each.
    ///
    /// # Errors
    /// [`InvalidSignature`], whatever is wrong with it.
    pub fn verify(
        &self,
        message: &[u8],
        signature: &[u8],
        malleability: Malleability,
    ) -> Result<(), InvalidSignature> {
        // The crate for secp256k1 takes no high `s` at all, that for P-256 takes any: so both get the low one.
        let verified = match &self.0 {
            Point::P256(key) => {
                let given = p256::ecdsa::Signature::from_slice(signature)?;
                let low = given.normalize_s();
                malleability.allows(given == low)?;
                key.verify(message, &low)
            }
            Point::K256(key) => {
                let given = k256::ecdsa::Signature::from_slice(signature)?;
                let low = given.normalize_s();
                malleability.allows(given == low)?;
                key.verify(message, &low)
            }
        };
        Ok(verified?)
    }

    fn coordinates(&self) -> [String; 2] {
        // The uncompressed form is 0x04 and both coordinates.
        let point = match &self.0 {
            Point::P256(key) => key.to_sec1_point(false).as_bytes().to_vec(),
            Point::K256(key) => key.to_sec1_point(false).as_bytes().to_vec(),
        };
        let (x, y) = point.split_at(33);
        [x.get(1..).unwrap_or_default(), y].map(|bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PublicKey({} {})",
            self.algorithm().name(),
            self.thumbprint()
        )
    }
}

impl Malleability {
    fn allows(self, is_low: bool) -> Result<(), InvalidSignature> {
        match self {
            Self::Refused if !is_low => Err(InvalidSignature),
            Self::Refused | Self::Accepted => Ok(()),
        }
    }
}

impl From<p256::ecdsa::Error> for InvalidSignature {
    /// The crate's error says nothing either, on purpose.
    fn from(_: p256::ecdsa::Error) -> Self {
        Self
    }
}

/// The SHA-256 of a key's JWK, in the form that it has in `cnf.jkt`: base64url, 43 characters.
///
/// Source: RFC 7638, 3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thumbprint([u8; 32]);

/// A text that is no thumbprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key's thumbprint: expected 43 characters of base64url")]
pub struct InvalidThumbprint;

impl Thumbprint {
    /// The hash itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Thumbprint {
    fn from(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl FromStr for Thumbprint {
    type Err = InvalidThumbprint;

    fn from_str(text: &str) -> Result<Self, InvalidThumbprint> {
        decode_32(text).map(Self).ok_or(InvalidThumbprint)
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thumbprint({self})")
    }
}

/// Multibase in base58btc, the one base that keys are written in.
fn decode_multibase(text: &str) -> Result<Vec<u8>, InvalidKey> {
    // Base58 takes quadratic time, so its length comes first.
    if text.len() > PublicKey::MULTIBASE_BYTES_MAX {
        return Err(InvalidKey::Multibase);
    }
    let base58 = text.strip_prefix('z').ok_or(InvalidKey::Multibase)?;
    bs58::decode(base58)
        .into_vec()
        .map_err(|_| InvalidKey::Multibase)
}

/// 32 bytes from 43 characters of base64url.
pub(crate) fn decode_32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 43 {
        return None;
    }
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_rfc_9449() {
        // RFC 9449, figures 5 and 21: the key of its examples and the `jkt` that stands for it.
        let key = PublicKey::from_jwk(
            br#"{"kty":"EC","x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
                "y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA","crv":"P-256"}"#,
        )
        .unwrap();
        let text = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
        assert_eq!(key.thumbprint().to_string(), text);
        assert_eq!(text.parse(), Ok(key.thumbprint()));
    }

    #[test]
    fn a_text_that_is_no_thumbprint_is_refused() {
        let text = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
        for wrong in [
            "",
            &text[1..],
            &format!("{text}="),
            &text.replace('-', "+"),
            // The last character has two bits too many.
            "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4J",
        ] {
            assert_eq!(
                wrong.parse::<Thumbprint>(),
                Err(InvalidThumbprint),
                "{wrong}"
            );
        }
    }
}
