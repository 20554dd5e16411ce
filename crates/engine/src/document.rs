//! One document of the group: how much of it is in memory, who its peers are, what is under way.
//!
//! ```text
//!             first message                    more than heads is needed
//!   New ───────────────────> Loading ──> Cold ───────────────────────────> Loading ──> Hot
//!                               │ ╲                                                     │
//!                               │  ╲ nothing stored: Hot, and empty                     │ idle, all in step
//!                               │                                                       v
//!                               └────> Pushed ── the worker's index ──> Cold <──────────┘
//! ```
//!
//! While a document cannot handle a message, the message waits in its queue. What arrives is handled in
//! [`receive`], what is sent is made in [`respond`], what the disk says is in [`durable`], what the worker does
//! is in [`jobs`].

#[cfg(feature = "simulator")]
mod balance;
#[cfg(feature = "simulator")]
mod bounds;
mod durable;
mod jobs;
mod queue;
mod receive;
mod respond;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    effect::Refusal,
    ephemeral::EphemeralCounts,
    excerpt::Excerpt,
    graph::{Graph, Heads, Node},
    ids::{ConnectionId, DocumentId, Ticket},
    intake::Orphans,
    limits::{NEWCOMER_MS, UNAVAILABLE_WAIT_MS, WORKED_OFF_BYTES_MAX},
    outlet::{Outlet, Wish},
    planted::{Bug, is_planted},
    storage::{DocumentMeta, ReadWhat, StoredChunk},
    subscription::{Request, Subscription, Synced},
    tail::Tail,
    wire::{Ephemeral, SyncKind},
};
#[cfg(feature = "simulator")]
pub(crate) use balance::Prospects;
use durable::Append;
pub(crate) use durable::News;
use jobs::RunningJob;
use queue::{Queue, Queued};

pub(crate) struct Document {
    id: DocumentId,
    /// The id as it stands in frames.
    name: Box<str>,
    /// The document as it is on disk.
    meta: DocumentMeta,
    /// `meta.heads`, shared with those who were told.
    heads: Heads,
    state: State,
    /// Boxed, as most documents have one or two, and a map has room for eleven.
    peers: BTreeMap<ConnectionId, Box<Subscription>>,
    queue: Queue,
    /// Appends on their way to the disk, oldest first.
    appends: VecDeque<Append>,
    unstored_bytes: usize,
    /// Bytes of the changes that were taken from messages which had waited, since they are being worked off.
    taken_bytes: usize,
    /// The number of the next chunk, counting those on their way to the disk.
    next_chunk: u64,
    /// A read of everything, and who waits for it.
    whole: Option<(Ticket, Vec<ConnectionId>)>,
    /// Reads of some chunks, who waits for each, and for which nodes.
    parts: Vec<(Ticket, Part)>,
    /// The worker has found a pushed chunk to be what it says, whether or not its index could be stored.
    is_verified: bool,
    /// The disk does not know yet that the document is in quarantine.
    owes_quarantine: bool,
    /// Before this time (Unix, milliseconds) no job is tried again: what came of the last one could not be stored.
    no_job_before_ms: u64,
    /// All chunks, for as long as the messages are handled for which they were read.
    at_hand: Option<AtHand>,
    job: Option<Box<RunningJob>>,
    /// Peers that are to be told what is new once it has been read.
    untold: BTreeSet<ConnectionId>,
    ephemeral: EphemeralCounts,
    used_at_ms: u64,
}

enum State {
    /// Nothing is known.
    New,
    /// Being read.
    Loading(Ticket),
    /// Heads and sizes are known, nothing else is in memory.
    Cold,
    /// A pushed chunk is all there is; its changes are not known.
    Pushed,
    /// The graph is in memory.
    Hot(Box<Hot>),
}

#[derive(Default)]
struct Hot {
    graph: Graph,
    tail: Tail,
    orphans: Orphans,
}

/// What became of a message.
enum Step {
    Done,
    /// The document cannot handle it yet.
    Wait,
}

/// All chunks of a document, and who has been sent them already.
struct AtHand {
    chunks: Vec<StoredChunk>,
    served: BTreeSet<ConnectionId>,
}

/// Nodes that are being read for a peer, and the heads that they lead it to.
struct Part {
    connection: ConnectionId,
    nodes: Vec<Node>,
    heads: Heads,
}

