//! Who is let in, and who is not: over HTTP, before anything is upgraded.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

use std::{
    sync::mpsc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rusqlite::{Connection, params};
use serde_json::Value;
use store::AccountStore;
use support::{Client, Event, Replica, Server, handshake, soon, sync_frame, within};
use tokio::sync::oneshot;

mod support;

/// How long it may take until a revoked token's sockets are closed.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);

/// A header of a handshake.
type Header<'a> = (&'static str, &'a str);

/// The token with `change` made to one of its parts, everything else as it was.
fn with_part(token: &str, part: usize, change: impl FnOnce(String) -> String) -> String {
    let mut parts: Vec<String> = token.split('.').map(ToOwned::to_owned).collect();
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(&parts[part]).unwrap();
    let changed = change(String::from_utf8(bytes).unwrap());
    parts[part] = BASE64_URL_SAFE_NO_PAD.encode(changed);
    parts.join(".")
}

/// Less than the time after which uses are written down, of whatever session.
const NOTED_WITHIN: Duration = Duration::from_secs(20);

async fn session_ids(server: &Server) -> Vec<String> {
    let listed = server.cli(&["token", "ls", "--json"]).await.json();
    let id = |row: &Value| row["id"].as_str().unwrap().to_owned();
    listed.as_array().unwrap().iter().map(id).collect()
}

#[tokio::test]
async fn whoever_has_no_good_token_gets_a_401_instead_of_a_websocket() {
    let server = Server::start().await;
    let other = Server::start().await;
    let token = &server.token;
    let header = |text: &str| with_part(token, 0, |_| text.into());
    let none = header(r#"{"alg":"none","typ":"JWT"}"#);
    let signature = token.rsplit_once('.').unwrap().1;
    let unsigned = none.strip_suffix(signature).unwrap();
    let other_group = with_part(token, 1, |claims| {
        claims.replace(&server.group, "dev.example.other")
    });
    let later = with_part(token, 1, |claims| claims.replace("\"exp\":1", "\"exp\":9"));
    assert!(other_group != *token && later != *token, "were changed");
    let cases = [
        ("no token", "/".into()),
        ("no value", "/?token".into()),
        ("an empty token", "/?token=".into()),
        ("garbage", "/?token=garbage".into()),
        ("three dots", "/?token=...".into()),
        ("a long one", format!("/?token={}", "a".repeat(8_000))),
        ("other case", format!("/?token={}", token.to_uppercase())),
        ("cut off", format!("/?token={}", &token[..token.len() - 1])),
        ("prolonged", format!("/?token={token}AAAA")),
        ("another key's", format!("/?token={}", other.token)),
        ("alg none", format!("/?token={none}")),
        ("alg none, no signature", format!("/?token={unsigned}")),
        (
            "another alg",
            format!("/?token={}", header(r#"{"alg":"HS512","typ":"JWT"}"#)),
        ),
        ("another group", format!("/?token={other_group}")),
        ("a later end", format!("/?token={later}")),
        ("wrong name", format!("/?Token={token}")),
        ("at /sync", "/sync?token=garbage".into()),
    ];
    let mut bodies = std::collections::BTreeSet::new();
    for (case, path) in cases {
        let (status, answer) = server.refusal(&path, &[]).await;
        assert_eq!(status, 401, "{case}: {answer}");
        assert!(answer.contains("www-authenticate: Bearer"), "{case}");
        assert!(!answer.contains("upgrade: websocket"), "{case}");
        bodies.insert(answer.split_once("\r\n\r\n").unwrap().1.to_owned());
    }
    assert_eq!(
        bodies.len(),
        2,
        "a token is missing or not good; no more is told: {bodies:?}"
    );
    Client::join(&server.url, "still").await.close().await;
}

#[tokio::test]
async fn a_token_travels_in_the_address_in_a_header_or_as_a_subprotocol() {
    let server = Server::start().await;
    let plain = format!("ws://{}/", server.address);
    let bearer = format!("Bearer {}", server.token);
    let small = format!("bearer {}", server.token);
    let protocol = format!("groundmist.token.{}", server.token);
    let protocols = format!("something, {protocol}");
    let sync = format!("ws://{}/sync?a=b&token={}", server.address, server.token);
    let cases: [(&str, &str, &[Header<'_>]); 6] = [
        ("address", &server.url, &[]),
        ("address of /sync", &sync, &[]),
        ("header", &plain, &[("authorization", &bearer)]),
        ("header in lower case", &plain, &[("authorization", &small)]),
        (
            "subprotocol",
            &plain,
            &[("sec-websocket-protocol", &protocol)],
        ),
        (
            "one of two subprotocols",
            &plain,
            &[("sec-websocket-protocol", &protocols)],
        ),
    ];
    for (case, url, headers) in cases {
        let (socket, answer) = match handshake(url, headers).await {
            Ok(opened) => opened,
            Err(error) => panic!("{case}: {error}"),
        };
        let echoed = answer.headers().get("sec-websocket-protocol");
        let expected = case.contains("subprotocol").then_some(protocol.as_str());
        assert_eq!(
            echoed.map(|value| value.to_str().unwrap()),
            expected,
            "{case}"
        );
        let mut client = Client::on(socket, "client");
        client.send(support::join_frame("client")).await;
        assert_eq!(client.frame().await.kind, "peer", "{case}");
        client.close().await;
    }
}

#[tokio::test]
async fn a_token_whose_time_is_over_opens_nothing_and_its_socket_is_closed() {
    let server = Server::start().await;
    let arguments = [
        "token",
        "add",
        "--group",
        &server.group,
        "--ttl",
        "2s",
        "--name",
        "short",
    ];
    let token = server.cli(&arguments).await.line().to_owned();
    let url = server.url_with(&token);
    let mut client = Client::join(&url, "short").await;
    assert_eq!(client.close_code().await, 1008);
    let (status, _) = server.refusal(&format!("/?token={token}"), &[]).await;
    assert_eq!(status, 401);
    let listed = server.cli(&["token", "ls", "--json", "--all"]).await.json();
    let is_short = |row: &&Value| row["name"] == "short";
    let row = listed.as_array().unwrap().iter().find(is_short).unwrap();
    assert_eq!(row["state"], "expired");
}

#[tokio::test]
async fn a_token_that_was_never_used_expires_too() {
    let server = Server::start().await;
    let arguments = ["token", "add", "--group", &server.group, "--ttl", "1s"];
    let token = server.cli(&arguments).await.line().to_owned();
    let path = format!("/sync?token={token}");
    let refused = async { while server.http(&path, &[]).await.0 != 401 {} };
    soon("the token to expire", refused).await;
}

#[tokio::test]
async fn a_revoked_token_loses_its_sockets_within_a_second_and_opens_no_more() {
    let server = Server::start().await;
    let before = session_ids(&server).await;
    let token = server.token(&server.group, false).await;
    let mut ids = session_ids(&server).await;
    ids.retain(|id| !before.contains(id));
    let url = server.url_with(&token);
    let mut sockets = vec![];
    for name in ["one", "two"] {
        sockets.push(Client::join(&url, name).await);
    }
    sockets.push(Client::open(&url, "has not joined").await);
    let mut bystander = Client::join(&server.url, "bystander").await;
    let mut note = Replica::new("bystander", "note");
    assert_eq!(
        server.cli(&["token", "rm", &ids[0]]).await.line(),
        format!("revoked {}", ids[0])
    );
    let all_closed = async {
        for client in &mut sockets {
            assert_eq!(client.close_code().await, 1008, "{}", client.name);
        }
    };
    within(REVOKED_WITHIN, "the sockets to be closed", all_closed).await;
    let (status, _) = server.refusal(&format!("/?token={token}"), &[]).await;
    assert_eq!(status, 401);
    bystander.push(&mut note).await;
    let again = server.cli(&["token", "rm", &ids[0]]).await;
    assert_eq!(again.code, Some(1), "{again:?}");
}

/// Keeps the account database from being written to by anybody else until what comes back is dropped.
async fn lock_accounts(server: &Server) -> mpsc::Sender<()> {
    let accounts = AccountStore::open(&server.data_dir().join("account.db")).unwrap();
    let (unlock, unlocked) = mpsc::channel();
    let (locked, is_locked) = oneshot::channel();
    std::thread::spawn(move || {
        // the second id is asked for in the middle of the transaction
        let mut locked = Some(locked);
        let waits = std::iter::once_with(move || {
            locked.take().unwrap().send(()).unwrap();
            unlocked.recv().unwrap_err();
            "nobody"
        });
        let ids = std::iter::once("nobody").chain(waits);
        accounts.touch(ids, 0).unwrap();
    });
    is_locked.await.unwrap();
    unlock
}

/// Uses are written down twice a minute. It could have ended by then, and its device been shut out just after it had come.
#[tokio::test]
async fn a_session_that_is_used_in_its_last_seconds_goes_on() {
    let server = Server::start().await;
    let before = session_ids(&server).await;
    let token = server.token(&server.group, false).await;
    let mut ids = session_ids(&server).await;
    ids.retain(|id| !before.contains(id));
    let ends_at = SystemTime::now() + Duration::from_secs(30);
    let ends_at_ms = ends_at.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let ends_at_ms = i64::try_from(ends_at_ms).unwrap();
    let accounts = Connection::open(server.data_dir().join("account.db")).unwrap();
    let changed = accounts.execute(
        "UPDATE sessions SET expires_at_ms = ?1, slide_ms = 3600000 WHERE id = ?2",
        params![ends_at_ms, ids[0]],
    );
    assert_eq!(changed.unwrap(), 1);

    let mut client = Client::join(&server.url_with(&token), "late").await;
    let mut note = Replica::new("late", "before");
    client.push(&mut note).await;
    let noted = async {
        let query = "SELECT expires_at_ms FROM sessions WHERE id = ?1";
        let end = || accounts.query_row(query, [&ids[0]], |row| row.get::<_, i64>(0));
        let mut edits = 0..;
        while end().unwrap() == ends_at_ms {
            let edit = edits.next().unwrap().to_string();
            client.edit(&mut note, &edit).await;
        }
    };
    within(NOTED_WITHIN, "its use to be written down", noted).await;
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_keeps_no_socket_open() {
    let server = Server::start().await;
    let arguments = ["token", "add", "--group", &server.group, "--ttl", "2s"];
    let token = server.cli(&arguments).await.line().to_owned();
    let mut client = Client::join(&server.url_with(&token), "short").await;
    let unlock = lock_accounts(&server).await;
    // something for the audit log, which has to wait
    assert_eq!(server.refusal("/?token=x", &[]).await.0, 401);
    let closed = client.close_code();
    let soon_after_its_end = Duration::from_secs(4);
    assert_eq!(
        within(soon_after_its_end, "the end of the socket", closed).await,
        1008
    );
    drop(unlock);
}

#[tokio::test]
async fn a_read_only_token_reads_and_stores_nothing() {
    let server = Server::start().await;
    let mut owner = Client::join(&server.url, "owner").await;
    let mut note = Replica::new("owner", "at first");
    owner.push(&mut note).await;
    owner.edit(&mut note, "as the owner has it").await;
    let stored = server.document(note.id).await.unwrap();
    let url = server.url_with(&server.token(&server.group, true).await);

    let mut reader = Client::join(&url, "reader").await;
    let mut copy = reader.pull(note.id).await.unwrap();
    assert_eq!(copy.value().unwrap(), "as the owner has it");
    // whatever the client library thinks of it: both are written to the socket
    copy.doc.set_actor("reader".as_bytes().into());
    copy.edit("as the reader wants it");
    let change = copy
        .doc
        .get_last_local_change()
        .unwrap()
        .raw_bytes()
        .to_vec();
    let forced = sync_message(&copy, &change);
    reader
        .send(sync_frame("sync", "reader", copy.id, &forced))
        .await;
    let mut own = Replica::new("reader", "a document of the reader");
    let whole = own.doc.save();
    let forced = sync_message(&own, &whole);
    reader
        .send(sync_frame("sync", "reader", own.id, &forced))
        .await;
    // what comes later on the same socket is answered: the above has been looked at
    reader.pull(note.id).await.unwrap();
    own.state = automerge::sync::State::new();

    assert_eq!(server.document(note.id).await.unwrap(), stored);
    assert_eq!(server.document(own.id).await, None);
    assert!(owner.pull(own.id).await.is_none());
    // and the owner goes on, without hearing of it
    owner.edit(&mut note, "as the owner has it now").await;
    assert_eq!(
        server.document(note.id).await.unwrap()["heads"],
        serde_json::json!(note.heads())
    );
}

/// A sync message that carries `chunk`.
fn sync_message(replica: &Replica, chunk: &[u8]) -> Vec<u8> {
    let mut heads = replica.doc.get_heads();
    heads.sort();
    let mut message = vec![0x43, u8::try_from(heads.len()).unwrap()];
    heads.iter().for_each(|head| message.extend(head.0));
    message.extend([0, 0, 1]);
    let length = u8::try_from(chunk.len()).unwrap();
    // LEB128 takes seven bits to a byte
    message.extend([length | 0x80, length >> 7]);
    message.extend(chunk);
    message
}

#[tokio::test]
async fn a_document_of_another_group_answers_as_one_that_does_not_exist() {
    let server = Server::start().await;
    let mut owner = Client::join(&server.url, "owner").await;
    let mut note = Replica::new("owner", "of this group");
    owner.push(&mut note).await;
    let url = server.url_with(&server.token("dev.example.other", false).await);
    let mut stranger = Client::join(&url, "stranger").await;

    let mut answers = vec![];
    for id in [note.id, support::random_id()] {
        let mut nothing = Replica::empty(id, "stranger");
        stranger.sync(&mut nothing).await;
        let mut answer = stranger.frame().await;
        assert_eq!(answer.document, id.to_string());
        answer.document.clear();
        answers.push(answer);
    }
    assert_eq!(answers[0].kind, "doc-unavailable");
    assert_eq!(answers[0], answers[1]);

    // a document under the same id there is another document
    let mut namesake = Replica::empty(note.id, "stranger");
    namesake.edit("of the other group");
    stranger.push(&mut namesake).await;
    assert_eq!(
        owner.edit(&mut note, "more").await.to_string(),
        note.heads()[0]
    );
    assert_eq!(owner.pull(note.id).await.unwrap().value().unwrap(), "more");
    let theirs = stranger.pull(note.id).await.unwrap();
    assert_eq!(theirs.value().unwrap(), "of the other group");
}

#[tokio::test]
async fn an_ephemeral_message_does_not_cross_groups() {
    let server = Server::start().await;
    let mut owner = Client::join(&server.url, "owner").await;
    let mut note = Replica::new("owner", "note");
    owner.push(&mut note).await;
    let url = server.url_with(&server.token("dev.example.other", false).await);
    let mut stranger = Client::join(&url, "stranger").await;
    let mut namesake = Replica::empty(note.id, "stranger");
    namesake.edit("of the other group");
    stranger.push(&mut namesake).await;

    let mut e = minicbor::Encoder::new(Vec::new());
    let id = note.id.to_string();
    let fields = [
        ("type", "ephemeral"),
        ("senderId", "stranger"),
        ("targetId", "owner"),
        ("documentId", id.as_str()),
        ("sessionId", "session"),
    ];
    e.map(7).unwrap();
    for (key, value) in fields {
        e.str(key).unwrap().str(value).unwrap();
    }
    e.str("count").unwrap().u8(1).unwrap();
    e.str("data").unwrap().bytes(b"hello").unwrap();
    stranger.send(e.into_writer().into()).await;
    // the stranger's message has been handled once what follows it is answered
    stranger.edit(&mut namesake, "and more").await;
    owner
        .sync(&mut Replica::empty(support::random_id(), "owner"))
        .await;
    match owner.next().await {
        Event::Frame(received) => assert_eq!(received.kind, "doc-unavailable"),
        closed @ Event::Closed { .. } => panic!("{closed:?}"),
    }
}

#[tokio::test]
async fn no_token_ever_shows_in_the_log() {
    let mut server = Server::start_with(&["--log", "trace"]).await;
    let token = server.token(&server.group, false).await;
    let bearer = format!("Bearer {token}");
    let protocol = format!("groundmist.token.{token}");
    let plain = format!("ws://{}/", server.address);
    for headers in [
        ("authorization", bearer.as_str()),
        ("sec-websocket-protocol", protocol.as_str()),
    ] {
        let (socket, _) = handshake(&plain, &[headers]).await.unwrap();
        Client::on(socket, "client").close().await;
    }
    let mut client = Client::join(&server.url_with(&token), "client").await;
    client.push(&mut Replica::new("client", "note")).await;
    let changed = format!("{token}x");
    let (status, _) = server.refusal(&format!("/?token={changed}"), &[]).await;
    assert_eq!(status, 401);
    server.has_logged("refused a connection").await;
    client.send_message("text".into()).await;
    assert_eq!(client.close_code().await, 1003);
    let id = session_ids(&server).await.pop().unwrap();
    server.cli(&["token", "rm", &id]).await;
    server.terminate().await;

    let log = server.all_stderr().await;
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    for token in [&token, &server.token] {
        // a part of it would be as bad: the claims, and the signature
        for part in token.split('.').skip(1) {
            assert!(!log.contains(part), "{log}");
        }
    }
}
