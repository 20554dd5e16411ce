//! Every message goes to two servers, the engine and Automerge's own sync protocol, and they have to agree.
//!
//! Who talks are real Automerge documents with their sync states, and peers that say whatever can be said: any heads,
//! wishes and filters, changes in any order, deflated or not, as whole documents and as bundles. After each message the
//! same must hold of both servers: which changes they have, their heads, and what they ask whom for. An answer carries
//! what Automerge says that the peer lacks by its own words, and nothing that it is known to have; Automerge's decoder
//! takes it, and its encoder would write it so.
//!
//! The engine differs on purpose in this:
//!
//! * Who lacks anything inside the snapshot gets all that is stored (decision 5).
//! * Its `have` is its heads, and no filter (decision 6).
//! * What was sent or came on a connection is not sent again, whatever later filters say; to a peer that asks to begin
//!   anew everything is, once for the same heads (decision 7). Who has our heads has all that we have.
//! * Changes do not go back to who has sent them, unless orphans were taken in along with them.
//! * Of a document that was pushed whole, the others are told the heads, and get the rest when they ask (decision 3); so
//!   is who has asked for a document before there was one.
//! * To a device that says nothing of what it has, `need` alone is answered, and nothing that is new.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod world;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
};

use automerge::{
    Automerge, Change,
    sync::{BloomFilter, ChunkList, Have, Message, MessageFlags, MessageVersion, State, SyncDoc},
};
use engine::{Access, ChangeHash, ConnectionId, DocumentId, storage::DocumentMeta};
use proptest::prelude::*;
use world::{
    Client, Dice, World, chunk_of, describe, document, edit_any, hashes, ours, settings, sync_frame,
};

type Hashes = BTreeSet<ChangeHash>;

/// Where a chunk says of what kind it is.
const KIND_AT: usize = 8;
const CHANGE: u8 = 1;
const DEFLATED_CHANGE: u8 = 2;

/// What is known of a peer from what was said on its connection.
struct Line {
    name: String,
    access: Access,
    /// What it last said its heads are; nothing if it has said nothing yet.
    heads: Option<Vec<automerge::ChangeHash>>,
    /// What it is known to have; nothing while it has not said.
    has: Option<Hashes>,
    /// Our heads when it last asked to begin anew.
    began_anew: Option<Vec<automerge::ChangeHash>>,
    takes_nothing: bool,
    has_sent_flags: bool,
    /// It remembers a sync that we do not: our next message asks it to begin anew, or the last one did.
    anew: Anew,
    /// It was told the heads at most, because a document was pushed whole or there is none, and has to ask again.
    must_ask: bool,
    /// What it was last told and asked for.
    told: Vec<automerge::ChangeHash>,
    need: Vec<automerge::ChangeHash>,
    /// What has come for it and was not looked at.
    inbox: VecDeque<Message>,
}

#[derive(PartialEq, Eq)]
enum Anew {
    No,
    Due,
    Asked,
}

/// Who has spoken last, and what must come of its `need`; what may come besides.
struct Spoke {
    connection: ConnectionId,
    wanted: Hashes,
    optional: Hashes,
}

/// Both servers.
struct Servers {
    id: DocumentId,
    world: World,
    twin: Automerge,
    lines: BTreeMap<ConnectionId, Line>,
    /// Every change that was sent by somebody who may write.
    sent: Hashes,
    /// Whether a whole document was stored when the last message came.
    had_whole: bool,
}

impl Servers {
    fn new(id: DocumentId, world: World) -> Self {
        Self {
            id,
            world,
            twin: Automerge::new(),
            lines: BTreeMap::new(),
            sent: Hashes::new(),
            had_whole: false,
        }
    }

    fn open(&mut self, name: &str, access: Access) -> ConnectionId {
        let connection = self.world.connect(name, access);
        let line = Line {
            name: name.into(),
            access,
            heads: None,
            has: None,
            began_anew: None,
            takes_nothing: false,
            has_sent_flags: false,
            anew: Anew::No,
            must_ask: false,
            told: vec![],
            need: vec![],
            inbox: VecDeque::new(),
        };
        self.lines.insert(connection, line);
        connection
    }