impl Document {
    pub(crate) fn new(id: DocumentId) -> Self {
        Self {
            id,
            name: id.to_string().into(),
            meta: DocumentMeta::default(),
            heads: Heads::default(),
            state: State::New,
            peers: BTreeMap::new(),
            queue: Queue::default(),
            appends: VecDeque::new(),
            unstored_bytes: 0,
            taken_bytes: 0,
            next_chunk: 0,
            whole: None,
            parts: vec![],
            is_verified: false,
            owes_quarantine: false,
            no_job_before_ms: 0,
            at_hand: None,
            job: None,
            untold: BTreeSet::new(),
            ephemeral: EphemeralCounts::default(),
            used_at_ms: 0,
        }
    }

    /// Handles a `sync` or `request` of a peer, or keeps it until it can be handled.
    ///
    /// # Errors
    /// The [`Refusal`] that closes the connection; nothing of the message was taken.
    pub(crate) fn sync(
        &mut self,
        connection: ConnectionId,
        kind: SyncKind,
        data: Excerpt<'_>,
        outlet: &mut Outlet<'_>,
    ) -> Result<(), Refusal> {
        self.used_at_ms = outlet.now_ms;
        self.peers.entry(connection).or_default();
        let must_wait = self.must_queue(connection)
            || matches!(self.handle(connection, kind, data, outlet)?, Step::Wait);
        if !must_wait {
            return Ok(());
        }
        let message = Queued {
            connection,
            kind,
            data: data.keep(),
        };
        self.queue.push(message, outlet.queued_bytes)
    }

    /// Relays an ephemeral message to the other peers of the document, if its sender is one, and it is new.
    pub(crate) fn relay(
        &mut self,
        connection: ConnectionId,
        message: &Ephemeral<'_>,
        outlet: &mut Outlet<'_>,
    ) {
        self.used_at_ms = outlet.now_ms;
        let is_peer = self.peers.contains_key(&connection);
        if is_peer
            && self
                .ephemeral
                .is_new(message.sender, message.session, message.count)
        {
            for other in self.peers.keys().filter(|other| **other != connection) {
                outlet.send_ephemeral(*other, &self.name, message);
            }
        }
    }

