//! Whose a handle is: two ways to ask, and both directions to check.

use std::{net::SocketAddr, sync::Arc};

use atproto::{Did, DidDocument, Handle};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{RData, Record},
};

use super::{
    did::{DidError, DidResolver},
    fetch::{Limits, Loopback, Outbound},
    problem::FetchError,
};
use crate::origin::Origin;

/// Longest text at `/.well-known/atproto-did`, in bytes: a DID with some room around it.
const TEXT_BYTES_MAX: usize = 2_048;

/// Finds the account of a handle.
///
/// Source: <https://atproto.com/specs/handle>, "Handle Resolution".
pub struct HandleResolver {
    outbound: Arc<Outbound>,
    dns: TokioResolver,
}

/// An account that was found by its handle.
#[derive(Debug, Clone)]
pub struct Account {
    /// Who it is.
    pub did: Did,
    /// What it says of itself.
    pub document: Arc<DidDocument>,
}

/// Why a handle leads to no account.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// Neither way has an answer; both reasons are told, because either may be what the owner has to mend.
    #[error(
        "neither the DNS ({dns}) nor https://{handle}/.well-known/atproto-did ({web}) names a DID"
    )]
    Unknown {
        /// The handle.
        handle: Handle,
        /// Why the DNS has none.
        dns: DnsFault,
        /// Why its web server has none.
        web: WebFault,
    },
    /// There are several DIDs, and it cannot be known which one is meant.
    #[error("the DNS names several DIDs in the TXT records of _atproto.{0}")]
    Several(Handle),
    /// Both ways have an answer, and not the same.
    #[error("the DNS names {dns}, and https://{handle}/.well-known/atproto-did names {web}")]
    Disagree {
        /// The handle.
        handle: Handle,
        /// What the DNS says.
        dns: Did,
        /// What its web server says.
        web: Did,
    },
    /// The handle leads to an account that goes by another one.
    #[error("the handle names {did}, whose DID document does not name the handle")]
    NotClaimed {
        /// The account.
        did: Did,
    },
    /// The account has no document.
    #[error("the handle names {did}")]
    Document {
        /// The account.
        did: Did,
        /// Why not.
        #[source]
        error: DidError,
    },
}

/// Why the DNS names no DID.
#[derive(Debug, thiserror::Error)]
pub enum DnsFault {
    /// There is no such record, or no DID in it.
    #[error("no TXT record with a DID")]
    Missing,
    /// There are several.
    #[error("several TXT records with different DIDs")]
    Several,
    /// It could not be asked.
    #[error(transparent)]
    Net(#[from] NetError),
    /// It did not answer in time.
    #[error("no answer within {} seconds", Limits::TIME_MAX.as_secs())]
    Slow,
}

/// Why the web server of a handle names no DID.
#[derive(Debug, thiserror::Error)]
pub enum WebFault {
    /// What it has there is no DID.
    #[error("no DID there")]
    Missing,
    /// It could not be asked.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl HandleResolver {
    /// One that asks the system's name servers, or in tests the one at `dns`.
    ///
    /// # Errors
    /// If the system does not say which those are.
    pub fn new(outbound: Arc<Outbound>, dns: Option<SocketAddr>) -> Result<Self, NetError> {
        let mut builder = match dns {
            Some(server) => {
                TokioResolver::builder_with_config(only(server), TokioRuntimeProvider::default())
            }
            None => TokioResolver::builder_tokio()?,
        };
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        Ok(Self {
            outbound,
            dns: builder.build()?,
        })
    }

    /// The account of a handle: the one that the handle names, and that names the handle.
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn account(
        &self,
        handle: &Handle,
        dids: &DidResolver,
    ) -> Result<Account, HandleError> {
        let did = self.did(handle).await?;
        let document = match dids.resolve(&did).await {
            Ok(document) => document,
            Err(error) => return Err(HandleError::Document { did, error }),
        };
        if document.handle() != Some(handle) {
            return Err(HandleError::NotClaimed { did });
        }
        Ok(Account { did, document })
    }

    /// The DID that a handle names; whether the account wants to be called so is another question.
    ///
    /// # Errors
    /// [`HandleError`].
    pub async fn did(&self, handle: &Handle) -> Result<Did, HandleError> {
        let (dns, web) = tokio::join!(self.ask_dns(handle), self.ask_web(handle));
        match (dns, web) {
            (Err(DnsFault::Several), _) => Err(HandleError::Several(handle.clone())),
            (Ok(dns), Ok(web)) if dns != web => {
                let handle = handle.clone();
                Err(HandleError::Disagree { handle, dns, web })
            }
            (Ok(did), _) | (Err(_), Ok(did)) => Ok(did),
            (Err(dns), Err(web)) => {
                let handle = handle.clone();
                Err(HandleError::Unknown { handle, dns, web })
            }
        }
    }

    /// The DID in the TXT records of a handle.
    async fn ask_dns(&self, handle: &Handle) -> Result<Did, DnsFault> {
        // with a dot at its end, so that no search domain is put behind it
        let lookup = self.dns.txt_lookup(format!("_atproto.{handle}."));
        let in_time = tokio::time::timeout(Limits::TIME_MAX, lookup).await;
        let found = match in_time.map_err(|_| DnsFault::Slow)? {
            Ok(found) => found,
            Err(error) if error.is_no_records_found() => return Err(DnsFault::Missing),
            Err(error) => return Err(error.into()),
        };
        let mut dids = found.answers().iter().filter_map(did_of);
        let did = dids.next().ok_or(DnsFault::Missing)?;
        if dids.any(|other| other != did) {
            return Err(DnsFault::Several);
        }
        Ok(did)
    }

    async fn ask_web(&self, handle: &Handle) -> Result<Did, WebFault> {
        let origin = Origin::of_domain(handle.as_str()).map_err(|_| WebFault::Missing)?;
        let url = origin.at("/.well-known/atproto-did");
        let text = self.outbound.get_text(&url, Loopback::Refused).await?;
        if text.len() > TEXT_BYTES_MAX {
            return Err(WebFault::Missing);
        }
        text.trim().parse().map_err(|_| WebFault::Missing)
    }
}

/// The DID in a TXT record `did=did:plc:...`, whose text may come in several pieces.
fn did_of(record: &Record) -> Option<Did> {
    let RData::TXT(txt) = &record.data else {
        return None;
    };
    let text = txt.txt_data.concat();
    std::str::from_utf8(&text)
        .ok()?
        .strip_prefix("did=")?
        .parse()
        .ok()
}

fn only(server: SocketAddr) -> ResolverConfig {
    let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = server.port();
        connection
    });
    let server = NameServerConfig::new(server.ip(), true, connections.into());
    ResolverConfig::from_name_servers(vec![server])
}

#[cfg(test)]
mod tests;
