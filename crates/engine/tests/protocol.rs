//! What a client sees of the automerge-repo protocol, message by message.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod world;

use std::collections::BTreeSet;

use bytes::Bytes;
use engine::{
    Access, Announce, ConnectionId, DocumentId, Input, JobKind, Refusal, Settings, WorkOutcome,
    limits::EPHEMERAL_BYTES_MAX, storage::Fault,
};
use minicbor::Encoder;
use world::{
    Client, World, document, frame, in_step, join_frame, message_of, pushed, settings, sync_frame,
    talk, watch_frame,
};

fn open(world: &mut World, connection: u64) -> ConnectionId {
    let connection = ConnectionId(connection);
    world.input(Input::Opened {
        connection,
        access: Access::Write,
    });
    connection
}

#[test]
fn join_is_answered_with_who_we_are_and_where_we_store() {
    let mut world = World::new(settings());
    let connection = open(&mut world, 100);
    world.frame(connection, join_frame("alice"));
    let peer = world.take(connection).unwrap();
    assert_eq!(
        (
            peer.kind.as_str(),
            peer.sender.as_str(),
            peer.target.as_str()
        ),
        ("peer", "server", "alice")
    );
}

#[test]
fn whoever_breaks_the_handshake_is_told_why_and_closed() {
    let id = document(7);
    let mut versions = Encoder::new(Vec::new());
    versions
        .map(3)
        .unwrap()
        .str("type")
        .unwrap()
        .str("join")
        .unwrap();
    versions.str("senderId").unwrap().str("alice").unwrap();
    versions
        .str("supportedProtocolVersions")
        .unwrap()
        .array(1)
        .unwrap()
        .str("9")
        .unwrap();
    let cases: [(&[Bytes], Refusal); 6] = [
        (
            &[sync_frame("sync", "alice", id, &[0x42, 0, 0, 0, 0])],
            Refusal::NotJoined,
        ),
        (&[frame(&[("type", "wat")], None)], Refusal::NotJoined),
        (&[Bytes::from_static(&[0xf6])], Refusal::MalformedFrame),
        (
            &[versions.into_writer().into()],
            Refusal::UnsupportedVersion,
        ),
        (
            &[join_frame("alice"), join_frame("alice")],
            Refusal::JoinedTwice,
        ),
        (
            &[
                join_frame("alice"),
                sync_frame("sync", "bob", id, &[0x42, 0, 0, 0, 0]),
            ],
            Refusal::ForeignSender,
        ),
    ];
    for (n, (frames, refusal)) in cases.into_iter().enumerate() {
        let mut world = World::new(settings());
        let connection = open(&mut world, n as u64);
        frames
            .iter()
            .for_each(|frame| world.frame(connection, frame.clone()));
        assert_eq!(world.closed.get(&connection), Some(&refusal), "case {n}");
        let told = world.sent[&connection].back().unwrap();
        assert_eq!(
            (told.kind.as_str(), told.message.as_str()),
            ("error", refusal.to_string().as_str())
        );
        assert!(world.asked.is_empty(), "case {n}: the store was asked");
    }
}

#[test]
fn a_request_waits_a_moment_for_what_a_newcomer_brings() {
    let mut world = World::new(settings());
    let mut asker = Client::new("asker", document(7));
    let mut writer = Client::new("writer", document(7));
    writer.edit("brought along");
    // the writer has joined, and its first message is on its way
    let connection = world.connect("writer", Access::Write);
    asker.connect(&mut world);
    world.settle();
    assert!(
        !asker.receive_one(&mut world),
        "it is not told of anything yet"
    );
    writer.connection = Some(connection);
    writer.send(&mut world);
    let mut clients = [asker, writer];
    talk(&mut world, &mut clients);
    assert_eq!(clients[0].heads(), clients[1].heads());
    assert!(!clients[0].unavailable);
}

