//! The command line: exit codes, what is printed where, and the life of the process.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::Path,
    process::Stdio,
    time::Duration,
};

use automerge::Automerge;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Client, Event, Output, Replica, Server, command, outcome, run, soon, within};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};

mod support;

/// What a pipe takes of which nobody reads. Source: Linux, pipe(7).
const PIPE_BYTES: usize = 64 << 10;
/// How long the server may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

async fn run_in(folder: &Path, arguments: &[&str]) -> Output {
    run(folder, &[], arguments).await
}

#[tokio::test]
async fn what_makes_no_sense_ends_with_64_and_says_so_on_standard_error() {
    let folder = TempDir::new().unwrap();
    let cases: [&[&str]; 14] = [
        &[],
        &["nonsense"],
        &["serve", "--nonsense"],
        &["serve", "extra"],
        &["serve", "--port", "65536"],
        &["serve", "--owner", "alice"],
        &["dev", "--group", "nodots"],
        &["token"],
        &["token", "add"],
        &["token", "add", "--group", "../escape"],
        &["token", "add", "--group", "dev.example", "--ttl", "soon"],
        &["token", "rm", "not-an-id"],
        &["docs", "show", "../../etc/passwd"],
        &["docs", "export", "--format", "pdf", "x"],
    ];
    for case in cases {
        let output = run_in(folder.path(), case).await;
        assert_eq!(output.code, Some(64), "{case:?}: {output:?}");
        assert_eq!(output.stdout, "", "{case:?}");
        assert!(!output.stderr.is_empty(), "{case:?}");
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert!(left.is_empty(), "nothing is made: {left:?}");
}

#[tokio::test]
async fn all_problems_of_the_settings_are_told_at_once() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.toml"), "log = \"loud\"\n").unwrap();
    let variables = [
        ("ATPROTO_DID", "alice"),
        ("GROUNDMIST_SYNC_SECRET_KEY", "tooshort"),
    ];
    let arguments = ["serve", "--port", "many", "--listen", "here"];
    let output = run(folder.path(), &variables, &arguments).await;
    assert_eq!(output.code, Some(64), "{output:?}");
    for word in [
        "loud",
        "alice",
        "GROUNDMIST_SYNC_SECRET_KEY",
        "many",
        "here",
    ] {
        assert!(output.stderr.contains(word), "{word}: {}", output.stderr);
    }
    assert!(!output.stderr.contains("tooshort"), "{}", output.stderr);
}

#[tokio::test]
async fn help_and_version_end_with_0() {
    let folder = TempDir::new().unwrap();
    for arguments in [&["--help"][..], &["--version"], &["token", "add", "--help"]] {
        let output = run_in(folder.path(), arguments).await;
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
}

#[tokio::test]
async fn what_fails_ends_with_1() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), "no directory").unwrap();
    let id = support::random_id().to_string();
    let session = "AAAAAAAAAAAAAAAAAAAAAA";
    let cases: [&[&str]; 6] = [
        &["token", "rm", session],
        &["token", "rm", "-AAAAAAAAAAAAAAAAAAAAA"],
        &["docs", "show", &id],
        &["docs", "export", &id],
        &["docs", "ls", "--group", "dev.example.none"],
        &[
            "token",
            "add",
            "--group",
            "dev.example",
            "--data-dir",
            "file",
        ],
    ];
    for case in cases {
        let output = run_in(folder.path(), case).await;
        assert_eq!(output.code, Some(1), "{case:?}: {output:?}");
        assert_eq!(output.stdout, "", "{case:?}");
        assert!(output.stderr.starts_with("groundmist-sync: "), "{output:?}");
    }
}

#[tokio::test]
async fn token_add_prints_the_token_alone_and_token_ls_never_does() {
    let folder = TempDir::new().unwrap();
    let arguments = [
        "token",
        "add",
        "--group",
        "Dev.Example.notes",
        "--name",
        "laptop",
        "--read-only",
    ];
    let added = run_in(folder.path(), &arguments).await;
    let token = added.line();
    assert_eq!(added.stdout, format!("{token}\n"));
    assert_eq!(token.split('.').count(), 3, "{token}");
    assert_eq!(added.stderr, "");

    let listed = run_in(folder.path(), &["token", "ls", "--json"]).await;
    let rows = listed.json();
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!(rows[0]["name"], "laptop");
    assert_eq!(rows[0]["group"], "dev.example.notes");
    assert_eq!(rows[0]["access"], "read");
    assert_eq!(rows[0]["state"], "inForce");
    assert_eq!(rows[0]["lastUsedAt"], Value::Null);
    let id = rows[0]["id"].as_str().unwrap();
    let words = run_in(folder.path(), &["token", "ls"]).await;
    assert!(words.line().contains(id) && words.line().contains("laptop"));
    for output in [&listed, &words] {
        for part in token.split('.').skip(1) {
            assert!(!output.stdout.contains(part), "{output:?}");
        }
    }

    assert_eq!(
        run_in(folder.path(), &["token", "rm", id]).await.code,
        Some(0)
    );
    let left = run_in(folder.path(), &["token", "ls", "--json"])
        .await
        .json();
    assert_eq!(left, json!([]));
    let all = run_in(folder.path(), &["token", "ls", "--json", "--all"])
        .await
        .json();
    assert_eq!(all[0]["state"], "revoked");
}

