//! Tokens that a real PDS and stock clients made.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use atproto::{
    Did, DidDocument, Handle, Hints, Loopback, Malleability, Proof, ProofError, PublicKey,
    ServiceAuth, dpop, service_auth,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;
use support::{part, real};

fn proofs(real: &Value) -> Vec<&str> {
    let proofs = real["dpopProofs"].as_array().unwrap();
    proofs.iter().map(|proof| proof.as_str().unwrap()).collect()
}

fn document(real: &Value) -> DidDocument {
    let did: Did = real["did"].as_str().unwrap().parse().unwrap();
    DidDocument::parse(real["didDocument"].to_string().as_bytes(), &did).unwrap()
}

#[test]
fn every_proof_is_verified_in_its_own_time_once_it_has_the_nonce() {
    let real = real();
    let url = "http://localhost:3031/authenticate".parse().unwrap();
    let mut with_nonce = 0;
    for proof in proofs(&real) {
        let claims = part(proof, 1);
        let expected = dpop::Expected {
            method: "POST",
            url: &url,
            access_token: real["accessToken"].as_str(),
            now_s: claims["iat"].as_i64().unwrap(),
            nonce: &|nonce| nonce == "nonce-from-dummy-pss",
        };
        let parsed = Proof::parse(proof).unwrap();
        let thumbprint = parsed.thumbprint();
        let verified = parsed.verify(&expected);
        if claims["nonce"].is_null() {
            assert_eq!(verified.unwrap_err(), ProofError::Nonce);
        } else {
            let verified = verified.unwrap();
            assert_eq!(verified.jkt(), thumbprint);
            assert_eq!(verified.jti(), claims["jti"]);
            assert_eq!(verified.iat_s(), claims["iat"]);
            with_nonce += 1;
        }
    }
    // Each client asks once without a nonce, because it has none yet.
    assert_eq!((proofs(&real).len(), with_nonce), (31, 30));
}

#[test]
fn honest_signatures_have_a_low_s_and_a_high_s() {
    let real = real();
    let mut low = 0;
    let mut high = 0;
    for proof in proofs(&real) {
        let key = PublicKey::from_jwk(part(proof, 0)["jwk"].to_string().as_bytes()).unwrap();
        let (signed, signature) = proof.rsplit_once('.').unwrap();
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
        let verify = |how| key.verify(signed.as_bytes(), &signature, how);
        assert_eq!(verify(Malleability::Accepted), Ok(()));
        match verify(Malleability::Refused) {
            Ok(()) => low += 1,
            Err(_) => high += 1,
        }
    }
    assert_eq!(low + high, 31);
    assert!(low > 0 && high > 0, "{low} low and {high} high");
}

#[test]
fn the_access_token_hints_at_the_account_and_the_key_of_the_proofs() {
    let real = real();
    let hints = Hints::parse(real["accessToken"].as_str().unwrap()).unwrap();
    let proof = Proof::parse(proofs(&real)[0]).unwrap();
    assert_eq!(hints.jkt, proof.thumbprint());
    assert_eq!(hints.sub.as_str(), real["did"]);
    assert_eq!(hints.exp_s, 1_795_453_353);
    let client_id: atproto::ClientId = hints.client_id.parse().unwrap();
    assert!(client_id.metadata_url().is_none());
}

#[test]
fn the_service_auth_token_is_verified_with_the_key_in_the_did_document() {
    let real = real();
    let document = document(&real);
    let token = real["serviceAuth"].as_str().unwrap();
    let issuer = real["did"].as_str().unwrap().parse().unwrap();
    let expected = service_auth::Expected {
        issuer: &issuer,
        audiences: &["did:web:localhost%3A3031#groundmist_pss"],
        method: "xyz.groundmist.sync.getToken",
        now_s: 1_795_449_753,
    };
    let verified = ServiceAuth::parse(token)
        .unwrap()
        .verify(document.signing_key().unwrap(), &expected)
        .unwrap();
    assert_eq!(verified.issuer(), &issuer);
    assert_eq!(verified.jti(), "97f6e0e69c547c42748a38cd85290a7d");
    assert_eq!(verified.expires_at_s(), 1_795_449_813);
    assert_eq!(verified.audience(), expected.audiences[0]);
}

#[test]
fn the_did_document_tells_handle_and_pds() {
    let document = document(&real());
    assert_eq!(document.handle().map(Handle::as_str), Some("alice.test"));
    let pds = document.pds(Loopback::Accepted).unwrap();
    assert_eq!(pds.as_str(), "http://localhost:2583/");
    assert_eq!(document.pds(Loopback::Refused), None);
}
