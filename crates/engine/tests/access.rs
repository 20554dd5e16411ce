//! What a session may do, and what becomes of that when it changes underfoot.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod world;

use automerge::sync::MessageFlags;
use engine::{Access, Input, Refusal};
use world::{
    Client, World, document, in_step, message_of, pushed, settings, sync_frame, talk, write_noise,
};

#[test]
fn a_read_only_session_reads_and_what_it_sends_is_stored_nowhere() {
    let mut world = World::new(settings());
    let writer = pushed(&mut world, "writer");
    let before = world.store.heads(document(7));
    let mut reader = Client::new("reader", document(7));
    reader.connect_as(&mut world, Access::Read);
    let mut clients = [writer, reader];
    talk(&mut world, &mut clients);
    assert_eq!(clients[1].value().as_deref(), Some("one"));
    assert!(
        clients[1].state.peer_read_only,
        "it was told that we take nothing"
    );
    clients[1].edit("not allowed");
    clients[1].send(&mut world);
    // and one that does not know the flag sends its changes all the same
    let changes = clients[1].doc.get_changes(&[]);
    let message = message_of(&[changes.last().unwrap().raw_bytes()]);
    let connection = clients[1].connection.unwrap();
    world.frame(
        connection,
        sync_frame("sync", "reader", document(7), &message),
    );
    talk(&mut world, &mut clients);
    assert_eq!(world.store.heads(document(7)), before);
    assert_eq!(clients[0].value().as_deref(), Some("one"));
    assert!(!world.closed.contains_key(&connection));
}

#[test]
fn a_session_that_may_only_read_from_now_on_is_told_so() {
    let mut world = World::new(settings());
    let [_writer, reader] = in_step(&mut world);
    let connection = reader.connection.unwrap();
    while world.take(connection).is_some() {}
    world.input(Input::AccessChanged {
        connection,
        access: Some(Access::Read),
    });
    world.settle();
    let told = world.take(connection);
    assert!(told.is_some_and(|f| {
        f.sync_message()
            .flags
            .unwrap()
            .contains(MessageFlags::READ_ONLY)
    }));
}

#[test]
fn a_session_that_may_write_is_asked_at_once_for_what_it_kept() {
    let mut world = World::new(settings());
    let [writer, mut reader] = in_step(&mut world);
    reader.disconnect(&mut world);
    reader.connect_as(&mut world, Access::Read);
    talk(&mut world, std::slice::from_mut(&mut reader));
    reader.edit("kept");
    reader.send(&mut world);
    talk(&mut world, std::slice::from_mut(&mut reader));
    let connection = reader.connection.unwrap();
    world.input(Input::AccessChanged {
        connection,
        access: Some(Access::Write),
    });
    let mut clients = [writer, reader];
    talk(&mut world, &mut clients);
    assert_eq!(world.store.heads(document(7)), clients[1].heads());
}

#[test]
fn a_session_that_may_write_again_is_asked_for_what_it_kept() {
    let mut world = World::new(settings());
    let writer = pushed(&mut world, "writer");
    let mut reader = Client::new("reader", document(7));
    reader.connect_as(&mut world, Access::Read);
    let mut clients = [writer, reader];
    talk(&mut world, &mut clients);
    clients[1].edit("later");
    clients[1].send(&mut world);
    talk(&mut world, &mut clients);
    let connection = clients[1].connection.unwrap();
    world.input(Input::AccessChanged {
        connection,
        access: Some(Access::Write),
    });
    clients[0].edit("goes on");
    clients[0].send(&mut world);
    talk(&mut world, &mut clients);
    assert_eq!(clients[0].heads(), clients[1].heads());
}

