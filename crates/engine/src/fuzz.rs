//! What is fuzzed of the parsers inside: each with whatever it may be given, and what must hold of all that it takes.
//!
//! Only for `fuzz/`, which asks for it by the feature `fuzz`, and for the tests, which run what was found worth keeping.
//! It promises nothing to anybody else. What the engine makes of whole sequences of inputs is fuzzed from outside, by
//! `tests/targets`.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "what must hold may panic"
)]

mod repair;

use bytes::Bytes;
use minicbor::Encoder;

use crate::{
    bloom::BloomFilter,
    chunk::{self, ChangeChunk, Chunk},
    excerpt::Excerpt,
    graph::Graph,
    ids::ChangeHash,
    index::IndexReader,
    intake::{self, IntakeError, Orphans},
    limits::{CHANGE_BYTES_MAX, HASHES_MAX, HAVES_MAX, NAME_BYTES_MAX},
    message::{OurHave, Outgoing, SyncMessage, Version, flags_of},
    names::Names,
    wire::{self, Frame, SyncKind, Versions},
};

/// A target: its name, which is that of its corpus, and what runs one input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 3] = [
    ("wire", wire),
    ("sync_message", sync_message),
    ("chunk", chunk),
];

/// A frame from a client: what can be read can be written, and is read the same again.
pub fn wire(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let mut names = Names::default();
    let Ok(frame) = Frame::parse(&bytes, &mut names) else {
        return;
    };
    if let Some(name) = sender(&frame) {
        assert!((1..=NAME_BYTES_MAX).contains(&name.len()));
    }
    if let Frame::Sync { data, .. } = &frame {
        let (within, kept) = (bytes.as_ptr_range(), data.keep());
        let lies_in_it = within.contains(&kept.as_ptr()) && kept.len() < bytes.len();
        let is_short = kept.len() < bytes.len() / 2;
        assert_eq!(kept, data.bytes());
        assert!(
            !kept.is_empty() && (lies_in_it || is_short),
            "a copy was made"
        );
    }
    let Some(again) = written(&frame) else { return };
    assert_eq!(Frame::parse(&again, &mut names).as_ref(), Ok(&frame));
}

fn sender<'a>(frame: &Frame<'a>) -> Option<&'a str> {
    match frame {
        Frame::Join { sender, .. }
        | Frame::Leave { sender }
        | Frame::Sync { sender, .. }
        | Frame::Unavailable { sender, .. }
        | Frame::WatchStorages { sender, .. }
        | Frame::RemoteHeads { sender, .. } => Some(sender),
        Frame::Ephemeral(message) => Some(message.sender),
        Frame::Skipped => None,
    }
}

/// A frame as we would write it; nothing for those that say nothing to us.
fn written(frame: &Frame<'_>) -> Option<Bytes> {
    Some(match frame {
        Frame::Sync {
            sender,
            document,
            kind: SyncKind::Sync,
            data,
        } => wire::sync(sender, "target", &document.to_string(), &data.keep()).to_bytes(),
        Frame::Unavailable { sender, document } => {
            wire::unavailable(sender, "target", &document.to_string()).to_bytes()
        }
        Frame::Ephemeral(message) => {
            wire::ephemeral(message, "target", &message.document.to_string()).to_bytes()
        }
        Frame::Join { sender, versions } => {
            let version = match versions {
                Versions::Supported => "1",
                Versions::Unsupported => "2",
            };
            of_texts(
                "join",
                sender,
                &[("supportedProtocolVersions", &[version][..])],
            )
        }
        Frame::Leave { sender } => of_texts("leave", sender, &[]),
        Frame::WatchStorages {
            sender,
            add,
            remove,
        } => of_texts(
            "remote-subscription-change",
            sender,
            &[("remove", remove), ("add", add)],
        ),
        _ => return None,
    })
}

fn of_texts(kind: &str, sender: &str, lists: &[(&str, &[&str])]) -> Bytes {
    let mut e = Encoder::new(Vec::new());
    e.begin_map().unwrap();
    e.str("type").unwrap().str(kind).unwrap();
    e.str("senderId").unwrap().str(sender).unwrap();
    for (key, texts) in lists {
        e.str(key).unwrap().array(texts.len() as u64).unwrap();
        for text in *texts {
            e.str(text).unwrap();
        }
    }
    e.end().unwrap();
    e.into_writer().into()
}

/// A sync message: within the limits, and what we can say of it as well reads the same.
pub fn sync_message(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let at_the_end = flags_of(&bytes);
    let Ok(message) = SyncMessage::parse(Excerpt::all(&bytes)) else {
        return;
    };
    if message.flags.is_none() && message.changes.is_empty() {
        assert_eq!(at_the_end, None, "a message without flags has some");
    }
    assert!(message.heads.is_sorted_by(|a, b| a < b));
    assert!(message.heads.len() <= HASHES_MAX && message.need.len() <= HASHES_MAX);
    assert!(message.have.len() <= HAVES_MAX && message.changes.len() < bytes.len());
    assert!(!(message.wants_everything() && message.is_reset()));
    for have in &message.have {
        for hash in message.heads.iter().chain(&have.last_sync) {
            assert!(!(have.bloom.is_empty() && have.bloom.contains(hash)));
        }
    }
    drop(chunk::parse_all(&message.changes));
    let flags = message.flags;
    let again = Outgoing {
        version: Version::Two,
        heads: &message.heads,
        need: &message.need,
        have: OurHave::Heads,
        changes: std::slice::from_ref(&message.changes),
        sync_reset: flags.is_some_and(|flags| flags.sync_reset),
        read_only: flags.is_some_and(|flags| flags.read_only),
    };
    let again = Bytes::from(again.encode());
    let read = SyncMessage::parse(Excerpt::all(&again)).unwrap();
    assert_eq!(flags_of(&again), read.flags);
    assert_eq!(
        (&read.heads, &read.need, &read.changes),
        (&message.heads, &message.need, &message.changes)
    );
    assert_eq!(
        read.have.first().map(|have| &have.last_sync),
        Some(&message.heads)
    );
    if let (Some(ours), Some(theirs)) = (read.flags, flags) {
        let of = |flags: crate::message::Flags| (flags.sync_reset, flags.read_only);
        assert_eq!(of(ours), of(theirs));
    }
}

