//! Automerge chunks: what can be known of them without materialising a document.
//!
//! Source: Automerge binary format, "chunks": magic, 4 bytes of checksum, type, length, contents. The checksum
//! is the beginning of the SHA-256 over type, length and contents; of a deflated change (type 2) over its
//! inflated contents, as if it were of type 1. That SHA-256 is also the hash of a change.

use std::io::Read;

use bytes::Bytes;
use flate2::read::DeflateDecoder;
use sha2::{Digest, Sha256};

use crate::{
    ids::ChangeHash,
    leb128::{self, Malformed, Reader},
    limits::{CHANGE_BYTES_MAX, HASHES_MAX, HEADS_MAX, INFLATED_BYTES_MAX},
    planted::{Bug, is_planted},
};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const TYPE_DOCUMENT: u8 = 0;
const TYPE_CHANGE: u8 = 1;
const TYPE_DEFLATED_CHANGE: u8 = 2;
const TYPE_BUNDLE: u8 = 3;

/// Longest actor id, in bytes (clients use 16).
const ACTOR_BYTES_MAX: usize = 256;

/// Why bytes are not chunks that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChunkError {
    /// Not a chunk at all, or cut off.
    #[error("malformed chunk")]
    Malformed,
    /// The checksum does not belong to the contents.
    #[error("a chunk's checksum is wrong")]
    Checksum,
    /// A change is longer than we take, perhaps only once inflated.
    #[error("a change is too long")]
    TooLong,
}

impl From<Malformed> for ChunkError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// A change whose checksum holds, and the part of it that the graph needs. Its operations have not been
/// looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChangeChunk {
    pub(crate) hash: ChangeHash,
    pub(crate) deps: Vec<ChangeHash>,
    pub(crate) actor: Box<[u8]>,
    /// From 1.
    pub(crate) seq: u64,
    /// The chunk as it travels, header included.
    pub(crate) bytes: Bytes,
}

/// One checked chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chunk {
    Change(ChangeChunk),
    /// A whole document: its heads as its header states them, ascending. Its contents have not been looked at.
    Document {
        heads: Vec<ChangeHash>,
        bytes: Bytes,
    },
    /// Several changes packed together; only the worker can take them apart.
    Bundle {
        bytes: Bytes,
    },
}

/// Takes `bytes`, which hold whole chunks and nothing else, apart.
///
/// # Errors
/// [`ChunkError`] at the first chunk that is not sound.
pub(crate) fn parse_all(bytes: &Bytes) -> Result<Vec<Chunk>, ChunkError> {
    let mut reader = Reader::new(bytes);
    let mut chunks = Vec::new();
    let mut inflated_left = INFLATED_BYTES_MAX;
    while !reader.is_empty() {
        chunks.push(parse_one(bytes, &mut reader, &mut inflated_left)?);
    }
    Ok(chunks)
}

fn parse_one(
    all: &Bytes,
    reader: &mut Reader<'_>,
    inflated_left: &mut usize,
) -> Result<Chunk, ChunkError> {
    let start = all.len() - reader.remaining();
    if reader.array()? != MAGIC {
        return Err(ChunkError::Malformed);
    }
    let checksum = reader.array()?;
    let kind = reader.byte()?;
    let contents = reader.prefixed()?;
    let end = all.len() - reader.remaining();
    let bytes = all.slice(start..end);
    match kind {
        TYPE_CHANGE => {
            let hash = checked_hash(TYPE_CHANGE, contents, checksum)?;
            change(hash, contents, bytes)
        }
        TYPE_DEFLATED_CHANGE => {
            let inflated = inflate(contents, *inflated_left)?;
            *inflated_left -= inflated.len();
            let hash = checked_hash(TYPE_CHANGE, &inflated, checksum)?;
            change(hash, &inflated, bytes)
        }
        TYPE_DOCUMENT => {
            checked_hash(kind, contents, checksum)?;
            Ok(Chunk::Document {
                heads: document_heads(contents)?,
                bytes,
            })
        }
        TYPE_BUNDLE => {
            checked_hash(kind, contents, checksum)?;
            Ok(Chunk::Bundle { bytes })
        }
        _ => Err(ChunkError::Malformed),
    }
}

