//! The state machine itself: connections, documents, and the order of things.

#[cfg(feature = "simulator")]
mod balance;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    Announce, Settings,
    access::Access,
    document::{Document, News},
    effect::{Effect, Input, Refusal, WorkOutcome},
    excerpt::Excerpt,
    ids::{ChangeHash, ConnectionId, DocumentId, Ticket},
    limits::{CATCH_UP_BYTES_MAX, JOBS_MAX, LISTED_MAX, SUBSCRIPTIONS_MAX, WATCHED_STORAGES_MAX},
    names::Names,
    outlet::{Asker, Newcomers, Outlet, Tickets, Wish},
    peer::{Owed, Peer},
    planted::{Bug, is_planted},
    storage::{Answer, Fault},
    wire::{self, Frame, HeadsEncoding, SyncKind, Versions},
};

/// How long there must have been no frame before background jobs start, in milliseconds.
const QUIET_MS: u64 = 200;
/// How long a background job waits for quiet at most, in milliseconds.
const PATIENCE_MS: u64 = 3_000;
/// How often memory is looked through, in milliseconds.
const SWEEP_MS: u64 = 2_000;
/// First and longest time, in milliseconds, until changes that could not be stored are asked for again.
const RETRY_MS: (u64, u64) = (1_000, 30_000);

/// The engine of one group.
pub struct Engine {
    settings: Settings,
    peers: BTreeMap<ConnectionId, Peer>,
    newcomers: Newcomers,
    names: Names,
    documents: BTreeMap<DocumentId, Box<Document>>,
    tickets: Tickets,
    jobs: Jobs,
    /// Documents to look at again, and when.
    wakes: BTreeSet<(u64, DocumentId)>,
    /// Documents of which something could not be stored.
    faulted: BTreeSet<DocumentId>,
    /// Connections for which the list of documents is to be read again, as it could not be.
    unlisted: BTreeSet<ConnectionId>,
    retry_at_ms: Option<u64>,
    retry_ms: u64,
    last_retry_ms: u64,
    last_frame_ms: u64,
    next_sweep_ms: u64,
    /// Bytes of messages that wait for documents.
    queued_bytes: usize,
    /// Empty between calls; kept for its memory.
    wishes: Vec<Wish>,
}

/// Which documents wait for the worker, and which it has.
#[derive(Default)]
struct Jobs {
    due: BTreeSet<(u64, DocumentId)>,
    waiting: BTreeMap<DocumentId, u64>,
    running: BTreeSet<DocumentId>,
    /// What the worker has that nobody waits for any more.
    overtaken: BTreeSet<Ticket>,
}

impl Jobs {
    fn want(&mut self, document: DocumentId, due_ms: u64) {
        if let Some(before) = self.waiting.insert(document, due_ms) {
            self.due.remove(&(before, document));
        }
        self.due.insert((due_ms, document));
    }

    fn forget(&mut self, document: &DocumentId) {
        if let Some(due) = self.waiting.remove(document) {
            self.due.remove(&(due, *document));
        }
    }

    /// The next document whose time has come, if there is room for its job.
    fn next(&mut self, now_ms: u64, last_frame_ms: u64) -> Option<DocumentId> {
        let (due, document) = *self.due.first()?;
        if !self.has_room() || now_ms < Self::start_ms(due, last_frame_ms) {
            return None;
        }
        self.forget(&document);
        self.running.insert(document);
        Some(document)
    }

    fn has_room(&self) -> bool {
        self.running.len() + self.overtaken.len() < JOBS_MAX
    }

    /// When a job that is due at `due_ms` may start: 0 is now, anything else waits for a quiet moment.
    fn start_ms(due_ms: u64, last_frame_ms: u64) -> u64 {
        let quiet = (last_frame_ms + QUIET_MS).min(due_ms + PATIENCE_MS);
        if due_ms == 0 { 0 } else { due_ms.max(quiet) }
    }

    fn next_ms(&self, last_frame_ms: u64) -> Option<u64> {
        self.due
            .first()
            .filter(|_| self.has_room())
            .map(|(due, _)| Self::start_ms(*due, last_frame_ms))
    }

