//! What no honest client sends: chunks and sync messages that lie.

use std::io::Write;

use automerge::ChangeHash;
use flate2::{Compression, write::DeflateEncoder};
use sha2::{Digest, Sha256};

/// Types of chunks. Source: Automerge binary format, "chunks".
pub const DOCUMENT: u8 = 0;
pub const CHANGE: u8 = 1;
pub const DEFLATED_CHANGE: u8 = 2;

pub fn leb128(mut number: u64) -> Vec<u8> {
    let mut bytes = vec![];
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

pub fn prefixed(bytes: &[u8]) -> Vec<u8> {
    [&leb128(bytes.len() as u64), bytes].concat()
}

/// A sync message with these heads and these entries of changes, and nothing else to say.
pub fn sync_message(heads: &[ChangeHash], entries: &[&[u8]]) -> Vec<u8> {
    let mut message = vec![0x43];
    message.extend(leb128(heads.len() as u64));
    heads.iter().for_each(|head| message.extend(head.0));
    // needs nothing, has nothing
    message.extend([0, 1, 0, 0]);
    message.extend(leb128(entries.len() as u64));
    entries
        .iter()
        .for_each(|entry| message.extend(prefixed(entry)));
    message.extend([2, 2, 0x84]);
    message
}

/// A chunk with a checksum that holds.
pub fn chunk(kind: u8, contents: &[u8]) -> Vec<u8> {
    chunk_with(kind, contents, checksum(kind, contents))
}

/// A chunk whose checksum is that of other contents.
pub fn chunk_with(kind: u8, contents: &[u8], checksum: [u8; 4]) -> Vec<u8> {
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83];
    chunk.extend(checksum);
    chunk.push(kind);
    chunk.extend(prefixed(contents));
    chunk
}

pub fn checksum(kind: u8, contents: &[u8]) -> [u8; 4] {
    let mut head = vec![kind];
    head.extend(leb128(contents.len() as u64));
    let hash = Sha256::new().chain_update(&head).chain_update(contents);
    *hash.finalize().first_chunk().unwrap()
}

/// The contents of a first change of `actor` without operations, `message` being what makes it long.
pub fn change_contents(actor: &[u8], seq: u64, message: &[u8]) -> Vec<u8> {
    let mut contents = vec![0];
    contents.extend(prefixed(actor));
    contents.extend(leb128(seq));
    // first operation and time
    contents.extend([1, 0]);
    contents.extend(prefixed(message));
    // no other actors, no columns
    contents.extend([0, 0]);
    contents
}

/// A deflated change that is what it says, and long.
pub fn long_deflated_change(actor: &[u8], message_bytes: usize) -> Vec<u8> {
    let contents = change_contents(actor, 1, &vec![b'a'; message_bytes]);
    let deflated = deflate(&contents);
    chunk_with(DEFLATED_CHANGE, &deflated, checksum(CHANGE, &contents))
}

/// A deflated change of nothing but zeros.
pub fn deflate_bomb(inflated_bytes: usize) -> Vec<u8> {
    chunk(DEFLATED_CHANGE, &deflated_zeros(inflated_bytes))
}

/// A whole document, one column of which inflates to this.
pub fn document_bomb(inflated_bytes: usize) -> Vec<u8> {
    // a message for each change, string column 53, with the bit that says deflated
    const COLUMN: u64 = 53 | 8;
    let column = deflated_zeros(inflated_bytes);
    let mut contents = vec![1];
    contents.extend(prefixed(b"an actor of sixt"));
    contents.push(1);
    contents.extend([7; 32]);
    contents.push(1);
    contents.extend(leb128(COLUMN));
    contents.extend(leb128(column.len() as u64));
    // no columns of operations
    contents.push(0);
    contents.extend(column);
    contents.push(0);
    chunk(DOCUMENT, &contents)
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(vec![], Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflated_zeros(count: usize) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(vec![], Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..count >> 20 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}
