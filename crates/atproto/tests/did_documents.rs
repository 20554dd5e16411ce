//! DID documents that say more, less or something else than they should.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use atproto::{
    Did, DidDocument, DidDocumentError, Handle, InvalidKey, Loopback, ServiceAuth,
    ServiceAuthError, SigningKeyError, service_auth::Expected,
};
use serde_json::{Value, json};
use support::{Key, NOW_S, multibase, with, without};

const DID: &str = "did:plc:6lb3s4czl5fpblredspfeckp";

fn method(id: &str, key: &Key) -> Value {
    json!({ "id": id, "type": "Multikey", "controller": DID, "publicKeyMultibase": key.multikey() })
}

fn service(endpoint: &str) -> Value {
    json!({
        "id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": endpoint,
    })
}

fn document() -> Value {
    json!({
        "@context": ["https://www.w3.org/ns/did/v1"],
        "id": DID,
        "alsoKnownAs": ["at://alice.test"],
        "verificationMethod": [method(&format!("{DID}#atproto"), &Key::k256(1))],
        "service": [service("https://pds.example.com")],
    })
}

fn parse(document: &Value) -> Result<DidDocument, DidDocumentError> {
    DidDocument::parse(document.to_string().as_bytes(), &DID.parse().unwrap())
}

fn signing_key(methods: Value) -> Result<atproto::PublicKey, SigningKeyError> {
    let document = parse(&with(&document(), "verificationMethod", methods)).unwrap();
    document.signing_key().cloned()
}

fn pds(services: Value) -> Option<String> {
    let document = parse(&with(&document(), "service", services)).unwrap();
    document.pds(Loopback::Refused).map(ToString::to_string)
}

#[test]
fn a_whole_document_tells_key_pds_and_handle() {
    let document = parse(&document()).unwrap();
    assert_eq!(document.did().as_str(), DID);
    assert_eq!(document.signing_key(), Ok(&Key::k256(1).public()));
    let pds = document.pds(Loopback::Refused).unwrap();
    assert_eq!(pds.as_str(), "https://pds.example.com/");
    assert_eq!(document.handle().map(Handle::as_str), Some("alice.test"));
}

#[test]
fn a_document_of_another_account_is_refused() {
    for id in [
        "did:plc:ewvi7nxzyoun6zhxrhs64oiz",
        "",
        &format!("{DID}#atproto"),
        &DID.to_uppercase(),
    ] {
        let refused = parse(&with(&document(), "id", id)).unwrap_err();
        assert_eq!(refused, DidDocumentError::OtherDid, "{id}");
    }
    assert_eq!(
        parse(&without(&document(), "id")).unwrap_err(),
        DidDocumentError::Form
    );
}

#[test]
fn what_a_second_key_signed_is_refused() {
    let [first, second] = [Key::k256(1), Key::k256(2)];
    let methods = json!([
        method("#atproto", &first),
        method(&format!("{DID}#atproto"), &second)
    ]);
    let document = parse(&with(&document(), "verificationMethod", methods)).unwrap();
    let issuer: Did = DID.parse().unwrap();
    let expected = Expected {
        issuer: &issuer,
        audiences: &["did:web:sync.example.com"],
        method: "xyz.groundmist.sync.listGroups",
        now_s: NOW_S,
    };
    let claims = json!({
        "iss": DID, "aud": "did:web:sync.example.com", "lxm": "xyz.groundmist.sync.listGroups",
        "iat": NOW_S, "exp": NOW_S + 60, "jti": "once",
    });
    let verify = |key: &Key| {
        let token = key.token(&json!({ "typ": "JWT", "alg": "ES256K" }), &claims);
        let token = ServiceAuth::parse(&token).unwrap();
        token
            .verify(document.signing_key().unwrap(), &expected)
            .map(drop)
    };
    assert_eq!(verify(&first), Ok(()));
    assert!(matches!(
        verify(&second),
        Err(ServiceAuthError::Signature(_))
    ));
}

#[test]
fn a_second_key_does_not_stand_in_for_a_first_that_is_not_usable() {
    let good = method("#atproto", &Key::k256(2));
    for (first, fault) in [
        (with(&good, "type", "JsonWebKey2020"), SigningKeyError::Type),
        (
            with(&good, "type", json!(["Multikey"])),
            SigningKeyError::Type,
        ),
        (without(&good, "type"), SigningKeyError::Type),
        (
            with(&good, "controller", "did:plc:ewvi7nxzyoun6zhxrhs64oiz"),
            SigningKeyError::Controller,
        ),
        (
            with(&good, "controller", json!([DID])),
            SigningKeyError::Controller,
        ),
        (without(&good, "controller"), SigningKeyError::Controller),
        (
            with(&good, "publicKeyMultibase", "zzz"),
            SigningKeyError::Key(InvalidKey::Kind),
        ),
        (
            without(&good, "publicKeyMultibase"),
            SigningKeyError::Key(InvalidKey::Multibase),
        ),
    ] {
        assert_eq!(signing_key(json!([first, good])), Err(fault), "{first}");
    }
}

#[test]
fn only_a_key_named_atproto_signs() {
    let key = Key::k256(1);
    for id in [
        "#atproto_label",
        "atproto",
        "#ATPROTO",
        "",
        "did:plc:ewvi7nxzyoun6zhxrhs64oiz#atproto",
        "did:plc:6lb3s4czl5fpblredspfeckp##atproto",
        "did:plc:6lb3s4czl5fpblredspfeckp/#atproto",
    ] {
        assert_eq!(
            signing_key(json!([method(id, &key)])),
            Err(SigningKeyError::Missing),
            "{id}"
        );
    }
    assert_eq!(signing_key(json!([])), Err(SigningKeyError::Missing));
    // Others may come before it.
    let methods = json!([
        method("#atproto_label", &Key::k256(2)),
        method("#atproto", &key)
    ]);
    assert_eq!(signing_key(methods), Ok(key.public()));
}

