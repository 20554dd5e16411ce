//! Door A: `POST /authenticate`, for apps that know nothing of this server. The life of a device, and the attacks on it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};
use support::{
    Client, Replica, Server,
    app::App,
    handshake,
    identity::{
        APP, CLIENT_ID, Device, GROUP, Key, OWNER, STRANGER, World, access_token, hash_of,
        metadata, now_s, unique,
    },
    soon, within,
};

mod support;

const AT_ONCE: Duration = Duration::from_secs(1);

/// The rows of everything that lasts: devices, sessions, grants, root documents.
async fn rows(server: &Server) -> Vec<Value> {
    let mut rows = vec![];
    for list in [
        ["devices", "ls", "--all"],
        ["sessions", "ls", "--all"],
        ["grants", "ls", "--json"],
        ["roots", "ls", "--json"],
    ] {
        let mut arguments = list.to_vec();
        if !arguments.contains(&"--json") {
            arguments.push("--json");
        }
        rows.push(server.cli(&arguments).await.json());
    }
    // when somebody was last seen is no change of who may do what
    for list in &mut rows {
        for row in list.as_array_mut().unwrap() {
            row.as_object_mut()
                .unwrap()
                .retain(|key, _| key != "lastSeenAt" && key != "lastUsedAt" && key != "expiresAt");
        }
    }
    rows
}

/// How often something was refused for this reason, by the audit log.
async fn refusals(server: &Server, reason: &str) -> u64 {
    let audit = server.cli(&["audit", "--json"]).await.json();
    let of_reason = audit.as_array().unwrap().iter().filter(|row| {
        row["event"] == "refused" && row["detail"].as_str().unwrap().contains(reason)
    });
    of_reason.map(|row| row["count"].as_u64().unwrap()).sum()
}

/// Waits until the audit log tells of a refusal for this reason.
async fn is_told(server: &Server, reason: &str) {
    let told = async { while refusals(server, reason).await == 0 {} };
    soon(&format!("the audit log to tell of {reason:?}"), told).await;
}

fn socket_url(server: &Server, answer: &Value) -> String {
    server.url_with(answer["token"].as_str().unwrap())
}

/// The window was open when it asked, and is closed while the app's metadata are fetched or others write.
#[tokio::test]
async fn who_asks_while_the_owner_closes_the_window_leaves_no_request() {
    let world = World::new().await;
    let server = world.server().await;
    let (device, wish) = (Device::in_browser(), Server::wish());
    server.cli(&["devices", "open"]).await;
    // the owner's command, that takes its time
    let owner = Connection::open(server.data_dir().join("account.db")).unwrap();
    owner.execute_batch("BEGIN IMMEDIATE").unwrap();
    let closes = async {
        while world.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        owner
            .execute_batch(
                "UPDATE properties SET value = '0' WHERE name = 'pairing_open_until_ms'; COMMIT",
            )
            .unwrap();
    };
    let (asked, ()) = tokio::join!(server.authenticate(&device, &wish), closes);
    assert_eq!(asked.json()["pairing"], "closed");
    assert_eq!(server.pending(&device).await, None);
}

#[tokio::test]
async fn an_unmodified_app_works_after_one_approval() {
    let world = World::new().await;
    let server = world.server().await;
    let (device, wish) = (Device::in_browser(), Server::wish());

    let closed = server.authenticate(&device, &wish).await;
    assert_eq!(closed.outcome(), (403, "approval_required".into()));
    assert_eq!(closed.json()["pairing"], "closed");
    assert_eq!(server.pending(&device).await, None);
    assert!(world.asked().is_empty(), "nothing is fetched for strangers");

    server.cli(&["devices", "open"]).await;
    let waiting = server.authenticate(&device, &wish).await;
    assert_eq!(waiting.json()["pairing"], "waiting");
    server.approve(&device, &["--name", "laptop"]).await;
    server.cli(&["devices", "close"]).await;

    let welcome = server.authenticate(&device, &wish).await;
    assert_eq!(welcome.status, 200, "{welcome:?}");
    let welcome = welcome.json();
    assert_eq!(welcome["result"], "OK");
    assert_eq!(welcome.as_object().unwrap()["rootDocUrl"], Value::Null);
    let mut client = Client::join(&socket_url(&server, &welcome), "app").await;
    let mut note = Replica::new("app", "hello");
    client.push(&mut note).await;

    let again = server.authenticate(&device, &wish).await.json();
    assert_eq!(again["token"], welcome["token"], "one session, one token");

    let id = server.cli(&["devices", "ls", "--json"]).await.json()[0]["id"].clone();
    server
        .cli(&["devices", "revoke", id.as_str().unwrap()])
        .await;
    let closed = within(AT_ONCE, "the end of the socket", client.close_code()).await;
    assert_eq!(closed, 1008);
    let refused = server.authenticate(&device, &wish).await;
    assert_eq!(refused.outcome(), (403, "device_revoked".into()));
    let token = welcome["token"].as_str().unwrap();
    let path = format!("/?token={token}");
    assert_eq!(server.refusal(&path, &[]).await.0, 401);
}

