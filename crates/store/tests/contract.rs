//! The file behaves like the engine's model of a store, whatever is written in whatever order, also after it was
//! closed and opened again.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "the model is shared, and a test that meets the unexpected ends"
)]

#[path = "../../engine/tests/world/memory_store.rs"]
mod memory_store;
mod support;

use engine::{
    ChangeHash, DocumentId,
    storage::{Answer, ChunkKind, Orphan, Read, ReadWhat, StoredChunk, Write, WriteAction},
};
use memory_store::MemoryStore;
use proptest::prelude::*;
use support::TestStore;

/// A write in outline; the chunk's number is worked out when it is carried out, mostly rightly.
#[derive(Debug, Clone)]
enum Plan {
    Append {
        length: usize,
        pushed: bool,
        orphans: Vec<u8>,
        adopted: Vec<u8>,
        number: Number,
    },
    OnlyOrphans {
        orphans: Vec<u8>,
    },
    Replace {
        behind: u64,
    },
    Quarantine,
    DropPushed,
    Reopen,
}

#[derive(Debug, Clone, Copy)]
enum Number {
    Next,
    Stale,
}

fn plan() -> impl Strategy<Value = Plan> {
    let names = || prop::collection::vec(0u8..6, 0..3);
    let number = prop_oneof![9 => Just(Number::Next), 1 => Just(Number::Stale)];
    prop_oneof![
        8 => (1usize..9_000, any::<bool>(), names(), names(), number).prop_map(
            |(length, pushed, orphans, adopted, number)| {
                Plan::Append { length, pushed, orphans, adopted, number }
            }
        ),
        2 => names().prop_map(|orphans| Plan::OnlyOrphans { orphans }),
        3 => (0u64..3).prop_map(|behind| Plan::Replace { behind }),
        1 => Just(Plan::Quarantine),
        2 => Just(Plan::DropPushed),
        1 => Just(Plan::Reopen),
    ]
}

fn document(number: u8) -> DocumentId {
    DocumentId::from_bytes([number + 1; 16])
}

fn hash(number: u8) -> ChangeHash {
    ChangeHash::from_bytes([number; 32])
}

fn orphans(names: &[u8]) -> Vec<Orphan> {
    names
        .iter()
        .map(|name| Orphan {
            hash: hash(*name),
            bytes: vec![*name; 50].into(),
        })
        .collect()
}

/// The write that a plan comes to for a document as it is.
fn action(plan: &Plan, model: &MemoryStore, id: DocumentId, step: u8) -> Option<WriteAction> {
    let found = model.documents.get(&id);
    let meta = found.map(|found| found.meta.clone()).unwrap_or_default();
    let next = meta.next_chunk;
    Some(match plan {
        Plan::Append {
            length,
            pushed,
            orphans: names,
            adopted,
            number,
        } => WriteAction::Append {
            chunk: Some(StoredChunk {
                number: match number {
                    Number::Next => next,
                    Number::Stale => next + 1,
                },
                kind: if *pushed {
                    ChunkKind::Pushed
                } else {
                    ChunkKind::Tail
                },
                bytes: vec![step; *length].into(),
            }),
            heads: vec![hash(step), hash(step.wrapping_add(1))],
            changes: if *pushed { 0 } else { 3 },
            orphans: orphans(names),
            adopted: adopted.iter().map(|name| hash(*name)).collect(),
        },
        Plan::OnlyOrphans { orphans: names } => WriteAction::Append {
            chunk: None,
            heads: vec![hash(99)],
            changes: 0,
            orphans: orphans(names),
            adopted: vec![],
        },
        Plan::Replace { behind } => {
            let covers_through = found?.chunks.last()?.number.checked_sub(*behind)?;
            // an engine takes the number of a chunk that it covers
            found?
                .chunks
                .iter()
                .find(|chunk| chunk.number == covers_through)?;
            WriteAction::Replace {
                snapshot: StoredChunk {
                    number: covers_through,
                    kind: ChunkKind::Snapshot,
                    bytes: vec![step; 3_000].into(),
                },
                index: vec![step; 700].into(),
                covers_through,
                heads: vec![hash(step)],
                changes: 40,
            }
        }
        Plan::Quarantine => WriteAction::Quarantine {
            reason: format!("reason {step}"),
        },
        Plan::DropPushed => {
            let is_pushed = |chunk: &&StoredChunk| chunk.kind == ChunkKind::Pushed;
            let number = found?.chunks.iter().find(is_pushed)?.number;
            WriteAction::DropPushed { number }
        }
        Plan::Reopen => return None,
    })
}

