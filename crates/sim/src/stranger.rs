//! A stranger: has a session, perhaps, and sends whatever comes to mind, at any time.

use automerge::{
    Automerge, ROOT, ReadDoc,
    sync::{Message, State, SyncDoc},
    transaction::Transactable,
};
use bytes::Bytes;
use engine::{
    ConnectionId, DocumentId,
    limits::{HEADS_MAX, ORPHANS_MAX},
};
use minicbor::Encoder;

use crate::{
    chunks,
    device::{ephemeral, join, plain},
    dice::Dice,
    frames::{frame, ours, remote_heads_frame, sync_frame, theirs, watch_frame},
    link::Packet,
};

/// Bytes before the contents of a short chunk, or some more.
const CHUNK_HEAD_BYTES: usize = 11;

pub(crate) struct Stranger {
    pub(crate) name: String,
    pub(crate) group: usize,
    pub(crate) session: usize,
    pub(crate) link: Option<ConnectionId>,
    /// A ticket that was used once already.
    pub(crate) used_ticket: Option<u64>,
    doc: Automerge,
    document: DocumentId,
    count: u64,
    overheard: Vec<Vec<u8>>,
}

impl Stranger {
    pub(crate) fn new(name: String, group: usize, session: usize, document: DocumentId) -> Self {
        Self {
            doc: Automerge::new().with_actor(name.as_bytes().into()),
            name,
            group,
            session,
            link: None,
            used_ticket: None,
            document,
            count: 0,
            overheard: vec![],
        }
    }

    /// Keeps something that it was sent, to send it back in another place.
    pub(crate) fn overhear(&mut self, bytes: &[u8]) {
        if self.overheard.len() < 16 {
            self.overheard.push(bytes.to_vec());
        }
    }

    /// A change of its own, sound in itself.
    pub(crate) fn change(&mut self, dice: &mut Dice, step: u64) -> Option<()> {
        let mut transaction = self.doc.transaction();
        // a long one is deflated
        let length = if dice.one_in(4) { 600 } else { 0 };
        let value = format!("{step}{}", "y".repeat(length));
        transaction.put(ROOT, "stranger", value).ok()?;
        transaction.commit().0.map(drop)
    }

    /// Something to send.
    pub(crate) fn mischief(&mut self, dice: &mut Dice, documents: &[DocumentId]) -> Packet {
        let document = documents
            .get(dice.below(documents.len().max(1)))
            .copied()
            .unwrap_or(self.document);
        match dice.below(26) {
            0 => plain(garbage(dice).into()),
            1 => join(&self.name),
            2 => join("somebody else"),
            3 => plain(sync_frame(
                "sync",
                "device 0",
                document,
                &self.message(dice),
            )),
            4 => plain(sync_frame("sync", &self.name, document, &garbage(dice))),
            5 => self.bit_flipped(dice, document),
            6 | 7 => self.without_ancestors(dice),
            8 => self.whole(dice),
            9 => self.replayed(dice, document),
            10 => {
                self.count += 1;
                let session = format!("{}", dice.below(6));
                let text = b"by a stranger";
                ephemeral(&self.name, &session, self.count, document, text)
            }
            11 => {
                let kind = ["request", "leave", "remote-subscription-change", "nonsense"];
                let kind = kind.get(dice.below(4)).copied().unwrap_or("leave");
                let id = document.to_string();
                let fields = [
                    ("type", kind),
                    ("senderId", self.name.as_str()),
                    ("targetId", "server"),
                    ("documentId", id.as_str()),
                ];
                plain(frame(&fields, None))
            }
            12 => self.claims(dice, document),
            13 => self.forked(dice),
            14 | 24 => self.strays(dice),
            15 => {
                let id = document.to_string();
                let kind = ("type", "doc-unavailable");
                let fields = [kind, ("senderId", &*self.name), ("documentId", &*id)];
                plain(frame(&fields, None))
            }
            16 => plain(remote_heads_frame(&self.name, &["", "no head"])),
            17 => {
                let key = if dice.one_in(2) { "add" } else { "remove" };
                plain(watch_frame(&self.name, key, &["storage", "of nobody"]))
            }
            18 => self.counterfeit(dice),
            19 => self.many_heads(dice, document),
            20 => self.bundle(),
            21 => {
                // one of more than it may have open
                let document = DocumentId::from_bytes([200 + byte(dice) % 20; 16]);
                plain(sync_frame(
                    "request",
                    &self.name,
                    document,
                    &self.message(dice),
                ))
            }
            22 => plain(join_of_another_version(&self.name)),
            _ => plain(sync_frame(
                "request",
                &self.name,
                document,
                &self.message(dice),
            )),
        }
    }