/// It would be in force, and nobody could use it but who finds it on the way.
#[tokio::test]
async fn a_token_that_nobody_took_is_revoked() {
    let folder = TempDir::new().unwrap();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let outputs: [Stdio; 2] = [full.into(), closed.into()];
    for (count, stdout) in (1..).zip(outputs) {
        let mut add = command(folder.path(), None, &["token", "add", "--group", "a.b"]);
        add.stdout(stdout);
        let output = outcome(add).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        let said = "the token that nobody got is revoked: cannot write to standard output: ";
        assert!(output.stderr.contains(said), "{output:?}");
        let in_force = run_in(folder.path(), &["token", "ls", "--json"]).await;
        assert_eq!(in_force.json(), json!([]));
        let all = run_in(folder.path(), &["token", "ls", "--json", "--all"]).await;
        assert_eq!(all.json().as_array().unwrap().len(), count, "{all:?}");
    }
}

#[tokio::test]
async fn documents_can_be_listed_shown_and_exported_while_the_server_runs() {
    let server = Server::start().await;
    let mut owner = Client::join(&server.url, "owner").await;
    let mut note = Replica::new("owner", "first");
    owner.push(&mut note).await;
    owner.edit(&mut note, "what it says").await;
    let id = note.id.to_string();

    let listed = server.cli(&["docs", "ls", "--json"]).await.json();
    let shown = server.document(note.id).await.unwrap();
    assert_eq!(listed, json!([shown]));
    assert_eq!(shown["id"], id);
    assert_eq!(shown["group"], server.group);
    assert_eq!(shown["heads"], json!(note.heads()));
    assert_eq!(shown["changes"], 2);
    assert_eq!(shown["quarantine"], Value::Null);
    let words = server
        .cli(&["docs", "show", &format!("automerge:{id}")])
        .await;
    assert!(words.line().contains(&note.heads()[0]), "{words:?}");
    assert!(server.cli(&["docs", "ls"]).await.line().contains(&id));

    let exported = server.cli(&["docs", "export", &id]).await;
    assert_eq!((exported.code, &*exported.stderr), (Some(0), ""));
    let loaded = Automerge::load(&exported.stdout_bytes).unwrap();
    assert_eq!(loaded.get_heads(), note.doc.get_heads());
    let json = server
        .cli(&["docs", "export", &id, "--format", "json"])
        .await
        .json();
    assert_eq!(json, json!({ "key": "what it says" }));

    let to_file = ["docs", "export", &id, "-o", "note.automerge"];
    assert_eq!(server.cli(&to_file).await.code, Some(0));
    let file = fs::read(server.folder().join("note.automerge")).unwrap();
    assert_eq!(
        Automerge::load(&file).unwrap().get_heads(),
        note.doc.get_heads()
    );
    let again = server.cli(&to_file).await;
    assert_eq!(again.code, Some(1), "a file is not overwritten: {again:?}");
    let what_to_do = "note.automerge exists already, and is left as it is; choose another file";
    assert!(again.stderr.contains(what_to_do), "{again:?}");
    assert_eq!(
        fs::read(server.folder().join("note.automerge")).unwrap(),
        file
    );
    let to_stdout = server.cli(&["docs", "export", &id, "-o", "-"]).await;
    assert_eq!(to_stdout.stdout_bytes, file);
    assert!(!server.folder().join("-").exists());
}

