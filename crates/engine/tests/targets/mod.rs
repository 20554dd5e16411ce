//! What is fuzzed of the engine as a whole: sequences of inputs, and what must hold after each.
//!
//! An input of this target is a script. Each instruction is a letter and its operands, a character each; spaces and line
//! ends between instructions are nothing. A digit stands for itself, a small letter for 10 and more, any other byte for
//! its value; what is too large is taken modulo what there is, so that every input is a script. `script.rs` lists the
//! instructions.
//!
//! The checks stand in `checks.rs`, and use nothing of the engine's own parsers. The store is the one of the tests
//! (`world/memory_store.rs`); the worker knows of a document only what `library.rs` has put into it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "each user takes a part of it, and what must hold may panic"
)]

mod checks;
mod library;
#[path = "../world/memory_store.rs"]
mod memory_store;
mod script;
mod stage;

/// A target: its name, which is that of its corpus, and what runs one input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 1] = [("engine", engine)];

/// A script: no panic, and nothing of what `checks.rs` forbids.
pub fn engine(data: &[u8]) {
    let mut stage = stage::Stage::new();
    script::perform(data, &mut stage);
}
