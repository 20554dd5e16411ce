//! Changes that come before what they depend on, across restarts and failing disks. The simulator found these.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test that meets the unexpected ends"
)]

mod world;

use automerge::{
    Automerge, Change, ROOT,
    sync::{State, SyncDoc},
    transaction::Transactable,
};
use bytes::Bytes;
use engine::{
    Access, Announce, ConnectionId, Settings,
    storage::{Fault, WriteAction},
};
use world::{
    Client, Request, World, document, in_step, message_of, ours, settings, sync_frame, talk, write,
};

fn edit(doc: &mut Automerge, value: &str) {
    let mut transaction = doc.transaction();
    transaction.put(ROOT, "key", value).unwrap();
    transaction.commit();
}

/// Two changes, and one that depends on both; the first is the one that the third names first.
fn two_and_their_child() -> [Change; 3] {
    let mut one = Automerge::new().with_actor("one".as_bytes().into());
    let mut other = Automerge::new().with_actor("other".as_bytes().into());
    edit(&mut one, "one");
    edit(&mut other, "other");
    one.merge(&mut other).unwrap();
    edit(&mut one, "both");
    let child = one.get_last_local_change().unwrap();
    let parents: Vec<Change> = child
        .deps()
        .iter()
        .map(|dep| {
            let changes = one.get_changes(&[]);
            let parent = changes.iter().find(|change| change.hash() == *dep);
            Change::clone(parent.unwrap())
        })
        .collect();
    let [first, second] = <[Change; 2]>::try_from(parents).unwrap();
    [first, second, child]
}

/// A change that has nothing to do with those.
fn change_of_a_stranger() -> Change {
    let mut stranger = Automerge::new().with_actor("stranger".as_bytes().into());
    edit(&mut stranger, "anything");
    stranger.get_last_local_change().unwrap()
}

fn send(world: &mut World, connection: ConnectionId, changes: &[&Change]) {
    let bytes = |change: &&Change| change.raw_bytes().to_vec();
    send_chunks(world, connection, changes.iter().map(bytes).collect());
}

fn send_chunks(world: &mut World, connection: ConnectionId, chunks: Vec<Vec<u8>>) {
    let mut message = Automerge::new()
        .generate_sync_message(&mut State::new())
        .unwrap();
    message.changes = chunks.into();
    let frame: Bytes = sync_frame("sync", "writer", document(7), &message.encode());
    world.frame(connection, frame);
}

/// After a restart an orphan waited for the first of its dependencies, whether or not that was there.
#[test]
fn an_orphan_is_adopted_after_a_restart_whichever_dependency_was_missing() {
    let [first, second, child] = two_and_their_child();
    let mut world = World::new(settings());
    let connection = world.connect("writer", Access::Write);
    send(&mut world, connection, &[&first]);
    send(&mut world, connection, &[&child]);
    world.settle();
    world.crash();
    let connection = world.connect("writer", Access::Write);
    send(&mut world, connection, &[&second]);
    world.settle();
    assert_eq!(world.store.heads(document(7)), [ours(&child.hash())]);
    assert!(world.store.documents[&document(7)].orphans.is_empty());
}

/// It found its place when it was sent again, and stayed in the queue on disk for good.
#[test]
fn an_orphan_that_comes_again_after_its_dependencies_leaves_the_queue() {
    let [first, second, child] = two_and_their_child();
    let mut world = World::new(settings());
    let connection = world.connect("writer", Access::Write);
    send(&mut world, connection, &[&child]);
    send(&mut world, connection, &[&second, &first, &child]);
    world.settle();
    assert_eq!(world.store.heads(document(7)), [ours(&child.hash())]);
    assert!(world.store.documents[&document(7)].orphans.is_empty());
}