#[tokio::test]
async fn a_document_id_in_two_groups_is_shown_once_its_group_is_said() {
    let server = Server::start().await;
    let url = server.url_with(&server.token("dev.example.other", false).await);
    let mut note = Replica::new("owner", "here");
    let mut namesake = Replica::empty(note.id, "stranger");
    namesake.edit("there");
    Client::join(&server.url, "owner")
        .await
        .push(&mut note)
        .await;
    Client::join(&url, "owner").await.push(&mut namesake).await;
    let id = note.id.to_string();
    let ambiguous = server.cli(&["docs", "show", &id]).await;
    assert_eq!(ambiguous.code, Some(1));
    assert!(
        ambiguous.stderr.contains("dev.example.other"),
        "{ambiguous:?}"
    );
    assert!(ambiguous.stderr.contains(&server.group), "{ambiguous:?}");
    let arguments = [
        "docs",
        "export",
        &id,
        "--group",
        "dev.example.other",
        "--format",
        "json",
    ];
    assert_eq!(
        server.cli(&arguments).await.json(),
        json!({ "key": "there" })
    );
}

#[tokio::test]
async fn dev_listens_on_this_machine_alone() {
    let folder = TempDir::new().unwrap();
    for address in ["0.0.0.0", "::", "192.0.2.1"] {
        let output = run_in(folder.path(), &["dev", "--port", "0", "--listen", address]).await;
        assert_eq!(output.code, Some(64), "{output:?}");
        assert!(output.stderr.contains("loopback"), "{output:?}");
        assert!(!folder.path().join(".data").exists());
    }
}

#[tokio::test]
async fn a_data_directory_has_one_server() {
    let server = Server::start().await;
    for command in ["serve", "dev"] {
        let second = server.cli(&[command, "--port", "0"]).await;
        assert_eq!(second.code, Some(1), "{second:?}");
        assert!(
            second.stderr.contains("another server is using"),
            "{second:?}"
        );
        assert!(second.stderr.contains("data"), "{second:?}");
    }
    Client::join(&server.url, "still").await.close().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_and_an_address_of_another_machine_too() {
    let server = Server::start().await;
    let port = server.address.port().to_string();
    let folder = TempDir::new().unwrap();
    let second = run_in(folder.path(), &["dev", "--port", &port]).await;
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains(&port), "{second:?}");
    let another = "is another server running there?";
    assert!(second.stderr.contains(another), "{second:?}");
    // one that is kept for documentation
    let serve = ["serve", "--listen", "192.0.2.1", "--port", &port];
    let elsewhere = run_in(folder.path(), &serve).await;
    assert_eq!(elsewhere.code, Some(1), "{elsewhere:?}");
    let said = format!("cannot listen on 192.0.2.1:{port}, which is no address of this machine");
    assert!(elsewhere.stderr.contains(&said), "{elsewhere:?}");
    assert!(!elsewhere.stderr.contains(another), "{elsewhere:?}");
}

#[tokio::test]
async fn a_signal_closes_all_sockets_with_1001_and_the_process_ends_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start().await;
        let mut client = Client::join(&server.url, "client").await;
        let mut note = Replica::new("client", "before the end");
        client.push(&mut note).await;
        let mut waiting = Client::open(&server.url, "has not joined").await;
        server.signal(signal);
        let ended = async {
            for client in [&mut client, &mut waiting] {
                assert_eq!(client.close_code().await, 1001, "{}", client.name);
            }
            server.ended().await
        };
        let status = within(ENDS_WITHIN, "the end", ended).await;
        assert_eq!(status.code(), Some(0));
        let server = server.start_again().await;
        let mut client = Client::join(&server.url, "client").await;
        let copy = client.pull(note.id).await.unwrap();
        assert_eq!(copy.value().unwrap(), "before the end");
        assert_eq!(copy.heads(), note.heads());
    }
}

#[tokio::test]
async fn a_client_that_does_not_answer_does_not_hold_up_the_end() {
    let mut server = Server::start().await;
    let mut silent = Client::join(&server.url, "silent").await;
    server.signal(Signal::TERM);
    let status = within(ENDS_WITHIN, "the end", server.ended()).await;
    assert_eq!(status.code(), Some(0));
    assert!(matches!(
        silent.next().await,
        Event::Closed { code: 1001, .. }
    ));
}

#[tokio::test]
async fn the_server_says_over_http_that_it_runs_and_how_it_is() {
    let server = Server::start().await;
    let (status, text) = server.http("/", &[]).await;
    assert_eq!(status, 200);
    assert!(
        text.ends_with("👍 Groundmist personal sync server is running"),
        "{text}"
    );
    assert!(text.contains("content-type: text/plain"), "{text}");
    let (status, page) = server.http("/", &[("Accept", "text/html,*/*")]).await;
    assert_eq!(status, 200);
    assert!(page.contains("content-type: text/html"), "{page}");
    assert!(page.contains("<!doctype html>"), "{page}");
    let (status, health) = server.http("/xrpc/_health", &[]).await;
    assert_eq!(status, 200);
    let body: Value = serde_json::from_str(health.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body, json!({ "version": env!("CARGO_PKG_VERSION") }));
    let good = format!("/sync?token={}", server.token);
    let (status, answer) = server.http(&good, &[]).await;
    assert_eq!(status, 426);
    assert!(answer.contains("upgrade: websocket\r\n"), "{answer}");
    let connection = answer
        .lines()
        .find_map(|line| line.strip_prefix("connection: "));
    let mut options = connection.unwrap_or_default().split(", ");
    assert!(options.any(|option| option == "upgrade"), "{answer}");
    assert_eq!(server.http("/sync", &[]).await.0, 401);
    assert_eq!(server.http("/nowhere", &[]).await.0, 404);
    assert_eq!(server.http("/try/", &[]).await.0, 200);
}

