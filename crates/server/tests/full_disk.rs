//! A full disk: writes are refused and nothing of them is acknowledged, reads go on, and service returns with room.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use std::fs::{self, File};

use automerge::ReadDoc;
use engine::DocumentId;
use serde_json::{Value, json};
use support::{
    Client, Output, Replica, Server,
    app::{App, socket, token},
    command,
    disk::Disk,
    handshake, hostile,
    identity::{CLIENT_ID, Device, GROUP, OWNER, World},
    outcome, random_id, soon, sync_frame,
};
use tempfile::TempDir;

const DISK: &str = "12m";
/// What the commands say.
const NO_ROOM: &str = "there is no room on the disk; make some, and try again";

/// Longer than the slack of the file's last page, also once compressed.
fn long_text(letter: &str) -> String {
    let mut text = String::new();
    let mut state = 1u64;
    while text.len() < 200_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        text.push_str(&format!("{letter}{state:x}"));
    }
    text
}

/// What `docs show` says of a document, once that is as it should be.
async fn shows(server: &Server, id: DocumentId, what: &str, is_so: impl Fn(&Value) -> bool) {
    let shown = async {
        loop {
            if server.document(id).await.is_some_and(|shown| is_so(&shown)) {
                return;
            }
        }
    };
    soon(what, shown).await;
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_loses_nothing_and_goes_on_once_there_is_room() {
    let server = Server::start_on_disk(DISK, "", vec![]).await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut before = Replica::new("writer", "stored while there was room");
    writer.push(&mut before).await;
    assert_eq!(server.http("/xrpc/_health", &[]).await.0, 200);

    server.disk().fill();
    let mut refused = Replica::new("refused", &long_text("n"));
    writer.sync(&mut refused).await;
    let body = server.has_health(503).await;
    assert!(body.contains("StorageFull"), "{body}");

    let mut reader = Client::join(&server.url, "reader").await;
    let read = reader.pull(before.id).await.expect("reads go on");
    assert_eq!(read.value(), before.value());
    assert!(
        reader.pull(refused.id).await.is_none(),
        "nobody is told of what is not on disk"
    );
    assert!(!refused.is_acknowledged());

    server.disk().make_room();
    server.has_health(200).await;
    // the server asks for what it had to refuse: nobody has to write anything new
    writer.push(&mut refused).await;
    let read = reader.pull(refused.id).await.expect("it is there now");
    assert_eq!(read.value(), refused.value());
}

#[tokio::test]
async fn edits_while_the_disk_fills_and_empties_are_acknowledged_only_if_they_outlive_a_kill() {
    let mut server = Server::start_on_disk(DISK, "", vec![]).await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "first");
    writer.push(&mut note).await;
    for round in 0..3 {
        // the log grows into what room there is, and somewhere in there it ends
        server.disk().fill_but(600_000);
        let full = async {
            for edit in 0u64.. {
                note.edit(&format!("{round} {edit} {}", long_text("w")));
                writer.sync(&mut note).await;
                let answered = async {
                    loop {
                        let answer = writer.answer(&mut note).await;
                        if answer.kind != "sync" || note.is_acknowledged() {
                            return;
                        }
                        if server.http("/xrpc/_health", &[]).await.0 == 503 {
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = answered => {}
                    _ = server.has_health(503) => {}
                }
                if server.http("/xrpc/_health", &[]).await.0 == 503 {
                    return;
                }
            }
        };
        soon("a full disk", full).await;
        let told = note.state.their_heads.clone().unwrap();
        server.kill_9().await;
        server.disk().make_room();
        server = server.start_again().await;
        writer = Client::join(&server.url, &format!("writer {round}")).await;
        let found = writer.pull(note.id).await.expect("the document");
        for head in told {
            let change = found.doc.get_change_by_hash(&head);
            assert!(change.is_some(), "{head} was acknowledged, and is lost");
        }
        note.state = automerge::sync::State::new();
        writer.push(&mut note).await;
    }
}

#[tokio::test]
async fn orphans_and_pushed_documents_that_found_no_room_are_asked_for_again() {
    let mut server = Server::start_on_disk(DISK, "", vec![]).await;
    let mut writer = Client::join(&server.url, "writer").await;
    writer
        .push(&mut Replica::new("writer", "a first one"))
        .await;
    let mut whole = Replica::new("whole", &long_text("p"));
    whole.edit("and more");
    let mut child = Replica::new("child", "the parent");
    let parent = child.doc.get_heads();
    let hash = child.edit(&long_text("o"));
    let orphan = child.doc.get_change_by_hash(&hash).unwrap();

    server.disk().fill();
    let pushed = hostile::sync_message(&whole.doc.get_heads(), &[&whole.doc.save()]);
    writer
        .send(sync_frame("sync", "writer", whole.id, &pushed))
        .await;
    let alone = hostile::sync_message(&[hash], &[orphan.raw_bytes()]);
    writer
        .send(sync_frame("sync", "writer", child.id, &alone))
        .await;
    server.has_health(503).await;
    for id in [whole.id, child.id] {
        assert!(server.document(id).await.is_none(), "{id} is half there");
    }

    server.disk().make_room();
    server.has_health(200).await;
    writer.push(&mut whole).await;
    writer.push(&mut child).await;
    assert!(child.doc.get_change_by_hash(&parent[0]).is_some());
    server.kill_9().await;
    let server = server.start_again().await;
    let mut reader = Client::join(&server.url, "reader").await;
    for replica in [&whole, &child] {
        let found = reader.pull(replica.id).await.unwrap();
        assert_eq!(found.doc.get_heads(), replica.doc.get_heads());
    }
}

#[tokio::test]
async fn a_snapshot_that_finds_no_room_leaves_the_document_as_it_was_and_is_made_later() {
    let config = "[compaction]\nfloor_bytes = 10_000\nquiet_ms = 600\n";
    let server = Server::start_on_disk(DISK, config, vec![]).await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", &long_text("c"));
    writer.push(&mut note).await;
    // and one that was pushed whole, whose index is yet to be made
    let whole = Replica::new("whole", &long_text("i"));
    let mut saved = Replica::empty(whole.id, "whole");
    saved.doc = whole.doc.clone();
    let pushed = hostile::sync_message(&whole.doc.get_heads(), &[&saved.doc.save()]);
    writer
        .send(sync_frame("sync", "writer", whole.id, &pushed))
        .await;
    shows(&server, whole.id, "the pushed document", |_| true).await;
    server.disk().fill();
    server.has_health(503).await;
    let mut reader = Client::join(&server.url, "reader").await;
    let read = reader.pull(note.id).await.unwrap();
    assert_eq!(read.value(), note.value());
    let read = reader.pull(whole.id).await.unwrap();
    assert_eq!(read.value(), whole.value(), "as it was pushed");

    server.disk().make_room();
    server.has_health(200).await;
    for id in [note.id, whole.id] {
        shows(&server, id, "a snapshot", |shown| {
            shown["snapshotBytes"].as_u64() > Some(0) && shown["tailBytes"] == 0
        })
        .await;
        let read = reader.pull(id).await.unwrap();
        assert!(read.value().is_some());
    }
}

#[tokio::test]
async fn a_new_group_that_finds_no_room_is_turned_away_and_opens_by_itself_later() {
    let server = Server::start_on_disk(DISK, "", vec![]).await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "of the group that is there");
    writer.push(&mut note).await;
    let token = server.token("dev.example.new", false).await;
    server.disk().fill();
    let path = format!("/sync?token={token}");
    let (status, body) = server.refusal(&path, &[]).await;
    assert_eq!(status, 503);
    assert!(body.contains("the storage is unavailable"), "{body}");
    let body = server.has_health(503).await;
    assert!(body.contains("StorageFull"), "{body}");
    // the file that was begun is nobody's problem
    let listed = server.cli(&["docs", "ls"]).await;
    assert!(listed.line().contains(&note.id.to_string()), "{listed:?}");

    server.disk().make_room();
    // nobody has asked for the group again
    server.has_health(200).await;
    let mut client = Client::join(&server.url_with(&token), "writer").await;
    client.push(&mut Replica::new("writer", "the first")).await;
    let log = server.stderr();
    assert_eq!(log.matches("cannot use the group").count(), 1, "{log}");
}

/// Commands that write: about a request, and an app's root document.
fn commands<'a>(id: &'a str, root: &'a str) -> Vec<Vec<&'a str>> {
    vec![
        vec!["devices", "approve", id],
        vec!["devices", "deny", id],
        vec!["devices", "open"],
        vec!["token", "add", "--group", GROUP],
        vec!["panic", "--yes"],
        vec!["roots", "set", CLIENT_ID, GROUP, root],
        vec!["roots", "rm", CLIENT_ID, GROUP],
    ]
}

#[tokio::test]
async fn without_room_for_the_account_database_nobody_is_told_yes_and_everything_is_as_before() {
    let world = World::new().await;
    let mut server = Server::start_on_disk("4m", "", world.variables()).await;
    let known = Device::native();
    server.pair(&known).await;
    assert_eq!(server.cli(&["devices", "open"]).await.code, Some(0));
    let app = App::new(&server, &world);
    let session = app.session().await;
    Client::join(&socket(&server, &app.ticket(&session).await), "app").await;
    let url = socket(&server, &app.ticket(&session).await);
    let waiting = Device::native();
    let asked = server.authenticate(&waiting, &Server::wish()).await;
    assert_eq!(asked.status, 403, "{asked:?}");
    let id = server.pending(&waiting).await.unwrap();
    let sessions = server.cli(&["sessions", "ls", "--json"]).await.json();
    let [root, other_root] = [random_id(), random_id()].map(|id| format!("automerge:{id}"));
    let set = ["roots", "set", CLIENT_ID, GROUP, &root];
    server.cli(&set).await.line();
    let roots = server.cli(&["roots", "ls", "--json"]).await.json();

    server.disk().fill();
    // a login that needs a new session, a new request, the next pair of tokens
    let answer = server.authenticate(&known, &Server::wish()).await;
    assert_eq!(answer.outcome(), (503, "storage_unavailable".into()));
    let answer = server
        .authenticate(&Device::native(), &Server::wish())
        .await;
    assert_eq!(answer.outcome(), (503, "storage_unavailable".into()));
    let answer = app.request().await;
    assert_eq!(answer.outcome(), (503, "StorageUnavailable".into()));
    let refresh = session["refreshToken"].as_str().unwrap();
    let answer = app
        .call("POST", "refreshSession", "DPoP", refresh, &json!({}))
        .await;
    assert_eq!(answer.outcome(), (503, "StorageUnavailable".into()));
    // what needs no writing goes on: the session, and sockets by ticket
    let about = app
        .call("GET", "getSession", "DPoP", token(&session), &Value::Null)
        .await;
    assert_eq!(about.status, 200, "{about:?}");
    assert!(handshake(&url, &[]).await.is_ok());
    // a stranger, who is to stand in the audit all the same
    assert_eq!(server.refusal("/sync?token=x", &[]).await.0, 401);
    for arguments in commands(&id, &other_root) {
        let output = server.cli(&arguments).await;
        assert_fails_for_want_of_room(&output);
    }

    server.disk().make_room();
    let later = server.cli(&["sessions", "ls", "--json"]).await.json();
    assert_eq!(
        later.as_array().unwrap().len(),
        sessions.as_array().unwrap().len()
    );
    assert_eq!(server.cli(&["roots", "ls", "--json"]).await.json(), roots);
    assert_eq!(server.pending(&waiting).await.as_ref(), Some(&id));
    let answer = app
        .call("POST", "refreshSession", "DPoP", refresh, &json!({}))
        .await;
    assert_eq!(answer.status, 200, "it is still good: {answer:?}");
    assert_eq!(
        server.authenticate(&known, &Server::wish()).await.status,
        200
    );
    server.approve(&waiting, &[]).await;
    audit_has(&server, "not a token of this server").await;
    server.kill_9().await;
    let server = server.start_again().await;
    assert_eq!(
        server.authenticate(&waiting, &Server::wish()).await.status,
        200
    );
}

async fn audit_has(server: &Server, text: &str) {
    let written = async { while !server.cli(&["audit"]).await.stdout.contains(text) {} };
    soon("the audit", written).await;
}

fn assert_fails_for_want_of_room(output: &Output) {
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains(NO_ROOM), "{output:?}");
    assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    assert_eq!(output.stdout, "", "{output:?}");
}

