//! Client ids, and what is almost one.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

use atproto::{ClientId, ClientIdKind, InvalidClientId};

const ID: &str = "https://app.example.com/client-metadata.json";

#[test]
fn a_client_id_is_the_address_of_a_document() {
    let id: ClientId = ID.parse().unwrap();
    assert_eq!(id.as_str(), ID);
    assert_eq!(id.metadata_url().unwrap().as_str(), ID);
    for text in [
        "https://app.example.com/a/b.json?version=2",
        "https://app.example.com:8443/client.json",
    ] {
        assert!(text.parse::<ClientId>().is_ok(), "{text}");
    }
}

#[test]
fn what_is_no_address_of_a_document_is_no_client_id() {
    use InvalidClientId as Fault;
    for (text, fault) in [
        ("", Fault::Length),
        ("app", Fault::Form),
        ("http://app.example.com/client.json", Fault::Scheme),
        ("ftp://app.example.com/client.json", Fault::Scheme),
        ("javascript:alert(1)", Fault::Scheme),
        ("com.example.app:/back", Fault::Scheme),
        ("https://app.example.com", Fault::Form),
        ("https://app.example.com/", Fault::Path),
        ("https://app.example.com/client/", Fault::Path),
        ("https://app.example.com/client.json#a", Fault::Fragment),
        ("https://app.example.com/client.json#", Fault::Fragment),
        ("https://somebody@app.example.com/client.json", Fault::User),
        ("https://:secret@app.example.com/client.json", Fault::User),
        ("https://127.0.0.1/client.json", Fault::Host),
        ("https://2130706433/client.json", Fault::Host),
        ("https://0x7f.1/client.json", Fault::Host),
        ("https://[::1]/client.json", Fault::Host),
        ("https://localhost/client.json", Fault::Host),
        ("https://app.example.com./client.json", Fault::Host),
        ("https://app.example.com/a/../client.json", Fault::Form),
        ("https://app.example.com/a/%2e%2e/client.json", Fault::Form),
        ("https://app.example.com/./client.json", Fault::Form),
        ("https://APP.example.com/client.json", Fault::Form),
        ("https://app.example.com:443/client.json", Fault::Form),
        ("https:app.example.com/client.json", Fault::Form),
        ("https://app.example.com\\client.json", Fault::Form),
        ("https://bücher.example.com/client.json", Fault::Form),
        (" https://app.example.com/client.json", Fault::Form),
        ("https://app.example.com/client.json\n", Fault::Form),
        ("https://app.exa\tmple.com/client.json", Fault::Form),
    ] {
        assert_eq!(text.parse::<ClientId>().unwrap_err(), fault, "{text}");
    }
    let long = format!(
        "https://app.example.com/{}",
        "a".repeat(ClientId::BYTES_MAX)
    );
    assert_eq!(long.parse::<ClientId>().unwrap_err(), Fault::Length);
}

fn loopback_uris(text: &str) -> Vec<String> {
    let id: ClientId = text.parse().unwrap();
    match id.kind() {
        ClientIdKind::Loopback(uris) => uris.iter().map(ToString::to_string).collect(),
        ClientIdKind::Discoverable(_) => panic!("{text} is no loopback id"),
    }
}

#[test]
fn a_loopback_id_tells_its_own_redirect_uris() {
    let default = ["http://127.0.0.1/", "http://[::1]/"];
    for text in [
        "http://localhost",
        "http://localhost/",
        "http://localhost?scope=atproto",
        "http://localhost/?",
    ] {
        assert_eq!(loopback_uris(text), default, "{text}");
    }
    let text = "http://localhost?redirect_uri=http%3A%2F%2F127.0.0.1%3A8765%2Fback&scope=atproto%20transition%3Ageneric";
    assert_eq!(loopback_uris(text), ["http://127.0.0.1:8765/back"]);
}

#[test]
fn what_is_almost_a_loopback_id_is_refused() {
    use InvalidClientId as Fault;
    for (text, fault) in [
        ("http://localhost:3000", Fault::Path),
        ("http://localhost/client.json", Fault::Path),
        ("http://localhost//", Fault::Path),
        ("http://localhost.example.com/", Fault::Path),
        ("http://localhost@evil.example.com/", Fault::Path),
        ("http://localhost#a", Fault::Fragment),
        ("http://localhost?a=b", Fault::Parameter),
        ("http://localhost?scope=a&scope=b", Fault::Parameter),
        ("http://localhost?redirect_uri=", Fault::Parameter),
        (
            "http://localhost?redirect_uri=https://evil.example.com/",
            Fault::Parameter,
        ),
        (
            "http://localhost?redirect_uri=http://localhost/",
            Fault::Parameter,
        ),
        (
            "http://localhost?redirect_uri=http://127.0.0.2/",
            Fault::Parameter,
        ),
        (
            "http://localhost?redirect_uri=http://127.0.0.1.evil.example.com/",
            Fault::Parameter,
        ),
        (
            "http://localhost?redirect_uri=http://a@127.0.0.1/",
            Fault::Parameter,
        ),
        ("http://127.0.0.1/", Fault::Scheme),
        ("HTTP://localhost", Fault::Scheme),
        ("https://localhost", Fault::Host),
    ] {
        assert_eq!(text.parse::<ClientId>().unwrap_err(), fault, "{text}");
    }
    let many = format!(
        "http://localhost?{}",
        "redirect_uri=http://[::1]/&".repeat(51)
    );
    assert_eq!(many.parse::<ClientId>().unwrap_err(), Fault::Parameter);
}
