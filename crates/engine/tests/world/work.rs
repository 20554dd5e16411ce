//! What the worker process does, done here.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each user has need of a part of it, and a test that meets the unexpected ends"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{Automerge, AutomergeError, LoadOptions, OnPartialLoad, ReadDoc};
use bytes::Bytes;
use engine::{Job, JobKind, WorkOutcome, index::IndexBuilder};

use super::frames::ours;

/// Does a job of the worker, which may die of it.
pub fn work(job: &Job) -> WorkOutcome {
    let outcome = catch_unwind(AssertUnwindSafe(|| try_to_work(job)));
    outcome.unwrap_or_else(|_| WorkOutcome::Indigestible {
        reason: "the worker died".into(),
    })
}

fn try_to_work(job: &Job) -> WorkOutcome {
    let invalid = |reason: &str| WorkOutcome::Invalid {
        reason: reason.into(),
    };
    let Ok(doc) = load(&job.chunks) else {
        return invalid("does not load");
    };
    let mut index = IndexBuilder::new();
    let changes = doc.get_changes(&[]);
    for change in &changes {
        let deps: Vec<_> = change.deps().iter().map(ours).collect();
        let actor = change.actor_id().to_bytes();
        if index
            .push(ours(&change.hash()), actor, change.seq(), &deps)
            .is_err()
        {
            return invalid("does not index");
        }
    }
    let snapshot = match job.kind {
        JobKind::Index => Bytes::new(),
        JobKind::Compact => doc.save().into(),
    };
    let heads = doc.get_heads().iter().map(ours).collect();
    let index = index.finish().into();
    WorkOutcome::Done {
        snapshot,
        heads,
        changes: changes.len() as u64,
        index,
    }
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
