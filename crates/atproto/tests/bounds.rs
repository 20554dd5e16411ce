//! Each bound takes what is exactly as long as it says, and not a byte more; and texts come back as they went in.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use std::{
    collections::HashSet,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use atproto::{
    ClientId, ClientMetadata, ClientMetadataError, DidDocument, DidDocumentError, Handle,
    InvalidClientId, Jwks, JwksError, RedirectUri, Thumbprint,
};
use serde_json::{Value, json};
use support::{Key, base64url, with};

const DID: &str = "did:plc:6lb3s4czl5fpblredspfeckp";
const ID: &str = "https://app.example.com/client-metadata.json";

/// JSON of this many bytes, with white space behind it.
fn padded(json: &Value, bytes: usize) -> Vec<u8> {
    let mut text = json.to_string().into_bytes();
    assert!(text.len() < bytes);
    text.resize(bytes, b' ');
    text
}

#[test]
fn a_did_document_may_be_exactly_as_long_as_the_bound() {
    let did = DID.parse().unwrap();
    let parse = |bytes| DidDocument::parse(&padded(&json!({ "id": DID }), bytes), &did);
    assert!(parse(DidDocument::BYTES_MAX).is_ok());
    let longer = parse(DidDocument::BYTES_MAX + 1);
    assert_eq!(longer.err(), Some(DidDocumentError::TooLong));
}

#[test]
fn client_metadata_may_be_exactly_as_long_as_the_bound() {
    let metadata = json!({
        "client_id": ID,
        "application_type": "web",
        "redirect_uris": ["https://app.example.com/back"],
        "token_endpoint_auth_method": "none",
        "dpop_bound_access_tokens": true,
        "scope": "atproto",
    });
    let parse = |bytes| ClientMetadata::parse(&padded(&metadata, bytes), &ID.parse().unwrap());
    assert!(parse(ClientMetadata::BYTES_MAX).is_ok());
    let longer = parse(ClientMetadata::BYTES_MAX + 1);
    assert_eq!(longer.err(), Some(ClientMetadataError::TooLong));
}

#[test]
fn a_key_set_may_be_exactly_as_long_as_the_bound_and_says_whether_it_has_a_key() {
    let parse = |keys: Value, bytes| Jwks::parse(&padded(&json!({ "keys": keys }), bytes));
    let key = with(&Key::p256(1).jwk(), "kid", "one");
    let some = parse(json!([key]), Jwks::BYTES_MAX).unwrap();
    assert!(!some.is_empty() && some.key("one").is_some());
    assert!(parse(json!([]), Jwks::BYTES_MAX).unwrap().is_empty());
    let longer = parse(json!([]), Jwks::BYTES_MAX + 1);
    assert_eq!(longer.err(), Some(JwksError::TooLong));
}

#[test]
fn a_handle_may_have_253_bytes() {
    let handle = |last: usize| {
        let label = "a".repeat(63);
        format!("{label}.{label}.{label}.{}.com", "a".repeat(last))
    };
    assert_eq!(handle(57).len(), Handle::BYTES_MAX);
    assert!(handle(57).parse::<Handle>().is_ok());
    assert!(handle(58).parse::<Handle>().is_err());
}

#[test]
fn a_redirect_uri_is_its_text_and_may_be_exactly_as_long_as_the_bound() {
    let prefix = "https://app.example.com/";
    let text = |bytes: usize| format!("{prefix}{}", "a".repeat(bytes - prefix.len()));
    let longest = text(RedirectUri::BYTES_MAX);
    let uri: RedirectUri = longest.parse().unwrap();
    assert_eq!(
        (uri.as_str(), uri.to_string()),
        (&*longest, longest.clone())
    );
    let longer = text(RedirectUri::BYTES_MAX + 1);
    assert!(longer.parse::<RedirectUri>().is_err());
}

#[test]
fn a_loopback_client_id_may_name_as_many_redirect_uris_as_the_bound() {
    let parse = |count| {
        let uris = vec!["redirect_uri=http://[::1]/"; count];
        format!("http://localhost?{}", uris.join("&")).parse::<ClientId>()
    };
    assert!(parse(ClientId::REDIRECT_URIS_MAX).is_ok());
    let more = parse(ClientId::REDIRECT_URIS_MAX + 1);
    assert_eq!(more.err(), Some(InvalidClientId::Parameter));
}

#[test]
fn client_ids_are_shown_and_told_apart_by_their_texts() {
    let other = "https://app.example.com/other.json";
    let ids: HashSet<ClientId> = [ID, other, ID].map(|id| id.parse().unwrap()).into();
    assert_eq!(ids.len(), 2);
    assert_eq!(ID.parse::<ClientId>().unwrap().to_string(), ID);
    // who hashes alike is compared, so only this shows that different ones are hashed apart
    let hash = |id: &str| {
        let state = BuildHasherDefault::<DefaultHasher>::default();
        state.hash_one(id.parse::<ClientId>().unwrap())
    };
    assert_ne!(hash(ID), hash(other));
}

#[test]
fn a_thumbprint_is_the_bytes_that_its_text_stands_for() {
    let bytes = std::array::from_fn(|n| u8::try_from(n).unwrap());
    let thumbprint: Thumbprint = base64url(&bytes).parse().unwrap();
    assert_eq!(thumbprint.as_bytes(), &bytes);
}