    fn message(&self, dice: &mut Dice) -> Vec<u8> {
        let mut state = State::new();
        let doc = if dice.one_in(2) {
            &Automerge::new()
        } else {
            &self.doc
        };
        doc.generate_sync_message(&mut state)
            .map(Message::encode)
            .unwrap_or_default()
    }

    /// A sync message with these changes, for its own document.
    fn sync(&self, changes: Vec<Vec<u8>>, document: DocumentId) -> Packet {
        let mut state = State::new();
        let brings = changes
            .iter()
            .flat_map(|bytes| chunks::hashes(bytes))
            .collect();
        let message = Automerge::new().generate_sync_message(&mut state);
        let bytes = message.map(|mut message| {
            message.changes = changes.into();
            message.heads = self.doc.get_heads();
            message.encode()
        });
        Packet {
            frame: sync_frame("sync", &self.name, document, &bytes.unwrap_or_default()),
            document: Some(document),
            brings,
        }
    }

    fn bit_flipped(&self, dice: &mut Dice, document: DocumentId) -> Packet {
        let mut changes = self.raw_changes();
        if let Some(change) = changes.last_mut() {
            let at = dice.below(change.len());
            if let Some(byte) = change.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        let changes = changes.pop().into_iter().collect();
        let mut packet = self.sync(changes, document);
        // whatever the checksum said, nobody made others; a bit behind what is deflated means nothing
        let is_made = |hash: &_| self.doc.get_change_by_hash(&theirs(hash)).is_some();
        packet.brings.retain(is_made);
        packet
    }

    /// Its changes, but for the first ones.
    fn without_ancestors(&self, dice: &mut Dice) -> Packet {
        let mut changes = self.raw_changes();
        let from = dice.below(changes.len() + 1);
        changes.drain(..from);
        if dice.one_in(3) {
            changes.reverse();
        }
        self.sync(changes, self.document)
    }

    /// Another change with a sequence number that it has used, alone or as a whole document.
    fn forked(&self, dice: &mut Dice) -> Packet {
        let mut fork = Automerge::new().with_actor(self.name.as_bytes().into());
        edit(&mut fork, "forked");
        let changes = if dice.one_in(2) {
            vec![fork.save()]
        } else {
            raw_changes(&fork)
        };
        self.sync(changes, self.document)
    }

    /// More changes than are kept without their dependencies, the first of which never comes.
    fn strays(&self, dice: &mut Dice) -> Packet {
        let actor = format!("{} {}", self.name, dice.roll());
        let mut doc = Automerge::new().with_actor(actor.as_bytes().into());
        (0..ORPHANS_MAX + 2).for_each(|_| edit(&mut doc, "stray"));
        let mut changes = raw_changes(&doc);
        changes.remove(0);
        self.sync(changes, self.document)
    }

    fn whole(&self, dice: &mut Dice) -> Packet {
        let mut bytes = self.doc.save();
        if dice.one_in(3) {
            let at = dice.below(bytes.len());
            bytes.truncate(at);
        }
        self.sync(vec![bytes], self.document)
    }

    /// A whole document of which a bit is wrong, and the checksum right.
    fn counterfeit(&self, dice: &mut Dice) -> Packet {
        let mut bytes = self.doc.save();
        let at = CHUNK_HEAD_BYTES + dice.below(bytes.len().saturating_sub(CHUNK_HEAD_BYTES).max(1));
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << dice.below(8);
        }
        chunks::seal(&mut bytes);
        self.sync(vec![bytes], self.document)
    }

