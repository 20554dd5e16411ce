//! Origins that tests serve themselves.

use std::{collections::BTreeMap, str::FromStr};

use crate::origin::Origin;

/// Which origins are to be looked for on this machine instead: in tests, what stands for the rest of the world.
///
/// It weakens what is checked of an address, and that is why the settings refuse it to a server with a public URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostMap(BTreeMap<Origin, Origin>);

/// A text that is no such map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a map of origins: expected pairs such as https://app.example.dev=http://127.0.0.1:4001, commas between"
)]
pub struct InvalidHostMap;

impl HostMap {
    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where an origin is to be found instead, which is on this machine.
    pub fn get(&self, origin: &Origin) -> Option<&Origin> {
        self.0.get(origin)
    }
}

impl FromStr for HostMap {
    type Err = InvalidHostMap;

    fn from_str(text: &str) -> Result<Self, InvalidHostMap> {
        let mut map = BTreeMap::new();
        for pair in text.split(',') {
            let (from, to) = pair.split_once('=').ok_or(InvalidHostMap)?;
            let from: Origin = from.trim().parse().map_err(|_| InvalidHostMap)?;
            let to: Origin = to.trim().parse().map_err(|_| InvalidHostMap)?;
            if !to.is_loopback() || map.insert(from, to).is_some() {
                return Err(InvalidHostMap);
            }
        }
        Ok(Self(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_origins_are_read() {
        let map: HostMap =
            "https://app.example.dev=http://127.0.0.1:4001, http://localhost:2583=https://[::1]:1"
                .parse()
                .unwrap();
        let found = |text: &str| map.get(&text.parse().unwrap()).map(ToString::to_string);
        assert_eq!(
            found("https://app.example.dev").as_deref(),
            Some("http://127.0.0.1:4001")
        );
        assert_eq!(
            found("https://APP.example.dev:443").as_deref(),
            Some("http://127.0.0.1:4001")
        );
        assert_eq!(
            found("http://localhost:2583").as_deref(),
            Some("https://[::1]:1")
        );
        assert_eq!(found("https://app.example.dev:444"), None);
        assert!(HostMap::default().is_empty() && !map.is_empty());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "https://app.example.dev",
            "https://app.example.dev=",
            "https://app.example.dev=http://127.0.0.1:4001,",
            "https://app.example.dev=http://10.0.0.1:4001",
            "https://app.example.dev=https://other.example",
            "https://app.example.dev=http://127.0.0.1:4001/path",
            "app.example.dev=http://127.0.0.1:4001",
            "http://app.example.dev=http://127.0.0.1:4001",
            "https://a.example=http://127.0.0.1:1,https://a.example=http://127.0.0.1:2",
        ] {
            assert_eq!(text.parse::<HostMap>(), Err(InvalidHostMap), "{text}");
        }
    }
}
