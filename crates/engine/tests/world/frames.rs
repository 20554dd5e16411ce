//! Frames as a client reads and writes them, by means that are not the engine's.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each user has need of a part of it, and a test that meets the unexpected ends"
)]

use automerge::sync::Message;
use bytes::Bytes;
use engine::{ChangeHash, DocumentId};
use minicbor::{Decoder, Encoder, data::Type};

pub fn ours(hash: &automerge::ChangeHash) -> ChangeHash {
    ChangeHash::from_bytes(hash.0)
}

pub fn theirs(hash: &ChangeHash) -> automerge::ChangeHash {
    automerge::ChangeHash(*hash.as_bytes())
}

/// A frame from the server.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Received {
    pub kind: String,
    pub sender: String,
    pub target: String,
    pub document: String,
    pub data: Vec<u8>,
    pub message: String,
    /// The heads in `newHeads`, as they were written.
    pub new_heads: Vec<String>,
}

impl Received {
    pub fn parse(frame: &[u8]) -> Self {
        let mut decoder = Decoder::new(frame);
        let mut received = Self::default();
        for _ in 0..decoder.map().unwrap().unwrap() {
            match decoder.str().unwrap() {
                "type" => received.kind = decoder.str().unwrap().into(),
                "senderId" => received.sender = decoder.str().unwrap().into(),
                "targetId" => received.target = decoder.str().unwrap().into(),
                "documentId" => received.document = decoder.str().unwrap().into(),
                "data" => received.data = decoder.bytes().unwrap().into(),
                "message" => received.message = decoder.str().unwrap().into(),
                "newHeads" => {
                    decoder.map().unwrap();
                    decoder.str().unwrap();
                    for _ in 0..decoder.map().unwrap().unwrap() {
                        if decoder.str().unwrap() == "heads" {
                            let count = decoder.array().unwrap().unwrap();
                            let heads = (0..count).map(|_| decoder.str().unwrap().to_owned());
                            received.new_heads.extend(heads);
                        } else {
                            decoder.skip().unwrap();
                        }
                    }
                }
                _ => decoder.skip().unwrap(),
            }
            assert_ne!(decoder.datatype().ok(), Some(Type::Break));
        }
        received
    }

    /// One line for a trace.
    pub fn describe(&self) -> String {
        if self.kind == "sync" {
            describe(&self.sync_message())
        } else {
            format!("{self:?}")
        }
    }

    /// The heads in `newHeads`, written in hex or in base58check.
    pub fn stored_heads(&self) -> Vec<ChangeHash> {
        let read = |text: &String| {
            let digits = text.as_bytes().chunks(2);
            let in_hex: Option<Vec<u8>> = digits
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
                .collect();
            let bytes = in_hex.filter(|bytes| bytes.len() == ChangeHash::BYTES);
            let bytes =
                bytes.unwrap_or_else(|| bs58::decode(text).with_check(None).into_vec().unwrap());
            ChangeHash::from_bytes(bytes.try_into().unwrap())
        };
        self.new_heads.iter().map(read).collect()
    }

    pub fn sync_message(&self) -> Message {
        assert_eq!(self.kind, "sync", "{self:?}");
        Message::decode(&self.data).unwrap()
    }
}

/// One line for a trace.
pub fn describe(message: &Message) -> String {
    let short = |hashes: &[automerge::ChangeHash]| {
        let all: Vec<_> = hashes
            .iter()
            .map(|hash| hash.to_string()[..4].to_owned())
            .collect();
        all.join(",")
    };
    let have: Vec<_> = message
        .have
        .iter()
        .map(|have| short(&have.last_sync))
        .collect();
    format!(
        "heads [{}] need [{}] have {have:?} changes {:?} flags {:?}",
        short(&message.heads),
        short(&message.need),
        message.changes.iter().map(<[u8]>::len).collect::<Vec<_>>(),
        message.flags
    )
}

/// A frame to the server, of text fields and data.
pub fn frame(fields: &[(&str, &str)], data: Option<&[u8]>) -> Bytes {
    let mut e = Encoder::new(Vec::new());
    e.map(fields.len() as u64 + u64::from(data.is_some()))
        .unwrap();
    for (key, value) in fields {
        e.str(key).unwrap().str(value).unwrap();
    }
    if let Some(data) = data {
        e.str("data").unwrap().bytes(data).unwrap();
    }
    e.into_writer().into()
}

/// A sync message of these chunks and nothing else.
pub fn message_of<B: AsRef<[u8]>>(chunks: &[B]) -> Vec<u8> {
    let mut message = vec![0x42, 0, 0, 0];
    write_number(&mut message, chunks.len());
    for chunk in chunks {
        write_number(&mut message, chunk.as_ref().len());
        message.extend_from_slice(chunk.as_ref());
    }
    message
}

/// Appends an unsigned LEB128 number.
pub fn write_number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

pub fn join_frame(peer: &str) -> Bytes {
    frame(&[("type", "join"), ("senderId", peer)], None)
}

pub fn sync_frame(kind: &str, peer: &str, document: DocumentId, data: &[u8]) -> Bytes {
    let id = document.to_string();
    let fields = [
        ("type", kind),
        ("senderId", peer),
        ("targetId", "server"),
        ("documentId", id.as_str()),
    ];
    frame(&fields, Some(data))
}

/// That a peer watches these storages from now on ("add"), or not any more ("remove").
pub fn watch_frame(peer: &str, key: &str, storages: &[&str]) -> Bytes {
    let mut e = Encoder::new(Vec::new());
    e.map(3).unwrap();
    for (name, value) in [("type", "remote-subscription-change"), ("senderId", peer)] {
        e.str(name).unwrap().str(value).unwrap();
    }
    e.str(key).unwrap().array(storages.len() as u64).unwrap();
    for storage in storages {
        e.str(storage).unwrap();
    }
    e.into_writer().into()
}

/// Which heads lie in a peer's own storage, as it writes them.
pub fn remote_heads_frame(peer: &str, heads: &[&str]) -> Bytes {
    let mut e = Encoder::new(Vec::new());
    e.map(3).unwrap();
    for (name, value) in [("type", "remote-heads-changed"), ("senderId", peer)] {
        e.str(name).unwrap().str(value).unwrap();
    }
    e.str("newHeads").unwrap().map(1).unwrap();
    e.str("its storage").unwrap().map(1).unwrap();
    e.str("heads").unwrap().array(heads.len() as u64).unwrap();
    for head in heads {
        e.str(head).unwrap();
    }
    e.into_writer().into()
}