    /// As many branches as a document may have, or more than that with others or alone; one by one or as a whole.
    fn many_heads(&self, dice: &mut Dice, document: DocumentId) -> Packet {
        let whole = dice.one_in(2);
        let mut all = Automerge::new();
        for branch in 0..=dice.below(HEADS_MAX + 2) {
            let actor = format!("{} {branch}", self.name);
            let mut doc = Automerge::new().with_actor(actor.as_bytes().into());
            edit(&mut doc, "branch");
            let merged = all.merge(&mut doc);
            debug_assert!(merged.is_ok(), "they have nothing in common");
        }
        let changes = if whole {
            vec![all.save()]
        } else {
            raw_changes(&all)
        };
        self.sync(changes, document)
    }

    /// Its changes, all in one.
    fn bundle(&self) -> Packet {
        let hashes = self
            .doc
            .get_changes(&[])
            .into_iter()
            .map(|change| change.hash());
        let bundle = self.doc.bundle(hashes.clone());
        let bytes = bundle.map(|bundle| bundle.bytes().to_vec());
        let mut packet = self.sync(bytes.into_iter().collect(), self.document);
        packet.brings = hashes.map(|hash| ours(&hash)).collect();
        packet
    }

    fn replayed(&self, dice: &mut Dice, document: DocumentId) -> Packet {
        let overheard = self.overheard.get(dice.below(self.overheard.len().max(1)));
        let data = overheard.cloned().unwrap_or_default();
        let brings = Message::decode(&data).map(|message| hashes(&message));
        Packet {
            frame: sync_frame("sync", &self.name, document, &data),
            document: Some(document),
            brings: brings.unwrap_or_default(),
        }
    }

    /// Heads and needs that there are not.
    fn claims(&self, dice: &mut Dice, document: DocumentId) -> Packet {
        let mut state = State::new();
        let mut hash = || automerge::ChangeHash(std::array::from_fn(|_| byte(dice)));
        let (mut heads, need) = (vec![hash(), hash()], vec![hash()]);
        heads.sort_unstable();
        let message = self.doc.generate_sync_message(&mut state);
        let bytes = message.map(|mut message| {
            message.heads = heads;
            message.need = need;
            message.encode()
        });
        plain(sync_frame(
            "sync",
            &self.name,
            document,
            &bytes.unwrap_or_default(),
        ))
    }

    fn raw_changes(&self) -> Vec<Vec<u8>> {
        raw_changes(&self.doc)
    }
}

fn raw_changes(doc: &Automerge) -> Vec<Vec<u8>> {
    let changes = doc.get_changes(&[]);
    changes
        .into_iter()
        .map(|mut change| change.bytes().to_vec())
        .collect()
}

fn edit(doc: &mut Automerge, value: &str) {
    let mut transaction = doc.transaction();
    let put = transaction.put(ROOT, "stranger", value);
    debug_assert!(put.is_ok(), "the root takes any key");
    transaction.commit();
}

fn hashes(message: &Message) -> Vec<engine::ChangeHash> {
    let of_chunk = |bytes| chunks::hashes(bytes);
    message.changes.iter().flat_map(of_chunk).collect()
}

/// The frame that begins a connection of another protocol than ours.
fn join_of_another_version(name: &str) -> Bytes {
    let mut e = Encoder::new(Vec::new());
    let encoded = e
        .map(3)
        .and_then(|e| e.str("type")?.str("join"))
        .and_then(|e| e.str("senderId")?.str(name))
        .and_then(|e| e.str("supportedProtocolVersions")?.array(1)?.str("9"))
        .is_ok();
    debug_assert!(encoded, "a vector takes what is written to it");
    e.into_writer().into()
}

fn byte(dice: &mut Dice) -> u8 {
    u8::try_from(dice.below(256)).unwrap_or_default()
}

fn garbage(dice: &mut Dice) -> Vec<u8> {
    (0..dice.below(60)).map(|_| byte(dice)).collect()
}
