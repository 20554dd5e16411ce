//! JSON, read strictly: no member twice, and none unseen that must not be there.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny},
};

/// Reads a JSON object; none if the text is anything else, or not of the right form.
///
/// What the parser says of a fault may quote the text, and is dropped.
pub(crate) fn object<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    // To the parser, an array of the members in order would be as good.
    if !json.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    serde_json::from_slice(json).ok()
}

/// Whether a member of a JSON object is there at all, `null` included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Member {
    /// It is not.
    #[default]
    Absent,
    /// It is, whatever it holds.
    Present,
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self::Present)
    }
}
