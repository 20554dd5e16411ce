//! What must hold after every call of the engine, whoever sends what, and whatever store and worker say.
//!
//! * Nothing is sent to a connection that is not open, and before it has joined nothing but why it is closed.
//! * Heads and changes that anybody is told of are ones that the engine was told are stored.
//! * What a connection sends that may not write is never written, nor is it asked for anything.
//! * One input has a bounded number of effects, and no message is longer than what is stored.
//!
//! Once store or worker have lied, what is stored is anybody's guess, and only the first and the last are checked.

use std::collections::{BTreeMap, BTreeSet};

use engine::{
    Access, ChangeHash, ConnectionId, DocumentId, Effect, Input,
    storage::{Write, WriteAction},
};
use minicbor::{Decoder, data::Type};

use super::library;

/// Beside what each connection and document may cause.
const EFFECTS_MIN: usize = 32;
/// Of a message beside its chunks: names, hashes, and CBOR around it.
const MESSAGE_BYTES: usize = 4_096;

/// An open connection, as seen from outside.
struct Peer {
    access: Access,
    joined: bool,
    /// What it has sent while it might not write: it might when that is looked at.
    withheld: Vec<ChangeHash>,
}

/// What is known from outside.
#[derive(Default)]
pub struct Checks {
    peers: BTreeMap<ConnectionId, Peer>,
    /// Chunks, and changes in them, of which the engine was told that they are stored.
    durable: BTreeMap<DocumentId, BTreeSet<ChangeHash>>,
    /// The most that was ever stored of a document, in bytes.
    stored_bytes: BTreeMap<DocumentId, usize>,
    /// What was sent by those who may write.
    allowed: BTreeSet<ChangeHash>,
    /// Store or worker have said what was not so.
    pub lied: bool,
}

/// A frame from the server.
#[derive(Debug, Default)]
pub struct Received {
    pub kind: String,
    pub document: Option<DocumentId>,
    pub data: Vec<u8>,
    pub heads: Vec<ChangeHash>,
    pub need: Vec<ChangeHash>,
}

impl Checks {
    pub fn is_open(&self, connection: ConnectionId) -> bool {
        self.peers.contains_key(&connection)
    }

    pub fn open_connections(&self) -> usize {
        self.peers.len()
    }

    /// Takes note of what goes in.
    pub fn goes_in(&mut self, input: &Input) {
        match input {
            Input::Opened { connection, access } => {
                let (joined, withheld) = (false, vec![]);
                let access = *access;
                self.peers.insert(
                    *connection,
                    Peer {
                        access,
                        joined,
                        withheld,
                    },
                );
            }
            Input::Closed { connection } => drop(self.peers.remove(connection)),
            Input::Frame { connection, frame } => {
                if let Some(peer) = self.peers.get_mut(connection) {
                    peer.withheld.extend(chunk_hashes(frame));
                    self.release(*connection);
                }
            }
            Input::AccessChanged {
                connection,
                access: Some(access),
            } => {
                if let Some(peer) = self.peers.get_mut(connection) {
                    peer.access = *access;
                    self.release(*connection);
                }
            }
            _ => {}
        }
    }

    fn release(&mut self, connection: ConnectionId) {
        if let Some(peer) = self.peers.get_mut(&connection)
            && peer.access == Access::Write
        {
            self.allowed.append(&mut peer.withheld.drain(..).collect());
        }
    }

    /// Takes note of what the engine is about to be told is stored.
    pub fn told_stored(&mut self, document: DocumentId, chunks: &[u8], heads: &[ChangeHash]) {
        let durable = self.durable.entry(document).or_default();
        durable.extend(library::hashes_in(chunks));
        durable.extend(heads);
    }

    pub fn note_stored_bytes(&mut self, document: DocumentId, bytes: usize) {
        let most = self.stored_bytes.entry(document).or_default();
        *most = bytes.max(*most);
    }

    /// All is forgotten but what is on the disk.
    pub fn restart(&mut self) {
        self.peers.clear();
    }

    /// Looks at what came out; the frames that were sent, by connection.
    pub fn came_out(
        &mut self,
        input: &Input,
        answers: usize,
        effects: &[Effect],
    ) -> Vec<(ConnectionId, Received)> {
        let each = (self.peers.len() + 1) * (self.durable.len() + 2);
        assert!(
            effects.len() <= EFFECTS_MIN + (8 + 4 * answers) * each,
            "{} effects",
            effects.len()
        );
        let mut frames = vec![];
        for (at, effect) in effects.iter().enumerate() {
            match effect {
                Effect::Send { connection, frame } => {
                    let received = self.sent(*connection, &frame.to_bytes());
                    let last_word = matches!(effects.get(at + 1), Some(Effect::Close { connection: next, .. }) if next == connection);
                    assert_eq!(received.kind == "error", last_word);
                    frames.push((*connection, received));
                }
                Effect::Close { connection, .. } => {
                    assert!(
                        self.peers.remove(connection).is_some(),
                        "closed what is closed"
                    );
                }
                Effect::Write { write, .. } => self.written(input, write),
                Effect::Read { .. } | Effect::Work { .. } => {}
            }
        }
        frames
    }

