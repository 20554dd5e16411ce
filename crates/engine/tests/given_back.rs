//! What was taken and not given back, or waited for in vain, each on a rare way: a review looked for nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod world;

use automerge::sync::{State, SyncDoc};
use engine::{
    Access, Announce, ConnectionId, Input, Settings, WorkOutcome,
    limits::READING_BYTES_MAX,
    storage::{DocumentMeta, Fault, ReadWhat, WriteAction},
};
use world::{
    Client, Dice, Request, World, document, frame, in_step, message_of, noise, settings,
    sync_frame, talk, write, write_noise,
};

fn announcing() -> Settings {
    Settings {
        announce: Announce::All,
        ..settings()
    }
}

fn store_all(world: &mut World) {
    while !world.asked.is_empty() {
        world.store_some(usize::MAX);
    }
}

fn pass_minutes(world: &mut World, minutes: usize) {
    for _ in 0..minutes * 20 {
        world.pass_ms(3_000);
        world.settle();
    }
}

fn kinds(world: &mut World, connection: ConnectionId) -> Vec<String> {
    std::iter::from_fn(|| world.take(connection))
        .map(|frame| frame.kind)
        .collect()
}

fn some_documents(world: &mut World) {
    for n in 1..=3 {
        let mut writer = Client::new("writer", document(n));
        writer.edit("one");
        writer.connect(world);
        // what is announced of the others is of no interest here
        world.settle();
        let connection = writer.connection.unwrap();
        while let Some(received) = world.take(connection) {
            if received.document == writer.id.to_string() {
                let message = received.sync_message();
                writer
                    .doc
                    .receive_sync_message(&mut writer.state, message)
                    .unwrap();
                writer.send(world);
            }
            world.settle();
        }
        world.pass_ms(300);
        world.settle();
        world.disconnect(connection);
        assert_eq!(world.store.heads(writer.id), writer.heads());
    }
    world.crash();
}

#[test]
fn who_is_gone_when_its_list_has_been_read_leaves_nothing_in_memory() {
    let mut world = World::new(announcing());
    some_documents(&mut world);
    // control: one that goes after the list was read
    let device = world.connect("device", Access::Write);
    world.settle();
    world.disconnect(device);
    pass_minutes(&mut world, 1);
    assert_eq!(world.engine.next_tick(), None, "control");
    // one that goes before
    let device = world.connect("device", Access::Write);
    assert_eq!(world.asked.len(), 1, "the list");
    world.disconnect(device);
    world.settle();
    pass_minutes(&mut world, 1);
    assert_eq!(world.engine.connections(), 0);
    assert_eq!(world.engine.next_tick(), None, "nothing is left in memory");
}

#[test]
fn for_who_is_gone_the_rest_of_the_list_is_not_read_nor_any_document() {
    let mut world = World::new(announcing());
    world.is_unloadable = true;
    for n in 0..2_500u32 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        id[15] = 1;
        let meta = DocumentMeta {
            heads: vec![engine::ChangeHash::from_bytes([1; 32])],
            next_chunk: 1,
            ..DocumentMeta::default()
        };
        let stored = world::memory_store::Document {
            meta,
            ..Default::default()
        };
        world
            .store
            .documents
            .insert(engine::DocumentId::from_bytes(id), stored);
    }
    let device = world.connect("device", Access::Write);
    world.disconnect(device);
    let mut reads = 0;
    while !world.asked.is_empty() {
        reads += world.asked.len();
        world.store_some(usize::MAX);
    }
    assert_eq!(reads, 1, "the list, as it had been asked for");
}

#[test]
fn who_was_to_be_told_once_a_document_is_read_is_told_although_that_failed_at_first() {
    let mut world = World::new(announcing());
    let mut writer = Client::new("writer", document(7));
    writer.edit("one");
    writer.connect(&mut world);
    talk(&mut world, std::slice::from_mut(&mut writer));
    world.pass_ms(300);
    talk(&mut world, std::slice::from_mut(&mut writer));
    // a device hears of the document, and does not ask for it
    let device = world.connect("device", Access::Write);
    world.settle();
    assert_eq!(kinds(&mut world, device), ["sync"]);
    world.input(Input::Congested { connection: device });
    write(&mut world, &mut writer, "two");
    writer.disconnect(&mut world);
    pass_minutes(&mut world, 2);
    assert_eq!(world.engine.graph_bytes(), 0, "let go");
    // somebody needs the graph, which cannot be read for a moment; in that moment the device has caught up
    let mut other = Client::new("other", document(7));
    other.edit("elsewhere");
    other.connection = Some(world.connect("other", Access::Write));
    store_all(&mut world);
    while world.take(other.connection.unwrap()).is_some() {}
    other.send(&mut world);
    assert!(matches!(world.asked.front(), Some((_, Request::Read(_)))));
    world.input(Input::Drained { connection: device });
    world.read_fault = Some(Fault::Failed);
    world.settle();
    world.read_fault = None;
    assert!(world.closed.contains_key(&other.connection.unwrap()));
    pass_minutes(&mut world, 10);
    let told: Vec<_> = std::iter::from_fn(|| world.take(device)).collect();
    assert_eq!(
        told.len(),
        1,
        "it hears of the second edit, ten minutes after the disk is well"
    );
    assert_eq!(told[0].sync_message().heads, writer.doc.get_heads());
}