#[tokio::test]
async fn a_native_client_with_a_k256_key_is_approved_as_no_browser() {
    let world = World::new().await;
    let server = world.server().await;
    let device = Device::native();
    server.cli(&["devices", "open"]).await;
    server.authenticate(&device, &Server::wish()).await;
    let pending = server.cli(&["devices", "pending"]).await;
    assert!(pending.stdout.contains("not a browser"), "{pending:?}");
    server.approve(&device, &[]).await;
    assert_eq!(
        server.authenticate(&device, &Server::wish()).await.status,
        200
    );
}

#[tokio::test]
async fn a_nonce_is_asked_for_once_and_every_answer_brings_one() {
    let world = World::new().await;
    let server = world.server().await;
    let device = Device::in_browser();
    server.pair(&device).await;
    let url = server.authenticate_url();
    let mut claims = device.claims("POST", &url, &device.token, "");
    claims.as_object_mut().unwrap().remove("nonce");
    let proof = device.key.jwt(&device.header(), &claims);
    let asked = server
        .authenticate_with(&device, &proof, &Server::wish())
        .await;
    assert_eq!(asked.outcome(), (401, "use_dpop_nonce".into()));
    assert_eq!(
        asked.headers["www-authenticate"],
        "DPoP error=\"use_dpop_nonce\""
    );
    assert_eq!(asked.headers["access-control-allow-origin"], APP);
    let exposed = asked.headers["access-control-expose-headers"].to_lowercase();
    assert!(exposed.contains("dpop-nonce") && exposed.contains("www-authenticate"));
    assert!(
        !asked
            .headers
            .contains_key("access-control-allow-credentials")
    );
    let proof = device.proof("POST", &url, &device.token, asked.nonce());
    let welcome = server
        .authenticate_with(&device, &proof, &Server::wish())
        .await;
    assert_eq!(welcome.status, 200);
    assert!(!welcome.nonce().is_empty());
}

#[tokio::test]
async fn the_first_root_document_is_kept_and_given_to_every_later_device() {
    let world = World::new().await;
    let server = world.server().await;
    let (first, second) = (Device::in_browser(), Device::in_browser());
    server.pair(&first).await;
    server.pair(&second).await;
    let url = |byte| format!("automerge:{}", engine::DocumentId::from_bytes([byte; 16]));
    let wish = |url: Value| json!({ "lexiconAuthorityDomain": GROUP, "rootDocUrl": url });

    let none = server
        .authenticate(&second, &wish(Value::Null))
        .await
        .json();
    assert_eq!(none["rootDocUrl"], Value::Null);
    let sent = server
        .authenticate(&first, &wish(url(1).into()))
        .await
        .json();
    assert_eq!(sent["rootDocUrl"], url(1));
    let other = server
        .authenticate(&second, &wish(url(2).into()))
        .await
        .json();
    assert_eq!(other["rootDocUrl"], url(1));

    let server = server.restart().await;
    let kept = server
        .authenticate(&second, &wish(Value::Null))
        .await
        .json();
    assert_eq!(kept["rootDocUrl"], url(1));
    for wrong in ["undefined", "automerge:x", "https://example.com"] {
        let refused = server.authenticate(&first, &wish(wrong.into())).await;
        assert_eq!(refused.outcome(), (400, "invalid_request".into()));
        assert_eq!(refused.json()["rootDocUrl"], Value::Null);
    }
}

