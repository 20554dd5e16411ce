//! What a peer is sent, no more and no less, and whence. Clients end up the same even if they are sent too much, or are
//! told of heads and left to ask: that is why these tests look at the messages.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod world;

use automerge::{
    Automerge,
    sync::{State, SyncDoc},
};
use bytes::Bytes;
use engine::{Access, Announce, ChangeHash, Input, Settings, storage::Fault};
use world::{
    Client, Received, World, document, frame, in_step, message_of, ours, remote_heads_frame,
    settings, sync_frame, talk, watch_frame, write, write_noise,
};

/// Three megabytes that do not deflate; more than one message brings, too.
fn write_more_than_is_kept_in_memory(world: &mut World, writer: &mut Client) {
    write_noise(world, writer, 30, 100_000);
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
fn what_was_sent_is_not_sent_again_with_what_follows() {
    let mut world = World::new(settings());
    let [mut writer, reader] = in_step(&mut world);
    let connection = reader.connection.unwrap();
    for value in ["three", "four", "five"] {
        write(&mut world, &mut writer, value);
        let told = world.take(connection).unwrap();
        let new = writer.doc.get_last_local_change().unwrap();
        assert_eq!(changes(&told), new.raw_bytes());
        assert!(world.take(connection).is_none());
    }
}

#[test]
fn who_tells_of_heads_that_we_have_not_is_asked_for_them() {
    let mut world = World::new(settings());
    let [_, reader] = in_step(&mut world);
    let connection = reader.connection.unwrap();
    let unknown = ChangeHash::from_bytes([9; 32]);
    world.frame(connection, need(&[unknown], &[]));
    let asked = world.take(connection).unwrap().sync_message().need;
    assert_eq!(asked.iter().map(ours).collect::<Vec<_>>(), [unknown]);
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
    let frame = watch_frame(&client.name, key, &["storage"]);
    world.frame(client.connection.unwrap(), frame);
}

#[test]
fn who_watches_our_storage_no_more_hears_of_no_more_heads() {
    let mut world = World::new(settings());
    let [mut writer, reader] = in_step(&mut world);
    let connection = reader.connection.unwrap();
    watch(&mut world, &reader, "add");
    assert!(world.take(connection).unwrap().new_heads.len() == 1);
    watch(&mut world, &reader, "remove");
    write(&mut world, &mut writer, "three");
    let heard: Vec<_> = std::iter::from_fn(|| world.take(connection)).collect();
    assert!(!heard.is_empty() && heard.iter().all(|frame| frame.new_heads.is_empty()));
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
        let head = world.take(connection).unwrap().new_heads.remove(0);
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

/// The server was put back to an older copy: the client remembers to have shared more with it than there is.
#[test]
fn a_client_that_remembers_more_than_there_is_is_asked_to_begin_anew_and_brings_it_back() {
    let mut world = World::new(settings());
    let [mut writer, _] = in_step(&mut world);
    let older = world.store.clone();
    write(&mut world, &mut writer, "three");
    write(&mut world, &mut writer, "four");
    world.crash();
    world.store = older;
    writer.edit("five");
    writer.connect(&mut world);
    world.settle();
    let told = world.take(writer.connection.unwrap()).unwrap();
    let message = told.sync_message();
    let stored: Vec<_> = world.store.heads(document(7));
    assert_eq!(message.heads.iter().map(ours).collect::<Vec<_>>(), stored);
    assert!(message.need.is_empty() && changes(&told).is_empty());
    let [have] = message.have.as_slice() else {
        panic!("{message:?}")
    };
    assert!(have.last_sync.is_empty(), "we know of no sync with it");
    assert!(world.take(writer.connection.unwrap()).is_none());
    writer
        .doc
        .receive_sync_message(&mut writer.state, message)
        .unwrap();
    writer.send(&mut world);
    talk(&mut world, std::slice::from_mut(&mut writer));
    assert_eq!(world.store.heads(document(7)), writer.heads());
}

/// What it was sent it could make nothing of, as its filter had held back what that depends on.
#[test]
fn who_asks_to_begin_anew_is_sent_everything_once_for_the_same_heads() {
    let mut world = World::new(settings());
    let [mut writer, reader] = in_step(&mut world);
    let connection = reader.connection.unwrap();
    let is_sent_everything = |world: &mut World, heads: &[ChangeHash]| {
        world.frame(connection, begin_anew(heads));
        world.settle();
        let sent: Vec<_> = std::iter::from_fn(|| world.take(connection)).collect();
        let mut fresh = Automerge::new();
        for received in &sent {
            fresh.load_incremental(&changes(received)).unwrap();
        }
        !fresh.is_empty()
            && fresh
                .get_heads()
                .iter()
                .map(ours)
                .eq(world.store.heads(document(7)))
    };
    let heads = reader.heads();
    write(&mut world, &mut writer, "three");
    while world.take(connection).is_some() {}
    assert!(is_sent_everything(&mut world, &heads));
    assert!(
        !is_sent_everything(&mut world, &heads),
        "it would ask for ever"
    );
    write(&mut world, &mut writer, "four");
    while world.take(connection).is_some() {}
    assert!(is_sent_everything(&mut world, &heads), "there is more now");
}

/// Heads, nothing else, and that nothing is known of a sync.
fn begin_anew(heads: &[ChangeHash]) -> Bytes {
    let mut message = vec![0x42, u8::try_from(heads.len()).unwrap()];
    message.extend(heads.iter().flat_map(|head| *head.as_bytes()));
    message.extend([0, 1, 0, 0, 0, 2, 2, 0x84]);
    sync_frame("sync", "reader", document(7), &message)
}

/// A message that needs these changes, from somebody with the heads that it was last told of.
fn need(heads: &[ChangeHash], needed: &[ChangeHash]) -> Bytes {
    let mut message = vec![0x42];
    for hashes in [heads, needed] {
        message.push(u8::try_from(hashes.len()).unwrap());
        message.extend(hashes.iter().flat_map(|hash| *hash.as_bytes()));
    }
    message.extend([0, 0, 2, 2, 0x84]);
    sync_frame("sync", "reader", document(7), &message)
}

/// The changes of a document, in their order.
fn chunks_of(doc: &Automerge) -> Vec<(ChangeHash, Vec<u8>)> {
    let changes = doc.get_changes(&[]);
    let chunk = |change: &automerge::Change| (ours(&change.hash()), change.raw_bytes().to_vec());
    changes.iter().map(chunk).collect()
}

#[test]
fn what_a_lagging_peer_asks_for_it_is_sent_once_it_has_caught_up_each_change_once() {
    let mut world = World::new(settings());
    let [mut writer, reader] = in_step(&mut world);
    for value in ["three", "four", "five"] {
        write(&mut world, &mut writer, value);
    }
    let connection = reader.connection.unwrap();
    while world.take(connection).is_some() {}
    world.input(Input::Congested { connection });
    write(&mut world, &mut writer, "six");
    let all = chunks_of(&writer.doc);
    // the last four: three to six; of those it asks for the second, twice, and for the third
    let [.., three, four, five, six] = all.as_slice() else {
        panic!("{all:?}")
    };
    world.frame(connection, need(&[three.0], &[four.0]));
    world.frame(connection, need(&[three.0], &[five.0, four.0]));
    world.settle();
    assert!(world.take(connection).is_none(), "it does not keep pace");
    world.input(Input::Drained { connection });
    world.settle();
    let told = world.take(connection).unwrap();
    let owed = [&four.1, &five.1, &six.1].map(Vec::as_slice).concat();
    assert_eq!(changes(&told), owed);
    assert!(world.take(connection).is_none());
    // and nothing is owed any more
    world.frame(connection, need(&[three.0], &[four.0]));
    assert_eq!(changes(&world.take(connection).unwrap()), four.1);
}

#[test]
fn who_is_served_from_the_disk_is_sent_what_it_asks_for_meanwhile_behind_that() {
    let mut world = World::new(settings());
    let [mut writer, reader] = in_step(&mut world);
    let connection = reader.connection.unwrap();
    write(&mut world, &mut writer, "small");
    while world.take(connection).is_some() {}
    world.input(Input::Congested { connection });
    // more than is kept in memory
    for value in ["x", "y"] {
        write(&mut world, &mut writer, &value.repeat(100_000));
    }
    world.input(Input::Drained { connection });
    assert_eq!(world.asked.len(), 1, "it is being read");
    let all = chunks_of(&writer.doc);
    let [.., small, x, y] = all.as_slice() else {
        panic!("{all:?}")
    };
    world.frame(connection, need(&[small.0], &[small.0]));
    assert!(world.take(connection).is_none());
    world.settle();
    let first = world.take(connection).unwrap();
    assert_eq!(changes(&first).len(), x.1.len() + y.1.len());
    world.settle();
    let second = world.take(connection).unwrap();
    assert_eq!(changes(&second), small.1);
    assert!(world.take(connection).is_none());
}

/// Who does not say that it reads the second version gets each piece as an entry of its own.
#[test]
fn changes_that_lie_side_by_side_are_sent_in_one_piece_and_others_apart() {
    let mut world = World::new(settings());
    let [mut writer, reader] = in_step(&mut world);
    let heads = writer.doc.get_heads();
    // three that one message brought lie in one chunk; the fourth lies in the next
    for value in ["three", "four", "five"] {
        writer.edit(value);
    }
    let three: Vec<_> = writer
        .doc
        .get_changes(&heads)
        .iter()
        .map(|change| change.raw_bytes().to_vec())
        .collect();
    writer.edit("six");
    let six = chunks_of(&writer.doc).pop().unwrap().1;
    for message in [message_of(&three), message_of(&[&six])] {
        let frame = sync_frame("sync", "writer", document(7), &message);
        world.frame(writer.connection.unwrap(), frame);
        world.settle();
    }
    let old = world.connect("reader", Access::Write);
    let ask = |world: &mut World, needed: &[usize]| {
        let all = chunks_of(&writer.doc);
        let needed: Vec<_> = needed.iter().map(|n| all[all.len() - 4 + n].0).collect();
        let mut message = vec![0x42, 1];
        message.extend(reader.heads()[0].as_bytes());
        message.push(u8::try_from(needed.len()).unwrap());
        needed
            .iter()
            .for_each(|hash| message.extend(hash.as_bytes()));
        message.extend([0, 0]);
        world.frame(old, sync_frame("sync", "reader", document(7), &message));
        world.settle();
        let sent = world.take(old).unwrap().sync_message();
        sent.changes.iter().map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    assert_eq!(ask(&mut world, &[0, 1, 2, 3]), [three.concat(), six]);
    assert_eq!(ask(&mut world, &[0, 2]), [&*three[0], &*three[2]]);
    assert_eq!(ask(&mut world, &[1, 2]), [three[1..].concat()]);
}

/// A peer's change was refused by the disk, and its place taken by another's, which is not its own.
#[test]
fn whose_change_could_not_be_stored_is_sent_what_has_taken_its_place() {
    let mut world = World::new(settings());
    let [mut writer, mut other] = in_step(&mut world);
    writer.edit("refused");
    writer.send(&mut world);
    world.fault = Some(Fault::Full);
    world.settle();
    world.fault = None;
    let connection = writer.connection.unwrap();
    while world.take(connection).is_some() {}
    other.edit("stored");
    other.send(&mut world);
    world.settle();
    let stored = other.doc.get_last_local_change().unwrap();
    let told = world.take(connection).unwrap();
    assert_eq!(changes(&told), stored.raw_bytes());
    writer
        .doc
        .receive_sync_message(&mut writer.state, told.sync_message())
        .unwrap();
    writer.send(&mut world);
    world.pass_ms(60_000);
    let mut clients = [writer, other];
    talk(&mut world, &mut clients);
    assert_eq!(clients[0].heads(), clients[1].heads());
    assert_eq!(world.store.heads(document(7)), clients[0].heads());
}

#[test]
fn heads_are_written_as_the_client_writes_them_once_it_has() {
    for in_hex in [true, false] {
        let mut world = World::new(settings());
        let [writer, reader] = in_step(&mut world);
        let connection = reader.connection.unwrap();
        let head = writer.heads()[0];
        let text = if in_hex {
            head.to_string()
        } else {
            bs58::encode(head.as_bytes()).with_check().into_string()
        };
        // that it writes nothing says nothing
        for heads in [&[text.as_str()][..], &[]] {
            world.frame(connection, remote_heads_frame("reader", heads));
        }
        watch(&mut world, &reader, "add");
        assert_eq!(world.take(connection).unwrap().new_heads, [text]);
    }
}

/// What the reader says of the heads in its storage.
#[test]
fn a_reader_is_served_although_one_who_waited_with_it_is_gone() {
    let mut world = World::new(settings());
    let [writer, _] = in_step(&mut world);
    let mut readers = ["first", "second", "third"].map(|name| Client::new(name, document(7)));
    for reader in &mut readers {
        reader.connect(&mut world);
    }
    assert_eq!(world.asked.len(), 1, "one read for all of them");
    readers[1].disconnect(&mut world);
    talk(&mut world, &mut readers);
    let heads = readers.map(|reader| reader.heads());
    assert_eq!(heads, [writer.heads(), vec![], writer.heads()]);
}

#[test]
fn who_comes_back_is_sent_what_it_has_missed_and_no_more() {
    for in_memory in [true, false] {
        let mut world = World::new(settings());
        let [mut writer, mut reader] = in_step(&mut world);
        reader.disconnect(&mut world);
        write(&mut world, &mut writer, "three");
        if !in_memory {
            world.pass_ms(60_000);
            world.settle();
        }
        assert_eq!(world.engine.graph_bytes() > 0, in_memory);
        reader.connect(&mut world);
        world.settle();
        let told = world.take(reader.connection.unwrap()).unwrap();
        let new = writer.doc.get_last_local_change().unwrap();
        assert_eq!(changes(&told), new.raw_bytes(), "in memory: {in_memory}");
        assert!(world.take(reader.connection.unwrap()).is_none());
    }
}

#[test]
fn who_is_in_step_with_a_document_out_of_memory_is_answered_without_the_disk() {
    let mut world = World::new(settings());
    let [mut writer, mut reader] = in_step(&mut world);
    write(&mut world, &mut writer, "three");
    let mut clients = [writer, reader];
    talk(&mut world, &mut clients);
    [writer, reader] = clients;
    reader.disconnect(&mut world);
    world.pass_ms(60_000);
    assert_eq!(world.engine.graph_bytes(), 0);
    reader.connect(&mut world);
    assert!(world.asked.is_empty(), "its heads are known");
    let told = world.take(reader.connection.unwrap()).unwrap();
    assert_eq!(told.sync_message().heads, writer.doc.get_heads());
    assert_eq!(changes(&told), []);
}

#[test]
fn who_has_left_a_document_is_not_told_of_it_as_of_a_new_one() {
    let mut world = World::new(Settings {
        announce: Announce::All,
        ..settings()
    });
    let [mut writer, reader] = in_step(&mut world);
    let connection = reader.connection.unwrap();
    world.frame(
        connection,
        frame(&[("type", "leave"), ("senderId", "reader")], None),
    );
    write(&mut world, &mut writer, "three");
    assert!(world.take(connection).is_none());
}

#[test]
fn a_whole_document_and_a_change_behind_it_in_one_message_are_both_taken() {
    let mut world = World::new(settings());
    let mut writer = Client::new("writer", document(7));
    writer.edit("one");
    let whole = writer.doc.save();
    writer.edit("two");
    let change = writer.doc.get_last_local_change().unwrap();
    let message = message_of(&[whole.as_slice(), change.raw_bytes()]);
    let connection = world.connect("writer", Access::Write);
    let frame = sync_frame("sync", "writer", document(7), &message);
    world.frame(connection, frame);
    world.settle();
    assert_eq!(world.store.heads(document(7)), writer.heads());
    let told: Vec<_> = std::iter::from_fn(|| world.take(connection)).collect();
    let last = told.last().unwrap().sync_message();
    assert_eq!(last.heads, writer.doc.get_heads(), "and acknowledged");
}

/// They left a snapshot of nothing, onto which a document that is not what it says could be pushed: its heads stayed, and
/// everybody asked for them in vain. Fuzzing found this.
#[test]
fn whole_documents_without_a_change_in_them_leave_nothing_behind() {
    let mut world = World::new(settings());
    let nothing = Automerge::new().save();
    let connection = world.connect("writer", Access::Write);
    let message = message_of(&[nothing.as_slice(), &nothing]);
    world.frame(
        connection,
        sync_frame("sync", "writer", document(7), &message),
    );
    world.settle();
    assert!(world.store.documents.is_empty(), "nothing is stored");
    // and the document can still be made
    let mut writer = Client::new("writer", document(7));
    writer.edit("one");
    writer.connect(&mut world);
    talk(&mut world, std::slice::from_mut(&mut writer));
    assert_eq!(world.store.heads(document(7)), writer.heads());
}

#[test]
fn what_is_asked_for_and_longer_than_a_message_comes_in_several() {
    let mut world = World::new(settings());
    let [mut writer, reader] = in_step(&mut world);
    let before = writer.doc.get_heads();
    write_more_than_is_kept_in_memory(&mut world, &mut writer);
    let connection = reader.connection.unwrap();
    let heads = writer.heads();
    // in step again, and asks once more for what it was sent
    world.frame(connection, need(&heads, &[]));
    world.settle();
    while world.take(connection).is_some() {}
    let new = writer.doc.get_changes(&before);
    let needed: Vec<_> = new.iter().map(|change| ours(&change.hash())).collect();
    world.frame(connection, need(&heads, &needed));
    world.settle();
    let sent: Vec<_> = std::iter::from_fn(|| world.take(connection)).collect();
    let lengths: Vec<_> = sent
        .iter()
        .map(|received| changes(received).len())
        .collect();
    assert!(lengths.iter().all(|bytes| *bytes <= 1 << 20), "{lengths:?}");
    let all: Vec<_> = new
        .iter()
        .flat_map(|change| change.raw_bytes().to_vec())
        .collect();
    assert!(
        sent.iter().flat_map(changes).eq(all),
        "each once, in their order"
    );
}

#[test]
fn what_a_snapshot_has_taken_in_is_not_looked_for_where_it_was() {
    let mut world = World::new(settings());
    let [mut writer, reader] = in_step(&mut world);
    let connection = reader.connection.unwrap();
    for n in 0..8 {
        write(&mut world, &mut writer, &n.to_string());
    }
    let last = chunks_of(&writer.doc).pop().unwrap().0;
    let heads = writer.heads();
    world.frame(connection, need(&heads, &[]));
    world.pass_ms(300);
    world.settle();
    assert_eq!(world.store.documents[&document(7)].chunks.len(), 1);
    while world.take(connection).is_some() {}
    world.frame(connection, need(&heads, &[last]));
    // it has only the snapshot to be had from, as a whole
    assert_eq!(world.asked.len(), 1);
    world.settle();
    let told = world.take(connection).unwrap();
    assert_eq!(
        changes(&told),
        world.store.documents[&document(7)].chunks[0].bytes
    );
}

#[test]
fn who_watches_our_storage_before_it_opens_a_document_hears_of_its_heads_once_they_are_read() {
    let mut world = World::new(settings());
    let [writer, _] = in_step(&mut world);
    world.crash();
    let mut reader = Client::new("reader", document(7));
    reader.doc = writer.doc.clone();
    reader.state = State::decode(&writer.state.encode()).unwrap();
    reader.connection = Some(world.connect("reader", Access::Write));
    watch(&mut world, &reader, "add");
    reader.send(&mut world);
    world.settle();
    let connection = reader.connection.unwrap();
    let told: Vec<_> = std::iter::from_fn(|| world.take(connection)).collect();
    assert!(
        told.iter()
            .any(|frame| frame.kind == "remote-heads-changed"),
        "{told:?}"
    );
}

#[test]
fn who_has_lost_its_copy_and_asks_on_the_same_connection_is_sent_everything() {
    let mut world = World::new(settings());
    let [writer, mut reader] = in_step(&mut world);
    reader.doc = Automerge::new();
    reader.state = State::new();
    reader.send(&mut world);
    world.settle();
    let received = world.take(reader.connection.unwrap()).unwrap();
    for bytes in received.sync_message().changes.iter() {
        reader.doc.load_incremental(bytes).unwrap();
    }
    assert_eq!(reader.heads(), writer.heads(), "with the first answer");
}

/// A whole document that could not be absorbed for want of room leaves everybody as they were.
#[test]
fn after_an_absorption_that_found_no_room_readers_are_sent_new_changes_alone() {
    let mut world = World::new(settings());
    let [mut writer, mut reader] = in_step(&mut world);
    for n in 0..3 {
        write(&mut world, &mut writer, &format!("w{n}"));
    }
    talk(&mut world, std::slice::from_mut(&mut reader));
    let late = reader.doc.clone();
    for n in 0..2 {
        write(&mut world, &mut writer, &format!("x{n}"));
    }
    talk(&mut world, std::slice::from_mut(&mut reader));
    // somebody pushes a whole document
    let mut other = Client::new("other", document(7));
    other.edit("its own");
    other.connection = Some(world.connect("other", Access::Write));
    let whole = other.doc.save();
    world.frame(
        other.connection.unwrap(),
        sync_frame("sync", "other", document(7), &message_of(&[whole])),
    );
    world.store_some(usize::MAX);
    world.fault = Some(Fault::Full);
    world.settle();
    world.fault = None;
    let mut lagging = Client::new("lagging", document(7));
    lagging.doc = late;
    lagging.connect(&mut world);
    world.settle();
    let c = lagging.connection.unwrap();
    let sent: Vec<_> = std::iter::from_fn(|| world.take(c)).collect();
    let bytes: usize = sent.iter().map(|f| f.data.len()).sum();
    let news: usize = writer
        .doc
        .get_changes(&lagging.doc.get_heads())
        .iter()
        .map(|c| c.raw_bytes().len())
        .sum();
    assert!(bytes < news + 200);
}

#[test]
fn what_is_stored_while_a_document_is_read_for_somebody_follows_it_unasked() {
    let mut world = World::new(settings());
    let [mut writer, _] = in_step(&mut world);
    let mut late = Client::new("late", document(7));
    late.connect(&mut world);
    let read = world.do_at(0);
    writer.edit("meanwhile");
    writer.send(&mut world);
    world.store_some(1);
    world.input(Input::Answered(vec![read]));
    let mut doc = Automerge::new();
    while let Some(received) = world.take(late.connection.unwrap()) {
        let message = received.sync_message();
        for bytes in message.changes.iter() {
            doc.load_incremental(bytes).unwrap();
        }
        assert_eq!(doc.get_heads(), message.heads, "it has what it is told of");
    }
    assert_eq!(doc.get_heads(), writer.doc.get_heads());
}