    fn close(&mut self, connection: ConnectionId) {
        self.lines.remove(&connection);
        self.world.disconnect(connection);
    }

    fn restart(&mut self) {
        self.lines.clear();
        self.world.crash();
    }

    /// Has both servers take a message, and compares what came of it.
    fn say(&mut self, connection: ConnectionId, message: &Message) {
        let (before, heads) = (hashes(&self.twin), self.twin.get_heads());
        let without_need = Message {
            need: vec![],
            changes: ChunkList::empty(),
            ..message.clone()
        };
        let lacks = answer(&self.twin, &without_need);
        let line = self.lines.get_mut(&connection).unwrap();
        line.hear(message, &before, &heads, &lacks);
        let begins_anew = line.anew == Anew::Due;

        let is_request = message.heads.is_empty() && message.changes.is_empty();
        let kind = if is_request { "request" } else { "sync" };
        let frame = sync_frame(kind, &line.name, self.id, &message.clone().encode());
        if self.world.trace {
            println!("{connection:?} -> {}", describe(message));
        }
        self.world.frame(connection, frame);
        self.world.settle();

        let need: Hashes = message.need.iter().map(ours).collect();
        // who has our heads is not looked for in the graph, and who must begin anew asks again
        let answers_need = message.heads != heads && !begins_anew;
        let wanted = if answers_need {
            &need & &before
        } else {
            Hashes::new()
        };
        let (waited, carried) = (&self.sent - &before, changes_in(message));
        let mut echo = Hashes::new();
        if line.access == Access::Write {
            let without_flags = Message {
                flags: None,
                ..message.clone()
            };
            self.twin
                .receive_sync_message(&mut State::new(), without_flags)
                .unwrap();
            let after = hashes(&self.twin);
            let own = &(&after - &before) & &carried;
            // a document that is pushed whole has come from here, whatever its sender says of itself
            if before.is_empty() && is_pushed(&self.world, self.id) {
                line.has = Some(after.clone());
            }
            match &mut line.has {
                Some(has) if waited.is_disjoint(&after) => has.extend(own),
                _ => echo = own,
            }
            self.sent.extend(carried);
        }
        let mut optional = &need | &echo;
        if message.heads == heads {
            optional.extend(&before);
        }
        let spoke = Spoke {
            connection,
            wanted,
            optional,
        };
        self.compare(&before, Some(spoke));
    }

    /// Compares the servers, and what each peer was told with what it had to be told since there was what was `before`.
    fn compare(&mut self, before: &Hashes, spoke: Option<Spoke>) {
        let (all, heads) = (hashes(&self.twin), self.twin.get_heads());
        assert_eq!(
            self.world.store.heads_and_ancestors(self.id),
            all,
            "the changes differ"
        );
        assert!(self.world.closed.is_empty(), "{:?}", self.world.closed);
        let is_pushed = is_pushed(&self.world, self.id);
        let meta = meta(&self.world, self.id);
        let has_whole = is_pushed || meta.is_some_and(|meta| meta.snapshot_bytes > 0);
        for (connection, line) in &mut self.lines {
            let spoke = spoke
                .as_ref()
                .filter(|spoke| spoke.connection == *connection);
            // who has pushed it has spoken too
            let hears_heads_alone = is_pushed && (spoke.is_none() || before.is_empty());
            let heard_before = line.inbox.len();
            let carried = line.receive(*connection, &mut self.world, hears_heads_alone);
            line.check_carried(&carried, [before, &all], spoke, [self.had_whole, has_whole]);
            line.check_told(&self.twin, &heads, line.inbox.len() > heard_before);
        }
        self.had_whole = has_whole;
    }
}