#[tokio::test]
async fn a_device_that_may_only_read_does_not_choose_the_root_document() {
    let world = World::new().await;
    let server = world.server().await;
    let (reader, writer) = (Device::in_browser(), Device::in_browser());
    server.cli(&["devices", "open"]).await;
    server.authenticate(&reader, &Server::wish()).await;
    server.approve(&reader, &["--read-only"]).await;
    server.pair(&writer).await;
    let url = |byte| format!("automerge:{}", engine::DocumentId::from_bytes([byte; 16]));
    let wish = |byte| json!({ "lexiconAuthorityDomain": GROUP, "rootDocUrl": url(byte) });
    let own = server.authenticate(&reader, &wish(1)).await.json();
    assert_eq!(own["rootDocUrl"], url(1), "it keeps what it has");
    let first = server.authenticate(&writer, &wish(2)).await.json();
    assert_eq!(first["rootDocUrl"], url(2));
    let own = server.authenticate(&reader, &wish(1)).await.json();
    assert_eq!(own["rootDocUrl"], url(2));
}

#[tokio::test]
async fn every_refusal_repeats_the_root_document_that_was_sent() {
    let world = World::new().await;
    let server = world.server().await;
    let root = format!("automerge:{}", engine::DocumentId::from_bytes([3; 16]));
    let wish = json!({ "lexiconAuthorityDomain": GROUP, "rootDocUrl": root });
    let device = Device::in_browser();
    let refused = server.authenticate(&device, &wish).await;
    assert_eq!(refused.json()["rootDocUrl"], root.as_str());
    let garbage = server.authenticate_with(&device, "garbage", &wish).await;
    assert_eq!(garbage.status, 401);
    assert_eq!(garbage.json()["rootDocUrl"], root.as_str());
}

/// A request that is wrong in one way.
struct Attack {
    name: &'static str,
    device: Device,
    proof: String,
    body: Value,
    outcome: (u16, &'static str),
    told: &'static str,
}

/// Proofs and tokens of an approved device, each wrong in one way.
fn attacks(server: &Server, device: &Device, nonce: &str) -> Vec<Attack> {
    let url = server.authenticate_url();
    let attack = |name, proof: String, told| Attack {
        name,
        device: device.clone(),
        proof,
        body: Server::wish(),
        outcome: (401, "invalid_dpop_proof"),
        told,
    };
    let with_claim = |claim: &str, value: Value| {
        let mut claims = device.claims("POST", &url, &device.token, nonce);
        claims[claim] = value;
        device.key.jwt(&device.header(), &claims)
    };
    let with_header = |name: &str, value: Value| {
        let mut header = device.header();
        header[name] = value;
        let claims = device.claims("POST", &url, &device.token, nonce);
        device.key.jwt(&header, &claims)
    };
    let mut private = device.key.jwk();
    private["d"] = "AAAA".into();
    let elsewhere = format!(
        "http://sync.example.com:{}/authenticate",
        server.address.port()
    );
    let unsigned = with_header("alg", "none".into());
    let unsigned = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
    let good = device.proof("POST", &url, &device.token, nonce);
    let (head, signature) = good.rsplit_once('.').unwrap();
    // the first character: the last one has bits that count for nothing
    let first = if signature.starts_with('A') { "B" } else { "A" };
    let changed = format!("{first}{}", &signature[1..]);
    let other = Device::in_browser();
    let foreign = other.proof("POST", &url, &device.token, nonce);
    let foreign_signature = foreign.rsplit_once('.').unwrap().1;
    vec![
        attack("garbage", "garbage".into(), ""),
        attack(
            "another type of token",
            with_header("typ", "JWT".into()),
            "type",
        ),
        attack("alg none", unsigned, "algorithm"),
        attack("HS256", with_header("alg", "HS256".into()), "algorithm"),
        attack(
            "ES256K with a P-256 key",
            with_header("alg", "ES256K".into()),
            "algorithm",
        ),
        attack(
            "a private key in the proof",
            with_header("jwk", private),
            "key",
        ),
        attack("crit", with_header("crit", json!(["x"])), ""),
        attack("another method", with_claim("htm", "GET".into()), "method"),
        attack(
            "another address",
            with_claim("htu", elsewhere.into()),
            "address",
        ),
        attack(
            "another path",
            with_claim("htu", format!("{url}/x").into()),
            "address",
        ),
        attack("too old", with_claim("iat", (now_s() - 120).into()), "time"),
        attack(
            "from the future",
            with_claim("iat", (now_s() + 120).into()),
            "time",
        ),
        attack(
            "another token",
            with_claim("ath", hash_of("x").into()),
            "token",
        ),
        attack("no jti", with_claim("jti", Value::Null), ""),
        attack("a changed signature", format!("{head}.{changed}"), ""),
        attack(
            "the signature of another key",
            format!("{head}.{foreign_signature}"),
            "signature",
        ),
    ]
}

#[tokio::test]
async fn every_proof_that_is_wrong_in_one_way_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let server = world.server().await;
    let device = Device::in_browser();
    server.pair(&device).await;
    assert_eq!(
        server.authenticate(&device, &Server::wish()).await.status,
        200
    );
    let before = rows(&server).await;
    let nonce = server.nonce().await;
    let mut told = vec![];
    for attack in attacks(&server, &device, &nonce) {
        let answer = server
            .authenticate_with(&attack.device, &attack.proof, &attack.body)
            .await;
        let (status, error) = answer.outcome();
        assert_eq!(
            (status, &*error),
            attack.outcome,
            "{}: {answer:?}",
            attack.name
        );
        assert!(!answer.text.contains("invalid_token"), "{}", attack.name);
        assert!(answer.headers["www-authenticate"].contains("invalid_dpop_proof"));
        told.push(attack.told);
    }
    assert_eq!(rows(&server).await, before);
    // what was added up is written when the server ends
    let server = server.restart().await;
    for reason in told {
        assert!(refusals(&server, reason).await > 0, "{reason:?} is told");
    }
    assert_eq!(
        server.authenticate(&device, &Server::wish()).await.status,
        200
    );
}