/// Chunks, with the checksums put right, and what the graph makes of the changes among them; beside that the two
/// other formats that lie in or beside chunks: Bloom filters and indexes.
pub fn chunk(data: &[u8]) {
    bloom_filter(data);
    index(data);
    chunks(Bytes::copy_from_slice(data));
    chunks(repair::repaired(data).into());
}

fn chunks(bytes: Bytes) {
    let Ok(chunks) = chunk::parse_all(&bytes) else {
        return;
    };
    let mut joined = vec![];
    let mut changes = vec![];
    for chunk in &chunks {
        let own = match chunk {
            Chunk::Change(change) => {
                assert!(change.seq > 0 && change.deps.len() <= HASHES_MAX);
                changes.push(change.clone());
                &change.bytes
            }
            Chunk::Document { heads, bytes } => {
                assert!(heads.is_sorted_by(|a, b| a < b));
                bytes
            }
            Chunk::Bundle { bytes } => bytes,
        };
        assert!(own.len() <= CHANGE_BYTES_MAX || !matches!(chunk, Chunk::Change(_)));
        assert_eq!(
            chunk::parse_all(own).as_deref(),
            Ok(std::slice::from_ref(chunk))
        );
        joined.extend_from_slice(own);
    }
    assert_eq!(joined, bytes, "the chunks are the whole");
    if changes.len() == chunks.len() {
        take(changes, &bytes);
    }
}

/// Takes changes into a graph that has none: all of it or nothing, and once.
fn take(changes: Vec<ChangeChunk>, whole: &Bytes) {
    let (mut graph, mut orphans) = (Graph::default(), Orphans::default());
    let Ok(taken) = intake::take(&mut graph, &mut orphans, changes.clone(), whole) else {
        assert!(graph.len() == 0 && orphans.is_empty() && orphans.bytes() == 0);
        return;
    };
    let linked = chunk::parse_all(&taken.chunk).unwrap();
    assert_eq!(linked.len(), taken.nodes.len());
    assert_eq!(taken.nodes, 0..graph.len());
    for chunk in linked {
        let Chunk::Change(change) = chunk else {
            panic!("only changes went in")
        };
        assert!(graph.find(&change.hash).is_some());
        assert!(change.deps.iter().all(|dep| graph.find(dep).is_some()));
    }
    for head in graph.heads() {
        assert!(graph.find(&head).is_some());
    }
    for orphan in &taken.orphans {
        assert!(graph.find(&orphan.hash).is_none());
        let missing = orphans.missing_for([orphan.hash], &graph);
        assert!(!missing.is_empty(), "an orphan that waits for nothing");
    }
    let waits = |change: &ChangeChunk| {
        taken
            .orphans
            .iter()
            .any(|orphan| orphan.hash == change.hash)
    };
    // an orphan whose turn came and whose number's did not is gone: whoever sends it again is refused if the number was
    // taken, and heard if the one before it was missing and has come since
    let is_here = |change: &ChangeChunk| graph.find(&change.hash).is_some() || waits(change);
    let all_are_here = changes.iter().all(is_here);
    match intake::take(&mut graph, &mut orphans, changes, whole) {
        Ok(again) => assert!(again.is_empty() || !all_are_here, "taken twice"),
        Err(error) => assert!(!all_are_here && error == IntakeError::Sequence),
    }
}

fn bloom_filter(data: &[u8]) {
    let Ok(filter) = BloomFilter::parse(data) else {
        return;
    };
    for byte in [0, 0x55, 0xff] {
        let contains = filter.contains(&ChangeHash::from_bytes([byte; 32]));
        assert!(!(filter.is_empty() && contains));
    }
}

fn index(data: &[u8]) {
    let Ok(reader) = IndexReader::new(data) else {
        return;
    };
    let claimed = reader.changes();
    let read: Result<Vec<_>, _> = reader.collect();
    let graph = Graph::from_index(data);
    let Ok(changes) = read else {
        assert!(graph.is_err());
        return;
    };
    assert_eq!(changes.len(), claimed);
    let Ok(graph) = graph else { return };
    assert!(graph.len() as usize <= claimed && graph.durable() == graph.len());
    for change in changes {
        assert!(graph.find(&change.hash).is_some());
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn every_input_that_was_kept_is_survived() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        for (name, run) in super::ALL {
            let mut inputs = 0;
            for entry in fs::read_dir(corpus.join(name)).unwrap() {
                run(&fs::read(entry.unwrap().path()).unwrap());
                inputs += 1;
            }
            assert!(inputs >= 3, "{name} has {inputs} inputs");
        }
    }
}
