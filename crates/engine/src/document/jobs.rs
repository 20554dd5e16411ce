//! What the worker process does for a document: the index of a pushed chunk, compaction, and the absorption of a
//! whole-document chunk that was pushed onto a document that exists.
//!
//! Each job is the same way: read all chunks, let the worker work, put the snapshot that comes back in their place
//! in one transaction. Until then the document is as it was; a job that fails, fails alone.

use std::sync::Arc;

use bytes::Bytes;

use super::{Document, Hot, State, durable::News};
use crate::{
    effect::{Job, JobKind, Refusal, Urgency, WorkOutcome},
    graph::Heads,
    ids::{ChangeHash, ConnectionId, Ticket},
    intake,
    limits::HEADS_MAX,
    outlet::{Outlet, Wish},
    planted::{Bug, is_planted},
    storage::{Answer, ChunkKind, Fault, ReadWhat, StoredChunk, WriteAction},
};

/// How long the index of a pushed chunk may wait for a quiet moment, in milliseconds, while nobody asks for it.
const INDEX_DELAY_MS: u64 = 200;

/// How long a job waits after one whose outcome could not be stored, or that found no worker, in milliseconds.
const JOB_AGAIN_MS: u64 = 5_000;

/// A tail this many times over the threshold is compacted without waiting for a quiet moment.
const OVERDUE: u64 = 8;
/// No tail is overdue below this many bytes: whoever is behind when a snapshot takes the place of a tail gets the whole
/// snapshot, which is dear while much is written. Beyond it, a new device gets a message that some clients take for too
/// long: `ws` takes 100 MiB.
const OVERDUE_BYTES_MIN: u64 = 64 << 20;

pub(super) struct RunningJob {
    purpose: Purpose,
    stage: Stage,
    /// The chunks that the result will replace end here; and what they are.
    covers_through: u64,
    covered_tail_bytes: u64,
    heads: Vec<ChangeHash>,
    changes: u64,
    chunks: Bytes,
}

enum Purpose {
    Index,
    Compact,
    /// A document chunk, or a bundle, that `pusher` sent.
    Absorb {
        pusher: ConnectionId,
        pushed: Bytes,
    },
}

enum Stage {
    /// Waits until the engine starts it.
    Wished,
    /// Waits until what is on its way to the disk has arrived.
    Queued,
    Reading(Ticket),
    Working(Ticket),
    /// Done, but what is on its way to the disk must arrive first.
    Draining(Box<Snapshot>),
    Replacing(Ticket, u64),
    Dropping(Ticket),
    Quarantining(Ticket, String),
}

/// What the worker made.
struct Snapshot {
    bytes: Bytes,
    heads: Vec<ChangeHash>,
    changes: u64,
    index: Bytes,
}

impl RunningJob {
    /// Boxed, as hardly any document has one.
    fn new(purpose: Purpose) -> Box<Self> {
        Box::new(Self {
            purpose,
            stage: Stage::Wished,
            covers_through: 0,
            covered_tail_bytes: 0,
            heads: vec![],
            changes: 0,
            chunks: Bytes::new(),
        })
    }

    /// Whether messages must wait for it.
    pub(super) fn is_exclusive(&self) -> bool {
        matches!(self.purpose, Purpose::Absorb { .. })
            || matches!(
                self.stage,
                Stage::Draining(_) | Stage::Replacing(..) | Stage::Quarantining(..)
            )
    }

    #[cfg(feature = "simulator")]
    pub(super) fn is_wished(&self) -> bool {
        matches!(self.stage, Stage::Wished)
    }

    #[cfg(feature = "simulator")]
    pub(super) fn is_queued(&self) -> bool {
        matches!(self.stage, Stage::Queued)
    }

    /// Whether its document must count among those that have a job.
    #[cfg(feature = "simulator")]
    pub(super) fn needs_place(&self) -> bool {
        !matches!(self.stage, Stage::Wished | Stage::Quarantining(..))
    }

    fn ticket(&self) -> Option<Ticket> {
        match &self.stage {
            Stage::Reading(ticket)
            | Stage::Working(ticket)
            | Stage::Replacing(ticket, _)
            | Stage::Dropping(ticket)
            | Stage::Quarantining(ticket, _) => Some(*ticket),
            Stage::Wished | Stage::Queued | Stage::Draining(_) => None,
        }
    }
}

