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

/// What the store has to say, from threads of its own.
#[derive(Debug)]
pub enum Notice {
    /// All that one commit, or one round of reading, gave.
    Completed(Vec<Completion>),
    /// One of its threads has panicked, which is a bug of ours: what it was at is not answered, and neither is anything
    /// else that it is asked. The store is to be closed; another may be opened then.
    Broken,
}

/// Takes notices.
pub(crate) type Sink = Arc<dyn Fn(Notice) + Send + Sync>;

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
    /// `noticed` is called from two threads of the store, with the completions of writes in the order in which they
    /// were submitted.
    ///
    /// # Errors
    /// [`OpenError`] if the file cannot be used, or is damaged.
    pub fn open(
        path: &Path,
        settings: GroupSettings,
        noticed: Box<dyn Fn(Notice) + Send + Sync>,
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
        let sink: Sink = Arc::from(noticed);
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
}

impl<T: Send + 'static> Queue<T> {
    fn start(
        name: &str,
        sink: Sink,
        run: impl FnOnce(mpsc::Receiver<Vec<(Ticket, T)>>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            let _alarm = Alarm(sink);
            run(receiver);
        })?;
        Ok(Self {
            requests: Some(sender),
            thread: Some(thread),
        })
    }

    fn submit(&self, requests: Vec<(Ticket, T)>) {
        if let Some(sender) = &self.requests {
            // a thread that has panicked takes none, and has said so
            sender.send(requests).ok();
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

/// Says that the thread it lives in has panicked.
struct Alarm(Sink);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.0)(Notice::Broken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_says_so_and_one_that_ends_does_not() {
        let notices = |is_bug: bool| {
            let (sender, notices) = mpsc::channel();
            let sink: Sink = Arc::new(move |notice| drop(sender.send(notice)));
            let queue = Queue::start("store", sink, move |requests| {
                for _ in requests {
                    assert!(!is_bug, "as by a bug");
                }
            })
            .unwrap();
            queue.submit(vec![(Ticket(1), ())]);
            drop(queue);
            notices.into_iter().collect::<Vec<_>>()
        };
        assert!(matches!(notices(true)[..], [Notice::Broken]));
        assert!(notices(false).is_empty());
    }
}
