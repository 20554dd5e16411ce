//! What waits for the disk: how much of it there may be, to the byte, and what becomes of those who wait when the disk
//! cannot be read.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod world;

use std::sync::LazyLock;

use bytes::Bytes;
use engine::{
    Access, ConnectionId, Refusal,
    limits::{QUEUED_BYTES_MAX, QUEUED_MESSAGE_BYTES, UNSTORED_BYTES_MAX},
    storage::{Fault, ReadWhat},
};
use world::{
    Client, Forge, Request, World, document, in_step, message_of, settings, sync_frame, talk,
};

/// A message of this many bytes that says nothing, as what stands behind its flags is not looked at.
fn padded(bytes: usize) -> Bytes {
    let mut message = vec![0x42, 0, 0, 0, 0, 1, 2];
    message.resize(bytes, 0);
    sync_frame("sync", "peer", document(7), &message)
}

/// As long as a message is that counts for a quarter of what may wait for a document.
const QUARTER_BYTES: usize = QUEUED_BYTES_MAX / 4 - QUEUED_MESSAGE_BYTES;

static QUARTER: LazyLock<Bytes> = LazyLock::new(|| padded(QUARTER_BYTES));

/// As much, in a chunk that is none.
fn malformed_quarter() -> Bytes {
    let around_it = message_of(&[vec![0; QUARTER_BYTES]]).len() - QUARTER_BYTES;
    let message = message_of(&[vec![0; QUARTER_BYTES - around_it]]);
    assert_eq!(message.len(), QUARTER_BYTES);
    sync_frame("sync", "peer", document(7), &message)
}

/// The smallest message there is.
fn small() -> Bytes {
    sync_frame("sync", "peer", document(7), &[0x42, 0, 0, 0, 0])
}

fn connect(world: &mut World) -> ConnectionId {
    world.connect("peer", Access::Write)
}

fn send(world: &mut World, connection: ConnectionId, frame: &Bytes, times: usize) {
    for _ in 0..times {
        world.frame(connection, frame.clone());
    }
}

/// Whether so many quarters can wait beside what waits already, and not a byte more.
fn assert_room_for(world: &mut World, quarters: usize) {
    let [filler, unlucky] = [connect(world), connect(world)];
    send(world, filler, &QUARTER, quarters);
    assert_eq!(world.closed.get(&filler), None, "there is room for it");
    send(world, unlucky, &small(), 1);
    assert_eq!(
        world.closed.get(&unlucky),
        Some(&Refusal::TooMuchQueued),
        "there is no room for more"
    );
    // and what waited goes with who sent it
    world.disconnect(filler);
}

#[test]
fn so_many_bytes_of_messages_wait_for_a_document_and_those_of_who_is_gone_do_not_count() {
    let mut world = World::new(settings());
    let [first, second] = [connect(&mut world), connect(&mut world)];
    send(&mut world, first, &QUARTER, 1);
    send(&mut world, second, &QUARTER, 2);
    assert_room_for(&mut world, 1);
    world.disconnect(second);
    assert_room_for(&mut world, 3);
    assert!(!world.closed.contains_key(&first), "it has done nothing");
    assert_eq!(world.asked.len(), 1, "the read that all of them wait for");
}

#[test]
fn what_was_handled_or_refused_does_not_count_among_what_waits() {
    let mut world = World::new(settings());
    let [asker, breaker, pusher] = [(); 3].map(|()| connect(&mut world));
    let mut writer = Client::new("writer", document(7));
    (0..40).for_each(|n| writer.edit(&n.to_string()));
    let push = sync_frame(
        "sync",
        "peer",
        document(7),
        &message_of(&[writer.doc.save()]),
    );
    send(&mut world, asker, &QUARTER, 1);
    send(&mut world, breaker, &malformed_quarter(), 1);
    send(&mut world, pusher, &push, 1);
    send(&mut world, asker, &QUARTER, 1);
    world.store_some(1);
    // the breaker's message is so long that those behind it have a turn of their own
    world.pass_ms(1);
    assert_eq!(world.closed, [(breaker, Refusal::MalformedChange)].into());
    // the last one waits until what was pushed is on disk
    assert!(matches!(world.asked.front(), Some((_, Request::Write(_)))));
    assert_room_for(&mut world, 3);
}

#[test]
fn who_waits_for_a_document_that_cannot_be_read_is_sent_away_to_come_back() {
    let mut world = World::new(settings());
    let mut writer = Client::new("writer", document(7));
    writer.edit("one");
    writer.connect(&mut world);
    talk(&mut world, std::slice::from_mut(&mut writer));
    world.crash();
    let [first, second] = [connect(&mut world), connect(&mut world)];
    send(&mut world, first, &QUARTER, 2);
    send(&mut world, second, &small(), 1);
    world.read_fault = Some(Fault::Failed);
    world.settle();
    let refused = [first, second].map(|connection| (connection, Refusal::StorageUnavailable));
    assert_eq!(world.closed, refused.into());
    // nothing of it waits any more, and the disk is asked anew
    world.read_fault = None;
    let again = connect(&mut world);
    send(&mut world, again, &QUARTER, 1);
    assert_room_for(&mut world, 3);
    world.settle();
    let mut reader = Client::new("reader", document(7));
    reader.connect(&mut world);
    talk(&mut world, std::slice::from_mut(&mut reader));
    assert_eq!(reader.heads(), writer.heads());
}

