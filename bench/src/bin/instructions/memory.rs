//! A store in memory, as much of one as the workloads need: whole histories that are appended and read again.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use engine::DocumentId;
use engine::storage::{
    Answer, ChunkKind, DocumentMeta, Read, ReadWhat, StoredChunk, Write, WriteAction,
};

#[derive(Default)]
pub(crate) struct Memory(BTreeMap<DocumentId, (DocumentMeta, Vec<StoredChunk>)>);

impl Memory {
    pub(crate) fn write(&mut self, write: Write) -> Result<Answer> {
        let WriteAction::Append {
            chunk,
            heads,
            changes,
            orphans,
            adopted,
        } = write.action
        else {
            bail!("no workload has work for the worker");
        };
        ensure!(
            orphans.is_empty() && adopted.is_empty(),
            "every workload sends changes in their order"
        );
        let (meta, chunks) = self.0.entry(write.document).or_default();
        if let Some(chunk) = chunk {
            let bytes = chunk.bytes.len() as u64;
            match chunk.kind {
                ChunkKind::Pushed => meta.has_pushed = true,
                ChunkKind::Tail => meta.tail_bytes += bytes,
                ChunkKind::Snapshot => meta.snapshot_bytes += bytes,
            }
            meta.next_chunk = chunk.number + 1;
            meta.heads = heads;
            chunks.push(chunk);
        }
        meta.changes += changes;
        Ok(Answer::Stored)
    }

    pub(crate) fn read(&self, read: &Read) -> Result<Answer> {
        let found = self.0.get(&read.document);
        let meta = found.map(|(meta, _)| meta.clone());
        let chunks = |keep: &dyn Fn(&StoredChunk) -> bool| -> Vec<StoredChunk> {
            let all = found.into_iter().flat_map(|(_, chunks)| chunks);
            all.filter(|chunk| keep(chunk)).cloned().collect()
        };
        Ok(match read.what {
            ReadWhat::Meta => Answer::Meta(meta),
            ReadWhat::Graph => Answer::Graph {
                meta,
                index: None,
                tail: chunks(&|chunk| chunk.kind == ChunkKind::Tail),
                orphans: vec![],
            },
            ReadWhat::Chunks { from, until } => Answer::Chunks {
                meta,
                chunks: chunks(&|chunk| (from..until).contains(&chunk.number)),
            },
            ReadWhat::Documents { .. } => bail!("no workload lists documents"),
        })
    }
}
