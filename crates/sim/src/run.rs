//! One run of a world, and what it came to.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    plan::{CALM_EVERY, Plan},
    violation::{Checker, Step, Violation},
    world::{Counts, World},
};

/// Steps from which on a run must have done enough.
const BUSY_STEPS: u64 = 20_000;

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Report {
    /// Steps done.
    pub steps: u64,
    /// The first thing that must not be.
    pub violation: Option<Violation>,
    /// A hash of everything that happened, in its order.
    pub trace: u64,
    /// The last events, in words.
    pub last: Vec<String>,
    /// What was done.
    pub counts: Counts,
    /// Fsyncs, refused operations, lost and torn writes of the disk.
    pub disk: [u64; 4],
}

/// Runs a world to its end, or to the first violation.
pub fn run(plan: Plan, aloud: bool) -> Report {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    if !aloud {
        silence_panics();
    }
    let mut world = match World::new(plan, RUNS.fetch_add(1, Ordering::Relaxed)) {
        Ok(world) => world,
        Err(violation) => return Report::stillborn(violation),
    };
    world.diary.aloud = aloud;
    let outcome = catch_unwind(AssertUnwindSafe(|| live(&mut world)));
    let violation = match outcome {
        Ok(outcome) => outcome.err(),
        Err(panic) => {
            let words = panic.downcast_ref::<String>().cloned();
            let words = words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
            let what = format!("a panic: {}", words.unwrap_or_default());
            Some(Violation::new(Checker::Sound, what))
        }
    };
    let disk = world.disk.counts();
    let report = Report {
        steps: world.step,
        violation,
        trace: world.diary.trace(),
        last: world.diary.last.iter().cloned().collect(),
        counts: world.counts,
        disk: [disk.syncs, disk.refused, disk.lost_writes, disk.torn_writes],
    };
    // SQLite closes its files first
    let files = world.disk.clone();
    files.power_off();
    drop(world);
    files.unmount();
    report
}

/// Runs a world twice: the second time must be as the first.
pub fn run_twice(plan: Plan) -> Report {
    let first = run(plan, false);
    if first.violation.is_some() {
        return first;
    }
    let second = run(plan, false);
    if (first.trace, first.counts) == (second.trace, second.counts) {
        return first;
    }
    let what = format!("trace {:016x}, and then {:016x}", first.trace, second.trace);
    Report {
        violation: Some(Violation::new(Checker::SameAgain, what)),
        ..second
    }
}

fn live(world: &mut World) -> Step {
    while world.step < world.plan.steps {
        world.step()?;
        if world.step.is_multiple_of(CALM_EVERY) {
            world.calm()?;
        }
    }
    world.calm()?;
    busy(world)
}

/// The run meant something.
fn busy(world: &World) -> Step {
    let (plan, counts) = (&world.plan, &world.counts);
    if plan.steps < BUSY_STEPS {
        return Ok(());
    }
    let wanted = [
        ("edits", counts.edits, true),
        ("commits", counts.commits, true),
        ("snapshots", counts.snapshots, true),
        ("crashes", counts.crashes, plan.crashes),
        (
            "refusals of the disk",
            world.disk.counts().refused,
            plan.disk_trouble,
        ),
        ("decisions", counts.decisions, plan.access_changes),
        ("mischief", counts.mischief, plan.strangers > 0),
    ];
    for (name, count, is_wanted) in wanted {
        if is_wanted && count == 0 {
            let what = format!("no {name} in {} steps", plan.steps);
            return Err(Violation::new(Checker::Busy, what));
        }
    }
    Ok(())
}

/// A panic is a violation, and is said once; or it is a worker's or an app's, which may die of what strangers send.
fn silence_panics() {
    static SILENCE: Once = Once::new();
    SILENCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

impl Report {
    fn stillborn(violation: Violation) -> Self {
        Self {
            steps: 0,
            violation: Some(violation),
            trace: 0,
            last: vec![],
            counts: Counts::default(),
            disk: [0; 4],
        }
    }
}
