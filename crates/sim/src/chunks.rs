//! Automerge chunks, taken apart without the engine's help.
//!
//! Source: Automerge binary format, "chunks".

use std::io::Read;

use automerge::Automerge;
use engine::ChangeHash;
use flate2::read::DeflateDecoder;
use sha2::{Digest, Sha256};

use crate::frames::ours;

/// A chunk among others.
pub(crate) struct Chunk<'a> {
    pub(crate) kind: u8,
    pub(crate) contents: &'a [u8],
    /// With its header.
    pub(crate) whole: &'a [u8],
}

pub(crate) const DOCUMENT: u8 = 0;
pub(crate) const CHANGE: u8 = 1;
const DEFLATED_CHANGE: u8 = 2;

/// Chunks that stand one after the other; nothing if that is not what the bytes are.
pub(crate) fn split(mut bytes: &[u8]) -> Option<Vec<Chunk<'_>>> {
    let mut chunks = vec![];
    while !bytes.is_empty() {
        let kind = *bytes.get(8)?;
        let (length, digits) = leb128(bytes.get(9..)?)?;
        let start = 9 + digits;
        let end = start.checked_add(length)?;
        chunks.push(Chunk {
            kind,
            contents: bytes.get(start..end)?,
            whole: bytes.get(..end)?,
        });
        bytes = bytes.get(end..)?;
    }
    Some(chunks)
}

/// The hashes of all changes in these bytes, those of whole documents included; nothing if they cannot be told.
pub(crate) fn hashes(bytes: &[u8]) -> Option<Vec<ChangeHash>> {
    let mut all = vec![];
    for chunk in split(bytes)? {
        match chunk.kind {
            CHANGE => all.push(change_hash(chunk.contents)),
            DEFLATED_CHANGE => {
                let mut inflated = vec![];
                DeflateDecoder::new(chunk.contents)
                    .read_to_end(&mut inflated)
                    .ok()?;
                all.push(change_hash(&inflated));
            }
            DOCUMENT => {
                let doc = Automerge::load(chunk.whole).ok()?;
                let changes = doc.get_changes(&[]);
                all.extend(changes.iter().map(|change| ours(&change.hash())));
            }
            _ => return None,
        }
    }
    Some(all)
}

/// The hash of a change with these contents.
fn change_hash(contents: &[u8]) -> ChangeHash {
    let mut head = vec![CHANGE];
    let mut rest = contents.len();
    loop {
        let digit = u8::try_from(rest & 0x7f).unwrap_or_default();
        rest >>= 7;
        head.push(if rest == 0 { digit } else { digit | 0x80 });
        if rest == 0 {
            break;
        }
    }
    let hash = Sha256::new().chain_update(&head).chain_update(contents);
    ChangeHash::from_bytes(hash.finalize().into())
}

fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0usize;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}
