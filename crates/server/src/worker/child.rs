//! The worker process from within.

use std::{
    collections::BTreeSet,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use automerge::{AutoSerde, Automerge, LoadOptions, OnPartialLoad, ReadDoc};
use bytes::Bytes;
use engine::{ChangeHash, WorkOutcome, index::IndexBuilder};
use rustix::{
    process::{Resource, Rlimit, nice, setrlimit},
    time::{ClockId, clock_gettime},
};

use super::pipe::{ExportFormat, Job, Reply, receive_job, send_ready, send_reply};

/// How much less important than the server the worker is.
const NICENESS: i32 = 10;

/// Does jobs from standard input until there are no more.
///
/// # Errors
/// What the pipes or the operating system say; the limits not being set is one of these.
pub fn run(address_space_bytes: u64, job_seconds_max: u64) -> io::Result<()> {
    limit(Resource::As, address_space_bytes)?;
    limit(Resource::Core, 0)?;
    nice(NICENESS)?;
    // when the machine runs out of memory, the kernel is to take this process and not the server
    std::fs::write("/proc/self/oom_score_adj", "1000").ok();
    // a panic is reported as a reply, without its words: they may hold contents of the document
    std::panic::set_hook(Box::new(|_| {}));
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    limit_time(job_seconds_max)?;
    send_ready(&mut output)?;
    while let Some(job) = receive_job(&mut input)? {
        limit_time(job_seconds_max)?;
        let reply = catch_unwind(AssertUnwindSafe(|| work(&job)))
            .unwrap_or_else(|_| Reply::indigestible("the Automerge library panicked"));
        send_reply(&mut output, &reply)?;
    }
    Ok(())
}

fn limit(resource: Resource, amount: u64) -> io::Result<()> {
    Ok(setrlimit(
        resource,
        Rlimit {
            current: Some(amount),
            maximum: Some(amount),
        },
    )?)
}

/// The limit counts from the start of the process, the allowance from the start of the job.
fn limit_time(job_seconds_max: u64) -> io::Result<()> {
    let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec;
    let until = u64::try_from(used)
        .unwrap_or(0)
        .saturating_add(job_seconds_max)
        .saturating_add(1);
    Ok(setrlimit(
        Resource::Cpu,
        Rlimit {
            current: Some(until),
            maximum: None,
        },
    )?)
}

fn work(job: &Job) -> Reply {
    let done = match job {
        Job::Index { chunks } => index(chunks),
        Job::Compact { chunks } => compact(chunks),
        Job::Export { chunks, format } => export(chunks, *format),
    };
    done.unwrap_or_else(Reply::invalid)
}

fn index(chunks: &[u8]) -> Result<Reply, &'static str> {
    let doc = load(chunks)?;
    let (index, changes, _) = index_of(&doc)?;
    Ok(done(&doc, index, changes, Bytes::new()))
}

/// Makes a snapshot, and loads it again to prove that it holds the same changes with the same heads.
fn compact(chunks: &[u8]) -> Result<Reply, &'static str> {
    let doc = load(chunks)?;
    let snapshot = doc.save();
    let again = load(&snapshot)?;
    let (index, changes, hashes) = index_of(&again)?;
    let before: BTreeSet<_> = doc
        .get_changes_meta(&[])
        .iter()
        .map(|change| change.hash)
        .collect();
    if again.get_heads() != doc.get_heads() || hashes != before {
        return Ok(Reply::indigestible(
            "its snapshot would not be the same document",
        ));
    }
    Ok(done(&again, index, changes, snapshot.into()))
}

fn export(chunks: &[u8], format: ExportFormat) -> Result<Reply, &'static str> {
    let doc = load(chunks)?;
    Ok(Reply::Exported(match format {
        ExportFormat::Automerge => doc.save().into(),
        ExportFormat::Json => serde_json::to_vec_pretty(&AutoSerde::from(&doc))
            .map_err(|_| "it has no form in JSON")?
            .into(),
    }))
}

/// Loads chunks of which every byte must be understood.
fn load(chunks: &[u8]) -> Result<Automerge, &'static str> {
    let options = LoadOptions::new().on_partial_load(OnPartialLoad::Error);
    let doc = Automerge::load_with_options(chunks, options).map_err(|_| "it does not load")?;
    // changes without their dependencies would be left out of a snapshot without a word
    if doc.get_missing_deps(&[]).is_empty() {
        Ok(doc)
    } else {
        Err("dependencies are missing")
    }
}

type Index = (Vec<u8>, u64, BTreeSet<automerge::ChangeHash>);

fn index_of(doc: &Automerge) -> Result<Index, &'static str> {
    let mut index = IndexBuilder::new();
    let mut hashes = BTreeSet::new();
    for change in doc.get_changes_meta(&[]) {
        let deps: Vec<_> = change
            .deps
            .iter()
            .map(|dep| ChangeHash::from_bytes(dep.0))
            .collect();
        let hash = ChangeHash::from_bytes(change.hash.0);
        index
            .push(hash, change.actor.to_bytes(), change.seq, &deps)
            .map_err(|_| "its changes do not follow each other")?;
        hashes.insert(change.hash);
    }
    Ok((index.finish(), hashes.len() as u64, hashes))
}

fn done(doc: &Automerge, index: Vec<u8>, changes: u64, snapshot: Bytes) -> Reply {
    let mut heads: Vec<_> = doc
        .get_heads()
        .iter()
        .map(|head| ChangeHash::from_bytes(head.0))
        .collect();
    heads.sort();
    Reply::Worked(WorkOutcome::Done {
        snapshot,
        heads,
        changes,
        index: index.into(),
    })
}
