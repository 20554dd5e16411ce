//! Changes and documents to send: sound ones, made here without Automerge, because the engine looks at none of their
//! contents.

use std::{
    io::{Read as _, Write as _},
    sync::OnceLock,
};

use bytes::Bytes;
use engine::{ChangeHash, Job, JobKind, WorkOutcome, index::IndexBuilder};
use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use sha2::{Digest, Sha256};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const DOCUMENT: u8 = 0;
const CHANGE: u8 = 1;
const DEFLATED: u8 = 2;

/// A change, as it is made and as it travels.
pub struct Change {
    pub hash: ChangeHash,
    pub actor: u8,
    pub seq: u64,
    pub deps: Vec<ChangeHash>,
    pub chunk: Bytes,
}

/// Actor, sequence number, dependencies by their place, and how long the contents are.
///
/// ```text
/// 0 <- 1 <- 2 <- 5 <- 6 <- 9(deflated) <- 10(long)
///  \<- 3 <- 4 <-/     \<- 7 <- 8
/// 11 has the number of 2, 12 leaves a gap, 13 is nobody's
/// ```
const PLAN: [(u8, u64, &[usize], usize); 14] = [
    (b'a', 1, &[], 0),
    (b'a', 2, &[0], 4),
    (b'a', 3, &[1], 4),
    (b'b', 1, &[0], 4),
    (b'b', 2, &[3], 4),
    (b'a', 4, &[2, 4], 4),
    (b'a', 5, &[5], 4),
    (b'c', 1, &[5], 4),
    (b'c', 2, &[7], 4),
    (b'a', 6, &[6], 600),
    (b'a', 7, &[9], 40_000),
    (b'a', 3, &[1], 5),
    (b'a', 9, &[9], 4),
    (b'd', 1, &[], 4),
];

/// All changes, each behind what it depends on.
pub fn changes() -> &'static [Change] {
    static ALL: OnceLock<Vec<Change>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all: Vec<Change> = vec![];
        for (actor, seq, deps, length) in PLAN {
            let deps = deps.iter().map(|at| all[*at].hash).collect();
            all.push(change(actor, seq, deps, length));
        }
        all
    })
}

fn change(actor: u8, seq: u64, mut deps: Vec<ChangeHash>, length: usize) -> Change {
    deps.sort_unstable();
    let mut contents = vec![];
    leb128(&mut contents, deps.len());
    deps.iter()
        .for_each(|dep| contents.extend_from_slice(dep.as_bytes()));
    // actor, sequence number, first operation; no time, message or other actors
    contents.extend([1, actor, seq as u8, seq as u8, 0, 0, 0]);
    contents.resize(contents.len() + length, actor);
    let kind = if length == 600 { DEFLATED } else { CHANGE };
    Change {
        hash: hash_of(CHANGE, &contents),
        actor,
        seq,
        deps,
        chunk: chunk(kind, &contents),
    }
}

/// A chunk with these contents, deflated if it is of that type.
pub fn chunk(kind: u8, contents: &[u8]) -> Bytes {
    let hashed = if kind == DEFLATED { CHANGE } else { kind };
    let hash = hash_of(hashed, contents);
    let mut packed = contents.to_vec();
    if kind == DEFLATED {
        let mut encoder = DeflateEncoder::new(vec![], Compression::fast());
        encoder.write_all(contents).unwrap();
        packed = encoder.finish().unwrap();
    }
    let mut out = MAGIC.to_vec();
    out.extend(&hash.as_bytes()[..4]);
    out.push(kind);
    leb128(&mut out, packed.len());
    out.extend(packed);
    out.into()
}

/// A whole document of the changes from `from` on, as many as `count`. Its contents say so, for the worker; its heads
/// are those that it has, or any other if it `lies`.
pub fn document(from: usize, count: usize, lies: bool) -> Bytes {
    let heads = if lies {
        vec![ChangeHash::from_bytes([9; 32])]
    } else {
        heads_of(&picked(from, count))
    };
    let mut contents = vec![0];
    leb128(&mut contents, heads.len());
    heads
        .iter()
        .for_each(|head| contents.extend_from_slice(head.as_bytes()));
    contents.extend([from as u8, count as u8]);
    chunk(DOCUMENT, &contents)
}

/// The places of the changes of a document.
fn picked(from: usize, count: usize) -> Vec<usize> {
    (from..(from + count).min(changes().len())).collect()
}

fn heads_of(places: &[usize]) -> Vec<ChangeHash> {
    let all = changes();
    let mut heads: Vec<_> = places.iter().map(|at| all[*at].hash).collect();
    heads.retain(|head| {
        !places
            .iter()
            .any(|at| all[*at].deps.iter().any(|dep| dep == head))
    });
    heads.sort_unstable();
    heads
}