#[tokio::test]
async fn commands_on_a_full_disk_say_so_and_leave_no_half_of_anything() {
    let folder = TempDir::new().unwrap();
    let disk = Disk::mounted(folder.path(), "1m").await;
    let on_disk = async |arguments: &[&str]| {
        let all = [arguments, &["--data-dir", "data/.data"]].concat();
        outcome(command(folder.path(), Some(&disk), &all)).await
    };
    let add = ["token", "add", "--group", GROUP];
    let start = ["serve", "--port", "0"];
    disk.fill();
    for arguments in [&add[..], &["token", "ls"], &["devices", "open"], &start] {
        assert_fails_for_want_of_room(&on_disk(arguments).await);
    }
    // room for the database, and none for the file -shm through which its users see each other
    disk.make_room();
    fs::remove_dir_all(disk.root().join(".data")).unwrap();
    disk.fill_but(16 << 10);
    for arguments in [&add[..], &["token", "ls"], &start] {
        assert_fails_for_want_of_room(&on_disk(arguments).await);
    }
    disk.make_room();
    // what was left behind is no obstacle
    let token = on_disk(&add).await;
    assert_eq!(token.line().split('.').count(), 3, "{token:?}");
    assert!(on_disk(&["token", "ls"]).await.line().contains(GROUP));
}

