//! One connection: its handshake, its name, what it has open.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    access::{Access, Session},
    effect::Refusal,
    ids::DocumentId,
    limits::READING_BYTES_MAX,
    wire::HeadsEncoding,
};

/// A connection from its admission to its end.
pub(crate) struct Peer {
    pub(crate) session: Session,
    phase: Phase,
    /// The documents it has asked for or sent.
    pub(crate) documents: BTreeSet<DocumentId>,
    /// Whether it wants to hear which heads lie in our storage.
    pub(crate) watches_us: bool,
    /// How it writes heads, once that is known.
    pub(crate) heads_encoding: Option<HeadsEncoding>,
    /// More waits for its socket than that takes.
    pub(crate) congested: bool,
    /// Documents that have something for it once it has caught up.
    pub(crate) held_back: BTreeSet<DocumentId>,
    /// Of which of its documents it is to be told that its session may do something else now.
    pub(crate) regranted: Walk,
    /// Of which of its documents it is to be told what lies in our storage.
    pub(crate) stored: Walk,
    /// What is being read for it, in bytes, and the sum.
    reading: BTreeMap<DocumentId, u64>,
    reading_bytes: u64,
}

/// Something that a connection was not sent at once, because it is for many documents or its socket was full.
pub(crate) enum Owed {
    /// Whether its session may write a document.
    Regranted(DocumentId),
    /// Whatever there is of a document.
    News(DocumentId),
    /// Which heads of a document lie in our storage.
    Stored(DocumentId),
}

/// A walk through the documents of a connection, which goes on where it was. Those that are opened behind its back need
/// no visit.
#[derive(Default)]
pub(crate) struct Walk(Option<DocumentId>);

impl Walk {
    /// Begins anew.
    pub(crate) fn begin(&mut self, documents: &BTreeSet<DocumentId>) {
        self.0 = documents.first().copied();
    }

    fn next(&mut self, documents: &BTreeSet<DocumentId>) -> Option<DocumentId> {
        let mut left = documents.range(self.0.take()?..).copied();
        let next = left.next();
        self.0 = left.next();
        next
    }
}

/// How far the handshake is.
enum Phase {
    Joining,
    Open { peer_id: Box<str> },
}

impl Peer {
    pub(crate) fn new(access: Access) -> Self {
        Self {
            session: Session::new(access),
            phase: Phase::Joining,
            documents: BTreeSet::new(),
            watches_us: false,
            heads_encoding: None,
            congested: false,
            held_back: BTreeSet::new(),
            regranted: Walk::default(),
            stored: Walk::default(),
            reading: BTreeMap::new(),
            reading_bytes: 0,
        }
    }

    /// Whether it is to be sent no more for now: its socket is full, or will be by what is being read for it.
    pub(crate) fn has_enough(&self) -> bool {
        self.congested || self.reading_bytes > READING_BYTES_MAX as u64
    }

    /// What it is to be sent next of what it was not sent at once, if it is to be sent anything now.
    pub(crate) fn next_owed(&mut self) -> Option<Owed> {
        if self.has_enough() {
            return None;
        }
        let regranted = self.regranted.next(&self.documents).map(Owed::Regranted);
        let news = || self.held_back.pop_first().map(Owed::News);
        let stored = || self.stored.next(&self.documents).map(Owed::Stored);
        regranted.or_else(news).or_else(stored)
    }

    /// What it was given too much or too little of, in words.
    #[cfg(feature = "simulator")]
    pub(crate) fn out_of_balance(&self) -> Option<&'static str> {
        if self.reading.values().sum::<u64>() != self.reading_bytes {
            Some("counts what is being read for it wrong")
        } else if !self.has_enough() && !self.held_back.is_empty() {
            Some("has something held back, and room for it")
        } else {
            None
        }
    }

    /// The documents that are being read for it.
    #[cfg(feature = "simulator")]
    pub(crate) fn documents_read(&self) -> impl Iterator<Item = &DocumentId> {
        self.reading.keys()
    }

    /// So many bytes of a document are being read for it.
    pub(crate) fn reads(&mut self, document: DocumentId, bytes: u64) {
        self.has_read(document);
        self.reading.insert(document, bytes);
        self.reading_bytes += bytes;
    }

    /// Whether nothing is being read for it.
    pub(crate) fn reads_nothing(&self) -> bool {
        self.reading.is_empty()
    }

    /// What was being read of a document is there.
    pub(crate) fn has_read(&mut self, document: DocumentId) {
        self.reading_bytes -= self.reading.remove(&document).unwrap_or_default();
    }

    /// The name it joined with; empty before that.
    pub(crate) fn peer_id(&self) -> &str {
        match &self.phase {
            Phase::Joining => "",
            Phase::Open { peer_id } => peer_id,
        }
    }

    /// Whether it has joined.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// Pins its name.
    ///
    /// # Errors
    /// [`Refusal::JoinedTwice`].
    pub(crate) fn join(&mut self, peer_id: &str) -> Result<(), Refusal> {
        match self.phase {
            Phase::Joining => {
                self.phase = Phase::Open {
                    peer_id: peer_id.into(),
                };
                Ok(())
            }
            Phase::Open { .. } => Err(Refusal::JoinedTwice),
        }
    }

    /// Checks that a message comes from who joined.
    ///
    /// # Errors
    /// [`Refusal::NotJoined`], [`Refusal::ForeignSender`].
    pub(crate) fn check_sender(&self, sender: &str) -> Result<(), Refusal> {
        match &self.phase {
            Phase::Joining => Err(Refusal::NotJoined),
            Phase::Open { peer_id } if **peer_id == *sender => Ok(()),
            Phase::Open { .. } => Err(Refusal::ForeignSender),
        }
    }
}
