//! Bloom filters over change hashes, as they stand in sync messages.
//!
//! Source: Automerge sync protocol, "bloom filters". The filter is read where it lies: checking its size against
//! its claims costs nothing, and no filter is ever built here (a `have` with our heads as `last_sync` says the
//! same in 32 bytes).

use crate::{
    ids::ChangeHash,
    leb128::{Malformed, Reader},
    limits::BLOOM_PROBES_MAX,
};

/// A filter whose claims fit its bytes; an empty one contains nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BloomFilter<'a> {
    probes: u32,
    bits: &'a [u8],
}

impl<'a> BloomFilter<'a> {
    /// # Errors
    /// [`Malformed`] if the bytes are no filter: wrong length, no bits for its entries, too many probes.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.is_empty() {
            return Ok(Self {
                probes: 0,
                bits: &[],
            });
        }
        let mut reader = Reader::new(bytes);
        let entries = reader.number()?;
        let bits_per_entry = reader.number()?;
        let probes = u32::try_from(reader.number()?).map_err(|_| Malformed)?;
        let bits = entries
            .checked_mul(bits_per_entry)
            .ok_or(Malformed)?
            .div_ceil(8);
        let fits = bits == reader.remaining() as u64;
        if entries == 0 || bits == 0 || !fits || probes == 0 || probes > BLOOM_PROBES_MAX {
            return Err(Malformed);
        }
        Ok(Self {
            probes,
            bits: reader.rest(),
        })
    }

    /// Whether it has no entries.
    pub(crate) const fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }

    /// Whether the hash may be among the entries: true for each entry, and for about 1 % of all others.
    pub(crate) fn contains(&self, hash: &ChangeHash) -> bool {
        let Ok(modulo) = u32::try_from(8 * self.bits.len()) else {
            return false;
        };
        if modulo == 0 {
            return false;
        }
        let mut words = hash.as_bytes().chunks_exact(4).map(|word| {
            let word = word
                .first_chunk()
                .map_or(0, |bytes| u32::from_le_bytes(*bytes));
            u64::from(word % modulo)
        });
        let (Some(mut x), Some(mut y), Some(z)) = (words.next(), words.next(), words.next()) else {
            return false;
        };
        let modulo = u64::from(modulo);
        for _ in 0..self.probes {
            if !self.bit(x) {
                return false;
            }
            x = (x + y) % modulo;
            y = (y + z) % modulo;
        }
        true
    }

    fn bit(&self, at: u64) -> bool {
        let byte = usize::try_from(at / 8)
            .ok()
            .and_then(|byte| self.bits.get(byte));
        byte.is_some_and(|byte| byte & (1 << (at % 8)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use automerge::sync::BloomFilter as Reference;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_answers_as_automerge_does(
            inside in proptest::collection::vec(any::<[u8; 32]>(), 0..40),
            outside in proptest::collection::vec(any::<[u8; 32]>(), 0..40),
        ) {
            let entries: Vec<_> = inside.iter().map(|hash| automerge::ChangeHash(*hash)).collect();
            let reference = Reference::from_hashes(entries.iter());
            let bytes = reference.to_bytes();
            let ours = BloomFilter::parse(&bytes).unwrap();
            for hash in inside.iter().chain(&outside) {
                prop_assert_eq!(
                    ours.contains(&ChangeHash::from_bytes(*hash)),
                    reference.contains_hash(&automerge::ChangeHash(*hash))
                );
            }
        }
    }

    #[test]
    fn filters_made_to_hurt_are_refused() {
        let hostile: &[&[u8]] = &[
            &[1, 0, 7],                             // no bits: a division by zero in the library
            &[0, 10, 7],                            // no entries
            &[1, 10, 0xff, 0xff, 0xff, 0x7f, 0, 0], // 268 million probes: seconds per hash
            &[0xff, 0xff, 0xff, 0xff, 0x0f, 10, 7], // gigabytes claimed
            &[1, 10, 7, 0],                         // too short
            &[1, 10, 7, 0, 0, 0],                   // too long
        ];
        for bytes in hostile {
            assert_eq!(BloomFilter::parse(bytes), Err(Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn an_entry_is_probed_as_often_as_the_limit_and_not_once_more() {
        let probes = |count| [1, 10, count, 0xff, 0xff];
        let most = u8::try_from(BLOOM_PROBES_MAX).unwrap();
        assert!(BloomFilter::parse(&probes(most)).is_ok());
        assert_eq!(BloomFilter::parse(&probes(most + 1)), Err(Malformed));
    }
}
