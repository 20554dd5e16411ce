//! Attacks on the form that all tokens have, and on access tokens.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use atproto::{Hints, HintsError, JwtError, Proof, ProofError, jwt};
use serde_json::{Value, json};
use support::{Key, NOW_S, base64url, real, unsigned, with, without};

fn proof_header() -> Value {
    let key = Key::p256(1);
    json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": key.jwk() })
}

fn proof_claims() -> Value {
    json!({ "jti": "once", "iat": NOW_S, "htm": "POST", "htu": "https://sync.example.com/" })
}

fn jwt_error(text: &str) -> Option<JwtError> {
    match Proof::parse(text) {
        Err(ProofError::Jwt(error)) => Some(error),
        _ => None,
    }
}

/// A token of these two texts, whatever they are.
fn raw(header: &str, claims: &str) -> String {
    let [header, claims] = [header, claims].map(|text| base64url(text.as_bytes()));
    format!("{header}.{claims}.{}", base64url(&[1; 64]))
}

#[test]
fn a_token_has_exactly_three_parts() {
    let token = Key::p256(1).token(&proof_header(), &proof_claims());
    assert!(Proof::parse(&token).is_ok());
    for text in [
        "",
        ".",
        "a.b",
        &token[..token.rfind('.').unwrap()],
        &format!("{token}.AAAA"),
        &format!("{token}."),
        &format!("a.{token}"),
    ] {
        assert_eq!(jwt_error(text), Some(JwtError::Parts), "{text}");
    }
    // Empty parts are parts.
    assert_eq!(jwt_error(".."), Some(JwtError::Header));
}

#[test]
fn a_part_is_base64url_without_padding_whitespace_or_loose_ends() {
    let token = Key::p256(1).token(&proof_header(), &proof_claims());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    for signature in [
        format!("{signature}="),
        format!("{signature}=="),
        format!("{signature} "),
        format!("{signature}\n"),
        format!("{}+", &signature[..signature.len() - 1]),
        format!("{}B", &signature[..signature.len() - 1]),
        "é".to_owned(),
    ] {
        let text = format!("{signed}.{signature}");
        assert_eq!(jwt_error(&text), Some(JwtError::Encoding), "{signature}");
    }
}

#[test]
fn what_is_too_long_is_refused_before_it_is_decoded() {
    // No base64url at all, so decoding it would say so.
    let whole = format!("a.{}.c", "*".repeat(jwt::TOKEN_BYTES_MAX - 3));
    assert_eq!(jwt_error(&whole), Some(JwtError::TooLong));
    let header = format!("{}.b.c", "*".repeat(jwt::HEADER_BYTES_MAX + 1));
    assert_eq!(jwt_error(&header), Some(JwtError::TooLong));
    let fits = format!("{}.b.c", "*".repeat(jwt::HEADER_BYTES_MAX));
    assert_eq!(jwt_error(&fits), Some(JwtError::Encoding));
}

