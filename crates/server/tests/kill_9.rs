//! What was acknowledged is on disk: `kill -9` under load, again and again, loses none of it.
//!
//! `KILLS=1000 cargo test --release --test kill_9` (or `make test-kill`) does it more often.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use std::{collections::BTreeMap, convert::Infallible, pin::pin};

use automerge::{ChangeHash, ReadDoc};
use engine::DocumentId;
use futures_util::future::join_all;
use support::{Client, Replica, Server};
use tokio::sync::mpsc;

const KILLS: usize = 50;
const WRITERS: usize = 6;
/// Acknowledgements of one round before the server is killed, at most.
const ROUND_ACKS_MAX: u64 = 60;

type Acknowledged = (DocumentId, Vec<ChangeHash>);

/// What a round has to find again: the changes of each document that the server said it had.
#[derive(Default)]
struct Ledger(BTreeMap<DocumentId, Vec<ChangeHash>>);

impl Ledger {
    fn note(&mut self, (document, hashes): Acknowledged) {
        self.0.entry(document).or_default().extend(hashes);
    }

    /// Asks the server for every document, and looks for every change.
    async fn check(&self, server: &Server, when: &str) {
        let mut reader = Client::join(&server.url, &format!("reader {when}")).await;
        for (document, hashes) in &self.0 {
            let replica = reader.pull(*document).await;
            let replica = replica.unwrap_or_else(|| panic!("{when}: document {document} is lost"));
            for hash in hashes {
                let change = replica.doc.get_change_by_hash(hash);
                assert!(
                    change.is_some(),
                    "{when}: change {hash} of {document} is lost"
                );
            }
        }
    }
}

/// Makes a document, or goes on with one that is there, edit by edit.
async fn write(
    url: &str,
    name: &str,
    document: Option<DocumentId>,
    acknowledged: mpsc::UnboundedSender<Acknowledged>,
) -> Infallible {
    let mut client = Client::join(url, name).await;
    let mut replica = match document {
        Some(document) => client.pull(document).await.unwrap(),
        None => Replica::new(name, "new"),
    };
    client.push(&mut replica).await;
    acknowledged
        .send((replica.id, replica.doc.get_heads()))
        .unwrap();
    for edit in 0u64.. {
        let hash = client.edit(&mut replica, &format!("{name} {edit}")).await;
        acknowledged.send((replica.id, vec![hash])).unwrap();
    }
    unreachable!("there are edits enough")
}

/// Lets clients write until the server has acknowledged `goal` times, and kills it in the middle of it.
async fn round(server: &mut Server, number: usize, documents: &[DocumentId], goal: u64) -> Ledger {
    let (sender, mut acknowledged) = mpsc::unbounded_channel();
    let url = server.url.clone();
    let names: Vec<_> = (0..WRITERS)
        .map(|writer| format!("writer {number}.{writer}"))
        .collect();
    let writers = names.iter().enumerate().map(|(writer, name)| {
        // every other one goes on with a document of an earlier round
        let document = documents.get((number * 7 + writer) % documents.len().max(1));
        write(
            &url,
            name,
            document.copied().filter(|_| writer % 2 == 0),
            sender.clone(),
        )
    });
    let mut writers = pin!(join_all(writers));
    let mut ledger = Ledger::default();
    for _ in 0..goal {
        tokio::select! {
            _ = &mut writers => unreachable!("they write for ever"),
            Some(one) = acknowledged.recv() => ledger.note(one),
        }
    }
    // the writers are not looked at any more, but what they have sent is on its way
    server.kill_9().await;
    while let Ok(one) = acknowledged.try_recv() {
        ledger.note(one);
    }
    ledger
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let kills = std::env::var("KILLS")
        .ok()
        .map_or(KILLS, |kills| kills.parse().unwrap());
    let mut server = Server::start().await;
    let mut all = Ledger::default();
    let mut documents = vec![];
    for number in 0..kills {
        let goal = (number as u64 * 31) % ROUND_ACKS_MAX + 1;
        let ledger = round(&mut server, number, &documents, goal).await;
        server = server.start_again().await;
        ledger.check(&server, &format!("after kill {number}")).await;
        documents.extend(ledger.0.keys());
        documents.sort();
        documents.dedup();
        ledger
            .0
            .into_iter()
            .for_each(|acknowledged| all.note(acknowledged));
    }
    all.check(&server, "at the end").await;
    let changes: usize = all.0.values().map(Vec::len).sum();
    println!(
        "{kills} kills, {} documents, {changes} acknowledged changes, none lost",
        all.0.len()
    );
    assert!(changes >= kills, "every round acknowledged something");
}
