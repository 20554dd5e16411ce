//! A small world around an engine: a store in memory that commits when it is told to, a worker, and clients that
//! are real Automerge documents behind the real frames.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "each test file uses a part of it, and a test that meets the unexpected ends"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use automerge::{
    Automerge, AutomergeError, ROOT, ReadDoc,
    sync::{Message, State, SyncDoc},
    transaction::Transactable,
};
use bytes::Bytes;
use engine::{
    Access, Announce, ChangeHash, Compaction, ConnectionId, DocumentId, Effect, Engine, Input, Job,
    JobKind, Refusal, Settings, Ticket, WorkOutcome,
    index::IndexBuilder,
    storage::{Fault, Read, Write},
};
use minicbor::{Decoder, Encoder, data::Type};

mod memory_store;
pub use memory_store::MemoryStore;

/// A seeded source of randomness (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() % n as u64).unwrap()
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

pub fn settings() -> Settings {
    Settings {
        peer_id: "server".into(),
        storage_id: "storage".into(),
        announce: Announce::None,
        compaction: Compaction {
            floor_bytes: 600,
            ratio_percent: 50,
            quiet_ms: 50,
        },
        graph_bytes_max: 256 << 20,
        graph_idle_ms: 1_000,
    }
}

pub fn ours(hash: &automerge::ChangeHash) -> ChangeHash {
    ChangeHash::from_bytes(hash.0)
}

pub fn theirs(hash: &ChangeHash) -> automerge::ChangeHash {
    automerge::ChangeHash(*hash.as_bytes())
}

/// A frame from the server.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Received {
    pub kind: String,
    pub sender: String,
    pub target: String,
    pub document: String,
    pub data: Vec<u8>,
    pub message: String,
    /// The first head in `newHeads`, as it was written.
    pub new_head: Option<String>,
}

impl Received {
    pub fn parse(frame: &[u8]) -> Self {
        let mut decoder = Decoder::new(frame);
        let mut received = Self::default();
        for _ in 0..decoder.map().unwrap().unwrap() {
            match decoder.str().unwrap() {
                "type" => received.kind = decoder.str().unwrap().into(),
                "senderId" => received.sender = decoder.str().unwrap().into(),
                "targetId" => received.target = decoder.str().unwrap().into(),
                "documentId" => received.document = decoder.str().unwrap().into(),
                "data" => received.data = decoder.bytes().unwrap().into(),
                "message" => received.message = decoder.str().unwrap().into(),
                "newHeads" => {
                    decoder.map().unwrap();
                    decoder.str().unwrap();
                    for _ in 0..decoder.map().unwrap().unwrap() {
                        if decoder.str().unwrap() == "heads" {
                            let count = decoder.array().unwrap().unwrap();
                            for n in 0..count {
                                let head = decoder.str().unwrap().to_owned();
                                received.new_head = if n == 0 {
                                    Some(head)
                                } else {
                                    received.new_head
                                };
                            }
                        } else {
                            decoder.skip().unwrap();
                        }
                    }
                }
                _ => decoder.skip().unwrap(),
            }
            assert_ne!(decoder.datatype().ok(), Some(Type::Break));
        }
        received
    }

    /// One line for a trace.
    pub fn describe(&self) -> String {
        if self.kind == "sync" {
            describe(&self.sync_message())
        } else {
            format!("{self:?}")
        }
    }

    pub fn sync_message(&self) -> Message {
        assert_eq!(self.kind, "sync", "{self:?}");
        Message::decode(&self.data).unwrap()
    }
}

/// One line for a trace.
pub fn describe(message: &Message) -> String {
    let short = |hashes: &[automerge::ChangeHash]| {
        let all: Vec<_> = hashes
            .iter()
            .map(|hash| hash.to_string()[..4].to_owned())
            .collect();
        all.join(",")
    };
    let have: Vec<_> = message
        .have
        .iter()
        .map(|have| short(&have.last_sync))
        .collect();
    format!(
        "heads [{}] need [{}] have {have:?} changes {:?} flags {:?}",
        short(&message.heads),
        short(&message.need),
        message.changes.iter().map(<[u8]>::len).collect::<Vec<_>>(),
        message.flags
    )
}

