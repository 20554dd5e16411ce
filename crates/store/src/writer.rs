//! The one thread that writes a group's file.
//!
//! It takes all that waits, carries it out in one transaction, and reports once the commit is on disk: a commit
//! costs one fsync, whoever shares it. While a commit is under way the next one gathers.
//!
//! It also takes the log over into the file, once the log is long enough and everybody has their answers.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use engine::{
    Ticket,
    storage::{Answer, Fault, Write, WriteAction},
};
use rusqlite::{Connection, ErrorCode, TransactionBehavior, config::DbConfig, ffi};
use tracing::{error, info};

use crate::{
    group::{Completion, GroupSettings, Notice, Sink},
    health::{Health, HealthWriter},
    open::{Disk, Log, connect, now_ms},
    write::{Written, write},
};

/// Most writes of one commit.
const COMMIT_WRITES_MAX: usize = 4_096;
/// Bytes beyond which a commit gathers no more.
const COMMIT_BYTES: usize = 8 << 20;
/// How often the disk is tried while it refuses.
pub(crate) const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How much room there must be for the storage to be well again, in bytes.
const PROBE_BYTES: i64 = 64 << 10;
/// After so many writes in a row that fail alone, the rest of their commit is refused unseen.
const FAILURES_MAX: usize = 4;

pub(crate) type Request = (Ticket, Write);

pub(crate) struct Writer {
    connection: Connection,
    disk: Disk,
    path: PathBuf,
    settings: GroupSettings,
    health: HealthWriter,
    sink: Sink,
    log: Log,
    /// An fsync has failed: what the kernel then keeps and what the disk holds may differ for good, and no later
    /// fsync tells. Nothing more is written in this run.
    stopped: bool,
}

impl Writer {
    pub(crate) fn new(
        mut connection: Connection,
        disk: Disk,
        path: &Path,
        settings: GroupSettings,
        health: HealthWriter,
        sink: Sink,
    ) -> rusqlite::Result<Self> {
        let log = Log::default();
        log.measure(&mut connection)?;
        Ok(Self {
            connection,
            disk,
            path: path.to_owned(),
            settings,
            health,
            sink,
            log,
            stopped: false,
        })
    }

