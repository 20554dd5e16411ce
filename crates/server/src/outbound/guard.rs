//! Decides after the name is resolved, and for the connection that is about to be made, whether an address is called.
//!
//! The resolver is the one place to do that: what it returns is what is connected to. Whoever checks an address first
//! and has a client resolve the name again may be given another answer the second time (DNS rebinding).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Says which addresses a name has.
pub(super) trait Lookup: Send + Sync + 'static {
    /// All addresses of a name.
    fn addresses(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The system's own: its hosts file, its name servers.
pub(super) struct SystemLookup;

impl Lookup for SystemLookup {
    fn addresses(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let name = name.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Resolves names to addresses that may be called.
#[derive(Clone)]
pub(super) struct Guard {
    lookup: Arc<dyn Lookup>,
    is_allowed: fn(IpAddr) -> bool,
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupFault {
    #[error("the name has an address that may not be called")]
    NotAllowed,
    #[error("the name could not be resolved")]
    Failed(#[source] Arc<io::Error>),
}

impl Guard {
    pub(super) fn new(lookup: Arc<dyn Lookup>, is_allowed: fn(IpAddr) -> bool) -> Self {
        Self { lookup, is_allowed }
    }

    /// Whether the host of this URL may be called as far as the URL itself tells: an address in it is not resolved,
    /// so nobody would ask about it later.
    pub(super) fn allows(&self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Domain(_)) => true,
            Some(Host::Ipv4(address)) => (self.is_allowed)(address.into()),
            Some(Host::Ipv6(address)) => (self.is_allowed)(address.into()),
            None => false,
        }
    }

    /// All addresses of a name, if each of them may be called. One that may not spoils the others: a name that leads
    /// inside as well as outside is a trick or a mistake, and to look away would hide it.
    async fn resolve(self, name: String) -> Result<Vec<IpAddr>, LookupFault> {
        let found = self.lookup.addresses(&name).await;
        let addresses = found.map_err(|error| LookupFault::Failed(Arc::new(error)))?;
        if addresses.is_empty() {
            let none = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            return Err(LookupFault::Failed(Arc::new(none)));
        }
        if addresses.iter().all(|address| (self.is_allowed)(*address)) {
            Ok(addresses)
        } else {
            Err(LookupFault::NotAllowed)
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let resolved = self.clone().resolve(name.as_str().to_owned());
        Box::pin(async move {
            let addresses = resolved.await?.into_iter();
            // the port is that of the URL
            Ok(Box::new(addresses.map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}
