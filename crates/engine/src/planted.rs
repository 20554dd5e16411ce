//! Bugs that are planted on purpose, so that a simulator can show that its checkers find them.
//!
//! Each is of the kind that one would really write. Without the feature `simulator`, which the server never has,
//! [`is_planted`] is `false` when it is compiled, and nothing is left of any of them.

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// New changes count as durable once they are on their way to the disk.
    AcknowledgesBeforeTheCommit,
    /// Commits are not fsynced.
    SkipsTheFsync,
    /// A session that has ended is told so, and stays among the readers of its documents.
    ForgetsReadersAtRevocation,
    /// A session that may read may write too.
    LetsReadersWrite,
    /// Orphans that are stored are not read again.
    DropsOrphansAtRestart,
    /// A compaction covers what came while the worker was at it.
    CompactsAwayConcurrentChanges,
    /// A graph goes although messages wait for its document.
    LosesTheQueueAtEviction,
    /// What could not be stored stays in the graph.
    KeepsWhatCouldNotBeStored,
    /// After a write that failed, the next one has the number after it.
    SkipsANumberAfterAFault,
    /// A change is not held against its checksum.
    BelievesChecksums,
    /// An actor may have two changes with one sequence number.
    AllowsASequenceNumberTwice,
    /// As many orphans are kept as come.
    KeepsEveryOrphan,
    /// A time to try again stays after it has come.
    RetriesWithoutEnd,
    /// A ticket is not remembered.
    ReplaysATicket,
    /// What waits of a peer that leaves goes, and is still counted.
    MiscountsTheQueue,
    /// A snapshot is taken for the last chunk that it has replaced.
    TakesASnapshotForAChunk,
    /// A session that may write from now on is not asked for what it has sent before.
    AsksForNothingWhenASessionMayWrite,
    /// A document whose job was overtaken keeps its place among those that have one.
    KeepsThePlaceOfAnOvertakenJob,
    /// Who watches what is stored hears of changes that are on their way to the disk.
    TellsWatchersBeforeTheCommit,
    /// Who watches what is stored hears nothing of a document that was not in memory when they opened it.
    ForgetsWhoWatches,
    /// A whole document that the worker has found not to load stays.
    KeepsWhatDoesNotLoad,
    /// What happens depends on what happened in another run.
    RemembersOtherRuns,
}

#[cfg(feature = "simulator")]
mod planting {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
        static CALLS: Cell<u64> = const { Cell::new(0) };
    }

    /// Plants a bug in all that runs on this thread, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether this bug is planted.
    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// How often this was asked, by whichever run.
    pub fn calls() -> u64 {
        CALLS.set(CALLS.get() + 1);
        CALLS.get()
    }
}

#[cfg(feature = "simulator")]
pub use planting::{calls, is_planted, plant};

/// Whether this bug is planted: never.
#[cfg(not(feature = "simulator"))]
pub const fn is_planted(_bug: Bug) -> bool {
    false
}