/// The engine took every write behind one that had failed for failed, and forgot an orphan that was stored.
#[test]
fn an_orphan_behind_a_write_that_failed_is_not_forgotten() {
    let [first, second, child] = two_and_their_child();
    let mut world = World::new(settings());
    let connection = world.connect("writer", Access::Write);
    // so that the document is known
    send(&mut world, connection, &[]);
    world.settle();
    send(&mut world, connection, &[&first]);
    send(&mut world, connection, &[&child]);
    world.fault = Some(Fault::Full);
    world.store_some(1);
    world.fault = None;
    world.settle();
    assert_eq!(world.store.documents[&document(7)].orphans.len(), 1);
    send(&mut world, connection, &[&first]);
    send(&mut world, connection, &[&second]);
    world.settle();
    assert_eq!(world.store.heads(document(7)), [ours(&child.hash())]);
    assert!(world.store.documents[&document(7)].orphans.is_empty());
}

/// A whole document brought an orphan's change, and the disk failed when the orphan was to leave the queue.
#[test]
fn an_orphan_that_could_not_leave_the_queue_leaves_it_once_the_disk_is_well() {
    let [first, second, child] = two_and_their_child();
    let mut world = World::new(settings());
    let connection = world.connect("writer", Access::Write);
    send(&mut world, connection, &[&first]);
    send(&mut world, connection, &[&child]);
    world.settle();
    let mut whole = Automerge::new();
    whole.apply_changes([first, second, child.clone()]).unwrap();
    send_chunks(&mut world, connection, vec![whole.save()]);
    while !world.asked.front().is_some_and(|(_, asked)| adopts(asked)) {
        if world.asked.is_empty() {
            world.work_one();
        }
        world.store_some(1);
    }
    world.fault = Some(Fault::Failed);
    world.store_some(1);
    world.fault = None;
    assert_eq!(world.store.documents[&document(7)].orphans.len(), 1);
    world.pass_ms(60_000);
    world.settle();
    assert!(world.store.documents[&document(7)].orphans.is_empty());
    assert_eq!(world.store.heads(document(7)), [ours(&child.hash())]);
}

/// Nothing of the document but an orphan is stored, so there are no heads to be in step with.
#[test]
fn an_orphan_that_is_all_there_is_finds_its_place_after_a_restart() {
    let [first, second, child] = two_and_their_child();
    let mut world = World::new(settings());
    let connection = world.connect("writer", Access::Write);
    send(&mut world, connection, &[&child]);
    world.settle();
    assert_eq!(world.store.heads(document(7)), []);
    world.crash();
    let connection = world.connect("writer", Access::Write);
    send(&mut world, connection, &[&first, &second]);
    world.settle();
    assert_eq!(world.store.heads(document(7)), [ours(&child.hash())]);
    assert!(world.store.documents[&document(7)].orphans.is_empty());
}

#[test]
fn an_orphan_is_adopted_when_its_dependencies_come_with_a_whole_document() {
    let [first, second, child] = two_and_their_child();
    let mut world = World::new(settings());
    let connection = world.connect("writer", Access::Write);
    send(&mut world, connection, &[&child]);
    let mut whole = Automerge::new();
    whole.apply_changes([first, second]).unwrap();
    let heads: Vec<_> = whole.get_heads().iter().map(ours).collect();
    send_chunks(&mut world, connection, vec![whole.save()]);
    let mut reader = Client::new("reader", document(7));
    reader.connect_as(&mut world, Access::Read);
    // the whole document is on disk, and the orphan still in its queue
    while world.store.heads(document(7)) != heads {
        if world.asked.is_empty() {
            world.work_one();
        }
        world.store_some(1);
    }
    let mut clients = [reader];
    talk(&mut world, &mut clients);
    assert_eq!(world.store.heads(document(7)), [ours(&child.hash())]);
    let stored = &world.store.documents[&document(7)];
    assert!(stored.orphans.is_empty() && !stored.meta.has_orphans);
    assert_eq!(stored.meta.heads, clients[0].heads());
    assert_eq!(clients[0].value().as_deref(), Some("both"));
}

#[test]
fn nobody_is_told_of_a_document_of_which_there_are_only_orphans() {
    let [.., child] = two_and_their_child();
    let mut world = World::new(Settings {
        announce: Announce::All,
        ..settings()
    });
    let listener = world.connect("listener", Access::Read);
    let connection = world.connect("writer", Access::Write);
    send(&mut world, connection, &[&child]);
    world.settle();
    assert_eq!(world.store.documents[&document(7)].orphans.len(), 1);
    assert!(world.take(listener).is_none());
}

