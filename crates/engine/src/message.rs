//! Automerge sync messages, read with bounds and written to be cheap for the other side.
//!
//! Source: Automerge sync protocol. First byte 0x42 or 0x43, heads, need, have, changes, and behind them optional
//! flags. The two versions differ in how changes travel: one chunk per entry (0x42), or all in one entry (0x43).

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    bloom::BloomFilter,
    excerpt::Excerpt,
    ids::ChangeHash,
    leb128::{self, Malformed, Reader},
    limits::{HASHES_MAX, HAVES_MAX},
};

const VERSION_1: u8 = 0x42;
const VERSION_2: u8 = 0x43;
/// The one flag of the first generation: "I read version 2".
const FLAG_READS_VERSION_2: u8 = 0x02;
const FLAG_BITS: u8 = 0x80;
const BIT_SYNC_RESET: u8 = 1;
const BIT_READ_ONLY: u8 = 1 << 1;
const BIT_SUPPORTS_SYNC_RESET: u8 = 1 << 2;

/// Hashes in a message. Most messages name one at each place, for which nothing is allocated.
pub(crate) type Hashes = SmallVec<[ChangeHash; 1]>;

/// What the sender has: everything up to `last_sync`, and beyond it what the filter contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Have<'a> {
    pub(crate) last_sync: Hashes,
    pub(crate) bloom: BloomFilter<'a>,
}

/// The flags behind a message; that there are any means that the sender reads version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags {
    /// "Forget what you have sent me."
    pub(crate) sync_reset: bool,
    /// "I take no changes."
    pub(crate) read_only: bool,
    /// The sender understands `sync_reset`.
    pub(crate) supports_sync_reset: bool,
    /// The flags came as bits: Automerge 2.2.9 / 3 and later, and so automerge-repo 2.
    pub(crate) as_bits: bool,
}

/// A message as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyncMessage<'a> {
    /// Ascending, without duplicates.
    pub(crate) heads: Hashes,
    pub(crate) need: Hashes,
    pub(crate) have: SmallVec<[Have<'a>; 1]>,
    /// The entries' bytes, one after the other; chunks, not yet looked at.
    pub(crate) changes: Bytes,
    pub(crate) flags: Option<Flags>,
}

impl<'a> SyncMessage<'a> {
    /// Reads a message, the `data` of a frame.
    ///
    /// # Errors
    /// [`Malformed`] if it is none, or one beyond the limits.
    pub(crate) fn parse(data: Excerpt<'a>) -> Result<Self, Malformed> {
        let mut reader = Reader::new(data.bytes());
        if !matches!(reader.byte()?, VERSION_1 | VERSION_2) {
            return Err(Malformed);
        }
        let mut heads = hashes(&mut reader, HASHES_MAX)?;
        heads.sort_unstable();
        heads.dedup();
        let need = hashes(&mut reader, HASHES_MAX)?;
        let have = haves(&mut reader)?;
        let changes = changes(data, &mut reader)?;
        let flags = if reader.is_empty() {
            None
        } else {
            Some(Flags::parse(reader.prefixed()?))
        };
        Ok(Self {
            heads,
            need,
            have,
            changes,
            flags,
        })
    }
}

impl SyncMessage<'_> {
    /// Whether its sender has nothing of the document and sends nothing.
    pub(crate) fn wants_everything(&self) -> bool {
        self.heads.is_empty() && self.changes.is_empty()
    }

    /// Whether its sender could make nothing of what it was sent, and asks to begin anew.
    ///
    /// Source: Automerge sync protocol, "reset": heads, and a `have` that contains nothing.
    pub(crate) fn is_reset(&self) -> bool {
        let nothing = |have: &Have<'_>| have.last_sync.is_empty() && have.bloom.is_empty();
        !self.heads.is_empty() && self.changes.is_empty() && self.have.iter().any(nothing)
    }
}

impl Flags {
    fn parse(bytes: &[u8]) -> Self {
        let bits = bytes
            .iter()
            .filter(|byte| *byte & FLAG_BITS != 0)
            .fold(0, |all, byte| all | byte);
        Self {
            sync_reset: bits & BIT_SYNC_RESET != 0,
            read_only: bits & BIT_READ_ONLY != 0,
            supports_sync_reset: bits & BIT_SUPPORTS_SYNC_RESET != 0,
            as_bits: bits & FLAG_BITS != 0,
        }
    }
}

/// The flags of a message, without the rest of it.
pub(crate) fn flags_of(bytes: &[u8]) -> Option<Flags> {
    // the flags stand at the end: 2 02 8x, or 1 02 in the first generation
    match *bytes.last_chunk::<3>()? {
        [2, FLAG_READS_VERSION_2, bits] if bits & FLAG_BITS != 0 => Some(Flags::parse(&[bits])),
        [.., 1, FLAG_READS_VERSION_2] => Some(Flags::parse(&[FLAG_READS_VERSION_2])),
        _ => None,
    }
}

