//! What a peer is sent, no more and no less, and whence. Clients end up the same even if they are sent too much, or are
//! told of heads and left to ask: that is why these tests look at the messages.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod world;

use automerge::sync::SyncDoc;
use engine::{Access, Announce, Input, Settings, storage::Fault};
use minicbor::Encoder;
use world::{Client, Dice, Received, World, document, frame, ours, settings, sync_frame, talk};

/// A writer and a reader of one document, in step, its graph in memory.
fn in_step(world: &mut World) -> [Client; 2] {
    let mut writer = Client::new("writer", document(7));
    writer.edit("one");
    writer.connect(world);
    let mut clients = [writer, Client::new("reader", document(7))];
    talk(world, &mut clients);
    clients[1].connect(world);
    talk(world, &mut clients);
    // longer than an index waits for quiet
    world.pass_ms(300);
    write(world, &mut clients[0], "two");
    talk(world, &mut clients);
    assert_eq!(clients[0].heads(), clients[1].heads());
    clients
}

/// One edit, sent and stored.
fn write(world: &mut World, writer: &mut Client, value: &str) {
    writer.edit(value);
    writer.send(world);
    talk(world, std::slice::from_mut(writer));
}

/// Three megabytes that do not deflate; more than one message brings, too.
fn write_more_than_is_kept_in_memory(world: &mut World, writer: &mut Client) {
    let mut dice = Dice(1);
    for _ in 0..30 {
        let value: String = (0..6_250)
            .map(|_| format!("{:016x}", dice.roll()))
            .collect();
        write(world, writer, &value);
    }
}

fn changes(received: &Received) -> Vec<u8> {
    let message = received.sync_message();
    message.changes.iter().flatten().copied().collect()
}

#[test]
fn a_reader_in_step_is_sent_the_new_change_alone_and_the_disk_is_not_asked() {
    let mut world = World::new(settings());
    let [mut writer, reader] = in_step(&mut world);
    writer.edit("three");
    writer.send(&mut world);
    // the write, and nothing behind it
    world.store_some(1);
    assert!(world.asked.is_empty());
    let connection = reader.connection.unwrap();
    let told = world.take(connection).unwrap();
    let new = writer.doc.get_changes(&reader.doc.get_heads());
    assert_eq!(changes(&told), new[0].raw_bytes());
    assert_eq!(told.sync_message().heads, writer.doc.get_heads());
    assert!(world.take(connection).is_none());
    let writers = world.take(writer.connection.unwrap()).unwrap();
    assert_eq!(
        changes(&writers),
        [],
        "its own change is acknowledged, not sent back"
    );
    assert_eq!(writers.sync_message().heads, writer.doc.get_heads());
}

#[test]
fn what_one_commit_stored_is_told_in_one_message() {
    let mut world = World::new(settings());
    let [mut writer, mut reader] = in_step(&mut world);
    for value in ["three", "four", "five"] {
        let heads = writer.doc.get_heads();
        writer.edit(value);
        let change = writer.doc.get_changes(&heads).remove(0);
        let length = u8::try_from(change.raw_bytes().len()).unwrap();
        let mut message = vec![0x42, 0, 0, 0, 1, length];
        message.extend(change.raw_bytes());
        let frame = sync_frame("sync", "writer", document(7), &message);
        world.frame(writer.connection.unwrap(), frame);
    }
    assert_eq!(world.asked.len(), 3);
    world.store_some(3);
    assert!(reader.receive_one(&mut world));
    assert_eq!(reader.heads(), writer.heads(), "one message is enough");
    world.settle();
    assert!(!reader.receive_one(&mut world));
}

#[test]
fn a_peer_that_lags_far_behind_is_told_of_each_piece_with_the_heads_that_it_leads_to() {
    let mut world = World::new(settings());
    let [mut writer, mut reader] = in_step(&mut world);
    let connection = reader.connection.unwrap();
    world.input(engine::Input::Congested { connection });
    write_more_than_is_kept_in_memory(&mut world, &mut writer);
    world.input(engine::Input::Drained { connection });
    let mut messages = 0;
    loop {
        world.settle();
        let Some(received) = world.take(connection) else {
            break;
        };
        let message = received.sync_message();
        assert!(changes(&received).len() <= 1 << 20);
        reader
            .doc
            .receive_sync_message(&mut reader.state, message.clone())
            .unwrap();
        assert_eq!(
            reader.doc.get_heads(),
            message.heads,
            "all that it is told of is there"
        );
        messages += 1;
    }
    assert_eq!(reader.heads(), writer.heads());
    assert!((2..=4).contains(&messages), "{messages}");
}

/// It would answer with changes that are not taken, and be asked again.
#[test]
fn who_may_only_read_is_asked_for_nothing_also_when_it_is_served_from_the_disk() {
    let mut world = World::new(settings());
    let [mut writer, mut reader] = in_step(&mut world);
    reader.disconnect(&mut world);
    reader.connect_as(&mut world, Access::Read);
    reader.edit("its own");
    reader.send(&mut world);
    talk(&mut world, std::slice::from_mut(&mut reader));
    let connection = reader.connection.unwrap();
    world.input(Input::Congested { connection });
    write_more_than_is_kept_in_memory(&mut world, &mut writer);
    world.input(Input::Drained { connection });
    let mut messages = 0;
    world.settle();
    while let Some(received) = world.take(connection) {
        let message = received.sync_message();
        assert_eq!(message.need, [], "message {messages}");
        assert!(!changes(&received).is_empty());
        messages += 1;
        world.settle();
    }
    assert!(messages > 1, "{messages}");
}

