//! Handles: the host names that accounts go by.

use std::{fmt, str::FromStr};

/// The handle of an account, in lower case.
///
/// Only the syntax is checked. Whose it is, only the two-way look-up tells: the handle names the DID, and the DID's
/// document names the handle.
///
/// Source: <https://atproto.com/specs/handle>, "Handle Identifier Syntax".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(String);

/// A text that is no handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a handle: expected a host name such as alice.example.com")]
pub struct InvalidHandle;

impl Handle {
    /// Longest handle, in bytes: the longest host name.
    pub const BYTES_MAX: usize = 253;

    /// Top-level domains that no account can have. `.test` is not among them: it is for development.
    const RESERVED: [&str; 8] = [
        "alt",
        "arpa",
        "example",
        "internal",
        "invalid",
        "local",
        "localhost",
        "onion",
    ];

    /// The handle's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Handle {
    type Err = InvalidHandle;

    fn from_str(text: &str) -> Result<Self, InvalidHandle> {
        if text.len() > Self::BYTES_MAX || !text.split('.').all(is_label) {
            return Err(InvalidHandle);
        }
        let text = text.to_ascii_lowercase();
        let (_, top) = text.rsplit_once('.').ok_or(InvalidHandle)?;
        if !top.starts_with(|first: char| first.is_ascii_lowercase())
            || Self::RESERVED.contains(&top)
        {
            return Err(InvalidHandle);
        }
        Ok(Self(text))
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_kept_in_lower_case() {
        let handle: Handle = "Alice.Example.COM".parse().unwrap();
        assert_eq!(handle.as_str(), "alice.example.com");
    }

    #[test]
    fn names_that_no_account_can_have_are_refused() {
        for top in Handle::RESERVED {
            let name = format!("alice.{top}");
            assert_eq!(name.parse::<Handle>(), Err(InvalidHandle), "{name}");
            let name = name.to_ascii_uppercase();
            assert_eq!(name.parse::<Handle>(), Err(InvalidHandle), "{name}");
        }
        assert!("alice.test".parse::<Handle>().is_ok());
    }
}
