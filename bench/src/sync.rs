//! What the generator reads and writes of Automerge's sync messages without holding a document: heads, which changes
//! came, and the messages a client sends around them.
//!
//! Reading heads by hand instead of decoding whole messages is what lets one core of generator watch 50 readers.

use anyhow::{Context as _, Result, ensure};
use automerge::sync::{ChunkList, Have, Message, MessageFlags, MessageVersion, SyncDoc as _};
use automerge::{Automerge, ChangeHash};

const HASH_BYTES: usize = 32;
const CHUNK_MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHUNK_DOCUMENT: u8 = 0;

/// The first four bytes of a change's hash: its chunk's checksum.
pub(crate) type Checksum = [u8; 4];

pub(crate) fn checksum(hash: &ChangeHash) -> Checksum {
    let [a, b, c, d, ..] = hash.0;
    [a, b, c, d]
}

/// The sender's heads: the first thing in every message.
pub(crate) fn heads(message: &[u8]) -> Result<Vec<[u8; HASH_BYTES]>> {
    let (version, rest) = message.split_first().context("an empty sync message")?;
    ensure!(
        matches!(version, 0x42 | 0x43),
        "sync message of unknown version {version:#x}"
    );
    let (count, rest) = rest.split_first().context("a sync message without heads")?;
    ensure!(*count < 0x80, "more heads than any scenario makes");
    let count = usize::from(*count);
    let bytes = rest
        .get(..count * HASH_BYTES)
        .context("a truncated sync message")?;
    Ok(bytes
        .chunks_exact(HASH_BYTES)
        .filter_map(|hash| hash.try_into().ok())
        .collect())
}

/// The checksums of the chunks in a message. A whole-document chunk has one too, which no change has.
pub(crate) fn chunks(message: &[u8]) -> impl Iterator<Item = Checksum> + '_ {
    starts(message).filter_map(|chunk| chunk.get(4..8)?.try_into().ok())
}

/// Whether this message puts `head` into the reader's hands: as a change, or inside a document that ends there.
pub(crate) fn brings(message: &[u8], head: &ChangeHash) -> Result<bool> {
    if !heads(message)?.contains(&head.0) {
        return Ok(false);
    }
    let wanted = checksum(head);
    Ok(starts(message).any(|chunk| {
        chunk.get(8) == Some(&CHUNK_DOCUMENT) || chunk.get(4..8) == Some(wanted.as_slice())
    }))
}

fn starts(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = message;
    std::iter::from_fn(move || {
        let at = rest
            .windows(CHUNK_MAGIC.len())
            .position(|window| window == CHUNK_MAGIC)?;
        let chunk = rest.get(at..)?;
        rest = chunk.get(CHUNK_MAGIC.len()..)?;
        Some(chunk)
    })
}

/// The first message of a client that has nothing of a document.
pub(crate) fn request() -> Vec<u8> {
    let mut state = automerge::sync::State::new();
    let first = Automerge::new().generate_sync_message(&mut state);
    first
        .map(Message::encode)
        .expect("a first message is always due")
}

/// What a client answers that has just received everything up to `heads`.
pub(crate) fn confirm(heads: &[[u8; HASH_BYTES]]) -> Vec<u8> {
    let heads: Vec<ChangeHash> = heads.iter().copied().map(ChangeHash).collect();
    let have = Have {
        last_sync: heads.clone(),
        ..Have::default()
    };
    message(heads, have, ChunkList::empty()).encode()
}

/// A client's message with one new change on top of `before`.
pub(crate) fn edit(before: Vec<ChangeHash>, hash: ChangeHash, change: Vec<u8>) -> Vec<u8> {
    let bloom = automerge::sync::BloomFilter::from_hashes([hash].iter());
    message(
        vec![hash],
        Have {
            last_sync: before,
            bloom,
        },
        change.into(),
    )
    .encode()
}

fn message(heads: Vec<ChangeHash>, have: Have, changes: ChunkList) -> Message {
    let mut flags = MessageFlags::new();
    flags.set(MessageFlags::SUPPORTS_SYNC_RESET);
    Message {
        heads,
        need: Vec::new(),
        have: vec![have],
        changes,
        flags: Some(flags),
        version: MessageVersion::V2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history;

    /// A real client and a real server, both Automerge, after the client's first request was answered.
    fn pulled() -> (Automerge, automerge::sync::State, Vec<u8>, ChangeHash) {
        let server = history::text_document(1, 20).unwrap();
        let (mut theirs, mut ours) = (automerge::sync::State::new(), automerge::sync::State::new());
        let mut client = Automerge::new();
        let first = client.generate_sync_message(&mut ours).unwrap();
        assert_eq!(first.clone().encode(), request());
        let mut server_doc = server.clone();
        server_doc.receive_sync_message(&mut theirs, first).unwrap();
        let answer = server_doc.generate_sync_message(&mut theirs).unwrap();
        client
            .receive_sync_message(&mut ours, answer.clone())
            .unwrap();
        let head = server.get_heads()[0];
        (client, ours, answer.encode(), head)
    }

    #[test]
    fn a_pulled_document_is_seen_in_the_message_that_brings_it() {
        let (client, _, answer, head) = pulled();
        assert_eq!(client.get_heads(), vec![head]);
        assert!(brings(&answer, &head).unwrap());
        assert!(!brings(&confirm(&[head.0]), &head).unwrap());
    }

    #[test]
    fn a_confirmation_is_what_a_real_client_sends() {
        let (client, mut state, answer, _) = pulled();
        let real = client.generate_sync_message(&mut state).unwrap();
        let ours = Message::decode(&confirm(&heads(&answer).unwrap())).unwrap();
        assert_eq!(
            (real.heads, real.need, real.have),
            (ours.heads, ours.need, ours.have)
        );
    }

    #[test]
    fn an_edit_is_applied_by_a_real_peer() {
        let mut writer = history::text_document(2, 3).unwrap();
        let mut reader = writer.clone();
        let edits = history::typed(&mut writer, 2).unwrap();
        let mut state = automerge::sync::State::new();
        for edit in &edits {
            reader
                .receive_sync_message(&mut state, Message::decode(&edit.message).unwrap())
                .unwrap();
            assert_eq!(reader.get_heads(), vec![edit.hash]);
            assert_eq!(
                chunks(&edit.message).collect::<Vec<_>>(),
                vec![checksum(&edit.hash)]
            );
        }
    }

    #[test]
    fn a_truncated_message_is_an_error() {
        assert!(heads(&[]).is_err());
        assert!(heads(&[0x42, 1, 0]).is_err());
        assert!(heads(&[0x41, 0]).is_err());
    }
}
