//! What the worker process does, done here.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each user has need of a part of it, and a test that meets the unexpected ends"
)]

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use automerge::{Automerge, AutomergeError, LoadOptions, OnPartialLoad, ReadDoc};
use bytes::Bytes;
use engine::{ChangeHash, Job, JobKind, WorkOutcome, index::IndexBuilder};

use super::frames::ours;

/// What Automerge makes of a job's chunks.
struct Digested {
    changes: Vec<Change>,
    heads: Vec<ChangeHash>,
    snapshot: Bytes,
}

struct Change {
    hash: ChangeHash,
    actor: Vec<u8>,
    seq: u64,
    deps: Vec<ChangeHash>,
}

/// Does a job of the worker, which may die of it.
///
/// It dies of some documents at which the worker does not: this one looks at the changes themselves, as devices do, and the
/// worker at what is beside them.
pub fn work(job: &Job) -> WorkOutcome {
    // what is ours is not excused for panicking
    let digested = catch_unwind(AssertUnwindSafe(|| digest(job)));
    let Digested {
        changes,
        heads,
        snapshot,
    } = match digested {
        Ok(Ok(digested)) => digested,
        Ok(Err(outcome)) => return outcome,
        Err(_) => return indigestible("the worker died"),
    };
    let mut index = IndexBuilder::new();
    for change in &changes {
        let Change {
            hash,
            actor,
            seq,
            deps,
        } = change;
        if index.push(*hash, actor, *seq, deps).is_err() {
            return invalid("does not index");
        }
    }
    WorkOutcome::Done {
        snapshot,
        heads,
        changes: changes.len() as u64,
        index: index.finish().into(),
    }
}

fn digest(job: &Job) -> Result<Digested, WorkOutcome> {
    let load = |bytes: &[u8]| load(bytes).map_err(|_| invalid("does not load"));
    let doc = load(&job.chunks)?;
    let changes = changes(&doc);
    let snapshot = match job.kind {
        JobKind::Index => Bytes::new(),
        JobKind::Compact => doc.save().into(),
    };
    if !snapshot.is_empty() {
        let again = load(&snapshot)?;
        if again.get_heads() != doc.get_heads() || hashes(&again) != hashes(&doc) {
            return Err(indigestible("its snapshot would not be the same document"));
        }
    }
    let heads = doc.get_heads().iter().map(ours).collect();
    Ok(Digested {
        changes,
        heads,
        snapshot,
    })
}

fn changes(doc: &Automerge) -> Vec<Change> {
    let changes = doc.get_changes(&[]);
    let ours = |change: &automerge::Change| Change {
        hash: ours(&change.hash()),
        actor: change.actor_id().to_bytes().to_vec(),
        seq: change.seq(),
        deps: change.deps().iter().map(ours).collect(),
    };
    changes.iter().map(ours).collect()
}

fn hashes(doc: &Automerge) -> BTreeSet<ChangeHash> {
    let changes = changes(doc).into_iter();
    changes.map(|change| change.hash).collect()
}

fn invalid(reason: &str) -> WorkOutcome {
    let reason = reason.into();
    WorkOutcome::Invalid { reason }
}

fn indigestible(reason: &str) -> WorkOutcome {
    let reason = reason.into();
    WorkOutcome::Indigestible { reason }
}

fn load(chunks: &[u8]) -> Result<Automerge, AutomergeError> {
    let options = LoadOptions::new().on_partial_load(OnPartialLoad::Error);
    let doc = Automerge::load_with_options(chunks, options)?;
    // as the worker: a snapshot is not to have in it what is not in the graph
    if doc.get_missing_deps(&[]).is_empty() {
        Ok(doc)
    } else {
        Err(AutomergeError::MissingDeps)
    }
}