#[test]
fn a_reader_whose_answer_cannot_be_read_is_sent_away_and_nobody_else() {
    let mut world = World::new(settings());
    let mut writer = in_memory(&mut world);
    let mut reader = Client::new("reader", document(7));
    reader.connect(&mut world);
    let everything = ReadWhat::Chunks {
        from: 0,
        until: u64::MAX,
    };
    assert_reads(&world, |what| *what == everything);
    world.read_fault = Some(Fault::Failed);
    world.settle();
    world.read_fault = None;
    let refused = (reader.connection.unwrap(), Refusal::StorageUnavailable);
    assert_eq!(world.closed, [refused].into());
    reader.receive_one(&mut world);
    reader.connect(&mut world);
    write(&mut world, &mut writer, "goes on");
    let mut clients = [writer, reader];
    talk(&mut world, &mut clients);
    assert_eq!(clients[0].heads(), clients[1].heads());
}

#[test]
fn a_peer_that_lags_behind_is_sent_away_when_what_it_lacks_cannot_be_read() {
    let mut world = World::new(settings());
    let mut writer = in_memory(&mut world);
    let mut reader = Client::new("reader", document(7));
    reader.connect(&mut world);
    let mut clients = [writer, reader];
    talk(&mut world, &mut clients);
    [writer, reader] = clients;
    let connection = reader.connection.unwrap();
    world.input(engine::Input::Congested { connection });
    // more than is kept in memory
    for n in 0..3 {
        write(&mut world, &mut writer, &n.to_string().repeat(100_000));
    }
    world.input(engine::Input::Drained { connection });
    assert_reads(&world, |what| {
        matches!(what, ReadWhat::Chunks { from: 1.., .. })
    });
    world.read_fault = Some(Fault::Failed);
    world.settle();
    world.read_fault = None;
    assert_eq!(
        world.closed,
        [(connection, Refusal::StorageUnavailable)].into()
    );
    reader.receive_one(&mut world);
    reader.connect(&mut world);
    let mut clients = [writer, reader];
    talk(&mut world, &mut clients);
    assert_eq!(clients[0].heads(), clients[1].heads());
}

/// A client whose document is on the server and in its memory.
fn in_memory(world: &mut World) -> Client {
    let mut writer = Client::new("writer", document(7));
    writer.edit("one");
    writer.connect(world);
    talk(world, std::slice::from_mut(&mut writer));
    // longer than an index waits for quiet
    world.pass_ms(300);
    world.settle();
    write(world, &mut writer, "two");
    writer
}

/// One edit, sent and stored.
fn write(world: &mut World, writer: &mut Client, value: &str) {
    writer.edit(value);
    writer.send(world);
    talk(world, std::slice::from_mut(writer));
}

/// One thing is asked of the disk, and it is to read this.
fn assert_reads(world: &World, is_this: impl Fn(&ReadWhat) -> bool) {
    let asked: Vec<_> = world.asked.iter().map(|(_, request)| request).collect();
    assert!(
        matches!(&*asked, [Request::Read(read)] if is_this(&read.what)),
        "{asked:?}"
    );
}

/// Half of what may be on its way to the disk.
const HALF: usize = UNSTORED_BYTES_MAX / 2;
/// A change of a few bytes.
const LITTLE: usize = 300;

/// A document of which nothing is stored, looked at already, and a connection that may write.
fn empty(world: &mut World) -> ConnectionId {
    world.is_unloadable = true;
    let connection = connect(world);
    send(world, connection, &small(), 1);
    world.settle();
    connection
}

fn send_change(world: &mut World, connection: ConnectionId, chunk: &[u8]) {
    let frame = sync_frame("sync", "peer", document(7), &message_of(&[chunk]));
    world.frame(connection, frame);
}

/// How many writes are on their way after each of these changes was sent.
fn on_the_way(world: &mut World, connection: ConnectionId, chunks: &[Vec<u8>]) -> Vec<usize> {
    let mut counts = vec![];
    for chunk in chunks {
        send_change(world, connection, chunk);
        counts.push(world.asked.len());
    }
    counts
}

#[test]
fn beyond_so_many_bytes_on_their_way_to_the_disk_changes_wait_until_some_are_there() {
    let mut world = World::new(settings());
    let connection = empty(&mut world);
    // with the last but one of each round there are exactly as many as there may be when the next one comes
    let mut forge = Forge::new(1);
    let changes = [
        HALF,
        HALF,
        LITTLE,
        LITTLE,
        HALF - 2 * LITTLE,
        LITTLE,
        LITTLE,
    ]
    .map(|bytes| forge.change(bytes));
    assert_eq!(
        on_the_way(&mut world, connection, &changes[..4]),
        [1, 2, 3, 3]
    );
    world.store_some(1);
    assert_eq!(world.asked.len(), 3, "what had waited is on its way");
    assert_eq!(on_the_way(&mut world, connection, &changes[4..]), [4, 5, 5]);
    world.settle();
    let stored = &world.store.documents[&document(7)];
    assert_eq!((stored.meta.changes, world.closed.len()), (7, 0));
}