impl Document {
    /// Says so, if there is something for the worker to do.
    pub(super) fn consider_job(&self, outlet: &mut Outlet<'_>) {
        if self.job.is_some() || self.meta.quarantine.is_some() {
            return;
        }
        let threshold = outlet
            .settings
            .compaction
            .threshold_bytes(self.meta.snapshot_bytes);
        if matches!(self.state, State::Pushed) {
            let due_in_ms = if self.queue.is_empty() {
                INDEX_DELAY_MS
            } else {
                0
            };
            self.wish_for_job(due_in_ms, outlet);
        } else if self.meta.tail_bytes > threshold {
            let overdue =
                self.meta.tail_bytes > threshold.saturating_mul(OVERDUE).max(OVERDUE_BYTES_MIN);
            let due_in_ms = if overdue {
                0
            } else {
                outlet.settings.compaction.quiet_ms
            };
            self.wish_for_job(due_in_ms, outlet);
        }
    }

    /// Has a job run after this time, or later if the last one failed for want of storage or of a worker.
    pub(super) fn wish_for_job(&self, due_in_ms: u64, outlet: &mut Outlet<'_>) {
        let barred_ms = self.no_job_before_ms.saturating_sub(outlet.now_ms);
        outlet.wishes.push(Wish::Job {
            due_in_ms: due_in_ms.max(barred_ms),
        });
    }

    /// Starts what there is to do.
    pub(crate) fn start_job(&mut self, outlet: &mut Outlet<'_>) {
        if self.job.is_none() {
            let threshold = outlet
                .settings
                .compaction
                .threshold_bytes(self.meta.snapshot_bytes);
            let purpose = match self.state {
                _ if self.meta.quarantine.is_some() => None,
                State::Pushed => Some(Purpose::Index),
                State::Cold | State::Hot(_) if self.meta.tail_bytes > threshold => {
                    Some(Purpose::Compact)
                }
                State::New | State::Loading(_) | State::Cold | State::Hot(_) => None,
            };
            let Some(purpose) = purpose else {
                outlet.wishes.push(Wish::JobOver);
                return;
            };
            self.job = Some(RunningJob::new(purpose));
        }
        if let Some(job) = &mut self.job
            && matches!(job.stage, Stage::Wished)
        {
            job.stage = Stage::Queued;
        }
        self.advance_job(outlet);
    }

    /// A whole-document chunk, or a bundle, came for a document that exists: the worker will put both together.
    pub(super) fn absorb(&mut self, pusher: ConnectionId, pushed: Bytes, outlet: &mut Outlet<'_>) {
        let absorb = RunningJob::new(Purpose::Absorb { pusher, pushed });
        if let Some(overtaken) = self.job.replace(absorb)
            && !is_planted(Bug::KeepsThePlaceOfAnOvertakenJob)
        {
            // a compaction under way; what comes of it is ignored
            outlet.wishes.push(match overtaken.stage {
                Stage::Working(ticket) => Wish::JobOvertaken(ticket),
                Stage::Wished
                | Stage::Queued
                | Stage::Reading(_)
                | Stage::Draining(_)
                | Stage::Replacing(..)
                | Stage::Dropping(_)
                | Stage::Quarantining(..) => Wish::JobOver,
            });
        }
        outlet.wishes.push(Wish::Job { due_in_ms: 0 });
    }

    /// Goes on with a job that waited for the disk.
    pub(super) fn advance_job(&mut self, outlet: &mut Outlet<'_>) {
        if !self.appends.is_empty() {
            return;
        }
        let Some(job) = &mut self.job else { return };
        match std::mem::replace(&mut job.stage, Stage::Queued) {
            Stage::Queued => {
                let what = ReadWhat::Chunks {
                    from: 0,
                    until: u64::MAX,
                };
                job.stage = Stage::Reading(outlet.read(self.id, what));
            }
            Stage::Draining(snapshot) => self.replace(*snapshot, outlet),
            stage @ (Stage::Wished
            | Stage::Reading(_)
            | Stage::Working(_)
            | Stage::Replacing(..)
            | Stage::Dropping(_)
            | Stage::Quarantining(..)) => job.stage = stage,
        }
    }

