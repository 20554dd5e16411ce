//! `groundmist-sync init` and `publish` against a directory, a PDS and a name server of our own, all on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use std::{
    fs,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Path as UrlPath, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use support::{Output, soon};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, UdpSocket},
    process::Command,
};

const ALICE: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
const BOB: &str = "did:plc:z72i7hdynmk6r22z27h6tvur";
const PASSWORD: &str = "abcd-efgh-ijkl-mnop";

/// What the directory and the PDS know and have been asked.
struct Facts {
    /// The handle in the DID document.
    claimed: &'static str,
    /// What the web server of alice.test names.
    named: &'static str,
    /// Whom the PDS signs in.
    signs_in: &'static str,
    /// What the PDS says to a sign-in instead.
    sign_in_fails: Option<(u16, &'static str)>,
    record: Option<Value>,
    asked: Vec<String>,
}

/// The world, and a working directory in it.
struct World {
    facts: Arc<Mutex<Facts>>,
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
}

type Shared = Arc<Mutex<Facts>>;

impl World {
    async fn new() -> Self {
        let facts = Arc::new(Mutex::new(Facts {
            claimed: "alice.test",
            named: ALICE,
            signs_in: ALICE,
            sign_in_fails: None,
            record: None,
            asked: vec![],
        }));
        let router = Router::new()
            .route("/{did}", get(document))
            .route("/.well-known/atproto-did", get(named))
            .route("/xrpc/{method}", get(xrpc).post(xrpc))
            .with_state(Arc::clone(&facts));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(listener, router));
        let map = format!("https://alice.test={here},https://pds.alice.test={here}");
        let variables = vec![
            ("GROUNDMIST_SYNC_PLC_URL", here),
            ("GROUNDMIST_SYNC_TEST_HOST_MAP", map),
            (
                "GROUNDMIST_SYNC_TEST_DNS",
                name_server_without_names().await,
            ),
        ];
        Self {
            facts,
            folder: TempDir::new().unwrap(),
            variables,
        }
    }

    /// One in which the owner is Alice.
    async fn of_alice() -> Self {
        Self::new().await.with("ATPROTO_DID", ALICE)
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    fn given(self, change: impl FnOnce(&mut Facts)) -> Self {
        change(&mut self.facts.lock().unwrap());
        self
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn config(&self) -> Option<String> {
        fs::read_to_string(self.path().join("config.toml")).ok()
    }

    fn record(&self) -> Option<Value> {
        self.facts.lock().unwrap().record.clone()
    }

    fn asked(&self) -> Vec<String> {
        self.facts.lock().unwrap().asked.clone()
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, "").await
    }

    /// Runs a command with this on its standard input.
    async fn run_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_groundmist-sync"))
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // a command that wants no input may have ended
        stdin.write_all(input.as_bytes()).await.ok();
        drop(stdin);
        let output = soon("the command to end", child.wait_with_output())
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let output = Output {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            stdout_bytes: output.stdout,
        };
        for secret in [PASSWORD, "access-secret", "refresh-secret"] {
            assert!(!format!("{output:?}").contains(secret), "{output:?}");
        }
        output
    }

    async fn publish(&self, arguments: &[&str]) -> Output {
        let arguments = [&["publish", "--host", "sync.example.com"], arguments].concat();
        self.run_with(&arguments, &format!("{PASSWORD}\n")).await
    }
}

async fn serve(listener: TcpListener, router: Router) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        let stream = hyper_util::rt::TokioIo::new(stream);
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(stream, service);
        tokio::spawn(async move { connection.await.ok() });
    }
}

/// A name server that knows of no name: it sends each question back as an answer with the code for that.
async fn name_server_without_names() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            buffer[2..4].copy_from_slice(&[0x81, 0x83]);
            socket.send_to(&buffer[..length], peer).await.unwrap();
        }
    });
    address
}

