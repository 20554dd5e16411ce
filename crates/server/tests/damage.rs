//! A damaged file: said at once, served to nobody, and nobody else's problem.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

use std::fs;

use support::{Client, Replica, Server};

mod support;

/// What the damaged document says; short enough to lie in the file as it is.
const MARK: &str = "a bit of this flips";

#[tokio::test]
async fn a_flipped_bit_is_named_at_the_start_and_stops_its_group_alone() {
    let mut server = Server::start().await;
    let other_token = server.token("dev.example.other", false).await;
    let mut note = Replica::new("owner", MARK);
    let mut other_note = Replica::new("owner", "of the other group");
    let mut owner = Client::join(&server.url, "owner").await;
    owner.push(&mut note).await;
    let mut other = Client::join(&server.url_with(&other_token), "owner").await;
    other.push(&mut other_note).await;
    assert_eq!(server.http("/xrpc/_health", &[]).await.0, 200);
    server.terminate().await;

    flip_a_bit(&server.group_file(&server.group));
    let mut server = server.start_again().await;
    server.has_logged("checksum of chunk").await;
    let log = server.stderr();
    assert!(log.contains("ERROR"), "{log}");
    assert!(log.contains(&server.group), "{log}");
    assert!(log.contains(&format!("{}.db", server.group)), "{log}");
    assert!(!log.contains("dev.example.other"), "{log}");

    let (status, body) = server.http("/xrpc/_health", &[]).await;
    assert_eq!(status, 503);
    assert!(body.contains("StorageFailed"), "{body}");
    let path = format!("/?token={}", server.token);
    for _ in 0..2 {
        let (status, _) = server.refusal(&path, &[]).await;
        assert_eq!(status, 503);
    }

    let mut other = Client::join(&server.url_with(&other_token), "owner").await;
    let mut copy = other.pull(other_note.id).await.unwrap();
    assert_eq!(copy.value().unwrap(), "of the other group");
    other.edit(&mut copy, "goes on").await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named_and_left_as_it_is() {
    let mut server = Server::start().await;
    server.terminate().await;
    let path = server.group_file("dev.example.broken");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let garbage = "this is no database ".repeat(1_000);
    fs::write(&path, &garbage).unwrap();

    let mut server = server.start_again().await;
    server.has_logged("dev.example.broken.db").await;
    assert_eq!(server.http("/xrpc/_health", &[]).await.0, 503);
    let mut client = Client::join(&server.url, "owner").await;
    client.push(&mut Replica::new("owner", "note")).await;
    let token = server.token("dev.example.broken", false).await;
    let (status, _) = server.refusal(&format!("/?token={token}"), &[]).await;
    assert_eq!(status, 503);
    assert_eq!(server.terminate().await.code(), Some(0));
    assert_eq!(fs::read_to_string(&path).unwrap(), garbage);
}

#[tokio::test]
async fn commands_that_look_into_all_groups_show_the_others_and_name_the_bad_file() {
    let mut server = Server::start().await;
    let mut note = Replica::new("owner", "of a sound group");
    let mut client = Client::join(&server.url, "owner").await;
    client.push(&mut note).await;
    let bad_token = server.token("dev.example.bad", false).await;
    let mut bad = Replica::new("owner", MARK);
    let mut client = Client::join(&server.url_with(&bad_token), "owner").await;
    client.push(&mut bad).await;
    server.terminate().await;
    // one is damaged where its documents are listed, one is no database at all
    let bad_file = server.group_file("dev.example.bad");
    let mut connection = rusqlite::Connection::open(&bad_file).unwrap();
    let transaction = connection.transaction().unwrap();
    let changed = transaction.execute("UPDATE documents SET crc32 = crc32 + 1", []);
    assert_eq!(changed, Ok(1));
    transaction.commit().unwrap();
    drop(connection);
    fs::write(
        server.group_file("dev.example.none"),
        "no database".repeat(1_000),
    )
    .unwrap();

    let id = note.id.to_string();
    let listed = server.cli(&["docs", "ls"]).await;
    let in_json = server.cli(&["docs", "ls", "--json"]).await;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&in_json.stdout).unwrap();
    assert!(rows.len() == 1 && rows[0]["id"] == id.as_str(), "{rows:?}");
    assert!(listed.stdout.starts_with(&id), "{listed:?}");
    // what is nowhere to be found may be in one of them
    let missing = server.cli(&["docs", "show", &bad.id.to_string()]).await;
    for output in [&listed, &in_json, &missing] {
        assert_eq!(output.code, Some(1), "{output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
        for file in ["dev.example.bad.db", "dev.example.none.db"] {
            assert!(output.stderr.contains(file), "{output:?}");
        }
    }
    let found = server.cli(&["docs", "show", &id]).await;
    assert!(found.line().contains(&id), "{found:?}");
}

#[tokio::test]
async fn a_group_that_met_a_flood_of_connections_is_there_after_it() {
    let server = Server::start().await;
    let token = server.token("dev.example.new", false).await;
    let path = format!("/?token={token}");
    // no files but those that are open now, and the one that the request needs
    let before = server.limit_files(server.next_file() + 1);
    assert_eq!(server.refusal(&path, &[]).await.0, 503);
    server.limit_files(before);
    let mut client = Client::join(&server.url_with(&token), "owner").await;
    client.push(&mut Replica::new("owner", "note")).await;
    assert_eq!(server.http("/xrpc/_health", &[]).await.0, 200);
}

/// Flips one bit of the text that the document holds.
fn flip_a_bit(path: &std::path::Path) {
    let mut bytes = fs::read(path).unwrap();
    let mark = MARK.as_bytes();
    let at = bytes.windows(mark.len()).position(|part| part == mark);
    bytes[at.unwrap() + 3] ^= 0x10;
    fs::write(path, bytes).unwrap();
}