/// The hash of a chunk with these contents, if its beginning is `checksum`.
fn checked_hash(kind: u8, contents: &[u8], checksum: [u8; 4]) -> Result<ChangeHash, ChunkError> {
    let mut head = Vec::with_capacity(11);
    head.push(kind);
    leb128::write(&mut head, contents.len() as u64);
    let hash: [u8; 32] = Sha256::new()
        .chain_update(&head)
        .chain_update(contents)
        .finalize()
        .into();
    if hash.starts_with(&checksum) || is_planted(Bug::BelievesChecksums) {
        Ok(ChangeHash::from_bytes(hash))
    } else {
        Err(ChunkError::Checksum)
    }
}

fn inflate(deflated: &[u8], left: usize) -> Result<Vec<u8>, ChunkError> {
    let bound = CHANGE_BYTES_MAX.min(left);
    let mut inflated = Vec::new();
    // one byte past the bound tells "too long" from "just fits"
    DeflateDecoder::new(deflated)
        .take(bound as u64 + 1)
        .read_to_end(&mut inflated)
        .map_err(|_| ChunkError::Malformed)?;
    if inflated.len() > bound {
        Err(ChunkError::TooLong)
    } else {
        Ok(inflated)
    }
}

/// Source: Automerge binary format, "change chunks": dependencies, actor, sequence number, first operation,
/// time, message, other actors, columns.
fn change(hash: ChangeHash, contents: &[u8], bytes: Bytes) -> Result<Chunk, ChunkError> {
    if contents.len() > CHANGE_BYTES_MAX {
        return Err(ChunkError::TooLong);
    }
    let mut reader = Reader::new(contents);
    let deps = hashes(&mut reader, HASHES_MAX)?;
    let actor = reader.prefixed()?;
    if actor.len() > ACTOR_BYTES_MAX {
        return Err(ChunkError::Malformed);
    }
    let seq = reader.number()?;
    let first_operation = reader.number()?;
    if seq == 0 || first_operation == 0 {
        return Err(ChunkError::Malformed);
    }
    reader.skip_signed()?;
    std::str::from_utf8(reader.prefixed()?).map_err(|_| ChunkError::Malformed)?;
    for _ in 0..reader.count(1)? {
        reader.prefixed()?;
    }
    Ok(Chunk::Change(ChangeChunk {
        hash,
        deps,
        actor: actor.into(),
        seq,
        bytes,
    }))
}

/// Source: Automerge binary format, "document chunks": actors, then heads.
fn document_heads(contents: &[u8]) -> Result<Vec<ChangeHash>, ChunkError> {
    let mut reader = Reader::new(contents);
    for _ in 0..reader.count(1)? {
        reader.prefixed()?;
    }
    let mut heads = hashes(&mut reader, HEADS_MAX)?;
    heads.sort_unstable();
    heads.dedup();
    Ok(heads)
}

