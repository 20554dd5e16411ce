//! What is fuzzed: each parser with whatever it may be given, and what must hold of all that it takes.
//!
//! `fuzz/` makes a fuzz target of each of these; `corpus.rs` beside this runs all that was found worth keeping through
//! them, and `properties.rs` what proptest makes up.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each user takes a part of it, and what must hold may panic"
)]

use atproto::{
    Algorithm, ClientAttestation, ClientId, ClientIdKind, ClientMetadata, Did, DidDocument,
    DidMethod, Handle, Hints, Jwks, Loopback, Malleability, Proof, PublicKey, RedirectUriKind,
    ServiceAuth, client_attestation, dpop, service_auth,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

/// A target: its name, which is that of its corpus, and what runs one input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 10] = [
    ("access_token", access_token),
    ("client_attestation", client_attestation),
    ("client_id", client_id),
    ("client_metadata", client_metadata),
    ("did", did),
    ("did_document", did_document),
    ("dpop", dpop),
    ("handle", handle),
    ("key", key),
    ("service_auth", service_auth),
];

/// The account and the time of `vectors/real-pds.json`.
const DID: &str = "did:plc:6lb3s4czl5fpblredspfeckp";
const NOW_S: i64 = 1_795_449_753;
const CLIENT_ID: &str = "https://app.example.com/client-metadata.json";
const AUDIENCE: &str = "did:web:localhost%3A3031#groundmist_pss";
/// A key that signed none of the inputs.
const OTHER_KEY: &str = "zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme";

pub fn did(data: &[u8]) {
    let Some((text, did)) = parsed::<Did>(data) else {
        return;
    };
    assert_eq!(did.as_str(), text);
    assert_eq!(did.method() == DidMethod::Web, did.web_host().is_some());
}

pub fn handle(data: &[u8]) {
    let Some((text, handle)) = parsed::<Handle>(data) else {
        return;
    };
    assert_eq!(handle.as_str(), text.to_ascii_lowercase());
    assert_eq!(handle.as_str().parse(), Ok(handle.clone()));
}

pub fn key(data: &[u8]) {
    let text = str::from_utf8(data).unwrap_or_default();
    for key in [
        PublicKey::from_multikey(text),
        PublicKey::from_did_key(text),
        PublicKey::from_legacy_multibase(Algorithm::Es256, text),
        PublicKey::from_legacy_multibase(Algorithm::Es256k, text),
        PublicKey::from_jwk(data),
    ]
    .into_iter()
    .flatten()
    {
        let thumbprint = key.thumbprint();
        assert_eq!(thumbprint.to_string().parse(), Ok(thumbprint));
        let signature = data.get(..64).unwrap_or(data);
        let forged = key.verify(data, signature, Malleability::Accepted);
        assert!(forged.is_err());
    }
    if let Ok(keys) = Jwks::parse(data) {
        // longer than anything that can be in it
        let absent = "-".repeat(data.len() + 1);
        assert!(keys.key(&absent).is_none());
    }
}

pub fn dpop(data: &[u8]) {
    let Some(Ok(proof)) = token(data).map(|text| Proof::parse(&text)) else {
        return;
    };
    let url = "http://localhost:3031/authenticate".parse().unwrap();
    let expected = |nonce| dpop::Expected {
        method: "POST",
        url: &url,
        access_token: None,
        now_s: NOW_S,
        nonce,
    };
    let thumbprint = proof.thumbprint();
    if let Ok(verified) = proof.verify(&expected(&|_| true)) {
        assert_eq!(verified.jkt(), thumbprint);
        assert!((1..=256).contains(&verified.jti().len()));
        assert!(verified.iat_s().abs_diff(NOW_S) <= 60);
    }
    let again = Proof::parse(&token(data).unwrap()).unwrap();
    assert!(again.verify(&expected(&|_| false)).is_err());
}

pub fn access_token(data: &[u8]) {
    let Some(Ok(hints)) = token(data).map(|text| Hints::parse(&text)) else {
        return;
    };
    assert!((1..=Hints::CLIENT_ID_BYTES_MAX).contains(&hints.client_id.len()));
}

