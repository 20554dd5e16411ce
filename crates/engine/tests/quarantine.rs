//! Documents that do not fit together, and a worker that would change them: they are served as they are, and left out of
//! compaction. And documents that are to be put together with one that was pushed, which may fail.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod world;

use bytes::Bytes;
use engine::{
    Access, Input, JobKind, Refusal, Ticket, WorkOutcome,
    storage::{ChunkKind, Fault},
};
use world::{Client, World, document, memory_store, message_of, settings, sync_frame, talk, work};

/// A client whose document is on the server as a snapshot and a tail that has outgrown what a tail may be.
fn outgrown(world: &mut World) -> Client {
    let mut client = Client::new("writer", document(7));
    client.edit("one");
    client.connect(world);
    talk(world, std::slice::from_mut(&mut client));
    // longer than an index waits for quiet
    world.pass_ms(300);
    world.settle();
    for n in 0..8 {
        write(world, &mut client, &n.to_string());
    }
    assert!(stored(world).meta.tail_bytes > 600);
    client
}

/// One edit, sent and stored.
fn write(world: &mut World, client: &mut Client, value: &str) {
    client.edit(value);
    client.send(world);
    talk(world, std::slice::from_mut(client));
}

/// A document as the disk has it.
fn stored(world: &World) -> &memory_store::Document {
    &world.store.documents[&document(7)]
}

/// Whether the worker is asked for something, however long one waits.
fn has_a_job_to_come(world: &mut World) -> bool {
    let before = world.jobs_done;
    for _ in 0..3 {
        world.pass_ms(60_000);
        world.settle();
    }
    world.jobs_done > before
}

#[test]
fn a_document_of_which_the_disk_has_lost_or_changed_something_is_served_and_not_compacted() {
    type Damage = fn(&mut memory_store::Document);
    let damages: [(&str, Damage); 7] = [
        ("none", |_| {}),
        ("the last chunk is gone", |document| {
            document.chunks.pop();
        }),
        ("one in the middle is gone", |document| {
            document.chunks.remove(3);
        }),
        ("one is there twice", |document| {
            let twice = document.chunks[3].clone();
            document.chunks.push(twice);
        }),
        ("a whole document stands where changes should", |document| {
            let whole = document.chunks[0].bytes.clone();
            document.chunks.last_mut().unwrap().bytes = whole;
        }),
        ("one is no chunk", |document| {
            document.chunks.last_mut().unwrap().bytes = Bytes::from_static(&[0; 50]);
        }),
        ("the index is cut off", |document| {
            let index = document.index.as_mut().unwrap();
            index.truncate(index.len() - 1);
        }),
    ];
    for (what, damage) in damages {
        let mut world = World::new(settings());
        let mut client = outgrown(&mut world);
        world.crash();
        world.is_unloadable = true;
        damage(world.store.documents.get_mut(&document(7)).unwrap());
        // what it has and the disk has not it sends again
        client.state = automerge::sync::State::new();
        client.connect(&mut world);
        talk(&mut world, std::slice::from_mut(&mut client));
        write(&mut world, &mut client, "goes on");
        assert_eq!(stored(&world).meta.heads, client.heads(), "{what}");
        assert_eq!(has_a_job_to_come(&mut world), what == "none", "{what}");
        assert!(world.closed.is_empty(), "{what}");
    }
}

/// The job that the worker has, and what an honest one would make of it.
fn take_job(world: &mut World, kind: JobKind) -> (Ticket, WorkOutcome) {
    let (ticket, job) = world.jobs.pop_front().unwrap();
    assert_eq!(job.kind, kind);
    (ticket, work(&job))
}

/// The same with other heads, or with this many changes more.
fn changed(outcome: &WorkOutcome, other_heads: bool, more: u64) -> WorkOutcome {
    let WorkOutcome::Done {
        snapshot,
        heads,
        changes,
        index,
    } = outcome.clone()
    else {
        panic!("{outcome:?}")
    };
    WorkOutcome::Done {
        snapshot,
        heads: if other_heads { vec![] } else { heads },
        changes: changes + more,
        index,
    }
}

/// A world in which the worker is at the compaction of a document.
fn compacting(world: &mut World) -> Client {
    let client = outgrown(world);
    world.pass_ms(300);
    world.store_some(usize::MAX);
    client
}