/// What is stored has numbers without a gap, and so what comes next must have the one that is free.
#[test]
fn after_a_write_that_failed_in_front_of_an_orphan_the_next_one_has_its_number() {
    let [first, second, child] = two_and_their_child();
    let lost = change_of_a_stranger();
    let mut world = World::new(settings());
    let connection = world.connect("writer", Access::Write);
    send(&mut world, connection, &[&first]);
    world.settle();
    send(&mut world, connection, &[&lost]);
    send(&mut world, connection, &[&child]);
    world.fault = Some(Fault::Full);
    world.store_some(1);
    world.fault = None;
    // with the orphan still on its way
    send(&mut world, connection, &[&second]);
    world.settle();
    let stored = &world.store.documents[&document(7)];
    assert_eq!(stored.meta.heads, [ours(&child.hash())]);
    let numbers: Vec<_> = stored.chunks.iter().map(|chunk| chunk.number).collect();
    assert_eq!((numbers, stored.orphans.len()), (vec![0, 1], 0));
}

#[test]
fn what_was_behind_an_orphan_that_could_not_be_stored_keeps_its_number_and_its_place() {
    let [first, second, child] = two_and_their_child();
    let kept = change_of_a_stranger();
    let mut world = World::new(settings());
    let connection = world.connect("writer", Access::Write);
    send(&mut world, connection, &[&first]);
    world.settle();
    send(&mut world, connection, &[&child]);
    send(&mut world, connection, &[&kept]);
    world.fault = Some(Fault::Full);
    world.store_some(1);
    world.fault = None;
    send(&mut world, connection, &[&second]);
    world.settle();
    let stored = &world.store.documents[&document(7)];
    let numbers: Vec<_> = stored.chunks.iter().map(|chunk| chunk.number).collect();
    assert_eq!(numbers, [0, 1, 2]);
    let mut heads = [&first, &second, &kept].map(|change| ours(&change.hash()));
    heads.sort_unstable();
    assert_eq!(stored.meta.heads, heads);
}

fn adopts(request: &Request) -> bool {
    matches!(
        request,
        Request::Write(write)
            if matches!(&write.action, WriteAction::Append { adopted, .. } if !adopted.is_empty())
    )
}

/// A device saves the changes that wait for others behind its document, and sends all that. The worker, which makes no
/// snapshot with such in it, called it unloadable, and the device was sent away as often as it came.
#[test]
fn a_whole_document_brings_along_the_changes_that_wait_for_others() {
    let [first, second, child] = two_and_their_child();
    let mut device = Automerge::new().with_actor("device".as_bytes().into());
    edit(&mut device, "own");
    device.apply_changes([first, child.clone()]).unwrap();
    let heads: Vec<_> = device.get_heads().iter().map(ours).collect();

    let mut world = World::new(settings());
    let connection = world.connect("writer", Access::Write);
    send_chunks(&mut world, connection, vec![device.save()]);
    world.settle();
    assert!(world.closed.is_empty(), "{:?}", world.closed);
    assert_eq!(world.store.heads(document(7)), heads);
    assert_eq!(world.store.documents[&document(7)].orphans.len(), 1);

    send(&mut world, connection, &[&second]);
    world.settle();
    let stored = world.store.heads_and_ancestors(document(7));
    assert!(stored.contains(&ours(&child.hash())));
}

/// A graph that was let go of while somebody waited to hear whether there was anything counted as a document. Fuzzing
/// found this.
#[test]
fn who_asks_for_a_document_of_orphans_alone_hears_that_there_is_none_also_after_its_graph_was_let_go()
 {
    let [_, _, child] = two_and_their_child();
    let mut world = World::new(settings());
    let writer = world.connect("writer", Access::Write);
    let mut message = Automerge::new()
        .generate_sync_message(&mut State::new())
        .unwrap();
    // it may send what is missing yet, so others are not answered at once
    message.heads = vec![child.hash()];
    message.changes = vec![child.raw_bytes().to_vec()].into();
    world.frame(
        writer,
        sync_frame("sync", "writer", document(7), &message.encode()),
    );
    world.settle();
    let reader = world.connect("reader", Access::Read);
    let wish = Automerge::new()
        .generate_sync_message(&mut State::new())
        .unwrap();
    world.frame(
        reader,
        sync_frame("request", "reader", document(7), &wish.encode()),
    );
    world.settle();
    for _ in 0..10 {
        world.pass_ms(1_000);
        world.settle();
    }
    let kinds = std::iter::from_fn(|| world.take(reader)).map(|frame| frame.kind);
    assert_eq!(kinds.collect::<Vec<_>>(), ["doc-unavailable"]);
}

