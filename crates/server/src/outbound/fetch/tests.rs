use std::{
    io,
    net::IpAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::BoxFuture;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use super::{
    super::{
        fake::{Fake, Reply},
        guard::Lookup,
        problem::Fault,
    },
    *,
};

fn outbound(host_map: &str) -> Outbound {
    let host_map = match host_map {
        "" => HostMap::default(),
        text => text.parse().unwrap(),
    };
    Outbound::new(host_map).unwrap()
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

/// What comes of asking a server on this machine for JSON.
async fn ask(fake: &Fake) -> Result<Value, FetchError> {
    outbound("")
        .get_json(&fake.origin.at("/"), Loopback::Allowed)
        .await
}

async fn ask_for(reply: Reply) -> Result<Value, FetchError> {
    ask(&Fake::always(reply).await).await
}

/// Names with the addresses that each next question is answered with; the last answer is given again and again.
struct Script {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Script {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Self {
            answers: Mutex::new(answers.iter().map(parse).collect()),
            asked: AtomicUsize::new(0),
        })
    }
}

impl Lookup for Script {
    fn addresses(&self, _: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 {
            answers.remove(0)
        } else {
            answers[0].clone()
        };
        Box::pin(std::future::ready(Ok(answer)))
    }
}

/// A client for which 127.0.0.1 plays the public host, and all others are private.
fn leg(script: &Arc<Script>) -> Leg {
    let is_allowed = |address: IpAddr| address == IpAddr::from([127, 0, 0, 1]);
    Leg::new(Guard::new(script.clone(), is_allowed), tls(roots())).unwrap()
}

async fn exchange(leg: &Leg, url: &Url) -> Result<Answer, FetchError> {
    leg.exchange(url.clone(), Call::get(url, Loopback::Refused))
        .await
}

#[test]
fn only_https_of_public_hosts_at_its_own_port_has_a_way() {
    let outbound = outbound("");
    let refused = |text: &str| outbound.route(&url(text), Loopback::Refused).err();
    for text in [
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "data:,x",
    ] {
        assert!(
            matches!(refused(text), Some(FetchError::NotHttps)),
            "{text}"
        );
    }
    for text in [
        "https://example.com:8443/",
        "https://example.com:80/",
        "https://1.1.1.1:22/",
    ] {
        assert!(matches!(refused(text), Some(FetchError::Port)), "{text}");
    }
    for text in ["https://user@example.com/", "https://:secret@example.com/"] {
        assert!(
            matches!(refused(text), Some(FetchError::UserInfo)),
            "{text}"
        );
    }
    for text in [
        "https://localhost/",
        "http://localhost:1/",
        "https://127.0.0.1/",
        "http://[::1]/",
    ] {
        assert!(
            matches!(refused(text), Some(FetchError::NotPublic)),
            "{text}"
        );
    }
    for text in [
        "https://example.com/",
        "https://example.com:443/a?b",
        "https://1.1.1.1/",
    ] {
        assert!(refused(text).is_none(), "{text}");
    }
}

#[tokio::test]
async fn private_addresses_in_the_url_are_refused() {
    let outbound = outbound("");
    for host in [
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "0x0a.1",
        "167772161",
        "[fe80::1]",
        "[::ffff:10.0.0.1]",
        "[::ffff:7f00:1]",
        "[fd00::1]",
    ] {
        for loopback in [Loopback::Refused, Loopback::Allowed] {
            let url = url(&format!("https://{host}/"));
            let outcome = outbound.get_json::<Value>(&url, loopback).await;
            assert!(matches!(outcome, Err(FetchError::NotPublic)), "{host}");
        }
    }
}

#[tokio::test]
async fn a_server_on_this_machine_is_called_only_where_that_is_allowed() {
    let fake = Fake::always(Reply::json(&json!({"a": 1}))).await;
    let url = fake.origin.at("/");
    let refused = outbound("")
        .get_json::<Value>(&url, Loopback::Refused)
        .await;
    assert!(matches!(refused, Err(FetchError::NotPublic)));
    assert_eq!(fake.connections(), 0);
    assert_eq!(ask(&fake).await.unwrap(), json!({"a": 1}));
}

#[tokio::test]
async fn a_mapped_origin_is_found_on_this_machine_with_path_and_query() {
    let fake = Fake::always(Reply::json(&json!({}))).await;
    let outbound = outbound(&format!("https://app.example.dev={}", fake.origin));
    let get = |text| {
        let url = url(text);
        let outbound = &outbound;
        async move { outbound.get_json::<Value>(&url, Loopback::Refused).await }
    };
    assert!(get("https://app.example.dev/a/b?c=d").await.is_ok());
    assert!(fake.requests()[0].starts_with("GET /a/b?c=d HTTP/1.1\r\n"));
    let other = get("https://app.example.dev:444/").await;
    assert!(matches!(other, Err(FetchError::Port)));
    let user = get("https://me@app.example.dev/").await;
    assert!(matches!(user, Err(FetchError::UserInfo)));
}

#[tokio::test]
async fn a_name_with_a_private_address_is_refused() {
    let fake = Fake::always(Reply::json(&json!({}))).await;
    let url = url(&format!("http://rebind.example:{}/", fake.origin.port()));
    for answer in [&["127.0.0.2"][..], &["10.0.0.1"], &["::1"]] {
        let outcome = exchange(&leg(&Script::new(&[answer])), &url).await;
        assert!(matches!(outcome, Err(FetchError::NotPublic)), "{outcome:?}");
    }
    assert_eq!(fake.connections(), 0);
}

#[tokio::test]
async fn a_name_with_public_and_private_addresses_is_refused() {
    let fake = Fake::always(Reply::json(&json!({}))).await;
    let url = url(&format!("http://rebind.example:{}/", fake.origin.port()));
    for answer in [&["127.0.0.1", "10.0.0.1"][..], &["10.0.0.1", "127.0.0.1"]] {
        let outcome = exchange(&leg(&Script::new(&[answer])), &url).await;
        assert!(matches!(outcome, Err(FetchError::NotPublic)), "{outcome:?}");
    }
    assert_eq!(fake.connections(), 0);
}

#[tokio::test]
async fn a_name_is_resolved_once_and_the_connection_goes_where_it_was_checked() {
    // the connection stays open behind the answer, so that it could be used again
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    let fake = Fake::always(Reply::Stall(answer.into())).await;
    let url = url(&format!("http://rebind.example:{}/", fake.origin.port()));
    let script = Script::new(&[&["127.0.0.1"], &["10.0.0.1"]]);
    let leg = leg(&script);
    assert!(exchange(&leg, &url).await.is_ok());
    assert_eq!(
        (script.asked.load(Ordering::SeqCst), fake.connections()),
        (1, 1)
    );
    // the next call is judged by the next answer, and has no connection left over from the first
    let second = tokio::time::timeout(Limits::TIME_MAX, exchange(&leg, &url)).await;
    assert!(matches!(second, Ok(Err(FetchError::NotPublic))));
    assert_eq!(
        (script.asked.load(Ordering::SeqCst), fake.connections()),
        (2, 1)
    );
}

#[tokio::test]
async fn a_name_without_addresses_is_told_as_such() {
    let leg = leg(&Script::new(&[&[]]));
    let outcome = exchange(&leg, &url("http://nowhere.example/")).await;
    assert!(matches!(outcome, Err(FetchError::Name(_))), "{outcome:?}");
}

/// A server with a certificate for pds.example from an authority of our own, which is good from 2020 to 2120.
async fn tls_server() -> u16 {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("certificates/pds.pem"));
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("certificates/pds.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.unwrap()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // whoever does not like the certificate goes
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.ok();
        }
    });
    port
}

