//! The server: sockets, HTTP, the command line, and the loop between them and the engine.
//!
//! [`cli`] begins it, [`run`] keeps it going, [`http`] lets in whom the [`door`] knows, [`sync`] takes
//! them from there to the engine and the store, and [`worker`] is the process that looks into documents.

// they panic when nobody takes what they print
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod cli;
pub mod door;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
pub mod group;
pub mod http;
pub mod log;
pub mod origin;
pub mod outbound;
pub mod run;
pub mod secret;
pub mod settings;
pub mod sync;
pub mod worker;
