//! A small world around an engine: a store in memory that commits when it is told to, a worker, and clients that
//! are real Automerge documents behind the real frames.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "each test file uses a part of it, and a test that meets the unexpected ends"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use automerge::{
    Automerge, ROOT, ReadDoc,
    sync::{State, SyncDoc},
    transaction::Transactable,
};
use bytes::Bytes;
use engine::{
    Access, Announce, ChangeHash, Compaction, ConnectionId, DocumentId, Effect, Engine, Input, Job,
    Refusal, Settings, Ticket,
    storage::{Answer, Fault, Read, Write},
};

mod dice;
mod forge;
mod frames;
mod history;
pub mod memory_store;
mod work;

pub use dice::Dice;
pub use forge::Forge;
pub use frames::{
    Received, describe, frame, join_frame, message_of, ours, remote_heads_frame, sync_frame,
    theirs, watch_frame, write_number,
};
pub use history::{chunk_of, edit_any};
pub use memory_store::MemoryStore;
pub use work::work;

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
    /// What reads fail with, for as long as it is set.
    pub read_fault: Option<Fault>,
    /// What the disk holds is not for Automerge to load: it is damaged, or made up.
    pub is_unloadable: bool,
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
            read_fault: None,
            is_unloadable: false,
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
                    let received = Received::parse(&frame.to_bytes());
                    if self.trace {
                        println!("{connection:?} <- {}", received.describe());
                    }
                    if received.kind == "sync" && !self.is_unloadable {
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
            let answer = match (request, self.fault, self.read_fault) {
                (Request::Write(_), Some(fault), _) | (Request::Read(_), _, Some(fault)) => {
                    Err(fault)
                }
                (Request::Write(write), None, _) => self.store.write(&write),
                (Request::Read(read), _, None) => Ok(self.store.read(&read)),
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

    /// Has the store do the request at this place, and keeps its answer: the threads that read and write each have their
    /// own pace, and what is committed can be read before it is said.
    pub fn do_at(&mut self, at: usize) -> (Ticket, Result<Answer, Fault>) {
        let (ticket, request) = self.asked.remove(at).unwrap();
        let answer = match request {
            Request::Read(read) => Ok(self.store.read(&read)),
            Request::Write(write) => self.store.write(&write),
        };
        (ticket, answer)
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

/// A client whose document is on the server already.
pub fn pushed(world: &mut World, name: &str) -> Client {
    let mut client = Client::new(name, document(7));
    client.edit("one");
    client.connect(world);
    talk(world, std::slice::from_mut(&mut client));
    assert_eq!(world.store.heads(document(7)), client.heads());
    client
}

/// A writer and a reader of one document, in step, its graph in memory.
pub fn in_step(world: &mut World) -> [Client; 2] {
    let mut writer = Client::new("writer", document(7));
    writer.edit("one");
    writer.connect(world);
    let mut clients = [writer, Client::new("reader", document(7))];
    talk(world, &mut clients);
    clients[1].connect(world);
    talk(world, &mut clients);
    // longer than an index waits for quiet
    world.pass_ms(300);
    write(world, &mut clients[0], "two");
    talk(world, &mut clients);
    assert_eq!(clients[0].heads(), clients[1].heads());
    clients
}

/// One edit, sent and stored.
pub fn write(world: &mut World, writer: &mut Client, value: &str) {
    writer.edit(value);
    writer.send(world);
    talk(world, std::slice::from_mut(writer));
}

/// So many edits of so many characters each, see [`noise`].
pub fn write_noise(world: &mut World, writer: &mut Client, edits: usize, characters: usize) {
    let mut dice = Dice(1);
    for _ in 0..edits {
        write(world, writer, &noise(&mut dice, characters));
    }
}

/// Text of so many characters that deflates to half of them, and to no less.
pub fn noise(dice: &mut Dice, characters: usize) -> String {
    (0..characters / 16)
        .map(|_| format!("{:016x}", dice.roll()))
        .collect()
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
