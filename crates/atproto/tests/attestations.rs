//! Attacks on client attestation, each named by what it tries.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use atproto::{
    ClientAttestation, ClientAttestationError as Fault, ClientId, Jwks, JwtError, Untimely,
    Verified, client_attestation::Expected,
};
use serde_json::{Value, json};
use support::{Key, NOW_S, hs256_token, unsigned, with, without};

const ID: &str = "https://app.example.com/client-metadata.json";
const AUDIENCE: &str = "did:web:sync.example.com#groundmist_sync";

fn header() -> Value {
    json!({ "typ": ClientAttestation::TYPE, "alg": "ES256", "kid": "1" })
}

fn claims() -> Value {
    let device = Key::p256(9).public().thumbprint().to_string();
    json!({
        "iss": ID, "sub": ID, "aud": AUDIENCE, "jti": "once", "iat": NOW_S, "exp": NOW_S + 60,
        "cnf": { "jkt": device },
    })
}

/// The app has one key of each curve.
fn keys() -> Jwks {
    let keys =
        [("1", Key::p256(1)), ("2", Key::k256(1))].map(|(id, key)| with(&key.jwk(), "kid", id));
    Jwks::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn verify_token(token: &str) -> Result<Verified<ClientAttestation>, Fault> {
    let client_id: ClientId = ID.parse().unwrap();
    let expected = Expected {
        client_id: &client_id,
        audiences: &[AUDIENCE],
        jkt: Key::p256(9).public().thumbprint(),
        now_s: NOW_S,
    };
    ClientAttestation::parse(token)?.verify(&keys(), &expected)
}

fn verify(header: &Value, claims: &Value) -> Result<(), Fault> {
    verify_token(&Key::p256(1).token(header, claims)).map(drop)
}

#[test]
fn an_apps_own_attestation_is_verified_with_the_key_it_names() {
    let second = with(&with(&header(), "alg", "ES256K"), "kid", "2");
    for token in [
        Key::p256(1).token(&header(), &claims()),
        Key::p256(1).high_s_token(&header(), &claims()),
        Key::k256(1).token(&second, &claims()),
        Key::k256(1).high_s_token(&second, &claims()),
    ] {
        let verified = verify_token(&token).unwrap();
        assert_eq!(verified.client_id().as_str(), ID);
        assert_eq!(verified.jti(), "once");
        assert_eq!(verified.expires_at_s(), NOW_S + 60);
    }
    let unverified = ClientAttestation::parse(&Key::p256(1).token(&header(), &claims())).unwrap();
    assert_eq!(unverified.client_id().as_str(), ID);
    assert_eq!(unverified.key_id(), "1");
}

#[test]
fn an_attestation_without_a_signature_or_with_a_shared_secret_is_refused() {
    for name in ["none", "HS256", ""] {
        let header = with(&header(), "alg", name);
        let none = format!("{}.", unsigned(&header, &claims()));
        let secret = hs256_token(&Key::p256(1).point(), &header, &claims());
        for token in [none, secret] {
            assert_eq!(verify_token(&token).unwrap_err(), Fault::Algorithm);
        }
    }
}

#[test]
fn an_attestation_with_another_key_than_it_names_is_refused() {
    assert_eq!(
        verify(&without(&header(), "kid"), &claims()),
        Err(Fault::KeyId)
    );
    assert_eq!(
        verify(&with(&header(), "kid", "3"), &claims()),
        Err(Fault::KeyId)
    );
    assert_eq!(
        verify(&with(&header(), "kid", "2"), &claims()),
        Err(Fault::Algorithm)
    );
    let refused = verify(&with(&header(), "kid", json!(["1"])), &claims());
    assert_eq!(refused, Err(Fault::Jwt(JwtError::Header)));
    let thief = Key::p256(7);
    let brought_along = with(&header(), "jwk", thief.jwk());
    for header in [header(), brought_along] {
        let refused = verify_token(&thief.token(&header, &claims()));
        assert!(matches!(refused, Err(Fault::Signature(_))));
    }
}

#[test]
fn a_token_of_another_type_is_no_attestation() {
    for typ in ["JWT", "client-authentication+jwt", "at+jwt", ""] {
        assert_eq!(
            verify(&with(&header(), "typ", typ), &claims()),
            Err(Fault::Type)
        );
    }
    assert_eq!(
        verify(&without(&header(), "typ"), &claims()),
        Err(Fault::Type)
    );
}

#[test]
fn an_attestation_of_another_app_is_refused() {
    let other = "https://evil.example.com/client-metadata.json";
    for claims in [
        with(&claims(), "iss", other),
        with(&claims(), "sub", other),
        with(&with(&claims(), "iss", other), "sub", other),
    ] {
        assert_eq!(verify(&header(), &claims), Err(Fault::Client));
    }
    let refused = verify(&header(), &with(&claims(), "iss", "an app"));
    assert!(matches!(refused, Err(Fault::InvalidClientId(_))));
}

#[test]
fn an_attestation_for_another_service_is_refused() {
    for audience in ["did:web:sync.example.com", "https://pds.example.com", ""] {
        assert_eq!(
            verify(&header(), &with(&claims(), "aud", audience)),
            Err(Fault::Audience)
        );
    }
    let refused = verify(&header(), &with(&claims(), "aud", json!([AUDIENCE])));
    assert_eq!(refused, Err(Fault::Jwt(JwtError::Claims)));
}

#[test]
fn an_attestation_for_another_device_is_refused() {
    let for_device = |cnf: Value| verify(&header(), &with(&claims(), "cnf", cnf));
    let own = Key::p256(9).public().thumbprint().to_string();
    let other = Key::p256(8).public().thumbprint().to_string();
    assert_eq!(for_device(json!({ "jkt": own })), Ok(()));
    assert_eq!(for_device(json!({ "jkt": other })), Err(Fault::Device));
    assert_eq!(for_device(json!({ "jkt": "" })), Err(Fault::Device));
    assert_eq!(for_device(json!({})), Err(Fault::Device));
    assert_eq!(for_device(Value::Null), Err(Fault::Device));
    let for_any = verify(&header(), &without(&claims(), "cnf"));
    assert_eq!(for_any, Err(Fault::Device));
    assert_eq!(
        for_device(json!({ "jkt": [own] })),
        Err(Fault::Jwt(JwtError::Claims))
    );
}

#[test]
fn an_attestation_of_another_time_or_for_ever_is_refused() {
    for name in ["iat", "exp", "jti", "sub", "aud", "iss"] {
        let refused = verify(&header(), &without(&claims(), name));
        assert_eq!(refused, Err(Fault::Jwt(JwtError::Claims)), "{name}");
    }
    let at = |name, offset_s: i64| verify(&header(), &with(&claims(), name, NOW_S + offset_s));
    assert_eq!(at("exp", 300), Ok(()));
    assert_eq!(at("exp", 301), Err(Fault::Time(Untimely::LongLived)));
    assert_eq!(at("exp", 0), Err(Fault::Time(Untimely::Expired)));
    assert_eq!(at("iat", 61), Err(Fault::Time(Untimely::Future)));
}
