//! The name of a group.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A lexicon group: an NSID authority such as `xyz.groundmist.library`, or a full NSID, which is a group of its own.
///
/// The authority is kept in lower case; the name at the end of a full NSID keeps its case, and is told from a part of
/// the authority by having an upper case letter. Nothing but ASCII letters, digits, `-` and single dots between them
/// ever occurs, so a group is safe as part of a file name.
///
/// Source: <https://atproto.com/specs/nsid>, "NSID syntax".
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Group(String);

/// A text that is no group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an NSID authority or NSID such as xyz.groundmist.library: 2 or more parts joined by dots, each 1 to 63 letters, \
     digits or inner hyphens, the first beginning with a letter, 240 characters in all"
)]
pub struct InvalidGroup;

impl Group {
    /// Most characters. NSIDs may be longer, file names with `.db-journal` at their end may not.
    const BYTES_MAX: usize = 240;
    /// Most characters of a part.
    const PART_BYTES_MAX: usize = 63;

    /// The group's name, as it is written everywhere.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Group {
    type Err = InvalidGroup;

    fn from_str(text: &str) -> Result<Self, InvalidGroup> {
        let (authority, name) = match text.rsplit_once('.') {
            Some((authority, name)) if authority.contains('.') && is_nsid_name(name) => {
                (authority, Some(name))
            }
            _ => (text, None),
        };
        if text.len() > Self::BYTES_MAX || !is_authority(authority) {
            return Err(InvalidGroup);
        }
        let authority = authority.to_ascii_lowercase();
        Ok(Self(match name {
            Some(name) => format!("{authority}.{name}"),
            None => authority,
        }))
    }
}

impl TryFrom<String> for Group {
    type Error = InvalidGroup;

    fn try_from(text: String) -> Result<Self, InvalidGroup> {
        text.parse()
    }
}

impl From<Group> for String {
    fn from(group: Group) -> Self {
        group.0
    }
}

fn is_authority(text: &str) -> bool {
    text.contains('.')
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.split('.').all(is_part)
}

fn is_part(part: &str) -> bool {
    (1..=Group::PART_BYTES_MAX).contains(&part.len())
        && part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !part.starts_with('-')
        && !part.ends_with('-')
}

/// Whether the last part of a text can only be the name of an NSID: one in lower case is a part of an authority too.
fn is_nsid_name(part: &str) -> bool {
    (1..=Group::PART_BYTES_MAX).contains(&part.len())
        && part.starts_with(|first: char| first.is_ascii_alphabetic())
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && part.bytes().any(|byte| byte.is_ascii_uppercase())
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<String> {
        text.parse::<Group>().ok().map(|group| group.to_string())
    }

    #[test]
    fn an_authority_is_kept_in_lower_case_and_a_name_as_it_is() {
        assert_eq!(
            parsed("XYZ.Groundmist.library").as_deref(),
            Some("xyz.groundmist.library")
        );
        assert_eq!(
            parsed("xyz.GROUNDMIST.bookList").as_deref(),
            Some("xyz.groundmist.bookList")
        );
        assert_eq!(parsed("Xyz.Groundmist").as_deref(), Some("xyz.groundmist"));
        assert_eq!(
            parsed("xyz.ground-mist.2").as_deref(),
            Some("xyz.ground-mist.2")
        );
    }

    #[test]
    fn what_is_not_an_authority_is_refused() {
        for text in [
            "", "xyz", ".", "xyz.", ".xyz", "xyz..a", "1yz.a", "xyz.-a", "xyz.a-", "xyz.a b",
            "xyz.ä", "xyz.a/b", "../xyz.a", "xyz.a\0", "xyz.a\n", "xyz.a_b", "xyz.*", "-xyz.a",
        ] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    #[test]
    fn lengths_are_limited() {
        let part = "a".repeat(63);
        assert!(parsed(&format!("a.{part}")).is_some());
        assert!(parsed(&format!("a.{part}a")).is_none());
        let longest = format!("{part}.{part}.{part}.{}", "a".repeat(48));
        assert_eq!(longest.len(), 240);
        assert!(parsed(&longest).is_some());
        assert!(parsed(&format!("{longest}a")).is_none());
        assert!(parsed(&format!("{part}.{part}.{part}.A{}", "a".repeat(48))).is_none());
    }
}
