//! DPoP nonces: what a proof must repeat, so that it cannot have been made long before.
//!
//! A nonce is the HMAC of a time slot. Nothing is kept of those that were given out, and a flood costs no memory. The
//! key is made when the server starts: nonces of an earlier run are none of this one's, and neither are proofs.
//!
//! Source: RFC 9449, sections 8 and 9.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How long a slot lasts, in seconds. A nonce is good in its slot and in the next one.
pub(super) const SLOT_S: i64 = 150;

/// Makes nonces, and knows them again.
pub(super) struct Nonces(Hmac<Sha256>);

impl Nonces {
    /// Nonces of a new key.
    ///
    /// # Errors
    /// What the operating system says if it has no randomness.
    #[expect(
        clippy::expect_used,
        reason = "an HMAC takes a key of any length, and this one has 32 bytes"
    )]
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self(
            Hmac::new_from_slice(&key).expect("HMAC takes keys of any length"),
        ))
    }

    /// The nonce to give out now.
    pub(super) fn current(&self, now_s: i64) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.mac(slot(now_s)).finalize().into_bytes())
    }

    /// Whether a nonce is one of ours, and not too old.
    pub(super) fn is_good(&self, nonce: &str, now_s: i64) -> bool {
        let Ok(tag) = BASE64_URL_SAFE_NO_PAD.decode(nonce) else {
            return false;
        };
        let slot = slot(now_s);
        // compares in constant time
        [slot, slot - 1]
            .into_iter()
            .any(|slot| self.mac(slot).verify_slice(&tag).is_ok())
    }

    fn mac(&self, slot: i64) -> Hmac<Sha256> {
        self.0.clone().chain_update(slot.to_be_bytes())
    }
}

/// The number of the slot that a time lies in.
pub(super) fn slot(now_s: i64) -> i64 {
    now_s.div_euclid(SLOT_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_for_its_slot_and_the_next() {
        let nonces = Nonces::new().unwrap();
        let nonce = nonces.current(1_000 * SLOT_S);
        assert!(nonces.is_good(&nonce, 1_000 * SLOT_S));
        assert!(nonces.is_good(&nonce, 1_002 * SLOT_S - 1));
        assert!(!nonces.is_good(&nonce, 1_002 * SLOT_S));
        assert!(
            !nonces.is_good(&nonce, 1_000 * SLOT_S - 1),
            "from the future"
        );
    }

    #[test]
    fn a_nonce_of_another_run_or_none_at_all_is_refused() {
        let (nonces, earlier) = (Nonces::new().unwrap(), Nonces::new().unwrap());
        for nonce in ["", "x", "AAAA", &earlier.current(0)] {
            assert!(!nonces.is_good(nonce, 0), "{nonce}");
        }
    }
}
