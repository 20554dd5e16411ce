//! What apps publish about themselves, and the origins that may be theirs.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use atproto::{
    ApplicationType, ClientId, ClientKeys, ClientMetadata, ClientMetadataError, JwksError,
    RedirectUri,
};
use serde_json::{Value, json};
use support::{Key, base64url, with, without};

const ID: &str = "https://app.example.com/client-metadata.json";

fn metadata() -> Value {
    json!({
        "client_id": ID,
        "client_name": "An app",
        "application_type": "web",
        "redirect_uris": ["https://app.example.com/back", "https://app.example.com:8443/"],
        "token_endpoint_auth_method": "none",
        "dpop_bound_access_tokens": true,
        "scope": "atproto transition:generic",
    })
}

fn parse(metadata: &Value) -> Result<ClientMetadata, ClientMetadataError> {
    ClientMetadata::parse(metadata.to_string().as_bytes(), &ID.parse().unwrap())
}

fn key(id: &str) -> Value {
    with(&Key::p256(1).jwk(), "kid", id)
}

#[test]
fn metadata_are_read() {
    let read = parse(&metadata()).unwrap();
    assert_eq!(read.client_id().as_str(), ID);
    assert_eq!(read.client_name(), Some("An app"));
    assert_eq!(read.application_type(), ApplicationType::Web);
    assert_eq!(read.redirect_uris().len(), 2);
    assert!(matches!(read.keys(), ClientKeys::None));
}

#[test]
fn metadata_of_another_client_are_refused() {
    for id in [
        "https://evil.example.com/client-metadata.json",
        "https://app.example.com/client-metadata.json?",
        "https://app.example.com/client-metadata.json#",
        "https://APP.example.com/client-metadata.json",
        "",
    ] {
        let refused = parse(&with(&metadata(), "client_id", id)).unwrap_err();
        assert_eq!(refused, ClientMetadataError::OtherClient, "{id}");
    }
}

#[test]
fn metadata_without_redirect_uris_or_with_bad_ones_are_refused() {
    let refused = |uris: Value| parse(&with(&metadata(), "redirect_uris", uris)).unwrap_err();
    assert_eq!(refused(json!([])), ClientMetadataError::RedirectUris);
    assert_eq!(
        refused(json!(vec![ID; 51])),
        ClientMetadataError::RedirectUris
    );
    for uri in [
        "http://app.example.com/back",
        "http://localhost/back",
        "https://localhost/back",
        "https://127.0.0.1/back",
        "https://app.example.com/back#a",
        "https://somebody@app.example.com/back",
        "javascript:alert(1)",
        "data:text/html,a",
        "app:/back",
        "com.example.app://host/back",
        "/back",
        "",
    ] {
        let refused = refused(json!([uri]));
        assert!(
            matches!(refused, ClientMetadataError::RedirectUri(_)),
            "{uri}"
        );
    }
    let long = format!(
        "https://app.example.com/{}",
        "a".repeat(RedirectUri::BYTES_MAX)
    );
    assert!(matches!(
        refused(json!([long])),
        ClientMetadataError::RedirectUri(_)
    ));
    assert_eq!(
        refused(json!("https://app.example.com/back")),
        ClientMetadataError::Form
    );
}

#[test]
fn a_name_that_does_not_show_as_it_is_written_is_refused() {
    for name in [
        "a\nb",
        "a\u{0}b",
        "a\u{202e}b",
        "a\u{2066}b",
        "\u{7f}",
        &"é".repeat(201),
    ] {
        let refused = parse(&with(&metadata(), "client_name", name)).unwrap_err();
        assert_eq!(refused, ClientMetadataError::Name, "{name:?}");
    }
    for name in ["Bücher 📚", &"é".repeat(200)] {
        assert!(parse(&with(&metadata(), "client_name", name)).is_ok());
    }
}

#[test]
fn a_confidential_client_says_where_its_keys_are() {
    let metadata = with(&metadata(), "token_endpoint_auth_method", "private_key_jwt");
    let inline = with(&metadata, "jwks", json!({ "keys": [key("1")] }));
    let ClientKeys::Inline(keys) = parse(&inline).unwrap().keys().clone() else {
        panic!("the keys are in the metadata");
    };
    assert_eq!(keys.key("1"), Some(&Key::p256(1).public()));
    assert_eq!(keys.key("2"), None);

    let elsewhere = with(&metadata, "jwks_uri", "https://app.example.com/jwks.json");
    let ClientKeys::At(url) = parse(&elsewhere).unwrap().keys().clone() else {
        panic!("the keys are elsewhere");
    };
    assert_eq!(url.as_str(), "https://app.example.com/jwks.json");

    let both = with(&inline, "jwks_uri", "https://app.example.com/jwks.json");
    let none = metadata.clone();
    let unknown = with(&inline, "token_endpoint_auth_method", "client_secret_basic");
    for unclear in [both, none, unknown] {
        assert_eq!(
            parse(&unclear).unwrap_err(),
            ClientMetadataError::Authentication
        );
    }
    for uri in [
        "http://app.example.com/jwks.json",
        "https://10.0.0.1/jwks.json",
        "https://a.b/#",
    ] {
        let refused = parse(&with(&metadata, "jwks_uri", uri)).unwrap_err();
        assert!(matches!(refused, ClientMetadataError::JwksUri(_)), "{uri}");
    }
}

