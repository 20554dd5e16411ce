//! What a group is told that does not wait for room.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use engine::{Access, ConnectionId, Ticket, WorkOutcome};
use store::{Completion, Notice};
use tokio::sync::Notify;

use crate::sync::outbox::Outbox;

/// What does not wait for room, or behind what peers have sent: what the store and the worker have to say, as each
/// answers a question of ours, and who may do what. A peer that is too much for the engine is not to keep its session
/// by that.
pub(super) enum Report {
    Opened {
        connection: ConnectionId,
        access: Access,
        outbox: Outbox,
    },
    Access {
        connection: ConnectionId,
        access: Option<Access>,
    },
    Stored(Vec<Completion>),
    /// The store answers nothing more.
    StoreBroken,
    Worked {
        ticket: Ticket,
        outcome: WorkOutcome,
    },
}

/// A handle through which reports are made, also before there is a group.
///
/// A queue with a lock. In a channel without one, a report that another thread is in the midst of making hides those
/// that were made after it began: the frames of a socket would overtake the word that it is open, and be those of
/// nobody.
#[derive(Clone)]
pub(in crate::sync) struct Reports(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    made: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Report>,
    is_closed: bool,
}

impl Shared {
    /// A panic while the lock was held leaves a queue that is whole all the same.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more reports; those that were made are still there.
    fn close(&self) {
        self.queue().is_closed = true;
    }
}

impl Reports {
    /// Makes a report, which is heard before anything else that happens once this returns; or not at all, if the group
    /// takes no more of them.
    pub(super) fn make(&self, report: Report) -> bool {
        {
            let mut queue = self.0.queue();
            if queue.is_closed {
                return false;
            }
            queue.waiting.push_back(report);
        }
        self.0.made.notify_one();
        true
    }

    /// Where the store says what it has to say, after each commit, and after each look into its file, from threads of
    /// its own.
    pub(in crate::sync) fn of_store(&self) -> Box<dyn Fn(Notice) + Send + Sync> {
        let reports = self.clone();
        Box::new(move |notice| {
            reports.make(match notice {
                Notice::Completed(completions) => Report::Stored(completions),
                Notice::Broken => Report::StoreBroken,
            });
        })
    }
}

/// The reports' other end. Once it is dropped, no more are taken.
pub(in crate::sync) struct ReportReader(Arc<Shared>);

impl ReportReader {
    /// The next report, once there is one. May be dropped while it waits without losing anything.
    pub(super) async fn next(&mut self) -> Report {
        loop {
            if let Some(report) = self.next_now() {
                return report;
            }
            self.0.made.notified().await;
        }
    }

    /// The next report, if there is one already.
    pub(super) fn next_now(&mut self) -> Option<Report> {
        self.0.queue().waiting.pop_front()
    }

    /// Takes no more reports; those that were made are still there.
    pub(super) fn close(&mut self) {
        self.0.close();
    }
}

impl Drop for ReportReader {
    fn drop(&mut self) {
        self.0.close();
        // nobody hears them any more, and in them may be sockets, which keep this queue and would wait for ever
        let unheard = mem::take(&mut self.0.queue().waiting);
        drop(unheard);
    }
}

pub(in crate::sync) fn reports() -> (Reports, ReportReader) {
    let shared = Arc::new(Shared::default());
    (Reports(Arc::clone(&shared)), ReportReader(shared))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
        thread,
    };

    use futures_util::FutureExt as _;
    use tokio::task::unconstrained;

    use super::*;
    use crate::sync::outbox::outbox;

    #[test]
    fn a_report_is_there_once_it_was_made_whoever_makes_one_beside_it() {
        const ROUNDS: u64 = 100_000;
        const WAITING_MAX: usize = 64;
        let (reports, mut reader) = reports();
        let (waiting, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let others = || {
            while !is_over.load(Ordering::Relaxed) {
                if waiting.load(Ordering::Relaxed) < WAITING_MAX {
                    waiting.fetch_add(1, Ordering::Relaxed);
                    reports.make(Report::Stored(vec![]));
                }
            }
        };
        let mut is_there = |round| {
            let (connection, access) = (ConnectionId(round), None);
            assert!(reports.make(Report::Access { connection, access }));
            loop {
                match unconstrained(reader.next()).now_or_never() {
                    Some(Report::Access { .. }) => return true,
                    Some(_) => waiting.fetch_sub(1, Ordering::Relaxed),
                    None => return false,
                };
            }
        };
        let missed = thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(others);
            }
            let missed = (0..ROUNDS).find(|round| !is_there(*round));
            is_over.store(true, Ordering::Relaxed);
            missed
        });
        assert_eq!(missed, None, "the round in which it was not there");
    }

    #[test]
    fn reports_of_before_the_end_are_heard_and_later_ones_are_refused() {
        let (reports, mut reader) = reports();
        let report = || Report::Stored(vec![]);
        assert!(reports.make(report()));
        reader.close();
        assert!(!reports.make(report()));
        assert!(reader.next_now().is_some());
        assert!(reader.next_now().is_none());
    }

    #[test]
    fn a_group_that_is_gone_takes_no_reports() {
        let (reports, reader) = reports();
        drop(reader);
        assert!(!reports.make(Report::Stored(vec![])));
    }

    /// Its socket would stay open, with nobody behind it, for as long as its peer answers pings.
    #[test]
    fn a_socket_whose_group_is_gone_before_it_has_heard_of_it_is_let_go() {
        let (reports, reader) = reports();
        let (outbox, mut socket) = outbox();
        let (connection, access) = (ConnectionId(1), Access::Read);
        assert!(reports.make(Report::Opened {
            connection,
            access,
            outbox,
        }));
        // as by a panic; whoever has a socket there still has the way into the group
        drop(reader);
        assert!(matches!(socket.next().now_or_never(), Some(None)));
    }

    #[tokio::test]
    async fn who_waits_for_reports_is_woken_by_each() {
        let (reports, mut reader) = reports();
        let heard = tokio::spawn(async move {
            for _ in 0..100 {
                reader.next().await;
            }
        });
        for _ in 0..100 {
            reports.make(Report::Stored(vec![]));
            tokio::task::yield_now().await;
        }
        heard.await.unwrap();
    }
}
