//! The automerge-repo protocol and the sync of change graphs, as a pure state machine.
//!
//! An [`Engine`] serves one group of documents. It has no clock, no socket, no file and no randomness: it is told
//! what happens, and says what is to be done. The loop around it is always this:
//!
//! 1. Something happens: a frame comes in, the store answers, time passes. Make an [`Input`] of it.
//! 2. Call [`Engine::handle`] with the time and the input.
//! 3. Carry out the [`Effect`]s in their order: send frames, ask the store, have the worker work.
//! 4. What comes of them is an input again. [`Engine::next_tick`] says when to call without one.
//!
//! ```
//! use engine::{Access, Announce, Compaction, ConnectionId, Effect, Engine, Input, Settings};
//!
//! let mut engine = Engine::new(Settings {
//!     peer_id: "server".into(),
//!     storage_id: "3f1e".into(),
//!     announce: Announce::None,
//!     compaction: Compaction::default(),
//!     graph_bytes_max: 256 << 20,
//!     graph_idle_ms: 60_000,
//! });
//! let mut effects = vec![];
//! let connection = ConnectionId(1);
//! engine.handle(0, Input::Opened { connection, access: Access::Write }, &mut effects);
//! engine.handle(0, Input::Frame { connection, frame: b"no CBOR"[..].into() }, &mut effects);
//! assert!(matches!(effects.last(), Some(Effect::Close { .. })));
//! ```
//!
//! A change travels like this: the frame is read ([`wire`]), its sender is who joined ([`peer`]), the session may
//! write ([`access`]), the sync message and its chunks are sound ([`message`], [`chunk`]), the changes find their
//! place in the graph ([`intake`], [`graph`]), they go to the store ([`storage`]) and only when that has them on
//! disk are they told to anybody, their writer included ([`document`]).
//!
//! The server never merges: what it knows of a document is its change graph. Work that needs the document itself
//! is an [`effect::Job`] for somebody else.
#![allow(
    rustdoc::private_intra_doc_links,
    reason = "the way through the modules is the map of this crate"
)]

mod access;
mod bloom;
mod chunk;
mod document;
mod effect;
mod engine;
mod ephemeral;
mod excerpt;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod graph;
pub mod ids;
pub mod index;
mod intake;
mod leb128;
pub mod limits;
mod message;
mod names;
mod outlet;
mod peer;
#[doc(hidden)]
pub mod planted;
mod settings;
pub mod storage;
mod subscription;
mod tail;
mod wire;

pub use access::Access;
pub use effect::{Effect, Input, Job, JobKind, OutFrame, Refusal, Urgency, WorkOutcome};
pub use engine::Engine;
pub use ids::{ChangeHash, ConnectionId, DocumentId, Ticket};
pub use settings::{Announce, Compaction, Settings};
