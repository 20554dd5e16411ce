//! What is looked at of a message, and perhaps kept.

use bytes::Bytes;

use crate::limits::SHARED_BYTES_MAX;

/// Bytes that lie in a longer message. Most of them are looked at and forgotten, which costs nothing; what is to outlive
/// the message is [kept](Self::keep).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Excerpt<'a> {
    whole: &'a Bytes,
    bytes: &'a [u8],
}

impl<'a> Excerpt<'a> {
    /// These bytes, which lie in `whole`.
    pub(crate) const fn new(whole: &'a Bytes, bytes: &'a [u8]) -> Self {
        Self { whole, bytes }
    }

    /// All of a message.
    pub(crate) fn all(whole: &'a Bytes) -> Self {
        Self::new(whole, whole)
    }

    /// Some of its bytes.
    pub(crate) const fn excerpt(self, bytes: &'a [u8]) -> Self {
        Self::new(self.whole, bytes)
    }

    pub(crate) const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes, to be kept. They share the memory of the whole if they are most of it: nobody has us keep megabytes for
    /// the sake of some bytes among them.
    pub(crate) fn keep(self) -> Bytes {
        let Self { whole, bytes } = self;
        if whole.len() <= SHARED_BYTES_MAX || whole.len() / 2 <= bytes.len() {
            whole.slice_ref(bytes)
        } else {
            Bytes::copy_from_slice(bytes)
        }
    }
}

/// By the bytes, wherever they lie.
impl PartialEq for Excerpt<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_part_does_not_keep_a_long_message_and_a_long_one_is_not_copied() {
        let whole = Bytes::from(vec![1; 1 << 20]);
        let short = Excerpt::new(&whole, whole.get(5..9).unwrap()).keep();
        assert_eq!(&short[..], [1; 4]);
        assert!(whole.is_unique(), "nobody else holds it");
        let long = Excerpt::new(&whole, whole.get(5..).unwrap()).keep();
        assert_eq!(long.as_ptr(), whole.get(5..).unwrap().as_ptr());
    }

    #[test]
    fn excerpts_are_alike_by_their_bytes_wherever_they_lie() {
        let (one, other) = (Bytes::from(vec![1, 2, 1]), Bytes::from(vec![1]));
        let first = Excerpt::all(&one).excerpt(&one[..1]);
        let second = Excerpt::all(&one).excerpt(&one[1..2]);
        let third = Excerpt::all(&one).excerpt(&one[2..]);
        assert_eq!(first, third);
        assert_eq!(first, Excerpt::all(&other));
        assert_ne!(first, second);
        assert_ne!(first, Excerpt::all(&one));
    }
}
