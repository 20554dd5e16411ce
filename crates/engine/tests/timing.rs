//! What time alone does: jobs that wait for quiet, memory that is given back, what is tried again, and when the engine
//! wants to be called.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod world;

use engine::{
    Access, Compaction, ConnectionId, DocumentId, Input, JobKind, Settings, Urgency, WorkOutcome,
    storage::{Fault, ReadWhat},
};
use world::{
    Client, Forge, Request, World, document, frame, message_of, settings, sync_frame, talk,
};

/// A client whose document is on the server, looked at by the worker, and in step.
fn settled(world: &mut World, name: &str, id: DocumentId) -> Client {
    let mut client = Client::new(name, id);
    client.edit("one");
    client.connect(world);
    talk(world, std::slice::from_mut(&mut client));
    // longer than an index waits for quiet
    world.pass_ms(300);
    talk(world, std::slice::from_mut(&mut client));
    assert_eq!(world.store.heads(id), client.heads());
    client
}

/// Edits that together are longer than a tail may be.
fn outgrow(world: &mut World, client: &mut Client) {
    // many at once would come as a whole document
    for n in 0..8 {
        client.edit(&n.to_string());
        client.send(world);
        talk(world, std::slice::from_mut(client));
    }
    let stored = &world.store.documents[&client.id].meta;
    assert!(stored.tail_bytes > 600, "{stored:?}");
}

fn reads(world: &World) -> usize {
    let read = |(_, request): &&(_, Request)| matches!(request, Request::Read(_));
    world.asked.iter().filter(read).count()
}

/// A frame that says nothing to us.
fn some_frame(world: &mut World, connection: ConnectionId) {
    world.frame(connection, frame(&[("type", "of no interest")], None));
    assert!(world.closed.is_empty());
}

#[test]
fn a_compaction_waits_until_nobody_has_said_anything_for_a_while() {
    let mut world = World::new(settings());
    let mut client = settled(&mut world, "writer", document(7));
    outgrow(&mut world, &mut client);
    assert_eq!(world.engine.next_tick(), Some(world.now_ms + 200));
    world.pass_ms(199);
    assert_eq!(reads(&world), 0);
    world.pass_ms(1);
    assert_eq!(reads(&world), 1);
}

#[test]
fn a_compaction_waits_three_seconds_for_quiet_and_no_longer() {
    let mut world = World::new(settings());
    let mut client = settled(&mut world, "writer", document(7));
    outgrow(&mut world, &mut client);
    let connection = client.connection.unwrap();
    // it was due after 50 ms without a change
    for _ in 0..30 {
        world.now_ms += 100;
        some_frame(&mut world, connection);
    }
    world.pass_ms(49);
    assert_eq!(reads(&world), 0);
    world.pass_ms(1);
    assert_eq!(reads(&world), 1);
}

#[test]
fn a_compaction_waits_for_as_long_as_its_document_must_be_left_alone() {
    let compaction = Compaction {
        quiet_ms: 1_500,
        ..settings().compaction
    };
    let mut world = World::new(Settings {
        compaction,
        ..settings()
    });
    let mut client = settled(&mut world, "writer", document(7));
    outgrow(&mut world, &mut client);
    assert_eq!(world.engine.next_tick(), Some(world.now_ms + 1_500));
    world.pass_ms(1_499);
    assert_eq!(reads(&world), 0);
    world.pass_ms(1);
    assert_eq!(reads(&world), 1);
}

#[test]
fn a_tail_is_left_alone_until_it_outgrows_floor_and_share_of_the_snapshot() {
    let compaction = Compaction {
        floor_bytes: 600,
        ratio_percent: 300,
        quiet_ms: 50,
    };
    let mut world = World::new(Settings {
        compaction,
        ..settings()
    });
    let mut client = settled(&mut world, "writer", document(7));
    let mut compacted_at = vec![];
    for n in 0..60 {
        let before = world.store.documents[&document(7)].meta.clone();
        client.edit(&n.to_string());
        client.send(&mut world);
        talk(&mut world, std::slice::from_mut(&mut client));
        let grown = world.store.documents[&document(7)].meta.tail_bytes;
        let jobs = world.jobs_done;
        world.pass_ms(300);
        talk(&mut world, std::slice::from_mut(&mut client));
        let threshold = (before.snapshot_bytes * 3).max(600);
        assert_eq!(
            world.jobs_done > jobs,
            grown > threshold,
            "{grown} {threshold}"
        );
        if world.jobs_done > jobs {
            compacted_at.push(threshold);
        }
    }
    assert!(compacted_at.first() == Some(&600), "{compacted_at:?}");
    assert!(compacted_at.last() > Some(&600), "{compacted_at:?}");
}