/// A frame to the server, of text fields and data.
pub fn frame(fields: &[(&str, &str)], data: Option<&[u8]>) -> Bytes {
    let mut e = Encoder::new(Vec::new());
    e.map(fields.len() as u64 + u64::from(data.is_some()))
        .unwrap();
    for (key, value) in fields {
        e.str(key).unwrap().str(value).unwrap();
    }
    if let Some(data) = data {
        e.str("data").unwrap().bytes(data).unwrap();
    }
    e.into_writer().into()
}

pub fn join_frame(peer: &str) -> Bytes {
    frame(&[("type", "join"), ("senderId", peer)], None)
}

pub fn sync_frame(kind: &str, peer: &str, document: DocumentId, data: &[u8]) -> Bytes {
    let id = document.to_string();
    let fields = [
        ("type", kind),
        ("senderId", peer),
        ("targetId", "server"),
        ("documentId", id.as_str()),
    ];
    frame(&fields, Some(data))
}

/// The engine with its store, its worker and its clock.
pub struct World {
    pub engine: Engine,
    pub settings: Settings,
    pub store: MemoryStore,
    pub now_ms: u64,
    /// Requests that the store has not looked at yet.
    pub asked: VecDeque<(Ticket, Request)>,
    pub jobs: VecDeque<(Ticket, Job)>,
    /// Frames that no client has taken yet.
    pub sent: BTreeMap<ConnectionId, VecDeque<Received>>,
    pub closed: BTreeMap<ConnectionId, Refusal>,
    /// What writes fail with, for as long as it is set.
    pub fault: Option<Fault>,
    pub jobs_done: usize,
    pub trace: bool,
    next_connection: u64,
}

#[derive(Debug, Clone)]
pub enum Request {
    Read(Read),
    Write(Write),
}

impl World {
    pub fn new(settings: Settings) -> Self {
        Self {
            engine: Engine::new(settings.clone()),
            settings,
            store: MemoryStore::default(),
            now_ms: 1_000_000,
            asked: VecDeque::new(),
            jobs: VecDeque::new(),
            sent: BTreeMap::new(),
            closed: BTreeMap::new(),
            fault: None,
            jobs_done: 0,
            // one line a message, for a failing seed
            trace: std::env::var_os("WORLD_TRACE").is_some(),
            next_connection: 1,
        }
    }

