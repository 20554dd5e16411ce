//! What we know of one peer of one document: the state of the sync protocol, as far as a server needs it.
//!
//! Automerge's own state keeps the set of hashes sent; here the graph's order does its work. Once a peer has told
//! what it has, "everything up to node n" is known to be there or on its way, and what came since is what to send.

use std::ops::Range;

use crate::{
    graph::{Heads, Node},
    ids::ChangeHash,
    message::{Flags, SyncMessage, Version},
};

/// One peer of one document.
pub(crate) struct Subscription {
    /// What it last said its heads are.
    pub(crate) their_heads: Option<Heads>,
    /// The heads that we last told it.
    pub(crate) told: Option<Heads>,
    /// What we last asked it for.
    pub(crate) asked: Vec<ChangeHash>,
    /// How far it is known to be.
    pub(crate) synced: Synced,
    /// Nodes that came from it and lie beyond `synced`.
    pub(crate) from_peer: Vec<Range<Node>>,
    /// The version in which it reads changes.
    pub(crate) reads: Version,
    /// It understands the flag that makes it forget what it has sent.
    pub(crate) supports_reset: bool,
    /// It said that it takes no changes.
    pub(crate) takes_nothing: bool,
    /// What it sent could not be stored: it must send again, once the storage works.
    pub(crate) must_resend: bool,
    /// Whether its answer waits for the disk.
    pub(crate) served: Served,
    /// Nodes that it asked for while it could not be answered.
    pub(crate) owed: Vec<Node>,
    /// Its request for a document that does not exist.
    pub(crate) request: Request,
    /// The heads with which it was last sent everything because it had asked to begin anew.
    pub(crate) began_anew: Option<Heads>,
    /// It has not asked for the document: the group announces all that it has.
    pub(crate) announced: bool,
}

/// How far a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Synced {
    /// It has not said what it has.
    Unknown,
    /// It has, or is being sent, everything durable; said while no graph is in memory.
    Everything,
    /// It has, or is being sent, the nodes below.
    Below(Node),
}

/// Whether an answer is being read from the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    Directly,
    FromDisk,
}

/// A request for a document that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    None,
    /// Unanswered, because another peer has announced the document, or may be about to.
    Waiting {
        /// When it came.
        asked_ms: u64,
    },
    /// Answered: unavailable.
    Told,
}

impl Default for Subscription {
    fn default() -> Self {
        Self {
            their_heads: None,
            told: None,
            asked: vec![],
            synced: Synced::Unknown,
            from_peer: vec![],
            reads: Version::One,
            supports_reset: false,
            takes_nothing: false,
            must_resend: false,
            served: Served::Directly,
            owed: vec![],
            request: Request::None,
            began_anew: None,
            announced: false,
        }
    }
}

impl Subscription {
    /// Takes note of what a message says of its sender, to whom these `heads` of ours can be sent.
    pub(crate) fn note(&mut self, message: &SyncMessage<'_>, heads: &Heads) {
        if let Some(Flags {
            sync_reset,
            read_only,
            supports_sync_reset,
            ..
        }) = message.flags
        {
            self.reads = Version::Two;
            self.supports_reset = supports_sync_reset;
            self.takes_nothing = read_only;
            if sync_reset {
                self.synced = Synced::Unknown;
            }
        }
        // a peer that has nothing, or no longer anything, gets everything
        if message.heads.is_empty() {
            self.synced = Synced::Unknown;
        }
        // one whose filter held back what it lacks asks to begin anew: once for the same heads, as one that can
        // make nothing of them at all would ask for ever
        if message.is_reset() && self.began_anew.as_ref() != Some(heads) {
            self.synced = Synced::Unknown;
            self.began_anew = Some(Heads::clone(heads));
        }
        let same = |heads: &Heads| **heads == *message.heads;
        if !self.their_heads.as_ref().is_some_and(same) {
            // most have what we have, and it need not lie in memory once for each
            self.their_heads = Some(if same(heads) {
                Heads::clone(heads)
            } else {
                message.heads.as_slice().into()
            });
        }
    }