    fn sent(&mut self, connection: ConnectionId, frame: &[u8]) -> Received {
        let received = Received::parse(frame);
        let peer = self
            .peers
            .get_mut(&connection)
            .expect("sent to whom is not there");
        peer.joined |= received.kind == "peer";
        assert!(
            peer.joined || received.kind == "error",
            "{} before it has joined",
            received.kind
        );
        let access = peer.access;
        if let Some(document) = received.document
            && !self.lied
        {
            self.is_stored(document, frame.len(), &received);
            let asked = access == Access::Read && !received.need.is_empty();
            assert!(!asked, "asked for what it may not send");
        }
        received
    }

    fn is_stored(&self, document: DocumentId, length: usize, received: &Received) {
        if !matches!(received.kind.as_str(), "sync" | "remote-heads-changed") {
            return;
        }
        let nothing = BTreeSet::new();
        let durable = self.durable.get(&document).unwrap_or(&nothing);
        for head in &received.heads {
            assert!(durable.contains(head), "told of a head that is not stored");
        }
        for hash in chunk_changes(&received.data) {
            assert!(
                durable.contains(&hash),
                "sent a change that is not stored: {hash}"
            );
        }
        let stored = self.stored_bytes.get(&document).copied().unwrap_or(0);
        assert!(
            length <= stored + MESSAGE_BYTES,
            "{length} bytes, and {stored} are stored"
        );
    }

    fn written(&self, input: &Input, write: &Write) {
        let WriteAction::Append { chunk, orphans, .. } = &write.action else {
            return;
        };
        if let Input::Frame { connection, .. } = input {
            let writer = self.peers.get(connection);
            assert!(writer.is_some_and(|peer| peer.access == Access::Write));
        }
        if self.lied {
            return;
        }
        let chunk = chunk.iter().map(|chunk| &chunk.bytes);
        for bytes in chunk.chain(orphans.iter().map(|orphan| &orphan.bytes)) {
            for hash in chunk_hashes(bytes) {
                assert!(
                    self.allowed.contains(&hash),
                    "wrote what nobody may have sent"
                );
            }
        }
    }
}

/// The hashes of all chunks that lie anywhere in these bytes.
fn chunk_hashes(bytes: &[u8]) -> Vec<ChangeHash> {
    library::chunks_anywhere(bytes)
        .map(|(_, _, hash)| hash)
        .collect()
}

/// The changes in all chunks that lie anywhere in these bytes.
fn chunk_changes(bytes: &[u8]) -> Vec<ChangeHash> {
    library::chunks_anywhere(bytes)
        .flat_map(|chunk| library::changes_of(&chunk))
        .collect()
}

impl Received {
    fn parse(frame: &[u8]) -> Self {
        let mut decoder = Decoder::new(frame);
        let mut received = Self::default();
        for _ in 0..decoder.map().unwrap().unwrap() {
            match decoder.str().unwrap() {
                "type" => received.kind = decoder.str().unwrap().into(),
                "documentId" => received.document = decoder.str().unwrap().parse().ok(),
                "data" => received.data = decoder.bytes().unwrap().into(),
                "newHeads" => received.heads = stored_heads(&mut decoder),
                _ => decoder.skip().unwrap(),
            }
        }
        assert_eq!(
            decoder.position(),
            frame.len(),
            "something behind the frame"
        );
        if received.kind == "sync" {
            let mut rest = &received.data[1..];
            received.heads = hashes(&mut rest);
            received.need = hashes(&mut rest);
        }
        received
    }
}

fn hashes(rest: &mut &[u8]) -> Vec<ChangeHash> {
    let count = library::read_leb128(rest).unwrap();
    let (all, after) = rest.split_at(count * ChangeHash::BYTES);
    *rest = after;
    all.chunks_exact(ChangeHash::BYTES)
        .map(|hash| ChangeHash::from_bytes(hash.try_into().unwrap()))
        .collect()
}

/// `{ [storageId]: { heads: [...], timestamp } }`, in either way of writing heads.
fn stored_heads(decoder: &mut Decoder<'_>) -> Vec<ChangeHash> {
    let mut heads = vec![];
    decoder.map().unwrap();
    decoder.skip().unwrap();
    for _ in 0..decoder.map().unwrap().unwrap() {
        if decoder.str().unwrap() != "heads" {
            decoder.skip().unwrap();
            continue;
        }
        for _ in 0..decoder.array().unwrap().unwrap() {
            heads.push(head(decoder.str().unwrap()));
        }
    }
    assert_ne!(decoder.datatype().ok(), Some(Type::Break));
    heads
}

fn head(text: &str) -> ChangeHash {
    let bytes = if text.len() == 2 * ChangeHash::BYTES {
        let pairs = text.as_bytes().chunks_exact(2);
        pairs
            .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    } else {
        bs58::decode(text).with_check(None).into_vec().unwrap()
    };
    ChangeHash::from_bytes(bytes.try_into().unwrap())
}
