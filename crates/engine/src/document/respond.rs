//! What a document sends to its peers.
//!
//! A message goes out when there is something in it that the peer has not been told: changes, heads, or a wish.
//! Otherwise both sides are silent. Only what is on disk is ever told.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Document, Hot, Part, State};
use crate::{
    access::{Grant, Need},
    effect::Refusal,
    graph::{Heads, Node, Place},
    ids::{ChangeHash, ConnectionId},
    limits::{LAG_MESSAGE_BYTES_MAX, RECENT_BYTES_MAX},
    message::{OurHave, Outgoing},
    outlet::{Outlet, Wish},
    planted::{Bug, is_planted},
    storage::{ChunkKind, ReadWhat, StoredChunk},
    subscription::{Request, Served, Subscription, Synced},
};

/// Nodes to send: mostly one, which somebody has just typed.
type Nodes = SmallVec<[Node; 4]>;

/// Where the bytes of some nodes are.
enum Pieces {
    /// In memory; neighbours in one piece.
    AtHand(SmallVec<[Bytes; 1]>),
    /// In tail chunks from this number on.
    OnDisk { from: u64 },
    /// Within the snapshot, at least some of them.
    InSnapshot,
}

impl Document {
    /// Tells everybody what is new on disk.
    pub(crate) fn publish(&mut self, outlet: &mut Outlet<'_>) {
        let connections: Vec<_> = self.peers.keys().copied().collect();
        for connection in connections {
            self.respond(connection, vec![], outlet);
            outlet.send_stored_heads(connection, &self.name, &self.heads);
        }
        if let State::Hot(hot) = &mut self.state {
            hot.tail.trim(RECENT_BYTES_MAX);
        }
        self.settle_requests(outlet);
        self.work_off(outlet);
        self.advance_job(outlet);
        self.consider_job(outlet);
    }

    /// A peer's session may write from now on, or not any more: it is told so, and asked for what was not looked at.
    /// What it sent meanwhile it does not send again for being asked what we need.
    pub(crate) fn access_changed(&mut self, connection: ConnectionId, outlet: &mut Outlet<'_>) {
        let may_write = outlet.authorise(connection, Need::Write).is_ok();
        let Some(peer) = self.peers.get_mut(&connection) else {
            return;
        };
        let is_new = peer.told.is_none() && !peer.has_announced();
        if is_new || is_planted(Bug::AsksForNothingWhenASessionMayWrite) {
            // it is told with the first that it is sent
        } else if may_write {
            peer.must_resend = true;
            self.ask_again(outlet);
        } else {
            // as if of nothing: if it may write again before it can be told, it is asked for what it kept
            peer.told = Some(Heads::default());
            self.respond(connection, vec![], outlet);
        }
    }

    /// Tells a peer, which has not asked, that there is this document.
    pub(crate) fn announce(&mut self, connection: ConnectionId, outlet: &mut Outlet<'_>) {
        self.peers.entry(connection).or_default().announced = true;
        if matches!(self.state, State::New) {
            self.load(ReadWhat::Meta, outlet);
        } else {
            self.respond(connection, vec![], outlet);
        }
    }