#[test]
fn the_worker_has_four_documents_at_a_time_and_the_engine_does_not_ask_to_be_called_for_a_fifth() {
    let mut world = World::new(settings());
    let mut clients: Vec<_> = (0..6)
        .map(|n| Client::new(&format!("client {n}"), document(n)))
        .collect();
    for client in &mut clients {
        client.edit("one");
        client.connect(&mut world);
    }
    talk(&mut world, &mut clients);
    world.pass_ms(300);
    assert_eq!(reads(&world), 4);
    world.store_some(usize::MAX);
    assert_eq!((world.jobs.len(), world.jobs_done), (4, 0));
    assert!(world.engine.next_tick() > Some(world.now_ms));
    world.work_one();
    world.store_some(usize::MAX);
    assert_eq!((world.jobs.len(), reads(&world)), (3, 1), "the fifth");
    world.settle();
    assert_eq!(world.jobs_done, 6);
}

#[test]
fn what_was_pushed_is_looked_at_although_who_pushed_it_has_gone() {
    for answered in [true, false] {
        let mut world = World::new(settings());
        let mut client = Client::new("writer", document(7));
        client.edit("one");
        client.connect(&mut world);
        if answered {
            talk(&mut world, std::slice::from_mut(&mut client));
        } else {
            let is_write = |(_, request): &(_, Request)| matches!(request, Request::Write(_));
            while !world.asked.iter().any(is_write) {
                world.store_some(usize::MAX);
                while client.receive_one(&mut world) {}
            }
        }
        client.disconnect(&mut world);
        world.settle();
        world.pass_ms(300);
        world.settle();
        assert_eq!(world.jobs_done, 1, "answered: {answered}");
        assert!(world.store.documents[&document(7)].meta.snapshot_bytes > 0);
    }
}

#[test]
fn a_document_that_nobody_has_open_leaves_nothing_in_memory() {
    let mut world = World::new(settings());
    assert_eq!(
        (world.engine.connections(), world.engine.next_tick()),
        (0, None)
    );
    let mut asker = Client::new("asker", document(7));
    asker.connect(&mut world);
    talk(&mut world, std::slice::from_mut(&mut asker));
    let mut writer = settled(&mut world, "writer", document(8));
    assert_eq!(world.engine.connections(), 2);
    assert!(world.engine.next_tick().is_some());
    asker.disconnect(&mut world);
    writer.disconnect(&mut world);
    assert_eq!(world.engine.connections(), 0);
    assert_eq!(
        world.engine.next_tick(),
        None,
        "not even something to tidy up"
    );
}

#[test]
fn a_document_out_of_memory_still_knows_who_has_it_open() {
    let mut world = World::new(settings());
    let mut clients = vec![settled(&mut world, "writer", document(7))];
    for name in ["first", "second"] {
        let mut reader = Client::new(name, document(7));
        reader.connect(&mut world);
        clients.push(reader);
    }
    talk(&mut world, &mut clients);
    for _ in 0..2 {
        world.pass_ms(60_000);
        world.settle();
    }
    assert_eq!(world.engine.graph_bytes(), 0);
    clients.pop().unwrap().disconnect(&mut world);
    clients[0].edit("two");
    clients[0].send(&mut world);
    talk(&mut world, &mut clients);
    assert_eq!(clients[1].value().as_deref(), Some("two"));
}

