//! DID documents: an account's signing key, its PDS and its handle.
//!
//! Source: <https://atproto.com/specs/did>, "DID Documents".

use serde::Deserialize;
use serde_json::Value;
use url::{Host, Url};

use crate::{
    did::Did,
    handle::Handle,
    key::{Algorithm, InvalidKey, PublicKey},
    strict,
};

/// What the document of an account says, as far as it matters here.
#[derive(Debug, Clone)]
pub struct DidDocument {
    did: Did,
    signing_key: Result<PublicKey, SigningKeyError>,
    pds: Option<Url>,
    handle: Option<Handle>,
}

/// A text that is no document of that DID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DidDocumentError {
    /// It is longer than [`DidDocument::BYTES_MAX`].
    #[error("the DID document is too long")]
    TooLong,
    /// It is no JSON object of the right form, or one of its keys or services has no id.
    #[error("the DID document is not of the right form")]
    Form,
    /// It is another DID's.
    #[error("the DID document is another DID's")]
    OtherDid,
}

/// Why a document has no signing key that could be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// No key is named `#atproto`.
    #[error("the DID document has no key #atproto")]
    Missing,
    /// The key is somebody else's.
    #[error("the key #atproto is controlled by another DID")]
    Controller,
    /// The key is of a type that is not known here.
    #[error("the key #atproto is of an unknown type")]
    Type,
    /// The key is none.
    #[error("the key #atproto: {0}")]
    Key(#[from] InvalidKey),
}

/// Whether addresses of this machine, without TLS, are taken: in development alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loopback {
    /// They are no addresses of a PDS.
    Refused,
    /// `http://localhost` and `http://127.0.0.1` are taken, with any port.
    Accepted,
}

impl DidDocument {
    /// Longest document that is looked at, in bytes.
    pub const BYTES_MAX: usize = 64 << 10;

    /// Reads the document of this DID.
    ///
    /// A document without a usable key, service or handle is one all the same: see what is asked of it.
    ///
    /// # Errors
    /// [`DidDocumentError`] if the text is no document of this DID.
    pub fn parse(json: &[u8], did: &Did) -> Result<Self, DidDocumentError> {
        if json.len() > Self::BYTES_MAX {
            return Err(DidDocumentError::TooLong);
        }
        let raw: Raw = strict::object(json).ok_or(DidDocumentError::Form)?;
        if raw.id != did.as_str() {
            return Err(DidDocumentError::OtherDid);
        }
        Ok(Self {
            did: did.clone(),
            signing_key: raw.signing_key(did),
            pds: raw.pds(did),
            handle: raw.handle(),
        })
    }

    /// Whose document it is.
    pub fn did(&self) -> &Did {
        &self.did
    }

    /// The key that signs for the account: the first that is named `#atproto`. A second one is never used.
    ///
    /// # Errors
    /// [`SigningKeyError`] if there is none, or the first is not usable.
    pub fn signing_key(&self) -> Result<&PublicKey, SigningKeyError> {
        self.signing_key.as_ref().map_err(|error| *error)
    }

    /// Where the account's PDS is: an address without path, query and user. That of the first service that is named
    /// `#atproto_pds`, if it is of the right type.
    pub fn pds(&self, loopback: Loopback) -> Option<&Url> {
        self.pds.as_ref().filter(|url| {
            url.scheme() == "https" || (loopback == Loopback::Accepted && is_loopback(url))
        })
    }

    /// The handle that the account claims: the first valid one. It is the account's only if the handle names this DID.
    pub fn handle(&self) -> Option<&Handle> {
        self.handle.as_ref()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    id: String,
    #[serde(default)]
    also_known_as: Vec<Value>,
    #[serde(default)]
    verification_method: Vec<Method>,
    #[serde(default)]
    service: Vec<Service>,
}

/// A key. All but the id may be of any form, since documents have keys for others than us.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Method {
    id: String,
    r#type: Option<Value>,
    controller: Option<Value>,
    public_key_multibase: Option<Value>,
}

/// A service, likewise.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    id: String,
    r#type: Option<Value>,
    service_endpoint: Option<Value>,
}

impl Raw {
    fn signing_key(&self, did: &Did) -> Result<PublicKey, SigningKeyError> {
        let method = self
            .verification_method
            .iter()
            .find(|method| is_named(&method.id, did, "#atproto"))
            .ok_or(SigningKeyError::Missing)?;
        if text(&method.controller) != did.as_str() {
            return Err(SigningKeyError::Controller);
        }
        let multibase = text(&method.public_key_multibase);
        let key = match text(&method.r#type) {
            "Multikey" => PublicKey::from_multikey(multibase),
            "EcdsaSecp256r1VerificationKey2019" => {
                PublicKey::from_legacy_multibase(Algorithm::Es256, multibase)
            }
            "EcdsaSecp256k1VerificationKey2019" => {
                PublicKey::from_legacy_multibase(Algorithm::Es256k, multibase)
            }
            _ => return Err(SigningKeyError::Type),
        };
        Ok(key?)
    }

    fn pds(&self, did: &Did) -> Option<Url> {
        let service = self
            .service
            .iter()
            .find(|service| is_named(&service.id, did, "#atproto_pds"))?;
        if text(&service.r#type) != "AtprotoPersonalDataServer" {
            return None;
        }
        let url = Url::parse(text(&service.service_endpoint)).ok()?;
        is_origin(&url).then_some(url)
    }

    fn handle(&self) -> Option<Handle> {
        self.also_known_as
            .iter()
            .filter_map(Value::as_str)
            .filter_map(|uri| uri.strip_prefix("at://"))
            .find_map(|name| name.parse().ok())
    }
}

/// Whether an id, relative or whole, names this part of the DID's own document.
fn is_named(id: &str, did: &Did, fragment: &str) -> bool {
    id.strip_prefix(did.as_str()).unwrap_or(id) == fragment
}

/// The text; an empty one, which is never right, if it is none.
fn text(value: &Option<Value>) -> &str {
    value.as_ref().and_then(Value::as_str).unwrap_or_default()
}

/// Whether an address is nothing but scheme, host and port.
fn is_origin(url: &Url) -> bool {
    matches!(url.scheme(), "https" | "http")
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address == std::net::Ipv4Addr::LOCALHOST,
        Some(Host::Ipv6(_)) | None => false,
    }
}