    /// The peers that have not asked, and have not been told yet.
    pub(super) fn announced_to(&self) -> Vec<ConnectionId> {
        let untold = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.announced && peer.told.is_none());
        untold.map(|(connection, _)| *connection).collect()
    }

    /// Tells a peer what it has not been told yet, if there is anything, together with the nodes that it `lacks`
    /// for another reason than that they are new.
    pub(crate) fn respond(
        &mut self,
        connection: ConnectionId,
        lacks: Vec<Node>,
        outlet: &mut Outlet<'_>,
    ) {
        let Some(peer) = self.peers.get_mut(&connection) else {
            return;
        };
        let waits = peer.served == Served::FromDisk || outlet.holds_back(connection, self.id);
        if waits {
            peer.owed.extend(lacks);
            return;
        }
        match &self.state {
            State::Hot(hot) => {
                let (durable, heads) = (hot.graph.durable(), hot.graph.durable_heads());
                if lacks.is_empty() && peer.confirms(durable, heads) {
                    return;
                }
                let mut nodes: Nodes = peer.news(durable).collect();
                nodes.extend(lacks);
                nodes.extend(std::mem::take(&mut peer.owed));
                nodes.sort_unstable();
                nodes.dedup();
                if peer.takes_nothing {
                    nodes.clear();
                }
                self.respond_hot(connection, nodes, outlet);
            }
            State::Cold | State::Pushed => {
                let heads = Arc::clone(&self.heads);
                if !peer.was_told(&heads) {
                    self.send(connection, &heads, vec![], &[], outlet);
                }
            }
            State::New => {
                // it could not be read, and nobody else may ask for it
                self.untold.insert(connection);
                outlet.wishes.push(Wish::Retry);
            }
            State::Loading(_) => {
                self.untold.insert(connection);
            }
        }
    }

    fn respond_hot(&mut self, connection: ConnectionId, nodes: Nodes, outlet: &mut Outlet<'_>) {
        let State::Hot(hot) = &self.state else { return };
        let Some(peer) = self.peers.get_mut(&connection) else {
            return;
        };
        let heads = Arc::clone(hot.graph.durable_heads());
        let need = hot.need_of(peer, outlet.authorise(connection, Need::Write));
        let durable = hot.graph.durable();
        let is_nothing = nodes.is_empty() && need.is_empty() && heads.is_empty();
        if is_nothing && peer.request != Request::None && !peer.has_announced() {
            // it is answered once it is known that there is none; one that may not write what it has is told that
            return;
        }
        if nodes.is_empty() && peer.was_told(&heads) && need == peer.asked {
            peer.advance(durable);
            return;
        }
        match hot.pieces(&nodes) {
            Pieces::AtHand(pieces) => {
                peer.advance(durable);
                self.send(connection, &heads, need, &pieces, outlet);
            }
            Pieces::OnDisk { from } => self.fetch(connection, nodes.into_vec(), from, outlet),
            Pieces::InSnapshot => self.respond_with_everything(connection, outlet),
        }
    }

    /// Has the first of `nodes` read, from the chunk numbered `from` on.
    ///
    /// The message that brings them will tell of the heads that they lead to, and of no more: a peer asks for what it
    /// is told of and has not got, and would get twice what is on its way.
    fn fetch(
        &mut self,
        connection: ConnectionId,
        mut nodes: Vec<Node>,
        from: u64,
        outlet: &mut Outlet<'_>,
    ) {
        let State::Hot(hot) = &self.state else { return };
        let Some(peer) = self.peers.get_mut(&connection) else {
            return;
        };
        let left = nodes.split_off(hot.first_within(&nodes, LAG_MESSAGE_BYTES_MAX));
        let through = left.first().copied().unwrap_or(hot.graph.durable());
        let until = nodes.last().and_then(|node| hot.tail.chunk_of(*node));
        let until = until.map_or(u64::MAX, |chunk| chunk.number + 1);
        match peer.synced {
            Synced::Below(known) => {
                peer.owed
                    .extend(left.into_iter().filter(|node| *node < known));
                peer.set_synced(known.max(through));
            }
            Synced::Unknown | Synced::Everything => peer.owed.extend(left),
        }
        peer.served = Served::FromDisk;
        let heads = hot.graph.heads_below(through);
        // one change may be longer than a portion
        let bytes = nodes.iter().map(|node| hot.tail_bytes(*node) as u64).sum();
        let what = ReadWhat::Chunks { from, until };
        let ticket = outlet.read_for(connection, self.id, what, bytes);
        self.parts.push((
            ticket,
            Part {
                connection,
                nodes,
                heads,
            },
        ));
    }

    /// Sends the stored bytes of the whole document, as they lie on the disk.
    pub(super) fn respond_with_everything(
        &mut self,
        connection: ConnectionId,
        outlet: &mut Outlet<'_>,
    ) {
        let Some(peer) = self.peers.get_mut(&connection) else {
            return;
        };
        if peer.served == Served::FromDisk {
            return;
        }
        if peer.takes_nothing {
            peer.synced = Synced::Everything;
            return self.respond(connection, vec![], outlet);
        }
        // once it has caught up it is told of the heads, again if it was before, and asks again
        if outlet.holds_back(connection, self.id) {
            peer.told = None;
            return;
        }
        if let Some(mut at_hand) = self.at_hand.take() {
            // once, however often it has asked while they were read: each answer is the whole document
            if at_hand.served.insert(connection) {
                let heads = Arc::clone(&self.heads);
                self.serve_everything(connection, &heads, &at_hand.chunks, outlet);
            } else {
                peer.synced = Synced::Everything;
            }
            self.at_hand = Some(at_hand);
            return;
        }
        peer.served = Served::FromDisk;
        let bytes = self.meta.snapshot_bytes + self.meta.tail_bytes;
        match &mut self.whole {
            Some((_, readers)) => {
                readers.push(connection);
                outlet.joins_reading(connection, self.id, bytes);
            }
            None => {
                let what = ReadWhat::Chunks {
                    from: 0,
                    until: u64::MAX,
                };
                let ticket = outlet.read_for(connection, self.id, what, bytes);
                self.whole = Some((ticket, vec![connection]));
            }
        }
    }

    /// Sends all of `chunks`, which make a document with these `heads`.
    pub(super) fn serve_everything(
        &mut self,
        connection: ConnectionId,
        heads: &Heads,
        chunks: &[StoredChunk],
        outlet: &mut Outlet<'_>,
    ) {
        let through = chunks.last().map_or(0, |chunk| chunk.number);
        let synced = match &self.state {
            State::Hot(hot) => {
                let durable = hot.graph.durable();
                let beyond = hot.tail.first_node_after(through).unwrap_or(durable);
                Synced::Below(beyond.min(durable))
            }
            State::New | State::Loading(_) | State::Cold | State::Pushed => Synced::Everything,
        };
        let Some(peer) = self.peers.get_mut(&connection) else {
            return;
        };
        peer.served = Served::Directly;
        match synced {
            Synced::Below(node) => peer.set_synced(node),
            Synced::Unknown | Synced::Everything => peer.synced = synced,
        }
        let pieces: Vec<Bytes> = chunks.iter().map(|chunk| chunk.bytes.clone()).collect();
        self.send(connection, heads, vec![], &pieces, outlet);
        // and what has come since
        self.respond(connection, vec![], outlet);
    }

    /// Sends some nodes, out of the tail chunks that were read for them; everything, if a snapshot has taken the
    /// place of some of those chunks meanwhile.
    pub(super) fn serve_parts(
        &mut self,
        Part {
            connection,
            nodes,
            heads,
        }: Part,
        chunks: &[StoredChunk],
        outlet: &mut Outlet<'_>,
    ) {
        let Some(peer) = self.peers.get_mut(&connection) else {
            return;
        };
        peer.served = Served::Directly;
        let State::Hot(hot) = &self.state else { return };
        // a snapshot has the number of the last chunk that it has replaced, and other bytes
        let read: BTreeMap<u64, &Bytes> = chunks
            .iter()
            .filter(|chunk| {
                chunk.kind == ChunkKind::Tail || is_planted(Bug::TakesASnapshotForAChunk)
            })
            .map(|chunk| (chunk.number, &chunk.bytes))
            .collect();
        match hot.pieces_from(&nodes, |number, cached| {
            read.get(&number).copied().or(cached)
        }) {
            Pieces::AtHand(pieces) => {
                let need = hot.need_of(peer, outlet.authorise(connection, Need::Write));
                self.send(connection, &heads, need, &pieces, outlet);
                self.respond(connection, vec![], outlet);
            }
            Pieces::OnDisk { .. } | Pieces::InSnapshot => {
                self.respond_with_everything(connection, outlet);
            }
        }
    }

    /// The peer remembers a sync that we do not: ask it to begin anew.
    ///
    /// Source: Automerge sync protocol, "reset".
    pub(super) fn respond_with_reset(&mut self, connection: ConnectionId, outlet: &mut Outlet<'_>) {
        let heads = Arc::clone(&self.heads);
        let Some(peer) = self.peers.get_mut(&connection) else {
            return;
        };
        peer.told = Some(Arc::clone(&heads));
        peer.asked = vec![];
        let message = Outgoing {
            version: peer.reads,
            heads: &heads,
            need: &[],
            have: OurHave::Unknown,
            changes: &[],
            sync_reset: false,
            read_only: outlet.authorise(connection, Need::Write).is_err(),
        };
        outlet.send_sync(connection, &self.name, &message);
    }

    /// Asks those whose changes could not be stored to send them again. Those who do not know the flag for it are
    /// told that we have nothing, which makes them start over.
    ///
    /// Source: Automerge sync protocol, "sync reset".
    pub(crate) fn ask_again(&mut self, outlet: &mut Outlet<'_>) {
        let is_awaited = !self.untold.is_empty() || !self.announced_to().is_empty();
        if matches!(self.state, State::New) && is_awaited {
            // it could not be read when somebody was to be told of it
            self.load(ReadWhat::Meta, outlet);
        }
        self.store_owed_quarantine(outlet);
        // those that had found their place when a write failed, and whom nobody sends again
        if self.job.as_ref().is_some_and(|job| job.is_exclusive()) {
            // what it has put into the graph is not stored, and nothing may be built on it
            outlet.wishes.push(Wish::Retry);
        } else {
            self.adopt_orphans(None, outlet);
        }
        let may_write = |connection| outlet.authorise(connection, Need::Write).is_ok();
        let waiting: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.must_resend)
            .map(|(id, _)| *id)
            .collect();
        let (waiting, in_vain): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|id| may_write(*id));
        for connection in in_vain {
            // it is asked once its session may write
            if let Some(peer) = self.peers.get_mut(&connection) {
                peer.must_resend = false;
            }
        }
        let nothing = Heads::default();
        for connection in waiting {
            let Some(peer) = self.peers.get_mut(&connection) else {
                continue;
            };
            let heads = if peer.supports_reset {
                &self.heads
            } else {
                &nothing
            };
            peer.must_resend = false;
            peer.told = Some(Arc::clone(heads));
            peer.asked = vec![];
            let message = Outgoing {
                version: peer.reads,
                heads,
                need: &[],
                have: OurHave::Heads,
                changes: &[],
                sync_reset: peer.supports_reset,
                read_only: false,
            };
            outlet.send_sync(connection, &self.name, &message);
        }
    }

    fn send(
        &mut self,
        connection: ConnectionId,
        heads: &Heads,
        need: Vec<ChangeHash>,
        pieces: &[Bytes],
        outlet: &mut Outlet<'_>,
    ) {
        let Some(peer) = self.peers.get_mut(&connection) else {
            return;
        };
        let message = Outgoing {
            version: peer.reads,
            heads,
            need: &need,
            have: OurHave::Heads,
            changes: pieces,
            sync_reset: false,
            read_only: outlet.authorise(connection, Need::Write).is_err(),
        };
        outlet.send_sync(connection, &self.name, &message);
        peer.told = Some(Arc::clone(heads));
        peer.asked = need;
        peer.request = Request::None;
    }
}