/// With nothing in it but orphans, a document has nothing to be told.
#[test]
fn a_document_of_orphans_alone_is_not_announced() {
    let [first, second, child] = two_and_their_child();
    let mut world = World::new(Settings {
        announce: Announce::All,
        ..settings()
    });
    let writer = world.connect("writer", Access::Write);
    send(&mut world, writer, &[&child]);
    world.settle();
    let early = world.connect("early", Access::Read);
    world.settle();
    let kinds = |world: &mut World, connection| {
        let received = std::iter::from_fn(|| world.take(connection));
        received.map(|frame| frame.kind).collect::<Vec<_>>()
    };
    assert!(kinds(&mut world, early).is_empty());
    send(&mut world, writer, &[&first, &second]);
    world.settle();
    assert_eq!(kinds(&mut world, early), ["sync"], "now it is one");
}

/// An orphan found its place on changes that a whole document had just brought, when the disk was tried again, and was
/// taken for stored with them. Fuzzing found this.
#[test]
fn nothing_is_built_on_a_whole_document_that_is_not_stored_yet_when_the_disk_is_tried_again() {
    let [first, second, child] = two_and_their_child();
    let mut world = World::new(settings());
    let connection = world.connect("writer", Access::Write);
    send(&mut world, connection, &[&child]);
    world.settle();
    let lost = change_of_a_stranger();
    send(&mut world, connection, &[&lost]);
    world.fault = Some(Fault::Full);
    world.store_some(1);
    world.fault = None;
    // a whole document with both that the orphan waits for, as far as its snapshot is on its way
    let mut whole = Automerge::new();
    whole.apply_changes([first, second]).unwrap();
    send_chunks(&mut world, connection, vec![whole.save()]);
    while let Some((_, Request::Read(_))) = world.asked.front() {
        world.store_some(1);
    }
    world.work_one();
    world.pass_ms(10_000);
    // each head that is told is looked for on the disk
    world.store_some(1);
    assert_eq!(world.store.heads(document(7)).len(), 2, "the snapshot");
    world.settle();
    assert_eq!(world.store.heads(document(7)), [ours(&child.hash())]);
}

/// What an absorbed document has brought is stored, and the orphan that waited for it found no room then.
#[test]
fn an_orphan_that_could_have_its_place_gets_it_when_somebody_in_step_opens_the_document() {
    let mut world = World::new(settings());
    let [mut writer, _] = in_step(&mut world);
    let mut other = Client::new("other", document(7));
    other.doc = writer.doc.fork().with_actor(b"other".as_slice().into());
    let mut whole = vec![];
    for n in 0..3 {
        other.edit(&n.to_string());
        if n == 1 {
            whole = other.doc.save();
        }
    }
    let orphan = other
        .doc
        .get_last_local_change()
        .unwrap()
        .raw_bytes()
        .to_vec();
    let connection = world.connect("other", Access::Write);
    world.frame(
        connection,
        sync_frame("sync", "other", document(7), &message_of(&[orphan])),
    );
    world.settle();
    world.frame(
        connection,
        sync_frame("sync", "other", document(7), &message_of(&[whole.clone()])),
    );
    world.store_some(usize::MAX);
    world.work_one();
    world.store_some(1);
    // the orphan is on its way now
    assert!(!world.asked.is_empty());
    world.crash();
    let mut in_step = Client::new("in step", document(7));
    in_step.doc = automerge::Automerge::load(&whole).unwrap();
    in_step.connect(&mut world);
    talk(&mut world, std::slice::from_mut(&mut in_step));
    assert_eq!(world.store.heads(document(7)), other.heads());
    assert_eq!(in_step.heads(), other.heads());
    write(&mut world, &mut writer, "goes on");
}