    /// Writes until nobody can submit any more.
    pub(crate) fn run(mut self, queue: &Receiver<Vec<Request>>) {
        loop {
            let first = if self.may_recover() {
                queue.recv_timeout(PROBE_EVERY)
            } else {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match first {
                Ok(first) => self.serve(gather(first, queue)),
                Err(RecvTimeoutError::Timeout) => self.probe(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Whether there is something wrong that may pass by itself.
    pub(crate) fn may_recover(&self) -> bool {
        !self.stopped && self.health.get() != Health::Good
    }

    fn serve(&mut self, mut requests: Vec<Request>) {
        while !requests.is_empty() {
            let rest = requests.split_off(requests.len().min(COMMIT_WRITES_MAX));
            let completions = self.commit(&requests);
            (self.sink)(Notice::Completed(completions));
            self.checkpoint_if_due();
            requests = rest;
        }
    }

    /// Writes them all in one transaction, or, if that fails, each that can be written.
    pub(crate) fn commit(&mut self, requests: &[Request]) -> Vec<Completion> {
        if self.stopped {
            return refuse(requests, Fault::Failed);
        }
        match self.transact(requests) {
            Ok(completions) => {
                // whether all is well, the log then says
                if !self.log.is_due() {
                    self.is_well();
                }
                completions
            }
            Err(error) => {
                let fault = self.failed(&error);
                match requests {
                    [_, _, ..] if !self.stopped => self.one_by_one(requests),
                    requests => refuse(requests, fault),
                }
            }
        }
    }

    fn one_by_one(&mut self, requests: &[Request]) -> Vec<Completion> {
        let mut completions = Vec::with_capacity(requests.len());
        let mut failures = 0;
        for (at, request) in requests.iter().enumerate() {
            let one = std::slice::from_ref(request);
            match self.transact(one) {
                Ok(completion) => {
                    failures = 0;
                    completions.extend(completion);
                }
                Err(error) => {
                    // what is damaged is one document's affair, and is refused at once
                    let is_damage = error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt);
                    failures += usize::from(!is_damage);
                    let fault = self.failed(&error);
                    if failures == FAILURES_MAX || self.stopped {
                        completions.extend(refuse(requests.get(at..).unwrap_or_default(), fault));
                        return completions;
                    }
                    completions.extend(refuse(one, fault));
                }
            }
        }
        completions
    }

    /// One transaction: everything or nothing, fsynced when it returns.
    fn transact(&mut self, requests: &[Request]) -> rusqlite::Result<Vec<Completion>> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let now_ms = now_ms();
        let mut completions = Vec::with_capacity(requests.len());
        for (ticket, request) in requests {
            let outcome = match write(&transaction, request, now_ms)? {
                Written::Yes => Ok(Answer::Stored),
                Written::OutOfOrder => Err(Fault::Failed),
            };
            completions.push(Completion {
                ticket: *ticket,
                outcome,
            });
        }
        transaction.commit()?;
        Ok(completions)
    }

    /// Takes the log over into the file if it is long enough.
    pub(crate) fn checkpoint_if_due(&mut self) {
        if self.stopped || !self.log.is_due() {
            return;
        }
        match self.log.take_over(&self.connection) {
            Ok(()) => self.is_well(),
            Err(error) => {
                self.failed(&error);
            }
        }
    }

    /// Finds out whose fault it was, says so if it is new, and sees to it that the next write finds a sound
    /// connection.
    fn failed(&mut self, error: &rusqlite::Error) -> Fault {
        let file = self.path.display();
        if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) {
            error!("{file}: cannot write to a document ({error})");
            self.health.set_damaged();
            return Fault::Failed;
        }
        let code = error.sqlite_error().map(|error| error.extended_code);
        let was_stopped = self.stopped;
        self.stopped |= matches!(
            code,
            Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
        );
        if self.stopped {
            self.keep_log();
        }
        let is_full = error.sqlite_error_code() == Some(ErrorCode::DiskFull) && !self.stopped;
        let (health, fault) = if is_full {
            (Health::Full, Fault::Full)
        } else {
            (Health::Failed, Fault::Failed)
        };
        // that it is tried again may have been said before
        if self.health.set(health) != health || self.stopped != was_stopped {
            if self.stopped {
                error!(
                    "{file}: the disk could not store a write ({error}); nothing more is written until a restart"
                );
            } else if is_full {
                error!("{file}: no room on the disk; writes are refused until there is");
            } else {
                error!("{file}: cannot write ({error}); trying again every second");
            }
        }
        if !self.stopped && !is_full {
            self.reconnect();
        }
        fault
    }

    /// Has the log stay when the connection is closed. It may hold the only copy of what an fsync has lost, and closing
    /// would take it over from where the last checkpoint left off, and remove it.
    fn keep_log(&self) {
        let how = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        if let Err(error) = self.connection.set_db_config(how, true) {
            error!("{}: cannot keep the log ({error})", self.path.display());
        }
    }

    fn is_well(&self) {
        if self.health.set(Health::Good) != Health::Good {
            info!("{}: writes are stored again", self.path.display());
        }
    }

    /// Whether the disk takes more than a little. The log comes first: each try makes it longer as long as it cannot be
    /// taken over.
    pub(crate) fn probe(&mut self) {
        let probe = |value: &str, bytes: i64, connection: &Connection| {
            connection.execute(value, [bytes]).map(drop)
        };
        let fill = "UPDATE properties SET value = hex(zeroblob(?1 / 2)) WHERE name = 'probe'";
        let clear = "UPDATE properties SET value = '' WHERE name = 'probe' AND ?1 = 0";
        let log = if self.log.is_due() {
            self.log.take_over(&self.connection)
        } else {
            Ok(())
        };
        let outcome = log
            .and_then(|()| probe(fill, PROBE_BYTES, &self.connection))
            .and_then(|()| probe(clear, 0, &self.connection));
        match outcome {
            Ok(()) => self.is_well(),
            Err(error) => {
                self.failed(&error);
            }
        }
    }

    /// The connection, to read by where nobody else may have the file open.
    #[cfg(feature = "simulator")]
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// A connection that met an I/O error may hold on to it.
    fn reconnect(&mut self) {
        #[cfg(feature = "simulator")]
        self.let_go();
        // if there is none to be had, the old one fails again, and that is said
        if let Ok(mut connection) = connect(self.disk, &self.path, self.settings.cache_kib)
            && self.log.measure(&mut connection).is_ok()
        {
            self.connection = connection;
        }
    }
}

#[cfg(feature = "simulator")]
impl Writer {
    /// Closes a connection that has its file to itself, so that another one can be opened.
    fn let_go(&mut self) {
        if let (Disk::Simulated(_), Ok(nothing)) = (self.disk, Connection::open_in_memory()) {
            self.connection = nothing;
            // or it could be taken over, there being none, and all would seem well again
            self.log = Log::default();
        }
    }
}

/// All that waits, up to the bounds of a commit.
fn gather(first: Vec<Request>, queue: &Receiver<Vec<Request>>) -> Vec<Request> {
    let mut requests = first;
    let mut bytes: usize = requests.iter().map(weight).sum();
    while requests.len() < COMMIT_WRITES_MAX && bytes < COMMIT_BYTES {
        let Ok(more) = queue.try_recv() else { break };
        bytes += more.iter().map(weight).sum::<usize>();
        requests.extend(more);
    }
    requests
}

fn weight((_, write): &Request) -> usize {
    match &write.action {
        WriteAction::Append { chunk, orphans, .. } => {
            let orphans: usize = orphans.iter().map(|orphan| orphan.bytes.len()).sum();
            chunk.as_ref().map_or(0, |chunk| chunk.bytes.len()) + orphans
        }
        WriteAction::Replace {
            snapshot, index, ..
        } => snapshot.bytes.len() + index.len(),
        WriteAction::Quarantine { .. } | WriteAction::DropPushed { .. } => 0,
    }
}

fn refuse(requests: &[Request], fault: Fault) -> Vec<Completion> {
    let refused = |(ticket, _): &Request| Completion {
        ticket: *ticket,
        outcome: Err(fault),
    };
    requests.iter().map(refused).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use engine::{
        ChangeHash, DocumentId,
        storage::{ChunkKind, StoredChunk},
    };
    use tempfile::TempDir;

    use super::*;
    use crate::{
        health::health,
        open::{CHECKPOINT_PAGES, connect_readonly},
        schema,
    };

    fn writer(folder: &TempDir) -> Writer {
        let path = folder.path().join("group.db");
        let connection = schema::open(Disk::System, &path, &schema::GROUP, 256).unwrap();
        let settings = GroupSettings { cache_kib: 256 };
        Writer::new(
            connection,
            Disk::System,
            &path,
            settings,
            health().0,
            Arc::new(drop),
        )
        .unwrap()
    }

    fn append(document: u8, number: u64, length: usize) -> Request {
        let chunk = StoredChunk {
            number,
            kind: ChunkKind::Tail,
            bytes: vec![1; length].into(),
        };
        let action = WriteAction::Append {
            chunk: Some(chunk),
            heads: vec![ChangeHash::from_bytes([1; 32])],
            changes: 1,
            orphans: vec![],
            adopted: vec![],
        };
        (
            Ticket(0),
            Write {
                document: DocumentId::from_bytes([document; 16]),
                action,
            },
        )
    }

    fn outcomes(writer: &mut Writer, requests: &[Request]) -> Vec<Result<Answer, Fault>> {
        writer
            .commit(requests)
            .into_iter()
            .map(|completion| completion.outcome)
            .collect()
    }

    fn limit_pages(writer: &Writer, pages: i64) {
        let limit =
            writer
                .connection
                .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()));
        limit.unwrap();
    }