impl Subscription {
    fn was_told(&self, heads: &Heads) -> bool {
        self.told.as_ref().is_some_and(|told| told == heads)
    }

    /// Whether it only says that it has got what it was sent last, as each reader does after each edit: it has what we
    /// have, knows so, and nothing is wanted of it.
    fn confirms(&self, durable: Node, heads: &Heads) -> bool {
        self.synced == Synced::Below(durable)
            && self.is_in_step(durable)
            && self.was_told(heads)
            && self.their_heads.as_ref() == Some(heads)
            && self.asked.is_empty()
    }

    /// Everything below `durable` is there or on its way, if it was known how far the peer is.
    fn advance(&mut self, durable: Node) {
        if self.synced != Synced::Unknown {
            self.set_synced(durable);
        }
    }
}

impl Hot {
    /// What we lack to reach the heads that a peer has told; ascending. Nothing, if it may not send it.
    fn need_of(
        &self,
        peer: &Subscription,
        may_write: Result<Grant<'_>, Refusal>,
    ) -> Vec<ChangeHash> {
        if may_write.is_err() {
            return vec![];
        }
        let heads = peer.their_heads.iter().flat_map(|heads| heads.iter());
        self.orphans.missing_for(heads.copied(), &self.graph)
    }

    /// Bytes of a node that lies in the tail.
    fn tail_bytes(&self, node: Node) -> usize {
        match self.graph.place(node) {
            Some(Place::Tail { length, .. }) => length as usize,
            _ => 0,
        }
    }