#[tokio::test]
async fn a_server_is_who_its_certificate_says_and_nobody_else() {
    let port = tls_server().await;
    let authority = CertificateDer::from_pem_slice(include_bytes!("certificates/ca.pem"));
    let mut ours = RootCertStore::empty();
    ours.add(authority.unwrap()).unwrap();
    let guard = || {
        Guard::new(Script::new(&[&["127.0.0.1"]]), |address| {
            address.is_loopback()
        })
    };
    let trusting = Leg::new(guard(), tls(ours)).unwrap();
    let get = |host| url(&format!("https://{host}:{port}/"));

    let answer = exchange(&trusting, &get("pds.example")).await.unwrap();
    assert_eq!(answer.text().unwrap(), "ok");
    let other_name = exchange(&trusting, &get("other.example")).await;
    assert!(
        matches!(other_name, Err(FetchError::Connection(_))),
        "{other_name:?}"
    );
    let of_the_system = Leg::new(guard(), tls(roots())).unwrap();
    let stranger = exchange(&of_the_system, &get("pds.example")).await;
    assert!(
        matches!(stranger, Err(FetchError::Connection(_))),
        "{stranger:?}"
    );
}

#[test]
fn there_are_roots_whatever_the_system_has() {
    assert!(!roots().is_empty());
}