#[test]
fn a_compaction_that_would_change_the_document_is_not_stored_and_never_tried_again() {
    let reason = || "it exploded".to_owned();
    let outcomes: [fn(&WorkOutcome) -> WorkOutcome; 4] = [
        |honest| changed(honest, true, 0),
        |honest| changed(honest, false, 1),
        |_| WorkOutcome::Invalid {
            reason: "it exploded".into(),
        },
        |_| WorkOutcome::Indigestible {
            reason: "it exploded".into(),
        },
    ];
    let reasons = ["compaction would change it", "compaction would change it"]
        .map(str::to_owned)
        .into_iter()
        .chain([reason(), reason()]);
    for (outcome, reason) in outcomes.into_iter().zip(reasons) {
        let mut world = World::new(settings());
        let mut client = compacting(&mut world);
        let before = stored(&world).chunks.clone();
        let (ticket, honest) = take_job(&mut world, JobKind::Compact);
        world.input(Input::Worked {
            ticket,
            outcome: outcome(&honest),
        });
        world.settle();
        assert_eq!(stored(&world).chunks, before);
        assert_eq!(stored(&world).meta.quarantine, Some(reason));
        write(&mut world, &mut client, "goes on");
        assert!(!has_a_job_to_come(&mut world));
        // nor after a restart
        world.crash();
        client.connect(&mut world);
        write(&mut world, &mut client, "and on");
        assert!(!has_a_job_to_come(&mut world));
        assert_eq!(world.store.heads(document(7)), client.heads());
        assert!(world.closed.is_empty());
    }
}

/// A client that has pushed a whole document, which the worker is at.
fn indexing(world: &mut World) -> Client {
    let mut client = Client::new("writer", document(7));
    // enough that it is sent whole
    (0..40).for_each(|n| client.edit(&n.to_string()));
    client.connect(world);
    while !world.asked.is_empty() {
        world.store_some(usize::MAX);
        while client.receive_one(world) {}
    }
    world.pass_ms(300);
    world.store_some(usize::MAX);
    client
}

#[test]
fn a_pushed_document_that_was_not_looked_at_before_a_restart_is_looked_at_after_it() {
    let mut world = World::new(settings());
    let mut client = indexing(&mut world);
    world.crash();
    client.edit("one more");
    client.connect(&mut world);
    talk(&mut world, std::slice::from_mut(&mut client));
    let meta = &stored(&world).meta;
    assert_eq!((meta.has_pushed, meta.quarantine.as_ref()), (false, None));
    assert_eq!(world.store.heads(document(7)), client.heads());
}

#[test]
fn a_pushed_document_with_other_heads_than_it_says_is_dropped_with_who_pushed_it() {
    let mut world = World::new(settings());
    let client = indexing(&mut world);
    let (ticket, honest) = take_job(&mut world, JobKind::Index);
    let outcome = changed(&honest, true, 0);
    world.input(Input::Worked { ticket, outcome });
    world.settle();
    assert!(world.store.documents.is_empty());
    let refused = (client.connection.unwrap(), Refusal::UnloadableDocument);
    assert_eq!(world.closed, [refused].into());
}

#[test]
fn a_pushed_document_that_the_worker_cannot_digest_is_kept_and_handed_out_as_it_came() {
    let mut world = World::new(settings());
    let mut client = indexing(&mut world);
    let (ticket, _) = take_job(&mut world, JobKind::Index);
    // it waits for the worker, as its changes are not known
    client.edit("one more");
    client.send(&mut world);
    let outcome = WorkOutcome::Indigestible {
        reason: "it exploded".into(),
    };
    world.input(Input::Worked { ticket, outcome });
    world.settle();
    assert_eq!(
        stored(&world).meta.quarantine.as_deref(),
        Some("it exploded")
    );
    assert_eq!(stored(&world).chunks[0].kind, ChunkKind::Pushed);
    for name in ["fresh", "fresh too"] {
        let mut reader = Client::new(name, document(7));
        reader.connect(&mut world);
        talk(&mut world, std::slice::from_mut(&mut reader));
        assert_eq!(reader.heads(), world.store.heads(document(7)));
    }
    assert!(!has_a_job_to_come(&mut world));
    assert!(world.closed.is_empty());
}

/// A document on the server and in its memory, its writer, and one who pushes a whole document onto it.
struct Pushing {
    world: World,
    writer: Client,
    pusher: Client,
    /// What was on the server before.
    before: Vec<engine::ChangeHash>,
}

