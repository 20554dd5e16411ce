//! A device: documents of the real Automerge, kept in step as the stock library does it.

use std::collections::BTreeMap;

use automerge::{
    ActorId, Automerge, ROOT,
    sync::{State, SyncDoc},
    transaction::Transactable,
};
use bytes::Bytes;
use engine::{ChangeHash, ConnectionId, DocumentId};

use crate::{
    chunks,
    dice::Dice,
    frames::{Received, frame, ours, remote_heads_frame, sync_frame, watch_frame},
    link::Packet,
    violation::{Checker, Violation},
};

/// A device's copy of a document.
pub(crate) struct Copy {
    pub(crate) doc: Automerge,
    state: State,
}

pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) group: usize,
    pub(crate) session: usize,
    pub(crate) copies: BTreeMap<DocumentId, Copy>,
    pub(crate) link: Option<ConnectionId>,
    /// Whether the server has greeted it on this connection.
    is_greeted: bool,
    /// Times it was started, which makes its actors different each time.
    starts: usize,
    ephemeral_count: u64,
    /// It wants to hear which heads lie in the server's storage.
    is_watching: bool,
    /// Which it has heard of on this connection.
    pub(crate) heard: BTreeMap<DocumentId, Vec<ChangeHash>>,
    /// Documents as they were at an earlier time, to come back with.
    backup: BTreeMap<DocumentId, (Vec<u8>, Vec<u8>)>,
}

impl Copy {
    fn new(doc: Automerge) -> Self {
        Self {
            doc,
            state: State::new(),
        }
    }

    pub(crate) fn heads(&self) -> Vec<ChangeHash> {
        let mut heads: Vec<_> = self.doc.get_heads().iter().map(ours).collect();
        heads.sort_unstable();
        heads
    }
}

impl Device {
    pub(crate) fn new(name: String, group: usize, session: usize, is_watching: bool) -> Self {
        Self {
            name,
            group,
            session,
            copies: BTreeMap::new(),
            link: None,
            is_greeted: false,
            starts: 0,
            ephemeral_count: 0,
            is_watching,
            heard: BTreeMap::new(),
            backup: BTreeMap::new(),
        }
    }

    /// Another one for each document and each start, as the library has it.
    fn actor(&self, document: DocumentId) -> ActorId {
        let name = format!("{} {} {document}", self.name, self.starts);
        name.as_bytes().into()
    }

    /// Opens a document: asks for it, or begins it.
    pub(crate) fn open(&mut self, document: DocumentId) -> Option<Packet> {
        let actor = self.actor(document);
        self.copies
            .entry(document)
            .or_insert_with(|| Copy::new(Automerge::new().with_actor(actor)));
        self.say(document)
    }

    /// Changes a document that is open.
    pub(crate) fn edit(&mut self, document: DocumentId, dice: &mut Dice, step: u64) -> Option<()> {
        let copy = self.copies.get_mut(&document)?;
        let mut transaction = copy.doc.transaction();
        let key = format!("key {}", dice.below(5));
        // a long one is deflated
        let length = if dice.one_in(12) { 1_000 } else { 60 };
        let value = format!("{step} {}", "x".repeat(dice.below(length)));
        transaction.put(ROOT, key, value).ok()?;
        if dice.one_in(8) {
            let text = transaction.put_object(ROOT, "text", automerge::ObjType::Text);
            let text = text.ok()?;
            transaction.splice_text(&text, 0, 0, "some text").ok()?;
        }
        transaction.commit().0.map(drop)
    }

    /// What the library wants to say about a document, if it is connected.
    pub(crate) fn say(&mut self, document: DocumentId) -> Option<Packet> {
        if !self.is_greeted {
            return None;
        }
        let copy = self.copies.get_mut(&document)?;
        let message = copy.doc.generate_sync_message(&mut copy.state)?;
        let kind = if copy.doc.get_heads().is_empty() {
            "request"
        } else {
            "sync"
        };
        let brings = message.changes.iter().flat_map(chunks::hashes).collect();
        Some(Packet {
            frame: sync_frame(kind, &self.name, document, &message.encode()),
            document: Some(document),
            brings,
        })
    }

    /// A presence message, which says where it was sent.
    pub(crate) fn wave(&mut self, document: DocumentId) -> Option<Packet> {
        if !self.is_greeted || !self.copies.contains_key(&document) {
            return None;
        }
        self.ephemeral_count += 1;
        let text = format!("{} {document} {}", self.group, self.ephemeral_count);
        Some(ephemeral(
            &self.name,
            &format!("{} {}", self.name, self.starts),
            self.ephemeral_count,
            document,
            text.as_bytes(),
        ))
    }

    /// Watches the server's storage from now on, or not any more.
    pub(crate) fn turn(&mut self) -> Option<Packet> {
        self.is_watching = !self.is_watching;
        self.is_greeted.then(|| self.watch())
    }

    fn watch(&self) -> Packet {
        let key = if self.is_watching { "add" } else { "remove" };
        plain(watch_frame(&self.name, key, &["another", "storage"]))
    }

    /// Whether it hears of each document that it has open which heads lie in the server's storage.
    pub(crate) fn hears(&self) -> bool {
        self.is_watching && self.is_greeted
    }