    /// A peer says that it does not have the document after all.
    pub(crate) fn not_there(&mut self, connection: ConnectionId, outlet: &mut Outlet<'_>) {
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.their_heads = Some(Heads::default());
            self.settle_requests(outlet);
        }
    }

    /// A peer is gone.
    pub(crate) fn leave(&mut self, connection: ConnectionId, outlet: &mut Outlet<'_>) {
        self.peers.remove(&connection);
        self.queue.forget(connection);
        self.untold.remove(&connection);
        if let Some((_, readers)) = &mut self.whole {
            readers.retain(|reader| *reader != connection);
        }
        // what comes of it is for nobody, also if the peer comes back on the same connection
        self.parts.retain(|(_, part)| part.connection != connection);
        outlet.has_read_for(connection, self.id);
        self.settle_requests(outlet);
    }

    /// A peer starts to watch our storage.
    pub(crate) fn tell_stored_heads(&self, connection: ConnectionId, outlet: &mut Outlet<'_>) {
        if !self.heads.is_empty() {
            outlet.send_stored_heads(connection, &self.name, &self.heads);
        }
    }

    /// Whether nothing would be lost by forgetting that the document was ever looked at.
    pub(crate) fn is_forgettable(&self) -> bool {
        let nothing_in_memory = match &self.state {
            State::New | State::Cold | State::Pushed => true,
            State::Loading(_) => false,
            State::Hot(hot) => hot.graph.len() == 0 && hot.orphans.is_empty(),
        };
        self.peers.is_empty() && nothing_in_memory && self.is_quiet() && !self.owes_quarantine
    }

    /// Whether nothing is under way.
    fn is_quiet(&self) -> bool {
        self.appends.is_empty()
            && self.job.is_none()
            && self.queue.is_empty()
            && self.whole.is_none()
            && self.parts.is_empty()
    }

    /// Bytes of messages that wait for it.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// When it was last used, Unix time in milliseconds.
    pub(crate) fn used_at_ms(&self) -> u64 {
        self.used_at_ms
    }

    /// Memory in bytes that [`Self::cool`] would give back, about.
    pub(crate) fn cost_bytes(&self) -> usize {
        match &self.state {
            State::Hot(hot) => hot.graph.cost_bytes() + hot.tail.cost_bytes() + hot.orphans.bytes(),
            State::New | State::Loading(_) | State::Cold | State::Pushed => 0,
        }
    }

    /// Lets go of the graph, if nobody is owed anything; it is read again when it is needed.
    pub(crate) fn cool(&mut self) -> bool {
        let State::Hot(hot) = &self.state else {
            return false;
        };
        let durable = hot.graph.durable();
        let mut peers = self.peers.values();
        let has_all_it_gets = peers.all(|peer| peer.is_in_step(durable) || peer.is_left_to_ask());
        if is_planted(Bug::LosesTheQueueAtEviction) {
            self.queue = Queue::default();
        }
        if durable == 0 || !has_all_it_gets || !self.is_quiet() {
            return false;
        }
        for peer in self.peers.values_mut() {
            match peer.synced {
                // once it says what it has, that is in it
                Synced::Unknown => peer.from_peer.clear(),
                Synced::Everything | Synced::Below(_) => peer.synced = Synced::Everything,
            }
        }
        self.state = State::Cold;
        // thousands may lie in memory like this
        self.appends = VecDeque::new();
        true
    }

    /// Whether a message has to wait because others do. Those of one connection keep their order. While the index of a
    /// pushed document cannot be made or stored, whoever edits it waits; that is no reason to keep its readers waiting.
    fn must_queue(&self, connection: ConnectionId) -> bool {
        let may_overtake = matches!(self.state, State::Pushed);
        !self.queue.is_empty() && (!may_overtake || self.queue.has_one_of(connection))
    }

    /// Its time has come to be looked at again.
    pub(crate) fn wake(&mut self, outlet: &mut Outlet<'_>) {
        self.settle_requests(outlet);
        self.work_off(outlet);
    }

    /// Handles what has waited, until something has to wait again, or has brought so much that others should have their
    /// turn.
    fn work_off(&mut self, outlet: &mut Outlet<'_>) {
        let (mut overtaken, mut waiting) = (BTreeSet::new(), vec![]);
        self.taken_bytes = 0;
        while let Some(message) = self.queue.pop() {
            if self.taken_bytes > WORKED_OFF_BYTES_MAX {
                waiting.push(message);
                let at_ms = outlet.now_ms;
                outlet.wishes.push(Wish::Wake { at_ms });
                break;
            }
            if overtaken.contains(&message.connection) {
                waiting.push(message);
                continue;
            }
            let data = Excerpt::all(&message.data);
            match self.handle(message.connection, message.kind, data, outlet) {
                Ok(Step::Wait) => {
                    let may_overtake = matches!(self.state, State::Pushed);
                    overtaken.insert(message.connection);
                    waiting.push(message);
                    if !may_overtake {
                        break;
                    }
                }
                Ok(Step::Done) => {}
                Err(refusal) => outlet
                    .wishes
                    .push(Wish::Refuse(message.connection, refusal)),
            }
        }
        for message in waiting.into_iter().rev() {
            self.queue.put_back(message);
        }
    }

    fn load(&mut self, what: ReadWhat, outlet: &mut Outlet<'_>) -> Ticket {
        let ticket = outlet.read(self.id, what);
        self.state = State::Loading(ticket);
        ticket
    }

    /// Whether there is any change of the document, on disk or on its way.
    fn exists(&self) -> bool {
        match &self.state {
            State::Hot(hot) => hot.graph.len() > 0,
            // of orphans alone there may be a row too
            State::Cold | State::Pushed => !self.heads.is_empty(),
            State::New | State::Loading(_) => false,
        }
    }

    /// Answers those who asked for a document that does not exist, unless a peer that has announced it may still
    /// send it.
    pub(crate) fn settle_requests(&mut self, outlet: &mut Outlet<'_>) {
        let unresolved = matches!(self.state, State::New | State::Loading(_));
        if unresolved || self.exists() {
            return;
        }
        let announced: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.has_announced())
            .map(|(id, _)| *id)
            .collect();
        for (connection, peer) in &mut self.peers {
            let Request::Waiting { asked_ms } = peer.request else {
                continue;
            };
            let until_ms = if announced.iter().any(|other| other != connection) {
                asked_ms + UNAVAILABLE_WAIT_MS
            } else {
                outlet
                    .newcomers
                    .expected_until_ms(*connection)
                    .min(asked_ms + NEWCOMER_MS)
            };
            if until_ms > outlet.now_ms {
                outlet.wishes.push(Wish::Wake { at_ms: until_ms });
            } else {
                peer.request = Request::Told;
                outlet.send_unavailable(*connection, &self.name);
            }
        }
    }
}
