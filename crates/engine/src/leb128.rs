//! Unsigned LEB128, the number format of Automerge's binary formats, and a bounded reader over bytes.

/// The input ended early, or a number does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("truncated or overlong input")]
pub(crate) struct Malformed;

/// Appends `value`.
pub(crate) fn write(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Takes pieces off the front of a byte slice; nothing is allocated, nothing is read past the end.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.rest.split_first().ok_or(Malformed)?;
        self.rest = rest;
        Ok(first)
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // the tenth byte holds one bit
            if shift == 63 && bits > 1 {
                return Err(Malformed);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// A number that counts things of at least `item_bytes` each in the rest of the input, so that a claim
    /// of more than can follow is refused before anything is allocated for it.
    pub(crate) fn count(&mut self, item_bytes: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        match count.checked_mul(item_bytes) {
            Some(bytes) if bytes <= self.rest.len() => Ok(count),
            _ => Err(Malformed),
        }
    }

    /// A length and as many bytes.
    pub(crate) fn prefixed(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.count(1)?;
        self.take(length)
    }

    /// Skips a signed LEB128 number.
    pub(crate) fn skip_signed(&mut self) -> Result<(), Malformed> {
        for _ in 0..10 {
            if self.byte()? & 0x80 == 0 {
                return Ok(());
            }
        }
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_survives(value: u64) {
            let mut out = Vec::new();
            write(&mut out, value);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.number(), Ok(value));
            prop_assert!(reader.is_empty());
        }
    }

    #[test]
    fn overlong_and_truncated_numbers_are_refused() {
        for bytes in [&[0x80u8; 11][..], &[0xff; 10], &[0x80], &[]] {
            assert_eq!(Reader::new(bytes).number(), Err(Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn a_count_of_more_than_can_follow_is_refused() {
        let mut bytes = Vec::new();
        write(&mut bytes, 1 << 40);
        bytes.extend([0; 64]);
        assert_eq!(Reader::new(&bytes).count(32), Err(Malformed));
        assert_eq!(Reader::new(&[2, 0, 0]).count(1), Ok(2));
    }

    #[test]
    fn the_greatest_number_is_read_and_one_more_is_not() {
        let mut greatest = Vec::new();
        write(&mut greatest, u64::MAX);
        assert_eq!(Reader::new(&greatest).number(), Ok(u64::MAX));
        // its tenth byte holds one bit
        *greatest.last_mut().unwrap() += 1;
        assert_eq!(Reader::new(&greatest).number(), Err(Malformed));
    }

    #[test]
    fn a_count_of_exactly_as_many_as_follow_is_taken() {
        let mut bytes = vec![2];
        bytes.extend([0; 64]);
        assert_eq!(Reader::new(&bytes).count(32), Ok(2));
        assert_eq!(Reader::new(&bytes[..64]).count(32), Err(Malformed));
    }

    #[test]
    fn a_signed_number_has_ten_bytes_at_most() {
        let mut bytes = vec![0x80; 9];
        bytes.extend([0, 7]);
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.skip_signed(), reader.byte()), (Ok(()), Ok(7)));
        bytes.insert(0, 0x80);
        assert_eq!(Reader::new(&bytes).skip_signed(), Err(Malformed));
    }
}