    #[test]
    fn a_full_disk_refuses_what_is_too_long_stores_the_rest_and_mends_itself() {
        let folder = TempDir::new().unwrap();
        let mut writer = writer(&folder);
        // what SQLite then says is what it says of a full disk
        limit_pages(&writer, 60);
        let requests = [append(2, 0, 1 << 20), append(3, 0, 10), append(2, 1, 10)];
        assert_eq!(
            outcomes(&mut writer, &requests),
            [Err(Fault::Full), Ok(Answer::Stored), Err(Fault::Failed)],
            "the third builds on the first"
        );
        assert_eq!(
            outcomes(&mut writer, &[append(4, 0, 1 << 20)]),
            [Err(Fault::Full)]
        );
        assert_eq!(writer.health.get(), Health::Full);
        limit_pages(&writer, 1);
        writer.probe();
        assert_eq!(writer.health.get(), Health::Full);
        limit_pages(&writer, 1 << 20);
        writer.probe();
        assert_eq!(writer.health.get(), Health::Good);
        assert_eq!(
            outcomes(&mut writer, &[append(4, 0, 1 << 20)]),
            [Ok(Answer::Stored)]
        );
    }

    #[test]
    fn after_an_fsync_that_failed_nothing_more_is_written() {
        let folder = TempDir::new().unwrap();
        let mut writer = writer(&folder);
        let code = ffi::Error::new(ffi::SQLITE_IOERR_FSYNC);
        let fault = writer.failed(&rusqlite::Error::SqliteFailure(code, None));
        assert_eq!(fault, Fault::Failed);
        assert_eq!(
            outcomes(&mut writer, &[append(1, 0, 10)]),
            [Err(Fault::Failed)]
        );
        assert_eq!(writer.health.get(), Health::Failed);
        // not even when it is closed: the log may hold the only copy
        let log = folder.path().join("group.db-wal");
        let (before, file) = (fs::read(&log).unwrap(), fs::read(&writer.path).unwrap());
        drop(writer);
        assert_eq!(fs::read(&log).unwrap(), before);
        assert_eq!(fs::read(folder.path().join("group.db")).unwrap(), file);
    }

