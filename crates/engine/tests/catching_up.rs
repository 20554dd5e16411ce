//! What a peer is sent that takes less than there is for it: its socket is full, or much is being read for it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod world;

use std::collections::BTreeSet;

use automerge::sync::{ChunkList, Message, MessageFlags, MessageVersion, SyncDoc};
use engine::{
    Access, Compaction, ConnectionId, DocumentId, Effect, Input, Settings,
    limits::{FRAME_BYTES_MAX, READING_BYTES_MAX},
    storage::ReadWhat,
};
use world::{
    Client, Dice, Forge, Received, Request, World, document, in_step, message_of, noise, settings,
    sync_frame, talk, watch_frame, write, write_noise,
};

/// That a device has nothing, and wants everything; it reads whole documents.
const WISH: [u8; 10] = [0x42, 0, 0, 1, 0, 0, 0, 2, 2, 0x84];
/// Bytes of short frames for which a socket is closed.
const OUTBOX_BYTES_MAX: usize = FRAME_BYTES_MAX + (16 << 20);

fn store_all(world: &mut World) {
    while !world.asked.is_empty() {
        world.store_some(usize::MAX);
    }
}

#[test]
fn who_has_caught_up_while_the_graph_is_read_for_another_gets_the_document() {
    let mut world = World::new(settings());
    let [mut writer, mut lagging] = in_step(&mut world);
    lagging.disconnect(&mut world);
    write(&mut world, &mut writer, "three");
    writer.disconnect(&mut world);
    world.crash();
    writer.connect(&mut world);
    talk(&mut world, std::slice::from_mut(&mut writer));

    let mut slow = Client::new("slow", document(7));
    let connection = world.connect("slow", Access::Write);
    slow.connection = Some(connection);
    world.input(Input::Congested { connection });
    slow.send(&mut world);
    assert!(world.asked.is_empty(), "it is served once it has caught up");
    lagging.connect(&mut world);
    assert_eq!(world.asked.len(), 1, "the graph");
    world.input(Input::Drained { connection });

    let mut clients = [writer, lagging, slow];
    talk(&mut world, &mut clients);
    assert_eq!(clients[0].heads(), clients[1].heads());
    assert_eq!(clients[0].heads(), clients[2].heads());
}

#[test]
fn who_asks_for_many_documents_at_once_is_read_some_and_the_others_once_those_are_there() {
    const COUNT: u8 = 20;
    let mut world = World::new(settings());
    let mut dice = Dice(1);
    let value = noise(&mut dice, 2 << 20);
    // others have them open
    for n in 0..COUNT {
        let mut writer = Client::new("writer", document(n));
        writer.edit("new");
        writer.connect(&mut world);
        talk(&mut world, std::slice::from_mut(&mut writer));
        // longer than an index waits for quiet
        world.pass_ms(300);
        write(&mut world, &mut writer, &value);
    }
    // and longer than a snapshot does
    world.pass_ms(400);
    world.settle();
    let document_bytes = {
        let stored = &world.store.documents[&document(0)].chunks;
        stored.iter().map(|chunk| chunk.bytes.len()).sum::<usize>()
    };
    // a new device, which says what it wants before it takes anything
    let connection = world.connect("device", Access::Write);
    let mut devices: Vec<_> = (0..COUNT)
        .map(|n| Client::new("device", document(n)))
        .collect();
    for device in &mut devices {
        device.connection = Some(connection);
        device.send(&mut world);
    }
    let reads = world.asked.len();
    let most = READING_BYTES_MAX / document_bytes + 1;
    assert!((2..=most).contains(&reads), "{reads} of at most {most}");

    // and takes what comes when nothing more does; its socket is full meanwhile
    let (mut waiting_most, mut is_congested) = (0, false);
    while devices.iter().any(|device| device.heads().is_empty()) {
        world.store_some(1);
        // what has waited for a document has its turn
        world.pass_ms(0);
        let sent = world.sent.get(&connection).into_iter().flatten();
        let waiting: usize = sent.map(|received| received.data.len()).sum();
        waiting_most = waiting_most.max(waiting);
        if waiting > 256 << 10 && !is_congested {
            is_congested = true;
            world.input(Input::Congested { connection });
        }
        if !world.asked.is_empty() {
            continue;
        }
        for received in world.sent.remove(&connection).unwrap_or_default() {
            let of = |device: &&mut Client| device.id.to_string() == received.document;
            let device = devices.iter_mut().find(of).unwrap();
            let message = received.sync_message();
            device
                .doc
                .receive_sync_message(&mut device.state, message)
                .unwrap();
            device.send(&mut world);
        }
        is_congested = false;
        world.input(Input::Drained { connection });
    }
    assert!(waiting_most < READING_BYTES_MAX + 2 * document_bytes);
    for device in &devices {
        assert!(device.value().as_ref() == Some(&value), "{}", device.id);
    }
}

