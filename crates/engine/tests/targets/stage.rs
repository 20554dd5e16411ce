//! The engine with what is around it: connections, a store that answers when it is told to, a worker.

use std::collections::VecDeque;

use bytes::Bytes;
use engine::{
    Access, Announce, ChangeHash, Compaction, ConnectionId, DocumentId, Effect, Engine, Input, Job,
    Settings, Ticket, WorkOutcome,
    storage::{Answer, DocumentMeta, Fault, Read, ReadWhat, Write, WriteAction},
};

use super::{
    checks::{Checks, Received},
    library,
    memory_store::MemoryStore,
};

/// How many connections a script has at a time.
pub const SLOTS: usize = 4;
/// How many documents.
pub const DOCUMENTS: usize = 3;
/// How often store and worker are asked to do all that they have, before something is wrong.
const ROUNDS_MAX: usize = 100;

/// Everything.
pub struct Stage {
    engine: Engine,
    store: MemoryStore,
    pub checks: Checks,
    slots: [Option<ConnectionId>; SLOTS],
    next_connection: u64,
    reads: VecDeque<(Ticket, Read)>,
    writes: VecDeque<(Ticket, Write)>,
    jobs: VecDeque<(Ticket, Job)>,
    /// Read, and not yet told.
    held: VecDeque<(Ticket, Read, Answer)>,
    now_ms: u64,
    received: Vec<(ConnectionId, Received)>,
}

fn settings(announce: Announce) -> Settings {
    Settings {
        peer_id: "server".into(),
        storage_id: "storage".into(),
        announce,
        compaction: Compaction {
            floor_bytes: 300,
            ratio_percent: 50,
            quiet_ms: 50,
        },
        graph_bytes_max: 20_000,
        graph_idle_ms: 5_000,
    }
}

/// The `n`-th document.
pub fn document(n: usize) -> DocumentId {
    DocumentId::from_bytes([n as u8 + 1; 16])
}

impl Stage {
    pub fn new() -> Self {
        Self {
            engine: Engine::new(settings(Announce::None)),
            store: MemoryStore::default(),
            checks: Checks::default(),
            slots: [None; SLOTS],
            next_connection: 1,
            reads: VecDeque::new(),
            writes: VecDeque::new(),
            jobs: VecDeque::new(),
            held: VecDeque::new(),
            now_ms: 1_000_000,
            received: vec![],
        }
    }

    /// The server ends, and starts again with what was stored.
    pub fn restart(&mut self, announce: Announce) {
        self.engine = Engine::new(settings(announce));
        self.slots = [None; SLOTS];
        self.reads.clear();
        self.writes.clear();
        self.jobs.clear();
        self.held.clear();
        self.checks.restart();
    }

    pub fn input(&mut self, input: Input) {
        let answers = match &input {
            Input::Answered(answers) => answers.len(),
            _ => 0,
        };
        self.checks.goes_in(&input);
        let mut effects = vec![];
        self.engine.handle(self.now_ms, input.clone(), &mut effects);
        let frames = self.checks.came_out(&input, answers, &effects);
        self.received.extend(frames);
        for effect in effects {
            match effect {
                Effect::Read { ticket, read } => self.reads.push_back((ticket, read)),
                Effect::Write { ticket, write } => self.writes.push_back((ticket, write)),
                Effect::Work { ticket, job } => self.jobs.push_back((ticket, job)),
                Effect::Send { .. } | Effect::Close { .. } => {}
            }
        }
        assert_eq!(self.engine.connections(), self.checks.open_connections());
    }

    pub fn open(&mut self, slot: usize, access: Access) {
        let still_open = self.slots[slot].filter(|connection| self.checks.is_open(*connection));
        if still_open.is_none() {
            let connection = ConnectionId(self.next_connection);
            self.next_connection += 1;
            self.slots[slot] = Some(connection);
            self.input(Input::Opened { connection, access });
        }
    }

    /// The connection in a slot, which may be closed already; one that never was, if there is none.
    pub fn connection(&self, slot: usize) -> ConnectionId {
        self.slots[slot].unwrap_or(ConnectionId(0))
    }

    pub fn frame(&mut self, slot: usize, frame: Bytes) {
        let connection = self.connection(slot);
        self.input(Input::Frame { connection, frame });
    }