#[test]
fn a_graph_is_let_go_once_it_was_idle_for_as_long_as_is_set() {
    let mut world = World::new(settings());
    let mut client = settled(&mut world, "writer", document(7));
    world.pass_ms(5_000);
    world.settle();
    // the next look through memory is in two seconds; a graph that was used a second before that is idle by then
    for (used_after_ms, idle) in [(1_001, false), (1_000, true)] {
        world.now_ms += used_after_ms;
        client.edit("used");
        client.send(&mut world);
        talk(&mut world, std::slice::from_mut(&mut client));
        assert!(world.engine.graph_bytes() > 0);
        world.pass_ms(1_999 - used_after_ms);
        assert!(world.engine.graph_bytes() > 0, "nobody has looked yet");
        world.pass_ms(1);
        assert_eq!(world.engine.graph_bytes() == 0, idle, "{used_after_ms}");
    }
}

#[test]
fn a_graph_stays_in_memory_while_something_of_it_is_under_way() {
    // a write, a job, a message that waits for the disk
    for what in ["write", "job", "read"] {
        let mut world = World::new(settings());
        let mut client = settled(&mut world, "writer", document(7));
        client.edit("two");
        client.send(&mut world);
        talk(&mut world, std::slice::from_mut(&mut client));
        let mut reader = Client::new("reader", document(7));
        match what {
            "write" => {
                client.edit("three");
                client.send(&mut world);
            }
            "job" => {
                outgrow(&mut world, &mut client);
                world.pass_ms(200);
            }
            _ => reader.connect(&mut world),
        }
        assert_eq!(world.asked.len(), 1, "{what}");
        world.pass_ms(60_000);
        world.pass_ms(60_000);
        assert!(world.engine.graph_bytes() > 0, "{what}");
        let mut clients = [client, reader];
        talk(&mut world, &mut clients);
        assert_eq!(world.store.heads(document(7)), clients[0].heads(), "{what}");
        world.pass_ms(60_000);
        world.settle();
        world.pass_ms(60_000);
        assert_eq!(world.engine.graph_bytes(), 0, "{what}");
    }
}

#[test]
fn a_graph_stays_in_memory_for_a_peer_that_lags_behind() {
    let mut world = World::new(settings());
    let writer = settled(&mut world, "writer", document(7));
    let mut clients = [writer, Client::new("reader", document(7))];
    clients[1].connect(&mut world);
    talk(&mut world, &mut clients);
    let connection = clients[1].connection.unwrap();
    world.input(Input::Congested { connection });
    clients[0].edit("two");
    clients[0].send(&mut world);
    talk(&mut world, &mut clients[..1]);
    world.pass_ms(60_000);
    assert!(world.engine.graph_bytes() > 0);
    world.input(Input::Drained { connection });
    talk(&mut world, &mut clients);
    assert_eq!(clients[1].value().as_deref(), Some("two"));
    world.pass_ms(60_000);
    assert_eq!(world.engine.graph_bytes(), 0);
}

/// Changes that together are exactly as long as a tail that is overdue may be, and one more.
#[test]
fn a_tail_of_more_than_64_mib_is_compacted_without_waiting_for_quiet() {
    let mut world = World::new(settings());
    world.is_unloadable = true;
    let connection = world.connect("writer", Access::Write);
    let mut forge = Forge::new(1);
    for bytes in [32 << 20, 32 << 20] {
        let message = message_of(&[forge.change(bytes)]);
        world.frame(
            connection,
            sync_frame("sync", "writer", document(7), &message),
        );
        world.settle();
    }
    let tail_bytes = |world: &World| world.store.documents[&document(7)].meta.tail_bytes;
    assert_eq!((tail_bytes(&world), reads(&world)), (64 << 20, 0));
    let message = message_of(&[forge.change(100)]);
    world.frame(
        connection,
        sync_frame("sync", "writer", document(7), &message),
    );
    world.store_some(1);
    assert_eq!(reads(&world), 1, "somebody has just spoken, and it begins");
}

#[test]
fn after_a_compaction_there_is_nothing_more_to_do() {
    let mut world = World::new(settings());
    let mut client = settled(&mut world, "writer", document(7));
    outgrow(&mut world, &mut client);
    world.pass_ms(200);
    world.settle();
    let done = world.jobs_done;
    assert_eq!(world.store.documents[&document(7)].meta.tail_bytes, 0);
    for _ in 0..5 {
        world.pass_ms(1_000);
        world.settle();
    }
    assert_eq!(world.jobs_done, done);
}