fn questions(id: DocumentId) -> Vec<Read> {
    let whats = [
        ReadWhat::Meta,
        ReadWhat::Graph,
        ReadWhat::Chunks {
            from: 0,
            until: u64::MAX,
        },
        ReadWhat::Chunks { from: 1, until: 3 },
        ReadWhat::Documents { limit: 2 },
    ];
    whats
        .into_iter()
        .map(|what| Read { document: id, what })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn a_file_holds_what_the_model_holds(
        plans in prop::collection::vec((0u8..3, plan()), 1..40)
    ) {
        let mut store = TestStore::create();
        let mut model = MemoryStore::default();
        for (step, (number, plan)) in plans.iter().enumerate() {
            let id = document(*number);
            let step = u8::try_from(step).unwrap();
            match action(plan, &model, id, step) {
                Some(action) => {
                    let write = Write { document: id, action };
                    prop_assert_eq!(store.write(&write), model.write(&write), "{:?}", plan);
                }
                None => store.reopen(),
            }
        }
        store.reopen();
        let ids = (0..3).map(document).chain([DocumentId::from_bytes([0; 16])]);
        for question in ids.flat_map(questions) {
            prop_assert_eq!(store.read(&question), Ok(model.read(&question)));
        }
    }
}

/// What a document that has such chunks, one after the other, and as many orphans, amounts to once the last pushed one
/// is dropped: bytes of the snapshot and of the tail, and whether something pushed is left.
fn left_without_pushed(kinds: &[ChunkKind], orphans: u8) -> Option<(u64, u64, bool)> {
    let store = TestStore::create();
    let id = document(0);
    let mut last_pushed = 0;
    let names: Vec<u8> = (0..orphans).collect();
    for (number, kind) in (0..).zip(kinds) {
        let chunk = StoredChunk {
            number,
            kind: *kind,
            bytes: vec![1; 100].into(),
        };
        let action = if *kind == ChunkKind::Snapshot {
            WriteAction::Replace {
                snapshot: chunk,
                index: vec![2; 30].into(),
                covers_through: number,
                heads: vec![hash(1)],
                changes: 1,
            }
        } else {
            WriteAction::Append {
                chunk: Some(chunk),
                heads: vec![hash(1)],
                changes: 1,
                orphans: self::orphans(&names),
                adopted: vec![],
            }
        };
        let write = Write {
            document: id,
            action,
        };
        store.write(&write).unwrap();
        if *kind == ChunkKind::Pushed {
            last_pushed = number;
        }
    }
    let action = WriteAction::DropPushed {
        number: last_pushed,
    };
    let write = Write {
        document: id,
        action,
    };
    store.write(&write).unwrap();
    let read = Read {
        document: id,
        what: ReadWhat::Meta,
    };
    let Answer::Meta(meta) = store.read(&read).unwrap() else {
        panic!("the meta data")
    };
    meta.map(|meta| (meta.snapshot_bytes, meta.tail_bytes, meta.has_pushed))
}

#[test]
fn a_document_goes_with_what_was_pushed_only_if_that_was_all_there_was() {
    use ChunkKind::{Pushed, Snapshot, Tail};
    assert_eq!(left_without_pushed(&[Pushed], 0), None);
    assert_eq!(left_without_pushed(&[Pushed], 2), Some((0, 0, false)));
    let left = |kinds: &[_]| left_without_pushed(kinds, 0);
    assert_eq!(left(&[Pushed, Pushed]), Some((0, 0, true)));
    assert_eq!(left(&[Tail, Tail, Pushed]), Some((0, 200, false)));
    assert_eq!(left(&[Snapshot, Pushed]), Some((100, 0, false)));
    assert_eq!(left(&[Snapshot, Tail, Pushed]), Some((100, 100, false)));
    assert_eq!(left(&[Tail, Pushed, Pushed]), Some((0, 100, true)));
}
