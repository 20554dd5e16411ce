//! The store as a simulator drives it: the same statements and the same decisions, on a disk that the simulator makes
//! and one step at a time, on its own thread.

use std::{path::Path, sync::Arc};

use engine::{
    Ticket,
    storage::{Answer, Fault, Read, Write},
};

use crate::{
    AccountStore, Completion, GroupSettings, HealthReader, OpenError,
    checks::check_rows,
    health::{HealthWriter, health},
    open::Disk,
    reader::answer,
    schema,
    writer::Writer,
};

/// The documents of one group, on a simulated disk.
pub struct SteppedStore {
    writer: Writer,
    path: std::path::PathBuf,
    health_writer: HealthWriter,
    health: HealthReader,
}

impl SteppedStore {
    /// Opens the file of a group as [`crate::GroupStore::open`] does, by the SQLite VFS that is registered as `vfs`.
    ///
    /// # Errors
    /// [`OpenError`] if the file cannot be used, or is damaged.
    pub fn open(vfs: &'static str, path: &Path) -> Result<Self, OpenError> {
        let (disk, settings) = (Disk::Simulated(vfs), GroupSettings::default());
        let connection = schema::open(disk, path, &schema::GROUP, settings.cache_kib)?;
        check_rows(path, &connection)?;
        let (health_writer, health) = health();
        let writer = Writer::new(
            connection,
            disk,
            path,
            settings,
            health_writer.clone(),
            Arc::new(drop),
        )
        .map_err(|error| OpenError {
            path: path.to_owned(),
            problem: error.into(),
        })?;
        Ok(Self {
            writer,
            path: path.to_owned(),
            health_writer,
            health,
        })
    }

    /// Has these written, as one group commit, and the log taken over if it is long enough.
    pub fn commit(&mut self, writes: &[(Ticket, Write)]) -> Vec<Completion> {
        let completions = self.writer.commit(writes);
        self.writer.checkpoint_if_due();
        completions
    }

    /// Answers a question.
    ///
    /// # Errors
    /// [`Fault`] if the file cannot be read.
    pub fn read(&self, question: &Read) -> Result<Answer, Fault> {
        answer(
            self.writer.connection(),
            &self.path,
            &self.health_writer,
            question,
        )
    }

    /// Whether the disk takes writes again: what the writer asks every second while it does not.
    pub fn probe(&mut self) {
        if self.writer.may_recover() {
            self.writer.probe();
        }
    }

    /// How the storage is.
    pub fn health(&self) -> crate::Health {
        self.health.get()
    }
}

/// Opens the account database by the SQLite VFS that is registered as `vfs`.
///
/// # Errors
/// [`OpenError`] if the file cannot be used, or is damaged.
pub fn open_account(vfs: &'static str, path: &Path) -> Result<AccountStore, OpenError> {
    AccountStore::open_on(Disk::Simulated(vfs), path)
}
