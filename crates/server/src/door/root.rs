//! Root documents: the document that an app starts from, one for each app and group.

use std::{fmt, str::FromStr};

use engine::DocumentId;

/// The URL of a root document: `automerge:` and a document id, without heads, since a root is a document and not one of
/// its versions.
///
/// Source: automerge-repo, "AutomergeUrl".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootUrl(DocumentId);

/// A text that is no such URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Automerge URL: expected automerge: and a document id")]
pub struct InvalidRootUrl;

impl FromStr for RootUrl {
    type Err = InvalidRootUrl;

    fn from_str(text: &str) -> Result<Self, InvalidRootUrl> {
        let id = text.strip_prefix("automerge:").ok_or(InvalidRootUrl)?;
        id.parse().map(Self).map_err(|_| InvalidRootUrl)
    }
}

impl fmt::Display for RootUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "automerge:{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_a_root_and_a_version_of_one_is_not() {
        let url = format!("automerge:{}", DocumentId::from_bytes([7; 16]));
        assert_eq!(url.parse::<RootUrl>().unwrap().to_string(), url);
        for text in [
            "",
            "automerge:",
            "undefined",
            "automerge:undefined",
            "http://a.example",
        ] {
            assert_eq!(text.parse::<RootUrl>(), Err(InvalidRootUrl), "{text}");
        }
        assert_eq!(format!("{url}#abc").parse::<RootUrl>(), Err(InvalidRootUrl));
        let mut wrong_checksum = url.clone();
        let last = wrong_checksum.pop().unwrap();
        wrong_checksum.push(if last == '1' { '2' } else { '1' });
        assert_eq!(wrong_checksum.parse::<RootUrl>(), Err(InvalidRootUrl));
    }
}
