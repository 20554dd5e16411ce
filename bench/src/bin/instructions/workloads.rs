//! The workloads, each as the script of what clients send.

use anyhow::{Context as _, Result};
use automerge::Automerge;
use automerge::sync::{Message, State, SyncDoc as _};
use bytes::Bytes;

use crate::history::{self, Prepared};
use crate::script::{Script, Step};
use crate::{sync, wire};

const READERS: u64 = 50;
/// How often the small workloads are repeated.
const TIMES: usize = 20;
const DOCUMENTS: u64 = 100;
const CHANGES: usize = 100;
const LONG_CHANGES: usize = 10_000;
const WRITER: u64 = 1;
const SERVER: &str = "server";

pub(crate) fn all() -> Result<Vec<(&'static str, Script)>> {
    Ok(vec![
        ("join", join()?),
        ("fan-out", fan_out()?),
        ("push", push()?),
        ("pull", pull()?),
        ("ephemeral", ephemeral()?),
        ("intake", intake()?),
        ("stale", stale()?),
    ])
}

/// 1,000 connections are opened and joined.
fn join() -> Result<Script> {
    let mut made = Made::default();
    made.measure();
    for connection in 1..=1_000 {
        made.joined(connection)?;
    }
    made.script(1_000)
}

/// An edit to 50 readers, and their answers, 20 times.
fn fan_out() -> Result<Script> {
    let mut document = history::text_document(0, CHANGES)?;
    let mut made = Made::default();
    let id = made.audience(&document)?;
    let edits = history::typed(&mut document, TIMES)?;
    made.measure();
    for edit in &edits {
        made.sync(WRITER, &id, &edit.message)?;
        for reader in readers() {
            made.sync(reader, &id, &sync::confirm(&[edit.hash.0]))?;
        }
    }
    made.script(READERS * TIMES as u64)
}

/// 100 whole documents of 100 changes, each offered and uploaded.
fn push() -> Result<Script> {
    let documents = history::prepare_many(DOCUMENTS, CHANGES)?;
    let mut made = Made::default();
    made.joined(WRITER)?;
    made.measure();
    for document in &documents {
        made.pushed(document)?;
    }
    made.script(2 * DOCUMENTS)
}

/// 100 documents of 100 changes, pulled by a new device after a restart.
fn pull() -> Result<Script> {
    let mut made = Made::default();
    made.joined(WRITER)?;
    let mut pulled = Vec::new();
    for number in 0..DOCUMENTS {
        let document = history::text_document(number, CHANGES)?;
        let id = history::document_id(number);
        made.sync(WRITER, &id, &changes_of(&document)?)?;
        pulled.push((id, head_of(&document)?));
    }
    made.restart();
    made.joined(WRITER)?;
    made.measure();
    for (id, head) in pulled {
        made.frame(WRITER, |route| {
            wire::sync("request", route, &id, &sync::request())
        })?;
        made.sync(WRITER, &id, &sync::confirm(&[head]))?;
    }
    made.script(DOCUMENTS)
}

/// An ephemeral message to 50 readers, 20 times.
fn ephemeral() -> Result<Script> {
    let mut made = Made::default();
    let id = made.audience(&history::text_document(0, CHANGES)?)?;
    made.measure();
    for count in 1..=TIMES as u64 {
        made.frame(WRITER, |route| {
            wire::ephemeral(route, &id, count, &[0x5a; 100])
        })?;
    }
    made.script(READERS * TIMES as u64)
}

/// 10,000 changes of one document in one message.
fn intake() -> Result<Script> {
    let document = history::text_document(0, LONG_CHANGES)?;
    let mut made = Made::default();
    made.joined(WRITER)?;
    made.measure();
    made.sync(WRITER, &history::document_id(0), &changes_of(&document)?)?;
    made.script(1)
}

/// A device comes back after a restart that has the first half of 1,000 changes, and says so by a bloom filter.
fn stale() -> Result<Script> {
    let id = history::document_id(0);
    let (document, half) = (
        history::text_document(0, 1_000)?,
        history::text_document(0, 500)?,
    );
    let mut made = Made::default();
    made.joined(WRITER)?;
    made.sync(WRITER, &id, &changes_of(&document)?)?;
    made.restart();
    made.joined(WRITER)?;
    let hello = half.generate_sync_message(&mut State::new());
    let hello = hello.context("a first message is always due")?;
    made.measure();
    made.sync(WRITER, &id, &Message::encode(hello))?;
    made.sync(WRITER, &id, &sync::confirm(&[head_of(&document)?]))?;
    made.script(1)
}

fn readers() -> impl Iterator<Item = u64> {
    WRITER + 1..=WRITER + READERS
}

fn head_of(document: &Automerge) -> Result<[u8; 32]> {
    Ok(document.get_heads().first().context("no changes")?.0)
}

/// The document's changes, one by one, in one message.
fn changes_of(document: &Automerge) -> Result<Vec<u8>> {
    let changes = document.get_changes(&[]);
    let mut bytes = Vec::new();
    for change in &changes {
        bytes.extend_from_slice(change.raw_bytes());
    }
    let last = changes.last().context("no changes")?;
    Ok(sync::edit(vec![], last.hash(), bytes))
}

/// A script in the making.
#[derive(Default)]
struct Made(Vec<Step>);

impl Made {
    fn frame(
        &mut self,
        connection: u64,
        make: impl FnOnce(wire::Route<'_>) -> Result<Bytes>,
    ) -> Result<()> {
        let name = name(connection);
        let route = wire::Route {
            from: &name,
            to: SERVER,
        };
        self.0.push(Step::Frame(connection, make(route)?));
        Ok(())
    }

    fn sync(&mut self, connection: u64, id: &str, data: &[u8]) -> Result<()> {
        self.frame(connection, |route| wire::sync("sync", route, id, data))
    }

    fn joined(&mut self, connection: u64) -> Result<()> {
        self.0.push(Step::Open(connection));
        self.frame(connection, |route| wire::join(route.from))
    }

    fn pushed(&mut self, document: &Prepared) -> Result<()> {
        self.sync(WRITER, &document.id, &document.offer)?;
        self.sync(WRITER, &document.id, &document.upload)
    }

    /// A writer whose document is stored, and readers in step with it.
    fn audience(&mut self, document: &Automerge) -> Result<String> {
        let id = history::document_id(0);
        self.joined(WRITER)?;
        self.sync(WRITER, &id, &changes_of(document)?)?;
        for reader in readers() {
            self.joined(reader)?;
            self.frame(reader, |route| {
                wire::sync("request", route, &id, &sync::request())
            })?;
            self.sync(reader, &id, &sync::confirm(&[head_of(document)?]))?;
        }
        Ok(id)
    }

    fn restart(&mut self) {
        self.0.push(Step::Restart);
    }

    fn measure(&mut self) {
        self.0.push(Step::Measure);
    }

    fn script(self, answers_min: u64) -> Result<Script> {
        Ok(Script {
            steps: self.0,
            answers_min,
        })
    }
}

fn name(connection: u64) -> String {
    format!("peer-{connection}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world;

    #[test]
    fn every_workload_is_carried_out_and_none_is_empty() {
        for (name, script) in all().unwrap() {
            let frames = world::run(&script).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            assert!(frames > 0, "{name}");
        }
    }
}
