//! The wall clock is set forward and back while sockets are open and devices log in.
//!
//! The server and its commands see a clock of the test's own, by the library of Debian's package `libfaketime`: the wall
//! clock alone, for nobody sets the other one.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use support::{
    Client, Replica, Server,
    app::{App, socket},
    identity::{
        Answered, CLIENT_ID, Device, Key, OWNER, World, access_token, now_s, service_claims,
    },
    soon,
};
use tempfile::TempDir;

const HOUR_S: i64 = 3_600;

struct Clock(TempDir);

impl Clock {
    fn new() -> Self {
        let clock = Self(TempDir::new().unwrap());
        clock.set(0);
        clock
    }

    /// Sets it so many seconds before or behind ours.
    fn set(&self, offset_s: i64) {
        // a file that is read while it is written says nothing
        let draft = self.0.path().join("draft");
        fs::write(&draft, format!("{offset_s:+}\n")).unwrap();
        fs::rename(draft, self.path()).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("clock")
    }

    fn variables(&self) -> Vec<(String, String)> {
        let library = fs::read_dir("/usr/lib").unwrap().find_map(|entry| {
            let library = entry.unwrap().path().join("faketime/libfaketime.so.1");
            library.exists().then_some(library)
        });
        let library = library.expect("this test needs Debian's package libfaketime");
        let path = self.path();
        let variables = [
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", path.to_str().unwrap()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ];
        variables
            .map(|(name, value)| (name.into(), value.into()))
            .into()
    }
}

/// A device whose PDS has the same clock as the server.
fn device_at(key: &Key, offset_s: i64) -> Device {
    let token = access_token(&json!({
        "sub": OWNER, "client_id": CLIENT_ID, "cnf": { "jkt": key.thumbprint() },
        "iat": now_s() + offset_s, "exp": now_s() + offset_s + HOUR_S,
    }));
    Device {
        key: key.clone(),
        token,
        origin: Some("https://app.example.dev".into()),
    }
}

/// Logs in with a proof that was made by a clock which is so far off.
async fn login(server: &Server, device: &Device, nonce: &str, offset_s: i64) -> Answered {
    let mut claims = device.claims("POST", &server.authenticate_url(), &device.token, nonce);
    claims["iat"] = json!(now_s() + offset_s);
    let proof = device.key.jwt(&device.header(), &claims);
    server
        .authenticate_with(device, &proof, &Server::wish())
        .await
}

#[tokio::test]
async fn a_clock_that_is_set_closes_no_socket_whose_time_is_not_over_and_proofs_are_judged_by_it() {
    let (world, clock) = (World::new().await, Clock::new());
    let server = Server::start_in_world(
        &["--log", "info"],
        [world.variables(), clock.variables()].concat(),
    )
    .await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "new");
    writer.push(&mut note).await;
    let key = Key::p256();
    server.pair(&device_at(&key, 0)).await;

    for offset_s in [3 * HOUR_S, -3 * HOUR_S, -26 * HOUR_S, 0] {
        let nonce = server.nonce().await;
        clock.set(offset_s);
        writer.edit(&mut note, &offset_s.to_string()).await;
        let device = device_at(&key, offset_s);
        // the nonce is one of memory: it has outlived the step
        let answer = login(&server, &device, &nonce, offset_s).await;
        assert_eq!(answer.status, 200, "{offset_s}: {answer:?}");
        for wrong_s in [offset_s - HOUR_S, offset_s + HOUR_S] {
            let answer = login(&server, &device, &nonce, wrong_s).await;
            assert_eq!(
                answer.outcome(),
                (401, "invalid_dpop_proof".into()),
                "{offset_s}"
            );
        }
        Client::join(&server.url, "another").await;
    }
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
}