#[test]
fn the_worker_is_told_whether_somebody_waits_for_it() {
    let job = |world: &mut World| {
        world.store_some(usize::MAX);
        let (_, job) = world.jobs.back().unwrap();
        (job.kind, job.urgency)
    };
    for (is_asked_for, urgency) in [(true, Urgency::Waiting), (false, Urgency::Background)] {
        let mut world = World::new(settings());
        let mut client = Client::new("writer", document(7));
        client.edit("one");
        let connection = world.connect("writer", Access::Write);
        let message = message_of(&[client.doc.save()]);
        world.frame(
            connection,
            sync_frame("sync", "writer", document(7), &message),
        );
        world.settle();
        let mut reader = Client::new("reader", document(7));
        if is_asked_for {
            reader.connect(&mut world);
        }
        world.pass_ms(300);
        assert_eq!(job(&mut world), (JobKind::Index, urgency));
    }
    let mut world = World::new(settings());
    let mut client = settled(&mut world, "writer", document(7));
    outgrow(&mut world, &mut client);
    world.pass_ms(200);
    let compaction = (JobKind::Compact, Urgency::Background);
    assert_eq!(job(&mut world), compaction);
    world.settle();
    // a whole document onto one that exists: its sender waits
    let mut other = Client::new("other", document(7));
    other.edit("other");
    let connection = world.connect("other", Access::Write);
    let message = message_of(&[other.doc.save()]);
    world.frame(
        connection,
        sync_frame("sync", "other", document(7), &message),
    );
    assert_eq!(job(&mut world), (JobKind::Compact, Urgency::Waiting));
}

#[test]
fn beyond_the_budget_the_least_recently_used_graphs_go_first() {
    let run = |graph_bytes_max| {
        let mut world = World::new(Settings {
            graph_bytes_max,
            graph_idle_ms: u64::MAX,
            ..settings()
        });
        let mut clients: Vec<_> = (0..3)
            .map(|n| settled(&mut world, &format!("client {n}"), document(n)))
            .collect();
        let mut costs = vec![];
        // the first is used last
        for at in [1, 2, 0] {
            world.now_ms += 10;
            clients[at].edit("two");
            clients[at].send(&mut world);
            talk(&mut world, &mut clients);
            costs.push(world.engine.graph_bytes());
        }
        world.pass_ms(2_000);
        let mut in_memory = vec![];
        for (n, client) in clients.iter_mut().enumerate() {
            client.edit("three");
            client.send(&mut world);
            if reads(&world) == 0 {
                in_memory.push(n);
            }
            world.settle();
        }
        (costs, in_memory)
    };
    let (costs, in_memory) = run(usize::MAX);
    assert_eq!(in_memory, [0, 1, 2]);
    let (one, two) = (costs[0], costs[1]);
    assert_eq!(costs[2], 3 * one, "they are alike");
    assert_eq!(run(costs[2]).1, [0, 1, 2], "just within it");
    assert_eq!(run(two).1, [0, 2]);
    assert_eq!(run(two - 1).1, [0]);
    assert_eq!(run(one).1, [0]);
    assert_eq!(run(0).1, []);
}

/// A client whose change the full disk has refused just now.
fn refused(world: &mut World, client: &mut Client) {
    client.edit(&world.now_ms.to_string());
    client.send(world);
    world.fault = Some(Fault::Full);
    world.settle();
    while client.receive_one(world) {}
    assert_ne!(world.store.heads(client.id), client.heads());
}

/// After how many milliseconds who could not be served is asked to send again.
fn asked_again_after_ms(world: &mut World, client: &mut Client) -> u64 {
    for ms in 1..100_000 {
        world.pass_ms(1);
        let connection = client.connection.unwrap();
        if world
            .sent
            .get(&connection)
            .is_some_and(|sent| !sent.is_empty())
        {
            while client.receive_one(world) {}
            world.settle();
            return ms;
        }
    }
    panic!("it is never asked again");
}

