//! One group: the task that owns its engine, and carries out what that says.

mod reports;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use engine::{
    Access, ConnectionId, Effect, Engine, Input, Job, JobKind, OutFrame, Refusal, Ticket, Urgency,
    WorkOutcome,
    storage::{Answer, Fault, Read, Write},
};
use store::{Completion, GroupStore};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::{AbortHandle, yield_now},
    time::{Instant, sleep_until},
};
use tracing::{debug, info, warn};

use self::reports::Report;
pub(super) use self::reports::{ReportReader, Reports, reports};
use super::{
    outbox::{Level, Outbox},
    socket,
};
use crate::{
    group::Group,
    worker::{self, Worker},
};

/// How many inputs of sockets wait for the engine at most; a socket whose frame finds no room waits with it.
const MAILBOX_INPUTS: usize = 1_024;
/// How many kilobytes of long frames wait for the engine, or for the disk, at most.
const MAILBOX_KIB: usize = 128 << 10;
/// Frames up to this length are counted by number alone: SQLite stores them about as fast as they can come.
const SHORT_FRAME_BYTES: usize = 4 << 10;
/// How many inputs are handled before what they ask for is carried out.
const TURN_INPUTS: usize = 512;
/// How long they may take before others have their turn, the sockets of all groups and the other groups: one input takes
/// microseconds, if its sender does not want to hurt.
const TURN_TIME_MAX: Duration = Duration::from_millis(5);
/// How many bytes of long frames it may take in: what they have us send is counted only once it is carried out.
const TURN_BYTES_MAX: usize = 8 << 20;

/// What is said to a socket for which more waits than can be kept. Source: RFC 6455, section 7.4.1.
const OVERFLOWING: (u16, &str) = (1008, "more is asked for than is read");

/// What reaches a group from its sockets.
enum Letter {
    Input(Input),
    /// A long frame, which holds its part of the memory for long frames until it is handled, and what is to be stored of
    /// it is.
    Frame {
        connection: ConnectionId,
        frame: Bytes,
        room: OwnedSemaphorePermit,
    },
    Shutdown {
        done: oneshot::Sender<()>,
    },
}

impl Letter {
    fn long_bytes(&self) -> usize {
        match self {
            Self::Frame { frame, .. } => frame.len(),
            Self::Input(_) | Self::Shutdown { .. } => 0,
        }
    }
}

/// The way into a group.
#[derive(Clone)]
pub(super) struct Mailbox {
    letters: mpsc::Sender<Letter>,
    room: Arc<Semaphore>,
    reports: Reports,
}

impl Mailbox {
    /// Whether the group takes the socket: one that is shut down does not.
    pub(super) fn open(&self, connection: ConnectionId, access: Access, outbox: Outbox) -> bool {
        let report = Report::Opened {
            connection,
            access,
            outbox,
        };
        self.reports.make(report)
    }

    /// Says what the session of a socket may do now, before anything that its peer has sent and that waits.
    pub(super) fn set_access(&self, connection: ConnectionId, access: Option<Access>) {
        self.reports.make(Report::Access { connection, access });
    }

    /// Hands a frame to the engine, once there is room for it.
    pub(super) async fn frame(&self, connection: ConnectionId, frame: Bytes) {
        if frame.len() <= SHORT_FRAME_BYTES {
            let input = move || Letter::Input(Input::Frame { connection, frame });
            return self.post(input).await;
        }
        let kib = u32::try_from(frame.len() >> 10).unwrap_or(u32::MAX);
        if let Ok(room) = Arc::clone(&self.room).acquire_many_owned(kib).await {
            let letter = move || Letter::Frame {
                connection,
                frame,
                room,
            };
            self.post(letter).await;
        }
    }

    /// Says that a socket has caught up.
    pub(super) async fn drained(&self, connection: ConnectionId) {
        self.post(move || Letter::Input(Input::Drained { connection }))
            .await;
    }

    /// Says that a socket has ended.
    pub(super) async fn closed(&self, connection: ConnectionId) {
        self.post(move || Letter::Input(Input::Closed { connection }))
            .await;
    }

    /// Has the group close its sockets and its store.
    pub(super) async fn shut_down(&self) {
        let (done, is_done) = oneshot::channel();
        self.post(move || Letter::Shutdown { done }).await;
        is_done.await.ok();
    }