async fn document(State(facts): State<Shared>, UrlPath(did): UrlPath<String>) -> Response {
    if did != ALICE {
        return StatusCode::NOT_FOUND.into_response();
    }
    let claimed = facts.lock().unwrap().claimed;
    Json(json!({
        "id": did,
        "alsoKnownAs": [format!("at://{claimed}")],
        "service": [{
            "id": "#atproto_pds",
            "type": "AtprotoPersonalDataServer",
            "serviceEndpoint": "https://pds.alice.test",
        }],
    }))
    .into_response()
}

async fn named(State(facts): State<Shared>) -> String {
    facts.lock().unwrap().named.to_owned()
}

fn xrpc_error(status: u16, error: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, Json(json!({"error": error, "message": "in words"}))).into_response()
}

async fn xrpc(
    State(facts): State<Shared>,
    UrlPath(method): UrlPath<String>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
    let mut facts = facts.lock().unwrap();
    let name = method.rsplit('.').next().unwrap();
    facts.asked.push(name.to_owned());
    let bearer = headers
        .get("authorization")
        .map(|value| value.to_str().unwrap());
    let input: Value = serde_json::from_slice(&body).unwrap_or_default();
    let is_place = input["repo"] == ALICE
        && input["rkey"] == ALICE
        && input["collection"] == "xyz.groundmist.sync";
    match (name, bearer) {
        ("getRecord", None) => match &facts.record {
            Some(record) => {
                Json(json!({"uri": "at://...", "cid": "x", "value": record})).into_response()
            }
            None => xrpc_error(400, "RecordNotFound"),
        },
        ("createSession", None) => sign_in(&facts, &input),
        ("putRecord", Some("Bearer access-secret")) if is_place => {
            facts.record = Some(input["record"].clone());
            Json(json!({"uri": "at://...", "cid": "x"})).into_response()
        }
        ("deleteRecord", Some("Bearer access-secret")) if is_place => {
            facts.record = None;
            Json(json!({})).into_response()
        }
        ("deleteSession", Some("Bearer refresh-secret")) if body.is_empty() => {
            StatusCode::OK.into_response()
        }
        _ => xrpc_error(400, "InvalidRequest"),
    }
}

fn sign_in(facts: &Facts, input: &Value) -> Response {
    if let Some((status, error)) = facts.sign_in_fails {
        return xrpc_error(status, error);
    }
    if input["identifier"] != ALICE || input["password"] != PASSWORD {
        return xrpc_error(401, "AuthenticationRequired");
    }
    Json(json!({
        "did": facts.signs_in,
        "handle": "alice.test",
        "accessJwt": "access-secret",
        "refreshJwt": "refresh-secret",
    }))
    .into_response()
}

fn assert_fails(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.code, Some(code), "{output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "{word} in {output:?}");
    }
}

#[tokio::test]
async fn init_writes_the_owner_of_a_handle() {
    let world = World::new().await;
    let arguments = [
        "init",
        "--handle",
        "@Alice.test",
        "--public-url",
        "http://localhost:3031",
    ];
    let output = world.run(&arguments).await;
    assert!(
        output.line().contains(&format!("alice.test: {ALICE}")),
        "{output:?}"
    );
    let config = world.config().unwrap();
    let settings =
        format!("# alice.test\nowner = \"{ALICE}\"\npublic_url = \"http://localhost:3031\"\n");
    assert!(config.ends_with(&settings), "{config}");
    let rows = world.run(&["config", "show", "--json"]).await.json();
    assert_eq!(
        rows[0],
        json!({"key": "owner", "value": ALICE, "source": "config.toml"})
    );
    let files: Vec<_> = fs::read_dir(world.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "no draft is left: {files:?}");
}

#[tokio::test]
async fn init_shows_the_handle_of_a_did_and_whether_it_is_one() {
    let world = World::new().await;
    let output = world
        .run(&["init", "--did", ALICE, "--config", "other.toml"])
        .await;
    assert!(
        output.line().starts_with(&format!("alice.test: {ALICE}")),
        "{output:?}"
    );
    assert!(world.config().is_none());
    let text = fs::read_to_string(world.path().join("other.toml")).unwrap();
    assert!(
        text.ends_with(&format!("\nowner = \"{ALICE}\"\n")),
        "{text}"
    );
    let world = World::new().await.given(|facts| facts.named = BOB);
    let output = world.run(&["init", "--did", ALICE]).await;
    assert!(
        output.line().contains("another account's handle"),
        "{output:?}"
    );
}

