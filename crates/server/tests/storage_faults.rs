//! Storage that fails otherwise than by being full: it turns read-only, does not fsync, is locked by somebody else, or
//! there are no files left to open.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use std::{
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use rusqlite::Connection;
use rustix::process::Signal;
use store::{AccountStore, Occasion};
use support::{
    Client, Replica, Server,
    disk::Injected,
    identity::{Device, GROUP, World, unique},
    random_id, soon,
};
use tokio::net::TcpStream;

/// What writes are made of.
const WRITES: &str = "pwrite64,ftruncate,fsync,fdatasync";
const DISK: &str = "12m";
/// For a document that is more than a log, the log, and what the document is compacted to.
const LARGE_DISK: &str = "64m";

/// Somebody else who has a database to themselves until this is dropped.
fn locked(path: &Path, how: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(&format!("BEGIN {how}")).unwrap();
    connection
}

/// Has system calls fail that are about the file of the group, and not about its log.
async fn fail_at_group(server: &Server, calls: &str, error: &str) -> Injected {
    let file = format!("data/groups/{}.db", server.group);
    let path = server.folder().join(file);
    let disk = server.disk();
    disk.fail_at(server.pid(), &path, calls, error).await
}

/// A text after which the log is put into its file: longer than 500 pages of 4 KiB, and as long when it is deflated.
fn more_than_a_log() -> String {
    (0..(2_200_000 / 32)).map(|_| unique()).collect()
}

#[tokio::test]
async fn a_disk_that_turns_read_only_refuses_writes_serves_reads_and_is_written_to_again() {
    let mut server = Server::start_on_disk(DISK, "", vec![]).await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "before");
    writer.push(&mut note).await;
    // while the server has its files open the kernel does not do it for anybody who asks
    let refusal = server.disk().remount("ro").await.unwrap_err();
    assert!(refusal.contains("busy"), "{refusal}");
    writer.edit(&mut note, "it is as it was").await;

    // it does it by itself when the disk fails
    let failing = server.disk().fail(server.pid(), WRITES, "EROFS").await;
    note.edit("while it is read-only");
    writer.sync(&mut note).await;
    let body = server.has_health(503).await;
    assert!(body.contains("StorageFailed"), "{body}");
    assert!(!note.is_acknowledged());
    let mut reader = Client::join(&server.url, "reader").await;
    let read = reader.pull(note.id).await.unwrap();
    assert_eq!(read.value().unwrap(), "it is as it was");
    failing.end().await;
    server.has_health(200).await;
    writer.push(&mut note).await;
    server.has_logged("writes are stored again").await;
    let log = server.stderr();
    assert_eq!(log.matches("ERROR").count(), 1, "{log}");

    // and one that was read-only from the start
    server.terminate().await;
    server.disk().remount("ro").await.unwrap();
    for arguments in [
        &["serve", "--port", "0"][..],
        &["token", "add", "--group", GROUP],
    ] {
        let output = server.cli(arguments).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(
            output.stderr.contains("ead-only") || output.stderr.contains("can only be read"),
            "{output:?}"
        );
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    }
    server.disk().remount("rw").await.unwrap();
    let server = server.start_again().await;
    let mut reader = Client::join(&server.url, "reader").await;
    let read = reader.pull(note.id).await.unwrap();
    assert_eq!(read.value().unwrap(), "while it is read-only");
}

#[tokio::test]
async fn after_an_fsync_that_failed_nothing_is_acknowledged_until_a_restart() {
    let mut server = Server::start_on_disk(DISK, "", vec![]).await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "before");
    writer.push(&mut note).await;
    let acknowledged = note.doc.get_heads();
    let failing = server
        .disk()
        .fail(server.pid(), "fsync,fdatasync", "EIO")
        .await;
    note.edit("lost by the disk");
    writer.sync(&mut note).await;
    server
        .has_logged("nothing more is written until a restart")
        .await;
    failing.end().await;
    note.edit("the disk is well again, but nobody knows what it holds");
    writer.sync(&mut note).await;
    let body = server.has_health(503).await;
    assert!(body.contains("StorageFailed"), "{body}");
    assert!(!note.is_acknowledged());
    assert_eq!(note.state.their_heads.as_ref(), Some(&acknowledged));

    server.kill_9().await;
    let server = server.start_again().await;
    server.has_health(200).await;
    let mut writer = Client::join(&server.url, "writer").await;
    note.state = automerge::sync::State::new();
    writer.push(&mut note).await;
}

