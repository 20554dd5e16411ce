//! Changes that are sound as far as the engine looks, of any length. No Automerge document could load them.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each user has need of a part of it, and a test that meets the unexpected ends"
)]

use engine::ChangeHash;
use sha2::{Digest, Sha256};

use super::frames::write_number;

/// Makes the changes of one actor, each on top of the one before.
pub struct Forge {
    actor: u8,
    seq: usize,
    last: Option<ChangeHash>,
}

impl Forge {
    pub fn new(actor: u8) -> Self {
        let (seq, last) = (0, None);
        Self { actor, seq, last }
    }

    /// The next change, in a chunk of exactly so many bytes.
    pub fn change(&mut self, chunk_bytes: usize) -> Vec<u8> {
        self.seq += 1;
        let mut contents = vec![];
        write_number(&mut contents, self.last.iter().len());
        contents.extend(self.last.iter().flat_map(|hash| *hash.as_bytes()));
        contents.extend([1, self.actor]);
        write_number(&mut contents, self.seq);
        // first operation, time, length of the message, other actors
        contents.extend([1, 0, 0, 0]);
        let header_bytes = |contents: usize| {
            let mut length = vec![];
            write_number(&mut length, contents);
            4 + 4 + 1 + length.len()
        };
        let bytes = (0..6)
            .map(|less| chunk_bytes - 9 - less)
            .find(|bytes| header_bytes(*bytes) + bytes == chunk_bytes)
            .unwrap();
        contents.resize(bytes, 0);
        let (chunk, hash) = chunk(1, &contents);
        self.last = Some(hash);
        chunk
    }
}

/// A chunk of this type, and its hash.
fn chunk(kind: u8, contents: &[u8]) -> (Vec<u8>, ChangeHash) {
    let mut hashed = vec![kind];
    write_number(&mut hashed, contents.len());
    hashed.extend_from_slice(contents);
    let hash: [u8; 32] = Sha256::digest(&hashed).into();
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83];
    chunk.extend_from_slice(&hash[..4]);
    chunk.extend_from_slice(&hashed);
    (chunk, ChangeHash::from_bytes(hash))
}
