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
use support::{Client, Replica, Server, soon};
use tokio::time::interval;

const CONFIG: &str = "[compaction]\nfloor_bytes = 100\nquiet_ms = 100\n\
                      [worker]\njob_seconds_max = 2\nidle_ms = 60_000\n";

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
    let server = Server::start_on_disk("64m", CONFIG, vec![]).await;
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

#[tokio::test]
async fn a_job_at_which_two_workers_were_killed_finds_no_third_and_its_document_syncs_on() {
    let (server, mut writer, mut note) = begin().await;
    let first = worker(&server).await;
    kill_process(first, Signal::STOP).unwrap();
    // the next one stands still as soon as it is a program of its own
    let calls = server
        .disk()
        .inject(server.pid(), "execve", "signal=SIGSTOP");
    let stopping = calls.await;
    writer.edit(&mut note, &long_text()).await;
    kill_process(first, Signal::KILL).unwrap();
    let second = async {
        loop {
            match children(&server)[..] {
                [(pid, 't' | 'T')] if pid != first => return pid,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let second = soon("a second worker, which stands still", second).await;
    kill_process(second, Signal::KILL).unwrap();
    let shown = shows(&server, &note, |shown| shown["quarantine"] != Value::Null).await;
    assert_eq!(
        shown["quarantine"],
        "the worker process was killed twice while it was at it"
    );
    stopping.end().await;

    writer.edit(&mut note, &long_text()).await;
    let mut reader = Client::join(&server.url, "reader").await;
    assert_eq!(reader.pull(note.id).await.unwrap().value(), note.value());
    // the next worker is for others
    let mut other = Replica::new("writer", "new");
    writer.push(&mut other).await;
    writer.edit(&mut other, &long_text()).await;
    shows(&server, &other, |shown| shown["tailBytes"] == 0).await;
    let shown = shows(&server, &note, |shown| shown["quarantine"] != Value::Null).await;
    assert_ne!(shown["tailBytes"], 0);
    let log = server.stderr();
    let killed = log.matches("the worker process was killed\n").count();
    assert_eq!(killed, 2, "{log}");
    assert_eq!(
        log.matches("could not digest a document").count(),
        1,
        "{log}"
    );
}

/// It was kept in memory alone, until the worker failed at the document once more after the next start.
#[tokio::test]
async fn a_quarantine_that_finds_no_room_is_stored_once_there_is_and_its_document_syncs_on() {
    let (mut server, mut writer, mut note) = begin().await;
    kill_process(worker(&server).await, Signal::STOP).unwrap();
    writer.edit(&mut note, &long_text()).await;
    // nothing is to be written any more but what the worker's time brings
    server.disk().fill();
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
    assert_eq!(shown["quarantine"], "it took the worker too long");
    server.terminate().await;
    let log = server.all_stderr().await;
    for line in ["could not digest a document", "no room on the disk"] {
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
}

#[tokio::test]
async fn a_worker_that_stands_still_is_ended_and_its_document_syncs_on_uncompacted() {
    let (server, mut writer, mut note) = begin().await;
    let first = worker(&server).await;
    kill_process(first, Signal::STOP).unwrap();
    writer.edit(&mut note, &long_text()).await;
    let shown = shows(&server, &note, |shown| shown["quarantine"] != Value::Null).await;
    assert_eq!(shown["quarantine"], "it took the worker too long");
    writer.edit(&mut note, "it syncs on").await;
    let mut reader = Client::join(&server.url, "reader").await;
    let read = reader.pull(note.id).await.unwrap();
    assert_eq!(read.value().unwrap(), "it syncs on");
    // and the next document finds a worker
    let mut other = Replica::new("writer", "new");
    writer.push(&mut other).await;
    writer.edit(&mut other, &long_text()).await;
    let shown = shows(&server, &other, |shown| shown["tailBytes"] == 0).await;
    assert_eq!(shown["quarantine"], Value::Null);
    assert_ne!(worker(&server).await, first);
}

#[tokio::test]
async fn a_worker_without_memory_dies_alone_and_says_of_what() {
    let (server, mut writer, mut note) = begin().await;
    let first = worker(&server).await;
    let tiny = Rlimit {
        current: Some(1 << 20),
        maximum: Some(1 << 20),
    };
    prlimit(Some(first), Resource::As, tiny).unwrap();
    let much: String = (0..40).map(|_| long_text()).collect();
    writer.edit(&mut note, &much).await;
    let shown = shows(&server, &note, |shown| shown["quarantine"] != Value::Null).await;
    let reason = shown["quarantine"].as_str().unwrap();
    assert!(
        reason.starts_with("the worker process died of it (signal: 6"),
        "{reason}"
    );
    writer.edit(&mut note, "it syncs on").await;
    let mut other = Replica::new("writer", "new");
    writer.push(&mut other).await;
    writer.edit(&mut other, &long_text()).await;
    shows(&server, &other, |shown| shown["tailBytes"] == 0).await;
    assert_ne!(worker(&server).await, first);
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
