//! The messages that wait for a document, in the order in which they came.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::{
    effect::Refusal,
    excerpt::Excerpt,
    ids::ConnectionId,
    limits::{QUEUED_BYTES_MAX, QUEUED_IN_ALL_BYTES_MAX, QUEUED_MESSAGE_BYTES},
    message::SyncMessage,
    planted::{Bug, is_planted},
    wire::SyncKind,
};

/// A message that waits for the document.
pub(super) struct Queued {
    pub(super) connection: ConnectionId,
    pub(super) kind: SyncKind,
    pub(super) data: Bytes,
}

impl Queued {
    fn cost_bytes(&self) -> usize {
        QUEUED_MESSAGE_BYTES + self.data.len()
    }
}

#[derive(Default)]
pub(super) struct Queue {
    messages: VecDeque<Queued>,
    /// How many of them are whose.
    counts: BTreeMap<ConnectionId, usize>,
    bytes: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Whether a message of this connection waits.
    pub(super) fn has_one_of(&self, connection: ConnectionId) -> bool {
        self.counts.contains_key(&connection)
    }

    /// What waits here, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a message behind all others; `in_all_bytes` wait for other documents or this one.
    ///
    /// # Errors
    /// If there is no room for it.
    pub(super) fn push(&mut self, message: Queued, in_all_bytes: usize) -> Result<(), Refusal> {
        let is_too_much = |waiting, bytes_max| waiting + message.cost_bytes() > bytes_max;
        if is_too_much(self.bytes, QUEUED_BYTES_MAX)
            || is_too_much(in_all_bytes, QUEUED_IN_ALL_BYTES_MAX)
        {
            return Err(Refusal::TooMuchQueued);
        }
        self.count(&message);
        self.messages.push_back(message);
        Ok(())
    }

    /// Takes the first message.
    pub(super) fn pop(&mut self) -> Option<Queued> {
        let message = self.messages.pop_front()?;
        if self.messages.is_empty() {
            // of thousands of documents hardly any has one
            self.messages = VecDeque::new();
        }
        self.bytes -= message.cost_bytes();
        if let Some(count) = self.counts.get_mut(&message.connection) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&message.connection);
            }
        }
        Some(message)
    }

    /// Puts a message back that was the first one.
    pub(super) fn put_back(&mut self, message: Queued) {
        self.count(&message);
        self.messages.push_front(message);
    }

    /// Forgets the messages that bring changes.
    pub(super) fn forget_changes(&mut self) {
        let waiting: Vec<_> = std::iter::from_fn(|| self.pop()).collect();
        for message in waiting.into_iter().rev() {
            let parsed = SyncMessage::parse(Excerpt::all(&message.data));
            if parsed.is_ok_and(|parsed| parsed.changes.is_empty()) {
                self.put_back(message);
            }
        }
    }

    /// Forgets the messages of a connection.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        if self.counts.remove(&connection).is_none() {
            return;
        }
        self.messages.retain(|message| {
            let stays = message.connection != connection;
            let is_counted = !stays && !is_planted(Bug::MiscountsTheQueue);
            self.bytes -= if is_counted { message.cost_bytes() } else { 0 };
            stays
        });
    }

    /// The bytes of its messages as they were counted, and counted anew.
    #[cfg(feature = "simulator")]
    pub(super) fn weigh(&self) -> (usize, usize) {
        let bytes = self.messages.iter().map(Queued::cost_bytes);
        (self.bytes, bytes.sum())
    }

    fn count(&mut self, message: &Queued) {
        self.bytes += message.cost_bytes();
        *self.counts.entry(message.connection).or_default() += 1;
    }
}
