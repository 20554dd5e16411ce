//! What the server asks of others over the network. Nothing else in it dials out.
//!
//! [`Outbound`] makes one call: within bounds, to a public host, over TLS. What is asked again and again has a cache of
//! its own above it.

mod address;
mod answer;
#[cfg(test)]
mod fake;
mod fetch;
mod guard;
mod host_map;
mod problem;

pub use self::{
    address::is_public_unicast,
    answer::Answer,
    fetch::{Bearer, Call, Limits, Loopback, Outbound},
    host_map::{HostMap, InvalidHostMap},
    problem::{Fault, FetchError},
};