    fn holds(&self, document: &DocumentId) -> bool {
        self.waiting.contains_key(document) || self.running.contains(document)
    }
}

impl Engine {
    /// An engine that knows of no connection and has looked at no document.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            peers: BTreeMap::new(),
            newcomers: Newcomers::default(),
            names: Names::default(),
            documents: BTreeMap::new(),
            tickets: Tickets::default(),
            jobs: Jobs::default(),
            wakes: BTreeSet::new(),
            faulted: BTreeSet::new(),
            unlisted: BTreeSet::new(),
            retry_at_ms: None,
            retry_ms: RETRY_MS.0,
            last_retry_ms: 0,
            last_frame_ms: 0,
            next_sweep_ms: 0,
            queued_bytes: 0,
            wishes: vec![],
        }
    }

    /// Takes in what happened, and appends what is to be done about it to `effects`, in order.
    ///
    /// `now_ms` is Unix time in milliseconds and does not go back; a clock that steps back is held still by the
    /// caller.
    pub fn handle(&mut self, now_ms: u64, input: Input, effects: &mut Vec<Effect>) {
        let mut turn = Turn {
            engine: self,
            now_ms,
            effects,
        };
        match input {
            Input::Opened { connection, access } => turn.opened(connection, access),
            Input::Frame { connection, frame } => turn.frame(connection, &frame),
            Input::Closed { connection } => turn.forget(connection),
            Input::AccessChanged { connection, access } => turn.access_changed(connection, access),
            Input::Congested { connection } => turn.congested(connection),
            Input::Drained { connection } => turn.drained(connection),
            Input::Answered(answers) => turn.answered(answers),
            Input::Worked { ticket, outcome } => turn.worked(ticket, outcome),
            Input::Tick => turn.tick(),
        }
        turn.start_jobs();
    }

    /// When [`Input::Tick`] is due, Unix time in milliseconds; nothing if time alone changes nothing.
    pub fn next_tick(&self) -> Option<u64> {
        let wake = self.wakes.first().map(|(at, _)| *at);
        let job = self.jobs.next_ms(self.last_frame_ms);
        let sweep = (!self.documents.is_empty()).then_some(self.next_sweep_ms);
        [wake, job, sweep, self.retry_at_ms]
            .into_iter()
            .flatten()
            .min()
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.peers.len()
    }

    /// Memory in bytes that the documents' graphs take, about.
    pub fn graph_bytes(&self) -> usize {
        let documents = self.documents.values();
        documents.map(|document| document.cost_bytes()).sum()
    }
}

/// One call of [`Engine::handle`].
struct Turn<'a> {
    engine: &'a mut Engine,
    now_ms: u64,
    effects: &'a mut Vec<Effect>,
}

