//! What a document does with a sync message.

use bytes::Bytes;

use super::{Document, State, Step};
use crate::{
    access::Need,
    chunk::{self, ChangeChunk, Chunk},
    effect::Refusal,
    excerpt::Excerpt,
    graph::Node,
    ids::ConnectionId,
    intake::{self, IntakeError},
    limits::UNSTORED_BYTES_MAX,
    message::SyncMessage,
    outlet::Outlet,
    planted::{Bug, is_planted},
    storage::ReadWhat,
    subscription::{Request, Synced},
    wire::SyncKind,
};

impl Document {
    /// Handles a message, if the document can handle it now.
    pub(super) fn handle(
        &mut self,
        connection: ConnectionId,
        kind: SyncKind,
        data: Excerpt<'_>,
        outlet: &mut Outlet<'_>,
    ) -> Result<Step, Refusal> {
        let message = SyncMessage::parse(data).map_err(|_| Refusal::MalformedSync)?;
        if self.is_busy() {
            return Ok(Step::Wait);
        }
        match self.state {
            State::New if message.wants_everything() && outlet.reads_nothing_for(connection) => {
                // one question to the disk, not two; but nobody knows yet how long the answer is
                outlet.joins_reading(connection, self.id, 1);
                self.load(
                    ReadWhat::Chunks {
                        from: 0,
                        until: u64::MAX,
                    },
                    outlet,
                );
                Ok(Step::Wait)
            }
            State::New => {
                self.load(ReadWhat::Meta, outlet);
                Ok(Step::Wait)
            }
            State::Loading(_) => Ok(Step::Wait),
            State::Cold | State::Pushed => {
                Ok(self.handle_without_graph(connection, &message, outlet))
            }
            State::Hot(_) => {
                self.handle_with_graph(connection, kind, &message, outlet)?;
                Ok(Step::Done)
            }
        }
    }

    /// Whether messages must wait although the document is loaded.
    fn is_busy(&self) -> bool {
        self.unstored_bytes > UNSTORED_BYTES_MAX
            || self.appends.iter().any(|append| append.is_pushed())
            || self.job.as_ref().is_some_and(|job| job.is_exclusive())
    }

    /// Answers what can be answered from the heads and the stored bytes alone: those who are in step, and those
    /// who have nothing.
    fn handle_without_graph(
        &mut self,
        connection: ConnectionId,
        message: &SyncMessage<'_>,
        outlet: &mut Outlet<'_>,
    ) -> Step {
        // only orphans are stored: the graph says that there is nothing for anybody yet
        let is_there = !self.heads.is_empty();
        let in_step = is_there && message.changes.is_empty() && message.heads[..] == *self.heads;
        let quarantined = self.meta.quarantine.is_some();
        let pushed = matches!(self.state, State::Pushed);
        let fresh =
            is_there && message.wants_everything() && (!pushed || quarantined || self.is_verified);
        let Some(peer) = self.peers.get_mut(&connection) else {
            return Step::Done;
        };
        // of orphans that are stored, some may have found what they waited for
        if in_step && (pushed || !self.meta.has_orphans) {
            peer.note(message, &self.heads);
            peer.synced = Synced::Everything;
            self.respond(connection, vec![], outlet);
            Step::Done
        } else if fresh {
            peer.note(message, &self.heads);
            self.respond_with_everything(connection, outlet);
            Step::Done
        } else if !pushed {
            self.load(ReadWhat::Graph, outlet);
            Step::Wait
        } else if quarantined {
            // its changes are not known and never will be: whoever has it is left with what they have
            peer.note(message, &self.heads);
            Step::Done
        } else {
            self.wish_for_job(0, outlet);
            Step::Wait
        }
    }