#[test]
fn a_newcomer_that_brings_nothing_keeps_nobody_waiting_for_long() {
    let mut world = World::new(settings());
    let mut asker = Client::new("asker", document(7));
    world.connect("newcomer", Access::Write);
    asker.connect(&mut world);
    world.settle();
    assert!(!asker.receive_one(&mut world));
    world.pass_ms(250);
    world.settle();
    assert!(asker.receive_one(&mut world) && asker.unavailable);
}

#[test]
fn a_newcomer_that_is_gone_keeps_nobody_waiting_and_somebody_else_who_goes_changes_nothing() {
    for newcomer_goes in [true, false] {
        let mut world = World::new(settings());
        let mut asker = Client::new("asker", document(7));
        let long_there = world.connect("long there", Access::Write);
        let newcomer = world.connect("newcomer", Access::Write);
        asker.connection = Some(world.connect("asker", Access::Write));
        world.disconnect(if newcomer_goes { newcomer } else { long_there });
        asker.send(&mut world);
        world.settle();
        assert_eq!(asker.receive_one(&mut world), newcomer_goes);
        assert_eq!(asker.unavailable, newcomer_goes);
    }
}

#[test]
fn an_unknown_document_is_unavailable_once_the_disk_was_asked_and_comes_when_it_appears() {
    let mut world = World::new(settings());
    let mut asker = Client::new("asker", document(7));
    asker.connect(&mut world);
    assert!(!asker.receive_one(&mut world), "the disk was not asked yet");
    talk(&mut world, std::slice::from_mut(&mut asker));
    assert!(asker.unavailable);
    let mut clients = [asker, Client::new("writer", document(7))];
    clients[1].edit("here");
    clients[1].connect(&mut world);
    talk(&mut world, &mut clients);
    assert_eq!(clients[0].value().as_deref(), Some("here"));
}

#[test]
fn a_request_waits_for_a_peer_that_has_announced_the_document() {
    let mut world = World::new(settings());
    let mut writer = Client::new("writer", document(7));
    writer.edit("coming");
    writer.connect(&mut world);
    world.settle();
    let mut asker = Client::new("asker", document(7));
    asker.connect(&mut world);
    world.settle();
    assert!(
        !asker.receive_one(&mut world),
        "the writer may still send it"
    );
    let mut clients = [writer, asker];
    talk(&mut world, &mut clients);
    assert!(!clients[1].unavailable);
    assert_eq!(clients[1].value().as_deref(), Some("coming"));
}

#[test]
fn a_request_does_not_wait_for_ever_or_for_a_peer_that_is_gone() {
    for gone in [false, true] {
        let mut world = World::new(settings());
        let mut writer = Client::new("writer", document(7));
        writer.edit("never");
        writer.connect(&mut world);
        world.settle();
        let mut asker = Client::new("asker", document(7));
        asker.connect(&mut world);
        world.settle();
        if gone {
            writer.disconnect(&mut world);
        } else {
            world.pass_ms(3_001);
        }
        assert!(
            asker.receive_one(&mut world) && asker.unavailable,
            "gone: {gone}"
        );
    }
}

#[test]
fn who_lags_behind_is_not_told_that_a_document_is_missing_which_has_come_meanwhile() {
    let mut world = World::new(settings());
    let mut asker = Client::new("asker", document(7));
    // a newcomer that may bring it
    let connection = world.connect("writer", Access::Write);
    asker.connect(&mut world);
    world.settle();
    let slow = asker.connection.unwrap();
    world.input(Input::Congested { connection: slow });
    let mut writer = Client::new("writer", document(7));
    writer.edit("here");
    writer.connection = Some(connection);
    writer.send(&mut world);
    talk(&mut world, std::slice::from_mut(&mut writer));
    world.pass_ms(10_000);
    assert!(world.take(slow).is_none());
    world.input(Input::Drained { connection: slow });
    let mut clients = [writer, asker];
    talk(&mut world, &mut clients);
    assert_eq!(clients[1].heads(), clients[0].heads());
    assert!(!clients[1].unavailable);
}