    /// A group that is shut down takes no letters, and nobody waits for an answer. The letter is written when there is a
    /// place for it: the task of each socket would have to have room for one that waits.
    async fn post(&self, letter: impl FnOnce() -> Letter) {
        if let Ok(place) = self.letters.reserve().await {
            place.send(letter());
        }
    }
}

/// A mailbox that nobody reads, for tests of what writes to it.
#[cfg(test)]
pub(super) fn unattended() -> (Mailbox, impl Sized) {
    let (sender, letters) = mpsc::channel(MAILBOX_INPUTS);
    let (reports, report_reader) = reports();
    let mailbox = Mailbox {
        letters: sender,
        room: Arc::new(Semaphore::new(MAILBOX_KIB)),
        reports,
    };
    (mailbox, (letters, report_reader))
}

struct Driver {
    name: Group,
    engine: Engine,
    store: GroupStore,
    worker: Worker,
    reports: Reports,
    outboxes: BTreeMap<ConnectionId, Outbox>,
    /// Those of sockets that were closed, and whose peers are still at what waited for them.
    leaving: BTreeMap<ConnectionId, Outbox>,
    effects: Vec<Effect>,
    writes: Vec<(Ticket, Write)>,
    reads: Vec<(Ticket, Read)>,
    /// What was read for those who wait. Each answer may let go much that has waited for it, so others have their turn in
    /// between.
    read: VecDeque<Completion>,
    /// The memory for long frames that is taken until something is stored.
    rooms: BTreeMap<Ticket, OwnedSemaphorePermit>,
    store_is_broken: bool,
    clock: Clock,
}

/// Starts the task of a group. It ends once the group is shut down, and has let go of the file then.
pub(super) fn start(
    thread: &Handle,
    name: Group,
    engine: Engine,
    store: GroupStore,
    worker: Worker,
    (reports, report_reader): (Reports, ReportReader),
) -> (Mailbox, AbortHandle) {
    let (sender, letters) = mpsc::channel(MAILBOX_INPUTS);
    let mailbox = Mailbox {
        letters: sender,
        room: Arc::new(Semaphore::new(MAILBOX_KIB)),
        reports: reports.clone(),
    };
    let driver = Driver {
        name,
        engine,
        store,
        worker,
        reports,
        outboxes: BTreeMap::new(),
        leaving: BTreeMap::new(),
        effects: vec![],
        writes: vec![],
        reads: vec![],
        read: VecDeque::new(),
        rooms: BTreeMap::new(),
        store_is_broken: false,
        clock: Clock::default(),
    };
    let task = thread.spawn(driver.run(letters, report_reader));
    (mailbox, task.abort_handle())
}

impl Driver {
    async fn run(mut self, mut letters: mpsc::Receiver<Letter>, mut reports: ReportReader) {
        let mut turn = Vec::with_capacity(TURN_INPUTS);
        let mut spent = Duration::ZERO;
        loop {
            let tick = self
                .engine
                .next_tick()
                .map(|at_ms| self.clock.instant(at_ms));
            let started;
            tokio::select! {
                biased;
                report = reports.next() => {
                    started = Instant::now();
                    self.report(report);
                }
                () = std::future::ready(()), if !self.read.is_empty() => {
                    started = Instant::now();
                    let answer = self.read.pop_front().into_iter().collect();
                    self.handle(Input::Answered(answers(answer)));
                }
                count = letters.recv_many(&mut turn, TURN_INPUTS) => {
                    if count == 0 {
                        return self.store.close();
                    }
                    let (mut since, mut bytes) = (Instant::now(), 0);
                    for letter in turn.drain(..) {
                        bytes += letter.long_bytes();
                        if let Some(done) = self.letter(letter) {
                            letters.close();
                            self.shut_down(reports, socket::GOING_AWAY).await;
                            done.send(()).ok();
                            return;
                        }
                        if since.elapsed() > TURN_TIME_MAX || bytes > TURN_BYTES_MAX {
                            self.carry_out();
                            yield_now().await;
                            (since, bytes) = (Instant::now(), 0);
                            self.hear(&mut reports, TURN_TIME_MAX);
                        }
                    }
                    started = since;
                }
                () = sleep_until(tick.unwrap_or_else(Instant::now)), if tick.is_some() => {
                    started = Instant::now();
                }
            }
            // also where letters come without end
            if self
                .engine
                .next_tick()
                .is_some_and(|at_ms| at_ms <= self.clock.now_ms())
            {
                self.handle(Input::Tick);
            }
            self.carry_out();
            if self.store_is_broken {
                // as this is the end of the task, the group is opened anew
                drop(letters);
                return self.shut_down(reports, socket::UNAVAILABLE).await;
            }
            spent += started.elapsed();
            if spent > TURN_TIME_MAX {
                spent = Duration::ZERO;
                yield_now().await;
            }
        }
    }