/// The owner had been told that it would be tried again every second, and it was not.
#[tokio::test]
async fn that_nothing_more_is_written_is_said_also_if_something_else_was_wrong_before() {
    let mut server = Server::start_on_disk(DISK, "", vec![]).await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "before");
    writer.push(&mut note).await;
    // the first write fails, and what is written a second later cannot be fsynced
    let failing = server
        .disk()
        .inject(server.pid(), "pwrite64,fsync,fdatasync", "error=EIO:when=1")
        .await;
    note.edit("while the disk fails");
    writer.sync(&mut note).await;
    server.has_logged("trying again every second").await;
    server
        .has_logged("nothing more is written until a restart")
        .await;
    failing.end().await;
}

/// SQLite would do it by itself, and keep to itself that it failed.
#[tokio::test]
async fn after_an_fsync_of_the_file_behind_the_log_that_failed_nothing_is_acknowledged_either() {
    let mut server = Server::start_on_disk(LARGE_DISK, "", vec![]).await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "before");
    writer.push(&mut note).await;
    let failing = fail_at_group(&server, "fsync,fdatasync", "EIO").await;
    // it is on disk, in the log
    writer.edit(&mut note, &more_than_a_log()).await;
    server
        .has_logged("nothing more is written until a restart")
        .await;
    failing.end().await;
    let acknowledged = note.doc.get_heads();
    note.edit("nobody knows what the file holds");
    writer.sync(&mut note).await;
    let body = server.has_health(503).await;
    assert!(body.contains("StorageFailed"), "{body}");
    let mut reader = Client::join(&server.url, "reader").await;
    let read = reader.pull(note.id).await.unwrap();
    assert_eq!(read.doc.get_heads(), acknowledged);
    assert!(!note.is_acknowledged());
    let log = server.stderr();
    assert_eq!(log.matches("ERROR").count(), 1, "{log}");

    server.terminate().await;
    let server = server.start_again().await;
    server.has_health(200).await;
    let mut reader = Client::join(&server.url, "reader").await;
    let read = reader.pull(note.id).await.unwrap();
    assert_eq!(read.doc.get_heads(), acknowledged);
    let mut writer = Client::join(&server.url, "writer").await;
    note.state = automerge::sync::State::new();
    writer.push(&mut note).await;
}

#[tokio::test]
async fn a_log_that_cannot_be_put_into_its_file_is_said_once_takes_writes_and_is_tried_until_it_can()
 {
    let mut server = Server::start_on_disk(LARGE_DISK, "", vec![]).await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "before");
    writer.push(&mut note).await;
    let failing = fail_at_group(&server, "pwrite64", "EIO").await;
    writer.edit(&mut note, &more_than_a_log()).await;
    server.has_logged("cannot write").await;
    for edit in 0..3 {
        writer.edit(&mut note, &edit.to_string()).await;
        let body = server.has_health(503).await;
        assert!(body.contains("StorageFailed"), "{body}");
    }
    failing.end().await;
    server.has_health(200).await;
    server.has_logged("writes are stored again").await;
    let log = server.stderr();
    assert_eq!(log.matches("ERROR").count(), 1, "{log}");
    assert_eq!(log.matches("stored again").count(), 1, "{log}");
}

