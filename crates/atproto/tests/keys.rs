//! Keys that are none, or are not what they pretend to be.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use atproto::{Algorithm, InvalidKey, InvalidSignature, Malleability, PublicKey};
use serde_json::json;
use support::{Key, base64url, multibase, with, without};

#[test]
fn a_key_is_the_same_in_all_its_forms() {
    for key in Key::both(1) {
        let public = key.public();
        let algorithm = Algorithm::from_name(key.algorithm()).unwrap();
        assert_eq!(public.algorithm(), algorithm);
        for same in [
            PublicKey::from_jwk(key.jwk().to_string().as_bytes()),
            PublicKey::from_did_key(&format!("did:key:{}", key.multikey())),
            PublicKey::from_legacy_multibase(algorithm, &multibase(&key.point())),
            PublicKey::from_legacy_multibase(algorithm, &multibase(&key.compressed_point())),
        ] {
            assert_eq!(same, Ok(public.clone()));
        }
    }
}

#[test]
fn a_jwk_with_a_private_part_is_refused() {
    for key in Key::both(1) {
        for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            for value in [json!("AAAA"), json!(null), json!([])] {
                let jwk = with(&key.jwk(), name, value).to_string();
                let read = PublicKey::from_jwk(jwk.as_bytes());
                assert_eq!(read, Err(InvalidKey::Private), "{jwk}");
            }
        }
    }
}

#[test]
fn a_jwk_of_another_kind_curve_or_use_is_refused() {
    let jwk = Key::p256(1).jwk();
    for (jwk, fault) in [
        (with(&jwk, "kty", "OKP"), InvalidKey::Kind),
        (with(&jwk, "kty", "RSA"), InvalidKey::Kind),
        (with(&jwk, "crv", "P-384"), InvalidKey::Kind),
        // The point is on the other curve.
        (with(&jwk, "crv", "secp256k1"), InvalidKey::Point),
        (with(&jwk, "alg", "ES256K"), InvalidKey::Use),
        (with(&jwk, "alg", "none"), InvalidKey::Use),
        (with(&jwk, "use", "enc"), InvalidKey::Use),
        (without(&jwk, "y"), InvalidKey::Jwk),
        (without(&jwk, "kty"), InvalidKey::Jwk),
        (with(&jwk, "x", 7), InvalidKey::Jwk),
        (json!([jwk]), InvalidKey::Jwk),
    ] {
        let read = PublicKey::from_jwk(jwk.to_string().as_bytes());
        assert_eq!(read, Err(fault), "{jwk}");
    }
    let used = with(&with(&jwk, "alg", "ES256"), "use", "sig");
    assert!(PublicKey::from_jwk(used.to_string().as_bytes()).is_ok());
}

#[test]
fn a_jwk_with_a_member_twice_is_refused() {
    let jwk = Key::p256(1).jwk().to_string();
    let twice = format!(r#"{{"x":"{}",{}"#, base64url(&[7; 32]), &jwk[1..]);
    assert_eq!(PublicKey::from_jwk(twice.as_bytes()), Err(InvalidKey::Jwk));
}

#[test]
fn a_point_that_is_not_on_the_curve_is_refused() {
    let jwk = Key::p256(1).jwk();
    for bytes in [&[0; 32][..], &[0xff; 32], &[1; 32], &[1; 31], &[1; 33], &[]] {
        let jwk = with(&jwk, "y", base64url(bytes)).to_string();
        let read = PublicKey::from_jwk(jwk.as_bytes());
        assert_eq!(read, Err(InvalidKey::Point), "{jwk}");
    }
}

#[test]
fn a_multikey_of_another_form_is_refused() {
    let key = Key::p256(1);
    let codec = [0x80, 0x24];
    let prefixed = |point: &[u8]| multibase(&[&codec[..], point].concat());
    for (text, fault) in [
        (String::new(), InvalidKey::Multibase),
        ("z".to_owned(), InvalidKey::Kind),
        (key.multikey()[1..].to_owned(), InvalidKey::Multibase),
        (key.multikey().replacen('z', "m", 1), InvalidKey::Multibase),
        (format!("{}0", key.multikey()), InvalidKey::Multibase),
        ("z".repeat(129), InvalidKey::Multibase),
        // An Ed25519 key.
        (
            multibase(&[&[0xed, 0x01][..], &[7; 32]].concat()),
            InvalidKey::Kind,
        ),
        (prefixed(&key.point()), InvalidKey::Point),
        (prefixed(&[]), InvalidKey::Point),
        (prefixed(&[0]), InvalidKey::Point),
        (prefixed(&key.compressed_point()[..32]), InvalidKey::Point),
        (
            prefixed(&[&key.compressed_point()[..], &[0]].concat()),
            InvalidKey::Point,
        ),
        (
            prefixed(&[&[2][..], &[0xff; 32]].concat()),
            InvalidKey::Point,
        ),
    ] {
        assert_eq!(PublicKey::from_multikey(&text), Err(fault), "{text}");
    }
}

#[test]
fn the_neutral_point_is_no_key() {
    for algorithm in [Algorithm::Es256, Algorithm::Es256k] {
        let read = PublicKey::from_legacy_multibase(algorithm, &multibase(&[0]));
        assert_eq!(read, Err(InvalidKey::Point));
    }
}

#[test]
fn a_signature_with_a_high_s_is_taken_only_where_it_may_be() {
    for key in Key::both(1) {
        let [low, high] = key.signatures(b"message");
        assert_ne!(low, high);
        let verify = |signature: &[u8], how| key.public().verify(b"message", signature, how);
        assert_eq!(verify(&low, Malleability::Refused), Ok(()));
        assert_eq!(verify(&low, Malleability::Accepted), Ok(()));
        assert_eq!(verify(&high, Malleability::Accepted), Ok(()));
        assert_eq!(verify(&high, Malleability::Refused), Err(InvalidSignature));
    }
}

#[test]
fn signatures_of_zeros_and_of_other_lengths_are_refused() {
    for key in Key::both(1) {
        let [low, _] = key.signatures(b"message");
        let short = &low[..63];
        let long = [&low[..], &[0]].concat();
        for signature in [&[][..], &[0; 64], &[0xff; 64], &[1; 64], short, &long] {
            let verified = key
                .public()
                .verify(b"message", signature, Malleability::Accepted);
            assert_eq!(verified, Err(InvalidSignature));
        }
        let other = key
            .public()
            .verify(b"massage", &low, Malleability::Accepted);
        assert_eq!(other, Err(InvalidSignature));
    }
}

#[test]
fn a_key_is_shown_by_its_thumbprint() {
    let key = Key::p256(1).public();
    let shown = format!("{key:?}");
    assert_eq!(shown, format!("PublicKey(ES256 {})", key.thumbprint()));
}