#[test]
fn keys_in_the_older_forms_are_understood() {
    let [p256, k256] = Key::both(1);
    for (key, kind) in [
        (&p256, "EcdsaSecp256r1VerificationKey2019"),
        (&k256, "EcdsaSecp256k1VerificationKey2019"),
    ] {
        for point in [key.point(), key.compressed_point()] {
            let method = with(&method("#atproto", key), "type", kind);
            let method = with(&method, "publicKeyMultibase", multibase(&point));
            assert_eq!(signing_key(json!([method])), Ok(key.public()));
        }
    }
}

#[test]
fn a_key_without_an_id_spoils_the_document() {
    // Left out, it would make the second one the first.
    for broken in [
        json!({}),
        json!({ "id": 7 }),
        json!(null),
        json!("#atproto"),
    ] {
        let methods = json!([broken, method("#atproto", &Key::k256(2))]);
        let refused = parse(&with(&document(), "verificationMethod", methods)).unwrap_err();
        assert_eq!(refused, DidDocumentError::Form, "{broken}");
    }
}

#[test]
fn a_pds_is_an_https_address_and_nothing_more() {
    for endpoint in [
        "http://pds.example.com",
        "https://pds.example.com/xrpc",
        "https://pds.example.com/?a",
        "https://pds.example.com/#a",
        "https://somebody@pds.example.com",
        "https://:secret@pds.example.com",
        "wss://pds.example.com",
        "pds.example.com",
        "file:///etc/passwd",
        "data:,a",
        "",
    ] {
        assert_eq!(pds(json!([service(endpoint)])), None, "{endpoint}");
    }
    for (endpoint, url) in [
        ("https://pds.example.com/", "https://pds.example.com/"),
        (
            "https://pds.example.com:8443",
            "https://pds.example.com:8443/",
        ),
    ] {
        assert_eq!(pds(json!([service(endpoint)])).as_deref(), Some(url));
    }
}

#[test]
fn a_pds_without_tls_is_taken_on_this_machine_alone_and_in_development_alone() {
    for (endpoint, is_taken) in [
        ("http://localhost:2583", true),
        ("http://127.0.0.1:2583", true),
        ("http://127.0.0.2:2583", false),
        ("http://[::1]:2583", false),
        ("http://localhost.example.com", false),
        ("http://pds.example.com", false),
    ] {
        let document = parse(&with(&document(), "service", json!([service(endpoint)]))).unwrap();
        assert_eq!(
            document.pds(Loopback::Accepted).is_some(),
            is_taken,
            "{endpoint}"
        );
        assert_eq!(document.pds(Loopback::Refused), None, "{endpoint}");
    }
}

#[test]
fn a_service_of_another_name_or_type_is_no_pds() {
    let good = service("https://pds.example.com");
    assert_eq!(pds(json!([])), None);
    assert_eq!(pds(json!([with(&good, "id", "#pds")])), None);
    assert_eq!(pds(json!([with(&good, "type", "AtprotoLabeler")])), None);
    assert_eq!(
        pds(json!([with(
            &good,
            "serviceEndpoint",
            json!({ "uri": "https://a.example" })
        )])),
        None
    );
    // A second one does not stand in for the first.
    assert_eq!(
        pds(json!([with(&good, "type", "AtprotoLabeler"), good])),
        None
    );
}

#[test]
fn the_handle_is_the_first_that_is_one() {
    let handle = |names: Value| {
        let document = parse(&with(&document(), "alsoKnownAs", names)).unwrap();
        document.handle().map(ToString::to_string)
    };
    let names = json!([
        7,
        "https://alice.example.com",
        "at://not a handle",
        "at://Alice.Test",
        "at://bob.test"
    ]);
    assert_eq!(handle(names).as_deref(), Some("alice.test"));
    assert_eq!(handle(json!(["at://alice.test/collection", "at://"])), None);
    assert_eq!(handle(json!([])), None);
}

#[test]
fn a_document_may_leave_all_but_its_id_out() {
    let document = parse(&json!({ "id": DID })).unwrap();
    assert_eq!(document.signing_key(), Err(SigningKeyError::Missing));
    assert_eq!(document.pds(Loopback::Accepted), None);
    assert_eq!(document.handle(), None);
}

#[test]
fn what_is_too_long_too_deep_twice_there_or_no_object_is_refused() {
    let did: Did = DID.parse().unwrap();
    let parse = |json: &str| DidDocument::parse(json.as_bytes(), &did).unwrap_err();
    let long = format!(
        r#"{{"id":"{DID}","a":"{}"}}"#,
        "a".repeat(DidDocument::BYTES_MAX)
    );
    assert_eq!(parse(&long), DidDocumentError::TooLong);
    let deep = format!(r#"{{"id":"{DID}","alsoKnownAs":[{}]}}"#, "[".repeat(10_000));
    assert_eq!(parse(&deep), DidDocumentError::Form);
    let twice = format!(r#"{{"id":"did:plc:ewvi7nxzyoun6zhxrhs64oiz","id":"{DID}"}}"#);
    assert_eq!(parse(&twice), DidDocumentError::Form);
    for json in [
        "",
        "null",
        "[]",
        &format!(r#"["{DID}"]"#),
        "{\"id\":",
        "\u{feff}{}",
    ] {
        assert_eq!(parse(json), DidDocumentError::Form, "{json}");
    }
    assert_eq!(
        DidDocument::parse(b"{\"id\":\"\xff\"}", &did).unwrap_err(),
        DidDocumentError::Form
    );
}