    /// Takes an answer of the store to the running job.
    pub(super) fn job_answered(
        &mut self,
        ticket: Ticket,
        answer: Result<Answer, Fault>,
        outlet: &mut Outlet<'_>,
    ) -> News {
        let Some(job) = self.job.as_mut().filter(|job| job.ticket() == Some(ticket)) else {
            return News::None;
        };
        match (std::mem::replace(&mut job.stage, Stage::Queued), answer) {
            (Stage::Reading(_), Ok(Answer::Chunks { meta, chunks })) => {
                let meta = meta.unwrap_or_default();
                job.covers_through = chunks.last().map_or(meta.next_chunk, |chunk| chunk.number);
                job.covered_tail_bytes = meta.tail_bytes;
                job.heads = meta.heads;
                job.changes = meta.changes;
                self.put_to_work(&chunks, outlet);
                News::None
            }
            (Stage::Replacing(_, bytes), Ok(_)) => self.replaced(bytes, outlet),
            (Stage::Dropping(_), Ok(_)) => {
                self.dropped(outlet);
                News::None
            }
            (Stage::Quarantining(_, reason), outcome) => {
                // the worker has said what it has to say: without a disk too the document is left alone
                self.meta.quarantine = Some(reason);
                if outcome.is_err() {
                    self.owe_quarantine(outlet);
                }
                self.job_over(outlet);
                News::None
            }
            (_, _) => {
                self.job_failed(outlet);
                News::None
            }
        }
    }

    fn put_to_work(&mut self, chunks: &[StoredChunk], outlet: &mut Outlet<'_>) {
        let urgent = !self.queue.is_empty();
        let Some(job) = &mut self.job else { return };
        let mut all: Vec<u8> = Vec::new();
        chunks
            .iter()
            .for_each(|chunk| all.extend_from_slice(&chunk.bytes));
        let kind = match &job.purpose {
            Purpose::Index => JobKind::Index,
            Purpose::Compact => JobKind::Compact,
            Purpose::Absorb { pushed, .. } => {
                all.extend_from_slice(pushed);
                JobKind::Compact
            }
        };
        let absorbing = matches!(job.purpose, Purpose::Absorb { .. });
        let urgency = if urgent || absorbing {
            Urgency::Waiting
        } else {
            Urgency::Background
        };
        job.chunks = all.into();
        let chunks = job.chunks.clone();
        job.stage = Stage::Working(outlet.work(Job {
            document: self.id,
            kind,
            chunks,
            urgency,
        }));
    }

    /// Takes what the worker made of the running job.
    pub(crate) fn worked(&mut self, ticket: Ticket, outcome: WorkOutcome, outlet: &mut Outlet<'_>) {
        let Some(job) = self.job.as_mut().filter(|job| job.ticket() == Some(ticket)) else {
            return;
        };
        match (outcome, &job.purpose) {
            (
                WorkOutcome::Done {
                    snapshot,
                    heads,
                    changes,
                    index,
                },
                purpose,
            ) => {
                let same = heads == job.heads && (changes == job.changes || job.changes == 0);
                let bytes = if matches!(purpose, Purpose::Index) {
                    job.chunks.clone()
                } else {
                    snapshot
                };
                let made = Snapshot {
                    bytes,
                    heads,
                    changes,
                    index,
                };
                match purpose {
                    Purpose::Index if !same => self.drop_pushed(outlet),
                    // there is no change in it, nor in what is stored: a snapshot of nothing would count as a document
                    Purpose::Absorb { .. } if made.heads.is_empty() && self.heads.is_empty() => {
                        self.job_over(outlet);
                    }
                    Purpose::Compact if !same => {
                        self.quarantine("compaction would change it".into(), outlet);
                    }
                    Purpose::Index | Purpose::Compact | Purpose::Absorb { .. } => {
                        self.is_verified = true;
                        job.stage = Stage::Draining(Box::new(made));
                        self.advance_job(outlet);
                    }
                }
            }
            (WorkOutcome::Unavailable, _) => self.job_failed(outlet),
            (WorkOutcome::Invalid { .. }, Purpose::Index) => self.drop_pushed(outlet),
            (WorkOutcome::Invalid { reason } | WorkOutcome::Indigestible { reason }, purpose) => {
                match purpose {
                    Purpose::Index | Purpose::Compact => self.quarantine(reason, outlet),
                    Purpose::Absorb { pusher, .. } => {
                        let refusal = Wish::Refuse(*pusher, Refusal::UnloadableDocument);
                        outlet.wishes.push(refusal);
                        self.job_over(outlet);
                    }
                }
            }
        }
    }

