//! The backup that docs/operating.md shows, with the system's own sqlite3, beside a server that runs.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

use std::{fs, path::Path, process::Stdio, time::Duration};

use rusqlite::Connection;
use serde_json::json;
use support::{Client, Replica, Server, outcome, random_id, within};
use tokio::process::Command;

mod support;

/// What has a backup be of one moment: without it, each commit has it begin anew.
const OF_ONE_MOMENT: &str = "BEGIN; SELECT 1 FROM sqlite_schema WHERE 0";

async fn back_up(database: &Path, to: &Path) {
    let mut command = Command::new("sqlite3");
    command
        .arg(database)
        .arg(OF_ONE_MOMENT)
        .arg(format!(".backup {}", to.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = outcome(command).await;
    assert_eq!((output.code, &*output.stderr), (Some(0), ""));
}

#[tokio::test]
async fn a_backup_leaves_what_is_taken_back_later_taken_back_and_what_is_stored_later_stored() {
    let mut server = Server::start().await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "before");
    writer.push(&mut note).await;
    let token = server.token(&server.group, false).await;
    let mut device = Client::join(&server.url_with(&token), "device").await;

    let account = server.data_dir().join("account.db");
    let group = server.group_file(&server.group);
    for database in [&account, &group] {
        back_up(database, &database.with_extension("backup")).await;
    }

    writer.edit(&mut note, "after").await;
    let listed = server.cli(&["token", "ls", "--json"]).await.json();
    let last = listed.as_array().unwrap().last().unwrap()["id"].clone();
    let revoked = server.cli(&["token", "rm", last.as_str().unwrap()]).await;
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    let soon = Duration::from_secs(5);
    let code = within(soon, "the socket to be closed", device.close_code()).await;
    assert_eq!(code, 1008);
    let path = format!("/?token={token}");
    assert_eq!(server.refusal(&path, &[]).await.0, 401);

    assert!(server.terminate().await.success());
    let server = server.start_again().await;
    assert_eq!(server.refusal(&path, &[]).await.0, 401, "for ever");
    let stored = server.document(note.id).await.unwrap();
    assert_eq!(stored["heads"], json!(note.heads()));
}

#[test]
fn the_pages_show_the_backup_that_is_tested_here() {
    for page in ["operating", "storage"] {
        let path = format!("{}/../../docs/{page}.md", env!("CARGO_MANIFEST_DIR"));
        let page = fs::read_to_string(path).unwrap();
        let backups: Vec<_> = page
            .lines()
            .filter(|line| line.contains("\".backup "))
            .collect();
        assert_eq!(backups.len(), 1, "{backups:?}");
        assert!(backups[0].contains(OF_ONE_MOMENT), "{backups:?}");
    }
}

#[tokio::test]
async fn a_backup_of_a_large_group_ends_while_somebody_types() {
    let server = Server::start().await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "before");
    writer.push(&mut note).await;
    let group = server.group_file(&server.group);
    let filled = Connection::open(&group).unwrap();
    for number in 0..100 {
        let filler = "INSERT INTO properties VALUES ('filler ' || ?1, hex(zeroblob(500000)))";
        filled.execute(filler, [number]).unwrap();
    }
    drop(filled);
    let copy = group.with_extension("backup");
    let typing = async {
        loop {
            writer.edit(&mut note, &random_id().to_string()).await;
        }
    };
    tokio::select! {
        () = back_up(&group, &copy) => {}
        () = typing => {}
    }
    let count = "SELECT count(*) FROM documents";
    let copy = Connection::open(copy).unwrap();
    let documents: i64 = copy.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(documents, 1);
}