#[tokio::test]
async fn a_redirect_is_an_error_and_not_followed() {
    let target = Fake::always(Reply::json(&json!({}))).await;
    for status in [301, 302, 303, 307, 308] {
        let head = format!("{status} Elsewhere\r\nLocation: {}", target.origin.at("/"));
        let outcome = ask_for(Reply::with(&head, "")).await;
        assert!(matches!(outcome, Err(FetchError::Redirect(told)) if told == status));
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn an_answer_is_read_up_to_its_limit_and_no_further() {
    let exactly = format!("\"{}\"", "x".repeat(Limits::BODY_BYTES_MAX - 2));
    assert!(
        ask_for(Reply::ok("application/json", &exactly))
            .await
            .is_ok()
    );
    let longer = format!("{exactly} ");
    let outcome = ask_for(Reply::ok("application/json", &longer)).await;
    assert!(matches!(outcome, Err(FetchError::TooLong)));
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000)).into_bytes();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    let outcome = ask_for(Reply::Endless(chunked, chunk)).await;
    assert!(matches!(outcome, Err(FetchError::TooLong)), "{outcome:?}");
    let until_closed = Reply::Endless(format!("{head}\r\n").into_bytes(), b"        ".repeat(99));
    let outcome = ask_for(until_closed).await;
    assert!(matches!(outcome, Err(FetchError::TooLong)), "{outcome:?}");
}

#[tokio::test]
async fn an_answer_that_says_it_is_long_is_not_waited_for() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 65537\r\n\r\n";
    let outcome = ask_for(Reply::Stall(head.into())).await;
    assert!(matches!(outcome, Err(FetchError::TooLong)), "{outcome:?}");
}