    /// The store commits its first writes; with a fault none of them is carried out.
    pub fn commit(&mut self, count: usize, fault: Option<Fault>) {
        let mut answers = vec![];
        for (ticket, write) in self.writes.drain(..count.min(self.writes.len())) {
            let answer = match fault {
                Some(fault) => Err(fault),
                None => self.store.write(&write),
            };
            if answer.is_ok() {
                self.checks.note_stored(&self.store, &write);
            }
            answers.push((ticket, answer));
        }
        if !answers.is_empty() {
            self.input(Input::Answered(answers));
        }
    }

    /// The store answers its first questions.
    pub fn answer(&mut self, count: usize) {
        let mut answers = vec![];
        for (ticket, read) in self.reads.drain(..count.min(self.reads.len())) {
            let answer = self.store.read(&read);
            self.checks.note_read(&read, &answer);
            answers.push((ticket, Ok(answer)));
        }
        if !answers.is_empty() {
            self.input(Input::Answered(answers));
        }
    }

    /// The store fails to read.
    pub fn fail_to_read(&mut self) {
        if let Some((ticket, _)) = self.reads.pop_front() {
            self.input(Input::Answered(vec![(ticket, Err(Fault::Failed))]));
        }
    }

    /// The store reads what it is asked for first, and keeps the answer to itself for a while.
    pub fn read_and_hold(&mut self) {
        if let Some((ticket, read)) = self.reads.pop_front() {
            let answer = self.store.read(&read);
            self.held.push_back((ticket, read, answer));
        }
    }

    pub fn let_go(&mut self) {
        if let Some((ticket, read, answer)) = self.held.pop_front() {
            self.checks.note_read(&read, &answer);
            self.input(Input::Answered(vec![(ticket, Ok(answer))]));
        }
    }

    /// The store answers what was not asked; from now on nobody knows what is stored.
    pub fn lie(&mut self, which: usize, how: usize) {
        let ticket = match which {
            0 => self.reads.pop_front().map(|(ticket, _)| ticket),
            1 => self.writes.pop_front().map(|(ticket, _)| ticket),
            2 => self.jobs.pop_front().map(|(ticket, _)| ticket),
            _ => None,
        };
        self.checks.lied = true;
        let answer = wrong_answer(how);
        let ticket = ticket.unwrap_or(Ticket(which as u64));
        self.input(Input::Answered(vec![(ticket, answer)]));
    }

    /// The worker is done with its first job: as it should be, or not at all so.
    pub fn work(&mut self, how: usize) {
        let Some((ticket, job)) = self.jobs.pop_front() else {
            return;
        };
        let reason = String::from("no reason");
        let outcome = match how {
            1 => WorkOutcome::Invalid { reason },
            2 => WorkOutcome::Indigestible { reason },
            3.. => {
                self.checks.lied = true;
                nonsense(how, library::work(&job))
            }
            _ => library::work(&job),
        };
        self.input(Input::Worked { ticket, outcome });
    }

    pub fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        for _ in 0..ROUNDS_MAX {
            if self.engine.next_tick().is_none_or(|at| at > self.now_ms) {
                return;
            }
            self.input(Input::Tick);
        }
        // a job that waits for the worker is due all the time
        assert!(!self.jobs.is_empty(), "the engine ticks for ever");
    }

    /// Store and worker do all that there is, until there is nothing more.
    pub fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.let_go();
            self.commit(usize::MAX, None);
            self.answer(usize::MAX);
            self.work(0);
            if self.is_quiet() {
                return;
            }
        }
        assert!(
            self.checks.lied,
            "store and worker are never done: {:?}",
            self.reads
        );
    }

    fn is_quiet(&self) -> bool {
        self.reads.is_empty()
            && self.writes.is_empty()
            && self.jobs.is_empty()
            && self.held.is_empty()
    }

    /// What came for a connection since somebody last asked.
    pub fn take_received(&mut self, connection: ConnectionId) -> Vec<Received> {
        let all = std::mem::take(&mut self.received);
        let own = all
            .into_iter()
            .filter(|(receiver, _)| *receiver == connection);
        own.map(|(_, received)| received).collect()
    }

    /// Heads of what is stored of a document, and the changes in it.
    pub fn stored(&self, document: DocumentId) -> (Vec<ChangeHash>, Vec<ChangeHash>) {
        let stored = self.store.documents.get(&document);
        let hashes = stored.map(|stored| {
            stored
                .chunks
                .iter()
                .flat_map(|chunk| library::hashes_in(&chunk.bytes))
                .collect()
        });
        let heads = stored.map(|stored| stored.meta.heads.clone());
        (heads.unwrap_or_default(), hashes.unwrap_or_default())
    }
}

