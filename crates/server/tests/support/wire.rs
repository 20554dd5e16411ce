//! Frames of the protocol, written and read without the server's own code.

use automerge::sync::Message;
use bytes::Bytes;
use engine::DocumentId;
use minicbor::{Decoder, Encoder};

/// A frame from the server.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Received {
    pub kind: String,
    pub sender: String,
    pub target: String,
    pub document: String,
    pub data: Vec<u8>,
    pub message: String,
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
                _ => decoder.skip().unwrap(),
            }
        }
        received
    }

    pub fn sync_message(&self) -> Message {
        assert_eq!(self.kind, "sync", "{self:?}");
        Message::decode(&self.data).unwrap()
    }
}

/// A frame of text fields and data.
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

pub fn join_frame(peer: &str) -> Bytes {
    frame(&[("type", "join"), ("senderId", peer)], None)
}

pub fn sync_frame(kind: &str, peer: &str, document: DocumentId, data: &[u8]) -> Bytes {
    sync_frame_as(kind, peer, &document.to_string(), data)
}

/// A frame whose document id may be none.
pub fn sync_frame_as(kind: &str, peer: &str, document: &str, data: &[u8]) -> Bytes {
    let fields = [
        ("type", kind),
        ("senderId", peer),
        ("targetId", "server"),
        ("documentId", document),
    ];
    frame(&fields, Some(data))
}
