//! Attacks on service auth, each named by what it tries.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use atproto::{
    Did, JwtError, ServiceAuth, ServiceAuthError, Untimely, Verified, service_auth::Expected,
};
use serde_json::{Value, json};
use support::{Key, NOW_S, hs256_token, unsigned, with, without};

const ISSUER: &str = "did:plc:6lb3s4czl5fpblredspfeckp";
const BARE: &str = "did:web:sync.example.com";
const SERVICE: &str = "did:web:sync.example.com#groundmist_sync";
const METHOD: &str = "xyz.groundmist.sync.requestAccess";

fn header() -> Value {
    json!({ "typ": "JWT", "alg": "ES256K" })
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": SERVICE, "lxm": METHOD, "iat": NOW_S, "exp": NOW_S + 60, "jti": "once",
    })
}

fn owner_key() -> Key {
    Key::k256(1)
}

fn verify_with(key: &Key, token: &str) -> Result<Verified<ServiceAuth>, ServiceAuthError> {
    let issuer: Did = ISSUER.parse().unwrap();
    let expected = Expected {
        issuer: &issuer,
        audiences: &[SERVICE],
        method: METHOD,
        now_s: NOW_S,
    };
    ServiceAuth::parse(token)?.verify(&key.public(), &expected)
}

/// What is said of the owner's token with this header and these claims.
fn verify(header: &Value, claims: &Value) -> Result<(), ServiceAuthError> {
    let key = owner_key();
    verify_with(&key, &key.token(header, claims)).map(drop)
}

fn verify_claims(claims: &Value) -> Result<(), ServiceAuthError> {
    verify(&header(), claims)
}

#[test]
fn the_owners_token_is_verified_with_a_key_of_either_curve_and_either_signature() {
    for key in Key::both(1) {
        let header = with(&header(), "alg", key.algorithm());
        for token in [
            key.token(&header, &claims()),
            key.high_s_token(&header, &claims()),
        ] {
            let verified = verify_with(&key, &token).unwrap();
            assert_eq!(verified.issuer().as_str(), ISSUER);
            assert_eq!(verified.jti(), "once");
            assert_eq!(verified.expires_at_s(), NOW_S + 60);
            assert_eq!(verified.audience(), SERVICE);
        }
    }
}

#[test]
fn a_token_without_a_signature_or_with_a_shared_secret_is_refused() {
    let key = owner_key();
    for name in ["none", "None", "", "HS256", "RS256"] {
        let header = with(&header(), "alg", name);
        let none = format!("{}.", unsigned(&header, &claims()));
        let secret = hs256_token(&key.compressed_point(), &header, &claims());
        for token in [none, secret] {
            let refused = verify_with(&key, &token).unwrap_err();
            assert_eq!(refused, ServiceAuthError::Algorithm, "{name}");
        }
    }
}

#[test]
fn a_token_whose_algorithm_is_not_that_of_the_issuers_key_is_refused() {
    let [p256, k256] = Key::both(1);
    for (key, algorithm) in [(&p256, "ES256K"), (&k256, "ES256")] {
        for signer in [&p256, &k256] {
            let token = signer.token(&with(&header(), "alg", algorithm), &claims());
            let refused = verify_with(key, &token).unwrap_err();
            assert_eq!(refused, ServiceAuthError::Algorithm);
        }
    }
}

#[test]
fn a_token_that_somebody_else_signed_is_refused() {
    let token = Key::k256(2).token(&header(), &claims());
    let refused = verify_with(&owner_key(), &token);
    assert!(matches!(refused, Err(ServiceAuthError::Signature(_))));
}

#[test]
fn the_key_that_a_token_brings_along_is_not_used() {
    let thief = Key::k256(2);
    let header = with(&header(), "jwk", thief.jwk());
    let refused = verify_with(&owner_key(), &thief.token(&header, &claims()));
    assert!(matches!(refused, Err(ServiceAuthError::Signature(_))));
}

