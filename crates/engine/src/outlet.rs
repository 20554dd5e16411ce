//! What a document may reach while it handles something: its peers, and the way out.

use std::collections::BTreeMap;

use crate::{
    Settings,
    access::{self, Grant, Need},
    effect::{Effect, Job, OutFrame, Refusal},
    ids::{ChangeHash, ConnectionId, DocumentId, Ticket},
    limits::NEWCOMER_MS,
    message::{Encoded, Outgoing},
    peer::Peer,
    storage::{Read, ReadWhat, Write, WriteAction},
    wire::{self, Ephemeral, HeadsEncoding},
};

/// Who asked under a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    Document(DocumentId),
    /// Announcing all documents of the group to a connection.
    Announcement(ConnectionId),
}

/// Numbers requests, and remembers whose they are.
#[derive(Default)]
pub(crate) struct Tickets {
    next: u64,
    open: BTreeMap<Ticket, Asker>,
}

impl Tickets {
    fn issue(&mut self, asker: Asker) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.open.insert(ticket, asker);
        ticket
    }

    /// Whether it has not been answered.
    #[cfg(feature = "simulator")]
    pub(crate) fn is_open(&self, ticket: Ticket) -> bool {
        self.open.contains_key(&ticket)
    }

    /// Who asked; a ticket is answered once.
    pub(crate) fn redeem(&mut self, ticket: Ticket) -> Option<Asker> {
        self.open.remove(&ticket)
    }
}

/// Something that a document wants of the engine, once it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Close this connection.
    Refuse(ConnectionId, Refusal),
    /// Run the document's job after this time, when things are quiet; at once if it is 0, for then a client waits.
    Job { due_in_ms: u64 },
    /// The document's job is over.
    JobOver,
    /// The document's job is over, and the worker does not know.
    JobOvertaken(Ticket),
    /// Look again after this time (Unix, milliseconds).
    Wake { at_ms: u64 },
    /// The storage refused a write: try again some time.
    Retry,
    /// It exists now, and did not before.
    Created,
    /// Have this connection served what was held back for it.
    CatchUp(ConnectionId),
}

/// The last two connections that were opened, and when. A device that reconnects sends its new documents right away,
/// and another one may be quicker to ask for them.
#[derive(Default)]
pub(crate) struct Newcomers([Option<(ConnectionId, u64)>; 2]);

impl Newcomers {
    pub(crate) fn note(&mut self, connection: ConnectionId, now_ms: u64) {
        let [last, _] = self.0;
        self.0 = [Some((connection, now_ms)), last];
    }

    pub(crate) fn forget(&mut self, connection: ConnectionId) {
        for newcomer in &mut self.0 {
            newcomer.take_if(|(other, _)| *other == connection);
        }
    }

    /// Until when a connection waits for what the others may bring.
    pub(crate) fn expected_until_ms(&self, connection: ConnectionId) -> u64 {
        let others = self
            .0
            .iter()
            .flatten()
            .filter(|(other, _)| *other != connection);
        others
            .map(|(_, opened_ms)| opened_ms + NEWCOMER_MS)
            .max()
            .unwrap_or(0)
    }
}

pub(crate) struct Outlet<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) peers: &'a mut BTreeMap<ConnectionId, Peer>,
    pub(crate) newcomers: &'a Newcomers,
    pub(crate) tickets: &'a mut Tickets,
    pub(crate) effects: &'a mut Vec<Effect>,
    pub(crate) wishes: &'a mut Vec<Wish>,
    /// The sync message that went out last.
    pub(crate) encoded: Option<Encoded>,
    /// Bytes of messages that wait, for whichever document.
    pub(crate) queued_bytes: usize,
    pub(crate) now_ms: u64,
}