    /// Whether it has said that it has changes of the document.
    pub(crate) fn has_announced(&self) -> bool {
        self.their_heads
            .as_ref()
            .is_some_and(|heads| !heads.is_empty())
    }

    /// Whether it has been told of these heads, and has been sent, or is known to have, all below `durable`.
    pub(crate) fn is_in_step(&self, durable: Node) -> bool {
        let everything = match self.synced {
            Synced::Unknown => false,
            Synced::Everything => true,
            Synced::Below(node) => node == durable,
        };
        everything
            && self.from_peer.is_empty()
            && self.owed.is_empty()
            && self.served == Served::Directly
            && !self.must_resend
    }

    /// Whether it has not said what it has, and is owed nothing but the heads, for which no graph is needed.
    pub(crate) fn is_left_to_ask(&self) -> bool {
        self.synced == Synced::Unknown
            && self.owed.is_empty()
            && self.served == Served::Directly
            && !self.must_resend
    }

    /// The nodes below `durable` that it is not known to have; nothing if it has not said what it has.
    pub(crate) fn news(&self, durable: Node) -> impl Iterator<Item = Node> {
        let new = match self.synced {
            Synced::Below(from) => from..durable,
            Synced::Unknown | Synced::Everything => 0..0,
        };
        let is_its_own = |node: &Node| self.from_peer.iter().any(|range| range.contains(node));
        new.filter(move |node| !is_its_own(node))
    }

    /// Everything below `durable` has been sent, or came from it.
    pub(crate) fn set_synced(&mut self, durable: Node) {
        self.synced = Synced::Below(durable);
        self.from_peer.retain(|range| range.end > durable);
    }

    /// Forgets nodes that could not be stored.
    pub(crate) fn truncate(&mut self, length: Node) {
        self.from_peer.retain(|range| range.start < length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_step() -> Subscription {
        Subscription {
            synced: Synced::Below(5),
            ..Subscription::default()
        }
    }

    #[test]
    fn who_lacks_something_or_waits_for_an_answer_is_not_in_step() {
        assert!(in_step().is_in_step(5));
        let mut everything = in_step();
        everything.synced = Synced::Everything;
        assert!(everything.is_in_step(5));
        type Change = fn(&mut Subscription);
        let changes: [(&str, Change); 6] = [
            ("it has not said what it has", |peer| {
                peer.synced = Synced::Unknown;
            }),
            ("it lacks the last change", |peer| {
                peer.synced = Synced::Below(4);
            }),
            ("what it sent is not acknowledged", |peer| {
                peer.from_peer.push(5..6);
            }),
            ("it is owed an old one", |peer| peer.owed.push(3)),
            ("its answer is being read", |peer| {
                peer.served = Served::FromDisk;
            }),
            ("it must send again", |peer| peer.must_resend = true),
        ];
        for (why, change) in changes {
            let mut peer = in_step();
            change(&mut peer);
            assert!(!peer.is_in_step(5), "{why}");
        }
    }

    #[test]
    fn what_came_from_a_peer_is_not_news_to_it_unless_something_else_takes_its_place() {
        let mut peer = in_step();
        peer.set_synced(2);
        peer.from_peer = vec![3..4, 5..7, 7..8];
        assert!(peer.news(9).eq([2, 4, 8]));
        // once all below is there, the rest of what it sent is still its own
        peer.set_synced(4);
        assert!(peer.news(9).eq([4, 8]));
        assert_eq!(peer.from_peer.len(), 2);
        // what could not be stored was taken back, and others' changes stand there
        peer.truncate(7);
        assert!(peer.news(9).eq([4, 7, 8]));
    }

    #[test]
    fn who_has_not_said_what_it_has_is_told_no_news() {
        let mut peer = in_step();
        peer.synced = Synced::Unknown;
        assert_eq!(peer.news(8).count(), 0);
        assert!(!peer.has_announced());
        peer.their_heads = Some(Heads::default());
        assert!(!peer.has_announced(), "it has nothing");
        peer.their_heads = Some([ChangeHash::from_bytes([1; 32])].into());
        assert!(peer.has_announced());
    }
}
