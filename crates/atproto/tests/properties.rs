//! What holds of any input at all, and of real tokens with something changed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;
mod targets;

use atproto::{
    ClientMetadata, DidDocument, Proof, PublicKey, ServiceAuth, Thumbprint, dpop, service_auth,
};
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Value, json};
use support::{Key, NOW_S, real};

/// One change to a text: what is put, and in place of how much.
type Change = (Index, Vec<u8>, usize);

fn change() -> impl Strategy<Value = Change> {
    let put = prop_oneof![
        vec(any::<u8>(), 0..4),
        vec(
            prop::sample::select(&b"{}[]\":,.\\-_=019aAz#/?@%\x00"[..]),
            0..4
        ),
        Just(b"null".to_vec()),
        Just(b"-9223372036854775808".to_vec()),
        Just("é\u{202e}".as_bytes().to_vec()),
    ];
    (any::<Index>(), put, 0..4usize)
}

fn changed(text: &str, changes: Vec<Change>) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (place, put, taken) in changes {
        let start = place.index(bytes.len() + 1);
        let end = (start + taken).min(bytes.len());
        bytes.splice(start..end, put);
    }
    bytes
}

/// Real tokens and documents, each also in the form in which a fuzz target takes it.
fn seeds() -> Vec<String> {
    let real = real();
    let mut seeds = vec![real["didDocument"].to_string(), metadata().to_string()];
    for token in [
        &real["serviceAuth"],
        &real["accessToken"],
        &real["dpopProofs"][1],
    ] {
        let token = token.as_str().unwrap();
        seeds.push(token.to_owned());
        seeds.push(format!(
            "{}\n{}",
            support::part(token, 0),
            support::part(token, 1)
        ));
    }
    for key in Key::both(1) {
        seeds.push(key.multikey());
        seeds.push(key.jwk().to_string());
    }
    seeds.extend([
        "http://localhost?redirect_uri=http%3A%2F%2F127.0.0.1%2F".to_owned(),
        "https://app.example.com/client-metadata.json".to_owned(),
        "did:web:localhost%3A3031".to_owned(),
        "alice.example.com".to_owned(),
    ]);
    seeds
}

fn metadata() -> Value {
    json!({
        "client_id": "https://app.example.com/client-metadata.json",
        "redirect_uris": ["https://app.example.com/back"],
    })
}

/// The text with one character exchanged for another.
fn one_exchanged(text: &str, place: Index, letter: char) -> Option<String> {
    let place = place.index(text.len());
    let mut changed = text.to_owned();
    changed.replace_range(place..=place, letter.encode_utf8(&mut [0; 4]));
    (changed != text).then_some(changed)
}

proptest! {
    #[test]
    fn no_bytes_break_a_parser(data in vec(any::<u8>(), 0..600)) {
        for (_, run) in targets::ALL {
            run(&data);
        }
    }

    #[test]
    fn no_text_breaks_a_parser(text in "\\PC{0,300}") {
        for (_, run) in targets::ALL {
            run(text.as_bytes());
        }
    }

    #[test]
    fn nothing_real_with_something_changed_breaks_a_parser(
        seed in any::<Index>(),
        changes in vec(change(), 1..6),
    ) {
        let seeds = seeds();
        let seed: &String = seed.get(&seeds);
        let data = changed(seed, changes);
        for (_, run) in targets::ALL {
            run(&data);
        }
    }

    #[test]
    fn a_proof_with_one_character_changed_is_not_verified(
        place in any::<Index>(),
        letter in "[A-Za-z0-9_.=-]",
    ) {
        let real = real();
        let proof = real["dpopProofs"][1].as_str().unwrap();
        let url = "http://localhost:3031/authenticate".parse().unwrap();
        let expected = dpop::Expected {
            method: "POST",
            url: &url,
            access_token: real["accessToken"].as_str(),
            now_s: NOW_S,
            nonce: &|_| true,
        };
        let verify = |text: &str| Proof::parse(text)?.verify(&expected);
        prop_assert!(verify(proof).is_ok());
        if let Some(other) = one_exchanged(proof, place, letter.chars().next().unwrap()) {
            prop_assert!(verify(&other).is_err());
        }
    }

    #[test]
    fn service_auth_with_one_character_changed_is_not_verified(
        place in any::<Index>(),
        letter in "[A-Za-z0-9_.=-]",
    ) {
        let real = real();
        let token = real["serviceAuth"].as_str().unwrap();
        let issuer = real["did"].as_str().unwrap().parse().unwrap();
        let document = DidDocument::parse(real["didDocument"].to_string().as_bytes(), &issuer).unwrap();
        let expected = service_auth::Expected {
            issuer: &issuer,
            audiences: &["did:web:localhost%3A3031#groundmist_pss"],
            method: "xyz.groundmist.sync.getToken",
            now_s: NOW_S,
        };
        let verify = |text: &str| ServiceAuth::parse(text)?.verify(document.signing_key().unwrap(), &expected);
        prop_assert!(verify(token).is_ok());
        if let Some(other) = one_exchanged(token, place, letter.chars().next().unwrap()) {
            prop_assert!(verify(&other).is_err());
        }
    }

    #[test]
    fn no_other_origin_than_its_own_is_the_apps(changes in vec(change(), 1..4)) {
        let id = "https://app.example.com/client-metadata.json".parse().unwrap();
        let metadata = ClientMetadata::parse(metadata().to_string().as_bytes(), &id).unwrap();
        let own = "https://app.example.com";
        if let Ok(origin) = String::from_utf8(changed(own, changes)) {
            prop_assert_eq!(metadata.allows_origin(&origin), origin == own);
        }
    }

    #[test]
    fn any_hash_is_a_thumbprint_and_any_thumbprint_is_read_back(hash in any::<[u8; 32]>()) {
        let thumbprint = Thumbprint::from(hash);
        prop_assert_eq!(thumbprint.to_string().len(), 43);
        prop_assert_eq!(thumbprint.to_string().parse(), Ok(thumbprint));
    }

    #[test]
    fn any_key_is_read_back_and_verifies_what_it_signed_alone(
        seed in 1..=254u8,
        message in vec(any::<u8>(), 0..100),
        other in vec(any::<u8>(), 0..100),
    ) {
        for key in Key::both(seed) {
            let public = PublicKey::from_multikey(&key.multikey()).unwrap();
            for signature in key.signatures(&message) {
                let verify = |message: &[u8]| public.verify(message, &signature, atproto::Malleability::Accepted);
                prop_assert!(verify(&message).is_ok());
                prop_assert_eq!(verify(&other).is_ok(), other == message);
            }
        }
    }
}
