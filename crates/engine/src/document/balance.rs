//! What a simulator asks of a document at each step: does everything that waits wait for something that can come, and is
//! everything that was taken somebody's?

use super::{Document, State};
use crate::{
    ids::ConnectionId,
    subscription::{Request, Served},
};

/// What the engine is about to do for a document.
pub(crate) struct Prospects {
    /// It counts among those that have a job.
    pub(crate) has_place: bool,
    /// It waits to have one.
    pub(crate) waits_for_place: bool,
    /// It is looked at again once the disk is tried again.
    pub(crate) is_retried: bool,
    /// It is woken at some time.
    pub(crate) wakes: bool,
    /// Bytes of a tail that is to be compacted.
    pub(crate) threshold: u64,
}

impl Document {
    pub(crate) fn has_job(&self) -> bool {
        self.job.is_some()
    }

    pub(crate) fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.peers.keys().copied()
    }

    /// How much of it a snapshot has.
    pub(crate) fn snapshot_bytes(&self) -> u64 {
        self.meta.snapshot_bytes
    }

    /// Whether something is being read for a connection, of which may not be known how long it is.
    pub(crate) fn may_read_for(&self, connection: ConnectionId) -> bool {
        self.reads_for(connection) || matches!(self.state, State::Loading(_))
    }

    /// What waits in vain, in words.
    pub(crate) fn out_of_balance(&self, prospects: &Prospects) -> Option<String> {
        self.job_out_of_balance(prospects)
            .or_else(|| self.state_out_of_balance(prospects))
            .map(Into::into)
            .or_else(|| self.peers_out_of_balance(prospects))
    }

    fn job_out_of_balance(&self, prospects: &Prospects) -> Option<&'static str> {
        let job = self.job.as_ref()?;
        if job.is_wished() && !prospects.waits_for_place && !prospects.has_place {
            Some("has a job that nobody starts")
        } else if job.needs_place() && !prospects.has_place {
            Some("has a job without a place")
        } else if job.is_queued() && self.appends.is_empty() {
            Some("has a job that waits for the disk, which has nothing of it to store")
        } else {
            None
        }
    }

    fn state_out_of_balance(&self, prospects: &Prospects) -> Option<&'static str> {
        let is_new = matches!(self.state, State::New);
        let is_loading = matches!(self.state, State::Loading(_));
        let is_to_be_told = !self.untold.is_empty() || !self.announced_to().is_empty();
        let has_job = self.job.is_some() || prospects.waits_for_place;
        let is_moving = is_loading || has_job || !self.appends.is_empty() || prospects.wakes;
        let wants_job = self.meta.quarantine.is_none() && !has_job && self.appends.is_empty();
        let has_tail = matches!(self.state, State::Cold | State::Hot(_))
            && self.meta.tail_bytes > prospects.threshold;
        let rules = [
            (
                is_new && is_to_be_told && !prospects.is_retried,
                "has somebody to tell, and is not read",
            ),
            (
                !is_new && !is_loading && !self.untold.is_empty(),
                "is there, and has not told somebody",
            ),
            (
                self.owes_quarantine && !prospects.is_retried,
                "owes a quarantine for ever",
            ),
            (
                !self.queue.is_empty() && !is_moving,
                "has messages that wait for nothing",
            ),
            (
                wants_job && matches!(self.state, State::Pushed),
                "is never indexed",
            ),
            (wants_job && has_tail, "is never compacted"),
        ];
        rules
            .into_iter()
            .find(|(is_so, _)| *is_so)
            .map(|(_, what)| what)
    }

    fn peers_out_of_balance(&self, prospects: &Prospects) -> Option<String> {
        let is_known = !matches!(self.state, State::New | State::Loading(_));
        self.peers.iter().find_map(|(connection, peer)| {
            let waits = matches!(peer.request, Request::Waiting { .. });
            let what = if peer.must_resend && !prospects.is_retried {
                "is never asked to send again"
            } else if peer.served == Served::FromDisk && !self.reads_for(*connection) {
                "waits for what nobody reads"
            } else if waits && is_known && !self.exists() && !prospects.wakes {
                "waits for a document in vain"
            } else {
                return None;
            };
            Some(format!("has {connection}, which {what}"))
        })
    }
}