impl Line {
    /// Takes note of a message, whose sender `lacks` what Automerge would answer.
    fn hear(
        &mut self,
        message: &Message,
        all: &Hashes,
        heads: &[automerge::ChangeHash],
        lacks: &Message,
    ) {
        let mut begins_anew = message.heads.is_empty();
        if let Some(flags) = message.flags {
            self.has_sent_flags = true;
            self.takes_nothing = flags.contains(MessageFlags::READ_ONLY);
            begins_anew |= flags.contains(MessageFlags::SYNC_RESET);
        }
        if is_reset(message) && self.began_anew.as_deref() != Some(heads) {
            self.began_anew = Some(heads.to_vec());
            begins_anew = true;
        }
        if begins_anew {
            self.has = None;
        }
        self.heads = Some(message.heads.clone());
        self.must_ask = false;
        if self.has.is_some() {
            return;
        }
        let is_unknown = |have: &Have| have.last_sync.iter().any(|hash| !all.contains(&ours(hash)));
        if message.heads.is_empty() && message.changes.is_empty() {
            self.must_ask = all.is_empty();
            self.has = (!self.must_ask).then(Hashes::new);
        } else if message.heads == heads {
            self.has = Some(all.clone());
        } else if message.have.iter().any(is_unknown) {
            // Automerge looks at the first alone, and there is never a second
            let is_first = message.have.first().is_some_and(is_unknown);
            assert!(
                !is_first || lacks.have == [Have::default()],
                "Automerge would not ask for it"
            );
            self.anew = Anew::Due;
        } else if !message.have.is_empty() {
            self.has = Some(all - &changes_in(lacks));
        }
    }

    /// The changes in all that has come.
    fn receive(
        &mut self,
        connection: ConnectionId,
        world: &mut World,
        hears_heads_alone: bool,
    ) -> Hashes {
        let mut carried = Hashes::new();
        while let Some(frame) = world.take(connection) {
            if frame.kind == "doc-unavailable" {
                continue;
            }
            let message = frame.sync_message();
            assert_eq!(
                message.clone().encode(),
                frame.data,
                "Automerge would write it otherwise"
            );
            let version = if self.has_sent_flags {
                MessageVersion::V2
            } else {
                MessageVersion::V1
            };
            assert_eq!(message.version, version);
            let flags = message.flags.unwrap();
            assert_eq!(
                flags.contains(MessageFlags::READ_ONLY),
                self.access == Access::Read
            );
            self.anew = match mem::replace(&mut self.anew, Anew::No) {
                Anew::Due => Anew::Asked,
                Anew::No | Anew::Asked => Anew::No,
            };
            let last_sync = if self.anew == Anew::Asked {
                vec![]
            } else {
                message.heads.clone()
            };
            assert_eq!(
                message.have,
                [Have {
                    last_sync,
                    ..Have::default()
                }]
            );
            carried.extend(changes_in(&message));
            self.must_ask = hears_heads_alone;
            self.told.clone_from(&message.heads);
            self.need.clone_from(&message.need);
            self.inbox.push_back(message);
        }
        carried
    }

    /// Whether it got all that it lacked of `all`, and what it has asked for, and nothing else; everything, if some of
    /// that may lie in a whole document.
    fn check_carried(
        &mut self,
        carried: &Hashes,
        [before, all]: [&Hashes; 2],
        spoke: Option<&Spoke>,
        [had_whole, has_whole]: [bool; 2],
    ) {
        assert!(carried.is_subset(all), "sent what is not stored");
        let (mut due, mut may) = (Hashes::new(), Hashes::new());
        if !self.takes_nothing {
            may = self.has.as_ref().map_or(may, |has| all - has);
            due.clone_from(&may);
            if let Some(spoke) = spoke {
                due = &due - &spoke.optional;
                due.extend(&spoke.wanted);
                may.extend(&spoke.optional);
            }
        }
        if !self.must_ask {
            let missing = &due - carried;
            assert!(
                missing.is_empty(),
                "{} changes did not come to {}",
                missing.len(),
                self.name
            );
        }
        let more = carried - &may;
        if !more.is_empty() {
            assert!(has_whole, "{} changes came without need", more.len());
            assert!(
                before.is_subset(carried),
                "neither what was due nor everything"
            );
            assert!(!may.is_empty(), "everything came without need");
        }
        if had_whole && before.is_subset(carried) {
            self.has = Some(all.clone());
        }
        let known = if self.must_ask { carried } else { all };
        self.has.iter_mut().for_each(|has| has.extend(known));
    }

