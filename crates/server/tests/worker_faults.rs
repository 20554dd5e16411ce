//! The worker process is killed, stopped, out of memory, or cannot be started: documents sync all the same.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected ends"
)]

mod support;

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;
use support::{Client, Replica, Server, hostile, soon, sync_frame};
use tokio::time::interval;

/// The processes that a server has started and not buried, and the state of each.
fn children(server: &Server) -> Vec<(Pid, char)> {
    let entries = fs::read_dir("/proc").unwrap();
    let numbers = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let parent = server.pid().to_string();
    let is_child = |number: i32| {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        let mut fields = stat.rsplit(") ").next()?.split(' ');
        let state = fields.next()?.chars().next()?;
        (fields.next()? == parent).then_some((Pid::from_raw(number)?, state))
    };
    numbers.filter_map(is_child).collect()
}

async fn worker(server: &Server) -> Pid {
    let there = async {
        loop {
            if let [(pid, state)] = children(server)[..]
                && state != 'Z'
            {
                return pid;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("one worker process", there).await
}

/// A server, a client, and a document that has been compacted; the worker process waits for the next job.
async fn begin() -> (Server, Client, Replica) {
    begin_with(2).await
}

/// The same with a worker that may take so many seconds.
async fn begin_with(job_seconds_max: u32) -> (Server, Client, Replica) {
    let config = format!(
        "[compaction]\nfloor_bytes = 100\nquiet_ms = 100\n\
         [worker]\njob_seconds_max = {job_seconds_max}\nidle_ms = 60_000\n"
    );
    let server = Server::start_on_disk("64m", &config, vec![]).await;
    let mut writer = Client::join(&server.url, "writer").await;
    let mut note = Replica::new("writer", "new");
    writer.push(&mut note).await;
    writer.edit(&mut note, &"a".repeat(200)).await;
    shows(&server, &note, |shown| shown["tailBytes"] == 0).await;
    (server, writer, note)
}

async fn shows(server: &Server, note: &Replica, is_so: impl Fn(&Value) -> bool) -> Value {
    let shown = async {
        loop {
            match server.document(note.id).await {
                Some(shown) if is_so(&shown) => return shown,
                _ => {}
            }
        }
    };
    soon("the document to be so", shown).await
}

/// Less memory than a worker has already.
const TINY: Rlimit = Rlimit {
    current: Some(1 << 20),
    maximum: Some(1 << 20),
};
const DIED_OF_IT: &str = "the worker process died of it (signal: 6";

/// More than it has room for then.
fn much_text() -> String {
    (0..40).map(|_| long_text()).collect()
}

/// Something for the worker to do: text that does not become shorter.
fn long_text() -> String {
    let mut bytes = vec![0u8; 20_000];
    getrandom::fill(&mut bytes).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_worker_that_is_killed_at_a_job_is_followed_by_another_that_does_it() {
    a_worker_that_is_ended_is_followed_by_another(Signal::KILL).await;
}

/// As when whoever ends the server ends its worker too, and the server hears of that first.
#[tokio::test]
async fn a_worker_that_is_asked_to_end_at_a_job_is_followed_by_another_that_does_it() {
    a_worker_that_is_ended_is_followed_by_another(Signal::TERM).await;
}

async fn a_worker_that_is_ended_is_followed_by_another(signal: Signal) {
    let (mut server, mut writer, mut note) = begin().await;
    let first = worker(&server).await;
    kill_process(first, Signal::STOP).unwrap();
    writer.edit(&mut note, &long_text()).await;
    let mut other = Replica::new("writer", "pushed while the worker stands still");
    writer.push(&mut other).await;
    kill_process(first, signal).unwrap();
    kill_process(first, Signal::CONT).unwrap();
    server.has_logged("the worker process was killed").await;
    let shown = shows(&server, &note, |shown| shown["tailBytes"] == 0).await;
    assert_eq!(shown["quarantine"], Value::Null);
    writer.edit(&mut other, "and this one has its index").await;
    assert_ne!(worker(&server).await, first, "and the dead one is buried");
}

/// It was kept in memory alone, until the worker failed at the document once more after the next start.
#[tokio::test]
async fn a_quarantine_that_finds_no_room_is_stored_once_there_is_and_its_document_syncs_on() {
    // it stands still only as long as it is told to
    let (mut server, mut writer, mut note) = begin_with(60).await;
    let worker = worker(&server).await;
    prlimit(Some(worker), Resource::As, TINY).unwrap();
    kill_process(worker, Signal::STOP).unwrap();
    writer.edit(&mut note, &much_text()).await;
    // nothing is to be written any more but what comes of the worker
    server.disk().fill();
    kill_process(worker, Signal::CONT).unwrap();
    let body = server.has_health(503).await;
    assert!(body.contains("StorageFull"), "{body}");
    let mut reader = Client::join(&server.url, "reader").await;
    assert_eq!(reader.pull(note.id).await.unwrap().value(), note.value());
    let (before, begun) = (server.cpu_ticks(), Instant::now());
    let mut pace = interval(Duration::from_millis(50));
    for _ in 0..30 {
        pace.tick().await;
        assert_eq!(server.http("/xrpc/_health", &[]).await.0, 503);
    }
    let (used, of) = (
        server.cpu_ticks() - before,
        begun.elapsed().as_millis() / 10,
    );
    assert!(
        u128::from(used) * 2 < of,
        "{used} of {of} hundredths of a second"
    );
    let shown = server.document(note.id).await.unwrap();
    assert_eq!(shown["quarantine"], Value::Null);

    server.disk().make_room();
    server.has_health(200).await;
    writer.edit(&mut note, "it syncs on").await;
    let shown = shows(&server, &note, |shown| shown["quarantine"] != Value::Null).await;
    let reason = shown["quarantine"].as_str().unwrap();
    assert!(reason.starts_with(DIED_OF_IT), "{reason}");
    server.terminate().await;
    let log = server.all_stderr().await;
    for line in ["could not digest a document", "no room on the disk"] {
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
}

#[tokio::test]
async fn a_worker_that_stands_still_is_ended_and_another_does_its_job() {
    let (server, mut writer, mut note) = begin().await;
    let first = worker(&server).await;
    kill_process(first, Signal::STOP).unwrap();
    writer.edit(&mut note, &long_text()).await;
    let mut reader = Client::join(&server.url, "reader").await;
    assert_eq!(reader.pull(note.id).await.unwrap().value(), note.value());
    let shown = shows(&server, &note, |shown| shown["tailBytes"] == 0).await;
    assert_eq!(shown["quarantine"], Value::Null);
    assert_ne!(worker(&server).await, first);
}

#[tokio::test]
async fn a_worker_without_memory_dies_alone_and_says_of_what() {
    let (server, mut writer, mut note) = begin().await;
    let first = worker(&server).await;
    prlimit(Some(first), Resource::As, TINY).unwrap();
    writer.edit(&mut note, &much_text()).await;
    let shown = shows(&server, &note, |shown| shown["quarantine"] != Value::Null).await;
    let reason = shown["quarantine"].as_str().unwrap();
    assert!(reason.starts_with(DIED_OF_IT), "{reason}");
    writer.edit(&mut note, "it syncs on").await;
    let mut other = Replica::new("writer", "new");
    writer.push(&mut other).await;
    writer.edit(&mut other, &long_text()).await;
    shows(&server, &other, |shown| shown["tailBytes"] == 0).await;
    assert_ne!(worker(&server).await, first);
}

/// What could not be done with little memory can be with more.
#[tokio::test]
async fn the_owner_takes_a_document_out_of_quarantine_and_the_worker_tries_once_more() {
    let (mut server, mut writer, mut note) = begin().await;
    let id = note.id.to_string();
    let said = server.cli(&["docs", "retry", &id]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("is not in quarantine"), "{said:?}");
    prlimit(Some(worker(&server).await), Resource::As, TINY).unwrap();
    writer.edit(&mut note, &much_text()).await;
    shows(&server, &note, |shown| shown["quarantine"] != Value::Null).await;

    let said = server.cli(&["docs", "retry", &id]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("stop the server first"), "{said:?}");
    server.terminate().await;
    let other = support::random_id().to_string();
    let said = server.cli(&["docs", "retry", &other]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("there is no document"), "{said:?}");
    let said = server.cli(&["docs", "retry", &id]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains(DIED_OF_IT), "{said:?}");

    let server = server.start_again().await;
    let mut reader = Client::join(&server.url, "reader").await;
    assert_eq!(reader.pull(note.id).await.unwrap().value(), note.value());
    let shown = shows(&server, &note, |shown| shown["tailBytes"] == 0).await;
    assert_eq!(shown["quarantine"], Value::Null);
}

/// A change whose hash is right, and whose operations are none.
fn senseless_change() -> Vec<u8> {
    let mut contents = hostile::change_contents(b"attacker", 1, &[b'a'; 2_000]);
    // one column, that of actions, in place of none
    assert_eq!(contents.pop(), Some(0));
    contents.extend([1, 0x42, 3, 0xff, 0xff, 0xff]);
    hostile::chunk(hostile::CHANGE, &contents)
}

/// So that what is good of it can be saved.
#[tokio::test]
async fn a_document_in_quarantine_is_exported_as_it_is_stored() {
    let (server, mut writer, note) = begin().await;
    let change = senseless_change();
    let message = hostile::sync_message(&[], &[&change]);
    writer
        .send(sync_frame("sync", "writer", note.id, &message))
        .await;
    let shown = shows(&server, &note, |shown| shown["quarantine"] != Value::Null).await;
    assert_eq!(shown["quarantine"], "it does not load");
    let id = note.id.to_string();
    let refused = server.cli(&["docs", "export", &id]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let said = "with `--format raw`: it does not load";
    assert!(refused.stderr.contains(said), "{refused:?}");
    let raw = server
        .cli(&["docs", "export", &id, "--format", "raw"])
        .await;
    assert_eq!((raw.code, &*raw.stderr), (Some(0), ""));
    assert!(raw.stdout_bytes.ends_with(&change));
    let mut saved = Replica::empty(note.id, "owner");
    saved.doc.load_incremental(&raw.stdout_bytes).unwrap();
    assert_eq!(saved.value(), note.value());
}

#[tokio::test]
async fn documents_wait_for_a_worker_that_cannot_be_started_and_none_is_quarantined() {
    let (mut server, mut writer, mut note) = begin().await;
    kill_process(worker(&server).await, Signal::KILL).unwrap();
    let before = server.limit_files(server.next_file());
    writer.edit(&mut note, &long_text()).await;
    server.has_logged("cannot start the worker process").await;
    writer.edit(&mut note, &long_text()).await;
    server.limit_files(before);
    server.has_logged("the worker process starts again").await;
    let shown = shows(&server, &note, |shown| shown["tailBytes"] == 0).await;
    assert_eq!(shown["quarantine"], Value::Null);
    let log = server.stderr();
    assert_eq!(log.matches("cannot start the worker").count(), 1, "{log}");
}

/// It has not seen one. As where the service may have less memory than its worker is to have.
#[tokio::test]
async fn a_worker_that_ends_before_its_first_job_has_no_document_quarantined() {
    let (mut server, mut writer, mut note) = begin().await;
    let disk = server.disk();
    let refused = disk.inject(server.pid(), "prlimit64", "error=EPERM").await;
    kill_process(worker(&server).await, Signal::KILL).unwrap();
    writer.edit(&mut note, &long_text()).await;
    server.has_logged("cannot start the worker process").await;
    refused.end().await;
    server.has_logged("the worker process starts again").await;
    let shown = shows(&server, &note, |shown| shown["tailBytes"] == 0).await;
    assert_eq!(shown["quarantine"], Value::Null);
}
