//! How a group's storage is, for everybody to see.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, Ordering},
};

/// How the storage of a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// The last write was stored.
    Good,
    /// The last write found no room on the disk.
    Full,
    /// The last write failed otherwise, or something that was read is damaged.
    Failed,
}

#[derive(Default)]
struct Cell {
    writing: AtomicU8,
    reading_failed: AtomicBool,
    damaged: AtomicBool,
}

/// Reads a group's health, from any thread.
#[derive(Clone)]
pub struct HealthReader(Arc<Cell>);

/// Sets it.
#[derive(Clone)]
pub(crate) struct HealthWriter(Arc<Cell>);

pub(crate) fn health() -> (HealthWriter, HealthReader) {
    let cell = Arc::new(Cell::default());
    (HealthWriter(Arc::clone(&cell)), HealthReader(cell))
}

impl HealthReader {
    /// The health now.
    pub fn get(&self) -> Health {
        let Cell {
            reading_failed,
            damaged,
            ..
        } = &*self.0;
        if damaged.load(Ordering::Relaxed) || reading_failed.load(Ordering::Relaxed) {
            return Health::Failed;
        }
        self.0.writing()
    }
}

impl HealthWriter {
    /// Sets how writing goes; how it went before.
    pub(crate) fn set(&self, health: Health) -> Health {
        let number = match health {
            Health::Good => 0,
            Health::Full => 1,
            Health::Failed => 2,
        };
        named(self.0.writing.swap(number, Ordering::Relaxed))
    }

    /// How writing goes.
    pub(crate) fn get(&self) -> Health {
        self.0.writing()
    }

    /// Says that something which was read is damaged. That does not mend itself: it stays so until a restart,
    /// which looks at everything.
    pub(crate) fn set_damaged(&self) {
        self.0.damaged.store(true, Ordering::Relaxed);
    }

    /// Whether that has been said.
    pub(crate) fn is_damaged(&self) -> bool {
        self.0.damaged.load(Ordering::Relaxed)
    }

    /// Says whether the last read came to something.
    pub(crate) fn set_reading_failed(&self, failed: bool) {
        self.0.reading_failed.store(failed, Ordering::Relaxed);
    }
}

impl Cell {
    fn writing(&self) -> Health {
        named(self.writing.load(Ordering::Relaxed))
    }
}

fn named(number: u8) -> Health {
    match number {
        0 => Health::Good,
        1 => Health::Full,
        _ => Health::Failed,
    }
}
