//! Where a request comes from.
//!
//! Behind a proxy every connection comes from the proxy, which says in a header for whom. Anybody can write that
//! header, so it is read only if the peer is a proxy that the owner has named, and from its end: each proxy appends
//! whom it heard from, and what stands before that is hearsay.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{App, input::through_proxies};
use crate::settings::TrustedProxies;
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, request::Parts},
};

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The other end of the connection that a request came on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// The address of whoever has sent a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client(pub(super) IpAddr);

impl Client {
    /// Whom a request with these extensions and headers comes from.
    pub(super) fn of(
        extensions: &axum::http::Extensions,
        headers: &HeaderMap,
        trusted: &TrustedProxies,
    ) -> Self {
        // without a peer, as in a test of a handler alone, there is nobody to be told from others
        let peer = extensions.get::<Peer>();
        let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
        let lines = headers.get_all(FORWARDED_FOR).iter();
        // a line that is no text is one that no address stands in
        let lines = lines.map(|line| line.to_str().unwrap_or_default());
        Self(through_proxies(peer, lines, trusted))
    }
}

impl FromRequestParts<Arc<App>> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        Ok(Self::of(
            &parts.extensions,
            &parts.headers,
            &app.trusted_proxies,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(peer: &str, lines: &[&str]) -> String {
        let trusted = "127.0.0.1, 10.0.0.0/8".parse().unwrap();
        through_proxies(peer.parse().unwrap(), lines.iter().copied(), &trusted).to_string()
    }

    #[test]
    fn a_header_of_a_stranger_is_not_believed() {
        assert_eq!(address("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
    }

    #[test]
    fn a_trusted_proxy_says_for_whom_it_asks() {
        assert_eq!(address("127.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(
            address("::ffff:127.0.0.1", &["198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(
            address("127.0.0.1", &["198.51.100.7, 10.1.2.3"]),
            "198.51.100.7"
        );
        assert_eq!(address("127.0.0.1", &[]), "127.0.0.1");
    }

    #[test]
    fn what_a_client_has_written_before_its_proxy_is_not_believed() {
        assert_eq!(
            address("127.0.0.1", &["6.6.6.6, 198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(
            address("127.0.0.1", &["6.6.6.6", "198.51.100.7"]),
            "198.51.100.7"
        );
        assert_eq!(
            address("127.0.0.1", &["6.6.6.6, garbage, 10.0.0.1"]),
            "10.0.0.1"
        );
    }
}
