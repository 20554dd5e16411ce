//! A group with its engine and store, and sockets that are outboxes alone.

use automerge::{
    Automerge, ROOT,
    sync::{Message, MessageVersion},
    transaction::Transactable as _,
};
use engine::{Announce, Compaction, DocumentId, Settings, limits::EPHEMERAL_BYTES_MAX};
use futures_util::FutureExt as _;
use minicbor::Encoder;
use rusqlite::Connection;
use store::GroupSettings;
use tempfile::TempDir;
use tokio::{task::unconstrained, time::timeout};

use super::*;
use crate::{
    sync::outbox::{OutboxReader, Outgoing, Weight, outbox},
    worker::WorkerSettings,
};

const DOCUMENT: DocumentId = DocumentId::from_bytes([7; 16]);
/// One that nobody has.
const NOBODYS: DocumentId = DocumentId::from_bytes([8; 16]);

struct Stage {
    mailbox: Mailbox,
    folder: TempDir,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (reports, report_reader) = reports();
        let path = folder.path().join("group.db");
        let store = GroupStore::open(&path, GroupSettings::default(), reports.of_store()).unwrap();
        let engine = Engine::new(Settings {
            peer_id: "server".into(),
            storage_id: store.storage_id().to_owned(),
            announce: Announce::None,
            compaction: Compaction::default(),
            graph_bytes_max: 64 << 20,
            graph_idle_ms: 60_000,
        });
        let worker = Worker::start(WorkerSettings {
            program: folder.path().join("none"),
            address_space_bytes: 1 << 30,
            job_seconds_max: 1,
            idle_ms: 1,
        });
        let (thread, name) = (Handle::current(), "org.example.group".parse().unwrap());
        let reports = (reports, report_reader);
        Self {
            mailbox: start(&thread, name, engine, store, worker, reports).0,
            folder,
        }
    }

    async fn join(&self, number: u64) -> Peer<'_> {
        let (group, outgoing) = outbox();
        let connection = ConnectionId(number);
        assert!(self.mailbox.open(connection, Access::Write, group));
        let mut peer = Peer {
            stage: self,
            name: format!("peer {number}"),
            connection,
            outgoing,
        };
        let mut e = Encoder::new(vec![]);
        e.map(3).unwrap().str("type").unwrap().str("join").unwrap();
        e.str("senderId").unwrap().str(&peer.name).unwrap();
        e.str("supportedProtocolVersions").unwrap();
        e.array(1).unwrap().str("1").unwrap();
        peer.send(e.into_writer()).await;
        peer.receive("peer").await;
        peer
    }
}

struct Peer<'a> {
    stage: &'a Stage,
    name: String,
    connection: ConnectionId,
    outgoing: OutboxReader,
}

