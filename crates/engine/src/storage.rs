//! What the engine asks of a store, and what the store answers.
//!
//! Plain data: the engine emits [`Write`] and [`Read`] as effects, the store carries them out and answers
//! under the same [`crate::Ticket`]. Writes of one document take effect in the order they were emitted.
//!
//! A document lies in the store as *chunks*, numbered by the engine with a `u64` that only grows within
//! the document:
//!
//! ```text
//! [snapshot] [tail] [tail] [tail]          the usual document
//! [pushed]                                 a whole document a client pushed, not yet verified
//! ```
//!
//! beside a queue of *orphans*: changes whose dependencies have not arrived.

use bytes::Bytes;

use crate::ids::{ChangeHash, DocumentId};

/// What a stored chunk is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChunkKind {
    /// One compacted whole-document chunk with the index of its changes; at most one per document, and
    /// always the first.
    Snapshot,
    /// Change chunks (types 1 and 2), one after the other, each of which has its dependencies in front
    /// of it.
    Tail,
    /// A whole-document chunk as a client pushed it, whose changes the worker has still to work out.
    Pushed,
}

/// What is known of a document without reading its chunks.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct DocumentMeta {
    /// Heads of everything stored, ascending, without duplicates; orphans do not count.
    pub heads: Vec<ChangeHash>,
    /// Number of changes stored, orphans not counted; 0 while a pushed chunk is all there is.
    pub changes: u64,
    /// The number the next chunk of this document gets.
    pub next_chunk: u64,
    /// Bytes of the snapshot, 0 if there is none.
    pub snapshot_bytes: u64,
    /// Bytes of all tail chunks together.
    pub tail_bytes: u64,
    /// Whether a [`ChunkKind::Pushed`] chunk waits for the worker.
    pub has_pushed: bool,
    /// Whether any orphans are stored.
    pub has_orphans: bool,
    /// Why the worker could not digest the document; it is then left out of compaction.
    pub quarantine: Option<String>,
}

/// One stored chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredChunk {
    /// Number within the document.
    pub number: u64,
    /// What it is.
    pub kind: ChunkKind,
    /// Its bytes as they travel.
    pub bytes: Bytes,
}

/// A change that waits for its dependencies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Orphan {
    /// Its hash.
    pub hash: ChangeHash,
    /// Its chunk, type 1 or 2.
    pub bytes: Bytes,
}

/// A change of a document's durable state; carried out whole or not at all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The document; it is created if it does not exist.
    pub document: DocumentId,
    /// What to do.
    pub action: WriteAction,
}

/// The kinds of [`Write`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WriteAction {
    /// New changes.
    Append {
        /// The chunk to add, [`ChunkKind::Tail`] or [`ChunkKind::Pushed`]; none if all the changes are
        /// orphans. Its number must be the document's [`DocumentMeta::next_chunk`]: another one means that an
        /// earlier write failed on which this one builds, and then this one fails too.
        chunk: Option<StoredChunk>,
        /// Heads of the document afterwards. Without a chunk they stay as they are, whatever stands here.
        heads: Vec<ChangeHash>,
        /// How many changes the chunk adds.
        changes: u64,
        /// Changes to add to the queue of orphans; one that is there already is left as it is.
        orphans: Vec<Orphan>,
        /// Orphans that found their dependencies: they are in `chunk` and leave the queue.
        adopted: Vec<ChangeHash>,
    },
    /// A snapshot takes the place of what it covers (compaction, or the index of a pushed document).
    Replace {
        /// The snapshot's chunk and number (the number of one of the chunks it covers).
        snapshot: StoredChunk,
        /// The index of its changes, see [`crate::index`].
        index: Bytes,
        /// All chunks with a number up to and including this one go.
        covers_through: u64,
        /// Heads of the document afterwards: of the snapshot and of what remains behind it.
        heads: Vec<ChangeHash>,
        /// Number of changes of the document afterwards.
        changes: u64,
    },
    /// The worker could not digest the document: leave it alone from now on.
    Quarantine {
        /// The reason, for the owner.
        reason: String,
    },
    /// A pushed chunk turned out not to be what it said: drop it, and the document with it if nothing
    /// else is stored of it. If only orphans remain, the document has no heads.
    DropPushed {
        /// Its number.
        number: u64,
    },
}

/// A question about a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Read {
    /// The document.
    pub document: DocumentId,
    /// What of it.
    pub what: ReadWhat,
}

/// The kinds of [`Read`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadWhat {
    /// [`Answer::Meta`].
    Meta,
    /// [`Answer::Graph`].
    Graph,
    /// [`Answer::Chunks`] with a number of at least `from`, and less than `until`.
    Chunks {
        /// First number.
        from: u64,
        /// One past the last number; `u64::MAX` for all.
        until: u64,
    },
    /// [`Answer::Documents`]; the document in [`Read`] is where to start (exclusive), at most `limit`.
    Documents {
        /// How many at most.
        limit: usize,
    },
}

/// What the store answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A write is on disk: it has been fsynced.
    Stored,
    /// The document, or nothing if it does not exist.
    Meta(Option<DocumentMeta>),
    /// All that is needed to build the change graph. The three belong to one moment.
    Graph {
        /// The document, or nothing if it does not exist.
        meta: Option<DocumentMeta>,
        /// The index beside the snapshot.
        index: Option<Bytes>,
        /// The tail chunks in order of their numbers. A pushed chunk is not among them.
        tail: Vec<StoredChunk>,
        /// The queue of orphans, in the order they were added.
        orphans: Vec<Orphan>,
    },
    /// Chunks in order of their numbers, with the document as it was at that moment.
    Chunks {
        /// The document, or nothing if it does not exist.
        meta: Option<DocumentMeta>,
        /// The chunks asked for.
        chunks: Vec<StoredChunk>,
    },
    /// Ids and heads, ascending by id.
    Documents(Vec<(DocumentId, Vec<ChangeHash>)>),
}

/// The store could not do what it was asked to. A write that failed left nothing behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// No room on the disk.
    #[error("the disk is full")]
    Full,
    /// Everything else: I/O errors, a damaged file.
    #[error("the storage failed")]
    Failed,
}
