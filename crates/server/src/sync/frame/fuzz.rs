//! What the fuzzer gives the reader of frames, and what must hold of all that it takes.
//!
//! An input is a byte that says how the rest is cut, and what a client sends.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what must hold may panic"
)]

use std::io::{self, Read, Write};

use engine::limits::FRAME_BYTES_MAX;
use tokio_tungstenite::tungstenite::{
    Error, Message, WebSocket,
    protocol::{Role, WebSocketConfig},
};

use super::{FIRST_BYTES, HEAD_BYTES_MAX, Reader, Received, Sent, Violation, put};

/// "Bad gateway", which tungstenite has never heard of. Source: IANA, "WebSocket Close Code Number Registry".
const BAD_GATEWAY: &[u8] = &1014u16.to_be_bytes();

/// What came of a client's bytes.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    received: Vec<Received>,
    violation: Option<Violation>,
}

/// Bytes mean the same in whatever pieces they come, take no more memory than they have, and are to us what they are to
/// another implementation; what we write it reads.
pub(crate) fn frame(data: &[u8]) {
    let Some((seed, bytes)) = data.split_first() else {
        return;
    };
    let whole = read(bytes, || usize::MAX);
    let mut dice = u32::from(*seed);
    let cut = || {
        // Numerical Recipes; short pieces above all, for they cut heads
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (dice >> 24) as usize % if dice & 1 << 16 == 0 { 4 } else { 200 }
    };
    assert_eq!(read(bytes, cut), whole);
    compare(bytes, &whole);
    whole.received.iter().for_each(write_and_read);
}

fn read(mut bytes: &[u8], mut cut: impl FnMut() -> usize) -> Outcome {
    let (mut reader, mut received, mut there) = (Reader::default(), vec![], 0);
    while !bytes.is_empty() {
        let (mut piece, later) = bytes.split_at(cut().min(bytes.len()));
        bytes = later;
        there += piece.len();
        loop {
            match reader.take(&mut piece) {
                Ok(Some(one)) => received.push(one),
                Ok(None) => break,
                Err(violation) => {
                    let violation = Some(violation);
                    return Outcome {
                        received,
                        violation,
                    };
                }
            }
        }
        assert!(piece.is_empty(), "left something behind");
        assert!(reader.memory_bytes() <= 2 * (there + HEAD_BYTES_MAX) + FIRST_BYTES);
    }
    let violation = None;
    Outcome {
        received,
        violation,
    }
}

impl Reader {
    fn memory_bytes(&self) -> usize {
        let begun = self
            .begun
            .as_ref()
            .map_or(0, |frame| frame.payload.capacity());
        let message = self.message.as_ref().map_or(0, Vec::capacity);
        self.head.capacity() + begun + message
    }
}

/// Holds the outcome against tungstenite, which takes texts and codes that we do not, and waits for the whole head
/// before it says what is wrong with it.
fn compare(bytes: &[u8], ours: &Outcome) {
    let limits = WebSocketConfig::default()
        .max_frame_size(Some(FRAME_BYTES_MAX))
        .max_message_size(Some(FRAME_BYTES_MAX));
    let mut socket = WebSocket::from_raw_socket(Wire(bytes), Role::Server, Some(limits));
    for received in &ours.received {
        match (received, socket.read()) {
            (Received::Binary(ours), Ok(Message::Binary(theirs))) => assert_eq!(*ours, theirs),
            (Received::Ping(ours), Ok(Message::Ping(theirs))) => assert_eq!(*ours, theirs),
            (Received::Pong, Ok(Message::Pong(_))) => {}
            (Received::Close(said), Ok(Message::Close(_))) if said.starts_with(BAD_GATEWAY) => {
                return;
            }
            (Received::Close(said), Ok(Message::Close(theirs))) => {
                let theirs = theirs.map(|close| {
                    let code = u16::from(close.code).to_be_bytes();
                    [&code[..], close.reason.as_bytes()].concat()
                });
                // nothing that follows means anything to it
                return assert_eq!(*said, theirs.unwrap_or_default());
            }
            (ours, theirs) => panic!("{ours:?} is {theirs:?} to tungstenite"),
        }
    }
    match (ours.violation, socket.read()) {
        (None, Err(Error::Io(error))) if error.kind() == io::ErrorKind::WouldBlock => {}
        (Some(Violation::Text), _)
        | (Some(_), Err(_))
        // a code that nobody may send
        | (Some(Violation::Malformed), Ok(Message::Close(_))) => {}
        (ours, theirs) => panic!("{ours:?} is {theirs:?} to tungstenite"),
    }
}

/// What a client would read of it, were it ours.
fn write_and_read(received: &Received) {
    let mut bytes = vec![];
    match received {
        Received::Binary(payload) => put(&mut bytes, Sent::Binary, payload),
        Received::Ping(payload) => put(&mut bytes, Sent::Pong, payload),
        Received::Close(payload) => put(&mut bytes, Sent::Close, payload),
        Received::Pong => put(&mut bytes, Sent::Ping, &[]),
    }
    let read = WebSocket::from_raw_socket(Wire(&bytes), Role::Client, None).read();
    match (received, read.unwrap()) {
        (Received::Binary(payload), Message::Binary(read)) => assert_eq!(*payload, read),
        (Received::Ping(payload), Message::Pong(read)) => assert_eq!(*payload, read),
        (Received::Pong, Message::Ping(read)) => assert!(read.is_empty()),
        (Received::Close(payload), Message::Close(read)) => {
            assert_eq!(payload.is_empty(), read.is_none());
        }
        (ours, theirs) => panic!("{ours:?} was read as {theirs:?}"),
    }
}

/// Bytes that have come; there are no more yet. What is written to it is gone.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.read(into)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