#[tokio::test]
async fn an_answer_that_ends_before_its_length_is_no_answer() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{}";
    let outcome = ask_for(Reply::Bytes(head.into())).await;
    assert!(
        matches!(outcome, Err(FetchError::Connection(_))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn endless_headers_are_cut_off() {
    let outcome = ask_for(Reply::Endless(
        b"HTTP/1.1 200 OK\r\n".to_vec(),
        b"A: b\r\n".to_vec(),
    ))
    .await;
    assert!(
        matches!(outcome, Err(FetchError::Connection(_))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_slow_answer_is_given_up_after_its_time() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    for said in ["", "HTTP/1.1 200", head] {
        let fake = Fake::always(Reply::Stall(said.into())).await;
        let started = tokio::time::Instant::now();
        let (outcome, ()) = tokio::join!(ask(&fake), async {
            fake.stalls().await;
            // from here on the clock jumps to whatever is waited for
            tokio::time::pause();
        });
        assert!(matches!(outcome, Err(FetchError::Slow)), "{outcome:?}");
        assert!(started.elapsed() >= Limits::TIME_MAX);
        tokio::time::resume();
    }
}

#[tokio::test]
async fn so_many_calls_are_made_at_a_time_and_no_more() {
    let fake = Fake::always(Reply::Stall(vec![])).await;
    let outbound = outbound("");
    let url = fake.origin.at("/");
    let call = || outbound.get_json::<Value>(&url, Loopback::Allowed);
    let calls = futures_util::future::join_all((0..Limits::CALLS_MAX + 5).map(|_| call()));
    let all_wait = async {
        while fake.requests().len() < Limits::CALLS_MAX {
            fake.stalls().await;
        }
        assert_eq!(fake.connections(), Limits::CALLS_MAX);
        assert_eq!(outbound.gate.available_permits(), 0);
        tokio::time::pause();
    };
    let (outcomes, ()) = tokio::join!(calls, all_wait);
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Err(FetchError::Slow)))
    );
    tokio::time::resume();
    assert_eq!(outbound.gate.available_permits(), Limits::CALLS_MAX);
}

#[tokio::test]
async fn a_packed_answer_is_not_unpacked() {
    for encoding in ["gzip", "br", "identity, gzip"] {
        let head =
            format!("200 OK\r\nContent-Type: application/json\r\nContent-Encoding: {encoding}");
        let outcome = ask_for(Reply::with(&head, "{}")).await;
        assert!(matches!(outcome, Err(FetchError::Encoded)), "{encoding}");
    }
    // nor is one that hides it
    let outcome = ask_for(Reply::ok("application/json", "\u{1f}\u{8b}\u{8}\u{0}")).await;
    assert!(matches!(outcome, Err(FetchError::NotJson)));
}

#[tokio::test]
async fn what_is_not_json_is_refused() {
    for (content_type, body) in [
        ("text/html", "{}"),
        ("text/plain", "{}"),
        ("application/jsonp", "{}"),
        ("", "{}"),
        ("application/json", "{"),
        ("application/json", ""),
        ("application/json", "{} {}"),
    ] {
        let outcome = ask_for(Reply::ok(content_type, body)).await;
        assert!(
            matches!(outcome, Err(FetchError::NotJson)),
            "{content_type} {body}"
        );
    }
    let deep = "[".repeat(60_000);
    let outcome = ask_for(Reply::ok("application/json", &deep)).await;
    assert!(matches!(outcome, Err(FetchError::NotJson)));
    for content_type in [
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/did+ld+json",
    ] {
        assert!(
            ask_for(Reply::ok(content_type, "{}")).await.is_ok(),
            "{content_type}"
        );
    }
}

#[tokio::test]
async fn a_call_says_what_it_is_and_nothing_that_it_was_not_told() {
    let fake = Fake::always(Reply::with(
        "200 OK\r\nContent-Type: application/json\r\nSet-Cookie: a=b",
        "{}",
    ))
    .await;
    let outbound = outbound("");
    let url = fake.origin.at("/x");
    for _ in 0..2 {
        outbound
            .get_json::<Value>(&url, Loopback::Allowed)
            .await
            .unwrap();
    }
    let agent = concat!("user-agent: groundmist-sync/", env!("CARGO_PKG_VERSION"));
    for request in fake.requests() {
        let mut lines: Vec<_> = request.trim_end().lines().collect();
        lines.sort_unstable();
        let host = format!("host: {}", fake.origin.authority());
        assert_eq!(
            lines,
            ["GET /x HTTP/1.1", "accept: application/json", &host, agent]
        );
    }
}

#[tokio::test]
async fn neither_errors_nor_debug_texts_hold_what_was_sent_or_received() {
    let fake = Fake::start(|path| match path {
        "/broken" => {
            Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nreceived-secret".to_vec())
        }
        "/json" => Reply::ok("application/json", "\"received-secret\""),
        _ => Reply::with("400 Bad Request", "received-secret"),
    })
    .await;
    let outbound = outbound("");
    let bearer = Bearer::new("sent-secret".to_owned());
    let body = json!({"password": "sent-secret"});
    let mut texts = vec![format!("{bearer:?}")];
    for path in ["/broken?sent-secret", "/broken", "/json", "/other"] {
        let mut url = fake.origin.at("/");
        url.set_path(path.split('?').next().unwrap());
        url.set_query(path.split_once('?').map(|(_, query)| query));
        let call = Call {
            bearer: Some(&bearer),
            method: Method::PostJson(&body),
            ..Call::get(&url, Loopback::Allowed)
        };
        let outcome = outbound.call(call).await;
        texts.push(format!("{outcome:?}"));
        if let Ok(answer) = outcome {
            texts.push(match answer.success() {
                Ok(answer) => format!("{:?}", answer.json::<u32>()),
                Err(error) => format!("{error:?}"),
            });
        }
    }
    assert!(fake.requests()[0].contains("authorization: Bearer sent-secret"));
    for text in texts {
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn each_error_is_somebodys_fault() {
    let name = FetchError::Name(Arc::new(io::Error::other("x")));
    for (error, fault) in [
        (FetchError::NotPublic, Fault::Address),
        (FetchError::Redirect(302), Fault::Remote),
        (FetchError::Slow, Fault::Network),
        (name, Fault::Network),
    ] {
        assert_eq!(error.fault(), fault);
    }
}