    /// How many of `nodes` have, together, no more than `bytes_max` bytes; at least one.
    fn first_within(&self, nodes: &[Node], bytes_max: usize) -> usize {
        let mut bytes = 0;
        let fits = |node: &&Node| {
            bytes += self.tail_bytes(**node);
            bytes <= bytes_max
        };
        nodes.iter().take_while(fits).count().max(1)
    }

    fn pieces(&self, nodes: &[Node]) -> Pieces {
        self.pieces_from(nodes, |_, cached| cached)
    }

    /// The bytes of `nodes`, out of chunks that `chunk` provides by number and what is cached of it.
    fn pieces_from<'b>(
        &'b self,
        nodes: &[Node],
        chunk: impl Fn(u64, Option<&'b Bytes>) -> Option<&'b Bytes>,
    ) -> Pieces {
        let mut pieces = SmallVec::new();
        // of which chunk, from where, until where
        let mut last: Option<(u64, &'b Bytes, Range<usize>)> = None;
        let cut = |(_, bytes, range): (u64, &Bytes, Range<usize>)| bytes.slice(range);
        for node in nodes {
            let (Some(Place::Tail { start, length }), Some(at)) =
                (self.graph.place(*node), self.tail.chunk_of(*node))
            else {
                return Pieces::InSnapshot;
            };
            let Some(bytes) = chunk(at.number, at.bytes()) else {
                return Pieces::OnDisk { from: at.number };
            };
            let (start, end) = (start as usize, start as usize + length as usize);
            match &mut last {
                Some((number, _, range)) if *number == at.number && range.end == start => {
                    range.end = end;
                }
                _ => pieces.extend(last.replace((at.number, bytes, start..end)).map(cut)),
            }
        }
        pieces.extend(last.map(cut));
        Pieces::AtHand(pieces)
    }
}
