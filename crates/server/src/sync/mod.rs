//! From sockets to the engine to the store, and back.
//!
//! ```text
//!   socket ──frame──> group ──> Engine::handle ──> effects ──> store, worker, outboxes ──> socket
//!      ^                 ^                                        │
//!      └── one a socket  └── one task a group; the only owner of its engine <── answers ──┘
//! ```
//!
//! A [`Hub`] holds the groups; a group is opened when the first socket of it comes. Groups share nothing but the
//! worker process.

mod frame;
mod group;
mod hub;
mod outbox;
mod pulse;
mod socket;
mod stream;
mod thread;

#[cfg(any(test, feature = "fuzz"))]
pub(crate) use frame::fuzz::frame as fuzz_frame;
pub(crate) use pulse::{Pulse, Watched};

pub use hub::{Admitted, Health, Hub, HubError, HubSettings};