    fn handle_with_graph(
        &mut self,
        connection: ConnectionId,
        kind: SyncKind,
        message: &SyncMessage<'_>,
        outlet: &mut Outlet<'_>,
    ) -> Result<(), Refusal> {
        let may_write =
            outlet.authorise(connection, Need::Write).is_ok() || is_planted(Bug::LetsReadersWrite);
        // what a session that may only read sends is not even looked at
        if may_write && !message.changes.is_empty() {
            self.take_changes(connection, &message.changes, outlet)?;
        }
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.note(message, &self.heads);
            self.converse(connection, kind, message, outlet);
        }
        Ok(())
    }

    fn take_changes(
        &mut self,
        connection: ConnectionId,
        bytes: &Bytes,
        outlet: &mut Outlet<'_>,
    ) -> Result<(), Refusal> {
        self.taken_bytes += bytes.len();
        let chunks = chunk::parse_all(bytes).map_err(|_| Refusal::MalformedChange)?;
        let (mut changes, mut whole) = (Vec::with_capacity(chunks.len()), vec![]);
        let count = chunks.len();
        for chunk in chunks {
            match chunk {
                Chunk::Change(change) => changes.push(change),
                Chunk::Document { heads, bytes } if count == 1 && self.is_empty() => {
                    self.store_pushed(connection, heads, bytes, outlet);
                    return Ok(());
                }
                Chunk::Document { bytes, .. } | Chunk::Bundle { bytes } => whole.push(bytes),
            }
        }
        if whole.is_empty() {
            return self.take_in(connection, changes, bytes, outlet);
        }
        // a device saves the changes that wait for others behind its document: they wait here too, and the worker, which
        // makes no snapshot with such in it, is not told of them
        let loose: Vec<_> = changes.iter().map(|change| change.bytes.clone()).collect();
        self.take_in(connection, changes, &loose.concat().into(), outlet)?;
        self.absorb(connection, whole.concat().into(), outlet);
        Ok(())
    }

    /// Takes `changes`, whose bytes are these, into the graph.
    fn take_in(
        &mut self,
        connection: ConnectionId,
        changes: Vec<ChangeChunk>,
        bytes: &Bytes,
        outlet: &mut Outlet<'_>,
    ) -> Result<(), Refusal> {
        let State::Hot(hot) = &mut self.state else {
            return Ok(());
        };
        let taken = intake::take(&mut hot.graph, &mut hot.orphans, changes, bytes);
        let taken = taken.map_err(|error| match error {
            IntakeError::Sequence => Refusal::ChangeSequence,
            IntakeError::TooManyOrphans | IntakeError::Full => Refusal::TooManyOrphans,
            IntakeError::TooManyHeads => Refusal::TooManyHeads,
        })?;
        if !taken.is_empty() {
            self.append(Some(connection), taken, outlet);
        }
        Ok(())
    }

    /// Whether nothing at all is known of the document, on disk or on its way there.
    fn is_empty(&self) -> bool {
        match &self.state {
            State::Hot(hot) => {
                hot.graph.len() == 0 && hot.orphans.is_empty() && self.appends.is_empty()
            }
            State::New | State::Loading(_) | State::Cold | State::Pushed => false,
        }
    }

    /// Works out what the sender of a message lacks, and answers it.
    fn converse(
        &mut self,
        connection: ConnectionId,
        kind: SyncKind,
        message: &SyncMessage<'_>,
        outlet: &mut Outlet<'_>,
    ) {
        if self.heads.is_empty() && message.heads.is_empty() && kind == SyncKind::Request {
            return self.request_missing(connection, outlet);
        }
        let State::Hot(hot) = &self.state else { return };
        let Some(peer) = self.peers.get_mut(&connection) else {
            return;
        };
        let durable = hot.graph.durable();
        let mut lacks: Vec<Node> = vec![];
        if peer.synced == Synced::Unknown {
            if message.heads[..] == **hot.graph.durable_heads() {
                peer.set_synced(durable);
            } else if message.heads.is_empty() && message.changes.is_empty() {
                return self.respond_with_everything(connection, outlet);
            } else if !message.have.is_empty() {
                match hot.graph.lacking(&message.have) {
                    Some(nodes) => lacks = nodes,
                    None => return self.respond_with_reset(connection, outlet),
                }
                peer.set_synced(durable);
            }
        }
        lacks.extend(
            message
                .need
                .iter()
                .filter_map(|hash| hot.graph.find_durable(hash)),
        );
        self.respond(connection, lacks, outlet);
    }

    /// A peer asks for a document that does not exist: it is told so at once, unless another one has announced it or
    /// has only just come.
    fn request_missing(&mut self, connection: ConnectionId, outlet: &mut Outlet<'_>) {
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.request = Request::Waiting {
                asked_ms: outlet.now_ms,
            };
        }
        self.settle_requests(outlet);
    }
}
