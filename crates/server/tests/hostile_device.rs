//! A device that was let in, and wants to hurt: what it gets after it was revoked; and what the process keeps to itself.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use std::{collections::BTreeSet, io::Write as _};

use automerge::{ROOT, transaction::Transactable as _};
use bytes::Bytes;
use flate2::{Compression, write::DeflateEncoder};
use support::{
    Client, Event, Replica, Server,
    hostile::{change_contents, checksum, chunk_with, sync_message},
    random_id, soon, sync_frame,
};
use tokio::io::AsyncReadExt as _;

/// Bytes that no packing makes fewer.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        // xorshift
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[tokio::test]
async fn a_revoked_device_that_does_not_read_is_cut_off_and_gets_no_more_of_a_document() {
    const DOCUMENT_BYTES: usize = 16 << 20;
    let mut server = Server::start_with(&["--log", "debug"]).await;
    let mut owner = Client::join(&server.url, "owner").await;
    let mut long = Replica::empty(random_id(), "owner");
    let mut transaction = long.doc.transaction();
    transaction
        .put(ROOT, "long", noise(DOCUMENT_BYTES))
        .unwrap();
    transaction.commit();
    owner.push(&mut long).await;

    let token = server.token(&server.group, false).await;
    let mut device = Client::join(&server.url_with(&token), "device").await;
    let nothing = sync_message(&[], &[]);
    device
        .send(sync_frame("request", "device", long.id, &nothing))
        .await;
    // the document is on its way once its first bytes are there
    let mut first = [0; 1];
    let length = soon("the first byte", device.stream().read(&mut first)).await;
    assert_eq!(length.unwrap(), 1);

    let sessions = server.cli(&["sessions", "ls", "--json"]).await.json();
    let id = sessions[1]["id"].as_str().unwrap();
    server.cli(&["sessions", "revoke", id]).await;
    // it reads nothing, and yet the server is done with it
    server.has_logged("a socket is closed").await;
    let mut rest = vec![];
    let end = soon("the end", device.stream().read_to_end(&mut rest)).await;
    // what the kernel had taken may still come
    assert!(
        rest.len() < DOCUMENT_BYTES / 2,
        "{} bytes, {end:?}",
        rest.len()
    );
}

/// How many messages are sent that are dear to look at.
const MESSAGES: usize = 100;

/// Frames of a few kilobytes, each for a document of its own, with a change that inflates to 12 MiB.
fn dear_frames() -> Vec<Bytes> {
    let contents = change_contents(b"hostile", 1, &vec![b'a'; 12 << 20]);
    let mut encoder = DeflateEncoder::new(vec![], Compression::best());
    encoder.write_all(&contents).unwrap();
    // of types 2, deflated, and 1, which the checksum is of
    let change = chunk_with(2, &encoder.finish().unwrap(), checksum(1, &contents));
    assert!(change.len() < 32 << 10, "{}", change.len());
    let message = sync_message(&[], &[&change]);
    std::iter::repeat_with(|| sync_frame("sync", "hostile", random_id(), &message))
        .take(MESSAGES)
        .collect()
}

#[tokio::test]
async fn a_device_that_keeps_its_group_busy_does_not_keep_its_session_by_that() {
    let server = Server::start().await;
    let token = server.token(&server.group, false).await;
    let mut hostile = Client::join(&server.url_with(&token), "hostile").await;
    let sessions = server.cli(&["sessions", "ls", "--json"]).await.json();
    let id = sessions[1]["id"].as_str().unwrap();
    hostile.send_all(dear_frames()).await;
    assert_eq!(
        hostile.frame().await.kind,
        "sync",
        "the first is dealt with"
    );
    server.cli(&["sessions", "revoke", id]).await;
    let mut dealt_with = BTreeSet::new();
    let code = loop {
        match hostile.next().await {
            Event::Frame(frame) => drop(dealt_with.insert(frame.document)),
            Event::Closed { code, .. } => break code,
        }
    };
    println!(
        "{} dear messages were dealt with meanwhile",
        dealt_with.len()
    );
    assert_eq!(code, 1008);
    assert!(dealt_with.len() < MESSAGES * 3 / 4, "{}", dealt_with.len());
}

/// They are of documents that must be read first: the store answers for many of them at once.
#[tokio::test]
async fn a_device_that_keeps_its_group_busy_does_not_keep_other_groups_waiting() {
    let server = Server::start().await;
    let other = server.token("org.example.other", false).await;
    let mut bystander = Client::join(&server.url_with(&other), "bystander").await;
    let mut hostile = Client::join(&server.url, "hostile").await;
    hostile.send_all(dear_frames()).await;
    assert_eq!(
        hostile.frame().await.kind,
        "sync",
        "the first is dealt with"
    );
    let nothing = sync_message(&[], &[]);
    let question = sync_frame("request", "bystander", random_id(), &nothing);
    bystander.send(question).await;
    let mut dealt_with = BTreeSet::new();
    let answer = loop {
        tokio::select! {
            answer = bystander.frame() => break answer,
            event = hostile.next() => match event {
                Event::Frame(frame) => drop(dealt_with.insert(frame.document)),
                Event::Closed { .. } => panic!("closed"),
            }
        }
    };
    assert_eq!(answer.kind, "doc-unavailable");
    println!("{} dear messages were dealt with", dealt_with.len());
    assert!(dealt_with.len() < MESSAGES / 2, "{}", dealt_with.len());
}

#[tokio::test]
async fn the_server_leaves_no_core_file_with_its_key_in_it() {
    let server = Server::start().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let fields: Vec<_> = core.unwrap().split_whitespace().collect();
    assert_eq!(fields[4..6], ["0", "0"], "{core:?}");
}

#[tokio::test]
async fn a_lock_that_is_a_link_to_something_else_leaves_that_as_it_is() {
    let mut server = Server::start().await;
    server.terminate().await;
    let lock = server.data_dir().join("server.lock");
    let other = server.folder().join("other");
    std::fs::write(&other, "as it was").unwrap();
    std::fs::remove_file(&lock).unwrap();
    std::os::unix::fs::symlink(&other, &lock).unwrap();
    let server = server.start_again().await;
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "as it was");
    drop(server);
}