#[tokio::test]
async fn init_never_writes_over_a_file_and_prints_what_belongs_there() {
    let world = World::new().await;
    fs::write(world.path().join("config.toml"), "port = 4000\n").unwrap();
    let output = world.run(&["init", "--handle", "alice.test"]).await;
    assert_fails(
        &output,
        1,
        &[
            "config.toml exists already",
            &format!("owner = \"{ALICE}\""),
        ],
    );
    assert_eq!(world.config().as_deref(), Some("port = 4000\n"));
}

#[tokio::test]
async fn init_writes_nothing_for_a_handle_or_did_that_is_not_good() {
    let not_claimed = World::new()
        .await
        .given(|facts| facts.claimed = "mallory.test");
    let nobody = World::new().await.given(|facts| facts.named = "");
    let given_up = World::new().await.given(|facts| facts.named = BOB);
    for (world, arguments, words) in [
        (
            &not_claimed,
            ["--handle", "alice.test"],
            "does not name the handle",
        ),
        (&nobody, ["--handle", "alice.test"], "no TXT record"),
        (
            &given_up,
            ["--handle", "alice.test"],
            "there is no such DID",
        ),
        (&nobody, ["--did", BOB], "there is no such DID"),
    ] {
        let output = world.run(&[&["init"], &arguments[..]].concat()).await;
        assert_fails(&output, 1, &[words]);
        assert!(world.config().is_none());
    }
}

#[tokio::test]
async fn init_that_is_asked_for_wrongly_is_told_so() {
    let world = World::new().await;
    for arguments in [
        &["init"][..],
        &["init", "--handle", "alice.test", "--did", ALICE],
        &["init", "--handle", "alice"],
        &["init", "--did", "alice.test"],
        &["init", "--did", ALICE, "--public-url", "sync.example.com"],
    ] {
        assert_fails(&world.run(arguments).await, 64, &[]);
    }
    assert!(world.config().is_none() && world.asked().is_empty());
}

#[tokio::test]
async fn a_record_is_published_checked_shown_and_removed() {
    let world = World::of_alice().await;
    let nothing = world.publish(&["--show"]).await;
    assert_fails(
        &nothing,
        1,
        &["nothing is published", "groundmist-sync publish"],
    );
    assert_fails(
        &world.publish(&["--verify"]).await,
        1,
        &["nothing is published"],
    );

    let output = world.publish(&["--app-password-stdin"]).await;
    assert!(
        output
            .line()
            .contains(&format!("at://{ALICE}/xyz.groundmist.sync/{ALICE}"))
    );
    let record = json!({"$type": "xyz.groundmist.sync", "host": "sync.example.com"});
    assert_eq!(world.record(), Some(record.clone()));
    assert_eq!(
        world.asked()[2..],
        ["createSession", "putRecord", "deleteSession"]
    );
    assert_eq!(world.publish(&["--show"]).await.json(), record);
    world.publish(&["--verify"]).await.line();

    let other = world
        .run(&["publish", "--verify", "--host", "other.example.com:8443"])
        .await;
    assert_fails(&other, 1, &["sync.example.com", "other.example.com:8443"]);
    world
        .publish(&["--remove", "--app-password-stdin"])
        .await
        .line();
    assert_eq!(world.record(), None);
    assert_eq!(world.asked().last().unwrap(), "deleteSession");
}

#[tokio::test]
async fn nothing_that_a_pds_says_is_obeyed_by_the_terminal() {
    // what JSON leaves as it is: a control sequence of one sign, and a turn of the direction of writing
    const HOSTILE: &str = "\u{9b}2J\u{202e}sync";
    let record = json!({"$type": "xyz.groundmist.sync", "host": HOSTILE});
    let world = World::of_alice().await.given(|facts| {
        facts.record = Some(record.clone());
        facts.sign_in_fails = Some((400, HOSTILE));
    });
    let shown = world.publish(&["--show"]).await;
    let verified = world.publish(&["--verify"]).await;
    let refused = world.publish(&["--app-password-stdin"]).await;
    assert!(refused.stderr.contains("2J"), "{refused:?}");
    for output in [&shown, &verified, &refused] {
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(!said.contains(['\u{9b}', '\u{202e}']), "{said:?}");
    }
    assert_eq!(shown.json(), record);
}