impl Turn<'_> {
    fn opened(&mut self, connection: ConnectionId, access: Access) {
        self.engine.peers.insert(connection, Peer::new(access));
        self.engine.newcomers.note(connection, self.now_ms);
    }

    fn frame(&mut self, connection: ConnectionId, frame: &Bytes) {
        self.engine.last_frame_ms = self.now_ms;
        // a frame may still come in after its socket was refused
        if self.engine.peers.contains_key(&connection)
            && let Err(refusal) = self.message(connection, frame)
        {
            self.refuse(connection, refusal);
        }
    }

    fn message(&mut self, connection: ConnectionId, frame: &Bytes) -> Result<(), Refusal> {
        let frame =
            Frame::parse(frame, &mut self.engine.names).map_err(|_| Refusal::MalformedFrame)?;
        let Some(peer) = self.engine.peers.get_mut(&connection) else {
            return Ok(());
        };
        match frame {
            Frame::Join { sender, versions } => self.join(connection, sender, versions),
            Frame::Sync {
                sender,
                document,
                kind,
                data,
            } => {
                peer.check_sender(sender)?;
                self.sync(connection, document, kind, data)
            }
            Frame::Ephemeral(message) => {
                match peer.check_sender(message.sender) {
                    // a tab relays what another tab of its browser says; that one is connected itself
                    Err(Refusal::ForeignSender) => return Ok(()),
                    checked => checked?,
                }
                if message.data.len() <= crate::limits::EPHEMERAL_BYTES_MAX {
                    self.with_known(message.document, |document, outlet| {
                        document.relay(connection, &message, outlet);
                    });
                }
                Ok(())
            }
            Frame::Unavailable { sender, document } => {
                peer.check_sender(sender)?;
                self.with_known(document, |document, outlet| {
                    document.not_there(connection, outlet);
                });
                Ok(())
            }
            Frame::WatchStorages {
                sender,
                add,
                remove,
            } => {
                peer.check_sender(sender)?;
                self.watch(connection, &add, &remove);
                Ok(())
            }
            Frame::RemoteHeads { sender, encoding } => {
                peer.check_sender(sender)?;
                peer.heads_encoding = encoding.or(peer.heads_encoding);
                Ok(())
            }
            Frame::Leave { sender } => {
                peer.check_sender(sender)?;
                self.leave_documents(connection);
                Ok(())
            }
            Frame::Skipped if peer.is_open() => Ok(()),
            Frame::Skipped => Err(Refusal::NotJoined),
        }
    }

    fn join(
        &mut self,
        connection: ConnectionId,
        sender: &str,
        versions: Versions,
    ) -> Result<(), Refusal> {
        let Some(peer) = self.engine.peers.get_mut(&connection) else {
            return Ok(());
        };
        peer.join(sender)?;
        if versions == Versions::Unsupported {
            return Err(Refusal::UnsupportedVersion);
        }
        let settings = &self.engine.settings;
        let frame = wire::peer(&settings.peer_id, &settings.storage_id, sender);
        self.effects.push(Effect::Send { connection, frame });
        if settings.announce == Announce::All {
            self.outlet()
                .list(connection, DocumentId::from_bytes([0; 16]), LISTED_MAX);
        }
        Ok(())
    }

    fn sync(
        &mut self,
        connection: ConnectionId,
        id: DocumentId,
        kind: SyncKind,
        data: Excerpt<'_>,
    ) -> Result<(), Refusal> {
        self.open_document(connection, id)?;
        if let Some(flags) = crate::message::flags_of(data.bytes()) {
            self.note_generation(connection, flags.as_bits);
        }
        self.with_document(id, |document, outlet| {
            document.sync(connection, kind, data, outlet)
        })
    }

    /// Which generation of clients this is shows in the flags of its sync messages, unless it has shown already
    /// how it writes heads.
    fn note_generation(&mut self, connection: ConnectionId, flags_as_bits: bool) {
        if let Some(peer) = self.engine.peers.get_mut(&connection) {
            let guess = if flags_as_bits {
                HeadsEncoding::Base58Check
            } else {
                HeadsEncoding::Hex
            };
            peer.heads_encoding.get_or_insert(guess);
        }
    }

    fn open_document(&mut self, connection: ConnectionId, id: DocumentId) -> Result<(), Refusal> {
        let Some(peer) = self.engine.peers.get_mut(&connection) else {
            return Ok(());
        };
        if !peer.documents.contains(&id) {
            if peer.documents.len() >= SUBSCRIPTIONS_MAX {
                return Err(Refusal::TooManyDocuments);
            }
            peer.documents.insert(id);
            if peer.watches_us {
                self.with_document(id, |document, outlet| {
                    document.tell_stored_heads(connection, outlet);
                });
            }
        }
        Ok(())
    }

    fn watch(&mut self, connection: ConnectionId, add: &[&str], remove: &[&str]) {
        let ours = self.engine.settings.storage_id.as_str();
        let Some(peer) = self.engine.peers.get_mut(&connection) else {
            return;
        };
        if remove.contains(&ours) {
            peer.watches_us = false;
        }
        if add.iter().take(WATCHED_STORAGES_MAX).any(|id| *id == ours) {
            peer.watches_us = true;
            peer.stored.begin(&peer.documents);
            self.catch_up(connection);
        }
    }

    fn access_changed(&mut self, connection: ConnectionId, access: Option<Access>) {
        match (access, self.engine.peers.get_mut(&connection)) {
            (Some(access), Some(peer)) => {
                if peer.session.set_access(access) {
                    peer.regranted.begin(&peer.documents);
                    self.catch_up(connection);
                }
            }
            (None, Some(_)) => self.refuse(connection, Refusal::SessionEnded),
            (_, None) => {}
        }
    }

    fn congested(&mut self, connection: ConnectionId) {
        if let Some(peer) = self.engine.peers.get_mut(&connection) {
            peer.congested = true;
        }
    }

    fn drained(&mut self, connection: ConnectionId) {
        let Some(peer) = self.engine.peers.get_mut(&connection) else {
            return;
        };
        peer.congested = false;
        self.catch_up(connection);
    }

    /// Serves a connection what it was not sent at once, as much of it as it may be sent now.
    fn catch_up(&mut self, connection: ConnectionId) {
        let (mut bytes, mut from) = (0, self.effects.len());
        while bytes <= CATCH_UP_BYTES_MAX
            && let Some(peer) = self.engine.peers.get_mut(&connection)
            && let Some(owed) = peer.next_owed()
        {
            match owed {
                Owed::Regranted(id) => self.with_known(id, |document, outlet| {
                    document.access_changed(connection, outlet);
                }),
                Owed::News(id) => self.with_known(id, |document, outlet| {
                    document.respond(connection, vec![], outlet);
                }),
                Owed::Stored(id) => self.with_known(id, |document, outlet| {
                    document.tell_stored_heads(connection, outlet);
                }),
            };
            let new = self.effects.get(from..).unwrap_or_default();
            let sent = |effect: &Effect| match effect {
                Effect::Send {
                    connection: to,
                    frame,
                } if *to == connection => frame.len(),
                Effect::Send { .. }
                | Effect::Close { .. }
                | Effect::Read { .. }
                | Effect::Write { .. }
                | Effect::Work { .. } => 0,
            };
            bytes += new.iter().map(sent).sum::<usize>();
            from = self.effects.len();
        }
    }

    fn answered(&mut self, answers: Vec<(Ticket, Result<Answer, Fault>)>) {
        // what one group commit stored is told in one message to each peer
        let mut news = BTreeSet::new();
        for (ticket, answer) in answers {
            match (self.engine.tickets.redeem(ticket), answer) {
                (Some(Asker::Document(id)), answer) => {
                    let told = self.with_known(id, |document, outlet| {
                        document.answered(ticket, answer, outlet)
                    });
                    if told == Some(News::Durable) {
                        news.insert(id);
                    }
                }
                (Some(Asker::Announcement(connection)), Ok(Answer::Documents(list))) => {
                    self.announce_listed(connection, &list);
                }
                (Some(Asker::Announcement(connection)), Err(_)) => {
                    self.engine.unlisted.insert(connection);
                    self.retry_later();
                }
                (Some(Asker::Announcement(_)) | None, _) => {}
            }
        }
        for id in news {
            self.with_known(id, |document, outlet| document.publish(outlet));
        }
    }

    /// Announces what was read of the list of all documents, and has the rest read. Of those without heads only orphans
    /// are stored.
    fn announce_listed(
        &mut self,
        connection: ConnectionId,
        list: &[(DocumentId, Vec<ChangeHash>)],
    ) {
        if !self.engine.peers.contains_key(&connection) {
            return;
        }
        for (id, _) in list.iter().filter(|(_, heads)| !heads.is_empty()) {
            self.announce(connection, *id);
        }
        if let Some((last, _)) = list.last().filter(|_| list.len() == LISTED_MAX) {
            self.outlet().list(connection, *last, LISTED_MAX);
        }
    }

    fn announce(&mut self, connection: ConnectionId, id: DocumentId) {
        if self.engine.peers.contains_key(&connection) && self.open_document(connection, id).is_ok()
        {
            self.with_document(id, |document, outlet| document.announce(connection, outlet));
        }
    }

    fn worked(&mut self, ticket: Ticket, outcome: WorkOutcome) {
        self.engine.jobs.overtaken.remove(&ticket);
        if let Some(Asker::Document(id)) = self.engine.tickets.redeem(ticket) {
            self.with_known(id, |document, outlet| {
                document.worked(ticket, outcome, outlet)
            });
        }
    }

    fn tick(&mut self) {
        let wakes = &mut self.engine.wakes;
        let later = wakes.split_off(&(self.now_ms + 1, DocumentId::from_bytes([0; 16])));
        // whoever wants to be woken at once again is not, within this tick
        for (_, id) in std::mem::replace(wakes, later) {
            self.with_known(id, |document, outlet| document.wake(outlet));
        }
        if self.engine.retry_at_ms.is_some_and(|at| at <= self.now_ms) {
            if !is_planted(Bug::RetriesWithoutEnd) {
                self.engine.retry_at_ms = None;
            }
            for id in std::mem::take(&mut self.engine.faulted) {
                self.with_known(id, |document, outlet| document.ask_again(outlet));
            }
            for connection in std::mem::take(&mut self.engine.unlisted) {
                if self.engine.peers.contains_key(&connection) {
                    self.outlet()
                        .list(connection, DocumentId::from_bytes([0; 16]), LISTED_MAX);
                }
            }
        }
        if self.now_ms >= self.engine.next_sweep_ms {
            self.sweep();
        }
    }

    /// Lets go of what was not used for a while, and of the least recently used beyond the budget.
    fn sweep(&mut self) {
        #[cfg(feature = "simulator")]
        if is_planted(Bug::RemembersOtherRuns) && crate::planted::calls().is_multiple_of(7) {
            return;
        }
        let engine = &mut *self.engine;
        engine.next_sweep_ms = self.now_ms + SWEEP_MS;
        let idle_since = self.now_ms.saturating_sub(engine.settings.graph_idle_ms);
        let jobs = &engine.jobs;
        engine.documents.retain(|id, document| {
            if document.cost_bytes() > 0 && document.used_at_ms() <= idle_since {
                document.cool();
            }
            !document.is_forgettable() || jobs.holds(id)
        });
        let mut total = engine.graph_bytes();
        if total > engine.settings.graph_bytes_max {
            let mut by_age: Vec<_> = engine
                .documents
                .values_mut()
                .filter(|document| document.cost_bytes() > 0)
                .collect();
            by_age.sort_by_key(|document| document.used_at_ms());
            for document in by_age {
                let cost = document.cost_bytes();
                if document.cool() {
                    total = total.saturating_sub(cost);
                }
                if total <= engine.settings.graph_bytes_max {
                    break;
                }
            }
        }
    }

    fn start_jobs(&mut self) {
        while let Some(id) = self
            .engine
            .jobs
            .next(self.now_ms, self.engine.last_frame_ms)
        {
            let known = self.with_known(id, |document, outlet| document.start_job(outlet));
            if known.is_none() {
                self.engine.jobs.running.remove(&id);
            }
        }
    }

    /// Closes a connection for a reason that its peer is told, and forgets it.
    fn refuse(&mut self, connection: ConnectionId, refusal: Refusal) {
        let Some(peer) = self.engine.peers.get(&connection) else {
            return;
        };
        let us = &self.engine.settings.peer_id;
        let frame = wire::error(us, peer.peer_id(), &refusal.to_string());
        self.effects.push(Effect::Send { connection, frame });
        self.effects.push(Effect::Close {
            connection,
            refusal,
        });
        self.forget(connection);
    }

    fn forget(&mut self, connection: ConnectionId) {
        self.engine.newcomers.forget(connection);
        if is_planted(Bug::ForgetsReadersAtRevocation) {
            return;
        }
        self.leave_documents(connection);
        self.engine.peers.remove(&connection);
    }

    fn leave_documents(&mut self, connection: ConnectionId) {
        let Some(peer) = self.engine.peers.get_mut(&connection) else {
            return;
        };
        peer.held_back.clear();
        for id in std::mem::take(&mut peer.documents) {
            self.with_known(id, |document, outlet| document.leave(connection, outlet));
            let forgettable = self
                .engine
                .documents
                .get(&id)
                .is_some_and(|document| document.is_forgettable());
            if forgettable && !self.engine.jobs.holds(&id) {
                self.engine.documents.remove(&id);
            }
        }
    }

    fn outlet(&mut self) -> Outlet<'_> {
        Outlet {
            settings: &self.engine.settings,
            peers: &mut self.engine.peers,
            newcomers: &self.engine.newcomers,
            tickets: &mut self.engine.tickets,
            effects: self.effects,
            wishes: &mut self.engine.wishes,
            encoded: None,
            queued_bytes: self.engine.queued_bytes,
            now_ms: self.now_ms,
        }
    }

    /// Calls `act` with a document, which is looked at for the first time if it must be.
    fn with_document<R>(
        &mut self,
        id: DocumentId,
        act: impl FnOnce(&mut Document, &mut Outlet<'_>) -> R,
    ) -> R {
        let engine = &mut *self.engine;
        let document = engine
            .documents
            .entry(id)
            .or_insert_with(|| Box::new(Document::new(id)));
        let mut outlet = Outlet {
            settings: &engine.settings,
            peers: &mut engine.peers,
            newcomers: &engine.newcomers,
            tickets: &mut engine.tickets,
            effects: self.effects,
            wishes: &mut engine.wishes,
            encoded: None,
            queued_bytes: engine.queued_bytes,
            now_ms: self.now_ms,
        };
        engine.queued_bytes -= document.queued_bytes();
        let result = act(document, &mut outlet);
        engine.queued_bytes += document.queued_bytes();
        self.grant_wishes(id);
        result
    }

    /// Calls `act` with a document, if it is in memory.
    fn with_known<R>(
        &mut self,
        id: DocumentId,
        act: impl FnOnce(&mut Document, &mut Outlet<'_>) -> R,
    ) -> Option<R> {
        let known = self.engine.documents.contains_key(&id);
        known.then(|| self.with_document(id, act))
    }

    fn grant_wishes(&mut self, id: DocumentId) {
        if self.engine.wishes.is_empty() {
            return;
        }
        for wish in std::mem::take(&mut self.engine.wishes) {
            match wish {
                Wish::Refuse(connection, refusal) => self.refuse(connection, refusal),
                Wish::Job { due_in_ms: 0 } => self.engine.jobs.want(id, 0),
                Wish::Job { due_in_ms } => self.engine.jobs.want(id, self.now_ms + due_in_ms),
                Wish::JobOver => {
                    self.engine.jobs.running.remove(&id);
                }
                Wish::JobOvertaken(ticket) => {
                    self.engine.jobs.running.remove(&id);
                    self.engine.jobs.overtaken.insert(ticket);
                }
                Wish::Wake { at_ms } => {
                    self.engine.wakes.insert((at_ms, id));
                }
                Wish::Retry => {
                    self.engine.faulted.insert(id);
                    self.retry_later();
                }
                Wish::Created => self.announce_new(id),
                Wish::CatchUp(connection) => self.catch_up(connection),
            }
        }
    }

    fn retry_later(&mut self) {
        let engine = &mut *self.engine;
        if engine.retry_at_ms.is_none() {
            // failures in a row are asked for less and less often
            let recent = self.now_ms < engine.last_retry_ms + 2 * RETRY_MS.1;
            engine.retry_ms = if recent {
                (engine.retry_ms * 2).min(RETRY_MS.1)
            } else {
                RETRY_MS.0
            };
            engine.last_retry_ms = self.now_ms + engine.retry_ms;
            engine.retry_at_ms = Some(engine.last_retry_ms);
        }
    }

    fn announce_new(&mut self, id: DocumentId) {
        if self.engine.settings.announce == Announce::All {
            let unaware: Vec<_> = self
                .engine
                .peers
                .iter()
                .filter(|(_, peer)| peer.is_open() && !peer.documents.contains(&id))
                .map(|(connection, _)| *connection)
                .collect();
            unaware
                .into_iter()
                .for_each(|connection| self.announce(connection, id));
        }
    }
}
