//! Redirect URIs: where an app is sent back to after a sign-in, and so where it lives.
//!
//! Source: RFC 8252, 7; <https://atproto.com/specs/oauth>, "Client ID Metadata Document".

use std::{fmt, str::FromStr};

use url::{Host, Url};

/// A place that an app is sent back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectUri {
    text: String,
    url: Url,
    kind: RedirectUriKind,
}

/// What kind of place that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectUriKind {
    /// A page of the web, with https.
    Web,
    /// A program on the user's machine that listens at `http://127.0.0.1` or `http://[::1]`, on any port.
    Loopback,
    /// A program that the system knows by a scheme of its own, such as `com.example.app:/back`.
    PrivateUse,
}

/// A text that is no redirect URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a redirect URI: expected https, http with a loopback address, or a scheme with a dot in it"
)]
pub struct InvalidRedirectUri;

impl RedirectUri {
    /// Longest redirect URI, in bytes.
    pub const BYTES_MAX: usize = 2048;

    /// The text: what it is compared by in OAuth, character for character.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What kind of place it is.
    pub fn kind(&self) -> RedirectUriKind {
        self.kind
    }

    /// Whether a page of this origin, as a browser writes it in the `Origin` header, can be the app at this URI.
    ///
    /// Origins are compared as ASCII texts, whole. That of a loopback URI may have any port (RFC 8252, 7.3); a scheme
    /// of its own has no origin; `null` is the origin of nobody.
    pub fn allows_origin(&self, origin: &str) -> bool {
        match self.kind {
            RedirectUriKind::Web => self.url.origin().ascii_serialization() == origin,
            RedirectUriKind::Loopback => self
                .url
                .host_str()
                .and_then(|host| origin.strip_prefix("http://")?.strip_prefix(host))
                .is_some_and(is_no_port_or_canonical),
            RedirectUriKind::PrivateUse => false,
        }
    }
}

impl FromStr for RedirectUri {
    type Err = InvalidRedirectUri;

    fn from_str(text: &str) -> Result<Self, InvalidRedirectUri> {
        if text.len() > Self::BYTES_MAX {
            return Err(InvalidRedirectUri);
        }
        let url = Url::parse(text).map_err(|_| InvalidRedirectUri)?;
        let kind = kind_of(&url).ok_or(InvalidRedirectUri)?;
        if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidRedirectUri);
        }
        Ok(Self {
            text: text.to_owned(),
            url,
            kind,
        })
    }
}

impl fmt::Display for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn kind_of(url: &Url) -> Option<RedirectUriKind> {
    match (url.scheme(), url.host()) {
        ("https", Some(Host::Domain(name))) if name != "localhost" => Some(RedirectUriKind::Web),
        ("http", Some(host)) if is_loopback(&host) => Some(RedirectUriKind::Loopback),
        (scheme, None) if scheme.contains('.') => Some(RedirectUriKind::PrivateUse),
        _ => None,
    }
}

/// `localhost` is none of them: a name can be made to point elsewhere (RFC 8252, 8.3).
fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(_) => false,
        Host::Ipv4(address) => *address == std::net::Ipv4Addr::LOCALHOST,
        Host::Ipv6(address) => *address == std::net::Ipv6Addr::LOCALHOST,
    }
}

/// What may follow the host in an origin with http: a port as a browser writes it, which leaves 80 out.
fn is_no_port_or_canonical(rest: &str) -> bool {
    rest.is_empty()
        || rest.strip_prefix(':').is_some_and(|port| {
            port.parse::<u16>()
                .is_ok_and(|number| !matches!(number, 0 | 80) && number.to_string() == port)
        })
}