    fn handle(&mut self, input: Input) {
        self.engine
            .handle(self.clock.now_ms(), input, &mut self.effects);
    }

    /// Takes the reports that are there, for as long.
    fn hear(&mut self, reports: &mut ReportReader, time_max: Duration) {
        let started = Instant::now();
        while started.elapsed() <= time_max
            && let Some(report) = reports.next_now()
        {
            self.report(report);
            self.carry_out();
        }
    }

    fn report(&mut self, report: Report) {
        let input = match report {
            Report::Opened {
                connection,
                access,
                outbox,
            } => {
                self.outboxes.insert(connection, outbox);
                Input::Opened { connection, access }
            }
            Report::Access { connection, access } => {
                if access.is_none()
                    && let Some(outbox) = self.leaving.remove(&connection)
                {
                    let ended = Refusal::SessionEnded;
                    outbox.cut(ended.close_code(), ended.to_string());
                }
                Input::AccessChanged { connection, access }
            }
            Report::Stored(completions) => {
                if !self.rooms.is_empty() {
                    for completion in &completions {
                        self.rooms.remove(&completion.ticket);
                    }
                }
                // what was written together is told together
                let (read, written): (Vec<_>, Vec<_>) = completions.into_iter().partition(is_read);
                self.read.extend(read);
                if written.is_empty() {
                    return;
                }
                Input::Answered(answers(written))
            }
            Report::StoreBroken => {
                self.store_is_broken = true;
                return;
            }
            Report::Worked { ticket, outcome } => Input::Worked { ticket, outcome },
        };
        self.handle(input);
    }

    /// Handles a letter; a shutdown is handed back.
    fn letter(&mut self, letter: Letter) -> Option<oneshot::Sender<()>> {
        match letter {
            Letter::Input(input) => {
                if let Input::Closed { connection } = input {
                    self.outboxes.remove(&connection);
                    self.leaving.remove(&connection);
                }
                if let Input::Drained { connection } = input
                    && self.is_congested(connection)
                {
                    // it has filled up again since this was said, and it will be said again
                    return None;
                }
                self.handle(input);
            }
            Letter::Frame {
                connection,
                frame,
                room,
            } => {
                let before = self.effects.len();
                self.handle(Input::Frame { connection, frame });
                let written = |effect: &Effect| match effect {
                    Effect::Write { ticket, .. } => Some(*ticket),
                    Effect::Send { .. }
                    | Effect::Close { .. }
                    | Effect::Read { .. }
                    | Effect::Work { .. } => None,
                };
                let new = self.effects.get(before..).unwrap_or_default();
                if let Some(ticket) = new.iter().rev().find_map(written) {
                    self.rooms.insert(ticket, room);
                }
            }
            Letter::Shutdown { done } => return Some(done),
        }
        None
    }