    pub fn input(&mut self, input: Input) {
        let mut effects = vec![];
        self.engine.handle(self.now_ms, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { connection, frame } => {
                    let received = Received::parse(&frame);
                    if self.trace {
                        println!("{connection:?} <- {}", received.describe());
                    }
                    if received.kind == "sync" {
                        self.assert_durable(&received);
                    }
                    self.sent.entry(connection).or_default().push_back(received);
                }
                Effect::Close {
                    connection,
                    refusal,
                } => {
                    self.closed.insert(connection, refusal);
                }
                Effect::Read { ticket, read } => {
                    self.asked.push_back((ticket, Request::Read(read)))
                }
                Effect::Write { ticket, write } => {
                    self.asked.push_back((ticket, Request::Write(write)));
                }
                Effect::Work { ticket, job } => self.jobs.push_back((ticket, job)),
            }
        }
    }

    /// Acknowledged is on disk: every head that anybody is told of is one that a restart would find.
    fn assert_durable(&self, received: &Received) {
        let document: DocumentId = received.document.parse().unwrap();
        let stored = self.store.heads_and_ancestors(document);
        for head in received.sync_message().heads {
            assert!(
                stored.contains(&ours(&head)),
                "told of a head that is not on disk"
            );
        }
    }

    pub fn connect(&mut self, peer: &str, access: Access) -> ConnectionId {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.input(Input::Opened { connection, access });
        self.frame(connection, join_frame(peer));
        assert_eq!(
            self.take(connection).map(|frame| frame.kind),
            Some("peer".into())
        );
        connection
    }

    pub fn disconnect(&mut self, connection: ConnectionId) {
        self.sent.remove(&connection);
        self.input(Input::Closed { connection });
    }

    pub fn frame(&mut self, connection: ConnectionId, frame: Bytes) {
        self.input(Input::Frame { connection, frame });
    }

    /// The next frame for a connection.
    pub fn take(&mut self, connection: ConnectionId) -> Option<Received> {
        self.sent.get_mut(&connection)?.pop_front()
    }

    /// Lets the store look at the first `count` requests, as one group commit.
    pub fn store_some(&mut self, count: usize) {
        let mut answers = vec![];
        for (ticket, request) in self.asked.drain(..count.min(self.asked.len())) {
            let answer = match (request, self.fault) {
                (Request::Write(_), Some(fault)) => Err(fault),
                (Request::Write(write), None) => self.store.write(&write),
                (Request::Read(read), _) => Ok(self.store.read(&read)),
            };
            answers.push((ticket, answer));
        }
        if !answers.is_empty() {
            if self.trace {
                let stored = answers
                    .iter()
                    .map(|(ticket, answer)| (ticket.0, answer.is_ok()));
                println!("store: {:?}", stored.collect::<Vec<_>>());
            }
            self.input(Input::Answered(answers));
        }
    }

    /// Lets the worker do one job.
    pub fn work_one(&mut self) {
        if let Some((ticket, job)) = self.jobs.pop_front() {
            self.jobs_done += 1;
            let outcome = work(&job);
            self.input(Input::Worked { ticket, outcome });
        }
    }

    /// Lets store, worker and clock go on until nothing is left to do.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.asked.is_empty() {
                self.store_some(usize::MAX);
            } else if !self.jobs.is_empty() {
                self.work_one();
            } else {
                return;
            }
        }
        panic!("does not come to rest: {:?} {:?}", self.asked, self.jobs);
    }

    pub fn pass_ms(&mut self, ms: u64) {
        self.now_ms += ms;
        self.input(Input::Tick);
    }

    /// The power goes: what the store has not committed is lost, and so is everything in memory.
    pub fn crash(&mut self) {
        self.engine = Engine::new(self.settings.clone());
        self.asked.clear();
        self.jobs.clear();
        self.sent.clear();
    }
}

/// What the worker process does, done here.
pub fn work(job: &Job) -> WorkOutcome {
    let invalid = |reason: &str| WorkOutcome::Invalid {
        reason: reason.into(),
    };
    let Ok(doc) = load(&job.chunks) else {
        return invalid("does not load");
    };
    let mut index = IndexBuilder::new();
    let changes = doc.get_changes(&[]);
    for change in &changes {
        let deps: Vec<_> = change.deps().iter().map(ours).collect();
        let actor = change.actor_id().to_bytes();
        if index
            .push(ours(&change.hash()), actor, change.seq(), &deps)
            .is_err()
        {
            return invalid("does not index");
        }
    }
    let snapshot = match job.kind {
        JobKind::Index => Bytes::new(),
        JobKind::Compact => doc.save().into(),
    };
    let heads = doc.get_heads().iter().map(ours).collect();
    let index = index.finish().into();
    WorkOutcome::Done {
        snapshot,
        heads,
        changes: changes.len() as u64,
        index,
    }
}

fn load(chunks: &[u8]) -> Result<Automerge, AutomergeError> {
    let mut doc = Automerge::new();
    doc.load_incremental(chunks)?;
    Ok(doc)
}

/// A client with one document, as the stock library keeps it.
pub struct Client {
    pub name: String,
    pub id: DocumentId,
    pub doc: Automerge,
    pub state: State,
    pub connection: Option<ConnectionId>,
    pub unavailable: bool,
}

