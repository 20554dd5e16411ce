//! The one thread that reads a group's file.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::Receiver,
};

use engine::{
    Ticket,
    storage::{Answer, Fault, Read},
};
use rusqlite::{Connection, ErrorCode};
use tracing::error;

use crate::{
    group::{Completion, Sink},
    health::HealthWriter,
    read::read,
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
        }
    }

    /// Answers until nobody can ask any more.
    pub(crate) fn run(self, queue: &Receiver<Vec<(Ticket, Read)>>) {
        while let Ok(first) = queue.recv() {
            let mut bytes = 0;
            let mut completions = vec![];
            for (ticket, question) in first.into_iter().chain(queue.try_iter().flatten()) {
                let outcome = self.answer(&question);
                bytes += ANSWER_BYTES + outcome.as_ref().map_or(0, weight);
                completions.push(Completion { ticket, outcome });
                if bytes > ROUND_BYTES {
                    bytes = 0;
                    (self.sink)(std::mem::take(&mut completions));
                }
            }
            (self.sink)(completions);
        }
    }

    fn answer(&self, question: &Read) -> Result<Answer, Fault> {
        answer(&self.connection, &self.path, &self.health, question)
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
        let (file, document) = (path.display(), question.document);
        error!(doc.id = %document, "{file}: cannot read a document ({error})");
        if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) {
            health.set_damaged();
        }
        Fault::Failed
    })
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