/// Nobody was told, and the log grew.
#[tokio::test]
async fn a_log_of_the_account_database_that_cannot_be_put_into_its_file_is_said_once_and_tried_until_it_can()
 {
    let mut server = Server::start_on_disk(LARGE_DISK, "", vec![]).await;
    let accounts = server.folder().join("data/account.db");
    let mut sqlite = server.disk().command("sqlite3");
    let long = "PRAGMA wal_autocheckpoint = 0; CREATE TABLE long AS SELECT randomblob(3000000);";
    let filled = sqlite.arg(&accounts).arg(long).output().await.unwrap();
    assert!(filled.status.success(), "{filled:?}");
    let failing = server
        .disk()
        .fail_at(server.pid(), &accounts, "pwrite64", "EIO")
        .await;
    // which is written down, and so the server sees how long the log is
    assert_eq!(server.refusal("/?token=x", &[]).await.0, 401);
    server
        .has_logged("cannot put the account database's log into its file")
        .await;
    Client::join(&server.url, "goes on").await;
    let body = server.has_health(503).await;
    assert!(body.contains("StorageFailed"), "{body}");
    failing.end().await;
    server.has_health(200).await;
    server.has_logged("log is put into its file again").await;
    let log = server.stderr();
    assert_eq!(log.matches("ERROR").count(), 1, "{log}");
}

/// Health was 503 until somebody read again.
#[tokio::test]
async fn a_passing_error_of_reading_is_over_in_time_though_whoever_asked_is_gone() {
    let mut server = Server::start_on_disk(DISK, "", vec![]).await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "before");
    writer.push(&mut note).await;
    // then nothing of it is in memory
    server.terminate().await;
    let mut server = server.start_again().await;
    let mut reader = Client::join(&server.url, "reader").await;
    // what a device says that does not answer in time; EIO, which may come of a bad sector, SQLite takes for damage
    let failing = fail_at_group(&server, "pread64", "ETIMEDOUT").await;
    reader.sync(&mut Replica::empty(note.id, "reader")).await;
    server.has_logged("cannot read a document").await;
    drop(reader);
    let body = server.has_health(503).await;
    assert!(body.contains("StorageFailed"), "{body}");
    failing.end().await;
    server.has_health(200).await;
    server.has_logged("can be read again").await;
    let log = server.stderr();
    assert_eq!(log.matches("ERROR").count(), 1, "{log}");
    let mut reader = Client::join(&server.url, "reader").await;
    assert_eq!(reader.pull(note.id).await.unwrap().value(), note.value());
}

#[tokio::test]
async fn a_groups_file_that_another_program_has_locked_is_waited_for_and_nothing_is_lost() {
    let mut server = Server::start().await;
    let other_group = server.token("dev.example.other", false).await;
    let mut other = Client::join(&server.url_with(&other_group), "other").await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "new");
    writer.push(&mut note).await;
    writer.edit(&mut note, "before").await;

    let lock = locked(&server.group_file(&server.group), "EXCLUSIVE");
    note.edit("while it is locked");
    writer.sync(&mut note).await;
    // others are not held up meanwhile
    let mut elsewhere = Replica::new("other", "elsewhere");
    other.push(&mut elsewhere).await;
    let mut reader = Client::join(&server.url, "reader").await;
    let read = reader.pull(note.id).await.unwrap();
    assert_eq!(read.value().unwrap(), "before");
    server.has_logged("database is locked").await;
    let body = server.has_health(503).await;
    assert!(body.contains("StorageFailed"), "{body}");
    assert!(!note.is_acknowledged());
    let listed = server.cli(&["docs", "ls"]).await;
    assert!(listed.line().contains(&note.id.to_string()), "{listed:?}");

    drop(lock);
    server.has_health(200).await;
    writer.push(&mut note).await;
    let log = server.stderr();
    assert_eq!(log.matches("ERROR").count(), 1, "{log}");
}

