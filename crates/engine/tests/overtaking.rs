//! A whole document overtakes a compaction: the worker puts both together, and what comes of the compaction is ignored.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod world;

use engine::{Access, Input, WorkOutcome, limits::JOBS_MAX};
use world::{Client, Dice, World, document, message_of, noise, settings, sync_frame, talk, write};

/// Documents of which as many are to be compacted as may be with the worker, which have been asked for.
fn compacting(world: &mut World) -> Vec<Client> {
    let mut writers: Vec<_> = (1..=JOBS_MAX)
        .map(|n| Client::new(&format!("writer {n}"), document(n.try_into().unwrap())))
        .collect();
    for writer in &mut writers {
        writer.edit("one");
        writer.connect(world);
        talk(world, std::slice::from_mut(writer));
    }
    world.pass_ms(300);
    let mut dice = Dice(1);
    for writer in &mut writers {
        let text = noise(&mut dice, 3_200);
        // the first edit after the first message goes as a whole document, too
        write(world, writer, "two");
        write(world, writer, &text);
    }
    world.pass_ms(400);
    assert_eq!(world.asked.len(), JOBS_MAX, "what is to be compacted");
    writers
}

/// A device that has edited a copy sends it whole.
fn overtake(world: &mut World, writer: &Client) -> Client {
    let mut other = Client::new(&format!("other {}", writer.name), writer.id);
    other.doc = writer.doc.fork().with_actor(other.name.as_bytes().into());
    other.edit("elsewhere");
    let connection = world.connect(&other.name, Access::Write);
    let message = message_of(&[other.doc.save()]);
    world.frame(
        connection,
        sync_frame("sync", &other.name, other.id, &message),
    );
    other
}

fn assert_taken(world: &World, others: &[Client]) {
    for other in others {
        assert_eq!(world.store.heads(other.id), other.heads(), "{}", other.name);
    }
}

#[test]
fn as_many_whole_documents_as_there_are_compactions_that_read_overtake_them_all() {
    let mut world = World::new(settings());
    let writers = compacting(&mut world);
    let others: Vec<_> = writers
        .iter()
        .map(|writer| overtake(&mut world, writer))
        .collect();
    world.settle();
    assert_taken(&world, &others);
}

/// The worker had as many jobs as it may have, and all were overtaken. None of the documents had a job any more, all
/// counted as having one, and so no job began ever again: the documents stood still until a restart.
#[test]
fn as_many_whole_documents_as_the_worker_has_compactions_overtake_them_all() {
    let mut world = World::new(settings());
    let writers = compacting(&mut world);
    world.store_some(JOBS_MAX);
    assert_eq!(world.jobs.len(), JOBS_MAX);
    let others: Vec<_> = writers
        .iter()
        .map(|writer| overtake(&mut world, writer))
        .collect();
    world.settle();
    assert_taken(&world, &others);
}

/// Seed 700014 of the simulator: a worker that answers late had five jobs, of four documents.
#[test]
fn a_compaction_that_was_overtaken_is_still_one_that_the_worker_has() {
    let mut world = World::new(settings());
    let writers = compacting(&mut world);
    // one of them is overtaken as soon as the worker has it, and there is room for one
    world.store_some(JOBS_MAX);
    let (ticket, job) = world.jobs.pop_front().unwrap();
    let outcome = world::work(&job);
    world.input(Input::Worked { ticket, outcome });
    world.store_some(usize::MAX);
    assert_eq!(world.jobs.len(), JOBS_MAX - 1);
    let others = [
        overtake(&mut world, &writers[1]),
        overtake(&mut world, &writers[2]),
    ];
    while !world.asked.is_empty() {
        world.store_some(usize::MAX);
    }
    assert_eq!(world.jobs.len(), JOBS_MAX, "with the two of before");
    world.settle();
    assert_taken(&world, &others);
}

/// Seed 1000075 of the simulator: the whole document came while a change was on its way to the disk, and once that had
/// arrived, its job began without a place.
#[test]
fn a_whole_document_waits_for_a_place_also_once_what_was_on_its_way_has_arrived() {
    let mut world = World::new(settings());
    let mut writer = Client::new("writer", document(9));
    writer.edit("one");
    writer.connect(&mut world);
    talk(&mut world, std::slice::from_mut(&mut writer));
    world.pass_ms(300);
    write(&mut world, &mut writer, "two");
    compacting(&mut world);
    world.store_some(JOBS_MAX);
    assert_eq!(world.jobs.len(), JOBS_MAX);

    writer.edit("three");
    writer.send(&mut world);
    assert_eq!(world.asked.len(), 1, "on its way");
    let others = [overtake(&mut world, &writer)];
    while !world.asked.is_empty() {
        world.store_some(usize::MAX);
    }
    assert_eq!(world.jobs.len(), JOBS_MAX);
    world.settle();
    assert_taken(&world, &others);
}

/// The worker could not digest it, which is being written down. Whoever overtook that left the document in quarantine on
/// disk and not in memory.
#[test]
fn a_quarantine_that_is_being_stored_is_not_overtaken() {
    let mut world = World::new(settings());
    let writers = compacting(&mut world);
    world.store_some(JOBS_MAX);
    let (ticket, job) = world.jobs.pop_front().unwrap();
    let reason = "too much for it".into();
    let outcome = WorkOutcome::Indigestible { reason };
    world.input(Input::Worked { ticket, outcome });
    let writer = writers.iter().find(|writer| writer.id == job.document);
    let other = overtake(&mut world, writer.unwrap());
    world.settle();
    assert!(world.store.documents[&other.id].meta.quarantine.is_some());
    let done = world.jobs_done;
    let mut other = [other];
    for n in 0..3 {
        write(&mut world, &mut other[0], &format!("{n}").repeat(1_000));
    }
    world.pass_ms(6_000);
    talk(&mut world, &mut other);
    assert_eq!(world.jobs_done, done, "it is left alone");
}