#[tokio::test]
async fn what_ends_at_a_time_ends_by_the_clock_that_is_set_and_lives_no_longer_when_it_is_set_back()
{
    let (world, clock) = (World::new().await, Clock::new());
    let server = Server::start_in_world(
        &["--log", "info"],
        [world.variables(), clock.variables()].concat(),
    )
    .await;
    let arguments = ["token", "add", "--group", "dev.example.hour", "--ttl", "1h"];
    let token = server.cli(&arguments).await.line().to_owned();
    let mut hour = Client::join(&server.url_with(&token), "hour").await;
    let path = format!("/sync?token={token}");

    clock.set(3 * HOUR_S);
    soon("the socket to be closed", hour.closed()).await;
    assert_eq!(server.refusal(&path, &[]).await.0, 401);
    clock.set(0);
    // its time is not over yet, after all
    Client::join(&server.url_with(&token), "hour").await;

    // the pairing window does not stay open for as long as the clock was set back
    assert_eq!(server.cli(&["devices", "open"]).await.code, Some(0));
    clock.set(-3 * HOUR_S);
    let device = device_at(&Key::p256(), -3 * HOUR_S);
    let nonce = server.nonce().await;
    let answer = login(&server, &device, &nonce, -3 * HOUR_S).await;
    assert_eq!(answer.json()["pairing"], "closed", "{answer:?}");
    clock.set(0);

    // nor does a ticket die or live on with it
    let app = App::new(&server, &world);
    let session = app.session().await;
    let ticket = app.ticket(&session).await;
    clock.set(3 * HOUR_S);
    let client = Client::join(&socket(&server, &ticket), "app").await;
    client.close().await;
}

/// What was forgotten as past its end could be used again once the clock was right.
#[tokio::test]
async fn service_auth_is_good_once_also_if_the_clock_was_set_forward_and_back_meanwhile() {
    let (world, clock) = (World::new().await, Clock::new());
    let server = Server::start_in_world(
        &["--log", "info"],
        [world.variables(), clock.variables()].concat(),
    )
    .await;
    let app = App::new(&server, &world);
    let began_s = now_s();
    let auth = |offset_s: i64, life_s: i64| {
        let mut claims = service_claims(&app.audience(), "listGroups");
        claims["iat"] = json!(began_s + offset_s);
        claims["exp"] = json!(began_s + offset_s + life_s);
        let header = json!({ "typ": "JWT", "alg": world.signing.algorithm() });
        world.signing.jwt(&header, &claims)
    };
    let list = async |auth: &str| {
        let call = app.call_with("GET", "listGroups", "Bearer", auth, None, &Value::Null);
        call.await
    };
    let first = auth(0, 200);
    assert_eq!(list(&first).await.status, 200);
    clock.set(3 * HOUR_S);
    assert_eq!(list(&auth(3 * HOUR_S, 200)).await.status, 200);
    clock.set(0);
    for replayed in [&first, &auth(0, 200)] {
        let answer = list(replayed).await;
        assert_eq!(answer.outcome(), (401, "InvalidServiceAuth".into()));
        assert!(answer.text.contains("used before"), "{answer:?}");
    }
    // and nobody is kept out for longer than what was forgotten would have lived
    assert_eq!(list(&auth(0, 201)).await.status, 200);
}

#[tokio::test]
async fn timers_go_on_when_the_clock_is_set_back_and_nothing_spins() {
    let clock = Clock::new();
    let config = "[compaction]\nfloor_bytes = 100\nquiet_ms = 300\n[worker]\nidle_ms = 200\n";
    let server = Server::start_on_disk("12m", config, clock.variables()).await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "new");
    writer.push(&mut note).await;
    for (round, offset_s) in [-5 * HOUR_S, 5 * HOUR_S, -48 * HOUR_S]
        .into_iter()
        .enumerate()
    {
        writer
            .edit(&mut note, &random_text(3_000 << (2 * round)))
            .await;
        clock.set(offset_s);
        let before = server.cpu_ticks();
        let compacted = async {
            loop {
                match server.document(note.id).await {
                    Some(shown) if shown["snapshotBytes"].as_u64() > Some(3_000 << (2 * round)) => {
                        return;
                    }
                    _ => {}
                }
            }
        };
        soon("a snapshot", compacted).await;
        let used = server.cpu_ticks() - before;
        assert!(
            used < 150,
            "{used} hundredths of a second of processor time"
        );
        writer.edit(&mut note, "goes on").await;
    }
}

/// Text that does not become shorter.
fn random_text(bytes: usize) -> String {
    let mut random = vec![0u8; bytes];
    getrandom::fill(&mut random).unwrap();
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}
