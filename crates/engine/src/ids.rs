//! Names of things: documents, changes, connections, peers.

use std::{fmt, str::FromStr};

/// A document's id: 16 bytes, written as bs58check on the wire.
///
/// Source: automerge-repo network protocol, "document ids".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentId([u8; 16]);

/// A text that is no document id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a document id: expected bs58check of 16 bytes")]
pub struct InvalidDocumentId;

impl DocumentId {
    /// The longest text that can be a document id: base58 of 20 bytes.
    pub(crate) const TEXT_BYTES_MAX: usize = 28;

    /// The id with these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id's 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for DocumentId {
    type Err = InvalidDocumentId;

    fn from_str(text: &str) -> Result<Self, InvalidDocumentId> {
        if text.len() > Self::TEXT_BYTES_MAX {
            return Err(InvalidDocumentId);
        }
        // 16 bytes of id and 4 of checksum; the decoder wants room for both
        let mut bytes = [0u8; 20];
        let length = bs58::decode(text)
            .with_check(None)
            .onto(&mut bytes)
            .map_err(|_| InvalidDocumentId)?;
        match bytes.first_chunk::<16>() {
            Some(id) if length == 16 => Ok(Self(*id)),
            _ => Err(InvalidDocumentId),
        }
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.0).with_check().into_string())
    }
}

impl fmt::Debug for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The SHA-256 of a change, its name in the change graph.
///
/// Source: Automerge binary format, "change hashes".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeHash([u8; 32]);

impl ChangeHash {
    /// Length in bytes.
    pub const BYTES: usize = 32;

    /// The hash with these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash's 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One WebSocket, numbered by the driver; never used twice while the server runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One request to the store or to the worker; its answer comes back under the same number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_id_survives_its_text() {
        let id = DocumentId::from_bytes([7; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn texts_that_are_no_document_ids_are_refused() {
        let short = bs58::encode([1, 2, 3, 4]).with_check().into_string();
        let long = bs58::encode([7; 64]).with_check().into_string();
        let mut wrong_check = DocumentId::from_bytes([7; 16]).to_string();
        let flipped = if wrong_check.starts_with('A') {
            "B"
        } else {
            "A"
        };
        wrong_check.replace_range(0..1, flipped);
        for text in [
            "",
            "../../etc",
            "__proto__",
            "0OIl",
            &short,
            &long,
            &wrong_check,
        ] {
            assert_eq!(text.parse::<DocumentId>(), Err(InvalidDocumentId), "{text}");
        }
    }

    #[test]
    fn the_longest_text_of_a_document_id_is_read() {
        let longest = DocumentId::from_bytes([0xff; 16]);
        let text = longest.to_string();
        assert_eq!(text.len(), DocumentId::TEXT_BYTES_MAX);
        assert_eq!(text.parse(), Ok(longest));
    }

    #[test]
    fn logs_name_a_change_in_hex_and_a_connection_by_its_number() {
        let hash = ChangeHash::from_bytes([0x0a; 32]);
        assert_eq!(
            format!("{hash} {hash:?}"),
            format!("{0} {0}", "0a".repeat(32))
        );
        assert_eq!(ConnectionId(7).to_string(), "7");
    }
}
