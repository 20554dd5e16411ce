//! The real binary as a process, and clients that talk to it over real WebSockets.
//!
//! Nothing here sleeps: whoever waits, waits for an event, and no longer than [`PATIENCE`].
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "each test file uses a part of it, and a test that meets the unexpected ends"
)]

pub mod app;
mod client;
pub mod disk;
pub mod hostile;
pub mod identity;
pub mod neighbour;
pub mod owner;
mod process;
mod wire;

pub use client::{Client, Event, Replica, handshake, random_id};
pub use process::{Output, Server, command, outcome, run};
pub use wire::{Received, frame, join_frame, sync_frame, sync_frame_as};

use std::{future::Future, time::Duration};

/// How long anything may take that is to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What comes of `event`, which must come.
pub async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    within(PATIENCE, what, event).await
}

/// What comes of `event`, which must come in this time.
pub async fn within<T>(time: Duration, what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(time, event).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("waited {time:?} in vain for {what}"),
    }
}
