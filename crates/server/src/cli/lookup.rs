//! What the commands need that look accounts up.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};

use crate::{
    outbound::{DidResolver, HandleResolver, Loopback, Outbound},
    settings::Settings,
};

/// Looks up accounts as the settings say.
pub(super) struct Lookup {
    pub(super) outbound: Arc<Outbound>,
    pub(super) loopback: Loopback,
    pub(super) dids: DidResolver,
    dns: Option<SocketAddr>,
}

impl Lookup {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let host_map = settings.test.host_map.clone();
        let outbound = Arc::new(Outbound::new(host_map).context("cannot set up TLS")?);
        let loopback = Loopback::of(settings.public_url.as_ref());
        let plc_url = settings.plc_url.clone();
        Ok(Self {
            dids: DidResolver::new(Arc::clone(&outbound), plc_url, loopback),
            outbound,
            loopback,
            dns: settings.test.dns,
        })
    }

    /// Finds handles; made when it is needed, because a system may not say what its name servers are.
    pub(super) fn handles(&self) -> Result<HandleResolver> {
        HandleResolver::new(Arc::clone(&self.outbound), self.dns)
            .context("the system does not say what its name servers are")
    }
}