#[test]
fn a_member_that_is_there_twice_is_refused() {
    let claims = proof_claims().to_string();
    let header = proof_header().to_string();
    let twice = |text: &str, member: &str| format!("{{{member},{}", &text[1..]);
    for member in [r#""alg":"none""#, r#""typ":"JWT""#, r#""jwk":{}"#] {
        let token = raw(&twice(&header, member), &claims);
        assert_eq!(jwt_error(&token), Some(JwtError::Header), "{member}");
    }
    for member in [r#""htm":"GET""#, r#""iat":0"#, r#""jti":"other""#] {
        let token = raw(&header, &twice(&claims, member));
        assert_eq!(jwt_error(&token), Some(JwtError::Claims), "{member}");
    }
    // The same member, spelt with an escape.
    let token = raw(&twice(&header, r#""\u0061lg":"none""#), &claims);
    assert_eq!(jwt_error(&token), Some(JwtError::Header));
}

#[test]
fn a_part_is_an_object_and_nothing_after_it() {
    let claims = proof_claims().to_string();
    let header = proof_header().to_string();
    for text in [
        "",
        "null",
        "[]",
        "\"a\"",
        "7",
        "{",
        "{}",
        r#"["ES256","dpop+jwt"]"#,
        "\u{feff}{}",
    ] {
        assert_eq!(
            jwt_error(&raw(text, &claims)),
            Some(JwtError::Header),
            "{text}"
        );
        assert_eq!(
            jwt_error(&raw(&header, text)),
            Some(JwtError::Claims),
            "{text}"
        );
    }
    let more = format!("{claims}{claims}");
    assert_eq!(jwt_error(&raw(&header, &more)), Some(JwtError::Claims));
}

#[test]
fn deep_nesting_exhausts_nothing() {
    let nested = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    let claims = proof_claims().to_string();
    let claims = format!(r#"{{"deep":{nested},{}"#, &claims[1..]);
    let token = raw(&proof_header().to_string(), &claims);
    // What is not looked at may be as deep as it likes.
    assert!(Proof::parse(&token).is_ok());
    let unclosed = raw(&"{\"a\":".repeat(300), "{}");
    assert_eq!(jwt_error(&unclosed), Some(JwtError::Header));
}

#[test]
fn nothing_of_a_token_is_shown() {
    let token = Key::p256(1).token(&proof_header(), &proof_claims());
    let shown = format!("{:?}", Proof::parse(&token).unwrap());
    assert_eq!(shown, "Unverified(..)");
    let secret = raw(r#"{"alg":"a secret"}"#, r#"{"jti":"a secret"}"#);
    let error = Proof::parse(&secret).unwrap_err();
    assert!(!format!("{error:?} {error}").contains("secret"));
}

fn access_header() -> Value {
    json!({ "typ": "at+jwt", "alg": "HS256" })
}

fn access_claims() -> Value {
    support::part(real()["accessToken"].as_str().unwrap(), 1)
}

fn hints(header: &Value, claims: &Value) -> Result<Hints, HintsError> {
    Hints::parse(&format!("{}.AAAA", unsigned(header, claims)))
}

#[test]
fn anybody_can_write_an_access_token_so_its_signature_is_not_looked_at() {
    let hints = hints(&access_header(), &access_claims()).unwrap();
    assert_eq!(hints.exp_s, access_claims()["exp"]);
}

#[test]
fn a_token_of_another_type_is_no_access_token() {
    for typ in ["JWT", "dpop+jwt", "refresh+jwt", ""] {
        let refused = hints(&with(&access_header(), "typ", typ), &access_claims());
        assert_eq!(refused, Err(HintsError::Type));
    }
    let refused = hints(&without(&access_header(), "typ"), &access_claims());
    assert_eq!(refused, Err(HintsError::Type));
}

#[test]
fn an_access_token_has_all_its_hints_and_they_are_well_formed() {
    for name in ["sub", "client_id", "exp", "cnf"] {
        let refused = hints(&access_header(), &without(&access_claims(), name));
        assert_eq!(refused, Err(HintsError::Jwt(JwtError::Claims)), "{name}");
    }
    for sub in [
        "",
        "did:plc:short",
        "did:key:zQ3s",
        "did:web:example.com#a",
        "alice.test",
    ] {
        let refused = hints(&access_header(), &with(&access_claims(), "sub", sub));
        assert!(matches!(refused, Err(HintsError::Subject(_))), "{sub}");
    }
    for client_id in [String::new(), "a".repeat(2049)] {
        let refused = hints(
            &access_header(),
            &with(&access_claims(), "client_id", client_id),
        );
        assert_eq!(refused, Err(HintsError::ClientId));
    }
    let refused = hints(
        &access_header(),
        &with(&access_claims(), "cnf", json!({ "jkt": "a" })),
    );
    assert!(matches!(refused, Err(HintsError::Key(_))));
}