#[tokio::test]
async fn a_proof_that_is_replayed_is_refused() {
    let world = World::new().await;
    let server = world.server().await;
    let device = Device::in_browser();
    server.pair(&device).await;
    let nonce = server.nonce().await;
    let proof = device.proof("POST", &server.authenticate_url(), &device.token, &nonce);
    let wish = Server::wish();
    assert_eq!(
        server
            .authenticate_with(&device, &proof, &wish)
            .await
            .status,
        200
    );
    let replayed = server.authenticate_with(&device, &proof, &wish).await;
    assert_eq!(replayed.outcome(), (401, "invalid_dpop_proof".into()));
    is_told(&server, "used before").await;
    // after a restart its nonce is none of the server's
    let server = server.restart().await;
    let mut claims = device.claims("POST", &server.authenticate_url(), &device.token, &nonce);
    claims["jti"] = unique().into();
    let proof = device.key.jwt(&device.header(), &claims);
    let replayed = server.authenticate_with(&device, &proof, &wish).await;
    assert_eq!(replayed.outcome(), (401, "use_dpop_nonce".into()));
}

#[tokio::test]
async fn a_nonce_that_the_server_did_not_make_is_refused() {
    let world = World::new().await;
    let server = world.server().await;
    let device = Device::in_browser();
    server.pair(&device).await;
    for nonce in ["", "nonce", &unique()] {
        let proof = device.proof("POST", &server.authenticate_url(), &device.token, nonce);
        let answer = server
            .authenticate_with(&device, &proof, &Server::wish())
            .await;
        assert_eq!(answer.outcome(), (401, "use_dpop_nonce".into()));
    }
}

#[tokio::test]
async fn tokens_that_disagree_with_the_request_open_nothing() {
    let world = World::new().await;
    let server = world.server().await;
    let device = Device::in_browser();
    server.pair(&device).await;
    server.cli(&["devices", "open"]).await;
    let before = rows(&server).await;
    let claims = |change: &[(&str, Value)]| {
        let mut claims = json!({
            "sub": OWNER, "client_id": CLIENT_ID, "exp": now_s() + 600,
            "cnf": { "jkt": device.fingerprint() },
        });
        for (name, value) in change {
            claims[*name] = value.clone();
        }
        access_token(&claims)
    };
    let other_key = json!({ "jkt": Key::p256().thumbprint() });
    let mut reasons = vec![];
    for (name, token, told) in [
        ("garbage", "garbage".to_owned(), "none of an atproto PDS"),
        (
            "another account's",
            claims(&[("sub", STRANGER.into())]),
            "another account",
        ),
        (
            "another key's",
            claims(&[("cnf", other_key)]),
            "another key",
        ),
        (
            "no key's",
            claims(&[("cnf", Value::Null)]),
            "none of an atproto PDS",
        ),
        (
            "too old",
            claims(&[("exp", (now_s() - 1).into())]),
            "expired",
        ),
        (
            "another app's",
            claims(&[(
                "client_id",
                "https://evil.example.dev/client-metadata.json".into(),
            )]),
            "another app",
        ),
    ] {
        let device = Device {
            token,
            ..device.clone()
        };
        let answer = server.authenticate(&device, &Server::wish()).await;
        assert_eq!(answer.outcome(), (403, "token_mismatch".into()), "{name}");
        reasons.push(told);
    }
    assert_eq!(rows(&server).await, before);
    let server = server.restart().await;
    for reason in reasons {
        assert!(refusals(&server, reason).await > 0, "{reason:?} is told");
    }
}