#[test]
fn a_token_that_points_at_another_key_is_refused() {
    for kid in [
        "",
        "atproto",
        "#atproto_label",
        "#Atproto",
        "did:plc:6lb3s4czl5fpblredspfeckp#atproto",
        "did:plc:ewvi7nxzyoun6zhxrhs64oiz#atproto",
        "https://evil.example.com/#atproto",
    ] {
        let refused = verify(&with(&header(), "kid", kid), &claims());
        assert_eq!(refused, Err(ServiceAuthError::KeyId), "{kid}");
    }
    for kid in [json!(["#atproto"]), json!({}), json!(0)] {
        let refused = verify(&with(&header(), "kid", kid), &claims());
        assert_eq!(refused, Err(ServiceAuthError::Jwt(JwtError::Header)));
    }
    assert_eq!(
        verify(&with(&header(), "kid", "#atproto"), &claims()),
        Ok(())
    );
}

#[test]
fn a_token_of_another_kind_is_refused() {
    for typ in [
        "at+jwt",
        "AT+JWT",
        "refresh+jwt",
        "dpop+jwt",
        "application/at+jwt",
        "Application/Refresh+JWT",
        // Signed with the same key, too.
        "atproto-space-delegation+jwt",
    ] {
        let refused = verify(&with(&header(), "typ", typ), &claims());
        assert_eq!(refused, Err(ServiceAuthError::Type), "{typ}");
    }
    assert_eq!(verify(&without(&header(), "typ"), &claims()), Ok(()));
    assert_eq!(verify(&with(&header(), "typ", "jwt"), &claims()), Ok(()));
}

#[test]
fn a_token_that_asks_for_an_extension_is_refused() {
    let refused = verify(&with(&header(), "crit", json!(["exp"])), &claims());
    assert_eq!(refused, Err(ServiceAuthError::Jwt(JwtError::Critical)));
}

#[test]
fn another_accounts_token_is_refused() {
    for issuer in [
        "did:plc:ewvi7nxzyoun6zhxrhs64oiz",
        "did:web:sync.example.com",
    ] {
        let refused = verify_claims(&with(&claims(), "iss", issuer));
        assert_eq!(refused, Err(ServiceAuthError::Issuer), "{issuer}");
    }
}

#[test]
fn an_issuer_with_a_fragment_or_around_the_did_is_refused() {
    for issuer in [
        "did:plc:6lb3s4czl5fpblredspfeckp#atproto",
        "did:plc:6lb3s4czl5fpblredspfeckp#atproto_labeler",
        "did:plc:6lb3s4czl5fpblredspfeckp ",
        "DID:PLC:6lb3s4czl5fpblredspfeckp",
        "at://did:plc:6lb3s4czl5fpblredspfeckp",
        "https://plc.directory",
        "",
    ] {
        let refused = verify_claims(&with(&claims(), "iss", issuer));
        assert!(
            matches!(refused, Err(ServiceAuthError::InvalidIssuer(_))),
            "{issuer}"
        );
    }
}

#[test]
fn a_token_for_another_service_is_refused() {
    for audience in [
        "did:web:other.example.com#groundmist_sync",
        "did:web:sync.example.com#other",
        "did:web:sync.example.com#groundmist_sync2",
        "did:web:SYNC.example.com#groundmist_sync",
        BARE,
        "https://sync.example.com",
        "",
    ] {
        let refused = verify_claims(&with(&claims(), "aud", audience));
        assert_eq!(refused, Err(ServiceAuthError::Audience), "{audience}");
    }
    for audience in [
        json!([SERVICE]),
        json!([SERVICE, BARE]),
        json!(null),
        json!({}),
    ] {
        let refused = verify_claims(&with(&claims(), "aud", audience));
        assert_eq!(refused, Err(ServiceAuthError::Jwt(JwtError::Claims)));
    }
}

#[test]
fn a_bare_audience_is_taken_where_it_is_expected() {
    let issuer: Did = ISSUER.parse().unwrap();
    let key = owner_key();
    let token = key.token(&header(), &with(&claims(), "aud", BARE));
    let expected = Expected {
        issuer: &issuer,
        audiences: &[SERVICE, BARE],
        method: METHOD,
        now_s: NOW_S,
    };
    let verified = ServiceAuth::parse(&token)
        .unwrap()
        .verify(&key.public(), &expected)
        .unwrap();
    assert_eq!(verified.audience(), BARE);
}

