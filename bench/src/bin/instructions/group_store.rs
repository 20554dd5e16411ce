//! The store's write path: transactions of ten appends, each waited for before the next is submitted, so that commits
//! hold the same writes each time.

use std::path::Path;
use std::sync::mpsc;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use engine::storage::{ChunkKind, StoredChunk, Write, WriteAction};
use engine::{ChangeHash, DocumentId, Ticket};
use store::{GroupSettings, GroupStore, Notice};

const TRANSACTIONS: u64 = 200;
const APPENDS_EACH: u8 = 10;
const CHANGE_BYTES: usize = 100;

/// Returns how many writes were made.
///
/// # Errors
/// If one fails.
pub(crate) fn run(dir: &Path) -> Result<u64> {
    let (sender, notices) = mpsc::channel();
    let noticed = Box::new(move |notice| drop(sender.send(notice)));
    let store = GroupStore::open(&dir.join("counted.db"), GroupSettings::default(), noticed)?;
    for transaction in 0..TRANSACTIONS {
        let appends = (0..APPENDS_EACH).map(|document| {
            let ticket = Ticket(transaction * u64::from(APPENDS_EACH) + u64::from(document));
            (ticket, append(document, transaction))
        });
        store.submit_writes(appends.collect());
        let mut left = usize::from(APPENDS_EACH);
        while left > 0 {
            let Notice::Completed(completions) = notices.recv()? else {
                bail!("a thread of the store has panicked");
            };
            for completion in completions {
                ensure!(completion.outcome.is_ok(), "a write failed");
                left -= 1;
            }
        }
    }
    store.close();
    Ok(TRANSACTIONS * u64::from(APPENDS_EACH))
}

fn append(document: u8, number: u64) -> Write {
    let [.., low] = number.to_be_bytes();
    Write {
        document: DocumentId::from_bytes([document; 16]),
        action: WriteAction::Append {
            chunk: Some(StoredChunk {
                number,
                kind: ChunkKind::Tail,
                bytes: Bytes::from(vec![low; CHANGE_BYTES]),
            }),
            heads: vec![ChangeHash::from_bytes([low; 32])],
            changes: 1,
            orphans: vec![],
            adopted: vec![],
        },
    }
}