    /// Which heads lie in its own storage.
    pub(crate) fn tell(&self, document: DocumentId) -> Option<Packet> {
        let copy = self.copies.get(&document).filter(|_| self.is_greeted)?;
        let heads: Vec<_> = copy.heads().iter().map(ChangeHash::to_string).collect();
        let heads: Vec<_> = heads.iter().map(String::as_str).collect();
        Some(plain(remote_heads_frame(&self.name, &heads)))
    }

    /// A connection begins: what is remembered of the last one is the shared heads.
    pub(crate) fn connected(&mut self, connection: ConnectionId) {
        self.heard.clear();
        self.link = Some(connection);
        self.is_greeted = false;
        for copy in self.copies.values_mut() {
            copy.state = State::decode(&copy.state.encode()).unwrap_or_default();
        }
    }

    pub(crate) fn disconnected(&mut self) {
        self.link = None;
        self.is_greeted = false;
    }

    /// Forgets how far each document was in step.
    pub(crate) fn forget_states(&mut self) {
        self.copies
            .values_mut()
            .for_each(|copy| copy.state = State::new());
    }

    /// Keeps its documents as they are now.
    pub(crate) fn back_up(&mut self) {
        self.backup = self
            .copies
            .iter()
            .map(|(id, copy)| (*id, (copy.doc.save(), copy.state.encode())))
            .collect();
    }

    /// Starts again from its documents as they were once: what it had not sent since is lost, by its own fault.
    pub(crate) fn restore(&mut self) {
        self.starts += 1;
        self.copies.clear();
        for (id, (bytes, state)) in &self.backup {
            if let Ok(doc) = Automerge::load(bytes) {
                let mut copy = Copy::new(doc.with_actor(self.actor(*id)));
                copy.state = State::decode(state).unwrap_or_default();
                self.copies.insert(*id, copy);
            }
        }
    }

    /// Takes a frame of the server; what it says to that.
    pub(crate) fn receive(&mut self, bytes: &Bytes) -> Result<Vec<Packet>, Violation> {
        let received = Received::parse(bytes);
        match received.kind.as_str() {
            "peer" => {
                self.is_greeted = true;
                let watch = self.is_watching.then(|| self.watch());
                let documents: Vec<_> = self.copies.keys().copied().collect();
                let says = documents.into_iter().filter_map(|id| self.say(id));
                Ok(watch.into_iter().chain(says).collect())
            }
            "sync" => self.receive_sync(&received),
            "remote-heads-changed" => {
                if let Ok(id) = received.document.parse() {
                    self.heard.insert(id, received.stored_heads());
                }
                Ok(vec![])
            }
            "doc-unavailable" | "error" | "ephemeral" => Ok(vec![]),
            other => Err(Violation::new(
                Checker::Sound,
                format!("an unknown frame: {other}"),
            )),
        }
    }

    fn receive_sync(&mut self, received: &Received) -> Result<Vec<Packet>, Violation> {
        let Ok(id) = received.document.parse::<DocumentId>() else {
            return Ok(vec![]);
        };
        let actor = self.actor(id);
        let copy = self
            .copies
            .entry(id)
            .or_insert_with(|| Copy::new(Automerge::new().with_actor(actor)));
        let message = received.sync_message();
        let is_document = |bytes: &[u8]| bytes.get(8) == Some(&chunks::DOCUMENT);
        let is_whole = message.changes.iter().any(is_document);
        let taken = chunks::unless_it_panics(|| {
            let taken = copy.doc.receive_sync_message(&mut copy.state, message);
            if is_whole {
                // some are taken, and panic when they are looked at
                drop(copy.doc.get_changes(&[]));
            }
            Some(taken)
        });
        match taken {
            Some(Ok(())) => Ok(self.say(id).into_iter().collect()),
            Some(Err(problem)) => Err(self.cannot_take(&problem.to_string())),
            None => Err(self.cannot_take("a panic")),
        }
    }

    fn cannot_take(&self, problem: &str) -> Violation {
        let what = format!("{} cannot take what it was sent: {problem}", self.name);
        Violation::new(Checker::Convergent, what)
    }

    /// Its app has died of a document, and begins anew without it.
    pub(crate) fn lose(&mut self, document: DocumentId) {
        self.starts += 1;
        self.copies.remove(&document);
    }
}

/// A presence message of somebody.
pub(crate) fn ephemeral(
    sender: &str,
    session: &str,
    count: u64,
    document: DocumentId,
    data: &[u8],
) -> Packet {
    let mut e = minicbor::Encoder::new(Vec::new());
    let id = document.to_string();
    let encoded = e
        .map(7)
        .and_then(|e| e.str("type")?.str("ephemeral"))
        .and_then(|e| e.str("senderId")?.str(sender))
        .and_then(|e| e.str("targetId")?.str("server"))
        .and_then(|e| e.str("documentId")?.str(&id))
        .and_then(|e| e.str("sessionId")?.str(session))
        .and_then(|e| e.str("count")?.u64(count))
        .and_then(|e| e.str("data")?.bytes(data))
        .is_ok();
    debug_assert!(encoded, "a vector takes what is written to it");
    Packet {
        frame: e.into_writer().into(),
        document: Some(document),
        brings: vec![],
    }
}

/// The frame that begins a connection.
pub(crate) fn join(name: &str) -> Packet {
    plain(frame(&[("type", "join"), ("senderId", name)], None))
}

/// A frame that brings no change.
pub(crate) fn plain(frame: Bytes) -> Packet {
    Packet {
        frame,
        document: None,
        brings: vec![],
    }
}