#[tokio::test]
async fn headers_that_are_missing_or_doubled_open_nothing() {
    let world = World::new().await;
    let server = world.server().await;
    let device = Device::in_browser();
    server.pair(&device).await;
    let nonce = server.nonce().await;
    let proof = || device.proof("POST", &server.authenticate_url(), &device.token, &nonce);
    let (first, second) = (proof(), proof());
    let (dpop, bearer) = (
        format!("DPoP {}", device.token),
        format!("Bearer {}", device.token),
    );
    let body = Server::wish().to_string();
    for headers in [
        vec![],
        vec![("Authorization", dpop.as_str())],
        vec![("DPoP", first.as_str())],
        vec![("Authorization", bearer.as_str()), ("DPoP", &first)],
        vec![("Authorization", "DPoP "), ("DPoP", &first)],
        vec![
            ("Authorization", &dpop),
            ("DPoP", &first),
            ("DPoP", &second),
        ],
    ] {
        let mut headers = headers;
        headers.push(("Origin", APP));
        let answer = server.post_authenticate(&headers, &body).await;
        assert_eq!(
            answer.outcome(),
            (401, "invalid_dpop_proof".into()),
            "{headers:?}"
        );
    }
    for body in [
        "",
        "[]",
        "{}",
        r#"{"lexiconAuthorityDomain":"x"}"#,
        r#"{"lexiconAuthorityDomain":7}"#,
    ] {
        let headers = [("Authorization", dpop.as_str()), ("DPoP", first.as_str())];
        let answer = server.post_authenticate(&headers, body).await;
        assert_eq!(answer.outcome(), (400, "invalid_request".into()), "{body}");
    }
    let long = format!("{{\"x\":\"{}\"}}", "x".repeat(9_000));
    assert_eq!(server.post_authenticate(&[], &long).await.status, 400);
}

#[tokio::test]
async fn an_origin_that_is_none_of_the_apps_is_refused() {
    let world = World::new().await;
    let server = world.server().await;
    let device = Device::in_browser();
    server.cli(&["devices", "open"]).await;
    for origin in [
        "https://evil.example.dev",
        "https://app.example.dev.evil.example",
        "http://app.example.dev",
        "https://app.example.dev:8443",
        "null",
    ] {
        let device = Device {
            origin: Some(origin.into()),
            ..device.clone()
        };
        let answer = server.authenticate(&device, &Server::wish()).await;
        assert_eq!(
            answer.outcome(),
            (403, "origin_mismatch".into()),
            "{origin}"
        );
        assert_eq!(server.pending(&device).await, None, "{origin}");
    }
    server.pair(&device).await;
    let elsewhere = Device {
        origin: Some("https://evil.example.dev".into()),
        ..device.clone()
    };
    let answer = server.authenticate(&elsewhere, &Server::wish()).await;
    assert_eq!(answer.outcome(), (403, "origin_mismatch".into()));
    let nowhere = Device {
        origin: None,
        ..device.clone()
    };
    let answer = server.authenticate(&nowhere, &Server::wish()).await;
    assert_eq!(answer.outcome(), (403, "origin_mismatch".into()));

    // nor can a page of another origin open a socket with a token that it has got hold of
    let welcome = server.authenticate(&device, &Server::wish()).await.json();
    let url = socket_url(&server, &welcome);
    assert!(
        handshake(&url, &[("Origin", "https://evil.example.dev")])
            .await
            .is_err()
    );
    assert!(handshake(&url, &[("Origin", APP)]).await.is_ok());
}

#[tokio::test]
async fn metadata_that_is_none_or_of_another_client_leaves_no_request() {
    let world = World::new().await;
    let server = world.server().await;
    server.cli(&["devices", "open"]).await;
    let mut other = metadata();
    other["client_id"] = "https://app.example.dev/other.json".into();
    let pages = [
        ("another client's", 200, other.to_string()),
        ("none", 404, "{}".into()),
        ("a redirect", 302, "{}".into()),
        ("no JSON", 200, "<html>".into()),
        ("too long", 200, " ".repeat(70_000)),
    ];
    for (number, (name, status, page)) in pages.into_iter().enumerate() {
        let path = format!("/{number}.json");
        world.serve_status(&path, status, &page);
        let client_id = format!("{APP}{path}");
        let device = Device::of(Key::p256(), OWNER, &client_id, Some(APP));
        let answer = server.authenticate(&device, &Server::wish()).await;
        assert_eq!(
            answer.outcome(),
            (403, "unverified_client".into()),
            "{name}"
        );
        assert_eq!(server.pending(&device).await, None, "{name}");
    }
    let private = Device::of(Key::p256(), OWNER, "https://127.0.0.1/x.json", Some(APP));
    let answer = server.authenticate(&private, &Server::wish()).await;
    assert_eq!(answer.status, 403, "{answer:?}");
}