impl Client {
    pub fn new(name: &str, id: DocumentId) -> Self {
        let doc = Automerge::new().with_actor(name.as_bytes().into());
        let (state, unavailable) = (State::new(), false);
        Self {
            name: name.into(),
            id,
            doc,
            state,
            connection: None,
            unavailable,
        }
    }

    pub fn edit(&mut self, value: &str) {
        let mut tx = self.doc.transaction();
        tx.put(ROOT, "key", value).unwrap();
        tx.commit();
    }

    pub fn value(&self) -> Option<String> {
        self.doc
            .get(ROOT, "key")
            .unwrap()
            .map(|(value, _)| value.as_str().unwrap().to_owned())
    }

    pub fn heads(&self) -> Vec<ChangeHash> {
        self.doc.get_heads().iter().map(ours).collect()
    }

    /// Connects with what a client remembers of an earlier connection: the shared heads.
    pub fn connect(&mut self, world: &mut World) {
        self.connect_as(world, Access::Write);
    }

    pub fn connect_as(&mut self, world: &mut World, access: Access) {
        self.state = State::decode(&self.state.encode()).unwrap();
        self.connection = Some(world.connect(&self.name, access));
        self.send(world);
    }

    pub fn disconnect(&mut self, world: &mut World) {
        if let Some(connection) = self.connection.take() {
            world.disconnect(connection);
        }
    }

    /// Sends what the library wants to send.
    pub fn send(&mut self, world: &mut World) {
        let Some(connection) = self.connection else {
            return;
        };
        if let Some(message) = self.doc.generate_sync_message(&mut self.state) {
            if world.trace {
                println!("{connection:?} -> {}", describe(&message));
            }
            let kind = if self.doc.get_heads().is_empty() {
                "request"
            } else {
                "sync"
            };
            let frame = sync_frame(kind, &self.name, self.id, &message.encode());
            world.frame(connection, frame);
        }
    }

    /// Takes one frame from the server; whether there was one.
    pub fn receive_one(&mut self, world: &mut World) -> bool {
        let Some(connection) = self.connection else {
            return false;
        };
        if world.closed.contains_key(&connection) {
            self.connection = None;
            return true;
        }
        let Some(received) = world.take(connection) else {
            return false;
        };
        match received.kind.as_str() {
            "sync" => {
                let message = received.sync_message();
                self.doc
                    .receive_sync_message(&mut self.state, message)
                    .unwrap();
                self.send(world);
            }
            "doc-unavailable" => self.unavailable = true,
            other => panic!("{other}: {received:?}"),
        }
        true
    }
}

/// Lets everybody talk until nobody has anything to say.
pub fn talk(world: &mut World, clients: &mut [Client]) {
    for _ in 0..10_000 {
        world.settle();
        let mut silent = true;
        for client in clients.iter_mut() {
            while client.receive_one(world) {
                silent = false;
            }
        }
        if silent && world.asked.is_empty() && world.jobs.is_empty() {
            return;
        }
    }
    panic!("they talk for ever");
}

pub fn document(n: u8) -> DocumentId {
    DocumentId::from_bytes([n; 16])
}

/// All hashes of a document.
pub fn hashes(doc: &Automerge) -> BTreeSet<ChangeHash> {
    doc.get_changes(&[])
        .iter()
        .map(|change| ours(&change.hash()))
        .collect()
}

impl MemoryStore {
    /// The document as Automerge loads it from what is stored.
    pub fn load(&self, id: DocumentId) -> Automerge {
        let mut doc = Automerge::new();
        for chunk in self
            .documents
            .get(&id)
            .map_or(&[][..], |document| &document.chunks)
        {
            doc.load_incremental(&chunk.bytes).unwrap();
        }
        doc
    }

    /// All hashes that a restart would find, those of orphans excepted.
    pub fn heads_and_ancestors(&self, id: DocumentId) -> BTreeSet<ChangeHash> {
        hashes(&self.load(id))
    }

    pub fn heads(&self, id: DocumentId) -> Vec<ChangeHash> {
        self.load(id).get_heads().iter().map(ours).collect()
    }
}
