//! A stranger: has a session, perhaps, and sends whatever comes to mind, at any time.

use automerge::{
    Automerge, ROOT,
    sync::{Message, State, SyncDoc},
    transaction::Transactable,
};
use engine::{ConnectionId, DocumentId, limits::ORPHANS_MAX};

use crate::{
    chunks,
    device::{ephemeral, join},
    dice::Dice,
    frames::{frame, sync_frame},
    link::Packet,
};

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
    pub(crate) fn change(&mut self, step: u64) -> Option<()> {
        let mut transaction = self.doc.transaction();
        let value = format!("{step}");
        transaction.put(ROOT, "stranger", value).ok()?;
        transaction.commit().0.map(drop)
    }

    /// Something to send.
    pub(crate) fn mischief(&mut self, dice: &mut Dice, documents: &[DocumentId]) -> Packet {
        let document = documents
            .get(dice.below(documents.len().max(1)))
            .copied()
            .unwrap_or(self.document);
        match dice.below(16) {
            0 => plain(garbage(dice)),
            1 => join(&self.name),
            2 => join("somebody else"),
            3 => plain(sync_frame("sync", "device 0", document, &self.message(dice)).to_vec()),
            4 => plain(sync_frame("sync", &self.name, document, &garbage(dice)).to_vec()),
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
                plain(frame(&fields, None).to_vec())
            }
            12 => self.claims(dice, document),
            13 => self.forked(),
            14 => self.strays(dice),
            _ => plain(sync_frame("request", &self.name, document, &self.message(dice)).to_vec()),
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
            .flat_map(|bytes| chunks::hashes(bytes).unwrap_or_default())
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
        // whatever the checksum said, nobody made these
        packet.brings.clear();
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

    /// Another change with a sequence number that it has used.
    fn forked(&self) -> Packet {
        let mut fork = Automerge::new().with_actor(self.name.as_bytes().into());
        edit(&mut fork, "forked");
        self.sync(raw_changes(&fork), self.document)
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
        plain(sync_frame("sync", &self.name, document, &bytes.unwrap_or_default()).to_vec())
    }

    fn raw_changes(&self) -> Vec<Vec<u8>> {
        raw_changes(&self.doc)
    }
}

fn raw_changes(doc: &Automerge) -> Vec<Vec<u8>> {
    let changes = doc.get_changes(&[]);
    changes
        .into_iter()
        .map(|change| change.raw_bytes().to_vec())
        .collect()
}

fn edit(doc: &mut Automerge, value: &str) {
    let mut transaction = doc.transaction();
    let put = transaction.put(ROOT, "stranger", value);
    debug_assert!(put.is_ok(), "the root takes any key");
    transaction.commit();
}

fn hashes(message: &Message) -> Vec<engine::ChangeHash> {
    let of_chunk = |bytes| chunks::hashes(bytes).unwrap_or_default();
    message.changes.iter().flat_map(of_chunk).collect()
}

fn plain(frame: Vec<u8>) -> Packet {
    Packet {
        frame: frame.into(),
        document: None,
        brings: vec![],
    }
}

fn byte(dice: &mut Dice) -> u8 {
    u8::try_from(dice.below(256)).unwrap_or_default()
}

fn garbage(dice: &mut Dice) -> Vec<u8> {
    (0..dice.below(60)).map(|_| byte(dice)).collect()
}