#[tokio::test]
async fn a_flood_of_requests_to_pair_leaves_a_few_and_denied_ones_stay_denied() {
    let world = World::new().await;
    let server = world.server().await;
    server.cli(&["devices", "open"]).await;
    let devices: Vec<_> = (0..12).map(|_| Device::in_browser()).collect();
    let mut full = 0;
    for device in &devices {
        let answer = server.authenticate(device, &Server::wish()).await.json();
        full += usize::from(answer["pairing"] == "full");
    }
    assert_eq!(full, 4);
    let pending = server.cli(&["devices", "pending", "--json"]).await.json();
    assert_eq!(pending.as_array().unwrap().len(), 8);
    let id = server.pending(&devices[0]).await.unwrap();
    server.cli(&["devices", "deny", &id]).await;
    let denied = server
        .authenticate(&devices[0], &Server::wish())
        .await
        .json();
    assert_eq!(denied["pairing"], "denied");
    let asked = world.asked();
    assert_eq!(asked.len(), 1, "metadata are fetched once: {asked:?}");
}

#[tokio::test]
async fn strangers_are_stopped_after_a_while_and_the_owners_devices_are_not() {
    let world = World::new().await;
    let server = world.server().await;
    let (device, stranger) = (Device::in_browser(), Device::in_browser());
    server.pair(&device).await;
    let mut last = 0;
    for _ in 0..80 {
        last = server
            .authenticate_with(&stranger, "garbage", &Server::wish())
            .await
            .status;
    }
    assert_eq!(last, 429);
    let answer = server
        .authenticate_with(&stranger, "garbage", &Server::wish())
        .await;
    assert_eq!(answer.outcome(), (429, "rate_limited".into()));
    assert!(answer.headers["retry-after"].parse::<u64>().unwrap() >= 1);
    assert_eq!(
        server.authenticate(&device, &Server::wish()).await.status,
        200
    );
}

#[tokio::test]
async fn a_revoked_app_that_goes_on_knocking_does_not_lock_out_its_neighbours() {
    let world = World::new().await;
    let server = world.server().await;
    let (old, new) = (Device::in_browser(), Device::in_browser());
    server.pair(&old).await;
    let welcome = server.authenticate(&old, &Server::wish()).await.json();
    let path = format!("/?token={}", welcome["token"].as_str().unwrap());
    let id = server.cli(&["devices", "ls", "--json"]).await.json()[0]["id"].clone();
    server
        .cli(&["devices", "revoke", id.as_str().unwrap()])
        .await;
    for _ in 0..100 {
        assert_eq!(server.refusal(&path, &[]).await.0, 401);
    }
    server.pair(&new).await;
    let welcome = server.authenticate(&new, &Server::wish()).await;
    assert_eq!(welcome.status, 200);
}

#[tokio::test]
async fn a_device_that_may_read_only_writes_nothing_and_a_grant_that_shrinks_takes_writing_away() {
    let world = World::new().await;
    let server = world.server().await;
    let device = Device::in_browser();
    server.pair(&device).await;
    let welcome = server.authenticate(&device, &Server::wish()).await.json();
    let url = socket_url(&server, &welcome);
    let mut writer = Client::join(&url, "writer").await;
    let mut note = Replica::new("writer", "before");
    writer.push(&mut note).await;
    let grants = ["grants", "add", CLIENT_ID, "--group", GROUP, "--read-only"];
    assert_eq!(server.cli(&grants).await.code, Some(0));
    // the socket stays, and what it writes is not taken
    let shrunk = async {
        loop {
            let mut other = Replica::new("writer", "after");
            writer.sync(&mut other).await;
            let mut reader = Client::join(&url, "reader").await;
            if reader.pull(other.id).await.is_none() {
                return;
            }
        }
    };
    soon("the grant to shrink", shrunk).await;
    let mut reader = Client::join(&url, "reader").await;
    let copy = reader.pull(note.id).await.unwrap();
    assert_eq!(copy.value().unwrap(), "before");
    server.cli(&["grants", "rm", CLIENT_ID]).await;
    let closed = within(AT_ONCE, "the end of the socket", reader.close_code()).await;
    assert_eq!(closed, 1008);
    let refused = server.authenticate(&device, &Server::wish()).await;
    assert_eq!(refused.outcome(), (403, "approval_required".into()));
}