#[test]
fn what_a_full_disk_refused_is_asked_for_again_less_and_less_often() {
    let mut world = World::new(settings());
    let mut client = settled(&mut world, "writer", document(7));
    refused(&mut world, &mut client);
    let waits: Vec<_> = (0..7)
        .map(|_| asked_again_after_ms(&mut world, &mut client))
        .collect();
    assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    world.fault = None;
    assert_eq!(asked_again_after_ms(&mut world, &mut client), 30_000);
    talk(&mut world, std::slice::from_mut(&mut client));
    assert_eq!(world.store.heads(document(7)), client.heads());
}

#[test]
fn a_disk_that_was_well_for_a_minute_is_tried_soon_again() {
    for (well_ms, wait_ms) in [(59_999, 2_000), (60_000, 1_000)] {
        let mut world = World::new(settings());
        let mut client = settled(&mut world, "writer", document(7));
        refused(&mut world, &mut client);
        world.fault = None;
        asked_again_after_ms(&mut world, &mut client);
        talk(&mut world, std::slice::from_mut(&mut client));
        world.pass_ms(well_ms);
        talk(&mut world, std::slice::from_mut(&mut client));
        refused(&mut world, &mut client);
        assert_eq!(asked_again_after_ms(&mut world, &mut client), wait_ms);
    }
}

#[test]
fn a_compaction_that_could_not_be_stored_is_tried_again_after_five_seconds() {
    let mut world = World::new(settings());
    let mut client = settled(&mut world, "writer", document(7));
    outgrow(&mut world, &mut client);
    world.pass_ms(200);
    world.fault = Some(Fault::Full);
    world.settle();
    let done = world.jobs_done;
    world.fault = None;
    world.pass_ms(4_999);
    assert!(world.asked.is_empty());
    world.pass_ms(1);
    world.settle();
    assert_eq!(world.jobs_done, done + 1);
    assert_eq!(world.store.documents[&document(7)].meta.tail_bytes, 0);
}

/// It was kept in memory alone, so that after a restart the worker had to fail at the document once more; and a graph
/// that was read meanwhile forgot it.
#[test]
fn a_quarantine_that_found_no_room_is_stored_later_and_the_worker_is_not_asked_again() {
    let mut world = World::new(settings());
    let mut client = settled(&mut world, "writer", document(7));
    outgrow(&mut world, &mut client);
    world.pass_ms(200);
    world.store_some(usize::MAX);
    let (ticket, _) = world.jobs.pop_front().unwrap();
    let outcome = WorkOutcome::Indigestible {
        reason: "it is too much".into(),
    };
    world.fault = Some(Fault::Full);
    world.input(Input::Worked { ticket, outcome });
    world.settle();
    // nobody has it open, its graph goes, and somebody comes back with an edit that the disk refuses too
    client.disconnect(&mut world);
    let done = world.jobs_done;
    for ms in [60_000, 60_000, 60_000, 2_000] {
        world.pass_ms(ms);
        world.settle();
    }
    assert_eq!(world.engine.graph_bytes(), 0);
    client.connect(&mut world);
    client.edit("while it is full");
    client.send(&mut world);
    talk(&mut world, std::slice::from_mut(&mut client));
    let quarantine = |world: &World| world.store.documents[&document(7)].meta.quarantine.clone();
    assert_eq!(quarantine(&world), None);

    world.fault = None;
    world.pass_ms(60_000);
    talk(&mut world, std::slice::from_mut(&mut client));
    assert_eq!(quarantine(&world).as_deref(), Some("it is too much"));
    assert_eq!(world.store.heads(document(7)), client.heads());
    assert_eq!(world.jobs_done, done);
    client.disconnect(&mut world);
    world.pass_ms(60_000);
    world.settle();
    world.pass_ms(60_000);
    assert_eq!(world.engine.next_tick(), None, "nothing is left to do");
}

#[test]
fn newcomers_one_after_the_other_keep_nobody_waiting_for_longer_than_one_does() {
    let mut world = World::new(settings());
    let mut asker = Client::new("asker", document(7));
    asker.connect(&mut world);
    world.connect("first", Access::Write);
    world.settle();
    world.pass_ms(200);
    world.connect("second", Access::Write);
    world.pass_ms(49);
    assert!(!asker.receive_one(&mut world));
    world.pass_ms(1);
    assert!(asker.receive_one(&mut world) && asker.unavailable);
}