    /// Whether it knows our heads, and what we want of it.
    fn check_told(&self, twin: &Automerge, heads: &[automerge::ChangeHash], heard: bool) {
        let Some(theirs) = &self.heads else {
            return assert!(
                self.inbox.is_empty(),
                "spoken to before it has said anything"
            );
        };
        assert_eq!(self.told, heads);
        let mut state = State {
            their_heads: Some(theirs.clone()),
            ..State::new()
        };
        let need = twin.generate_sync_message(&mut state).unwrap().need;
        let need = if self.access == Access::Write {
            need
        } else {
            vec![]
        };
        // who is asked to begin anew is asked for nothing else
        let is_told = self.anew == Anew::No && !self.must_ask;
        // and that nothing is wanted any more goes without saying
        if is_told && (heard || !need.is_empty()) {
            assert_eq!(
                self.need, need,
                "asked for something else than Automerge would"
            );
        }
    }
}

fn meta(world: &World, id: DocumentId) -> Option<&DocumentMeta> {
    let stored = world.store.documents.get(&id);
    stored.map(|stored| &stored.meta)
}

/// Whether a document was pushed whole, and its index is not there yet.
fn is_pushed(world: &World, id: DocumentId) -> bool {
    meta(world, id).is_some_and(|meta| meta.has_pushed)
}

/// What Automerge would answer if it had never heard of the sender, in single changes.
fn answer(doc: &Automerge, message: &Message) -> Message {
    let (mut doc, mut state) = (doc.clone(), State::new());
    let message = Message {
        flags: None,
        ..message.clone()
    };
    doc.receive_sync_message(&mut state, message).unwrap();
    doc.generate_sync_message(&mut state).unwrap()
}

/// Source: Automerge sync protocol, "reset".
fn is_reset(message: &Message) -> bool {
    !message.heads.is_empty()
        && message.changes.is_empty()
        && message.have.contains(&Have::default())
}

/// All changes in a message, whatever way they are packed.
fn changes_in(message: &Message) -> Hashes {
    let bytes: Vec<u8> = message.changes.iter().flatten().copied().collect();
    let (mut found, mut rest) = (Hashes::new(), &bytes[..]);
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(chunk_bytes(rest));
        rest = after;
        match chunk[KIND_AT] {
            CHANGE | DEFLATED_CHANGE => {
                let change = Change::from_bytes(chunk.to_vec()).unwrap();
                found.insert(ours(&change.hash()));
            }
            _ => found.extend(hashes(&Automerge::load(chunk).unwrap())),
        }
    }
    found
}

/// How long the first chunk is. Source: Automerge binary format, "chunk header".
fn chunk_bytes(bytes: &[u8]) -> usize {
    let (mut length, mut at) = (0, KIND_AT);
    loop {
        at += 1;
        length |= usize::from(bytes[at] & 0x7f) << (7 * (at - KIND_AT - 1));
        if bytes[at] & 0x80 == 0 {
            return at + 1 + length;
        }
    }
}

/// What happens in one run.
#[derive(Debug, Clone, Copy)]
struct Plan {
    seed: u64,
    devices: usize,
    steps: usize,
    /// Whether there is ever a snapshot; if not, answers are compared change by change to the end.
    compacts: bool,
}

/// Both servers, the devices, and those who say anything.
struct Run {
    dice: Dice,
    servers: Servers,
    devices: Vec<Client>,
    strangers: Vec<ConnectionId>,
    /// All that was ever written.
    library: Automerge,
}

impl Run {
    fn new(plan: Plan) -> Self {
        let mut settings = settings();
        if !plan.compacts {
            settings.compaction.floor_bytes = 1 << 40;
        }
        let id = document(7);
        let device = |n| Client::new(&format!("device {n}"), id);
        Self {
            dice: Dice(plan.seed),
            servers: Servers::new(id, World::new(settings)),
            devices: (0..plan.devices).map(device).collect(),
            strangers: vec![],
            library: Automerge::new(),
        }
    }