fn push_whole(world: &mut World, writer: &Client) -> Client {
    let mut other = Client::new(&format!("other {}", writer.name), writer.id);
    other.doc = writer.doc.fork().with_actor(other.name.as_bytes().into());
    other.edit("elsewhere");
    let connection = world.connect(&other.name, Access::Write);
    other.connection = Some(connection);
    let message = message_of(&[other.doc.save()]);
    world.frame(
        connection,
        sync_frame("sync", &other.name, other.id, &message),
    );
    other
}

#[test]
fn a_graph_is_not_kept_for_who_may_not_send_again_what_the_disk_refused() {
    for (refused, revoked) in [(false, true), (true, false), (true, true)] {
        let mut world = World::new(settings());
        let [mut writer, reader] = in_step(&mut world);
        writer.edit("refused");
        writer.send(&mut world);
        world.fault = refused.then_some(Fault::Full);
        world.settle();
        world.fault = None;
        // before it is asked again, its session may only read
        let connection = writer.connection.unwrap();
        if revoked {
            world.input(Input::AccessChanged {
                connection,
                access: Some(Access::Read),
            });
        }
        pass_minutes(&mut world, 1);
        let mut clients = [writer, reader];
        talk(&mut world, &mut clients);
        pass_minutes(&mut world, 5);
        assert_eq!(
            world.engine.graph_bytes(),
            0,
            "it is idle; refused: {refused}, revoked: {revoked}"
        );
    }
}

/// A device that may only read has edits of its own, which nobody takes. One write of somebody else fails.
#[test]
fn a_graph_is_not_kept_for_who_may_only_read_and_has_edits_of_its_own() {
    for fails in [false, true] {
        let mut world = World::new(settings());
        let [writer, mut reader] = in_step(&mut world);
        reader.disconnect(&mut world);
        reader.connect_as(&mut world, Access::Read);
        reader.edit("its own");
        reader.send(&mut world);
        let mut clients = [writer, reader];
        talk(&mut world, &mut clients);
        clients[0].edit("three");
        clients[0].send(&mut world);
        assert_eq!(world.asked.len(), 1, "the edit");
        world.fault = fails.then_some(Fault::Full);
        world.settle();
        world.fault = None;
        world.pass_ms(60_000);
        talk(&mut world, &mut clients);
        assert_eq!(world.store.heads(document(7)), clients[0].heads());
        pass_minutes(&mut world, 5);
        assert_eq!(
            world.engine.graph_bytes(),
            0,
            "it is idle; a write has failed: {fails}"
        );
    }
}

const WISH: [u8; 10] = [0x42, 0, 0, 1, 0, 0, 0, 2, 2, 0x84];

/// A device that tells of a document's heads, and one that asks for that document and waits for what the first will bring.
struct Waiting {
    world: World,
    writer: Client,
    bringer: ConnectionId,
    asker: ConnectionId,
}

impl Waiting {
    fn new() -> Self {
        let mut world = World::new(settings());
        let mut writer = Client::new("writer", document(7));
        writer.edit("one");
        writer.edit("two");
        let [bringer, asker] = ["bringer", "asker"].map(|name| world.connect(name, Access::Write));
        // neither is new any more
        world.pass_ms(10_000);
        let message = writer.doc.generate_sync_message(&mut State::new()).unwrap();
        let heads = sync_frame("sync", "bringer", document(7), &message.encode());
        world.frame(bringer, heads);
        world.settle();
        world.frame(asker, sync_frame("request", "asker", document(7), &WISH));
        world.settle();
        assert_eq!(kinds(&mut world, asker), [""; 0], "it waits");
        Self {
            world,
            writer,
            bringer,
            asker,
        }
    }

    fn bring(&mut self, chunk: Vec<u8>) {
        let frame = sync_frame("sync", "bringer", document(7), &message_of(&[chunk]));
        self.world.frame(self.bringer, frame);
    }

    fn assert_told_that_there_is_none(&mut self, case: &str) {
        pass_minutes(&mut self.world, 5);
        let kinds = kinds(&mut self.world, self.asker);
        assert!(
            kinds.contains(&"doc-unavailable".to_owned()),
            "{case}: {kinds:?}"
        );
    }
}