/// A change goes as a whole, however long it is.
#[test]
fn long_changes_that_a_lagging_peer_lacks_of_many_documents_are_read_a_few_at_a_time() {
    const COUNT: u8 = 8;
    let mut world = World::new(settings());
    let reader = world.connect("reader", Access::Write);
    let mut writers = vec![];
    for n in 0..COUNT {
        let mut writer = Client::new("writer", document(n));
        writer.edit("one");
        writer.connect(&mut world);
        talk(&mut world, std::slice::from_mut(&mut writer));
        // longer than an index waits for quiet
        world.pass_ms(300);
        world.settle();
        write(&mut world, &mut writer, "two");
        // that the reader has it, too
        let have = Message {
            heads: writer.doc.get_heads(),
            need: vec![],
            have: vec![],
            changes: ChunkList::empty(),
            flags: None,
            version: MessageVersion::V1,
        };
        let has = sync_frame("sync", "reader", document(n), &have.encode());
        world.frame(reader, has);
        world.settle();
        writers.push(writer);
    }
    world.input(Input::Congested { connection: reader });
    let mut dice = Dice(1);
    let value = noise(&mut dice, 2 << 20);
    for writer in &mut writers {
        write(&mut world, writer, &value);
    }
    let long = |n| {
        let stored = &world.store.documents[&document(n)].chunks;
        stored.last().unwrap().bytes.len()
    };
    let change_bytes = (0..COUNT).map(long).min().unwrap();
    assert!(change_bytes > 2 << 20, "{change_bytes}");
    world.input(Input::Drained { connection: reader });
    let parts = world.asked.iter().filter(|(_, request)| {
        let part = |what| matches!(what, ReadWhat::Chunks { from: 1.., .. });
        matches!(request, Request::Read(read) if part(read.what))
    });
    let (reads, parts) = (world.asked.len(), parts.count());
    assert_eq!(reads, parts, "they are served in parts");
    let most = READING_BYTES_MAX / change_bytes + 1;
    assert!((2..=most).contains(&reads), "{reads} of at most {most}");
    let mut sent = 0;
    while !world.asked.is_empty() {
        world.store_some(1);
        world.pass_ms(0);
        sent += world.sent.remove(&reader).into_iter().flatten().count();
    }
    assert!(sent >= usize::from(COUNT), "{sent} messages");
}

#[test]
fn a_refused_connection_is_sent_nothing_more() {
    let mut world = World::new(settings());
    world.is_unloadable = true;
    let writer = world.connect("writer", Access::Write);
    for n in 1..4u8 {
        let mut forge = Forge::new(n);
        let change = forge.change(9 << 20);
        world.frame(
            writer,
            sync_frame("sync", "writer", document(n), &message_of(&[change])),
        );
        store_all(&mut world);
    }
    let reader = world.connect("reader", Access::Write);
    for n in 1..4u8 {
        world.frame(reader, sync_frame("request", "reader", document(n), &WISH));
    }
    let mut effects = vec![];
    world.engine.handle(
        world.now_ms,
        Input::AccessChanged {
            connection: reader,
            access: None,
        },
        &mut effects,
    );
    let at = effects
        .iter()
        .position(|e| matches!(e, Effect::Close { .. }))
        .unwrap();
    let after: Vec<_> = effects[at..]
        .iter()
        .filter(|e| matches!(e, Effect::Send { .. } | Effect::Read { .. }))
        .collect();
    assert!(after.is_empty());
}

#[test]
fn a_peer_that_has_drained_is_not_sent_more_than_its_outbox_takes() {
    let mut world = World::new(settings());
    world.is_unloadable = true;
    let writer = world.connect("writer", Access::Write);
    let reader = world.connect("reader", Access::Write);
    let mut forges: Vec<_> = (0..900u32)
        .map(|n| (n, Forge::new((n % 250) as u8)))
        .collect();
    let id = |n: u32| {
        let mut b = [9u8; 16];
        b[..4].copy_from_slice(&n.to_be_bytes());
        DocumentId::from_bytes(b)
    };
    for (n, forge) in &mut forges {
        let first = forge.change(200);
        world.frame(
            writer,
            sync_frame(
                "sync",
                "writer",
                id(*n),
                &message_of(std::slice::from_ref(&first)),
            ),
        );
        world.store_some(usize::MAX);
        world.store_some(usize::MAX);
        world.frame(reader, sync_frame("request", "reader", id(*n), &WISH));
        store_all(&mut world);
    }
    while world.take(reader).is_some() {}
    world.input(Input::Congested { connection: reader });
    for (n, forge) in &mut forges {
        let next = forge.change(100 << 10);
        world.frame(
            writer,
            sync_frame("sync", "writer", id(*n), &message_of(&[next])),
        );
        store_all(&mut world);
    }
    world.input(Input::Drained { connection: reader });
    let bytes: usize = std::iter::from_fn(|| world.take(reader))
        .map(|f| f.data.len())
        .sum();
    assert!(bytes <= OUTBOX_BYTES_MAX, "{bytes}");
}

