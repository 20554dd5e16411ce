//! Every bound of the engine, with its unit and what happens at it.
//!
//! What comes from outside is measured against these before anything is allocated for it. Honest clients stay
//! far below; the comment on each says what one who does not runs into.
//!
//! In a simulator some are so small that its worlds reach them.

/// The bound, or the one of a simulator.
const fn bound(usual: usize, in_simulator: usize) -> usize {
    if cfg!(feature = "simulator") {
        in_simulator
    } else {
        usual
    }
}

/// Longest frame, in bytes; the socket refuses a longer one from its header (close 1009).
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// Longest peer id, storage id or ephemeral session id, in bytes; a longer one closes the socket.
pub const NAME_BYTES_MAX: usize = 512;

/// Deepest nesting of CBOR in a frame; deeper closes the socket.
pub const CBOR_DEPTH_MAX: usize = 32;

/// Most needed hashes in a sync message, and most dependencies of a change; more closes the socket.
pub const HASHES_MAX: usize = 100_000;

/// Most heads of a document: branches that nothing has merged yet (people have a handful). They are in every message
/// about the document. More closes the socket.
pub const HEADS_MAX: usize = bound(10_000, 16);

/// Most `have` entries in a sync message (clients send one); more closes the socket.
pub const HAVES_MAX: usize = 16;

/// Most probes per entry of a bloom filter (clients use 7); more closes the socket.
pub const BLOOM_PROBES_MAX: u32 = 32;

/// Longest change, inflated, in bytes; a longer one closes the socket while it is being inflated.
pub const CHANGE_BYTES_MAX: usize = 32 << 20;

/// Most bytes that the deflated changes of one message may inflate to; more closes the socket.
pub const INFLATED_BYTES_MAX: usize = 128 << 20;

/// Most changes of one document that wait for their dependencies; more closes the socket that sent them.
pub const ORPHANS_MAX: usize = bound(20_000, 24);

/// Most bytes of changes of one document that wait for their dependencies; more closes the socket that sent
/// them.
pub const ORPHAN_BYTES_MAX: usize = bound(32 << 20, 8 << 10);

/// Most documents one connection may have open; one more closes the socket.
pub const SUBSCRIPTIONS_MAX: usize = bound(200_000, 6);

/// How many documents of a group are listed at a time, to announce them.
pub const LISTED_MAX: usize = bound(1_000, 2);

/// Most bytes of messages that wait for one document to be loaded; a message more closes its socket.
pub const QUEUED_BYTES_MAX: usize = bound(128 << 20, 256 << 10);

/// Most bytes of messages that wait for documents of the group to be loaded; whose message has to wait then is closed.
pub const QUEUED_IN_ALL_BYTES_MAX: usize = 512 << 20;

/// What a message that waits counts besides its bytes, so that many short ones are not for nothing.
pub const QUEUED_MESSAGE_BYTES: usize = bound(SHARED_BYTES_MAX, 0);

/// Bytes of changes beyond which the other messages that wait for a document wait a turn longer. They may inflate to a
/// thousand times as much, and each engine shares its thread with all sockets.
pub const WORKED_OFF_BYTES_MAX: usize = bound(16 << 10, 256);

/// Longest message, in bytes, of which a part may keep the whole in memory, however short the part is.
pub const SHARED_BYTES_MAX: usize = 1 << 10;

/// Most bytes of changes of one document that are on their way to the disk; beyond, messages wait (see
/// [`QUEUED_BYTES_MAX`]).
pub const UNSTORED_BYTES_MAX: usize = bound(64 << 20, 4 << 10);

/// Longest payload of an ephemeral message, in bytes; a longer one is dropped.
pub const EPHEMERAL_BYTES_MAX: usize = 1 << 20;

/// Most (sender, session) pairs of one document whose ephemeral counts are remembered; the one that was
/// quiet for longest is forgotten.
pub const EPHEMERAL_SOURCES_MAX: usize = bound(1024, 3);

/// Most storage ids that one connection may watch; further ones are ignored.
pub const WATCHED_STORAGES_MAX: usize = 256;

/// Bytes of recent tail chunks that a document in memory keeps, to serve readers without asking the disk.
pub const RECENT_BYTES_MAX: usize = bound(128 << 10, 512);

/// Bytes of documents that may be read for a peer beside another one: what was read is sent, also if its socket takes no
/// more meanwhile. One document is always read.
pub const READING_BYTES_MAX: usize = bound(8 << 20, 32 << 10);

/// Most bytes of changes that one message brings from the disk to a peer that lags behind; what is left follows once
/// that is written. A snapshot, and a change that is longer, go as a whole.
pub const LAG_MESSAGE_BYTES_MAX: usize = bound(1 << 20, 1 << 10);

/// Bytes beyond which a connection that catches up is sent no more before its socket has drained: at least as much as
/// makes the socket say that it is full, for it says that it has drained only after that.
pub const CATCH_UP_BYTES_MAX: usize = bound(1 << 20, 4 << 10);

/// Most documents that the worker is asked to look at at the same time.
pub const JOBS_MAX: usize = bound(4, 2);

/// How long, in milliseconds, a connection counts as new: a request for an unknown document waits for what it brings.
pub const NEWCOMER_MS: u64 = 250;

/// How long, in milliseconds, a request for an unknown document waits for a peer that has announced it.
pub const UNAVAILABLE_WAIT_MS: u64 = 3_000;