#[tokio::test]
async fn dev_keeps_its_token_and_its_documents_over_a_restart() {
    let server = Server::start().await;
    let token = server.token.clone();
    let mut note = Replica::new("owner", "kept");
    Client::join(&server.url, "owner")
        .await
        .push(&mut note)
        .await;
    let server = server.restart().await;
    assert_eq!(server.token, token);
    let copy = Client::join(&server.url, "owner").await.pull(note.id).await;
    assert_eq!(copy.unwrap().value().unwrap(), "kept");
}

#[tokio::test]
async fn nobody_else_may_read_what_the_server_keeps() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start().await;
    let mut note = Replica::new("owner", "private");
    Client::join(&server.url, "owner")
        .await
        .push(&mut note)
        .await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    assert_eq!(mode(&server.data_dir()), 0);
    let mut paths = vec![server.group_file(&server.group)];
    paths.extend(["secret.key", "account.db"].map(|name| server.data_dir().join(name)));
    let open: Vec<_> = paths.iter().filter(|path| mode(path) != 0).collect();
    assert!(open.is_empty(), "{open:?}");
}

/// A server whose log goes there, and says much; and where it is.
async fn logging_to(folder: &Path, log: Stdio) -> (tokio::process::Child, String) {
    let arguments = [
        "dev",
        "--json",
        "--port=0",
        "--data-dir=data",
        "--log=trace",
    ];
    let mut server = command(folder, None, &arguments)
        .stderr(log)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let line = soon("the server to say where it is", lines.next_line()).await;
    let said: Value = serde_json::from_str(&line.unwrap().expect("it runs")).unwrap();
    (server, said["url"].as_str().unwrap().to_owned())
}

