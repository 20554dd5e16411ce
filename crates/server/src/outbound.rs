//! What the server asks of others over the network. Nothing else in it dials out.

mod host_map;

pub use self::host_map::{HostMap, InvalidHostMap};
