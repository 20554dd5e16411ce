//! Attacks on proofs of possession, each named by what it tries.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use atproto::{InvalidKey, JwtError, Proof, ProofError, Untimely, Verified, dpop::Expected};
use serde_json::{Value, json};
use support::{Key, NOW_S, base64url, hs256_token, sha256, unsigned, with, without};
use url::Url;

const URL: &str = "https://sync.example.com/authenticate";
const TOKEN: &str = "an access token";
const NONCE: &str = "ours";

fn header(key: &Key) -> Value {
    json!({ "typ": "dpop+jwt", "alg": key.algorithm(), "jwk": key.jwk() })
}

fn claims() -> Value {
    json!({
        "jti": "once", "iat": NOW_S, "htm": "POST", "htu": URL, "ath": sha256(TOKEN), "nonce": NONCE,
    })
}

fn expect<T>(look: impl FnOnce(&Expected<'_>) -> T) -> T {
    let url: Url = URL.parse().unwrap();
    look(&Expected {
        method: "POST",
        url: &url,
        access_token: Some(TOKEN),
        now_s: NOW_S,
        nonce: &|nonce| nonce == NONCE,
    })
}

fn verify(proof: &str) -> Result<Verified<Proof>, ProofError> {
    expect(|expected| Proof::parse(proof)?.verify(expected))
}

/// What is said of an honest proof with these claims.
fn verify_claims(claims: &Value) -> Result<(), ProofError> {
    let key = Key::p256(1);
    verify(&key.token(&header(&key), claims)).map(drop)
}

/// What is said of an honest proof with this header.
fn verify_header(header: &Value) -> Result<(), ProofError> {
    verify(&Key::p256(1).token(header, &claims())).map(drop)
}

#[test]
fn an_honest_proof_is_verified_with_a_key_of_either_curve() {
    for key in Key::both(1) {
        let verified = verify(&key.token(&header(&key), &claims())).unwrap();
        assert_eq!(verified.jkt(), key.public().thumbprint());
        assert_eq!(verified.jti(), "once");
        assert_eq!(verified.iat_s(), NOW_S);
    }
}

#[test]
fn an_honest_proof_with_a_high_s_is_verified() {
    for key in Key::both(1) {
        assert!(verify(&key.high_s_token(&header(&key), &claims())).is_ok());
    }
}

#[test]
fn a_proof_without_a_signature_is_refused() {
    let header = header(&Key::p256(1));
    for name in [
        "none", "None", "NONE", "", "HS256", "RS256", "ES384", "EdDSA", "es256",
    ] {
        let unsigned = unsigned(&with(&header, "alg", name), &claims());
        let refused = verify(&format!("{unsigned}.")).unwrap_err();
        assert_eq!(refused, ProofError::Algorithm, "{name}");
    }
    let unsigned = unsigned(&header, &claims());
    assert!(matches!(
        verify(&format!("{unsigned}.")),
        Err(ProofError::Signature(_))
    ));
}

#[test]
fn a_public_key_is_no_secret_for_hs256() {
    let key = Key::p256(1);
    let header = with(&header(&key), "alg", "HS256");
    for secret in [
        key.point(),
        key.compressed_point(),
        key.jwk().to_string().into_bytes(),
    ] {
        let proof = hs256_token(&secret, &header, &claims());
        assert_eq!(verify(&proof).unwrap_err(), ProofError::Algorithm);
    }
}

#[test]
fn a_proof_whose_algorithm_is_not_that_of_its_key_is_refused() {
    let [p256, k256] = Key::both(1);
    for (key, algorithm) in [(&p256, "ES256K"), (&k256, "ES256")] {
        for signer in [&p256, &k256] {
            let proof = signer.token(&with(&header(key), "alg", algorithm), &claims());
            assert_eq!(verify(&proof).unwrap_err(), ProofError::Algorithm);
        }
    }
}

#[test]
fn a_key_with_a_private_part_is_refused() {
    let key = Key::p256(1);
    let jwk = with(&key.jwk(), "d", base64url(&[1; 32]));
    let refused = verify_header(&with(&header(&key), "jwk", jwk));
    assert_eq!(refused, Err(ProofError::Key(InvalidKey::Private)));
    // A symmetric key, whole.
    let jwk = json!({ "kty": "oct", "k": base64url(&[1; 32]) });
    let refused = verify_header(&with(&header(&key), "jwk", jwk));
    assert_eq!(refused, Err(ProofError::Key(InvalidKey::Private)));
}

#[test]
fn a_proof_without_a_key_is_refused_and_no_key_is_looked_for_elsewhere() {
    let header = without(&header(&Key::p256(1)), "jwk");
    let missing = Err(ProofError::Key(InvalidKey::Jwk));
    assert_eq!(verify_header(&header), missing);
    for name in ["kid", "jku", "x5u"] {
        let header = with(&header, name, "https://evil.example.com/jwks.json");
        assert_eq!(verify_header(&header), missing);
    }
}

#[test]
fn a_proof_signed_by_another_key_is_refused() {
    for (victim, thief) in Key::both(1).iter().zip(Key::both(2)) {
        let proof = thief.token(&header(victim), &claims());
        assert!(matches!(verify(&proof), Err(ProofError::Signature(_))));
    }
}

#[test]
fn a_proof_whose_claims_were_exchanged_is_refused() {
    let key = Key::p256(1);
    let proof = key.token(&header(&key), &claims());
    let (_, signature) = proof.rsplit_once('.').unwrap();
    let other = unsigned(&header(&key), &with(&claims(), "jti", "twice"));
    let refused = verify(&format!("{other}.{signature}"));
    assert!(matches!(refused, Err(ProofError::Signature(_))));
}

#[test]
fn a_token_of_another_type_is_no_proof() {
    let header = header(&Key::p256(1));
    for typ in ["JWT", "at+jwt", "dpop", "dpop+jwt2", ""] {
        assert_eq!(
            verify_header(&with(&header, "typ", typ)),
            Err(ProofError::Type)
        );
    }
    assert_eq!(
        verify_header(&without(&header, "typ")),
        Err(ProofError::Type)
    );
    // Media types have no case.
    assert_eq!(verify_header(&with(&header, "typ", "DPoP+JWT")), Ok(()));
    assert_eq!(
        verify_header(&with(&header, "typ", "application/dpop+jwt")),
        Ok(())
    );
}

#[test]
fn a_proof_that_asks_for_an_extension_is_refused() {
    let header = header(&Key::p256(1));
    for crit in [json!(["b64"]), json!([]), json!(null), json!("exp")] {
        let refused = verify_header(&with(&header, "crit", crit));
        assert_eq!(refused, Err(ProofError::Jwt(JwtError::Critical)));
    }
}

#[test]
fn a_proof_for_another_method_is_refused() {
    for method in ["GET", "post", "POST ", ""] {
        assert_eq!(
            verify_claims(&with(&claims(), "htm", method)),
            Err(ProofError::Method)
        );
    }
}

#[test]
fn a_proof_for_another_address_is_refused() {
    for htu in [
        "https://sync.example.com/",
        "https://sync.example.com/authenticate/",
        "https://sync.example.com/Authenticate",
        "https://sync.example.com/x/../other",
        "https://sync.example.com:8443/authenticate",
        "http://sync.example.com/authenticate",
        "http://sync.example.com:443/authenticate",
        "https://sync.example.com.evil.com/authenticate",
        "https://evil.com/authenticate?https://sync.example.com/authenticate",
        "https://sync.example.com@evil.com/authenticate",
        "https://somebody@sync.example.com/authenticate",
        "https://:secret@sync.example.com/authenticate",
        "sync.example.com/authenticate",
        "/authenticate",
        "",
    ] {
        let refused = verify_claims(&with(&claims(), "htu", htu));
        assert_eq!(refused, Err(ProofError::Address), "{htu}");
    }
}

#[test]
fn an_address_may_be_written_in_another_way_and_keep_query_and_fragment() {
    for htu in [
        "https://SYNC.example.com/authenticate",
        "https://sync.example.com:443/authenticate",
        "https://sync.example.com/authenticate?group=a",
        "https://sync.example.com/authenticate#top",
        "https://sync.example.com/authenticate?a#b",
    ] {
        assert_eq!(verify_claims(&with(&claims(), "htu", htu)), Ok(()), "{htu}");
    }
}

#[test]
fn a_proof_for_another_token_or_none_is_refused() {
    let other = with(&claims(), "ath", sha256("another token"));
    assert_eq!(verify_claims(&other), Err(ProofError::Token));
    let padded = with(&claims(), "ath", format!("{}=", sha256(TOKEN)));
    assert_eq!(verify_claims(&padded), Err(ProofError::Token));
    assert_eq!(
        verify_claims(&without(&claims(), "ath")),
        Err(ProofError::Token)
    );
}

#[test]
fn a_proof_that_stands_alone_needs_no_token() {
    let key = Key::p256(1);
    let url: Url = URL.parse().unwrap();
    let expected = Expected {
        method: "POST",
        url: &url,
        access_token: None,
        now_s: NOW_S,
        nonce: &|nonce| nonce == NONCE,
    };
    let proof = key.token(&header(&key), &without(&claims(), "ath"));
    assert!(Proof::parse(&proof).unwrap().verify(&expected).is_ok());
}

#[test]
fn a_proof_of_another_time_is_refused() {
    let at = |name, offset_s: i64| verify_claims(&with(&claims(), name, NOW_S + offset_s));
    assert_eq!(at("iat", -60), Ok(()));
    assert_eq!(at("iat", 60), Ok(()));
    assert_eq!(at("iat", -61), Err(ProofError::Time(Untimely::Old)));
    assert_eq!(at("iat", 61), Err(ProofError::Time(Untimely::Future)));
    assert_eq!(at("exp", 1), Ok(()));
    assert_eq!(at("exp", 0), Err(ProofError::Time(Untimely::Expired)));
    assert_eq!(at("nbf", 60), Ok(()));
    assert_eq!(at("nbf", 61), Err(ProofError::Time(Untimely::Future)));
    for extreme in [i64::MIN, i64::MAX] {
        assert!(verify_claims(&with(&claims(), "iat", extreme)).is_err());
    }
}

#[test]
fn a_proof_with_a_nonce_that_is_not_ours_is_told_to_try_again() {
    let other = with(&claims(), "nonce", "theirs");
    assert_eq!(verify_claims(&other), Err(ProofError::Nonce));
    assert_eq!(
        verify_claims(&without(&claims(), "nonce")),
        Err(ProofError::Nonce)
    );
    assert_eq!(
        verify_claims(&with(&claims(), "nonce", Value::Null)),
        Err(ProofError::Nonce)
    );
}

#[test]
fn what_is_not_for_this_request_is_not_told_to_try_again() {
    let claims = without(&claims(), "nonce");
    let refused = verify_claims(&with(&claims, "htm", "GET"));
    assert_eq!(refused, Err(ProofError::Method));
    let refused = verify_claims(&with(&claims, "iat", NOW_S - 3600));
    assert_eq!(refused, Err(ProofError::Time(Untimely::Old)));
}

#[test]
fn a_proof_whose_claims_are_missing_or_of_another_type_is_refused() {
    for name in ["jti", "iat", "htm", "htu"] {
        let malformed = Err(ProofError::Jwt(JwtError::Claims));
        assert_eq!(
            verify_claims(&without(&claims(), name)),
            malformed,
            "{name}"
        );
        for value in [
            json!(null),
            json!([claims()[name]]),
            json!({}),
            json!(1.5),
            json!(true),
        ] {
            assert_eq!(
                verify_claims(&with(&claims(), name, value)),
                malformed,
                "{name}"
            );
        }
    }
}

#[test]
fn the_id_of_a_proof_has_1_to_256_bytes() {
    let with_id = |id: &str| verify_claims(&with(&claims(), "jti", id));
    assert_eq!(with_id("a"), Ok(()));
    assert_eq!(with_id(&"a".repeat(256)), Ok(()));
    for id in [String::new(), "a".repeat(257), "é".repeat(129)] {
        assert_eq!(with_id(&id), Err(ProofError::Jwt(JwtError::Claims)));
    }
}

#[test]
fn old_clients_that_name_themselves_are_understood() {
    // @atproto/oauth-client 0.3 adds its client id, and leaves query and fragment in the address.
    let claims = with(
        &claims(),
        "iss",
        "https://app.example.com/client-metadata.json",
    );
    let claims = with(&claims, "htu", format!("{URL}?group=a#b"));
    assert_eq!(verify_claims(&claims), Ok(()));
}