/// Both waited for the lock that was held while a file was opened.
#[tokio::test]
async fn while_a_group_is_being_opened_health_answers_others_are_opened_and_edits_go_on() {
    let server = Server::start().await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "new");
    writer.push(&mut note).await;
    let slow = server.token("dev.example.slow", false).await;
    let new = server.token("dev.example.new", false).await;

    // who opens it waits five seconds for the lock
    let file = server.group_file("dev.example.slow");
    let lock = locked(&file, "EXCLUSIVE");
    let path = format!("/?token={slow}");
    let refusal = server.refusal(&path, &[]);
    let others = async {
        while !server.has_open(&file) {
            tokio::task::yield_now().await;
        }
        assert_eq!(server.http("/xrpc/_health", &[]).await.0, 200);
        let mut client = Client::join(&server.url_with(&new), "new").await;
        client.push(&mut Replica::new("new", "the first")).await;
        writer.edit(&mut note, "meanwhile").await;
        Client::join(&server.url, "another").await;
    };
    tokio::select! {
        answer = refusal => panic!("they waited for it, until: {answer:?}"),
        () = soon("the others", others) => {}
    }
    drop(lock);
    // it is let in by who is still at it, or by who tries again
    server.has_health(200).await;
    let mut client = Client::join(&server.url_with(&slow), "slow").await;
    client.push(&mut Replica::new("slow", "the first")).await;
}

#[tokio::test]
async fn who_is_revoked_while_the_group_is_being_opened_is_not_let_in() {
    let server = Server::start().await;
    let token = server.token("dev.example.slow", false).await;
    let listed = server.cli(&["token", "ls", "--json"]).await.json();
    let of_slow = |row: &&serde_json::Value| row["group"] == "dev.example.slow";
    let row = listed.as_array().unwrap().iter().find(of_slow).unwrap();

    let accounts = AccountStore::open(&server.data_dir().join("account.db")).unwrap();

    let file = server.group_file("dev.example.slow");
    let lock = locked(&file, "EXCLUSIVE");
    let path = format!("/?token={token}");
    let revoked = async {
        while !server.has_open(&file) {
            tokio::task::yield_now().await;
        }
        // not by a command: SQLite waits for the lock for five seconds
        let revoked = accounts.revoke(row["id"].as_str().unwrap(), &Occasion::at(1));
        assert!(revoked.unwrap());
        drop(lock);
    };
    let (answer, ()) = tokio::join!(server.refusal(&path, &[]), revoked);
    assert_eq!(answer.0, 401, "{answer:?}");
}

#[tokio::test]
async fn behind_an_account_database_that_is_locked_logins_end_in_time_and_sockets_go_on() {
    let world = World::new().await;
    let server = world.server().await;
    let device = Device::native();
    server.pair(&device).await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "before");
    writer.push(&mut note).await;

    let lock = locked(&server.data_dir().join("account.db"), "IMMEDIATE");
    let begun = Instant::now();
    let wish = Server::wish();
    let logins = join_all((0..20).map(|_| server.authenticate(&device, &wish)));
    let edits = async {
        for edit in 0..20 {
            writer.edit(&mut note, &edit.to_string()).await;
        }
        // and sockets are opened
        Client::join(&server.url, "another").await;
        begun.elapsed()
    };
    let command = server.cli(&["token", "add", "--group", GROUP]);
    let (logins, edits_took, command) = tokio::join!(logins, edits, command);
    for login in logins {
        assert_eq!(login.outcome(), (503, "storage_unavailable".into()));
    }
    assert!(
        begun.elapsed() < Duration::from_secs(16),
        "{:?}",
        begun.elapsed()
    );
    assert!(edits_took < Duration::from_secs(4), "{edits_took:?}");
    assert_eq!(command.code, Some(1), "{command:?}");
    assert!(
        command
            .stderr
            .contains("another program has the database locked"),
        "{command:?}"
    );

    drop(lock);
    assert_eq!(server.authenticate(&device, &wish).await.status, 200);
}

