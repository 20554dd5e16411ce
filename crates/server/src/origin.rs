//! Origins: where something is served, without a path.

use std::{fmt, net::IpAddr, str::FromStr};

use url::{Host, Position, Url};

/// An origin that can be trusted to be what it says: `https`, or `http` of this machine, which needs no TLS.
///
/// Written in one way only: lower case, in punycode, without a default port, without a slash at its end. So two are
/// the same origin exactly if they are equal.
///
/// Source: RFC 6454, "The Web Origin Concept", section 6.2; WHATWG URL, "host parsing".
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(Url);

/// A text that is no such origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an origin: expected https:// and a host, or http:// and localhost or a loopback address"
)]
pub struct InvalidOrigin;

impl Origin {
    /// The longest text that is looked at, in bytes: a host of the DNS with its scheme and port is shorter.
    const BYTES_MAX: usize = 300;

    /// `https://` and this host, which is written without scheme and port.
    ///
    /// # Errors
    /// [`InvalidOrigin`].
    pub fn of_domain(domain: &str) -> Result<Self, InvalidOrigin> {
        if domain.contains([':', '/']) {
            return Err(InvalidOrigin);
        }
        format!("https://{domain}").parse()
    }

    /// The origin that a URL belongs to, if that can be trusted.
    pub fn of_url(url: &Url) -> Option<Self> {
        url[..Position::AfterPort].parse().ok()
    }

    /// Its text, such as `https://sync.example.com`, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0[..Position::AfterPort]
    }

    /// Host and, unless it is the scheme's own, port: `sync.example.com`, `localhost:3031`.
    pub fn authority(&self) -> &str {
        &self.0[Position::BeforeHost..Position::AfterPort]
    }

    /// Its host; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// Its port, also if that is the scheme's own.
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or_default()
    }

    /// Whether it speaks TLS.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Whether it is `localhost` or a loopback address.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// The URL of a path there, which begins with a slash.
    pub fn at(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        url.set_path(path);
        url
    }

    /// The same path and query as `url`, at this origin.
    pub fn instead_of(&self, url: &Url) -> Url {
        let mut moved = self.0.clone();
        moved.set_path(url.path());
        moved.set_query(url.query());
        moved
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

/// Whether `url` is what `text` says, and not what a lenient parser makes of it.
fn is_plain(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else {
        return false;
    };
    !rest.starts_with('/')
        && !rest.contains(['\\', '@', '?', '#'])
        && !text.contains(|char: char| char.is_whitespace() || char.is_control())
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        if text.len() > Self::BYTES_MAX || !is_plain(text) {
            return Err(InvalidOrigin);
        }
        let url = Url::parse(text).map_err(|_| InvalidOrigin)?;
        let trusted = match url.scheme() {
            "https" => true,
            "http" => is_loopback(&url),
            _ => false,
        };
        let ends_with_dot = url.host_str().is_none_or(|host| host.ends_with('.'));
        if !trusted || ends_with_dot || url.path() != "/" || url.port() == Some(0) {
            return Err(InvalidOrigin);
        }
        Ok(Self(url))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Origin").field(&self.as_str()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_in_one_way() {
        for (text, written, authority, port) in [
            (
                "https://sync.example.com",
                "https://sync.example.com",
                "sync.example.com",
                443,
            ),
            (
                "HTTPS://Sync.Example.com:443/",
                "https://sync.example.com",
                "sync.example.com",
                443,
            ),
            (
                "https://sync.example.com:8443",
                "https://sync.example.com:8443",
                "sync.example.com:8443",
                8443,
            ),
            (
                "https://bücher.example",
                "https://xn--bcher-kva.example",
                "xn--bcher-kva.example",
                443,
            ),
            (
                "http://localhost:3031",
                "http://localhost:3031",
                "localhost:3031",
                3031,
            ),
            ("http://127.0.0.1", "http://127.0.0.1", "127.0.0.1", 80),
            ("http://[::1]:1", "http://[::1]:1", "[::1]:1", 1),
        ] {
            let origin: Origin = text.parse().unwrap();
            assert_eq!(
                (origin.as_str(), origin.authority()),
                (written, authority),
                "{text}"
            );
            assert_eq!(origin.port(), port, "{text}");
        }
    }

    #[test]
    fn only_hosts_of_this_machine_are_loopback() {
        for (text, expected) in [
            ("http://localhost", true),
            ("https://localhost", true),
            ("http://127.8.9.10:4", true),
            ("https://[::1]", true),
            ("https://sync.example.com", false),
            ("https://localhost.example.com", false),
            ("https://192.168.0.1", false),
        ] {
            assert_eq!(
                text.parse::<Origin>().unwrap().is_loopback(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_more_or_less_than_an_origin_is_refused() {
        for text in [
            "",
            "sync.example.com",
            "https:sync.example.com",
            "https:///sync.example.com",
            "https://",
            "https://sync.example.com/path",
            "https://sync.example.com/?",
            "https://sync.example.com#",
            "https://user@sync.example.com",
            "https://@sync.example.com",
            "https://sync.example.com.",
            "https://sync.example.com:0",
            "https://sync.example.com:99999",
            "https://sync.exa\tmple.com",
            " https://sync.example.com",
            "https:\\\\sync.example.com",
            "http://sync.example.com",
            "http://10.0.0.1",
            "ws://localhost",
            "wss://sync.example.com",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(InvalidOrigin), "{text}");
        }
        let long = format!("https://{}.example", "a".repeat(400));
        assert_eq!(long.parse::<Origin>(), Err(InvalidOrigin));
    }

    #[test]
    fn a_domain_stands_for_its_https_origin() {
        assert_eq!(
            Origin::of_domain("sync.example.com").unwrap().as_str(),
            "https://sync.example.com"
        );
        for text in [
            "",
            "https://sync.example.com",
            "sync.example.com:1",
            "sync.example.com/a",
        ] {
            assert_eq!(Origin::of_domain(text), Err(InvalidOrigin), "{text}");
        }
    }

    #[test]
    fn a_url_is_moved_with_its_path_and_query() {
        let origin: Origin = "http://127.0.0.1:4001".parse().unwrap();
        let url = Url::parse("https://app.example.dev/a/b?c=d").unwrap();
        assert_eq!(
            origin.instead_of(&url).as_str(),
            "http://127.0.0.1:4001/a/b?c=d"
        );
        assert_eq!(origin.at("/x").as_str(), "http://127.0.0.1:4001/x");
        assert_eq!(
            Origin::of_url(&url).unwrap().as_str(),
            "https://app.example.dev"
        );
    }
}