#[tokio::test]
async fn init_without_room_says_so_and_leaves_no_file() {
    let (folder, world) = (TempDir::new().unwrap(), World::new().await);
    let disk = Disk::mounted(folder.path(), "1m").await;
    let url = format!("http://{}", world.address);
    let init = async || {
        let arguments = ["init", "--did", OWNER, "--config", "data/config.toml"];
        let mut command = command(folder.path(), Some(&disk), &arguments);
        command.envs([
            ("GROUNDMIST_SYNC_PLC_URL", url.as_str()),
            (
                "GROUNDMIST_SYNC_TEST_HOST_MAP",
                &format!("https://alice.test={url}"),
            ),
            // where nobody listens
            ("GROUNDMIST_SYNC_TEST_DNS", "127.0.0.1:9"),
        ]);
        outcome(command).await
    };
    let files = || {
        let files = fs::read_dir(disk.root()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "filler").collect::<Vec<_>>()
    };
    disk.fill();
    assert_fails_for_want_of_room(&init().await);
    assert_eq!(files(), [""; 0]);
    disk.make_room();
    let output = init().await;
    assert!(output.line().contains(OWNER), "{output:?}");
    let config = disk.root().join("config.toml");
    let written = fs::read_to_string(&config).unwrap();
    assert!(
        written.ends_with(&format!("owner = \"{OWNER}\"\n")),
        "{written}"
    );
    assert_eq!(files(), ["config.toml"]);

    // nor does one that is there lose anything
    disk.fill();
    let output = init().await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert_eq!(fs::read_to_string(&config).unwrap(), written);
}