/// What the pusher has is on its way to the worker.
fn pushing(as_bundle: bool) -> Pushing {
    let mut world = World::new(settings());
    let writer = outgrown(&mut world);
    let before = writer.heads();
    let mut pusher = Client::new("pusher", document(7));
    pusher.doc = writer.doc.fork().with_actor("pusher".as_bytes().into());
    (0..3).for_each(|n| pusher.edit(&n.to_string()));
    let connection = world.connect("pusher", Access::Write);
    pusher.connection = Some(connection);
    let chunk = if as_bundle {
        let new = pusher.doc.get_changes(&writer.doc.get_heads());
        let bundle = pusher.doc.bundle(new.iter().map(|change| change.hash()));
        bundle.unwrap().bytes().to_vec()
    } else {
        pusher.doc.save()
    };
    let message = message_of(&[chunk]);
    world.frame(
        connection,
        sync_frame("sync", "pusher", document(7), &message),
    );
    world.store_some(usize::MAX);
    Pushing {
        world,
        writer,
        pusher,
        before,
    }
}

fn worked(world: &mut World, outcome: impl Fn(&WorkOutcome) -> WorkOutcome) {
    let (ticket, honest) = take_job(world, JobKind::Compact);
    let outcome = outcome(&honest);
    world.input(Input::Worked { ticket, outcome });
    world.settle();
}

#[test]
fn a_whole_document_or_a_bundle_that_is_pushed_onto_another_becomes_one_with_it() {
    for as_bundle in [false, true] {
        let Pushing {
            mut world,
            mut writer,
            pusher,
            ..
        } = pushing(as_bundle);
        // what comes meanwhile waits
        writer.edit("meanwhile");
        writer.send(&mut world);
        assert!(world.asked.is_empty());
        worked(&mut world, WorkOutcome::clone);
        let mut clients = [writer, pusher];
        talk(&mut world, &mut clients);
        assert_eq!(stored(&world).meta.heads, clients[0].heads());
        assert_eq!(clients[0].heads().len(), 2, "of both");
        assert_eq!(world.store.heads(document(7)), clients[1].heads());
        assert!(world.closed.is_empty());
    }
}

#[test]
fn a_whole_document_that_cannot_be_put_together_with_what_is_there_leaves_it_as_it_was() {
    let outcomes: [fn(&WorkOutcome) -> WorkOutcome; 4] = [
        |_| WorkOutcome::Invalid {
            reason: "it exploded".into(),
        },
        |_| WorkOutcome::Indigestible {
            reason: "it exploded".into(),
        },
        |honest| changed(honest, false, 1),
        |honest| {
            let WorkOutcome::Done {
                snapshot,
                heads,
                changes,
                index,
            } = honest.clone()
            else {
                panic!("{honest:?}")
            };
            WorkOutcome::Done {
                snapshot,
                heads,
                changes,
                index: index.slice(..index.len() - 1),
            }
        },
    ];
    for (n, outcome) in outcomes.into_iter().enumerate() {
        let Pushing {
            mut world,
            mut writer,
            pusher,
            before,
        } = pushing(false);
        worked(&mut world, outcome);
        let refused = (pusher.connection.unwrap(), Refusal::UnloadableDocument);
        assert_eq!(world.closed, [refused].into(), "{n}");
        assert_eq!(world.store.heads(document(7)), before, "{n}");
        // and it goes on from there
        write(&mut world, &mut writer, "goes on");
        assert_eq!(world.store.heads(document(7)), writer.heads(), "{n}");
        assert!(has_a_job_to_come(&mut world), "{n}: it is not quarantined");
        assert_eq!(world.store.heads(document(7)), writer.heads(), "{n}");
    }
}

#[test]
fn a_whole_document_that_found_no_worker_or_no_room_is_asked_for_again() {
    for no_worker in [true, false] {
        let Pushing {
            mut world,
            writer,
            mut pusher,
            before,
        } = pushing(false);
        world.fault = Some(Fault::Full);
        worked(&mut world, |honest| {
            if no_worker {
                WorkOutcome::Unavailable
            } else {
                honest.clone()
            }
        });
        world.fault = None;
        assert_eq!(world.store.heads(document(7)), before);
        while pusher.receive_one(&mut world) {}
        assert_eq!(
            world.store.heads(document(7)),
            before,
            "it is not asked yet"
        );
        world.pass_ms(60_000);
        let mut clients = [writer, pusher];
        talk(&mut world, &mut clients);
        assert_eq!(world.store.heads(document(7)), clients[1].heads());
        assert_eq!(clients[0].heads(), clients[1].heads());
        assert!(world.closed.is_empty());
    }
}