fn hashes(reader: &mut Reader<'_>, count_max: usize) -> Result<Vec<ChangeHash>, ChunkError> {
    let count = reader.count(ChangeHash::BYTES)?;
    if count > count_max {
        return Err(ChunkError::Malformed);
    }
    let mut hashes = Vec::with_capacity(count);
    for _ in 0..count {
        hashes.push(ChangeHash::from_bytes(reader.array()?));
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use automerge::{ActorId, Automerge, ROOT, transaction::Transactable};

    use super::*;

    fn document(edits: usize, value_bytes: usize) -> Automerge {
        let mut doc = Automerge::new().with_actor(ActorId::from(b"actor one".as_slice()));
        for n in 0..edits {
            let mut tx = doc.transaction();
            tx.put(ROOT, "key", "x".repeat(value_bytes) + &n.to_string())
                .unwrap();
            tx.commit();
        }
        doc
    }

    fn theirs(hash: ChangeHash) -> automerge::ChangeHash {
        automerge::ChangeHash(*hash.as_bytes())
    }

    #[test]
    fn a_change_is_read_as_automerge_reads_it() {
        // the second document's changes are long enough for Automerge to deflate them
        for value_bytes in [3, 4_000] {
            let doc = document(3, value_bytes);
            let changes = doc.get_changes(&[]);
            let joined: Vec<u8> = changes
                .iter()
                .flat_map(|c| c.clone().bytes().to_vec())
                .collect();
            let chunks = parse_all(&joined.into()).unwrap();
            assert_eq!(chunks.len(), 3);
            for (chunk, change) in chunks.iter().zip(&changes) {
                let Chunk::Change(chunk) = chunk else {
                    panic!("a change")
                };
                assert_eq!(theirs(chunk.hash), change.hash());
                let deps: Vec<_> = chunk.deps.iter().map(|dep| theirs(*dep)).collect();
                assert_eq!(deps, change.deps());
                assert_eq!(&*chunk.actor, change.actor_id().to_bytes());
                assert_eq!(chunk.seq, change.seq());
            }
        }
    }

    #[test]
    fn a_document_chunk_tells_its_heads() {
        let doc = document(30, 3);
        let [Chunk::Document { heads, .. }] = &*parse_all(&doc.save().into()).unwrap() else {
            panic!("one document chunk")
        };
        assert_eq!(
            heads.iter().map(|head| theirs(*head)).collect::<Vec<_>>(),
            doc.get_heads()
        );
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        for whole in [
            document(2, 4).save(),
            document(1, 4).get_changes(&[])[0].raw_bytes().to_vec(),
        ] {
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] ^= 0x10;
                assert!(parse_all(&bytes.into()).is_err(), "byte {at}");
            }
            for end in 1..whole.len() {
                assert!(
                    parse_all(&whole[..end].to_vec().into()).is_err(),
                    "cut at {end}"
                );
            }
        }
    }

    #[test]
    fn a_deflate_bomb_is_stopped_while_it_inflates() {
        let mut deflater =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        for _ in 0..256 {
            deflater.write_all(&[0; 1 << 20]).unwrap();
        }
        let packed = deflater.finish().unwrap();
        let mut bomb = MAGIC.to_vec();
        bomb.extend([1, 2, 3, 4, TYPE_DEFLATED_CHANGE]);
        leb128::write(&mut bomb, packed.len() as u64);
        bomb.extend(packed);
        assert_eq!(parse_all(&bomb.into()), Err(ChunkError::TooLong));
    }

    /// A chunk with these contents, whose checksum holds.
    fn chunk(kind: u8, contents: &[u8]) -> Vec<u8> {
        let hashed_as = if kind == TYPE_DEFLATED_CHANGE {
            TYPE_CHANGE
        } else {
            kind
        };
        let mut hashed = vec![hashed_as];
        leb128::write(&mut hashed, contents.len() as u64);
        hashed.extend_from_slice(contents);
        let hash = Sha256::digest(&hashed);
        let mut chunk = [&MAGIC, &hash[..4], &[kind]].concat();
        let mut travelling = contents.to_vec();
        if kind == TYPE_DEFLATED_CHANGE {
            let best = flate2::Compression::best();
            let mut deflater = flate2::write::DeflateEncoder::new(Vec::new(), best);
            deflater.write_all(contents).unwrap();
            travelling = deflater.finish().unwrap();
        }
        leb128::write(&mut chunk, travelling.len() as u64);
        chunk.extend(travelling);
        chunk
    }

    /// Contents of a change with so many dependencies, and an actor of so many bytes.
    fn contents(deps: usize, actor_bytes: usize) -> Vec<u8> {
        let mut contents = vec![];
        leb128::write(&mut contents, deps as u64);
        contents.resize(contents.len() + deps * ChangeHash::BYTES, 7);
        leb128::write(&mut contents, actor_bytes as u64);
        contents.resize(contents.len() + actor_bytes, 7);
        // sequence number, first operation, time, length of the message, other actors
        contents.extend([1, 1, 0, 0, 0]);
        contents
    }

    /// The same, with columns that make it so many bytes long.
    fn contents_of(bytes: usize) -> Vec<u8> {
        let mut contents = contents(0, 1);
        contents.resize(bytes, 0);
        contents
    }

    fn refusal(bytes: Vec<u8>) -> Option<ChunkError> {
        parse_all(&bytes.into()).err()
    }

    #[test]
    fn a_change_may_be_as_long_as_the_limit_and_not_a_byte_longer_inflated_or_not() {
        for kind in [TYPE_CHANGE, TYPE_DEFLATED_CHANGE] {
            let longest = chunk(kind, &contents_of(CHANGE_BYTES_MAX));
            assert_eq!(refusal(longest), None, "{kind}");
            let longer = chunk(kind, &contents_of(CHANGE_BYTES_MAX + 1));
            assert_eq!(refusal(longer), Some(ChunkError::TooLong), "{kind}");
        }
    }

    #[test]
    fn the_changes_of_one_message_may_inflate_to_the_limit_together_and_not_to_a_byte_more() {
        let longest = chunk(TYPE_DEFLATED_CHANGE, &contents_of(CHANGE_BYTES_MAX));
        let mut message = longest.repeat(INFLATED_BYTES_MAX / CHANGE_BYTES_MAX);
        assert_eq!(refusal(message.clone()), None);
        // what is not deflated takes nothing of it
        message.extend(chunk(TYPE_CHANGE, &contents(0, 1)));
        assert_eq!(refusal(message.clone()), None);
        message.extend(chunk(TYPE_DEFLATED_CHANGE, &contents(0, 1)));
        assert_eq!(refusal(message), Some(ChunkError::TooLong));
    }

    #[test]
    fn dependencies_and_actors_are_bounded() {
        let read = |deps, actor| refusal(chunk(TYPE_CHANGE, &contents(deps, actor)));
        assert_eq!(read(HASHES_MAX, ACTOR_BYTES_MAX), None);
        assert_eq!(read(HASHES_MAX + 1, 1), Some(ChunkError::Malformed));
        assert_eq!(read(0, ACTOR_BYTES_MAX + 1), Some(ChunkError::Malformed));
    }

    #[test]
    fn neither_a_sequence_number_nor_a_first_operation_is_nought() {
        for (at, name) in [(3, "sequence number"), (4, "first operation")] {
            let mut contents = contents(0, 1);
            assert_eq!(contents[at], 1, "{name}");
            contents[at] = 0;
            let refused = refusal(chunk(TYPE_CHANGE, &contents));
            assert_eq!(refused, Some(ChunkError::Malformed), "{name}");
        }
    }

    #[test]
    fn a_bundle_is_handed_on_as_it_came_if_its_checksum_holds() {
        let doc = document(5, 3);
        let changes = doc.get_changes(&[]);
        let bundle = doc.bundle(changes.iter().map(|change| change.hash()));
        let bytes = bundle.unwrap().bytes().to_vec();
        let whole = Bytes::from(bytes.clone());
        let expected = Chunk::Bundle {
            bytes: whole.clone(),
        };
        assert_eq!(parse_all(&whole), Ok(vec![expected]));
        let mut forged = bytes;
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(refusal(forged), Some(ChunkError::Checksum));
    }

    #[test]
    fn each_chunk_keeps_its_own_bytes() {
        let first = chunk(TYPE_CHANGE, &contents(1, 3));
        let second = chunk(TYPE_DEFLATED_CHANGE, &contents(2, 5));
        let both = [first.clone(), second.clone()].concat();
        let chunks = parse_all(&both.into()).unwrap();
        let bytes = chunks.iter().map(|chunk| {
            let Chunk::Change(change) = chunk else {
                panic!("{chunk:?}")
            };
            change.bytes.to_vec()
        });
        assert_eq!(bytes.collect::<Vec<_>>(), [first, second]);
    }
}