#[test]
fn two_connections_with_one_peer_id_both_keep_their_service() {
    let mut world = World::new(settings());
    let first = pushed(&mut world, "tab");
    let mut second = Client::new("tab", document(7));
    second.doc.set_actor(b"another actor".as_slice().into());
    second.connect(&mut world);
    let mut clients = [first, second];
    talk(&mut world, &mut clients);
    for n in 0..2 {
        clients[n].edit(&format!("from {n}"));
        clients[n].send(&mut world);
        talk(&mut world, &mut clients);
        assert_eq!(clients[0].value(), Some(format!("from {n}")));
        assert_eq!(clients[0].heads(), clients[1].heads());
    }
}

fn ephemeral(sender: &str, count: u64) -> Bytes {
    ephemeral_of(sender, count, &[1, 2, 3])
}

fn ephemeral_of(sender: &str, count: u64, data: &[u8]) -> Bytes {
    let mut e = Encoder::new(Vec::new());
    e.map(6)
        .unwrap()
        .str("type")
        .unwrap()
        .str("ephemeral")
        .unwrap();
    e.str("senderId").unwrap().str(sender).unwrap();
    e.str("documentId")
        .unwrap()
        .str(&document(7).to_string())
        .unwrap();
    e.str("sessionId").unwrap().str("session").unwrap();
    e.str("count").unwrap().u64(count).unwrap();
    e.str("data").unwrap().bytes(data).unwrap();
    e.into_writer().into()
}

#[test]
fn ephemeral_messages_go_to_the_others_of_the_document_once() {
    let mut world = World::new(settings());
    let alice = pushed(&mut world, "alice");
    let mut bob = Client::new("bob", document(7));
    bob.connect(&mut world);
    let mut clients = [alice, bob];
    talk(&mut world, &mut clients);
    let stranger = world.connect("stranger", Access::Write);
    let [alice, bob] = [&clients[0], &clients[1]].map(|client| client.connection.unwrap());
    for count in [1, 1, 2] {
        world.frame(alice, ephemeral("alice", count));
    }
    world.frame(alice, ephemeral("somebody else", 9));
    world.frame(stranger, ephemeral("stranger", 1));
    let heard: Vec<_> = std::iter::from_fn(|| world.take(bob)).collect();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert_eq!(
        (heard[0].sender.as_str(), heard[0].target.as_str()),
        ("alice", "bob")
    );
    assert_eq!(heard[0].data, [1, 2, 3]);
    assert!(world.take(alice).is_none() && world.take(stranger).is_none());
    assert!(world.closed.is_empty());
}

#[test]
fn who_watches_our_storage_hears_of_heads_once_they_are_on_disk() {
    let mut world = World::new(settings());
    let mut client = pushed(&mut world, "alice");
    let connection = client.connection.unwrap();
    let watch = watch_frame("alice", "add", &["other", "storage"]);
    world.frame(connection, watch);
    let told = world.take(connection).unwrap();
    assert_eq!(told.kind, "remote-heads-changed");
    let head = bs58::encode(client.heads()[0].as_bytes())
        .with_check()
        .into_string();
    assert_eq!(told.new_heads, [head]);
    client.edit("two");
    client.send(&mut world);
    assert!(world.take(connection).is_none(), "not on disk yet");
    world.settle();
    let frames: Vec<_> = std::iter::from_fn(|| world.take(connection)).collect();
    let head = bs58::encode(client.heads()[0].as_bytes())
        .with_check()
        .into_string();
    assert!(frames.iter().any(|frame| frame.new_heads == [&*head]));
}

