//! Those modules of the server that read what others have written, and no others: a server that runs needs a database, TLS
//! and much more, all of which would be built with the fuzzer's instruments.
//!
//! The sources are the server's own, and so is the list of targets. A module that is used there and missing here is a
//! failed build, which `make test` notices.
#![allow(
    dead_code,
    unused_imports,
    reason = "what only the rest of the server uses is not used here"
)]

#[path = "../../crates/server/src"]
mod sources {
    pub mod fuzz;
    pub mod group;
    pub mod origin;
    pub mod secret;
    pub mod settings;

    pub mod door {
        pub mod root;
        pub mod session;
        pub mod token;
        pub mod wish;

        pub(crate) use self::{
            root::RootUrl,
            session::SessionId,
            token::{InvalidToken, SyncClaims, TOKEN_BYTES_MAX, TokenKeys},
            wish::{Wish, root_in, scheme},
        };
    }

    pub mod http {
        pub mod fuzz;
        pub mod input;
    }

    pub mod outbound {
        pub mod host_map;

        pub use self::host_map::HostMap;
    }

    pub mod sync {
        pub mod frame;

        pub(crate) use frame::fuzz::frame as fuzz_frame;
    }
}

pub use sources::fuzz;
use sources::{door, group, http, origin, outbound, secret, settings, sync};
