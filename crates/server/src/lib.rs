//! The server: sockets, HTTP, the command line, and the loop between them and the engine.
//!
//! [`cli`] begins it, [`run`] keeps it going, [`http`] lets in whom the [`door`] knows, [`sync`] takes
//! them from there to the engine and the store, and [`worker`] is the process that looks into documents.

pub mod cli;
pub mod door;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
pub mod group;
pub mod http;
pub mod origin;
pub mod outbound;
pub mod run;
pub mod secret;
pub mod settings;
pub mod sync;
pub mod worker;