/// Its session may only read, and write again, before it could be told of either: what it lacks is being read.
#[test]
fn a_session_that_may_write_again_before_its_device_was_told_that_it_may_not_is_asked_for_what_it_kept()
 {
    let mut world = World::new(Settings {
        compaction: Compaction {
            floor_bytes: 1 << 30,
            ..settings().compaction
        },
        ..settings()
    });
    let [mut writer, mut reader] = in_step(&mut world);
    let connection = reader.connection.unwrap();
    world.input(Input::Congested { connection });
    write_noise(&mut world, &mut writer, 4, 144_000);
    world.input(Input::Drained { connection });
    assert_eq!(world.asked.len(), 1, "more than is kept in memory");
    for access in [Access::Read, Access::Write] {
        let access = Some(access);
        world.input(Input::AccessChanged { connection, access });
        reader.edit("kept");
        reader.send(&mut world);
    }
    let mut clients = [writer, reader];
    talk(&mut world, &mut clients);
    assert_eq!(world.store.heads(document(7)), clients[1].heads());
}

/// That its session may only read, or write again, and what is stored. To tell a device of all in one turn would keep all
/// others waiting, and fill its outbox.
#[test]
fn what_is_said_of_many_documents_at_once_is_said_in_portions() {
    const DOCUMENTS: usize = 3_000;
    let mut world = World::new(settings());
    world.is_unloadable = true;
    let name = "n".repeat(500);
    // what a frame takes beyond the name is not counted here
    let portion = (1 << 20) / name.len();
    let device = world.connect(&name, Access::Write);
    let change = Forge::new(1).change(200);
    for n in 0..DOCUMENTS {
        let id = DocumentId::from_bytes((n as u128).to_be_bytes());
        let message = message_of(&[&change]);
        world.frame(device, sync_frame("sync", &name, id, &message));
        store_all(&mut world);
    }
    while world.take(device).is_some() {}

    for access in [Access::Read, Access::Write] {
        world.input(Input::AccessChanged {
            connection: device,
            access: Some(access),
        });
        takes_in_portions(&mut world, device, portion, DOCUMENTS, |frame| {
            let flags = frame.sync_message().flags.unwrap();
            let may_write = access == Access::Write;
            assert_ne!(flags.contains(MessageFlags::READ_ONLY), may_write);
        });
    }
    let watch = watch_frame(&name, "add", &["storage"]);
    world.frame(device, watch);
    takes_in_portions(&mut world, device, portion, DOCUMENTS, |frame| {
        assert_eq!(frame.kind, "remote-heads-changed");
    });
}

/// Takes a frame for each of so many documents, at most a portion at a time.
fn takes_in_portions(
    world: &mut World,
    connection: ConnectionId,
    portion: usize,
    documents: usize,
    look: impl Fn(&Received),
) {
    let mut told = BTreeSet::new();
    while told.len() < documents {
        let before = told.len();
        while let Some(frame) = world.take(connection) {
            look(&frame);
            assert!(told.insert(frame.document), "once each");
        }
        let new = told.len() - before;
        assert!((1..=portion).contains(&new), "{new}");
        world.input(Input::Congested { connection });
        world.input(Input::Drained { connection });
    }
    assert!(world.take(connection).is_none());
}

#[test]
fn who_lags_behind_in_many_documents_is_brought_what_it_lacks_of_all_of_them() {
    const DOCUMENTS: u8 = 12;
    let mut world = World::new(settings());
    world.is_unloadable = true;
    let [writer, reader] = ["writer", "reader"].map(|name| world.connect(name, Access::Write));
    let mut forges: Vec<_> = (1..=DOCUMENTS).map(Forge::new).collect();
    let store = |world: &mut World| {
        while !world.asked.is_empty() {
            world.store_some(usize::MAX);
        }
    };
    let mut write = |world: &mut World, n: u8, bytes| {
        let change = forges[usize::from(n) - 1].change(bytes);
        let message = message_of(&[change]);
        world.frame(writer, sync_frame("sync", "writer", document(n), &message));
        store(world);
    };
    for n in 1..=DOCUMENTS {
        write(&mut world, n, 200);
        world.frame(reader, sync_frame("request", "reader", document(n), &WISH));
        store(&mut world);
    }
    while world.take(reader).is_some() {}
    world.input(Input::Congested { connection: reader });
    for n in 1..=DOCUMENTS {
        write(&mut world, n, 900 << 10);
    }
    world.input(Input::Drained { connection: reader });
    store(&mut world);
    let brought =
        std::iter::from_fn(|| world.take(reader)).filter(|frame| frame.data.len() > 900 << 10);
    assert_eq!(brought.count(), usize::from(DOCUMENTS));
}