#[test]
fn a_group_that_announces_tells_of_what_it_has_and_of_what_comes() {
    let mut world = World::new(Settings {
        announce: Announce::All,
        ..settings()
    });
    let writer = pushed(&mut world, "writer");
    let listener = world.connect("listener", Access::Write);
    world.settle();
    let told = world.take(listener).unwrap();
    assert_eq!(
        (told.kind.as_str(), told.document.clone()),
        ("sync", document(7).to_string())
    );
    let mut other = Client::new("other", document(9));
    other.edit("new");
    other.connect(&mut world);
    let mut clients = [writer, other];
    talk(&mut world, &mut clients[1..]);
    let told: Vec<_> = std::iter::from_fn(|| world.take(listener)).collect();
    assert!(
        told.iter()
            .any(|frame| frame.document == document(9).to_string()),
        "{told:?}"
    );
}

/// The disk is asked for a thousand at a time.
#[test]
fn a_group_of_more_documents_than_one_answer_lists_tells_of_all_of_them() {
    for count in [999, 1_000, 1_001, 2_500] {
        let mut world = World::new(Settings {
            announce: Announce::All,
            ..settings()
        });
        let mut writer = pushed(&mut world, "writer");
        writer.disconnect(&mut world);
        world.crash();
        let stored = world.store.documents.remove(&document(7)).unwrap();
        for n in 0..count {
            let mut id = [1; 16];
            id[..4].copy_from_slice(&u32::to_be_bytes(n));
            let id = DocumentId::from_bytes(id);
            world.store.documents.insert(id, stored.clone());
        }
        let listener = world.connect("listener", Access::Write);
        world.settle();
        let told: Vec<_> = std::iter::from_fn(|| world.take(listener)).collect();
        let ids = |documents: &mut dyn Iterator<Item = String>| documents.collect::<BTreeSet<_>>();
        let all = ids(&mut world.store.documents.keys().map(DocumentId::to_string));
        assert_eq!(
            ids(&mut told.iter().map(|frame| frame.document.clone())),
            all
        );
        assert_eq!(told.len(), all.len(), "of each once");
    }
}

#[test]
fn nobody_is_told_of_a_new_document_before_it_has_joined_or_when_it_knows_already() {
    let mut world = World::new(Settings {
        announce: Announce::All,
        ..settings()
    });
    let silent = open(&mut world, 100);
    let writer = pushed(&mut world, "writer");
    assert!(world.take(silent).is_none());
    assert!(world.take(writer.connection.unwrap()).is_none());
}

#[test]
fn an_ephemeral_message_is_relayed_up_to_its_limit_and_dropped_beyond() {
    let mut world = World::new(settings());
    let alice = pushed(&mut world, "alice");
    let mut clients = [alice, Client::new("bob", document(7))];
    clients[1].connect(&mut world);
    talk(&mut world, &mut clients);
    let [alice, bob] = [&clients[0], &clients[1]].map(|client| client.connection.unwrap());
    for (count, bytes) in [(1, EPHEMERAL_BYTES_MAX), (2, EPHEMERAL_BYTES_MAX + 1)] {
        world.frame(alice, ephemeral_of("alice", count, &vec![7; bytes]));
    }
    let heard: Vec<_> = std::iter::from_fn(|| world.take(bob)).collect();
    let lengths: Vec<_> = heard.iter().map(|frame| frame.data.len()).collect();
    assert_eq!(lengths, [EPHEMERAL_BYTES_MAX]);
    assert!(world.closed.is_empty());
}

#[test]
fn a_group_that_does_not_announce_says_nothing_unasked() {
    let mut world = World::new(settings());
    let mut writer = pushed(&mut world, "writer");
    let listener = world.connect("listener", Access::Write);
    writer.edit("more");
    writer.send(&mut world);
    talk(&mut world, std::slice::from_mut(&mut writer));
    assert!(world.take(listener).is_none());
}

