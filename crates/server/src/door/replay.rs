//! Proofs that have been used.
//!
//! A DPoP proof is good for one request. What is kept of one is a hash, until its nonce is too old for it to be shown
//! again. Proofs of devices that are let in come here, those that go with service auth of the owner, and those of strangers
//! at door A, who are counted before: they show two hundred a second in all, which is a sixth of the room. When it is full
//! all the same, proofs are refused rather than forgotten. A restart forgets all, and makes all nonces invalid.
//!
//! Source: RFC 9449, section 11.1.

use std::collections::{HashSet, VecDeque};

use sha2::{Digest, Sha256};

use super::nonce;

/// Most proofs that are kept of one time slot: over a thousand a second, and 7 MB.
const PROOFS_MAX: usize = 200_000;
/// How many slots before the current one are remembered. The nonce of slot n is good until the end of slot n + 1. A
/// proof that is found good in its last moment is noted once the owner's keys have been fetched and the database has
/// been written to, which takes seconds: in slot n + 2.
const EARLIER_SLOTS: usize = 2;

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

/// The proofs of the current time slot and of those before that count, the latest first.
#[derive(Default)]
pub(super) struct UsedProofs {
    slot: i64,
    current: HashSet<Mark>,
    earlier: VecDeque<HashSet<Mark>>,
}

impl UsedProofs {
    /// Notes that a verified proof was shown, by the thumbprint of its key and its `jti`.
    pub(super) fn show(&mut self, thumbprint: &str, jti: &str, now_s: i64) -> Shown {
        self.turn(nonce::slot(now_s));
        let mark = mark(thumbprint, jti);
        if self.earlier.iter().any(|marks| marks.contains(&mark)) {
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

    fn turn(&mut self, slot: i64) {
        // those that are passed over have no marks, and more of them than are remembered make no difference
        let passed = self.slot..slot;
        for _ in passed.take(EARLIER_SLOTS + 1) {
            self.earlier.push_front(std::mem::take(&mut self.current));
            self.earlier.truncate(EARLIER_SLOTS);
        }
        self.slot = self.slot.max(slot);
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
    fn a_proof_that_is_found_good_at_the_end_of_its_time_and_noted_later_is_not_good_twice() {
        let (mut used, nonces) = (UsedProofs::default(), nonce::Nonces::new().unwrap());
        let nonce = nonces.current(nonce::SLOT_S);
        assert_eq!(used.show("key", "a", nonce::SLOT_S), Shown::First);
        let last = 3 * nonce::SLOT_S - 1;
        assert!(nonces.is_good(&nonce, last));
        // something is fetched meanwhile, which takes less than a slot
        assert_eq!(used.show("other", "b", last + 1), Shown::First);
        let noted = last + nonce::SLOT_S;
        assert_eq!(used.show("key", "a", noted), Shown::Again);
        assert_eq!(used.show("key", "a", noted + 1), Shown::First);
    }

    #[test]
    fn slots_in_which_nothing_is_shown_pass_too() {
        let mut used = UsedProofs::default();
        assert_eq!(used.show("key", "a", 0), Shown::First);
        assert_eq!(used.show("key", "b", 2 * nonce::SLOT_S), Shown::First);
        assert_eq!(used.show("key", "a", 2 * nonce::SLOT_S), Shown::Again);
        assert_eq!(used.show("key", "b", 4 * nonce::SLOT_S), Shown::Again);
        assert_eq!(used.show("key", "b", 1_000_000), Shown::First);
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
