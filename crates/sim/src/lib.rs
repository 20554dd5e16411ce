//! A world in which nothing happens but by the roll of a seeded die, and checkers that watch every step.
//!
//! ```text
//!   devices, strangers ──> network ──> engines ──> store ──> simulated disk
//!          ^                 (cuts,      (real)     (real)    (loses, tears, fails)
//!          │                  delays)       │
//!          └────────────────────────────────┴──> the checkers' own book: who made which change, who may see what,
//!                                                what has been promised
//! ```
//!
//! Engine and store are those of the server, the store's files lie on [`disk`]. Devices are real Automerge documents.
//! The same seed gives the same world, step by step.
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a program's insides; what its words mean stands with them"
)]

mod book;
mod calm;
mod chunks;
mod device;
#[path = "../../engine/tests/world/dice.rs"]
mod dice;
mod disk;
#[path = "../../engine/tests/world/frames.rs"]
mod frames;
mod link;
mod owner;
mod plan;
pub mod planted;
pub mod run;
mod server;
mod stranger;
mod violation;
#[path = "../../engine/tests/world/work.rs"]
mod work;
mod world;

pub use plan::Plan;
pub use run::{Report, run, run_twice};
pub use violation::{Checker, Violation};