#[test]
fn what_is_not_known_to_us_is_not_a_fault_of_who_has_joined() {
    let mut world = World::new(settings());
    let connection = world.connect("alice", Access::Write);
    world.frame(connection, frame(&[("type", "from the future")], None));
    assert!(world.closed.is_empty());
}

#[test]
fn who_has_left_a_document_hears_nothing_more_of_it() {
    let mut world = World::new(settings());
    let [mut writer, reader] = in_step(&mut world);
    let connection = reader.connection.unwrap();
    world.frame(
        connection,
        frame(&[("type", "leave"), ("senderId", "reader")], None),
    );
    write(&mut world, &mut writer, "three");
    assert!(world.take(connection).is_none() && world.closed.is_empty());
}

/// Starts or ends to watch our storage.
fn watch(world: &mut World, client: &Client, key: &str) {
    let mut e = Encoder::new(Vec::new());
    e.map(3).unwrap();
    e.str("type")
        .unwrap()
        .str("remote-subscription-change")
        .unwrap();
    e.str("senderId").unwrap().str(&client.name).unwrap();
    e.str(key)
        .unwrap()
        .array(1)
        .unwrap()
        .str("storage")
        .unwrap();
    world.frame(client.connection.unwrap(), e.into_writer().into());
}

#[test]
fn who_watches_our_storage_no_more_hears_of_no_more_heads() {
    let mut world = World::new(settings());
    let [mut writer, reader] = in_step(&mut world);
    let connection = reader.connection.unwrap();
    watch(&mut world, &reader, "add");
    assert!(world.take(connection).unwrap().new_head.is_some());
    watch(&mut world, &reader, "remove");
    write(&mut world, &mut writer, "three");
    let heard: Vec<_> = std::iter::from_fn(|| world.take(connection)).collect();
    assert!(!heard.is_empty() && heard.iter().all(|frame| frame.new_head.is_none()));
}

#[test]
fn heads_are_written_as_the_clients_generation_reads_them() {
    // the flags of a message: of the first generation, and as bits
    for (flags, in_hex) in [(&[1, 2][..], true), (&[2, 2, 0x84], false)] {
        let mut world = World::new(settings());
        let [writer, _] = in_step(&mut world);
        let mut old = Client::new("old", document(7));
        old.connection = Some(world.connect("old", Access::Write));
        let message = [&[0x42, 0, 0, 0, 0][..], flags].concat();
        let frame = sync_frame("sync", "old", document(7), &message);
        world.frame(old.connection.unwrap(), frame);
        world.settle();
        let connection = old.connection.unwrap();
        while world.take(connection).is_some() {}
        watch(&mut world, &old, "add");
        let head = world.take(connection).unwrap().new_head.unwrap();
        let hash = ours(&writer.doc.get_heads()[0]);
        let expected = if in_hex {
            hash.as_bytes()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        } else {
            bs58::encode(hash.as_bytes()).with_check().into_string()
        };
        assert_eq!(head, expected);
    }
}

/// They stood in one queue with who edited it, until the index could be stored.
#[test]
fn a_pushed_document_whose_index_finds_no_room_is_served_while_an_edit_of_it_waits() {
    let mut world = World::new(settings());
    let mut writer = Client::new("writer", document(7));
    writer.edit("one");
    writer.connect(&mut world);
    talk(&mut world, std::slice::from_mut(&mut writer));
    world.fault = Some(Fault::Full);
    writer.edit("two");
    writer.send(&mut world);
    // one comes while the worker is at it, and one when the index could not be stored
    let mut readers = [
        Client::new("early", document(7)),
        Client::new("late", document(7)),
    ];
    readers[0].connect(&mut world);
    world.settle();
    assert_eq!(world.jobs_done, 1);
    readers[1].connect(&mut world);
    talk(&mut world, &mut readers);
    for reader in &readers {
        assert_eq!(reader.value().as_deref(), Some("one"), "{}", reader.name);
    }
    assert_eq!(world.jobs_done, 1);

    world.fault = None;
    world.pass_ms(5_000);
    let [early, late] = readers;
    let mut clients = [writer, early, late];
    talk(&mut world, &mut clients);
    assert_eq!(world.store.heads(document(7)), clients[0].heads());
    for client in &clients {
        assert_eq!(client.value().as_deref(), Some("two"), "{}", client.name);
    }
}

/// It had been told of the heads before it asked, so it was told of nothing once it had caught up, and never got the
/// document. Found by the simulator.
#[test]
fn who_asks_for_everything_while_it_lags_gets_it_once_it_has_caught_up() {
    let mut world = World::new(Settings {
        announce: Announce::All,
        ..settings()
    });
    let mut writer = Client::new("writer", document(7));
    writer.edit("one");
    writer.connect(&mut world);
    talk(&mut world, std::slice::from_mut(&mut writer));
    let mut reader = Client::new("reader", document(7));
    reader.connection = Some(world.connect("reader", Access::Write));
    world.settle();
    let connection = reader.connection.unwrap();
    world.input(Input::Congested { connection });
    // it hears of the document, and asks for it
    assert!(reader.receive_one(&mut world));
    world.settle();
    assert!(reader.heads().is_empty());
    world.input(Input::Drained { connection });
    talk(&mut world, std::slice::from_mut(&mut reader));
    assert_eq!(reader.heads(), writer.heads());
}