pub fn service_auth(data: &[u8]) {
    let Some(Ok(token)) = token(data).map(|text| ServiceAuth::parse(&text)) else {
        return;
    };
    let issuer: Did = DID.parse().unwrap();
    let expected = service_auth::Expected {
        issuer: &issuer,
        audiences: &[AUDIENCE],
        method: "xyz.groundmist.sync.getToken",
        now_s: NOW_S,
    };
    if token.check(&expected).is_ok() {
        assert_eq!(token.issuer(), &issuer);
    }
    let key = PublicKey::from_multikey(OTHER_KEY).unwrap();
    assert!(token.verify(&key, &expected).is_err());
}

pub fn did_document(data: &[u8]) {
    let did: Did = DID.parse().unwrap();
    let Ok(document) = DidDocument::parse(data, &did) else {
        return;
    };
    assert_eq!(document.did(), &did);
    if let Some(url) = document.pds(Loopback::Refused) {
        assert_eq!(
            (url.scheme(), url.path(), url.query()),
            ("https", "/", None)
        );
    }
}

pub fn client_id(data: &[u8]) {
    let Some((text, id)) = parsed::<ClientId>(data) else {
        return;
    };
    assert_eq!(id.as_str(), text);
    match id.kind() {
        ClientIdKind::Discoverable(url) => {
            assert_eq!((url.as_str(), url.scheme()), (text, "https"));
            assert!(url.domain().is_some() && url.fragment().is_none());
            assert!(ClientMetadata::of_loopback(&id).is_none());
        }
        ClientIdKind::Loopback(uris) => {
            let is_loopback = |kind| kind == RedirectUriKind::Loopback;
            assert!(!uris.is_empty() && uris.iter().all(|uri| is_loopback(uri.kind())));
            assert!(
                !ClientMetadata::of_loopback(&id)
                    .unwrap()
                    .allows_origin("null")
            );
        }
    }
}

pub fn client_metadata(data: &[u8]) {
    let Ok(metadata) = ClientMetadata::parse(data, &CLIENT_ID.parse().unwrap()) else {
        return;
    };
    let count = metadata.redirect_uris().len();
    assert!((1..=ClientMetadata::REDIRECT_URIS_MAX).contains(&count));
    for origin in ["null", "", "*", "https://", "http://"] {
        assert!(!metadata.allows_origin(origin));
    }
}

pub fn client_attestation(data: &[u8]) {
    let Some(Ok(token)) = token(data).map(|text| ClientAttestation::parse(&text)) else {
        return;
    };
    let client_id: ClientId = CLIENT_ID.parse().unwrap();
    let key = PublicKey::from_multikey(OTHER_KEY).unwrap();
    let expected = client_attestation::Expected {
        client_id: &client_id,
        audiences: &[AUDIENCE],
        jkt: key.thumbprint(),
        now_s: NOW_S,
    };
    if token.check(&expected).is_ok() {
        assert_eq!(token.client_id(), &client_id);
    }
    let keys = br#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1",
        "x":"l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y":"9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"}]}"#;
    assert!(
        token
            .verify(&Jwks::parse(keys).unwrap(), &expected)
            .is_err()
    );
}

fn parsed<T: std::str::FromStr>(data: &[u8]) -> Option<(&str, T)> {
    let text = str::from_utf8(data).ok()?;
    Some((text, text.parse().ok()?))
}

/// The input as a token. A header and claims in JSON, on a line each, are put into the form of one: a fuzzer that had
/// to find its way through base64 would not get far.
fn token(data: &[u8]) -> Option<String> {
    if !data.starts_with(b"{") {
        return String::from_utf8(data.to_vec()).ok();
    }
    let line_end = data.iter().position(|byte| *byte == b'\n')?;
    let (header, claims) = data.split_at(line_end);
    let [header, claims, signature] =
        [header, claims, &[1; 64]].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    Some(format!("{header}.{claims}.{signature}"))
}