#[tokio::test]
async fn a_document_that_finds_no_room_is_not_left_half_exported() {
    let server = Server::start_on_disk(DISK, "", vec![]).await;
    let mut note = Replica::new("owner", &long_text("e"));
    Client::join(&server.url, "owner")
        .await
        .push(&mut note)
        .await;
    server.disk().fill_but(64 << 10);
    let id = note.id.to_string();
    let output = server
        .cli(&["docs", "export", &id, "-o", "data/note.automerge"])
        .await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(
        output
            .stderr
            .contains(&format!("cannot write data/note.automerge: {NO_ROOM}")),
        "{output:?}"
    );
    assert!(!server.disk().root().join("note.automerge").exists());
}

#[tokio::test]
async fn standard_output_without_room_is_said_and_no_panic() {
    let server = Server::start().await;
    let mut note = Replica::new("owner", "note");
    Client::join(&server.url, "owner")
        .await
        .push(&mut note)
        .await;
    let run = async |arguments: &[&str]| {
        let mut command = command(server.folder(), None, arguments);
        command.env("ATPROTO_DID", OWNER);
        command.stdout(File::options().write(true).open("/dev/full").unwrap());
        outcome(command).await
    };
    for arguments in [
        &["token", "add", "--group", GROUP][..],
        &["token", "ls"],
        &["config", "example"],
        &["config", "show"],
        &["devices", "ls"],
        &["docs", "export", &note.id.to_string(), "--data-dir", "data"],
        &["publish", "--print", "--host", "sync.example.com"],
        &["dev", "--port", "0"],
        &["--help"],
    ] {
        let output = run(arguments).await;
        assert_eq!(output.code, Some(1), "{arguments:?}: {output:?}");
        let said = output.stderr;
        assert!(
            said.contains("cannot write to standard output: No space left"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
