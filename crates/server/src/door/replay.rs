//! Proofs that have been used.
//!
//! A DPoP proof is good for one request. What is kept of one is a hash, until its nonce is too old for it to be shown
//! again. Only proofs of devices that are let in come here, and those that go with service auth of the owner, so nobody
//! else can fill the memory; when it is full all the same, proofs are refused rather than forgotten. A restart forgets
//! all, and makes all nonces invalid.
//!
//! Source: RFC 9449, section 11.1.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use super::nonce;

/// Most proofs that are kept of one time slot: over a thousand a second, and 7 MB.
const PROOFS_MAX: usize = 200_000;

/// What became of a proof that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// It was not seen before.
    First,
    /// It was.
    Again,
    /// There is no room to keep it.
    Full,
}

type Mark = [u8; 16];

/// The proofs of the current time slot and of the one before.
#[derive(Default)]
pub(super) struct UsedProofs {
    slot: i64,
    current: HashSet<Mark>,
    previous: HashSet<Mark>,
}

impl UsedProofs {
    /// Notes that a verified proof was shown, by the thumbprint of its key and its `jti`.
    pub(super) fn show(&mut self, thumbprint: &str, jti: &str, now_s: i64) -> Shown {
        self.turn(nonce::slot(now_s));
        let mark = mark(thumbprint, jti);
        if self.previous.contains(&mark) {
            return Shown::Again;
        }
        if self.current.len() >= PROOFS_MAX && !self.current.contains(&mark) {
            return Shown::Full;
        }
        if self.current.insert(mark) {
            Shown::First
        } else {
            Shown::Again
        }
    }

    /// A proof is shown with a nonce of the current slot or the one before it, so a mark of slot n is needed until the
    /// end of slot n + 1.
    fn turn(&mut self, slot: i64) {
        if slot <= self.slot {
            return;
        }
        let is_next = slot == self.slot + 1;
        self.slot = slot;
        self.previous = std::mem::take(&mut self.current);
        if !is_next {
            self.previous = HashSet::new();
        }
    }
}

fn mark(thumbprint: &str, jti: &str) -> Mark {
    // a thumbprint has one length, so the two cannot be mistaken for another pair
    let hash: [u8; 32] = Sha256::new()
        .chain_update(thumbprint)
        .chain_update(jti)
        .finalize()
        .into();
    let mut mark = Mark::default();
    mark.copy_from_slice(hash.first_chunk::<16>().unwrap_or(&[0; 16]));
    mark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_good_once_for_as_long_as_its_nonce_lives() {
        let mut used = UsedProofs::default();
        assert_eq!(used.show("key", "a", 0), Shown::First);
        assert_eq!(used.show("key", "a", 0), Shown::Again);
        assert_eq!(used.show("other", "a", 0), Shown::First);
        assert_eq!(used.show("key", "a", 2 * nonce::SLOT_S - 1), Shown::Again);
        assert_eq!(used.show("key", "a", 3 * nonce::SLOT_S), Shown::First);
    }

    #[test]
    fn a_clock_that_goes_back_forgets_no_proof() {
        let mut used = UsedProofs::default();
        assert_eq!(used.show("key", "a", 10 * nonce::SLOT_S), Shown::First);
        assert_eq!(used.show("key", "a", 0), Shown::Again);
    }

    #[test]
    fn when_the_memory_is_full_proofs_are_refused() {
        let mut used = UsedProofs::default();
        for number in 0..PROOFS_MAX {
            assert_eq!(used.show("key", &number.to_string(), 0), Shown::First);
        }
        assert_eq!(used.show("key", "one more", 0), Shown::Full);
        assert_eq!(used.show("key", "0", 0), Shown::Again);
    }
}
