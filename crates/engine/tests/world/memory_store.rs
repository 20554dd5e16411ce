//! The store's contract, in memory.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]
use std::collections::BTreeMap;

use bytes::Bytes;
use engine::{
    DocumentId,
    storage::{
        Answer, ChunkKind, DocumentMeta, Fault, Orphan, Read, ReadWhat, StoredChunk, Write,
        WriteAction,
    },
};

#[derive(Default, Clone)]
pub struct MemoryStore {
    pub documents: BTreeMap<DocumentId, Document>,
}

#[derive(Default, Clone)]
pub struct Document {
    pub meta: DocumentMeta,
    pub chunks: Vec<StoredChunk>,
    pub index: Option<Bytes>,
    pub orphans: Vec<Orphan>,
}

impl MemoryStore {
    pub fn write(&mut self, write: &Write) -> Result<Answer, Fault> {
        let mut document = self
            .documents
            .get(&write.document)
            .cloned()
            .unwrap_or_default();
        let mut gone = false;
        match &write.action {
            WriteAction::Append {
                chunk,
                heads,
                changes,
                orphans,
                adopted,
            } => {
                if let Some(chunk) = chunk {
                    if chunk.number != document.meta.next_chunk {
                        return Err(Fault::Failed);
                    }
                    document.meta.next_chunk += 1;
                    document.chunks.push(chunk.clone());
                    document.meta.heads.clone_from(heads);
                }
                document.meta.changes += changes;
                for orphan in orphans {
                    if !document
                        .orphans
                        .iter()
                        .any(|known| known.hash == orphan.hash)
                    {
                        document.orphans.push(orphan.clone());
                    }
                }
                document
                    .orphans
                    .retain(|orphan| !adopted.contains(&orphan.hash));
            }
            WriteAction::Replace {
                snapshot,
                index,
                covers_through,
                heads,
                changes,
            } => {
                document
                    .chunks
                    .retain(|chunk| chunk.number > *covers_through);
                document.chunks.insert(0, snapshot.clone());
                document.index = Some(index.clone());
                document.meta.heads.clone_from(heads);
                document.meta.changes = *changes;
                document.meta.next_chunk = document.meta.next_chunk.max(covers_through + 1);
            }
            WriteAction::Quarantine { reason } => document.meta.quarantine = Some(reason.clone()),
            WriteAction::DropPushed { number } => {
                document.chunks.retain(|chunk| chunk.number != *number);
                if document.chunks.is_empty() {
                    gone = document.orphans.is_empty();
                    document.meta.heads.clear();
                    document.meta.changes = 0;
                }
            }
        }
        document.derive();
        if gone {
            self.documents.remove(&write.document);
        } else {
            self.documents.insert(write.document, document);
        }
        Ok(Answer::Stored)
    }

    pub fn read(&self, read: &Read) -> Answer {
        let document = self.documents.get(&read.document);
        let meta = document.map(|document| document.meta.clone());
        let chunks = |keep: &dyn Fn(&StoredChunk) -> bool| {
            let all = document
                .into_iter()
                .flat_map(|document| document.chunks.iter());
            all.filter(|chunk| keep(chunk)).cloned().collect()
        };
        match read.what {
            ReadWhat::Meta => Answer::Meta(meta),
            ReadWhat::Graph => Answer::Graph {
                meta,
                index: document.and_then(|document| document.index.clone()),
                tail: chunks(&|chunk| chunk.kind == ChunkKind::Tail),
                orphans: document.map_or(vec![], |document| document.orphans.clone()),
            },
            ReadWhat::Chunks { from, until } => {
                let chunks = chunks(&|chunk| (from..until).contains(&chunk.number));
                Answer::Chunks { meta, chunks }
            }
            ReadWhat::Documents { limit } => {
                let after = self.documents.range(read.document..);
                let after = after.filter(|(id, _)| **id != read.document).take(limit);
                Answer::Documents(after.map(|(id, d)| (*id, d.meta.heads.clone())).collect())
            }
        }
    }
}

impl Document {
    /// What follows from the rest.
    fn derive(&mut self) {
        let bytes = |kind| {
            let of_kind = self.chunks.iter().filter(|chunk| chunk.kind == kind);
            of_kind.map(|chunk| chunk.bytes.len() as u64).sum()
        };
        self.meta.snapshot_bytes = bytes(ChunkKind::Snapshot);
        self.meta.tail_bytes = bytes(ChunkKind::Tail);
        self.meta.has_pushed = self
            .chunks
            .iter()
            .any(|chunk| chunk.kind == ChunkKind::Pushed);
        self.meta.has_orphans = !self.orphans.is_empty();
    }
}
