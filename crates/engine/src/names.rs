//! Document ids as frames write them: one that was checked lately is not checked again.
//!
//! A text in bs58check is a document id if two rounds of SHA-256 say so. Frame after frame names the same few
//! documents, and for a short message that check took longer than everything else about it.

use crate::ids::{DocumentId, InvalidDocumentId};

/// How many texts are remembered; each has one place, and the last one there stays.
const PLACES: usize = 64;

/// The document ids of the last frames. It only ever saves time: what it says of a text is what
/// [`DocumentId::from_str`](std::str::FromStr::from_str) says.
pub(crate) struct Names(Box<[Name; PLACES]>);

#[derive(Clone, Copy)]
struct Name {
    /// The first `length` bytes are the text.
    text: [u8; DocumentId::TEXT_BYTES_MAX],
    /// 0: none yet, as no document id is an empty text.
    length: usize,
    id: DocumentId,
}

impl Default for Names {
    fn default() -> Self {
        let nothing = Name {
            text: [0; DocumentId::TEXT_BYTES_MAX],
            length: 0,
            id: DocumentId::from_bytes([0; 16]),
        };
        Self(Box::new([nothing; PLACES]))
    }
}

impl Names {
    /// The document id that a text is.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn parse(&mut self, text: &str) -> Result<DocumentId, InvalidDocumentId> {
        // the last digits are those of the checksum: as good as random
        let [.., one, two] = text.as_bytes() else {
            return Err(InvalidDocumentId);
        };
        let place = (usize::from(*one) * 58 + usize::from(*two)) % PLACES;
        let Some(name) = self.0.get_mut(place) else {
            return text.parse();
        };
        if name.text.get(..name.length) != Some(text.as_bytes()) {
            *name = Name::parse(text)?;
        }
        Ok(name.id)
    }
}

impl Name {
    fn parse(text: &str) -> Result<Self, InvalidDocumentId> {
        let id = text.parse()?;
        let (mut bytes, length) = ([0; DocumentId::TEXT_BYTES_MAX], text.len());
        let room = bytes.get_mut(..length).ok_or(InvalidDocumentId)?;
        room.copy_from_slice(text.as_bytes());
        Ok(Self {
            text: bytes,
            length,
            id,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_says_of_every_text_what_the_check_says(
            ids in proptest::collection::vec(any::<[u8; 16]>(), 1..200),
            asked in proptest::collection::vec((any::<prop::sample::Index>(), 0..30usize, any::<char>()), 1..400),
        ) {
            let mut names = Names::default();
            for (which, at, other) in asked {
                let right = DocumentId::from_bytes(*which.get(&ids)).to_string();
                let wrong: String = right
                    .chars()
                    .enumerate()
                    .map(|(n, digit)| if n == at { other } else { digit })
                    .collect();
                for text in [&right, &wrong, &right] {
                    prop_assert_eq!(names.parse(text), text.parse(), "{}", text);
                }
            }
        }
    }

    #[test]
    fn texts_that_are_no_document_ids_are_refused_each_time() {
        let mut names = Names::default();
        let known = DocumentId::from_bytes([7; 16]).to_string();
        assert!(names.parse(&known).is_ok());
        let shorter = &known[1..];
        let longer = format!("1{known}");
        for text in ["", "x", "é", shorter, &longer, &"1".repeat(100)] {
            for _ in 0..2 {
                assert_eq!(names.parse(text), Err(InvalidDocumentId), "{text}");
            }
        }
    }
}
