//! Random histories, random losses: the change graph and Automerge's own documents end up the same.
#![allow(
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod world;

use engine::Input;
use proptest::prelude::*;
use world::{Client, Dice, World, document, settings, talk};

/// What happens in one run.
#[derive(Debug, Clone, Copy)]
struct Plan {
    seed: u64,
    clients: usize,
    steps: usize,
    crashes: bool,
    faults: bool,
}

fn run(plan: Plan) {
    let mut dice = Dice(plan.seed);
    let mut world = World::new(settings());
    let id = document(7);
    let mut clients: Vec<_> = (0..plan.clients)
        .map(|n| Client::new(&format!("client {n}"), id))
        .collect();
    for step in 0..plan.steps {
        step_once(plan, step, &mut dice, &mut world, &mut clients);
    }
    // everything that was wrong is over
    world.fault = None;
    for client in &mut clients {
        client.disconnect(&mut world);
        client.connect(&mut world);
    }
    for _ in 0..4 {
        talk(&mut world, &mut clients);
        world.pass_ms(40_000);
    }
    talk(&mut world, &mut clients);
    let stored = world.store.heads(id);
    for client in &clients {
        assert_eq!(
            client.heads(),
            stored,
            "{plan:?}: {} differs from the disk",
            client.name
        );
    }
    assert!(world.closed.is_empty(), "{plan:?}: {:?}", world.closed);
}

fn step_once(plan: Plan, step: usize, dice: &mut Dice, world: &mut World, clients: &mut [Client]) {
    let at = dice.below(clients.len());
    let client = &mut clients[at];
    match dice.below(20) {
        0..=4 => {
            client.edit(&format!("{step}"));
            if dice.one_in(2) {
                client.send(world);
            }
        }
        5 => {
            for n in 0..dice.below(30) {
                client.edit(&format!("{step} {n}"));
            }
            client.send(world);
        }
        6 if client.connection.is_none() => client.connect(world),
        6 if dice.one_in(3) => client.disconnect(world),
        7 if dice.one_in(4) => {
            // the device forgets how far it was, but not the document
            client.disconnect(world);
            client.state = automerge::sync::State::new();
            client.connect(world);
        }
        8..=12 => drop(client.receive_one(world)),
        13..=15 => world.store_some(dice.below(4) + 1),
        16 => world.work_one(),
        17 => world.pass_ms(dice.below(1_500) as u64),
        18 => {
            if let Some(connection) = client.connection {
                let input = if dice.one_in(2) {
                    Input::Congested { connection }
                } else {
                    Input::Drained { connection }
                };
                world.input(input);
            }
        }
        19 if plan.crashes && dice.one_in(6) => {
            world.crash();
            clients
                .iter_mut()
                .for_each(|client| client.connection = None);
        }
        19 if plan.faults => {
            let fault = engine::storage::Fault::Full;
            world.fault = if world.fault.is_none() && dice.one_in(3) {
                Some(fault)
            } else {
                None
            };
        }
        _ => {}
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    (
        any::<u64>(),
        1..5usize,
        20..300usize,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(seed, clients, steps, crashes, faults)| Plan {
            seed,
            clients,
            steps,
            crashes,
            faults,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_documents_end_up_the_same(plan in plans()) {
        run(plan);
    }
}

/// A compaction was done but for the appends that were on their way to the disk when it filled up: nobody told the
/// compaction that they had ended, and every message waited for it for ever.
#[test]
fn a_compaction_goes_on_after_the_appends_it_waited_for_have_failed() {
    run(Plan {
        seed: 4974263716906479707,
        clients: 4,
        steps: 153,
        crashes: false,
        faults: true,
    });
}

/// A peer's bloom filter held a change of ours by mistake, so what it was sent could not be applied. It asked to begin
/// anew, and was not heard: the server thought that it knew how far that peer was.
#[test]
fn a_peer_whose_filter_was_wrong_is_heard_when_it_begins_anew() {
    run(Plan {
        seed: 6552778358000003769,
        clients: 2,
        steps: 219,
        crashes: false,
        faults: true,
    });
}

/// A full disk refused a chunk; the orphan behind it fitted, and brought heads along that counted the chunk in. After
/// a restart these were told to everybody.
#[test]
fn an_orphan_that_is_stored_says_nothing_of_heads() {
    run(Plan {
        seed: 12304338536942981534,
        clients: 3,
        steps: 268,
        crashes: true,
        faults: true,
    });
}

/// A full disk refused some chunks and took an orphan that had come behind them. By then other changes had the places in
/// the graph that those had had, and were taken for stored with the orphan: they were told to everybody before their
/// own commit.
#[test]
fn an_orphan_that_is_stored_makes_nothing_else_durable() {
    run(Plan {
        seed: 13378926131949782121,
        clients: 2,
        steps: 261,
        crashes: true,
        faults: true,
    });
}
