//! A store in a folder of its own, asked one thing at a time.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses a part of it, and a test that meets the unexpected ends"
)]

use std::{path::PathBuf, sync::mpsc};

use bytes::Bytes;
use engine::{
    ChangeHash, DocumentId, Ticket,
    storage::{Answer, ChunkKind, Fault, Read, ReadWhat, StoredChunk, Write, WriteAction},
};
use store::{Completion, GroupSettings, GroupStore, Notice, OpenError};
use tempfile::TempDir;

pub struct TestStore {
    pub folder: TempDir,
    store: Option<GroupStore>,
    completions: mpsc::Receiver<Vec<Completion>>,
}

impl TestStore {
    pub fn create() -> Self {
        let folder = TempDir::new().unwrap();
        let (store, completions) = open(&path(&folder)).unwrap();
        Self {
            folder,
            store: Some(store),
            completions,
        }
    }

    pub fn path(&self) -> PathBuf {
        path(&self.folder)
    }

    pub fn store(&self) -> &GroupStore {
        self.store.as_ref().unwrap()
    }

    pub fn close(&mut self) {
        self.store.take().unwrap().close();
    }

    pub fn is_open(&self) -> bool {
        self.store.is_some()
    }

    pub fn reopen(&mut self) {
        self.try_reopen().unwrap();
    }

    pub fn try_reopen(&mut self) -> Result<(), OpenError> {
        drop(self.store.take());
        let (store, completions) = open(&self.path())?;
        (self.store, self.completions) = (Some(store), completions);
        Ok(())
    }

    pub fn write(&self, write: &Write) -> Result<Answer, Fault> {
        self.store().submit_writes(vec![(Ticket(1), write.clone())]);
        self.only_answer()
    }

    pub fn read(&self, read: &Read) -> Result<Answer, Fault> {
        self.store().submit_reads(vec![(Ticket(1), *read)]);
        self.only_answer()
    }

    pub fn next_completions(&self) -> Vec<Completion> {
        self.completions.recv().unwrap()
    }

    fn only_answer(&self) -> Result<Answer, Fault> {
        let mut completions = self.next_completions();
        assert_eq!(completions.len(), 1);
        completions.pop().unwrap().outcome
    }
}

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("group.db")
}

fn open(
    path: &std::path::Path,
) -> Result<(GroupStore, mpsc::Receiver<Vec<Completion>>), OpenError> {
    let (sender, completions) = mpsc::channel();
    let noticed = Box::new(move |notice| match notice {
        Notice::Completed(completions) => drop(sender.send(completions)),
        Notice::Broken => panic!("a thread of the store has panicked"),
    });
    GroupStore::open(path, GroupSettings::default(), noticed).map(|store| (store, completions))
}

pub fn document(number: u8) -> DocumentId {
    DocumentId::from_bytes([number; 16])
}

/// The `number`-th chunk of a document, which becomes its only head.
pub fn append(id: DocumentId, number: u8, bytes: &[u8]) -> Write {
    let chunk = StoredChunk {
        number: number.into(),
        kind: ChunkKind::Tail,
        bytes: Bytes::copy_from_slice(bytes),
    };
    let heads = vec![ChangeHash::from_bytes([number + 100; 32])];
    let action = WriteAction::Append {
        chunk: Some(chunk),
        heads,
        changes: 1,
        orphans: vec![],
        adopted: vec![],
    };
    Write {
        document: id,
        action,
    }
}

pub fn all_chunks(id: DocumentId) -> Read {
    Read {
        document: id,
        what: ReadWhat::Chunks {
            from: 0,
            until: u64::MAX,
        },
    }
}
