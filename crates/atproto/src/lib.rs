//! What atproto and OAuth say of identities, keys, tokens and apps, as parsers and checks.
//!
//! Nothing here has a clock, a socket, a file or randomness: texts come in, and what they prove comes out.

mod did;

pub use did::{Did, DidMethod, InvalidDid};
