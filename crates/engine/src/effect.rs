//! What goes into the engine and what comes out of it.

use bytes::Bytes;

use crate::{
    access::Access,
    ids::{ChangeHash, ConnectionId, DocumentId, Ticket},
    storage::{Answer, Fault, Read, Write},
};

/// Something that happened outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A socket was admitted to the group.
    Opened {
        /// Its number, never used before.
        connection: ConnectionId,
        /// What its session may do.
        access: Access,
    },
    /// A binary frame came in on an open socket.
    Frame {
        /// The socket.
        connection: ConnectionId,
        /// At most [`crate::limits::FRAME_BYTES_MAX`] bytes.
        frame: Bytes,
    },
    /// A socket is gone, for whatever reason.
    Closed {
        /// The socket.
        connection: ConnectionId,
    },
    /// The session of a socket may now do this; nothing at all if it was revoked or has expired.
    AccessChanged {
        /// The socket.
        connection: ConnectionId,
        /// `None` closes it.
        access: Option<Access>,
    },
    /// More waits to be written to the socket than it takes: hold back what can wait.
    Congested {
        /// The socket.
        connection: ConnectionId,
    },
    /// The socket has caught up.
    Drained {
        /// The socket.
        connection: ConnectionId,
    },
    /// The store has answered; all answers that one group commit gave, in its order.
    Answered(Vec<(Ticket, Result<Answer, Fault>)>),
    /// The worker is done.
    Worked {
        /// The job's ticket.
        ticket: Ticket,
        /// What came out.
        outcome: WorkOutcome,
    },
    /// Time has passed; see [`crate::Engine::next_tick`].
    Tick,
}

/// A frame to write, in two parts: what its receiver alone is told, and behind it what others are told too. The second
/// part lies in memory once, however many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutFrame {
    /// The first part.
    pub own: Vec<u8>,
    /// The second; may be empty.
    pub shared: Bytes,
}

impl OutFrame {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.own.len() + self.shared.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Both parts in one piece.
    pub fn to_bytes(&self) -> Bytes {
        [&self.own[..], &self.shared].concat().into()
    }
}

impl From<Vec<u8>> for OutFrame {
    fn from(own: Vec<u8>) -> Self {
        Self {
            own,
            shared: Bytes::new(),
        }
    }
}

/// Something to be done outside, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write a binary frame.
    Send {
        /// The socket.
        connection: ConnectionId,
        /// The frame.
        frame: OutFrame,
    },
    /// Close a socket, once what was sent before is written. The engine has forgotten it already.
    Close {
        /// The socket.
        connection: ConnectionId,
        /// Why.
        refusal: Refusal,
    },
    /// Ask the store.
    Read {
        /// Comes back in [`Input::Answered`].
        ticket: Ticket,
        /// The question.
        read: Read,
    },
    /// Have the store write.
    Write {
        /// Comes back in [`Input::Answered`].
        ticket: Ticket,
        /// What to write.
        write: Write,
    },
    /// Have the worker process look at a document.
    Work {
        /// Comes back in [`Input::Worked`].
        ticket: Ticket,
        /// What to do.
        job: Job,
    },
}

/// Work on whole documents, which only the worker process does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The document, for the log.
    pub document: DocumentId,
    /// What to do.
    pub kind: JobKind,
    /// Its chunks, one after the other.
    pub chunks: Bytes,
    /// Who waits for it.
    pub urgency: Urgency,
}

/// The kinds of [`Job`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Check a pushed whole-document chunk and work out its index.
    Index,
    /// Make one snapshot of all chunks and prove that it is the same document.
    Compact,
}

/// Who waits for a [`Job`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// A client.
    Waiting,
    /// Nobody.
    Background,
}

/// What came of a [`Job`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkOutcome {
    /// It worked.
    Done {
        /// The snapshot; empty for [`JobKind::Index`], where the pushed chunk is the snapshot.
        snapshot: Bytes,
        /// Its heads, ascending.
        heads: Vec<ChangeHash>,
        /// How many changes it holds.
        changes: u64,
        /// Its index, see [`crate::index`].
        index: Bytes,
    },
    /// The chunks are not what they claim to be: a client's fault.
    Invalid {
        /// In words, without contents of the document.
        reason: String,
    },
    /// The worker died of it, or ran out of memory or time.
    Indigestible {
        /// In words, without contents of the document.
        reason: String,
    },
    /// There is no worker now. The document is not to blame, and the job is tried again later.
    Unavailable,
}

/// Why a socket is closed: always its peer's fault, but for the last two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// A frame that is no CBOR map, or lacks what its type needs.
    #[error("malformed frame")]
    MalformedFrame,
    /// Something else came before `join`.
    #[error("expected a join message first")]
    NotJoined,
    /// A second `join`.
    #[error("this connection has joined already")]
    JoinedTwice,
    /// `join` offers no version of the protocol that we speak.
    #[error("unsupported protocol version")]
    UnsupportedVersion,
    /// A message in another peer's name.
    #[error("senderId is not the peer id that this connection joined with")]
    ForeignSender,
    /// A sync message that is none, or is beyond the limits.
    #[error("malformed sync message")]
    MalformedSync,
    /// A chunk that is not sound: cut off, wrong checksum, too long.
    #[error("malformed change")]
    MalformedChange,
    /// A change whose sequence number is taken, or leaves a gap.
    #[error("a change does not follow its actor's last one")]
    ChangeSequence,
    /// A whole-document chunk that the worker found wrong.
    #[error("the document that was sent cannot be loaded")]
    UnloadableDocument,
    /// Too many changes whose dependencies are missing.
    #[error("too many changes without their dependencies")]
    TooManyOrphans,
    /// Too many branches that nothing has merged.
    #[error("too many heads of one document")]
    TooManyHeads,
    /// More messages for one document than we queue.
    #[error("too much at once for one document")]
    TooMuchQueued,
    /// More documents than one connection may have open.
    #[error("too many documents on one connection")]
    TooManyDocuments,
    /// The session does not allow it; also what a document of another group says, which does not exist here.
    #[error("not allowed")]
    NotAllowed,
    /// The session was revoked or has expired.
    #[error("the session has ended")]
    SessionEnded,
    /// The storage cannot be read: try again later.
    #[error("the storage is unavailable, try again later")]
    StorageUnavailable,
}

impl Refusal {
    /// The WebSocket close code. Source: RFC 6455, section 7.4.1.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::MalformedFrame
            | Self::NotJoined
            | Self::JoinedTwice
            | Self::UnsupportedVersion
            | Self::MalformedSync => 1002,
            Self::ForeignSender
            | Self::MalformedChange
            | Self::ChangeSequence
            | Self::UnloadableDocument
            | Self::TooManyOrphans
            | Self::TooManyHeads
            | Self::TooMuchQueued
            | Self::TooManyDocuments
            | Self::NotAllowed
            | Self::SessionEnded => 1008,
            Self::StorageUnavailable => 1013,
        }
    }
}