/// What a worker that does its duty makes of a job.
pub fn work(job: &Job) -> WorkOutcome {
    let invalid = |reason: &str| WorkOutcome::Invalid {
        reason: reason.into(),
    };
    let Some(places) = places_in(&job.chunks) else {
        return invalid("does not load");
    };
    let mut index = IndexBuilder::new();
    for at in &places {
        let change = &changes()[*at];
        let pushed = index.push(change.hash, &[change.actor], change.seq, &change.deps);
        if pushed.is_err() {
            return invalid("does not fit together");
        }
    }
    let snapshot = match job.kind {
        JobKind::Index => Bytes::new(),
        JobKind::Compact => snapshot(&places),
    };
    WorkOutcome::Done {
        snapshot,
        heads: heads_of(&places),
        changes: places.len() as u64,
        index: index.finish().into(),
    }
}

/// A snapshot: like a pushed document, with each of its changes named.
fn snapshot(places: &[usize]) -> Bytes {
    let heads = heads_of(places);
    let mut contents = vec![0];
    leb128(&mut contents, heads.len());
    heads
        .iter()
        .for_each(|head| contents.extend_from_slice(head.as_bytes()));
    contents.push(0xff);
    contents.extend(places.iter().map(|at| *at as u8));
    chunk(DOCUMENT, &contents)
}

/// The places of all changes in these chunks, ascending; nothing if something else is among them.
fn places_in(bytes: &[u8]) -> Option<Vec<usize>> {
    let mut places = std::collections::BTreeSet::new();
    for (kind, contents, hash) in chunks(bytes)? {
        if kind == DOCUMENT {
            places.extend(places_in_document(&contents)?);
        } else {
            places.insert(changes().iter().position(|change| change.hash == hash)?);
        }
    }
    Some(places.into_iter().collect())
}

fn places_in_document(contents: &[u8]) -> Option<Vec<usize>> {
    let heads = usize::from(*contents.get(1)?);
    let places = match contents.get(2 + heads * ChangeHash::BYTES..)? {
        [0xff, places @ ..] => places.iter().map(|at| usize::from(*at)).collect(),
        [from, count] => picked((*from).into(), (*count).into()),
        _ => return None,
    };
    let known = places.iter().all(|at| *at < changes().len());
    known.then_some(places)
}

/// The changes in these chunks: those of documents that the worker knows too.
pub fn hashes_in(bytes: &[u8]) -> Vec<ChangeHash> {
    chunks_anywhere(bytes)
        .flat_map(|chunk| changes_of(&chunk))
        .collect()
}

/// The changes in a chunk.
pub fn changes_of((kind, contents, hash): &Parsed) -> Vec<ChangeHash> {
    if *kind == DOCUMENT {
        let places = places_in_document(contents).unwrap_or_default();
        places.into_iter().map(|at| changes()[at].hash).collect()
    } else if *kind == CHANGE {
        vec![*hash]
    } else {
        vec![]
    }
}

/// Type (never deflated), contents and hash of a chunk.
pub type Parsed = (u8, Vec<u8>, ChangeHash);

/// All chunks that lie anywhere in these bytes.
pub fn chunks_anywhere(bytes: &[u8]) -> impl Iterator<Item = Parsed> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        loop {
            let at = rest
                .windows(MAGIC.len())
                .position(|window| window == MAGIC)?;
            rest = rest.get(at..)?;
            let found = parse_one(rest);
            rest = match &found {
                Some((_, after)) => after,
                None => rest.get(1..)?,
            };
            if let Some((parsed, _)) = found {
                return Some(parsed);
            }
        }
    })
}

/// All chunks; nothing if something else is among them.
fn chunks(mut bytes: &[u8]) -> Option<Vec<Parsed>> {
    let mut found = vec![];
    while !bytes.is_empty() {
        let (parsed, after) = parse_one(bytes)?;
        found.push(parsed);
        bytes = after;
    }
    Some(found)
}

fn parse_one(bytes: &[u8]) -> Option<(Parsed, &[u8])> {
    let (kind, mut rest) = bytes.strip_prefix(&MAGIC)?.get(4..)?.split_first()?;
    let length = read_leb128(&mut rest)?;
    let (contents, after) = rest.split_at_checked(length)?;
    let (kind, contents) = if *kind == DEFLATED {
        let mut inflated = vec![];
        let mut decoder = DeflateDecoder::new(contents).take(64 << 20);
        decoder.read_to_end(&mut inflated).ok()?;
        (CHANGE, inflated)
    } else {
        (*kind, contents.to_vec())
    };
    let hash = hash_of(kind, &contents);
    Some(((kind, contents, hash), after))
}

fn hash_of(kind: u8, contents: &[u8]) -> ChangeHash {
    let mut head = vec![kind];
    leb128(&mut head, contents.len());
    let hash = Sha256::new()
        .chain_update(head)
        .chain_update(contents)
        .finalize();
    ChangeHash::from_bytes(hash.into())
}

pub fn leb128(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn read_leb128(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0usize;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