#[test]
fn messages_made_to_hurt_close_their_socket_and_leave_the_document_alone() {
    let mut world = World::new(settings());
    let mut client = pushed(&mut world, "honest");
    // a pushed chunk becomes a snapshot when it has been looked at, so its kind says nothing here
    let stored = |world: &World| {
        let mut all = vec![];
        for (id, document) in &world.store.documents {
            let chunks = document.chunks.iter();
            let chunks: Vec<_> = chunks
                .map(|chunk| (chunk.number, chunk.bytes.clone()))
                .collect();
            all.push((*id, document.meta.heads.clone(), chunks));
        }
        all
    };
    let before = stored(&world);
    let mut bad_checksum = message_of(&[client.doc.get_changes(&[])[0].raw_bytes()]);
    *bad_checksum.last_mut().unwrap() ^= 1;
    let hostile: [(&[u8], Refusal); 5] = [
        (&[0x17; 200], Refusal::MalformedSync),
        (
            &[0x42, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3],
            Refusal::MalformedSync,
        ),
        (&[0x42, 0, 0, 1, 0, 3, 1, 0, 7, 0], Refusal::MalformedSync),
        (&[0x42, 0, 0, 0, 1, 3, 1, 2, 3], Refusal::MalformedChange),
        (&bad_checksum, Refusal::MalformedChange),
    ];
    for (data, refusal) in hostile {
        let connection = world.connect("hostile", Access::Write);
        world.frame(connection, sync_frame("sync", "hostile", document(7), data));
        world.settle();
        assert_eq!(world.closed.get(&connection), Some(&refusal), "{data:02x?}");
    }
    assert_eq!(stored(&world), before);
    client.edit("still served");
    client.send(&mut world);
    talk(&mut world, std::slice::from_mut(&mut client));
    assert_eq!(world.store.heads(document(7)), client.heads());
}

#[test]
fn a_second_change_with_an_actors_sequence_number_is_refused() {
    let mut world = World::new(settings());
    let mut honest = pushed(&mut world, "twin");
    honest.edit("two");
    honest.send(&mut world);
    talk(&mut world, std::slice::from_mut(&mut honest));
    // Another device with a copied actor: its second change is another one. Its own library refuses ours as we
    // refuse its, so the change is sent without it.
    let mut twin = Client::new("twin", document(7));
    twin.edit("one");
    twin.edit("not two");
    let changes = twin.doc.get_changes(&[]);
    let [common, second] = changes.as_slice() else {
        panic!("{changes:?}")
    };
    assert_eq!(common.hash(), honest.doc.get_changes(&[])[0].hash());
    let connection = world.connect("twin", Access::Write);
    let message = message_of(&[second.raw_bytes()]);
    world.frame(
        connection,
        sync_frame("sync", "twin", document(7), &message),
    );
    world.settle();
    assert_eq!(world.closed, [(connection, Refusal::ChangeSequence)].into());
    assert_eq!(world.store.heads(document(7)), honest.heads());
    honest.edit("three");
    honest.send(&mut world);
    talk(&mut world, std::slice::from_mut(&mut honest));
    assert_eq!(world.store.heads(document(7)), honest.heads());
}

#[test]
fn a_whole_document_is_acknowledged_before_the_worker_has_looked_at_it() {
    let mut world = World::new(settings());
    let mut writer = Client::new("writer", document(7));
    (0..40).for_each(|n| writer.edit(&n.to_string()));
    writer.connect(&mut world);
    while !world.asked.is_empty() {
        world.store_some(usize::MAX);
        while writer.receive_one(&mut world) {}
    }
    assert_eq!(world.jobs_done, 0);
    let shared: Vec<_> = writer.state.shared_heads.iter().map(world::ours).collect();
    assert_eq!(shared, writer.heads(), "acknowledged");
    // another one is served once the worker has worked out what it is
    let mut reader = Client::new("reader", document(7));
    reader.connect(&mut world);
    world.store_some(usize::MAX);
    assert!(!reader.receive_one(&mut world));
    let mut clients = [writer, reader];
    talk(&mut world, &mut clients);
    assert_eq!(world.jobs_done, 1);
    assert_eq!(clients[0].heads(), clients[1].heads());
}

