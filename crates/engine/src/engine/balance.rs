//! What a simulator asks of an engine at each step: is it within its limits, is everything that was taken somebody's, and
//! does what waits wait for something that can come?

use super::Engine;
use crate::{
    document::{Document, Prospects},
    ids::{ConnectionId, DocumentId},
    limits::{JOBS_MAX, SUBSCRIPTIONS_MAX},
    peer::Peer,
};

impl Engine {
    /// What is beyond the [limits](crate::limits), or counted wrong, in words; nothing if nothing is.
    pub fn out_of_bounds(&self) -> Option<String> {
        let most = self.peers.values().map(|peer| peer.documents.len()).max();
        if let Some(open) = most.filter(|open| *open > SUBSCRIPTIONS_MAX) {
            return Some(format!("a connection has {open} documents open"));
        }
        let running = self.jobs.running.len() + self.jobs.overtaken.len();
        if running > JOBS_MAX {
            return Some(format!("{running} jobs run"));
        }
        if let Some(what) = self.out_of_balance() {
            return Some(what);
        }
        let documents = self.documents.iter();
        documents
            .filter_map(|(id, document)| Some(format!("{id} {}", document.out_of_bounds()?)))
            .next()
    }

    /// What was taken and is nobody's, or waits for what cannot come.
    fn out_of_balance(&self) -> Option<String> {
        if self.retry_at_ms.is_none() && !(self.faulted.is_empty() && self.unlisted.is_empty()) {
            return Some("something is to be tried again, at no time".into());
        }
        let overtaken = self.jobs.overtaken.iter();
        if let Some(ticket) = overtaken
            .copied()
            .find(|ticket| !self.tickets.is_open(*ticket))
        {
            return Some(format!("job {} was overtaken, and is over", ticket.0));
        }
        let has_job = |id: &DocumentId| self.documents.get(id).is_some_and(|it| it.has_job());
        if let Some(id) = self.jobs.running.iter().find(|id| !has_job(id)) {
            return Some(format!("{id} has a place, and no job"));
        }
        let documents = self.documents.iter();
        documents
            .filter_map(|(id, document)| Some(format!("{id} {}", self.unbalanced(*id, document)?)))
            .next()
            .or_else(|| {
                let peers = self.peers.iter();
                peers
                    .filter_map(|(id, peer)| {
                        Some(format!("{id} {}", self.unbalanced_peer(*id, peer)?))
                    })
                    .next()
            })
    }

    fn unbalanced(&self, id: DocumentId, document: &Document) -> Option<String> {
        let knows = |connection: &ConnectionId| {
            let peer = self.peers.get(connection);
            peer.is_some_and(|peer| peer.documents.contains(&id))
        };
        if let Some(gone) = document.connections().find(|peer| !knows(peer)) {
            return Some(format!("has {gone}, which is gone"));
        }
        let compaction = &self.settings.compaction;
        document.out_of_balance(&Prospects {
            has_place: self.jobs.running.contains(&id),
            waits_for_place: self.jobs.waiting.contains_key(&id),
            is_retried: self.faulted.contains(&id),
            wakes: self.wakes.iter().any(|(_, other)| *other == id),
            threshold: compaction.threshold_bytes(document.snapshot_bytes()),
        })
    }

    fn unbalanced_peer(&self, connection: ConnectionId, peer: &Peer) -> Option<String> {
        if let Some(what) = peer.out_of_balance() {
            return Some(what.into());
        }
        let document = |id: &DocumentId| self.documents.get(id);
        let reads = |id: &DocumentId| document(id).is_some_and(|it| it.may_read_for(connection));
        let is_known = |id: &DocumentId| {
            document(id).is_some_and(|it| it.connections().any(|other| other == connection))
        };
        if let Some(id) = peer.documents_read().find(|id| !reads(id)) {
            Some(format!("counts {id} as being read for it"))
        } else {
            let unknown = peer.documents.iter().find(|id| !is_known(id));
            unknown.map(|id| format!("has {id} open, where it is not known"))
        }
    }
}