#[test]
fn keys_that_show_their_private_part_or_share_an_id_are_refused() {
    let parse = |keys: Value| {
        let keys = json!({ "keys": keys }).to_string();
        atproto::Jwks::parse(keys.as_bytes())
    };
    let private = with(&key("1"), "d", base64url(&[1; 32]));
    assert_eq!(parse(json!([private])).unwrap_err(), JwksError::Private);
    let twice = json!([key("1"), with(&Key::k256(2).jwk(), "kid", "1")]);
    assert_eq!(parse(twice).unwrap_err(), JwksError::Ambiguous);
    let off_curve = with(&key("1"), "y", base64url(&[1; 32]));
    assert!(matches!(
        parse(json!([off_curve])).unwrap_err(),
        JwksError::Key(_)
    ));
    // What cannot be used here is left out.
    let rsa = json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "1" });
    let encryption = with(&key("2"), "use", "enc");
    let nameless = Key::p256(3).jwk();
    let kept = parse(json!([rsa, encryption, nameless, key("1")])).unwrap();
    assert_eq!(kept.key("1"), Some(&Key::p256(1).public()));
    assert_eq!(kept.key("2"), None);
    assert!(parse(json!([rsa])).unwrap().is_empty());
    let long = format!(
        r#"{{"keys":[],"a":"{}"}}"#,
        "a".repeat(atproto::Jwks::BYTES_MAX)
    );
    assert_eq!(
        atproto::Jwks::parse(long.as_bytes()).unwrap_err(),
        JwksError::TooLong
    );
}

#[test]
fn metadata_that_are_too_long_or_no_object_are_refused() {
    let id: ClientId = ID.parse().unwrap();
    let parse = |json: &[u8]| ClientMetadata::parse(json, &id).unwrap_err();
    let long = with(
        &metadata(),
        "client_uri",
        "a".repeat(ClientMetadata::BYTES_MAX),
    )
    .to_string();
    assert_eq!(parse(long.as_bytes()), ClientMetadataError::TooLong);
    let deep = format!(
        r#"{{"client_id":"{ID}","redirect_uris":{}"#,
        "[".repeat(10_000)
    );
    for json in ["", "null", "[]", "\"a\"", &deep] {
        assert_eq!(parse(json.as_bytes()), ClientMetadataError::Form);
    }
    for name in ["client_id", "redirect_uris"] {
        let without = without(&metadata(), name).to_string();
        assert_eq!(parse(without.as_bytes()), ClientMetadataError::Form);
    }
}

#[test]
fn only_the_origin_of_a_redirect_uri_is_the_apps() {
    let metadata = parse(&metadata()).unwrap();
    for origin in ["https://app.example.com", "https://app.example.com:8443"] {
        assert!(metadata.allows_origin(origin), "{origin}");
    }
    for origin in [
        "null",
        "",
        "*",
        "https://app.example.com/",
        "https://app.example.com/back",
        "https://app.example.com:443",
        "https://app.example.com:8444",
        "https://app.example.com:84430",
        "http://app.example.com",
        "HTTPS://app.example.com",
        "https://App.example.com",
        "https://app.example.com.evil.com",
        "https://app.example.comevil",
        "https://app.example.co",
        "https://evil-app.example.com",
        "https://sub.app.example.com",
        "https://example.com",
        "https://app.example.com@evil.com",
        "https://app.example.com https://evil.com",
        "https://evil.com/https://app.example.com",
        " https://app.example.com",
        "//app.example.com",
        "app.example.com",
    ] {
        assert!(!metadata.allows_origin(origin), "{origin}");
    }
}

#[test]
fn the_origin_of_a_loopback_client_may_have_any_port() {
    let id: ClientId = "http://localhost?redirect_uri=http%3A%2F%2F127.0.0.1%3A8765%2F"
        .parse()
        .unwrap();
    let metadata = ClientMetadata::of_loopback(&id).unwrap();
    assert_eq!(metadata.client_id(), &id);
    assert_eq!(metadata.application_type(), ApplicationType::Native);
    for origin in [
        "http://127.0.0.1",
        "http://127.0.0.1:8765",
        "http://127.0.0.1:1",
        "http://127.0.0.1:65535",
    ] {
        assert!(metadata.allows_origin(origin), "{origin}");
    }
    for origin in [
        "null",
        "http://localhost:8765",
        "http://[::1]:8765",
        "https://127.0.0.1:8765",
        "http://127.0.0.2:8765",
        "http://127.0.0.10",
        "http://127.0.0.1.evil.com",
        "http://127.0.0.1:",
        "http://127.0.0.1:0",
        "http://127.0.0.1:80",
        "http://127.0.0.1:08765",
        "http://127.0.0.1:+8765",
        "http://127.0.0.1:65536",
        "http://127.0.0.1:8765/",
        "http://127.0.0.1:8765@evil.com",
    ] {
        assert!(!metadata.allows_origin(origin), "{origin}");
    }
    let both: ClientId = "http://localhost".parse().unwrap();
    let metadata = ClientMetadata::of_loopback(&both).unwrap();
    assert!(metadata.allows_origin("http://[::1]:5173"));
    assert!(metadata.allows_origin("http://127.0.0.1:5173"));
}

#[test]
fn a_published_client_has_no_metadata_but_those_it_publishes() {
    assert!(ClientMetadata::of_loopback(&ID.parse().unwrap()).is_none());
}

#[test]
fn a_scheme_of_its_own_has_no_origin() {
    let uri: RedirectUri = "com.example.app:/back".parse().unwrap();
    for origin in [
        "null",
        "",
        "com.example.app:",
        "com.example.app://",
        "com.example.app:/back",
    ] {
        assert!(!uri.allows_origin(origin), "{origin}");
    }
}