fn hashes(reader: &mut Reader<'_>, count_max: usize) -> Result<Hashes, Malformed> {
    let count = reader.count(ChangeHash::BYTES)?;
    if count > count_max {
        return Err(Malformed);
    }
    let mut hashes = Hashes::with_capacity(count);
    for _ in 0..count {
        hashes.push(ChangeHash::from_bytes(reader.array()?));
    }
    Ok(hashes)
}

fn haves<'a>(reader: &mut Reader<'a>) -> Result<SmallVec<[Have<'a>; 1]>, Malformed> {
    let count = reader.count(2)?;
    if count > HAVES_MAX {
        return Err(Malformed);
    }
    let mut haves = SmallVec::with_capacity(count);
    for _ in 0..count {
        let last_sync = hashes(reader, HASHES_MAX)?;
        haves.push(Have {
            last_sync,
            bloom: BloomFilter::parse(reader.prefixed()?)?,
        });
    }
    Ok(haves)
}

/// The entries joined; a single entry, the usual case, is not copied if it is most of the message.
fn changes<'a>(data: Excerpt<'a>, reader: &mut Reader<'a>) -> Result<Bytes, Malformed> {
    let count = reader.count(1)?;
    if count == 1 {
        return Ok(data.excerpt(reader.prefixed()?).keep());
    }
    let mut joined = Vec::new();
    for _ in 0..count {
        joined.extend_from_slice(reader.prefixed()?);
    }
    Ok(joined.into())
}

/// The version in which changes are written: what the other side has shown that it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    One,
    Two,
}

/// What our message says that we have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OurHave {
    /// Everything up to the message's heads.
    Heads,
    /// Nothing known: "send me all that you have" (an empty `last_sync` and an empty filter).
    Unknown,
}

/// A message to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) version: Version,
    /// Ascending.
    pub(crate) heads: &'a [ChangeHash],
    /// Ascending.
    pub(crate) need: &'a [ChangeHash],
    pub(crate) have: OurHave,
    /// Chunks, each piece a whole number of them.
    pub(crate) changes: &'a [Bytes],
    pub(crate) sync_reset: bool,
    /// The receiver's session may not write: ask it not to.
    pub(crate) read_only: bool,
}

impl Outgoing<'_> {
    /// The message's bytes; those of `last`, if they are the same.
    pub(crate) fn encode_unless(&self, last: &mut Option<Encoded>) -> Bytes {
        match last {
            Some(encoded) if encoded.is_of(self) => encoded.bytes.clone(),
            _ => last.insert(Encoded::new(self)).bytes.clone(),
        }
    }

    /// The message's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let changes: usize = self.changes.iter().map(Bytes::len).sum();
        let hashes = self.heads.len() * 2 + self.need.len();
        let mut out = Vec::with_capacity(changes + hashes * ChangeHash::BYTES + 64);
        out.push(match self.version {
            Version::One => VERSION_1,
            Version::Two => VERSION_2,
        });
        write_hashes(&mut out, self.heads);
        write_hashes(&mut out, self.need);
        leb128::write(&mut out, 1);
        let have = match self.have {
            OurHave::Heads => self.heads,
            OurHave::Unknown => &[],
        };
        write_hashes(&mut out, have);
        leb128::write(&mut out, 0);
        self.write_changes(&mut out, changes);
        out.extend([2, FLAG_READS_VERSION_2, FLAG_BITS | self.flag_bits()]);
        out
    }

    fn write_changes(&self, out: &mut Vec<u8>, total: usize) {
        match self.version {
            Version::Two if total > 0 => {
                leb128::write(out, 1);
                leb128::write(out, total as u64);
                self.changes
                    .iter()
                    .for_each(|piece| out.extend_from_slice(piece));
            }
            Version::One | Version::Two => {
                leb128::write(out, self.changes.len() as u64);
                for piece in self.changes {
                    leb128::write(out, piece.len() as u64);
                    out.extend_from_slice(piece);
                }
            }
        }
    }

    fn flag_bits(&self) -> u8 {
        let reset = if self.sync_reset { BIT_SYNC_RESET } else { 0 };
        let read_only = if self.read_only { BIT_READ_ONLY } else { 0 };
        BIT_SUPPORTS_SYNC_RESET | reset | read_only
    }
}

/// The message that was encoded last. Most of those who are told something new are told the same.
pub(crate) struct Encoded {
    version: Version,
    heads: Vec<ChangeHash>,
    need: Vec<ChangeHash>,
    have: OurHave,
    changes: Vec<Bytes>,
    flag_bits: u8,
    bytes: Bytes,
}