#[test]
fn a_document_that_cannot_be_loaded_is_dropped_with_who_pushed_it() {
    let mut world = World::new(settings());
    let mut writer = Client::new("writer", document(7));
    (0..40).for_each(|n| writer.edit(&n.to_string()));
    writer.connect(&mut world);
    while !world.asked.is_empty() {
        world.store_some(usize::MAX);
        while writer.receive_one(&mut world) {}
    }
    world.pass_ms(5_000);
    world.store_some(usize::MAX);
    let (ticket, _) = world.jobs.pop_front().unwrap();
    let outcome = WorkOutcome::Invalid {
        reason: "does not load".into(),
    };
    world.input(Input::Worked { ticket, outcome });
    world.settle();
    assert!(world.store.documents.is_empty());
    assert_eq!(
        world.closed.values().next(),
        Some(&Refusal::UnloadableDocument)
    );
    let mut reader = Client::new("reader", document(7));
    reader.connect(&mut world);
    talk(&mut world, std::slice::from_mut(&mut reader));
    assert!(reader.unavailable);
}

#[test]
fn idle_graphs_leave_memory_and_come_back_when_they_are_needed() {
    let mut world = World::new(settings());
    let mut writer = pushed(&mut world, "writer");
    world.pass_ms(3_000);
    talk(&mut world, std::slice::from_mut(&mut writer));
    writer.edit("two");
    writer.send(&mut world);
    talk(&mut world, std::slice::from_mut(&mut writer));
    assert!(world.engine.graph_bytes() > 0);
    world.pass_ms(60_000);
    world.pass_ms(60_000);
    assert_eq!(world.engine.graph_bytes(), 0);
    writer.edit("three");
    writer.send(&mut world);
    talk(&mut world, std::slice::from_mut(&mut writer));
    assert_eq!(world.store.heads(document(7)), writer.heads());
}

#[test]
fn a_fresh_device_gets_snapshot_and_tail_and_has_nothing_to_say_to_them() {
    let mut world = World::new(settings());
    let mut writer = pushed(&mut world, "writer");
    for n in 0..100 {
        writer.edit(&n.to_string());
        writer.send(&mut world);
        talk(&mut world, std::slice::from_mut(&mut writer));
        // longer than a compaction waits for quiet
        world.pass_ms(300);
        world.settle();
    }
    let stored = &world.store.documents[&document(7)];
    assert!(
        stored.meta.snapshot_bytes > 0 && stored.chunks.len() < 40,
        "it was compacted"
    );
    let mut reader = Client::new("reader", document(7));
    reader.connect(&mut world);
    world.settle();
    assert!(reader.receive_one(&mut world));
    assert_eq!(reader.heads(), writer.heads(), "one message is enough");
    world.settle();
    assert!(!reader.receive_one(&mut world), "and nothing is answered");
}

/// A world in which a document was pushed whole, and the job that makes its index is at hand.
fn world_with_a_job() -> World {
    let mut world = World::new(settings());
    let mut writer = Client::new("writer", document(7));
    // enough that it is sent whole
    (0..40).for_each(|n| writer.edit(&n.to_string()));
    writer.connect(&mut world);
    while !world.asked.is_empty() {
        world.store_some(usize::MAX);
        while writer.receive_one(&mut world) {}
    }
    world.pass_ms(5_000);
    world.store_some(usize::MAX);
    assert_eq!(world.jobs.len(), 1);
    world
}

fn has_index(world: &World) -> bool {
    world.store.documents[&document(7)].index.is_some()
}

#[test]
fn a_job_whose_outcome_found_no_room_is_done_again_though_nobody_asks() {
    let mut world = world_with_a_job();
    world.fault = Some(Fault::Full);
    world.settle();
    world.fault = None;
    assert!(!has_index(&world));
    world.pass_ms(30_000);
    world.settle();
    assert!(has_index(&world));
}