fn wrong_answer(how: usize) -> Result<Answer, Fault> {
    let heads = vec![ChangeHash::from_bytes([how as u8; 32])];
    let meta = DocumentMeta {
        heads: heads.clone(),
        changes: 1 << how,
        next_chunk: how as u64,
        tail_bytes: 1 << (how % 40),
        has_pushed: how % 2 == 1,
        has_orphans: how % 3 == 1,
        ..DocumentMeta::default()
    };
    let meta = (!how.is_multiple_of(5)).then_some(meta);
    match how % 7 {
        0 => Ok(Answer::Stored),
        1 => Ok(Answer::Meta(meta)),
        2 => Ok(Answer::Graph {
            meta,
            index: Some(Bytes::from_static(b"no index")),
            tail: vec![],
            orphans: vec![],
        }),
        3 => Ok(Answer::Chunks {
            meta,
            chunks: vec![],
        }),
        4 => Ok(Answer::Documents(vec![(document(how % DOCUMENTS), heads)])),
        5 => Err(Fault::Full),
        _ => Err(Fault::Failed),
    }
}

/// An outcome that is not what the job was about.
fn nonsense(how: usize, honest: WorkOutcome) -> WorkOutcome {
    let WorkOutcome::Done {
        snapshot,
        heads,
        changes,
        index,
    } = honest
    else {
        let (snapshot, index) = (Bytes::new(), Bytes::new());
        return WorkOutcome::Done {
            snapshot,
            heads: vec![],
            changes: 0,
            index,
        };
    };
    let mut made = (snapshot, heads, changes, index);
    match how {
        3 => made.0 = Bytes::from_static(b"no snapshot"),
        4 => made.1 = vec![ChangeHash::from_bytes([4; 32])],
        5 => made.2 += 1,
        6 => made.3 = made.3.slice(..made.3.len() / 2),
        7 => made.3 = Bytes::new(),
        _ => made.1.clear(),
    }
    let (snapshot, heads, changes, index) = made;
    WorkOutcome::Done {
        snapshot,
        heads,
        changes,
        index,
    }
}

impl Checks {
    fn note_stored(&mut self, store: &MemoryStore, write: &Write) {
        let chunks: &[u8] = match &write.action {
            WriteAction::Append { chunk, .. } => {
                chunk.as_ref().map_or(&[], |chunk| &chunk.bytes[..])
            }
            WriteAction::Replace { snapshot, .. } => &snapshot.bytes,
            WriteAction::Quarantine { .. } | WriteAction::DropPushed { .. } => &[],
        };
        let stored = store.documents.get(&write.document);
        let heads = stored.map_or(&[][..], |stored| &stored.meta.heads);
        self.told_stored(write.document, chunks, heads);
        self.note_bytes(store, write.document);
    }

    fn note_bytes(&mut self, store: &MemoryStore, document: DocumentId) {
        let chunks = store.documents.get(&document).map(|stored| &stored.chunks);
        let bytes = chunks
            .into_iter()
            .flatten()
            .map(|chunk| chunk.bytes.len())
            .sum();
        self.note_stored_bytes(document, bytes);
    }

    fn note_read(&mut self, read: &Read, answer: &Answer) {
        let (Answer::Meta(meta) | Answer::Graph { meta, .. } | Answer::Chunks { meta, .. }) =
            answer
        else {
            return;
        };
        let heads = meta.as_ref().map_or(&[][..], |meta| &meta.heads);
        self.told_stored(read.document, &[], heads);
        if let Answer::Chunks { chunks, .. } = answer
            && matches!(read.what, ReadWhat::Chunks { .. })
        {
            for chunk in chunks {
                self.told_stored(read.document, &chunk.bytes, &[]);
            }
        }
    }
}