/// Tells the server to end, which must be in time and without a failure.
async fn ends(server: &mut tokio::process::Child) {
    let pid = rustix::process::Pid::from_raw(server.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let status = within(ENDS_WITHIN, "the server to end", server.wait()).await;
    assert_eq!(status.unwrap().code(), Some(0));
}

/// As when the log lies on a full disk, or whoever read it is gone. Each line of it was a panic, in whichever thread had
/// something to say.
#[tokio::test]
async fn a_server_whose_log_takes_nothing_serves_revokes_and_ends_all_the_same() {
    let folder = TempDir::new().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (mut server, url) = logging_to(folder.path(), full.into()).await;

    let mut broken = Client::open(&url, "broken").await;
    broken.send(b"no CBOR"[..].into()).await;
    assert_eq!(broken.close_code().await, 1002);
    let mut writer = Client::join(&url, "writer").await;
    writer
        .push(&mut Replica::new("writer", "the group lives"))
        .await;
    let sessions = ["token", "ls", "--json", "--data-dir", "data"];
    let sessions = run_in(folder.path(), &sessions).await.json();
    let session = sessions[0]["id"].as_str().unwrap();
    let output = run_in(
        folder.path(),
        &["token", "rm", session, "--data-dir", "data"],
    )
    .await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(writer.close_code().await, 1008);

    ends(&mut server).await;
}

/// As after Ctrl-S in a terminal, or in a pager. Whoever had something to say stood still for as long.
#[tokio::test]
async fn a_server_whose_log_is_not_read_any_more_serves_and_ends_all_the_same() {
    let folder = TempDir::new().unwrap();
    let (mut reader, mut log) = std::io::pipe().unwrap();
    log.write_all(&[b'-'; PIPE_BYTES]).unwrap();
    let (mut server, url) = logging_to(folder.path(), log.into()).await;

    let mut broken = Client::open(&url, "broken").await;
    broken.send(b"no CBOR"[..].into()).await;
    assert_eq!(broken.close_code().await, 1002);
    let mut writer = Client::join(&url, "writer").await;
    writer
        .push(&mut Replica::new("writer", "the group lives"))
        .await;
    ends(&mut server).await;
    let mut taken = vec![];
    reader.read_to_end(&mut taken).unwrap();
    assert_eq!(taken.len(), PIPE_BYTES, "it was full all the time");
}

#[tokio::test]
async fn a_server_that_cannot_start_ends_though_nobody_reads_why() {
    let folder = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let arguments = ["dev", "--data-dir=data", "--port", &port];
    let (_reader, mut log) = std::io::pipe().unwrap();
    log.write_all(&[b'-'; PIPE_BYTES]).unwrap();
    let mut command = command(folder.path(), None, &arguments);
    let status = within(
        ENDS_WITHIN,
        "the server to end",
        command.stderr(log).status(),
    )
    .await;
    assert_eq!(status.unwrap().code(), Some(1));
}

#[tokio::test]
async fn a_command_that_fails_where_standard_error_takes_nothing_says_so_by_its_code() {
    let folder = TempDir::new().unwrap();
    for (arguments, code) in [(["docs", "ls"], 1), (["serve", "--port=many"], 64)] {
        let mut command = command(folder.path(), None, &arguments);
        command.stderr(File::options().write(true).open("/dev/full").unwrap());
        let status = soon("the command to end", command.status()).await.unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

/// As `head` does, which has got what it wanted.
#[tokio::test]
async fn a_command_whose_output_is_read_no_further_has_not_failed() {
    let server = Server::start().await;
    let mut note = Replica::new("owner", "note");
    Client::join(&server.url, "owner")
        .await
        .push(&mut note)
        .await;
    let data = ["--data-dir", "data"];
    for arguments in [
        &["docs", "export", &note.id.to_string(), data[0], data[1]][..],
        &["docs", "ls", data[0], data[1]],
        &["publish", "--print", "--host", "sync.example.com"],
        &["config", "example"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = command(server.folder(), None, arguments);
        command
            .env("ATPROTO_DID", "did:web:example.com")
            .stdout(writer);
        let output = outcome(command).await;
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        let said = output.stderr;
        assert!(!said.contains("groundmist-sync: "), "{arguments:?}: {said}");
    }
}

/// Which a WebSocket that fails does not tell it.
#[tokio::test]
async fn a_page_of_another_origin_learns_whether_its_token_is_good() {
    let server = Server::start().await;
    let origin = [("Origin", "https://app.example.com")];
    let good = format!("/sync?token={}", server.token);
    for (path, status) in [(&*good, 426), ("/sync?token=none", 401)] {
        let (found, answer) = server.http(path, &origin).await;
        assert_eq!(found, status);
        let readable = "access-control-allow-origin: https://app.example.com";
        assert!(answer.contains(readable), "{answer}");
    }
}

/// SQLite takes it for a new database, and the owner would be told that nobody was ever let in.
#[tokio::test]
async fn an_account_database_that_has_lost_its_bytes_is_not_taken_for_a_new_one() {
    let mut server = Server::start().await;
    let mut note = Replica::new("owner", "note");
    Client::join(&server.url, "owner")
        .await
        .push(&mut note)
        .await;
    server.terminate().await;
    let (accounts, key) = ["account.db", "secret.key"]
        .map(|name| server.data_dir().join(name))
        .into();
    fs::write(&accounts, "").unwrap();
    let is_refused = async || {
        for arguments in [
            &["devices", "ls"][..],
            &["token", "add", "--group", "a.b"],
            &["serve", "--port", "0"],
        ] {
            let output = server.cli(arguments).await;
            assert_eq!(output.code, Some(1), "{arguments:?}: {output:?}");
            for word in ["account.db has no bytes", "from a backup", "remove it"] {
                assert!(output.stderr.contains(word), "{output:?}");
            }
            assert_eq!(fs::metadata(&accounts).unwrap().len(), 0);
        }
    };
    is_refused().await;
    // the key may be a setting
    fs::remove_file(&key).unwrap();
    is_refused().await;
    fs::remove_file(&accounts).unwrap();
    let server = server.start_again().await;
    let mut owner = Client::join(&server.url, "owner").await;
    assert_eq!(owner.pull(note.id).await.unwrap().value(), note.value());
}

/// An empty database in the wrong place would say that there is nothing to worry about.
#[tokio::test]
async fn tokens_are_not_looked_for_where_there_is_no_server() {
    let folder = TempDir::new().unwrap();
    for arguments in [
        &["token", "ls"][..],
        &["token", "rm", "AAAAAAAAAAAAAAAAAAAAAA"],
    ] {
        let output = run_in(folder.path(), arguments).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(
            output.stderr.contains("start the server once"),
            "{output:?}"
        );
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
