//! The one thread that reads a group's file.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError},
};

use engine::{
    Ticket,
    storage::{Answer, Fault, Read},
};
use rusqlite::{Connection, ErrorCode};
use tracing::{error, info};

use crate::{
    group::{Completion, Notice, Sink},
    health::HealthWriter,
    read::read,
    writer::PROBE_EVERY,
};

/// Bytes beyond which answers are handed over before the next question is looked at.
const ROUND_BYTES: usize = 4 << 20;
/// What an answer counts besides its contents, in bytes: whoever asks for many small ones keeps nobody waiting.
const ANSWER_BYTES: usize = 16 << 10;

pub(crate) struct Reader {
    connection: Connection,
    path: PathBuf,
    health: HealthWriter,
    sink: Sink,
    /// What could not be read, and may be read another time.
    failed: Option<Read>,
}

impl Reader {
    pub(crate) fn new(
        connection: Connection,
        path: &Path,
        health: HealthWriter,
        sink: Sink,
    ) -> Self {
        Self {
            connection,
            path: path.to_owned(),
            health,
            sink,
            failed: None,
        }
    }

    /// Answers until nobody can ask any more.
    pub(crate) fn run(mut self, queue: &Receiver<Vec<(Ticket, Read)>>) {
        loop {
            let first = if self.failed.is_some() {
                queue.recv_timeout(PROBE_EVERY)
            } else {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match first {
                Ok(first) => self.serve(first, queue),
                Err(RecvTimeoutError::Timeout) => self.probe(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn serve(&mut self, first: Vec<(Ticket, Read)>, queue: &Receiver<Vec<(Ticket, Read)>>) {
        let mut bytes = 0;
        let mut completions = vec![];
        for (ticket, question) in first.into_iter().chain(queue.try_iter().flatten()) {
            let outcome = self.answer(&question);
            bytes += ANSWER_BYTES + outcome.as_ref().map_or(0, weight);
            completions.push(Completion { ticket, outcome });
            if bytes > ROUND_BYTES {
                bytes = 0;
                (self.sink)(Notice::Completed(std::mem::take(&mut completions)));
            }
        }
        (self.sink)(Notice::Completed(completions));
    }

    fn answer(&mut self, question: &Read) -> Result<Answer, Fault> {
        let outcome = answer(&self.connection, &self.path, &self.health, question);
        // what is damaged does not mend itself
        let may_pass = outcome.is_err() && !self.health.is_damaged();
        self.failed = may_pass.then_some(*question);
        outcome
    }

    /// Whether that which failed can be read by now. Who asked for it may be gone, and then nobody else finds out.
    fn probe(&mut self) {
        let Some(question) = self.failed else { return };
        match read(&self.connection, &question) {
            Ok(_) => {
                self.failed = None;
                self.health.set_reading_failed(false);
                info!("{}: documents can be read again", self.path.display());
            }
            Err(error) if is_damage(&error) => {
                self.failed = None;
                failed(&self.path, &self.health, &question, &error);
            }
            // that has been said
            Err(_) => {}
        }
    }
}

/// Answers a question, and says in the log and the health if that cannot be done.
pub(crate) fn answer(
    connection: &Connection,
    path: &Path,
    health: &HealthWriter,
    question: &Read,
) -> Result<Answer, Fault> {
    let outcome = read(connection, question);
    health.set_reading_failed(outcome.is_err());
    outcome.map_err(|error| {
        failed(path, health, question, &error);
        Fault::Failed
    })
}

fn failed(path: &Path, health: &HealthWriter, question: &Read, error: &rusqlite::Error) {
    let (file, document) = (path.display(), question.document);
    error!(doc.id = %document, "{file}: cannot read a document ({error})");
    if is_damage(error) {
        health.set_damaged();
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

fn weight(answer: &Answer) -> usize {
    match answer {
        Answer::Stored | Answer::Meta(_) => 0,
        Answer::Graph {
            index,
            tail,
            orphans,
            ..
        } => {
            let tail: usize = tail.iter().map(|chunk| chunk.bytes.len()).sum();
            let orphans: usize = orphans.iter().map(|orphan| orphan.bytes.len()).sum();
            index.as_ref().map_or(0, |index| index.len()) + tail + orphans
        }
        Answer::Chunks { chunks, .. } => chunks.iter().map(|chunk| chunk.bytes.len()).sum(),
        Answer::Documents(documents) => documents.len() * 64,
    }
}
