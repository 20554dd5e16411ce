//! What one frame may cost that a device sends to hurt. An engine is one of many in a thread: while it is at a frame, no
//! other group is served.
//!
//! Time is that of the processor, and its bounds are several times what is needed: they are there to notice cost that
//! grows with the square of what is sent.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod world;

use std::{fs, time::Duration};

use automerge::{Automerge, ROOT, transaction::Transactable};
use engine::{
    Access, ConnectionId, Effect, Engine, Input, Refusal, Settings,
    limits::{BLOOM_PROBES_MAX, HAVES_MAX, HEADS_MAX, QUEUED_BYTES_MAX, QUEUED_MESSAGE_BYTES},
    storage::Answer,
};
use sha2::{Digest, Sha256};
use world::{
    Client, Forge, Received, World, document, join_frame, message_of, settings, sync_frame, talk,
    write_number,
};

const PEER: ConnectionId = ConnectionId(1);

/// An engine with one peer that has joined, and a store that forgets everything and says that it has it.
struct Target {
    engine: Engine,
    refused: Option<Refusal>,
    /// Whether the store keeps its answers to itself.
    is_held: bool,
}

impl Target {
    fn new() -> Self {
        let mut target = Self {
            engine: Engine::new(settings()),
            refused: None,
            is_held: false,
        };
        target.open(PEER);
        target
    }

    fn open(&mut self, connection: ConnectionId) {
        let access = Access::Write;
        self.input(Input::Opened { connection, access });
        let frame = join_frame("hostile");
        self.input(Input::Frame { connection, frame });
    }

    fn input(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let (mut effects, mut answers) = (vec![], vec![]);
            self.engine.handle(1_000_000, input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Send { .. } | Effect::Work { .. } => {}
                    Effect::Close { refusal, .. } => self.refused = Some(refusal),
                    Effect::Write { ticket, .. } => answers.push((ticket, Ok(Answer::Stored))),
                    Effect::Read { ticket, .. } => answers.push((ticket, Ok(Answer::Meta(None)))),
                }
            }
            if !answers.is_empty() && !self.is_held {
                inputs.push(Input::Answered(answers));
            }
        }
    }

    /// How long it takes until a message is dealt with.
    fn message(&mut self, message: &Message) -> Duration {
        let frame = sync_frame("sync", "hostile", document(7), &message.encode());
        let before = processor_time();
        self.input(Input::Frame {
            connection: PEER,
            frame,
        });
        let time = processor_time() - before;
        // shown when a bound is passed
        println!("{time:?}");
        time
    }
}

/// How long this thread has been at work, whoever else was.
fn processor_time() -> Duration {
    let statistics = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let ns = statistics.split(' ').next().unwrap();
    Duration::from_nanos(ns.parse().unwrap())
}

type Hash = [u8; 32];

#[derive(Default)]
struct Message {
    heads: Vec<Hash>,
    need: Vec<Hash>,
    have: Vec<u8>,
    changes: Vec<u8>,
    flags: &'static [u8],
}