    /// Does what the engine said, until it has nothing more to say.
    fn carry_out(&mut self) {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                self.carry_out_one(effect);
            }
        }
        if !self.writes.is_empty() {
            self.store.submit_writes(std::mem::take(&mut self.writes));
        }
        if !self.reads.is_empty() {
            self.store.submit_reads(std::mem::take(&mut self.reads));
        }
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Send { connection, frame } => self.send(connection, frame),
            Effect::Close {
                connection,
                refusal,
            } => self.close(connection, refusal),
            Effect::Read { ticket, read } => self.reads.push((ticket, read)),
            Effect::Write { ticket, write } => self.writes.push((ticket, write)),
            Effect::Work { ticket, job } => self.work(ticket, job),
        }
    }

    fn send(&mut self, connection: ConnectionId, frame: OutFrame) {
        match self
            .outboxes
            .get(&connection)
            .map(|outbox| outbox.send(frame))
        {
            Some(Level::Congested) => self.handle(Input::Congested { connection }),
            Some(Level::Overflowing) => {
                info!(
                    conn.id = connection.0,
                    "a peer asks for more than it reads; closed"
                );
                if let Some(outbox) = self.outboxes.remove(&connection) {
                    outbox.give_up(OVERFLOWING.0, OVERFLOWING.1.into());
                }
                self.handle(Input::Closed { connection });
            }
            Some(Level::Fine) | None => {}
        }
    }

    fn is_congested(&self, connection: ConnectionId) -> bool {
        let outbox = self.outboxes.get(&connection);
        outbox.is_some_and(Outbox::is_congested)
    }

    fn close(&mut self, connection: ConnectionId, refusal: Refusal) {
        info!(group = %self.name, conn.id = connection.0, reason = %refusal, "closed a connection");
        let Some(outbox) = self.outboxes.remove(&connection) else {
            return;
        };
        let (code, reason) = (refusal.close_code(), refusal.to_string());
        if refusal == Refusal::SessionEnded {
            outbox.cut(code, reason);
        } else {
            outbox.close(code, reason);
            self.leaving.insert(connection, outbox);
        }
    }

    fn work(&self, ticket: Ticket, job: Job) {
        let (worker, reports, group) =
            (self.worker.clone(), self.reports.clone(), self.name.clone());
        tokio::spawn(async move {
            let document = job.document;
            let outcome = run_job(&worker, job).await;
            match &outcome {
                WorkOutcome::Done { changes, .. } => {
                    debug!(%group, doc.id = %document, changes, "the worker is done with a document");
                }
                WorkOutcome::Invalid { reason } | WorkOutcome::Indigestible { reason } => {
                    warn!(%group, doc.id = %document, reason, "the worker could not digest a document");
                }
                // said where it was found out
                WorkOutcome::Unavailable => {}
            }
            reports.make(Report::Worked { ticket, outcome });
        });
    }

    /// Closes all sockets, also those that came last, lets what is on its way to the disk arrive, and closes the store.
    async fn shut_down(mut self, mut reports: ReportReader, (code, reason): (u16, &str)) {
        self.carry_out();
        // whoever comes from now on is turned away
        reports.close();
        // what is acknowledged now need not be sent again after the restart
        self.hear(&mut reports, Duration::MAX);
        for outbox in std::mem::take(&mut self.outboxes).into_values() {
            outbox.close(code, reason.into());
        }
        let store = self.store;
        tokio::task::spawn_blocking(move || store.close())
            .await
            .ok();
    }
}

/// Whether somebody has waited for it, and not for a commit.
fn is_read(completion: &Completion) -> bool {
    match &completion.outcome {
        Ok(Answer::Stored) | Err(_) => false,
        Ok(_) => true,
    }
}

fn answers(completions: Vec<Completion>) -> Vec<(Ticket, Result<Answer, Fault>)> {
    completions
        .into_iter()
        .map(|Completion { ticket, outcome }| (ticket, outcome))
        .collect()
}

async fn run_job(worker: &Worker, job: Job) -> WorkOutcome {
    let priority = match job.urgency {
        Urgency::Waiting => worker::Priority::Waiting,
        Urgency::Background => worker::Priority::Background,
    };
    let work = match job.kind {
        JobKind::Index => worker::Job::Index { chunks: job.chunks },
        JobKind::Compact => worker::Job::Compact { chunks: job.chunks },
    };
    worker.run(work, priority).await
}

/// Unix time that does not go back, and its relation to the timer's.
struct Clock {
    started: Instant,
    started_ms: u64,
}

impl Default for Clock {
    fn default() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let started_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(0);
        Self {
            started: Instant::now(),
            started_ms,
        }
    }
}

impl Clock {
    fn now_ms(&self) -> u64 {
        self.started_ms + u64::try_from(self.started.elapsed().as_millis()).unwrap_or(0)
    }

    fn instant(&self, at_ms: u64) -> Instant {
        self.started + Duration::from_millis(at_ms.saturating_sub(self.started_ms))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]
mod tests;
