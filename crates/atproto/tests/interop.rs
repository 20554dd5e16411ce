//! The test data of atproto itself.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use atproto::{Algorithm, Did, Handle, Malleability, PublicKey};
use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use serde_json::Value;
use support::Key;

const SIGNATURES: &str = include_str!("vectors/interop/signature-fixtures.json");
const K256_KEYS: &str = include_str!("vectors/interop/w3c_didkey_K256.json");
const P256_KEYS: &str = include_str!("vectors/interop/w3c_didkey_P256.json");
const DIDS_VALID: &str = include_str!("vectors/interop/did_syntax_valid.txt");
const DIDS_INVALID: &str = include_str!("vectors/interop/did_syntax_invalid.txt");
const DIDS_NOT_OF_ATPROTO: &str = include_str!("vectors/interop/did_parse_invalid.txt");
const HANDLES_INVALID: &str = include_str!("vectors/interop/handle_syntax_invalid.txt");

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn objects(json: &str) -> Vec<Value> {
    serde_json::from_str(json).unwrap()
}

#[test]
fn signatures_with_a_high_s_are_refused_as_atproto_has_it() {
    for case in objects(SIGNATURES) {
        let text = |name: &str| case[name].as_str().unwrap();
        let bytes = |name| BASE64_STANDARD_NO_PAD.decode(text(name)).unwrap();
        let key = PublicKey::from_did_key(text("publicKeyDid")).unwrap();
        let algorithm = Algorithm::from_name(text("algorithm")).unwrap();
        let legacy = PublicKey::from_legacy_multibase(algorithm, text("publicKeyMultibase"));
        assert_eq!(legacy, Ok(key.clone()));

        let verify = |how| key.verify(&bytes("messageBase64"), &bytes("signatureBase64"), how);
        assert_eq!(
            verify(Malleability::Refused).is_ok(),
            case["validSignature"].as_bool().unwrap(),
            "{}",
            text("comment")
        );
        assert_eq!(verify(Malleability::Accepted), Ok(()));
    }
}

#[test]
fn a_did_key_is_the_public_half_of_its_private_key() {
    let mut keys = vec![];
    for case in objects(K256_KEYS) {
        let hex = case["privateKeyBytesHex"].as_str().unwrap();
        let byte = |index: usize| u8::from_str_radix(&hex[index..index + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let key = Key::K256(k256::ecdsa::SigningKey::from_slice(&bytes).unwrap());
        keys.push((key, case));
    }
    for case in objects(P256_KEYS) {
        let base58 = case["privateKeyBytesBase58"].as_str().unwrap();
        let bytes = bs58::decode(base58).into_vec().unwrap();
        let key = Key::P256(p256::ecdsa::SigningKey::from_slice(&bytes).unwrap());
        keys.push((key, case));
    }
    assert_eq!(keys.len(), 6);
    for (key, case) in keys {
        let did_key = case["publicDidKey"].as_str().unwrap();
        assert_eq!(did_key, format!("did:key:{}", key.multikey()));
        assert_eq!(PublicKey::from_did_key(did_key), Ok(key.public()));
    }
}

#[test]
fn what_is_no_did_is_refused() {
    for text in lines(DIDS_INVALID) {
        assert!(text.parse::<Did>().is_err(), "{text}");
    }
}

#[test]
fn of_the_valid_dids_those_of_accounts_are_taken() {
    let taken: Vec<&str> = lines(DIDS_VALID)
        .filter(|text| text.parse::<Did>().is_ok())
        .collect();
    assert_eq!(
        taken,
        [
            "did:plc:7iza6de2dwap2sbkpav7c6c6",
            "did:web:example.com",
            "did:web:localhost%3A1234"
        ]
    );
}

#[test]
fn dids_that_no_account_may_have_are_refused() {
    // The file of refused DIDs has this one as well, by mistake: the file of valid ones has it too.
    let valid = "did:plc:7iza6de2dwap2sbkpav7c6c6";
    for text in lines(DIDS_NOT_OF_ATPROTO).filter(|text| *text != valid) {
        assert!(text.parse::<Did>().is_err(), "{text}");
    }
}

#[test]
fn what_is_no_handle_is_refused() {
    for text in lines(HANDLES_INVALID) {
        assert!(text.parse::<Handle>().is_err(), "{text}");
    }
}
