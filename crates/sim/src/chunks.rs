//! Automerge chunks, taken apart without the engine's help.
//!
//! Source: Automerge binary format, "chunks".

use std::{
    io::Read,
    panic::{AssertUnwindSafe, catch_unwind},
};

use automerge::{Automerge, transaction::CommitOptions};
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

/// The hashes of all changes in these bytes, those of whole documents included, as far as they can be told.
pub(crate) fn hashes(bytes: &[u8]) -> Vec<ChangeHash> {
    let chunks = split(bytes).unwrap_or_default();
    let of_chunk = |chunk: Chunk<'_>| match chunk.kind {
        CHANGE => Some(vec![change_hash(chunk.contents)]),
        DEFLATED_CHANGE => {
            let mut inflated = vec![];
            let mut decoder = DeflateDecoder::new(chunk.contents);
            decoder.read_to_end(&mut inflated).ok()?;
            Some(vec![change_hash(&inflated)])
        }
        DOCUMENT => hashes_of_whole(chunk.whole),
        _ => None,
    };
    chunks.into_iter().filter_map(of_chunk).flatten().collect()
}

/// The hashes of the changes in a whole document. Where it stands alone its heads must be right; beside others Automerge
/// takes what can be made of it.
fn hashes_of_whole(bytes: &[u8]) -> Option<Vec<ChangeHash>> {
    let of = |doc: &Automerge| -> Vec<_> {
        let changes = doc.get_changes(&[]);
        changes.iter().map(|change| ours(&change.hash())).collect()
    };
    let alone = unless_it_panics(|| Some(of(&Automerge::load(bytes).ok()?)));
    alone.or_else(|| {
        unless_it_panics(|| {
            let mut doc = Automerge::new();
            doc.empty_commit(CommitOptions::default());
            let others = of(&doc);
            doc.load_incremental(bytes).ok()?;
            let all = of(&doc).into_iter();
            Some(all.filter(|hash| !others.contains(hash)).collect())
        })
    })
}

/// The heads that a whole document says it has, whatever is in it.
///
/// Source: Automerge binary format, "document chunks": actors, then heads.
pub(crate) fn claimed_heads(bytes: &[u8]) -> Vec<ChangeHash> {
    let chunks = split(bytes).unwrap_or_default();
    let of_chunk = |chunk: Chunk<'_>| {
        let (actors, at) = leb128(chunk.contents)?;
        let mut rest = chunk.contents.get(at..)?;
        for _ in 0..actors {
            let (length, at) = leb128(rest)?;
            rest = rest.get(at + length..)?;
        }
        let (count, at) = leb128(rest)?;
        let heads = rest.get(at..)?.chunks_exact(ChangeHash::BYTES).take(count);
        let heads = heads.filter_map(|head| Some(ChangeHash::from_bytes(head.try_into().ok()?)));
        Some(heads.collect::<Vec<_>>())
    };
    let wholes = chunks.into_iter().filter(|chunk| chunk.kind == DOCUMENT);
    wholes.filter_map(of_chunk).flatten().collect()
}

/// What comes of reading something that was made to hurt: Automerge may panic at it.
pub(crate) fn unless_it_panics<T>(read: impl FnOnce() -> Option<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(read)).ok().flatten()
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

/// Makes the checksum of the only chunk in these bytes right.
///
/// Source: Automerge binary format, "checksum".
pub(crate) fn seal(bytes: &mut [u8]) {
    let digest = bytes.get(8..).map(Sha256::digest);
    for (byte, right) in bytes
        .iter_mut()
        .skip(4)
        .take(4)
        .zip(digest.into_iter().flatten())
    {
        *byte = right;
    }
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