#[test]
fn what_waits_for_the_disk_is_still_there_after_memory_was_looked_through_for_what_is_idle() {
    let mut world = World::new(settings());
    let connection = empty(&mut world);
    let mut forge = Forge::new(1);
    let changes = [HALF, HALF, LITTLE, LITTLE].map(|bytes| forge.change(bytes));
    assert_eq!(on_the_way(&mut world, connection, &changes), [1, 2, 3, 3]);
    world.pass_ms(60_000);
    world.settle();
    let stored = &world.store.documents[&document(7)];
    assert_eq!((stored.meta.changes, world.closed.len()), (4, 0));
}

#[test]
fn what_the_disk_refused_is_not_on_its_way_any_more() {
    let mut world = World::new(settings());
    let connection = empty(&mut world);
    let mut forge = Forge::new(1);
    let changes = [HALF, HALF, HALF, LITTLE, LITTLE].map(|bytes| forge.change(bytes));
    assert_eq!(on_the_way(&mut world, connection, &changes[..2]), [1, 2]);
    world.store_some(1);
    world.fault = Some(Fault::Full);
    world.store_some(1);
    world.fault = None;
    assert_eq!(
        on_the_way(&mut world, connection, &changes[1..]),
        [1, 2, 3, 3]
    );
    world.settle();
    let stored = &world.store.documents[&document(7)];
    assert_eq!((stored.meta.changes, world.closed.len()), (5, 0));
}

/// It did not say what its heads are, and so does not tell by them that it has what is missing.
#[test]
fn who_sent_what_the_disk_refused_is_asked_for_it_again() {
    let mut world = World::new(settings());
    let connection = empty(&mut world);
    let change = Forge::new(1).change(LITTLE);
    send_change(&mut world, connection, &change);
    world.fault = Some(Fault::Full);
    world.settle();
    world.fault = None;
    while world.take(connection).is_some() {}
    world.pass_ms(60_000);
    let told = world.take(connection).unwrap();
    assert_eq!(told.sync_message().heads, []);
    send_change(&mut world, connection, &change);
    world.settle();
    assert_eq!(world.store.documents[&document(7)].meta.changes, 1);
}

#[test]
fn who_asks_for_a_document_whose_first_changes_cannot_be_stored_hears_that_there_is_none() {
    let mut world = World::new(settings());
    let mut writer = Client::new("writer", document(7));
    writer.edit("one");
    writer.edit("two");
    writer.connection = Some(world.connect("writer", Access::Write));
    let reader = world.connect("reader", Access::Write);
    world.pass_ms(10_000);
    let changes: Vec<_> = writer
        .doc
        .get_changes(&[])
        .iter()
        .map(|c| c.raw_bytes().to_vec())
        .collect();
    world.frame(
        writer.connection.unwrap(),
        sync_frame("sync", "writer", document(7), &message_of(&changes)),
    );
    world.store_some(1); // the question whether there is any
    world.frame(
        reader,
        sync_frame(
            "request",
            "reader",
            document(7),
            &[0x42, 0, 0, 1, 0, 0, 0, 2, 2, 0x84],
        ),
    );
    world.fault = Some(Fault::Full);
    world.settle();
    for _ in 0..20 {
        world.pass_ms(1_000);
        world.settle();
    }
    let kinds: Vec<_> = std::iter::from_fn(|| world.take(reader))
        .map(|f| f.kind.clone())
        .collect();
    assert!(kinds.contains(&"doc-unavailable".to_owned()), "{kinds:?}");
}

/// automerge-repo 1 does not know the flag, and sends nothing again that it has sent unless we have nothing.
#[test]
fn who_does_not_know_the_flag_is_told_that_we_have_nothing_when_the_disk_has_refused_its_changes() {
    let mut world = World::new(settings());
    let [mut writer, _] = in_step(&mut world);
    let old = world.connect("old", Access::Write);
    writer.edit("refused");
    let change = writer
        .doc
        .get_last_local_change()
        .unwrap()
        .raw_bytes()
        .to_vec();
    let mut message = message_of(&[change]);
    message.extend([1, 2]);
    world.fault = Some(Fault::Full);
    world.frame(old, sync_frame("sync", "old", document(7), &message));
    world.settle();
    world.fault = None;
    while world.take(old).is_some() {}
    world.pass_ms(1_000);
    let asked = world.take(old).unwrap().sync_message();
    assert!(asked.heads.is_empty() && asked.need.is_empty(), "{asked:?}");
    assert!(asked.have[0].last_sync.is_empty());
}