    #[test]
    fn what_somebody_reads_stays_in_the_log_until_they_are_done_and_no_fault_is_seen_in_that() {
        let folder = TempDir::new().unwrap();
        let mut writer = writer(&folder);
        let stored = [Ok(Answer::Stored)];
        assert_eq!(outcomes(&mut writer, &[append(1, 0, 10)]), stored);
        let reader = connect_readonly(&writer.path, 256).unwrap();
        let reading = reader.unchecked_transaction().unwrap();
        let documents = |connection: &Connection| -> i64 {
            let count = "SELECT count(*) FROM documents";
            connection.query_row(count, [], |row| row.get(0)).unwrap()
        };
        assert_eq!(documents(&reading), 1);

        let long = CHECKPOINT_PAGES as usize * 4_096;
        assert_eq!(outcomes(&mut writer, &[append(2, 0, long)]), stored);
        let length = |file: &str| fs::metadata(folder.path().join(file)).unwrap().len();
        writer.checkpoint_if_due();
        assert_eq!(writer.health.get(), Health::Good);
        assert!(length("group.db") < long as u64);
        assert_eq!(documents(&reading), 1);

        drop(reading);
        assert_eq!(outcomes(&mut writer, &[append(3, 0, 10)]), stored);
        writer.checkpoint_if_due();
        assert!(length("group.db") > long as u64);
        assert_eq!(documents(&reader), 3);
    }

    #[test]
    fn what_fails_alone_is_left_out_and_after_four_in_a_row_the_rest_is_refused_unseen() {
        let folder = TempDir::new().unwrap();
        let mut writer = writer(&folder);
        limit_pages(&writer, 60);
        let mut documents = 0..;
        let mut requests = |long: &[bool]| -> Vec<_> {
            let numbered = long.iter().zip(&mut documents);
            numbered
                .map(|(long, n)| append(n, 0, if *long { 1 << 20 } else { 10 }))
                .collect()
        };
        let (full, stored) = (Err(Fault::Full), Ok(Answer::Stored));
        let three_and_one = [true, true, true, false].repeat(2);
        let expected = three_and_one
            .iter()
            .map(|long| if *long { &full } else { &stored }.clone());
        assert_eq!(
            outcomes(&mut writer, &requests(&three_and_one)),
            expected.collect::<Vec<_>>()
        );
        let four_and_one = [true, true, true, true, false];
        assert_eq!(
            outcomes(&mut writer, &requests(&four_and_one)),
            vec![full; 5]
        );
        assert_eq!(outcomes(&mut writer, &requests(&[false])), [stored]);
    }

    #[test]
    fn a_damaged_document_that_is_written_to_again_and_again_keeps_nobody_else_waiting() {
        let folder = TempDir::new().unwrap();
        let mut writer = writer(&folder);
        assert_eq!(
            outcomes(&mut writer, &[append(2, 0, 10)]),
            [Ok(Answer::Stored)]
        );
        let damage = "UPDATE documents SET changes = 99";
        writer.connection.execute(damage, []).unwrap();
        let mut requests: Vec<_> = (1..6).map(|number| append(2, number, 10)).collect();
        requests.push(append(3, 0, 10));
        let outcomes = outcomes(&mut writer, &requests);
        assert_eq!(outcomes.last(), Some(&Ok(Answer::Stored)), "{outcomes:?}");
    }
}