impl Encoded {
    fn new(message: &Outgoing<'_>) -> Self {
        Self {
            version: message.version,
            heads: message.heads.to_vec(),
            need: message.need.to_vec(),
            have: message.have,
            changes: message.changes.to_vec(),
            flag_bits: message.flag_bits(),
            bytes: message.encode().into(),
        }
    }

    fn is_of(&self, message: &Outgoing<'_>) -> bool {
        // the same place in memory, which is held for as long: to compare what lies there could take longer than to
        // encode it again
        let same = |(one, other): (&Bytes, &Bytes)| one.as_ptr_range() == other.as_ptr_range();
        self.version == message.version
            && self.heads == message.heads
            && self.need == message.need
            && self.have == message.have
            && self.flag_bits == message.flag_bits()
            && self.changes.len() == message.changes.len()
            && self.changes.iter().zip(message.changes).all(same)
    }
}

fn write_hashes(out: &mut Vec<u8>, hashes: &[ChangeHash]) {
    leb128::write(out, hashes.len() as u64);
    hashes
        .iter()
        .for_each(|hash| out.extend_from_slice(hash.as_bytes()));
}

#[cfg(test)]
mod tests {
    use automerge::{
        Automerge, ROOT,
        sync::{Message, MessageFlags, State, SyncDoc},
        transaction::Transactable,
    };
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &Bytes) -> Result<SyncMessage<'_>, Malformed> {
        SyncMessage::parse(Excerpt::all(bytes))
    }

    fn theirs(hashes: &[ChangeHash]) -> Vec<automerge::ChangeHash> {
        hashes
            .iter()
            .map(|hash| automerge::ChangeHash(*hash.as_bytes()))
            .collect()
    }

    fn sorted(hashes: Vec<[u8; 32]>) -> Vec<ChangeHash> {
        let mut hashes: Vec<_> = hashes.into_iter().map(ChangeHash::from_bytes).collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    proptest! {
        #[test]
        fn what_we_write_automerge_reads(
            heads in proptest::collection::vec(any::<[u8; 32]>(), 0..4).prop_map(sorted),
            need in proptest::collection::vec(any::<[u8; 32]>(), 0..4).prop_map(sorted),
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 0..3),
            two: bool, sync_reset: bool, read_only: bool,
        ) {
            let pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
            let version = if two { Version::Two } else { Version::One };
            let have = OurHave::Heads;
            let ours = Outgoing { version, heads: &heads, need: &need, have, changes: &pieces, sync_reset, read_only };
            let bytes = Bytes::from(ours.encode());
            let read = Message::decode(&bytes).unwrap();
            prop_assert_eq!(&read.heads, &theirs(&heads));
            prop_assert_eq!(&read.need, &theirs(&need));
            prop_assert_eq!(&read.have[0].last_sync, &theirs(&heads));
            let flags = read.flags.unwrap();
            prop_assert_eq!(flags.contains(MessageFlags::SYNC_RESET), sync_reset);
            prop_assert_eq!(flags.contains(MessageFlags::READ_ONLY), read_only);
            prop_assert!(flags.contains(MessageFlags::SUPPORTS_SYNC_RESET));
            let joined: Vec<u8> = read.changes.iter().flatten().copied().collect();
            prop_assert_eq!(&joined, &pieces.concat());
            // all in one entry, or none
            let entries = if two { pieces.len().min(1) } else { pieces.len() };
            prop_assert_eq!(read.changes.iter().count(), entries);
            // and so do we
            let back = parse(&bytes).unwrap();
            prop_assert_eq!(&back.heads[..], &heads);
            prop_assert_eq!(&back.need[..], &need);
            prop_assert_eq!(&back.changes[..], &joined[..]);
        }

        #[test]
        fn bytes_of_any_kind_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), two: bool) {
            let mut bytes = bytes;
            bytes.insert(0, if two { VERSION_2 } else { VERSION_1 });
            drop(parse(&bytes.into()));
        }
    }

    #[test]
    fn what_automerge_writes_we_read() {
        let mut doc = Automerge::new();
        for n in 0..20 {
            let mut tx = doc.transaction();
            tx.put(ROOT, "n", n).unwrap();
            tx.commit();
        }
        let mut state = State::new();
        let first = Bytes::from(doc.generate_sync_message(&mut state).unwrap().encode());
        let read = parse(&first).unwrap();
        assert_eq!(theirs(&read.heads), doc.get_heads());
        assert!(read.changes.is_empty() && read.need.is_empty());
        let flags = read.flags.unwrap();
        assert!(
            flags.supports_sync_reset && flags.as_bits && !flags.read_only && !flags.sync_reset
        );
        for change in doc.get_changes(&[]) {
            assert!(
                read.have[0]
                    .bloom
                    .contains(&ChangeHash::from_bytes(change.hash().0))
            );
        }
        // the flags of the first generation, before there were bits
        let old = Bytes::from([&first[..first.len() - 3], &[1, 2]].concat());
        let flags = parse(&old).unwrap().flags.unwrap();
        assert!(!flags.as_bits && !flags.supports_sync_reset && !flags.read_only);
    }

    #[test]
    fn messages_made_to_hurt_are_refused() {
        let hostile: &[&[u8]] = &[
            &[],
            &[0x44, 0, 0, 0, 0],
            &[0x42, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3],
            &[0x42, 0, 0, 1, 0, 3, 1, 0, 7, 0],
            &[0x42, 0, 0, 0, 5, 1, 0],
        ];
        for bytes in hostile {
            assert!(parse(&Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }

    /// A message with so many heads, needed hashes, and entries in its `have`.
    fn message_of(heads: usize, need: usize, haves: usize) -> Bytes {
        let mut bytes = vec![VERSION_1];
        for count in [heads, need] {
            leb128::write(&mut bytes, count as u64);
            for n in 0..count {
                bytes.extend([[0; 8], (n as u64).to_be_bytes(), [0; 8], [0; 8]].concat());
            }
        }
        leb128::write(&mut bytes, haves as u64);
        bytes.resize(bytes.len() + 2 * haves, 0);
        bytes.push(0);
        bytes.into()
    }

    #[test]
    fn hashes_and_haves_are_taken_up_to_their_limits_and_no_more() {
        let sizes = |bytes| {
            let bytes = bytes;
            let read = parse(&bytes)?;
            Ok((read.heads.len(), read.need.len(), read.have.len()))
        };
        let most = (HASHES_MAX, HASHES_MAX, HAVES_MAX);
        assert_eq!(sizes(message_of(most.0, most.1, most.2)), Ok(most));
        for beyond in [
            message_of(HASHES_MAX + 1, 0, 0),
            message_of(0, HASHES_MAX + 1, 0),
            message_of(0, 0, HAVES_MAX + 1),
        ] {
            assert_eq!(sizes(beyond), Err(Malformed));
        }
    }

    #[test]
    fn only_who_has_something_sends_nothing_and_remembers_nothing_begins_anew() {
        let is_reset = |bytes: &[u8]| {
            let bytes = Bytes::copy_from_slice(bytes);
            parse(&bytes).unwrap().is_reset()
        };
        let one_head = [&[VERSION_1, 1][..], &[7; 32], &[0]].concat();
        let with = |rest: &[u8]| [&one_head, rest].concat();
        assert!(is_reset(&with(&[1, 0, 0, 0])));
        // as one of several
        let filter = [0, 5, 1, 10, 7, 0xff, 0xff];
        assert!(is_reset(&with(&[&[2][..], &filter, &[0, 0, 0]].concat())));
        assert!(!is_reset(&[VERSION_1, 0, 0, 1, 0, 0, 0]), "it has nothing");
        assert!(
            !is_reset(&with(&[0, 0])),
            "it does not say what it remembers"
        );
        assert!(!is_reset(&with(&[1, 0, 0, 1, 1, 9])), "it sends something");
        assert!(
            !is_reset(&with(&[&[1][..], &filter, &[0]].concat())),
            "it has a filter"
        );
        let synced = [&[1, 1][..], &[7; 32], &[0, 0]].concat();
        assert!(!is_reset(&with(&synced)), "it remembers a sync");
    }

    #[test]
    fn each_flag_is_told_from_the_others() {
        let flags = |byte| {
            let flags = Flags::parse(&[byte]);
            (flags.sync_reset, flags.read_only, flags.supports_sync_reset)
        };
        assert_eq!(flags(0x80), (false, false, false));
        assert_eq!(flags(0x81), (true, false, false));
        assert_eq!(flags(0x82), (false, true, false));
        assert_eq!(flags(0x84), (false, false, true));
        // not marked as bits
        assert_eq!(flags(0x07), (false, false, false));
    }

    #[test]
    fn the_flags_are_told_from_the_end_of_a_message_alone() {
        let as_bits = |end: &[u8]| {
            let message = [&[VERSION_1, 0, 0, 0, 0][..], end].concat();
            flags_of(&message).map(|flags| flags.as_bits)
        };
        assert_eq!(as_bits(&[2, 2, 0x84]), Some(true));
        assert_eq!(as_bits(&[1, 2]), Some(false));
        // none, others than we know, no bits
        assert_eq!(
            [&[][..], &[2, 3, 0x84], &[3, 2, 0x84], &[2, 2, 4], &[1, 3]].map(as_bits),
            [None; 5]
        );
    }
}