#[test]
fn a_peer_that_has_it_not_after_all_keeps_nobody_waiting() {
    let mut world = World::new(settings());
    let mut writer = Client::new("writer", document(7));
    writer.edit("never sent");
    writer.connect(&mut world);
    world.pass_ms(1_000);
    world.settle();
    let mut asker = Client::new("asker", document(7));
    asker.connect(&mut world);
    world.settle();
    assert!(!asker.receive_one(&mut world));
    let id = document(7).to_string();
    let fields = [
        ("type", "doc-unavailable"),
        ("senderId", "writer"),
        ("targetId", "server"),
        ("documentId", id.as_str()),
    ];
    world.frame(writer.connection.unwrap(), frame(&fields, None));
    assert!(asker.receive_one(&mut world) && asker.unavailable);
}

#[test]
fn a_fresh_reader_is_served_by_one_read_of_the_disk() {
    let mut world = World::new(settings());
    settled(&mut world, "writer", document(7)).disconnect(&mut world);
    let mut reader = Client::new("reader", document(7));
    reader.connect(&mut world);
    let everything = |(_, request): &(_, Request)| {
        let Request::Read(read) = request else {
            return false;
        };
        matches!(
            read.what,
            ReadWhat::Chunks {
                from: 0,
                until: u64::MAX
            }
        )
    };
    assert!(world.asked.len() == 1 && world.asked.iter().all(everything));
    world.store_some(usize::MAX);
    assert!(reader.receive_one(&mut world) && reader.value().is_some());
    assert_eq!(reads(&world), 0);
    // one who has something is told whether there is more, and that is in the heads alone
    let mut again = Client::new("again", document(7));
    again.doc = reader.doc.fork();
    reader.disconnect(&mut world);
    again.connect(&mut world);
    let only_heads = |(_, request): &(_, Request)| matches!(request, Request::Read(read) if read.what == ReadWhat::Meta);
    assert!(world.asked.len() == 1 && world.asked.iter().all(only_heads));
}

#[test]
fn a_connection_that_does_not_keep_pace_is_told_of_everything_once_it_has_caught_up() {
    let mut world = World::new(settings());
    let writer = settled(&mut world, "writer", document(7));
    let mut reader = Client::new("reader", document(7));
    reader.connect(&mut world);
    let mut clients = [writer, reader];
    talk(&mut world, &mut clients);
    let connection = clients[1].connection.unwrap();
    world.input(Input::Congested { connection });
    for n in 0..3 {
        clients[0].edit(&n.to_string());
        clients[0].send(&mut world);
        talk(&mut world, &mut clients[..1]);
    }
    assert!(
        world.take(connection).is_none(),
        "it is not sent more than it takes"
    );
    world.input(Input::Drained { connection });
    world.settle();
    assert!(clients[1].receive_one(&mut world));
    assert_eq!(
        clients[1].heads(),
        clients[0].heads(),
        "one message is enough"
    );
}

/// The server knew the changes already, as they were on their way to the disk, and so did not hear them the second time;
/// when the disk refused them it asked the connection that had sent them first, which was gone. Found by the simulator.
#[test]
fn what_could_not_be_stored_is_asked_of_whoever_sent_it_once_more() {
    let mut world = World::new(settings());
    let mut writer = settled(&mut world, "writer", document(7));
    outgrow(&mut world, &mut writer);
    writer.edit("two");
    writer.send(&mut world);
    assert!(matches!(world.asked.front(), Some((_, Request::Write(_)))));
    writer.disconnect(&mut world);
    writer.connect(&mut world);
    while writer.receive_one(&mut world) {}
    world.fault = Some(Fault::Full);
    world.store_some(usize::MAX);
    world.fault = None;
    world.pass_ms(40_000);
    talk(&mut world, std::slice::from_mut(&mut writer));
    assert_eq!(world.store.heads(document(7)), writer.heads());
}