#[test]
fn who_waits_for_a_document_hears_that_there_is_none_although_an_orphan_came_meanwhile() {
    for with_orphan in [false, true] {
        let mut it = Waiting::new();
        if with_orphan {
            let last = it.writer.doc.get_last_local_change().unwrap();
            let last = last.raw_bytes().to_vec();
            it.bring(last);
            it.world.settle();
        }
        it.world.disconnect(it.bringer);
        it.assert_told_that_there_is_none(&format!("with an orphan: {with_orphan}"));
    }
}

#[test]
fn who_waits_for_a_document_hears_that_there_is_none_although_its_time_came_while_a_snapshot_was_stored()
 {
    for time_comes_then in [false, true] {
        let mut it = Waiting::new();
        // a bundle, which the worker puts together with what is there, which is nothing
        let all = it.writer.doc.get_changes(&[]);
        let bundle = it.writer.doc.bundle(all.iter().map(|change| change.hash()));
        it.bring(bundle.unwrap().bytes().to_vec());
        it.world.store_some(usize::MAX);
        it.world.work_one();
        let Some((_, Request::Write(write))) = it.world.asked.front() else {
            panic!("{:?}", it.world.asked)
        };
        assert!(matches!(write.action, WriteAction::Replace { .. }));
        if time_comes_then {
            it.world.pass_ms(3_000);
        }
        it.world.fault = Some(Fault::Full);
        it.world.store_some(usize::MAX);
        it.world.fault = None;
        // it has been asked to send again, and does not
        it.assert_told_that_there_is_none(&format!("its time came then: {time_comes_then}"));
    }
}

#[test]
fn a_quarantine_that_is_owed_is_stored_although_the_document_is_to_be_announced_too() {
    for announcement in [false, true] {
        let mut world = World::new(announcing());
        let mut writer = Client::new("writer", document(7));
        writer.edit("one");
        writer.connect(&mut world);
        talk(&mut world, std::slice::from_mut(&mut writer));
        world.pass_ms(300);
        talk(&mut world, std::slice::from_mut(&mut writer));
        for n in 0..8 {
            write(&mut world, &mut writer, &n.to_string());
        }
        world.pass_ms(300);
        world.store_some(usize::MAX);
        let (ticket, _) = world.jobs.pop_front().unwrap();
        let outcome = WorkOutcome::Indigestible {
            reason: "it is too much".into(),
        };
        world.fault = Some(Fault::Full);
        world.input(Input::Worked { ticket, outcome });
        world.settle();
        writer.disconnect(&mut world);
        pass_minutes(&mut world, 2);
        assert_eq!(world.engine.graph_bytes(), 0);
        // a device whose socket is full is to be told of the document
        let device = world.connect("device", Access::Write);
        if announcement {
            world.input(Input::Congested { connection: device });
        }
        store_all(&mut world);
        // and what somebody needs of it cannot be read
        let mut other = Client::new("other", document(7));
        other.edit("elsewhere");
        other.connection = Some(world.connect("other", Access::Write));
        store_all(&mut world);
        while world.take(other.connection.unwrap()).is_some() {}
        other.send(&mut world);
        world.read_fault = Some(Fault::Failed);
        world.settle();
        world.read_fault = None;
        world.fault = None;
        pass_minutes(&mut world, 5);
        world.input(Input::Drained { connection: device });
        pass_minutes(&mut world, 5);
        let quarantine = world.store.documents[&document(7)].meta.quarantine.clone();
        assert_eq!(
            quarantine.as_deref(),
            Some("it is too much"),
            "announcement: {announcement}"
        );
    }
}

#[test]
fn who_has_left_a_document_is_not_sent_what_was_being_read_for_it_before() {
    for fails in [true, false] {
        let mut world = World::new(settings());
        let [mut writer, device] = in_step(&mut world);
        let connection = device.connection.unwrap();
        world.input(Input::Congested { connection });
        write_noise(&mut world, &mut writer, 4, 100_000);
        world.input(Input::Drained { connection });
        assert_eq!(world.asked.len(), 1, "its answer is being read");
        world.frame(
            connection,
            frame(&[("type", "leave"), ("senderId", "reader")], None),
        );
        // it has begun anew with an empty copy
        world.frame(
            connection,
            sync_frame("request", "reader", document(7), &WISH),
        );
        if fails {
            world.read_fault = Some(Fault::Failed);
            world.store_some(1);
            world.read_fault = None;
        }
        world.settle();
        let messages: Vec<_> = std::iter::from_fn(|| world.take(connection)).collect();
        let bytes: Vec<usize> = messages.iter().map(|m| m.data.len()).collect();
        assert!(
            world.closed.is_empty(),
            "it is not at fault, nor did anything fail that it waits for"
        );
        let large = bytes.iter().filter(|bytes| **bytes > 10_000).count();
        assert_eq!(large, 1, "one answer, which is everything: {bytes:?}");
    }
}

