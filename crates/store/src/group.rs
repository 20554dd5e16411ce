//! The documents of one group, as its engine sees them.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use engine::{
    Ticket,
    storage::{Answer, Fault, Read, Write},
};

use crate::{
    checks::check_rows,
    error::OpenError,
    health::{HealthReader, health},
    open::{Disk, connect_readonly},
    reader::Reader,
    schema,
    writer::Writer,
};

/// How a group's file is used.
#[derive(Debug, Clone, Copy)]
pub struct GroupSettings {
    /// Most memory for pages of the file, in KiB, once for writing and once for reading.
    pub cache_kib: u32,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self { cache_kib: 2_048 }
    }
}

/// The answer to a write or a read.
#[derive(Debug)]
pub struct Completion {
    /// The ticket it was submitted under.
    pub ticket: Ticket,
    /// What came of it. [`Answer::Stored`] means that it has been fsynced.
    pub outcome: Result<Answer, Fault>,
}

/// Takes completions: all that one commit, or one round of reading, gave. Called from the store's threads.
pub(crate) type Sink = Arc<dyn Fn(Vec<Completion>) + Send + Sync>;

/// The documents of one group. Dropping it waits for what was submitted; [`GroupStore::close`] says so.
pub struct GroupStore {
    storage_id: String,
    health: HealthReader,
    // dropped first: the last connection that closes must be one that may write, so that it empties the log
    reads: Queue<Read>,
    writes: Queue<Write>,
}

impl GroupStore {
    /// Opens the file of a group, which is made if it does not exist, and looks at every row of it.
    ///
    /// `completed` is called from two threads of the store, with the completions of writes in the order in which
    /// they were submitted.
    ///
    /// # Errors
    /// [`OpenError`] if the file cannot be used, or is damaged.
    pub fn open(
        path: &Path,
        settings: GroupSettings,
        completed: Box<dyn Fn(Vec<Completion>) + Send + Sync>,
    ) -> Result<Self, OpenError> {
        let failed = |problem| OpenError {
            path: path.to_owned(),
            problem,
        };
        let connection = schema::open(Disk::System, path, &schema::GROUP, settings.cache_kib)?;
        check_rows(path, &connection)?;
        let storage_id = connection
            .query_row(
                "SELECT value FROM properties WHERE name = 'storage_id'",
                [],
                |row| row.get(0),
            )
            .map_err(|error| failed(error.into()))?;
        let sink: Sink = Arc::from(completed);
        let (health_writer, health) = health();
        let writer = Writer::new(
            connection,
            Disk::System,
            path,
            settings,
            health_writer.clone(),
            sink.clone(),
        )
        .map_err(|error| failed(error.into()))?;
        let reading = connect_readonly(path, settings.cache_kib).map_err(failed)?;
        let reader = Reader::new(reading, path, health_writer, sink.clone());
        Ok(Self {
            storage_id,
            health,
            writes: Queue::start("store-writer", sink.clone(), |queue| writer.run(&queue))
                .map_err(|error| failed(error.into()))?,
            reads: Queue::start("store-reader", sink, |queue| reader.run(&queue))
                .map_err(|error| failed(error.into()))?,
        })
    }

    /// A UUID that belongs to this file for as long as it exists.
    pub fn storage_id(&self) -> &str {
        &self.storage_id
    }

    /// How the storage is.
    pub fn health_reader(&self) -> HealthReader {
        self.health.clone()
    }

    /// Has these written. Writes of one document take effect in the order in which they were submitted.
    pub fn submit_writes(&self, writes: Vec<(Ticket, Write)>) {
        self.writes.submit(writes);
    }

    /// Has these answered. A read sees every write that was answered before it was submitted.
    pub fn submit_reads(&self, reads: Vec<(Ticket, Read)>) {
        self.reads.submit(reads);
    }

    /// Carries out what was submitted, and closes the file.
    pub fn close(self) {}
}

/// Requests that wait for a thread of their own.
struct Queue<T> {
    requests: Option<mpsc::Sender<Vec<(Ticket, T)>>>,
    thread: Option<JoinHandle<()>>,
    sink: Sink,
}

impl<T: Send + 'static> Queue<T> {
    fn start(
        name: &str,
        sink: Sink,
        run: impl FnOnce(mpsc::Receiver<Vec<(Ticket, T)>>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || run(receiver))?;
        Ok(Self {
            requests: Some(sender),
            thread: Some(thread),
            sink,
        })
    }

    fn submit(&self, requests: Vec<(Ticket, T)>) {
        let refused = match &self.requests {
            Some(sender) => sender.send(requests).err().map(|error| error.0),
            None => Some(requests),
        };
        if let Some(refused) = refused {
            // the thread has died, which is a bug of ours: nobody may wait for it
            let failed = |(ticket, _)| Completion {
                ticket,
                outcome: Err(Fault::Failed),
            };
            (self.sink)(refused.into_iter().map(failed).collect());
        }
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("a thread of the store has panicked");
        }
    }
}
