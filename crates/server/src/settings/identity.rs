//! The settings of identity: where the server is, whom it believes, and how it publishes itself.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use atproto::Handle;
use ipnet::IpNet;

use super::{RowValue, reader::Reader, table};
use crate::{origin::Origin, outbound::HostMap};

/// Who is let in, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthSettings {
    /// What `POST /authenticate` does.
    pub legacy_authenticate: LegacyAuthenticate,
    /// Whether service auth may name the server without its service.
    pub bare_audience: BareAudience,
}

/// What `POST /authenticate` does. There is no value that lets in whom nobody has approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LegacyAuthenticate {
    /// It lets in devices that the owner has approved.
    Approve,
    /// It is not there.
    Off,
}

/// Whether service auth may be addressed to the server's DID alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareAudience {
    /// It may.
    Allow,
    /// It must name the service too.
    Refuse,
}

/// What `publish` needs besides the owner.
#[derive(Debug, Clone, Default)]
pub struct PublishSettings {
    /// The PDS that the owner's must be.
    pub pds_url: Option<Origin>,
    /// The handle that the owner's must be.
    pub handle: Option<Handle>,
    /// An app password of the owner.
    pub password: Option<AppPassword>,
}

/// What stands in for the rest of the world, in tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestSettings {
    /// Origins that are to be found on this machine.
    pub host_map: HostMap,
    /// The name server that handles are looked up with; of this machine.
    pub dns: Option<SocketAddr>,
}

/// The proxies that are believed when they say on whose behalf they call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

/// A text that names no networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a list of IP addresses and networks with commas between")]
pub struct InvalidProxies;

impl TrustedProxies {
    /// Whether the peer at this address is one. An IPv4 address in IPv6 clothes counts as what it is.
    pub fn contains(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(&peer))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for TrustedProxies {
    type Err = InvalidProxies;

    fn from_str(text: &str) -> Result<Self, InvalidProxies> {
        let network = |text: &str| {
            let text = text.trim();
            let address = text
                .parse::<IpAddr>()
                .map(|address| address.to_canonical().into());
            address
                .ok()
                .or_else(|| text.parse().ok())
                .ok_or(InvalidProxies)
        };
        text.split(',')
            .map(network)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// A password that is made for one app. Its value cannot be printed.
#[derive(Clone)]
pub struct AppPassword(Box<str>);

/// A text that is no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is empty, longer than 512 bytes, or not one line")]
pub struct InvalidPassword;

impl AppPassword {
    /// Longest password, in bytes.
    pub const BYTES_MAX: usize = 512;

    /// The password itself, for the one request that carries it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for AppPassword {
    type Err = InvalidPassword;

    /// Takes a line as it is read: its end does not belong to the password.
    fn from_str(text: &str) -> Result<Self, InvalidPassword> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() || text.len() > Self::BYTES_MAX || text.contains(char::is_control) {
            return Err(InvalidPassword);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Debug for AppPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppPassword(..)")
    }
}

pub(super) fn read_public_url(reader: &mut Reader<'_>) -> Option<Origin> {
    let public_url = reader.text(&table::PUBLIC_URL, |text| text.parse().ok());
    let of_domain = reader.text(&table::DOMAIN, |text| Origin::of_domain(text).ok());
    public_url.or(of_domain)
}

pub(super) fn read_auth(reader: &mut Reader<'_>) -> Option<AuthSettings> {
    let legacy_authenticate = reader.text(&table::LEGACY_AUTHENTICATE, |text| match text {
        "approve" => Some(LegacyAuthenticate::Approve),
        "off" => Some(LegacyAuthenticate::Off),
        _ => None,
    });
    let bare_audience = reader.text(&table::BARE_AUDIENCE, |text| match text {
        "allow" => Some(BareAudience::Allow),
        "refuse" => Some(BareAudience::Refuse),
        _ => None,
    });
    Some(AuthSettings {
        legacy_authenticate: legacy_authenticate?,
        bare_audience: bare_audience?,
    })
}

pub(super) fn read_publish(reader: &mut Reader<'_>) -> PublishSettings {
    PublishSettings {
        pds_url: reader.text(&table::PDS_URL, |text| text.parse().ok()),
        handle: reader.text(&table::HANDLE, |text| text.parse().ok()),
        password: reader.secret(&table::PASSWORD, RowValue::Unset, AppPassword::from_str),
    }
}

/// What a server that others reach may not be told by any setting: to look for the world on its own machine.
const NOT_OF_THIS_MACHINE: &str =
    "nothing, unless public_url is of this machine, as in http://localhost:3031";

pub(super) fn read_test(
    reader: &mut Reader<'_>,
    public_url: Option<&Origin>,
    listen: Option<IpAddr>,
) -> TestSettings {
    let host_map: Option<HostMap> = reader.text(&table::TEST_HOST_MAP, |text| text.parse().ok());
    let dns: Option<SocketAddr> = reader.text(&table::TEST_DNS, |text| {
        text.parse()
            .ok()
            .filter(|dns: &SocketAddr| dns.ip().is_loopback())
    });
    // without a public URL nobody signs in; `dev` gets its own once it knows its port
    let of_this_machine = match public_url {
        Some(public_url) => public_url.is_loopback(),
        None => listen.is_none_or(|listen| listen.is_loopback()),
    };
    if !of_this_machine {
        if host_map.is_some() {
            reader.refuse_if_given(&table::TEST_HOST_MAP, NOT_OF_THIS_MACHINE);
        }
        if dns.is_some() {
            reader.refuse_if_given(&table::TEST_DNS, NOT_OF_THIS_MACHINE);
        }
    }
    TestSettings {
        host_map: host_map.unwrap_or_default(),
        dns,
    }
}