#[test]
fn a_token_for_another_method_or_for_all_is_refused() {
    for method in [
        "xyz.groundmist.sync.listGroups",
        "xyz.groundmist.sync.RequestAccess",
        "*",
        "",
    ] {
        let refused = verify_claims(&with(&claims(), "lxm", method));
        assert_eq!(refused, Err(ServiceAuthError::Method), "{method}");
    }
    for claims in [
        without(&claims(), "lxm"),
        with(&claims(), "lxm", Value::Null),
    ] {
        assert_eq!(verify_claims(&claims), Err(ServiceAuthError::Method));
    }
    let refused = verify_claims(&with(&claims(), "lxm", json!([METHOD])));
    assert_eq!(refused, Err(ServiceAuthError::Jwt(JwtError::Claims)));
}

#[test]
fn a_token_without_an_end_or_with_a_late_one_is_refused() {
    let missing = Err(ServiceAuthError::Jwt(JwtError::Claims));
    assert_eq!(verify_claims(&without(&claims(), "exp")), missing);
    assert_eq!(verify_claims(&with(&claims(), "exp", "tomorrow")), missing);
    assert_eq!(verify_claims(&with(&claims(), "exp", 1e300)), missing);

    let ends = |offset_s: i64| verify_claims(&with(&claims(), "exp", NOW_S + offset_s));
    assert_eq!(ends(0), Err(ServiceAuthError::Time(Untimely::Expired)));
    assert_eq!(ends(-1), Err(ServiceAuthError::Time(Untimely::Expired)));
    assert_eq!(ends(300), Ok(()));
    assert_eq!(ends(301), Err(ServiceAuthError::Time(Untimely::LongLived)));
}

#[test]
fn a_token_that_does_not_say_when_it_was_made_is_counted_from_now() {
    let claims = without(&claims(), "iat");
    let ends = |offset_s: i64| verify_claims(&with(&claims, "exp", NOW_S + offset_s));
    assert_eq!(ends(300), Ok(()));
    assert_eq!(ends(301), Err(ServiceAuthError::Time(Untimely::LongLived)));
}

#[test]
fn a_token_from_the_future_is_refused() {
    let claims = with(&with(&claims(), "iat", NOW_S + 61), "exp", NOW_S + 120);
    assert_eq!(
        verify_claims(&claims),
        Err(ServiceAuthError::Time(Untimely::Future))
    );
    let claims = with(&claims, "iat", NOW_S + 60);
    assert_eq!(verify_claims(&claims), Ok(()));
}

#[test]
fn a_token_that_could_be_used_twice_is_refused() {
    for id in [
        json!(""),
        json!("a".repeat(257)),
        json!(null),
        json!(7),
        json!(["once"]),
    ] {
        let refused = verify_claims(&with(&claims(), "jti", id));
        assert_eq!(refused, Err(ServiceAuthError::Jwt(JwtError::Claims)));
    }
    let refused = verify_claims(&without(&claims(), "jti"));
    assert_eq!(refused, Err(ServiceAuthError::Jwt(JwtError::Claims)));
}

#[test]
fn all_but_the_signature_is_checked_before_anything_is_fetched() {
    let issuer: Did = ISSUER.parse().unwrap();
    let expected = Expected {
        issuer: &issuer,
        audiences: &[SERVICE],
        method: METHOD,
        now_s: NOW_S,
    };
    let check = |claims: &Value| {
        // Nobody signed it.
        let token = format!("{}.", unsigned(&header(), claims));
        ServiceAuth::parse(&token).unwrap().check(&expected)
    };
    assert_eq!(check(&claims()), Ok(()));
    let stranger = with(&claims(), "iss", "did:plc:ewvi7nxzyoun6zhxrhs64oiz");
    assert_eq!(check(&stranger), Err(ServiceAuthError::Issuer));
    assert_eq!(
        check(&with(&claims(), "aud", BARE)),
        Err(ServiceAuthError::Audience)
    );
    assert_eq!(
        check(&without(&claims(), "lxm")),
        Err(ServiceAuthError::Method)
    );
    let expired = with(&claims(), "exp", NOW_S);
    assert_eq!(
        check(&expired),
        Err(ServiceAuthError::Time(Untimely::Expired))
    );
}