    fn step(&mut self) {
        let at = self.dice.below(self.devices.len());
        match self.dice.below(20) {
            0..=4 => self.edit(at),
            5 => self.meet(at),
            6..=9 => drop(self.speak(at)),
            10..=13 => drop(self.listen(at)),
            14 => self.reconnect(at),
            15..=17 => self.babble(),
            18 => {
                self.servers.world.pass_ms(self.dice.below(3_000) as u64);
                self.servers.world.settle();
                let all = hashes(&self.servers.twin);
                self.servers.compare(&all, None);
            }
            _ if self.dice.one_in(4) => self.restart(),
            _ => {
                let read_only = self.dice.one_in(2);
                self.devices[at].state.set_read_only(read_only);
            }
        }
    }

    fn edit(&mut self, at: usize) {
        for _ in 0..=self.dice.below(3) {
            edit_any(&mut self.devices[at].doc, &mut self.dice);
        }
        self.library.merge(&mut self.devices[at].doc).unwrap();
    }

    /// Two devices are in step without a server.
    fn meet(&mut self, at: usize) {
        let other = self.dice.below(self.devices.len());
        let mut other = self.devices[other].doc.clone();
        self.devices[at].doc.merge(&mut other).unwrap();
    }

    /// Has a device say what Automerge wants to say; whether it was anything.
    fn speak(&mut self, at: usize) -> bool {
        let device = &mut self.devices[at];
        let Some(connection) = device.connection else {
            return false;
        };
        let Some(message) = device.doc.generate_sync_message(&mut device.state) else {
            return false;
        };
        self.servers.say(connection, &message);
        true
    }

    /// Has a device take a message; whether there was one.
    fn listen(&mut self, at: usize) -> bool {
        let device = &mut self.devices[at];
        let line = device
            .connection
            .and_then(|connection| self.servers.lines.get_mut(&connection));
        let Some(message) = line.and_then(|line| line.inbox.pop_front()) else {
            return false;
        };
        device
            .doc
            .receive_sync_message(&mut device.state, message)
            .unwrap();
        true
    }

    /// A device comes back with what devices remember, or with nothing but the document.
    fn reconnect(&mut self, at: usize) {
        let access = if self.dice.one_in(4) {
            Access::Read
        } else {
            Access::Write
        };
        let forgets = self.dice.one_in(3);
        self.reconnect_as(at, access, forgets);
    }

    fn reconnect_as(&mut self, at: usize, access: Access, forgets: bool) {
        let device = &mut self.devices[at];
        if let Some(connection) = device.connection {
            self.servers.close(connection);
        }
        let remembered = State::decode(&device.state.encode()).unwrap();
        device.state = if forgets { State::new() } else { remembered };
        device.connection = Some(self.servers.open(&device.name, access));
    }

    fn restart(&mut self) {
        self.servers.restart();
        self.strangers.clear();
        self.devices
            .iter_mut()
            .for_each(|device| device.connection = None);
    }

    /// Somebody says anything.
    fn babble(&mut self) {
        if self.strangers.is_empty() || self.dice.one_in(8) {
            let access = if self.dice.one_in(4) {
                Access::Read
            } else {
                Access::Write
            };
            self.strangers.push(self.servers.open("stranger", access));
        }
        let connection = self.strangers[self.dice.below(self.strangers.len())];
        let message = self.any_message();
        self.servers.say(connection, &message);
    }

    fn any_message(&mut self) -> Message {
        let flags = [
            None,
            Some(0),
            Some(MessageFlags::SUPPORTS_SYNC_RESET),
            Some(MessageFlags::SYNC_RESET),
            Some(MessageFlags::READ_ONLY),
        ];
        let flags = flags[self.dice.below(flags.len())].map(|bits| {
            let mut flags = MessageFlags::new();
            flags.set(bits);
            flags
        });
        let have = (0..self.dice.below(3)).map(|_| self.any_have()).collect();
        let version = if self.dice.one_in(2) {
            MessageVersion::V1
        } else {
            MessageVersion::V2
        };
        Message {
            heads: self.any_heads(),
            need: self.any_hashes(8),
            have,
            changes: self.any_changes().into(),
            flags,
            version,
        }
    }

    /// The heads of somebody, or hashes that are no heads of anything.
    fn any_heads(&mut self) -> Vec<automerge::ChangeHash> {
        match self.dice.below(5) {
            0 => vec![],
            1 => self.any_hashes(4),
            2 => self.servers.twin.get_heads(),
            3 => self.library.get_heads(),
            _ => self.devices[self.dice.below(self.devices.len())]
                .doc
                .get_heads(),
        }
    }

