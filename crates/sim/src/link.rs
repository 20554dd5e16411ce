//! A connection: what is on its way in both directions, and how the server's side of it stands.

use std::collections::VecDeque;

use bytes::Bytes;
use engine::{Access, ChangeHash, DocumentId};

/// As in the server (`outbox.rs`), but smaller.
pub(crate) const CONGESTED_BYTES: usize = 4 << 10;
pub(crate) const DRAINED_BYTES: usize = 1 << 10;
const _: () = assert!(CONGESTED_BYTES <= engine::limits::CATCH_UP_BYTES_MAX);
/// Bytes of frames at which it is given up; longer ones than the next, which are documents, do not count.
pub(crate) const OUTBOX_BYTES_MAX: usize = 256 << 10;
const SHORT_FRAME_BYTES_MAX: usize = engine::limits::READING_BYTES_MAX;
/// What the network holds of a connection whose peer does not read.
pub(crate) const NETWORK_BYTES_MAX: usize = 4 << 10;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Device(usize),
    Stranger(usize),
}

/// A frame on its way to the server, and what its sender knows of its contents.
pub(crate) struct Packet {
    pub(crate) frame: Bytes,
    pub(crate) document: Option<DocumentId>,
    pub(crate) brings: Vec<ChangeHash>,
}

pub(crate) struct Link {
    pub(crate) group: usize,
    pub(crate) who: Who,
    /// Whose session it is, see [`crate::owner::Owner`].
    pub(crate) session: usize,
    /// What the session may do, as the engine was last told: from the checkers' book.
    pub(crate) access: Option<Access>,
    pub(crate) up: VecDeque<Packet>,
    /// Changes that came while the session could only read: the engine may look at a message that had to wait when it
    /// can write.
    pub(crate) unheard: Vec<(DocumentId, ChangeHash)>,
    pub(crate) outbox: VecDeque<Bytes>,
    /// More waited for it than is kept: the group has no outbox for it any more, and what it sends is dropped.
    pub(crate) is_given_up: bool,
    pub(crate) outbox_bytes: usize,
    short_bytes: usize,
    pub(crate) is_congested: bool,
    pub(crate) down: VecDeque<Bytes>,
    pub(crate) down_bytes: usize,
    /// The engine knows it.
    pub(crate) is_served: bool,
    /// The other end has it open.
    pub(crate) is_held: bool,
}

impl Link {
    pub(crate) fn new(group: usize, who: Who, session: usize, access: Access) -> Self {
        Self {
            group,
            who,
            session,
            access: Some(access),
            up: VecDeque::new(),
            unheard: vec![],
            outbox: VecDeque::new(),
            is_given_up: false,
            outbox_bytes: 0,
            short_bytes: 0,
            is_congested: false,
            down: VecDeque::new(),
            down_bytes: 0,
            is_served: true,
            is_held: true,
        }
    }

    /// Has the network take what it can of the outbox; whether the outbox has drained by that.
    pub(crate) fn flush(&mut self, frames_max: usize) -> bool {
        for _ in 0..frames_max {
            if self.down_bytes > NETWORK_BYTES_MAX {
                break;
            }
            let Some(frame) = self.outbox.pop_front() else {
                break;
            };
            self.outbox_bytes -= frame.len();
            self.short_bytes -= short(&frame);
            if self.is_held {
                self.down_bytes += frame.len();
                self.down.push_back(frame);
            }
        }
        let drained = self.is_congested && self.outbox_bytes < DRAINED_BYTES;
        self.is_congested &= !drained;
        drained
    }

    /// Puts a frame in; whether it has become more than is kept.
    pub(crate) fn put(&mut self, frame: Bytes) -> bool {
        self.outbox_bytes += frame.len();
        self.short_bytes += short(&frame);
        self.outbox.push_back(frame);
        self.short_bytes > OUTBOX_BYTES_MAX
    }

    /// Throws away what waits in it.
    pub(crate) fn empty(&mut self) {
        self.outbox.clear();
        (self.outbox_bytes, self.short_bytes) = (0, 0);
    }

    /// The next frame for the other end.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        let frame = self.down.pop_front()?;
        self.down_bytes -= frame.len();
        Some(frame)
    }

    /// The other end is gone, and what was on its way to it, or from it, with it.
    pub(crate) fn cut(&mut self) {
        self.is_held = false;
        self.up.clear();
        self.down.clear();
        self.down_bytes = 0;
    }
}

fn short(frame: &Bytes) -> usize {
    let is_short = frame.len() <= SHORT_FRAME_BYTES_MAX;
    if is_short { frame.len() } else { 0 }
}
