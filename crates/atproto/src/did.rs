//! The DID of an account, as far as its text tells.

use std::{fmt, str::FromStr};

/// A DID of one of the two kinds that accounts have: `did:plc:` or `did:web:`.
///
/// Only the syntax is checked; whether the account exists is found out when it signs in.
///
/// Source: <https://atproto.com/specs/did>, "Blessed DID methods".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Did(String);

/// A text that is no such DID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a DID: expected did:plc: and 24 of the characters a-z and 2-7, or did:web: and a host name"
)]
pub struct InvalidDid;

/// The two kinds of DIDs that accounts have, by how their documents are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DidMethod {
    /// In a PLC directory.
    Plc,
    /// At `/.well-known/did.json` of the host in its name.
    Web,
}

impl Did {
    const PLC: &str = "did:plc:";
    const WEB: &str = "did:web:";
    /// Length of a PLC identifier: 15 bytes in base32.
    const PLC_CHARS: usize = 24;
    /// Longest host name of the DNS.
    const HOST_BYTES_MAX: usize = 253;

    /// The DID's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which of the two kinds it is of.
    pub fn method(&self) -> DidMethod {
        if self.0.starts_with(Self::WEB) {
            DidMethod::Web
        } else {
            DidMethod::Plc
        }
    }

    /// The host whose document this is, with its port if it has one (`localhost:2583`); none unless it is a `did:web`.
    ///
    /// Source: <https://w3c-ccg.github.io/did-method-web/>, "Method-specific identifier".
    pub fn web_host(&self) -> Option<String> {
        self.0
            .strip_prefix(Self::WEB)
            .map(|host| host.replace("%3A", ":"))
    }
}

impl FromStr for Did {
    type Err = InvalidDid;

    fn from_str(text: &str) -> Result<Self, InvalidDid> {
        let allowed = match (text.strip_prefix(Self::PLC), text.strip_prefix(Self::WEB)) {
            (Some(identifier), _) => is_plc_identifier(identifier),
            (_, Some(host)) => is_local(host) || is_host(host),
            (None, None) => false,
        };
        if allowed {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidDid)
        }
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_plc_identifier(text: &str) -> bool {
    text.len() == Did::PLC_CHARS
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
}

/// A host of the DNS: no address, no port, no path.
fn is_host(text: &str) -> bool {
    let begins_with_letter =
        |label: &str| label.starts_with(|first: char| first.is_ascii_lowercase());
    text.len() <= Did::HOST_BYTES_MAX
        && text.split('.').all(is_label)
        && text
            .rsplit_once('.')
            .is_some_and(|(_, last)| begins_with_letter(last))
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// The one host that may have a port, for development; its colon is percent-encoded.
fn is_local(text: &str) -> bool {
    let is_port = |port: &str| {
        port.parse::<u16>()
            .is_ok_and(|number| number.to_string() == port)
    };
    text == "localhost" || text.strip_prefix("localhost%3A").is_some_and(is_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_accounts_are_understood() {
        for text in [
            "did:plc:ewvi7nxzyoun6zhxrhs64oiz",
            "did:web:example.com",
            "did:web:a-1.example.co",
            "did:web:localhost",
            "did:web:localhost%3A2583",
        ] {
            assert_eq!(
                text.parse::<Did>().map(|did| did.to_string()).as_deref(),
                Ok(text)
            );
        }
    }

    #[test]
    fn a_did_tells_where_its_document_is() {
        let plc: Did = "did:plc:ewvi7nxzyoun6zhxrhs64oiz".parse().unwrap();
        assert_eq!((plc.method(), plc.web_host()), (DidMethod::Plc, None));
        for (text, host) in [
            ("did:web:example.com", "example.com"),
            ("did:web:localhost%3A2583", "localhost:2583"),
        ] {
            let web: Did = text.parse().unwrap();
            assert_eq!(
                (web.method(), web.web_host().as_deref()),
                (DidMethod::Web, Some(host))
            );
        }
    }

    #[test]
    fn what_is_no_did_of_an_account_is_refused() {
        for text in [
            "",
            "did:plc:",
            "did:plc:ewvi7nxzyoun6zhxrhs64oi",
            "did:plc:ewvi7nxzyoun6zhxrhs64oizz",
            "did:plc:ewvi7nxzyoun6zhxrhs64oi1",
            "did:plc:EWVI7NXZYOUN6ZHXRHS64OIZ",
            " did:plc:ewvi7nxzyoun6zhxrhs64oiz",
            "did:web:",
            "did:web:example",
            "did:web:127.0.0.1",
            "did:web:example.com:alice",
            "did:web:example.com%3A8080",
            "did:web:example.com/alice",
            "did:web:-a.example.com",
            "did:web:example..com",
            "did:web:localhost%3A99999",
            "did:web:localhost%3A+80",
            "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme",
            "alice.example.com",
        ] {
            assert_eq!(text.parse::<Did>(), Err(InvalidDid), "{text}");
        }
    }
}