#[test]
fn a_job_that_finds_no_worker_is_done_later_and_quarantines_nothing() {
    let mut world = world_with_a_job();
    let (ticket, _) = world.jobs.pop_front().unwrap();
    let outcome = WorkOutcome::Unavailable;
    world.input(Input::Worked { ticket, outcome });
    world.settle();
    world.pass_ms(30_000);
    world.settle();
    assert!(has_index(&world));
}

/// Only a change without its dependencies was stored when the server ended. Whoever asked for the document after that
/// was neither sent it nor told that it is not there, and waited for ever.
#[test]
fn a_document_of_which_only_orphans_are_stored_is_not_there() {
    let mut world = World::new(settings());
    let mut writer = Client::new("writer", document(7));
    writer.edit("one");
    writer.edit("two");
    let second = writer.doc.get_changes(&[])[1].clone();
    let connection = world.connect("writer", Access::Write);
    let message = message_of(&[second.raw_bytes()]);
    world.frame(
        connection,
        sync_frame("sync", "writer", document(7), &message),
    );
    world.settle();
    world.crash();
    let mut asker = Client::new("asker", document(7));
    asker.connect_as(&mut world, Access::Read);
    talk(&mut world, std::slice::from_mut(&mut asker));
    world.pass_ms(1_000);
    talk(&mut world, std::slice::from_mut(&mut asker));
    assert!(asker.unavailable);
}

#[test]
fn a_tail_that_grew_while_the_worker_was_at_the_last_one_is_compacted_too() {
    let mut world = World::new(settings());
    let mut writer = pushed(&mut world, "writer");
    for n in 0..100 {
        writer.edit(&n.to_string());
        writer.send(&mut world);
        talk(&mut world, std::slice::from_mut(&mut writer));
    }
    world.pass_ms(3_000);
    world.store_some(usize::MAX);
    assert!(
        matches!(world.jobs.back(), Some((_, job)) if job.kind == JobKind::Compact),
        "the worker is at it"
    );
    for n in 0..20 {
        writer.edit(&n.to_string().repeat(100));
        writer.send(&mut world);
        while !world.asked.is_empty() {
            world.store_some(usize::MAX);
            while writer.receive_one(&mut world) {}
        }
    }
    assert_eq!(
        world.store.heads(document(7)),
        writer.heads(),
        "meanwhile they are stored"
    );
    world.work_one();
    world.store_some(usize::MAX);
    let stored = &world.store.documents[&document(7)];
    let all = writer.doc.get_changes(&[]).len() as u64;
    assert_eq!(stored.meta.changes, all, "those behind the snapshot count");
    world.settle();
    // nobody writes any more
    world.pass_ms(3_000);
    world.settle();
    assert_eq!(world.store.documents[&document(7)].meta.tail_bytes, 0);
    assert_eq!(world.store.heads(document(7)), writer.heads());
}

/// Whether a listener is told of a document though reading fails for a while, after so many answers.
fn is_announced_though_reading_failed_after(answers: usize) -> bool {
    let announce = Announce::All;
    let mut world = World::new(Settings {
        announce,
        ..settings()
    });
    in_step(&mut world);
    world.crash();
    let listener = world.connect("listener", Access::Write);
    world.store_some(answers);
    world.read_fault = Some(Fault::Failed);
    world.settle();
    world.read_fault = None;
    for _ in 0..5 {
        world.pass_ms(1_000);
        world.settle();
    }
    world.take(listener).is_some()
}

#[test]
fn a_list_of_documents_that_could_not_be_read_leaves_nobody_without_announcements() {
    assert!(is_announced_though_reading_failed_after(0));
}

#[test]
fn a_document_that_could_not_be_read_for_an_announcement_is_announced_later() {
    assert!(is_announced_though_reading_failed_after(1));
}