#[tokio::test]
async fn a_device_whose_approval_ends_soon_does_not_fill_the_disk_with_sessions() {
    let world = World::new().await;
    let server = world.server().await;
    let device = Device::in_browser();
    server.cli(&["devices", "open"]).await;
    server.authenticate(&device, &Server::wish()).await;
    // sooner than a session of this door ends unused
    server.approve(&device, &["--expires", "1h"]).await;
    let first = server.authenticate(&device, &Server::wish()).await.json();
    let before = rows(&server).await;
    for _ in 0..3 {
        let again = server.authenticate(&device, &Server::wish()).await.json();
        assert_eq!(again["token"], first["token"]);
    }
    assert_eq!(rows(&server).await, before);
    // more time makes another session, which lasts
    let id = server.cli(&["devices", "ls", "--json"]).await.json()[0]["id"].clone();
    let more = ["devices", "approve", id.as_str().unwrap(), "--group", GROUP];
    assert_eq!(server.cli(&more).await.code, Some(0));
    let longer = server.authenticate(&device, &Server::wish()).await.json();
    assert_ne!(longer["token"], first["token"]);
}

#[tokio::test]
async fn a_page_of_this_machine_is_never_shown_as_an_app_that_is_known() {
    let world = World::new().await;
    let mut native = metadata();
    native["redirect_uris"] = json!([format!("{APP}/"), "http://127.0.0.1/callback"]);
    world.serve("/client-metadata.json", &native);
    let server = world.server().await;
    server.cli(&["devices", "open"]).await;
    for (origin, kind) in [(APP, "web"), ("http://127.0.0.1:4321", "unverified")] {
        let device = Device::of(Key::p256(), OWNER, CLIENT_ID, Some(origin));
        server.authenticate(&device, &Server::wish()).await;
        let pending = server.cli(&["devices", "pending", "--json"]).await.json();
        let mine = pending.as_array().unwrap().iter();
        let mut mine = mine.filter(|row| row["fingerprint"] == device.fingerprint().as_str());
        assert_eq!(mine.next().unwrap()["kind"], kind, "{origin}");
    }
}

#[tokio::test]
async fn a_token_of_one_group_does_not_show_documents_of_another() {
    let world = World::new().await;
    let server = world.server().await;
    let device = Device::in_browser();
    server.pair(&device).await;
    let mut client = Client::join(&server.url, "dev").await;
    let mut secret = Replica::new("dev", "of another group");
    client.push(&mut secret).await;
    let welcome = server.authenticate(&device, &Server::wish()).await.json();
    let mut app = Client::join(&socket_url(&server, &welcome), "app").await;
    assert!(app.pull(secret.id).await.is_none());
    // a device that is approved for one group asks for another
    let wish = json!({ "lexiconAuthorityDomain": server.group, "rootDocUrl": null });
    let answer = server.authenticate(&device, &wish).await;
    assert_eq!(answer.outcome(), (403, "approval_required".into()));
}

#[tokio::test]
async fn a_panic_ends_every_session_and_every_token_at_once() {
    let world = World::new().await;
    let server = world.server().await;
    let device = Device::in_browser();
    server.pair(&device).await;
    let welcome = server.authenticate(&device, &Server::wish()).await.json();
    let mut app = Client::join(&socket_url(&server, &welcome), "app").await;
    let mut dev = Client::join(&server.url, "dev").await;
    assert_eq!(server.cli(&["panic", "--yes"]).await.code, Some(0));
    for client in [&mut app, &mut dev] {
        let code = within(AT_ONCE, "the end of the socket", client.close_code()).await;
        assert_eq!(code, 1008);
    }
    for token in [welcome["token"].as_str().unwrap(), &server.token] {
        assert_eq!(
            server.refusal(&format!("/?token={token}"), &[]).await.0,
            401
        );
    }
    let refused = server.authenticate(&device, &Server::wish()).await;
    assert_eq!(refused.outcome(), (403, "device_revoked".into()));
}

