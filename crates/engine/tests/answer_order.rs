//! Orders in which the store answers that its threads make and a queue does not: what is committed can be read before
//! it is said to be stored, and what was read before can be answered after.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod world;

use engine::{
    Input,
    storage::{ChunkKind, Orphan},
};
use world::{
    Dice, World, document, in_step, message_of, noise, ours, settings, sync_frame, talk, write,
};

fn last_chunk(world: &World) -> (u64, ChunkKind, usize) {
    let chunk = world.store.documents[&document(7)].chunks.last().unwrap();
    (chunk.number, chunk.kind, chunk.bytes.len())
}

/// A reader that lags behind is read a chunk, and the answer has the snapshot that has just taken the chunk's place and
/// number. That it is stored is said only then: the writing thread was still at the log.
fn a_snapshot_is_read_before_it_is_said_to_be_stored(before: usize, after: usize) {
    let mut world = World::new(settings());
    let [mut writer, reader] = in_step(&mut world);
    let mut dice = Dice(1);
    let mut clients = if before > 0 {
        write(&mut world, &mut writer, &noise(&mut dice, before));
        let mut clients = [writer, reader];
        talk(&mut world, &mut clients);
        world.pass_ms(400);
        talk(&mut world, &mut clients);
        clients
    } else {
        [writer, reader]
    };
    let connection = clients[1].connection.unwrap();
    world.input(Input::Congested { connection });
    // longer than what is kept in memory
    write(&mut world, &mut clients[0], &noise(&mut dice, after));
    let (number, kind, chunk_bytes) = last_chunk(&world);
    assert_eq!(kind, ChunkKind::Tail);

    world.pass_ms(400);
    world.store_some(1);
    assert_eq!(world.jobs.len(), 1, "what is to be compacted was read");
    world.input(Input::Drained { connection });
    world.work_one();
    assert_eq!(world.asked.len(), 2, "a chunk, and to store the snapshot");
    let stored = world.do_at(1);
    let (snapshot, kind, snapshot_bytes) = last_chunk(&world);
    assert_eq!((snapshot, kind), (number, ChunkKind::Snapshot));
    assert_eq!(snapshot_bytes < chunk_bytes, before == 0);
    let read = world.do_at(0);
    world.input(Input::Answered(vec![read]));
    world.input(Input::Answered(vec![stored]));

    world.settle();
    let told = world.take(connection).unwrap().sync_message();
    let bytes: Vec<u8> = told.changes.iter().flatten().copied().collect();
    let [writer, mut reader] = clients;
    reader.doc.load_incremental(&bytes).unwrap();
    assert_eq!(writer.heads(), reader.heads(), "by what it was sent first");
}

#[test]
fn a_snapshot_that_is_shorter_than_the_chunk_whose_number_it_has_is_not_taken_for_it() {
    a_snapshot_is_read_before_it_is_said_to_be_stored(0, 200_000);
}

#[test]
fn a_snapshot_that_is_longer_than_the_chunk_whose_number_it_has_is_not_taken_for_it() {
    a_snapshot_is_read_before_it_is_said_to_be_stored(640_000, 200_000);
}

#[test]
fn a_graph_that_was_read_before_a_snapshot_was_stored_and_comes_after_it_serves_everybody() {
    let mut world = World::new(settings());
    let [mut writer, mut reader] = in_step(&mut world);
    reader.disconnect(&mut world);
    write(&mut world, &mut writer, &noise(&mut Dice(1), 200_000));
    writer.disconnect(&mut world);
    world.crash();
    writer.connect(&mut world);
    talk(&mut world, std::slice::from_mut(&mut writer));

    world.pass_ms(400);
    world.store_some(1);
    assert_eq!(world.jobs.len(), 1, "what is to be compacted was read");
    // it lags behind, and so the graph is needed
    reader.connect(&mut world);
    world.work_one();
    assert_eq!(world.asked.len(), 2, "the graph, and to store the snapshot");
    let (read, stored) = (world.do_at(0), world.do_at(0));
    assert_eq!(last_chunk(&world).1, ChunkKind::Snapshot);
    world.input(Input::Answered(vec![stored]));
    world.input(Input::Answered(vec![read]));

    let mut clients = [writer, reader];
    talk(&mut world, &mut clients);
    assert_eq!(clients[0].heads(), clients[1].heads());
    let done = world.jobs_done;
    for _ in 0..30 {
        world.pass_ms(5_000);
        talk(&mut world, &mut clients);
    }
    assert_eq!(world.jobs_done, done, "it is not compacted again and again");
}

/// The graph is read while a snapshot is being stored, and with it an orphan that has found what it waited for, which is
/// stored again, as a change. Whatever comes next must not have that one's number, or the store refuses it.
#[test]
fn a_change_behind_one_that_was_on_its_way_while_a_snapshot_was_stored_has_a_number_of_its_own() {
    let mut world = World::new(settings());
    let [mut writer, mut reader] = in_step(&mut world);
    reader.disconnect(&mut world);
    write(&mut world, &mut writer, &noise(&mut Dice(1), 200_000));
    writer.disconnect(&mut world);
    world.crash();
    writer.connect(&mut world);
    talk(&mut world, std::slice::from_mut(&mut writer));
    world.pass_ms(400);
    world.store_some(1);
    assert_eq!(world.jobs.len(), 1, "what is to be compacted was read");

    writer.edit("waited");
    let orphan = writer.doc.get_last_local_change().unwrap().clone();
    let stored = world.store.documents.get_mut(&document(7)).unwrap();
    stored.orphans.push(Orphan {
        hash: ours(&orphan.hash()),
        bytes: orphan.raw_bytes().to_vec().into(),
    });
    reader.connect(&mut world);
    world.work_one();
    assert_eq!(world.asked.len(), 2, "the graph, and to store the snapshot");
    let read = world.do_at(0);
    world.input(Input::Answered(vec![read]));
    assert_eq!(world.asked.len(), 2, "the snapshot, and the orphan");
    world.store_some(1);
    assert_eq!(last_chunk(&world).1, ChunkKind::Snapshot);
    writer.edit("behind it");
    let change = writer
        .doc
        .get_last_local_change()
        .unwrap()
        .raw_bytes()
        .to_vec();
    let behind = sync_frame("sync", "writer", document(7), &message_of(&[change]));
    world.frame(writer.connection.unwrap(), behind);

    while !world.asked.is_empty() {
        let (ticket, answer) = world.do_at(0);
        assert!(answer.is_ok(), "{ticket:?}: {answer:?}");
        world.input(Input::Answered(vec![(ticket, answer)]));
    }
    assert_eq!(last_chunk(&world).0, 3);
    assert_eq!(world.store.heads(document(7)), writer.heads());
}