impl Outlet<'_> {
    pub(crate) fn read(&mut self, document: DocumentId, what: ReadWhat) -> Ticket {
        let ticket = self.tickets.issue(Asker::Document(document));
        self.effects.push(Effect::Read {
            ticket,
            read: Read { document, what },
        });
        ticket
    }

    /// Asks for the documents behind `after`, to announce them to `connection`.
    pub(crate) fn list(&mut self, connection: ConnectionId, after: DocumentId, limit: usize) {
        let ticket = self.tickets.issue(Asker::Announcement(connection));
        let read = Read {
            document: after,
            what: ReadWhat::Documents { limit },
        };
        self.effects.push(Effect::Read { ticket, read });
    }

    pub(crate) fn write(&mut self, document: DocumentId, action: WriteAction) -> Ticket {
        let ticket = self.tickets.issue(Asker::Document(document));
        self.effects.push(Effect::Write {
            ticket,
            write: Write { document, action },
        });
        ticket
    }

    pub(crate) fn work(&mut self, job: Job) -> Ticket {
        let ticket = self.tickets.issue(Asker::Document(job.document));
        self.effects.push(Effect::Work { ticket, job });
        ticket
    }

    /// What the session of a connection may do at this moment.
    pub(crate) fn authorise(
        &self,
        connection: ConnectionId,
        need: Need,
    ) -> Result<Grant<'_>, Refusal> {
        let peer = self.peers.get(&connection).ok_or(Refusal::SessionEnded)?;
        access::authorise(&peer.session, need)
    }

    /// Whether what can wait for a connection should; if so, the document is told when it need not any more.
    pub(crate) fn holds_back(&mut self, connection: ConnectionId, document: DocumentId) -> bool {
        let Some(peer) = self.peers.get_mut(&connection) else {
            return true;
        };
        let waits = peer.has_enough();
        if waits {
            peer.held_back.insert(document);
        }
        waits
    }

    /// Has so many bytes of a document read for a connection.
    pub(crate) fn read_for(
        &mut self,
        connection: ConnectionId,
        document: DocumentId,
        what: ReadWhat,
        bytes: u64,
    ) -> Ticket {
        self.joins_reading(connection, document, bytes);
        self.read(document, what)
    }

    /// Whether nothing is being read for a connection, and it may be sent something.
    pub(crate) fn reads_nothing_for(&self, connection: ConnectionId) -> bool {
        let peer = self.peers.get(&connection);
        peer.is_some_and(|peer| peer.reads_nothing() && !peer.congested)
    }

    /// What is being read of a document for another connection is for this one too.
    pub(crate) fn joins_reading(
        &mut self,
        connection: ConnectionId,
        document: DocumentId,
        bytes: u64,
    ) {
        if let Some(peer) = self.peers.get_mut(&connection) {
            peer.reads(document, bytes);
        }
    }

    /// What was being read of a document for a connection is there, or not wanted any more.
    pub(crate) fn has_read_for(&mut self, connection: ConnectionId, document: DocumentId) {
        let Some(peer) = self.peers.get_mut(&connection) else {
            return;
        };
        peer.has_read(document);
        if !peer.has_enough() {
            self.wishes.push(Wish::CatchUp(connection));
        }
    }

    /// Sends a sync message, if the session may read. What several are sent is encoded once.
    pub(crate) fn send_sync(
        &mut self,
        connection: ConnectionId,
        document: &str,
        message: &Outgoing<'_>,
    ) {
        let data = message.encode_unless(&mut self.encoded);
        self.send_readable(connection, |us, peer| {
            wire::sync(us, peer.peer_id(), document, &data)
        });
    }

    /// Says that there is no such document; no session is too small to be told that.
    pub(crate) fn send_unavailable(&mut self, connection: ConnectionId, document: &str) {
        if let Some(peer) = self.peers.get(&connection) {
            let frame = wire::unavailable(&self.settings.peer_id, peer.peer_id(), document);
            self.effects.push(Effect::Send { connection, frame });
        }
    }

    /// Relays an ephemeral message, if the session may read.
    pub(crate) fn send_ephemeral(
        &mut self,
        connection: ConnectionId,
        document: &str,
        message: &Ephemeral<'_>,
    ) {
        // what nobody will ask for again is not queued up for those who do not keep pace
        if self
            .peers
            .get(&connection)
            .is_some_and(|peer| !peer.congested)
        {
            self.send_readable(connection, |_, peer| {
                wire::ephemeral(message, peer.peer_id(), document)
            });
        }
    }

    /// Says which heads lie in our storage, if the connection watches it.
    pub(crate) fn send_stored_heads(
        &mut self,
        connection: ConnectionId,
        document: &str,
        heads: &[ChangeHash],
    ) {
        let now_ms = self.now_ms;
        let storage_id = &self.settings.storage_id;
        if self
            .peers
            .get(&connection)
            .is_some_and(|peer| peer.watches_us)
        {
            self.send_readable(connection, |us, peer| {
                let encoding = peer.heads_encoding.unwrap_or(HeadsEncoding::Base58Check);
                let target = peer.peer_id();
                wire::remote_heads(us, target, document, storage_id, heads, encoding, now_ms)
            });
        }
    }

    fn send_readable(
        &mut self,
        connection: ConnectionId,
        frame: impl FnOnce(&str, &Peer) -> OutFrame,
    ) {
        let Some(peer) = self.peers.get(&connection) else {
            return;
        };
        if access::authorise(&peer.session, Need::Read).is_ok() {
            let frame = frame(&self.settings.peer_id, peer);
            self.effects.push(Effect::Send { connection, frame });
        }
    }
}
