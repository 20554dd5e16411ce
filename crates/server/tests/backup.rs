//! The backup that docs/operating.md shows, with the system's own sqlite3, beside a server that runs.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

use std::{path::Path, time::Duration};

use serde_json::json;
use support::{Client, Replica, Server, outcome, within};
use tokio::process::Command;

mod support;

async fn back_up(database: &Path, to: &Path) {
    let mut command = Command::new("sqlite3");
    command
        .arg(database)
        .arg(format!(".backup {}", to.display()));
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