    fn quarantine(&mut self, reason: String, outlet: &mut Outlet<'_>) {
        let Some(job) = &mut self.job else { return };
        let action = WriteAction::Quarantine {
            reason: reason.clone(),
        };
        job.stage = Stage::Quarantining(outlet.write(self.id, action), reason);
    }

    fn owe_quarantine(&mut self, outlet: &mut Outlet<'_>) {
        self.owes_quarantine = true;
        outlet.wishes.push(Wish::Retry);
    }

    /// Stores a quarantine that could not be stored when it was due.
    pub(super) fn store_owed_quarantine(&mut self, outlet: &mut Outlet<'_>) {
        let reason = self.meta.quarantine.clone();
        let Some(reason) = reason.filter(|_| std::mem::take(&mut self.owes_quarantine)) else {
            return;
        };
        if self.job.is_some() {
            // it may not be one for the worker any more
            return self.owe_quarantine(outlet);
        }
        self.job = Some(RunningJob::new(Purpose::Compact));
        self.quarantine(reason, outlet);
    }

    fn drop_pushed(&mut self, outlet: &mut Outlet<'_>) {
        if is_planted(Bug::KeepsWhatDoesNotLoad) {
            return self.job_over(outlet);
        }
        let Some(job) = &mut self.job else { return };
        let action = WriteAction::DropPushed {
            number: job.covers_through,
        };
        job.stage = Stage::Dropping(outlet.write(self.id, action));
    }

    /// Puts the snapshot in the place of what it covers. Nothing is on its way to the disk now, and nothing sets
    /// out until it is there.
    fn replace(&mut self, snapshot: Snapshot, outlet: &mut Outlet<'_>) {
        let Some(job) = &mut self.job else { return };
        let Snapshot {
            bytes,
            heads,
            changes,
            index,
        } = snapshot;
        let mut after = (self.meta.heads.clone(), self.meta.changes.max(changes));
        if let Purpose::Absorb { pusher, .. } = &job.purpose {
            let State::Hot(hot) = &mut self.state else {
                return;
            };
            let first = hot.graph.len();
            let heads_max = HEADS_MAX.max(hot.graph.count_heads());
            let merged = hot.graph.merge_index(&index).is_ok();
            if merged && hot.graph.count_heads() > heads_max {
                hot.graph.truncate(first);
                let refusal = Wish::Refuse(*pusher, Refusal::TooManyHeads);
                outlet.wishes.push(refusal);
                return self.job_over(outlet);
            }
            if !merged || u64::from(hot.graph.len()) != changes {
                hot.graph.truncate(first);
                outlet
                    .wishes
                    .push(Wish::Refuse(*pusher, Refusal::UnloadableDocument));
                return self.job_over(outlet);
            }
            if let Some(peer) = self.peers.get_mut(pusher) {
                peer.from_peer.push(first..hot.graph.len());
            }
            after = (heads, changes);
        }
        let (heads, changes) = after;
        let length = bytes.len() as u64;
        if is_planted(Bug::CompactsAwayConcurrentChanges) {
            job.covers_through = self.meta.next_chunk.saturating_sub(1);
        }
        let number = job.covers_through;
        let action = WriteAction::Replace {
            snapshot: StoredChunk {
                number,
                kind: ChunkKind::Snapshot,
                bytes,
            },
            index,
            covers_through: number,
            heads: heads.clone(),
            changes,
        };
        job.heads = heads;
        job.changes = changes;
        job.stage = Stage::Replacing(outlet.write(self.id, action), length);
    }

