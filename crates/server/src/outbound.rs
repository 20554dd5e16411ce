//! What the server asks of others over the network. Nothing else in it dials out.
//!
//! [`Outbound`] makes one call: within bounds, to a public host, over TLS. What is asked again and again has a cache of
//! its own above it.

mod address;
mod answer;
mod cache;
mod client;
mod did;
#[cfg(test)]
mod fake;
mod fetch;
mod guard;
mod handle;
mod host_map;
mod problem;

pub use self::{
    address::is_public_unicast,
    answer::Answer,
    client::{ClientError, ClientResolver},
    did::{DidError, DidResolver},
    fetch::{Bearer, Call, Limits, Loopback, Method, Outbound},
    handle::{Account, DnsFault, HandleError, HandleResolver, WebFault},
    host_map::{HostMap, InvalidHostMap},
    problem::{Fault, FetchError},
};