#[test]
fn a_session_that_may_write_later_is_asked_again_for_what_it_had_sent() {
    let mut world = World::new(settings());
    let [writer, mut reader] = in_step(&mut world);
    // it is told that it may only read when it has sent an edit already
    let connection = reader.connection.unwrap();
    world.input(Input::AccessChanged {
        connection,
        access: Some(Access::Read),
    });
    reader.edit("kept");
    reader.send(&mut world);
    let mut clients = [writer, reader];
    talk(&mut world, &mut clients);
    world.input(Input::AccessChanged {
        connection,
        access: Some(Access::Write),
    });
    clients[1].edit("and another");
    clients[1].send(&mut world);
    clients[0].edit("others go on");
    clients[0].send(&mut world);
    talk(&mut world, &mut clients);
    assert_eq!(world.store.heads(document(7)), clients[1].heads());
    assert_eq!(clients[0].heads(), clients[1].heads());
}

#[test]
fn a_revoked_session_is_closed_and_hears_nothing_more() {
    let mut world = World::new(settings());
    let writer = pushed(&mut world, "writer");
    let mut reader = Client::new("reader", document(7));
    reader.connect(&mut world);
    let mut clients = [writer, reader];
    talk(&mut world, &mut clients);
    let connection = clients[1].connection.unwrap();
    world.input(Input::AccessChanged {
        connection,
        access: None,
    });
    assert_eq!(world.closed.get(&connection), Some(&Refusal::SessionEnded));
    world.sent.remove(&connection);
    clients[0].edit("secret");
    clients[0].send(&mut world);
    talk(&mut world, &mut clients[..1]);
    assert!(
        world
            .sent
            .get(&connection)
            .is_none_or(|frames| frames.is_empty())
    );
}

/// It asked for the document, heard that there is none, and began it.
#[test]
fn a_session_that_may_write_is_asked_for_a_document_that_it_has_begun_while_it_might_not() {
    let mut world = World::new(settings());
    let mut reader = Client::new("reader", document(7));
    reader.connect_as(&mut world, Access::Read);
    talk(&mut world, std::slice::from_mut(&mut reader));
    assert!(reader.unavailable);
    reader.edit("begun");
    reader.send(&mut world);
    talk(&mut world, std::slice::from_mut(&mut reader));
    assert!(
        reader.state.peer_read_only,
        "it was told that we take nothing"
    );
    assert_eq!(world.store.heads(document(7)), []);

    world.input(Input::AccessChanged {
        connection: reader.connection.unwrap(),
        access: Some(Access::Write),
    });
    talk(&mut world, std::slice::from_mut(&mut reader));
    assert_eq!(world.store.heads(document(7)), reader.heads());
}

/// What it had sent was not looked at. Then what it lacked was read from chunks whose place a snapshot took meanwhile, and
/// as its socket was full again, it was to be told of the heads anew.
#[test]
fn a_session_that_may_write_is_asked_for_what_it_kept_also_if_all_was_to_be_sent_to_it_anew() {
    let mut world = World::new(settings());
    let [mut writer, mut reader] = in_step(&mut world);
    let connection = reader.connection.unwrap();
    let may = |access| Input::AccessChanged {
        connection,
        access: Some(access),
    };
    world.input(may(Access::Read));
    reader.edit("kept");
    reader.send(&mut world);
    talk(&mut world, std::slice::from_mut(&mut reader));
    world.input(Input::Congested { connection });
    write_noise(&mut world, &mut writer, 4, 144_000);
    world.input(Input::Drained { connection });
    assert_eq!(world.asked.len(), 1, "more than is kept in memory");
    world.pass_ms(10_000);
    while world.asked.len() > 1 || !world.jobs.is_empty() {
        world.work_one();
        if world.asked.len() > 1 {
            let done = world.do_at(1);
            world.input(Input::Answered(vec![done]));
        }
    }
    world.input(Input::Congested { connection });
    world.store_some(1);
    world.input(may(Access::Write));
    world.input(Input::Drained { connection });

    let mut clients = [writer, reader];
    talk(&mut world, &mut clients);
    assert_eq!(world.store.heads(document(7)), clients[1].heads());
    assert_eq!(clients[0].heads(), clients[1].heads());
}