#[tokio::test]
async fn no_token_proof_or_ticket_shows_in_the_log_or_the_audit() {
    let world = World::new().await;
    let mut server = world.server().await;
    let device = Device::in_browser();
    server.pair(&device).await;
    let nonce = server.nonce().await;
    let proof = device.proof("POST", &server.authenticate_url(), &device.token, &nonce);
    let welcome = server
        .authenticate_with(&device, &proof, &Server::wish())
        .await
        .json();
    let token = welcome["token"].as_str().unwrap().to_owned();
    let mut client = Client::join(&server.url_with(&token), "app").await;
    server.refusal(&format!("/?token={token}x"), &[]).await;
    let app = App::new(&server, &world);
    let session = app.session().await;
    let ticket = app.ticket(&session).await.json()["ticket"].clone();
    let ticket = ticket.as_str().unwrap().to_owned();
    let by_ticket = format!("/sync?ticket={ticket}");
    assert_eq!(
        server.refusal(&by_ticket, &[("Origin", "null")]).await.0,
        401
    );
    assert_eq!(server.refusal(&by_ticket, &[]).await.0, 401, "used up");
    let [access, refresh] =
        ["accessToken", "refreshToken"].map(|name| session[name].as_str().unwrap().to_owned());
    server
        .authenticate_with(&device, &proof, &Server::wish())
        .await;
    is_told(&server, "used before").await;
    let audit = server.cli(&["audit", "--json"]).await.stdout;
    server.terminate().await;
    assert_eq!(client.close_code().await, 1001);
    let log = server.all_stderr().await;
    let signature = |text: &str| text.rsplit('.').next().unwrap().to_owned();
    for secret in [&token, &device.token, &proof, &ticket, &access, &refresh] {
        for text in [&log, &audit] {
            assert!(!text.contains(secret.as_str()));
            assert!(!text.contains(&signature(secret)));
        }
    }
    assert!(!log.contains("token=") && !log.contains("ticket="), "{log}");
}

#[tokio::test]
async fn without_an_owner_or_with_the_door_off_nobody_gets_in() {
    let device = Device::in_browser();
    let server = Server::start().await;
    let answer = server
        .authenticate_with(&device, "x", &Server::wish())
        .await;
    assert_eq!(answer.outcome(), (503, "not_configured".into()));
    let world = World::new().await;
    let mut variables = world.variables();
    variables.push(("GROUNDMIST_SYNC_LEGACY_AUTHENTICATE".into(), "off".into()));
    let server = Server::start_in_world(&[], variables).await;
    let answer = server.authenticate(&device, &Server::wish()).await;
    assert_eq!(answer.outcome(), (404, "not_found".into()));
}

#[tokio::test]
async fn a_browser_learns_what_it_may_send() {
    let world = World::new().await;
    let server = world.server().await;
    let preflight = [
        ("Origin", APP),
        ("Access-Control-Request-Method", "POST"),
        (
            "Access-Control-Request-Headers",
            "authorization,content-type,dpop",
        ),
    ];
    for path in ["/authenticate", "/xrpc/xyz.groundmist.sync.requestAccess"] {
        let answer = server.request("OPTIONS", path, &preflight, "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.headers["access-control-allow-origin"], APP);
        let allowed = answer.headers["access-control-allow-headers"].to_lowercase();
        for header in ["authorization", "dpop", "content-type"] {
            assert!(allowed.contains(header), "{allowed}");
        }
        assert!(
            !answer
                .headers
                .contains_key("access-control-allow-credentials")
        );
        assert!(answer.headers["vary"].to_lowercase().contains("origin"));
    }
}

#[tokio::test]
async fn a_proof_that_was_shown_before_the_approval_is_not_good_after_it() {
    let world = World::new().await;
    let server = world.server().await;
    let (device, wish) = (Device::in_browser(), Server::wish());
    server.cli(&["devices", "open"]).await;
    let nonce = server.nonce().await;
    let proof = device.proof("POST", &server.authenticate_url(), &device.token, &nonce);
    let waiting = server.authenticate_with(&device, &proof, &wish).await;
    assert_eq!(waiting.json()["pairing"], "waiting");
    server.approve(&device, &[]).await;
    // by somebody who has seen it
    let replayed = server.authenticate_with(&device, &proof, &wish).await;
    assert_eq!(replayed.outcome(), (401, "invalid_dpop_proof".into()));
    assert_eq!(server.authenticate(&device, &wish).await.status, 200);
}