#[test]
fn a_quarantine_that_found_no_room_is_owed_although_a_whole_document_came_meanwhile() {
    for owed_before in [true, false] {
        let mut world = World::new(settings());
        let mut writer = Client::new("writer", document(7));
        writer.edit("one");
        writer.connect(&mut world);
        talk(&mut world, std::slice::from_mut(&mut writer));
        world.pass_ms(300);
        talk(&mut world, std::slice::from_mut(&mut writer));
        for n in 0..8 {
            write(&mut world, &mut writer, &n.to_string());
        }
        world.pass_ms(300);
        world.store_some(usize::MAX);
        let (ticket, _) = world.jobs.pop_front().unwrap();
        let too_much = || WorkOutcome::Indigestible {
            reason: "it is too much".into(),
        };
        world.fault = Some(Fault::Full);
        world.input(Input::Worked {
            ticket,
            outcome: too_much(),
        });
        if owed_before {
            world.settle();
            world.pass_ms(1_000);
        }
        assert_eq!(world.asked.len(), 1, "the quarantine");
        let other = push_whole(&mut world, &writer);
        world.store_some(1);
        world.fault = None;
        // the worker cannot put together what it cannot digest
        let mut asked_of_worker = 0;
        for _ in 0..200 {
            store_all(&mut world);
            while let Some((ticket, _)) = world.jobs.pop_front() {
                asked_of_worker += 1;
                world.input(Input::Worked {
                    ticket,
                    outcome: too_much(),
                });
            }
            world.pass_ms(3_000);
        }
        assert!(world.closed.contains_key(&other.connection.unwrap()));
        let quarantine = world.store.documents[&document(7)].meta.quarantine.clone();
        assert_eq!(
            (quarantine.as_deref(), asked_of_worker),
            (Some("it is too much"), 1),
            "owed before: {owed_before}"
        );
    }
}

#[test]
fn what_was_built_on_a_pushed_document_that_is_dropped_leaves_nothing_behind() {
    for waits in [false, true] {
        let mut world = World::new(settings());
        let mut pusher = Client::new("writer", document(7));
        (0..40).for_each(|n| pusher.edit(&n.to_string()));
        pusher.connect(&mut world);
        while !world.asked.is_empty() {
            world.store_some(usize::MAX);
            while pusher.receive_one(&mut world) {}
        }
        world.pass_ms(300);
        world.store_some(usize::MAX);
        let (ticket, _) = world.jobs.pop_front().unwrap();
        if waits {
            pusher.edit("built on it");
            pusher.send(&mut world);
            assert!(world.asked.is_empty(), "it waits for the worker");
        }
        let outcome = WorkOutcome::Invalid {
            reason: "it is none".into(),
        };
        world.input(Input::Worked { ticket, outcome });
        world.settle();
        assert!(world.closed.contains_key(&pusher.connection.unwrap()));
        let left = world.store.documents.get(&document(7));
        assert!(
            left.is_none(),
            "an edit has waited: {waits}: {:?}",
            left.map(|left| (&left.meta, left.orphans.len()))
        );
    }
}

#[test]
fn after_a_restart_too_no_more_is_read_for_a_peer_than_may_be() {
    const DOCUMENTS: u8 = 12;
    for restarted in [false, true] {
        let mut world = World::new(settings());
        let mut dice = Dice(1);
        let value = noise(&mut dice, 2 << 20);
        for n in 0..DOCUMENTS {
            let mut writer = Client::new("writer", document(n));
            writer.edit("new");
            writer.connect(&mut world);
            talk(&mut world, std::slice::from_mut(&mut writer));
            world.pass_ms(300);
            write(&mut world, &mut writer, &value);
        }
        world.pass_ms(400);
        world.settle();
        if restarted {
            world.crash();
        }
        let connection = world.connect("device", Access::Write);
        for n in 0..DOCUMENTS {
            world.frame(
                connection,
                sync_frame("request", "device", document(n), &WISH),
            );
        }
        let mut most = 0;
        while !world.asked.is_empty() {
            most = most.max(bytes_being_read(&world));
            world.store_some(usize::MAX);
        }
        assert!(
            (1..=READING_BYTES_MAX + (2 << 20)).contains(&most),
            "after a restart: {restarted}: {most} bytes are being read"
        );
        assert_eq!(world.sent[&connection].len(), usize::from(DOCUMENTS));
    }
}

fn bytes_being_read(world: &World) -> usize {
    let read = |(_, request): &(_, Request)| match request {
        Request::Read(read) if matches!(read.what, ReadWhat::Chunks { .. }) => {
            let stored = &world.store.documents[&read.document].chunks;
            stored.iter().map(|chunk| chunk.bytes.len()).sum()
        }
        Request::Read(_) | Request::Write(_) => 0,
    };
    world.asked.iter().map(read).sum()
}