#[tokio::test]
async fn the_host_and_the_password_can_be_settings() {
    let world = World::of_alice()
        .await
        .with("GROUNDMIST_SYNC_PUBLIC_URL", "http://localhost:3031")
        .with("PASSWORD", PASSWORD)
        .with("HANDLE", "alice.test")
        .with("PDS_URL", "https://pds.alice.test");
    world.run(&["publish"]).await.line();
    let record = json!({"$type": "xyz.groundmist.sync", "host": "localhost:3031"});
    assert_eq!(world.record(), Some(record));
}

#[tokio::test]
async fn print_needs_nobody() {
    let world = World::of_alice()
        .await
        .with("GROUNDMIST_SYNC_PLC_URL", "http://127.0.0.1:1");
    let output = world.publish(&["--print"]).await;
    let record = json!({"$type": "xyz.groundmist.sync", "host": "sync.example.com"});
    assert_eq!(output.json(), record);
    assert!(
        output
            .stderr
            .contains(&format!("at://{ALICE}/xyz.groundmist.sync/{ALICE}"))
    );
    assert!(world.asked().is_empty());
}

#[tokio::test]
async fn what_the_pds_says_to_a_password_is_told_with_what_to_do() {
    let world = World::of_alice().await;
    let wrong = world
        .run_with(
            &["publish", "--host", "a.example", "--app-password-stdin"],
            "wrong\n",
        )
        .await;
    assert_fails(&wrong, 1, &["app password", ALICE]);
    for (answer, words) in [
        ((429, "RateLimitExceeded"), "wait"),
        ((401, "AuthFactorTokenRequired"), "app password"),
        ((400, "AccountTakedown"), "AccountTakedown"),
        ((500, "InternalServerError"), "status 500"),
    ] {
        let world = World::of_alice()
            .await
            .given(|facts| facts.sign_in_fails = Some(answer));
        assert_fails(&world.publish(&["--app-password-stdin"]).await, 1, &[words]);
        assert_eq!(world.record(), None);
    }
}

#[tokio::test]
async fn an_account_that_is_not_the_owner_publishes_nothing() {
    let world = World::of_alice().await.given(|facts| facts.signs_in = BOB);
    let output = world.publish(&["--app-password-stdin"]).await;
    assert_fails(&output, 1, &["another account"]);
    assert_eq!(world.asked(), ["createSession", "deleteSession"]);
}

#[tokio::test]
async fn the_password_is_not_sent_to_another_pds_or_for_another_handle() {
    for (name, value, words) in [
        (
            "PDS_URL",
            "https://pds.mallory.test",
            "https://pds.alice.test",
        ),
        ("HANDLE", "mallory.test", "leads nowhere"),
    ] {
        let world = World::of_alice().await.with(name, value);
        let output = world.publish(&["--app-password-stdin"]).await;
        assert_fails(&output, 1, &[name, words]);
        assert!(world.asked().is_empty(), "{:?}", world.asked());
    }
}

#[tokio::test]
async fn publish_that_lacks_something_is_told_what() {
    let without_owner = World::new().await;
    assert_fails(
        &without_owner.publish(&["--print"]).await,
        64,
        &["ATPROTO_DID"],
    );
    let world = World::of_alice().await;
    assert_fails(&world.run(&["publish", "--print"]).await, 64, &["--host"]);
    assert_fails(&world.publish(&[]).await, 64, &["--app-password-stdin"]);
    assert_fails(&world.publish(&["--show", "--remove"]).await, 64, &[]);
    let empty = world
        .run_with(
            &["publish", "--host", "a.example", "--app-password-stdin"],
            "\n",
        )
        .await;
    assert_fails(&empty, 1, &["standard input"]);
    assert!(world.asked().is_empty());
}