impl Message {
    fn of(changes: &[Change]) -> Self {
        let changes = changes.iter().flat_map(|change| change.bytes.clone());
        Self {
            changes: changes.collect(),
            ..Self::default()
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![0x43];
        for hashes in [&self.heads, &self.need] {
            write_number(&mut out, hashes.len());
            out.extend(hashes.concat());
        }
        if self.have.is_empty() {
            out.push(0);
        } else {
            out.extend(&self.have);
        }
        write_number(&mut out, usize::from(!self.changes.is_empty()));
        if !self.changes.is_empty() {
            write_number(&mut out, self.changes.len());
            out.extend(&self.changes);
        }
        out.extend(self.flags);
        out
    }
}

struct Change {
    hash: Hash,
    bytes: Vec<u8>,
}

/// A change without operations.
fn change(actor: usize, seq: usize, deps: &[Hash]) -> Change {
    let mut contents = vec![];
    write_number(&mut contents, deps.len());
    contents.extend(deps.concat());
    contents.push(8);
    contents.extend(actor.to_le_bytes());
    write_number(&mut contents, seq);
    // first operation, time, no message, no other actors, no columns
    contents.extend([1, 0, 0, 0, 0, 0]);
    let mut chunk = vec![1];
    write_number(&mut chunk, contents.len());
    chunk.extend(contents);
    let hash: Hash = Sha256::digest(&chunk).into();
    let mut bytes = vec![0x85, 0x6f, 0x4a, 0x83];
    bytes.extend(&hash[..4]);
    bytes.extend(chunk);
    Change { hash, bytes }
}

/// Changes of one actor, each on top of the one before.
fn chain(length: usize) -> Vec<Change> {
    let mut changes: Vec<Change> = vec![];
    for seq in 1..=length {
        let deps: Vec<Hash> = changes.last().map(|last| last.hash).into_iter().collect();
        changes.push(change(0, seq, &deps));
    }
    changes
}

const SOON: Duration = Duration::from_secs(4);

#[test]
fn thousands_of_heads_cost_no_square_of_their_number_and_more_are_refused() {
    let root = change(0, 1, &[]);
    let of_root = |actor| change(actor, 1, &[root.hash]);
    let mut target = Target::new();
    let most: Vec<_> = (1..=HEADS_MAX).map(of_root).collect();
    target.message(&Message::of(std::slice::from_ref(&root)));
    assert!(target.message(&Message::of(&most)) < SOON);
    assert_eq!(target.refused, None);
    // one is what a device makes that edits beside them
    let beside = [1, 2].map(|more| of_root(HEADS_MAX + more));
    assert!(target.message(&Message::of(&beside)) < SOON);
    assert_eq!(target.refused, Some(Refusal::TooManyHeads));
    // refused as a whole, and no sooner: none of it is a head until all of it is there
    let mut target = Target::new();
    target.message(&Message::of(std::slice::from_ref(&root)));
    let too_many: Vec<_> = (1..=4 * HEADS_MAX).map(of_root).collect();
    assert!(target.message(&Message::of(&too_many)) < SOON);
    assert_eq!(target.refused, Some(Refusal::TooManyHeads));
}

#[test]
fn changes_that_depend_on_thousands_of_heads_cost_no_product_of_both() {
    let mut target = Target::new();
    let heads: Vec<_> = (1..=HEADS_MAX).map(|actor| change(actor, 1, &[])).collect();
    let hashes: Vec<Hash> = heads.iter().map(|change| change.hash).collect();
    target.message(&Message::of(&heads));
    let on_all = |actor| change(actor, 1, &hashes);
    let changes: Vec<_> = (1..=40).map(|more| on_all(HEADS_MAX + more)).collect();
    assert!(target.message(&Message::of(&changes)) < SOON);
    assert_eq!(target.refused, None);
}

#[test]
fn a_history_that_is_sent_backwards_costs_no_square_of_its_length() {
    let mut target = Target::new();
    let mut changes = chain(60_000);
    changes.reverse();
    assert!(target.message(&Message::of(&changes)) < 2 * SOON);
    assert_eq!(target.refused, None);
}

#[test]
fn heads_that_wait_for_each_other_are_looked_through_once() {
    let mut target = Target::new();
    let changes = chain(HEADS_MAX);
    let (_first, orphans) = changes.split_first().unwrap();
    target.message(&Message::of(orphans));
    let heads = orphans.iter().map(|orphan| orphan.hash).collect();
    let message = Message {
        heads,
        ..Message::default()
    };
    assert!(target.message(&message) < SOON);
    assert_eq!(target.refused, None);
}

#[test]
fn filters_that_contain_everything_cost_no_more_than_their_probes() {
    let mut target = Target::new();
    target.message(&Message::of(&chain(20_000)));
    // as many as may be, each of 64 bits that are all set, and asked as often as may be
    let haves = u8::try_from(HAVES_MAX).unwrap();
    let probes = u8::try_from(BLOOM_PROBES_MAX).unwrap();
    let filter = [&[0, 11, 1, 64, probes][..], &[0xff; 8]].concat();
    let mut have = vec![haves];
    (0..haves).for_each(|_| have.extend(&filter));
    let message = Message {
        heads: vec![[1; 32]],
        have,
        // sync reset: what was known of the peer does not count
        flags: &[2, 2, 0x85],
        ..Message::default()
    };
    assert!(target.message(&message) < SOON);
    assert_eq!(target.refused, None);
}

#[test]
fn a_document_is_sent_once_however_often_it_was_asked_for_while_it_was_read() {
    let mut world = World::new(settings());
    let mut writer = Client::new("writer", document(7));
    writer.edit(&"long".repeat(10_000));
    writer.connect(&mut world);
    talk(&mut world, std::slice::from_mut(&mut writer));
    world.crash();
    let connection = world.connect("hostile", Access::Read);
    for _ in 0..1_000 {
        let nothing = Message::default().encode();
        world.frame(
            connection,
            sync_frame("request", "hostile", document(7), &nothing),
        );
    }
    world.settle();
    let told: Vec<_> = std::iter::from_fn(|| world.take(connection)).collect();
    let with_changes = |received: &&Received| !received.sync_message().changes.is_empty();
    assert_eq!(told.iter().filter(with_changes).count(), 1);
}

#[test]
fn messages_that_wait_count_however_short_they_are() {
    let mut target = Target::new();
    target.is_held = true;
    let nothing = Message::default().encode();
    let frame = sync_frame("request", "hostile", document(7), &nothing);
    let most = QUEUED_BYTES_MAX / QUEUED_MESSAGE_BYTES;
    for _ in 0..most {
        let frame = frame.clone();
        target.input(Input::Frame {
            connection: PEER,
            frame,
        });
    }
    assert_eq!(target.refused, Some(Refusal::TooMuchQueued));
}

#[test]
fn what_has_waited_for_a_document_is_dealt_with_in_turns() {
    const MESSAGES: usize = 60;
    let mut world = World::new(settings());
    let connection = world.connect("hostile", Access::Write);
    let mut forge = Forge::new(1);
    for _ in 0..MESSAGES {
        let message = Message {
            changes: forge.change(4 << 10),
            ..Message::default()
        };
        let frame = sync_frame("sync", "hostile", document(7), &message.encode());
        world.frame(connection, frame);
    }
    // what there is of the document
    world.store_some(1);
    let (mut dealt_with, mut turns) = (world.asked.len(), 1);
    assert!((1..=5).contains(&dealt_with), "{dealt_with} in one turn");
    while dealt_with < MESSAGES {
        let tick = world.engine.next_tick();
        assert!(tick.is_some_and(|at_ms| at_ms <= world.now_ms), "{tick:?}");
        world.input(Input::Tick);
        assert!(world.asked.len() - dealt_with <= 5);
        (dealt_with, turns) = (world.asked.len(), turns + 1);
    }
    assert!(turns >= MESSAGES / 5, "{turns} turns");
    world.settle();
    assert!(world.closed.is_empty());
}

/// A document of so many changes that nothing depends on.
fn of_heads(from: usize, count: usize) -> Automerge {
    let (mut doc, mut all) = (Automerge::new(), vec![]);
    for number in from..from + count {
        let actor = (number as u64).to_be_bytes();
        let mut one = Automerge::new().with_actor(actor.as_slice().into());
        let mut transaction = one.transaction();
        transaction.put(ROOT, "key", number as u64).unwrap();
        transaction.commit();
        all.extend(one.get_changes(&[]));
    }
    doc.apply_changes(all).unwrap();
    doc
}

fn push_changes(world: &mut World, doc: &Automerge) {
    let writer = world.connect("writer", Access::Write);
    let changes: Vec<_> = doc
        .get_changes(&[])
        .iter()
        .map(|change| change.raw_bytes().to_vec())
        .collect();
    let message = message_of(&changes);
    world.frame(writer, sync_frame("sync", "writer", document(7), &message));
    world.settle();
    assert!(world.closed.is_empty(), "{:?}", world.closed);
}

/// Its heads are one more, and it was refused with all its documents, each time that it came.
#[test]
fn whoever_has_an_edit_beside_as_many_heads_as_are_allowed_is_not_sent_away() {
    let mut world = World::new(settings());
    let mut honest = Client::new("honest", document(7));
    honest.edit("one");
    push_changes(&mut world, &of_heads(0, HEADS_MAX));
    for _ in 0..3 {
        honest.connect(&mut world);
        talk(&mut world, std::slice::from_mut(&mut honest));
    }
    assert!(world.closed.is_empty(), "{:?}", world.closed);
    assert_eq!(honest.heads().len(), HEADS_MAX + 1);
}

#[test]
fn whole_documents_bring_no_more_heads_than_are_allowed() {
    let mut world = World::new(settings());
    let half = HEADS_MAX / 2 + 1;
    push_changes(&mut world, &of_heads(0, half));
    let pusher = world.connect("pusher", Access::Write);
    let message = message_of(&[of_heads(half, half).save()]);
    world.frame(pusher, sync_frame("sync", "pusher", document(7), &message));
    world.settle();
    assert_eq!(world.closed, [(pusher, Refusal::TooManyHeads)].into());
    let mut clients = [Client::new("honest", document(7))];
    clients[0].connect(&mut world);
    talk(&mut world, &mut clients);
    assert_eq!(clients[0].heads().len(), half);
}

#[test]
fn graphs_of_peers_that_say_little_go_when_they_are_too_many() {
    let mut world = World::new(Settings {
        graph_bytes_max: 20_000,
        ..settings()
    });
    for n in 0..50 {
        let mut writer = Client::new("writer", document(n));
        for k in 0..30 {
            writer.edit(&format!("{k}"));
        }
        writer.connect(&mut world);
        talk(&mut world, std::slice::from_mut(&mut writer));
        writer.disconnect(&mut world);
        world.pass_ms(300);
        world.settle();
    }
    world.pass_ms(100_000);
    world.settle();
    let hostile = world.connect("hostile", Access::Write);
    for n in 0..50 {
        // heads that nobody has, no `have`
        let mut message = vec![0x42, 1];
        message.extend([9; 32]);
        message.extend([0, 0, 0]);
        world.frame(
            hostile,
            sync_frame("sync", "hostile", document(n), &message),
        );
        world.settle();
    }
    for _ in 0..200 {
        world.pass_ms(3_000);
        world.settle();
    }
    let bytes = world.engine.graph_bytes();
    assert!(bytes <= 20_000, "{bytes}");
}
