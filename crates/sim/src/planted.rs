//! Bugs that are planted, one at a time, to see that a checker finds each.

use engine::planted::{Bug, plant};

use crate::{
    plan::Plan,
    run::{Report, run, run_twice},
    violation::Checker,
};

/// How many seeds are tried until a planted bug counts as not found.
const SEEDS_MAX: u64 = 60;
/// How long each of them runs.
const STEPS: u64 = 12_000;

/// A bug, and where it is found.
#[derive(Debug, Clone, Copy)]
pub struct Planted {
    /// What it is called.
    pub name: &'static str,
    /// A seed at which it is found.
    pub seed: u64,
    /// Who finds it.
    pub by: &'static [Checker],
    bug: Bug,
}

const fn planted(name: &'static str, bug: Bug, seed: u64, by: &'static [Checker]) -> Planted {
    Planted {
        name,
        seed,
        by,
        bug,
    }
}

/// All of them.
pub const ALL: &[Planted] = &[
    planted(
        "acknowledges-before-the-commit",
        Bug::AcknowledgesBeforeTheCommit,
        0,
        &[Checker::Durable],
    ),
    planted(
        "skips-the-fsync",
        Bug::SkipsTheFsync,
        3,
        &[Checker::Durable],
    ),
    planted(
        "forgets-readers-at-revocation",
        Bug::ForgetsReadersAtRevocation,
        0,
        &[Checker::Private, Checker::Bounded],
    ),
    planted(
        "lets-readers-write",
        Bug::LetsReadersWrite,
        0,
        &[Checker::Private],
    ),
    planted(
        "drops-orphans-at-restart",
        Bug::DropsOrphansAtRestart,
        3,
        &[Checker::Convergent],
    ),
    planted(
        "compacts-away-concurrent-changes",
        Bug::CompactsAwayConcurrentChanges,
        1,
        &[Checker::Durable],
    ),
    planted(
        "loses-the-queue-at-eviction",
        Bug::LosesTheQueueAtEviction,
        0,
        &[Checker::Convergent],
    ),
    planted(
        "keeps-what-could-not-be-stored",
        Bug::KeepsWhatCouldNotBeStored,
        3,
        &[Checker::Durable, Checker::Convergent],
    ),
    planted(
        "skips-a-number-after-a-fault",
        Bug::SkipsANumberAfterAFault,
        0,
        &[Checker::Convergent, Checker::Quiet],
    ),
    planted(
        "believes-checksums",
        Bug::BelievesChecksums,
        4,
        &[Checker::Private, Checker::Sound],
    ),
    planted(
        "allows-a-sequence-number-twice",
        Bug::AllowsASequenceNumberTwice,
        0,
        &[Checker::Sound, Checker::Convergent],
    ),
    planted(
        "keeps-every-orphan",
        Bug::KeepsEveryOrphan,
        58,
        &[Checker::Bounded],
    ),
    planted(
        "miscounts-the-queue",
        Bug::MiscountsTheQueue,
        0,
        &[Checker::Bounded],
    ),
    planted(
        "retries-without-end",
        Bug::RetriesWithoutEnd,
        0,
        &[Checker::Quiet],
    ),
    planted(
        "replays-a-ticket",
        Bug::ReplaysATicket,
        0,
        &[Checker::Private],
    ),
    planted(
        "takes-a-snapshot-for-a-chunk",
        Bug::TakesASnapshotForAChunk,
        7,
        &[Checker::Sound, Checker::Convergent],
    ),
    planted(
        "asks-for-nothing-when-a-session-may-write",
        Bug::AsksForNothingWhenASessionMayWrite,
        3,
        &[Checker::Convergent],
    ),
    planted(
        "keeps-the-place-of-an-overtaken-job",
        Bug::KeepsThePlaceOfAnOvertakenJob,
        14,
        &[Checker::Bounded, Checker::Convergent],
    ),
    planted(
        "tells-watchers-before-the-commit",
        Bug::TellsWatchersBeforeTheCommit,
        0,
        &[Checker::Durable],
    ),
    planted(
        "forgets-who-watches",
        Bug::ForgetsWhoWatches,
        0,
        &[Checker::Convergent],
    ),
    planted(
        "keeps-what-does-not-load",
        Bug::KeepsWhatDoesNotLoad,
        18,
        &[Checker::Convergent, Checker::Quiet],
    ),
    planted(
        "remembers-other-runs",
        Bug::RemembersOtherRuns,
        1,
        &[Checker::SameAgain],
    ),
];

/// The bug of that name.
pub fn find(name: &str) -> Option<Planted> {
    ALL.iter().find(|planted| planted.name == name).copied()
}

impl Planted {
    /// Runs worlds with the bug in them until one of its checkers finds it: the seed and what was found.
    pub fn hunt(&self) -> Option<(u64, Report)> {
        plant(Some(self.bug));
        let seeds = std::iter::once(self.seed).chain(0..SEEDS_MAX);
        let found = seeds
            .map(|seed| (seed, self.run(seed)))
            .find(|(_, report)| self.is_caught(report));
        plant(None);
        found
    }

    fn run(&self, seed: u64) -> Report {
        let plan = Plan::new(seed, STEPS);
        if self.by == [Checker::SameAgain] {
            run_twice(plan)
        } else {
            run(plan, false)
        }
    }

    fn is_caught(&self, report: &Report) -> bool {
        let by = report.violation.as_ref().map(|violation| violation.checker);
        by.is_some_and(|by| self.by.contains(&by))
    }
}