    /// The snapshot is on disk.
    fn replaced(&mut self, snapshot_bytes: u64, outlet: &mut Outlet<'_>) -> News {
        let Some(job) = self.job.take() else {
            return News::None;
        };
        let created = self.heads.is_empty();
        self.meta.snapshot_bytes = snapshot_bytes;
        self.meta.tail_bytes -= job.covered_tail_bytes.min(self.meta.tail_bytes);
        self.meta.changes = job.changes;
        self.meta.has_pushed = false;
        self.meta.next_chunk = self.meta.next_chunk.max(job.covers_through + 1);
        self.count_on();
        let mut news = News::None;
        match (&job.purpose, &mut self.state) {
            (Purpose::Index, state) => *state = State::Cold,
            (Purpose::Compact, State::Hot(hot)) => hot.compacted_through(job.covers_through),
            (Purpose::Compact, _) => {}
            (Purpose::Absorb { pusher, .. }, State::Hot(hot)) => {
                hot.graph.set_durable(hot.graph.len());
                hot.compacted_through(u64::MAX);
                self.meta.heads = job.heads;
                self.heads = Arc::clone(hot.graph.durable_heads());
                news = News::Durable;
                let pusher = *pusher;
                self.adopt_orphans(Some(pusher), outlet);
                if created {
                    outlet.wishes.push(Wish::Created);
                }
            }
            (Purpose::Absorb { .. }, _) => {}
        }
        if matches!(self.state, State::Loading(_)) {
            // what is on its way may have been read before the snapshot was stored, and be as if it were not
            self.load(ReadWhat::Graph, outlet);
        }
        self.job_over(outlet);
        news
    }

    /// Takes in the orphans whose dependencies are there: an absorbed document brought them, or they were read with
    /// the orphans.
    pub(super) fn adopt_orphans(&mut self, writer: Option<ConnectionId>, outlet: &mut Outlet<'_>) {
        let State::Hot(hot) = &mut self.state else {
            return;
        };
        if hot.orphans.is_empty() {
            return;
        }
        let waiting = hot.orphans.take_all();
        // a queue that was within its limits is so again; the bytes are joined anew, as none came with this
        if let Ok(taken) = intake::readmit(&mut hot.graph, &mut hot.orphans, waiting)
            && !taken.is_empty()
        {
            self.append(writer, taken, outlet);
        }
    }

    /// What was pushed was not what it said. It is gone; so are those who sent it, or built on it.
    fn dropped(&mut self, outlet: &mut Outlet<'_>) {
        self.is_verified = false;
        self.meta.has_pushed = false;
        self.meta.heads = vec![];
        self.heads = Heads::default();
        self.next_chunk = 0;
        self.meta.next_chunk = 0;
        self.state = State::Hot(Box::default());
        for connection in self.peers.keys() {
            outlet
                .wishes
                .push(Wish::Refuse(*connection, Refusal::UnloadableDocument));
        }
        // nor is anything taken that they have sent meanwhile
        self.queue.forget_changes();
        self.job_over(outlet);
    }

    /// Leaves the document as it was before the job, which is tried again later.
    fn job_failed(&mut self, outlet: &mut Outlet<'_>) {
        if let Some(RunningJob {
            purpose: Purpose::Absorb { pusher, .. },
            ..
        }) = self.job.as_deref()
        {
            if let State::Hot(hot) = &mut self.state {
                let durable = hot.graph.durable();
                hot.graph.truncate(durable);
                self.peers
                    .values_mut()
                    .for_each(|peer| peer.truncate(durable));
            }
            if let Some(peer) = self.peers.get_mut(pusher) {
                peer.must_resend = true;
            }
        }
        self.no_job_before_ms = outlet.now_ms + JOB_AGAIN_MS;
        outlet.wishes.push(Wish::Retry);
        self.job_over(outlet);
    }

    fn job_over(&mut self, outlet: &mut Outlet<'_>) {
        self.job = None;
        outlet.wishes.push(Wish::JobOver);
        self.work_off(outlet);
        self.settle_requests(outlet);
        // what was written meanwhile asked for no job, as there was one
        self.consider_job(outlet);
    }
}

impl Hot {
    /// A snapshot has taken the place of the chunks numbered up to and including `number`.
    fn compacted_through(&mut self, number: u64) {
        let end = self
            .tail
            .first_node_after(number)
            .unwrap_or_else(|| self.graph.durable());
        self.graph.set_compacted(0..end);
        self.tail.drop_through(number);
    }
}