#[tokio::test]
async fn a_group_that_is_locked_when_the_server_ends_does_not_keep_the_others_from_their_end() {
    let mut server = Server::start().await;
    let mut waiting = Client::join(&server.url, "waiting").await;
    let mut note = Replica::new("waiting", "new");
    waiting.push(&mut note).await;
    waiting.edit(&mut note, "it has its index").await;
    // its name comes behind that of the group that is locked
    let token = server.token("org.example.other", false).await;
    let mut other = Client::join(&server.url_with(&token), "other").await;
    let lock = locked(&server.group_file(&server.group), "IMMEDIATE");
    note.edit("on its way");
    waiting.sync(&mut note).await;
    // the answer to what came behind it says that it is handled
    assert!(waiting.pull(random_id()).await.is_none());
    server.signal(Signal::TERM);
    assert_eq!(other.close_code().await, 1001);
    assert_eq!(server.ended().await.code(), Some(0));
    drop(lock);
}

/// All locks are waited for, five seconds each. What supervises it would kill it one day.
#[tokio::test]
async fn a_server_that_is_told_to_end_ends_in_time_whatever_is_locked() {
    let world = World::new().await;
    let mut server = world.server().await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "new");
    writer.push(&mut note).await;
    // once it has its index, what is edited goes to the disk
    writer.edit(&mut note, "acknowledged").await;
    server.cli(&["devices", "open"]).await;

    let account = locked(&server.data_dir().join("account.db"), "IMMEDIATE");
    let group = locked(&server.group_file(&server.group), "IMMEDIATE");
    note.edit("on its way");
    writer.sync(&mut note).await;
    let (device, wish) = (Device::in_browser(), Server::wish());
    let is_to_be_recorded = async {
        while world.asked().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = server.authenticate(&device, &wish) => panic!("{answer:?}"),
        () = soon("the request", is_to_be_recorded) => {}
    }
    let begun = Instant::now();
    assert_eq!(server.terminate().await.code(), Some(0));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");

    drop((account, group));
    let server = server.start_again().await;
    let mut reader = Client::join(&server.url, "reader").await;
    let read = reader.pull(note.id).await.unwrap();
    assert_eq!(read.value().unwrap(), "acknowledged");
}

#[tokio::test]
async fn without_files_for_new_connections_those_that_are_open_go_on_and_nothing_spins() {
    let mut server = Server::start().await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "new");
    writer.push(&mut note).await;
    writer.edit(&mut note, "before").await;
    let before = server.limit_files(server.next_file() + 3);
    let strangers = join_all((0..20).map(|_| TcpStream::connect(server.address))).await;
    server.has_logged("cannot accept a connection").await;
    let (before_cpu, begun) = (server.cpu_ticks(), Instant::now());
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    for edit in 0..30 {
        pace.tick().await;
        writer.edit(&mut note, &edit.to_string()).await;
    }
    let used = server.cpu_ticks() - before_cpu;
    let of = begun.elapsed().as_millis() / 10;
    assert!(
        u128::from(used) * 2 < of,
        "{used} of {of} hundredths of a second"
    );
    drop(strangers);
    server.has_health(200).await;
    server.limit_files(before);
    let mut late = Client::join(&server.url, "late").await;
    assert_eq!(late.pull(note.id).await.unwrap().value(), note.value());
    let log = server.stderr();
    assert_eq!(
        log.matches("cannot accept a connection").count(),
        1,
        "{log}"
    );
}

#[tokio::test]
async fn a_lock_that_outlives_a_killed_server_for_a_moment_keeps_the_next_one_waiting_and_no_longer()
 {
    let mut server = Server::start().await;
    server.kill_9().await;
    // as the process that was to become its worker holds it, until it is a program of its own
    let lock = File::open(server.data_dir().join("server.lock")).unwrap();
    lock.lock().unwrap();
    let starting = server.start_again();
    let moment = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(lock);
    };
    let (server, ()) = tokio::join!(starting, moment);
    server.has_health(200).await;
}