impl Peer<'_> {
    async fn send(&self, frame: Vec<u8>) {
        let mailbox = &self.stage.mailbox;
        mailbox.frame(self.connection, frame.into()).await;
    }

    /// A frame about a document.
    fn frame(&self, kind: &str, document: DocumentId, data: &[u8]) -> Vec<u8> {
        let mut e = Encoder::new(vec![]);
        e.begin_map().unwrap();
        e.str("type").unwrap().str(kind).unwrap();
        e.str("senderId").unwrap().str(&self.name).unwrap();
        e.str("documentId").unwrap();
        e.str(&document.to_string()).unwrap();
        e.str("data").unwrap().bytes(data).unwrap();
        if kind == "ephemeral" {
            e.str("sessionId").unwrap().str("session").unwrap();
            e.str("count").unwrap().u64(data.len() as u64).unwrap();
        }
        e.end().unwrap();
        e.into_writer()
    }

    /// Asks for a document that nobody has, and waits until it is told so.
    async fn ask_for(&mut self, document: DocumentId) {
        // that it has nothing, and wants everything
        let wish = [0x42, 0, 0, 1, 0, 0, 0];
        self.send(self.frame("request", document, &wish)).await;
        self.receive("doc-unavailable").await;
    }

    /// Takes what comes, as a socket does, until this is in it.
    async fn receive(&mut self, part: impl AsRef<[u8]>) {
        let part = part.as_ref();
        loop {
            let Some(Outgoing::Frame(frame)) = self.outgoing.next().await else {
                panic!("it is closed");
            };
            if self.outgoing.written(Weight::of(&frame)) {
                self.stage.mailbox.drained(self.connection).await;
            }
            let bytes = [&frame.own[..], &frame.shared].concat();
            if bytes.windows(part.len()).any(|window| window == part) {
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_hundred_long_messages_at_once_close_nobody_who_reads() {
    const MESSAGES: usize = 100;
    let stage = Stage::new();
    let (mut talker, mut reader) = (stage.join(1).await, stage.join(2).await);
    talker.ask_for(DOCUMENT).await;
    reader.ask_for(DOCUMENT).await;
    let all = async {
        for left in (0..MESSAGES).rev() {
            // each longer than the last one, as they are told apart by that
            let data = vec![7; EPHEMERAL_BYTES_MAX - left];
            let frame = talker.frame("ephemeral", DOCUMENT, &data);
            talker.send(frame).await;
        }
    };
    let sent = unconstrained(all).now_or_never();
    sent.expect("there is room for all of them, and the group has not looked at any");
    reader.receive("ephemeral").await;
    reader.ask_for(NOBODYS).await;
}

/// A change of a document, as a message, and its hash, which the server says once it is stored.
fn change(doc: &mut Automerge, length: usize) -> (Vec<u8>, [u8; 32]) {
    let mut transaction = doc.transaction();
    transaction.put(ROOT, "key", vec![7; length]).unwrap();
    transaction.commit();
    let change = doc.get_last_local_change().unwrap();
    let (bytes, hash) = (change.raw_bytes().to_vec(), change.hash().0);
    let message = Message {
        heads: doc.get_heads(),
        need: vec![],
        have: vec![],
        changes: vec![bytes].into(),
        flags: None,
        version: MessageVersion::V1,
    };
    (message.encode(), hash)
}

#[tokio::test]
async fn a_long_frame_keeps_its_part_of_the_memory_until_what_it_brought_is_stored() {
    const LENGTH: usize = 100 << 10;
    let stage = Stage::new();
    let free = || stage.mailbox.room.available_permits();
    let mut writer = stage.join(1).await;
    let mut doc = Automerge::new();
    let (first, hash) = change(&mut doc, 1);
    writer.send(writer.frame("sync", DOCUMENT, &first)).await;
    writer.receive(hash).await;

    let lock = Connection::open(stage.folder.path().join("group.db")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (second, hash) = change(&mut doc, LENGTH);
    writer.send(writer.frame("sync", DOCUMENT, &second)).await;
    // the answer to what came behind it says that it is handled
    writer.ask_for(NOBODYS).await;
    assert!(free() <= MAILBOX_KIB - (LENGTH >> 10), "{} KiB", free());
    lock.execute_batch("ROLLBACK").unwrap();
    writer.receive(hash).await;
    assert_eq!(free(), MAILBOX_KIB);
}

#[tokio::test]
async fn a_socket_that_was_refused_and_is_not_read_is_cut_off_when_its_session_ends() {
    let stage = Stage::new();
    let refused = stage.join(1).await;
    refused.send(b"no CBOR".to_vec()).await;
    // the answer to what came behind it says that it is handled
    stage.join(2).await;
    let ended = refused.outgoing.ending();
    stage.mailbox.set_access(refused.connection, None);
    let cut = timeout(Duration::from_secs(20), ended.overdue());
    cut.await
        .expect("it is cut off at once, and not given its time");
}

#[tokio::test]
async fn a_word_that_a_socket_has_caught_up_is_not_believed_once_it_has_filled_up_again() {
    const LENGTH: usize = EPHEMERAL_BYTES_MAX;
    let stage = Stage::new();
    let (mut talker, mut slow) = (stage.join(1).await, stage.join(2).await);
    talker.ask_for(DOCUMENT).await;
    slow.ask_for(DOCUMENT).await;
    let say =
        |talker: &Peer<'_>, length: usize| talker.frame("ephemeral", DOCUMENT, &vec![7; length]);
    talker.send(say(&talker, LENGTH)).await;
    talker.ask_for(NOBODYS).await;
    // it fills up, and what it was told before is not true any more
    stage.mailbox.drained(slow.connection).await;
    for number in 1..100 {
        talker.send(say(&talker, LENGTH - number)).await;
        talker.ask_for(NOBODYS).await;
    }
    slow.receive("ephemeral").await;
    slow.ask_for(NOBODYS).await;
}

#[tokio::test]
async fn a_group_whose_store_is_broken_closes_its_sockets_and_ends() {
    let stage = Stage::new();
    let mut peer = stage.join(1).await;
    let late = outbox();
    assert!(stage.mailbox.reports.make(Report::StoreBroken));
    assert!(
        stage.mailbox.open(ConnectionId(2), Access::Write, late.0),
        "it has not ended yet"
    );
    for outgoing in [&mut peer.outgoing, &mut { late.1 }] {
        let last = timeout(Duration::from_secs(20), outgoing.next()).await;
        let Ok(Some(Outgoing::Close { code, reason })) = last else {
            panic!("it is not closed");
        };
        assert_eq!((code, &*reason), socket::UNAVAILABLE);
    }
    // a hub opens it anew once the task has ended
    stage.mailbox.letters.closed().await;
    assert!(
        !stage
            .mailbox
            .open(ConnectionId(3), Access::Write, outbox().0)
    );
}