    /// Some of all hashes, one in `n`, and seldom one that is nobody's; ascending.
    fn any_hashes(&mut self, n: usize) -> Vec<automerge::ChangeHash> {
        let mut hashes: Vec<_> = self.some_changes(n).iter().map(Change::hash).collect();
        if self.dice.one_in(12) {
            hashes.push(automerge::ChangeHash(
                [u8::try_from(self.dice.below(256)).unwrap(); 32],
            ));
        }
        hashes.sort_unstable();
        hashes
    }

    fn any_have(&mut self) -> Have {
        if self.dice.one_in(5) {
            return Have::default();
        }
        let bloom = BloomFilter::from_hashes(self.any_hashes(2).iter());
        let last_sync = if self.dice.one_in(2) {
            vec![]
        } else {
            self.any_heads()
        };
        Have { last_sync, bloom }
    }

    fn some_changes(&mut self, n: usize) -> Vec<Change> {
        let mut changes = self.library.get_changes(&[]);
        changes.retain(|_| self.dice.one_in(n));
        changes
    }

    /// Changes in any order, as they may travel: each by itself, together, or as a document or bundle.
    fn any_changes(&mut self) -> Vec<Vec<u8>> {
        let one_in = self.dice.below(6) + 1;
        let mut changes = self.some_changes(one_in);
        match self.dice.below(12) {
            0 => {
                let mut doc = Automerge::new();
                doc.apply_changes(changes).unwrap();
                let is_empty = doc.get_heads().is_empty();
                (!is_empty).then(|| doc.save()).into_iter().collect()
            }
            1 => {
                let hashes: Vec<_> = self
                    .library
                    .get_changes(&[])
                    .iter()
                    .map(Change::hash)
                    .collect();
                let is_empty = hashes.is_empty();
                let bundle =
                    (!is_empty).then(|| self.library.bundle(hashes).unwrap().bytes().to_vec());
                bundle.into_iter().collect()
            }
            2..=5 => vec![],
            kind => {
                if self.dice.one_in(2) {
                    (1..changes.len())
                        .rev()
                        .for_each(|at| changes.swap(at, self.dice.below(at + 1)));
                }
                let chunks = changes
                    .iter()
                    .map(|change| chunk_of(change, &mut self.dice));
                let chunks: Vec<_> = chunks.collect();
                if kind % 2 == 0 || chunks.is_empty() {
                    chunks
                } else {
                    vec![chunks.concat()]
                }
            }
        }
    }

    /// Everybody comes back and talks until nobody has anything to say.
    fn converge(&mut self) {
        for stranger in mem::take(&mut self.strangers) {
            self.servers.close(stranger);
        }
        for at in 0..self.devices.len() {
            self.reconnect_as(at, Access::Write, false);
        }
        for _ in 0..10_000 {
            let mut silent = true;
            for at in 0..self.devices.len() {
                silent &= !self.speak(at);
                while self.listen(at) {
                    silent = false;
                }
            }
            if silent {
                return;
            }
        }
        panic!("they talk for ever");
    }
}

fn run(plan: Plan) {
    let mut run = Run::new(plan);
    for _ in 0..plan.steps {
        run.step();
    }
    run.converge();
    let Servers {
        id, world, twin, ..
    } = &run.servers;
    let stored = world.store.load(*id);
    for doc in run
        .devices
        .iter()
        .map(|device| &device.doc)
        .chain([&stored])
    {
        assert_eq!(doc.get_heads(), twin.get_heads());
        assert_eq!(doc.hydrate(None), twin.hydrate(None));
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    (any::<u64>(), 1..4usize, 10..80usize, any::<bool>()).prop_map(
        |(seed, devices, steps, compacts)| Plan {
            seed,
            devices,
            steps,
            compacts,
        },
    )
}

/// A few seconds' worth, unless somebody wants more.
fn config() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(64),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..config() })]

    #[test]
    fn the_engine_and_automerge_make_the_same_of_every_message(plan in plans()) {
        run(plan);
    }
}
